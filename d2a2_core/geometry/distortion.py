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
    plain = re.sub("[^a-z0-9]", "", name.lower())
    formula = _FORMULAS.get(plain, "")
    coefficients = tuple(float(value) for value in coefficients)
    if not all(map(math.isfinite, coefficients)):
        raise ValueError(f"expected finite distortion coefficients, got {coefficients}")
    if plain == "none" or (not any(coefficients) and formula != "equidistant"):
        return "", ()
    if not plain:
        formula = _UNNAMED.get(len(coefficients), "")
        if not formula:
            raise ValueError(
                f"{len(coefficients)} distortion coefficients without a model's name; expected 4, 5, 8, 12 or 14, or a name"
            )
    if not formula or (plain == "thinprismfisheye" and any(coefficients)):
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
    if (
        model == "modified_brown_conrady"
    ):  # as the others, but its tangential terms are those of the place moved already
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
    u, v, h = x.copy(), y.copy(), 1e-6
    with np.errstate(all="ignore"):  # where there is no inverse the numbers run away; they become NaN below
        for _ in range(iterations):
            du, dv = distort(u, v, model, coefficients)
            ex, ey = du - x, dv - y
            ux, vx = distort(u + h, v, model, coefficients)
            uy, vy = distort(u, v + h, model, coefficients)
            a, b, c, d = (ux - du) / h, (uy - du) / h, (vx - dv) / h, (vy - dv) / h
            determinant = a * d - b * c
            step_u, step_v = (d * ex - b * ey) / determinant, (a * ey - c * ex) / determinant
            u, v = u - step_u, v - step_v
            if max(np.abs(step_u).max(), np.abs(step_v).max()) < 1e-10:
                break
        du, dv = distort(u, v, model, coefficients)
        # Beyond a fold of the distortion the image is turned over; no lens shows that part.
        found = (np.hypot(du - x, dv - y) < 1e-6) & (determinant > 0) & (a > 0) & (d > 0)
    return np.where(found, u, np.nan), np.where(found, v, np.nan)
