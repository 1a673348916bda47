"""The pixels of image messages, without ROS: anything with the fields of sensor_msgs/Image or sensor_msgs/CompressedImage.

``data`` may be bytes, an ``array.array`` or a NumPy array, so that rclpy's messages and those of a bag read alike.
Plain encodings are NumPy views: any ``step``, either byte order.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from d2a2_core.errors import CodedError
from d2a2_core.messages.rvl import decode_rvl

#: encoding: (dtype, channels), for what is read without any library
PLAIN = {
    "rgb8": (np.uint8, 3), "bgr8": (np.uint8, 3), "rgba8": (np.uint8, 4), "bgra8": (np.uint8, 4), "mono8": (np.uint8, 1),
    "mono16": (np.uint16, 1), "16UC1": (np.uint16, 1), "32FC1": (np.float32, 1),
}  # fmt: skip
COLOR_ENCODINGS = ("rgb8", "bgr8", "rgba8", "bgra8", "mono8")
DEPTH_ENCODINGS = ("16UC1", "mono16", "32FC1")

#: of compressedDepth: format (an enum, and padding), then the two quantisation parameters of 32FC1
_COMPRESSED_DEPTH_HEADER = struct.Struct("<iff")
#: of RVL in it: columns, rows
_RVL_SIZE = struct.Struct("<II")
_MOST_PIXELS = 1 << 26  # so that a damaged size asks for no gigabytes


class FrameError(CodedError):
    """A message that cannot be used."""


def view(msg: Any) -> np.ndarray:
    """The pixels of a plainly encoded image, without a copy: (H, W) or (H, W, C), row padding and byte order respected.

    Raises:
        FrameError: fewer bytes than the header says, or a row step shorter than a row.
    """
    dtype, channels = PLAIN[msg.encoding]
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


def color_array(msg: Any, convert: Callable[[Any, str], np.ndarray] | None = None) -> np.ndarray:
    """RGB uint8 (H, W, 3) of a colour image; a view for the plain encodings.

    Args:
        msg: sensor_msgs/Image.
        convert: called as ``convert(msg, "rgb8")`` for the encodings that are not plain (Bayer, YUV).

    Raises:
        FrameError: damaged message, or an encoding that cannot be turned into RGB.
    """
    if msg.encoding in COLOR_ENCODINGS:
        pixels = view(msg)
        if msg.encoding == "mono8":
            return np.broadcast_to(pixels[..., None], (*pixels.shape, 3))
        return pixels[..., 2::-1] if msg.encoding.startswith("bgr") else pixels[..., :3]
    if msg.encoding in ("16UC1", "32FC1"):
        raise FrameError(
            "encoding",
            f"the colour topic carries encoding {msg.encoding!r}, which is depth; are the two topics swapped?",
            msg.encoding,
        )
    if convert is None:
        raise FrameError(
            "encoding",
            f"colour encoding {msg.encoding!r} is not supported; expected one of {', '.join(COLOR_ENCODINGS)}",
            msg.encoding,
        )
    return convert(msg, "rgb8")


def depth_array(msg: Any) -> np.ndarray:
    """Depth (h, w) float32 metres, invalid as the camera gave it (0, NaN, inf); 16-bit images are in millimetres.

    Raises:
        FrameError: damaged message, or an encoding that is not depth.
    """
    if msg.encoding not in DEPTH_ENCODINGS:
        hint = "; are the two topics swapped?" if msg.encoding in COLOR_ENCODINGS else ""
        raise FrameError(
            "encoding",
            f"the depth topic carries encoding {msg.encoding!r}; expected one of {', '.join(DEPTH_ENCODINGS)}{hint}",
            msg.encoding,
        )
    return _metres(view(msg))


def compressed_color_array(msg: Any) -> np.ndarray:
    """RGB uint8 (H, W, 3) of a sensor_msgs/CompressedImage, JPEG or PNG.

    Raises:
        FrameError: not such an image, or a damaged one.
    """
    if is_compressed_depth(msg.format):
        raise FrameError(
            "format",
            f"the colour topic carries format {msg.format!r}, which is depth; are the two topics swapped?",
            msg.format,
        )
    return np.asarray(_decoded(msg.data, "colour").convert("RGB"))


def compressed_depth_array(msg: Any) -> np.ndarray:
    """Depth (h, w) float32 metres of a sensor_msgs/CompressedImage as compressed_depth_image_transport writes it.

    That is a header of 12 bytes and a 16-bit image, PNG or RVL: of millimetres for 16UC1; for 32FC1 of d = a / z + b with a, b
    in the header, 0 invalid, see ros-perception/image_transport_plugins, compressed_depth_image_transport/src/codec.cpp.
    A 16-bit PNG without that header (format "png", as image_transport's "compressed" makes of 16UC1) is read too.

    Raises:
        FrameError: not such an image, or a damaged one.
    """
    encoding, transport = msg.format.split(";")[0].strip(), msg.format.lower()
    data = bytes(memoryview(msg.data))
    if "jpeg" in transport or "jpg" in transport:
        raise FrameError(
            "format",
            f"depth format {msg.format!r} is not supported; expected compressedDepth with PNG or RVL",
            msg.format,
        )
    quantisation = (0.0, 0.0)
    if is_compressed_depth(msg.format):
        if len(data) < _COMPRESSED_DEPTH_HEADER.size:
            raise FrameError("truncated", f"depth image is truncated: {len(data)} bytes of {msg.format!r}")
        _, *quantisation = _COMPRESSED_DEPTH_HEADER.unpack_from(data)
        data = data[_COMPRESSED_DEPTH_HEADER.size :]
    pixels = (
        _rvl(data) if is_compressed_depth(msg.format) and "rvl" in transport else np.asarray(_decoded(data, "depth"))
    )
    if pixels.ndim != 2 or pixels.dtype not in (np.uint16, np.int32):
        raise FrameError(
            "format",
            f"depth of format {msg.format!r} must be a 16-bit grey PNG, got {pixels.dtype}{pixels.shape}",
            msg.format,
        )
    pixels = pixels.astype(np.uint16)
    if encoding != "32FC1":
        return _metres(pixels)
    a, b = quantisation
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = np.float32(a) / (pixels.astype(np.float32) - np.float32(b))
    depth[pixels == 0] = np.nan
    return depth


def is_compressed_depth(format: str) -> bool:
    """Whether a CompressedImage's ``format`` is that of compressed_depth_image_transport."""
    return "compresseddepth" in format.lower()


def _metres(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype.kind == "f":
        return pixels.astype(np.float32, copy=False)
    return pixels.astype(np.float32) * np.float32(0.001)


def _rvl(data: bytes) -> np.ndarray:
    """The (h, w) uint16 values behind the columns and rows, uint32 each, that precede RVL data."""
    try:
        columns, rows = _RVL_SIZE.unpack_from(data)
        if not 0 < columns * rows <= _MOST_PIXELS:
            raise ValueError(f"its size is given as {columns}x{rows}")
        return decode_rvl(data[_RVL_SIZE.size :], columns * rows).reshape(rows, columns)
    except (struct.error, ValueError) as error:
        raise FrameError("damaged", f"compressed depth image is damaged ({error})") from error


def _decoded(data: Any, which: str) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(memoryview(data)), formats=("JPEG", "PNG"))
        image.load()
    except UnidentifiedImageError as error:
        raise FrameError(
            "format", f"compressed {which} image is neither JPEG nor PNG, or its start is damaged"
        ) from error
    except (OSError, ValueError, SyntaxError, struct.error) as error:  # Pillow's, for damaged files
        raise FrameError("damaged", f"compressed {which} image is damaged ({error})") from error
    return image
