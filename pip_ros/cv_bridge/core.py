"""Image messages from and to NumPy arrays: a stand-in for cv_bridge (Python API of Jazzy).

Written from the documented behaviour (https://docs.ros.org/en/jazzy/p/cv_bridge/) and sensor_msgs/image_encodings.hpp.
Images are (height, width) or (height, width, channels), in the channel order the encoding names. Plain encodings need
NumPy alone. OpenCV, imported where first needed, turns colour to grey, Bayer and YUV to colour.

Convention of Bayer names: ROS names a pattern by its first row and column from the top left pixel (rggb8: red there);
OpenCV's COLOR_BayerXY names it by the second row from its second pixel, so rggb is BayerBG and gbrg is BayerGR.
YUV is BT.601 with limited range, as OpenCV has it.
"""

import re
import sys
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from sensor_msgs.msg import Image


class CvBridgeError(TypeError):
    """A conversion is not possible; the message says why."""


class _Format(NamedTuple):
    kind: str | None  # what the channels mean; None where the encoding does not say (16UC1, 32FC3, ...)
    dtype: np.dtype
    channels: int


_DTYPES = {
    "8U": np.dtype(np.uint8),
    "8S": np.dtype(np.int8),
    "16U": np.dtype(np.uint16),
    "16S": np.dtype(np.int16),
    "32S": np.dtype(np.int32),
    "32F": np.dtype(np.float32),
    "64F": np.dtype(np.float64),
}
_CV_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
# Channel order of each kind that has separate channels.
_ORDER = {"mono": "y", "rgb": "rgb", "bgr": "bgr", "rgba": "rgba", "bgra": "bgra"}
_OPENCV_BAYER = {"bayer_rggb": "BayerBG", "bayer_bggr": "BayerRG", "bayer_gbrg": "BayerGR", "bayer_grbg": "BayerGB"}
# Packed 4:2:2 and planar encodings; the two with a number are the older names of the same bytes.
_YUV = {"uyvy": "uyvy", "yuv422": "uyvy", "yuyv": "yuyv", "yuv422_yuy2": "yuyv", "nv21": "nv21", "nv24": "nv24"}
_PLANAR = {"nv21": 3 / 2, "nv24": 3}  # rows of bytes per image row
_LUMA = {"uyvy": 1, "yuyv": 0}  # which of a pixel's two bytes is its luminance


def _format(encoding: str) -> _Format:
    """Kind, dtype and number of channels of a name in sensor_msgs/image_encodings.hpp."""
    if encoding in _YUV:
        kind = _YUV[encoding]
        return _Format(kind, _DTYPES["8U"], 1 if kind in _PLANAR else 2)
    if match := re.fullmatch(r"(mono|rgba?|bgra?|bayer_[a-z]{4})(8|16)", encoding):
        kind, bits = match.groups()
        if kind in _ORDER or kind in _OPENCV_BAYER:
            return _Format(kind, _DTYPES[bits + "U"], len(_ORDER.get(kind, "y")))
    if (match := re.fullmatch(r"(8U|8S|16U|16S|32S|32F|64F)(?:C([1-9][0-9]*))?", encoding)) is not None:
        return _Format(None, _DTYPES[match[1]], int(match[2] or 1))
    raise CvBridgeError(f"expected an encoding of sensor_msgs/image_encodings.hpp, got '{encoding}'")


def _cv2(purpose: str) -> ModuleType:
    try:
        import cv2
    except ImportError as error:
        raise CvBridgeError(f"{purpose} needs OpenCV: pip install opencv-python-headless ({error})") from error
    return cv2


