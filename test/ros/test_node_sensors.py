"""The node on raw sensors: registration, TF, provenance, uncertainty and the calibration watchdog, over real DDS."""

import io
import sys
import time
import types
from dataclasses import replace
from typing import ClassVar

import numpy as np
import PIL.Image
import pytest

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from sensor_msgs_py import point_cloud2

from d2a2_core.depth.provenance import Provenance
from d2a2_core.geometry import Camera, CameraPair, Offset
from d2a2_core.messages.encodings import view
from d2a2_core.pipeline import DepthPipeline
from d2a2_ros.cameras import info_from_camera
from d2a2_ros.images import depth_array

from .conftest import image, stamped

DEPTH, INFO, PROVENANCE, SIGMA, POINTS = (
    f"depth_upsampled/{name}" for name in ("image_raw", "camera_info", "provenance", "sigma", "points")
)
COLOR_CAMERA = Camera(48, 32, 40.0, 40.0, 23.5, 15.5)
DEPTH_CAMERA = Camera(20, 16, 15.0, 15.0, 9.5, 7.5)
BESIDE = [0.3, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]


def send_infos(b, color=COLOR_CAMERA, depth=DEPTH_CAMERA):
    b.send("color/camera_info", info_from_camera(color, stamped(0, "color_frame")))
    b.send("depth/camera_info", info_from_camera(depth, stamped(0, "d")))
    b.wait(lambda: {"color", "depth"} <= set(b.node._infos))


def wall(metres=1.5, camera=DEPTH_CAMERA):
    return np.full((camera.height, camera.width), 1000 * metres, np.uint16)


def test_depth_of_another_camera_is_registered_with_the_extrinsics_parameter(bench):
    b = bench(extrinsics=BESIDE, max_fill_px=0.0)
    b.listen(DEPTH, Image)
    send_infos(b)
    b.send_pair(depth=wall(), depth_frame="d")
    depth = depth_array(b.wait_for(DEPTH)[0])
    assert depth.shape == (32, 48)
    np.testing.assert_allclose(depth[np.isfinite(depth)], 1.5, atol=0.02)
    seen_from = 40 * (-10 / 15 + 0.3 / 1.5) + 23.5  # left of it the depth camera, 30 cm to the right, sees nothing
    assert abs(np.isnan(depth).sum(axis=1) - seen_from).max() <= 4


class FakeBuffer:
    """What the node uses of tf2_ros.Buffer."""

    known: ClassVar[dict] = {}

    def can_transform(self, target, source, time, timeout):
        return (target, source) in self.known

    def lookup_transform(self, target, source, time):
        from geometry_msgs.msg import TransformStamped

        out = TransformStamped()
        t, q = out.transform.translation, out.transform.rotation
        t.x, t.y, t.z, q.x, q.y, q.z, q.w = self.known[target, source]
        return out


@pytest.fixture
def tf(monkeypatch):
    """A tf2_ros that knows what the test puts into it; the real one is not on PyPI."""
    module = types.ModuleType("tf2_ros")
    module.Buffer = type("Buffer", (FakeBuffer,), {"known": {}})
    module.TransformListener = lambda buffer, node: object()
    monkeypatch.setitem(sys.modules, "tf2_ros", module)
    return module.Buffer.known


def test_extrinsics_come_from_tf_and_a_change_is_followed(bench, tf):
    tf["color_frame", "d"] = BESIDE
    b = bench(max_fill_px=0.0)
    b.listen(DEPTH, Image)
    send_infos(b)
    b.send_pair(stamp=1.0, depth=wall(), depth_frame="d")
    before = np.isnan(depth_array(b.wait_for(DEPTH)[0])).sum(axis=1).mean()
    tf["color_frame", "d"] = [0.0, *BESIDE[1:]]
    b.send_pair(stamp=2.0, depth=wall(), depth_frame="d")
    after = np.isnan(depth_array(b.wait_for(DEPTH, 2)[1])).sum(axis=1).mean()
    assert before - after > 3  # 0.2 * 40 px are 8; less what was never seen


