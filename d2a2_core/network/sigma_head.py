"""Uncertainty: for every pixel of the published depth the half-width of the interval that holds the truth in 68 % of cases.

A small head beside the frozen network: features that anyone can check (how noisy and how complete the measurements around the
pixel are, whether an edge is near, how far the network went from plain interpolation), three 1 x 1 convolutions, trained by
:mod:`d2a2_core.calibration.sigma` with the quantile ("pinball") loss (Koenker and Bassett, "Regression Quantiles", Econometrica
1978). All features are in metres or pixels, so the range that normalises the network's input does not matter.

Everything is computed at half of the colour image's resolution and sigma is enlarged bilinearly in its logarithm.

Convention: depth (B, 1, ., .) float32 metres, NaN invalid; the LR grid is the network's, see
:meth:`d2a2_core.upsampler.DepthUpsampler.predict`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2a2_core.depth import fill_holes
from d2a2_core.depth.cells import shifted
from d2a2_core.network.d2a2 import SCALES

QUANTILE = 0.68
#: What the head sees, in this order; lengths and ranges as logarithms.
LR_FEATURES = (
    "lr_range_3", "lr_range_7", "lr_range_15",  # metres, over so many LR cells squared
    "lr_roughness", "lr_roughness_wide", "lr_roughness_image",  # second differences of the measurements, metres
    "residual", "residual_wide", "residual_image",  # result reduced to the LR grid minus the measurement, metres
    "missing_3", "missing_9",  # share of LR cells without a measurement
    "distance_cells",  # to the nearest LR cell with a measurement, 0 in one
)  # fmt: skip
HR_FEATURES = (
    "depth",  # metres
    "hr_minus_lr",  # |result - bilinear LR|, metres
    "hr_range_6", "hr_range_14", "hr_range_30",  # metres, over about so many pixels squared
    "guide_range_6", "guide_range_14",  # of brightness in [0, 1]
    "distance_px",
    "scale",
)  # fmt: skip
FEATURES = (*LR_FEATURES, *HR_FEATURES)
_TINY_M = 3e-4  # below sensors' quantisation, differences are no information
_TINY_GUIDE = 1 / 255
_MAX_CELLS = 12  # distances end here
_SIGMA_M = (1e-4, 20.0)  # limits of the result


class SigmaHead(nn.Module):
    """Predicts sigma from what the network was given and what it made of it.

    Args:
        hidden: channels of the two hidden layers.
    """

    def __init__(self, hidden: int = 16) -> None:
        super().__init__()
        self.config: dict[str, Any] = {"hidden": hidden, "features": list(FEATURES)}
        self.register_buffer("mean", torch.zeros(len(FEATURES)))
        self.register_buffer("std", torch.ones(len(FEATURES)))
        self.first = nn.Conv2d(len(FEATURES), hidden, 1)
        self.rest = nn.Sequential(
            nn.ReLU(inplace=True), nn.Conv2d(hidden, hidden, 1), nn.ReLU(inplace=True), nn.Conv2d(hidden, 1, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, F, h, w) as of :func:`sigma_features` -> logarithm of sigma in metres (B, 1, h, w)."""
        # The standardisation of the features is folded into the first convolution: two passes over them less.
        weight = self.first.weight / self.std[:, None, None]
        bias = self.first.bias - (weight * self.mean[:, None, None]).sum((1, 2, 3))
        return self.rest(F.conv2d(x, weight, bias))

    @torch.inference_mode()
    def predict(self, guide: Tensor, lr: Tensor, hr: Tensor) -> Tensor:
        """Sigma of a result.

        Args:
            guide: (B, 3, H, W) RGB in [0, 1].
            lr: (B, 1, ceil(H / s), ceil(W / s)) metres, NaN where there is no measurement: what the network was given.
            hr: (B, 1, H, W) metres: the result as it is published, NaN where there is none.

        Returns:
            (B, 1, H, W) float32 metres, positive; NaN where ``hr`` is.

        Raises:
            ValueError: sizes that do not belong together.
        """
        log_sigma = self(sigma_features(guide, lr, hr))
        sigma = F.interpolate(log_sigma, scale_factor=2, mode="bilinear", align_corners=False).exp().clamp(*_SIGMA_M)
        return torch.where(hr.abs() < torch.inf, sigma[..., : hr.shape[-2], : hr.shape[-1]], torch.nan)


