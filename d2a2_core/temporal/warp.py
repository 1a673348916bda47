"""What was known in the view of one pose of the camera, seen from another.

Each pixel of the new frame looks up its own place in the old view: its measured depth makes it a point, and the point's place in
the old view follows from the poses. That needs no z-buffer and leaves no gaps: where something hid the point, the old depth
there is another, and the gate of :mod:`d2a2_core.temporal.fusion` refuses it. Holes of the new frame have no depth to look up
with; there the old points are projected forward, and the nearest one wins.

Convention: see :mod:`d2a2_core.geometry.camera`; motions are (4, 4), x_new = M x_old, metres.
"""

from __future__ import annotations

import numpy as np

from d2a2_core.geometry import Camera
from d2a2_core.temporal.fusion import Belief, bands

_SAME_SURFACE = 0.01  # share of the depth up to which the mean of four neighbours may be off one of them


def seen_from(
    belief: Belief, motion: np.ndarray, camera: Camera, depth: np.ndarray, drift_m: float, out: Belief
) -> None:
    """What is known, at the pixels of a new frame.

    Args:
        belief: In the old view.
        motion: (4, 4) from the old camera's frame to the new one's.
        camera: Of both views.
        depth: (H, W) float32 metres, the new frame's; NaN in holes.
        drift_m: Error of the motion in metres, added to the noise.
        out: Is filled.
    """
    back = np.linalg.inv(motion)
    for rows in bands(depth.shape):
        _look_up(belief, back, camera, depth, rows, out)
    out.noise += np.float32(drift_m**2)
    holes = np.isnan(depth)
    if holes.any():
        _carry(belief, motion, camera, holes, out)


def _look_up(belief: Belief, back: np.ndarray, camera: Camera, depth: np.ndarray, rows: slice, out: Belief) -> None:
    """Rows of ``out``: what was known of the points that the new frame's pixels show, NaN where that is nothing."""
    height, width = depth.shape
    u, v, z = _project(depth[rows], back, camera, rows)
    inside = (u > -0.5) & (u < width - 0.5) & (v > -0.5) & (v < height - 0.5) & (z > 0)  # NaN is not
    if not inside.all():
        u, v = np.where(inside, u, 0), np.where(inside, v, 0)
    column, row = u.astype(np.intp), v.astype(np.intp)  # both are at least -0.5: down to 0
    np.minimum(column, max(width - 2, 0), out=column)
    np.minimum(row, max(height - 2, 0), out=row)
    # Below 0 or above 1 beyond the centres of the outermost pixels: that extrapolates.
    x, y = (u - column).astype(np.float32), (v - row).astype(np.float32)
    corner = row * width + column
    flat = belief.depth.reshape(-1)
    steps = np.array([0, 1, width, width + 1])
    around = [flat.take(corner + step, mode="clip") for step in steps]
    upper, lower = (left + x * (right - left) for left, right in (around[:2], around[2:]))
    known = upper + y * (lower - upper)
    at = corner + (x > 0.5) + (y > 0.5) * np.intp(width)
    single = flat.take(at, mode="clip")
    # Beside a depth edge or a hole one of the four speaks alone: the one that is most like what is seen now.
    edges = np.flatnonzero(~(np.abs(known - single) <= _SAME_SURFACE * single))
    choices = np.stack([values.take(edges) for values in around])
    chosen = np.argmin(np.nan_to_num(np.abs(choices - z.take(edges)), nan=np.inf), axis=0)
    known.reshape(-1)[edges] = np.take_along_axis(choices, chosen[None], 0)[0]
    at.reshape(-1)[edges] = corner.take(edges) + steps[chosen]
    # Along the new ray old depth is linear in new depth: Z = c z + t with c the third row of R times the ray.
    shift = np.float32(back[2, 3])
    np.subtract(known, shift, out=known)
    np.multiply(known, depth[rows], out=known)
    with np.errstate(invalid="ignore", divide="ignore"):
        known /= z - shift
    np.copyto(known, np.nan, where=~(inside & (known > 0)))
    out.depth[rows] = known
    for now, past in ((out.noise, belief.noise), (out.shared, belief.shared)):
        np.take(past.reshape(-1), at, out=now[rows], mode="clip")
    out.age[rows] = 0


def _carry(belief: Belief, motion: np.ndarray, camera: Camera, holes: np.ndarray, out: Belief) -> None:
    """Writes into ``out`` the old points that land in holes of the new frame."""
    height, width = holes.shape
    found = []
    for rows in bands(holes.shape):
        u, v, z = _project(belief.depth[rows], motion, camera, rows)
        inside = (u > -0.5) & (u < width - 0.5) & (v > -0.5) & (v < height - 0.5) & (z > 0)
        source = np.flatnonzero(inside)
        u, v, z = (np.take(values, source) for values in (u, v, z))
        target = np.rint(v).astype(np.intp) * width + np.rint(u).astype(np.intp)
        into = np.flatnonzero(holes.take(target))
        found.append((source[into] + rows.start * width, target[into], z[into]))
    source, target, z = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.argsort(-z, kind="stable")  # the last one written stays: the nearest
    source, target = source[order], target[order]
    out.depth.reshape(-1)[target] = z[order]
    for now, past in ((out.noise, belief.noise), (out.shared, belief.shared), (out.age, belief.age)):
        now.reshape(-1)[target] = past.take(source)


def _project(
    depth: np.ndarray, motion: np.ndarray, camera: Camera, rows: slice
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels u, v and depth z in the other view of the points that some rows show, float32; NaN where ``depth`` is."""
    matrix = motion[:3].astype(np.float32)
    rays = camera.rays()[rows]
    x, y = np.ascontiguousarray(rays[..., 0]), np.ascontiguousarray(rays[..., 1])
    moved = []
    for a, b, c, t in matrix:
        axis = a * x
        axis += b * y
        axis += c
        axis *= depth
        axis += t
        moved.append(axis)
    x, y, z = moved
    with np.errstate(invalid="ignore", divide="ignore"):
        if camera.distorted:
            pixels = camera.project(np.stack(moved, -1)).astype(np.float32)
            return pixels[..., 0], pixels[..., 1], z
        x *= np.float32(camera.fx) / z
        y *= np.float32(camera.fy) / z
    x += np.float32(camera.cx)
    y += np.float32(camera.cy)
    return x, y, z