def source(ros, tf, timeout=0.0):
    import rclpy

    from d2a2_ros.transforms import ExtrinsicsSource

    return ExtrinsicsSource(rclpy.create_node("frames"), (), timeout)


def test_noise_on_tf_is_no_change(ros, tf):
    """Transforms composed of moving ones differ in their last digits each time; a registration is not built anew for that."""
    lookup = source(ros, tf).lookup
    tf["c", "d"] = BESIDE
    first = lookup("c", "d")
    tf["c", "d"] = [0.3 + 1e-7, *BESIDE[1:]]
    assert lookup("c", "d") == first
    tf["c", "d"] = [0.301, *BESIDE[1:]]
    assert lookup("c", "d").translation[0] == 0.301


def test_a_transform_that_is_gone_again_does_not_end_the_stream(ros, tf, monkeypatch):
    """tf2's errors are no ValueErrors; between can_transform and lookup_transform its buffer may have lost the data."""
    asked = source(ros, tf)
    tf["c", "d"] = BESIDE
    found = asked.lookup("c", "d")

    def extrapolation(*_):
        raise Exception("Lookup would require extrapolation into the past")

    monkeypatch.setattr(FakeBuffer, "lookup_transform", extrapolation)
    assert asked.lookup("c", "d") == found
    tf["c", "e"] = BESIDE
    assert asked.lookup("c", "e") is None


def test_a_transform_that_is_none_is_said_with_its_frames(ros, tf):
    tf["c", "d"] = [0.0] * 7
    with pytest.raises(ValueError, match=r"'d' to 'c'.*length 0"):
        source(ros, tf).lookup("c", "d")


def test_the_node_ends_while_it_waits_for_tf(bench, tf):
    b = bench(tf_timeout=60.0)
    b.listen(DEPTH, Image)
    send_infos(b)
    b.send_pair(depth=wall(), depth_frame="d")
    b.wait(lambda: b.node.transforms._deadline)
    b.node.transforms.stop()
    b.wait(lambda: b.node.statistics["unusable"] == 1, 5.0)


def test_tf_is_not_asked_where_registration_is_off(bench, tf):
    b = bench(tf_timeout=60.0, registration="off")
    b.listen(DEPTH, Image)
    send_infos(b)
    b.send_pair(depth_frame="d")
    b.wait_for(DEPTH)
    assert b.node.transforms._deadline is None


def test_camera_infos_that_come_just_after_the_first_images_are_waited_for(bench):
    """As drivers send them; without the depth camera's, auto would take the raw depth for registered."""
    b = bench(extrinsics=BESIDE, max_fill_px=0.0)
    b.listen(DEPTH, Image)
    b.send_pair(depth=wall(), depth_frame="d")
    send_infos(b)
    assert np.isnan(depth_array(b.wait_for(DEPTH)[0])).any()  # what the depth camera does not see
    assert not any("taken as registered" in w for w in b.warnings)


def test_camera_info_of_another_shape_is_said(bench):
    b = bench()
    b.listen(DEPTH, Image)
    send_infos(b, color=COLOR_CAMERA.resized(48, 48), depth=COLOR_CAMERA.resized(12, 8))
    b.send_pair()
    b.wait_for(DEPTH)
    assert any("48x48" in w and "48x32" in w for w in b.warnings), b.warnings


