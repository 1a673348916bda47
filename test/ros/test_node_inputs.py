"""How the node takes what cameras and TF send: latched infos, other clocks, late topics, hostile fields. Over real DDS."""

import types

import numpy as np
import pytest

pytest.importorskip("rclpy")

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import TransformStamped
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image

from d2a2_core.geometry import Camera
from d2a2_ros.cameras import info_from_camera
from d2a2_ros.checks import MAX_BYTES, image_problem
from d2a2_ros.diagnostics import Reporter, shorten
from d2a2_ros.images import depth_array
from d2a2_ros.infos import InfoSubscription
from d2a2_ros.node import UpsampleNode
from d2a2_ros.silence import Silence

from .conftest import image, stamped

DEPTH = "depth_upsampled/image_raw"
COLOR_CAMERA = Camera(48, 32, 40.0, 40.0, 23.5, 15.5)
DEPTH_CAMERA = Camera(20, 16, 15.0, 15.0, 9.5, 7.5)
BESIDE = [0.3, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]
COLOR = np.full((32, 48, 3), 100, np.uint8)
WALL = np.full((16, 20), 1500, np.uint16)

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
REPEATED = QoSProfile(depth=5)
BEST_EFFORT = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)


# -- camera infos ------------------------------------------------------------------------------------------------------


def focal_length(b, which="color"):
    return b.node._infos[which].k[0] if which in b.node._infos else None


def info(focal):
    return info_from_camera(Camera(48, 32, focal, focal, 23.5, 15.5), stamped(0, "color_frame"))


@pytest.mark.parametrize("qos", [LATCHED, REPEATED, BEST_EFFORT], ids=["latched", "repeated", "best effort"])
@pytest.mark.parametrize("driver_first", [True, False])
def test_camera_infos_arrive_however_they_are_published(ros, bench, qos, driver_first):
    driver = rclpy.create_node("driver")
    try:
        if driver_first:
            publisher = driver.create_publisher(CameraInfo, "color/camera_info", qos)
            publisher.publish(info(30.0))
        b = bench()
        if not driver_first:
            publisher = driver.create_publisher(CameraInfo, "color/camera_info", qos)
            publisher.publish(info(30.0))

        def arrived():
            if qos is not LATCHED:
                publisher.publish(info(30.0))
            return focal_length(b) == 30.0

        b.wait(arrived, 20.0)
        # The latest counts.
        b.wait(lambda: publisher.publish(info(31.0)) or focal_length(b) == 31.0, 20.0)
    finally:
        driver.destroy_node()


def test_a_latched_and_a_repeating_driver_on_one_topic_both_arrive(ros, bench):
    driver = rclpy.create_node("driver")
    try:
        latched = driver.create_publisher(CameraInfo, "color/camera_info", LATCHED)
        latched.publish(info(30.0))
        b = bench()
        b.wait(lambda: focal_length(b) == 30.0)
        b.send("color/camera_info", info(32.0))
        b.wait(lambda: focal_length(b) == 32.0)
        latched.publish(info(33.0))
        b.wait(lambda: focal_length(b) == 33.0)
        topics = [s.topic_name for s in b.node.subscriptions]
        assert topics.count("/color/camera_info") == 2
        assert topics.count("/depth/camera_info") == 1
    finally:
        driver.destroy_node()


def test_raw_depth_with_infos_published_once_before_the_node_starts_is_registered(ros, bench):
    driver = rclpy.create_node("driver")
    try:
        for which, camera in (("color", COLOR_CAMERA), ("depth", DEPTH_CAMERA)):
            publisher = driver.create_publisher(CameraInfo, f"{which}/camera_info", LATCHED)
            publisher.publish(info_from_camera(camera, stamped(0, which)))
        b = bench(extrinsics=BESIDE, max_fill_px=0.0)
        b.listen(DEPTH, Image)
        b.wait(lambda: set(b.node._infos) == {"color", "depth"})
        b.send_pair(depth=WALL)
        assert np.isnan(depth_array(b.wait_for(DEPTH)[0])).any()  # what the depth camera does not see
    finally:
        driver.destroy_node()


