"""Commands for training: train, ablate, generate, prepare-nyu, calibrate."""

from __future__ import annotations

import argparse
import importlib.util
import os
from dataclasses import MISSING, fields
from pathlib import Path

import yaml

from d2a2_core.commands.options import parse_size
from d2a2_core.weights import DEFAULT_WEIGHTS


def add_to(commands: argparse._SubParsersAction) -> None:
    """Adds these commands to `d2a2`."""
    _add_train(commands)
    _add_ablate(commands)
    _add_generate(commands)
    _add_prepare_nyu(commands)
    _add_calibrate(commands)
    _add_int8(commands)


def _add_train(commands: argparse._SubParsersAction) -> None:
    p = commands.add_parser("train", help="train a network, or go on with a run")
    p.add_argument("--out", type=Path, required=True, help="the run's folder; a run that is there goes on")
    _add_train_settings(p)
    p.set_defaults(run=_train)


def _add_train_settings(p: argparse.ArgumentParser) -> None:
    from d2a2_core.training.config import PRESETS, TrainConfig

    p.add_argument("--preset", default="paper", choices=sorted(PRESETS), help="settings to start from")
    p.add_argument("--config", type=Path, help="YAML file with settings that override the preset's")
    for f in fields(TrainConfig):
        default = f.default if f.default is not MISSING else f.default_factory()
        p.add_argument(f"--{f.name.replace('_', '-')}", dest=f"set_{f.name}", help=f"default {default!r}")


def _settings(o: argparse.Namespace):
    from d2a2_core.training.config import TrainConfig, make_config

    given = {f.name: getattr(o, f"set_{f.name}") for f in fields(TrainConfig)}
    return make_config(o.preset, o.config, {k: _value(k, v) for k, v in given.items() if v is not None})


def _value(name: str, text: str):
    """A flag's value, read as YAML ("4", "[4, 8]", "{model: d2a2, scale: 8}"); texts stay texts."""
    from d2a2_core.training.config import TrainConfig

    default = getattr(TrainConfig(), name)
    return text if isinstance(default, str) else yaml.safe_load(text)


def _train(o: argparse.Namespace) -> None:
    from d2a2_core.training.trainer import train

    best = train(_settings(o), o.out)
    if os.environ.get("RANK", "0") == "0":
        print(f"weights: {best}")


def _add_ablate(commands: argparse._SubParsersAction) -> None:
    p = commands.add_parser("ablate", help="train and tabulate all rows of one of the paper's ablations")
    p.add_argument("--table", type=int, required=True, choices=(2, 3, 4), help="of the paper")
    p.add_argument(
        "--out", type=Path, required=True, help="folder of the runs and of the table; goes on when started again"
    )
    _add_train_settings(p)
    p.set_defaults(run=_ablate)


def _ablate(o: argparse.Namespace) -> None:
    from d2a2_core.training.ablations import run_ablation

    print(run_ablation(o.table, _settings(o), o.out))


def _add_generate(commands: argparse._SubParsersAction) -> None:
    from d2a2_core.data.scenes.generate import KINDS

    p = commands.add_parser("generate", help="make scenes to train on, or go on with a folder of them")
    p.add_argument(
        "--scenes", required=True, choices=KINDS, help="mixed is rooms and clutter; all but shapes need models"
    )
    p.add_argument("--count", type=int, required=True)
    p.add_argument("--size", default="640x480", help="WIDTHxHEIGHT")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--out", type=Path, required=True, help="folder; scenes that are there stay")
    p.add_argument("--workers", type=int, default=1, help="processes")
    p.add_argument(
        "--furniture", type=Path, default=Path("/usr/share/sweethome3d/furniture"), help="folder with *.sh3f"
    )
    p.add_argument(
        "--licences",
        default="CC0",
        type=lambda text: tuple(text.split(",")),
        help="of the models, with commas: CC0, CC-BY (their creators must be named: the manifest and the weights' cards do)",
    )
    p.add_argument("--preview", action="store_true", help="also write preview.png, a contact sheet of the first scenes")
    p.set_defaults(run=_generate)


