"""Int8: the range of values that each convolution of a network is given, measured, and kept in a file beside the weights.

OpenVINO computes a convolution in integers where it knows that range (:mod:`d2a2_core.runtime.openvino`). Those next to the
result, which a model names ``exact``, stay in float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from d2a2_core.runtime.device import sums_int8_exactly
from d2a2_core.weights import WeightsError, resolve_weights
from d2a2_core.weights.sidecars import INT8, SidecarContent

LEVELS = 256  # of an input
WEIGHT_LEVELS = 255  # symmetric around 0


def weight_room() -> int:
    """How many times a convolution's largest weight the range of integers for its weights reaches to, each way.

    Twice where sums of two products have 16 bits: 2 * 255 * 64 does not overflow, and the last of the weights' bits is lost.
    """
    return 1 if sums_int8_exactly() else 2


@dataclass(frozen=True)
class Int8Ranges:
    """What is known of the inputs of a network's convolutions.

    Attributes:
        scales: of the weights, in the order of the rows below.
        ranges: name of each convolution -> (scales, 2) float32, the least and the largest value that integers stand for.
    """

    scales: tuple[int, ...]
    ranges: dict[str, Tensor]

    def of(self, scale: int) -> dict[str, tuple[float, float]]:
        """(least, largest) of each convolution at one of the scales."""
        return {name: tuple(rows[self.scales.index(scale)].tolist()) for name, rows in self.ranges.items()}


def int8_convolutions(model: nn.Module) -> dict[str, nn.Conv2d]:
    """Name -> convolution of those that may be computed in integers: all but the ones in modules that ``model.exact`` names."""
    exact = [f".{part}." for part in getattr(model, "exact", ())]
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and not any(part in f".{name}." for part in exact)
    }


def save_int8(path: str | Path, ranges: Int8Ranges, card: dict[str, Any]) -> None:
    """Writes ranges; their card names at least ``weights_sha256``, the weights they belong to."""
    INT8.write(path, SidecarContent(ranges.ranges, {"scales": ranges.scales}, card))


def load_int8(name_or_path: str | Path) -> Int8Ranges | None:
    """Loads the ranges of weights given by shipped name or path; None where they have none.

    Raises:
        WeightsError: The weights are missing, or the ranges' file is damaged.
    """
    content = INT8.read(name_or_path)
    if content is None:
        return None
    scales, tensors = content.facts["scales"], content.tensors
    if not all((rows[:, 0] < rows[:, 1]).all() for rows in tensors.values()):
        raise WeightsError(
            f"{INT8.path(resolve_weights(name_or_path))} does not hold the ranges for int8; run d2a2 int8 --weights "
            f"{name_or_path}"
        )
    return Int8Ranges(tuple(scales), content.tensors)
