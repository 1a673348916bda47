"""cv_bridge converts images as documented, be it the real package or the stand-in of pip_ros."""

import array
import struct
import sys

import numpy as np
import pytest

cv_bridge = pytest.importorskip("cv_bridge", reason="cv_bridge is not installed", exc_type=ImportError)
msgs = pytest.importorskip("sensor_msgs.msg", reason="sensor_msgs is not installed", exc_type=ImportError)
std_msgs = pytest.importorskip("std_msgs.msg", reason="std_msgs is not installed", exc_type=ImportError)

STAND_IN = getattr(cv_bridge, "IS_STAND_IN", False)
only_stand_in = pytest.mark.skipif(not STAND_IN, reason="a property of the stand-in; the real cv_bridge differs")
if not STAND_IN:
    pytest.importorskip("cv_bridge.boost.cv_bridge_boost", reason="cv_bridge does not load here", exc_type=ImportError)
    pytest.importorskip("cv2", reason="OpenCV is not installed", exc_type=ImportError)

PLAIN = {
    "mono8": (np.uint8, 1),
    "mono16": (np.uint16, 1),
    "rgb8": (np.uint8, 3),
    "bgr8": (np.uint8, 3),
    "rgba8": (np.uint8, 4),
    "bgra8": (np.uint8, 4),
    "rgb16": (np.uint16, 3),
    "bgra16": (np.uint16, 4),
    "8UC1": (np.uint8, 1),
    "8SC3": (np.int8, 3),
    "16UC1": (np.uint16, 1),
    "16SC2": (np.int16, 2),
    "32SC1": (np.int32, 1),
    "32FC1": (np.float32, 1),
    "32FC3": (np.float32, 3),
    "64FC1": (np.float64, 1),
    "bayer_rggb8": (np.uint8, 1),
    "bayer_gbrg16": (np.uint16, 1),
    "yuv422": (np.uint8, 2),
}


@pytest.fixture
def bridge():
    return cv_bridge.CvBridge()


def picture(dtype, channels, height=5, width=6, seed=0):
    rng = np.random.default_rng(seed)
    shape = (height, width) if channels == 1 else (height, width, channels)
    return rng.integers(0, 120, shape).astype(dtype)


def message(image, encoding, padding=0, big=False):
    """A message made by hand: rows of `image` (height, width[, channels]) with `padding` bytes after each."""
    stored = image.astype(image.dtype.newbyteorder(">" if big else "<"))
    msg = msgs.Image(height=image.shape[0], width=image.shape[1], encoding=encoding, is_bigendian=big)
    rows = [row.tobytes() + b"\xee" * padding for row in stored]
    msg.step = len(rows[0])
    msg.data = array.array("B", b"".join(rows))
    return msg


def needs(encoding, bridge):
    """Skip where the installed (real) cv_bridge does not know an encoding newer than itself."""
    try:
        bridge.imgmsg_to_cv2(message(np.zeros((2, 2, 2), np.uint8), encoding))
    except cv_bridge.CvBridgeError as error:
        pytest.skip(f"this cv_bridge does not know {encoding}: {error}")


@pytest.mark.parametrize("encoding", PLAIN)
@pytest.mark.parametrize("padding_pixels", [0, 3])
def test_passthrough_reads_rows_of_any_step(bridge, encoding, padding_pixels):
    image = picture(*PLAIN[encoding])
    pixel = image.itemsize * PLAIN[encoding][1]
    result = bridge.imgmsg_to_cv2(message(image, encoding, padding_pixels * pixel))
    assert result.dtype == image.dtype
    assert result.flags.c_contiguous
    np.testing.assert_array_equal(result, image)


@only_stand_in
@pytest.mark.parametrize("encoding", ["mono16", "rgb8", "32FC1", "bgra16"])
@pytest.mark.parametrize("padding", [1, 2, 7])
def test_a_step_that_is_no_multiple_of_a_pixel(bridge, encoding, padding):
    image = picture(*PLAIN[encoding])
    np.testing.assert_array_equal(bridge.imgmsg_to_cv2(message(image, encoding, padding)), image)


@only_stand_in
@pytest.mark.parametrize("encoding", PLAIN)
def test_big_endian_messages_come_in_native_order(bridge, encoding):
    """Known to fail in the real one under NumPy 2, which has no ndarray.newbyteorder."""
    image = picture(*PLAIN[encoding])
    result = bridge.imgmsg_to_cv2(message(image, encoding, padding=4, big=True))
    assert result.dtype == image.dtype
    assert result.dtype.isnative
    np.testing.assert_array_equal(result, image)


