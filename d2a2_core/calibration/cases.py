"""Results of a network on generated scenes with their truth: what calibration learns from and is measured on.

Scenes are whole images under a simulated depth camera of random quality, as in training
(:mod:`d2a2_core.data.sensors.degradation`), but registered to within 3 pixels; one in seven is the clean reduction of the
benchmarks. They go through :class:`d2a2_core.pipeline.DepthPipeline`, so the errors are those of the published depth. All of it
follows from the seed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from d2a2_core.data.reduction import reduce_depth
from d2a2_core.data.scene_sources import SceneSource
from d2a2_core.data.sensors.degradation import degrade, random_settings
from d2a2_core.geometry import CameraPair
from d2a2_core.network.sigma_head import grid_scale
from d2a2_core.pipeline import DepthPipeline, PipelineSettings
from d2a2_core.upsampler import DepthUpsampler

SIZES = ((240, 320), (384, 384), (160, 224))  # of the scenes, in turn: what is near an edge depends on it
_CLEAN = 1 / 7  # share of scenes without a sensor's errors
_MISREGISTERED, _SHIFT_PX = 0.4, 3.0  # share of the others whose extrinsics are off, and by how much at most
_MAX_FILL_PX = 32.0  # twice the default, so that a larger limit finds a head that knows it


@dataclass(frozen=True)
class Case:
    """One result with its truth: guide (1, 3, H, W), lr (1, 1, h, w) and hr (1, 1, H, W) as the head gets them; truth (H, W)."""

    guide: Tensor
    lr: Tensor
    hr: Tensor
    truth: np.ndarray
    clean: bool = False

    @property
    def scale(self) -> int:
        """Of the LR grid."""
        return grid_scale(tuple(self.hr.shape[-2:]), tuple(self.lr.shape[-2:]))


class Recorder:
    """Stands in the pipeline in place of a head, and keeps what it is given."""

    def to(self, device: torch.device) -> Recorder:
        """As of a module."""
        return self

    def predict(self, guide: Tensor, lr: Tensor, hr: Tensor) -> Tensor:
        """As of :meth:`SigmaHead.predict`."""
        self.seen = guide.cpu(), lr.cpu(), hr.cpu()
        return hr


def run_case(
    pipeline: DepthPipeline, color: np.ndarray, depth: np.ndarray, truth: np.ndarray, clean: bool = False
) -> Case:
    """What the head would get for a frame; the pipeline's head is a :class:`Recorder`. Arguments as of ``process``."""
    pipeline.reset()
    pipeline.process(CameraPair(color, depth))
    return Case(*pipeline.sigma_head.seen, truth, clean)


def recording_pipeline(upsampler: DepthUpsampler, max_fill_px: float = _MAX_FILL_PX) -> DepthPipeline:
    """A pipeline for registered depth whose head is a :class:`Recorder`."""
    settings = PipelineSettings(registration="off", max_fill_px=max_fill_px, watchdog=False)
    return DepthPipeline(upsampler, settings, Recorder(), stepwise=True)


def sensor_view(scene, scale: int, rng: np.random.Generator) -> tuple[np.ndarray, bool]:
    """LR depth (h, w) metres, NaN invalid, of a scene (color, depth), and whether it is the clean reduction."""
    if rng.random() < _CLEAN:
        return reduce_depth(scene.depth, scale), True
    shift = _SHIFT_PX if rng.random() < _MISREGISTERED else 0.0
    settings = replace(random_settings(rng), shift_px=shift, rotation_deg=0.0)
    return degrade(scene.color, scene.depth, scale, rng, settings)[1], False


def cases(
    pipeline: DepthPipeline, source: SceneSource, count: int, seed: int, sizes: Sequence[tuple[int, int]] = SIZES
) -> Iterator[Case]:
    """``count`` results on scenes of ``source``, the scales of the weights and the sizes in turn.

    Args:
        sizes: (H, W) of the images, multiples of the largest scale.
    """
    scales = pipeline.upsampler.scales
    for index in range(count):
        rng = np.random.default_rng([seed, index])
        size = sizes[index // len(scales) % len(sizes)]
        scene = source.scene(index, max(size))
        window = np.s_[: size[0], : size[1]]
        scene = type(scene)(np.ascontiguousarray(scene.color[window]), np.ascontiguousarray(scene.depth[window]))
        lr, clean = sensor_view(scene, scales[index % len(scales)], rng)
        if np.isfinite(lr).any():
            yield run_case(pipeline, scene.color, lr, scene.depth, clean)
