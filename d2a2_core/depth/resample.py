"""Moving depth between grids without letting invalid pixels in.

Convention: two images of the same view cover the same rectangle, so pixel centres relate by
u' = (u + 0.5) * W' / W - 0.5 (pixel centres at integers).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def image_size(image: Tensor) -> tuple[int, int]:
    """(H, W) as numbers, also while an exporter traces, which would compute with sizes as float32 tensors."""
    height, width = image.shape[-2:]
    return int(height), int(width)


def nearest_pixel(image: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, h, w) -> (B, C, H, W) over the same rectangle: the pixel whose cell the target's centre lies in."""
    lengths = image_size(image)
    if not any(wanted % had for wanted, had in zip(size, lengths, strict=True)):
        # The same, several times as fast on a CPU.
        return image.repeat_interleave(size[0] // lengths[0], -2).repeat_interleave(size[1] // lengths[1], -1)
    for axis, wanted, had in zip((-2, -1), size, lengths, strict=True):
        # Not by "nearest-exact", which rounds in float32, and which ONNX lacks.
        centres = [(2 * k + 1) * had // (2 * wanted) for k in range(wanted)]
        image = image.index_select(axis, torch.tensor(centres, device=image.device))
    return image


def regrid(depth: Tensor, size: tuple[int, int], cell: tuple[float, float] | None = None) -> Tensor:
    """Brings depth onto another grid, finer or coarser along each axis, with respect for invalid pixels.

    Args:
        depth: (B, 1, h, w), NaN where invalid.
        size: (H, W) of the new grid; both grids start in the same corner.
        cell: height and width of a new pixel in old pixels. Default: (h / H, w / W), the same rectangle. A grid that
            reaches beyond the old one keeps what its last cells do cover.

    Returns:
        (B, 1, H, W), NaN where a cell holds too few valid values.
    """
    height, width = image_size(depth)
    cell_y, cell_x = cell or (height / size[0], width / size[1])
    depth = masked_area(
        depth, (size[0] if cell_y > 1 else height, size[1] if cell_x > 1 else width), (max(cell_y, 1), max(cell_x, 1))
    )
    return masked_bilinear(depth, size, (min(cell_y, 1), min(cell_x, 1)))


def masked_area(depth: Tensor, size: tuple[int, int], cell: tuple[float, float], min_share: float = 0.25) -> Tensor:
    """Mean of the valid values in every target cell; cells are at least one source pixel large, fractions included.

    Args:
        depth: (B, 1, h, w), NaN where invalid.
        size: (H, W) cells, from the top left corner on.
        cell: their height and width in source pixels.
        min_share: a cell less than this share of whose covered area is valid becomes NaN.

    Returns:
        (B, 1, H, W).
    """
    if size == tuple(depth.shape[-2:]) and tuple(cell) == (1, 1):
        return depth
    height, width = image_size(depth)
    rows, cols = _overlap(height, size[0], cell[0], depth), _overlap(width, size[1], cell[1], depth)
    known = depth.abs() < torch.inf
    valid = known.to(depth.dtype)
    weight = rows @ valid @ cols.T
    total = rows @ torch.where(known, depth, 0.0) @ cols.T
    covered = rows.sum(1)[:, None] * cols.sum(1)[None]
    # The tiny margin keeps rounding of a share of exactly min_share from deciding.
    return torch.where(weight >= covered * min_share - 1e-4, total / weight, torch.nan)


def masked_bilinear(depth: Tensor, size: tuple[int, int], cell: tuple[float, float], max_step: float = 0.05) -> Tensor:
    """Samples depth at the centres of finer cells: bilinear on smooth surfaces, else the nearest pixel's own value.

    Mixing across a depth edge would make flying pixels and mixing with a hole would spread it, so four neighbours that
    are not all valid, or further apart than ``max_step`` of the nearest of them, are not mixed.

    Args:
        depth: (B, 1, h, w), NaN where invalid.
        size: (H, W) cells, from the top left corner on.
        cell: their height and width in source pixels, at most 1.

    Returns:
        (B, 1, H, W), NaN where the nearest pixel is invalid.
    """
    if size == tuple(depth.shape[-2:]) and tuple(cell) == (1, 1):
        return depth
    height, width = image_size(depth)
    y0, y1, fy = _neighbours(height, size[0], cell[0], depth)
    x0, x1, fx = _neighbours(width, size[1], cell[1], depth)
    top, bottom = depth[..., y0, :], depth[..., y1, :]
    corners = torch.stack((top[..., x0], top[..., x1], bottom[..., x0], bottom[..., x1]))
    fy = fy[:, None]
    weights = torch.stack(((1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx))[:, None, None]
    low, high = corners.amin(0), corners.amax(0)
    mixed = (weights * corners).sum(0)  # NaN if any corner is; other runtimes' least and largest values pass over NaN
    nearest = corners.gather(0, weights.argmax(0).expand(corners.shape[1:])[None])[0]
    alike = (mixed.abs() < torch.inf) & (high - low <= max_step * low)
    return torch.where(alike, mixed, nearest)


def reduce_surfaces(depth: Tensor, size: tuple[int, int], max_step: float = 0.05) -> Tensor:
    """Reduces depth (B, 1, h, w), NaN where invalid, to (B, 1, H, W), H <= h and W <= w, over the same rectangle.

    A cell on one surface becomes the mean of what was measured in it. One with values further apart than ``max_step`` of the
    nearest of them takes the value of the pixel at its centre, so that nothing is mixed across a depth edge. Too few values are a
    hole, as in :func:`masked_area`.
    """
    height, width = image_size(depth)
    cell = height / size[0], width / size[1]
    if cell == (1, 1):
        return depth
    lowest = -_cell_maximum(-depth, size, cell)
    highest = _cell_maximum(depth, size, cell)
    mean, centre = masked_area(depth, size, cell), nearest_pixel(depth, size)
    return torch.where(highest - lowest <= max_step * lowest, mean, torch.where(mean.abs() < torch.inf, centre, mean))


def _cell_maximum(depth: Tensor, size: tuple[int, int], cell: tuple[float, float]) -> Tensor:
    """Largest valid value among the pixels that each cell touches, -inf without any; one axis after the other."""
    values = torch.where(depth.abs() < torch.inf, depth, -torch.inf)
    for axis, length in zip((-2, -1), image_size(depth), strict=True):
        # The margin keeps rounding from adding a pixel that the cell only touches.
        first = [math.floor(k * cell[axis] + 1e-6) for k in range(size[axis])]
        last = [min(math.floor((k + 1) * cell[axis] - 1e-6), length - 1) for k in range(size[axis])]
        steps = max(end - begin for begin, end in zip(first, last, strict=True)) + 1
        indices = [[min(begin + step, end) for begin, end in zip(first, last, strict=True)] for step in range(steps)]
        taken = [values.index_select(axis, torch.tensor(index, device=depth.device)) for index in indices]
        values = torch.stack(taken).amax(0)
    return values


def _overlap(source: int, target: int, cell: float, like: Tensor) -> Tensor:
    """(target, source): how much of each source pixel lies in each target cell."""
    edges = torch.arange(target + 1, device=like.device, dtype=torch.float64) * cell
    pixels = torch.arange(source, device=like.device, dtype=torch.float64)
    overlap = torch.minimum(edges[1:, None], pixels + 1) - torch.maximum(edges[:-1, None], pixels)
    return overlap.clamp(min=0).to(like.dtype)


def _neighbours(source: int, target: int, cell: float, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Indices (target,) of the two source pixels around each target centre, and the weight of the second."""
    at = (torch.arange(target, device=like.device, dtype=torch.float64) + 0.5) * cell - 0.5
    at = at.clamp(0, source - 1)
    first = at.floor().long()
    return first, (first + 1).clamp(max=source - 1), (at - first).to(like.dtype)
