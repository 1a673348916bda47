"""Pixels and the coarser cells they lie in: means, enlarging, distances to cells, at the cost of the cells."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2a2_core.depth.resample import nearest_pixel

_FAR = 1e4  # pixels; images are smaller


def cell_means(image: Tensor, scale: int) -> Tensor:
    """(B, C, H, W) -> (B, C, H / s, W / s): means over cells of ``scale`` x ``scale`` pixels."""
    batch, channels, height, width = image.shape
    # One plane each: OpenVINO brings an image of few channels into another layout first, which takes longer than the means.
    means = F.avg_pool2d(image.reshape(batch * channels, 1, height, width), scale)
    return means.reshape(batch, channels, height // scale, width // scale)


def shifted(image: Tensor, dy: int, dx: int, fill: float) -> Tensor:
    """(..., h, w): of each pixel what lies ``dy`` rows below and ``dx`` columns to its right, ``fill`` beyond the border."""
    height, width = image.shape[-2:]
    dy, dx = max(-height, min(dy, height)), max(-width, min(dx, width))
    return F.pad(image, (-dx, dx, -dy, dy), value=fill)


class CellMap(nn.Module):
    """Which cell each pixel lies in. Every cell from the first to the last one that is used has a pixel.

    Args:
        rows: (H,) int64, the row of cells that each row of pixels lies in, ascending.
        cols: (W,) int64, likewise.
        grid: Rows and columns of cells.
    """

    def __init__(self, rows: Tensor, cols: Tensor, grid: tuple[int, int]) -> None:
        super().__init__()
        self.grid = grid
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("cols", cols, persistent=False)
        self._repeats = _whole_factor(rows, grid[0]), _whole_factor(cols, grid[1])

    @classmethod
    def same_view(cls, size: tuple[int, int], grid: tuple[int, int]) -> CellMap:
        """Cells that cover the same rectangle as the pixels do, as :func:`d2a2_core.depth.nearest_pixel` has it."""
        rows, cols = (
            nearest_pixel(torch.arange(count, dtype=torch.float32)[None, None, :, None], (length, 1))[0, 0, :, 0].long()
            for length, count in zip(size, grid, strict=True)
        )
        return cls(rows, cols, grid)

    @classmethod
    def whole_cells(cls, size: tuple[int, int], scale: int) -> CellMap:
        """Cells of ``scale`` x ``scale`` pixels from the top left corner on, the last ones of which may stick out."""
        rows, cols = (torch.arange(length) // scale for length in size)
        return cls(rows, cols, (-(-size[0] // scale), -(-size[1] // scale)))

    def forward(self, cells: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, H, W): of each pixel the value of its cell."""
        return self.to_rows(self.to_cols(cells))

    def to_cols(self, cells: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, W)."""
        if factor := self._repeats[1]:
            return F.interpolate(cells, scale_factor=(1, factor), mode="nearest")[..., : len(self.cols)]
        return cells.index_select(-1, self.cols)

    def to_rows(self, cells: Tensor) -> Tensor:
        """(B, C, h, W) -> (B, C, H, W)."""
        return cells.index_select(-2, self.rows)


class Within(nn.Module):
    """Which pixels are at most so far (Euclidean) from a pixel of a known cell.

    Args:
        cells: Which cell each pixel lies in.
        radius: Pixels; below 0 as 0.
    """

    def __init__(self, cells: CellMap, radius: float) -> None:
        super().__init__()
        self.cells = cells
        self._squared = min(max(radius, 0.0), float(len(cells.rows) + len(cells.cols))) ** 2
        reaches = [_reach(index, self._squared**0.5) for index in (cells.rows, cells.cols)]
        self._steps = [k for k in range(-reaches[0], reaches[0] + 1) if k]
        self._margin = reaches[0]
        self._jumps = _jumps(reaches[1])
        first, last = _ends(cells.rows, cells.grid[0])
        first, last = (F.pad(end, (self._margin,) * 2, value=value) for end, value in ((first, _FAR), (last, -_FAR)))
        at = torch.arange(len(cells.rows), dtype=torch.float32)
        taken = [cells.rows + k + self._margin for k in self._steps]
        # Rows of pixels between each one and the nearest of a row of cells beside its own, whichever side that lies on.
        gaps = [torch.maximum(first[rows] - at, at - last[rows]).clamp(max=_FAR) ** 2 for rows in taken]
        self.register_buffer("_rows", _stack(taken, cells.rows), persistent=False)
        self.register_buffer("_gaps", _stack(gaps, at)[..., None], persistent=False)
        first, last = _ends(cells.cols, cells.grid[1])
        for name, values in (("_first", first), ("_last", last)):
            self.register_buffer(name, values, persistent=False)
        self.register_buffer("_cols", torch.arange(len(cells.cols), dtype=torch.float32), persistent=False)

    def forward(self, known: Tensor) -> Tensor:
        """(B, 1, h, w) bool -> (B, 1, H, W) bool."""
        squared = self._along_rows(known)
        least, tall = self.cells.to_rows(squared), F.pad(squared, (0, 0, self._margin, self._margin), value=_FAR**2)
        for i in range(len(self._steps)):
            least = torch.minimum(least, tall.index_select(-2, self._rows[i]) + self._gaps[i])
        return least <= self._squared

    def _along_rows(self, known: Tensor) -> Tensor:
        """(B, 1, h, W): squared number of columns from each column of pixels to the nearest known cell of a row of cells."""
        left, right = torch.where(known, self._last, -_FAR), torch.where(known, self._first, _FAR)
        for step in self._jumps:
            left = torch.maximum(left, shifted(left, 0, -step, -_FAR))
            right = torch.minimum(right, shifted(right, 0, step, _FAR))
        gap = torch.minimum(self._cols - self.cells.to_cols(left), self.cells.to_cols(right) - self._cols)
        return gap.clamp(0, _FAR) ** 2


def _stack(values: list[Tensor], like: Tensor) -> Tensor:
    return torch.stack(values) if values else like.new_empty((0, len(like)))


def _jumps(reach: int) -> list[int]:
    """Steps after which what is within ``reach`` has been passed on to everyone: 1, 2, 4, ... and a rest."""
    jumps, step = [], 1
    while reach > 0:
        jumps.append(min(step, reach))
        reach, step = reach - jumps[-1], 2 * step
    return jumps


def _whole_factor(index: Tensor, count: int) -> int:
    """By how much each cell is repeated; 0 where that differs."""
    factor = -(-len(index) // count)
    return factor if torch.equal(index, torch.arange(len(index)) // factor) else 0


def _ends(index: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """First and last pixel of each cell, (count,) float32; of cells without a pixel what lies far from all."""
    at = torch.arange(len(index), dtype=torch.float32, device=index.device)
    inside = index == torch.arange(count, device=index.device)[:, None]
    return torch.where(inside, at, _FAR).amin(1), torch.where(inside, at, -_FAR).amax(1)


def _reach(index: Tensor, radius: float) -> int:
    """How far apart, in cells, two pixels within the radius can be."""
    apart = min(int(radius), len(index) - 1)
    return int((index[apart:] - index[: len(index) - apart]).max())
