"""The network's low-resolution (LR) grid: one cell per scale x scale pixels of the guide, from its top left corner on.

The last cells may stick out of the guide. Convention: see :mod:`d2a2_core.depth.resample`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from d2a2_core.depth.resample import regrid
from d2a2_core.errors import CodedError

MAX_RATIO = 32  # of colour to depth size, along each axis


def choose_scale(scales: Sequence[int], size: tuple[int, int], lr_size: tuple[int, int]) -> int:
    """Returns the scale nearest, as a factor, to the ratio of colour size (H, W) and depth size (h, w).

    Raises:
        CodedError: A ratio outside 1 to ``MAX_RATIO``.
    """
    ratios = [hr / max(lr, 1) for hr, lr in zip(size, lr_size, strict=True)]
    if min(lr_size) < 1 or min(ratios) < 1 or max(ratios) > MAX_RATIO:
        raise CodedError(
            "size_ratio",
            f"colour {size[1]}x{size[0]} over depth {lr_size[1]}x{lr_size[0]} is a ratio of "
            f"{ratios[1]:.3g} x {ratios[0]:.3g}; expected 1 to {MAX_RATIO} along each axis, for images of the same view",
        )
    return nearest_scale(scales, math.sqrt(ratios[0] * ratios[1]))


def nearest_scale(scales: Sequence[int], ratio: float) -> int:
    """Returns the scale nearest to ``ratio`` as a factor."""
    return min(scales, key=lambda scale: abs(math.log(scale / ratio)))


def to_lr_grid(depth: Tensor, size: tuple[int, int], scale: int) -> Tensor:
    """Depth (B, 1, h, w) in the view of a guide of ``size`` (H, W) -> (B, 1, ceil(H / scale), ceil(W / scale)).

    NaN is invalid, and stays so.
    """
    target = (-(-size[0] // scale), -(-size[1] // scale))
    cell = (scale * depth.shape[-2] / size[0], scale * depth.shape[-1] / size[1])
    return regrid(depth, target, cell)
