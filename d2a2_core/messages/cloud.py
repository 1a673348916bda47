"""The points of a cloud message: organised, coloured, with provenance; the same bytes from the live node and in a bag."""

from __future__ import annotations

import numpy as np

#: (name, byte offset, sensor_msgs/PointField datatype) of each field; 7 is FLOAT32, 2 is UINT8.
FIELDS = (("x", 0, 7), ("y", 4, 7), ("z", 8, 7), ("rgb", 12, 7), ("provenance", 16, 2))
DTYPE = np.dtype([("x", "f4"), ("y", "f4"), ("z", "f4"), ("rgb", "f4"), ("provenance", "u1")])


def pack_cloud(points: np.ndarray, colors: np.ndarray, provenance: np.ndarray) -> np.ndarray:
    """Packs points as depth_image_proc does, and a field more that tells where each comes from.

    Args:
        points: (H, W, 3) float32 metres, NaN where there is no depth.
        colors: (H, W, 3) uint8 RGB.
        provenance: (H, W) uint8, :class:`d2a2_core.Provenance`.

    Returns:
        (H, W) of :data:`DTYPE`; rgb holds 0x00RRGGBB, as PCL expects it in a float.
    """
    packed = np.empty(points.shape[:2], DTYPE)
    for i, name in enumerate("xyz"):
        packed[name] = points[..., i]
    rgb = colors.astype(np.uint32)
    packed["rgb"] = (rgb[..., 0] << 16 | rgb[..., 1] << 8 | rgb[..., 2]).view(np.float32)
    packed["provenance"] = provenance
    return packed
