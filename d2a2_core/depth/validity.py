"""Which depth values count. Everything downstream sees finite positive metres, or NaN."""

from __future__ import annotations

import torch
from torch import Tensor


def invalid_to_nan(depth: Tensor) -> Tensor:
    """Float32 copy of a depth map in metres with 0, negative, infinite and NaN values all turned into NaN."""
    depth = depth.to(torch.float32)
    return torch.where(torch.isfinite(depth) & (depth > 0), depth, torch.nan)
