"""The pixels of image messages, without ROS: anything with the fields of sensor_msgs/Image or sensor_msgs/CompressedImage.

:func:`color_header` and :func:`depth_header` give an image's size without decoding it. All readers refuse what is larger than
:data:`d2a2_core.images.MOST_COLOR_PIXELS` or :data:`d2a2_core.images.MOST_DEPTH_PIXELS` before they decode anything.

``data`` may be bytes, an ``array.array`` or a NumPy array, so that rclpy's messages and those of a bag read alike.
Plain encodings are NumPy views: any ``step``, either byte order.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL.ImageFile import ImageFile

from d2a2_core import images
from d2a2_core.depth.units import MILLIMETRE
from d2a2_core.errors import CodedError
from d2a2_core.images import MOST_COLOR_PIXELS, MOST_DEPTH_PIXELS
from d2a2_core.messages.compressed_depth import HEADER, inverse_depth
from d2a2_core.messages.rvl import decode_rvl

#: encoding: (dtype, channels), for what is read without any library
PLAIN = {
    "rgb8": (np.uint8, 3), "bgr8": (np.uint8, 3), "rgba8": (np.uint8, 4), "bgra8": (np.uint8, 4), "mono8": (np.uint8, 1),
    "mono16": (np.uint16, 1), "16UC1": (np.uint16, 1), "32FC1": (np.float32, 1),
}  # fmt: skip
COLOR_ENCODINGS = ("rgb8", "bgr8", "rgba8", "bgra8", "mono8", "mono16")
DEPTH_ENCODINGS = ("16UC1", "mono16", "32FC1")
#: What is depth where it comes as colour.
_DEPTH_ALONE = ("16UC1", "32FC1")
# Metres per count where nobody says otherwise, by the kind of dtype.
_BY_ENCODING = {"f": 1.0, "u": MILLIMETRE}

#: of RVL in it: columns, rows
_RVL_SIZE = struct.Struct("<II")


class FrameError(CodedError):
    """A message that cannot be used."""


@dataclass(frozen=True)
class ImageHeader:
    """What is known of an image before it is decoded.

    Attributes:
        size: (H, W) of the pixels that the reader returns.
        orientation: How EXIF says the stored image lies, 1 (upright) to 8, see :func:`d2a2_core.images.turned`.
    """

    size: tuple[int, int]
    orientation: int = 1


def color_header(msg: Any) -> ImageHeader:
    """The header of a colour image, an Image or a CompressedImage.

    Raises:
        FrameError: As :func:`color_array` and :func:`compressed_color_array`, as far as the header shows it.
    """
    if hasattr(msg, "encoding"):
        return ImageHeader(_raw_size(msg, MOST_COLOR_PIXELS))
    image = _opened_color(msg)
    orientation = images.orientation(image)
    size = image.height, image.width
    return ImageHeader(size[::-1] if orientation >= 5 else size, orientation)


def depth_header(msg: Any) -> ImageHeader:
    """The header of a depth image, an Image or a CompressedImage.

    Raises:
        FrameError: As :func:`depth_array` and :func:`compressed_depth_array`, as far as the header shows it.
    """
    if hasattr(msg, "encoding"):
        return ImageHeader(_raw_size(msg, MOST_DEPTH_PIXELS))
    payload, _ = _depth_payload(msg)
    if _is_rvl(msg.format):
        return ImageHeader(_rvl_size(payload))
    image = _opened_depth(payload, msg.format)
    return ImageHeader((image.height, image.width))


def view(msg: Any) -> np.ndarray:
    """The pixels of a plainly encoded image, without a copy: (H, W) or (H, W, C), row padding and byte order respected.

    Raises:
        FrameError: fewer bytes than the header says, or a row step shorter than a row.
    """
    dtype, channels = PLAIN[msg.encoding]
    dtype = np.dtype(dtype).newbyteorder(">" if msg.is_bigendian else "<")
    row = msg.width * channels * dtype.itemsize
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
    """RGB uint8 (H, W, 3) of a colour image, a view for the plain encodings; or the (H, W) uint16 counts of mono16.

    Args:
        msg: sensor_msgs/Image.
        convert: called as ``convert(msg, "rgb8")`` for the encodings that are not plain (Bayer, YUV).

    Raises:
        FrameError: damaged message, too large, or an encoding that cannot be turned into RGB.
    """
    height, width = _raw_size(msg, MOST_COLOR_PIXELS)
    if msg.encoding in COLOR_ENCODINGS:
        pixels = view(msg)
        if msg.encoding == "mono16":
            return pixels
        if msg.encoding == "mono8":
            return np.broadcast_to(pixels[..., None], (*pixels.shape, 3))
        return pixels[..., 2::-1] if msg.encoding.startswith("bgr") else pixels[..., :3]
    name = shown(msg.encoding)
    if msg.encoding in _DEPTH_ALONE:
        raise FrameError(
            "encoding",
            f"the colour topic carries encoding {name!r}, which is depth; are the two topics swapped? An infrared image has to "
            "come as mono16",
            name,
        )
    if convert is None:
        raise FrameError(
            "encoding",
            f"colour encoding {name!r} is not supported; expected one of {', '.join(COLOR_ENCODINGS)}",
            name,
        )
    pixels = convert(msg, "rgb8")
    if pixels.shape != (height, width, 3) or pixels.dtype != np.uint8:
        raise FrameError(
            "damaged",
            f"image of {width}x{height} {name!r} became {pixels.dtype} {pixels.shape}; expected 8-bit RGB of its size",
            name,
        )
    return pixels


def depth_array(msg: Any, unit: float = 0.0) -> np.ndarray:
    """Depth (h, w) float32 metres, invalid as the camera gave it (0, NaN, inf).

    Args:
        msg: sensor_msgs/Image.
        unit: Metres per count; 0: millimetres of 16-bit images, metres of floats.

    Raises:
        FrameError: damaged message, too large, or an encoding that is not depth.
    """
    _raw_size(msg, MOST_DEPTH_PIXELS)
    if msg.encoding not in DEPTH_ENCODINGS:
        name, hint = shown(msg.encoding), "; are the two topics swapped?" if msg.encoding in COLOR_ENCODINGS else ""
        raise FrameError(
            "encoding",
            f"the depth topic carries encoding {name!r}; expected one of {', '.join(DEPTH_ENCODINGS)}{hint}",
            name,
        )
    return _metres(view(msg), unit)


def compressed_color_array(msg: Any) -> np.ndarray:
    """RGB uint8 (H, W, 3) of a sensor_msgs/CompressedImage, JPEG or PNG; or the (H, W) uint16 counts of a 16-bit grey PNG.

    Turned upright where EXIF says how the image lies.

    Raises:
        FrameError: not such an image, a damaged one, or too large.
    """
    image = _opened_color(msg)
    # Before the pixels, as in color_header: a PNG may have EXIF behind them.
    orientation = images.orientation(image)
    with _told("colour"):
        images.load(image)
        return images.turned(images.color_pixels(image), orientation)


def compressed_depth_array(msg: Any, unit: float = 0.0) -> np.ndarray:
    """Depth (h, w) float32 metres of a sensor_msgs/CompressedImage as compressed_depth_image_transport writes it.

    That is a header and a 16-bit image, PNG or RVL, see :mod:`d2a2_core.messages.compressed_depth`. A 16-bit PNG without that
    header (format "png", as image_transport's "compressed" makes of 16UC1) is read too.

    Args:
        msg: sensor_msgs/CompressedImage.
        unit: Metres per count, for 32FC1 per unit of z; 0: millimetres for 16UC1, metres for 32FC1.

    Raises:
        FrameError: not such an image, a damaged one, or too large.
    """
    payload, (a, b) = _depth_payload(msg)
    pixels = _rvl(payload) if _is_rvl(msg.format) else _depth_png(payload, msg.format)
    if _source_encoding(msg.format) != "32FC1":
        return _metres(pixels, unit)
    return _metres(inverse_depth(pixels, a, b), unit)


def metres_per_count(msg: Any) -> float:
    """The unit of a depth image, an Image or a CompressedImage, by its encoding."""
    encoding = msg.encoding if hasattr(msg, "encoding") else _source_encoding(msg.format)
    return _BY_ENCODING["f" if encoding == "32FC1" else "u"]


def is_compressed_depth(format: str) -> bool:
    """Whether a CompressedImage's ``format`` is that of compressed_depth_image_transport."""
    return "compresseddepth" in format.lower()


def _is_rvl(format: str) -> bool:
    return is_compressed_depth(format) and "rvl" in format.lower()


def _source_encoding(format: str) -> str:
    """The encoding of the image that was compressed, the first part of ``format``; transports write "16UC1; png ..."."""
    return format.split(";")[0].strip()


def shown(text: str) -> str:
    """A name out of a message, as far as people want to see it."""
    return text if len(text) <= 60 else f"{text[:57]}..."


def _metres(counts: np.ndarray, unit: float) -> np.ndarray:
    """Float32 metres of counts or of floats; a copy only where something has to be done."""
    unit = unit or _BY_ENCODING[counts.dtype.kind]
    depth = counts.astype(np.float32, copy=False)
    if unit == 1:
        return depth
    with np.errstate(all="ignore"):
        return np.multiply(depth, np.float32(unit), out=None if depth is counts else depth)


def _raw_size(msg: Any, most_pixels: int) -> tuple[int, int]:
    """(H, W) of an Image; raises FrameError where it is empty or too large."""
    if not msg.width or not msg.height:
        raise FrameError("empty", f"image is empty ({msg.width}x{msg.height})")
    with _told(""):
        images.check_size((msg.height, msg.width), most_pixels)
    return msg.height, msg.width


def _opened_color(msg: Any) -> ImageFile:
    if is_compressed_depth(msg.format) or _source_encoding(msg.format) in _DEPTH_ALONE:
        name = shown(msg.format)
        raise FrameError(
            "format", f"the colour topic carries format {name!r}, which is depth; are the two topics swapped?", name
        )
    with _told("colour"):
        return images.open_image(bytes(memoryview(msg.data)), MOST_COLOR_PIXELS)


def _depth_payload(msg: Any) -> tuple[bytes, tuple[float, float]]:
    """The image within a CompressedImage of depth, and the quantisation parameters of 32FC1."""
    name, data = shown(msg.format), bytes(memoryview(msg.data))
    if "jpeg" in msg.format.lower() or "jpg" in msg.format.lower():
        raise FrameError(
            "format", f"depth format {name!r} is not supported; expected compressedDepth with PNG or RVL", name
        )
    if not is_compressed_depth(msg.format):
        return data, (0.0, 0.0)
    if len(data) < HEADER.size:
        raise FrameError("truncated", f"depth image is truncated: {len(data)} bytes of {name!r}")
    _, a, b = HEADER.unpack_from(data)
    return data[HEADER.size :], (a, b)


def _opened_depth(payload: bytes, format: str) -> ImageFile:
    with _told("depth"):
        image = images.open_image(payload, MOST_DEPTH_PIXELS)
    if not images.is_grey_16(image):
        name = shown(format)
        raise FrameError(
            "format",
            f"depth of format {name!r} must be a 16-bit grey PNG, got {image.format} of mode {image.mode}",
            name,
        )
    return image


def _depth_png(payload: bytes, format: str) -> np.ndarray:
    image = _opened_depth(payload, format)
    with _told("depth"):
        images.load(image)
    return images.grey_16(image)


def _rvl_size(payload: bytes) -> tuple[int, int]:
    """(h, w) from the columns and rows, uint32 each, that precede RVL data."""
    if len(payload) < _RVL_SIZE.size:
        raise FrameError("damaged", f"compressed depth image is damaged ({len(payload)} bytes of RVL)")
    columns, rows = _RVL_SIZE.unpack_from(payload)
    if not columns or not rows:
        raise FrameError("damaged", f"compressed depth image is damaged (its size is given as {columns}x{rows})")
    with _told("depth"):
        images.check_size((rows, columns), MOST_DEPTH_PIXELS)
    return rows, columns


def _rvl(payload: bytes) -> np.ndarray:
    rows, columns = _rvl_size(payload)
    try:
        return decode_rvl(payload[_RVL_SIZE.size :], columns * rows).reshape(rows, columns)
    except ValueError as error:
        raise FrameError("damaged", f"compressed depth image is damaged ({error})") from error


@contextmanager
def _told(which: str) -> Iterator[None]:
    """Turns an ImageError into a FrameError; ``which`` names the kind of a compressed image."""
    try:
        yield
    except images.ImageError as error:
        raise FrameError(error.code, f"{f'compressed {which} ' if which else ''}image {error}") from error
