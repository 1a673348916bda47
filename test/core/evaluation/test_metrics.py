"""Metrics with answers worked out by hand."""

import math

import numpy as np
import pytest

from d2a2_core.evaluation.metrics import (
    BAND,
    METRICS,
    compare,
    delta,
    depth_edges,
    edge_band,
    flying_share,
    normal_error,
    relative,
)


@pytest.fixture
def step() -> np.ndarray:
    """40 x 40: 1 m on the left, 2 m from column 20 on."""
    depth = np.ones((40, 40))
    depth[:, 20:] = 2
    return depth


def test_perfect_prediction(step):
    values = compare(step, step)
    assert tuple(values) == METRICS
    zero = ("rmse", "mae", "rel", "rmse_edge", "flying", "normal_deg")
    assert all(values[key] == 0 for key in zero)
    assert all(values[key] == 1 for key in ("delta1", "delta2", "delta3", "coverage"))


def test_means_are_in_the_published_unit_and_skip_nan():
    truth = np.array([[1.0, 2.0, np.nan, 4.0]])
    prediction = np.array([[1.3, 1.6, 9.0, np.nan]])
    values = compare(prediction, truth, factor=100)
    assert values["rmse"] == pytest.approx(100 * math.sqrt((0.09 + 0.16) / 2))
    assert values["mae"] == pytest.approx(35)
    assert values["rel"] == pytest.approx((0.3 / 1 + 0.4 / 2) / 2)
    assert values["coverage"] == pytest.approx(2 / 3)


def test_nothing_to_score_is_nan():
    values = compare(np.ones((8, 8)), np.full((8, 8), np.nan))
    assert all(math.isnan(value) for value in values.values())


def test_delta_counts_ratios_both_ways():
    truth = np.array([1.0, 1.0, 1.0, 1.0, 0.0])
    prediction = np.array([1.24, 1 / 1.24, 1.3, -1.0, 5.0])
    assert delta(prediction, truth, 1.25) == pytest.approx(2 / 4)
    assert delta(prediction, truth, 1.25**2) == pytest.approx(3 / 4)


def test_relative_error_leaves_out_zero_truth():
    assert relative(np.array([0.5, 0.5]), np.array([0.0, 2.0])) == pytest.approx(0.25)


def test_border_is_cut_before_scoring():
    truth = np.ones((20, 20))
    prediction = truth.copy()
    prediction[:6] += 1
    assert compare(prediction, truth, border=6)["rmse"] == 0
    assert compare(prediction, truth, border=5)["rmse"] > 0


def test_edges_are_both_sides_of_a_jump_and_not_a_slope(step):
    edges = depth_edges(step)
    assert edges[:, 19:21].all()
    assert edges.sum() == 2 * 40
    assert not depth_edges(np.tile(np.linspace(1, 2, 100), (5, 1))).any()


def test_band_reaches_its_width_and_no_further(step):
    columns = np.nonzero(edge_band(step)[7])[0]
    assert columns.tolist() == list(range(19 - BAND, 20 + BAND + 1))
    prediction = step.copy()
    prediction[:, 0] += 1  # far from the edge
    assert compare(prediction, step)["rmse_edge"] == 0
    prediction[:, 19] += 0.5
    assert compare(prediction, step)["rmse_edge"] == pytest.approx(math.sqrt(0.25 / 12))


def test_flying_pixels_are_those_in_the_air(step):
    band = edge_band(step)
    prediction = step.copy()
    prediction[:, 19] = 1.5  # one of the band's 12 columns hangs between 1 and 2 m
    prediction[:, 21] = 1.0  # wrong, but on the foreground: it does not fly
    prediction[:, 22] = 2.5  # behind everything: wrong, not flying
    prediction[:, 23] = 1.98  # within the margin of the background
    assert flying_share(prediction, step, band) == pytest.approx(1 / 12)


def test_a_real_surface_between_is_not_flying(step):
    step[:, 18:20] = 1.5
    assert flying_share(step, step, edge_band(step)) == 0


@pytest.mark.parametrize("border", [0, 8])
def test_normal_error_of_a_tilted_plane_with_intrinsics(border):
    """A plane z = 2 + x tan(a) seen by a pinhole makes the angle a with a fronto-parallel one, however it is cut."""
    angle, (fx, fy, cx, cy) = math.radians(30), (100.0, 110.0, 31.5, 22.0)
    u = np.indices((48, 64), dtype=np.float64)[1]
    slope = (u - cx) / fx * math.tan(angle)
    tilted, flat = 2 / (1 - slope), np.full((48, 64), 2.0)
    values = compare(tilted, flat, border=border, intrinsics=(fx, fy, cx, cy))
    assert values["normal_deg"] == pytest.approx(30, abs=0.05)


def test_normal_error_of_a_height_field():
    x = np.indices((9, 9), dtype=np.float64)[1]
    assert normal_error(x, np.zeros((9, 9))) == pytest.approx(45)


def test_sizes_must_agree():
    with pytest.raises(ValueError, match=r"expected a prediction of \(4, 4\)"):
        compare(np.ones((4, 5)), np.ones((4, 4)))
