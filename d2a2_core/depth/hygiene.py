"""Measurements that are no surface: out of limits, mixed at depth edges ("flying"), or tiny and alone ("stray").

All three look at the sensor's own grid, before any resampling, which would spread a bad value over its neighbours. They return
masks and remove nothing. Use them in the order of this file, each on what the ones before left: a flying pixel that stays
would support a stray one.

Convention: depth (B, 1, h, w) float32 metres, NaN invalid; an invalid pixel is never in a mask.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from d2a2_core.depth.cells import shifted

_DIRECTIONS = ((0, 1), (1, 0), (1, 1), (1, -1))  # (dy, dx): row, column and both diagonals
_NOISE_BLOCK = 16  # px; large enough that edges are the minority in it


def outside_limits(depth: Tensor, min_depth: float, max_depth: float) -> Tensor:
    """(B, 1, h, w) bool: measurements nearer than ``min_depth`` or farther than ``max_depth`` (metres).

    Raises:
        ValueError: the limits are not 0 <= min_depth < max_depth.
    """
    if not 0 <= min_depth < max_depth:
        raise ValueError(f"expected 0 <= min_depth < max_depth, got {min_depth} and {max_depth}")
    return (depth < min_depth) | (depth > max_depth)


def flying_pixels(
    depth: Tensor, min_step: float = 0.05, rel_step: float = 0.02, noise_factor: float = 3.0, reach: int = 3
) -> Tensor:
    """Measurements that mix foreground and background: between their two sides along a line, and supported by neither.

    Along each of four lines the nearest measurements on both sides (up to ``reach`` pixels away, over holes) say which
    depths they support: their own, and what their slope leads to at the pixel, half as much again. A steep surface
    therefore supports its pixels, however steep. A pixel nearer than both sides (a thin pole) is kept, unless it stands
    out less that way than it hangs in between along another line.

    A strip of true surface one pixel wide, half way between its neighbours in depth, looks the same and is in the mask.

    Args:
        depth: (B, 1, h, w) metres, NaN invalid.
        min_step: metres that a pixel must be away from both sides, and
        rel_step: the same as a share of its depth, and
        noise_factor: the same in standard deviations of the noise around it; the largest of the three counts.
        reach: px.

    Returns:
        (B, 1, h, w) bool.
    """
    known = depth > 0
    depth = torch.where(known, depth, 0.0)  # 0 is unknown
    between = torch.zeros_like(depth)
    in_front = torch.zeros_like(depth)
    bend = torch.full_like(depth, torch.inf)
    for dy, dx in _DIRECTIONS:
        before, after = (
            [shifted(depth, sign * k * dy, sign * k * dx, 0.0) for k in range(1, reach + 2)] for sign in (-1, 1)
        )
        low_a, high_a, slope_a = _support(before)
        low_b, high_b, slope_b = _support(after)
        # A side without any measurement supports from inf down to -inf, and so says nothing.
        up = torch.minimum(depth - high_a, low_b - depth)
        down = torch.minimum(depth - high_b, low_a - depth)
        # Without a slope on either side a slanted surface would look the same.
        between = torch.maximum(between, torch.where(slope_a | slope_b, torch.maximum(up, down), -torch.inf))
        in_front = torch.maximum(in_front, torch.minimum(low_a, low_b) - depth)
        whole = (before[0] > 0) & (after[0] > 0)
        bend = torch.minimum(bend, torch.where(whole, (before[0] - 2 * depth + after[0]).abs(), torch.inf))
    noise = _noise(torch.where(known, bend / depth.clamp(min=1e-6), torch.inf))
    tolerance = torch.maximum((rel_step * depth).clamp(min=min_step), noise_factor * depth * noise)
    return known & (between > tolerance) & (between >= in_front)


def doubtful_pixels(depth: Tensor) -> Tensor:
    """Flying pixels of (B, 1, h, w) metres, and stray ones of the rest; bool."""
    flying = flying_pixels(depth)
    return flying | stray_pixels(depth.masked_fill(flying, torch.nan))


def measurement_trust(depth: Tensor) -> Tensor:
    """What each measurement is worth to the network: 1, or 0.5 where it is flying or stray, or 0 where there is none.

    Args:
        depth: (B, 1, h, w) metres on the network's LR grid, NaN invalid.

    Returns:
        (B, 1, h, w) float32.
    """
    return torch.where(doubtful_pixels(depth), 0.5, (depth > 0).float())


def _support(values: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Lowest and highest depth that one side supports at a pixel, and whether its slope is known (bool).

    From its measurements 1, 2, ... pixels away, 0 where there is none; without any: inf and -inf, the wrong way round.
    """
    near, rise, known = values[-2], torch.zeros_like(values[0]), torch.zeros_like(values[0], dtype=torch.bool)
    for k in range(len(values) - 1, 0, -1):  # nearer ones overwrite
        here, beyond = values[k - 1], values[k]
        there, both = here > 0, (here > 0) & (beyond > 0)
        near = torch.where(there, here, near)
        rise = torch.where(there, torch.where(both, 1.5 * k * (here - beyond), 0.0), rise)
        known = both | (known & ~there)  # not by where: ONNX Runtime has none for bool
    there = near > 0
    low = torch.where(there, near + rise.clamp(max=0), -torch.inf)
    return low, torch.where(there, near + rise.clamp(min=0), torch.inf), known


