"""Messages <-> arrays: encodings, padding, byte order, damaged messages, CameraInfo of resized images."""

import numpy as np
import pytest

pytest.importorskip("rclpy")

from sensor_msgs.msg import CameraInfo, CompressedImage, Image, RegionOfInterest
from std_msgs.msg import Header

from d2a2_core.geometry import Camera
from d2a2_core.messages.camera_info import camera_from_info, resized_info
from d2a2_core.messages.encodings import FrameError, view
from d2a2_ros.cameras import info_from_camera
from d2a2_ros.images import color_array, depth_array, image_type, to_message

RNG = np.random.default_rng(0)


def message(rows, encoding, width, big_endian=False, padding=0):
    """An Image from an array of rows (height, bytes per row), with ``padding`` bytes of rubbish after each row."""
    raw = np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), -1)
    raw = np.hstack([raw, np.full((len(raw), padding), 0xAB, np.uint8)])
    msg = Image(height=len(rows), width=width, encoding=encoding, is_bigendian=int(big_endian), step=raw.shape[1])
    msg.data.frombytes(raw.tobytes())
    return msg


@pytest.mark.parametrize("padding", [0, 1, 5])
@pytest.mark.parametrize(
    ("encoding", "order"), [("rgb8", [0, 1, 2]), ("bgr8", [2, 1, 0]), ("rgba8", [0, 1, 2]), ("bgra8", [2, 1, 0])]
)
def test_colour_encodings_come_out_as_rgb(encoding, order, padding):
    pixels = RNG.integers(0, 256, (4, 5, 4 if "a" in encoding else 3), dtype=np.uint8)
    msg = message(pixels, encoding, 5, padding=padding)
    np.testing.assert_array_equal(color_array(msg), pixels[..., order])


def test_mono8_becomes_grey():
    pixels = RNG.integers(0, 256, (4, 5), dtype=np.uint8)
    np.testing.assert_array_equal(color_array(message(pixels, "mono8", 5, padding=3)), np.stack([pixels] * 3, -1))


@pytest.mark.parametrize("padding", [0, 1, 6])
@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("encoding", ["16UC1", "mono16", "32FC1"])
def test_depth_encodings_come_out_as_metres(encoding, big_endian, padding):
    if encoding == "32FC1":
        pixels = RNG.uniform(0.1, 9, (4, 5)).astype(np.float32)
        expected = pixels
    else:
        pixels = RNG.integers(0, 65536, (4, 5), dtype=np.uint16)
        expected = pixels / 1000
    sent = pixels.astype(pixels.dtype.newbyteorder(">")) if big_endian else pixels
    out = depth_array(message(sent, encoding, 5, big_endian, padding))
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, expected, rtol=1e-6)


def test_plain_images_are_views_not_copies():
    msg = message(np.zeros((4, 5), np.float32), "32FC1", 5)
    before = view(msg)
    np.frombuffer(msg.data, np.float32)[0] = 7  # the message's own memory
    assert before[0, 0] == 7


def test_last_row_may_lack_its_padding():
    msg = message(np.full((3, 4), 1000, np.uint16), "16UC1", 4, padding=6)
    msg.data = msg.data[:-6]
    np.testing.assert_allclose(depth_array(msg), 1.0)


@pytest.mark.parametrize(
    ("change", "cause"),
    [({"data": b"\0" * 10}, "truncated"), ({"step": 3}, "step"), ({"width": 0}, "empty"), ({"height": 0}, "empty")],
)
def test_damaged_messages_are_refused_with_a_cause(change, cause):
    msg = message(np.zeros((4, 5), np.uint16), "16UC1", 5)
    for name, value in change.items():
        setattr(msg, name, value)
    with pytest.raises(FrameError) as caught:
        depth_array(msg)
    assert caught.value.code == cause


@pytest.mark.parametrize(
    ("setting", "topic", "compressed"),
    [
        ("auto", "/camera/color/image_raw/compressed", True), ("auto", "/camera/depth/image_raw/compressedDepth", True),
        ("auto", "/camera/color/image_raw", False), ("auto", "/compressed/image_raw", False), ("color", "/rgb/img", True),
        ("depth", "/rgb/img", False), ("both", "/rgb/img", True), ("none", "/camera/color/image_raw/compressed", False),
    ],
)  # fmt: skip
def test_the_type_of_images_follows_setting_and_name(setting, topic, compressed):
    assert image_type(setting, "color", topic) is (CompressedImage if compressed else Image)


