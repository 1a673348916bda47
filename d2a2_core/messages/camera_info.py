"""Cameras from sensor_msgs/CameraInfo and its resizing, without ROS: anything with the message's fields in lower case."""

from __future__ import annotations

import array
import copy
import re
from typing import Any

import numpy as np

from d2a2_core.geometry.camera import Camera
from d2a2_core.geometry.distortion import distortion_formula

#: Which images come without lens distortion although their camera info has some.
RECTIFIED_INPUTS = ("auto", "none", "color", "depth", "both")
_LEFT_OF_P = (0, 1, 2, 4, 5, 6, 8, 9, 10)  # the 3 x 3 part of P's 3 x 4 numbers


def info_topic_beside(image_topic: str) -> str:
    """The topic of an image's camera info, as camera_info_manager and image_transport name it."""
    base, _, last = image_topic.rpartition("/")
    if last in ("compressed", "compressedDepth"):
        base = base.rpartition("/")[0]
    return f"{base}/camera_info"


def is_rectified(setting: str, which: str, topic: str) -> bool:
    """Whether images of ``topic`` are rectified: as ``setting`` says, with "auto" by a part of the name.

    ROS's rectifying nodes name their images so: image_rect, image_rect_color, rect/image_raw, depth_rectified.

    Args:
        setting: one of :data:`RECTIFIED_INPUTS`.
        which: "color" or "depth".
        topic: resolved name.
    """
    if setting != "auto":
        return setting in (which, "both")
    return not {"rect", "rectified"}.isdisjoint(re.split("[/_]", topic.lower()))


def rectified_info(info: Any) -> Any:
    """What describes the rectified image of ``info``, a copy of the same type: K from P, no distortion, R of identity.

    The nodes that rectify images pass the camera info of the raw image on, of which P is for the rectified one. An info
    without distortion is returned as it is.

    Raises:
        ValueError: there is distortion, but no P.
    """
    if not has_distortion(info):
        return info
    if not _calibrated(info, info.p, 4):
        raise ValueError(
            "has lens distortion but no projection matrix P, which a rectified image needs; calibrate the camera with "
            "camera_calibration, or say that the image is raw (rectified_input: none)"
        )
    out = copy.deepcopy(info)
    out.distortion_model = "plumb_bob"
    _fill(out.d, [0.0] * len(out.d))
    _fill(out.k, [float(info.p[i]) for i in _LEFT_OF_P])
    _fill(out.r, [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0])
    return out


def has_distortion(info: Any) -> bool:
    """Whether ``info`` describes a lens that distorts, as far as that is known: by coefficients, or as a fisheye."""
    try:
        return bool(distortion_formula(info.distortion_model, tuple(info.d))[0])
    except ValueError:
        return True


def with_usable_k(info: Any) -> tuple[Any, str]:
    """``info`` with K taken from P where K is no calibration and P is one; and what was assumed, for people, or "".

    Some drivers publish K of zeros, or the identity, beside a valid P. P is of the rectified image: without distortion that is
    the image itself; with distortion its focal length comes near the raw image's, and is all there is.
    """
    if _calibrated(info, info.k, 3) or not _calibrated(info, info.p, 4):
        return info, ""
    out = copy.deepcopy(info)
    _fill(out.k, [float(info.p[i]) for i in _LEFT_OF_P])
    said = f"K is no calibration (fx={info.k[0]:.6g}, fy={info.k[4]:.6g}), so P is taken in its place"
    if has_distortion(info):
        said += "; with the lens distortion that may be some pixels off, since P is of the rectified image"
    return out, said


def _calibrated(info: Any, matrix: Any, columns: int) -> bool:
    """Whether a matrix, row by row, can be that of a camera."""
    try:
        _camera(info, matrix, columns)
    except ValueError:
        return False
    return True


def _camera(info: Any, matrix: Any, columns: int, model: str = "", distortion: tuple[float, ...] = ()) -> Camera:
    fx, fy, cx, cy = (float(matrix[i]) for i in (0, columns + 1, 2, columns + 2))
    if (fx, fy, cx, cy) == (1, 1, 0, 0):
        raise ValueError("camera is not calibrated: K is the identity matrix")
    return Camera(info.width, info.height, fx, fy, cx, cy, model, distortion)


def _fill(array: Any, values: list[float]) -> None:
    for i, value in enumerate(values):  # arrays of the message's own type, whichever that is
        array[i] = value


def info_with_camera(info: Any, camera: Camera) -> Any:
    """Returns a copy of ``info`` with the matrices and the distortion of ``camera``, for a whole image of its size."""
    out = copy.deepcopy(info)
    out.width, out.height = camera.width, camera.height
    out.distortion_model = camera.model or "plumb_bob"
    coefficients = [float(v) for v in camera.distortion or (0.0,) * 5]
    # The field is of variable length, so it is replaced; an array.array in rclpy's messages, NumPy's in a bag's.
    out.d = np.array(coefficients) if isinstance(info.d, np.ndarray) else array.array("d", coefficients)
    _fill(out.k, [camera.fx, 0.0, camera.cx, 0.0, camera.fy, camera.cy, 0.0, 0.0, 1.0])
    _fill(out.r, [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0])
    _fill(out.p, [camera.fx, 0.0, camera.cx, 0.0, 0.0, camera.fy, camera.cy, 0.0, 0.0, 0.0, 1.0, 0.0])
    out.binning_x = out.binning_y = 0
    roi = out.roi
    roi.x_offset = roi.y_offset = roi.width = roi.height = 0
    roi.do_rectify = False
    return out


def camera_from_info(info: Any) -> Camera:
    """Intrinsics and distortion of the raw image that ``info`` describes.

    Raises:
        ValueError: not calibrated, or distortion whose formula is not known; see :class:`Camera`.
    """
    return _camera(info, info.k, 3, info.distortion_model, tuple(float(v) for v in info.d))


def shows_region(info: Any, width: int, height: int) -> bool:
    """Whether an image of width x height is the region of interest of ``info``, binned, and not the whole."""
    roi = info.roi
    region = roi.width // max(info.binning_x, 1), roi.height // max(info.binning_y, 1)
    return 0 not in region and region == (width, height) != (info.width, info.height)


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
    if shows_region(info, width, height):
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
