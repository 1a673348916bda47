"""Cameras: pinhole intrinsics with lens distortion.

Convention: x right, y down, z forward (optical frame, REP 103); depth is z, not ray length (REP 118); pixel centres are
at integers, so the top left corner of an image is at (-0.5, -0.5). Distortion formulas are those of OpenCV's calib3d
("Camera Calibration and 3D Reconstruction"), fisheye for "equidistant"; see :mod:`d2a2_core.geometry.distortion`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import atan, degrees, pi, radians, tan

import numpy as np

from d2a2_core.geometry.distortion import distort, distortion_formula, undistort

# From the axis to the farthest pixel, along either axis of the image. A pinhole camera of 170 degrees has a focal length of a
# twentieth of the image's width; K as the identity, or in another unit, lies far beyond.
_MAX_HALF_ANGLE = {False: tan(radians(85)), True: pi}  # x / z of a pinhole camera; radians of a fisheye
_MIN_VIEW = 2 * tan(radians(0.05))
# Share of the image's size. Of the cameras in our tests none is farther off than 0.08.
_MAX_OFF_CENTRE = 0.15


@dataclass(frozen=True)
class Camera:
    """Intrinsics of an image of ``width`` x ``height`` pixels.

    Attributes:
        fx, fy, cx, cy: Pixels.
        model: Formula of the distortion: "", "plumb_bob", "rational_polynomial", "modified_brown_conrady" or "equidistant". Other
            names for these are taken, too; coefficients of zero need no name.
        distortion: Coefficients in the formula's order (k1 k2 p1 p2 k3 [k4 k5 k6], or k1..k4), trailing zeros optional. Empty
            where nothing distorts.

    Raises:
        ValueError: No size, a focal length or centre that cannot be one (a view of more than 170 degrees as a pinhole camera, or
            of less than 0.1), or coefficients whose formula is not known.
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
        model, distortion = distortion_formula(self.model, self.distortion)
        object.__setattr__(self, "model", model)
        object.__setattr__(self, "distortion", distortion)
        self._check_view("x", self.width, self.fx, self.cx)
        self._check_view("y", self.height, self.fy, self.cy)

    def _check_view(self, axis: str, length: int, focal: float, centre: float) -> None:
        farthest = max(centre + 0.5, length - 0.5 - centre) / focal
        fisheye = self.model == "equidistant"
        if farthest <= _MAX_HALF_ANGLE[fisheye] and length / focal >= _MIN_VIEW:
            return
        view = 2 * degrees(farthest if fisheye else atan(farthest))
        raise ValueError(
            f"camera is not calibrated: f{axis}={focal:.6g} and c{axis}={centre:.6g} for {length} pixels would be a view of "
            f"{view:.4g} degrees; expected 0.1 to {360 if fisheye else 170}: check K, which is in pixels"
        )

    @property
    def distorted(self) -> bool:
        """Whether a ray's pixel differs from the pinhole camera's; a fisheye's does without coefficients, too."""
        return bool(self.model)

    def doubt(self) -> str:
        """What is doubtful about the principal point of a whole image, for people; empty where it lies near the middle."""
        at = (self.cx + 0.5) / self.width, (self.cy + 0.5) / self.height
        if max(abs(at[0] - 0.5), abs(at[1] - 0.5)) <= _MAX_OFF_CENTRE:
            return ""
        other = round(2 * self.cx + 1), round(2 * self.cy + 1)
        hint = f"is K that of an image of about {other[0]}x{other[1]}" if min(other) > 1 else "is K incomplete"
        return (
            f"the principal point ({self.cx:.1f}, {self.cy:.1f}) is far from the middle of {self.width}x{self.height} pixels: "
            f"{hint}? With a wrong one depth is registered to a wrong place"
        )

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


def skew_doubt(k: Sequence[float], height: int) -> str:
    """What is lost with the skew of K (9 numbers, row-major), for people; empty where it is below a pixel."""
    lost = abs(float(k[1])) / float(k[4]) * height / 2
    return f"K has a skew (K[1]={k[1]:.4g}), which is not used: up to {lost:.1f} px are lost" if lost > 1 else ""


@lru_cache(maxsize=4)  # a camera's rays do not change from frame to frame
def _rays(camera: Camera) -> np.ndarray:
    x = (np.arange(camera.width) - camera.cx) / camera.fx
    y = (np.arange(camera.height) - camera.cy) / camera.fy
    x, y = np.meshgrid(x, y)
    rays = np.stack(undistort(x, y, camera.model, camera.distortion), axis=-1).astype(np.float32)
    rays.flags.writeable = False
    return rays
