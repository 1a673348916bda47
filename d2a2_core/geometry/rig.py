"""A colour and a depth camera as a calibration file describes them.

The file is JSON: "color" and "depth" with width, height, distortion_model, K (9 numbers) and D, as in sensor_msgs/CameraInfo;
"depth_to_color" with R (9 numbers, row-major) and t (3, metres), x_color = R x_depth + t; and "rate_hz". All are optional,
others are ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from d2a2_core.depth.lr_grid import MAX_SHAPE_DIFFERENCE, SAME_SHAPE, shape_difference
from d2a2_core.documents import NUMBER, check_schema, read_json
from d2a2_core.geometry.camera import Camera, skew_doubt
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
        doubts: Code and message of what a person should look at.
        color_problem, depth_problem: Why there is no camera although the file has one, for people.
    """

    color: Camera | None = None
    depth: Camera | None = None
    extrinsics: Extrinsics | None = None
    rate_hz: float | None = None
    doubts: tuple[tuple[str, str], ...] = ()
    color_problem: str = ""
    depth_problem: str = ""

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
            tuple(
                doubt for name in ("color", "depth") if name in content for doubt in _entry_doubts(name, content[name])
            ),
        )

    @property
    def registered(self) -> bool:
        """Whether depth is in the colour camera's place: no transform is known, or it is the identity."""
        return self.extrinsics is None or self.extrinsics.is_identity()

    def depth_camera(self, size: tuple[int, ...]) -> Camera | None:
        """The depth camera, or the colour camera resized to depth images of ``size`` (h, w) where there is none."""
        if self.depth is None and self.color is not None:
            return self.color.resized(size[1], size[0])
        return self.depth

    def fitted(self, color_size: tuple[int, ...], depth_size: tuple[int, ...]) -> CameraRig:
        """The rig for images of sizes (H, W) and (h, w): its cameras resized, or left out where an image is turned or cut."""
        color, depth = _fit("color", self.color, color_size), _fit("depth", self.depth, depth_size)
        doubts = tuple(
            (f"{which}_info_shape", fit.doubt) for which, fit in (("color", color), ("depth", depth)) if fit.doubt
        )
        return replace(
            self,
            color=color.camera,
            depth=depth.camera,
            doubts=self.doubts + doubts,
            color_problem=color.doubt if self.color and not color.camera else "",
            depth_problem=depth.doubt if self.depth and not depth.camera else "",
        )

    def views(self, depth_size: tuple[int, ...]) -> dict[str, Any]:
        """What a :class:`d2a2_core.geometry.CameraPair` wants to know of the cameras, as keyword arguments.

        Args:
            depth_size: (h, w) of the depth images.
        """
        return {
            "color_camera": self.color,
            "depth_camera": None if self.depth_problem else self.depth_camera(depth_size),
            "extrinsics": self.extrinsics or Extrinsics.identity(),
            "color_frame": "color",
            "depth_frame": "color" if self.registered else "depth",
            "color_problem": self.color_problem,
            "depth_problem": self.depth_problem,
        }


_Made = TypeVar("_Made")


def _part(content: dict[str, Any], name: str, make: Callable[[dict[str, Any]], _Made], what: str) -> _Made | None:
    """What an entry means, None where there is none; the errors of cameras and transforms get the place they lack."""
    try:
        return make(content[name]) if name in content else None
    except ValueError as error:
        raise CalibrationError(f"{what}: entry {name}: {error}") from error


def _entry_doubts(which: str, entry: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What is doubtful about an entry that makes a camera."""
    camera = _camera(entry)
    if centre := camera.doubt():
        yield f"{which}_info_centre", f"calibration's entry {which}: {centre}"
    if skew := skew_doubt(entry["K"], camera.height):
        yield f"{which}_info_skew", f"calibration's entry {which}: {skew}"
    if not camera.distorted and any(entry.get("D", ())):
        name = entry["distortion_model"]
        yield f"{which}_distortion", f"calibration's entry {which}: D is not used: its distortion_model is {name!r}"


class _Fit(NamedTuple):
    """The camera of an image, None where there is none; and what is doubtful about it, for people."""

    camera: Camera | None
    doubt: str = ""


def _fit(which: str, camera: Camera | None, size: tuple[int, ...]) -> _Fit:
    """Resizes a camera to an image of ``size`` (H, W)."""
    height, width = size
    if camera is None or (camera.width, camera.height) == (width, height):
        return _Fit(camera)
    said = f"calibration's entry {which} is for {camera.width}x{camera.height}, the image has {width}x{height}"
    stretched = shape_difference(size, (camera.height, camera.width))
    fitted = camera.resized(width, height)
    if stretched >= MAX_SHAPE_DIFFERENCE and max(fitted.fx / fitted.fy, fitted.fy / fitted.fx) >= MAX_SHAPE_DIFFERENCE:
        return _Fit(None, f"{said}, which is turned or cut: the calibration is not used")
    if stretched <= SAME_SHAPE:
        return _Fit(fitted)
    return _Fit(fitted, f"{said}: it is stretched to that; if the image is cut, the calibration is wrong")


def _camera(entry: dict[str, Any]) -> Camera:
    k = [float(value) for value in entry["K"]]
    return Camera(
        int(entry["width"]), int(entry["height"]), k[0], k[4], k[2], k[5],
        entry.get("distortion_model", ""), tuple(float(value) for value in entry.get("D", ())),
    )  # fmt: skip


def _extrinsics(entry: dict[str, Any]) -> Extrinsics:
    return Extrinsics(np.array(entry["R"], float).reshape(3, 3), np.array(entry["t"], float))
