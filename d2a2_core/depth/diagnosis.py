"""Says what is wrong with depth of which nothing, or nearly nothing, can be used: mostly its unit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_LEAST_SHARE = 0.01  # of the valid pixels that lie within the limits; with fewer the depth is not understood
_UNITS = {0.001: "in millimetres", 1.0: "in metres", 0.0001: "in tenths of a millimetre", 0.01: "in centimetres"}


@dataclass(frozen=True)
class DepthProblem:
    """What is wrong: a stable code, "no_depth_values" or "depth_limits", and a message for people."""

    code: str
    message: str


def depth_problem(depth: np.ndarray, min_depth: float, max_depth: float, unit: float) -> DepthProblem | None:
    """What is wrong with a depth image; None where at least 1 % of its valid pixels lie within the limits.

    Args:
        depth: (h, w) float metres; 0, negative, NaN and infinite are invalid.
        min_depth, max_depth: Metres; what is outside is not used.
        unit: Metres per count that ``depth`` was made with, for the advice.
    """
    usable = np.count_nonzero((depth >= min_depth) & (depth <= max_depth) & (depth > 0))
    if usable >= _LEAST_SHARE * depth.size:
        return None
    valid = depth[np.isfinite(depth) & (depth > 0)]
    if not valid.size:
        return DepthProblem("no_depth_values", "depth has no valid pixel: all are 0, NaN or infinite")
    if usable >= _LEAST_SHARE * valid.size:
        return None
    median = float(np.median(valid))
    if median > max_depth:
        where, limit = f", above max_depth {max_depth:g} m", "max_depth"
    elif median < min_depth:
        where, limit = f", below min_depth {min_depth:g} m", "min_depth"
    else:
        where, limit = f", but {1 - usable / valid.size:.1%} lies outside {min_depth:g} m to {max_depth:g} m", "them"
    # The unit is most often millimetres taken for metres, so that is asked first.
    for other, name in _UNITS.items():
        if abs(other / unit - 1) > 0.01 and min_depth <= median * (other / unit) <= max_depth:
            advice = f": is it {name}? Set depth_unit to {other:g}; if it is right, change {limit}"
            break
    else:
        advice = f": set depth_unit to its metres per count, or change {limit}"
    return DepthProblem("depth_limits", f"the median of the depth is {_metres(median)}{where}{advice}")


def _metres(value: float) -> str:
    return f"{value:,.0f} m" if value >= 1000 else f"{value:.3g} m"
