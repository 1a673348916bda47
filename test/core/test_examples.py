"""The examples without ROS, run as a user runs them."""

import re
import runpy
import sys

import numpy as np
import pytest
from PIL import Image


def points_of(path):
    """Points (N, 3) in metres of a binary PLY file with x y z red green blue, and colours (N, 3) uint8."""
    header, _, body = path.read_bytes().partition(b"end_header\n")
    vertices = np.frombuffer(body, [("xyz", "<f4", 3), ("rgb", "u1", 3)])
    assert len(vertices) == int(re.search(rb"element vertex (\d+)", header)[1])
    return vertices["xyz"], vertices["rgb"]


@pytest.mark.parametrize(
    "inputs",
    [
        ("sample_recording",),
        ("sample_recording/000.color.jpg", "sample_recording/000.depth.png", "--focal", "525"),
    ],
    ids=("recording", "files"),
)
@pytest.mark.slow
def test_upsample_pair(repo, tmp_path, monkeypatch, inputs):
    monkeypatch.chdir(repo)
    if len(inputs) > 1:  # with OpenVINO once: it takes ten seconds to compile the network
        monkeypatch.setattr("d2a2_core.runtime.openvino.has_openvino", lambda: False)
    arguments = [*inputs, "--weights", "d2a2-nano-sensor", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["upsample_pair.py", *arguments])
    runpy.run_path(str(repo / "examples" / "upsample_pair.py"), run_name="__main__")

    depth = np.asarray(Image.open(tmp_path / "depth.png")) / 1000
    truth = np.asarray(Image.open(repo / "sample_recording" / "000.truth.png")) / 1000
    color = np.asarray(Image.open(repo / "sample_recording" / "000.color.jpg"))
    known = depth > 0
    assert depth.shape == truth.shape
    assert known.mean() > 0.9
    assert np.median(np.abs(depth - truth)[known & (truth > 0)]) < 0.03

    points, colors = points_of(tmp_path / "cloud.ply")
    rows, cols = known.nonzero()
    np.testing.assert_allclose(points[:, 2], depth[known], atol=6e-4)
    # Both ways lead to the camera of the recording: focal length 525, principal point in the middle.
    np.testing.assert_allclose(points[:, 0], (cols - 319.5) / 525 * points[:, 2], atol=1e-4)
    np.testing.assert_allclose(points[:, 1], (rows - 239.5) / 525 * points[:, 2], atol=1e-4)
    np.testing.assert_array_equal(colors, color[known])