def test_limits_that_do_not_go_together_are_refused_while_running(bench):
    from rclpy.parameter import Parameter

    b = bench(min_depth=0.5, max_depth=4.0)
    for name, value in (("min_depth", 4.0), ("max_depth", 0.3)):
        (result,) = b.node.set_parameters([Parameter(name, value=value)])
        assert not result.successful
        assert "min_depth < max_depth" in result.reason
    both = [Parameter("min_depth", value=5.0), Parameter("max_depth", value=6.0)]
    assert b.node.set_parameters_atomically(both).successful
    assert b.node.settings.pipeline().min_depth == 5.0


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("registration", True, 'in quotes: registration: "on"'),
        ("extrinsics", [0, 0, 0, 0, 0, 0, 1], "with decimal points"),
        ("max_depth", 6, "6.0"),
    ],
)
def test_what_yaml_makes_of_values_is_explained(ros, tiny_weights, name, value, message):
    from rclpy.parameter import Parameter

    from d2a2_ros.node import UpsampleNode

    values = {"weights": str(tiny_weights), "device": "cpu", name: value}
    with pytest.raises(ValueError, match=message):
        UpsampleNode(parameter_overrides=[Parameter(k, value=v) for k, v in values.items()])


@pytest.mark.parametrize("installed", [True, False])
def test_without_extrinsics_the_pair_is_refused_and_the_reason_said(bench, tf, monkeypatch, installed):
    if not installed:
        monkeypatch.setitem(sys.modules, "tf2_ros", None)
    b = bench(tf_timeout=0.1)
    b.listen(DEPTH, Image)
    send_infos(b)
    b.send_pair(depth=wall(), depth_frame="d")
    b.wait(lambda: b.node.statistics["unusable"] == 1)
    (said,) = (w for w in b.warnings if "transform from 'd' to 'color_frame' is not known" in w)
    assert "extrinsics" in said
    assert ("tf2_ros_py" in said) == (not installed)
    assert not b.out[DEPTH]


@pytest.mark.parametrize(
    ("extrinsics", "message"),
    [([0.0, 0.0, 1.0], "7 numbers"), ([0.0] * 7, "quaternion"), ([float("nan")] * 7, "finite")],
)
def test_unusable_extrinsics_end_the_start_with_a_message(ros, tiny_weights, extrinsics, message):
    from rclpy.parameter import Parameter

    from d2a2_ros.node import UpsampleNode

    values = {"weights": str(tiny_weights), "device": "cpu", "extrinsics": extrinsics}
    with pytest.raises(ValueError, match=message):
        UpsampleNode(parameter_overrides=[Parameter(k, value=v) for k, v in values.items()])


@pytest.mark.parametrize(
    ("camera", "message"),
    [
        (CameraInfo(width=20, height=16, k=[0.0] * 9), "not calibrated"),
        (CameraInfo(width=20, height=16, k=[9.0, 0, 9, 0, 9, 7, 0, 0, 1], distortion_model="wavy", d=[0.1]), "wavy"),
    ],
)
def test_bad_calibration_of_the_depth_camera_is_said(bench, camera, message):
    b = bench(extrinsics=BESIDE, registration="on")
    b.listen(DEPTH, Image)
    send_infos(b)
    b.send("depth/camera_info", camera)
    b.wait(lambda: b.node._infos["depth"].k[0] != 15.0)
    b.send_pair(depth=wall(), depth_frame="d")
    b.wait(lambda: b.node.statistics["unusable"] == 1)
    assert any(message in w for w in b.warnings), b.warnings


def test_cameras_that_see_nothing_in_common(bench):
    b = bench(extrinsics=[0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0])  # turned round: the depth camera looks backwards
    b.listen(DEPTH, Image)
    send_infos(b)
    b.send_pair(depth=wall(), depth_frame="d")
    b.wait(lambda: b.node.statistics["unusable"] == 1)
    assert any("view" in w for w in b.warnings), b.warnings


def holed():
    depth = np.full((8, 12), 1500, np.uint16)
    depth[:, 8:] = 0
    depth[:, 0] = 30000  # out of range
    return depth


