"""What is said of depth that cannot be used: wrong units by the advice that cures them, and nothing where all is well."""

import re

import numpy as np
import pytest

from d2a2_core.depth.diagnosis import depth_problem

SCENE = np.random.default_rng(0).uniform(0.8, 3.0, (60, 80)).astype(np.float32)


@pytest.mark.parametrize(
    ("factor", "unit", "says", "advice"),
    [
        (1000, 1.0, "the median of the depth is 1,8", "is it in millimetres? Set depth_unit to 0.001"),
        (10, 0.001, "above max_depth 7 m", "is it in tenths of a millimetre? Set depth_unit to 0.0001"),
        (0.001, 0.001, "below min_depth 0.05 m", "is it in metres? Set depth_unit to 1;"),
        (0.01, 0.001, "below min_depth 0.05 m", "Set depth_unit to 0.01"),
        (1e9, 1.0, "above max_depth", "set depth_unit to its metres per count, or change max_depth"),
    ],
)
def test_a_wrong_unit_is_named_with_its_cure(factor, unit, says, advice):
    problem = depth_problem(SCENE * np.float32(factor), 0.05, 7.0, unit)
    assert problem.code == "depth_limits"
    assert says in problem.message
    assert advice in problem.message
    cure = re.search(r"Set depth_unit to ([\d.]+\d|\d)", problem.message)
    if cure:
        cured = float(cure[1])
        assert depth_problem(SCENE * np.float32(factor * cured / unit), 0.05, 7.0, cured) is None


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, -np.inf, -1.0])
def test_depth_without_a_valid_pixel(value):
    problem = depth_problem(np.full((4, 5), value, np.float32), 0.05, 20.0, 0.001)
    assert (problem.code, problem.message) == (
        "no_depth_values",
        "depth has no valid pixel: all are 0, NaN or infinite",
    )


def test_one_percent_of_the_valid_pixels_is_enough():
    depth = np.full((100, 100), np.nan, np.float32)
    depth[:10] = 50.0
    depth[0, :9] = 1.0
    assert depth_problem(depth, 0.05, 20.0, 1.0).code == "depth_limits"
    depth[0, :11] = 1.0
    assert depth_problem(depth, 0.05, 20.0, 1.0) is None


def test_a_median_between_what_is_too_near_and_too_far():
    depth = np.full((10, 41), 0.01, np.float32)
    depth[5:] = 99.0
    depth[4, 20] = 1.0
    depth[5, 0] = np.nan
    message = depth_problem(depth, 0.05, 20.0, 1.0).message
    assert message.startswith("the median of the depth is 1 m, but 99.8% lies outside 0.05 m to 20 m: ")


@pytest.mark.parametrize("scene", [SCENE, np.where(SCENE > 2, SCENE, 0), np.full((1, 1), 20.0, np.float32)])
def test_good_depth_has_no_problem(scene):
    assert depth_problem(scene.astype(np.float32), 0.05, 20.0, 0.001) is None
