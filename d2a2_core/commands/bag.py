"""The command line of `d2a2 bag`: its options, the engine, and what it says at the end."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path
from typing import Any

from d2a2_core.bag import BagOptions, Summary, upsample_bag
from d2a2_core.commands.options import add_network_options
from d2a2_core.depth.provenance import POINTS_PROVENANCE
from d2a2_core.messages.camera_info import RECTIFIED_INPUTS
from d2a2_core.stream import POINTS_EDGE, Engine
from d2a2_core.temporal import MODES

_HELP = {
    "color": "topic of the colour image (Image or CompressedImage); without it: by type, encoding and name",
    "depth": "topic of the depth image; registered depth is preferred",
    "color_info": "topic of the colour CameraInfo; without it: the one beside the image",
    "depth_info": "topic of the depth CameraInfo",
    "slop": "largest difference of the stamps of a pair, seconds",
    "prefix": "of the topics that are added",
    "depth_unit": "metres per count of the depth image; 0: 0.001 for 16-bit images, 1 for 32FC1",
    "cloud_stride": "the cloud takes every n-th row and column",
    "output_frame": "frame_id of the outputs; empty: the colour image's; for drivers whose own is not an optical frame",
    "start": "seconds from the bag's start at which upsampling begins; all messages are copied all the same",
    "end": "seconds from the bag's start at which upsampling ends",
    "temporal_frame": "fixed frame in which the camera moves, for --temporal moving; its transforms are on the bag's /tf",
    "remember_s": "with --temporal, holes keep what was seen there for so many seconds",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `d2a2 bag`."""
    parser.add_argument("input", type=Path, help="rosbag2 folder, or an .mcap or .db3 file")
    parser.add_argument("out", type=Path, help="folder of the new bag; OUT.partial beside it holds an interrupted run")
    for f in fields(BagOptions):
        if f.name in _HELP:
            kind = {"int": int, "float": float, "float | None": float}.get(f.type, str)
            shown = "" if f.default in (None, "") else f" (default {f.default})"
            parser.add_argument(_flag(f.name), type=kind, default=f.default, help=_HELP[f.name] + shown)
    parser.add_argument("--storage", choices=("mcap", "sqlite3"), help="of the new bag; without it: as the input")
    parser.add_argument("--cloud", action="store_true", help="add PREFIX/points")
    parser.add_argument(
        "--points-provenance", choices=tuple(POINTS_PROVENANCE), default="all",
        help="points of the cloud: measured; refined: and moved edges; filled: and filled holes; remembered: and "
        "holes that keep what was seen before; all",
    )  # fmt: skip
    parser.add_argument(
        "--points-edge", choices=POINTS_EDGE, default="keep",
        help="drop: without points that may lie in the air between two surfaces",
    )  # fmt: skip
    parser.add_argument(
        "--rectified-input", choices=RECTIFIED_INPUTS, default="auto",
        help="images without the lens distortion that their infos have; auto: topics with rect or rectified in their name",
    )  # fmt: skip
    parser.add_argument(
        "--temporal", choices=MODES, default="off",
        help="fuse results over time; still: the camera does not move; moving: its pose is on the bag's /tf",
    )  # fmt: skip
    parser.add_argument("--output-encoding", choices=("32FC1", "16UC1"), default="32FC1", help="metres or millimetres")
    parser.add_argument("--stamp-source", choices=("color", "depth"), default="color", help="whose stamps are kept")
    parser.add_argument(
        "--extrinsics", type=float, nargs=7, metavar=("TX", "TY", "TZ", "QX", "QY", "QZ", "QW"),
        help="from the depth to the colour camera, metres and quaternion; without it: --calibration, then /tf_static and /tf",
    )  # fmt: skip
    parser.add_argument(
        "--calibration", metavar="FILE",
        help="cameras and where they are, as a recording's calibration.json: in place of the bag's camera infos and transforms",
    )  # fmt: skip
    parser.add_argument("--scale", type=int, default=0, help="trained scale to use; 0: the nearest")
    group = parser.add_argument_group("pipeline", "as the live node's parameters of the same names, see docs/topics.md")
    for f in _pipeline_fields():
        if isinstance(f.default, bool):
            group.add_argument(_flag(f.name), action=argparse.BooleanOptionalAction, default=f.default)
        elif isinstance(f.default, tuple):
            group.add_argument(
                _flag(f.name), type=float, nargs=len(f.default), default=f.default, help=f"default {f.default}"
            )
        else:
            group.add_argument(_flag(f.name), type=type(f.default), default=f.default, help=f"default {f.default}")
    add_network_options(parser, "auto", auto=True)


def run(o: argparse.Namespace) -> None:
    """Does it, with the shipped or given weights, and prints what happened."""
    from tqdm import tqdm

    options = BagOptions(**{f.name: getattr(o, f.name) for f in fields(BagOptions)})
    engine, job = _engine(o)
    summary = upsample_bag(
        o.input, o.out, engine, options, job, lambda **kwargs: tqdm(disable=None, **kwargs), say=print
    )
    for line in report(summary):
        print(line)
    print(f"written: {o.out}")


def report(summary: Summary) -> list[str]:
    """What a user should know of a run that ended well."""
    lines = [
        f"{summary.written} of {summary.pairs} pairs upsampled, of {summary.color_images} colour and "
        f"{summary.depth_images} depth images"
        + (f"; {summary.resumed} were there from an interrupted run" if summary.resumed else "")
    ]
    lines += [f"skipped {count}: {summary.examples[cause]}" for cause, count in summary.skipped.most_common()]
    return lines + summary.notes


def _engine(o: argparse.Namespace) -> tuple[Engine, dict]:
    """The live node's engine, and what its results depend on."""
    from d2a2_core.pipeline import PipelineSettings
    from d2a2_core.weights import resolve_weights, sha256
    from d2a2_core.weights.sidecars import INT8, SIGMA
    from d2a2_core.weights_choice import open_engine

    settings = {f.name: getattr(o, f.name) for f in _pipeline_fields()}
    settings["color_offset"] = tuple(settings["color_offset"])
    # The watchdog only reports, or corrects as it goes, which a run that is resumed could not repeat.
    engine = open_engine(
        o.weights,
        o.device,
        o.precision,
        PipelineSettings(**settings, watchdog=False),
        print,
        scale=o.scale,
        ensemble=o.ensemble,
        runtime=o.runtime,
    )
    upsampler, job = engine.pipeline.upsampler, {}
    # Which of several were chosen is in the stream's state.
    for weights in engine.weights:
        path, mark = resolve_weights(weights), f" {weights}" if len(engine.weights) > 1 else ""
        files = {"weights": path, "sigma": SIGMA.path(path)}
        if upsampler.precision == "int8":
            files["int8"] = INT8.path(path)
        job |= {f"{name}{mark}": sha256(path) if path.is_file() else None for name, path in files.items()}
    # Not the runtime: at one precision results are the same to a micrometre.
    job |= {"device": str(upsampler.device), "precision": upsampler.precision, "scale": o.scale, "ensemble": o.ensemble}
    return engine, job | settings


def _pipeline_fields() -> list[Any]:
    from d2a2_core.pipeline import PipelineSettings

    return [f for f in fields(PipelineSettings) if f.name not in ("watchdog", "correct_offset")]


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


COMMANDS = {"bag": (add_options, run)}