def test_provenance_is_published_and_is_a_field_of_the_cloud(bench):
    b = bench(max_fill_px=4.0)
    b.listen(PROVENANCE, Image)
    b.listen(POINTS, PointCloud2)
    send_infos(b, depth=COLOR_CAMERA.resized(12, 8))
    b.send_pair(depth=holed())
    provenance = view(b.wait_for(PROVENANCE)[0])
    assert set(np.unique(provenance)) == {0, 1, 3, 4}
    assert (provenance[:, :4] == Provenance.REMOVED).all()
    points = point_cloud2.read_points(b.wait_for(POINTS)[0])
    np.testing.assert_array_equal(points["provenance"].reshape(32, 48), provenance)


@pytest.mark.parametrize(("wanted", "kept"), [("measured", {1}), ("filled", {1, 3}), ("all", {1, 3, 4})])
def test_the_cloud_holds_what_points_provenance_says(bench, wanted, kept):
    b = bench(max_fill_px=4.0, points_provenance=wanted)
    b.listen(POINTS, PointCloud2)
    send_infos(b, depth=COLOR_CAMERA.resized(12, 8))
    b.send_pair(depth=holed())
    points = point_cloud2.read_points(b.wait_for(POINTS)[0])
    assert set(np.unique(points["provenance"][np.isfinite(points["z"])])) == kept


LENS = Camera(48, 32, 40.0, 40.0, 23.5, 15.5, "plumb_bob", (-0.2, 0.0, 0.0, 0.0, 0.0))


def send_rectified_colour(b, p):
    """A pair whose colour info has LENS's distortion and projection matrix ``p``."""
    info = info_from_camera(LENS, stamped(0, "color_frame"))
    info.p = p
    b.send("color/camera_info", info)
    b.wait(lambda: "color" in b.node._infos)
    b.send_pair()


def test_rectified_output_says_so_in_its_camera_info(bench):
    b = bench(output_geometry="rectified")
    b.listen(INFO, CameraInfo)
    b.listen(DEPTH, Image)
    send_infos(b, color=LENS, depth=LENS.resized(12, 8))
    b.send_pair()
    info = b.wait_for(INFO)[0]
    assert not any(info.d)
    assert info.k[0] == 40.0
    assert info.header == b.wait_for(DEPTH)[0].header


def test_a_rectified_colour_image_is_described_by_p(bench):
    b = bench(rectified_input="color")
    b.listen(INFO, CameraInfo)
    b.listen(POINTS, PointCloud2)
    send_rectified_colour(b, [50.0, 0.0, 20.0, 0.0, 0.0, 51.0, 14.0, 0.0, 0.0, 0.0, 1.0, 0.0])
    out = b.wait_for(INFO)[0]
    assert not any(out.d)
    np.testing.assert_array_equal(out.k, [50.0, 0, 20, 0, 51, 14, 0, 0, 1])
    points = point_cloud2.read_points(b.wait_for(POINTS)[0]).reshape(32, 48)
    corner = points[0, 0]
    np.testing.assert_allclose([corner["x"] / corner["z"], corner["y"] / corner["z"]], [-20 / 50, -14 / 51], rtol=1e-5)


def test_a_rectified_image_without_p_gives_depth_and_says_why_there_is_no_cloud(bench):
    b = bench(rectified_input="color")
    b.listen(DEPTH, Image)
    b.listen(INFO, CameraInfo)
    send_rectified_colour(b, [0.0] * 12)
    b.wait_for(DEPTH)
    assert not b.out[INFO]
    assert any("no projection matrix P" in w for w in b.warnings)


def test_sigma_is_published_where_there_is_a_head(bench, monkeypatch):
    class Head:
        def to(self, device):
            return self

        def predict(self, guide, lr, hr):
            return hr * 0.01

    monkeypatch.setattr("d2a2_core.pipeline.load_sigma_head", lambda weights: Head())
    b = bench()
    b.listen(SIGMA, Image)
    b.listen(DEPTH, Image)
    b.send_pair()
    sigma, depth = (b.wait_for(topic)[0] for topic in (SIGMA, DEPTH))
    assert (sigma.encoding, sigma.header) == ("32FC1", depth.header)
    np.testing.assert_allclose(depth_array(sigma), 0.01 * depth_array(depth), rtol=1e-5)


