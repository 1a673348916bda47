"""Which depth values count. Everything downstream sees finite positive metres, or NaN."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def invalid_to_nan(depth: Tensor) -> Tensor:
    """Float32 copy of a depth map in metres with 0, negative, infinite and NaN values all turned into NaN."""
    depth = depth.to(torch.float32)
    return torch.where(torch.isfinite(depth) & (depth > 0), depth, torch.nan)


def check_images(color: np.ndarray, depth: np.ndarray) -> None:
    """Checks that colour is (H, W, 3) uint8 and depth is (h, w) of a float type.

    Raises:
        ValueError: They are not; the message says what was expected and what came.
    """
    if color.ndim != 3 or color.shape[2] != 3 or color.dtype != np.uint8:
        raise ValueError(f"expected color (H, W, 3) uint8 RGB, got {color.shape} {color.dtype}")
    if depth.ndim != 2 or not np.issubdtype(depth.dtype, np.floating):
        hint = "; divide millimetres by 1000" if np.issubdtype(depth.dtype, np.integer) else ""
        raise ValueError(f"expected depth (h, w) float metres, got {depth.shape} {depth.dtype}{hint}")
