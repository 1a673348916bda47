"""The stabiliser as a stream uses it: modes, restarts, faults, provenance, sigma, and a resumed stream."""

import numpy as np
import pytest

from d2a2_core.depth.provenance import Provenance, only
from d2a2_core.errors import CodedError
from d2a2_core.geometry import Camera
from d2a2_core.temporal import Stabiliser, StabiliserSettings

SIZE = (48, 64)
CAMERA = Camera(64, 48, 80.0, 80.0, 31.5, 23.5)
STEP = 33_333_333
SIGMA = 0.004


def scene(offset=0.0, size=SIZE):
    """A slanted wall with a box before it."""
    depth = np.broadcast_to(2 + 0.004 * np.arange(size[1]), size).astype(np.float32) + np.float32(offset)
    depth[size[0] // 3 : size[0] // 2, size[1] // 3 : size[1] // 2] = 1.2
    return depth


class Bench:
    """Frames of a scene with fresh noise, stamped one after another."""

    def __init__(self, mode="still", seed=0, **settings):
        self.stabiliser = Stabiliser(StabiliserSettings(mode, **settings))
        self.rng = np.random.default_rng(seed)
        self.stamp = 10**18

    def noisy(self, truth):
        return (truth + SIGMA * self.rng.standard_normal(truth.shape)).astype(np.float32)

    def feed(self, depth, step=STEP, pose=None, camera=CAMERA, sigma=SIGMA, provenance=None):
        self.stamp += step
        sigma = np.full(depth.shape, sigma, np.float32) if np.isscalar(sigma) else sigma
        provenance = np.full(depth.shape, Provenance.MEASURED, np.uint8) if provenance is None else provenance
        return self.stabiliser.process(depth, sigma, provenance, camera, self.stamp, pose)


def pose_at(x=0.0, y=0.0, z=0.0):
    pose = np.eye(4)
    pose[:3, 3] = x, y, z
    return pose


def test_off_hands_frames_through():
    b = Bench("off")
    frames = [b.noisy(scene()) for _ in range(2)]
    for frame in frames:
        result = b.feed(frame)
        assert result.depth is frame
        assert result.restarted == "off"


def test_a_still_scene_becomes_calm():
    b = Bench()
    results = [b.feed(b.noisy(scene())) for _ in range(20)]
    flicker = np.std([result.depth for result in results[10:]], axis=0)
    assert flicker.mean() < SIGMA / 3
    assert np.sqrt(np.mean((results[9].depth - scene()) ** 2)) < 0.4 * SIGMA
    assert [result.restarted for result in results] == ["first"] + [""] * 19
    assert all(result.agreeing > 0.97 for result in results)


def test_sigma_holds_the_truth_when_a_share_of_the_error_stays():
    """The share is what :attr:`StabiliserSettings.shared_error` says."""
    b = Bench(shared_error=0.4)
    fixed = np.sqrt(0.4) * SIGMA * b.rng.standard_normal(SIZE)
    for _ in range(15):
        result = b.feed((scene() + fixed + np.sqrt(0.6) * SIGMA * b.rng.standard_normal(SIZE)).astype(np.float32))
    assert 0.63 < np.mean(np.abs(result.depth - scene()) < result.sigma) < 0.73
    assert np.median(result.sigma) < 0.7 * SIGMA


def test_a_moving_camera_calms_down_under_its_exact_pose():
    rng = np.random.default_rng(3)
    rays = np.concatenate((CAMERA.rays(), np.ones((*SIZE, 1))), -1)
    normal = np.array([0.3, -0.2, 1.0])
    errors, single = [], []
    b = Bench("moving")
    for number in range(12):
        at = number * np.array([0.01, 0.004, 0.006])
        truth = ((2.0 - normal @ at) / (rays @ normal)).astype(np.float32)
        frame = (truth + SIGMA * rng.standard_normal(SIZE)).astype(np.float32)
        result = b.feed(frame, pose=pose_at(*at))
        errors.append(result.depth - truth)
        single.append(frame - truth)
    assert np.sqrt(np.mean(np.square(errors[-1]))) < 0.45 * np.sqrt(np.mean(np.square(single[-1])))
    assert abs(np.mean(errors[-1])) < 0.1 * SIGMA


def test_holes_are_remembered_and_say_so():
    b = Bench(remember_s=0.1)
    b.feed(scene())
    frame = scene()
    frame[2:6, 2:6] = np.nan
    provenance = np.where(np.isnan(frame), Provenance.NONE, Provenance.MEASURED).astype(np.uint8)
    for number in range(1, 6):
        result = b.feed(frame, provenance=provenance)
        expected = Provenance.REMEMBERED if number <= 3 else Provenance.NONE
        assert (result.provenance[2:6, 2:6] == expected).all()
        assert (result.provenance[8:] == Provenance.MEASURED).all()
        np.testing.assert_array_equal(np.isnan(result.depth), result.provenance == Provenance.NONE)
        np.testing.assert_array_equal(np.isnan(result.sigma), np.isnan(result.depth))
        if number <= 3:
            np.testing.assert_array_equal(result.depth[2:6, 2:6], scene()[2:6, 2:6])
    assert set(provenance.ravel()) == {0, 1}


def test_remembered_points_are_in_the_cloud_that_asks_for_them():
    depth, provenance = np.ones((1, 6), np.float32), np.arange(6, dtype=np.uint8)[None]
    kept = {
        which: list(np.flatnonzero(np.isfinite(only(which, depth, provenance))))
        for which in ("filled", "remembered", "all")
    }
    assert kept == {"filled": [1, 2, 3], "remembered": [1, 2, 3, 5], "all": [0, 1, 2, 3, 4, 5]}


@pytest.mark.parametrize(
    ("mode", "change", "why"),
    [
        ("still", {"step": 0}, "stamp_back"),
        ("still", {"step": -5 * STEP}, "stamp_back"),
        ("still", {"step": 10**9}, "stamp_gap"),
        ("still", {"camera": Camera(64, 48, 90.0, 90.0, 31.5, 23.5)}, "camera"),
        ("still", {"camera": None}, "camera"),
        ("moving", {"pose": None}, "no_pose"),
    ],
)
def test_what_does_not_fit_starts_anew(mode, change, why):
    b = Bench(mode)
    for _ in range(3):
        b.feed(b.noisy(scene()), pose=pose_at())
    frame = b.noisy(scene())
    frame[0, 0] = np.nan
    result = b.feed(frame, **{"pose": pose_at()} | change)
    assert result.restarted == why
    np.testing.assert_array_equal(result.depth, frame)
    np.testing.assert_allclose(result.sigma, np.where(np.isnan(frame), np.nan, SIGMA), rtol=1e-5)
    assert not (result.provenance == Provenance.REMEMBERED).any()
    following = b.feed(b.noisy(scene()), pose=pose_at(), camera=change.get("camera", CAMERA))
    assert following.restarted == ("no_pose" if why == "no_pose" else "")


def test_another_size_starts_anew():
    b = Bench()
    b.feed(scene())
    small = scene(size=(24, 40))
    result = b.feed(small, camera=Camera(40, 24, 50.0, 50.0, 19.5, 11.5))
    assert result.restarted == "size"
    np.testing.assert_array_equal(result.depth, small)


def test_after_a_cut_nothing_of_the_scene_before_is_left():
    b = Bench(remember_s=5.0)
    for _ in range(8):
        b.feed(b.noisy(scene()))
    other = b.noisy(scene()[:, ::-1] + np.float32(0.7))
    other[10:30, 10:30] = np.nan
    result = b.feed(other)
    assert result.restarted == "cut"
    np.testing.assert_array_equal(result.depth, other)


def test_a_dropped_frame_is_no_cut():
    b = Bench()
    for _ in range(5):
        b.feed(b.noisy(scene()))
    result = b.feed(b.noisy(scene()), step=3 * STEP)
    assert result.restarted == ""
    assert np.abs(result.depth - scene()).mean() < 0.5 * SIGMA


@pytest.mark.parametrize("lie", [{"z": 0.05}, {"z": -0.05}, {"x": 0.05}, {"y": -0.05}])
def test_a_pose_that_lies_by_five_centimetres_does_not_show(lie):
    """Whatever direction: no worse than the frame alone by more than a tenth, in the frame of the lie and the ones after it."""
    rng = np.random.default_rng(4)
    b = Bench("moving")
    for number in range(12):
        frame = (scene() + SIGMA * rng.standard_normal(SIZE)).astype(np.float32)
        pose = pose_at(**lie) if number == 6 else pose_at()
        result = b.feed(frame, pose=pose)
        worst = np.percentile(np.abs(result.depth - scene()), 99.5)
        assert worst < 1.1 * np.percentile(np.abs(frame - scene()), 99.5)
    assert np.abs(result.depth - scene()).mean() < 0.6 * np.abs(frame - scene()).mean()  # and it becomes calm again


def test_a_thing_that_crosses_leaves_no_ghost_and_no_lag():
    b = Bench()
    for number in range(12):
        truth = scene()
        left = 4 + 4 * number
        truth[30:44, left : left + 10] = 0.9
        result = b.feed(b.noisy(truth))
        assert np.abs(result.depth - truth).max() < 6 * SIGMA


def test_a_thing_that_crosses_before_a_moving_camera_leaves_none_either():
    b = Bench("moving")
    for number in range(12):
        truth = np.full(SIZE, 2.0, np.float32)
        truth[14:34, 4 * number : 4 * number + 12] = 0.9
        result = b.feed(b.noisy(truth), pose=pose_at(x=0.013 * number))
        assert result.restarted == ("" if number else "first")
        assert np.abs(result.depth - truth).max() < 6 * SIGMA
    assert np.abs(result.depth - truth)[36:, :40].mean() < 0.5 * 0.8 * SIGMA  # the wall is calm


def test_a_large_thing_that_comes_near_is_no_cut():
    b = Bench()
    for _ in range(8):
        b.feed(b.noisy(scene()))
    truth = scene()
    truth[:, 46:] = 0.7
    result = b.feed(b.noisy(truth))
    assert result.restarted == ""
    assert np.abs(result.depth - truth)[:, :32].mean() < 0.5 * SIGMA
    assert np.abs(result.depth - truth).max() < 6 * SIGMA


@pytest.mark.parametrize("mode", ["still", "moving"])
def test_a_resumed_stream_is_equal(mode):
    def frames():
        b = Bench(mode, seed=7)
        for number in range(8):
            depth = b.noisy(scene())
            depth[(3 * number) % 40 : (3 * number) % 40 + 5, 5:9] = np.nan
            yield depth, pose_at(x=0.003 * number)

    whole, killed = Bench(mode), Bench(mode)
    expected = [whole.feed(depth, pose=pose) for depth, pose in frames()]
    for number, (depth, pose) in enumerate(frames()):
        state = killed.stabiliser.state()
        killed.stabiliser = Stabiliser(StabiliserSettings(mode))
        killed.stabiliser.restore(state)
        result = killed.feed(depth, pose=pose)
        for name in ("depth", "sigma", "provenance"):
            np.testing.assert_array_equal(getattr(result, name), getattr(expected[number], name))
        assert result.restarted == expected[number].restarted
    assert 16 * depth.size < len(state) < 16 * depth.size + 1000


@pytest.mark.parametrize(
    "damage", [lambda s: s[:-3], lambda s: s + b"12", lambda s: b"", lambda s: s[:10], lambda s: b"\xff" * len(s)]
)
def test_a_damaged_state_is_refused_and_the_stream_starts_anew(damage):
    b = Bench()
    b.feed(scene())
    with pytest.raises(ValueError, match="state is damaged"):
        b.stabiliser.restore(damage(b.stabiliser.state()))
    assert b.feed(scene()).restarted == "first"


def test_without_sigma_a_cameras_noise_is_assumed_and_none_is_claimed():
    b = Bench()
    results = [b.feed(b.noisy(scene()), sigma=None) for _ in range(12)]
    assert results[-1].sigma is None
    assert np.abs(results[-1].depth - scene()).mean() < 0.5 * np.abs(results[0].depth - scene()).mean()
    moved = scene()
    moved[30:40, 30:40] = 1.5
    np.testing.assert_array_equal(b.feed(moved, sigma=None).depth[30:40, 30:40], moved[30:40, 30:40])


def test_filled_depth_counts_less_than_measured():
    b = Bench()
    measured, filled = (np.full(SIZE, kind, np.uint8) for kind in (Provenance.MEASURED, Provenance.FILLED))
    b.feed(np.full(SIZE, 2.0, np.float32), sigma=None, provenance=measured)
    result = b.feed(np.full(SIZE, 2.006, np.float32), sigma=None, provenance=filled)
    assert 2.0 < result.depth[0, 0] < 2.001


def test_depth_whose_sigma_is_missing_does_not_outweigh_what_is_known():
    b = Bench()
    b.feed(np.full(SIZE, 2.0, np.float32))
    sigma = np.full(SIZE, SIGMA, np.float32)
    sigma[3, 3] = np.nan
    sigma[4, 4] = np.inf
    result = b.feed(np.full(SIZE, 2.002, np.float32), sigma=sigma)
    np.testing.assert_allclose(result.depth[[3, 4], [3, 4]], 2.0, atol=1e-4)
    assert result.depth[9, 9] == pytest.approx(2.001)


def test_frames_and_results_are_the_callers():
    b = Bench()
    frame = b.noisy(scene())
    frame.flags.writeable = False
    first = b.feed(frame)
    first.depth[:] = 99
    first.sigma[:] = 99
    second = b.feed(b.noisy(scene()))
    assert second.agreeing > 0.97
    kept = second.depth.copy()
    b.feed(b.noisy(scene()))
    np.testing.assert_array_equal(second.depth, kept)


def test_reset_forgets():
    b = Bench()
    b.feed(scene())
    b.stabiliser.reset()
    assert b.feed(scene()).restarted == "first"


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        ({"sigma": np.zeros((4, 4), np.float32)}, "sizes", "of one size"),
        ({"provenance": np.zeros((48, 63), np.uint8)}, "sizes", "of one size"),
        ({"camera": Camera(32, 24, 40.0, 40.0, 15.5, 11.5)}, "sizes", "of one size"),
        ({"pose": np.eye(3)}, "pose", "expected 4 x 4 numbers"),
        ({"pose": 2 * np.eye(4)}, "pose", "orthonormal"),
        ({"pose": np.full((4, 4), np.nan)}, "pose", "finite"),
    ],
)
def test_what_cannot_be_a_frame_is_refused(change, code, message):
    b = Bench("moving")
    b.feed(scene(), pose=pose_at())
    with pytest.raises(CodedError, match=message) as raised:
        b.feed(scene(), **{"pose": pose_at()} | change)
    assert raised.value.code == code
    assert b.feed(scene(), pose=pose_at()).restarted == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temporal": "on"}, r"temporal must be one of \('off', 'still', 'moving'\), got 'on'"),
        ({"memory_frames": 0.5}, "memory_frames of at least 1"),
        ({"max_gap_s": 0}, "max_gap_s and gate above 0"),
        ({"shared_error": 1.0}, r"shared_error in \[0, 1\)"),
        ({"remember_s": -1.0}, "remember_s, narrow_abs and narrow_rel of at least 0"),
        ({"gate": float("nan")}, "gate above 0"),
    ],
)
def test_settings_are_checked(change, message):
    with pytest.raises(ValueError, match=message):
        StabiliserSettings(**change)
