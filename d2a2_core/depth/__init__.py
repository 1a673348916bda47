"""What happens to a depth map around the network: validity, regridding, hole filling, normalisation."""

from d2a2_core.depth.holes import fill_holes, within_distance
from d2a2_core.depth.normalisation import DepthRange, valid_range
from d2a2_core.depth.resample import nearest_pixel, regrid
from d2a2_core.depth.validity import invalid_to_nan

__all__ = [
    "DepthRange",
    "fill_holes",
    "invalid_to_nan",
    "nearest_pixel",
    "regrid",
    "valid_range",
    "within_distance",
]
