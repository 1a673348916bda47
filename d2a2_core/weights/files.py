"""Weights on disk: safetensors with the model's configuration and provenance inside."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from d2a2_core.documents import check_schema, parse_json
from d2a2_core.files import replacing
from d2a2_core.network import D2A2, D2A2Lite, D2A2Pico, build_outline

# By whether a network's own tensor is floating-point; all take at most twice the file's bytes.
_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
# Counters too may come as floats: a checkpoint converted as a whole to another precision has them so.
_TYPES = {True: _FLOATS, False: (torch.int64, torch.int32, *_FLOATS)}
_CARD = {
    "type": "object",
    "properties": {
        "credits": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "additionalProperties": {"type": "array", "items": {"type": "string"}},
            },
        }
    },
}


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
        OSError: it cannot be written (full disk, a folder in its place, no permission).
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
    kind = metadata.get("format")
    if kind != "d2a2-1":
        if kind and kind.startswith("d2a2-"):
            base, _, part = Path(path).stem.rpartition(".")
            owner = f" {base}.safetensors" if base else ""
            raise WeightsError(
                f"{path} holds no network: it is what lies beside weights ({part or kind}); give the weights{owner} themselves"
            )
        raise WeightsError(
            f"{path} is a safetensors file, but it lacks this project's configuration (metadata format 'd2a2-1'), so it is not "
            "known what network it is of; expected a file that d2a2 wrote (`d2a2 train`, or `d2a2 convert` of an authors' .pth)"
        )
    config = read_entry(
        path, metadata, "config", {"type": "object", "anyOf": [{"required": ["scale"]}, {"required": ["scales"]}]}
    )
    card = read_entry(path, metadata, "card", _CARD) if "card" in metadata else {}
    return WeightsInfo(config, card)


def load_weights(path: str | Path, backend: str = "auto") -> D2A2 | D2A2Lite | D2A2Pico:
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
    try:
        # Without memory: only a configuration that the file's own tensors fit is worth any.
        model = build_outline(info.config, backend)
        with open_weights(path) as file:
            state = read_tensors(file, model.state_dict(), path)
    except ValueError as error:
        raise WeightsError(
            f"the tensors in {path} do not fit its configuration {str(info.config)[:300]}: {error}; get the file again, or "
            "use the version of this package that wrote it"
        ) from error
    model.load_state_dict(state, assign=True)
    return model.eval()


def read_entry(path: str | Path, metadata: dict[str, str], key: str, schema: dict[str, Any]) -> Any:
    """The value of a JSON entry in a safetensors file's metadata.

    Args:
        schema: of the value (JSON Schema).

    Raises:
        WeightsError: it is missing, damaged, or of another kind.
    """
    try:
        if key not in metadata:
            raise ValueError("it is missing")
        value = parse_json(metadata[key], "it")
        check_schema(value, schema, "it")
    except ValueError as error:
        raise WeightsError(f"{path}: its metadata entry {key!r} is damaged ({error}); get the file again") from error
    return value


def read_tensors(file: Any, expected: Mapping[str, Tensor], path: str | Path) -> dict[str, Tensor]:
    """Copies of the tensors of an open safetensors file, in the types of ``expected``.

    Args:
        file: as of :func:`open_weights`.
        expected: a tensor of the same name and shape for each; it may be on the device "meta".

    Raises:
        ValueError: names or shapes differ, which is found before any tensor is read.
        WeightsError: see :func:`checked_tensor`.
    """
    shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 (not a dict)
    check_shapes(shapes, expected)
    return {key: checked_tensor(file.get_tensor(key), key, like, path) for key, like in expected.items()}


def check_shapes(shapes: Mapping[str, tuple[int, ...]], expected: Mapping[str, Tensor]) -> None:
    """Raises ValueError, with the first few differences, where tensors differ from ``expected`` in name or shape."""
    wanted = {key: tuple(tensor.shape) for key, tensor in expected.items()}
    differences = [f"{key} is missing" for key in wanted if key not in shapes]
    differences += [f"{key[:80]} is not part of it" for key in shapes if key not in wanted]
    differences += [
        f"{key} is {shapes[key]}, expected {shape}" for key, shape in wanted.items() if shapes.get(key, shape) != shape
    ]
    if differences:
        more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
        raise ValueError("; ".join(differences[:3]) + more)


def checked_tensor(tensor: Tensor, name: str, like: Tensor, path: str | Path) -> Tensor:
    """A copy in the type of ``like``.

    Raises:
        WeightsError: it is of a type that no weights have, or holds a value that no network can use.
    """
    if tensor.dtype not in _TYPES[like.is_floating_point()]:
        raise WeightsError(f"{path}: {name} is {tensor.dtype}, expected {like.dtype}; get the file again")
    # The sum alone tells most, in a fraction of the time; that of huge values may be infinite, too.
    if not math.isfinite(tensor.sum().item()) and not torch.isfinite(tensor).all():
        raise WeightsError(f"{path}: {name} holds NaN or infinity, so that no depth comes out; get the file again")
    tensor = tensor.to(like.dtype, copy=True)
    if name.endswith("running_var") and (tensor < 0).any():
        raise WeightsError(f"{path}: {name} is a variance, but holds negative values; get the file again")
    return tensor


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
