"""Files beside weights: NAME.KIND.safetensors beside NAME.safetensors holds what was fitted to just those weights.

All kinds share one format: tensors, a few facts as JSON, and a card that names the SHA-256 of the weights the file belongs to.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from d2a2_core.network import SCALES
from d2a2_core.network.sigma_head import FEATURES, SigmaHead
from d2a2_core.weights.files import WeightsError, open_weights, read_entry, read_tensors, sha256, write_safetensors
from d2a2_core.weights.zoo import PRETRAINED, record_checksum, resolve_weights


@dataclass(frozen=True)
class SidecarContent:
    """What a sidecar file holds: tensors by name, facts and card as JSON gave them."""

    tensors: dict[str, Tensor]
    facts: dict[str, Any]
    card: dict[str, Any]


@dataclass(frozen=True)
class Sidecar:
    """One kind of file beside weights.

    Attributes:
        kind: Part of the file's name, for instance "sigma".
        format: Name of the format in the file's metadata.
        what: Noun phrase for messages.
        command: Subcommand of `d2a2` that makes such a file.
        without: What is missing without it, a clause for messages.
        facts: Keys of the metadata, beside format and card, and what their values must be (JSON Schema).
        expected: Gives tensors of the names and shapes that a file with these facts and names has; None where the facts are those
            of another version of this package.
    """

    kind: str
    format: str
    what: str
    command: str
    without: str
    facts: dict[str, dict[str, Any]]
    expected: Callable[[dict[str, Any], list[str]], dict[str, Tensor] | None]

    def path(self, weights: str | Path) -> Path:
        """Path of the sidecar of a weights file, whether it exists or not."""
        weights = Path(weights)
        return weights.with_name(f"{weights.stem}.{self.kind}.safetensors")

    def wrote(self, path: str | Path) -> bool:
        """Whether a file is a sidecar of this kind, which a new one may replace."""
        try:
            with open_weights(path) as file:
                return (file.metadata() or {}).get("format") == self.format
        except WeightsError:
            return False

    def write(self, path: str | Path, content: SidecarContent) -> None:
        """Writes a sidecar file; one among the shipped weights gets its checksum recorded.

        Raises:
            ValueError: The card does not name the weights (``weights_sha256``), or facts are missing.
        """
        if "weights_sha256" not in content.card or set(content.facts) != set(self.facts):
            raise ValueError(
                f"expected a card with weights_sha256 and facts {sorted(self.facts)}, got {sorted(content.card)} and "
                f"{sorted(content.facts)}"
            )
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in content.tensors.items()}
        facts = {key: json.dumps(value) for key, value in content.facts.items()}
        write_safetensors(path, tensors, {"format": self.format, **facts, "card": json.dumps(content.card)})
        if Path(path).resolve().parent == PRETRAINED.resolve():
            record_checksum(Path(path))

    def read_file(self, path: str | Path) -> SidecarContent:
        """Reads a sidecar file, whichever weights it belongs to.

        Raises:
            WeightsError: The file is missing, damaged, or of another kind.
        """
        with open_weights(path) as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != self.format:
                raise WeightsError(f"{path} is not {self.what} (metadata format {self.format!r}); run {self.command}")
            facts = {key: read_entry(path, metadata, key, schema) for key, schema in self.facts.items()}
            card = read_entry(path, metadata, "card", {"type": "object"})
            expected = self.expected(facts, list(file.keys()))
            if expected is None:
                raise WeightsError(f"{path} is of another version of this package; run {self.command}")
            try:
                tensors = read_tensors(file, expected, path)
            except ValueError as error:
                raise WeightsError(f"{path} is damaged ({error}); get it again, or run {self.command}") from error
        return SidecarContent(tensors, facts, card)

    def read(self, name_or_path: str | Path) -> SidecarContent | None:
        """Reads the sidecar of weights given by shipped name or path; None where they have none.

        A sidecar fitted to other weights than the ones it lies beside is not used, and a warning says so.

        Raises:
            WeightsError: The weights are missing, or the sidecar is damaged.
        """
        weights = resolve_weights(name_or_path)
        path = self.path(weights)
        if not path.is_file():
            return None
        content = self.read_file(path)
        if content.card.get("weights_sha256") != sha256(weights):
            warnings.warn(
                f"{path} belongs to other weights than {weights.name}, so {self.without}; run {self.command} --weights "
                f"{name_or_path}",
                stacklevel=3,
            )
            return None
        return content

    def copy(self, source: str | Path, target: str | Path) -> None:
        """Copies the sidecar of weights (shipped name or path), if any, beside a file that gives the same results."""
        content = self.read(source)
        if content is not None:
            card = content.card | {"weights_sha256": sha256(target)}
            self.write(self.path(target), SidecarContent(content.tensors, content.facts, card))


def _head_tensors(facts: dict[str, Any], _: list[str]) -> dict[str, Tensor] | None:
    if facts["config"]["features"] != list(FEATURES):
        return None
    with torch.device("meta"):
        return SigmaHead(int(facts["config"]["hidden"])).state_dict()


def _range_tensors(facts: dict[str, Any], names: list[str]) -> dict[str, Tensor]:
    return dict.fromkeys(names, torch.empty(len(facts["scales"]), 2, device="meta"))


_HEAD = {
    "type": "object",
    "required": ["features", "hidden"],
    "properties": {
        "features": {"type": "array", "items": {"type": "string"}},
        "hidden": {"type": "integer", "minimum": 1, "maximum": 256},
    },
}
_SCALES = {"type": "array", "items": {"enum": list(SCALES)}, "minItems": 1, "uniqueItems": True}
SIGMA = Sidecar(
    "sigma",
    "d2a2-sigma-1",
    "an uncertainty head",
    "d2a2 calibrate",
    "there is no sigma",
    {"config": _HEAD},
    _head_tensors,
)
INT8 = Sidecar(
    "int8",
    "d2a2-int8-1",
    "a file of ranges for int8",
    "d2a2 int8",
    "int8 is not available",
    {"scales": _SCALES},
    _range_tensors,
)
SIDECARS = (SIGMA, INT8)


def files_of(weights: str | Path) -> Iterable[Path]:
    """The weights file and the sidecars that lie beside it."""
    yield Path(weights)
    yield from (path for path in (sidecar.path(weights) for sidecar in SIDECARS) if path.is_file())


def save_sigma_head(path: str | Path, head: SigmaHead, card: dict[str, Any]) -> None:
    """Writes an uncertainty head; its card names at least ``weights_sha256``, the weights it belongs to."""
    SIGMA.write(path, SidecarContent(head.state_dict(), {"config": head.config}, card))


def load_sigma_head(name_or_path: str | Path) -> SigmaHead | None:
    """Loads the uncertainty head of weights, in eval mode on the CPU; None where they have none.

    Raises:
        WeightsError: The weights are missing, or the head's file is damaged or of another version.
    """
    content = SIGMA.read(name_or_path)
    if content is None:
        return None
    if (content.tensors["std"] == 0).any():
        raise WeightsError(f"{SIGMA.path(resolve_weights(name_or_path))} is damaged (std is zero); run d2a2 calibrate")
    head = SigmaHead(int(content.facts["config"]["hidden"]))
    head.load_state_dict(content.tensors)
    return head.eval().requires_grad_(False)
