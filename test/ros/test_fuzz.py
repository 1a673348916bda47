"""Whole messages, mutated in every field, against the running node: it lives, and answers every good pair in between.

D2A2_FUZZ=20000 sets the number of messages, and checks how long a good pair waited and how much memory was taken.
"""

import signal
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from fuzzing import fuzz_count

pytest.importorskip("rclpy")
import node_process
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo, Image

from d2a2_core.geometry import Camera
from d2a2_ros.cameras import info_from_camera

from .conftest import image, stamped

MESSAGES = fuzz_count(0)
BURST = 30  # hostile messages between good pairs
CAMERA = Camera(160, 120, 130.0, 130.0, 79.5, 59.5)
COLOR = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
DEPTH = np.full((30, 40), 1500, np.uint16)
TOPICS = {
    "color/image_raw": Image,
    "depth/image_raw": Image,
    "color/camera_info": CameraInfo,
    "depth/camera_info": CameraInfo,
}
UINT32 = (0, 1, 2, 3, 7, 160, 65535, 2**31, 2**32 - 1)
ENCODINGS = (
    "", "rgb8", "bgr8", "rgba8", "mono8", "mono16", "16UC1", "32FC1", "64FC1", "8UC3", "16SC4", "bayer_rggb8", "bayer_gbrg16",
    "yuv422", "yuyv", "nv21", "foo", "rgb8\0", "ä" * 90, "e" * 5000,
)  # fmt: skip
FRAMES = ("", "/", "color", "/color", "depth", "//depth", "\0", "ß" * 40, "f" * 300)
FLOATS = (0.0, 1.0, -1.0, 0.9, 1e-300, 1e300, -1e300, 1e-5, 3.04, 130.0, float("nan"), float("inf"), -float("inf"))
MODELS = ("", "plumb_bob", "rational_polynomial", "equidistant", "fisheye", "Plumb_Bob", "m" * 5000)


def good_messages(stamp):
    """The four messages of a pair that the node must answer."""
    return {
        "color/camera_info": info_from_camera(CAMERA, stamped(stamp, "color")),
        "depth/camera_info": info_from_camera(CAMERA.resized(40, 30), stamped(stamp, "color")),
        "color/image_raw": image(COLOR, "rgb8", stamp, "color"),
        "depth/image_raw": image(DEPTH, "16UC1", stamp, "color"),
    }