def test_sigma_is_not_computed_while_nobody_subscribes(bench, monkeypatch):
    class Head:
        def to(self, device):
            return self

        def predict(self, guide, lr, hr):
            raise AssertionError("nobody wants it")

    monkeypatch.setattr("d2a2_core.pipeline.load_sigma_head", lambda weights: Head())
    b = bench()
    b.listen(DEPTH, Image)
    b.send_pair()
    b.wait_for(DEPTH)


def test_diagnostics_do_not_look_at_the_watchdog_while_it_is_updated(bench, monkeypatch):
    b = bench()
    b.listen("/diagnostics", DiagnosticArray)
    looked = []
    monkeypatch.setattr(b.node.pipeline.watchdog, "estimate", lambda: looked.append(1))
    with b.node.pipeline.offsets._lock:
        before = len(looked)
        time.sleep(1.5)  # more than the timer's period
        assert len(looked) == before
    b.wait(lambda: len(looked) > before)


def test_errors_that_differ_in_their_figures_are_one_cause(bench, monkeypatch):
    b = bench()
    b.listen(DEPTH, Image)
    figures = iter(range(100))

    def fail(*_, **__):
        raise ValueError(f"nothing that the depth camera sees lies in the view of the other, {next(figures)}")

    monkeypatch.setattr(b.node.pipeline, "process", fail)
    for stamp in (1.0, 2.0, 3.0):
        b.send_pair(stamp=stamp)
        b.wait(lambda n=int(stamp): b.node.statistics["unusable"] == n)
    assert len([w for w in b.warnings if "nothing that" in w]) == 1


@pytest.mark.filterwarnings("ignore:OpenVINO cannot run:RuntimeWarning")
def test_torch_goes_on_where_openvino_fails(bench, monkeypatch):
    def fails(*_):
        raise MemoryError("no memory left")

    monkeypatch.setattr("d2a2_core.runtime.openvino.has_openvino", lambda: True)
    monkeypatch.setattr("d2a2_core.runtime.openvino._load_or_compile", fails)
    b = bench(runtime="auto", precision="float32")
    b.listen("/diagnostics", DiagnosticArray)
    b.listen(DEPTH, Image)
    sent = 0

    def told():
        nonlocal sent
        sent += 1
        b.send_pair(stamp=float(sent))
        b.wait_for(DEPTH, sent)
        return any("no memory left" in w and "PyTorch goes on" in w for w in b.warnings)

    b.wait(told)
    seen = len(b.out["/diagnostics"])
    b.wait(lambda: len(b.out["/diagnostics"]) > seen + 1)
    assert {v.key: v.value for v in b.out["/diagnostics"][-1].status[0].values}["runtime"] == "torch"


def test_a_drifted_calibration_is_a_warning_on_diagnostics(bench, monkeypatch):
    b = bench()
    b.listen("/diagnostics", DiagnosticArray)
    monkeypatch.setattr(b.node.pipeline.watchdog, "estimate", lambda: Offset(3.0, -4.0, 1.0, 30))
    monkeypatch.setattr(b.node.pipeline.watchdog, "drifted", lambda threshold: threshold < 5)
    b.listen(DEPTH, Image)
    b.send_pair()
    b.wait(lambda: any("drifted" in s.message for m in b.out["/diagnostics"] for s in m.status))
    status = b.out["/diagnostics"][-1].status[0]
    assert status.level == DiagnosticStatus.WARN
    assert "5.0 px" in status.message
    values = {v.key: v.value for v in status.values}
    assert values["edge offset [px]"] == "+3.0 -4.0"
    assert "registration" in values