class CvBridge:
    """Converts between sensor_msgs Image messages and NumPy arrays as OpenCV uses them. It has no state."""

    def imgmsg_to_cv2(self, img_msg: Image, desired_encoding: str = "passthrough") -> np.ndarray:
        """Image of `img_msg`, in native byte order and without row padding, converted to `desired_encoding`.

        "passthrough" keeps the encoding and shares the message's memory where it can; planar YUV then comes as
        (rows, width) with the chroma rows below the luminance. Bayer converts to mono, rgb and bgr; YUV also to rgba
        and bgra; the generic encodings (16UC1, ...) to others with as many channels. Values are scaled between 8 and 16
        bits (255 is 65535), otherwise rounded and clipped. Raises CvBridgeError if the message is malformed, an
        encoding is not known, the conversion makes no sense, or OpenCV is needed and missing.
        """
        source = _format(img_msg.encoding)
        if source.kind in _PLANAR:
            image = _planes(img_msg, source)
        else:
            image = _rows(img_msg, source, img_msg.height, img_msg.width)
        if desired_encoding == "passthrough":
            return image
        result = image
        if desired_encoding != img_msg.encoding:
            result = _convert(image, img_msg.encoding, desired_encoding)
        return np.array(result, order="C") if np.may_share_memory(result, image) else result

    def cv2_to_imgmsg(self, cvim: np.ndarray, encoding: str = "passthrough", header: Any = None) -> Image:
        """Message of `cvim`, (height, width) or (height, width, channels), with rows not padded.

        `encoding` names what `cvim` holds; nothing is converted. "passthrough" names it by its type (16UC1, 8UC3, ...).
        Raises TypeError if `cvim` is no array, CvBridgeError if it does not fit `encoding`.
        """
        if not isinstance(cvim, np.ndarray):
            raise TypeError(f"expected a NumPy array, got {type(cvim).__name__}")
        if cvim.ndim not in (2, 3):
            raise CvBridgeError(f"expected an array (height, width[, channels]), got shape {cvim.shape}")
        cv_type = self.dtype_with_channels_to_cvtype2(cvim.dtype, cvim.shape[2] if cvim.ndim == 3 else 1)
        if encoding != "passthrough":
            expected = _format(encoding)
            if self.dtype_with_channels_to_cvtype2(expected.dtype, expected.channels) != cv_type:
                raise CvBridgeError(
                    f"expected {expected.dtype} with {expected.channels} channels for encoding '{encoding}', "
                    f"got {cvim.dtype} of shape {cvim.shape}"
                )
            if expected.kind in _PLANAR:
                raise CvBridgeError(f"expected a packed encoding, got '{encoding}': only reading it is supported")
        msg = Image(height=cvim.shape[0], width=cvim.shape[1])
        if header is not None:
            msg.header = header
        msg.encoding = cv_type if encoding == "passthrough" else encoding
        msg.is_bigendian = cvim.dtype.byteorder == ">" or (cvim.dtype.byteorder == "=" and sys.byteorder == "big")
        msg.step = cvim.shape[1] * _format(msg.encoding).channels * cvim.itemsize
        msg.data.frombytes(np.ascontiguousarray(cvim).reshape(-1).view(np.uint8).data)
        return msg

    def encoding_to_dtype_with_channels(self, encoding: str) -> tuple[str, int]:
        """NumPy type name and number of channels of `encoding`, e.g. ("uint8", 3) for "rgb8"."""
        _, dtype, channels = _format(encoding)
        return dtype.name, channels

    def dtype_with_channels_to_cvtype2(self, dtype: np.dtype, n_channels: int) -> str:
        """OpenCV's type name, e.g. "8UC3" for uint8 and 3."""
        native = np.dtype(dtype).newbyteorder("=")
        if native not in _CV_NAMES:
            raise CvBridgeError(f"expected one of {sorted(d.name for d in _CV_NAMES)}, got {native.name}")
        return f"{_CV_NAMES[native]}C{n_channels}"


def _rows(msg: Image, source: _Format, height: int, width: int) -> np.ndarray:
    """The first `width` pixels of each of `height` rows of `msg.step` bytes."""
    itemsize = source.dtype.itemsize
    row_bytes = width * source.channels * itemsize
    step = msg.step if height > 1 else max(msg.step, row_bytes)
    if msg.step < row_bytes or len(msg.data) < (height - 1) * step + row_bytes:
        raise CvBridgeError(
            f"expected {height} rows of at least {row_bytes} bytes for {width} pixels of '{msg.encoding}', "
            f"got step {msg.step} and {len(msg.data)} bytes"
        )
    shape, strides = (height, width), (step, source.channels * itemsize)
    if source.channels > 1:
        shape, strides = (*shape, source.channels), (*strides, itemsize)
    stored = source.dtype.newbyteorder(">" if msg.is_bigendian else "<")
    view = np.ndarray(shape, stored, buffer=msg.data, strides=strides)
    return np.ascontiguousarray(view, dtype=source.dtype)


