"""JPEG and PNG images, from files and from messages: what is read, how large it may be, and which error a damaged one raises.

Pillow's plugins are called by name, never through ``Image.open``: that chooses among all formats (an EPS starts Ghostscript),
and its limit of the size is a setting of the whole process. Here the size is checked when the header has been read, before
any pixel is decoded.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from d2a2_core.errors import CodedError

#: Largest colour image: 8K, which is up to 8192 x 4320.
MOST_COLOR_PIXELS = 36_000_000
#: Largest depth image: depth registered to the largest colour image of an Azure Kinect has 4096 x 3072.
MOST_DEPTH_PIXELS = 16_000_000
#: Bytes of the largest file: MOST_COLOR_PIXELS of RGBA with 16 bits each, which no compression made smaller.
_MOST_BYTES = 8 * MOST_COLOR_PIXELS
#: A progressive JPEG has some ten scans. Each costs a pass over the whole image, however few bytes it has.
_MOST_SCANS = 24
#: Pixels that are brought to RGB at a time: Pillow needs three times the image for it.
_STRIP = 1 << 20
_PLUGINS: tuple[tuple[bytes, type[ImageFile]], ...] = (
    (b"\xff\xd8\xff", JpegImageFile),
    (b"\x89PNG\r\n\x1a\n", PngImageFile),
)
#: Modes of a 16-bit grey PNG: Pillow before version 11 opens it as 32-bit integers.
_GREY_16 = ("I;16", "I")
_ORIENTATION = 0x0112
#: 16-bit grey is scaled to 8 bits so that this share of the pixels is black, and as many white.
GREY_QUANTILE = 0.005
#: Counts; what has less contrast is not blown up further, or its noise would look like structure.
GREY_MIN_SPAN = 64.0
#: What is brighter than all but this share of the pixels, by more than their contrast, is glare: a reflector, the sun.
_GLARE_SHARE = 0.05
#: What Pillow raises for damaged images: found by reading its two plugins and EXIF, and by mutating images.
_PILLOW_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, ArithmeticError, AssertionError, AttributeError,
    RuntimeError, MemoryError, struct.error, zlib.error, Image.DecompressionBombError, Warning,
)  # fmt: skip
# Pillow reads what is before a JPEG's pixels, and a PNG's chunks, one by one in Python, joins EXIF segments each time anew, and
# unpacks a megabyte out of each chunk. So of a few megabytes of small ones each would take seconds.
#: Segments before a JPEG's pixels; a colour profile may have up to 255.
_MOST_SEGMENTS = 300
#: Chunks of a PNG, beside one for each kilobyte; and those that hold no pixels.
_MOST_CHUNKS, _MOST_OTHER_CHUNKS = 1000, 64
# Markers before a JPEG's pixels that Pillow takes a length for; it goes through what is between them byte by byte.
_JPEG_SEGMENT = re.compile(rb"\xff[\xc0-\xc7\xc9-\xcf\xda-\xef\xfe]")
# Markers within a JPEG that neither are stuffing (00), fill bytes or restarts, nor stand alone.
_JPEG_MARKER = re.compile(rb"\xff[\x02-\xcf\xd8-\xfe]")
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9


class ImageError(CodedError):
    """An image cannot be read; the code is "format", "damaged" or "too_large". The message's subject is the image."""


def check_size(size: tuple[int, int], most_pixels: int) -> None:
    """Raises ImageError (code "too_large") where ``size`` (H, W) has more than ``most_pixels``."""
    height, width = size
    if height * width > most_pixels:
        raise ImageError(
            "too_large", f"is of {width}x{height} pixels; expected at most {most_pixels / 1e6:g} million pixels"
        )


