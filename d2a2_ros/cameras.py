"""sensor_msgs/CameraInfo <-> Camera, and the CameraInfo of a resized image."""

from __future__ import annotations

import copy

from sensor_msgs.msg import CameraInfo, RegionOfInterest
from std_msgs.msg import Header

from d2a2_core.geometry import Camera


def camera_from_info(info: CameraInfo) -> Camera:
    """Intrinsics and distortion of the raw image that ``info`` describes.

    Raises:
        ValueError: not calibrated (zero focal length), or an unknown distortion model.
    """
    k = info.k
    return Camera(info.width, info.height, k[0], k[4], k[2], k[5], info.distortion_model, tuple(info.d))


def info_from_camera(camera: Camera, header: Header) -> CameraInfo:
    """CameraInfo of an unrectified monocular camera."""
    info = CameraInfo(header=header, width=camera.width, height=camera.height)
    info.distortion_model = camera.model or "plumb_bob"
    info.d = [float(v) for v in camera.distortion] or [0.0] * 5
    info.k = [camera.fx, 0.0, camera.cx, 0.0, camera.fy, camera.cy, 0.0, 0.0, 1.0]
    info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    info.p = [camera.fx, 0.0, camera.cx, 0.0, 0.0, camera.fy, camera.cy, 0.0, 0.0, 0.0, 1.0, 0.0]
    return info


def resized_info(info: CameraInfo, width: int, height: int, header: Header) -> CameraInfo:
    """``info`` for the image that really came, of width x height.

    An info of that size only gets the new header. One whose ROI has that size describes a cropped image: it is shifted. Any
    other is resized: K, P and ROI scaled, c' = (c + 0.5) s - 0.5.
    """
    out = copy.deepcopy(info)
    out.header = header
    if (info.width, info.height) == (width, height) or not info.width or not info.height:
        return out
    out.binning_x = out.binning_y = 0  # K and P are of the image itself from here on
    if (info.roi.width, info.roi.height) == (width, height):
        for matrix, columns in ((out.k, 3), (out.p, 4)):
            matrix[2] -= info.roi.x_offset
            matrix[columns + 2] -= info.roi.y_offset
        out.width, out.height, out.roi = width, height, RegionOfInterest()
        return out
    sx, sy = width / info.width, height / info.height
    out.width, out.height = width, height
    for matrix, columns in ((out.k, 3), (out.p, 4)):
        matrix[0] *= sx
        matrix[2] = (matrix[2] + 0.5) * sx - 0.5
        matrix[columns + 1] *= sy
        matrix[columns + 2] = (matrix[columns + 2] + 0.5) * sy - 0.5
    out.p[3] *= sx  # baseline terms of a stereo pair are in pixels
    out.p[7] *= sy
    roi = out.roi
    roi.x_offset, roi.width = round(roi.x_offset * sx), round(roi.width * sx)
    roi.y_offset, roi.height = round(roi.y_offset * sy), round(roi.height * sy)
    return out
