"""The node's results over time: fused where the camera's pose is known, from /tf at the images' time."""

import time

import numpy as np
import pytest

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import TransformStamped
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image

from d2a2_core.geometry import Camera
from d2a2_ros.cameras import info_from_camera
from d2a2_ros.images import depth_array

from .conftest import stamped

DEPTH, SIGMA, INFO = (f"depth_upsampled/{name}" for name in ("image_raw", "sigma", "camera_info"))
CAMERA = Camera(48, 32, 40.0, 40.0, 23.5, 15.5)
STEP = 0.125  # seconds


def results(b, count=6, before_each=lambda i: None):
    """Depth in the middle of frames of a wall at 1.5 m, and 2 mm farther in every second one."""
    b.listen(DEPTH, Image)
    b.send("color/camera_info", info_from_camera(CAMERA, stamped(0, "color_frame")))
    b.wait(lambda: "color" in b.node._infos)
    for i in range(count):
        before_each(i)
        b.send_pair(stamp=10 + i * STEP, depth=np.full((8, 12), 1500 + 2 * (i % 2), np.uint16))
        b.wait_for(DEPTH, i + 1)
    return np.array([depth_array(msg)[16, 24] for msg in b.out[DEPTH]])


def temporal_figure(b):
    b.listen("/diagnostics", DiagnosticArray)
    b.wait(lambda: b.out["/diagnostics"])
    return {v.key: v.value for v in b.out["/diagnostics"][-1].status[0].values}


def test_still_frames_are_fused(bench):
    b = bench(temporal="still")
    depth = results(b)
    assert np.ptp(depth[3:]) < 0.001
    figures = temporal_figure(b)
    assert figures["temporal"].endswith("agree with before")
    assert not [warning for warning in b.warnings if "temporal" in warning]


def test_off_is_frame_by_frame(bench):
    b = bench()
    depth = results(b, 4)
    assert np.abs(np.diff(depth)).min() > 0.0015
    assert "temporal" not in temporal_figure(b)


def test_poses_come_from_tf_at_the_images_time(bench, tf_messages):
    b = bench(temporal="moving", temporal_frame="map")
    publisher = b.tester.create_publisher(TransformStamped, "/tf", QoSProfile(depth=10))
    b.wait(publisher.get_subscription_count)

    def move(i):
        # Before and after the image; those after the next are not there yet.
        for at in (i - 0.5, i + 0.5):
            out = TransformStamped(header=stamped(10 + at * STEP, "map"), child_frame_id="color_frame")
            out.transform.translation.x, out.transform.rotation.w = 0.0001 * at, 1.0
            publisher.publish(out)

    depth = results(b, before_each=move)
    assert np.ptp(depth[3:]) < 0.001
    assert not [warning for warning in b.warnings if "temporal" in warning]
    pose = b.node.pose("map", "color_frame", int((10 + 3 * STEP) * 1e9))
    np.testing.assert_allclose(pose[:3, 3], [0.0003, 0, 0], atol=1e-9)


def test_without_poses_frames_come_as_they_are_and_the_cause_is_named(bench, tf_messages):
    b = bench(temporal="moving", temporal_frame="map")
    depth = results(b, 4)
    assert np.abs(np.diff(depth)).min() > 0.0015
    assert any("nothing says where 'color_frame' is in 'map'" in warning for warning in b.warnings)
    assert temporal_figure(b)["temporal"] == "started anew (no_pose)"


def test_moving_without_a_fixed_frame_does_not_start(ros, tiny_weights):
    from rclpy.parameter import Parameter

    from d2a2_ros.node import UpsampleNode

    values = {
        "weights": str(tiny_weights),
        "device": "cpu",
        "runtime": "torch",
        "temporal": "moving",
        "temporal_frame": "",
    }
    with pytest.raises(ValueError, match="needs temporal_frame"):
        UpsampleNode(parameter_overrides=[Parameter(k, value=v) for k, v in values.items()])


def test_without_a_head_results_are_fused_without_sigma(bench):
    b = bench(temporal="still")
    b.listen(SIGMA, Image)
    b.listen(INFO, CameraInfo)
    results(b, 2)
    b.wait_for(INFO, 2)
    # These weights have no head.
    assert not b.out[SIGMA]


def test_late_transforms_are_waited_for_again_after_a_wait_in_vain(ros, tf_messages, monkeypatch):
    import rclpy

    from d2a2_ros import transforms

    monkeypatch.setattr(transforms, "_POSE_PAUSE", 0.3)
    source = transforms.ExtrinsicsSource(rclpy.create_node("poses"), (), 0.0, poses=True)
    asked, calls = {}, []

    def lookup(target, source, stamp_ns):
        """What /tf knows: nothing of stamp 1, others a moment after they are first asked for."""
        calls.append(stamp_ns)
        first = asked.setdefault(stamp_ns, time.monotonic())
        late = stamp_ns > 1 and time.monotonic() - first > 0.03
        return ((0.0, 0.0, float(stamp_ns)), (0.0, 0.0, 0.0, 1.0)) if late else None

    source._tf = lookup
    assert source.pose("map", "camera", 1) is None
    assert source.pose("map", "camera", 2) is None
    assert calls.count(2) == 1 < calls.count(1)
    time.sleep(0.35)
    for stamp in (3, 4, 5):
        assert source.pose("map", "camera", stamp)[2, 3] == stamp
