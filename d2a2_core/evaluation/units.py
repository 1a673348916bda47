"""8-bit benchmark sets in metres: they are disparity-like (large is near), so 255 is taken for 0.5 m, 0 for 5 m, and what lies
between is linear in inverse depth."""

from __future__ import annotations

import numpy as np

NEAR_M, FAR_M = 0.5, 5.0


def to_metres(levels: np.ndarray) -> np.ndarray:
    """8-bit disparity-like levels -> float32 metres: 255 is 0.5 m, 0 is 5 m."""
    inverse = 1 / FAR_M + levels.astype(np.float64) / 255 * (1 / NEAR_M - 1 / FAR_M)
    return (1 / inverse).astype(np.float32)


def from_metres(depth: np.ndarray) -> np.ndarray:
    """The inverse of :func:`to_metres`; NaN stays."""
    return (255 * (1 / depth.astype(np.float64) - 1 / FAR_M) / (1 / NEAR_M - 1 / FAR_M)).astype(np.float32)
