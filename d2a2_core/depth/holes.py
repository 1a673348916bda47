"""Filling holes before the network, and knowing how far a hole reaches."""

from __future__ import annotations

from math import gcd

import torch
import torch.nn.functional as F
from torch import Tensor

from d2a2_core.depth.cells import shifted

_REACH = 6  # pixels around a hole's pixel in which a measurement of its colour is looked for
_SIGMA_SPACE, _SIGMA_COLOR = 4.0, 0.15  # pixels; RGB in [0, 1]
_NEVER = -1e30  # likeness of what is not there
_FAR = 1e3  # steps to what is not there
_DIRECTIONS = [(dy, dx) for dy in range(-2, 3) for dx in range(-2, 3) if gcd(dy, dx) == 1]  # 16


_NEIGHBOURS = ((0, 1), (0, -1), (1, 0), (-1, 0))


def _jumps(dy: int, dx: int) -> tuple[int, ...]:
    """After these each pixel knows the nearest measurement in a direction, within ``_REACH`` rows and columns."""
    return (1, 2, 3) if max(abs(dy), abs(dx)) == 1 else (1, 2)


def fill_holes(depth: Tensor, guide: Tensor | None = None) -> Tensor:
    """Fills every NaN from the measurements around it, coarse to fine; measurements stay as they are.

    A pyramid of masked means: each level halves the one below and averages its valid pixels only; on the way back each
    hole takes the next coarser level's value.

    With a guide, a pixel near measurements takes the value of the one that is nearest to it in place and colour together, so
    that a hole between two surfaces is divided where the colour changes, and holds no depth in between. It knows the first
    measurements within 6 rows and columns along 16 directions, and those that its neighbours took.

    The steps are the same whatever the image holds, so that a graph can be made of them (:mod:`d2a2_core.frame_graph`).

    Args:
        depth: (B, 1, h, w) float, NaN where invalid.
        guide: (B, 3, h, w) RGB in [0, 1] of the same grid, or None.

    Returns:
        (B, 1, h, w) without NaN; an image without any valid pixel is filled with 0.
    """
    valid = depth.abs() < torch.inf
    value = torch.where(valid, depth, 0.0)
    filled = _coarse_to_fine(value, valid)
    return filled if guide is None else torch.where(valid, value, _most_alike(value, valid, filled, guide))


def _coarse_to_fine(value: Tensor, valid: Tensor) -> Tensor:
    """``value``, 0 where not valid, filled by the pyramid of masked means."""
    levels = [(value, valid.to(value.dtype))]
    while max(levels[-1][0].shape[-2:]) > 1:
        value, weight = levels[-1]
        padding = (0, value.shape[-1] % 2, 0, value.shape[-2] % 2)
        total = F.avg_pool2d(F.pad(value, padding), 2)
        share = F.avg_pool2d(F.pad(weight, padding), 2)
        has = share > 0
        # The weight is binary on purpose: a far larger region must not outvote the hole's own border.
        levels.append((torch.where(has, total / share.clamp(min=1e-6), 0.0), has.to(value.dtype)))
    filled = levels[-1][0]
    for value, weight in reversed(levels[:-1]):
        coarse = F.interpolate(filled, scale_factor=2, mode="bilinear", align_corners=False)
        coarse = coarse[..., : value.shape[-2], : value.shape[-1]]
        filled = torch.where(weight > 0, value, coarse)
    return filled


def _most_alike(value: Tensor, valid: Tensor, filled: Tensor, guide: Tensor) -> Tensor:
    """Of each pixel the measurement most like it in place and colour, of those it comes to know; else ``filled``.

    It knows the first one in each direction, and then what its neighbours took.
    """
    own = guide.to(value.dtype) / (2**0.5 * _SIGMA_COLOR)
    measured, at_once = torch.cat((value, own), 1), torch.where(valid, 0.0, _FAR)
    best, taken = torch.where(valid, 0.0, _NEVER), measured
    place = torch.zeros_like(measured[:, :2])  # of what was taken, from here: rows down, columns to the right
    for dy, dx in _DIRECTIONS:
        found, steps = measured, at_once
        for jump in _jumps(dy, dx):
            there = shifted(steps, jump * dy, jump * dx, _FAR) + jump
            found = torch.where(there < steps, shifted(found, jump * dy, jump * dx, 0.0), found)
            steps = torch.minimum(there, steps)
        there = torch.cat((steps * dy, steps * dx), 1)
        likeness = _likeness(found, there, own)
        better = (likeness > best) & (steps < _FAR)
        taken, place = torch.where(better, found, taken), torch.where(better, there, place)
        best = torch.where(better, likeness, best)
    for dy, dx in _NEIGHBOURS:
        step = torch.tensor([dy, dx], dtype=value.dtype, device=value.device).view(1, 2, 1, 1)
        found, there = shifted(taken, dy, dx, 0.0), shifted(place, dy, dx, 0.0) + step
        likeness = _likeness(found, there, own)
        better = (
            (likeness > best)
            & (shifted(best, dy, dx, _NEVER) > _NEVER)
            & (there.square().sum(1, keepdim=True) <= _REACH**2)
        )
        taken, place = torch.where(better, found, taken), torch.where(better, there, place)
        best = torch.where(better, likeness, best)
    return torch.where(best > _NEVER, taken[:, :1], filled)


def _likeness(found: Tensor, place: Tensor, own: Tensor) -> Tensor:
    """(B, 1, h, w): how like a pixel is to a measurement (depth and colour) at a place beside it; 0 is the same."""
    far = place.square().sum(1, keepdim=True) / (2 * _SIGMA_SPACE**2)
    return -far - (found[:, 1:] - own).square().sum(1, keepdim=True)


def within_distance(seeds: Tensor, radius: float) -> Tensor:
    """Pixels at most ``radius`` pixels (Euclidean) from a seed.

    Args:
        seeds: (B, 1, H, W) bool.
        radius: pixels; 0 or less gives the seeds themselves.

    Returns:
        (B, 1, H, W) bool.
    """
    if radius <= 0:
        return seeds
    height, width = seeds.shape[-2:]
    radius = min(float(radius), float(height + width))  # no two pixels are further apart
    gap = _row_distance(seeds)  # along the row, to the nearest seed of that row
    near, hit, reach = torch.zeros_like(seeds), seeds, 0
    for dy in range(min(int(radius), height - 1), -1, -1):
        if reach != (reach := int((radius**2 - dy**2) ** 0.5)):  # several rows have the same
            hit = gap <= reach
        # Row y of the result sees rows y - dy and y + dy of the seeds.
        near[..., : height - dy, :] |= hit[..., dy:, :]
        near[..., dy:, :] |= hit[..., : height - dy, :]
    return near


def _row_distance(seeds: Tensor) -> Tensor:
    """Distance in pixels to the nearest seed of the same row (infinite where the row has none)."""
    width = seeds.shape[-1]
    far = torch.tensor(torch.inf, device=seeds.device)
    cols = torch.arange(width, device=seeds.device, dtype=torch.float32).expand(seeds.shape)
    left = torch.where(seeds, cols, -far).cummax(dim=-1).values
    right = torch.where(seeds, cols, far).flip(-1).cummin(dim=-1).values.flip(-1)
    return torch.minimum(cols - left, right - cols)
