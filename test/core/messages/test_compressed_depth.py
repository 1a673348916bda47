"""compressedDepth as we write it: read back by our reader and by what the plugin's own reader computes."""

import io
import struct

import numpy as np
import pytest
from image_messages import compressed
from PIL import Image

from d2a2_core.messages.compressed_depth import compressed_depth
from d2a2_core.messages.encodings import FrameError, compressed_depth_array

NAN = np.float32(np.nan)


def read_back(pixels):
    return compressed_depth_array(compressed(*compressed_depth(pixels)))


def as_the_plugin_decodes(format, data, decode):
    """decodeCompressedDepthImage of compressed_depth_image_transport/src/codec.cpp, step by step."""
    encoding, ending = format.split(";")
    assert "compressedDepth png" in ending
    _, a, b = struct.unpack("<iff", data[:12])
    counts = decode(data[12:])
    assert counts.dtype == np.uint16
    if encoding == "16UC1":
        return counts
    with np.errstate(divide="ignore"):
        return np.where(counts > 0, np.float32(a) / (counts.astype(np.float32) - np.float32(b)), NAN)


def by_pillow(file):
    return np.asarray(Image.open(io.BytesIO(file))).astype(np.uint16)


def by_opencv(file):
    cv2 = pytest.importorskip("cv2", reason="needs OpenCV, which the plugin itself decodes with")
    return cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_UNCHANGED)


def random_depth(near, far, seed, shape=(37, 53)):
    """Depth uniform in its logarithm, one pixel in ten invalid in one of the ways in which cameras say so."""
    rng = np.random.default_rng(seed)
    depth = np.exp(rng.uniform(np.log(near), np.log(far), shape)).astype(np.float32)
    return np.where(rng.random(shape) < 0.1, rng.choice([np.nan, 0, np.inf, -np.inf, -1], shape), depth).astype(
        np.float32
    )


def test_millimetres_are_kept_exactly():
    counts = np.random.default_rng(0).integers(0, 65536, (37, 53)).astype(np.uint16)
    counts[0, :3] = 0, 1, 65535
    format, data = compressed_depth(counts)
    assert format == "16UC1; compressedDepth png"
    assert data[:12] == bytes(12)
    for decode in (by_pillow, by_opencv):
        np.testing.assert_array_equal(as_the_plugin_decodes(format, data, decode), counts)
    np.testing.assert_allclose(read_back(counts), counts * 0.001, rtol=1e-6)


@pytest.mark.parametrize(("near", "far"), [(0.155, 20), (0.3, 4), (1, 1.001), (0.2, 65), (1, 1000), (5, 100_000)])
def test_metres_come_back_within_half_a_step(near, far):
    for seed in range(5):
        depth = random_depth(near, far, seed)
        valid = np.isfinite(depth) & (depth > 0)
        back = read_back(depth)
        assert np.isnan(back[~valid]).all()
        z = depth[valid].astype(np.float64)
        # The second term is float32's own: of a / z, and of a / (count - b).
        assert (np.abs(back[valid] - z) <= z**2 / 20200 * (1 + z / 10100) + 1e-6 * z).all()


@pytest.mark.parametrize("near", [0.01, 0.05, 0.15])
def test_near_depth_makes_the_steps_coarser_but_is_kept(near):
    depth = random_depth(near, 5, 1)
    depth[0, 0] = near
    valid = np.isfinite(depth) & (depth > 0)
    error = np.abs(read_back(depth)[valid] - depth[valid])
    z = depth[valid].astype(np.float64)
    assert (error <= z**2 / (131_000 * near) * (1 + z / (60_000 * near)) + 1e-6 * z).all()


def test_a_stray_pixel_nearer_than_a_centimetre_is_left_out_and_spoils_nothing():
    depth = np.full((4, 5), 2.0, np.float32)
    depth[1, 1] = 1e-5
    back = read_back(depth)
    assert np.isnan(back[1, 1])
    np.testing.assert_allclose(np.delete(back.ravel(), 6), 2.0, atol=2.0**2 / 20200)


def test_the_format_and_the_header_are_those_of_the_plugin():
    format, data = compressed_depth(np.full((2, 3), 1.5, np.float32))
    assert format == "32FC1; compressedDepth png"
    config, a, b = struct.unpack("<iff", data[:12])
    # INV_DEPTH of compression_common.h; depth_quantization 100 makes a of 100 * 101.
    assert (config, a, b) == (0, 10100.0, 1.0)
    assert data[12:20] == b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize("decode", [by_pillow, by_opencv])
def test_the_plugins_own_arithmetic_gives_what_ours_does(decode):
    depth = random_depth(0.3, 12, 7)
    np.testing.assert_array_equal(as_the_plugin_decodes(*compressed_depth(depth), decode), read_back(depth))


@pytest.mark.parametrize("value", [np.nan, 0, np.inf, 0.001])
def test_an_image_without_depth_stays_one(value):
    assert np.isnan(read_back(np.full((3, 4), value, np.float32))).all()


def test_rows_of_an_image_that_is_a_view_are_in_order():
    depth = np.linspace(0.5, 5, 48, dtype=np.float32).reshape(6, 8)
    np.testing.assert_array_equal(read_back(depth[::2, ::-1]), read_back(depth)[::2, ::-1])
    counts = (depth * 1000).astype(np.uint16)
    np.testing.assert_array_equal(read_back(counts[::2, ::-1]), read_back(counts)[::2, ::-1])


@pytest.mark.parametrize("pixels", [np.zeros((3, 4)), np.zeros((3, 4), np.uint8), np.zeros((3, 4, 1), np.float32)])
def test_other_pixels_are_refused(pixels):
    with pytest.raises(ValueError, match=r"expected \(H, W\) uint16 or float32, got "):
        compressed_depth(pixels)


def test_a_cut_message_is_damaged():
    format, data = compressed_depth(random_depth(0.3, 5, 3, (12, 16)))
    for length in (0, 11, 12, 40, len(data) // 2, len(data) - 60):
        with pytest.raises(FrameError):
            compressed_depth_array(compressed(format, data[:length]))
