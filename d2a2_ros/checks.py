"""What is wrong with a message as such, before it is kept or paired. What is in an image is judged where it is read."""

from __future__ import annotations

from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from d2a2_core.geometry.transform_tree import MAX_NAME
from d2a2_ros.diagnostics import Problem

MAX_BYTES = 256 * 1024 * 1024
"""Largest data of an image: an 8192x8192 colour image and more."""
MAX_SIDE = 65535
"""Largest width and height of an image or of the one that a camera info is for, pixels."""
_MAX_COEFFICIENTS = 64
#: What people are told of the messages.
_WORDS = {
    "color": "colour image",
    "depth": "depth image",
    "color_info": "colour camera info",
    "depth_info": "depth camera info",
}


def image_problem(which: str, msg: Image | CompressedImage) -> Problem | None:
    """Returns why an image cannot be taken: its stamp, or sizes that no camera sends; None if nothing is wrong.

    Args:
        which: "color" or "depth".
        msg: Any content.
    """
    stamp = msg.header.stamp
    if stamp.sec < 0 or stamp.nanosec >= 1_000_000_000:
        return _problem(
            which,
            "stamp",
            f"expected a stamp of at least 0 s and less than 1e9 ns, got {stamp.sec} s {stamp.nanosec} ns; "
            "see what clock the driver takes its stamps from",
        )
    if len(msg.data) > MAX_BYTES:
        return _problem(which, "data", f"expected at most {MAX_BYTES} bytes of data, got {len(msg.data)}")
    if isinstance(msg, CompressedImage):
        return _name_problem(which, ("frame_id", msg.header.frame_id), ("format", msg.format))
    return _side_problem(which, msg) or _name_problem(
        which, ("frame_id", msg.header.frame_id), ("encoding", msg.encoding)
    )


def info_problem(which: str, msg: CameraInfo) -> Problem | None:
    """Returns why a camera info cannot be kept, None if nothing is wrong; ``which`` is "color" or "depth"."""
    which = f"{which}_info"
    if len(msg.d) > _MAX_COEFFICIENTS:
        return _problem(
            which, "distortion", f"expected at most {_MAX_COEFFICIENTS} distortion coefficients, got {len(msg.d)}"
        )
    return _side_problem(which, msg) or _name_problem(
        which, ("frame_id", msg.header.frame_id), ("distortion_model", msg.distortion_model)
    )


def _side_problem(which: str, msg: Image | CameraInfo) -> Problem | None:
    if max(msg.width, msg.height) <= MAX_SIDE:
        return None
    return _problem(which, "size", f"expected at most {MAX_SIDE} pixels along a side, got {msg.width}x{msg.height}")


def _name_problem(which: str, *names: tuple[str, str]) -> Problem | None:
    for field, text in names:
        if len(text) > MAX_NAME:
            message = f"expected {field} of at most {MAX_NAME} characters, got {len(text)}: {text[:20]!r}..."
            return _problem(which, field, message)
    return None


def _problem(which: str, field: str, message: str) -> Problem:
    return Problem(f"{which}_{field}", f"dropped a {_WORDS[which]}: {message}")
