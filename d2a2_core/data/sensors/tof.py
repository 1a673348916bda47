"""What a time-of-flight depth camera makes of a true depth map: low resolution, mixed edges, noise, quantisation, holes.

Convention: depth is float32 metres along z, NaN invalid; pixel centres at integers; a low-resolution (LR) pixel is the cell of
s_y x s_x high-resolution (HR) pixels that it covers. NumPy and scipy.ndimage only.

Every degradation is its own keyword and 0 (or None, False) turns it off; `OFF` turns all off, which leaves the mean of each cell.

The forms are those of the literature: axial noise growing with the square of the distance (Nguyen, Izadi and Lovell, "Modeling
Kinect Sensor Noise for Improved 3D Reconstruction and Tracking", 3DIMPVT 2012, which also gives lateral noise of about one
pixel), and depth as the phase of the light summed over the pixel, d = c arg(sum a exp(i 4 pi f z / c)) /
(4 pi f) (Hansard, Lee, Choi and Horaud, "Time-of-Flight Cameras: Principles, Methods and Applications", Springer 2012). The
default magnitudes are ours, for an indoor ToF camera at 1 to 4 m; they are no calibration of one product.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import ndimage, special

from d2a2_core.data.reduction import resize

_UNAMBIGUOUS_M = (
    15.0  # c / (2 f) at 10 MHz: far beyond a room, so a mixed phase lies between the depths that were mixed
)
_CLUMP_PX = 0.8  # LR pixels over which losses correlate

OFF: dict[str, Any] = {
    "flying_pixels": 0.0,
    "noise": (0.0, 0.0),
    "lateral_jitter": 0.0,
    "quantisation_m": 0.0,
    "edge_holes": 0.0,
    "blob_holes": 0.0,
    "dark_holes": 0.0,
    "shiny_holes": 0.0,
    "hexagonal_view": False,
}


def simulate_tof(
    depth_hr: np.ndarray,
    size: tuple[int, int],
    rng: np.random.Generator,
    *,
    rgb: np.ndarray | None = None,
    reduction: str = "area",
    flying_pixels: float = 0.5,
    noise: tuple[float, float] = (0.001, 0.0008),
    lateral_jitter: float = 0.25,
    quantisation_m: float = 0.001,
    edge_holes: float = 0.3,
    edge_step_m: float = 0.1,
    blob_holes: float = 2.0,
    blob_radius: float = 2.0,
    dark_holes: float = 0.5,
    dark_luma: float = 0.03,
    shiny_holes: float = 0.0,
    shiny_luma: float = 0.8,
    hexagonal_view: bool = False,
    min_valid: float = 0.5,
) -> np.ndarray:
    """The LR depth map a ToF camera would report for a true HR one, in the same view.

    Args:
        depth_hr: (H, W) float, metres, NaN invalid.
        size: (h, w) of the result; H / h and W / w must be integers.
        rgb: (H, W, 3) uint8 picture of the same view, for the reflected amplitude, `dark_holes` and `shiny_holes`.
        reduction: "area" is the mean of the cell; "bicubic" or "nearest" take :func:`~.reduction.resize`'s instead, without
            `lateral_jitter`, and fall back to the mean where `depth_hr` has invalid pixels.
        flying_pixels: at pixels with a depth edge beside them, how far the value moves from the mean of the cell
            towards the phase mixture of a neighbourhood one cell wider, weighted by the returned light; 0 to 1.
        noise: (a, b) of the axial noise, Gaussian with sigma = a + b z^2 metres.
        lateral_jitter: standard deviation, in LR pixels, of the offset at which a pixel samples the scene.
        quantisation_m: step of the reported depth, metres.
        edge_holes: probability that a pixel on a depth edge (second difference over `edge_step_m` metres) is lost.
        blob_holes, blob_radius: mean number of round holes (Poisson) and their mean radius in LR pixels.
        dark_holes, dark_luma: probability of loss of a black pixel, falling to 0 at luma `dark_luma` (linear, 0 to 1).
        shiny_holes, shiny_luma: probability of loss of a glaring pixel, falling to 0 at luma `shiny_luma`.
        hexagonal_view: blank the corners outside the largest hexagon with its corners on the left and right border.
        min_valid: smallest share of valid HR pixels in a cell; cells below are NaN.

    Returns:
        (h, w) float32 metres, NaN invalid.

    Raises:
        ValueError: when the sizes do not divide, a keyword is out of range, or one lacks the input it needs.
    """
    depth_hr = np.asarray(depth_hr, np.float64)
    cell = _cell(depth_hr.shape, size)
    for name, value in {"flying_pixels": flying_pixels, "edge_holes": edge_holes, "dark_holes": dark_holes,
                        "shiny_holes": shiny_holes, "min_valid": min_valid}.items():  # fmt: skip
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"expected {name} in [0, 1], got {value}")
    negative = {
        "lateral_jitter": lateral_jitter,
        "quantisation_m": quantisation_m,
        "noise": min(noise),
        "blob_holes": blob_holes,
    }
    for name, value in negative.items():
        if value < 0:
            raise ValueError(f"expected {name} of at least 0, got {value}")
    if rgb is not None and rgb.shape != (*depth_hr.shape, 3):
        raise ValueError(f"expected rgb of shape {(*depth_hr.shape, 3)}, got {rgb.shape}")
    luma = None if rgb is None else linear_luma(rgb)

    rows, columns = _sample_places(depth_hr.shape, size, cell, lateral_jitter, rng)
    depth = _cell_mean(depth_hr[rows, columns], min_valid)
    if reduction != "area" and np.isfinite(depth_hr).all():
        depth = resize(depth_hr, size, reduction).astype(np.float64)
    step = depth_step(depth)
    if flying_pixels > 0:
        mixed = _phase_mixture(depth_hr, luma, size, cell)
        depth = np.where(step > edge_step_m, depth + flying_pixels * (mixed - depth), depth)
    depth = depth + (noise[0] + noise[1] * depth**2) * rng.standard_normal(size)
    if quantisation_m > 0:
        depth = np.round(depth / quantisation_m) * quantisation_m

    lost = (step > edge_step_m) & (_patchy(size, rng) < edge_holes)
    lost |= blobs(size, blob_holes, blob_radius, rng)
    if luma is not None and dark_holes > 0:
        seen = luma[rows, columns].mean(axis=-1)
        lost |= _patchy(size, rng) < dark_holes * np.clip(1 - seen / dark_luma, 0, 1)
    if luma is not None and shiny_holes > 0:
        seen = luma[rows, columns].mean(axis=-1)
        lost |= _patchy(size, rng) < shiny_holes * np.clip((seen - shiny_luma) / (1 - shiny_luma), 0, 1)
    if hexagonal_view:
        lost |= ~_hexagon(size)
    depth[lost | ~(depth > 0)] = np.nan
    return depth.astype(np.float32)


def linear_luma(rgb: np.ndarray) -> np.ndarray:
    """uint8 RGB (h, w, 3) -> the light it stands for, (h, w) float32 in [0, 1]; sRGB taken as a power of 2.2."""
    return (rgb.astype(np.float32) / 255.0) ** 2.2 @ np.array([0.2126, 0.7152, 0.0722], np.float32)


def depth_step(depth: np.ndarray) -> np.ndarray:
    """(h, w) metres: largest second difference of depth across each pixel, along rows, columns and diagonals.

    A slanted plane has almost none, an occlusion edge has its whole height. Differences with an invalid pixel count as 0.
    """
    padded = (
        np.pad(depth, 1, mode="reflect", reflect_type="odd") if min(depth.shape) > 1 else np.pad(depth, 1, mode="edge")
    )
    h, w = depth.shape
    steps = [
        np.abs(
            padded[1 + dy : 1 + dy + h, 1 + dx : 1 + dx + w]
            - 2 * depth
            + padded[1 - dy : 1 - dy + h, 1 - dx : 1 - dx + w]
        )
        for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1))
    ]
    return np.nan_to_num(steps).max(0)


def _cell(full: tuple[int, ...], size: tuple[int, int]) -> tuple[int, int]:
    if len(full) != 2 or min(size) < 1 or full[0] % size[0] or full[1] % size[1]:
        raise ValueError(f"expected a size (h, w) that divides the depth map's shape, got {size} for {full}")
    return full[0] // size[0], full[1] // size[1]


def _sample_places(
    full: tuple[int, int], size: tuple[int, int], cell: tuple[int, int], jitter: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """HR (row, column) indices (h, w, cell pixels) that every LR pixel integrates; jitter moves a whole cell."""
    index = np.indices(cell).reshape(2, -1)
    shift = np.round(jitter * rng.standard_normal((2, *size)) * np.reshape(cell, (2, 1, 1))).astype(int)
    start = np.indices(size) * np.reshape(cell, (2, 1, 1)) + shift
    start = np.clip(start, 0, np.reshape(full, (2, 1, 1)) - np.reshape(cell, (2, 1, 1)))
    rows, columns = start[..., None] + index[:, None, None, :]
    return rows, columns


def _cell_mean(values: np.ndarray, min_valid: float) -> np.ndarray:
    """Mean of the valid values along the last axis, NaN where fewer than `min_valid` of them (or none) are valid."""
    valid = np.isfinite(values)
    count = valid.sum(-1)
    total = np.where(valid, values, 0.0).sum(-1)
    return np.where((count > 0) & (count >= min_valid * values.shape[-1]), total / np.maximum(count, 1), np.nan)


def _patchy(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Numbers uniform in [0, 1) that neighbours partly share, so that lost pixels come in clumps as in real depth maps."""
    white = rng.standard_normal(size)
    smooth = ndimage.gaussian_filter(white, _CLUMP_PX, mode="wrap")
    impulse = np.zeros((15, 15))
    impulse[7, 7] = 1.0
    gain = np.sqrt((ndimage.gaussian_filter(impulse, _CLUMP_PX) ** 2).sum())
    return special.ndtr(smooth / gain)


