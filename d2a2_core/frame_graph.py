"""FrameGraph: what happens to one frame, from a pair on the network's grid to depth, provenance and sigma, as one module.

Its shapes are static and its steps are the same whatever the images hold, so a runtime can compile all of it
(:meth:`d2a2_core.runtime.Runtime.whole`) and an exporter can write all of it. What depends on the frames before (the range of
depth, an offset between the images) and what the cameras' geometry asks for (registration, regridding) stays outside:
:mod:`d2a2_core.pipeline`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2a2_core.depth import (
    DepthRange,
    away_from_edges,
    doubtful_pixels,
    enforce_measurements,
    fill_holes,
    measurement_trust,
    valid_range,
)
from d2a2_core.depth.cells import CellMap, Within, cell_means
from d2a2_core.depth.provenance import classify
from d2a2_core.network import run_views
from d2a2_core.network.sigma_head import SigmaHead

Network = Callable[..., Tensor]


@dataclass(frozen=True)
class FrameShape:
    """What is the same in all frames that one graph computes.

    Attributes:
        size: (H, W) of the colour image.
        scale: Colour pixels per LR cell.
        grid: Rows and columns of what was measured: of the LR grid where depth was registered, else of the depth image.
        registered: Whether depth was registered by us, to the LR grid. Else the depth image covers the colour image's view.
        max_fill_px: Holes are filled up to this many pixels of the colour image away from a measurement.
        inspected: Whether what is doubtful was found by the front end; else the network is told what the LR grid shows.
        views: Views of each pair whose results are averaged, see :func:`d2a2_core.network.run_views`.
    """

    size: tuple[int, int]
    scale: int
    grid: tuple[int, int]
    registered: bool
    max_fill_px: float
    inspected: bool = True
    views: int = 1


class Inspection(nn.Module):
    """Finds the measurements that are flying or stray, see :func:`d2a2_core.depth.doubtful_pixels`."""

    def forward(self, depth: Tensor) -> Tensor:
        """Depth (1, 1, h, w) metres, NaN invalid -> bool of that size."""
        return doubtful_pixels(depth)


class Filling(nn.Module):
    """Fills the holes of the LR grid along the colours, see :func:`d2a2_core.depth.fill_holes`."""

    def forward(self, guide: Tensor, lr: Tensor, scale: int) -> Tensor:
        """Guide (B, 3, h s, w s) and LR (B, 1, h, w) metres -> LR without NaN."""
        return fill_holes(lr, cell_means(guide, scale))


class Consistency(nn.Module):
    """Holds the result to the trusted measurements, see :mod:`d2a2_core.depth.consistency`."""

    def forward(self, hr: Tensor, lr: Tensor, trusted: Tensor, scale: int, bounds: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the depth, and the largest |residual| over what is trusted, (1,), negative without any."""
        hr, residual = enforce_measurements(hr, lr, trusted & away_from_edges(lr), scale, bounds[0], bounds[1])
        size = residual.abs()
        return hr, torch.where(size < torch.inf, size, -1.0).amax().view(1)


class Provenances(nn.Module):
    """Masks what is too far from measurements, and says where the rest comes from, see :mod:`d2a2_core.depth.provenance`."""

    def __init__(self, cells: CellMap, max_fill_px: float) -> None:
        super().__init__()
        self.near = Within(cells, max_fill_px)

    def forward(self, hr: Tensor, measured: Tensor, removed: Tensor) -> tuple[Tensor, Tensor]:
        """See :func:`d2a2_core.depth.provenance.classify`."""
        return classify(hr, measured, self.near, removed)


class Sigma(nn.Module):
    """The uncertainty of what is published, by a head, see :mod:`d2a2_core.network.sigma_head`."""

    def __init__(self, head: SigmaHead) -> None:
        super().__init__()
        self.head = head

    def forward(self, guide: Tensor, lr: Tensor, depth: Tensor) -> Tensor:
        """See :meth:`SigmaHead.predict`."""
        return self.head.predict(guide, lr, depth)


class Called(nn.Module):
    """A part of a module that is any callable."""

    def __init__(self, function: Network) -> None:
        super().__init__()
        self._function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        """What the function gives."""
        return self._function(*inputs)


