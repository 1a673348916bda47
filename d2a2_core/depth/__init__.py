"""What happens to a depth map around the network: validity, hygiene, regridding, filling,
normalisation, and agreement with the measurements."""

from __future__ import annotations

from typing import TYPE_CHECKING

from d2a2_core.lazy import lazy_names

if TYPE_CHECKING:
    from d2a2_core.depth.consistency import BOUND_ABS_M, BOUND_REL, away_from_edges, enforce_measurements, refined_mask
    from d2a2_core.depth.holes import fill_holes, within_distance
    from d2a2_core.depth.hygiene import doubtful_pixels, flying_pixels, measurement_trust, outside_limits, stray_pixels
    from d2a2_core.depth.normalisation import DepthRange, StableRange, valid_range
    from d2a2_core.depth.resample import nearest_pixel, regrid
    from d2a2_core.depth.validity import invalid_to_nan

__all__ = [
    "BOUND_ABS_M",
    "BOUND_REL",
    "DepthRange",
    "StableRange",
    "away_from_edges",
    "doubtful_pixels",
    "enforce_measurements",
    "fill_holes",
    "flying_pixels",
    "invalid_to_nan",
    "measurement_trust",
    "nearest_pixel",
    "outside_limits",
    "refined_mask",
    "regrid",
    "stray_pixels",
    "valid_range",
    "within_distance",
]

# What needs no tensors (cameras, units) must not wait for PyTorch.
__getattr__ = lazy_names(
    __name__,
    {
        "BOUND_ABS_M": "consistency",
        "BOUND_REL": "consistency",
        "DepthRange": "normalisation",
        "StableRange": "normalisation",
        "away_from_edges": "consistency",
        "doubtful_pixels": "hygiene",
        "enforce_measurements": "consistency",
        "fill_holes": "holes",
        "flying_pixels": "hygiene",
        "invalid_to_nan": "validity",
        "measurement_trust": "hygiene",
        "nearest_pixel": "resample",
        "outside_limits": "hygiene",
        "refined_mask": "consistency",
        "regrid": "resample",
        "stray_pixels": "hygiene",
        "valid_range": "normalisation",
        "within_distance": "holes",
    },
)
