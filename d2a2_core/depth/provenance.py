"""Provenance: where the depth of every pixel comes from."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

from d2a2_core.depth.cells import Within
from d2a2_core.depth.consistency import refined_mask


class Provenance(IntEnum):
    """Where the depth of a pixel comes from; each value takes precedence over the ones before it, but for NONE."""

    NONE = 0  #: no depth (NaN): no measurement within ``max_fill_px``, or the network gave no finite number
    MEASURED = 1  #: the LR cell that the pixel lies in held a measurement, and the depth agrees with it
    REFINED = 2  #: the cell held a measurement, but the guide moved an edge across this pixel: its depth is another
    FILLED = 3  #: a hole, at most ``max_fill_px`` from a measured pixel
    REMOVED = (
        4  #: the cell's measurement was rejected (flying, stray, out of range); depth is filled in, or NaN if too far
    )
    REMEMBERED = 5  #: a hole of this frame that keeps what was seen there before; see :mod:`d2a2_core.temporal`


#: what a cloud may hold, by name
POINTS_PROVENANCE = {
    "all": tuple(Provenance),
    "measured": (Provenance.MEASURED,),
    "refined": (Provenance.MEASURED, Provenance.REFINED),
    "filled": (Provenance.MEASURED, Provenance.REFINED, Provenance.FILLED),
    "remembered": (Provenance.MEASURED, Provenance.REFINED, Provenance.FILLED, Provenance.REMEMBERED),
}


def only(which: str, depth: np.ndarray, provenance: np.ndarray) -> np.ndarray:
    """Depth (H, W) with NaN where its provenance (H, W) is none of ``POINTS_PROVENANCE[which]``."""
    if which == "all":
        return depth
    return np.where(np.isin(provenance, POINTS_PROVENANCE[which]), depth, np.float32(np.nan))


def classify(depth: Tensor, measured: Tensor, near: Within, removed: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Masks depth that is too far from any measurement and says where the rest comes from.

    Args:
        depth: (B, 1, H, W) metres, everywhere; what is not finite is no depth.
        measured: (B, 1, h, w) metres: the measurement of each cell, NaN or 0 where there is none.
        near: Which pixels are near enough to a measurement to be filled, and which cell each lies in.
        removed: (B, 1, h, w) bool: cells whose measurement was rejected.

    Returns:
        depth with NaN, and provenance (B, 1, H, W) uint8, values of :class:`Provenance`.
    """
    known = measured > 0
    there = near(known) & (depth.abs() < torch.inf)
    # One enlarged image says both what was measured and, below 0, what was rejected.
    state = torch.where(known, measured, 0.0)
    if removed is not None:
        state = torch.where(removed & ~known, -1.0, state)
    state = near.cells(state)
    agrees = torch.where(refined_mask(depth, state), int(Provenance.REFINED), int(Provenance.MEASURED))
    provenance = torch.where(there, torch.where(state > 0, agrees, int(Provenance.FILLED)), int(Provenance.NONE))
    provenance = torch.where(state < 0, int(Provenance.REMOVED), provenance)
    return torch.where(there, depth, torch.nan), provenance.to(torch.uint8)
