"""Distortion models by their many names, and coefficients of zero: OpenCV and known angles as references."""

import numpy as np
import pytest
import torch

from d2a2_core.geometry import Camera, Extrinsics, Registration
from d2a2_core.geometry.distortion import distort

K = (64, 48, 60.0, 61.0, 31.2, 24.9)
FIVE = (-0.28, 0.09, 1e-3, -2e-3, -0.01)
EIGHT = (0.42, -2.29, 9.8e-4, -4.5e-4, 1.24, 0.30, -2.13, 1.18)
FISHEYE = (0.03, -0.01, 4e-3, -1e-3)


def points():
    rng = np.random.default_rng(0)
    z = rng.uniform(0.3, 8, 200)
    return np.stack((z * rng.uniform(-0.6, 0.6, 200), z * rng.uniform(-0.45, 0.45, 200), z), axis=-1)


@pytest.mark.parametrize(
    ("names", "coefficients", "formula"),
    [
        (("plumb_bob", "Plumb Bob", "Brown Conrady", "radtan", "radial-tangential", "OPENCV"), FIVE, "plumb_bob"),
        (("distortion.brown_conrady", "RS2_DISTORTION_BROWN_CONRADY", "radtan5", "plumb_bob_5"), FIVE, "plumb_bob"),
        (("OB_DISTORTION_BROWN_CONRADY_K6", "rational_8"), EIGHT, "rational_polynomial"),
        (("OPENCV8",), EIGHT, "plumb_bob"),
        (("equidistant4", "OB_DISTORTION_KANNALA_BRANDT4", "kannala_brandt_4"), FISHEYE, "equidistant"),
        (("rational_polynomial", "Rational Polynomial", "BROWN_CONRADY_K6"), EIGHT, "rational_polynomial"),
        (("equidistant", "fisheye", "Kannala Brandt4", "kannala_brandt", "KB4", "pinhole-equi"), FISHEYE, "equidistant"),
        (("", " "), FIVE, "plumb_bob"),
        (("",), FIVE[:4], "plumb_bob"),
        (("",), EIGHT, "rational_polynomial"),
        (("",), (*EIGHT, *[0.0] * 4), "rational_polynomial"),
        (("",), (*EIGHT, *[0.0] * 6), "rational_polynomial"),
    ],
)  # fmt: skip
def test_names_mean_opencvs_formulas(names, coefficients, formula):
    cv2 = pytest.importorskip("cv2")
    zero, matrix = np.zeros(3), np.array([[K[2], 0, K[4]], [0, K[3], K[5]], [0, 0, 1]])
    project = cv2.fisheye.projectPoints if formula == "equidistant" else cv2.projectPoints
    expected, _ = project(points()[:, None], zero, zero, matrix, np.array(coefficients))
    for name in names:
        camera = Camera(*K, name, coefficients)
        assert camera.model == formula
        np.testing.assert_allclose(camera.project(points()), expected.reshape(-1, 2), atol=1e-6)


def test_modified_brown_conrady_is_librealsenses():
    """rs2_project_point_to_pixel of rsutil.h, written out for one point."""
    k1, k2, p1, p2, k3 = FIVE
    x, y = 0.4, -0.3
    r2 = x * x + y * y
    f = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
    u, v = x * f, y * f
    expected = u + 2 * p1 * u * v + p2 * (r2 + 2 * u * u), v + 2 * p2 * u * v + p1 * (r2 + 2 * v * v)
    camera = Camera(*K, "Modified Brown Conrady", FIVE)
    np.testing.assert_allclose(distort(np.array(x), np.array(y), camera.model, camera.distortion), expected, rtol=1e-12)
    assert np.hypot(*(np.array(expected) - distort(x, y, "plumb_bob", FIVE))) > 1e-5
    assert Camera(*K, "Modified Brown Conrady", (-0.28, 0.09)) == Camera(*K, "plumb_bob", (-0.28, 0.09))


