"""The filter of one pixel against what theory says, the gate, tiles, and what holes remember."""

import numpy as np
import pytest

from d2a2_core.temporal.fusion import Belief, Rules, fuse, start

SIZE = (48, 64)
PLAIN = dict(memory=1e6, shared=0.0, gate=3.0, narrow_abs=0.1, narrow_rel=0.1, narrow=False, remember_s=0.5)


def plane(value, size=SIZE):
    return np.full(size, value, np.float32)


def begin(depth, variance, rules):
    belief = Belief.empty(depth.shape)
    start(belief, depth, variance, rules)
    return belief


def test_constant_sigma_gives_the_mean_and_sigma_over_the_root_of_n():
    rng, rules = np.random.default_rng(0), Rules(**PLAIN)
    frames = (2 + 0.004 * rng.standard_normal((12, *SIZE))).astype(np.float32).clip(1.994, 2.006)
    belief = begin(frames[0], plane(16e-6), rules)
    for frame in frames[1:]:
        assert fuse(belief, frame, plane(16e-6), 0.03, rules).agreeing == 1
    np.testing.assert_allclose(belief.depth, frames.mean(0), atol=2e-6)
    np.testing.assert_allclose(np.sqrt(belief.noise + belief.shared), 0.004 / np.sqrt(12), rtol=1e-4)


def test_unlike_sigmas_weigh_inversely_to_their_squares():
    rules = Rules(**PLAIN)
    belief = begin(plane(2.0), plane(0.01**2), rules)
    fuse(belief, plane(2.003), plane(0.02**2), 0.03, rules)
    np.testing.assert_allclose(belief.depth, (2.0 / 1 + 2.003 / 4) / (1 + 1 / 4), rtol=1e-6)
    np.testing.assert_allclose(belief.noise, 1 / (1 / 0.01**2 + 1 / 0.02**2), rtol=1e-5)


@pytest.mark.parametrize("shared", [0.0, 0.4, 0.9])
def test_sigma_falls_to_the_shared_error_and_the_memory_and_no_further(shared):
    rules = Rules(**PLAIN | {"shared": shared, "memory": 8.0})
    belief = begin(plane(2.0), plane(25e-6), rules)
    for _ in range(100):
        fuse(belief, plane(2.0), plane(25e-6), 0.03, rules)
    np.testing.assert_allclose(belief.noise + belief.shared, 25e-6 * (shared + (1 - shared) / 8), rtol=1e-4)


def test_old_frames_fade_as_the_memory_says():
    rules = Rules(**PLAIN | {"memory": 5.0})
    belief = begin(plane(2.0), plane(1e-4), rules)
    for _ in range(20):
        fuse(belief, plane(2.0), plane(1e-4), 0.03, rules)
    fuse(belief, plane(2.005), plane(1e-4), 0.03, rules)
    np.testing.assert_allclose(belief.depth, 2.0 + 0.005 / 5, atol=1e-6)


@pytest.mark.parametrize("step", [-0.5, -0.04, 0.04, 0.5])
def test_what_disagrees_replaces_at_once_and_nothing_else_changes(step):
    rules = Rules(**PLAIN)
    belief = begin(plane(2.0), plane(25e-6), rules)
    for _ in range(9):
        fuse(belief, plane(2.0), plane(25e-6), 0.03, rules)
    frame = plane(2.0)
    frame[20:24, 8:12] += step
    fuse(belief, frame, plane(25e-6), 0.03, rules)
    np.testing.assert_array_equal(belief.depth, frame)
    np.testing.assert_allclose(belief.noise[20:24, 8:12], 25e-6, rtol=1e-6)
    np.testing.assert_allclose(belief.noise[0, 0], 25e-6 / 11, rtol=1e-4)


@pytest.mark.parametrize(
    ("narrow", "moves", "fused"), [(False, False, True), (False, True, False), (True, False, False)]
)
def test_a_wide_sigma_does_not_let_what_moves_be_averaged(narrow, moves, fused):
    """At edges sigma is decimetres, and the gate with it; beside something that moves the narrow gate counts."""
    rules = Rules(**PLAIN | {"narrow": narrow})
    variance = plane(1e-4)
    variance[4, 4] = 0.2**2
    belief = begin(plane(2.0), variance, rules)
    frame = plane(2.0)
    frame[4, 4] = 2.3
    if moves:
        frame[6:16, 8:14] = 1.0  # in the same tile
    fuse(belief, frame, variance, 0.03, rules)
    assert belief.depth[4, 4] == pytest.approx(2.15 if fused else 2.3)