def test_what_the_pipeline_found_is_on_diagnostics(bench):
    b = bench()
    b.listen("/diagnostics", DiagnosticArray)
    b.listen(DEPTH, Image)
    b.send_pair(depth=holed())
    b.wait_for(DEPTH)
    b.wait(lambda: any("rejected" in {v.key for v in m.status[0].values} for m in b.out["/diagnostics"]))
    values = {v.key: v.value for v in b.out["/diagnostics"][-1].status[0].values}
    assert values["rejected"] == "8"
    assert float(values["residual [m]"]) <= 0.03


def compressed(pixels, file_format, format, stamp=1.0, frame_id="color_frame", header=b""):
    """A CompressedImage as image_transport's plugins make it."""
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, file_format, **({"quality": 95} if file_format == "JPEG" else {}))
    msg = CompressedImage(header=stamped(stamp, frame_id), format=format)
    msg.data.frombytes(header + file.getvalue())
    return msg


def test_compressed_images_give_what_their_pixels_give(bench):
    """PNG loses nothing; JPEG is another test's business, see test_bag_topics."""
    rng = np.random.default_rng(0)
    color = rng.integers(0, 256, (32, 48, 3), np.uint8)
    depth = rng.integers(1000, 3000, (8, 12)).astype(np.uint16)
    depth[2:4, 3:5] = 0
    b = bench(compressed_input="both")
    b.listen(DEPTH, Image)
    b.send("color/image_raw", compressed(color, "PNG", "rgb8; png compressed bgr8"))
    b.send("depth/image_raw", compressed(depth, "PNG", "16UC1; compressedDepth png", header=bytes(12)))
    pipeline = DepthPipeline(b.node.upsampler, b.node.settings.pipeline())
    expected = pipeline.process(CameraPair(color, depth.astype(np.float32) * np.float32(0.001))).depth
    np.testing.assert_array_equal(depth_array(b.wait_for(DEPTH)[0]), expected)


def test_a_damaged_jpeg_is_reported_and_the_node_lives_on(bench):
    b = bench(compressed_input="color")
    b.listen(DEPTH, Image)
    color = np.full((32, 48, 3), 100, np.uint8)
    depth = np.full((8, 12), 1500, np.uint16)
    for stamp in (1.0, 2.0):
        msg = compressed(color, "JPEG", "bgr8; jpeg compressed bgr8", stamp)
        if stamp == 1.0:
            msg.data = msg.data[:200]
        b.send("color/image_raw", msg)
        b.send("depth/image_raw", image(depth, "16UC1", stamp, "color_frame"))
        b.wait(lambda stamp=stamp: b.node.statistics["unusable" if stamp == 1.0 else "published"] == 1)
    assert any("colour: compressed colour image is damaged" in w for w in b.warnings)
    assert b.wait_for(DEPTH)[0].header.stamp.sec == 2


@pytest.mark.parametrize(
    ("kind", "topic", "expected"),
    [
        (CompressedImage, "color/image_raw", "/color/image_raw carries CompressedImage, but the node listens for Image"),
        (CompressedImage, "color/image_raw/compressed", "there is /color/image_raw/compressed, give that as color_image"),
    ],
)  # fmt: skip
def test_images_of_another_type_are_found(bench, monkeypatch, kind, topic, expected):
    """From another process, as it were: one participant cannot hold a topic with two types."""
    import rclpy

    monkeypatch.setattr("d2a2_ros.silence._SILENCE", 0.3)
    b = bench()
    # In the thread that spins: it may be about to wait for this publisher's events.
    gone = b._executor.create_task(b.tester.destroy_publisher, b._publishers.pop("color/image_raw"))
    b.wait(gone.done)
    context = rclpy.Context()
    rclpy.init(args=[], context=context)
    try:
        camera = rclpy.create_node("camera", context=context)
        camera.create_publisher(kind, topic, 1)
        b.wait(lambda: any(expected in w for w in b.warnings))
    finally:
        rclpy.shutdown(context=context)


