"""Back-projection of depth to points, and writing them to a file. Convention: see :mod:`d2a2_core.geometry.camera`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from d2a2_core.geometry.camera import Camera


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
