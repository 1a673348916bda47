"""Camera -> sensor_msgs/CameraInfo; the way back and resizing need no ROS: :mod:`d2a2_core.messages.camera_info`."""

from __future__ import annotations

from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from d2a2_core.geometry import Camera


def info_from_camera(camera: Camera, header: Header) -> CameraInfo:
    """CameraInfo of an unrectified monocular camera."""
    info = CameraInfo(header=header, width=camera.width, height=camera.height)
    info.distortion_model = camera.model or "plumb_bob"
    info.d = [float(v) for v in camera.distortion] or [0.0] * 5
    info.k = [camera.fx, 0.0, camera.cx, 0.0, camera.fy, camera.cy, 0.0, 0.0, 1.0]
    info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    info.p = [camera.fx, 0.0, camera.cx, 0.0, 0.0, camera.fy, camera.cy, 0.0, 0.0, 0.0, 1.0, 0.0]
    return info
