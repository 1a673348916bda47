"""Each degradation does what its name says and nothing else; together they are repeatable, and land on the network's grid."""

from dataclasses import dataclass, fields

import numpy as np
import pytest
from scipy import ndimage

from d2a2_core.data.reduction import resize
from d2a2_core.data.sensors.degradation import (
    SEVERITIES,
    Degradation,
    degrade,
    degrade_color,
    disparity_noise,
    lose_edge_bands,
    lose_faint,
    lose_shadows,
    preset,
    random_settings,
    stray_groups,
)
from d2a2_core.data.sets.benchmarks import Sample
from d2a2_core.evaluation.degraded import degraded_pairs
from d2a2_core.evaluation.evaluator import metric_unit
from d2a2_core.evaluation.protocol import make_case
from d2a2_core.evaluation.units import from_metres, to_metres


def rng(seed=0):
    return np.random.default_rng(seed)


def step_scene(size=(96, 128), near=1.0, far=2.0):
    """Left half near and grey, right half far and a little brighter."""
    depth = np.full(size, near, np.float32)
    depth[:, size[1] // 2 :] = far
    color = np.full((*size, 3), 100, np.uint8)
    color[:, size[1] // 2 :] = 140
    return color, depth


def textured(size=(96, 128)):
    return rng(9).integers(40, 220, (*size, 3), dtype=np.uint8)


@pytest.mark.parametrize("method", ["area", "bicubic", "nearest"])
def test_without_degradation_only_the_named_reduction_is_left(method):
    depth = (1 + rng(1).random((96, 128))).astype(np.float32)
    color, lr = degrade(textured(), depth, 8, rng(), Degradation(reduction=method))
    np.testing.assert_array_equal(color, textured())
    np.testing.assert_allclose(lr, resize(depth, (12, 16), method), rtol=1e-6)


@pytest.mark.parametrize("scale", [4, 8, 16])
@pytest.mark.parametrize("ratio", [0.75, 1.0, 1.25])
@pytest.mark.parametrize("size", [(96, 128), (90, 117)])
def test_lr_lies_on_the_networks_grid_whatever_the_ratio(scale, ratio, size):
    """A slanted plane says where each LR pixel looks: at the centre of its cell of scale x scale HR pixels."""
    rows, cols = np.mgrid[: size[0], : size[1]]
    depth = (2 + 0.01 * cols + 0.02 * rows).astype(np.float32)
    _, lr = degrade(np.zeros((*size, 3), np.uint8), depth, scale, rng(), Degradation(ratio=ratio))
    assert lr.shape == tuple(-(-n // scale) for n in size)
    y, x = ((np.arange(n) + 0.5) * scale - 0.5 for n in lr.shape)
    expected = 2 + 0.01 * x[None] + 0.02 * y[:, None]
    inner = np.s_[1:-2, 1:-2] if scale < 16 else np.s_[1:-1, 1:-1]
    # A camera of fewer pixels is sampled nearest where its own are coarser: off by half of one of its pixels at most.
    slack = 0.5 * scale * max(ratio, 1.0) * (0.01 + 0.02) if ratio != 1 else 1e-5
    np.testing.assert_allclose(lr[inner], expected[inner], atol=slack)
    assert abs((lr[inner] - expected[inner]).mean()) < 0.3 * slack


def test_disparity_noise_grows_with_the_square_of_the_distance_and_steps_are_an_eighth():
    spread = [disparity_noise(np.full((200, 200), z, np.float32), rng(), 0.1, 0).std() for z in (1.0, 2.0)]
    assert spread[1] / spread[0] == pytest.approx(4, rel=0.02)
    stepped = disparity_noise(np.linspace(0.5, 5, 999, dtype=np.float32), rng(), 0, 1 / 8)
    disparity = 43.5 / stepped * 8
    np.testing.assert_allclose(disparity, np.round(disparity), atol=1e-3)
    assert len(np.unique(stepped)) < 640
    assert np.isnan(disparity_noise(np.array([np.nan, 1.0], np.float32), rng(), 0.1, 0)).tolist() == [True, False]


@pytest.mark.parametrize(("view", "share"), [("full", 1.0), ("round", np.pi / 4), ("hexagon", 0.75)])
def test_views_keep_their_share_and_lose_the_corners(view, share):
    color, depth = step_scene((256, 256))
    lr = degrade(color, depth, 4, rng(), Degradation(view=view))[1]
    assert np.isfinite(lr).mean() == pytest.approx(share, abs=0.02)
    assert np.isfinite(lr[32, 32])
    assert np.isfinite(lr[0, 0]) == (view == "full")


def test_misregistration_moves_the_edge_by_at_most_its_amount_and_keeps_the_values():
    color, depth = step_scene()
    moved = set()
    for seed in range(30):
        lr = degrade(color, depth, 4, rng(seed), Degradation(reduction="nearest", shift_px=8))[1]
        assert set(np.unique(lr)) == {1.0, 2.0}
        edge = np.flatnonzero(np.diff(lr[12]))[0] + 1  # in LR pixels; undisturbed at 16
        assert abs(edge - 16) <= 2
        moved.add(int(edge))
    assert len(moved) >= 4
    turned = degrade(color, depth, 4, rng(3), Degradation(reduction="nearest", rotation_deg=6))[1]
    assert np.diff(turned[0]).argmax() != np.diff(turned[-1]).argmax()


def test_dark_and_glaring_surfaces_are_lost_where_they_are():
    color, depth = step_scene()
    color[:, :64], color[:, 64:] = 0, 255
    dark = np.isnan(degrade(color, depth, 4, rng(), Degradation(dark_holes=1.0))[1])
    shiny = np.isnan(degrade(color, depth, 4, rng(), Degradation(shiny_holes=1.0))[1])
    assert dark[:, :16].all()
    assert not dark[:, 16:].any()
    assert shiny[:, 16:].all()
    assert not shiny[:, :16].any()
    dim = np.maximum(step_scene()[0] // 10, 4)  # the camera has its own light: a dim room is no room of dark surfaces
    assert np.isfinite(degrade(dim, depth, 4, rng(), Degradation(dark_holes=1.0))[1]).all()


def test_blob_holes_are_as_dense_in_small_images_as_in_large_ones():
    def lost(size, seeds):
        color, depth = np.full((*size, 3), 99, np.uint8), np.ones(size, np.float32)
        settings = Degradation(blob_holes=4, blob_radius=1.5)
        return np.mean([np.isnan(degrade(color, depth, 4, rng(s), settings)[1]).mean() for s in range(seeds)])

    assert lost((128, 128), 200) == pytest.approx(lost((512, 512), 12), rel=0.5)


def test_strays_are_small_groups_of_wrong_depth_as_dense_as_asked():
    depth = np.full((128, 128), 2, np.float32)
    depth[:, 64:] = 3
    depth[:40] = np.nan
    assert np.array_equal(stray_groups(depth, rng(), 0.0), depth, equal_nan=True)
    out = stray_groups(depth, rng(), 3.0)
    changed = ~np.isclose(out, depth, equal_nan=True)
    groups, count = ndimage.label(changed, np.ones((3, 3)))
    sizes = ndimage.sum(changed, groups, range(1, count + 1))
    assert 5 < count <= 20  # 12 on average
    assert sizes.max() <= 12
    assert changed[:40].any()  # also in the hole
    assert 0.8 * 2 <= np.nanmin(out) < np.nanmax(out) <= 1.2 * 3
    empty = np.full((4, 4), np.nan, np.float32)
    assert np.isnan(stray_groups(empty, rng(), 100)).all()
    _, lr = degrade(textured(), np.full((96, 128), 2, np.float32), 4, rng(), Degradation(strays=20))
    assert 0 < (~np.isclose(lr, 2)).mean() < 0.2


def test_faint_measurements_are_lost_in_regions_in_which_true_ones_stay():
    depth = np.tile(np.linspace(1, 4, 96, dtype=np.float32), (96, 1))
    depth[:8] = np.nan
    color = textured((96, 96))
    assert np.array_equal(lose_faint(depth, color, rng(), 0.0), depth, equal_nan=True)
    for seed, share in enumerate((0.1, 0.4, 0.8)):
        out = lose_faint(depth, color, rng(seed), share)
        left = np.isfinite(out)
        np.testing.assert_array_equal(out[left], depth[left])  # what stays is true
        assert left[8:].mean() == pytest.approx(1 - share, abs=0.01)
        lost = ~left[8:]
        beside = lost[:, 1:] & lost[:, :-1]
        assert beside.mean() > 1.2 * lost.mean() ** 2  # in regions: independent pixels would have the square
    light = np.full((96, 96, 3), 255, np.uint8)
    light[:, :48] = 0
    flat = np.where(np.isfinite(depth), np.float32(2), np.nan)
    dark = np.mean([np.isnan(lose_faint(flat, light, rng(s), 0.3)[8:, :48]).mean() for s in range(30)])
    assert dark > 0.4  # the dark half loses more than its share
    far = np.mean([np.isnan(lose_faint(depth, light * 0 + 99, rng(s), 0.3)[8:, 48:]).mean() for s in range(30)])
    assert far > 0.4  # and so does the far one
    assert np.isnan(lose_faint(np.full((4, 4), np.nan, np.float32), light[:4, :4], rng(), 0.5)).all()
    _, lr = degrade(textured((96, 96)), np.full((96, 96), 2, np.float32), 4, rng(), Degradation(faint=0.5))
    assert np.isfinite(lr).mean() == pytest.approx(0.5, abs=0.02)


def slanted(size=(96, 128)):
    """A floor from 1 m at the bottom to 4 m at the top, as disparity: linear in the image."""
    return np.broadcast_to((1 / np.linspace(0.25, 1, size[0], dtype=np.float32))[:, None], size)


def test_a_camera_that_filters_leaves_a_band_without_measurements_along_edges_and_true_ones_beside_it():
    color, depth = step_scene((96, 120))
    for width in (1, 2.4, 6):
        lost = np.isnan(lose_edge_bands(depth, width))
        assert np.flatnonzero(lost[0]).tolist() == list(range(60 - int(width), 60 + int(width)))
        assert (lost == lost[0]).all()
    for nothing in (lose_edge_bands(depth, 0.0), lose_edge_bands(np.full_like(depth, np.nan), 3.0)):
        assert nothing.shape == depth.shape
    np.testing.assert_array_equal(lose_edge_bands(slanted(), 3.0), slanted())  # no edge, however grazing
    mixed = degrade(color, depth, 8, rng(), Degradation(flying_pixels=0.9))[1]  # 60 is the middle of a cell
    assert ((mixed > 1.01) & (mixed < 1.99)).any()
    for band in (0.5, 1.0, 2.0):
        lr = degrade(color, depth, 8, rng(), Degradation(flying_pixels=0.9, edge_band=band))[1]
        assert np.isnan(lr[6]).sum() == pytest.approx(2 * band, abs=1)
        assert set(lr[np.isfinite(lr)]) == {1.0, 2.0}


def test_what_another_eye_cannot_see_is_lost_on_one_side_of_near_things():
    depth = np.full((40, 100), 3, np.float32)
    depth[10:30, 30:60] = 1
    lost = np.isnan(lose_shadows(depth, 12.0))
    shadow = np.zeros_like(lost)
    shadow[10:30, 60:67] = True  # 12 (1 / 1 - 1 / 3) = 8 columns on from its last one, the 8th just in sight
    np.testing.assert_array_equal(lost, shadow)
    for eye, turned in (
        (1, depth.T),
        (2, depth[:, ::-1]),
        (3, depth.T[::-1]),
    ):  # the eye above: what the left one sees, mirrored
        seen = np.isnan(lose_shadows(turned, 12.0, eye))
        back = {1: seen.T, 2: seen[:, ::-1], 3: seen[::-1].T}[eye]
        np.testing.assert_array_equal(back, shadow)
    np.testing.assert_array_equal(lose_shadows(slanted(), 30.0), slanted())
    np.testing.assert_array_equal(lose_shadows(slanted().T, 30.0), slanted().T)  # floors and walls hide nothing
    assert np.isnan(lose_shadows(np.full((4, 4), np.nan, np.float32), 9.0)).all()
    sides = set()
    for seed in range(20):
        lr = degrade(textured(depth.shape), depth, 4, rng(seed), Degradation(shadow=12.0))[1]
        rows, columns = np.nonzero(np.isnan(lr))
        assert len(rows)
        assert set(lr[np.isfinite(lr)]) <= {1.0, 3.0} | set(
            lr[[2, 7]].ravel()
        )  # what stays is what it was, mixed or not
        sides.add(("left", "right")[int(columns.mean() > 11)] if np.ptp(rows) < 6 else "above or below")
    assert {"left", "right"} <= sides


def test_colour_degradations():
    color = textured()
    noisy = degrade_color(color, rng(), Degradation(color_noise=5)).astype(float) - color
    assert noisy.std() == pytest.approx(5, rel=0.05)
    blurred = degrade_color(color, rng(), Degradation(color_blur=1.0))
    assert np.abs(np.diff(blurred.astype(int), axis=1)).mean() < 0.4 * np.abs(np.diff(color.astype(int), axis=1)).mean()
    dim = degrade_color(color, rng(), Degradation(light=0.25))
    np.testing.assert_allclose((dim / 255) ** 2.2, 0.25 * (color / 255) ** 2.2, atol=0.01)
    worse, better = (
        np.abs(degrade_color(color, rng(), Degradation(jpeg=q)).astype(int) - color).mean() for q in (20, 95)
    )
    assert 0 < better < worse


def test_severities_are_ordered_in_every_strength():
    mild, medium, severe = SEVERITIES.values()
    for field in fields(Degradation):
        values = [getattr(s, field.name) for s in (mild, medium, severe)]
        if field.name in ("reduction", "view"):
            continue
        falling = field.name in ("jpeg", "light")
        assert values == sorted(values, reverse=falling), field.name


def test_error_grows_with_severity_and_the_same_seed_gives_the_same():
    color, depth = step_scene((192, 256))
    errors = []
    for severity in SEVERITIES:
        seen, lr = degrade(color, depth, 4, rng(4), preset(severity))
        again = degrade(color, depth, 4, rng(4), preset(severity))
        np.testing.assert_array_equal(seen, again[0])
        np.testing.assert_array_equal(lr, again[1])
        errors.append(float(np.sqrt(np.nanmean((lr - resize(depth, lr.shape, "area")) ** 2))))
        assert 0.3 < np.isfinite(lr).mean() < 1
    assert errors == sorted(errors)
    assert errors[0] > 0


def test_random_settings_are_within_range_and_each_can_be_off():
    drawn = [random_settings(rng(seed)) for seed in range(120)]
    for name in (
        "flying_pixels",
        "lateral_jitter",
        "quantisation_m",
        "edge_holes",
        "dark_holes",
        "shift_px",
        "color_noise",
    ):
        values = [getattr(settings, name) for settings in drawn]
        assert min(values) == 0, name
        assert 0.5 * getattr(SEVERITIES["severe"], name) < max(values) <= getattr(SEVERITIES["severe"], name), name
    strays = [settings.strays for settings in drawn]
    assert 0.1 < np.mean(np.array(strays) > 0) < 0.4
    assert 2 < max(strays) <= 3
    faint = [settings.faint for settings in drawn]
    assert 0.25 < np.mean(np.array(faint) > 0) < 0.55
    assert 0.6 < max(faint) <= 0.8
    for name, share, largest in (("edge_band", 0.35, 2), ("shadow", 0.3, 30)):
        values = np.array([getattr(settings, name) for settings in drawn])
        assert abs((values > 0).mean() - share) < 0.15, name
        assert 0.8 * largest < values.max() <= largest, name
    assert {settings.reduction for settings in drawn} == {"area", "bicubic", "nearest"}
    assert {settings.view for settings in drawn} == {"full", "round", "hexagon"}
    color, depth = step_scene()
    for seed, settings in enumerate(drawn[:40]):
        seen, lr = degrade(color, depth, 8, rng(seed), settings)
        assert seen.dtype == np.uint8
        assert lr.shape == (12, 16)
        assert lr.dtype == np.float32
        assert np.nanmin(lr, initial=1) > 0


def test_mistakes_are_named():
    color, depth = step_scene()
    with pytest.raises(ValueError, match="colour of shape"):
        degrade(color[:50], depth, 4, rng(), Degradation())
    with pytest.raises(ValueError, match="severity must be one of mild, medium, severe"):
        preset("awful")
    with pytest.raises(ValueError, match="reduction out of"):
        Degradation(reduction="lanczos")
    with pytest.raises(ValueError, match="shift_px"):
        Degradation(shift_px=-1)


# -- degraded benchmark sets --------------------------------------------------------------------------------------------


@dataclass
class Set:
    samples: list
    name: str = "middlebury"
    expected: int = 30

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]


def test_levels_and_metres_are_inverse_and_large_is_near():
    levels = np.arange(256, dtype=np.float32)
    metres = to_metres(levels)
    assert metres[255] == pytest.approx(0.5)
    assert metres[0] == pytest.approx(5.0)
    np.testing.assert_allclose(from_metres(metres), levels, atol=1e-3)
    assert np.isnan(from_metres(np.array([np.nan])))[0]


def test_degraded_pairs_keep_the_truth_and_measure_the_lr_in_its_unit():
    color, depth = step_scene((100, 130), 200, 60)
    plain = Set([Sample("a", color, depth, unit="8-bit", metric_factor=1.0)] * 2)
    pairs = degraded_pairs(plain, 4, "medium", seed=3)
    sample, other = pairs[0], pairs[1]
    np.testing.assert_array_equal(sample.depth, depth[:100, :128])
    assert sample.lr.shape == (25, 32)
    assert np.isnan(sample.lr).any()
    assert np.nanmedian(sample.lr[:, :14]) == pytest.approx(200, abs=4)
    assert np.nanmedian(sample.lr[:, 18:]) == pytest.approx(60, abs=4)
    np.testing.assert_array_equal(sample.lr, degraded_pairs(plain, 4, "medium", seed=3)[0].lr)
    assert (np.nan_to_num(sample.lr) != np.nan_to_num(other.lr)).any()
    case = make_case(sample, 4, "deploy")  # holes filled for the methods
    assert np.isfinite(case.lr).all()
    assert case.truth.shape == (100, 128)
    assert pairs.name == "middlebury (medium)"
    assert metric_unit(pairs.name) == "8-bit"
    assert pairs.expected == 30


def test_degraded_pairs_in_metres_stay_in_metres():
    color, depth = step_scene()
    sample = degraded_pairs(Set([Sample("a", color, depth)], "nyuv2"), 8, "mild")[0]
    assert np.nanmedian(sample.lr[:, :6]) == pytest.approx(1.0, abs=0.02)
    assert metric_unit("nyuv2 (mild)") == "cm"
