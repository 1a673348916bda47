"""A colour and a depth camera as a calibration file describes them.

The file is JSON: "color" and "depth" with width, height, distortion_model, K (9 numbers) and D, as in sensor_msgs/CameraInfo;
"depth_to_color" with R (9 numbers, row-major) and t (3, metres), x_color = R x_depth + t; and "rate_hz". All are optional,
others are ignored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from d2a2_core.documents import NUMBER, check_schema, read_json
from d2a2_core.geometry.camera import Camera
from d2a2_core.geometry.extrinsics import Extrinsics

_SIZE = {"type": "integer", "minimum": 1, "maximum": 65535}
_CAMERA = {
    "type": "object",
    "required": ["width", "height", "K"],
    "properties": {
        "width": _SIZE,
        "height": _SIZE,
        "distortion_model": {"type": "string"},
        "K": {"type": "array", "items": NUMBER, "minItems": 9, "maxItems": 9},
        "D": {"type": "array", "items": NUMBER, "maxItems": 100},
    },
}
_SCHEMA = {
    "type": "object",
    "properties": {
        "color": _CAMERA,
        "depth": _CAMERA,
        "depth_to_color": {
            "type": "object",
            "required": ["R", "t"],
            "properties": {
                "R": {"type": "array", "items": NUMBER, "minItems": 9, "maxItems": 9},
                "t": {"type": "array", "items": NUMBER, "minItems": 3, "maxItems": 3},
            },
        },
        # From one frame in three hours to what no camera reaches: sums of periods stay within what clocks can count.
        "rate_hz": {"type": "number", "minimum": 1e-4, "maximum": 1000},
    },
}


class CalibrationError(ValueError):
    """A calibration file cannot be used; the message names the file, the entry and what was expected."""


@dataclass(frozen=True)
class CameraRig:
    """Two cameras that do not move relative to each other.

    Attributes:
        color: The colour camera, None where unknown.
        depth: The depth camera, None where unknown: then depth has the colour camera's view.
        extrinsics: From the depth to the colour camera, None where unknown: then both are in the same place.
        rate_hz: Frames per second it was recorded at, None where unknown.
    """

    color: Camera | None = None
    depth: Camera | None = None
    extrinsics: Extrinsics | None = None
    rate_hz: float | None = None

    @classmethod
    def read(cls, path: str | Path) -> CameraRig:
        """Reads a calibration file.

        Raises:
            CalibrationError: There is none, or it cannot be used.
        """
        try:
            content = read_json(path)
        except OSError as error:
            raise CalibrationError(f"calibration cannot be read: {error}") from error
        except ValueError as error:
            raise CalibrationError(str(error)) from error
        return cls.from_json(content, str(path))

    @classmethod
    def from_json(cls, content: Any, what: str) -> CameraRig:
        """Makes a rig of what a calibration file holds.

        Args:
            content: As JSON gives it.
            what: Named in messages, for instance the file.

        Raises:
            CalibrationError: It cannot be used.
        """
        try:
            if isinstance(content, dict) and content.get("depth_to_color") in (None, {}):
                content = {key: value for key, value in content.items() if key != "depth_to_color"}
            check_schema(content, _SCHEMA, what)
        except ValueError as error:
            raise CalibrationError(str(error)) from error
        return cls(
            _part(content, "color", _camera, what),
            _part(content, "depth", _camera, what),
            _part(content, "depth_to_color", _extrinsics, what),
            float(content["rate_hz"]) if "rate_hz" in content else None,
        )

    @property
    def registered(self) -> bool:
        """Whether depth is in the colour camera's place: no transform is known, or it is the identity."""
        return self.extrinsics is None or self.extrinsics.is_identity()

    def doubts(self) -> list[tuple[str, str]]:
        """Code and message of what a person should look at in the cameras."""
        cameras = {"color": self.color, "depth": self.depth}
        said = [(which, camera.doubt()) for which, camera in cameras.items() if camera]
        return [(f"{which}_info_centre", f"calibration's entry {which}: {doubt}") for which, doubt in said if doubt]

    def depth_camera(self, size: tuple[int, ...]) -> Camera | None:
        """The depth camera, or the colour camera resized to depth images of ``size`` (h, w) where there is none."""
        if self.depth is None and self.color is not None:
            return self.color.resized(size[1], size[0])
        return self.depth

    def views(self, depth_size: tuple[int, ...]) -> dict[str, Any]:
        """What a :class:`d2a2_core.geometry.CameraPair` wants to know of the cameras, as keyword arguments.

        Args:
            depth_size: (h, w) of the depth images.
        """
        return {
            "color_camera": self.color,
            "depth_camera": self.depth_camera(depth_size),
            "extrinsics": self.extrinsics or Extrinsics.identity(),
            "color_frame": "color",
            "depth_frame": "color" if self.registered else "depth",
        }


_Made = TypeVar("_Made")


def _part(content: dict[str, Any], name: str, make: Callable[[dict[str, Any]], _Made], what: str) -> _Made | None:
    """What an entry means, None where there is none; the errors of cameras and transforms get the place they lack."""
    try:
        return make(content[name]) if name in content else None
    except ValueError as error:
        raise CalibrationError(f"{what}: entry {name}: {error}") from error


def _camera(entry: dict[str, Any]) -> Camera:
    k = [float(value) for value in entry["K"]]
    return Camera(
        int(entry["width"]), int(entry["height"]), k[0], k[4], k[2], k[5],
        entry.get("distortion_model", ""), tuple(float(value) for value in entry.get("D", ())),
    )  # fmt: skip


def _extrinsics(entry: dict[str, Any]) -> Extrinsics:
    return Extrinsics(np.array(entry["R"], float).reshape(3, 3), np.array(entry["t"], float))
