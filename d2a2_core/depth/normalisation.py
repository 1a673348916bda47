"""The range that brings depth to [0, 1] for the network."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class DepthRange:
    """``lo`` and ``span`` of each image, (B, 1, 1, 1), in the depth's unit; normalised = (depth - lo) / span."""

    lo: Tensor
    span: Tensor

    def normalise(self, depth: Tensor) -> Tensor:
        """Depth (B, 1, h, w) -> about [0, 1]."""
        return (depth - self.lo) / self.span

    def restore(self, normalised: Tensor) -> Tensor:
        """The inverse of :meth:`normalise`."""
        return normalised * self.span + self.lo


def valid_range(depth: Tensor, min_span: float = 0.01) -> DepthRange:
    """Range of the valid (finite) values of each image of (B, 1, h, w).

    Args:
        min_span: a flat scene is not blown up beyond this span, or its noise would look like structure.
    """
    finite = torch.isfinite(depth)
    lo = torch.where(finite, depth, torch.inf).amin(dim=(1, 2, 3), keepdim=True)
    hi = torch.where(finite, depth, -torch.inf).amax(dim=(1, 2, 3), keepdim=True)
    lo = torch.where(torch.isfinite(lo), lo, torch.zeros_like(lo))  # an image without any valid pixel
    hi = torch.where(torch.isfinite(hi), hi, lo)
    return DepthRange(lo, (hi - lo).clamp(min=min_span))