@pytest.mark.parametrize(
    "camera",
    [
        Camera(*K, "Modified Brown Conrady", (-0.28, 0.09, 0.01, -0.02, -0.01)),
        Camera(64, 48, 30.0, 30.0, 31.5, 23.5, "fisheye", (0.0,) * 4),
        Camera(*K, "", EIGHT),
    ],
    ids=["modified", "ideal fisheye", "unnamed"],
)
def test_registration_sees_what_the_camera_sees(camera):
    """A hole in a wall seen by a pinhole camera lies in the camera's view where the camera projects it to."""
    source = Camera(300, 200, 150.0, 150.0, 149.5, 99.5)
    depth = np.full((200, 300), 2.0, np.float32)
    depth[70:90, 180:205] = np.nan
    result = Registration(source, camera, Extrinsics.identity())(torch.from_numpy(depth)[None, None])[0, 0].numpy()
    v, u = np.mgrid[70:90, 180:205]
    places = camera.project(np.stack(((u - 149.5) / 150, (v - 99.5) / 150, np.ones(u.shape)), -1)).reshape(-1, 2)
    low, high = np.floor(places.min(0)).astype(int) - 3, np.ceil(places.max(0)).astype(int) + 4
    holes = np.argwhere(~np.isfinite(result[low[1] : high[1], low[0] : high[0]]))[:, ::-1] + low
    assert len(holes) > 10
    np.testing.assert_allclose(holes.mean(0), places.mean(0), atol=0.4)


@pytest.mark.parametrize(
    "name",
    ["", "none", "None", "pinhole", "Inverse Brown Conrady", "Modified Brown Conrady", "F-Theta", "fov", "wavy", "plumb_bob"],
)  # fmt: skip
@pytest.mark.parametrize("length", [0, 4, 5, 8, 14])
def test_zero_coefficients_need_no_model(name, length):
    assert Camera(*K, name, (0.0,) * length) == Camera(*K)


@pytest.mark.parametrize(
    "name", ["equidistant", "Kannala Brandt4", "fisheye", "thin_prism_fisheye", "FISHEYE62", "opencv_fisheye_4"]
)
@pytest.mark.parametrize("coefficients", [(), (0.0,) * 4])
def test_a_fisheye_without_coefficients_is_a_fisheye(name, coefficients):
    """The angle from the axis is the distance from the centre over f: at the corner of 64 x 48 pixels x / z is 3.00, not 1.05."""
    camera = Camera(64, 48, 30.0, 30.0, 31.5, 23.5, name, coefficients)
    assert camera.distorted
    theta = np.hypot(31.5, 23.5) / 30
    expected = np.tan(theta) * np.array([31.5, 23.5]) / np.hypot(31.5, 23.5)
    np.testing.assert_allclose(camera.rays()[-1, -1], expected, rtol=1e-5)
    assert camera.rays()[-1, -1, 0] == pytest.approx(3.00, abs=0.01)
    np.testing.assert_allclose(camera.project(np.array([*expected, 1.0])), [63, 47], atol=1e-6)


@pytest.mark.parametrize(
    ("name", "coefficients", "said"),
    [
        ("wavy", (0.1,), "'wavy' is unknown; supported are plumb_bob"),
        ("Inverse Brown Conrady", FIVE, "'Inverse Brown Conrady' is unknown; librealsense itself"),
        ("F-Theta", (0.9, 0, 0, 0, 0), "'F-Theta' is unknown"),
        ("pinhole", FIVE, "'pinhole' is unknown; it says nothing of distortion"),
        ("FISHEYE62", FISHEYE, "'FISHEYE62' is unknown"),
        ("distortion.inverse_brown_conrady", FIVE, "is unknown; librealsense itself"),
        ("thin_prism_fisheye", FISHEYE, "'thin_prism_fisheye' is unknown"),
        ("", (0.1, 0.2), "2 distortion coefficients without a model's name"),
        ("", (*EIGHT, 0.1, 0, 0, 0), "from the 9th on"),
        ("equidistant", (*FISHEYE, 0.1), "from the 5th on"),
        ("plumb_bob", (float("nan"),), "finite"),
        ("equidistant", (float("inf"),), "finite"),
    ],
)
def test_coefficients_that_cannot_be_used_are_named(name, coefficients, said):
    with pytest.raises(ValueError, match="distortion") as caught:
        Camera(*K, name, coefficients)
    assert said in str(caught.value)