class Fuzzer:
    """Mutates good messages; the same seed gives the same ones."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def pick(self, values):
        return values[self.rng.integers(len(values))]

    def message(self, stamp):
        """(topic, message or its mutated CDR bytes)."""
        topic = self.pick(list(TOPICS))
        msg = good_messages(stamp)[topic]
        for _ in range(self.rng.integers(1, 4)):
            self.pick((self.header, self.image if isinstance(msg, Image) else self.info))(msg)
        if self.rng.random() < 0.2:
            return topic, self.bytes(serialize_message(msg))
        return topic, msg

    def header(self, msg):
        stamp = msg.header.stamp
        stamp.sec = int(self.pick((-(2**31), -1, 0, 1, stamp.sec, stamp.sec + 3600, 2**31 - 1)))
        stamp.nanosec = int(self.pick((0, stamp.nanosec, 999_999_999, 1_000_000_000, 4_000_000_000, 2**32 - 1)))
        msg.header.frame_id = "x" * 10_000_000 if self.rng.random() < 0.001 else self.pick(FRAMES)

    def image(self, msg):
        field = self.pick(("height", "width", "step", "encoding", "is_bigendian", "data"))
        if field == "encoding":
            msg.encoding = self.pick(ENCODINGS)
        elif field == "is_bigendian":
            msg.is_bigendian = int(self.rng.integers(256))
        elif field == "data":
            size = int(self.pick((0, 1, len(msg.data) // 2, len(msg.data), 200_000)))
            msg.data = bytes(self.rng.integers(0, 256, size, np.uint8))
        else:
            setattr(msg, field, int(self.pick(UINT32)))

    def info(self, msg):
        field = self.pick(("height", "width", "binning_x", "binning_y", "roi", "d", "k", "r", "p", "distortion_model"))
        if field == "roi":
            for part in ("x_offset", "y_offset", "width", "height"):
                setattr(msg.roi, part, int(self.pick(UINT32)))
        elif field == "d":
            msg.d = [self.pick(FLOATS) for _ in range(self.pick((0, 1, 4, 5, 8, 14, 200, 5000)))]
        elif field in ("k", "r", "p"):
            values = list(getattr(msg, field))
            for _ in range(self.rng.integers(1, 4)):
                values[self.rng.integers(len(values))] = self.pick(FLOATS)
            setattr(msg, field, values)
        elif field == "distortion_model":
            msg.distortion_model = self.pick(MODELS)
        else:
            setattr(msg, field, int(self.pick(UINT32)))

    def bytes(self, raw):
        data = bytearray(raw)
        if self.rng.random() < 0.3:
            return bytes(data[: self.rng.integers(4, len(data))])
        for _ in range(self.rng.integers(1, 6)):
            # Most of the bytes are pixels; what comes before them is what is parsed.
            data[self.rng.integers(4, min(len(data), 120))] = self.rng.integers(256)
        return bytes(data)


class Running:
    """A node in a process of its own, and what it answers."""

    def __init__(self, *parameters):
        arguments = ["--ros-args"] + [argument for parameter in parameters for argument in ("-p", parameter)]
        self.process = node_process.start("node", *arguments)
        self.log = []
        # Whoever does not read a full pipe stops the node.
        threading.Thread(target=lambda: self.log.extend(self.process.stdout), daemon=True).start()
        self.node = rclpy.create_node("fuzzer")
        self.answered = set()
        self.publishers = {
            topic: self.node.create_publisher(kind, topic, QoSProfile(depth=20)) for topic, kind in TOPICS.items()
        }
        self.node.create_subscription(Image, "depth_upsampled/image_raw", self._on_depth, QoSProfile(depth=20))
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self.stamp, self.longest, self._since = 1_000_000.0, 0.0, None

    def _on_depth(self, msg):
        self.answered.add(msg.header.stamp.sec + 1e-9 * msg.header.stamp.nanosec)

    def connect(self):
        """Waits until the node hears all topics and this subscriber hears it."""
        while not all(p.get_subscription_count() for p in self.publishers.values()) or not self.node.count_publishers(
            "depth_upsampled/image_raw"
        ):
            self.spin(0.05)

    def spin(self, seconds):
        assert self.process.poll() is None, "".join(self.log)
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left)

    def answer_a_good_pair(self):
        """Sends good pairs, ten a second as a camera does, until one of them is answered; notes how long none was."""
        first, begun = self.stamp, time.monotonic()
        while not any(first < stamp <= self.stamp for stamp in self.answered):
            assert time.monotonic() - begun < 60, "no answer to good pairs; log:\n" + "".join(self.log[-20:])
            self.stamp += 0.1
            for topic, msg in good_messages(self.stamp).items():
                self.publishers[topic].publish(msg)
            for _ in range(10):
                self.spin(0.01)
                if round(self.stamp, 3) in {round(stamp, 3) for stamp in self.answered}:
                    break
        now = time.monotonic()
        self.longest = max(self.longest, now - (self._since or now))
        self._since = now
        self.answered.clear()

    def memory(self, key):
        """MB of VmRSS or VmHWM."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024

    def close(self):
        # Killed, it would leave its segment of shared memory behind.
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.node.destroy_node()


@pytest.mark.slow
def test_no_message_ends_the_node_and_good_pairs_are_answered_in_between(ros):
    fuzzer = Fuzzer(MESSAGES)
    node = Running("weights:=d2a2-nano-sensor", "device:=cpu", "runtime:=torch", "precision:=float32", "threads:=1")
    try:
        node.connect()
        node.answer_a_good_pair()
        node._since = None
        before, sent = node.memory("VmRSS"), 0
        while sent < (MESSAGES or 300):
            for _ in range(BURST):
                topic, msg = fuzzer.message(node.stamp + 0.05)
                node.publishers[topic].publish(msg)
                sent += 1
                node.spin(0.002)
            node.answer_a_good_pair()
        after, peak = node.memory("VmRSS"), node.memory("VmHWM")
    finally:
        node.close()
    figures = (
        f"{sent} messages: longest time without an answered good pair {node.longest:.2f} s; memory {before:.0f} MB before, "
        f"{after:.0f} MB after, {peak:.0f} MB at most; {len(node.log)} lines in the log"
    )
    print(figures)
    assert "Traceback" not in "".join(node.log)
    assert after - before < 500, figures
    if MESSAGES:
        assert node.longest < 2.0, figures
