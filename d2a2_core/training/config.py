"""Settings of a training run: one dataclass, presets, YAML files and overrides."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides the outcome of a run. The defaults are the paper's recipe; ``preset`` names others."""

    # what is trained
    model: dict[str, Any] = field(default_factory=lambda: {"model": "d2a2", "scale": 4})
    init: str = ""  # weights to start from: a shipped name or a path ("" = random); another scale's will do
    # what it is trained on
    data: str = "nyuv2"  # nyuv2, generated | shapes (made on the fly) | mixed (these two); all but shapes need root
    root: str = ""  # folder of the data set; of generated scenes also several, with commas between them
    rooms_share: float = 0.5  # mixed: probability that a sample comes from root, not from shapes
    scales: tuple[int, ...] = (4,)  # one is drawn per batch
    crop: int = 256
    range_jitter: float = 0.0  # probability of normalising by a wider range than the crop's own
    misalign: float = 0.0  # probability of a soft, shifted depth map whose objects may be larger than in colour
    soft: float = (
        0.0  # probability of depth edges a few pixels wide, as benchmark images have them (clean weights only)
    )
    captured: float = 0.0  # probability of depth as sets made with a depth camera publish it, instead of the two above
    sensor: float = 0.0  # probability of an LR with a depth camera's noise, mixed edges and holes, colour degraded too
    disparity: float = (
        0.0  # probability of depth turned into disparity, large is near, as Middlebury's is (not for sensor)
    )
    seed: int = 0
    # how
    batch_size: int = 4  # over all processes
    steps: int = 100_000  # 800 training pairs / 4 * 500 epochs
    lr: float = 1e-4
    offset_lr: float = 1.0  # what the learning rate of the deformable convolutions' offsets is multiplied with
    schedule: str = "fixed"  # fixed | cosine (to zero at the last step)
    warmup: int = 0  # steps of linear warm-up
    l2_weight: float = (
        0.0  # of the squared error added to the L1 loss; pulls at edges, where L1 alone is content early on
    )
    relative_loss: bool = False  # divide each sample's loss by bicubic's: else x16 and the hopeless outweigh the rest
    measured_share: float = (
        0.0  # of a relative loss that is of measured pixels alone, doubtful ones a quarter: else holes outweigh them
    )
    teacher: str = ""  # weights whose answers are learnt along with the truth: a shipped name or a path ("" = none)
    teacher_share: float = 0.5  # of the teacher's answer in the target, the rest is the truth
    teacher_views: int = 2  # of a pair, drawn for each step, over which the teacher's answer is the mean (1 to 8)
    clip: float = 0.0  # largest gradient norm (0 = off)
    ema: float = 0.0  # decay of the averaged weights that are validated and shipped (0 = off)
    precision: str = (
        "float32"  # float32 | bf16 | fp16 (autocast; fp16 on a GPU only) | auto: bf16 where hardware has it
    )
    # bookkeeping
    device: str = "auto"  # auto | cpu | cuda
    workers: int = 2  # processes that make batches; 0 = in the training process
    threads: int = 0  # torch threads (0 = torch's default)
    validate_every: int = 1000
    validate_batches: int = 16  # held-out batches
    save_every: int = 500
    log_every: int = 50
    tensorboard: bool = True


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
        ValueError: unknown preset or setting, or a value of the wrong type; the message names it.
    """
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}; known are {sorted(PRESETS)}")
    changes = dict(PRESETS[preset])
    if file is not None:
        loaded = yaml.safe_load(Path(file).read_text()) or {}
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
            raise ValueError(f"unknown setting {name!r}; known are {', '.join(known)}")
        changes[name] = _convert(name, value, known[name])
    config = replace(TrainConfig(), **changes)
    _check(config)
    return config


def save_config(config: TrainConfig, path: str | Path) -> None:
    """Writes all settings as YAML that :func:`make_config` reads."""
    path = Path(path)
    partial = path.with_name(path.name + ".partial")  # a kill in between leaves the old file
    partial.write_text(yaml.safe_dump(asdict(config) | {"scales": list(config.scales)}, sort_keys=False))
    partial.replace(path)


def _convert(name: str, value: Any, default: Any) -> Any:
    if isinstance(default, tuple):
        return tuple(int(v) for v in (value if isinstance(value, (list, tuple)) else [value]))
    if isinstance(default, float) and isinstance(value, (int, str)):  # YAML reads 1e-3 as a string
        try:
            return float(value)
        except ValueError:
            pass
    if not isinstance(value, type(default)) or (isinstance(value, bool) != isinstance(default, bool)):
        raise ValueError(f"setting {name!r} must be {type(default).__name__}, got {value!r}")
    return value


def _check(config: TrainConfig) -> None:
    from d2a2_core.network import SCALES  # not above: `d2a2 train --help` need not wait for PyTorch

    choices = {
        "schedule": ("fixed", "cosine"),
        "precision": ("float32", "bf16", "fp16", "auto"),
        "device": ("auto", "cpu", "cuda"),
        "data": ("nyuv2", "shapes", "generated", "mixed"),
    }
    for name, allowed in choices.items():
        if getattr(config, name) not in allowed:
            raise ValueError(f"setting {name!r} must be one of {allowed}, got {getattr(config, name)!r}")
    for name in ("batch_size", "steps", "crop", "validate_every", "save_every", "log_every"):
        if getattr(config, name) < 1:
            raise ValueError(f"setting {name!r} must be at least 1, got {getattr(config, name)}")
    for name in ("lr", "offset_lr", "warmup", "l2_weight", "clip", "workers", "threads", "validate_batches"):
        if getattr(config, name) < 0:
            raise ValueError(f"setting {name!r} must not be negative, got {getattr(config, name)}")
    if not 1 <= config.teacher_views <= 8:
        raise ValueError(f"setting 'teacher_views' must be from 1 to 8, got {config.teacher_views}")
    model = config.model
    fitting = model.get("scales", SCALES) if model.get("model") == "d2a2-lite" else [model.get("scale", 4)]
    if not config.scales or not set(config.scales) <= set(fitting):
        raise ValueError(f"setting 'scales' {list(config.scales)} do not fit the model {model}")
    for name in (
        "ema",
        "rooms_share",
        "range_jitter",
        "misalign",
        "soft",
        "captured",
        "sensor",
        "disparity",
        "measured_share",
        "teacher_share",
    ):
        if not 0 <= getattr(config, name) <= 1:
            raise ValueError(f"setting {name!r} must be in [0, 1], got {getattr(config, name)}")
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
