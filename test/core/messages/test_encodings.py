"""Pixels out of messages without ROS: 16-bit grey guides, units of depth, sizes known before decoding."""

import struct
import tracemalloc

import numpy as np
import pytest
from image_messages import compressed, png, raw, saved
from PIL import Image
from rvl_file import rvl

from d2a2_core import images
from d2a2_core.messages import encodings
from d2a2_core.messages.encodings import (
    FrameError,
    color_array,
    color_header,
    compressed_color_array,
    compressed_depth_array,
    depth_array,
    depth_header,
    metres_per_count,
)

COUNTS = np.array([[0, 1500, 2500], [800, 1, 65535]], np.uint16)
HEAD = struct.pack("<iff", 0, 20.0, 2.0)


def depth_messages():
    """(message, counts or floats in it) of every kind of depth that has counts."""
    file = saved(Image.fromarray(COUNTS), "PNG")
    yield raw(COUNTS, "16UC1"), COUNTS
    yield raw(COUNTS.astype(">u2"), "mono16", 1), COUNTS
    yield raw(COUNTS / np.float32(7), "32FC1"), COUNTS / np.float32(7)
    yield raw((COUNTS / np.float32(7)).astype(">f4"), "32FC1", 1), COUNTS / np.float32(7)
    yield compressed("16UC1; png compressed", file), COUNTS
    yield compressed("16UC1; compressedDepth png", HEAD + file), COUNTS
    yield compressed("16UC1; compressedDepth rvl", HEAD + rvl(COUNTS)), COUNTS
    inverse = np.where(COUNTS > 0, np.float32(20) / (COUNTS.astype(np.float32) - np.float32(2)), np.float32(np.nan))
    yield compressed("32FC1; compressedDepth png", HEAD + file), inverse
    yield compressed("32FC1; compressedDepth rvl", HEAD + rvl(COUNTS)), inverse


def read_depth(message, unit=0.0):
    return (depth_array if hasattr(message, "encoding") else compressed_depth_array)(message, unit)


@pytest.mark.parametrize("unit", [0.0, 0.001, 1.0, 0.0001, 0.00025, 12.5])
def test_a_unit_counts_for_every_kind_of_depth(unit):
    for message, values in depth_messages():
        before = bytes(message.data)
        by_encoding = 0.001 if values.dtype == np.uint16 else 1.0
        assert metres_per_count(message) == by_encoding
        depth = read_depth(message, unit)
        assert depth.dtype == np.float32
        np.testing.assert_allclose(depth, values * (unit or by_encoding), rtol=1e-6)
        assert bytes(message.data) == before
        assert depth_header(message).size == depth.shape


def test_invalid_depth_stays_so_in_any_unit():
    depth = depth_array(raw(np.array([[np.nan, np.inf, -np.inf, 0, 3e38]], np.float32), "32FC1"), 1000.0)
    np.testing.assert_array_equal(depth, [[np.nan, np.inf, -np.inf, 0, np.inf]])


@pytest.mark.parametrize("big_endian", [0, 1])
def test_mono16_is_a_guide_of_counts(big_endian):
    message = raw(COUNTS.astype(">u2" if big_endian else "<u2"), "mono16", big_endian)
    np.testing.assert_array_equal(color_array(message), COUNTS)
    assert color_header(message).size == (2, 3)


def test_a_16_bit_grey_png_is_a_guide_of_counts():
    file = saved(Image.fromarray(COUNTS), "PNG")
    for format in ("mono16; png compressed ", "png"):
        np.testing.assert_array_equal(compressed_color_array(compressed(format, file)), COUNTS)


@pytest.mark.parametrize("encoding", ["16UC1", "32FC1"])
def test_depth_on_the_colour_topic_is_no_guide(encoding):
    pixels = COUNTS.astype(np.float32) if encoding == "32FC1" else COUNTS
    with pytest.raises(FrameError, match="swapped") as caught:
        color_array(raw(pixels, encoding))
    assert (caught.value.code, caught.value.detail) == ("encoding", encoding)
    for format in (f"{encoding}; png compressed ", f"{encoding}; compressedDepth png"):
        message = compressed(format, HEAD + saved(Image.fromarray(COUNTS), "PNG"))
        for read in (compressed_color_array, color_header):
            with pytest.raises(FrameError, match="swapped") as caught:
                read(message)
            assert caught.value.code == "format"


