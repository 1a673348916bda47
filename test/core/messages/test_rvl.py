"""RVL depth: known bytes, random images through a plain encoder, and damage."""

import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from rvl_file import encode, rvl

from d2a2_core.messages import rvl as rvl_module
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
    with pytest.raises(FrameError) as caught:
        compressed_depth_array(message(payload))
    assert caught.value.code == ("too_large" if fault in ("huge", "png") else "damaged")


@pytest.mark.parametrize("block", [4, 8, 64])
def test_the_blocks_that_data_are_decoded_in_do_not_show(monkeypatch, block):
    """Numbers, counts and runs go over the borders of blocks at every place."""
    monkeypatch.setattr(rvl_module, "_BLOCK", block)
    for pixels in images():
        data = encode(pixels)
        np.testing.assert_array_equal(decode_rvl(data, len(pixels)), pixels)
        for cut in range(0, len(data) - 4, 4 + len(data) // 40 * 4):
            with pytest.raises(ValueError, match="RVL data end"):
                decode_rvl(data[:cut], len(pixels))


def test_memory_is_that_of_the_image_however_long_its_data():
    pixels = np.tile([0, 7, 9, 0, 0, 1000], 250_000)  # 1.5 million in runs of two pixels and of one
    data = encode(pixels)
    tracemalloc.start()
    try:
        decoded = decode_rvl(data, len(pixels))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(decoded, pixels)
    assert peak < 2 * len(pixels) + 40e6
