"""What is known, from another pose: exact motions with known answers."""

import numpy as np
import pytest

from d2a2_core.geometry import Camera
from d2a2_core.temporal.fusion import Belief
from d2a2_core.temporal.warp import seen_from

CAMERA = Camera(64, 48, 80.0, 80.0, 31.5, 23.5)
LENS = Camera(64, 48, 80.0, 80.0, 31.5, 23.5, "plumb_bob", (0.2, -0.1, 0.001, 0.0005, 0.0))


def motion(x=0.0, y=0.0, z=0.0, roll=0.0):
    """x_new = M x_old of a camera that went by (x, y, z)."""
    matrix = np.eye(4)
    c, s = np.cos(roll), np.sin(roll)
    matrix[:2, :2] = [[c, -s], [s, c]]
    matrix[:3, 3] = -matrix[:3, :3] @ [x, y, z]
    return matrix


def believed(depth, noise=None):
    noise = np.full(depth.shape, 1e-4) if noise is None else noise
    planes = (depth, noise, 2 * noise, np.full(depth.shape, 0.2))
    return Belief(*(np.array(plane, np.float32) for plane in planes))


def warp(belief, matrix, camera, depth, drift_m=0.0):
    out = Belief.empty(depth.shape)
    seen_from(belief, matrix, camera, depth.astype(np.float32), drift_m, out)
    return out


def plane(camera, normal, distance):
    """Depth of the plane n x = d."""
    rays = np.concatenate((camera.rays(), np.ones((camera.height, camera.width, 1))), -1)
    return distance / (rays @ np.asarray(normal, float))


def test_standing_still_changes_nothing():
    rng = np.random.default_rng(0)
    depth = rng.uniform(1.9, 2.0, (48, 64)).astype(np.float32)
    belief = believed(depth, rng.uniform(1e-5, 1e-3, depth.shape))
    out = warp(belief, np.eye(4), CAMERA, depth)
    np.testing.assert_allclose(out.depth, depth, rtol=1e-6)
    np.testing.assert_array_equal(out.noise, belief.noise)
    np.testing.assert_array_equal(out.shared, belief.shared)


@pytest.mark.parametrize("camera", [CAMERA, LENS], ids=["pinhole", "distorted"])
@pytest.mark.parametrize("move", [{"x": 0.04}, {"y": -0.03}, {"z": 0.1}, {"x": 0.02, "z": -0.05, "roll": 0.03}])
def test_a_slanted_plane_is_where_the_pose_says(camera, move):
    normal, distance = np.array([0.3, -0.2, 1.0]), 1.8
    matrix = motion(**move)
    turned = matrix[:3, :3] @ normal
    expected = plane(camera, turned, distance + turned @ matrix[:3, 3])
    out = warp(believed(plane(camera, normal, distance)), matrix, camera, expected)
    known = np.isfinite(out.depth)
    assert known.mean() > 0.8
    np.testing.assert_allclose(out.depth[known], expected[known], rtol=5e-4)


def test_a_turn_by_half_about_the_axis_turns_the_image():
    rng = np.random.default_rng(1)
    depth = (2 + 0.01 * rng.standard_normal((48, 64))).astype(np.float32)
    noise = rng.uniform(1e-5, 1e-3, depth.shape)
    out = warp(believed(depth, noise), motion(roll=np.pi), CAMERA, depth[::-1, ::-1])
    np.testing.assert_allclose(out.depth, depth[::-1, ::-1], rtol=1e-4)
    np.testing.assert_allclose(out.noise, noise[::-1, ::-1], rtol=1e-6)


def test_what_was_beyond_the_border_is_not_known():
    depth = np.full((48, 64), 2.0)
    out = warp(believed(depth), motion(x=0.25), CAMERA, depth)  # 10 pixels
    np.testing.assert_array_equal(np.isnan(out.depth), np.arange(64)[None] + np.zeros((48, 1)) > 53.5)
    assert np.isnan(warp(believed(depth), motion(z=5.0), CAMERA, depth).depth).all()  # the camera went through it


def test_no_depth_lies_between_two_surfaces():
    depth = np.full((48, 64), 3.0)
    depth[:, :30] = 1.0
    for x in np.linspace(0, 0.05, 12):
        out = warp(believed(depth), motion(x=x), CAMERA, depth)
        known = out.depth[np.isfinite(out.depth)]
        assert (np.minimum(np.abs(known - 1), np.abs(known - 3)) < 1e-5).all()
    assert np.isfinite(out.depth).mean() > 0.9


def test_drift_is_added_to_the_noise():
    depth = np.full((48, 64), 2.0)
    out = warp(believed(depth), np.eye(4), CAMERA, depth, drift_m=0.02)
    np.testing.assert_allclose(out.noise, 1e-4 + 0.02**2, rtol=1e-5)


def test_holes_get_the_nearest_of_what_lands_there():
    depth = np.full((48, 64), 4.0)
    depth[20:30, 20:40] = 1.0
    frame = np.full((48, 64), np.nan)
    out = warp(believed(depth), motion(x=0.05), CAMERA, frame)  # 4 pixels to the left at 1 m, 1 pixel at 4 m
    expected = np.full((48, 64), 4.0)
    expected[20:30, 37:39] = np.nan  # uncovered
    expected[20:30, 16:36] = 1.0
    expected[:, -1] = np.nan  # beyond the border
    columns = np.r_[:35, 40:64]  # around the uncovered strip rounding decides
    np.testing.assert_allclose(out.depth[:, columns], expected[:, columns])
    np.testing.assert_allclose(out.age[np.isfinite(out.depth)], 0.2)
    assert np.isnan(out.depth[20:30, 36:39]).any()


def test_a_hole_moves_with_what_was_seen_there_not_with_the_pixel():
    depth = plane(CAMERA, [0.3, 0, 1.0], 2.0)
    matrix = motion(z=0.2)
    expected = plane(CAMERA, [0.3, 0, 1.0], 1.8)
    frame = expected.copy()
    frame[10:30, 20:40] = np.nan
    out = warp(believed(depth), matrix, CAMERA, frame)
    inside = out.depth[10:30, 20:40]
    known = np.isfinite(inside)
    assert known.mean() > 0.75  # coming nearer leaves gaps
    np.testing.assert_allclose(inside[known], expected[10:30, 20:40][known], atol=0.01)  # half a pixel on the slope
