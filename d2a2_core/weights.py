"""Weights on disk: safetensors with the model's configuration and provenance inside, and the authors' checkpoints."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from d2a2_core.network import D2A2, SCALES, build_model

#: The folder of the weights that ship with the package.
PRETRAINED = Path(__file__).parent / "pretrained"
#: What node, demo and command line use: small enough for a CPU, trained on the noise and holes of real sensors.
DEFAULT_WEIGHTS = "d2a2-lite-sensor"

# The authors' names (left, a prefix of their keys) and ours. Order matters: the first prefix that fits is taken.
_STAGE_NAMES = {
    "LDA.calc_msl.std_mlp.mlp": "dda.domain.align.std_mlp",
    "LDA.calc_msl.mean_mlp.mlp": "dda.domain.align.mean_mlp",
    "conv_after_LDA": "dda.domain.conv",
    "conv_fuse1": "dda.geometric.offset_features.0",
    "get_offset": "dda.geometric.offset_features.2",
    "DCN.conv_offset_mask": "dda.geometric.deform.predict",
    "DCN": "dda.geometric.deform",
    "conv_fuse2": "mfa.fuse",
    "GC.conv2d": "mfa.gate.feature",
    "GC.mask_conv2d": "mfa.gate.gate",
    "GC.batch_norm2d": "mfa.gate.norm",
    "attention.mul_conv1": "mfa.attention.conv1",
    "attention.mul_conv2": "mfa.attention.conv2",
}
_OFFICIAL_NAMES = {
    "LTE.conv_head": "guide_pyramid.head",
    "LTE.slice1": "guide_pyramid.level1",
    "LTE.slice2": "guide_pyramid.level2",
    "LTE.slice3": "guide_pyramid.level3",
    "mainNet.SFE.conv_head": "shallow.head",
    "mainNet.SFE.RBs": "shallow.blocks",
    **{f"mainNet.conv{i}{i}_head": f"stage{i}.head" for i in (1, 2, 3)},
    **{f"mainNet.concat{i}.{k}": f"stage{i}.{v}" for i in (1, 2, 3) for k, v in _STAGE_NAMES.items()},
    "mainNet.upsampler12.conv": "up1.0",
    "mainNet.upsampler23.conv": "up2.0",
    "mainNet.conv_tail1": "tail1",
    "mainNet.conv_tail2": "tail2",
}
_MIN_VARIANCE = 1e-4  # of BatchNorm's running variances in mixed weights
_GUIDE_HEAD = "guide_pyramid.head.0.weight"


class WeightsError(RuntimeError):
    """A weights file is missing, damaged, or does not fit what was asked for; the message says what to do."""


@dataclass(frozen=True)
class WeightsInfo:
    """What a weights file says about itself: ``config`` rebuilds the model, ``card`` tells where it comes from."""

    config: dict[str, Any]
    card: dict[str, Any] = field(default_factory=dict)

    @property
    def scales(self) -> tuple[int, ...]:
        """Scales the weights are for."""
        return tuple(self.config.get("scales", ())) or (self.config["scale"],)


def save_weights(path: str | Path, model: nn.Module, card: dict[str, Any]) -> None:
    """Writes model.state_dict() and model.config to ``path`` (.safetensors), with a card of JSON-serialisable facts."""
    tensors = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    metadata = {"format": "d2a2-1", "config": json.dumps(model.config), "card": json.dumps(card)}
    write_safetensors(path, tensors, metadata)


def write_safetensors(path: str | Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Writes a .safetensors file; one that is there stays as it is until the new one is complete.

    Raises:
        OSError: it cannot be written (full disk, no such folder, no permission).
    """
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    try:
        save_file(tensors, partial, metadata=metadata)
        partial.replace(path)
    except SafetensorError as error:
        raise OSError(f"cannot write {path}: {error}") from error
    finally:
        partial.unlink(missing_ok=True)


def read_info(path: str | Path) -> WeightsInfo:
    """Configuration and card of a weights file, without its tensors.

    Raises:
        WeightsError: no such file, not safetensors, or not written by :func:`save_weights`.
    """
    with open_weights(path) as file:
        metadata = file.metadata() or {}
    if metadata.get("format") != "d2a2-1":
        raise WeightsError(
            f"{path} is a safetensors file, but it lacks this project's configuration (metadata format 'd2a2-1'); "
            "authors' .pth files are read by load_official_checkpoint"
        )
    try:
        return WeightsInfo(json.loads(metadata["config"]), json.loads(metadata.get("card", "{}")))
    except (KeyError, ValueError) as error:
        raise WeightsError(f"{path}: its configuration or card is damaged ({error!r}); get the file again") from error