def _phase_mixture(
    depth_hr: np.ndarray, luma: np.ndarray | None, size: tuple[int, int], cell: tuple[int, int]
) -> np.ndarray:
    """(h, w) depth of the summed phasors over twice the width of a cell; amplitude falls with the squared distance."""
    valid = np.isfinite(depth_hr)
    z = np.where(valid, depth_hr, 1.0)
    amplitude = np.where(valid, (0.05 + luma if luma is not None else 1.0) / np.maximum(z, 0.1) ** 2, 0.0)
    wave = amplitude * np.exp(2j * np.pi * z / _UNAMBIGUOUS_M)
    window = (2 * cell[0], 2 * cell[1])
    # uniform_filter's window covers [c - w/2, c + w/2): read at the first pixel after the centre of the cell.
    total = ndimage.uniform_filter(wave.real, window) + 1j * ndimage.uniform_filter(wave.imag, window)
    centre = total[cell[0] // 2 :: cell[0], cell[1] // 2 :: cell[1]][: size[0], : size[1]]
    return np.angle(centre) % (2 * np.pi) * _UNAMBIGUOUS_M / (2 * np.pi)


def blobs(size: tuple[int, int], count: float, radius: float, rng: np.random.Generator) -> np.ndarray:
    """(h, w) bool: ellipses anywhere, ``count`` in the mean, half axes of 0.4 to 1.6 times ``radius`` pixels."""
    lost = np.zeros(size, bool)
    y, x = np.indices(size)
    for _ in range(rng.poisson(count)):
        cy, cx = rng.uniform(0, size)
        ry, rx = radius * rng.uniform(0.4, 1.6, 2)
        lost |= ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1
    return lost


def _hexagon(size: tuple[int, int]) -> np.ndarray:
    """(h, w) bool, True inside: the borders run from the middle of the left and right edge to a quarter of the top and bottom."""
    v, u = np.indices(size)
    x = np.abs((u + 0.5) / size[1] * 2 - 1)
    y = np.abs((v + 0.5) / size[0] * 2 - 1)
    return x <= 1 - y / 2
