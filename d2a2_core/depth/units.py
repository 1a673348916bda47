"""Depth as files and messages hold it, uint16 millimetres with 0 for invalid, and as metres with NaN."""

from __future__ import annotations

import numpy as np


def to_metres(depth_mm: np.ndarray) -> np.ndarray:
    """uint16 millimetres (h, w), 0 invalid -> float32 metres, NaN invalid."""
    depth = depth_mm.astype(np.float32) / 1000
    depth[depth_mm == 0] = np.nan
    return depth


def to_millimetres(depth: np.ndarray) -> np.ndarray:
    """Metres (h, w), NaN invalid -> uint16 millimetres: 0 invalid, valid values clamped to 1..65535."""
    millimetres = np.clip(np.rint(depth * 1000), 1, 65535)
    return np.where(np.isnan(millimetres), 0, millimetres).astype(np.uint16)