class Prediction(nn.Module):
    """The network and what it is given: holes filled, depth normalised; brought back to metres.

    Args:
        network: Called as ``network(guide, lr)``, or with ``trust`` if it takes it: a module, or a runtime.
        views: See :class:`FrameShape`.
    """

    def __init__(self, network: Network, views: int = 1) -> None:
        super().__init__()
        self.network = network if isinstance(network, nn.Module) else Called(network)
        self.views = views
        self.filling = Filling()

    def predict(self, guide: Tensor, lr: Tensor, scale: int, depth_range: DepthRange, trust: Tensor | None) -> Tensor:
        """Depth (B, 1, H, W) metres.

        Args:
            guide: (B, 3, H, W) RGB in [0, 1].
            lr: (B, 1, ceil(H / s), ceil(W / s)) metres, NaN in holes.
            scale: s.
            depth_range: Normalises depth.
            trust: Of the size of ``lr``, where the network takes it.
        """
        size = tuple(guide.shape[-2:])
        padding = (0, -size[1] % scale, 0, -size[0] % scale)
        if any(padding):
            guide = F.pad(guide, padding, mode="replicate")
        inputs = (guide, depth_range.normalise(self.filling(guide, lr, scale)), *(() if trust is None else (trust,)))
        hr = run_views(self.network, self.views, *inputs)[..., : size[0], : size[1]]
        # Beyond the measured range a network only guesses; a tenth of the span leaves room for thin, blurred objects.
        measured = valid_range(lr)
        low, high = measured.lo - 0.1 * measured.span, measured.lo + 1.1 * measured.span
        return torch.minimum(torch.maximum(depth_range.restore(hr), low.clamp(min=1e-3)), high)


class FrameGraph(Prediction):
    """One frame around a network.

    Args:
        network: See :class:`Prediction`.
        takes_trust: Whether it takes the third input.
        shape: Of the frames.
        sigma_head: Uncertainty head, or None for frames without sigma.
    """

    def __init__(
        self, network: Network, takes_trust: bool, shape: FrameShape, sigma_head: SigmaHead | None = None
    ) -> None:
        super().__init__(network, shape.views)
        self.shape, self.takes_trust = shape, takes_trust
        lr_cells = CellMap.whole_cells(shape.size, shape.scale)
        cells = lr_cells if shape.registered else CellMap.same_view(shape.size, shape.grid)
        self.consistency = Consistency()
        self.provenance = Provenances(cells, shape.max_fill_px)
        self.sigma = None if sigma_head is None else Sigma(sigma_head)

    def forward(
        self, color: Tensor, lr: Tensor, trusted: Tensor, measured: Tensor, removed: Tensor, limits: Tensor
    ) -> tuple[Tensor, ...]:
        """Computes a frame.

        Args:
            color: (1, H, W, 3) uint8 RGB.
            lr: (1, 1, ceil(H / s), ceil(W / s)) metres, NaN in holes.
            trusted: Bool of that size: measurements that are neither flying nor stray.
            measured: (1, 1, h, w) of the shape's grid: metres, NaN where nothing was measured or it was rejected.
            removed: Bool of that size: what was rejected.
            limits: (4,) metres: least value and span that normalise depth; bounds of consistency, absolute and relative.

        Returns:
            Depth (1, 1, H, W) metres with NaN, provenance (1, 1, H, W) uint8, the largest residual (1,) and, with a head, sigma
            (1, 1, H, W) metres.
        """
        guide = color.permute(0, 3, 1, 2).float() / 255
        depth_range = DepthRange(limits[0].view(1, 1, 1, 1), limits[1].view(1, 1, 1, 1))
        hr = self.predict(guide, lr, self.shape.scale, depth_range, self._trust(lr, trusted))
        hr, residual = self.consistency(hr, lr, trusted, self.shape.scale, limits[2:])
        depth, provenance = self.provenance(hr, measured, removed)
        if self.sigma is None:
            return depth, provenance, residual
        return depth, provenance, residual, self.sigma(guide, lr, depth)

    def _trust(self, lr: Tensor, trusted: Tensor) -> Tensor | None:
        if not self.takes_trust:
            return None
        return ((lr > 0).float() + trusted.float()) / 2 if self.shape.inspected else measurement_trust(lr)
