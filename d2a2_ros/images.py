"""sensor_msgs/Image <-> arrays. Plain encodings are NumPy views; the others go through cv_bridge, imported on demand."""

from __future__ import annotations

import sys

import numpy as np
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from d2a2_core.data.recording import to_millimetres

#: encoding: (dtype, channels), for what is read without any library
_PLAIN = {
    "rgb8": (np.uint8, 3), "bgr8": (np.uint8, 3), "rgba8": (np.uint8, 4), "bgra8": (np.uint8, 4), "mono8": (np.uint8, 1),
    "mono16": (np.uint16, 1), "16UC1": (np.uint16, 1), "32FC1": (np.float32, 1),
}  # fmt: skip
COLOR_ENCODINGS = ("rgb8", "bgr8", "rgba8", "bgra8", "mono8")
DEPTH_ENCODINGS = ("16UC1", "mono16", "32FC1")


class FrameError(ValueError):
    """A message that cannot be used. ``cause`` is the same for all messages with the same fault."""

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause = cause


def view(msg: Image) -> np.ndarray:
    """The pixels of a plainly encoded image, without a copy: (H, W) or (H, W, C), row padding and byte order respected.

    Raises:
        FrameError: fewer bytes than the header says, or a row step shorter than a row.
    """
    dtype, channels = _PLAIN[msg.encoding]
    dtype = np.dtype(dtype).newbyteorder(">" if msg.is_bigendian else "<")
    row = msg.width * channels * dtype.itemsize
    if not msg.width or not msg.height:
        raise FrameError("empty", f"image is empty ({msg.width}x{msg.height})")
    if msg.step < row:
        raise FrameError(
            "step", f"image says step {msg.step}, but a row of {msg.width} {msg.encoding} pixels has {row} bytes"
        )
    expected = msg.step * (msg.height - 1) + row  # some drivers leave the last row's padding out
    if len(msg.data) < expected:
        raise FrameError(
            "truncated",
            f"image is truncated: {msg.width}x{msg.height} {msg.encoding} with step {msg.step} needs {expected} bytes, "
            f"got {len(msg.data)}",
        )
    shape, strides = (msg.height, msg.width), (msg.step, channels * dtype.itemsize)
    if channels > 1:
        shape, strides = (*shape, channels), (*strides, dtype.itemsize)
    return np.ndarray(shape, dtype, buffer=memoryview(msg.data).cast("B"), strides=strides)


def color_array(msg: Image) -> np.ndarray:
    """RGB uint8 (H, W, 3) of a colour image; a view for the plain encodings.

    Raises:
        FrameError: damaged message, or an encoding that neither we nor cv_bridge can turn into RGB.
    """
    if msg.encoding in COLOR_ENCODINGS:
        pixels = view(msg)
        if msg.encoding == "mono8":
            return np.broadcast_to(pixels[..., None], (*pixels.shape, 3))
        return pixels[..., 2::-1] if msg.encoding.startswith("bgr") else pixels[..., :3]
    if msg.encoding in ("16UC1", "32FC1"):
        raise FrameError(
            f"color encoding {msg.encoding}",
            f"the colour topic carries encoding {msg.encoding!r}, which is depth; are the two topics swapped?",
        )
    return _through_cv_bridge(msg, "rgb8")


def depth_array(msg: Image) -> np.ndarray:
    """Depth (h, w) float32 metres, invalid as the camera gave it (0, NaN, inf); 16-bit images are in millimetres.

    Raises:
        FrameError: damaged message, or an encoding that is not depth.
    """
    if msg.encoding not in DEPTH_ENCODINGS:
        hint = "; are the two topics swapped?" if msg.encoding in COLOR_ENCODINGS else ""
        raise FrameError(
            f"depth encoding {msg.encoding}",
            f"the depth topic carries encoding {msg.encoding!r}; expected one of {', '.join(DEPTH_ENCODINGS)}{hint}",
        )
    pixels = view(msg)
    if msg.encoding == "32FC1":
        return pixels.astype(np.float32, copy=False)
    return pixels.astype(np.float32) * np.float32(0.001)


def to_message(image: np.ndarray, encoding: str, header: Header) -> Image:
    """An Image message of a plain encoding.

    Args:
        image: (H, W) or (H, W, C), of the encoding's dtype.
        encoding: one of the plain encodings.
        header: copied by reference.
    """
    dtype, channels = _PLAIN[encoding]
    if image.dtype != dtype or (image.shape[2] if image.ndim == 3 else 1) != channels:
        raise ValueError(
            f"expected {channels} channel(s) of {np.dtype(dtype)} for {encoding}, got {image.dtype} {image.shape}"
        )
    msg = Image(header=header, height=image.shape[0], width=image.shape[1], encoding=encoding)
    msg.is_bigendian = int(sys.byteorder == "big")
    msg.step = image.shape[1] * channels * image.itemsize
    # array.frombytes is the only fast way in: assigning bytes copies twice, an ndarray goes element by element.
    msg.data.frombytes(np.ascontiguousarray(image).data.cast("B"))
    return msg


def depth_message(depth: np.ndarray, encoding: str, header: Header) -> Image:
    """Depth (H, W) float32 metres with NaN as 32FC1 metres, or as 16UC1 millimetres: 0 invalid, clamped to 1..65535."""
    if encoding == "32FC1":
        return to_message(depth, "32FC1", header)
    return to_message(to_millimetres(depth), "16UC1", header)


def _through_cv_bridge(msg: Image, desired: str) -> np.ndarray:
    try:
        from cv_bridge import CvBridge
    except Exception as error:  # its compiled part raises various types under NumPy 2 or OpenCV 5
        raise FrameError(
            f"color encoding {msg.encoding}",
            f"colour encoding {msg.encoding!r} needs cv_bridge, which does not import here ({error}); let the driver "
            f"publish one of {', '.join(COLOR_ENCODINGS)}",
        ) from error
    try:
        return CvBridge().imgmsg_to_cv2(msg, desired)
    except Exception as error:  # CvBridgeError, or whatever OpenCV raises on a damaged buffer
        raise FrameError(
            f"color encoding {msg.encoding}",
            f"colour encoding {msg.encoding!r} cannot be converted to {desired} ({error}); let the driver publish one of "
            f"{', '.join(COLOR_ENCODINGS)}",
        ) from error