@pytest.mark.parametrize(
    ("publishers", "images", "said"),
    [
        (
            ["/cam/rgb/camera_info"],
            "/cam/rgb/image_raw",
            "there is /cam/rgb/camera_info beside the images: remap color/c",
        ),
        (["/cam/rgb/camera_info"], "/cam/rgb/image_raw/compressed", "there is /cam/rgb/camera_info beside the images"),
        (["/cam/rgb/camera_info", "/color/camera_info"], "/cam/rgb/image_raw", None),
        (["/other/camera_info"], "/cam/rgb/image_raw", None),
        ([], "/color/image_raw", None),
    ],
)
def test_camera_infos_beside_images_that_were_remapped_alone_are_found(publishers, images, said):
    subscription = types.SimpleNamespace(topic_name="/color/camera_info", qos_profile=REPEATED)
    node = types.SimpleNamespace(create_subscription=lambda *_, **__: subscription, count_publishers=publishers.count)
    problem = InfoSubscription(node, "color/camera_info", print).elsewhere("color", images)
    assert (problem is None) if said is None else (said in problem.message and problem.code == "color_info_elsewhere")


def test_camera_infos_that_are_elsewhere_are_on_diagnostics(ros, bench, monkeypatch):
    b = bench()
    for publisher in (b._publishers["color/camera_info"], b._publishers["depth/camera_info"]):
        gone = b._executor.create_task(b.tester.destroy_publisher, publisher)
        b.wait(gone.done)
    monkeypatch.setattr("d2a2_ros.infos.info_topic_beside", lambda _: "/cam/camera_info")
    b.tester.create_publisher(CameraInfo, "/cam/camera_info", 1)
    b.listen("/diagnostics", DiagnosticArray)
    b.send_pair()

    def shown():
        return any("there is /cam/camera_info" in m.status[0].message for m in b.out["/diagnostics"])

    b.wait(shown)
    assert any("remap color/camera_info to it" in w for w in b.warnings)


@pytest.mark.parametrize(
    "topic",
    ["/color/camera_info.subscription", "/depth/image_raw.subscription", "/depth_upsampled/camera_info.publisher"],
)
def test_durability_can_be_overridden(ros, tiny_weights, topic):
    values = {"weights": str(tiny_weights), "device": "cpu", f"qos_overrides.{topic}.durability": "transient_local"}
    node = UpsampleNode(parameter_overrides=[Parameter(k, value=v) for k, v in values.items()])
    try:
        ends = [*node.subscriptions, *node.publishers]
        durability = {
            e.topic_name: e.qos_profile.durability.name
            for e in ends
            if "image" in e.topic_name or "info" in e.topic_name
        }
        name, _, _ = topic.rpartition(".")
        assert durability.pop(name) == "TRANSIENT_LOCAL"
        assert set(durability.values()) == {"VOLATILE"}
    finally:
        node.destroy_node()


# -- stamps ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", [("depth",), ("color",), ("color", "depth")])
def test_ten_images_from_the_future_and_then_pairs_flow_again(bench, which):
    b = bench()
    b.listen(DEPTH, Image)
    pixels = {"color": (COLOR, "rgb8"), "depth": (np.full((8, 12), 1500, np.uint16), "16UC1")}
    for i in range(10):
        for w in which:
            b.send(f"{w}/image_raw", image(*pixels[w], 5000.0 + i / 30, w))
        b.wait(lambda i=i: b.node.statistics[which[-1]] == i + 1)
    for i in range(30):
        b.send_pair(stamp=100.0 + i / 30)
        b.wait(lambda i=i: b.node.statistics["depth"] >= i + 1 and b.node.statistics["color"] >= i + 1)
    b.wait(lambda: any(m.header.stamp.sec < 200 for m in b.out[DEPTH]))
    assert b.node.statistics["pairs"] >= 30 - 11
    b.send_pair(stamp=102.0)
    b.wait(lambda: b.out[DEPTH][-1].header.stamp.sec == 102)