def open_image(data: bytes, most_pixels: int = MOST_COLOR_PIXELS) -> ImageFile:
    """The image in ``data``, its header read and its size checked; pixels are decoded by :func:`load`.

    Raises:
        ImageError: Neither JPEG nor PNG, damaged, or too large.
    """
    plugin = next((plugin for start, plugin in _PLUGINS if data.startswith(start)), None)
    if plugin is None:
        raise ImageError("format", "is neither JPEG nor PNG, or its start is damaged")
    if plugin is JpegImageFile:
        _check_parts(_jpeg_parts(data), _MOST_SEGMENTS)
    else:
        most_chunks = _MOST_CHUNKS + len(data) // 1024
        _check_parts(_png_parts(data, most_chunks), most_chunks)
    with _pillow():
        image = plugin(io.BytesIO(data))
    check_size((image.height, image.width), most_pixels)
    if plugin is JpegImageFile and data.count(bytes((0xFF, _START_OF_SCAN))) > _MOST_SCANS:
        _check_scans(data)
    return image


def load(image: Image.Image) -> None:
    """Decodes the pixels of an opened image.

    Raises:
        ImageError: It is damaged.
    """
    with _pillow():
        image.load()


def decode_image(data: bytes, most_pixels: int = MOST_COLOR_PIXELS) -> ImageFile:
    """The image in ``data``, decoded; raises as :func:`open_image`."""
    image = open_image(data, most_pixels)
    load(image)
    return image


def read_image(path: str | Path, most_pixels: int = MOST_COLOR_PIXELS) -> ImageFile:
    """The image in a JPEG or PNG file, decoded.

    Raises:
        ImageError: The file cannot be used; the message names it.
        OSError: There is no such file, or it cannot be opened.
    """
    with open(path, "rb") as file:
        data = file.read(_MOST_BYTES + 1)
    try:
        if len(data) > _MOST_BYTES:
            raise ImageError("too_large", f"has more than {_MOST_BYTES / 1e6:g} million bytes")
        return decode_image(data, most_pixels)
    except ImageError as error:
        raise ImageError(error.code, f"{path} cannot be read as an image: it {error}") from error