def sigma_features(guide: Tensor, lr: Tensor, hr: Tensor) -> Tensor:
    """What the head sees: (B, F, ceil(H / 2), ceil(W / 2)) in the order of ``FEATURES``. Arguments as of ``predict``."""
    if guide.shape[-2:] != hr.shape[-2:]:
        raise ValueError(f"expected hr of the guide's size {tuple(guide.shape[-2:])}, got {tuple(hr.shape[-2:])}")
    scale = grid_scale(tuple(hr.shape[-2:]), tuple(lr.shape[-2:]))
    size = tuple((length + 1) // 2 for length in hr.shape[-2:])  # exporters round -(-n // 2) towards 0
    valid, filled = lr > 0, fill_holes(lr)
    coarse = _enlarge(filled, scale, size)
    hr, known = hr.float(), hr.abs() < torch.inf
    # The largest and the least value of every 2 x 2 block; infinite without any.
    blocks = torch.cat((torch.where(known, hr, -torch.inf), torch.where(known, -hr, -torch.inf)), 1)
    extremes = _largest_of_blocks(blocks)
    extremes = torch.where(extremes > -torch.inf, extremes, torch.cat((coarse, -coarse), 1))
    middle = (extremes[:, :1] - extremes[:, 1:]) / 2
    luma = _halve(guide.float().mean(1, keepdim=True))
    near = _dilate(torch.cat((extremes, luma, -luma), 1), 1)
    wide = _dilate(near, 2)
    near_range, wide_range = near[:, ::2] + near[:, 1::2], wide[:, ::2] + wide[:, 1::2]
    far = _dilate(wide[:, :2], 4)
    far_range = far[:, :1] + far[:, 1:]

    lr_features = _lr_features(filled, valid, _reduce(middle, scale, tuple(lr.shape[-2:])))
    lr_features = _enlarge(lr_features, scale, size)
    distance_px = torch.log1p((lr_features[:, -1:].exp() - 1) * scale)
    hr_metres = torch.cat((middle, (middle - coarse).abs(), near_range[:, :1], wide_range[:, :1], far_range), 1)
    hr_guide = torch.cat((near_range[:, 1:], wide_range[:, 1:]), 1)
    return torch.cat(
        (
            lr_features,
            (hr_metres + _TINY_M).log(),
            (hr_guide + _TINY_GUIDE).log(),
            distance_px,
            torch.full_like(middle, scale).log(),
        ),
        1,
    )


def pinball(difference: Tensor, quantile: float = QUANTILE, weight: Tensor | None = None) -> Tensor:
    """(Weighted) mean quantile loss of ``target - prediction``: least where a share ``quantile`` of the targets lies below."""
    loss = torch.maximum(quantile * difference, (quantile - 1) * difference)
    return loss.mean() if weight is None else (loss * weight).sum() / weight.sum()


# -- features ----------------------------------------------------------------------------------------------------------


def grid_scale(size: tuple[int, int], lr_size: tuple[int, int]) -> int:
    """Scale of the network's LR grid (h, w) for a guide of ``size``, from the sizes alone.

    Raises:
        ValueError: no scale has that grid.
    """
    for scale in SCALES:
        if lr_size == tuple(-(-length // scale) for length in size):
            return scale
    raise ValueError(f"expected lr on the network's grid, ceil({size} / s) for a scale of {SCALES}; got {lr_size}")


def _lr_features(filled: Tensor, valid: Tensor, reduced: Tensor) -> Tensor:
    """``LR_FEATURES`` on the LR grid; ``reduced`` is the result there."""
    ranges, extremes = [], torch.cat((filled, -filled), 1)
    for step in (1, 2, 4):
        extremes = _dilate(extremes, step)
        ranges.append(extremes[:, :1] + extremes[:, 1:])
    weight = valid.to(filled.dtype)
    rough, rough_weight = _roughness(filled, weight)
    residual = ((reduced - filled).abs() + _TINY_M).log()
    values, weights = torch.cat((rough, residual), 1), torch.cat((rough_weight, weight), 1)
    noise = [_box_mean(values, weights, side) for side in (3, 9, 0)]
    return torch.cat(
        (
            *((r + _TINY_M).log() for r in ranges),
            *(n[:, :1] for n in noise),
            *(n[:, 1:] for n in noise),
            1 - _box(weight, 3) / _box(torch.ones_like(weight), 3),
            1 - _box(weight, 9) / _box(torch.ones_like(weight), 9),
            cell_distance(valid).log1p(),
        ),
        1,
    )


def _roughness(depth: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Mean logarithm of the second differences along rows and columns at each cell, and the weight of that value."""
    total, count = torch.zeros_like(depth), torch.zeros_like(depth)
    for axis in (-2, -1):
        length = depth.shape[axis] - 2
        if length < 1:
            continue
        (before, at, after), (w0, w1, w2) = (
            [image.narrow(axis, i, length) for i in range(3)] for image in (depth, weight)
        )
        known = w0 * w1 * w2
        back = (0, 0, 1, 1) if axis == -2 else (1, 1)
        total = total + F.pad(((before - 2 * at + after).abs() + _TINY_M).log() * known, back)
        count = count + F.pad(known, back)
    return total / count.clamp(min=1), (count > 0).to(depth.dtype)


def _box(image: Tensor, side: int) -> Tensor:
    """Mean over ``side`` x ``side`` cells, zeros around the image."""
    return F.avg_pool2d(F.avg_pool2d(image, (1, side), 1, (0, side // 2)), (side, 1), 1, (side // 2, 0))


def _box_mean(values: Tensor, weight: Tensor, side: int) -> Tensor:
    """Weighted mean over ``side`` x ``side`` cells, of the image where these hold nothing; side 0: of the image."""
    total = weight.sum((2, 3), keepdim=True)
    overall = (values * weight).sum((2, 3), keepdim=True) / total.clamp(min=1)
    overall = torch.where(total > 0, overall, torch.full_like(overall, _TINY_M).log())
    if not side:
        return overall.expand_as(values)
    share = _box(weight, side)
    return torch.where(share > 1e-6, _box(values * weight, side) / share.clamp(min=1e-6), overall)


def cell_distance(valid: Tensor) -> Tensor:
    """Euclidean distance in cells from each cell of (B, 1, h, w) to the nearest valid one, at most 12."""
    far = float(_MAX_CELLS)
    row = torch.where(valid, 0.0, far)
    for step in (1, 2, 4, 4):  # along the row, up to their sum
        row = torch.minimum(row, torch.minimum(shifted(row, 0, -step, far), shifted(row, 0, step, far)) + step)
    best = squared = row.clamp(max=far) ** 2
    for step in range(1, _MAX_CELLS):
        beside = torch.minimum(shifted(squared, -step, 0, far**2), shifted(squared, step, 0, far**2))
        best = torch.minimum(best, beside + step**2)
    return best.sqrt().clamp(max=_MAX_CELLS)


def _largest_of_blocks(image: Tensor) -> Tensor:
    """The largest value of every 2 x 2 block of (B, C, H, W)."""
    batch, channels, height, width = image.shape
    if height % 2 or width % 2:
        image = F.pad(image, (0, width % 2, 0, height % 2), value=-torch.inf)
    rows = image.reshape(batch, channels, (height + 1) // 2, 2, image.shape[-1]).amax(3)
    return rows.reshape(batch, channels, rows.shape[2], -1, 2).amax(4)


def _halve(image: Tensor) -> Tensor:
    height, width = image.shape[-2:]
    if height % 2 or width % 2:  # not by ceil_mode, which runtimes understand differently
        image = F.pad(image, (0, width % 2, 0, height % 2), mode="replicate")
    return F.avg_pool2d(image, 2)


def _dilate(image: Tensor, step: int) -> Tensor:
    """The largest of the 3 x 3 values around each that are ``step`` apart."""
    # Not max_pool2d: PyTorch's takes several times as long on a CPU.
    for dy, dx in ((0, step), (step, 0)):
        image = torch.maximum(
            torch.maximum(shifted(image, dy, dx, -torch.inf), shifted(image, -dy, -dx, -torch.inf)), image
        )
    return image


def _enlarge(image: Tensor, scale: int, size: tuple[int, int]) -> Tensor:
    """From the LR grid to half the resolution of the guide."""
    large = F.interpolate(image, scale_factor=scale // 2, mode="bilinear", align_corners=False)
    return large[..., : size[0], : size[1]]


def _reduce(image: Tensor, scale: int, lr_size: tuple[int, int]) -> Tensor:
    """From half the resolution of the guide to the LR grid, whose last cells may stick out."""
    cell = scale // 2
    padding = (0, lr_size[1] * cell - image.shape[-1], 0, lr_size[0] * cell - image.shape[-2])
    return F.avg_pool2d(F.pad(image, padding, mode="replicate"), cell)