def test_a_late_topic_is_on_diagnostics_with_its_cure(bench):
    from diagnostic_msgs.msg import DiagnosticArray

    b = bench(sync_queue_size=4)
    b.listen("/diagnostics", DiagnosticArray)
    depth = np.full((8, 12), 1500, np.uint16)
    for i in range(24):
        b.send("color/image_raw", image(COLOR, "rgb8", 100 + i / 30, "color_frame"))
        b.wait(lambda i=i: b.node.statistics["color"] == i + 1)
        if i >= 9:
            b.send("depth/image_raw", image(depth, "16UC1", 100 + (i - 9) / 30, "d"))
            b.wait(lambda i=i: b.node.statistics["depth"] == i - 8)
    assert b.node.statistics["pairs"] == 0

    def values():
        return {v.key: v.value for m in b.out["/diagnostics"][-1:] for v in m.status[0].values}

    b.wait(lambda: values().get("problem") == "late_depth")
    assert "raise sync_queue_size to 10 (it is 4)" in b.out["/diagnostics"][-1].status[0].message
    assert values()["colour images without a partner"] == "20"


# -- frames and transforms ---------------------------------------------------------------------------------------------


def transform(parent, child, x=0.0):
    out = TransformStamped(header=stamped(0, parent), child_frame_id=child)
    out.transform.translation.x, out.transform.rotation.w = x, 1.0
    return out


@pytest.mark.parametrize("topic", ["/tf", "/tf_static"])
@pytest.mark.parametrize("slash", ["", "/"])
def test_transforms_arrive_on_either_topic_with_or_without_slashes(bench, tf_messages, topic, slash):
    b = bench(max_fill_px=0.0)
    b.listen(DEPTH, Image)
    qos = LATCHED if topic == "/tf_static" else REPEATED
    publisher = b.tester.create_publisher(TransformStamped, topic, qos)
    b.wait(publisher.get_subscription_count)
    publisher.publish(transform("base", "color_frame"))
    publisher.publish(transform("/color_frame", "d", 0.3))
    bad = transform("d", "color_frame", float("nan"))
    publisher.publish(bad)
    for which, camera in (("color", COLOR_CAMERA), ("depth", DEPTH_CAMERA)):
        b.send(f"{which}/camera_info", info_from_camera(camera, stamped(0, which)))
    b.wait(lambda: set(b.node._infos) == {"color", "depth"})
    b.send("color/image_raw", image(COLOR, "rgb8", 1.0, f"{slash}color_frame"))
    b.send("depth/image_raw", image(WALL, "16UC1", 1.0, f"{slash}d"))
    out = b.wait_for(DEPTH)[0]
    assert out.header.frame_id == "color_frame"
    assert np.isnan(depth_array(out)).any()
    assert b.node.transforms.lookup("color_frame", "d").translation[0] == pytest.approx(0.3)


# -- what no camera sends ----------------------------------------------------------------------------------------------


def changed(msg, **fields):
    for name, value in fields.items():
        holder = msg
        *path, last = name.split("__")
        for part in path:
            holder = getattr(holder, part)
        setattr(holder, last, value)
    return msg


HOSTILE = {
    "seconds -2^31": ({"header__stamp__sec": -(2**31)}, "color_stamp"),
    "seconds -1": ({"header__stamp__sec": -1}, "color_stamp"),
    "nanoseconds 4e9": ({"header__stamp__nanosec": 4_000_000_000}, "color_stamp"),
    "width 2^32 - 1": ({"width": 2**32 - 1}, "color_size"),
    "long frame_id": ({"header__frame_id": "x" * 10_000_000}, "color_frame_id"),
    "long encoding": ({"encoding": "y" * 10_000_000}, "color_encoding"),
}


@pytest.mark.parametrize("which", ["color", "depth"])
@pytest.mark.parametrize(("fields", "code"), HOSTILE.values(), ids=HOSTILE)
def test_a_field_that_no_camera_sends_is_counted_and_reported(bench, which, fields, code):
    b = bench()
    b.listen(DEPTH, Image)
    pixels = (COLOR, "rgb8") if which == "color" else (np.full((8, 12), 1500, np.uint16), "16UC1")
    b.send(f"{which}/image_raw", changed(image(*pixels, 1.0, "f"), **fields))
    b.wait(lambda: b.node.statistics["rejected"] == 1)
    assert b.node.statistics.fault.code == code.replace("color", which)
    assert all(len(w) < 300 for w in b.warnings)
    b.send_pair(stamp=2.0)
    b.wait_for(DEPTH)


