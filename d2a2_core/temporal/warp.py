"""What was known in the view of one pose of the camera, seen from another.

Each pixel of the new frame looks up its own place in the old view: its measured depth makes it a point, and the point's place in
the old view is found with the poses. That needs no z-buffer and leaves no gaps: where something hid the point, the old depth
there is another, and the gate of :mod:`d2a2_core.temporal.fusion` refuses it. Holes of the new frame have no depth to look up
with; there the old points are projected forward, the nearest one wins.

Convention: see :mod:`d2a2_core.geometry.camera`; poses are camera-to-world.
"""

from __future__ import annotations

import numpy as np

from d2a2_core.geometry import Camera
from d2a2_core.temporal.fusion import Belief

_SAME_SURFACE = 0.01  # a mean of four neighbours that is farther than this share from the nearest one mixes surfaces


def seen_from(belief: Belief, old_to_new: np.ndarray, camera: Camera, depth: np.ndarray, drift_m: float) -> Belief:
    """What was known, at the pixels of a new frame.

    Args:
        belief: In the old view.
        old_to_new: (4, 4), from the old camera's frame to the new one's, metres.
        camera: Of both views.
        depth: (H, W) float32 metres, the new frame's; NaN in holes.
        drift_m: Error of the motion, added to the belief's noise.
    """
    new_to_old = np.linalg.inv(old_to_new)
    result = _looked_up(belief, new_to_old, camera, depth)
    holes = np.isnan(depth)
    if holes.any():
        _carry_into(holes, result, belief, old_to_new, camera)
    result.noise += np.float32(drift_m**2)
    return result


def _looked_up(belief: Belief, new_to_old: np.ndarray, camera: Camera, depth: np.ndarray) -> Belief:
    """At pixels with depth: what the old view knew of the same point, NaN elsewhere."""
    u, v, z = _project(depth, new_to_old, camera)
    height, width = depth.shape
    # NaN compares false.
    inside = (u > -0.5) & (u < width - 0.5) & (v > -0.5) & (v < height - 0.5) & (z > 0)
    u, v = np.where(inside, u, 0), np.where(inside, v, 0)
    column, row = np.rint(u).astype(np.int32), np.rint(v).astype(np.int32)
    nearest = row * np.int32(width) + column
    old = belief.depth.ravel()
    single = old.take(nearest)
    mixed = _bilinear(belief.depth, u, v)
    # Beside an edge or a hole the nearest pixel alone speaks.
    smooth = np.abs(mixed - single) <= _SAME_SURFACE * single
    there = np.where(smooth, mixed, single)
    # Along the new ray: Z_old = c z + t with c = row 3 of R times the ray.
    slope = (z - np.float32(new_to_old[2, 3])) / depth
    there = (there - np.float32(new_to_old[2, 3])) / slope
    there[~inside] = np.nan
    return Belief(there, belief.noise.take(nearest), belief.shared.take(nearest), belief.age.take(nearest))


def _bilinear(image: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """(H, W) at fractional pixels inside of it; NaN where a neighbour is NaN."""
    height, width = image.shape
    u0, v0 = np.minimum(u, width - 1.001).astype(np.int32), np.minimum(v, height - 1.001).astype(np.int32)
    u0, v0 = np.maximum(u0, 0), np.maximum(v0, 0)
    x, y = np.clip(u - u0, 0, 1).astype(np.float32), np.clip(v - v0, 0, 1).astype(np.float32)
    at = v0 * np.int32(width) + u0
    flat = image.ravel()
    a, b, c, d = (flat.take(at + np.int32(step)) for step in (0, 1, width, width + 1))
    top, bottom = a + x * (b - a), c + x * (d - c)
    return top + y * (bottom - top)


def _carry_into(holes: np.ndarray, result: Belief, belief: Belief, old_to_new: np.ndarray, camera: Camera) -> None:
    """Writes into ``result`` what old points land in holes of the new frame."""
    u, v, z = _project(belief.depth, old_to_new, camera)
    height, width = holes.shape
    with np.errstate(invalid="ignore"):
        inside = (u > -0.5) & (u < width - 0.5) & (v > -0.5) & (v < height - 0.5) & (z > 0)
    source = np.flatnonzero(inside)
    target = np.rint(v.ravel()[source]).astype(np.int64) * width + np.rint(u.ravel()[source]).astype(np.int64)
    into = holes.ravel()[target]
    source, target = source[into], target[into]
    # The last one written stays: the nearest.
    order = np.argsort(-z.ravel()[source], kind="stable")
    source, target = source[order], target[order]
    for now, past in zip(result.arrays(), belief.arrays(), strict=True):
        now.ravel()[target] = past.ravel()[source]
    result.depth.ravel()[target] = z.ravel()[source]


def _project(depth: np.ndarray, motion: np.ndarray, camera: Camera) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels u, v and depth z in another view of the points of a depth image, all (H, W) float32; NaN where depth is."""
    rotation, translation = motion[:3, :3].astype(np.float32), motion[:3, 3].astype(np.float32)
    rays = camera.rays()
    x, y = rays[..., 0], rays[..., 1]
    turned = (rotation[i, 0] * x + rotation[i, 1] * y + rotation[i, 2] for i in range(3))
    x, y, z = (depth * ray + t for ray, t in zip(turned, translation, strict=True))
    if camera.distorted:
        with np.errstate(invalid="ignore", divide="ignore"):
            pixels = camera.project(np.stack((x, y, z), -1)).astype(np.float32)
        return pixels[..., 0], pixels[..., 1], z
    with np.errstate(invalid="ignore", divide="ignore"):
        inverse = 1 / z
    return camera.fx * x * inverse + camera.cx, camera.fy * y * inverse + camera.cy, z
