"""Pixels and the coarser cells they lie in: enlarging, and distances to cells, at the cost of the cells rather than of the pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2a2_core.depth.resample import nearest_pixel

_FAR = 1e4  # pixels; images are smaller


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
        return self._to_rows(self._to_cols(cells))

    def within(self, known: Tensor, radius: float) -> Tensor:
        """(B, 1, H, W) bool: pixels at most ``radius`` pixels (Euclidean) from one of a known cell, (B, 1, h, w) bool."""
        radius = min(max(radius, 0.0), float(len(self.rows) + len(self.cols)))
        squared = self._squared_gap(known, radius)
        least = self._to_rows(squared)
        first, last = _ends(self.rows, self.grid[0])
        at = torch.arange(len(self.rows), device=self.rows.device)
        reach = _reach(self.rows, radius)
        padded = F.pad(squared, (0, 0, reach, reach), value=_FAR**2)
        ends = [F.pad(end, (reach, reach), value=value) for end, value in ((first, _FAR), (last, -_FAR))]
        for step in (k for k in range(-reach, reach + 1) if k):
            index = self.rows + step + reach
            # Rows of pixels between this one and the nearest of that row of cells, whichever side it lies on.
            gap = torch.maximum(ends[0][index] - at, at - ends[1][index]).clamp(max=_FAR)[:, None]
            least = torch.minimum(least, padded.index_select(-2, index) + gap.float() ** 2)
        return least <= radius**2

    def _squared_gap(self, known: Tensor, radius: float) -> Tensor:
        """(B, 1, h, W): squared number of columns between a column of pixels and the nearest known cell of a row of cells."""
        first, last = _ends(self.cols, self.grid[1])
        left, right = torch.where(known, last, -_FAR), torch.where(known, first, _FAR)
        reach, step = _reach(self.cols, radius), 1
        while reach > 0:  # the nearest known one within 1, 3, 7, ... cells, each way
            step = min(step, reach)
            if step < known.shape[-1]:
                left = torch.maximum(left, F.pad(left[..., :-step], (step, 0), value=-_FAR))
                right = torch.minimum(right, F.pad(right[..., step:], (0, step), value=_FAR))
            reach, step = reach - step, 2 * step
        at = torch.arange(len(self.cols), device=self.cols.device, dtype=torch.float32)
        return torch.minimum(at - self._to_cols(left), self._to_cols(right) - at).clamp(0, _FAR) ** 2

    def _to_cols(self, cells: Tensor) -> Tensor:
        if factor := self._repeats[1]:
            return F.interpolate(cells, scale_factor=(1, factor), mode="nearest")[..., : len(self.cols)]
        return cells.index_select(-1, self.cols)

    def _to_rows(self, cells: Tensor) -> Tensor:
        return cells.index_select(-2, self.rows)


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
