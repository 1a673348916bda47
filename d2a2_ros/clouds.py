"""Organised, coloured PointCloud2 messages."""

from __future__ import annotations

import numpy as np
from sensor_msgs.msg import PointCloud2, PointField
from sensor_msgs_py import point_cloud2
from std_msgs.msg import Header

_FIELDS = [
    PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1)
    for i, name in enumerate(("x", "y", "z", "rgb"))
]
_FIELDS.append(PointField(name="provenance", offset=16, datatype=PointField.UINT8, count=1))
_DTYPE = point_cloud2.dtype_from_fields(_FIELDS)


def cloud_message(points: np.ndarray, colors: np.ndarray, provenance: np.ndarray, header: Header) -> PointCloud2:
    """An organised XYZRGB cloud, as depth_image_proc publishes it: one point per pixel, NaN where there is no depth.

    A field more tells where each point comes from.

    Args:
        points: (H, W, 3) float32 metres.
        colors: (H, W, 3) uint8 RGB.
        provenance: (H, W) uint8, :class:`d2a2_core.Provenance`.
    """
    height, width = points.shape[:2]
    packed = np.empty(height * width, _DTYPE)
    flat = points.reshape(-1, 3)
    for i, name in enumerate("xyz"):
        packed[name] = flat[:, i]
    rgb = colors.reshape(-1, 3).astype(np.uint32)
    packed["rgb"] = (rgb[:, 0] << 16 | rgb[:, 1] << 8 | rgb[:, 2]).view(np.float32)
    packed["provenance"] = provenance.reshape(-1)
    cloud = point_cloud2.create_cloud(header, _FIELDS, packed)
    cloud.height, cloud.width = height, width
    cloud.row_step = cloud.point_step * width
    cloud.is_dense = False
    return cloud
