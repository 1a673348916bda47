"""What `d2a2 upsample` and `d2a2 offset` say of frames and calibrations that a person should look at."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from d2a2_core.cli import main
from d2a2_core.network.lite import D2A2Lite
from d2a2_core.weights import save_weights


@pytest.fixture
def recording(tmp_path):
    """Makes a folder of colour (H, W) and depth (h, w) images, the first of them lying on their side by EXIF where asked."""

    def make(size=(32, 48), depth_size=(8, 12), lying=0, frames=2, calibration=None):
        folder = tmp_path / "recording"
        folder.mkdir()
        exif = Image.Exif()
        exif[0x0112] = 6
        for i in range(frames):
            shape = size[::-1] if i < lying else size
            color = Image.fromarray(np.full((*shape, 3), 90, np.uint8))
            color.save(folder / f"{i}.color.jpg", exif=exif if i < lying else Image.Exif())
            Image.fromarray(np.full(depth_size, 2000, np.uint16)).save(folder / f"{i}.depth.png")
        if calibration:
            (folder / "calibration.json").write_text(json.dumps(calibration))
        return folder

    return make


@pytest.fixture(params=["upsample", "offset"])
def said(request, tmp_path, capsys):
    """Runs a command on a recording; what it printed on stderr."""
    torch.manual_seed(0)
    weights = tmp_path / "tiny.safetensors"
    save_weights(weights, D2A2Lite(channels=8, blocks=1), {"title": "a test"})
    more = {"upsample": ["--out", str(tmp_path / "out"), "--weights", str(weights)], "offset": []}[request.param]

    def run(folder):
        assert main([request.param, str(folder), *more]) == 0
        return capsys.readouterr().err

    return run


def test_images_of_slightly_other_shapes_are_doubted(recording, said):
    assert "colour 48x32 over depth 10x8 is a ratio of 4.8 x 4" in said(recording(depth_size=(8, 10)))


def test_depth_taken_as_registered_is_said_with_the_number_of_frames(recording, said):
    assert said(recording()).count("is taken as registered") == 1


def test_an_image_that_exif_turned_is_said(recording, said):
    text = said(recording(lying=1))
    assert "turned upright by its EXIF orientation, to 48x32 pixels" in text
    assert "(1 of 2 frames)" in text


def test_nothing_is_said_of_upright_images(recording, said):
    assert "EXIF" not in said(recording())


def test_a_calibration_for_another_image_is_doubted(recording, said):
    camera = {"width": 48, "height": 32, "K": [80, 0, 47.5, 0, 80, 31.5, 0, 0, 1]}
    text = said(recording(calibration={"color": camera, "depth": camera | {"width": 12, "height": 8}}))
    assert "calibration's entry color: the principal point (47.5, 31.5)" in text
    assert "image of about 96x64" in text
    assert "calibration's entry depth: " in text


def test_a_calibration_of_two_cameras_in_one_place_is_no_conflict(recording, said):
    color = {"width": 48, "height": 32, "K": [40, 0, 23.5, 0, 40, 15.5, 0, 0, 1]}
    depth = color | {"K": [30, 0, 23.5, 0, 30, 15.5, 0, 0, 1]}
    assert "warning" not in said(recording(depth_size=(32, 48), calibration={"color": color, "depth": depth}))
