"""RVL depth: known bytes, random images through a plain encoder, and damage."""

from types import SimpleNamespace

import numpy as np
import pytest
from rvl_file import encode, rvl

from d2a2_core.messages.encodings import FrameError, compressed_depth_array
from d2a2_core.messages.rvl import decode_rvl


def message(payload, format="16UC1; compressedDepth rvl", quantisation=(0.0, 0.0)):
    return SimpleNamespace(format=format, data=bytes(4) + np.array(quantisation, "<f4").tobytes() + payload)


def test_known_bytes():
    # By hand: 2 zeros, 3 others: +3, +1, 0; 1 zero, 1 other: +66. Zigzag 6, 2, 0, 132; 132 is 4, 0, 2 in groups of three bits,
    # the lowest first, so nibbles 2 3 6 2 0 1 1 c and 8 2. compressed_depth_image_transport 5 writes the same bytes.
    data = bytes.fromhex("1c01622300000082")
    np.testing.assert_array_equal(decode_rvl(data, 7), [0, 0, 3, 4, 4, 0, 70])
    assert encode([0, 0, 3, 4, 4, 0, 70]) == data


def images():
    rng = np.random.default_rng(0)
    for n in (1, 2, 7, 8, 9, 500):
        yield rng.integers(0, 65536, n)
        yield np.where(rng.random(n) < 0.5, 0, rng.integers(0, 65536, n))
        yield (5000 + np.cumsum(rng.integers(-3, 4, n))) * (np.arange(n) // 7 % 3 > 0)
        yield np.zeros(n, int)
        yield np.full(n, 65535)


def test_what_was_encoded_comes_back():
    for pixels in images():
        decoded = decode_rvl(encode(pixels), len(pixels))
        assert decoded.dtype == np.uint16
        np.testing.assert_array_equal(decoded, pixels)


def test_depth_messages():
    depth = np.array([[0, 1500, 2500], [800, 0, 65535]], np.uint16)
    np.testing.assert_allclose(compressed_depth_array(message(rvl(depth))), depth * 1e-3, rtol=1e-6)
    inverse = np.array([[0, 12, 22]], np.uint16)  # depth = 20 / (value - 2)
    metres = compressed_depth_array(message(rvl(inverse), "32FC1; compressedDepth rvl", (20.0, 2.0)))
    np.testing.assert_allclose(metres, [[np.nan, 2.0, 1.0]])


@pytest.mark.parametrize("fault", ["cut", "short", "size", "none", "huge", "noise", "png"])
def test_damage_is_told(fault):
    data = rvl(np.random.default_rng(0).integers(1, 5000, (20, 30)))
    payload = {
        "cut": data[:-40], "short": data[:8], "size": data[:4] + b"\x13" + data[5:], "none": bytes(8) + data[8:],
        "huge": b"\xff" * 8 + data[8:], "noise": data[:8] + b"\xff" * 400, "png": b"\x89PNG\r\n\x1a\n" + data,
    }[fault]  # fmt: skip
    with pytest.raises(FrameError, match="damaged"):
        compressed_depth_array(message(payload))
