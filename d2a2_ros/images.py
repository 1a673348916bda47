"""Image messages <-> arrays. Plain encodings are NumPy views; the others go through cv_bridge, imported on demand.

Compressed ones (JPEG, PNG) are read by Pillow.
"""

from __future__ import annotations

import sys

import numpy as np
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from d2a2_core.messages import encodings
from d2a2_core.messages.compressed_depth import compressed_depth
from d2a2_core.messages.encodings import COLOR_ENCODINGS, DEPTH_ENCODINGS, PLAIN, FrameError, view

__all__ = [
    "COLOR_ENCODINGS",
    "COMPRESSED_INPUTS",
    "DEPTH_ENCODINGS",
    "FrameError",
    "color_array",
    "depth_array",
    "image_type",
    "to_compressed_depth",
    "to_message",
    "view",
]


COMPRESSED_INPUTS = ("auto", "none", "color", "depth", "both")


def image_type(setting: str, which: str, topic: str) -> type[Image] | type[CompressedImage]:
    """The type of the images on ``topic``: as ``setting`` says, with "auto" by the last part of the name.

    image_transport's plugins name what they publish so: image_raw/compressed, image_raw/compressedDepth.

    Args:
        setting: one of :data:`COMPRESSED_INPUTS`.
        which: "color" or "depth".
        topic: resolved name.
    """
    if setting == "auto":
        compressed = topic.rsplit("/", 1)[-1] in ("compressed", "compressedDepth")
    else:
        compressed = setting in (which, "both")
    return CompressedImage if compressed else Image


def color_array(msg: Image | CompressedImage) -> np.ndarray:
    """RGB uint8 (H, W, 3) of a colour image, a view for the plain encodings; or the (H, W) uint16 counts of 16-bit grey.

    Raises:
        FrameError: damaged message, or an encoding that neither we nor cv_bridge nor Pillow can turn into RGB.
    """
    if isinstance(msg, CompressedImage):
        return encodings.compressed_color_array(msg)
    return encodings.color_array(msg, _through_cv_bridge)


def depth_array(msg: Image | CompressedImage, unit: float = 0.0) -> np.ndarray:
    """Depth (h, w) float32 metres, invalid as the camera gave it (0, NaN, inf).

    Args:
        msg: Image or CompressedImage.
        unit: Metres per count; 0: millimetres of 16-bit images, metres of floats.

    Raises:
        FrameError: damaged message, or an encoding that is not depth.
    """
    if isinstance(msg, CompressedImage):
        return encodings.compressed_depth_array(msg, unit)
    return encodings.depth_array(msg, unit)


def to_message(image: np.ndarray, encoding: str, header: Header) -> Image:
    """An Image message of a plain encoding.

    Args:
        image: (H, W) or (H, W, C), of the encoding's dtype.
        encoding: one of the plain encodings.
        header: copied by reference.
    """
    dtype, channels = PLAIN[encoding]
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


def to_compressed_depth(depth: np.ndarray, header: Header) -> CompressedImage:
    """A message as image_transport's compressedDepth plugin makes of depth (H, W): uint16 millimetres or float32 metres."""
    format, data = compressed_depth(depth)
    msg = CompressedImage(header=header, format=format)
    msg.data.frombytes(data)
    return msg


def _through_cv_bridge(msg: Image, desired: str) -> np.ndarray:
    name = encodings.shown(msg.encoding)
    try:
        from cv_bridge import CvBridge
    except Exception as error:  # its compiled part raises various types under NumPy 2 or OpenCV 5
        raise FrameError(
            "encoding",
            f"colour encoding {name!r} needs cv_bridge, which does not import here ({error}); let the driver "
            f"publish one of {', '.join(COLOR_ENCODINGS)}",
            name,
        ) from error
    try:
        return CvBridge().imgmsg_to_cv2(msg, desired)
    except Exception as error:  # CvBridgeError, or whatever OpenCV raises on a damaged buffer
        raise FrameError(
            "encoding",
            f"colour encoding {name!r} cannot be converted to {desired} ({str(error)[:200]}); let the driver publish one of "
            f"{', '.join(COLOR_ENCODINGS)}",
            name,
        ) from error