def orientation(image: Image.Image) -> int:
    """How EXIF says an opened image lies, 1 to 8; 1, which is upright, where it says nothing or is damaged."""
    exif = Image.Exif()
    try:
        exif.load(image.info.get("exif") or b"")
        value = exif.get(_ORIENTATION)
    except _PILLOW_ERRORS:  # the pixels are as good without
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """The view of ``pixels`` (H, W, ...) that is upright, by EXIF's orientation 1 to 8; (W, H, ...) from 5 on."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels[::-1] if orientation in (3, 4, 7, 8) else pixels


def color_pixels(image: Image.Image) -> np.ndarray:
    """RGB uint8 (H, W, 3) of a decoded image, or (H, W) uint16 of a 16-bit grey one; as it is stored, see :func:`turned`.

    Transparency is left out. Grey is repeated, and 16-bit colour is cut to its upper 8 bits.

    Raises:
        ImageError: It is damaged.
    """
    with _pillow():
        return grey_16(image) if is_grey_16(image) else _rgb(image)


def grey_range(counts: np.ndarray) -> tuple[float, float]:
    """The range (lo, hi) of 16-bit grey (H, W) that is worth showing: between GREY_QUANTILE and 1 - GREY_QUANTILE."""
    ends = np.quantile(grey_sample(counts), (GREY_QUANTILE, 1 - GREY_QUANTILE))
    lo, hi = float(ends[0]), float(ends[1])
    room = max(GREY_MIN_SPAN - (hi - lo), 0) / 2
    return lo - room, hi + room


def grey_to_rgb(counts: np.ndarray, lo: float, hi: float) -> np.ndarray:
    """16-bit grey (H, W) -> RGB uint8 (H, W, 3): ``lo`` and below black, ``hi`` and above white."""
    levels = np.clip((np.arange(65536) - lo) * (255 / (hi - lo)), 0, 255).round().astype(np.uint8)
    grey = levels[counts]
    return np.broadcast_to(grey[..., None], (*grey.shape, 3))


def grey_sample(counts: np.ndarray) -> np.ndarray:
    """Some 20,000 to 80,000 pixels of 16-bit grey (H, W), every n-th row and column, for quantiles; glare is cut.

    Else a reflector of 1 % of the image would leave a few grey levels for all the rest.
    """
    step = max(int((counts.size / 20_000) ** 0.5), 1)
    sample = counts[::step, ::step]
    low, high = np.quantile(sample, (_GLARE_SHARE, 1 - _GLARE_SHARE))
    return np.minimum(sample, high + max(high - low, GREY_MIN_SPAN))


def _rgb(image: Image.Image) -> np.ndarray:
    """RGB uint8 (H, W, 3), strip by strip."""
    width, height = image.size
    out = np.empty((height, width, 3), np.uint8)
    rows = max(_STRIP // width, 1)
    for top in range(0, height, rows):
        strip = image.crop((0, top, width, min(top + rows, height)))
        out[top : top + rows] = np.asarray(strip if strip.mode == "RGB" else strip.convert("RGB"))
    return out


def is_grey_16(image: Image.Image) -> bool:
    """Whether an opened image is a 16-bit grey PNG."""
    return image.mode in _GREY_16


def grey_16(image: Image.Image) -> np.ndarray:
    """(H, W) uint16 of a decoded 16-bit grey PNG, as it is stored."""
    return np.asarray(image).astype(np.uint16, copy=False)


def grey_16_png(counts: np.ndarray) -> bytes:
    """A 16-bit grey PNG of counts (H, W) uint16; compressed in little time, so a few per cent larger than it could be."""
    file = io.BytesIO()
    Image.fromarray(counts).save(file, "PNG", compress_level=1)
    return file.getvalue()


@contextmanager
def _pillow() -> Iterator[None]:
    """The one place where Pillow's errors become ours."""
    try:
        yield
    except _PILLOW_ERRORS as error:
        raise ImageError("damaged", f"is damaged ({str(error)[:200] or type(error).__name__})") from error


def _check_parts(parts: Iterator[int], most: int) -> None:
    """Raises ImageError where ``parts`` add up to more than ``most``; stops counting there."""
    count = 0
    for more in parts:
        count += more
        if count > most:
            raise ImageError("damaged", "is damaged (it is made of more small parts than any image)")


def _jpeg_parts(data: bytes) -> Iterator[int]:
    """Yields for each segment before the pixels 1 and the bytes that lie before it and belong to none."""
    at = 2
    while found := _JPEG_SEGMENT.search(data, at):
        yield 1 + found.start() - at
        if data[found.end() - 1] == _START_OF_SCAN:
            return
        at = found.end() + _length(data, found.end())
    yield max(len(data) - at, 0)


def _png_parts(data: bytes, most: int) -> Iterator[int]:
    """Yields 1 for each chunk of pixels, and for each other one its share of ``most``."""
    at = 8
    while at < len(data):
        yield 1 if data[at + 4 : at + 8] == b"IDAT" else most // _MOST_OTHER_CHUNKS
        at += 12 + int.from_bytes(data[at : at + 4], "big")


def _length(data: bytes, at: int) -> int:
    """The length of a JPEG's segment, which counts itself."""
    return max(int.from_bytes(data[at : at + 2], "big"), 2)


def _check_scans(data: bytes) -> None:
    """Raises ImageError for a JPEG of more scans than any encoder makes. Data behind its end do not count."""
    at, scans = 2, 0
    while (found := _JPEG_MARKER.search(data, at)) and data[found.end() - 1] != _END_OF_IMAGE:
        scans += data[found.end() - 1] == _START_OF_SCAN
        at = found.end() + _length(data, found.end())
    if scans > _MOST_SCANS:
        raise ImageError("too_large", f"is a JPEG of {scans} scans; expected at most {_MOST_SCANS}")
