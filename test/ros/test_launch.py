"""The launch files, run by launch and launch_ros or by their stand-ins: what the node processes get to see, and one real pair."""

import json
import os
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip(
    "launch_ros", reason="needs launch_ros (make venv installs a stand-in; on a ROS machine source ROS)"
)
rclpy = pytest.importorskip("rclpy")
from launch.launch_description_sources import get_launch_description_from_python_launch_file  # noqa: E402
from launch_files import PROBE, PROFILE_VARIABLES  # noqa: E402

NODE_ARGUMENTS = {
    "camera",
    "params_file", "namespace", "color_image", "color_info", "depth_image", "depth_info", "weights", "device", "use_sim_time",
    "log_level",
}  # fmt: skip


def test_defaults(installed):
    seen = installed.probe("d2a2.launch.py")
    assert list(seen) == ["upsample_node"]
    node = seen["upsample_node"]
    assert node["name"] == "/upsample_node"
    assert node["topics"] == ["/color/image_raw", "/color/camera_info", "/depth/image_raw", "/depth/camera_info"]
    assert (node["parameters"]["device"], node["parameters"]["max_fill_px"]) == ("auto", 16.0)
    assert node["parameters"]["use_sim_time"] is False
    assert node["log_level"] == "INFO"
    for variable in PROFILE_VARIABLES:
        assert Path(node["environment"][variable]) == installed.share / "config" / "fastdds.xml"


def test_arguments_reach_the_node(installed, tmp_path):
    params = tmp_path / "mine.yaml"
    # The entry for this very node must not win over the command line.
    params.write_text(
        "/**: {ros__parameters: {threads: 3}}\n/front/upsample_node: {ros__parameters: {device: cpu, scale: 8}}\n"
    )
    node = installed.probe(
        "d2a2.launch.py", f"params_file:={params}", "namespace:=front", "weights:=2024", "device:=cuda:1", "use_sim_time:=true",
        "log_level:=debug", "color_image:=/cam/rgb", "color_info:=/cam/info", "depth_image:=tof",
        "depth_info:=tof_info", FASTRTPS_DEFAULT_PROFILES_FILE="/user.xml",
    )["upsample_node"]  # fmt: skip
    assert node["name"] == "/front/upsample_node"
    assert node["topics"] == ["/cam/rgb", "/cam/info", "/front/tof", "/front/tof_info"]
    assert {key: node["parameters"][key] for key in ("threads", "weights", "device", "scale", "use_sim_time")} == {
        "threads": 3, "weights": "2024", "device": "cuda:1", "scale": 8, "use_sim_time": True,
    }  # fmt: skip
    assert node["log_level"] == "DEBUG"
    assert node["environment"][PROFILE_VARIABLES[0]] == "/user.xml"
    assert node["environment"][PROFILE_VARIABLES[1]].endswith("fastdds.xml")


def test_params_file_is_left_alone_without_overrides(installed, tmp_path):
    params = tmp_path / "mine.yaml"
    params.write_text("upsample_node: {ros__parameters: {device: cpu, use_sim_time: true}}\n")
    node = installed.probe("d2a2.launch.py", f"params_file:={params}")["upsample_node"]
    assert node["parameters"]["device"] == "cpu"
    assert node["parameters"]["use_sim_time"] is True


def test_demo_starts_the_player_beside_the_node(installed):
    arguments = ("recording:=123", "rate_hz:=5", "loop:=false", "device:=cpu", "namespace:=demo", "log_level:=warn")
    seen = installed.probe("demo.launch.py", *arguments)
    node, player = seen["upsample_node"], seen["recording_player"]
    assert (node["name"], player["name"]) == ("/demo/upsample_node", "/demo/recording_player")
    assert node["topics"] == player["topics"]
    assert node["parameters"]["device"] == "cpu"
    played = {key: player["parameters"][key] for key in ("recording", "rate_hz", "loop")}
    assert played == {"recording": "123", "rate_hz": 5.0, "loop": False}
    assert node["log_level"] == player["log_level"] == "WARN"
    # Large images need the profile on both sides.
    assert all(player["environment"][v] == node["environment"][v] for v in PROFILE_VARIABLES)


