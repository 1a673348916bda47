"""Making low-resolution depth from high-resolution depth the way the benchmarks do."""

from __future__ import annotations

import numpy as np
from PIL import Image

_FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "area": Image.Resampling.BOX,
    "nearest": Image.Resampling.NEAREST,
}


def resize(image: np.ndarray, size: tuple[int, int], method: str = "bicubic") -> np.ndarray:
    """Resizes a float32 map (h, w) to ``size`` = (H, W) with Pillow, antialiased when it shrinks.

    Pillow's BICUBIC on float32 is what the authors of D2A2 and its peers make their LR with; OpenCV's INTER_CUBIC is not
    antialiased and gives other numbers.

    Args:
        image: finite values only; a NaN would spread over the filter's support.
        method: "bicubic", "bilinear", "area" or "nearest".
    """
    if method not in _FILTERS:
        raise ValueError(f"method must be one of {sorted(_FILTERS)}, got {method!r}")
    height, width = size
    return np.asarray(Image.fromarray(image.astype(np.float32)).resize((width, height), _FILTERS[method]))


def reduce_depth(depth: np.ndarray, scale: int, method: str = "bicubic") -> np.ndarray:
    """LR depth (H // scale, W // scale) from HR depth (H, W) float32 without invalid values."""
    return resize(depth, (depth.shape[0] // scale, depth.shape[1] // scale), method)
