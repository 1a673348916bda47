"""Weights on disk: safetensors with the model's configuration and provenance inside."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from d2a2_core.files import replacing
from d2a2_core.network import D2A2, D2A2Lite, build_model


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
    try:
        with replacing(path) as partial:
            save_file(tensors, partial, metadata=metadata)
    except SafetensorError as error:
        raise OSError(f"cannot write {path}: {error}") from error


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


def load_weights(path: str | Path, backend: str = "auto") -> D2A2 | D2A2Lite:
    """Builds the model of a weights file, in eval mode on the CPU.

    Raises:
        WeightsError: see :func:`read_info`; or an authors' checkpoint or an .onnx file, or the tensors do not fit the file's own
            configuration.
    """
    if Path(path).suffix in (".pth", ".pt"):
        raise WeightsError(
            f"{path} looks like an authors' checkpoint; convert it first: d2a2 convert {path} OUT.safetensors --scale 4"
        )
    if Path(path).suffix == ".onnx":
        raise WeightsError(
            f"{path} is an .onnx file, which a runtime computes as it is; where weights are loaded, expected the .safetensors "
            "file that it was made of. From Python: d2a2_core.runtime.open_runtime or DepthUpsampler.from_pretrained"
        )
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


def sha256(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


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
