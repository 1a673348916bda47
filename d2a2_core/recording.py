"""Folder recordings: numbered colour and depth images with a calibration beside them.

    000.color.jpg  000.depth.png  [000.truth.png]  ...  calibration.json     or     color.jpg  depth.png  [calibration.json]

Depth and truth are uint16 PNGs in millimetres, 0 = invalid. calibration.json is described in :mod:`d2a2_core.geometry.rig`.
Without its "depth_to_color" (or with the identity), depth is in the colour camera's place; without "depth" it also has its view.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL.ImageFile import ImageFile

from d2a2_core import images
from d2a2_core.depth.units import to_metres
from d2a2_core.documents import read_json
from d2a2_core.geometry import Camera, Extrinsics
from d2a2_core.geometry.rig import CalibrationError, CameraRig


class RecordingError(ValueError):
    """The folder is not a recording, or one of its files cannot be used; the message says which and why."""


@dataclass(frozen=True)
class Frame:
    """One frame. ``color`` uint8 RGB (H, W, 3); ``depth_mm`` uint16 (h, w), 0 invalid; ``truth`` (H, W) metres or None.

    ``depth_mm`` is in millimetres, or in counts of another unit, which the files do not tell. ``turned`` says whether ``color``
    was turned upright, as the file's EXIF orientation wants it.
    """

    name: str
    color: np.ndarray
    depth_mm: np.ndarray
    truth: np.ndarray | None
    turned: bool = False

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
        color, turned = _read_color(self._colors[name])
        return Frame(name, color, _read_mm(self._depths[name]), to_metres(_read_mm(truth)) if truth else None, turned)

    @cached_property
    def calibration(self) -> dict | None:
        """What calibration.json holds, or None where there is none; :attr:`rig` is what it means."""
        path = self.folder / "calibration.json"
        if not path.exists():
            return None
        try:
            return read_json(path)
        except OSError as error:
            raise RecordingError(f"calibration cannot be read: {error}") from error
        except ValueError as error:
            raise RecordingError(str(error)) from error

    @cached_property
    def rig(self) -> CameraRig:
        """The cameras of calibration.json; nothing is known of them where there is none."""
        if self.calibration is None:
            return CameraRig()
        try:
            return CameraRig.from_json(self.calibration, str(self.folder / "calibration.json"))
        except CalibrationError as error:
            raise RecordingError(str(error)) from error

    @cached_property
    def fitted_rig(self) -> CameraRig:
        """:attr:`rig` for images of the first frame's sizes."""
        first = self[0]
        return self.rig.fitted(first.color.shape[:2], first.depth_mm.shape)

    @property
    def rate_hz(self) -> float:
        """Frames per second it was recorded at; 15 where the calibration does not say."""
        return self.rig.rate_hz or 15.0

    def camera(self, which: str) -> Camera | None:
        """The "color" or "depth" camera, or None where the calibration does not have it.

        A depth camera that is not listed is the colour camera, resized to the depth image.
        """
        if which == "color":
            return self.rig.color
        if self.rig.depth is not None or self.rig.color is None:
            return self.rig.depth
        return self.rig.depth_camera(self[0].depth_mm.shape)

    @property
    def registered(self) -> bool:
        """Whether depth is in the colour camera's place (no transform given, or the identity)."""
        return self.rig.registered

    @property
    def extrinsics(self) -> Extrinsics | None:
        """From the depth to the colour camera, None where the calibration does not say."""
        return self.rig.extrinsics

    def views(self) -> dict[str, Any]:
        """What a :class:`d2a2_core.geometry.CameraPair` wants to know of the cameras, as keyword arguments."""
        return self.fitted_rig.views(self[0].depth_mm.shape)

    def _find(self, kind: str) -> dict[str, Path]:
        files = [p for p in sorted(self.folder.iterdir()) if p.suffix.lower() in (".png", ".jpg", ".jpeg")]
        numbered = {p.name.split(".")[0]: p for p in files if p.stem.split(".")[1:] == [kind]}
        single = next((p for p in files if p.stem == kind), None)
        return numbered or ({"0": single} if single else {})


def read_frame(color: str | Path, depth: str | Path) -> Frame:
    """One pair from two files: a colour image, and a 16-bit PNG in millimetres."""
    color, depth = Path(color), Path(depth)
    pixels, turned = _read_color(color)
    return Frame(color.name.split(".")[0], pixels, _read_mm(depth), None, turned)


def _open(path: Path, most_pixels: int = images.MOST_COLOR_PIXELS) -> ImageFile:
    try:
        return images.read_image(path, most_pixels)
    except images.ImageError as error:
        raise RecordingError(str(error)) from error
    except OSError as error:
        raise RecordingError(f"{path} cannot be read: {error}") from error


def _read_color(path: Path) -> tuple[np.ndarray, bool]:
    """RGB uint8 (H, W, 3), and whether it was turned upright as EXIF says; 16-bit grey is scaled by its own percentiles."""
    try:
        image = _open(path)
        orientation = images.orientation(image)
        pixels = images.turned(images.color_pixels(image), orientation)
    except images.ImageError as error:
        raise RecordingError(f"{path} cannot be read as an image: it {error}") from error
    color = pixels if pixels.ndim == 3 else images.grey_to_rgb(pixels, *images.grey_range(pixels))
    return color, orientation != 1


def _read_mm(path: Path) -> np.ndarray:
    image = _open(path, images.MOST_DEPTH_PIXELS)
    if not images.is_grey_16(image):
        raise RecordingError(
            f"{path} must be a 16-bit greyscale PNG in millimetres, got {image.format} of mode {image.mode}, "
            f"{np.asarray(image).dtype}"
        )
    return images.grey_16(image)