def _planes(msg: Image, source: _Format) -> np.ndarray:
    """Planar YUV as (rows, width) bytes: NV21 has height / 2 rows of VU pairs, NV24 height double rows of UV pairs."""
    height, width = msg.height, msg.width
    if source.kind == "nv21" and (height % 2 or width % 2):
        raise CvBridgeError(f"expected even sizes for 'nv21', got height {height} and width {width}")
    rows = _rows(msg, source, int(height * _PLANAR[source.kind]), width)
    if source.kind == "nv24" and msg.step != width:
        # The chroma rows are twice as long, padding included.
        size = height * msg.step
        chroma = np.frombuffer(msg.data, np.uint8, count=2 * size, offset=size).reshape(height, 2 * msg.step)
        rows[height:] = chroma[:, : 2 * width].reshape(2 * height, width)
    return rows


def _convert(image: np.ndarray, source_encoding: str, target_encoding: str) -> np.ndarray:
    source, target = _format(source_encoding), _format(target_encoding)
    what = f"conversion from '{source_encoding}' to '{target_encoding}'"
    if source.kind is None and target.kind is not None:
        raise CvBridgeError(f"{what} makes no sense: the source does not say what its channels mean")
    if target.kind is None:
        if source.channels != target.channels:
            raise CvBridgeError(f"{what} needs as many channels, got {source.channels} and {target.channels}")
    elif source.kind != target.kind:
        if target.kind not in _ORDER:
            raise CvBridgeError(f"{what} is not supported")
        image = _to_channels(image, source.kind, target.kind, what)
    elif source.kind in _OPENCV_BAYER:
        raise CvBridgeError(f"{what} is not supported")
    return _to_depth(image, target.dtype)


def _to_channels(image: np.ndarray, source: str, target: str, what: str) -> np.ndarray:
    """Image of kind `source` (a key of _ORDER, _OPENCV_BAYER or a value of _YUV) as kind `target` (a key of _ORDER)."""
    if source in _ORDER and (source == "mono" or target != "mono"):
        return _reorder(image, _ORDER[source], _ORDER[target])
    if source in _YUV.values() and target == "mono":
        return image[: int(len(image) / _PLANAR[source])] if source in _PLANAR else image[..., _LUMA[source]]
    cv2 = _cv2(what)
    name = "GRAY" if target == "mono" else target.upper()
    if source in _OPENCV_BAYER:
        code = f"COLOR_{_OPENCV_BAYER[source]}2{name}"
        if target in ("rgba", "bgra"):
            raise CvBridgeError(f"{what} is not supported")
    elif source in _ORDER:
        code = f"COLOR_{source.upper()}2{name}"
    else:
        if source == "nv24":
            image = _nv24_to_uyvy(image)
        code = f"COLOR_YUV2{name}_" + {"uyvy": "UYVY", "yuyv": "YUY2", "nv21": "NV21", "nv24": "UYVY"}[source]
    try:
        result = cv2.cvtColor(image, getattr(cv2, code))
    except cv2.error as error:
        raise CvBridgeError(f"{what} failed for an image of shape {image.shape}: {error}") from error
    return np.ascontiguousarray(result[:, ::2]) if source == "nv24" else result


def _reorder(image: np.ndarray, source: str, target: str) -> np.ndarray:
    """Channels named in `source` put in the order of `target`; grey in every colour, missing alpha opaque."""
    result = np.empty((*image.shape[:2], len(target)), image.dtype)
    for i, channel in enumerate(target):
        if source == "y" and channel != "a":
            result[..., i] = image
        elif channel in source:
            result[..., i] = image[..., source.index(channel)]
        else:
            result[..., i] = np.iinfo(image.dtype).max
    return result


def _nv24_to_uyvy(planes: np.ndarray) -> np.ndarray:
    """Each pixel of (3 * height, width) bytes of NV24 twice, as the two pixels of a 4:2:2 pair that share U and V."""
    height, width = len(planes) // 3, planes.shape[1]
    chroma = planes[height:].reshape(height, width, 2)
    pairs = np.empty((height, width, 4), np.uint8)
    pairs[..., 0], pairs[..., 2] = chroma[..., 0], chroma[..., 1]
    pairs[..., 1] = pairs[..., 3] = planes[:height]
    return pairs.reshape(height, 2 * width, 2)


def _to_depth(image: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Values in `dtype`: 8 and 16 bits scaled to the full range, integers rounded and clipped, NaN to 0."""
    if image.dtype == dtype:
        return image
    scale = {(1, 2): 65535 / 255, (2, 1): 255 / 65535}.get((image.dtype.itemsize, dtype.itemsize), 1.0)
    if dtype.kind == "f":
        return image.astype(dtype)
    limits = np.iinfo(dtype)
    values = np.nan_to_num(np.rint(image.astype(np.float64) * scale), nan=0.0)
    return np.clip(values, limits.min, limits.max).astype(dtype)
