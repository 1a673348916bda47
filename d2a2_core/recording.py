"""Folder recordings: numbered colour and depth images with a calibration beside them.

    000.color.jpg  000.depth.png  [000.truth.png]  ...  calibration.json     or     color.jpg  depth.png  [calibration.json]

Depth and truth are uint16 PNGs in millimetres, 0 = invalid. calibration.json holds "color" and optionally "depth" with
width, height, distortion_model, K (9 numbers) and D, as in sensor_msgs/CameraInfo, optionally "depth_to_color" with R
(9 numbers) and t (metres), and optionally "rate_hz". Without "depth_to_color" (or with the identity), depth is in the colour
camera's place; without "depth" it also has its view.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL.ImageFile import ImageFile

from d2a2_core import images
from d2a2_core.depth.units import to_metres
from d2a2_core.geometry import Camera, Extrinsics


class RecordingError(ValueError):
    """The folder is not a recording, or one of its files cannot be used; the message says which and why."""


@dataclass(frozen=True)
class Frame:
    """One frame. ``color`` uint8 RGB (H, W, 3); ``depth_mm`` uint16 (h, w), 0 invalid; ``truth`` (H, W) metres or None.

    ``depth_mm`` is in millimetres, or in counts of another unit, which the files do not tell.
    """

    name: str
    color: np.ndarray
    depth_mm: np.ndarray
    truth: np.ndarray | None

    @property
    def depth(self) -> np.ndarray:
        """(h, w) float32 metres, NaN where invalid."""
        return to_metres(self.depth_mm)


class Recording:
    """A folder recording; ``len`` and index give its frames.

    Raises:
        RecordingError: no such folder, no frames, unpaired images, or an unusable calibration.json.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser()
        if not self.folder.is_dir():
            raise RecordingError(f"no recording folder at {self.folder}")
        colors, depths, self._truths = (self._find(kind) for kind in ("color", "depth", "truth"))
        if not colors and not depths:
            raise RecordingError(
                f"{self.folder} holds no frames; expected NNN.color.jpg (or .png) beside NNN.depth.png, or color.jpg "
                "beside depth.png"
            )
        unpaired = sorted(set(colors) ^ set(depths))
        if unpaired:
            raise RecordingError(f"{self.folder}: frames {unpaired[:5]} lack their colour or their depth image")
        self._colors, self._depths = colors, depths
        self.names = sorted(colors, key=lambda name: (int(name) if name.isdecimal() else -1, name))

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Frame:
        name = self.names[index]
        truth = self._truths.get(name)
        return Frame(
            name,
            _read_color(self._colors[name]),
            _read_mm(self._depths[name]),
            to_metres(_read_mm(truth)) if truth else None,
        )

    @cached_property
    def calibration(self) -> dict | None:
        """The parsed calibration.json, or None where there is none."""
        path = self.folder / "calibration.json"
        if not path.exists():
            return None
        try:
            calibration = json.loads(path.read_text())
        except ValueError as error:
            raise RecordingError(f"{path} is not valid JSON: {error}") from error
        if not isinstance(calibration, dict):
            raise RecordingError(f"{path} must hold an object with the entry 'color', got {calibration!r:.40}")
        return calibration

    @property
    def rate_hz(self) -> float:
        """Frames per second it was recorded at; 15 where the calibration does not say."""
        value = (self.calibration or {}).get("rate_hz", 15.0)
        if not isinstance(value, (int, float)) or not 0 < value < float("inf"):
            raise RecordingError(f"{self.folder}/calibration.json: rate_hz must be a positive number, got {value!r}")
        return float(value)

    def camera(self, which: str) -> Camera | None:
        """The "color" or "depth" camera, or None where the calibration does not have it.

        A depth camera that is not listed is the colour camera, resized to the depth image.
        """
        calibration = self.calibration or {}
        if which not in calibration:
            color = self.camera("color") if which == "depth" else None
            height, width = self[0].depth_mm.shape if color else (0, 0)
            return color.resized(width, height) if color else None
        entry = calibration[which]
        try:
            k = [float(v) for v in entry["K"]]
            return Camera(
                int(entry["width"]), int(entry["height"]), k[0], k[4], k[2], k[5],
                entry.get("distortion_model", ""), tuple(float(v) for v in entry.get("D", ())),
            )  # fmt: skip
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise RecordingError(
                f"{self.folder}/calibration.json: entry {which!r} cannot be used: {error!r}"
            ) from error

    @property
    def registered(self) -> bool:
        """Whether depth is in the colour camera's place (no transform given, or the identity)."""
        return self.extrinsics is None or self.extrinsics.is_identity()

    @cached_property
    def extrinsics(self) -> Extrinsics | None:
        """From the depth to the colour camera: entry ``depth_to_color`` with ``R`` (9 numbers) and ``t`` (3, metres)."""
        pose = (self.calibration or {}).get("depth_to_color")
        if not pose:
            return None
        try:
            return Extrinsics(np.array(pose["R"], float).reshape(3, 3), np.array(pose["t"], float).reshape(3))
        except (KeyError, TypeError, ValueError) as error:
            raise RecordingError(
                f"{self.folder}/calibration.json: entry 'depth_to_color' cannot be used: {error!r}"
            ) from error

    def views(self) -> dict[str, Any]:
        """What :meth:`d2a2_core.pipeline.DepthPipeline.process` wants to know of the cameras, as keyword arguments."""
        return {
            "color_camera": self.camera("color"),
            "depth_camera": self.camera("depth"),
            "extrinsics": self.extrinsics,
            "color_frame": "color",
            "depth_frame": "color" if self.registered else "depth",
        }

    def _find(self, kind: str) -> dict[str, Path]:
        files = [p for p in sorted(self.folder.iterdir()) if p.suffix.lower() in (".png", ".jpg", ".jpeg")]
        numbered = {p.name.split(".")[0]: p for p in files if p.stem.split(".")[1:] == [kind]}
        single = next((p for p in files if p.stem == kind), None)
        return numbered or ({"0": single} if single else {})


def read_frame(color: str | Path, depth: str | Path) -> Frame:
    """One pair from two files: a colour image, and a 16-bit PNG in millimetres."""
    color, depth = Path(color), Path(depth)
    return Frame(color.name.split(".")[0], _read_color(color), _read_mm(depth), None)


def _open(path: Path, most_pixels: int = images.MOST_COLOR_PIXELS) -> ImageFile:
    try:
        return images.read_image(path, most_pixels)
    except images.ImageError as error:
        raise RecordingError(str(error)) from error
    except OSError as error:
        raise RecordingError(f"{path} cannot be read: {error}") from error


def _read_color(path: Path) -> np.ndarray:
    """RGB uint8 (H, W, 3), turned upright where EXIF says how the image lies; 16-bit grey is scaled by its own percentiles."""
    try:
        image = _open(path)
        pixels = images.turned(images.color_pixels(image), images.orientation(image))
    except images.ImageError as error:
        raise RecordingError(f"{path} cannot be read as an image: it {error}") from error
    return pixels if pixels.ndim == 3 else images.grey_to_rgb(pixels, *images.grey_range(pixels))


def _read_mm(path: Path) -> np.ndarray:
    image = _open(path, images.MOST_DEPTH_PIXELS)
    if not images.is_grey_16(image):
        raise RecordingError(
            f"{path} must be a 16-bit greyscale PNG in millimetres, got {image.format} of mode {image.mode}, "
            f"{np.asarray(image).dtype}"
        )
    return images.grey_16(image)
