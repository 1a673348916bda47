"""A camera's own recording as an evaluation set: how good the upsampling is on real data, without a ground truth.

The recorded depth is reduced by the scale once more, and what a method makes of it is scored at the measurements that were
recorded. So the reference has the camera's noise and errors: interpolation, whose input is a mean of that very noise, comes out a
little too well in flat places, and a guide that is off the depth counts against a method that follows it. Flying and stray
measurements are no reference. A recording with a truth is scored against that, from the depth as recorded.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from d2a2_core.data.sensors.tof import OFF, simulate_tof
from d2a2_core.data.sets.benchmarks import Sample
from d2a2_core.depth import doubtful_pixels
from d2a2_core.geometry import Camera
from d2a2_core.geometry.evidence import same_projection
from d2a2_core.recording import Frame, Recording, RecordingError


class RecordedPairs(Sequence):
    """Frames of a folder recording (:mod:`d2a2_core.recording`) as benchmark samples in metres.

    Args:
        folder: of the recording. Its depth must be registered: in the colour camera's view.
        scale: by which the recorded depth is reduced.
        every: take every n-th pixel of the recorded depth first, where the driver has enlarged it.
        frames: at most this many, evenly spread; 0 takes all. Those without enough depth to reduce are left out.

    Attributes:
        name: "recording".
        expected: None, as no complete set is known.

    Raises:
        RecordingError: no recording, its depth is in another view, or no frame has depth.
        ValueError: ``every`` below 1 or ``frames`` below 0.
    """

    name, expected = "recording", None

    def __init__(self, folder: str | Path, scale: int, every: int = 1, frames: int = 0) -> None:
        if every < 1 or frames < 0:
            raise ValueError(f"expected every of at least 1 and frames of at least 0, got {every} and {frames}")
        self.recording, self.scale, self.every = Recording(folder), scale, every
        if not self.recording.registered:
            raise RecordingError(
                f"{folder}: depth is in its own camera's view (calibration.json has depth_to_color), expected depth registered "
                "to the colour camera; record the driver's aligned depth topic"
            )
        views = self.recording.views()
        color, depth = views["color_camera"], views["depth_camera"]
        if color and depth and not same_projection(depth, color.resized(depth.width, depth.height)):
            raise RecordingError(
                f"{folder}: calibration.json's 'depth' has other intrinsics than 'color', so depth is in its own camera's view; "
                "expected depth registered to the colour camera; record the driver's aligned depth topic"
            )
        count = min(frames or len(self.recording), len(self.recording))
        chosen = np.linspace(0, len(self.recording) - 1, count).round().astype(int).tolist()
        self.indices = [index for index in chosen if np.isfinite(self._of_frame(index).lr).any()]
        self.empty = count - len(self.indices)
        if not self.indices:
            raise RecordingError(
                f"{folder}: none of {count} frames has depth in half of any {scale}x{scale} cell; expected a recording with depth"
            )

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self._of_frame(self.indices[index])

    def _of_frame(self, index: int) -> Sample:
        frame = self.recording[index]
        camera = self.recording.camera("color")
        depth = frame.depth[:: self.every, :: self.every]
        if frame.truth is not None:
            return _sample(frame, frame.color, frame.truth, depth, camera)
        height, width = (length // self.scale * self.scale for length in depth.shape)
        if not height or not width:
            raise ValueError(f"frame {frame.name}: depth of {depth.shape} is smaller than the scale {self.scale}")
        guide = np.asarray(Image.fromarray(frame.color).resize(depth.shape[::-1], Image.Resampling.BOX))
        camera = camera and camera.resized(*depth.shape[::-1])
        depth = depth[:height, :width]
        measured = torch.from_numpy(np.ascontiguousarray(depth))[None, None]
        reference = measured.masked_fill(doubtful_pixels(measured), torch.nan)[0, 0].numpy()
        return _sample(frame, guide[:height, :width], reference, reduce_measurements(depth, self.scale), camera)

    def describe(self) -> str:
        """For instance ``recording: 30 of 30 frames of .../lab, scored at its own measurements``."""
        reference = "its truth" if self.recording[0].truth is not None else "its own measurements"
        left_out = f" ({self.empty} without depth left out)" if self.empty else ""
        return (
            f"{self.name}: {len(self)} of {len(self.recording)} frames of {self.recording.folder}{left_out}, "
            f"scored at {reference}"
        )


def reduce_measurements(depth: np.ndarray, scale: int) -> np.ndarray:
    """Depth (H, W) metres, NaN invalid -> (H / scale, W / scale) as a camera with larger pixels reports it.

    The mean of each cell's measurements; NaN where fewer than half of its pixels have one.

    Raises:
        ValueError: H or W is no multiple of the scale.
    """
    if depth.shape[0] % scale or depth.shape[1] % scale:
        raise ValueError(f"expected sizes that are multiples of the scale {scale}, got {depth.shape}")
    size = depth.shape[0] // scale, depth.shape[1] // scale
    return simulate_tof(depth, size, np.random.default_rng(0), **OFF)  # nothing random is left of it


def _sample(frame: Frame, guide: np.ndarray, depth: np.ndarray, lr: np.ndarray, camera: Camera | None) -> Sample:
    intrinsics = camera and (camera.fx, camera.fy, camera.cx, camera.cy)
    return Sample(frame.name, np.ascontiguousarray(guide), depth, lr, intrinsics=intrinsics)