def test_bayer_goes_through_cv_bridge():
    pytest.importorskip("cv2")
    pytest.importorskip("cv_bridge")
    mosaic = np.zeros((8, 8), np.uint8)
    mosaic[0::2, 0::2] = 200  # red sites of RGGB
    out = color_array(message(mosaic, "bayer_rggb8", 8))
    assert out.shape == (8, 8, 3)
    assert out[4, 4, 0] == 200
    assert out[4, 4, 2] == 0


def test_an_encoding_nobody_knows_is_named():
    msg = message(np.zeros((4, 5), np.uint8), "mono8", 5)
    msg.encoding = "lidar_soup"
    with pytest.raises(FrameError, match="lidar_soup"):
        color_array(msg)
    with pytest.raises(FrameError, match="lidar_soup"):
        depth_array(msg)


@pytest.mark.parametrize(
    ("dtype", "shape", "encoding"), [(np.float64, (2, 2), "32FC1"), (np.uint8, (2, 2, 3), "mono8")]
)
def test_to_message_refuses_what_does_not_fit_the_encoding(dtype, shape, encoding):
    with pytest.raises(ValueError, match=encoding):
        to_message(np.zeros(shape, dtype), encoding, Header())


def test_camera_info_round_trip():
    camera = Camera(640, 480, 500.0, 501.0, 319.0, 241.0, "plumb_bob", (0.1, -0.2, 0.001, 0.002, 0.05))
    assert camera_from_info(info_from_camera(camera, Header())) == camera


def test_resized_info_agrees_with_the_resized_camera_and_scales_the_roi():
    camera = Camera(640, 480, 500.0, 501.0, 319.0, 241.0, "plumb_bob", (0.1, 0.0, 0.0, 0.0, 0.0))
    info = info_from_camera(camera, Header())
    info.roi.x_offset, info.roi.y_offset, info.roi.width, info.roi.height = 40, 20, 320, 240
    info.p[3] = -50.0
    out = resized_info(info, 1280, 720, Header(frame_id="x"))
    assert camera_from_info(out) == camera.resized(1280, 720)
    assert (out.roi.x_offset, out.roi.y_offset, out.roi.width, out.roi.height) == (80, 30, 640, 360)
    assert out.p[3] == -100.0
    assert out.header.frame_id == "x"
    assert info.width == 640  # the original is untouched


def test_uncalibrated_info_is_refused():
    with pytest.raises(ValueError, match="not calibrated"):
        camera_from_info(CameraInfo(width=4, height=4))


def test_info_of_a_cropped_image_is_shifted_not_scaled():
    info = info_from_camera(Camera(1280, 720, 600.0, 601.0, 639.0, 359.0), Header())
    info.roi.x_offset, info.roi.y_offset, info.roi.width, info.roi.height = 320, 120, 640, 480
    out = resized_info(info, 640, 480, Header())
    assert camera_from_info(out) == Camera(640, 480, 600.0, 601.0, 319.0, 239.0, "plumb_bob", (0.0,) * 5)
    assert (out.p[2], out.p[6]) == (319.0, 239.0)
    assert out.roi.width == 0


def test_a_binned_roi_is_shifted_and_scaled():
    info = info_from_camera(Camera(1280, 960, 1000.0, 1000.0, 639.5, 479.5), Header())
    info.binning_x = info.binning_y = 2
    info.roi = RegionOfInterest(x_offset=320, y_offset=240, width=640, height=480)
    out = resized_info(info, 320, 240, Header())
    np.testing.assert_allclose(out.k, [500, 0, 159.5, 0, 500, 119.5, 0, 0, 1])
    assert (out.width, out.height, out.roi.width, out.binning_x) == (320, 240, 0, 0)


def test_binning_is_in_the_scaled_matrices_and_not_counted_twice():
    info = info_from_camera(Camera(1280, 720, 600.0, 600.0, 639.5, 359.5), Header())
    info.binning_x = info.binning_y = 2
    out = resized_info(info, 640, 360, Header())
    assert (out.k[0], out.binning_x, out.binning_y) == (300.0, 0, 0)
