"""Figures over time against known answers, and the stabiliser on rendered rooms with simulated network errors."""

from dataclasses import replace

import numpy as np
import pytest
from room_sequences import INTRINSICS, sequence

from d2a2_core.evaluation.stability import Shot, figures, simulated_shots, stabilised
from d2a2_core.geometry import Camera
from d2a2_core.temporal import StabiliserSettings

CAMERA = Camera(32, 24, 30.0, 30.0, 15.5, 11.5)


def shots(errors, truth=None, moving=None, poses=None):
    size = errors[0].shape
    truth = np.full((len(errors), *size), 2.0) if truth is None else truth
    moving = np.zeros((len(errors), *size), bool) if moving is None else moving
    poses = [np.eye(4)] * len(errors) if poses is None else poses
    return [
        Shot((t + e).astype(np.float32), np.full(size, 0.01, np.float32), np.ones(size, np.uint8), t.astype(np.float32), m, p,
             33_000_000 * i, CAMERA)
        for i, (e, t, m, p) in enumerate(zip(errors, truth, moving, poses, strict=True))
    ]  # fmt: skip


def test_figures_of_plain_noise():
    errors = 0.01 * np.random.default_rng(0).standard_normal((40, 24, 32))
    found = figures(shots(errors))
    assert found["rmse"] == pytest.approx(10, rel=0.03)
    assert found["rmse 5"] == pytest.approx(1e3 * np.sqrt(np.mean(errors[5] ** 2)), rel=1e-3)
    assert found["flicker"] == pytest.approx(10, rel=0.03)
    assert found["inside"] == pytest.approx(0.683, abs=0.02)
    assert "ghosts" not in found


def test_a_constant_error_does_not_flicker():
    found = figures(shots(np.full((14, 24, 32), 0.03)))
    assert found["rmse"] == pytest.approx(30, rel=1e-3)
    assert found["flicker"] < 1e-3
    assert found["inside"] == 0


def test_flicker_under_motion_compares_what_both_frames_see():
    rng = np.random.default_rng(1)
    poses = [np.eye(4) for _ in range(12)]
    for number, pose in enumerate(poses):
        pose[0, 3] = 2.0 / 30 * number  # one pixel at 2 m
    surface = 0.05 * rng.standard_normal((24, 100))  # an error that stays with the surface
    fresh = 0.01 * rng.standard_normal((12, 24, 32))
    stays = [surface[:, number : number + 32] for number in range(12)]
    assert figures(shots(stays, poses=poses))["flicker"] < 0.01
    expected = 10 * np.sqrt(2 / np.pi)  # the mean of |a - b| / sqrt(2) of two normal numbers
    assert figures(shots(np.array(stays) + fresh, poses=poses))["flicker"] == pytest.approx(expected, rel=0.05)


def test_ghosts_and_late_pixels_are_counted():
    truth, moving = np.full((12, 24, 32), 2.0), np.zeros((12, 24, 32), bool)
    for number in range(12):
        columns = slice(2 * number, 2 * number + 4)
        truth[number, 8:12, columns], moving[number, 8:12, columns] = 1.0, True
    lagging = np.concatenate((truth[:1], truth[:-1])) - truth
    found = figures(shots(lagging, truth, moving))
    assert found["ghosts"] == 11 * 8  # two columns of four rows in each frame but the first
    assert found["late"] == 11 * 16
    exact = figures(shots(np.zeros_like(truth), truth, moving))
    assert (exact["ghosts"], exact["late"], exact["moving"], exact["static"]) == (0, 0, 0, 0)


@pytest.fixture
def simulated():
    pytest.importorskip("embreex", reason="rendering needs the extra 'render' (embreex)")
    return lambda motion: simulated_shots(sequence(motion), INTRINSICS, 0.4, np.random.default_rng(3))


@pytest.mark.slow
def test_a_still_room(simulated):
    frames = simulated("still")
    before, after = figures(frames), figures(stabilised(frames, StabiliserSettings("still")))
    assert after["flicker"] < before["flicker"] / 3
    assert after["flicker median"] < before["flicker median"] / 3
    assert after["rmse"] < 0.9 * before["rmse"]
    assert 0.6 < after["inside"] < 0.85


@pytest.mark.slow
def test_a_camera_that_moves_through_a_room(simulated):
    frames = simulated("camera")
    before, after = figures(frames), figures(stabilised(frames, StabiliserSettings("moving")))
    assert after["flicker median"] < before["flicker median"] / 2
    assert after["flicker"] < 0.75 * before["flicker"]
    assert after["rmse"] < before["rmse"]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["still", "moving"])
def test_a_box_that_crosses_a_room_leaves_nothing_behind(simulated, mode):
    frames = simulated("object")
    before, after = figures(frames), figures(stabilised(frames, StabiliserSettings(mode)))
    assert after["ghosts"] <= 1.05 * before["ghosts"] + 5
    assert after["late"] <= 1.05 * before["late"] + 5
    assert after["moving"] <= 1.02 * before["moving"]
    assert after["static"] < before["static"]


@pytest.mark.slow
def test_poses_that_lie_do_not_show(simulated):
    """Poses are off by 5 cm in every third frame: no worse than frame by frame."""
    frames = simulated("camera")
    lies = []
    for number, shot in enumerate(frames):
        pose = shot.pose.copy()
        pose[:3, 3] += 0.05 * pose[:3, number % 3] * (number % 3 == 2)
        lies.append(replace(shot, pose=pose))
    after = stabilised(lies, StabiliserSettings("moving"))
    before, after = figures(frames), figures([replace(a, pose=f.pose) for a, f in zip(after, frames, strict=True)])
    assert after["rmse"] < 1.02 * before["rmse"]
