"""Uncertainty: for every pixel of the published depth the half-width of the interval that holds the truth in 68 % of cases.

A small head beside the frozen network: features that anyone can check (how noisy and how complete the measurements around the
pixel are, whether an edge is near, how far the network went from plain interpolation), three 1 x 1 convolutions, trained by
:mod:`d2a2_core.calibration.sigma` with the quantile ("pinball") loss (Koenker and Bassett, "Regression Quantiles", Econometrica
1978). All features are in metres or pixels, so the range that normalises the network's input does not matter.

Everything is computed for blocks of 4 x 4 pixels of the colour image, which at x4 are the LR cells, and sigma is enlarged
bilinearly in its logarithm. At half of the colour image's resolution it took three times as long, for a loss 1 % lower.

Convention: depth (B, 1, ., .) float32 metres, NaN invalid; the LR grid is the network's, see
:meth:`d2a2_core.upsampler.DepthUpsampler.predict`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2a2_core.depth import fill_holes
from d2a2_core.depth.cells import cell_means, shifted
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
    "hr_range_4", "hr_range_12", "hr_range_28",  # metres, over about so many pixels squared
    "guide_range_12", "guide_range_28",  # of brightness in [0, 1]
    "distance_px",
    "scale",
)  # fmt: skip
FEATURES = (*LR_FEATURES, *HR_FEATURES)
BLOCK = 4  #: pixels; the least scale
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
        sigma = (
            F.interpolate(log_sigma, scale_factor=BLOCK, mode="bilinear", align_corners=False).exp().clamp(*_SIGMA_M)
        )
        return torch.where(hr.abs() < torch.inf, sigma[..., : hr.shape[-2], : hr.shape[-1]], torch.nan)


def sigma_features(guide: Tensor, lr: Tensor, hr: Tensor) -> Tensor:
    """What the head sees: (B, F, ceil(H / 4), ceil(W / 4)) in the order of ``FEATURES``. Arguments as of ``predict``."""
    if guide.shape[-2:] != hr.shape[-2:]:
        raise ValueError(f"expected hr of the guide's size {tuple(guide.shape[-2:])}, got {tuple(hr.shape[-2:])}")
    scale = grid_scale(tuple(hr.shape[-2:]), tuple(lr.shape[-2:]))
    size = tuple((length + BLOCK - 1) // BLOCK for length in hr.shape[-2:])  # exporters round -(-n // 4) towards 0
    valid, filled = lr > 0, fill_holes(lr)
    coarse = _enlarge(filled, scale, size)
    mean, extremes = _of_blocks(hr.float(), coarse)
    luma = cell_means(_whole_blocks(guide.float(), None), BLOCK).mean(1, keepdim=True)
    near = _dilate(torch.cat((extremes, luma, -luma), 1), 1)
    far = _dilate(near, 2)
    ranges = torch.cat((extremes[:, :1] + extremes[:, 1:], near[:, ::2] + near[:, 1::2], far[:, ::2] + far[:, 1::2]), 1)

    lr_features = _lr_features(filled, valid, _reduce(mean, scale, tuple(lr.shape[-2:])))
    lr_features = _enlarge(lr_features, scale, size)
    metres = torch.cat((mean, (mean - coarse).abs(), ranges[:, 0:2], ranges[:, 3:4]), 1)
    brightness = torch.cat((ranges[:, 2:3], ranges[:, 4:5]), 1)
    return torch.cat(
        (
            lr_features,
            (metres + _TINY_M).log(),
            (brightness + _TINY_GUIDE).log(),
            torch.log1p((lr_features[:, -1:].exp() - 1) * scale),
            torch.full_like(mean, scale).log(),
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


def _of_blocks(depth: Tensor, default: Tensor) -> tuple[Tensor, Tensor]:
    """Of every block the mean of what is finite, (B, 1, h, w), its largest and its negated least value, (B, 2, h, w).

    ``default`` where a block holds nothing.
    """
    depth = _whole_blocks(depth, torch.nan)
    known = depth.abs() < torch.inf
    share = F.avg_pool2d(known.to(depth.dtype), BLOCK)
    mean = F.avg_pool2d(torch.where(known, depth, 0.0), BLOCK) / share
    extremes = torch.cat((torch.where(known, depth, -torch.inf), torch.where(known, -depth, -torch.inf)), 1)
    batch, _, height, width = extremes.shape
    extremes = extremes.reshape(batch, 2, height // BLOCK, BLOCK, width).amax(3)
    extremes = extremes.reshape(batch, 2, height // BLOCK, width // BLOCK, BLOCK).amax(4)
    some = share > 0
    return torch.where(some, mean, default), torch.where(some, extremes, torch.cat((default, -default), 1))


def _whole_blocks(image: Tensor, fill: float | None) -> Tensor:
    """Padded to whole blocks by a value; None repeats the border."""
    padding = (0, -image.shape[-1] % BLOCK, 0, -image.shape[-2] % BLOCK)
    if not any(padding):
        return image
    return F.pad(image, padding, mode="replicate") if fill is None else F.pad(image, padding, value=fill)


def _dilate(image: Tensor, step: int) -> Tensor:
    """The largest of the 3 x 3 values around each that are ``step`` apart."""
    # Not max_pool2d: PyTorch's takes several times as long on a CPU.
    for dy, dx in ((0, step), (step, 0)):
        image = torch.maximum(
            torch.maximum(shifted(image, dy, dx, -torch.inf), shifted(image, -dy, -dx, -torch.inf)), image
        )
    return image


def _enlarge(image: Tensor, scale: int, size: tuple[int, ...]) -> Tensor:
    """From the LR grid to blocks."""
    if scale > BLOCK:
        image = F.interpolate(image, scale_factor=scale // BLOCK, mode="bilinear", align_corners=False)
    return image[..., : size[0], : size[1]]


def _reduce(image: Tensor, scale: int, lr_size: tuple[int, int]) -> Tensor:
    """From blocks to the LR grid, whose last cells may stick out."""
    if scale == BLOCK:
        return image
    blocks = scale // BLOCK
    padding = (0, lr_size[1] * blocks - image.shape[-1], 0, lr_size[0] * blocks - image.shape[-2])
    return F.avg_pool2d(F.pad(image, padding, mode="replicate"), blocks)
