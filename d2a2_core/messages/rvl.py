"""RVL, the run length coding of 16-bit depth that compressed_depth_image_transport offers beside PNG.

A. D. Wilson, Fast Lossless Depth Image Compression, ISS 2017. Counts of zeros and of other pixels take turns; each of the other
pixels is its difference from the last of them, zigzag coded. All are numbers of variable length, three bits to a nibble and a
fourth that says that more come, eight nibbles to a little-endian word, the highest first.
"""

from __future__ import annotations

import numpy as np

_MOST_NIBBLES = 11  # a number has at most 32 bits


def decode_rvl(data: bytes, pixels: int) -> np.ndarray:
    """The (pixels,) uint16 values in ``data``.

    Raises:
        ValueError: the data end early or do not hold this number of pixels.
    """
    numbers = _numbers(data)
    runs, at, filled = [], 0, 0
    while filled < pixels:
        if at + 1 >= len(numbers):
            raise ValueError(f"RVL data end after {filled} of {pixels} pixels")
        zeros, others = int(numbers[at]), int(numbers[at + 1])
        if not zeros and not others:
            raise ValueError(f"RVL data hold an empty run after {filled} of {pixels} pixels")
        filled += zeros + others
        runs.append((at + 2, others, filled))
        at += 2 + others
    if filled != pixels or at > len(numbers):
        raise ValueError(f"RVL data do not hold {pixels} pixels: they end after {filled}, {len(data)} bytes")
    starts, counts, ends = np.array(runs, np.int64).reshape(-1, 3).T
    # Position of each of the other pixels within all of them, and from it its places in the data and in the image.
    order = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    zigzag = numbers[np.repeat(starts, counts) + order]
    image = np.zeros(pixels, np.uint16)
    image[np.repeat(ends - counts, counts) + order] = np.cumsum((zigzag >> 1) ^ -(zigzag & 1)) & 0xFFFF
    return image


def _numbers(data: bytes) -> np.ndarray:
    """All numbers of variable length, int64; those of the last word's padding, too."""
    words = np.frombuffer(data, "<u4", len(data) // 4)
    nibbles = (words[:, None] >> np.arange(28, -1, -4, dtype=np.uint32)).ravel() & 15
    last = np.flatnonzero(nibbles < 8)
    if not last.size:
        return np.zeros(0, np.int64)
    first = np.concatenate([[0], last[:-1] + 1])
    lengths = last - first + 1
    if lengths.max() > _MOST_NIBBLES:
        raise ValueError(f"RVL data hold a number of more than {_MOST_NIBBLES} nibbles")
    place = np.arange(last[-1] + 1) - np.repeat(first, lengths)
    return np.add.reduceat((nibbles[: last[-1] + 1] & 7).astype(np.int64) << 3 * place, first)