def test_a_surface_that_moves_slower_than_the_gate_does_not_lag():
    """Each step lies well within the gate; a filter without memory of tiles would trail by steps times memory."""
    rng = np.random.default_rng(1)
    rules = Rules(**PLAIN | {"memory": 10.0})
    sigma, step = 0.01, 0.012
    belief = begin(plane(2.0), plane(sigma**2), rules)
    for number in range(1, 30):
        truth = 2.0 - step * number
        frame = (truth + sigma * rng.standard_normal(SIZE)).astype(np.float32)
        fuse(belief, frame, plane(sigma**2), 0.03, rules)
        assert abs(belief.depth.mean() - truth) < 1.2 * sigma


def test_only_the_tiles_of_a_slow_thing_are_replaced():
    rules = Rules(**PLAIN)
    belief = begin(plane(2.0), plane(1e-4), rules)
    for _ in range(5):
        fuse(belief, plane(2.0), plane(1e-4), 0.03, rules)
    frame = plane(2.0)
    frame[16:32, 16:48] += 0.015  # 1.4 deviations of the innovation
    fused = fuse(belief, frame, plane(1e-4), 0.03, rules)
    np.testing.assert_array_equal(belief.depth, frame)
    assert fused.agreeing == pytest.approx(1 - 2 / 12)


def test_holes_remember_up_to_an_age():
    rules = Rules(**PLAIN)
    belief = begin(plane(2.0), plane(1e-4), rules)
    frame = plane(2.0)
    frame[10:14, 10:14] = np.nan
    frame[0, 0] = np.nan
    for number in range(1, 8):
        remembered = fuse(belief, frame, plane(1e-4), 0.1, rules).remembered
        np.testing.assert_array_equal(remembered, np.isnan(frame) & (number <= 5))
        np.testing.assert_array_equal(np.isnan(belief.depth), np.isnan(frame) & (number > 5))
    fuse(belief, plane(2.0), plane(1e-4), 0.1, rules)
    np.testing.assert_array_equal(belief.depth, 2.0)
    assert fuse(belief, frame, plane(1e-4), 0.1, rules).remembered.sum() == 17  # seen again: it begins anew
    np.testing.assert_array_equal(belief.depth[10:14, 10:14], 2.0)


def test_nothing_is_remembered_where_something_moved_or_nothing_was():
    rules = Rules(**PLAIN)
    size = (96, 160)
    depth = plane(2.0, size)
    depth[40:60, 40:60] = 1.0  # a thing that leaves; behind it nothing is measured at first
    depth[5, 150] = np.nan
    belief = begin(depth, plane(1e-4, size), rules)
    frame = plane(2.0, size)
    frame[44:50, 44:50] = np.nan
    frame[5, 150] = frame[90, 150] = np.nan
    remembered = fuse(belief, frame, plane(1e-4, size), 0.03, rules).remembered
    assert list(zip(*np.nonzero(remembered), strict=True)) == [(90, 150)]
    np.testing.assert_array_equal(np.isnan(belief.depth), np.isnan(frame) & ~remembered)


def test_remembering_can_be_off():
    rules = Rules(**PLAIN | {"remember_s": 0.0})
    belief = begin(plane(2.0), plane(1e-4), rules)
    frame = plane(np.nan)
    assert not fuse(belief, frame, plane(1e-4), 0.03, rules).remembered.any()
    assert np.isnan(belief.depth).all()


@pytest.mark.parametrize("size", [(1, 1), (3, 70), (17, 16), (31, 33), (47, 50), (130, 1)])
def test_any_size_is_fused_pixel_by_pixel(size):
    rng, rules = np.random.default_rng(2), Rules(**PLAIN | {"shared": 0.3, "memory": 10.0})
    first, second = (2 + 0.003 * rng.standard_normal((2, *size))).astype(np.float32).clip(1.992, 2.008)
    second.ravel()[::9] += 1.0
    variance = rng.uniform(1e-5, 2e-5, size).astype(np.float32)
    belief = begin(first, variance, rules)
    fused = fuse(belief, second, variance, 0.03, rules)
    replaced = np.abs(second - first) > 0.5
    single = (first + second) / 2
    moved = fused.agreeing < 1 - replaced.mean() - 1e-6  # a tile of few pixels may be taken for one that moves
    np.testing.assert_allclose(belief.depth[replaced], second[replaced])
    if not moved:
        np.testing.assert_allclose(belief.depth[~replaced], single[~replaced], rtol=1e-6)
    assert np.isfinite(belief.noise).all()


def test_nothing_known_and_nothing_seen_is_no_error():
    rules = Rules(**PLAIN)
    belief = Belief.empty(SIZE)
    with np.errstate(all="raise"):
        fused = fuse(belief, plane(np.nan), plane(1.0), 0.03, rules)
    assert (fused.agreeing, fused.bias, fused.remembered.any()) == (1.0, 0.0, False)
    fuse(belief, plane(3.0), plane(1.0), 0.03, rules)
    np.testing.assert_array_equal(belief.depth, 3.0)
