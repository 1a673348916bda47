"""Settings of a training run: one dataclass, presets, YAML files and overrides."""

from __future__ import annotations

import math
import reprlib
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from d2a2_core.documents import read_yaml
from d2a2_core.files import replacing


def _setting(
    group: str,
    default: Any,
    help: str,
    choices: tuple[str, ...] = (),
    bounds: tuple[int, int | None] | None = None,
) -> Any:
    """A field of :class:`TrainConfig` that carries its meaning: ``bounds`` are inclusive, an upper one of None is no bound."""
    about = {"group": group, "help": help, "choices": choices, "bounds": bounds}
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=about)
    return field(default=default, metadata=about)


_model, _data, _how = partial(_setting, "model"), partial(_setting, "data"), partial(_setting, "optimisation")
_machine, _bookkeeping = partial(_setting, "machine"), partial(_setting, "bookkeeping")
_NAMES = {
    float: "a number",
    int: "a whole number",
    str: "a text",
    bool: "true or false",
    dict: "'name: value' entries",
    tuple: "whole numbers",
}
_LARGEST = 10**12
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 200
_SHARE, _COUNT, _NOT_NEGATIVE = (0, 1), (1, None), (0, None)


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides the outcome of a run. The defaults are the paper's recipe; ``preset`` names others."""

    model: dict[str, Any] = _model(  # noqa: RUF009 (it returns a field)
        {"model": "d2a2", "scale": 4},
        "The network and its options, for example {model: d2a2, scale: 4, channels: 64} or "
        "{model: d2a2-lite, geometric: false, channels: 48}.",
    )
    init: str = _model(
        "",
        "Weights to start from, a shipped name or a path; empty: random weights. Weights of another scale can be used, for "
        "d2a2-lite also those of a narrower network.",
    )

    data: str = _data(
        "nyuv2",
        "What to train on: nyuv2, shapes (drawn during training), generated (folders of d2a2 generate) or mixed (shapes and "
        "generated). All but shapes need root.",
        choices=("nyuv2", "shapes", "generated", "mixed"),
    )
    root: str = _data("", "Folder of the data set. Of generated scenes there may be several, separated by commas.")
    rooms_share: float = _data(
        0.5, "Probability that a sample of mixed data comes from root, not from shapes.", bounds=_SHARE
    )
    scales: tuple[int, ...] = _data(
        (4,), "Scales to train. Each batch draws one; one that is listed twice is drawn twice as often."
    )
    crop: int = _data(256, "Width and height of a sample, pixels.", bounds=_COUNT)
    range_jitter: float = _data(
        0.0, "Probability that depth is normalised by a wider range than the crop's own.", bounds=_SHARE
    )
    misalign: float = _data(
        0.0, "Probability of soft depth that is shifted against colour, and whose objects may be larger.", bounds=_SHARE
    )
    soft: float = _data(
        0.0,
        "Probability of depth edges a few pixels wide, as benchmark images have them. Keep it at 0 for real sensors.",
        bounds=_SHARE,
    )
    captured: float = _data(
        0.0,
        "Probability of depth as data sets made with a depth camera publish it: ragged, its holes filled along colours. Such "
        "samples are neither misaligned nor soft.",
        bounds=_SHARE,
    )
    sensor: float = _data(
        0.0,
        "Probability of low-resolution depth with a depth camera's noise, mixed edges and holes, and of a degraded colour image.",
        bounds=_SHARE,
    )
    disparity: float = _data(
        0.0,
        "Probability of depth turned into disparity (large is near), as Middlebury's is. Keep it at 0 for real sensors.",
        bounds=_SHARE,
    )
    seed: int = _data(0, "Seed of the initial weights and of all batches.", bounds=_NOT_NEGATIVE)

    batch_size: int = _how(4, "Samples per step, over all processes.", bounds=_COUNT)
    # 800 training pairs / 4 * 500 epochs
    steps: int = _how(100_000, "Steps to train.", bounds=_COUNT)
    lr: float = _how(1e-4, "Learning rate of Adam.", bounds=_NOT_NEGATIVE)
    offset_lr: float = _how(
        1.0, "Factor on the learning rate of the deformable convolutions' offsets and masks.", bounds=_NOT_NEGATIVE
    )
    schedule: str = _how(
        "fixed", "Learning rate over time: fixed, or cosine (zero at the last step).", choices=("fixed", "cosine")
    )
    warmup: int = _how(0, "Steps in which the learning rate first rises linearly.", bounds=_NOT_NEGATIVE)
    l2_weight: float = _how(
        0.0,
        "Weight of the squared error that is added to the L1 loss. It acts on edges, where L1 alone is content early.",
        bounds=_NOT_NEGATIVE,
    )
    relative_loss: bool = _how(
        False,
        "Whether each sample's loss is divided by that of bicubic enlargement. Without it, x16 and hopeless samples outweigh the "
        "rest.",
    )
    measured_share: float = _how(
        0.0,
        "Fraction of the loss computed on measured pixels only (a quarter of it on doubtful ones). Without it, holes dominate. "
        "Needs relative_loss.",
        bounds=_SHARE,
    )
    teacher: str = _how(
        "", "Weights whose output is learnt along with the truth, a shipped name or a path; empty: none."
    )
    teacher_share: float = _how(
        0.5, "Fraction of the teacher's output in the target; the rest is the truth.", bounds=_SHARE
    )
    teacher_views: int = _how(
        2, "Views of a pair, drawn for each step, over which the teacher's output is averaged; 1 to 8.", bounds=(1, 8)
    )
    clip: float = _how(0.0, "Largest norm of the gradient; 0: no limit.", bounds=_NOT_NEGATIVE)
    ema: float = _how(
        0.0,
        "Decay of the weights' moving average, which is validated and saved in their place; 0: no average.",
        bounds=_SHARE,
    )
    precision: str = _how(
        "float32",
        "Of the computation: float32, bf16, fp16 (on a GPU only) or auto (bf16 where the hardware supports it).",
        choices=("float32", "bf16", "fp16", "auto"),
    )

    device: str = _machine(
        "auto", "Where to train: auto (a GPU where there is one), cpu or cuda.", choices=("auto", "cpu", "cuda")
    )
    workers: int = _machine(2, "Processes that make batches; 0: the training process does.", bounds=_NOT_NEGATIVE)
    threads: int = _machine(0, "CPU threads of torch; 0: its own default.", bounds=_NOT_NEGATIVE)

    validate_every: int = _bookkeeping(1000, "Steps from one validation to the next.", bounds=_COUNT)
    validate_batches: int = _bookkeeping(16, "Held-out batches of a validation.", bounds=_NOT_NEGATIVE)
    save_every: int = _bookkeeping(500, "Steps from one checkpoint to the next.", bounds=_COUNT)
    log_every: int = _bookkeeping(50, "Steps from one row of curve.csv to the next.", bounds=_COUNT)
    tensorboard: bool = _bookkeeping(True, "Whether curves and pictures are also written for TensorBoard.")


PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    "lite": {
        "model": {"model": "d2a2-lite", "geometric": False}, "data": "shapes", "scales": (4, 8, 16), "crop": 192,
        "range_jitter": 0.5, "misalign": 0.1, "batch_size": 8, "steps": 5000, "lr": 1e-3, "schedule": "cosine",
        "warmup": 100, "clip": 1.0, "offset_lr": 0.1, "l2_weight": 3.0, "ema": 0.998, "precision": "auto", "workers": 1,
        "validate_every": 500, "save_every": 100,
    },
}  # fmt: skip


def make_config(
    preset: str = "paper", file: str | Path | None = None, overrides: dict[str, Any] | None = None
) -> TrainConfig:
    """A preset, changed by a YAML file, changed by overrides (names of :class:`TrainConfig`'s fields).

    Raises:
        ValueError: no YAML, unknown preset or setting, or a value of the wrong type; the message names it.
    """
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}; known are {sorted(PRESETS)}")
    changes = dict(PRESETS[preset])
    if file is not None:
        loaded = read_yaml(file) or {}
        if not isinstance(loaded, dict):
            raise ValueError(f"{file} must hold settings as 'name: value' lines")
        changes |= loaded
    changes |= overrides or {}
    model = changes.get("model")
    if isinstance(model, dict) and "scale" in model and "scales" not in changes:
        changes["scales"] = (model["scale"],)
    known = {f.name: getattr(TrainConfig(), f.name) for f in fields(TrainConfig)}
    for name, value in changes.items():
        if name not in known:
            raise ValueError(f"unknown setting {shown(name)}; known are {', '.join(known)}")
        changes[name] = _convert(name, value, known[name])
    config = replace(TrainConfig(), **changes)
    _check(config)
    return config


def save_config(config: TrainConfig, path: str | Path) -> None:
    """Writes all settings as YAML that :func:`make_config` reads."""
    with replacing(path) as partial:
        partial.write_text(yaml.safe_dump(asdict(config) | {"scales": list(config.scales)}, sort_keys=False))


def _convert(name: str, value: Any, default: Any) -> Any:
    try:
        if isinstance(default, tuple):
            return tuple(int(v) for v in (value if isinstance(value, (list, tuple)) else [value]))
        if isinstance(default, float) and isinstance(value, (int, str)) and not isinstance(value, bool):
            # YAML reads 1e-3 as a string.
            value = float(value)
    except (ValueError, TypeError, OverflowError):
        pass
    if not isinstance(value, type(default)) or (isinstance(value, bool) != isinstance(default, bool)):
        raise ValueError(f"setting {name!r} must be {_NAMES[type(default)]}, got {shown(value)}")
    return value


def shown(value: Any) -> str:
    """A value for a message: YAML's references let a short file stand for one of any length."""
    return _REPR.repr(value)


def _check(config: TrainConfig) -> None:
    from d2a2_core.network import SCALES  # not above: `d2a2 train --help` need not wait for PyTorch

    for f in fields(config):
        value, choices, bounds = getattr(config, f.name), f.metadata["choices"], f.metadata["bounds"]
        if choices and value not in choices:
            raise ValueError(f"setting {f.name!r} must be one of {choices}, got {shown(value)}")
        if bounds:
            low, high = bounds
            if not low <= value <= (math.inf if high is None else high):
                wanted = f"at least {low}" if high is None else f"from {low} to {high}"
                raise ValueError(f"setting {f.name!r} must be {wanted}, got {value}")
        if isinstance(value, (int, float)) and not abs(value) <= _LARGEST:
            raise ValueError(f"setting {f.name!r} must be at most {_LARGEST}, got {value}")
    model = config.model
    fitting = [model.get("scale", 4)] if model.get("model") == "d2a2" else model.get("scales", SCALES)
    if (
        not isinstance(fitting, (list, tuple))
        or not config.scales
        or any(scale not in fitting for scale in config.scales)
    ):
        raise ValueError(f"setting 'scales' {list(config.scales)} do not fit the model {shown(model)}")
    if config.measured_share and not config.relative_loss:
        raise ValueError(
            f"setting 'measured_share' {config.measured_share} is a share of relative_loss; set that to true"
        )
    if config.sensor and config.model.get("back_projections"):
        # Measured: 1,300 steps with it took the RMSE on the sample recording from 69 to 83 mm.
        raise ValueError(
            f"setting 'sensor' {config.sensor} makes noisy LR, which a model with back_projections "
            f"{config.model['back_projections']} would hold its result to; leave back_projections out of 'model'"
        )
