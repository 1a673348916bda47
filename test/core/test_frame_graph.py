"""The graph of a frame: static, and the same as its parts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from d2a2_core.depth import doubtful_pixels
from d2a2_core.frame_graph import FrameGraph, FrameShape, Inspection
from d2a2_core.network import build_model
from d2a2_core.network.sigma_head import SigmaHead

SIZES = [((48, 64), 4, (12, 16)), ((50, 61), 8, (25, 30)), ((40, 40), 16, (40, 40))]


def frame(size: tuple[int, int], scale: int, grid: tuple[int, int], seed: int = 0) -> tuple[Tensor, ...]:
    """Random inputs of :meth:`FrameGraph.forward`: a tenth of holes, some doubtful, some rejected."""
    random = torch.Generator().manual_seed(seed)
    lr_size = tuple(-(-length // scale) for length in size)
    color = torch.randint(0, 256, (1, *size, 3), dtype=torch.uint8, generator=random)
    lr = 1 + torch.rand(1, 1, *lr_size, generator=random)
    lr[torch.rand(lr.shape, generator=random) < 0.1] = torch.nan
    measured = 1 + torch.rand(1, 1, *grid, generator=random)
    removed = torch.rand(measured.shape, generator=random) < 0.1
    trusted = (lr > 0) & (torch.rand(lr.shape, generator=random) > 0.1)
    return color, lr, trusted, measured.masked_fill(removed, torch.nan), removed, torch.tensor([0.9, 1.2, 0.02, 0.02])


def graph(size: tuple[int, int], scale: int, grid: tuple[int, int], **options) -> FrameGraph:
    torch.manual_seed(1)
    network = build_model({"model": "d2a2-lite", "channels": 8, "blocks": 1, "detail": 8, "context": [], "geometric": False,
                           "trust": True})  # fmt: skip
    shape = FrameShape(size, scale, grid, registered=False, max_fill_px=16.0, **options)
    return FrameGraph(network, True, shape, SigmaHead()).eval().requires_grad_(False)


@pytest.mark.slow
@pytest.mark.parametrize(("size", "scale", "grid"), SIZES[:2], ids=str)
def test_nothing_depends_on_the_data(size, scale, grid):
    """Capture refuses control flow that depends on values, and what was captured computes other frames alike."""
    module = graph(size, scale, grid)
    captured = torch.export.export(module, frame(size, scale, grid), strict=True).module()
    other = frame(size, scale, grid, seed=5)
    for got, expected in zip(captured(*other), module(*other), strict=True):
        torch.testing.assert_close(got, expected, equal_nan=True)


@pytest.mark.slow
def test_inspection_does_not_depend_on_the_data_either():
    depth = frame((48, 64), 4, (30, 40))[3]
    captured = torch.export.export(Inspection(), (depth,), strict=True).module()
    other = frame((48, 64), 4, (30, 40), seed=3)[3]
    assert torch.equal(captured(other), doubtful_pixels(other))


@pytest.mark.parametrize(("size", "scale", "grid"), SIZES, ids=str)
def test_a_frame_without_a_measurement_has_no_depth(size, scale, grid):
    color, lr, trusted, measured, removed, limits = frame(size, scale, grid)
    depth, provenance, residual, sigma = graph(size, scale, grid)(
        color, lr * torch.nan, trusted, measured * torch.nan, torch.zeros_like(removed), limits
    )
    assert depth.isnan().all()
    assert sigma.isnan().all()
    assert not provenance.any()
    assert residual.item() == -1


def test_the_network_may_be_anything_that_can_be_called():
    class Flat(nn.Module):
        def forward(self, guide: Tensor, lr: Tensor) -> Tensor:
            return torch.full_like(guide[:, :1], 0.5)

    size, scale, grid = SIZES[0]
    color, lr, trusted, measured, removed, _ = frame(size, scale, grid)
    shape = FrameShape(size, scale, grid, registered=False, max_fill_px=1000.0)
    limits = torch.tensor([1.0, 1.0, torch.inf, torch.inf])
    for network in (Flat(), lambda guide, lr: torch.full_like(guide[:, :1], 0.5)):
        depth = FrameGraph(network, False, shape)(color, lr, trusted, measured, removed, limits)[0]
        torch.testing.assert_close(depth, torch.full_like(depth, 1.5))
