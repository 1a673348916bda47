"""Cameras: pinhole intrinsics with lens distortion.

Convention: x right, y down, z forward (optical frame, REP 103); depth is z, not ray length (REP 118); pixel centres are
at integers, so the top left corner of an image is at (-0.5, -0.5). Distortion models are named as in
sensor_msgs/CameraInfo, formulas as in OpenCV's calib3d ("Camera Calibration and 3D Reconstruction", fisheye for
"equidistant").
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

DISTORTION_MODELS = ("", "none", "plumb_bob", "rational_polynomial", "equidistant")


@dataclass(frozen=True)
class Camera:
    """Intrinsics of an image of ``width`` x ``height`` pixels.

    Attributes:
        fx, fy, cx, cy: pixels.
        model: one of :data:`DISTORTION_MODELS`.
        distortion: coefficients in the model's order (k1 k2 p1 p2 k3 [k4 k5 k6], or k1..k4), trailing zeros optional.

    Raises:
        ValueError: a focal length that is not positive, no size, or an unknown model.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    model: str = ""
    distortion: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise ValueError(f"camera size must be at least 1 x 1 pixels, got {self.width} x {self.height}")
        if not (np.isfinite([self.fx, self.fy, self.cx, self.cy]).all() and self.fx > 0 and self.fy > 0):
            raise ValueError(
                f"camera is not calibrated: fx={self.fx}, fy={self.fy}, cx={self.cx}, cy={self.cy}; expected a positive "
                "focal length (K[0], K[4]) in its camera info"
            )
        if self.model not in DISTORTION_MODELS:
            raise ValueError(
                f"distortion model {self.model!r} is unknown; supported are {DISTORTION_MODELS[2:]} or none"
            )
        if self.distorted and any(self.distortion[8:]):
            raise ValueError(
                "distortion coefficients from the 9th on (thin prism, tilt) are not supported, got "
                f"{self.distortion[8:]}; calibrate with the rational model alone"
            )

    @property
    def distorted(self) -> bool:
        """Whether any distortion coefficient matters."""
        return self.model not in ("", "none") and any(self.distortion)

    def without_distortion(self) -> Camera:
        """The pinhole camera with the same matrix."""
        return replace(self, model="", distortion=())

    def resized(self, width: int, height: int) -> Camera:
        """The camera of the same image resized: c' = (c + 0.5) s - 0.5, f' = f s along each axis."""
        sx, sy = width / self.width, height / self.height
        return replace(
            self, width=width, height=height, fx=self.fx * sx, fy=self.fy * sy,
            cx=(self.cx + 0.5) * sx - 0.5, cy=(self.cy + 0.5) * sy - 0.5,
        )  # fmt: skip

    def reduced(self, scale: int) -> Camera:
        """The camera of the network's LR grid: one cell per ``scale`` x ``scale`` pixels from the top left corner on.

        The size is rounded up, so the last cells may stick out of the image.

        Raises:
            ValueError: a scale that is not a whole number of at least 1.
        """
        if not (scale >= 1 and scale == int(scale)):
            raise ValueError(f"expected a whole scale of at least 1, got {scale}; use resized for other ratios")
        return replace(
            self, width=-(-self.width // int(scale)), height=-(-self.height // int(scale)),
            fx=self.fx / scale, fy=self.fy / scale, cx=(self.cx + 0.5) / scale - 0.5, cy=(self.cy + 0.5) / scale - 0.5,
        )  # fmt: skip

    def project(self, points: np.ndarray) -> np.ndarray:
        """Pixels (..., 2) of points (..., 3) in metres in the camera's frame, z > 0."""
        x, y = points[..., 0] / points[..., 2], points[..., 1] / points[..., 2]
        x, y = distort(x, y, self.model, self.distortion)
        return np.stack((self.fx * x + self.cx, self.fy * y + self.cy), axis=-1)

    def rays(self) -> np.ndarray:
        """(H, W, 2) float32: x / z and y / z of the ray through every pixel, distortion undone. Do not write to it."""
        return _rays(self)


def distort(x: np.ndarray, y: np.ndarray, model: str, coefficients: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Distorted normalised coordinates of undistorted ones (x / z, y / z), float64 arrays of any shape."""
    if model in ("", "none"):
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
    xy = x * y
    return (
        x * radial + 2 * k[2] * xy + k[3] * (r2 + 2 * x * x),
        y * radial + k[2] * (r2 + 2 * y * y) + 2 * k[3] * xy,
    )


def undistort(
    x: np.ndarray, y: np.ndarray, model: str, coefficients: tuple[float, ...], iterations: int = 20
) -> tuple[np.ndarray, np.ndarray]:
    """The inverse of :func:`distort`, by Newton's method with a numeric Jacobian; NaN where there is none."""
    if model in ("", "none") or not any(coefficients):
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


@lru_cache(maxsize=4)  # a camera's rays do not change from frame to frame
def _rays(camera: Camera) -> np.ndarray:
    x = (np.arange(camera.width) - camera.cx) / camera.fx
    y = (np.arange(camera.height) - camera.cy) / camera.fy
    x, y = np.meshgrid(x, y)
    rays = np.stack(undistort(x, y, camera.model, camera.distortion), axis=-1).astype(np.float32)
    rays.flags.writeable = False
    return rays
