"""Commands for what is fitted beside frozen weights: calibrate, int8."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

from d2a2_core.commands.options import add_device, add_overwrite, add_weights, parse_size
from d2a2_core.files import check_outputs, is_our_png


def _add_scenes(p: argparse.ArgumentParser, kind: str, images: int, held_out: int) -> None:
    """Adds the weights, the scenes that they are run on, and the file of ``kind`` beside them that is written."""
    add_weights(p)
    p.add_argument("--out", type=Path, help=f"file to write; default: NAME.{kind}.safetensors beside the weights")
    p.add_argument("--seed", type=int, default=0, help="of the scenes and what is drawn from them")
    p.add_argument("--images", type=int, default=images, help=f"generated scenes to learn from (default {images})")
    p.add_argument("--held-out", type=int, default=held_out, help=f"other ones to measure on (default {held_out})")
    p.add_argument("--data", default="shapes", help="scenes, as of d2a2 train")
    p.add_argument("--root", default="", help="their folder, as of d2a2 train")
    add_overwrite(p)


def _check_sidecar(o: argparse.Namespace, kind: str) -> None:
    """Raises FileExistsError where the file that will be written would take the place of one of another kind."""
    from d2a2_core.weights import resolve_weights
    from d2a2_core.weights.sidecars import SIDECARS

    sidecar, weights = next(s for s in SIDECARS if s.kind == kind), resolve_weights(o.weights)
    check_outputs([o.out or sidecar.path(weights)], sidecar.wrote, [weights], o.overwrite)


def _calibrate_options(p: argparse.ArgumentParser) -> None:
    _add_scenes(p, "sigma", images=360, held_out=90)
    p.add_argument("--size", nargs="+", help="of the scenes, in turn: WIDTHxHEIGHT, multiples of 16 (default: three)")
    p.add_argument("--steps", type=int, default=1500, help="of the head's training")
    p.add_argument(
        "--plot",
        type=Path,
        help="PNG of the reliability plot, which needs matplotlib (default where it is installed: reliability.png)",
    )
    add_device(p)


def _calibrate(o: argparse.Namespace) -> None:
    from d2a2_core.calibration.cases import SIZES
    from d2a2_core.calibration.reliability import format_table
    from d2a2_core.calibration.sigma import calibrate

    plot = o.plot or (Path("reliability.png") if importlib.util.find_spec("matplotlib") else None)
    _check_sidecar(o, "sigma")
    check_outputs([plot] if plot else [], is_our_png, overwrite=o.overwrite)
    sizes = [parse_size(text) for text in o.size] if o.size else SIZES
    path, table = calibrate(
        o.weights, o.out, o.seed, o.images, o.held_out, o.data, o.root, sizes, o.steps, o.device, plot
    )
    print(f"{format_table(table)}\nwritten: {path}" + (f" and {plot}" if plot else ""))


def _int8_options(p: argparse.ArgumentParser) -> None:
    _add_scenes(p, "int8", images=48, held_out=30)


def _int8(o: argparse.Namespace) -> None:
    from d2a2_core.calibration.int8_ranges import measure_int8

    _check_sidecar(o, "int8")
    path, errors = measure_int8(o.weights, o.out, o.seed, o.images, o.held_out, o.data, o.root)
    for name, value in errors.items():
        print(f"held-out {name} {value}")
    if not errors and o.held_out:
        print("not compared: that takes the package openvino")
    print(f"written: {path}")


COMMANDS = {
    "calibrate": (_calibrate_options, _calibrate),
    "int8": (_int8_options, _int8),
}