def test_demo_plays_the_installed_sample(installed):
    player = installed.probe("demo.launch.py")["recording_player"]
    assert Path(player["parameters"]["recording"]) == installed.share / "sample_recording"
    assert player["parameters"]["rate_hz"] == 0.0
    assert player["parameters"]["loop"] is True


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "params_file cannot be read"),
        ("/**: [unclosed", "params_file is not valid YAML"),
        ("device: cpu\n", "params_file must hold '/**: ros__parameters"),
        ("", "params_file must hold '/**: ros__parameters"),
    ],
)
def test_unusable_params_file_stops_the_launch(installed, tmp_path, content, message):
    probe = installed.executable("upsample_node", PROBE)
    params = tmp_path / "mine.yaml"
    if content is not None:
        params.write_text(content)
    process = installed.start("d2a2.launch.py", f"params_file:={params}")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert message in output
    assert str(params) in output
    assert not probe.with_suffix(".json").exists()


@pytest.mark.parametrize("file", ["d2a2.launch.py", "demo.launch.py"])
def test_declared_arguments_are_described(installed, monkeypatch, file):
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(installed.prefix))  # demo includes the other by its installed path
    description = get_launch_description_from_python_launch_file(str(installed.share / "launch" / file))
    arguments = {argument.name: argument for argument in description.get_launch_arguments()}
    assert set(arguments) == NODE_ARGUMENTS | ({"recording", "rate_hz", "loop"} if file == "demo.launch.py" else set())
    assert all(argument.default_value is not None for argument in arguments.values())
    assert all(argument.description for argument in arguments.values())


def test_demo_passes_pairs(installed, tmp_path, repo, tiny_weights):
    """The real executables, end to end."""
    from PIL import Image as PilImage

    params, recording = tmp_path / "mine.yaml", tmp_path / "recording"
    params.write_text(f"/**: {{ros__parameters: {{weights: {tiny_weights}, runtime: torch}}}}\n")
    recording.mkdir()
    PilImage.fromarray(np.full((48, 64, 3), 90, np.uint8)).save(recording / "color.png")
    PilImage.fromarray(np.full((12, 16), 1500, np.uint16)).save(recording / "depth.png")
    camera = {"width": 64, "height": 48, "K": [60, 0, 31.5, 0, 60, 23.5, 0, 0, 1], "D": []}
    (recording / "calibration.json").write_text(json.dumps({"color": camera}))
    for name in ("upsample_node", "recording_player"):
        installed.executable(name, (repo / "scripts" / name).read_text())
    namespace = f"/launch_test_{os.getpid()}"
    process = installed.start(
        "demo.launch.py", f"params_file:={params}", f"recording:={recording}", f"namespace:={namespace}", "device:=cpu"
    )
    try:
        depth = _first_depth(f"{namespace}/depth_upsampled/image_raw", process)
    finally:
        output = installed.end(process)
    assert depth is not None, output
    assert (depth.width, depth.height, depth.encoding) == (64, 48, "32FC1")
    assert process.returncode == 0, output
    assert "has died" not in output


def _first_depth(topic: str, process: subprocess.Popen, patience: float = 120.0):
    from rclpy.executors import SingleThreadedExecutor
    from sensor_msgs.msg import Image

    context = rclpy.Context()
    rclpy.init(args=[], context=context)
    node = rclpy.create_node("listener", context=context)
    received = []
    node.create_subscription(Image, topic, received.append, 1)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    end = time.monotonic() + patience
    while not received and process.poll() is None and time.monotonic() < end:
        executor.spin_once(timeout_sec=0.2)
    executor.shutdown()
    node.destroy_node()
    rclpy.shutdown(context=context)
    return received[0] if received else None
