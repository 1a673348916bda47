"""How far a depth map is from the truth: the usual means, and what happens at depth edges and to surfaces.

Convention: ``prediction`` and ``truth`` are (H, W) depth along z in one unit; NaN in either leaves the pixel out
(``coverage`` tells how much a method left out). Computed in float64. A metric without any pixel is NaN.

- **Depth edges**: a pixel whose true depth differs from a 4-neighbour's by more than ``EDGE_THRESHOLD`` (3 %) of the
  image's true depth range (max - min); both sides of the jump belong. The **edge band** is all pixels within
  ``BAND`` = 5 px (Euclidean) of one.
- **Flying pixels**: pixels of the edge band predicted between foreground and background, where nothing is. With the
  true depths in the (2 BAND + 1)^2 window around the pixel, it flies if it lies strictly between their minimum and
  maximum and is farther than ``EDGE_THRESHOLD`` of the range from every one of them. Given as a share of the band.
- **Normals**: with intrinsics, the cross product of the central differences of the back-projected points. Without
  (Middlebury's and Lu's 8-bit units have no metric geometry), the normal of the height field in which one level is one
  pixel: comparable between methods, not an angle in the world. Pixels of the edge band are left out: no surface there.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import distance_transform_edt

EDGE_THRESHOLD = 0.03
BAND = 5
METRICS = ("rmse", "mae", "rel", "delta1", "delta2", "delta3", "rmse_edge", "flying", "normal_deg", "coverage")

Intrinsics = tuple[float, float, float, float]


def compare(
    prediction: np.ndarray,
    truth: np.ndarray,
    factor: float = 1.0,
    border: int = 0,
    intrinsics: Intrinsics | None = None,
) -> dict[str, float]:
    """All metrics of one image.

    Args:
        prediction, truth: (H, W).
        factor: what RMSE and MAE are multiplied by (100: metres to cm). The others have no unit but ``normal_deg``.
        border: pixels cut from each side first.
        intrinsics: (fx, fy, cx, cy) of the uncut image.

    Returns:
        One float per name of ``METRICS``.
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"expected a prediction of {truth.shape}, got {prediction.shape}")
    if border:
        cut = slice(border, -border)
        prediction, truth = prediction[cut, cut], truth[cut, cut]
        intrinsics = intrinsics and (*intrinsics[:2], intrinsics[2] - border, intrinsics[3] - border)
    prediction, truth = prediction.astype(np.float64), truth.astype(np.float64)
    error = prediction - truth
    band = edge_band(truth)
    deltas = [delta(prediction, truth, 1.25**power) for power in (1, 2, 3)]
    values = (
        rmse(error) * factor,
        mae(error) * factor,
        relative(error, truth),
        *deltas,
        rmse(error[band]) * factor,
        flying_share(prediction, truth, band),
        normal_error(np.where(band, np.nan, prediction), np.where(band, np.nan, truth), intrinsics),
        _mean(np.isfinite(prediction)[np.isfinite(truth)]),
    )
    return dict(zip(METRICS, values, strict=True))


def rmse(error: np.ndarray) -> float:
    """Root of the mean square."""
    return float(np.sqrt(_mean(np.square(error))))


def mae(error: np.ndarray) -> float:
    """Mean absolute error."""
    return _mean(np.abs(error))


def relative(error: np.ndarray, truth: np.ndarray) -> float:
    """Mean of |error| / truth over pixels of positive true depth (REL)."""
    positive = truth > 0
    return _mean(np.abs(error[positive]) / truth[positive])


def delta(prediction: np.ndarray, truth: np.ndarray, limit: float) -> float:
    """Share of pixels of positive true depth with max(p / t, t / p) < ``limit``; a prediction <= 0 fails."""
    known = (truth > 0) & np.isfinite(prediction)
    p, t = prediction[known], truth[known]
    return _mean((p > 0) & (np.maximum(p, t) < limit * np.minimum(p, t)))


def depth_edges(truth: np.ndarray, threshold: float = EDGE_THRESHOLD) -> np.ndarray:
    """Both sides of every jump of more than ``threshold`` times the depth range: (H, W) bool."""
    edges = np.zeros(truth.shape, bool)
    if not np.isfinite(truth).any():
        return edges
    jump = threshold * (np.nanmax(truth) - np.nanmin(truth))
    down, right = np.abs(np.diff(truth, axis=0)) > jump, np.abs(np.diff(truth, axis=1)) > jump
    edges[:-1] |= down
    edges[1:] |= down
    edges[:, :-1] |= right
    edges[:, 1:] |= right
    return edges


def edge_band(truth: np.ndarray, width: float = BAND, threshold: float = EDGE_THRESHOLD) -> np.ndarray:
    """Pixels within ``width`` px of a depth edge: (H, W) bool."""
    edges = depth_edges(truth, threshold)
    return distance_transform_edt(~edges) <= width if edges.any() else edges


def flying_share(prediction: np.ndarray, truth: np.ndarray, band: np.ndarray) -> float:
    """Share of the band's pixels that fly (see the module)."""
    rows, columns = np.nonzero(band & np.isfinite(prediction))
    if not rows.size:
        return float("nan")
    margin = EDGE_THRESHOLD * (np.nanmax(truth) - np.nanmin(truth))
    padded = np.pad(truth, BAND, constant_values=np.nan)
    here = prediction[rows, columns]
    low, high, gap = (np.full(here.shape, start) for start in (np.inf, -np.inf, np.inf))
    for dy in range(2 * BAND + 1):
        for dx in range(2 * BAND + 1):
            near = padded[rows + dy, columns + dx]
            # fmin and fmax pass over NaN, the pixels without truth and those outside the image.
            np.fmin(low, near, out=low)
            np.fmax(high, near, out=high)
            np.fmin(gap, np.abs(here - near), out=gap)
    return _mean((here > low) & (here < high) & (gap > margin))


def normal_error(prediction: np.ndarray, truth: np.ndarray, intrinsics: Intrinsics | None = None) -> float:
    """Mean angle in degrees between the surface normals of the two (see the module for those without intrinsics)."""
    cosine = np.sum(normals(prediction, intrinsics) * normals(truth, intrinsics), axis=-1)
    return float(np.degrees(_mean(np.arccos(np.clip(cosine, -1, 1)))))


def normals(depth: np.ndarray, intrinsics: Intrinsics | None = None) -> np.ndarray:
    """Unit normals (H - 2, W - 2, 3) of the inner pixels of a depth map (H, W); NaN where a neighbour is missing."""
    if min(depth.shape) < 3:
        return np.full((0, 0, 3), np.nan)
    v, u = np.indices(depth.shape, dtype=np.float64)
    if intrinsics is None:
        points = np.stack([u, v, depth], axis=-1)
    else:
        fx, fy, cx, cy = intrinsics
        points = np.stack([(u - cx) / fx * depth, (v - cy) / fy * depth, depth], axis=-1)
    across = points[1:-1, 2:] - points[1:-1, :-2]
    along = points[2:, 1:-1] - points[:-2, 1:-1]
    normal = np.cross(across, along)
    length = np.linalg.norm(normal, axis=-1, keepdims=True)
    return normal / np.where(length > 0, length, np.nan)


def _mean(values: np.ndarray) -> float:
    """Mean over what is not NaN; NaN of nothing (without NumPy's warning)."""
    values = np.asarray(values, dtype=np.float64)
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else float("nan")
