"""Back-projection of depth to points, and writing them to a file. Convention: see :mod:`d2a2_core.geometry.camera`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from d2a2_core.geometry.camera import Camera

_GRAZING = 8.0  # tangent of the angle, 83 degrees, between the ray and the normal of a surface that is hardly one
_UNSURE = 0.05  # share of the depth


def back_project(depth: np.ndarray, camera: Camera, stride: int = 1) -> np.ndarray:
    """Points of a depth image, in the camera's optical frame.

    Args:
        depth: (H, W) float32 metres along z, NaN where invalid.
        camera: of exactly that size.
        stride: takes every stride-th row and column.

    Returns:
        (ceil(H / stride), ceil(W / stride), 3) float32 metres, NaN where depth is.
    """
    if depth.shape != (camera.height, camera.width):
        raise ValueError(
            f"depth is {depth.shape[1]}x{depth.shape[0]}, its camera {camera.width}x{camera.height}; use camera.resized"
        )
    z = depth[::stride, ::stride, None]
    points = np.empty((*z.shape[:2], 3), np.float32)
    np.multiply(camera.rays()[::stride, ::stride], z, out=points[..., :2])
    points[..., 2:] = z
    return points


def in_the_air(depth: np.ndarray, camera: Camera, sigma: np.ndarray | None = None) -> np.ndarray:
    """Pixels whose points may lie between two surfaces: (H, W) bool.

    A pixel between its left and right, or its upper and lower neighbour in depth, so steeply on both sides that a surface there
    would be seen at more than 83 degrees; and one of whose depth sigma is more than a twentieth. On the sample recording with
    d2a2-nano-sensor that is 89 % of the flying pixels, and 1.2 % of those within 2 % of the true depth.

    Args:
        depth: (H, W) float32 metres, NaN where invalid.
        camera: of that size.
        sigma: (H, W) float32 metres; None: slopes alone.
    """
    floating = np.zeros(depth.shape, bool)
    for z, found, focal in ((depth, floating, camera.fx), (depth.T, floating.T, camera.fy)):
        # NaN compares false.
        step = np.diff(z, axis=1)
        before, after = step[:, :-1], step[:, 1:]
        limit = np.float32(_GRAZING / focal) * z[:, 1:-1]
        found[:, 1:-1] |= (np.sign(before) == np.sign(after)) & (np.minimum(np.abs(before), np.abs(after)) > limit)
    if sigma is not None:
        floating |= sigma > np.float32(_UNSURE) * depth
    return floating


def write_ply(path: str | Path, points: np.ndarray, colors: np.ndarray) -> int:
    """Writes the finite points of a cloud as binary PLY and returns their number.

    Args:
        points: (..., 3) float32 metres.
        colors: (..., 3) uint8 RGB, as many.
    """
    points, colors = points.reshape(-1, 3), colors.reshape(-1, 3)
    keep = np.isfinite(points).all(axis=1)
    vertices = np.empty(keep.sum(), [("xyz", "<f4", 3), ("rgb", "u1", 3)])
    vertices["xyz"], vertices["rgb"] = points[keep], colors[keep]
    properties = [f"property float {a}" for a in "xyz"] + [f"property uchar {c}" for c in ("red", "green", "blue")]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(vertices)}", *properties, "end_header"]
    with open(path, "wb") as file:
        file.write(("\n".join(header) + "\n").encode())
        file.write(vertices.tobytes())
    return len(vertices)
