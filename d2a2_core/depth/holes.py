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

    It knows the first one in each direction, and then what its neighbours took. Measurements are known by their pixels' numbers,
    so that all directions are compared at once.
    """
    pixels = _Pixels(guide.to(value.dtype))
    steps = torch.cat([_first_valid(valid, value.dtype, dy, dx) for dy, dx in _DIRECTIONS], 1)
    known, moves = steps < _FAR, value.new_tensor(_DIRECTIONS).view(1, -1, 2, 1, 1)
    place = torch.where(known, steps, 0.0)[:, :, None] * moves
    number = pixels.number + place[:, :, 0] * pixels.width + place[:, :, 1]
    best, taken = _best(number, torch.where(known, pixels.likeness(number, place[:, :, 0], place[:, :, 1]), _NEVER))
    number = torch.cat([shifted(taken, dy, dx, 0.0) for dy, dx in _NEIGHBOURS], 1)
    there = torch.cat([shifted(best, dy, dx, _NEVER) for dy, dx in _NEIGHBOURS], 1) > _NEVER
    down, right = pixels.place(number)
    known = there & (down.square() + right.square() <= _REACH**2)
    likeness = torch.where(known, pixels.likeness(number, down, right), _NEVER)
    best, taken = _best(torch.cat((taken, number), 1), torch.cat((best, likeness), 1))
    return torch.where(best > _NEVER, _taken(value, taken), filled)


def _first_valid(valid: Tensor, dtype: torch.dtype, dy: int, dx: int) -> Tensor:
    """(B, 1, h, w): steps to the first valid pixel in a direction, 0 in one, ``_FAR`` or more without any in reach."""
    steps = torch.where(valid, 0.0, _FAR).to(dtype)
    for jump in _jumps(dy, dx):
        steps = torch.minimum(steps, shifted(steps, jump * dy, jump * dx, _FAR) + jump)
    return steps


def _best(number: Tensor, likeness: Tensor) -> tuple[Tensor, Tensor]:
    """The greatest of (B, n, h, w) likenesses, and its pixel's number; (B, 1, h, w) each."""
    best = likeness.amax(1, keepdim=True)
    return best, torch.where(likeness >= best, number, torch.inf).amin(1, keepdim=True)


def _taken(image: Tensor, number: Tensor) -> Tensor:
    """(B, 1, h, w) by pixels' numbers -> of the size of these."""
    return image.flatten().index_select(0, number.flatten().long()).view(number.shape)


class _Pixels:
    """The pixels of a batch, numbered row by row from one image to the next, as float: exact up to 16 million.

    Args:
        guide: (B, 3, h, w) RGB in [0, 1].
    """

    def __init__(self, guide: Tensor) -> None:
        batch, _, height, width = guide.shape
        self.width = width
        numbers = torch.arange(batch * height * width, dtype=guide.dtype, device=guide.device)
        self.number = numbers.view(batch, 1, height, width)
        self._row = self._row_of(self.number)
        self._colors = (guide / (2**0.5 * _SIGMA_COLOR)).split(1, 1)

    def _row_of(self, number: Tensor) -> Tensor:
        return ((number + 0.5) / self.width).floor()

    def place(self, number: Tensor) -> tuple[Tensor, Tensor]:
        """Where pixels lie, seen from each one: rows down, columns to the right."""
        down = self._row_of(number) - self._row
        return down, number - self.number - down * self.width

    def likeness(self, number: Tensor, down: Tensor, right: Tensor) -> Tensor:
        """How like each pixel is to others, at places seen from it, in place and colour; 0 is the same."""
        unlike = (down.square() + right.square()) / (2 * _SIGMA_SPACE**2)
        for color in self._colors:
            unlike = unlike + (_taken(color, number) - color).square()
        return -unlike


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
