"""The demo end to end with a tiny network: two processes, real DDS, every frame accounted for."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("rclpy")
import node_process

from d2a2_ros import silence
from d2a2_ros.demo import first_pause


def write_recording(folder, depth_to_color=None):
    rng = np.random.default_rng(0)
    for i in range(3):
        Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(folder / f"{i:03d}.color.png")
        Image.fromarray(rng.integers(1000, 1100, (12, 16), dtype=np.uint16)).save(folder / f"{i:03d}.depth.png")
        Image.fromarray(np.full((48, 64), 1050, np.uint16)).save(folder / f"{i:03d}.truth.png")
    camera = {"width": 64, "height": 48, "K": [60, 0, 31, 0, 60, 23, 0, 0, 1], "D": []}
    calibration = {"color": camera, "rate_hz": 5}
    if depth_to_color:
        calibration["depth_to_color"] = depth_to_color
    (folder / "calibration.json").write_text(json.dumps(calibration))


# The demo takes a domain by its process's number; here it gets that of this test process, which no other one has.
DEMO = """
import os, sys
from d2a2_ros import demo
environment = demo.demo_environment
demo.demo_environment = lambda: environment() | {"ROS_DOMAIN_ID": os.environ["ROS_DOMAIN_ID"]}
sys.exit(demo.main())
"""


def arguments(folder, out, weights):
    return ["--recording", str(folder), "--out", str(out), "--weights", str(weights), "--rate", "2"]


def test_every_frame_comes_out_and_the_results_are_written(tmp_path, simple_weights):
    write_recording(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", DEMO, *arguments(tmp_path, tmp_path / "out", simple_weights)],
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    table = dict(line.rsplit(maxsplit=1) for line in (tmp_path / "out/table.txt").read_text().splitlines())
    assert table["frames played"] == table["pairs into the node"] == "3"
    # On a machine that is busy with something else a pair may have been replaced; none may be lost.
    assert int(table["pairs out of the node"]) + int(table["pairs replaced by newer ones"]) == 3
    assert 0 < float(table["RMSE bicubic [mm]"]) < 50
    assert 0 < float(table["RMSE ours [mm]"]) < 200
    assert Image.open(tmp_path / "out/contact_sheet.png").size[0] > 1000
    ply = (tmp_path / "out/cloud.ply").read_bytes()
    header, body = ply.split(b"end_header\n", 1)
    assert b"element vertex 3072" in header
    assert len(body) == 3072 * 15
    assert table["points in cloud.ply"] == "3072"


def test_depth_in_its_own_camera_is_registered(tmp_path, simple_weights):
    write_recording(tmp_path, {"R": [1, 0, 0, 0, 1, 0, 0, 0, 1], "t": [0.05, 0, 0]})
    # Forked, as the demo's own start is proved above.
    demo = node_process.start_demo(*arguments(tmp_path, tmp_path / "out", simple_weights))
    out, _ = demo.communicate(timeout=400)
    assert demo.returncode == 0, out
    assert "registered here" in out


@pytest.mark.parametrize("cache", ["on", "off"])
@pytest.mark.parametrize("seconds", [0.05, 2.0, 15.0, 100.0])
def test_the_node_misses_no_images_during_the_pause(seconds, cache, tmp_path, monkeypatch):
    monkeypatch.setenv("D2A2_CACHE", str(tmp_path) if cache == "on" else "off")
    assert min(seconds, 4.0) < first_pause(seconds) < silence._SILENCE - 1
