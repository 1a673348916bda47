"""Cameras from sensor_msgs/CameraInfo and its resizing, without ROS: anything with the message's fields in lower case."""

from __future__ import annotations

import copy
from typing import Any

from d2a2_core.geometry.camera import Camera


def camera_from_info(info: Any) -> Camera:
    """Intrinsics and distortion of the raw image that ``info`` describes.

    Raises:
        ValueError: not calibrated (zero focal length), or an unknown distortion model.
    """
    k = [float(v) for v in info.k]
    return Camera(
        info.width, info.height, k[0], k[4], k[2], k[5], info.distortion_model, tuple(float(v) for v in info.d)
    )


def resized_info(info: Any, width: int, height: int, header: Any) -> Any:
    """``info`` for the image that really came, of width x height; a copy of the same type, with ``header``.

    An info of that size only gets the new header. One whose ROI, binned, has that size describes a cropped image: it is
    shifted, and scaled by the binning. Any other is resized: K, P and ROI scaled, c' = (c + 0.5) s - 0.5.
    """
    out = copy.deepcopy(info)
    out.header = header
    if (info.width, info.height) == (width, height) or not info.width or not info.height:
        return out
    out.binning_x = out.binning_y = 0  # K and P are of the image itself from here on
    roi = out.roi
    bins = max(info.binning_x, 1), max(info.binning_y, 1)
    if roi.width and roi.height and (roi.width // bins[0], roi.height // bins[1]) == (width, height):
        for matrix, columns in ((out.k, 3), (out.p, 4)):
            matrix[2] -= roi.x_offset
            matrix[columns + 2] -= roi.y_offset
        roi.x_offset = roi.y_offset = roi.width = roi.height = 0
        roi.do_rectify = False
        _scale(out, 1 / bins[0], 1 / bins[1])
        out.width, out.height = width, height
        return out
    sx, sy = width / info.width, height / info.height
    _scale(out, sx, sy)
    out.width, out.height = width, height
    roi.x_offset, roi.width = round(roi.x_offset * sx), round(roi.width * sx)
    roi.y_offset, roi.height = round(roi.y_offset * sy), round(roi.height * sy)
    return out


def _scale(info: Any, sx: float, sy: float) -> None:
    for matrix, columns in ((info.k, 3), (info.p, 4)):
        matrix[0] *= sx
        matrix[2] = (matrix[2] + 0.5) * sx - 0.5
        matrix[columns + 1] *= sy
        matrix[columns + 2] = (matrix[columns + 2] + 0.5) * sy - 0.5
    info.p[3] *= sx  # baseline terms of a stereo pair are in pixels
    info.p[7] *= sy
