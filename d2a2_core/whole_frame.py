"""WholeFrame: from the images of a registered pair to depth, as one module without state: what a robot without PyTorch runs.

The live node keeps the range that normalises depth steady over a stream; here it is an input, and what this frame would ask for
is an output, so that a host may do the same (:class:`d2a2_core.depth.StableRange`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from d2a2_core.depth.lr_grid import to_lr_grid
from d2a2_core.depth.normalisation import QUANTILE, RANGE_MARGIN
from d2a2_core.frame_graph import FrameGraph, FrameShape, Inspection
from d2a2_core.network.sigma_head import SigmaHead

_MIN_SPAN = 0.01  # metres, of the range


class WholeFrame(nn.Module):
    """A frame whose depth covers the colour image's view.

    Args:
        network: The network; see :class:`d2a2_core.frame_graph.Prediction`.
        takes_trust: Whether it takes the third input.
        shape: Of the frames; not registered by us.
        sigma_head: Uncertainty head, or None.
        points: Whether points are an output, and the camera an input.
    """

    def __init__(
        self,
        network: nn.Module,
        takes_trust: bool,
        shape: FrameShape,
        sigma_head: SigmaHead | None,
        points: bool = False,
    ) -> None:
        super().__init__()
        self.shape, self.points = shape, points
        self.inspection = Inspection()
        self.frame = FrameGraph(network, takes_trust, shape, sigma_head)
        self.outputs = ("upsampled", "provenance", "residual", "range") + (("sigma",) if sigma_head else ())
        self.outputs += ("points",) if points else ()

    def forward(self, color: Tensor, depth: Tensor, limits: Tensor, camera: Tensor | None = None) -> tuple[Tensor, ...]:
        """Computes a frame.

        Args:
            color: (1, H, W, 3) uint8 RGB.
            depth: (1, 1, h, w) float32 metres as a driver gives it; 0, negative, infinite and NaN are invalid.
            limits: (6,): least and largest depth that counts, bounds of consistency (metres, and share of the depth), least value
                and span of the range that normalises depth (a span of 0 or less: this frame's own), all but the share in metres.
            camera: (4,): fx, fy, cx, cy of the colour image, for points.

        Returns:
            Tensors by the names of ``outputs``: upsampled depth (1, 1, H, W) metres with NaN, provenance (1, 1, H, W) uint8
            (:class:`d2a2_core.Provenance`), the largest residual (1,), the range (2,) that this frame asks for and, where wanted,
            sigma (1, 1, H, W) metres and points (1, H, W, 3) metres with NaN.
        """
        usable = torch.where((depth >= limits[0]) & (depth <= limits[1]) & (depth > 0), depth, torch.nan)
        doubtful = self.inspection(usable)
        clear = torch.where(doubtful, torch.nan, usable)
        removed = (depth > 0) & (depth < torch.inf) & ~(clear > 0)
        size, scale = self.shape.size, self.shape.scale
        lr, trusted = to_lr_grid(usable, size, scale), to_lr_grid(clear, size, scale) > 0
        asked = own_range(lr)
        depth_range = torch.where(limits[5] > 0, limits[4:], asked)
        graph = torch.cat((depth_range, limits[2:4]))
        published, provenance, residual, *sigma = self.frame(color, lr, trusted, clear, removed, graph)
        points = () if camera is None else (back_projected(published, camera),)
        return published, provenance, residual, asked, *sigma, *points


def own_range(lr: Tensor) -> Tensor:
    """(2,): least value and span that :class:`d2a2_core.depth.StableRange` takes from a first frame (1, 1, h, w), NaN invalid."""
    ordered = torch.where(lr > 0, lr, torch.inf).flatten().sort().values
    last = ((ordered < torch.inf).sum() - 1).clamp(min=0)
    ends = []
    for quantile in (QUANTILE, 1 - QUANTILE):
        at = quantile * last.float()
        low = at.floor().long()
        first, second = ordered[low.view(1)], ordered[torch.minimum(low + 1, last).view(1)]
        ends.append(first + (second - first) * (at - low.float()))
    low, high = (torch.where(end < torch.inf, end, 0.0) for end in ends)
    room = RANGE_MARGIN * (high - low) + (_MIN_SPAN - (high - low)).clamp(min=0) / 2
    return torch.cat((low - room, high - low + 2 * room))


def back_projected(depth: Tensor, camera: Tensor) -> Tensor:
    """Points (1, H, W, 3) of depth (1, 1, H, W), seen by a pinhole camera (4,) fx, fy, cx, cy."""
    height, width = depth.shape[-2:]
    z = depth[0]
    x = (torch.arange(width, dtype=z.dtype, device=z.device) - camera[2]) / camera[0] * z
    y = (torch.arange(height, dtype=z.dtype, device=z.device)[:, None] - camera[3]) / camera[1] * z
    return torch.stack((x, y, z), dim=-1)
