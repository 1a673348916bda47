"""The network's low-resolution (LR) grid: one cell per scale x scale pixels of the guide, from its top left corner on.

The last cells may stick out of the guide. Convention: see :mod:`d2a2_core.depth.resample`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from d2a2_core.depth.resample import image_size, reduce_surfaces, regrid
from d2a2_core.errors import CodedError

MIN_RATIO, MAX_RATIO = 0.25, 32  # of colour to depth size, along each axis
# Colour pixels along an axis that one measurement may cover where registration puts it. A sensor of 8 x 8 pixels before 640 x 480
# has 80.
MAX_SPREAD = 100
# Factors between the shapes (width to height) of two images of the same view: sizes are rounded; beyond, one is turned or cut.
SAME_SHAPE, MAX_SHAPE_DIFFERENCE = 1.03, 1.3


def shape_difference(a: tuple[int, ...], b: tuple[int, ...]) -> float:
    """Factor, at least 1, between the shapes (width to height) of two sizes (H, W), all of them at least 1."""
    factor = (a[1] * b[0]) / (a[0] * b[1])
    return max(factor, 1 / factor)


def choose_scale(scales: Sequence[int], size: tuple[int, int], lr_size: tuple[int, int]) -> int:
    """Returns the scale nearest, as a factor, to the ratio of colour size (H, W) and depth size (h, w).

    Raises:
        CodedError: "size_ratio": a ratio outside ``MIN_RATIO`` to ``MAX_RATIO``.
    """
    ratios = [hr / max(lr, 1) for hr, lr in zip(size, lr_size, strict=True)]
    if min(*size, *lr_size) < 1 or min(ratios) < MIN_RATIO or max(ratios) > MAX_RATIO:
        raise CodedError(
            "size_ratio",
            f"{_ratio(size, lr_size)}; expected 1/4 to {MAX_RATIO} along each axis, for images of the same view",
        )
    return nearest_scale(scales, math.sqrt(ratios[0] * ratios[1]))


def check_shapes(size: tuple[int, int], lr_size: tuple[int, int]) -> str:
    """Compares the shapes of a colour image (H, W) and a depth image (h, w) that are to show the same view.

    Returns:
        What is doubtful about them, for people; empty where the shapes are the same but for rounding.

    Raises:
        CodedError: "axis_ratio": they differ by a factor of ``MAX_SHAPE_DIFFERENCE`` or more.
    """
    difference = shape_difference(size, lr_size)
    # A row or column more or less is rounding.
    if difference <= max(SAME_SHAPE, 1 + 1 / min(lr_size)):
        return ""
    said = f"{_ratio(size, lr_size)}; expected the same along both axes, for images of the same view"
    if difference < MAX_SHAPE_DIFFERENCE:
        return f"{said}: is one of them cut? Cut the other in the same way, or register depth with both cameras' calibrations"
    turned = shape_difference(size[::-1], lr_size) < difference
    fault = (
        "one of them is turned by 90 degrees: turn it back"
        if turned
        else "one of them is cut: cut the other in the same way"
    )
    raise CodedError("axis_ratio", f'{said}; {fault}, or give both cameras\' calibrations and set registration to "on"')


def nearest_scale(scales: Sequence[int], ratio: float) -> int:
    """Returns the scale nearest to ``ratio`` as a factor."""
    return min(scales, key=lambda scale: abs(math.log(scale / ratio)))


def to_lr_grid(depth: Tensor, size: tuple[int, int], scale: int) -> Tensor:
    """Depth (B, 1, h, w) in the view of a guide of ``size`` (H, W) -> (B, 1, ceil(H / scale), ceil(W / scale)).

    NaN is invalid, and stays so. Depth with more pixels than the guide is reduced to the guide's size first, each surface by
    itself.
    """
    height, width = image_size(depth)
    height, width = min(size[0], height), min(size[1], width)
    depth = reduce_surfaces(depth, (height, width))
    target = (-(-size[0] // scale), -(-size[1] // scale))
    cell = (scale * height / size[0], scale * width / size[1])
    return regrid(depth, target, cell)


def _ratio(size: tuple[int, int], lr_size: tuple[int, int]) -> str:
    ratios = [hr / max(lr, 1) for hr, lr in zip(size, lr_size, strict=True)]
    return f"colour {size[1]}x{size[0]} over depth {lr_size[1]}x{lr_size[0]} is a ratio of {ratios[1]:.3g} x {ratios[0]:.3g}"