def test_big_endian_depth_known_bytes(bridge):
    if not STAND_IN and np.lib.NumpyVersion(np.__version__) >= "2.0.0":
        pytest.skip("the real cv_bridge reads no big-endian image under NumPy 2")
    msg = msgs.Image(height=1, width=2, encoding="16UC1", is_bigendian=True, step=4)
    msg.data = array.array("B", struct.pack(">2H", 1000, 513))
    assert bridge.imgmsg_to_cv2(msg).tolist() == [[1000, 513]]


@pytest.mark.parametrize("encoding", PLAIN)
def test_round_trip(bridge, encoding):
    image = picture(*PLAIN[encoding])
    header = std_msgs.Header(frame_id="optical")
    header.stamp.nanosec = 7
    msg = bridge.cv2_to_imgmsg(image, encoding=encoding, header=header)
    assert (msg.height, msg.width, msg.encoding, msg.is_bigendian) == (5, 6, encoding, sys.byteorder == "big")
    assert msg.step == 6 * image.itemsize * PLAIN[encoding][1]
    assert (msg.header.frame_id, msg.header.stamp.nanosec) == ("optical", 7)
    assert bytes(msg.data) == image.tobytes()
    np.testing.assert_array_equal(bridge.imgmsg_to_cv2(msg), image)


def test_passthrough_names_the_type(bridge):
    assert bridge.cv2_to_imgmsg(np.zeros((2, 3), np.uint16)).encoding == "16UC1"
    assert bridge.cv2_to_imgmsg(np.zeros((2, 3, 3), np.uint8)).encoding == "8UC3"
    assert bridge.cv2_to_imgmsg(np.zeros((2, 3, 1), np.float32)).encoding == "32FC1"


def test_views_are_written_row_by_row(bridge):
    image = picture(np.uint8, 3, 8, 10)
    view = image[1:7:2, ::-1, ::-1]
    msg = bridge.cv2_to_imgmsg(view, "rgb8")
    assert (msg.height, msg.width, msg.step) == (3, 10, 30)
    assert bytes(msg.data) == view.tobytes()


def test_a_big_endian_array_is_written_as_such(bridge):
    msg = bridge.cv2_to_imgmsg(np.array([[258]], ">u2"), "16UC1")
    assert (bool(msg.is_bigendian), bytes(msg.data)) == (True, b"\x01\x02")


def test_the_result_of_a_conversion_does_not_share_memory_with_the_message(bridge):
    for target in ("mono8", "8UC1"):
        msg = message(picture(np.uint8, 1), "mono8")
        before = bytes(msg.data)
        bridge.imgmsg_to_cv2(msg, target)[:] = 0
        assert bytes(msg.data) == before


@pytest.mark.parametrize("source", ["rgb", "bgr", "rgba", "bgra"])
@pytest.mark.parametrize("target", ["rgb", "bgr", "rgba", "bgra"])
@pytest.mark.parametrize("bits", [8, 16])
def test_channel_order(bridge, source, target, bits):
    values = {"r": 10, "g": 20, "b": 30, "a": 40}
    dtype = np.dtype(f"u{bits // 8}")
    image = np.full((2, 3, len(source)), [values[c] for c in source], dtype)
    result = bridge.imgmsg_to_cv2(message(image, f"{source}{bits}"), f"{target}{bits}")
    opaque = values["a"] if "a" in source else np.iinfo(dtype).max
    assert result.shape == (2, 3, len(target))
    assert (result == np.array([{**values, "a": opaque}[c] for c in target], dtype)).all()


@pytest.mark.parametrize(("target", "channels"), [("rgb8", 3), ("bgr8", 3), ("rgba8", 4)])
def test_grey_to_colour(bridge, target, channels):
    image = picture(np.uint8, 1)
    result = bridge.imgmsg_to_cv2(message(image, "mono8"), target)
    assert result.shape == (*image.shape, channels)
    np.testing.assert_array_equal(result[..., :3], np.repeat(image[..., None], 3, axis=-1))
    assert (result[..., 3:] == 255).all()


@pytest.mark.parametrize("source", ["rgb8", "bgr8", "rgba8", "bgra8", "rgb16"])
def test_colour_to_grey(bridge, source):
    pytest.importorskip("cv2", reason="OpenCV is not installed", exc_type=ImportError)
    image = picture(*PLAIN[source])
    weights = dict(zip("rgba", (0.299, 0.587, 0.114, 0.0), strict=True))
    expected = image @ np.array([weights[c] for c in source.rstrip("0123456789")])
    result = bridge.imgmsg_to_cv2(message(image, source), "mono" + source.lstrip("rgba"))
    assert result.shape == image.shape[:2]
    assert np.abs(result - expected).max() <= 1


