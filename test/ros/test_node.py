"""The node over real DDS: what goes in, what comes out, and that nothing a camera sends can end it."""

import numpy as np
import pytest

pytest.importorskip("rclpy")

from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from sensor_msgs_py import point_cloud2

from d2a2_core.geometry import Camera
from d2a2_core.messages.encodings import view
from d2a2_ros.cameras import info_from_camera
from d2a2_ros.images import depth_array

from .conftest import image, stamped

DEPTH, INFO, PROVENANCE, POINTS = (
    f"depth_upsampled/{name}" for name in ("image_raw", "camera_info", "provenance", "points")
)


def seconds(msg):
    return msg.header.stamp.sec + msg.header.stamp.nanosec * 1e-9


def camera_info(width=48, height=32):
    return info_from_camera(Camera(width, height, 40.0, 41.0, 23.0, 15.0), stamped(0, "color_frame"))


def test_a_pair_becomes_depth_in_the_colour_cameras_frame_and_size(bench):
    b = bench()
    b.listen(DEPTH, Image)
    b.send_pair(stamp=3.25)
    msg = b.wait_for(DEPTH)[0]
    assert (msg.width, msg.height, msg.encoding, msg.header.frame_id) == (48, 32, "32FC1", "color_frame")
    assert seconds(msg) == 3.25
    np.testing.assert_allclose(depth_array(msg), 1.5, atol=0.011)  # flat input: the range is at least 1 cm


def test_stamp_of_the_depth_image_on_request(bench):
    b = bench(stamp_source="depth")
    b.listen(DEPTH, Image)
    b.send_pair(stamp=5.0, offset=0.004)
    assert seconds(b.wait_for(DEPTH)[0]) == pytest.approx(5.004, abs=1e-6)


def test_16uc1_output_is_millimetres_with_zero_for_none(bench):
    b = bench(output_encoding="16UC1", max_fill_px=0.0)
    b.listen(DEPTH, Image)
    depth = np.full((8, 12), 1500, np.uint16)
    depth[:, :6] = 0
    b.send_pair(depth=depth)
    out = view(b.wait_for(DEPTH)[0])
    assert out.dtype == np.uint16
    assert (out[:, :24] == 0).all()
    assert (abs(out[:, 24:].astype(int) - 1500) <= 11).all()


def test_camera_info_describes_the_output_image(bench):
    b = bench()
    b.listen(DEPTH, Image)
    b.listen(INFO, CameraInfo)
    b.send("color/camera_info", camera_info(width=96, height=64))  # calibrated at twice the size
    b.wait(lambda: "color" in b.node._infos)
    b.send_pair(stamp=2.0)
    info = b.wait_for(INFO)[0]
    depth = b.wait_for(DEPTH)[0]
    assert info.header == depth.header
    assert (info.width, info.height) == (depth.width, depth.height)
    np.testing.assert_allclose(info.k, [20, 0, 11.25, 0, 20.5, 7.25, 0, 0, 1])
    np.testing.assert_allclose(info.p, [20, 0, 11.25, 0, 0, 20.5, 7.25, 0, 0, 0, 1, 0])


def test_cloud_is_the_back_projected_depth_with_colour(bench):
    b = bench()
    b.listen(DEPTH, Image)
    b.listen(POINTS, PointCloud2)
    b.send("color/camera_info", camera_info())
    b.wait(lambda: "color" in b.node._infos)
    color = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    b.send_pair(color=color)
    cloud, depth = b.wait_for(POINTS)[0], depth_array(b.wait_for(DEPTH)[0])
    assert (cloud.height, cloud.width, cloud.header.frame_id) == (32, 48, "color_frame")
    points = point_cloud2.read_points(cloud)
    u, v = np.meshgrid(np.arange(48), np.arange(32))
    np.testing.assert_allclose(points["z"].ravel(), depth.ravel())
    np.testing.assert_allclose(points["x"].ravel(), ((u - 23) / 40 * depth).ravel(), rtol=1e-5)
    np.testing.assert_allclose(points["y"].ravel(), ((v - 15) / 41 * depth).ravel(), rtol=1e-5)
    rgb = np.ascontiguousarray(points["rgb"]).view(np.uint32).ravel()
    np.testing.assert_array_equal(np.stack([rgb >> 16 & 255, rgb >> 8 & 255, rgb & 255], 1), color.reshape(-1, 3))


def test_cloud_stride(bench):
    b = bench(cloud_stride=3)
    b.listen(POINTS, PointCloud2)
    b.send("color/camera_info", camera_info())
    b.wait(lambda: "color" in b.node._infos)
    b.send_pair()
    cloud = b.wait_for(POINTS)[0]
    assert (cloud.height, cloud.width) == (11, 16)


