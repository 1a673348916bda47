"""Where one camera stands relative to another.

Convention: x_color = R x_depth + t ("depth to colour"), metres, optical frames (x right, y down, z forward). In tf2 terms
that is the transform whose target frame is the colour camera's and whose source frame is the depth camera's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ORTHONORMAL_TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class Extrinsics:
    """Rotation and translation from the depth camera's frame to the colour camera's.

    Attributes:
        rotation: (3, 3) float64, read-only; what comes in may be off by 1e-3 and is made exactly orthonormal.
        translation: (3,) float64 metres, read-only.
        stated: Whether a person or a calibration says so; what drivers put on TF is weaker evidence, since some leave registered
            depth in the depth camera's frame. Does not count in comparisons.

    Raises:
        ValueError: wrong shape, numbers that are not finite, or a matrix that is not a rotation.
    """

    rotation: np.ndarray
    translation: np.ndarray
    stated: bool = True

    def __post_init__(self) -> None:
        rotation = _numbers("rotation", self.rotation, (3, 3))
        translation = _numbers("translation", self.translation, (3,))
        error = np.abs(rotation @ rotation.T - np.eye(3)).max()
        if error > ORTHONORMAL_TOLERANCE:
            raise ValueError(
                f"expected an orthonormal rotation matrix, but R R^T is off the identity by {error:.3g} (at most "
                f"{ORTHONORMAL_TOLERANCE} is allowed): {rotation.tolist()}; check the order of its numbers (row-major)"
            )
        determinant = np.linalg.det(rotation)
        if determinant < 0:
            raise ValueError(
                f"expected a rotation with determinant +1, got {determinant:.3f}: {rotation.tolist()} mirrors; check the "
                "signs of its axes"
            )
        u, _, vt = np.linalg.svd(rotation)  # the nearest orthonormal matrix, in the sense of least squares
        rotation = u @ vt if error > 1e-15 else rotation
        for name, value in (("rotation", rotation), ("translation", translation)):
            value.flags.writeable = False
            object.__setattr__(self, name, value)

    @classmethod
    def identity(cls) -> Extrinsics:
        """No transform: both cameras in the same place."""
        return cls(np.eye(3), np.zeros(3))

    @classmethod
    def from_quaternion(
        cls, translation: Sequence[float], quaternion_xyzw: Sequence[float], stated: bool = True
    ) -> Extrinsics:
        """From a translation in metres and a unit quaternion x, y, z, w (as in geometry_msgs/Transform).

        Raises:
            ValueError: a quaternion whose length is off 1 by more than 0.01.
        """
        quaternion = _numbers("quaternion (x, y, z, w)", quaternion_xyzw, (4,))
        length = np.linalg.norm(quaternion)
        if abs(length - 1) > 0.01:  # rounded to two or three digits is fine
            raise ValueError(
                f"expected a quaternion (x, y, z, w) of length 1, got {quaternion.tolist()} of length {length:.4g}; "
                "no rotation is 0 0 0 1"
            )
        x, y, z, w = quaternion / length
        rotation = [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
        return cls(np.array(rotation), np.asarray(translation), stated)

    @classmethod
    def from_values(cls, values: Sequence[float]) -> Extrinsics:
        """From a flat list: 7 numbers tx ty tz qx qy qz qw, or 12 numbers, the rows of the 3 x 4 matrix [R | t]."""
        if len(values) not in (7, 12):
            raise ValueError(
                f"expected 7 numbers (tx ty tz qx qy qz qw) or 12 (rows of the 3x4 matrix [R | t]), got {len(values)}"
            )
        numbers = _numbers("extrinsics", values, (len(values),))
        if len(numbers) == 7:
            return cls.from_quaternion(numbers[:3].tolist(), numbers[3:].tolist())
        matrix = numbers.reshape(3, 4)
        return cls(matrix[:, :3], matrix[:, 3])

    @property
    def matrix(self) -> np.ndarray:
        """(4, 4), of homogeneous coordinates in metres."""
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = self.rotation, self.translation
        return matrix

    def inverse(self) -> Extrinsics:
        """From the colour camera's frame to the depth camera's."""
        return Extrinsics(self.rotation.T, -self.rotation.T @ self.translation)

    def transform(self, points: np.ndarray) -> np.ndarray:
        """Points (..., 3) in metres in the depth camera's frame -> in the colour camera's frame."""
        return points @ self.rotation.T + self.translation

    def is_identity(self, tolerance: float = 1e-6) -> bool:
        """Whether no number is off the identity by more than ``tolerance`` (radians, metres)."""
        off = max(np.abs(self.rotation - np.eye(3)).max(), np.abs(self.translation).max())
        return bool(off <= tolerance)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Extrinsics)
            and np.array_equal(self.rotation, other.rotation)
            and np.array_equal(self.translation, other.translation)
        )

    def __hash__(self) -> int:
        return hash((*self.rotation.ravel().tolist(), *self.translation.tolist()))


def _numbers(name: str, values: Sequence[float] | np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A float64 copy, checked."""
    try:
        numbers = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"expected {name} as numbers of shape {shape}, got {values!r:.80}") from error
    if numbers.shape != shape:
        raise ValueError(f"expected {name} of shape {shape}, got {numbers.shape}")
    if not np.isfinite(numbers).all():
        raise ValueError(f"expected finite numbers in {name}, got {numbers.tolist()}; the calibration is incomplete")
    return numbers