def large(kind):
    """Small messages that claim a size; the readers and what they may hold at most."""
    ihdr, zeros = struct.pack(">IIBBBBB", 8192, 8192, 16, 0, 0, 0, 0), struct.pack("<IIQ", 8192, 8192, 0)
    return {
        "raw colour": (color_array, raw(np.zeros((1, 1, 3), np.uint8), "rgb8"), 36),
        "raw depth": (depth_array, raw(np.zeros((1, 1), np.uint16), "16UC1"), 16),
        "rvl": (compressed_depth_array, compressed("16UC1; compressedDepth rvl", bytes(12) + zeros), 16),
        "png": (compressed_depth_array, compressed("16UC1; compressedDepth png", bytes(12) + png(ihdr, b"")), 16),
        "plain png": (compressed_depth_array, compressed("16UC1; png compressed", png(ihdr, b"")), 16),
        "colour png": (compressed_color_array, compressed("png", png(ihdr, b"")), 36),
    }[kind]  # fmt: skip


@pytest.mark.parametrize("kind", ["raw colour", "raw depth", "rvl", "png", "plain png", "colour png"])
def test_a_claimed_size_is_refused_before_anything_is_decoded(kind, monkeypatch):
    read, message, most = large(kind)
    if hasattr(message, "encoding"):
        message.height = message.width = 8192
    monkeypatch.setattr(encodings, "decode_rvl", None)
    monkeypatch.setattr(encodings, "view", None)
    monkeypatch.setattr(images, "load", None)
    header = color_header if "colour" in kind else depth_header
    tracemalloc.start()
    try:
        for call in (read, header):
            with pytest.raises(FrameError, match=f"8192x8192 pixels; expected at most {most} million") as caught:
                call(message)
            assert caught.value.code == "too_large"
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("mode", ["L", "RGB", "1", "LA", "RGBA", "P"])
def test_depth_that_is_no_16_bit_grey_is_refused_before_it_is_decoded(mode, monkeypatch):
    monkeypatch.setattr(images, "load", None)
    message = compressed("16UC1; compressedDepth png", HEAD + saved(Image.new(mode, (4, 3)), "PNG"))
    with pytest.raises(FrameError, match="must be a 16-bit grey PNG, got PNG of mode"):
        compressed_depth_array(message)


def test_a_portrait_jpeg_comes_upright_and_its_header_says_so():
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:, :16] = 250  # the left half, which orientation 6 turns up
    exif = Image.Exif()
    exif[0x0112] = 6
    message = compressed("rgb8; jpeg compressed bgr8", saved(Image.fromarray(pixels), "JPEG", exif=exif, quality=95))
    header, out = color_header(message), compressed_color_array(message)
    assert (header.size, header.orientation) == ((32, 16), 6)
    assert out.shape == (32, 16, 3)
    assert out[4, 8].min() > 200
    assert out[28, 8].max() < 50


def test_long_names_are_cut_in_messages():
    long = "soup" * 1_000_000
    for call, message in (
        (color_array, raw(COUNTS, long)),
        (depth_array, raw(COUNTS, long)),
        (compressed_color_array, compressed("compressedDepth" + long, b"")),
        (compressed_depth_array, compressed("jpeg" + long, b"")),
        (compressed_depth_array, compressed("compressedDepth" + long, b"")),
        (compressed_depth_array, compressed("png" + long, saved(Image.new("L", (2, 2)), "PNG"))),
    ):
        with pytest.raises(FrameError) as caught:
            call(message)
        assert len(str(caught.value)) + len(caught.value.detail) < 400


@pytest.mark.parametrize("result", [np.zeros((2, 3)), np.zeros((2, 3, 3), np.uint16), np.zeros((3, 2, 3), np.uint8)])
def test_what_a_converter_returns_is_checked(result):
    message = raw(np.zeros((2, 3), np.uint8), "bayer_rggb8")
    with pytest.raises(FrameError, match="expected 8-bit RGB of its size"):
        color_array(message, lambda msg, desired: result)
