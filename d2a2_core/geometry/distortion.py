"""Lens distortion: the formulas, and which of them the many names in camera infos mean.

Formulas are OpenCV's (calib3d; fisheye for "equidistant"), and librealsense's (rsutil.h) for "modified_brown_conrady".
"""

from __future__ import annotations

import math
import re

import numpy as np

# Names as camera infos and calibration files have them (sensor_msgs, librealsense, Kalibr, COLMAP, Orbbec, OpenCV), without case
# and anything but letters and digits.
_NAMES = {
    "plumb_bob": "plumbbob brownconrady brown radtan radialtangential pinholeradtan opencv",
    "rational_polynomial": "rationalpolynomial rational brownconradyk6 fullopencv",
    "modified_brown_conrady": "modifiedbrownconrady",
    "equidistant": (
        "equidistant equi pinholeequi fisheye opencvfisheye kannalabrandt kannalabrandt4 kannalabrandt8 kb4 thinprismfisheye"
    ),
}
_FORMULAS = {name: formula for formula, names in _NAMES.items() for name in names.split()}
#: Enumerations of SDKs, as Python prints them: distortion.brown_conrady, OB_DISTORTION_BROWN_CONRADY, RS2_DISTORTION_...
_PREFIX = re.compile("^(rs2?|ob)?distortion(model)?")
#: What is a fisheye by its name, whatever its coefficients mean: without any it is an ideal one.
_FISHEYE = re.compile("fisheye|equidistan|kannala")
#: Coefficients that a formula has.
_LENGTHS = {"plumb_bob": 8, "rational_polynomial": 8, "modified_brown_conrady": 5, "equidistant": 4}
#: What coefficients without a name mean, by their number, as OpenCV takes them.
_UNNAMED = {
    4: "plumb_bob",
    5: "plumb_bob",
    8: "rational_polynomial",
    12: "rational_polynomial",
    14: "rational_polynomial",
}
_REASONS = {
    "inversebrownconrady": "; librealsense itself has read it in two ways (pointcloud.cpp and rsutil.h)",
    "pinhole": "; it says nothing of distortion",
}


def distortion_formula(name: str, coefficients: tuple[float, ...]) -> tuple[str, tuple[float, ...]]:
    """Returns which formula a distortion model's name means, and its coefficients; ("", ()) where nothing distorts.

    Case, spaces and punctuation of the name do not matter. Coefficients of zero distort nothing whatever the name, except for a
    fisheye, which is no pinhole camera without them either. Coefficients without a name are taken by their number as OpenCV does:
    4 or 5 are plumb_bob's, 8 (or 12, 14 with zeros from the 9th on) rational_polynomial's.

    Raises:
        ValueError: Coefficients that are not finite, whose formula is not known, or that are beyond the formula's.
    """
    plain = _PREFIX.sub("", re.sub("[^a-z0-9]", "", name.lower()))
    # Some names end with the number of coefficients: radtan5, OPENCV8.
    formula = _FORMULAS.get(plain) or _FORMULAS.get(plain.rstrip("0123456789"), "")
    coefficients = tuple(float(value) for value in coefficients)
    if not all(map(math.isfinite, coefficients)):
        raise ValueError(f"expected finite distortion coefficients, got {coefficients}")
    if not any(coefficients) and _FISHEYE.search(plain):
        formula = "equidistant"
    elif plain == "none" or (not any(coefficients) and formula != "equidistant"):
        return "", ()
    if not plain:
        formula = _UNNAMED.get(len(coefficients), "")
        if not formula:
            raise ValueError(
                f"{len(coefficients)} distortion coefficients without a model's name; expected 4, 5, 8, 12 or 14, or a name"
            )
    # COLMAP's and Project Aria's fisheyes have other coefficients.
    if not formula or (any(coefficients) and plain in ("thinprismfisheye", "fisheye62", "fisheye624")):
        raise ValueError(
            f"distortion model {name!r} is unknown{_REASONS.get(plain, '')}; supported are {', '.join(_NAMES)}, or coefficients "
            "of zero"
        )
    length = _LENGTHS[formula]
    if any(coefficients[length:]):
        raise ValueError(
            f"distortion coefficients from the {length + 1}th on (thin prism, tilt) are not supported for {formula}, got "
            f"{coefficients[length:]}; calibrate without them"
        )
    if formula == "modified_brown_conrady" and not any(coefficients[2:4]):
        formula = "plumb_bob"  # the two differ in their tangential terms alone
    return formula, coefficients


