"""`d2a2 upsample --calibration`: cameras that the images themselves do not bring along."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from d2a2_core.cli import main
from d2a2_core.network.lite import D2A2Lite
from d2a2_core.weights import save_weights

RIG = {
    "color": {"width": 48, "height": 32, "K": [40, 0, 23.5, 0, 40, 15.5, 0, 0, 1]},
    "depth": {"width": 12, "height": 8, "K": [10, 0, 5.5, 0, 10, 3.5, 0, 0, 1]},
    "depth_to_color": {"R": [1, 0, 0, 0, 1, 0, 0, 0, 1], "t": [0.4, 0, 0]},
}


@pytest.fixture
def upsample(tmp_path):
    torch.manual_seed(0)
    weights = tmp_path / "tiny.safetensors"
    save_weights(weights, D2A2Lite(channels=8, blocks=1), {"title": "a test"})
    Image.fromarray(np.full((32, 48, 3), 90, np.uint8)).save(tmp_path / "color.png")
    depth = np.full((8, 12), 2000, np.uint16)
    depth[:, :3] = 1000
    Image.fromarray(depth).save(tmp_path / "depth.png")

    def run(inputs, *arguments):
        out = tmp_path / "out"
        status = main([str(a) for a in ["upsample", *inputs, "--out", out, "--weights", weights, *arguments]])
        return status, next((np.asarray(Image.open(p)) for p in sorted(out.glob("*.depth.png"))), None)

    return run


def rig_file(tmp_path, content):
    path = tmp_path / "rig.json"
    path.write_text(json.dumps(content))
    return path


def test_two_images_are_registered_with_it(tmp_path, upsample):
    files = tmp_path / "color.png", tmp_path / "depth.png"
    _, plain = upsample(files)
    _, moved = upsample(files, "--calibration", rig_file(tmp_path, RIG))
    # The near part ends at column 12; seen from 0.4 m beside it, 40 * 0.4 / 1 m = 16 columns farther to the right.
    assert plain[16, 8] < 1200
    assert moved[16, 20] < 1200
    assert moved[16, 40] > 1800


def test_it_replaces_a_recordings_own(tmp_path, upsample):
    (tmp_path / "calibration.json").write_text('{"color": "none"}')
    status, _ = upsample([tmp_path])
    assert status == 2
    status, result = upsample([tmp_path], "--calibration", rig_file(tmp_path, RIG))
    assert (status, result[16, 20] < 1200) == (0, True)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({**RIG, "depth": {**RIG["depth"], "K": [1e300] * 9}}, "rig.json: entry depth.K"),
        ({"rate_hz": 1e-320}, "rig.json: entry rate_hz"),
    ],
)
def test_mistakes_are_one_line(tmp_path, upsample, capsys, content, said):
    files = tmp_path / "color.png", tmp_path / "depth.png"
    assert upsample(files, "--calibration", rig_file(tmp_path, content))[0] == 2
    assert said in capsys.readouterr().err
    assert upsample(files, "--calibration", tmp_path / "nowhere.json")[0] == 2
    assert "calibration cannot be read" in capsys.readouterr().err


def test_a_calibration_of_another_resolution_gives_the_same(tmp_path, upsample):
    """As made at full resolution, for a stream that is smaller."""

    def twice(camera):
        # c' = (c + 0.5) 2 - 0.5
        fx, _, cx, _, fy, cy, *_ = camera["K"]
        k = [2 * fx, 0, 2 * cx + 0.5, 0, 2 * fy, 2 * cy + 0.5, 0, 0, 1]
        return {"width": 2 * camera["width"], "height": 2 * camera["height"], "K": k}

    _, expected = upsample([tmp_path], "--calibration", rig_file(tmp_path, RIG))
    larger = RIG | {"color": twice(RIG["color"]), "depth": twice(RIG["depth"])}
    status, result = upsample([tmp_path], "--calibration", rig_file(tmp_path, larger))
    assert status == 0
    np.testing.assert_array_equal(result, expected)
