"""The published depth against the measurements it was made from: enforcing agreement, and finding where it differs.

The network is free to redraw a measurement. Here the mean of the HR depth over each LR cell is brought within a bound of the
cell's trusted measurement. Only what exceeds the bound is corrected: first by a factor interpolated between the cells'
centres, so that LR cells do not show where neighbours err alike, then by one factor per cell, exactly. Factors, not offsets:
depth stays positive. Only cells beyond their bound and the ones beside them are touched.

Both sides of an edge in a cell move. (Moving the edge instead, by eroding one side, was no better: RMSE 1.4 % lower on
Middlebury x4, equal at x8, 1 % higher on simulated time-of-flight scenes, at three times the cost.)

What is trusted decides more than the bound. A sensor's value at a depth edge is not the mean of the true depths of its cell,
and to enforce it there makes the result worse; see :func:`away_from_edges`.

Convention: hr (B, 1, H, W) and lr (B, 1, ceil(H / s), ceil(W / s)) float32 metres; cell (i, j) holds the HR pixels of rows
i s to (i + 1) s and columns j s to (j + 1) s that exist. NaN (or infinite) HR pixels count nowhere and stay what they are.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

#: Default bound: metres, and share of the measurement. Three sigma of a ToF camera's noise (0.001 + 0.0008 z^2, see
#: d2a2_core.data.sensors.tof) stays below the larger of them up to 6 m, so the network may still smooth noise away.
BOUND_ABS_M, BOUND_REL = 0.02, 0.02
_SMALLEST_M = 1e-3  # depth stays above


def enforce_measurements(
    hr: Tensor,
    lr: Tensor,
    trusted: Tensor,
    scale: int,
    bound_abs: float | Tensor = BOUND_ABS_M,
    bound_rel: float | Tensor = BOUND_REL,
) -> tuple[Tensor, Tensor]:
    """Brings each cell's mean within max(bound_abs, bound_rel * z) of its trusted measurement z.

    The bound holds for every trusted cell with a finite HR pixel, up to float32 rounding (some 1e-6 of the depth), as long
    as nothing changes the result afterwards.

    Args:
        hr: (B, 1, H, W) metres; finite values below 1 mm are raised to 1 mm first.
        lr: (B, 1, ceil(H / scale), ceil(W / scale)) metres, NaN or anything where not trusted.
        trusted: bool, of the shape of ``lr``; cells with a measurement that is not finite and positive are not trusted.
        scale: s.
        bound_abs, bound_rel: 0 and 0 ask for the measurement itself, infinite ones for nothing. Tensors are not checked.

    Returns:
        hr: the corrected copy; residual (B, 1, h, w): its cell means minus the measurements, NaN where not trusted.

    Raises:
        ValueError: sizes that do not belong together, or negative bounds.
    """
    size = tuple(hr.shape[-2:])
    cells = (*hr.shape[:2], -(-size[0] // scale), -(-size[1] // scale))
    if tuple(lr.shape) != cells or lr.shape != trusted.shape:
        raise ValueError(
            f"expected lr and trusted {cells} for hr {tuple(hr.shape)} and scale {scale}, "
            f"got {tuple(lr.shape)} and {tuple(trusted.shape)}"
        )
    if not isinstance(bound_abs, Tensor) and not isinstance(bound_rel, Tensor) and min(bound_abs, bound_rel) < 0:
        raise ValueError(f"expected bounds of at least 0, got {bound_abs} and {bound_rel}")
    grid = _Grid(hr, scale)
    mean = grid.means()
    target = torch.where(trusted & (lr > 0) & (lr < torch.inf), lr, torch.nan)
    bound = torch.maximum(bound_rel * target, torch.as_tensor(bound_abs, dtype=target.dtype, device=target.device))
    # Factors of 1 where all is within the bound: the steps are the same for every image.
    grid.multiply(F.interpolate(_factor(mean, target, bound), scale_factor=scale, mode="bilinear"))
    mean = grid.means()
    grid.multiply(F.interpolate(_factor(mean, target, bound), scale_factor=scale, mode="nearest"))
    return grid.result(), grid.means() - target


def away_from_edges(lr: Tensor, step_abs: float = 0.1, step_rel: float = 0.05) -> Tensor:
    """(B, 1, h, w) bool: measurements all of whose measured 3 x 3 neighbours lie within max(step_abs, step_rel * z).

    These stand for their whole cell, so they may be enforced without harm.
    """
    known = lr.abs() < torch.inf
    low = -F.max_pool2d(torch.where(known, -lr, -torch.inf), 3, stride=1, padding=1)
    high = F.max_pool2d(torch.where(known, lr, -torch.inf), 3, stride=1, padding=1)
    return (high - low) < (step_rel * lr).clamp(min=step_abs)


def refined_mask(hr: Tensor, measured_hr: Tensor, tolerance_abs: float = 0.03, tolerance_rel: float = 0.02) -> Tensor:
    """(B, 1, H, W) bool: pixels whose depth differs from their own cell's measurement: the guide moved an edge there.

    Args:
        hr: (B, 1, H, W) metres as published, NaN invalid.
        measured_hr: (B, 1, H, W) metres: the measurement of the cell that each pixel lies in, NaN without one.
        tolerance_abs, tolerance_rel: metres and share of the measurement; the larger counts.
    """
    return (hr - measured_hr).abs() > (tolerance_rel * measured_hr).clamp(min=tolerance_abs)


class _Grid:
    """A copy of HR depth padded to whole cells, 0 where a pixel is missing or not finite."""

    def __init__(self, hr: Tensor, scale: int) -> None:
        self.hr, self.scale = hr, scale
        padding = (0, -hr.shape[-1] % scale, 0, -hr.shape[-2] % scale)
        padded = F.pad(hr, padding, value=torch.nan) if any(padding) else hr
        self.known = padded.abs() < torch.inf
        self.depth = torch.where(self.known, padded.clamp(min=_SMALLEST_M), 0.0)
        self.share = F.avg_pool2d(self.known.to(hr.dtype), scale)

    def means(self) -> Tensor:
        return F.avg_pool2d(self.depth, self.scale) / self.share

    def multiply(self, factor: Tensor) -> None:
        self.depth = self.depth * factor

    def result(self) -> Tensor:
        height, width = self.hr.shape[-2:]
        return torch.where(self.known, self.depth, torch.nan)[..., :height, :width]


def _factor(mean: Tensor, target: Tensor, bound: Tensor) -> Tensor:
    """What brings the mean within the bound; 1 where it is, or where there is nothing to compare."""
    bound = 0.999 * bound  # a little inside, so that rounding does not matter
    allowed = torch.minimum(torch.maximum(mean, target - bound), target + bound)
    return torch.where((target > 0) & (mean > 0), allowed / mean, 1.0)
