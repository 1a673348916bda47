"""The same frames through `d2a2 bag` and through the live node: equal messages, field for field."""

import numpy as np
import pytest
import torch

pytest.importorskip("rclpy")
pytest.importorskip("rosbags", reason="needs rosbags (pip install rosbags)")

from rclpy.serialization import deserialize_message, serialize_message
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from d2a2_core.bag.storage import typestore
from d2a2_core.cli import main
from d2a2_core.geometry import Camera
from d2a2_core.runtime.openvino import OpenVinoRuntime, has_openvino
from d2a2_ros.cameras import info_from_camera

from .conftest import image, stamped

KINDS = {"image_raw": Image, "camera_info": CameraInfo, "provenance": Image, "points": PointCloud2}
EXTRINSICS = [0.03, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]


def scene(i):
    """Colour and depth of frame ``i``: a wall that comes nearer with a box before it, a hole, and noise."""
    rng = np.random.default_rng(i)
    color = rng.integers(0, 256, (32, 48, 3), dtype=np.uint8)
    depth = np.full((8, 12), 3000 - 90 * i) + rng.integers(-5, 6, (8, 12))
    depth[2:6, 3:8] = 900 + 20 * i
    depth[:2, 9:] = 0
    return color, depth.astype(np.uint16)


@pytest.mark.parametrize("case", ["registered", "in the depth camera's view"])
def test_bag_and_node_give_the_same_messages(bench, simple_weights, tmp_path, case, monkeypatch):
    """By OpenVINO, where it is installed. The bag takes it by itself; so does the node, but not from its first pair on."""
    runs, whole = [], OpenVinoRuntime.whole

    def counted(self, make, profiled=False):
        graph = whole(self, make, profiled)
        call = type(graph).__call__

        class Counted(type(graph)):
            def __call__(self, *inputs):
                if inputs[0].dtype == torch.uint8:  # a frame, not an inspection
                    runs.append(self)
                return call(self, *inputs)

        graph.__class__ = Counted
        return graph

    monkeypatch.setattr(OpenVinoRuntime, "whole", counted)
    apart = case != "registered"
    frame = "depth_frame" if apart else "color_frame"
    color_info = info_from_camera(
        Camera(96, 64, 80.0, 82.0, 47.5, 31.5), stamped(0.0, "color_frame")
    )  # twice the image
    depth_info = info_from_camera(Camera(12, 8, 10.0, 10.25, 5.5, 3.5), stamped(0.0, frame))
    pairs = []
    for i in range(6):
        color, depth = scene(i)
        pairs.append((image(color, "rgb8", 1 + i / 15, "color_frame"), image(depth, "16UC1", 1.002 + i / 15, frame)))
    # A different order of axes and a padded row are the drivers' business, but must not make a difference here either.
    pairs[3][0].encoding = "bgr8"

    b = bench(
        simple_weights,
        runtime="openvino" if has_openvino() else "torch",
        max_fill_px=6.0,
        color_offset=[2.0, -1.0],
        **({"extrinsics": EXTRINSICS} if apart else {}),
    )
    for name, kind in KINDS.items():
        b.listen(f"depth_upsampled/{name}", kind)
    b.send("color/camera_info", color_info)
    b._publishers["depth/camera_info"] = b.tester.create_publisher(CameraInfo, "depth/camera_info", b.qos)
    b.wait(lambda: b._publishers["depth/camera_info"].get_subscription_count())
    b.send("depth/camera_info", depth_info)
    b.wait(lambda: len(b.node._infos) == 2)
    for n, (color, depth) in enumerate(pairs, 1):
        b.send("color/image_raw", color)
        b.send("depth/image_raw", depth)
        b.wait_for("depth_upsampled/camera_info", n)  # published last

    with Writer(tmp_path / "in", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connections = {
            topic: writer.add_connection(topic, f"sensor_msgs/msg/{kind}", typestore=typestore())
            for topic, kind in (
                ("/c/color/camera_info", "CameraInfo"), ("/c/depth/camera_info", "CameraInfo"),
                ("/c/color/image_raw", "Image"), ("/c/depth/image_raw", "Image"),
            )
        }  # fmt: skip
        writer.write(connections["/c/color/camera_info"], 10**9, serialize_message(color_info))
        writer.write(connections["/c/depth/camera_info"], 10**9, serialize_message(depth_info))
        for n, (color, depth) in enumerate(pairs):
            writer.write(connections["/c/color/image_raw"], 10**9 + n, serialize_message(color))
            writer.write(connections["/c/depth/image_raw"], 10**9 + n, serialize_message(depth))
    arguments = ["bag", tmp_path / "in", tmp_path / "out", "--cloud", "--weights", simple_weights, "--device", "cpu"]
    arguments += ["--max-fill-px", 6.0, "--color-offset", 2.0, -1.0, *(["--extrinsics", *EXTRINSICS] if apart else [])]
    assert main([str(a) for a in arguments]) == 0

    got = {name: [] for name in KINDS}
    with Reader(tmp_path / "out") as reader:
        for connection, _, raw in reader.messages():
            name = connection.topic.removeprefix("/depth_upsampled/")
            if name in KINDS:
                got[name].append(deserialize_message(bytes(raw), KINDS[name]))
    for name in KINDS:
        live = b.wait_for(f"depth_upsampled/{name}", len(pairs))
        assert len(got[name]) == len(live) == len(pairs)
        for ours, theirs in zip(got[name], live, strict=True):
            assert ours == theirs, name
    assert len(runs) == 2 * len(pairs) * has_openvino()
    depth = np.frombuffer(got["image_raw"][-1].data, np.float32)
    assert 0.2 < np.isfinite(depth).mean() <= 1
