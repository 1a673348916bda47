"""Ground truth as sets made with depth cameras have it: what is filled follows colours, what is measured stays."""

import numpy as np
import pytest

from d2a2_core.data.sampling import TrainingBatches
from d2a2_core.data.scene_sources import ShapeScenes
from d2a2_core.data.scenes.shapes import sample_scene
from d2a2_core.data.sensors.captured import captured, fill_by_color


def two_sides(at: int, noise: float = 0.0) -> np.ndarray:
    """uint8 (24, 32, 3): dark left of column ``at``, bright from there on."""
    grey = np.where(np.arange(32) < at, 60.0, 180.0) + np.random.default_rng(0).normal(0, noise, (24, 32))
    return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, 2)


def stepped(at: int) -> np.ndarray:
    return np.tile(np.where(np.arange(32) < at, 1.0, 3.0), (24, 1)).astype(np.float32)


@pytest.mark.parametrize("at", [12, 15, 18])
def test_a_hole_is_filled_up_to_the_colour_edge(at):
    depth = stepped(16)
    depth[:, 10:22] = np.nan
    filled = fill_by_color(depth, two_sides(at, noise=3), weight=1e3)
    np.testing.assert_allclose(filled, stepped(at), atol=0.1)


def test_each_filled_pixel_is_a_mean_of_its_neighbours_and_all_alike_colours_count_alike():
    """Without colours it is the discrete Laplace equation: a plane is its solution."""
    plane = np.add.outer(0.05 * np.arange(24), 1 + 0.1 * np.arange(32)).astype(np.float32)
    depth = plane.copy()
    depth[6:18, 8:24] = np.nan
    np.testing.assert_allclose(fill_by_color(depth, np.full((24, 32, 3), 90, np.uint8), 1e3), plane, atol=1e-5)


def test_weight_decides_whether_measurements_move():
    rng = np.random.default_rng(1)
    noisy = 2 + rng.normal(0, 0.01, (24, 32)).astype(np.float32)
    color = np.full((24, 32, 3), 90, np.uint8)
    assert np.abs(fill_by_color(noisy, color, 1e4) - noisy).max() < 1e-4
    assert fill_by_color(noisy, color, 1.0).std() < 0.7 * noisy.std()


@pytest.mark.parametrize(("weight", "tolerance"), [(1e3, 1e-6), (1.0, 5e-3)])
def test_agrees_with_solving_the_equations_directly(weight, tolerance):
    """The definition, written out pixel by pixel."""
    rng = np.random.default_rng(2)
    color = rng.integers(0, 255, (7, 9, 3)).astype(np.uint8)
    depth = rng.uniform(1, 2, (7, 9)).astype(np.float32)
    depth[2:5, 3:7] = np.nan
    grey = color @ np.array([0.299, 0.587, 0.114]) / 255
    a, b = np.eye(63), np.zeros(63)
    for y in range(7):
        for x in range(9):
            here = y * 9 + x
            if np.isfinite(depth[y, x]):
                a[here, here] += weight
                b[here] = weight * depth[y, x]
                if weight == 1e3:  # left as they are
                    a[here, here], b[here] = 1, depth[y, x]
                    continue
            window = [(v, u) for v in range(y - 1, y + 2) for u in range(x - 1, x + 2) if 0 <= v < 7 and 0 <= u < 9]
            values = np.array([grey[p] for p in window])
            others = [p for p in window if p != (y, x)]
            apart = np.array([(grey[p] - grey[y, x]) ** 2 for p in others])
            share = np.exp(-apart / max(0.6 * values.var(), apart.min() / -np.log(0.01), 2e-6))
            for (v, u), s in zip(others, share / share.sum(), strict=True):
                a[here, v * 9 + u] -= s
    np.testing.assert_allclose(fill_by_color(depth, color, weight).ravel(), np.linalg.solve(a, b), atol=tolerance)


def test_what_cannot_be_filled_is_refused():
    color = np.zeros((4, 5, 3), np.uint8)
    with pytest.raises(ValueError, match="some measurement"):
        fill_by_color(np.full((4, 5), np.nan, np.float32), color)
    with pytest.raises(ValueError, match=r"\(H, W, 3\)"):
        fill_by_color(np.ones((4, 4), np.float32), color)


def test_captured_depth_is_that_of_the_scene_but_along_its_edges():
    for seed in range(6):
        rng = np.random.default_rng(seed)
        scene = sample_scene(128, rng)
        before = scene.depth.copy()
        out = captured(scene.color, scene.depth, rng)
        np.testing.assert_array_equal(scene.depth, before)
        assert out.shape == before.shape
        assert out.dtype == np.float32
        assert np.isfinite(out).all()
        assert np.median(np.abs(out - before) / before) < 0.02
        assert not np.array_equal(out, before)
        np.testing.assert_array_equal(out, captured(*again(seed)))


def again(seed: int):
    rng = np.random.default_rng(seed)
    scene = sample_scene(128, rng)
    return scene.color, scene.depth, rng


def test_training_draws_captured_depth_when_asked():
    def batch(**settings):
        return TrainingBatches(ShapeScenes(3), (4,), 64, 4, seed=5, **settings)[0]

    plain, half, full = batch(), batch(captured=0.5), batch(captured=1.0)
    changed = [(a["hr"] != plain["hr"]).flatten(1).any(1).sum().item() for a in (half, full)]
    assert 0 < changed[0] < changed[1] == 4
    assert full["hr"].isfinite().all()
