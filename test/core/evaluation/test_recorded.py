"""A recording is scored at what its own camera measured, or at its truth where it has one."""

import json

import numpy as np
import pytest
from PIL import Image

from d2a2_core.depth.units import to_millimetres
from d2a2_core.evaluation.baselines import get_method
from d2a2_core.evaluation.evaluator import evaluate
from d2a2_core.evaluation.protocol import make_case
from d2a2_core.evaluation.recorded import RecordedPairs, reduce_measurements
from d2a2_core.recording import RecordingError

K = [100.0, 0, 31.5, 0, 100.0, 23.5, 0, 0, 1]


def write(folder, depths, color_size=(48, 64), truth=None, pose=None):
    """Frames of depth (h, w) metres, beside colour whose red tells the column."""
    folder.mkdir(parents=True, exist_ok=True)
    color = np.zeros((*color_size, 3), np.uint8)
    color[..., 0] = np.linspace(0, 255, color_size[1]).astype(np.uint8)
    for i, depth in enumerate(depths):
        Image.fromarray(color).save(folder / f"{i:03}.color.png")
        Image.fromarray(to_millimetres(depth)).save(folder / f"{i:03}.depth.png")
        if truth is not None:
            Image.fromarray(to_millimetres(truth)).save(folder / f"{i:03}.truth.png")
    calibration = {"color": {"width": color_size[1], "height": color_size[0], "K": K}}
    if pose:
        calibration["depth_to_color"] = pose
    (folder / "calibration.json").write_text(json.dumps(calibration))
    return folder


def plane(size=(48, 64)):
    return np.tile(np.linspace(1, 2, size[1], dtype=np.float32), (size[0], 1)).round(3)


def test_reduction_is_the_mean_of_what_was_measured_and_nothing_where_most_is_missing():
    depth = np.array([[1, 2, 5, np.nan], [3, np.nan, np.nan, np.nan], [4, 4, 1, np.nan], [4, 4, 2, np.nan]], np.float32)
    np.testing.assert_array_equal(reduce_measurements(depth, 2), np.array([[2, np.nan], [4, 1.5]], np.float32))
    with pytest.raises(ValueError, match="multiples of the scale 3"):
        reduce_measurements(depth, 3)


def test_frames_without_depth_are_left_out_and_told(tmp_path):
    lone = np.full((48, 64), np.nan, np.float32)
    lone[5, 5] = 1.0  # too little for any cell
    pairs = RecordedPairs(write(tmp_path / "r", [plane(), lone, np.full((48, 64), np.nan), plane()]), 4)
    assert [pairs[i].name for i in range(len(pairs))] == ["000", "003"]
    assert "2 of 4 frames" in pairs.describe()
    assert "(2 without depth left out)" in pairs.describe()
    assert all(np.isfinite(row["rmse"]) for row in evaluate(pairs, get_method("bicubic"), 4, "deploy"))
    with pytest.raises(RecordingError, match="none of 1 frames has depth"):
        RecordedPairs(write(tmp_path / "none", [lone]), 4)


def test_a_frame_is_scored_at_its_own_measurements(tmp_path):
    depth = plane()
    depth[8:16, 8:20] = np.nan
    pairs = RecordedPairs(write(tmp_path / "r", [depth], (96, 128)), 4)
    sample = pairs[0]
    np.testing.assert_allclose(sample.depth, depth, atol=1e-6)  # holes are no reference
    np.testing.assert_allclose(sample.lr, reduce_measurements(depth, 4), atol=1e-6)
    assert np.isnan(sample.lr[2:4, 2:5]).all()
    assert sample.guide.shape == (48, 64, 3)
    assert (np.diff(sample.guide[0, :, 0].astype(int)) >= 0).all()
    assert sample.intrinsics[0] == 50  # of the reduced colour image
    assert "1 of 1 frames" in pairs.describe()
    assert "its own measurements" in pairs.describe()
    (row,) = evaluate(pairs, get_method("bilinear"), 4, "deploy")
    assert row["rmse"] < 1.0  # cm, on a slope of 6 cm per cell
    case = make_case(sample, 4, "deploy")
    assert case.trust[3, 3] == 0
    assert case.trust[8, 8] == 1


def test_flying_measurements_are_no_reference(tmp_path):
    depth = np.ones((48, 64), np.float32)
    depth[:, 32:] = 3
    depth[20:28, 32] = 2  # between the two surfaces
    sample = RecordedPairs(write(tmp_path / "r", [depth]), 4)[0]
    assert np.isnan(sample.depth[22:26, 32]).all()
    assert np.isfinite(sample.depth).mean() > 0.99
    assert np.isfinite(sample.lr).all()  # but the network sees them


def test_enlarged_depth_is_thinned_and_odd_sizes_are_cut(tmp_path):
    small = plane((24, 32))
    folder = write(tmp_path / "r", [small.repeat(2, 0).repeat(2, 1)], (48, 64))
    sample = RecordedPairs(folder, 4, every=2)[0]
    np.testing.assert_allclose(sample.depth, small, atol=1e-6)
    assert sample.lr.shape == (6, 8)
    assert RecordedPairs(folder, 16, every=2)[0].depth.shape == (16, 32)
    with pytest.raises(ValueError, match="smaller than the scale 16"):
        RecordedPairs(folder, 16, every=4)[0]


def test_a_truth_is_the_reference_where_there_is_one(tmp_path):
    truth = plane((48, 64))
    pairs = RecordedPairs(write(tmp_path / "r", [truth[::4, ::4]] * 2, truth=truth + 1), 4)
    np.testing.assert_allclose(pairs[1].depth, truth + 1, atol=1e-6)
    np.testing.assert_allclose(pairs[1].lr, truth[::4, ::4], atol=1e-6)
    assert "its truth" in pairs.describe()


def test_frames_are_spread_evenly(tmp_path):
    folder = write(tmp_path / "r", [plane()] * 9)
    assert [sample.name for sample in RecordedPairs(folder, 4, frames=3)] == ["000", "004", "008"]
    assert len(RecordedPairs(folder, 4)) == len(RecordedPairs(folder, 4, frames=50)) == 9
    with pytest.raises(ValueError, match="every of at least 1"):
        RecordedPairs(folder, 4, every=0)


def test_depth_in_its_own_view_is_refused(tmp_path):
    pose = {"R": [1, 0, 0, 0, 1, 0, 0, 0, 1], "t": [0.03, 0, 0]}
    with pytest.raises(RecordingError, match="expected depth registered"):
        RecordedPairs(write(tmp_path / "r", [plane()], pose=pose), 4)


def test_depth_with_intrinsics_of_its_own_is_not_taken_as_registered(tmp_path):
    folder = write(tmp_path / "r", [plane()])
    calibration = json.loads((folder / "calibration.json").read_text())
    calibration["depth"] = dict(calibration["color"])
    (folder / "calibration.json").write_text(json.dumps(calibration))
    assert len(RecordedPairs(folder, 4)) == 1
    calibration["depth"]["K"] = [120.0, 0, 31.5, 0, 120.0, 23.5, 0, 0, 1]
    (folder / "calibration.json").write_text(json.dumps(calibration))
    with pytest.raises(RecordingError, match="other intrinsics"):
        RecordedPairs(folder, 4)