def test_nothing_is_computed_while_nobody_subscribes(bench, monkeypatch):
    b = bench()
    monkeypatch.setattr(b.node.pipeline, "process", lambda *_, **__: pytest.fail("computed without a subscriber"))
    b.send_pair()
    b.wait(lambda: b.node.statistics["unwanted"] == 1)
    assert b.node.statistics["unusable"] == 0


def test_no_cloud_is_made_without_a_subscriber(bench, monkeypatch):
    b = bench()
    monkeypatch.setattr("d2a2_core.stream.pack_cloud", lambda *_: pytest.fail("made a cloud for nobody"))
    b.listen(DEPTH, Image)
    b.send("color/camera_info", camera_info())
    b.wait(lambda: "color" in b.node._infos)
    b.send_pair()
    b.wait_for(DEPTH)
    assert b.node.statistics["unusable"] == 0


def test_newest_pair_replaces_the_waiting_one_and_stamps_never_go_back(bench, monkeypatch):
    import threading

    b = bench()
    b.listen(DEPTH, Image)
    release, compute = threading.Event(), b.node.pipeline.process
    monkeypatch.setattr(b.node.pipeline, "process", lambda *a: (release.wait(10), compute(*a))[1])
    b.send_pair(stamp=1.0)
    b.wait(lambda: b.node.statistics["pairs"] == 1)
    for i in range(2, 6):
        b.send_pair(stamp=float(i))
        b.wait(lambda i=i: b.node.statistics["pairs"] == i)
    release.set()
    out = b.wait_for(DEPTH, 2)
    assert [seconds(m) for m in out] == [1.0, 5.0]
    assert b.node.statistics["replaced"] == 3
    b.send_pair(stamp=4.5)  # late
    b.wait(lambda: b.node.statistics["stale"] == 1)
    b.send_pair(stamp=6.0)
    assert [seconds(m) for m in b.wait_for(DEPTH, 3)] == [1.0, 5.0, 6.0]


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("unknown color encoding", "foo8"),
        ("unknown depth encoding", "rgb8"),
        ("swapped", "swapped"),
        ("truncated", "truncated"),
        ("short step", "step"),
        ("empty", "empty"),
        ("depth far larger than colour", "cannot be images of one view"),
    ],
)
def test_a_bad_frame_is_reported_once_and_the_node_lives_on(bench, fault, expected):
    b = bench()
    b.listen(DEPTH, Image)

    def bad(stamp):
        color = image(np.zeros((32, 48, 3), np.uint8), "rgb8", stamp)
        depth = image(np.full((8, 12), 1000, np.uint16), "16UC1", stamp)
        if fault == "unknown color encoding":
            color.encoding = "foo8"
        elif fault == "unknown depth encoding":
            depth.encoding = "rgb8"
        elif fault == "swapped":
            color.encoding = "16UC1"
        elif fault == "truncated":
            depth.data = depth.data[:50]
        elif fault == "short step":
            color.step = 7
        elif fault == "empty":
            depth.width = 0
        else:
            depth = image(np.full((160, 240), 1000, np.uint16), "16UC1", stamp)
        return color, depth

    for stamp in (1.0, 2.0, 3.0):
        color, depth = bad(stamp)
        b.send("color/image_raw", color)
        b.send("depth/image_raw", depth)
        b.wait(lambda stamp=stamp: b.node.statistics["unusable"] == stamp)
    assert len([w for w in b.warnings if expected in w]) == 1, b.warnings
    b.send_pair(stamp=4.0)
    assert seconds(b.wait_for(DEPTH)[0]) == 4.0


def test_sizes_may_change_mid_stream(bench):
    b = bench()
    b.listen(DEPTH, Image)
    b.send_pair(stamp=1.0)
    b.wait_for(DEPTH)
    b.send_pair(stamp=2.0, color=np.zeros((24, 30, 3), np.uint8), depth=np.full((5, 6), 900, np.uint16))
    out = b.wait_for(DEPTH, 2)[1]
    assert (out.width, out.height) == (30, 24)
    assert any("sizes changed" in w for w in b.warnings)


@pytest.mark.parametrize("value", [np.nan, 0.0, -1.0, np.inf])
def test_depth_without_any_valid_pixel_gives_nan_and_no_provenance(bench, value):
    b = bench()
    b.listen(DEPTH, Image)
    b.listen(PROVENANCE, Image)
    b.send_pair(depth=np.full((8, 12), value, np.float32))
    assert np.isnan(depth_array(b.wait_for(DEPTH)[0])).all()
    assert (view(b.wait_for(PROVENANCE)[0]) == 0).all()