def test_outputs_carry_the_output_frame(bench):
    b = bench(output_frame="phone_optical_frame")
    for topic, kind in ((DEPTH, Image), (INFO, CameraInfo), (POINTS, PointCloud2)):
        b.listen(topic, kind)
    b.send("color/camera_info", info_from_camera(COLOR_CAMERA, stamped(0, "color_frame")))
    b.wait(lambda: "color" in b.node._infos)
    b.send_pair()
    assert {b.wait_for(topic)[0].header.frame_id for topic in (DEPTH, INFO, POINTS)} == {"phone_optical_frame"}


def test_a_pair_dropped_for_its_stamp_is_a_fault_until_the_next_one(bench):
    b = bench()
    b.listen(DEPTH, Image)
    b.send_pair(stamp=2.0)
    b.wait_for(DEPTH)
    b.send_pair(stamp=1.0)
    b.wait(lambda: b.node.statistics.fault and b.node.statistics.fault.code == "stale")
    b.send_pair(stamp=3.0)
    b.wait_for(DEPTH, 2)
    b.wait(lambda: not b.node.statistics.fault)


def test_an_offset_can_be_set_while_running_and_is_shown(bench):
    from rclpy.parameter import Parameter

    b = bench()
    b.listen(DEPTH, Image)
    b.send_pair(stamp=1.0)
    assert np.isfinite(depth_array(b.wait_for(DEPTH)[0])).all()
    refused = b.node.set_parameters([Parameter("color_offset", value=[1.0, 2.0, 3.0])])[0]
    assert not refused.successful
    assert "color_offset must be two numbers" in refused.reason
    assert b.node.set_parameters([Parameter("color_offset", value=[3.0, -2.0])])[0].successful
    b.send_pair(stamp=2.0)
    depth = depth_array(b.wait_for(DEPTH, 2)[1])
    assert np.isnan(depth[:, :3]).all()
    assert np.isnan(depth[-2:]).all()
    assert np.isfinite(depth[:-2, 3:]).all()
    assert b.node._figures["corrected offset [px]"] == "+3 -2"


@pytest.mark.parametrize(
    ("code", "registration", "bad", "good"),
    [
        ("axis_ratio", "off", {"size": (8, 10)}, {"size": (8, 12)}),
        ("registration_evidence", "auto", {"depth": replace(COLOR_CAMERA, fx=44.0)}, {}),
        ("color_info_centre", "auto", {"color": replace(COLOR_CAMERA, cx=47.5)}, {}),
    ],
)
def test_a_doubt_is_on_diagnostics_until_it_is_settled(bench, code, registration, bad, good):
    def send(stamp, size=(32, 48), color=COLOR_CAMERA, depth=COLOR_CAMERA):
        b.send("color/camera_info", info_from_camera(color, stamped(0, "color_frame")))
        b.send("depth/camera_info", info_from_camera(depth, stamped(0, "color_frame")))
        b.wait(lambda: all(b.node._infos.get(which) for which in ("color", "depth")))
        b.wait(lambda: (b.node._infos["color"].k[2], b.node._infos["depth"].k[0]) == (color.cx, depth.fx))
        b.send_pair(stamp, depth=np.full(size, 1500, np.uint16))

    def state():
        status = b.out["/diagnostics"][-1].status[0] if b.out["/diagnostics"] else DiagnosticStatus(level=b"x")
        values = {v.key: v.value for v in status.values}
        return status.level, values.get("problem"), values.get("doubts")

    b = bench(registration=registration)
    b.listen(DEPTH, Image)
    b.listen("/diagnostics", DiagnosticArray)
    send(1.0, **bad)
    b.wait(lambda: state()[:2] == (DiagnosticStatus.WARN, code) and code in state()[2])
    send(2.0, **good)
    b.wait(lambda: state() == (DiagnosticStatus.OK, "", ""))
