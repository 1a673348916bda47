"""The executables as a user starts and ends them; but for one, forked, which saves most of their time."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")
import node_process

REPO = Path(__file__).resolve().parents[2]


def start(module, *parameters):
    return node_process.start(module, *ros_arguments(parameters))


def start_executable(*parameters):
    return subprocess.Popen(
        [sys.executable, REPO / "scripts" / "upsample_node", *ros_arguments(parameters)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip


def ros_arguments(parameters):
    return ["--ros-args", *(a for p in parameters for a in ("-p", p))]


def output(process, seconds=120):
    out, _ = process.communicate(timeout=seconds)
    return out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_the_node_cleanly(tiny_weights, number):
    parameters = (f"weights:={tiny_weights}", "device:=cpu")
    # One of them from first to last as a user runs it: the interpreter's own end counts.
    process = start_executable(*parameters) if number == signal.SIGTERM else start("node", *parameters)
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "waiting for" in line:
            break
    time.sleep(0.5)
    process.send_signal(number)
    rest = output(process)
    assert process.returncode == 0, "".join(lines) + rest
    assert "Traceback" not in rest


def corrupt(tmp_path, tiny_weights):
    path = tmp_path / "corrupt.safetensors"
    path.write_bytes(tiny_weights.read_bytes()[:500])
    return f"weights:={path}", "not a readable safetensors"


def missing(tmp_path, tiny_weights):
    return "weights:=no-such-weights", "no weights 'no-such-weights'"


def another_configuration(tmp_path, tiny_weights):
    import json

    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    with safe_open(tiny_weights, "pt") as file:
        metadata = file.metadata()
    metadata["config"] = json.dumps(json.loads(metadata["config"]) | {"channels": 16})
    save_file(load_file(tiny_weights), tmp_path / "other.safetensors", metadata)
    return f"weights:={tmp_path / 'other.safetensors'}", "do not fit its configuration"


@pytest.mark.parametrize("fault", [corrupt, missing, another_configuration])
def test_weights_that_cannot_be_used_end_the_node_with_a_message(tmp_path, tiny_weights, fault):
    parameter, expected = fault(tmp_path, tiny_weights)
    process = start("node", parameter)
    out = output(process)
    assert process.returncode == 1
    assert expected in out
    assert "Traceback" not in out


def test_player_refuses_a_folder_that_is_no_recording(tmp_path):
    process = start("recording_player", f"recording:={tmp_path}")
    out = output(process)
    assert process.returncode == 1
    assert "holds no frames" in out
    assert "Traceback" not in out


@pytest.fixture
def recording(tmp_path):
    """Three frames of a registered camera."""
    import json

    from PIL import Image

    for i in range(3):
        Image.fromarray(np.full((24, 32, 3), 40 * i, np.uint8)).save(tmp_path / f"{i:03d}.color.png")
        Image.fromarray(np.full((6, 8), 1000 + i, np.uint16)).save(tmp_path / f"{i:03d}.depth.png")
    camera = {
        "width": 32,
        "height": 24,
        "distortion_model": "plumb_bob",
        "K": [30, 0, 15, 0, 30, 11, 0, 0, 1],
        "D": [0] * 5,
    }
    (tmp_path / "calibration.json").write_text(json.dumps({"color": camera, "rate_hz": 20}))
    return tmp_path


def test_player_publishes_every_frame_once_as_four_topics(ros, recording):
    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from sensor_msgs.msg import CameraInfo, Image

    from d2a2_core.messages.encodings import view
    from d2a2_ros.images import color_array

    listener = rclpy.create_node("listener")
    got = {t: [] for t in ("color/image_raw", "color/camera_info", "depth/image_raw", "depth/camera_info")}
    for topic, messages in got.items():
        listener.create_subscription(CameraInfo if "info" in topic else Image, topic, messages.append, 20)
    executor = SingleThreadedExecutor()
    executor.add_node(listener)
    process = start(
        "recording_player", f"recording:={recording}", "loop:=false", "wait_for_subscribers:=true", "first_pause:=1.0"
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not all(len(m) == 3 for m in got.values()):
        executor.spin_once(timeout_sec=0.1)
    assert process.wait(30) == 0, output(process)
    listener.destroy_node()
    assert [view(m)[0, 0] for m in got["depth/image_raw"]] == [1000, 1001, 1002]
    assert [color_array(m)[0, 0, 0] for m in got["color/image_raw"]] == [0, 40, 80]
    for messages in zip(*got.values(), strict=True):
        assert len({(m.header.stamp.sec, m.header.stamp.nanosec) for m in messages}) == 1
        assert {m.header.frame_id for m in messages} == {"camera_color_optical_frame"}
    stamps = [m.header.stamp.sec + 1e-9 * m.header.stamp.nanosec for m in got["depth/image_raw"]]
    assert stamps[1] - stamps[0] >= 1.0 > stamps[2] - stamps[1]
    info = got["depth/camera_info"][0]
    np.testing.assert_allclose(info.k, [7.5, 0, 3.375, 0, 7.5, 2.375, 0, 0, 1])
    assert (info.width, info.height) == (8, 6)


def test_player_sends_the_first_frame_at_once_however_low_the_rate(ros, recording):
    import rclpy
    from sensor_msgs.msg import Image

    listener, got = rclpy.create_node("listener"), {"color/image_raw": [], "depth/image_raw": []}
    for topic, messages in got.items():
        listener.create_subscription(Image, topic, messages.append, 20)
    # The next frame would come after a quarter of an hour.
    process = start("recording_player", f"recording:={recording}", "wait_for_subscribers:=true", "rate_hz:=0.001")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not all(got.values()):
        rclpy.spin_once(listener, timeout_sec=0.1)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0, output(process)
    listener.destroy_node()
    assert [len(messages) for messages in got.values()] == [1, 1]


def test_wrong_parameters_file_ends_with_a_message(tmp_path):
    (tmp_path / "bad.yaml").write_text("{ this is: [not yaml")
    process = node_process.start("node", "--ros-args", "--params-file", str(tmp_path / "bad.yaml"))
    out = output(process)
    assert process.returncode == 1
    assert "upsample_node cannot start" in out
    assert "Traceback" not in out


def test_two_interrupts_in_mid_frame_end_the_node_within_seconds(tiny_weights):
    process = node_process.start_slow(*ros_arguments((f"weights:={tiny_weights}", "device:=cpu")))
    for line in process.stdout:
        if "computing" in line:
            break
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    assert "Traceback" not in process.stdout.read()


def test_sigterm_under_a_running_callback_is_a_clean_end(recording):
    process = start("recording_player", f"recording:={recording}", "rate_hz:=200.0")
    for line in process.stdout:
        if "frames of" in line:
            break
    time.sleep(1.0)
    process.send_signal(signal.SIGTERM)
    rest = output(process)
    assert process.returncode == 0, rest
    assert "cannot" not in rest