def distort(x: np.ndarray, y: np.ndarray, model: str, coefficients: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Distorted normalised coordinates of undistorted ones (x / z, y / z), float64 arrays of any shape.

    ``model`` and ``coefficients`` are what :func:`distortion_formula` returned.
    """
    if not model:
        return x, y
    k = np.zeros(8)
    k[: min(8, len(coefficients))] = coefficients[:8]
    r2 = x * x + y * y
    if model == "equidistant":
        r = np.sqrt(r2)
        theta = np.arctan(r)
        t2 = theta * theta
        scale = theta * (1 + t2 * (k[0] + t2 * (k[1] + t2 * (k[2] + t2 * k[3])))) / np.maximum(r, 1e-12)
        scale = np.where(r > 1e-8, scale, 1.0)
        return x * scale, y * scale
    radial = (1 + r2 * (k[0] + r2 * (k[1] + r2 * k[4]))) / (1 + r2 * (k[5] + r2 * (k[6] + r2 * k[7])))
    if model == "modified_brown_conrady":
        # As the others, but its tangential terms are those of the place moved already.
        x, y, radial = x * radial, y * radial, 1.0
    xy = x * y
    return (
        x * radial + 2 * k[2] * xy + k[3] * (r2 + 2 * x * x),
        y * radial + k[2] * (r2 + 2 * y * y) + 2 * k[3] * xy,
    )


def undistort(
    x: np.ndarray, y: np.ndarray, model: str, coefficients: tuple[float, ...], iterations: int = 20
) -> tuple[np.ndarray, np.ndarray]:
    """The inverse of :func:`distort`, by Newton's method with a numeric Jacobian; NaN where there is none."""
    if not model:
        return x, y
    goal_x, goal_y = x.ravel(), y.ravel()
    u, v = goal_x.copy(), goal_y.copy()
    active = np.arange(u.size)
    with np.errstate(all="ignore"):  # where there is no inverse the numbers run away; they become NaN below
        for _ in range(iterations):
            off_x, off_y, (a, b, c, d) = _residual(
                u[active], v[active], goal_x[active], goal_y[active], model, coefficients
            )
            determinant = a * d - b * c
            step_u, step_v = (d * off_x - b * off_y) / determinant, (a * off_y - c * off_x) / determinant
            u[active] -= step_u
            v[active] -= step_v
            active = active[np.maximum(np.abs(step_u), np.abs(step_v)) >= 1e-10]
            if not active.size:
                break
        off_x, off_y, (a, b, c, d) = _residual(u, v, goal_x, goal_y, model, coefficients)
        # Beyond a fold of the distortion the image is turned over; no lens shows that part.
        found = (np.hypot(off_x, off_y) < 1e-6) & (a * d - b * c > 0) & (a > 0) & (d > 0)
    return np.where(found, u, np.nan).reshape(x.shape), np.where(found, v, np.nan).reshape(y.shape)


def _residual(
    u: np.ndarray, v: np.ndarray, x: np.ndarray, y: np.ndarray, model: str, coefficients: tuple[float, ...]
) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, ...]]:
    """How far (u, v), distorted, is off (x, y), and the derivatives of x by u and v, then of y by u and v."""
    h = 1e-6
    du, dv = distort(u, v, model, coefficients)
    ux, vx = distort(u + h, v, model, coefficients)
    uy, vy = distort(u, v + h, model, coefficients)
    return du - x, dv - y, ((ux - du) / h, (uy - du) / h, (vx - dv) / h, (vy - dv) / h)
