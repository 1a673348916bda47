"""Cells and pixels: enlarging and distances, against the plain way over all pixels."""

from __future__ import annotations

import math

import pytest
import torch

from d2a2_core.depth import nearest_pixel, within_distance
from d2a2_core.depth.cells import CellMap, Within, cell_means

# Whole ratios, broken ones, cells smaller than pixels (some of which have none), one cell.
VIEWS = [
    ((24, 32), (6, 8)),
    ((30, 41), (10, 11)),
    ((16, 25), (7, 9)),
    ((7, 9), (16, 25)),
    ((21, 30), (21, 30)),
    ((5, 6), (1, 1)),
]
RADII = [-1.0, 0.0, 1.0, 3.5, 16.0, 1000.0, math.inf]


def known(grid: tuple[int, int], share: float) -> torch.Tensor:
    return torch.rand(2, 1, *grid, generator=torch.Generator().manual_seed(int(100 * share))) < share


@pytest.mark.parametrize(("size", "grid"), VIEWS, ids=str)
def test_cells_of_the_same_view_are_the_nearest_pixels(size, grid):
    cells = torch.arange(2.0 * grid[0] * grid[1]).reshape(1, 2, *grid)
    assert torch.equal(CellMap.same_view(size, grid)(cells), nearest_pixel(cells, size))


@pytest.mark.parametrize(("size", "grid"), VIEWS, ids=str)
@pytest.mark.parametrize("radius", RADII)
@pytest.mark.parametrize("share", [0.0, 0.03, 0.4, 1.0])
def test_distances_to_cells_are_those_to_their_pixels(size, grid, radius, share):
    seeds = known(grid, share)
    expected = within_distance(nearest_pixel(seeds.float(), size) > 0.5, radius)
    assert torch.equal(Within(CellMap.same_view(size, grid), radius)(seeds), expected)


@pytest.mark.parametrize(("size", "scale"), [((21, 30), 4), ((48, 64), 16), ((3, 5), 8)], ids=str)
def test_whole_cells_may_stick_out(size, scale):
    cells = CellMap.whole_cells(size, scale)
    seeds = known(cells.grid, 0.2)
    pixels = seeds.repeat_interleave(scale, 2).repeat_interleave(scale, 3)[..., : size[0], : size[1]]
    assert torch.equal(cells(seeds.float()) > 0.5, pixels)
    assert torch.equal(Within(cells, 7.3)(seeds), within_distance(pixels, 7.3))


def test_means_of_cells():
    image = torch.rand(2, 3, 8, 12, generator=torch.Generator().manual_seed(1))
    expected = torch.stack([
        torch.stack([image[..., y : y + 4, x : x + 4].mean((2, 3)) for x in (0, 4, 8)], -1) for y in (0, 4)
    ], -2)  # fmt: skip
    torch.testing.assert_close(cell_means(image, 4), expected)