def load_weights(path: str | Path, backend: str = "auto") -> nn.Module:
    """Builds the model of a weights file, in eval mode on the CPU; of an .onnx file of `d2a2 export` :class:`OnnxModel`.

    Raises:
        ImportError: an .onnx file, and no onnxruntime.
        WeightsError: see :func:`read_info`; or the tensors do not fit the file's own configuration.
    """
    if Path(path).suffix in (".pth", ".pt"):
        raise WeightsError(
            f"{path} looks like an authors' checkpoint; convert it first: d2a2 convert {path} OUT.safetensors --scale 4"
        )
    if Path(path).suffix == ".onnx":
        from d2a2_core.exported import OnnxModel

        return OnnxModel(path).eval()
    info = read_info(path)
    with open_weights(path) as file:
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    try:
        model = build_model(info.config, backend)
        model.load_state_dict(state)
    except (ValueError, TypeError, ArithmeticError, RuntimeError) as error:
        raise WeightsError(
            f"the tensors in {path} do not fit its configuration {info.config}; get the file again, or use the version "
            f"of this package that wrote it ({error})"
        ) from error
    return model.eval()


def resolve_weights(name_or_path: str | Path) -> Path:
    """Path of a weights file given by path, or by the name of one that ships with the package.

    Raises:
        WeightsError: neither exists; the message lists the names.
    """
    path = Path(name_or_path).expanduser()
    shipped = PRETRAINED / f"{name_or_path}.safetensors"
    for candidate in (path, shipped):
        if candidate.is_file():
            return candidate
    raise WeightsError(
        f"no weights {str(name_or_path)!r}: neither a file nor one of the shipped names {list_pretrained()}"
    )


def load_any(name_or_path: str | Path, scale: int | None = None, backend: str = "auto") -> nn.Module:
    """Loads shipped weights, a .safetensors file, or an authors' .pth checkpoint (which needs ``scale``).

    Raises:
        WeightsError: missing, damaged, or a .pth without a scale.
    """
    if Path(name_or_path).suffix in (".pth", ".pt"):
        if scale is None:
            raise WeightsError(f"{name_or_path} is an authors' checkpoint, which does not say its scale; name it")
        return load_official_checkpoint(name_or_path, scale, backend)
    return load_weights(resolve_weights(name_or_path), backend)


def mix_weights(parts: Sequence[tuple[str | Path, float]]) -> nn.Module:
    """The sum of weights times factors, tensor by tensor, as a model of the first one's configuration.

    The mean of two stages of a run is often better than either (Izmailov et al., "Averaging weights leads to wider optima and
    better generalization", 2018). What one family has learnt since they parted can be added to another: other + new - old
    (Ilharco et al., "Editing models with task arithmetic", 2023).

    Args:
        parts: shipped name or path, and factor, of each; the factors' sum is 1.

    Raises:
        WeightsError: fewer than two parts, factors that do not sum to 1, or weights of different shapes.
    """
    if len(parts) < 2 or not abs(sum(factor for _, factor in parts) - 1) <= 1e-6:  # NaN is neither
        raise WeightsError(
            f"expected at least two weights with factors whose sum is 1, got {[(str(p), f) for p, f in parts]}"
        )
    models = [load_weights(resolve_weights(path)) for path, _ in parts]
    states = [model.state_dict() for model in models]
    shapes = [{key: value.shape for key, value in state.items()} for state in states]
    for (path, _), other in zip(parts, shapes, strict=True):
        if other != shapes[0]:
            raise WeightsError(
                f"{path} and {parts[0][0]} have no common network: their tensors differ in name or shape"
            )
    mixed = dict(states[0])
    for key, first in states[0].items():
        if first.is_floating_point():
            mixed[key] = sum(factor * state[key] for (_, factor), state in zip(parts, states, strict=True))
            if key.endswith("running_var"):  # a difference may leave none, and the network divides by it
                mixed[key].clamp_(min=_MIN_VARIANCE)
    models[0].load_state_dict(mixed)
    return models[0]


def save_mixed(target: str | Path, parts: Sequence[tuple[str | Path, float]]) -> None:
    """Writes what :func:`mix_weights` makes; each part's name, factor and card are on the new file's card, and all their credits.

    Raises:
        WeightsError: as :func:`mix_weights`; or ``target`` exists.
    """
    if Path(target).exists():
        raise WeightsError(f"{target} exists; name a new file, or remove it first")
    mixed = [{"file": str(path), "factor": f, "card": read_info(resolve_weights(path)).card} for path, f in parts]
    credits = _all_credits([part["card"] for part in mixed])
    save_weights(target, mix_weights(parts), ({"credits": credits} if credits else {}) | {"mixed": mixed})