@pytest.mark.parametrize(
    "fields", [{"d": [0.0] * 100_000}, {"distortion_model": "z" * 1_000_000}, {"width": 2**31}, {"height": 2**32 - 1}]
)
def test_a_camera_info_without_bounds_is_not_kept(bench, fields):
    b = bench()
    b.send("depth/camera_info", info(30.0))
    b.wait(lambda: focal_length(b, "depth") == 30.0)
    b.send("depth/camera_info", changed(info(31.0), **fields))
    b.wait(lambda: b.node.statistics["rejected"] == 1)
    assert focal_length(b, "depth") == 30.0


def test_data_without_bounds_is_not_kept():
    class Data:
        def __len__(self):
            return MAX_BYTES + 1

    msg = types.SimpleNamespace(header=stamped(1, "c"), encoding="rgb8", data=Data())
    assert image_problem("color", msg).code == "color_data"


def test_an_error_that_nobody_foresaw_ends_no_callback(bench, monkeypatch):
    """One guard is around every callback of the node: subscriptions and timers."""
    b = bench()
    b.listen(DEPTH, Image)

    def fail(*_):
        raise RuntimeError("nobody foresaw this")

    monkeypatch.setattr("d2a2_ros.node.info_problem", fail)
    monkeypatch.setattr(b.node._silence, "problem", fail)
    b.send("color/camera_info", info(30.0))
    b.wait(lambda: b.node.statistics["errors"] >= 2)
    assert any("unforeseen error: RuntimeError: nobody foresaw this" in w for w in b.warnings)
    b.send_pair()
    b.wait_for(DEPTH)


def test_a_clock_that_is_negative_ends_nothing(bench):
    from builtin_interfaces.msg import Time
    from rosgraph_msgs.msg import Clock

    b = bench(use_sim_time=True)
    b.listen(DEPTH, Image)
    publisher = b.tester.create_publisher(Clock, "/clock", 10)
    b.wait(publisher.get_subscription_count)
    b.wait(lambda: publisher.publish(Clock(clock=Time(sec=-5))) or b.node.statistics["errors"] > 0)
    b.send_pair()
    b.wait_for(DEPTH)


def test_the_log_holds_a_bounded_number_of_bounded_lines():
    lines, now = [], [0.0]
    logger = types.SimpleNamespace(warning=lines.append)
    reporter = Reporter(logger, period=30.0, clock=lambda: now[0])
    for i in range(5000):
        reporter.report(f"color_encoding {i}", "x" * 100_000)
    assert len(lines) == 100
    assert max(map(len, lines)) < 1100
    now[0] = 31.0
    reporter.report("another", "again")
    assert lines[-1] == "again"
    assert len(reporter._last) == 1
    assert shorten("short") == "short"


# -- silence -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def silence():
    subscription = types.SimpleNamespace(topic_name="/image", msg_type=Image)
    node = types.SimpleNamespace(
        count_publishers=lambda _: 0, get_publishers_info_by_topic=lambda _: [], subscriptions=[], publishers=[]
    )
    return Silence(node, subscription, subscription, 0.015)


def test_a_pair_in_work_is_no_silence(monkeypatch, silence):
    """Compiling a network takes longer than the node waits before it says that no images come."""
    now, counts = [0.0], {"color": 1, "depth": 1, "pairs": 1}
    monkeypatch.setattr("d2a2_ros.silence.time.monotonic", lambda: now[0])
    for now[0] in range(60):
        assert silence.problem(counts, "", busy=True) is None
    for now[0] in range(60, 69):
        assert silence.problem(counts, "", busy=False) is None
    now[0] = 70
    assert silence.problem(counts, "", busy=False).code == "no_images"


def test_a_camera_that_sends_every_minute_is_no_silence_between_its_images(monkeypatch, silence):
    now = [0.0]
    monkeypatch.setattr("d2a2_ros.silence.time.monotonic", lambda: now[0])
    said = {}
    for now[0] in range(400):
        count = min(now[0] // 60, 3)
        said[now[0]] = silence.problem({"color": count, "depth": count, "pairs": count}, "", busy=False)
    assert not any(said[second] for second in range(120, 330))
    assert "the last pair came 150 s ago; have the cameras stopped?" in said[330].message
