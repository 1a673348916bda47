"""Layered shapes: repeatable, in range, and aligned between colour and depth."""

import numpy as np
import pytest

from d2a2_core.data.scenes import shapes
from d2a2_core.data.scenes.shapes import sample_scene
from d2a2_core.data.scenes.textures import random_texture, recolour


def scene(seed, size=64):
    return sample_scene(size, np.random.default_rng(seed))


@pytest.mark.parametrize("size", [33, 64])
def test_scenes_are_well_formed(size):
    for seed in range(25):
        made = scene(seed, size)
        assert made.color.shape == (size, size, 3)
        assert made.color.dtype == np.uint8
        assert made.depth.shape == (size, size)
        assert made.depth.dtype == np.float32
        assert np.isfinite(made.depth).all()
        assert made.depth.min() >= 0.29
        assert made.depth.max() <= 10
        assert np.ptp(made.depth) > 0.25
        assert made.color.std() > 0


def test_the_seed_decides():
    first, again, other = scene(3), scene(3), scene(4)
    np.testing.assert_array_equal(first.color, again.color)
    np.testing.assert_array_equal(first.depth, again.depth)
    assert (first.color != other.color).any()
    assert (first.depth != other.depth).any()


@pytest.mark.parametrize("kind", range(len(shapes._KINDS)), ids=[k.__name__.strip("_") for k in shapes._KINDS])
def test_colour_and_depth_edges_of_an_opaque_shape_coincide(kind, monkeypatch):
    """Depth changes in exactly those pixels of which the shape covers half or more of the colour."""
    monkeypatch.setattr(shapes, "_PROBABILITIES", np.eye(len(shapes._KINDS))[kind])
    monkeypatch.setattr(shapes, "_paint", lambda bank, h, w, rng: np.full((h, w, 3), 255, np.float32))
    monkeypatch.setattr(shapes, "_shade", lambda surface: np.ones((*surface.shape, 1), np.float32))
    axis = np.linspace(-1, 1, 48, dtype=np.float32)
    seen = 0
    for seed in range(12):
        color, depth = np.zeros((48, 48, 3), np.float32), np.full((48, 48), 9.0, np.float32)
        rng = np.random.default_rng(seed)
        shapes._add_shape(color, depth, axis[None], axis[:, None], [], 0.5, 0.4, False, rng)
        if color.any():  # now and then a shape lies outside the image, or copies what is behind it
            np.testing.assert_array_equal(color[..., 0] >= 127.5, depth != 9.0)
            seen += (depth != 9.0).any()
    assert seen >= 6


def test_the_nearer_surface_wins():
    """Adding shapes never moves a pixel away from the camera."""
    rng = np.random.default_rng(0)
    axis = np.linspace(-1, 1, 48, dtype=np.float32)
    color, depth = np.zeros((48, 48, 3), np.float32), np.full((48, 48), 0.5, np.float32)
    bank = [random_texture(48, rng)]
    for _ in range(30):
        before = depth.copy()
        shapes._add_shape(color, depth, axis[None], axis[:, None], bank, rng.random(), 0.4, True, rng)
        assert (depth <= before).all()
    assert (depth < 0.5).any()


def test_both_kinds_of_distractors_occur():
    """Strong colour edges on smooth depth, and depth edges that colour hardly shows: a guide is no oracle."""
    only_color = only_depth = both = 0
    for seed in range(12):
        made = scene(seed, 96)
        gray = made.color.astype(np.float32).mean(axis=2)
        color_step = np.abs(np.diff(gray, axis=1))
        depth_step = np.abs(np.diff(made.depth, axis=1)) / np.ptp(made.depth)
        only_color += ((color_step > 20) & (depth_step < 0.005)).sum()
        only_depth += ((color_step < 2) & (depth_step > 0.05)).sum()
        both += ((color_step > 20) & (depth_step > 0.05)).sum()
    assert only_color > 200
    assert only_depth > 20
    assert both > 200


def test_textures_are_well_formed():
    rng = np.random.default_rng(0)
    for _ in range(40):
        texture = random_texture(33, rng)
        assert texture.shape == (33, 33, 3)
        assert texture.dtype == np.uint8
        assert recolour(texture, rng).dtype == np.uint8
