"""The payload of compressedDepth: a header of 12 bytes, then 16 bits a pixel as PNG (or RVL, which is only read here).

As ros-perception/image_transport_plugins writes and reads it: compressed_depth_image_transport/src/codec.cpp and
include/compressed_depth_image_transport/compression_common.h, branch rolling (7404d77). 16UC1 is stored as it is. 32FC1 is
stored as inverse depth: count = a / depth + b, with a and b in the header; 0 is invalid.
"""

from __future__ import annotations

import struct

import numpy as np

from d2a2_core import images

#: Format (an enum, and padding), then a and b of 32FC1.
HEADER = struct.Struct("<iff")
_INVERSE_DEPTH = 0
#: The plugin's own for its depth_quantization of 100: half a step is 0.2 mm at 2 m and 5 mm at 10 m.
_FINEST = 100.0 * 101.0
#: Nearer than any depth camera measures, metres. It bounds how coarse one stray pixel can make an image.
_NEAREST = 0.01


def compressed_depth(pixels: np.ndarray) -> tuple[str, bytes]:
    """The fields ``format`` and ``data`` of a sensor_msgs/CompressedImage of depth.

    The plugin leaves out depth beyond its depth_max (10 m by default) and rounds down; here nothing is left out but depth nearer
    than 1 cm, and counts are rounded. The error is at most depth^2 / 20200 metres, more only in an image that holds depth nearer
    than 15 cm: then depth^2 / (131000 * nearest depth).

    Args:
        pixels: (H, W) depth, uint16 in millimetres with 0 invalid (16UC1), or float32 in metres (32FC1), where NaN, infinite and
            nearer than 1 cm are invalid.

    Raises:
        ValueError: Pixels of another type or shape.
    """
    if pixels.ndim != 2 or pixels.dtype not in (np.uint16, np.float32):
        raise ValueError(f"expected (H, W) uint16 or float32, got {pixels.dtype} {pixels.shape}")
    if pixels.dtype == np.uint16:
        encoding, counts, a, b = "16UC1", pixels, 0.0, 0.0
    else:
        encoding, (counts, a, b) = "32FC1", _inverse_counts(pixels)
    return f"{encoding}; compressedDepth png", HEADER.pack(_INVERSE_DEPTH, a, b) + images.grey_16_png(counts)


def inverse_depth(counts: np.ndarray, a: float, b: float) -> np.ndarray:
    """Float32 depth (H, W) of 32FC1's uint16 counts, NaN where they are 0."""
    depth = counts.astype(np.float32)
    with np.errstate(all="ignore"):
        depth -= np.float32(b)
        np.divide(np.float32(a), depth, out=depth)
    depth[counts == 0] = np.nan
    return depth


def _inverse_counts(depth: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Counts (H, W) uint16 of metres (H, W), and the a and b that they are of."""
    valid = (depth >= _NEAREST) & (depth < np.inf)
    nearest = float(np.min(depth, initial=np.inf, where=valid))
    # b keeps valid counts above 0, and a below 65536.
    a, b = min(_FINEST, 65534 * nearest), 1.0
    with np.errstate(all="ignore"):
        counts = np.rint(np.float32(a) / depth + np.float32(b))
    # A count of b would be read as infinitely far.
    counts = np.where(valid, np.clip(counts, b + 1, 65535), 0)
    return counts.astype(np.uint16), a, b
