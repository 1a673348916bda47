"""Depth as files and messages hold it, uint16 millimetres with 0 for invalid, and as metres with NaN."""

from __future__ import annotations

import numpy as np

MILLIMETRE = 0.001
MAX_DEPTH_UNIT = 1000.0


def check_depth_unit(unit: float) -> None:
    """Raises ValueError where ``unit`` is no number of metres per count; 0 stands for that of the encoding."""
    if not 0 <= unit <= MAX_DEPTH_UNIT:
        raise ValueError(
            f"expected depth_unit from 0 to {MAX_DEPTH_UNIT:g} metres per count, 0 for that of the encoding, got {unit}"
        )


def to_metres(counts: np.ndarray, unit: float = MILLIMETRE) -> np.ndarray:
    """uint16 counts (h, w) of ``unit`` metres each, 0 invalid -> float32 metres, NaN invalid."""
    depth = counts.astype(np.float32) / np.float32(1 / unit)
    depth[counts == 0] = np.nan
    return depth


def to_millimetres(depth: np.ndarray) -> np.ndarray:
    """Metres (h, w), NaN invalid -> uint16 millimetres: 0 invalid, valid values clamped to 1..65535."""
    millimetres = np.clip(np.rint(depth * 1000), 1, 65535)
    return np.where(np.isnan(millimetres), 0, millimetres).astype(np.uint16)
