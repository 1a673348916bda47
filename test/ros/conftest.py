"""A running upsampling node with tiny random weights, and a tester that talks to it over DDS like any other node."""

import fcntl
import os
import sys
import tempfile
import threading
import time
import types
from pathlib import Path

import numpy as np
import pytest

rclpy = pytest.importorskip(
    "rclpy", reason="needs rclpy (make venv installs it from PyPI; on a ROS machine source ROS)"
)

REPO = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def _own_domain() -> tuple[int, object]:
    """A ROS domain that no other test process on this machine uses, and the locked file that keeps the others out.

    The ports of domains 215 to 232 are above those that the kernel hands out by itself.
    """
    folder = Path(tempfile.gettempdir()) / f"d2a2_test_domains_{os.getuid()}"
    folder.mkdir(exist_ok=True)
    for domain in range(215, 233):
        lock = (folder / str(domain)).open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            continue
        return domain, lock
    raise RuntimeError(f"all ROS domains for tests are taken, see the processes that hold files of {folder}")


# The lock is held until this process ends.
DOMAIN, LOCK = _own_domain()
os.environ["ROS_DOMAIN_ID"] = str(DOMAIN)
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
for variable in ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"):
    os.environ.setdefault(variable, os.path.join(REPO, "config", "fastdds.xml"))
os.environ.setdefault("ROS_LOG_DIR", "/tmp/d2a2_test_log")


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory):
    """Path of a small random model for all scales; fast, and its output stays within the input's range."""
    import torch

    from d2a2_core.network.lite import D2A2Lite
    from d2a2_core.weights import save_weights

    torch.manual_seed(0)
    model = D2A2Lite(channels=8, blocks=1)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_weights(path, model, {})
    return path


@pytest.fixture(scope="session")
def simple_weights(tmp_path_factory):
    """Path of a small random D2A2 for x4, which OpenVINO compiles in a third of a second (tiny_weights in five)."""
    import torch

    from d2a2_core.network import D2A2
    from d2a2_core.weights import save_weights

    torch.manual_seed(0)
    model = D2A2(4, channels=8, blocks=1, domain="none", geometric=False, gated=False, attention="none")
    path = tmp_path_factory.mktemp("weights") / "simple.safetensors"
    save_weights(path, model, {})
    return path


@pytest.fixture(scope="session")
def ros():
    """An initialised rclpy."""
    rclpy.init(args=[])
    yield
    rclpy.try_shutdown()


@pytest.fixture
def installed(tmp_path, repo):
    """The package as it is installed, in which launch files start probes in place of nodes."""
    pytest.importorskip(
        "launch_ros", reason="needs launch_ros (make venv installs a stand-in; on a ROS machine source ROS)"
    )
    from launch_files import Installed

    return Installed(tmp_path / "prefix", repo)


@pytest.fixture
def tf_messages(monkeypatch):
    """No tf2_ros, and a tf2_msgs whose TFMessage is one TransformStamped: the real package is not on PyPI."""
    from geometry_msgs.msg import TransformStamped

    monkeypatch.setitem(sys.modules, "tf2_ros", None)
    package, messages = types.ModuleType("tf2_msgs"), types.ModuleType("tf2_msgs.msg")
    messages.TFMessage = TransformStamped
    monkeypatch.setitem(sys.modules, "tf2_msgs", package)
    monkeypatch.setitem(sys.modules, "tf2_msgs.msg", messages)
    monkeypatch.setattr(TransformStamped, "transforms", property(lambda self: [self]), raising=False)


class Bench:
    """The node under test, a tester beside it, and what came out."""

    def __init__(self, weights, parameters):
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.parameter import Parameter
        from rclpy.qos import QoSProfile
        from sensor_msgs.msg import CameraInfo

        from d2a2_ros.node import UpsampleNode

        values = {"weights": str(weights), "device": "cpu", "runtime": "torch", **parameters}
        self.node = UpsampleNode(parameter_overrides=[Parameter(k, value=v) for k, v in values.items()])
        self.tester = rclpy.create_node("tester")
        self.qos = QoSProfile(depth=20)
        self.out = {}
        self._publishers = {
            topic: self.tester.create_publisher(kind, topic, self.qos)
            for topic, kind in (
                ("color/image_raw", self.node._color.sub.msg_type),
                ("depth/image_raw", self.node._depth.sub.msg_type),
                ("color/camera_info", CameraInfo),
                ("depth/camera_info", CameraInfo),
            )
        }
        self.warnings = []
        self.node.reporter._logger = self  # what is reported, as a user would read it in the log
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._executor.add_node(self.tester)
        self._thread = threading.Thread(target=self._executor.spin, daemon=True)
        self._thread.start()
        self.wait(lambda: all(p.get_subscription_count() for p in self._publishers.values()))

    def warning(self, message):
        self.warnings.append(message)

    def listen(self, topic, kind):
        """Collects the messages of a topic in ``out[topic]`` and waits until the node sees the subscription."""
        before = self.tester.count_subscribers(topic)
        self.out[topic] = []
        self.tester.create_subscription(kind, topic, self.out[topic].append, self.qos)
        publishers = [p for p in self.node.publishers if p.topic_name.strip("/") == topic.strip("/")]
        self.wait(lambda: all(p.get_subscription_count() > before for p in publishers))

    def send(self, topic, msg):
        """Publishes one message."""
        self._publishers[topic].publish(msg)

    def send_pair(self, stamp=1.0, color=None, depth=None, offset=0.0, frame_id="color_frame", depth_frame=None):
        """A colour and a depth image, in one frame unless said otherwise; ``stamp`` in seconds."""
        color = np.full((32, 48, 3), 100, np.uint8) if color is None else color
        depth = np.full((8, 12), 1500, np.uint16) if depth is None else depth
        self.send("color/image_raw", image(color, "rgb8", stamp, frame_id))
        encoding = "32FC1" if depth.dtype == np.float32 else "16UC1"
        self.send("depth/image_raw", image(depth, encoding, stamp + offset, depth_frame or frame_id))

    def wait(self, condition, seconds=60.0):
        """Waits for a condition, and fails if it does not come true."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"nothing happened; warnings so far: {self.warnings}"
            time.sleep(0.01)

    def wait_for(self, topic, count=1):
        """The first ``count`` messages of a topic."""
        self.wait(lambda: len(self.out[topic]) >= count)
        return self.out[topic]

    def close(self):
        self._executor.shutdown()
        self._thread.join(5)
        self.node.destroy_node()
        self.tester.destroy_node()


def stamped(seconds, frame_id):
    """A Header."""
    from builtin_interfaces.msg import Time
    from std_msgs.msg import Header

    nanoseconds = round(seconds * 1e9)
    return Header(stamp=Time(sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9), frame_id=frame_id)


def image(array, encoding, stamp=1.0, frame_id=""):
    """An Image message."""
    from d2a2_ros.images import to_message

    return to_message(array, encoding, stamped(stamp, frame_id))


@pytest.fixture
def bench(ros, tiny_weights):
    """A function that starts a Bench with parameters; all are closed after the test."""
    started = []

    def start(weights=tiny_weights, **parameters):
        started.append(Bench(weights, parameters))
        return started[-1]

    yield start
    for one in started:
        one.close()