def test_missing_depth_topic_and_unmatched_stamps_are_said(bench, monkeypatch):
    monkeypatch.setattr("d2a2_ros.silence._SILENCE", 0.3)
    b = bench()
    color = image(np.zeros((32, 48, 3), np.uint8), "rgb8", 1.0)

    def send_and_find(text):
        b.send("color/image_raw", color)
        return any(text in w for w in b.warnings)

    b.wait(lambda: send_and_find("no depth images"))
    assert any("depth/image_raw" in w for w in b.warnings)

    def send_both():
        b.send("depth/image_raw", image(np.ones((8, 12), np.uint16), "16UC1", 99.0))
        return send_and_find("sync_slop")

    b.wait(send_both)
    b.listen(DEPTH, Image)
    b.send_pair(stamp=200.0)
    b.wait_for(DEPTH)


def test_no_camera_info_is_said_and_depth_comes_all_the_same(bench):
    b = bench()
    b.listen(DEPTH, Image)
    b.send_pair()
    b.wait_for(DEPTH)
    b.wait(lambda: any("camera info" in w for w in b.warnings))


def test_uncalibrated_camera_gives_depth_and_says_why_there_is_no_cloud(bench):
    b = bench()
    b.listen(DEPTH, Image)
    b.listen(POINTS, PointCloud2)
    b.send("color/camera_info", CameraInfo(width=48, height=32))
    b.wait(lambda: "color" in b.node._infos)
    b.send_pair()
    b.wait_for(DEPTH)
    b.wait(lambda: any("not calibrated" in w for w in b.warnings))


def test_diagnostics_count_what_happened(bench):
    from diagnostic_msgs.msg import DiagnosticArray

    b = bench()
    b.listen(DEPTH, Image)
    b.listen("/diagnostics", DiagnosticArray)
    b.send_pair()
    b.wait_for(DEPTH)

    def newest():
        return {v.key: v.value for m in b.out["/diagnostics"][-1:] for v in m.status[0].values}

    b.wait(lambda: newest().get("pairs published") == "1")
    assert newest()["pairs received"] == "1"
    assert newest()["device"] == "cpu"


def test_live_parameters_are_checked_and_take_effect(bench):
    from rclpy.parameter import Parameter

    b = bench()
    b.listen(DEPTH, Image)
    refused = b.node.set_parameters([Parameter("output_encoding", value="jpeg")])[0]
    assert not refused.successful
    assert "32FC1" in refused.reason
    assert not b.node.set_parameters([Parameter("cloud_stride", value=0)])[0].successful
    assert not b.node.set_parameters([Parameter("weights", value="other")])[0].successful  # fixed at the start
    assert b.node.set_parameters([Parameter("output_encoding", value="16UC1")])[0].successful
    assert not b.node.set_parameters([Parameter("ensemble", value=3)])[0].successful
    assert b.node.set_parameters([Parameter("ensemble", value=2)])[0].successful
    b.send_pair()
    assert b.wait_for(DEPTH)[0].encoding == "16UC1"
    assert b.node.upsampler.ensemble == 2


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("precision", "float8", "float32"),
        ("scale", 5, "0, 4, 8, 16"),
        ("cloud_stride", 0, "1"),
        ("sync_slop", -1.0, "0"),
        ("max_fill_px", "many", "float"),
        ("output_encoding", "rgb8", "32FC1"),
        ("stamp_source", "now", "color"),
        ("device", "tpu9", "cpu"),
    ],
)
def test_wrong_start_values_are_refused_by_name(bench, name, value, expected):
    with pytest.raises(ValueError, match=name) as caught:
        bench(**{name: value})
    assert expected in str(caught.value)


def test_a_recording_that_starts_again_is_followed(bench):
    """A bag that loops without /clock: its stamps go back for good, unlike those of one late pair."""
    b = bench()
    b.listen(DEPTH, Image)
    b.send_pair(stamp=500.0)
    b.wait_for(DEPTH)
    for i in range(15):
        b.send_pair(stamp=100.0 + i / 15)
        b.wait(lambda i=i: b.node.statistics["depth"] == i + 2)
    b.wait(lambda: len(b.out[DEPTH]) > 1)
    stamps = [seconds(m) for m in b.out[DEPTH]][1:]
    assert 100 <= stamps[0] < 101
    assert stamps == sorted(stamps)


def test_a_frame_computed_across_a_restart_does_not_hold_up_the_new_stamps(bench, monkeypatch):
    import threading

    b = bench()
    b.listen(DEPTH, Image)
    release, begun, compute = threading.Event(), threading.Event(), b.node.pipeline.process
    monkeypatch.setattr(b.node.pipeline, "process", lambda *a: (begun.set(), release.wait(10), compute(*a))[2])
    b.send_pair(stamp=500.0)
    b.wait(begun.is_set)
    b.node._start_over("the clock jumped back")
    release.set()
    b.wait(lambda: b.node.statistics["stale"] == 1)
    b.send_pair(stamp=100.0)
    assert seconds(b.wait_for(DEPTH)[0]) == 100.0