def _noise(bend: Tensor) -> Tensor:
    """Relative noise (sigma / depth), (B, 1, h, w), from the least relative second difference over the four lines.

    Along an edge the second difference is small, so edges hardly count, and the median over a block passes over the rest.
    Relative, because one block holds near and far, and noise grows with depth. Unknown differences are infinite.
    """
    height, width = bend.shape[-2:]
    n = _NOISE_BLOCK
    bend = F.pad(bend, (0, -width % n, 0, -height % n), value=torch.inf)
    rows, cols = bend.shape[-2] // n, bend.shape[-1] // n
    blocks = bend.reshape(-1, rows, n, cols, n).transpose(2, 3).reshape(-1, 1, rows, cols, n * n)
    # 0.55: the median for independent Gaussian noise of standard deviation 1.
    sigma = _finite_median(blocks) / 0.55
    return F.interpolate(sigma, scale_factor=n, mode="nearest")[..., :height, :width]


def _finite_median(values: Tensor) -> Tensor:
    """(..., n) -> (...): median of the finite ones, the lower of two; 0 without any."""
    ordered = values.sort(dim=-1).values
    count = (ordered < torch.inf).sum(dim=-1, keepdim=True)
    middle = ((count - 1) // 2).clamp(min=0)
    return torch.where(count > 0, ordered.gather(-1, middle), 0.0)[..., 0]


def stray_pixels(
    depth: Tensor, radius: int = 3, similar: float = 0.05, min_support: int = 3, min_hole: float = 0.5
) -> Tensor:
    """Tiny groups of measurements alone in a hole, each of which would grow into a disc when the hole is filled.

    A measurement is stray when fewer than ``min_support`` others of about its depth and many holes lie around it. With the
    defaults groups of up to three pixels go, and a pole one pixel wide stays up to its very end. A value that is unlike
    all its neighbours but has them is not stray: at a depth edge it tells the network where the edge is. Not for depth
    that is sparse by nature (a projected lidar): all of it is alone.

    Args:
        depth: (B, 1, h, w) metres, NaN invalid.
        radius: px; the window has 2 radius + 1 pixels a side.
        similar: largest difference between the depths of two pixels that support each other, as a share of depth.
        min_support: 1 removes single pixels only, 0 nothing.
        min_hole: share of the window (as far as the image reaches) that is invalid; 0 asks for no holes.

    Returns:
        (B, 1, h, w) bool.
    """
    height, width = depth.shape[-2:]
    valid = depth > 0
    down, right = min(radius, height - 1), min(radius, width - 1)
    # A share of depth is a difference of logarithms; unknown ones are far from everything, and from one another.
    level = torch.where(valid, depth, 1.0).log()
    here = torch.where(valid, level, -1e6)
    there = torch.where(valid, level, 1e6)
    support = torch.zeros_like(level)
    for dy in range(-down, down + 1):
        for dx in range(-right, right + 1):
            if dy or dx:
                support = support + ((here - shifted(there, dy, dx, 1e6)).abs() <= similar).to(level.dtype)
    window = {"kernel_size": 2 * radius + 1, "stride": 1, "padding": radius, "count_include_pad": False}
    holes = F.avg_pool2d((~valid).to(level.dtype), **window)
    return valid & (support < min_support) & (holes >= min_hole - 1e-6)
