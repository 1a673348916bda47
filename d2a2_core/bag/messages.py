"""Messages of a bag: arrays out of serialised images, and serialised outputs out of arrays, field for field as the node's."""

from __future__ import annotations

import struct
import sys
from typing import Any

import numpy as np

from d2a2_core.bag.storage import typestore
from d2a2_core.bag.topics import COMPRESSED, IMAGE, INFO
from d2a2_core.messages.cloud import FIELDS
from d2a2_core.messages.encodings import (
    PLAIN,
    FrameError,
    color_array,
    compressed_color_array,
    compressed_depth_array,
    depth_array,
)

CLOUD = "sensor_msgs/msg/PointCloud2"


def stamp_ns(raw: bytes) -> int:
    """Nanoseconds of header.stamp of a serialised message that starts with a std_msgs/Header.

    Raises:
        FrameError: too short, or not CDR.
    """
    if len(raw) < 12 or raw[0] != 0 or raw[1] > 1:
        raise FrameError("no_message", f"message is damaged: {len(raw)} bytes without a header")
    seconds, nanoseconds = struct.unpack_from("<iI" if raw[1] else ">iI", raw, 4)
    return seconds * 1_000_000_000 + nanoseconds


def deserialize(raw: bytes, msgtype: str) -> Any:
    """The message.

    Raises:
        FrameError: it is damaged.
    """
    try:
        return typestore().deserialize_cdr(raw, msgtype)
    except Exception as error:  # rosbags' own, or whatever NumPy raises on wrong lengths
        raise FrameError("no_message", f"message is damaged ({error})") from error


def read_color(msg: Any) -> np.ndarray:
    """RGB uint8 (H, W, 3) of an Image or a CompressedImage, or (H, W) uint16 of 16-bit grey; raises FrameError."""
    return compressed_color_array(msg) if msg.__msgtype__ == COMPRESSED else color_array(msg)


def read_depth(msg: Any, unit: float = 0.0) -> np.ndarray:
    """Depth (h, w) float32 metres of an Image or a CompressedImage of ``unit`` metres per count; raises FrameError."""
    return compressed_depth_array(msg, unit) if msg.__msgtype__ == COMPRESSED else depth_array(msg, unit)


def header(ns: int, frame_id: str) -> Any:
    """A std_msgs/Header."""
    types = typestore().types
    return types["std_msgs/msg/Header"](types["builtin_interfaces/msg/Time"](*divmod(ns, 1_000_000_000)), frame_id)


def image(pixels: np.ndarray, encoding: str, head: Any) -> memoryview:
    """A serialised Image of a plain encoding; ``pixels`` (H, W) or (H, W, C) of its dtype."""
    dtype, channels = PLAIN[encoding]
    if pixels.dtype != dtype:
        raise ValueError(f"expected {np.dtype(dtype)} for {encoding}, got {pixels.dtype} {pixels.shape}")
    height, width = pixels.shape[:2]
    msg = typestore().types[IMAGE](
        head, height, width, encoding, int(sys.byteorder == "big"), width * channels * pixels.itemsize, _bytes(pixels)
    )
    return typestore().serialize_cdr(msg, IMAGE)


def camera_info(info: Any) -> memoryview:
    """A serialised CameraInfo."""
    return typestore().serialize_cdr(info, INFO)


def cloud(packed: np.ndarray, head: Any) -> memoryview:
    """A serialised, organised cloud of what :func:`d2a2_core.messages.cloud.pack_cloud` packed, (H, W)."""
    types, (height, width) = typestore().types, packed.shape
    fields = [types["sensor_msgs/msg/PointField"](name, offset, kind, 1) for name, offset, kind in FIELDS]
    step = packed.itemsize
    msg = types[CLOUD](
        head, height, width, fields, sys.byteorder == "big", step, step * width, _bytes(packed), is_dense=False
    )
    return typestore().serialize_cdr(msg, CLOUD)


def _bytes(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)