@pytest.mark.parametrize(
    ("source", "values", "target", "expected"),
    [
        ("mono8", [0, 1, 255], "mono16", [0, 257, 65535]),
        ("mono16", [0, 128, 129, 257, 65535], "mono8", [0, 0, 1, 1, 255]),
        ("16UC1", [0, 1000, 65535], "32FC1", [0.0, 1000.0, 65535.0]),
        ("32FC1", [-1.0, 0.4, 1.6, 70000.0], "16UC1", [0, 0, 2, 65535]),
        ("16UC1", [0, 1000], "16SC1", [0, 1000]),
        ("mono16", [5, 6], "16UC1", [5, 6]),
        ("8UC1", [1, 2], "32SC1", [1, 2]),
    ],
)
def test_depth(bridge, source, values, target, expected):
    image = np.array([values], PLAIN.get(source, (np.uint16,))[0])
    result = bridge.imgmsg_to_cv2(message(image, source), target)
    assert result.tolist() == [expected]


def test_colour_order_and_depth_together(bridge):
    image = np.array([[[257, 514, 65535]]], np.uint16)
    assert bridge.imgmsg_to_cv2(message(image, "rgb16"), "bgr8").tolist() == [[[255, 2, 1]]]


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("16UC1", "mono16"),  # no colour to a colour
        ("32FC1", "rgb8"),
        ("rgb8", "8UC1"),  # as many channels needed
        ("16UC1", "32FC3"),
        ("rgb8", "bayer_rggb8"),  # no way back
        ("bgr8", "yuv422"),
        ("bayer_rggb8", "bayer_bggr8"),
        ("rgb8", "no_such_encoding"),
        ("no_such_encoding", "rgb8"),
        ("no_such_encoding", "passthrough"),
    ],
)
def test_conversions_without_a_meaning_are_refused(bridge, source, target):
    image = picture(*PLAIN.get(source, (np.uint8, 3)))
    with pytest.raises(cv_bridge.CvBridgeError):
        bridge.imgmsg_to_cv2(message(image, source), target)


def test_arrays_that_do_not_fit_the_encoding_are_refused(bridge):
    for image, encoding in [
        (np.zeros((2, 2), np.float32), "16UC1"),
        (np.zeros((2, 2), np.uint8), "rgb8"),
        (np.zeros((2, 2, 3), np.uint8), "no_such_encoding"),
    ]:
        with pytest.raises(cv_bridge.CvBridgeError):
            bridge.cv2_to_imgmsg(image, encoding)
    with pytest.raises(TypeError):
        bridge.cv2_to_imgmsg([[1, 2]], "mono8")


def test_too_little_data_is_refused(bridge):
    msg = message(picture(np.uint16, 1), "16UC1")
    msg.data = msg.data[:-2]
    with pytest.raises(TypeError):  # CvBridgeError is one
        bridge.imgmsg_to_cv2(msg)


@only_stand_in
def test_a_step_shorter_than_the_row_is_refused(bridge):
    msg = message(picture(np.uint16, 1), "16UC1")
    msg.step = 11
    with pytest.raises(cv_bridge.CvBridgeError, match="12 bytes for 6 pixels of '16UC1', got step 11"):
        bridge.imgmsg_to_cv2(msg)


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("target", ["rgb8", "bgr8", "rgb16"])
def test_bayer_of_one_colour_gives_that_colour(bridge, pattern, bits, target):
    """Fails for three of the four patterns if the shift between ROS's and OpenCV's names is missed."""
    pytest.importorskip("cv2", reason="OpenCV is not installed", exc_type=ImportError)
    scale = {8: 1, 16: 257}
    colour = {"r": 200, "g": 100, "b": 30}
    tile = np.array([colour[c] for c in pattern]).reshape(2, 2) * scale[bits]
    mosaic = np.tile(tile, (4, 5)).astype(f"u{bits // 8}")
    result = bridge.imgmsg_to_cv2(message(mosaic, f"bayer_{pattern}{bits}", padding=mosaic.itemsize), target)
    depth = int(target[3:])
    expected = np.array([colour[c] for c in target[:3]]) * scale[depth]
    assert result.shape == (8, 10, 3)
    assert result.dtype == f"u{depth // 8}"
    assert (result == expected).all()


def test_bayer_to_grey(bridge):
    pytest.importorskip("cv2", reason="OpenCV is not installed", exc_type=ImportError)
    mosaic = np.tile(np.array([[200, 100], [100, 30]], np.uint8), (4, 5))
    result = bridge.imgmsg_to_cv2(message(mosaic, "bayer_rggb8"), "mono8")
    assert result.shape == (8, 10)
    assert np.abs(result - (0.299 * 200 + 0.587 * 100 + 0.114 * 30)).max() <= 1


