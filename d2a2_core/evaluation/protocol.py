"""The evaluation protocol of guided depth super-resolution: which LR a method gets, in which range, and what is scored.

Convention, after the released code of D2A2 (arXiv 2401.08123) and its peers:
- H and W are cropped (bottom, right) to multiples of the scale. Only Middlebury's images need it.
- LR is Pillow's BICUBIC (antialiased) reduction of the float32 HR depth to (W // s, H // s). A sample with a measured
  LR (RGB-D-D's real pairs, 192x144 for 512x384) has that one resized to (W // s, H // s) with the same filter instead.
- The LR is normalised to [0, 1] with a range [lo, hi] and the method's output is brought back with it. ``oracle``: the
  ground truth's minimum and maximum, as published, which a robot does not have. ``deploy``: the LR input's own.
- Outputs are **not** clamped, as in the authors' code: bicubic overshoot counts. (Clamping to [0, 1] under ``oracle``
  lowers bicubic's RMSE by up to 0.1 %; under ``deploy`` it forbids values beyond the LR's.)
- RMSE is over all pixels of an image, then the mean over images. NYUv2 loses 6 px at each border first.
- Pixels without ground truth (NaN) are not scored. For the input, holes are filled from around them; those of a measured
  LR by the measurement most alike in place and colour, as on the robot.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from d2a2_core.data.reduction import resize
from d2a2_core.data.sets.benchmarks import Sample
from d2a2_core.depth import fill_holes, measurement_trust
from d2a2_core.evaluation.units import to_metres

RANGE_MODES = ("oracle", "deploy")
_SMALLEST_RANGE = 1e-6  # of a flat depth map, so that normalising it gives zeros


@dataclass(frozen=True)
class Case:
    """What a method is given and what it is compared with.

    Attributes:
        guide: (H, W, 3) uint8 RGB.
        lr: (H // s, W // s) float32, normalised; may overshoot [0, 1] by what bicubic adds.
        trust: (H // s, W // s) float32, what each value of ``lr`` is worth (:func:`d2a2_core.depth.measurement_trust`).
        truth: (H, W) float32 in the sample's unit, NaN where unknown.
        lo, hi: range that maps normalised depth to the sample's unit.
    """

    guide: np.ndarray
    lr: np.ndarray
    trust: np.ndarray
    truth: np.ndarray
    lo: float
    hi: float

    def restore(self, prediction: np.ndarray) -> np.ndarray:
        """Normalised prediction (H, W) -> float32 depth in the sample's unit.

        Raises:
            ValueError: the prediction is not of the guide's size.
        """
        if prediction.shape != self.truth.shape:
            raise ValueError(f"expected a prediction of {self.truth.shape}, got {prediction.shape}")
        return self.in_unit(prediction)

    def in_unit(self, depth: np.ndarray) -> np.ndarray:
        """Normalised depth of any size, for instance ``lr`` -> float32 depth in the sample's unit."""
        return (depth.astype(np.float64) * (self.hi - self.lo) + self.lo).astype(np.float32)


def make_case(sample: Sample, scale: int, range_mode: str = "oracle") -> Case:
    """The input and the truth of one sample at one scale.

    Args:
        sample: HR pair, with or without a measured LR.
        scale: positive integer.
        range_mode: "oracle" or "deploy" (see the module).

    Raises:
        ValueError: unknown range mode, an image smaller than the scale, or no valid depth.
    """
    if range_mode not in RANGE_MODES:
        raise ValueError(f"range must be one of {RANGE_MODES}, got {range_mode!r}")
    height, width = (size // scale * scale for size in sample.depth.shape)
    if not height or not width:
        raise ValueError(f"{sample.name}: {sample.depth.shape} is smaller than the scale {scale}")
    truth = sample.depth[:height, :width]
    size = height // scale, width // scale
    if sample.lr is None:
        lr = resize(_without_holes(truth, sample.name), size)
        trust = _trust(lr, sample.unit)
    else:
        lr = resize(_without_holes(sample.lr, sample.name, sample.guide), size)
        trust = np.array(resize(_trust(sample.lr, sample.unit), size, "nearest"))  # Pillow's is read-only
    known = truth[np.isfinite(truth)] if range_mode == "oracle" else lr
    if not known.size:
        raise ValueError(f"{sample.name}: no valid ground truth")
    lo, hi = float(known.min()), float(known.max())
    hi = max(hi, lo + _SMALLEST_RANGE)
    normalised = ((lr - lo) / (hi - lo)).astype(np.float32)
    return Case(np.ascontiguousarray(sample.guide[:height, :width]), normalised, trust, truth, lo, hi)


def _trust(lr: np.ndarray, unit: str) -> np.ndarray:
    metres = to_metres(lr) if unit == "8-bit" else lr.astype(np.float32)
    return measurement_trust(torch.from_numpy(metres)[None, None])[0, 0].numpy()


def _without_holes(depth: np.ndarray, name: str, guide: np.ndarray | None = None) -> np.ndarray:
    """Depth (h, w) with its holes filled; with a guide (H, W, 3) of the same view as :class:`d2a2_core.DepthUpsampler` does."""
    if np.isfinite(depth).all():
        return depth
    if not np.isfinite(depth).any():
        raise ValueError(f"{name}: expected a depth map with at least one valid pixel, got none")
    if guide is not None:
        small = Image.fromarray(guide).resize(depth.shape[::-1], Image.Resampling.BOX)
        guide = torch.from_numpy(np.array(small)).permute(2, 0, 1)[None].float() / 255
    return fill_holes(torch.from_numpy(depth)[None, None], guide)[0, 0].numpy()
