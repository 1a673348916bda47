"""Ground truth as benchmark sets have it: captured, with lost edges filled along the colours.

A camera's depth has holes along its depth edges and ragged, slightly misplaced edges elsewhere. Sets made with such cameras
publish it after the holes were filled from the colour image, most of them by colorization (Levin et al.). Their depth edges
therefore follow single colour pixels where a hole was, and the camera's raggedness where none was; a network trained on
rendered depth alone knows neither.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage, sparse
from scipy.sparse import linalg

from d2a2_core.data.sensors.degradation import lose_edge_bands, lose_shadows
from d2a2_core.data.sensors.tof import blobs

Rng = np.random.Generator

_LUMA = (0.299, 0.587, 0.114)
_SWEEPS, _EXACT = 30, 1e3  # a weight from which measurements are left as they are
_FEWEST = 0.25  # share of measurements below which filling would invent the picture
_BANDS, _SHADOWS = (0.5, 5.0), (5.0, 60.0)  # pixels; pixels times metres
_NOISE = 0.004  # of the depth, standard deviation, at most
_MISPLACED, _RAGGED = 1.5, 0.8  # pixels, standard deviations, at most: over the image, and along an edge
_HOLES, _RADII = 2.0, (4.0, 16.0)  # blobs in the mean, pixels


def captured(color: np.ndarray, depth: np.ndarray, rng: Rng) -> np.ndarray:
    """Depth (H, W) as a set made with a depth camera would publish it.

    Edges are misplaced by some pixels and ragged, depth is slightly noisy; bands along edges, what another eye cannot see
    and some blobs are lost and filled by :func:`fill_by_color`, which in half of the cases smooths measurements too.

    Args:
        color: uint8 RGB (H, W, 3), the image beside it in the set.
        depth: float32 metres, finite. Of depth that was turned into disparity the shadow falls on what is near.
        rng: decides everything.
    """
    out = _misplaced(depth, rng)
    noise = ndimage.gaussian_filter(rng.standard_normal(depth.shape, np.float32), rng.uniform(0.5, 2))
    out = out * (1 + noise * np.float32(rng.uniform(0, _NOISE) / max(noise.std(), 1e-6)))
    lost = out
    if rng.random() < 0.7:
        lost = lose_edge_bands(lost, rng.uniform(*_BANDS))
    if rng.random() < 0.5:
        lost = lose_shadows(lost, rng.uniform(*_SHADOWS), int(rng.choice([0, 2])))
    lost = np.where(blobs(depth.shape, _HOLES, rng.uniform(*_RADII), rng), np.float32(np.nan), lost)
    weight = 1.0 if rng.random() < 0.5 else _EXACT
    return out if np.isfinite(lost).mean() < _FEWEST else fill_by_color(lost, color, weight)


def fill_by_color(depth: np.ndarray, color: np.ndarray, weight: float = 1.0) -> np.ndarray:
    """Depth (H, W) float32 with each pixel the mean of its 8 neighbours, weighted by how alike their greys are.

    Levin, Lischinski and Weiss, Colorization using Optimization (2004), with the weights and the ``weight`` of 1 with which the
    toolbox of NYU Depth v2 fills its depth.

    Args:
        depth: metres, NaN where unknown; something must be known.
        color: uint8 RGB (H, W, 3).
        weight: of what was measured, against the mean of its neighbours, 1 or more; from 1,000 on measurements stay as they are.
            Holes are solved for exactly between measurements as they are; after these moved, some sweeps bring both together.

    Raises:
        ValueError: images of different sizes, or no known depth.
    """
    known = np.isfinite(depth)
    if color.shape != (*depth.shape, 3) or not known.any():
        raise ValueError(
            f"expected depth (H, W) with some measurement and colour (H, W, 3), got {known.sum()} measurements in "
            f"{depth.shape} and {color.shape}"
        )
    likeness = _likeness(color)
    measured = np.where(known, depth, 0).astype(np.float64).ravel()
    filled, holes = measured.copy(), np.flatnonzero(~known)
    if len(holes):
        rows = likeness[holes]
        system = sparse.csc_array(sparse.identity(len(holes))) - rows[:, holes].tocsc()
        filled[holes] = linalg.spsolve(system, rows @ measured)
    share = weight / (1 + weight) * known.ravel()
    # Where something was measured each sweep at least halves what is left to do if the weight is 1 or more.
    for _ in range(_SWEEPS if weight < _EXACT else 0):
        filled = share * measured + (1 - share) * (likeness @ filled)
    return filled.reshape(depth.shape).astype(np.float32)


def _likeness(color: np.ndarray) -> sparse.csr_array:
    """(HW, HW): the shares of the up to 8 neighbours of each pixel in its mean; rows sum to 1."""
    grey = sum(color[..., c] * (weight / 255) for c, weight in enumerate(_LUMA))
    height, width = grey.shape
    number = np.arange(height * width).reshape(height, width)
    around = [(y, x) for y in range(3) for x in range(3) if (y, x) != (1, 1)]
    padded, place = np.pad(grey, 1), np.pad(number, 1, constant_values=-1)
    other = np.stack([padded[y : y + height, x : x + width] for y, x in around])
    index = np.stack([place[y : y + height, x : x + width] for y, x in around])
    inside = index >= 0
    count = inside.sum(0) + 1
    mean = ((other * inside).sum(0) + grey) / count
    variance = ((other - mean) ** 2 * inside).sum(0) + (grey - mean) ** 2
    apart = (other - grey) ** 2
    # At least one neighbour keeps a share of 1 %, however noisy the image.
    spread = np.maximum(0.6 * variance / count, np.where(inside, apart, np.inf).min(0) / -np.log(0.01))
    share = np.exp(-apart / np.maximum(spread, 2e-6)) * inside
    share /= share.sum(0)
    rows = np.broadcast_to(number, index.shape)
    return sparse.csr_array((share[inside], (rows[inside], index[inside])), shape=(number.size, number.size))


def _misplaced(depth: np.ndarray, rng: Rng) -> np.ndarray:
    """Each pixel from a place beside it, smoothly misplaced over the image, and ragged from pixel to pixel."""
    rows, columns = np.indices(depth.shape)
    smooth, ragged = rng.uniform(0, _MISPLACED), rng.uniform(0, _RAGGED)
    size, grain = rng.uniform(8, 40), rng.uniform(0.7, 2.5)

    def moved(along: np.ndarray, limit: int) -> np.ndarray:
        by = sum(
            amount * _unit(ndimage.gaussian_filter(rng.standard_normal(depth.shape, np.float32), sigma))
            for amount, sigma in ((smooth, size), (ragged, grain))
        )
        return np.clip(np.rint(along + by), 0, limit - 1).astype(int)

    return depth[moved(rows, depth.shape[0]), moved(columns, depth.shape[1])]


def _unit(field: np.ndarray) -> np.ndarray:
    return field / max(float(field.std()), 1e-6)