def yuv_to_rgb(y, u, v):
    """ITU-R BT.601, limited range, to 0 ... 255."""
    y, u, v = 1.164383 * (np.asarray(y, float) - 16), np.asarray(u, float) - 128, np.asarray(v, float) - 128
    return np.clip(np.stack([y + 1.596027 * v, y - 0.391762 * u - 0.812968 * v, y + 2.017232 * u], axis=-1), 0, 255)


@pytest.mark.parametrize("encoding", ["yuv422", "uyvy", "yuv422_yuy2", "yuyv"])
@pytest.mark.parametrize("target", ["rgb8", "bgr8", "rgba8", "mono8"])
@pytest.mark.parametrize("padding", [0, 8])
def test_packed_yuv(bridge, encoding, target, padding):
    pytest.importorskip("cv2", reason="OpenCV is not installed", exc_type=ImportError)
    needs(encoding, bridge)
    rng = np.random.default_rng(3)
    y = rng.integers(16, 236, (4, 6)).astype(np.uint8)
    u, v = (rng.integers(90, 160, (4, 3)).astype(np.uint8) for _ in range(2))
    luma = 1 if encoding in ("yuv422", "uyvy") else 0
    packed = np.empty((4, 6, 2), np.uint8)
    packed[..., luma], packed[:, ::2, 1 - luma], packed[:, 1::2, 1 - luma] = y, u, v
    result = bridge.imgmsg_to_cv2(message(packed, encoding, padding), target)
    if target == "mono8":
        np.testing.assert_array_equal(result, y)
        return
    expected = yuv_to_rgb(y, u.repeat(2, axis=1), v.repeat(2, axis=1))
    found = result[..., ::-1] if target == "bgr8" else result[..., :3]
    assert np.abs(found - expected).max() <= 2
    assert (result[..., 3:] == 255).all()


@only_stand_in
@pytest.mark.parametrize("encoding", ["nv21", "nv24"])
@pytest.mark.parametrize("padding", [0, 5])
def test_planar_yuv(bridge, encoding, padding):
    pytest.importorskip("cv2", reason="OpenCV is not installed", exc_type=ImportError)
    rng = np.random.default_rng(4)
    y = rng.integers(16, 236, (4, 6)).astype(np.uint8)
    size = (2, 3) if encoding == "nv21" else (4, 6)
    u, v = (rng.integers(90, 160, size).astype(np.uint8) for _ in range(2))
    # NV21 has V first, NV24 has U first; a chroma row of NV24 is two steps long.
    chroma = np.stack([v, u] if encoding == "nv21" else [u, v], axis=-1).reshape(size[0], -1)
    msg = message(y, encoding, padding)
    for row in chroma:
        msg.data.frombytes(row.tobytes() + bytes(padding * (1 if encoding == "nv21" else 2)))
    if encoding == "nv21":
        u, v = (c.repeat(2, axis=0).repeat(2, axis=1) for c in (u, v))
    result = bridge.imgmsg_to_cv2(msg, "rgb8")
    assert result.shape == (4, 6, 3)
    assert np.abs(result - yuv_to_rgb(y, u, v)).max() <= 2
    np.testing.assert_array_equal(bridge.imgmsg_to_cv2(msg, "mono8"), y)
    np.testing.assert_array_equal(bridge.imgmsg_to_cv2(msg)[:4], y)


@only_stand_in
def test_without_opencv_plain_encodings_work_and_others_say_what_is_missing(bridge, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    image = picture(np.uint8, 3)
    np.testing.assert_array_equal(bridge.imgmsg_to_cv2(message(image, "rgb8"), "bgr8"), image[..., ::-1])
    assert bridge.cv2_to_imgmsg(image, "rgb8").encoding == "rgb8"
    with pytest.raises(cv_bridge.CvBridgeError, match=r"'bayer_rggb8' to 'rgb8' needs OpenCV: pip install opencv"):
        bridge.imgmsg_to_cv2(message(picture(np.uint8, 1), "bayer_rggb8"), "rgb8")


def test_an_odd_width_in_packed_yuv_is_refused(bridge):
    pytest.importorskip("cv2", reason="OpenCV is not installed", exc_type=ImportError)
    with pytest.raises(cv_bridge.CvBridgeError):
        bridge.imgmsg_to_cv2(message(picture(np.uint8, 2, width=5), "yuv422"), "rgb8")


def test_dtype_of_an_encoding(bridge):
    assert bridge.encoding_to_dtype_with_channels("rgba16") == ("uint16", 4)
    assert bridge.encoding_to_dtype_with_channels("32FC1") == ("float32", 1)
    assert bridge.encoding_to_dtype_with_channels("64F") == ("float64", 1)
