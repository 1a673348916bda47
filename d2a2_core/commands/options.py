"""Options that several commands have."""

from __future__ import annotations

import argparse
import re

from d2a2_core.defaults import DEFAULT_WEIGHTS


def add_weights(p: argparse.ArgumentParser, kinds: str = ".safetensors", auto: bool = False) -> None:
    """Adds --weights; ``kinds`` are the files that will do, ``auto`` says whether auto will, too."""
    choice = (
        "; auto: the most accurate ones that hold 10 Hz on this CPU, measured once; on a GPU the most accurate ones"
    )
    p.add_argument(
        "--weights",
        default=DEFAULT_WEIGHTS,
        help=f"shipped name or path of a {kinds} file{choice if auto else ''}",
    )


def add_device(p: argparse.ArgumentParser) -> None:
    """Adds --device."""
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")


def add_network_options(p: argparse.ArgumentParser, runtime: str, auto: bool = False) -> None:
    """Adds which weights are used, and where and how they are computed.

    Args:
        runtime: Default of --runtime.
        auto: Whether --weights may be auto.
    """
    from d2a2_core.runtime import RUNTIMES

    add_weights(p, ".safetensors or .onnx", auto)
    add_device(p)
    p.add_argument(
        "--precision", default="auto", help="auto, float32, float16, bfloat16, or int8 (on a CPU, by OpenVINO)"
    )
    add_ensemble(p)
    p.add_argument(
        "--runtime",
        default=runtime,
        choices=RUNTIMES,
        help="what computes the network. openvino: on a CPU, takes seconds for each new size and less time for each frame. "
        f"auto: openvino where it is installed and can compute the network. Default: {runtime}",
    )


def add_ensemble(p: argparse.ArgumentParser) -> None:
    """Adds --ensemble."""
    from d2a2_core.network.ensemble import VIEWS

    p.add_argument(
        "--ensemble",
        type=int,
        default=1,
        choices=tuple(VIEWS),
        help="average the network's results over so many views of each pair, turned and mirrored: more accurate, and as many "
        "times slower",
    )


def add_overwrite(p: argparse.ArgumentParser) -> None:
    """Adds --overwrite."""
    p.add_argument("--overwrite", action="store_true", help="replace files that are there and are not this command's")


def add_registration(p: argparse.ArgumentParser) -> None:
    """Adds --registration."""
    p.add_argument(
        "--registration", default="auto", choices=("auto", "on", "off"), help="of depth to the colour camera"
    )


def add_scale(p: argparse.ArgumentParser) -> None:
    """Adds --scale, which must be given."""
    p.add_argument("--scale", type=int, required=True, choices=(4, 8, 16), help="colour size / depth size")


def add_size(p: argparse.ArgumentParser, of: str = "the colour image") -> None:
    """Adds --size, for :func:`parse_size`."""
    p.add_argument("--size", default="640x480", help=f"of {of}, WIDTHxHEIGHT")


def parse_size(text: str) -> tuple[int, int]:
    """(height, width) of "640x480".

    Raises:
        ValueError: another form.
    """
    size = re.fullmatch(r"(\d+)x(\d+)", text.lower())
    if not size:
        raise ValueError(f"--size must be WIDTHxHEIGHT, for example 640x480; got {text!r}")
    return int(size[2]), int(size[1])
