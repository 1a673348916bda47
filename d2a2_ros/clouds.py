"""Organised, coloured PointCloud2 messages."""

from __future__ import annotations

import numpy as np
from sensor_msgs.msg import PointCloud2, PointField
from sensor_msgs_py import point_cloud2
from std_msgs.msg import Header

from d2a2_core.messages.cloud import FIELDS

_FIELDS = [PointField(name=name, offset=offset, datatype=datatype, count=1) for name, offset, datatype in FIELDS]


def cloud_message(packed: np.ndarray, header: Header) -> PointCloud2:
    """Returns an organised cloud of what :func:`d2a2_core.messages.cloud.pack_cloud` packed, (H, W).

    As depth_image_proc publishes it: one point per pixel, NaN where there is no depth; the field provenance is added.
    """
    cloud = point_cloud2.create_cloud(header, _FIELDS, packed.reshape(-1))
    cloud.height, cloud.width = packed.shape
    cloud.row_step = cloud.point_step * cloud.width
    cloud.is_dense = False
    return cloud
