"""Options that several commands have."""

from __future__ import annotations

import argparse
import re

from d2a2_core.weights import DEFAULT_WEIGHTS


def add_model_options(p: argparse.ArgumentParser) -> None:
    """Which weights, where and how they are computed."""
    p.add_argument("--weights", default=DEFAULT_WEIGHTS, help="shipped name or path of a .safetensors or .onnx file")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    p.add_argument(
        "--precision",
        default="auto",
        help="auto, float32, float16, bfloat16, or int8 (on a CPU, by OpenVINO); --training: tf32, too",
    )


def add_ensemble(p: argparse.ArgumentParser) -> None:
    """Views of each pair."""
    from d2a2_core.network.ensemble import VIEWS

    p.add_argument(
        "--ensemble", type=int, default=1, choices=tuple(VIEWS),
        help="run the network on so many views of each pair, turned and mirrored, and average: more accurate, as much slower",
    )  # fmt: skip


def add_runtime(p: argparse.ArgumentParser, default: str) -> None:
    """What computes the network."""
    from d2a2_core.runtime import RUNTIMES

    p.add_argument(
        "--runtime", default=default, choices=RUNTIMES,
        help="what computes the network; OpenVINO: on a CPU, seconds for each new size and less for each frame; auto: "
        f"where it is installed and can (default: {default})",
    )  # fmt: skip


def parse_size(text: str) -> tuple[int, int]:
    """(height, width) of "640x480".

    Raises:
        ValueError: another form.
    """
    size = re.fullmatch(r"(\d+)x(\d+)", text.lower())
    if not size:
        raise ValueError(f"--size must be WIDTHxHEIGHT, for example 640x480; got {text!r}")
    return int(size[2]), int(size[1])