def _all_credits(cards: Sequence[dict[str, Any]]) -> dict[str, dict[str, list[str]]]:
    """Licence -> author -> models, of all cards' ``credits``."""
    joined: dict[str, dict[str, set[str]]] = {}
    for card in cards:
        for licence, by in card.get("credits", {}).items():
            for author, models in by.items():
                joined.setdefault(licence, {}).setdefault(author, set()).update(models)
    return {licence: {author: sorted(models) for author, models in by.items()} for licence, by in joined.items()}


def checksums() -> dict[str, str]:
    """SHA-256 of each weights file that ships with the package, by file name (pretrained/sha256.json)."""
    path = PRETRAINED / "sha256.json"
    return json.loads(path.read_text()) if path.exists() else {}


def add_pretrained(source: str | Path, name: str, facts: dict[str, Any]) -> Path:
    """Makes trained weights one of the shipped ones: facts (title, licence, metrics, limits) go onto their card.

    Args:
        source: weights of a run, whose card already tells command, data, seed and revision.
        name: under which :func:`resolve_weights` finds them.
        facts: added to the card.

    Returns:
        The path of the new file; its SHA-256 is in sha256.json beside it.
    """
    info, target = read_info(source), PRETRAINED / f"{name}.safetensors"
    PRETRAINED.mkdir(exist_ok=True)
    save_weights(target, load_weights(source), info.card | facts)
    record_checksum(target)
    return target


def record_checksum(path: Path) -> None:
    """Writes the SHA-256 of a file in the folder of the shipped weights to sha256.json."""
    known = checksums() | {path.name: sha256(path)}
    (PRETRAINED / "sha256.json").write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n")


def list_pretrained() -> list[str]:
    """Names of the weights that ship with the package."""
    names = sorted(path.stem for path in PRETRAINED.glob("*.safetensors"))
    return [name for name in names if not name.endswith((".sigma", ".int8"))]  # these lie beside weights


def sha256(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def load_official_checkpoint(path: str | Path, scale: int, backend: str = "auto") -> D2A2:
    """Loads a checkpoint of the paper's authors (.pth) into our D2A2, in eval mode on the CPU.

    Their network is fed BGR; the channels of its first convolution are swapped here, so that the model takes RGB.

    Args:
        path: a state dict in the authors' names, with or without DataParallel's ``module.`` prefix.
        scale: 4, 8 or 16; their files do not say it.

    Raises:
        WeightsError: missing or damaged file, or keys and shapes that are not the authors'.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise WeightsError(f"no checkpoint at {path}") from error
    except Exception as error:  # torch.load raises a different type for each kind of damage
        raise WeightsError(f"{path} cannot be read as a checkpoint of tensors: {error}") from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(f"{path} does not hold a state dict (a dict of tensors)")
    state = from_official(state)
    if _GUIDE_HEAD not in state:
        raise WeightsError(f"{path} lacks LTE.conv_head.0.weight: it is not a D2A2 checkpoint")
    blocks = sum(key.startswith("shallow.blocks") and key.endswith("conv1.weight") for key in state)
    if scale not in SCALES:
        raise ValueError(f"scale must be one of {SCALES}, got {scale}")
    try:
        model = D2A2(scale, channels=state[_GUIDE_HEAD].shape[0], blocks=blocks, backend=backend)
        model.load_state_dict(state)
    except (ValueError, RuntimeError) as error:
        raise WeightsError(f"{path} does not fit D2A2: {error}") from error
    return model.eval()


def from_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Renames the authors' keys to ours and turns the guide from BGR to RGB. Unknown keys keep their names."""
    renamed = {_rename(key.removeprefix("module."), _OFFICIAL_NAMES): value for key, value in state.items()}
    return _swap_guide_channels(renamed)


def to_official(state: dict[str, Tensor], prefix: str = "module.") -> dict[str, Tensor]:
    """The inverse of :func:`from_official`: a state dict that the authors' own scripts load (BGR guide)."""
    ours = {v: k for k, v in _OFFICIAL_NAMES.items()}
    return {prefix + _rename(key, ours): value for key, value in _swap_guide_channels(state).items()}


def _rename(key: str, names: dict[str, str]) -> str:
    for old, new in names.items():
        if re.match(re.escape(old) + r"(\.|$)", key):
            return new + key[len(old) :]
    return key


def _swap_guide_channels(state: dict[str, Tensor]) -> dict[str, Tensor]:
    state = dict(state)
    if _GUIDE_HEAD in state:
        state[_GUIDE_HEAD] = state[_GUIDE_HEAD].flip(1)
    return state


def open_weights(path: str | Path) -> Any:
    """An open safetensors file, as a context.

    Raises:
        WeightsError: no such file, or not safetensors.
    """
    try:
        return safe_open(str(path), framework="pt", device="cpu")
    except FileNotFoundError as error:
        raise WeightsError(f"no weights file at {path}") from error
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is not a readable safetensors file ({error}); get it again") from error