def test_a_frame_published_across_a_restart_does_not_hold_up_the_new_stamps(bench, monkeypatch):
    """The clock may jump back while the worker is in the middle of publishing."""
    b = bench()
    b.listen(DEPTH, Image)
    publish = b.node._publish

    def publish_and_jump(*arguments):
        publish(*arguments)
        if b.node._epoch == 0:
            b.node._start_over("the clock jumped back")

    monkeypatch.setattr(b.node, "_publish", publish_and_jump)
    b.send_pair(stamp=500.0)
    b.wait_for(DEPTH)
    b.send_pair(stamp=100.0)
    b.wait(lambda: len(b.out[DEPTH]) == 2)
    assert seconds(b.out[DEPTH][1]) == 100.0


def test_a_short_recording_that_loops_is_followed(bench):
    b = bench()
    b.listen(DEPTH, Image)
    last = 100.0 + 15 / 8  # of two seconds
    for loop in range(2):
        before = len(b.out[DEPTH])
        for i in range(16):
            b.send_pair(stamp=100.0 + i / 8)
            b.wait(lambda i=i, loop=loop: b.node.statistics["depth"] == 16 * loop + i + 1)
        b.wait(lambda before=before: len(b.out[DEPTH]) > before and seconds(b.out[DEPTH][-1]) == last)


def test_equal_stamps_are_a_pair_without_any_slop(bench):
    b = bench(sync_slop=0.0)
    b.listen(DEPTH, Image)
    b.send_pair(stamp=1.0)
    b.wait_for(DEPTH)


def test_qos_of_one_topic_is_not_that_of_another(bench):
    b = bench(**{"qos_overrides./color/image_raw.subscription.reliability": "reliable"})
    reliability = {s.topic_name: s.qos_profile.reliability.name for s in b.node.subscriptions}
    assert reliability["/color/image_raw"] == "RELIABLE"
    assert reliability["/depth/image_raw"] == "BEST_EFFORT"


def test_a_clock_that_stands_still_is_told_about(bench):
    """use_sim_time without /clock."""
    from diagnostic_msgs.msg import DiagnosticArray

    b = bench(use_sim_time=True)
    b.listen("/diagnostics", DiagnosticArray)
    b.wait_for("/diagnostics")


def test_the_rate_is_that_of_the_last_seconds(monkeypatch):
    pytest.importorskip("rclpy")
    from d2a2_ros import diagnostics

    now = [100.0]
    monkeypatch.setattr(diagnostics.time, "monotonic", lambda: now[0])
    statistics = diagnostics.Statistics()
    for _ in range(5):
        statistics.published(0.1, 0.2)
        now[0] += 0.25
    assert statistics.values()["rate [Hz]"] == "4.00"
    now[0] += 60
    assert statistics.values()["rate [Hz]"] == "0.00"
    statistics.published(0.1, 0.2)
    now[0] += 0.5
    statistics.published(0.1, 0.2)
    assert statistics.values()["rate [Hz]"] == "2.00"


def test_topics_on_which_nothing_comes_are_named(bench, monkeypatch):
    monkeypatch.setattr("d2a2_ros.silence._SILENCE", 0.3)
    b = bench()
    b.wait(lambda: any("no images" in w for w in b.warnings))
    message = next(w for w in b.warnings if "no images" in w)
    assert "/color/image_raw (1 publishers)" in message
    assert "/depth/image_raw (1 publishers)" in message


def test_depth_in_another_frame_without_camera_infos_is_refused_and_said_once(bench):
    b = bench()
    b.listen(DEPTH, Image)
    for i in (1.0, 2.0):
        b.send_pair(stamp=i, depth_frame="depth_frame")
        b.wait(lambda i=i: b.node.statistics["unusable"] == int(i))
    (said,) = (w for w in b.warnings if "depth has to be registered" in w)
    assert "no usable camera info of the colour camera (none came)" in said
    assert 'registration to "off"' in said
    assert not b.out[DEPTH]


def test_depth_in_the_same_frame_without_camera_infos_is_taken_as_registered_and_said_once(bench):
    b = bench()
    b.listen(DEPTH, Image)
    for i in (1.0, 2.0):
        b.send_pair(stamp=i)
        b.wait_for(DEPTH, int(i))
    assert len([w for w in b.warnings if "if it is not registered" in w]) == 1