def _generate(o: argparse.Namespace) -> None:
    from d2a2_core.data.scenes.generate import Settings, generate
    from d2a2_core.data.scenes.scene_folder import write_preview

    height, width = parse_size(o.size)
    furniture = "" if o.scenes == "shapes" else str(o.furniture)
    made = generate(Settings(o.scenes, o.count, (width, height), o.seed, furniture, o.licences), o.out, o.workers)
    if o.preview:
        write_preview(o.out, o.out / "preview.png")
    print(f"{made} scenes written to {o.out}, which now has {o.count}")


def _add_prepare_nyu(commands: argparse._SubParsersAction) -> None:
    p = commands.add_parser("prepare-nyu", help="unpack nyu_depth_v2_labeled.mat into the authors' folder layout")
    p.add_argument("mat", type=Path)
    p.add_argument("out", type=Path)
    p.set_defaults(run=_prepare_nyu)


def _prepare_nyu(o: argparse.Namespace) -> None:
    from d2a2_core.data.sets.nyu import prepare_nyu

    print(f"{prepare_nyu(o.mat, o.out)} pairs written to {o.out}")


def _add_calibrate(commands: argparse._SubParsersAction) -> None:
    p = commands.add_parser("calibrate", help="train and check the uncertainty head of weights")
    p.add_argument("--weights", default=DEFAULT_WEIGHTS, help="shipped name or path of a .safetensors file")
    p.add_argument("--out", type=Path, help="file of the head; default: NAME.sigma.safetensors beside the weights")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--images", type=int, default=360, help="generated scenes to train on")
    p.add_argument("--held-out", type=int, default=90, help="generated scenes to measure the coverage on")
    p.add_argument("--data", default="shapes", help="scenes, as of d2a2 train")
    p.add_argument("--root", default="", help="their folder, as of d2a2 train")
    p.add_argument("--size", nargs="+", help="of the scenes, in turn: WIDTHxHEIGHT, multiples of 16 (default: three)")
    p.add_argument("--steps", type=int, default=1500, help="of the head's training")
    p.add_argument(
        "--plot",
        type=Path,
        help="PNG of the reliability plot, which needs matplotlib (default where it is installed: reliability.png)",
    )
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    p.set_defaults(run=_calibrate)


def _calibrate(o: argparse.Namespace) -> None:
    from d2a2_core.calibration.cases import SIZES
    from d2a2_core.calibration.reliability import format_table
    from d2a2_core.calibration.sigma import calibrate

    plot = o.plot or (Path("reliability.png") if importlib.util.find_spec("matplotlib") else None)
    sizes = [parse_size(text) for text in o.size] if o.size else SIZES
    path, table = calibrate(
        o.weights, o.out, o.seed, o.images, o.held_out, o.data, o.root, sizes, o.steps, o.device, plot
    )
    print(f"{format_table(table)}\nwritten: {path}" + (f" and {plot}" if plot else ""))


def _add_int8(commands: argparse._SubParsersAction) -> None:
    p = commands.add_parser("int8", help="measure the ranges that weights need to be computed in int8")
    p.add_argument("--weights", default=DEFAULT_WEIGHTS, help="shipped name or path of a .safetensors file")
    p.add_argument("--out", type=Path, help="file of the ranges; default: NAME.int8.safetensors beside the weights")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--images", type=int, default=48, help="generated scenes to measure on")
    p.add_argument("--held-out", type=int, default=30, help="generated scenes to compare int8 with float32 on")
    p.add_argument("--data", default="shapes", help="scenes, as of d2a2 train")
    p.add_argument("--root", default="", help="their folder, as of d2a2 train")
    p.set_defaults(run=_int8)


def _int8(o: argparse.Namespace) -> None:
    from d2a2_core.calibration.int8_ranges import measure_int8

    path, errors = measure_int8(o.weights, o.out, o.seed, o.images, o.held_out, o.data, o.root)
    for name, value in errors.items():
        print(f"held-out {name} {value}")
    if not errors and o.held_out:
        print("not compared: that takes the package openvino and a CPU with VNNI")
    print(f"written: {path}")
