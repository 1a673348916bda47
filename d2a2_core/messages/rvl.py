"""RVL, the run length coding of 16-bit depth that compressed_depth_image_transport offers beside PNG.

A. D. Wilson, Fast Lossless Depth Image Compression, ISS 2017. Counts of zeros and of other pixels take turns; each of the other
pixels is its difference from the last of them, zigzag coded. All are numbers of variable length, three bits to a nibble and a
fourth that says that more come, eight nibbles to a little-endian word, the highest first.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_MOST_NIBBLES = 11  # a number has at most 32 bits
_BLOCK = 1 << 17  # bytes decoded at a time; the arrays for them take a hundred times as much, whatever the image's size


def decode_rvl(data: bytes, pixels: int) -> np.ndarray:
    """The (pixels,) uint16 values in ``data``. Takes 2 bytes for each pixel and some 20 MB.

    Raises:
        ValueError: The data end early or do not hold this number of pixels.
    """
    image = np.zeros(pixels, np.uint16)
    filled, last, missing = 0, 0, 0  # pixels so far, the last value, values that the run begun still lacks
    held = np.zeros(0, np.int64)  # a count of zeros whose count of others comes with the next block
    for block in _numbers(data):
        numbers = np.concatenate([held, block])
        starts, following = _run_starts(numbers, missing)
        held = numbers[following:]
        is_value = np.ones(len(numbers), bool)
        is_value[starts] = is_value[starts + 1] = is_value[following:] = False
        zigzag = numbers[is_value]
        # What the run begun still lacks comes first, as a run without zeros.
        zeros, others = np.append(0, numbers[starts]), np.append(missing, numbers[starts + 1])
        ends = filled + np.cumsum(zeros + others)
        runs = int(np.searchsorted(ends, pixels)) + 1  # those behind are padding
        zeros, others, ends = zeros[:runs], others[:runs], ends[:runs]
        if ends[-1] > pixels or (zeros + others)[1:].min(initial=1) == 0:
            raise ValueError(f"RVL data do not hold {pixels} pixels, but {ends[-1]} or an empty run")
        missing = max(int(others.sum()) - len(zigzag), 0)
        others[-1] -= missing
        filled = int(ends[-1]) - missing
        values = last + np.cumsum((zigzag >> 1) ^ -(zigzag & 1))[: others.sum()] & 0xFFFF
        # Position of each value among those of its run, and from it its place in the image.
        order = np.arange(len(values)) - np.repeat(np.cumsum(others) - others, others)
        first = ends - others
        first[-1] -= missing
        image[np.repeat(first, others) + order] = values
        if filled == pixels:
            return image
        last = int(values[-1]) if len(values) else last
    raise ValueError(f"RVL data end after {filled} of {pixels} pixels")


def _run_starts(numbers: np.ndarray, first: int) -> tuple[np.ndarray, int]:
    """Where the runs begin whose two counts are among ``numbers``, the first at ``first``; and where the next one begins."""
    following = (np.arange(2, len(numbers) + 1) + numbers[1:]).tolist()  # of a run that begins here
    starts, at = [], first
    while at < len(following):
        starts.append(at)
        at = following[at]
    return np.array(starts, np.int64), at


def _numbers(data: bytes) -> Iterator[np.ndarray]:
    """All numbers of variable length, int64, block by block; those of the last word's padding, too."""
    begun = np.zeros(0, np.uint32)  # nibbles of a number that goes on in the next block
    for at in range(0, len(data) // 4 * 4, _BLOCK):
        words = np.frombuffer(data, "<u4", min(_BLOCK, len(data) - at) // 4, at)
        nibbles = (words[:, None] >> np.arange(28, -1, -4, dtype=np.uint32)).ravel() & 15
        nibbles = np.concatenate([begun, nibbles])
        last = np.flatnonzero(nibbles < 8)
        end = last[-1] + 1 if last.size else 0
        begun = nibbles[end:]
        first = np.concatenate([[0], last[:-1] + 1])[: last.size]
        lengths = last - first + 1
        if max(lengths.max(initial=0), len(begun)) > _MOST_NIBBLES:
            raise ValueError(f"RVL data hold a number of more than {_MOST_NIBBLES} nibbles")
        if last.size:
            place = np.arange(end) - np.repeat(first, lengths)
            yield np.add.reduceat((nibbles[:end] & 7).astype(np.int64) << 3 * place, first)
