"""Commands for training and its data: train, ablate, generate, prepare-nyu."""

from __future__ import annotations

import argparse
import os
from dataclasses import MISSING, fields
from itertools import groupby
from pathlib import Path

import yaml

from d2a2_core.commands.options import add_size, parse_size
from d2a2_core.files import check_outputs, is_our_png


def _train_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--out", type=Path, required=True, help="the run's folder; a run that is there goes on")
    _add_train_settings(p)


def _add_train_settings(p: argparse.ArgumentParser) -> None:
    from d2a2_core.training.config import PRESETS, TrainConfig

    p.add_argument("--preset", default="paper", choices=sorted(PRESETS), help="settings to start from")
    p.add_argument("--config", type=Path, help="YAML file with settings that override the preset's")
    for title, settings in groupby(fields(TrainConfig), lambda f: f.metadata["group"]):
        group = p.add_argument_group(title)
        for f in settings:
            default = f.default if f.default is not MISSING else f.default_factory()
            group.add_argument(
                f"--{f.name.replace('_', '-')}",
                dest=f"set_{f.name}",
                metavar="VALUE",
                help=f"{f.metadata['help']} Default: {default!r}.",
            )


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


def _ablate_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--table", type=int, required=True, choices=(2, 3, 4), help="of the paper")
    p.add_argument(
        "--out", type=Path, required=True, help="folder of the runs and of the table; goes on when started again"
    )
    _add_train_settings(p)


def _ablate(o: argparse.Namespace) -> None:
    from d2a2_core.training.ablations import run_ablation

    print(run_ablation(o.table, _settings(o), o.out))


def _generate_options(p: argparse.ArgumentParser) -> None:
    from d2a2_core.data.scenes.generate import KINDS
    from d2a2_core.data.scenes.sequences import MOTIONS

    p.add_argument(
        "--scenes",
        required=True,
        choices=(*KINDS, "sequences"),
        help="mixed is rooms and clutter; all but shapes need models. sequences: folder recordings in rooms, with exact depth "
        "and poses, for `d2a2 upsample` and for what works over time",
    )
    p.add_argument("--count", type=int, required=True)
    p.add_argument("--motion", default="camera", choices=MOTIONS, help="sequences: what moves")
    p.add_argument("--frames", type=int, default=16, help="sequences: frames of each")
    add_size(p, "the images")
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


def _generate(o: argparse.Namespace) -> None:
    from d2a2_core.data.scenes.generate import Settings, generate
    from d2a2_core.data.scenes.scene_folder import write_preview

    height, width = parse_size(o.size)
    if o.scenes == "sequences":
        _generate_sequences(o, (width, height))
        return
    check_outputs([o.out / "preview.png"] if o.preview else [], is_our_png)
    furniture = "" if o.scenes == "shapes" else str(o.furniture)
    made = generate(Settings(o.scenes, o.count, (width, height), o.seed, furniture, o.licences), o.out, o.workers)
    if o.preview:
        write_preview(o.out, o.out / "preview.png")
    print(f"{made} scenes written to {o.out}, which now has {o.count}")


def _generate_sequences(o: argparse.Namespace, size: tuple[int, int]) -> None:
    from d2a2_core.data.scenes.sequences import SequenceSettings, generate_sequences

    if o.preview or o.workers > 1:
        raise ValueError("--preview and --workers are not for sequences")
    settings = SequenceSettings(o.motion, o.frames, size, o.seed, str(o.furniture), o.licences)
    made = generate_sequences(settings, o.count, o.out)
    print(f"{made} sequences written to {o.out}, which now has {o.count}")


def _prepare_nyu_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("mat", type=Path)
    p.add_argument("out", type=Path)


def _prepare_nyu(o: argparse.Namespace) -> None:
    from d2a2_core.data.sets.nyu import prepare_nyu

    print(f"{prepare_nyu(o.mat, o.out)} pairs written to {o.out}")


COMMANDS = {
    "train": (_train_options, _train),
    "ablate": (_ablate_options, _ablate),
    "generate": (_generate_options, _generate),
    "prepare-nyu": (_prepare_nyu_options, _prepare_nyu),
}
