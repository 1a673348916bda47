"""From scenes to training batches. Batch k is a function of (seed, k) alone, so a run resumes where it stopped."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from d2a2_core.data.reduction import reduce_depth
from d2a2_core.data.scene_sources import SceneSource
from d2a2_core.data.scenes.shapes import RGBD
from d2a2_core.data.sensors.captured import captured
from d2a2_core.data.sensors.degradation import degrade, random_settings
from d2a2_core.depth import fill_holes, measurement_trust, within_distance
from d2a2_core.network import takes_trust

# Blur (px, sigma) of generated depth edges that makes them as wide as the benchmark images': measured edge profiles are those of
# 0.45 (two of eight Middlebury images) to 1.2 (one of eight). Sharp ones weigh more in a squared error: trained on 0.4 to 1.2
# alone, the network's edges were too soft for them.
_EDGE_WIDTH = (0.25, 1.0)
_MISALIGNED_WIDTH = (0.0, 1.0)
_FEWEST = 0.1  # share of valid measurements below which a sensor's LR teaches nothing
_REACH = (
    32.0  # HR px from a measurement up to which depth is asked for; the node's max_fill_px is half of it by default
)


def input_keys(model: nn.Module) -> tuple[str, ...]:
    """What of a batch a model is called with, in this order."""
    return ("guide", "lr", "trust") if takes_trust(model) else ("guide", "lr")


class TrainingBatches(Dataset):
    """Batches by number: a dict of ``guide`` (B, 3, P, P) in [0, 1], ``lr`` (B, 1, P/s, P/s), what its values are
    worth (``trust``, as ``lr``), ``hr`` (B, 1, P, P), NaN where nothing is asked of the network: far inside a sensor's holes.

    Depth is normalised by the HR crop's own range, as in the paper, or by a random wider one (``range_jitter``): a crop of
    a benchmark image seldom spans the range of its image. Batches of different scales alternate at random.

    Args:
        source: of scenes.
        scales: one is drawn per batch.
        crop: P, a multiple of the largest scale.
        batch_size: B, of this process.
        seed: of crops, flips and scales.
        rank, world: this process and the number of processes of a distributed run, which share each batch number.
        range_jitter: probability of the wider range.
        soft: probability of depth edges that are some pixels wide, as those of benchmark sets are (Middlebury, Lu, NYUv2: the
            largest step between neighbours is 40 to 60 % of the whole step); generated edges are one pixel wide. For clean
            weights only: a robot's depth should not have values between foreground and background.
        misalign: probability of a depth map that is slightly soft and off its colour, as captured depth is.
        captured: probability of a depth map with ragged edges and holes filled along the colours, as sets made with a depth
            camera have it (:mod:`d2a2_core.data.sensors.captured`), instead of the two above. For clean weights only.
        sensor: probability of an LR, and a colour image, as a depth camera of random quality gives them
            (:mod:`d2a2_core.data.sensors.degradation`): noise, mixed edges, holes (filled as :class:`d2a2_core.DepthUpsampler`
            does), ratios beside the scale, a view that is off by some pixels, dim or compressed colour; normalised by its
            own range. Else the LR is the bicubic reduction.
    """

    def __init__(
        self,
        source: SceneSource,
        scales: Sequence[int],
        crop: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        range_jitter: float = 0.0,
        misalign: float = 0.0,
        sensor: float = 0.0,
        soft: float = 0.0,
        captured: float = 0.0,
    ) -> None:
        if crop % max(scales):
            raise ValueError(f"crop ({crop}) must be a multiple of the largest scale ({max(scales)})")
        self.source, self.scales, self.crop, self.batch_size = source, tuple(scales), crop, batch_size
        self.seed, self.rank, self.world = seed, rank, world
        self.range_jitter, self.misalign, self.sensor, self.soft = range_jitter, misalign, sensor, soft
        self.captured = captured

    def __getitem__(self, batch: int) -> dict[str, Tensor]:
        scale = self.scales[np.random.default_rng([self.seed, batch, 0]).integers(len(self.scales))]
        first = (batch * self.world + self.rank) * self.batch_size
        samples = [self._sample(first + i, scale) for i in range(self.batch_size)]
        return {key: torch.from_numpy(np.stack([s[key] for s in samples])) for key in samples[0]}

    def _sample(self, index: int, scale: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng([self.seed, index, 1])
        scene = random_crop(self.source.scene(index, self.crop), self.crop, rng)
        color, depth = scene.color, scene.depth
        if not np.isfinite(depth).all():
            raise ValueError(f"scene {index} has invalid depth, expected finite values; fill or leave out such pairs")
        if self.captured and rng.random() < self.captured:
            depth = captured(color, depth, rng)
        else:
            if rng.random() < self.misalign:
                depth = misaligned(depth, rng)
            if self.soft and rng.random() < self.soft:
                depth = softened(depth, rng)
        if self.sensor and rng.random() < self.sensor:
            color, lr, trust, lo, hi = sensor_depth(color, depth, scale, rng)
            # What the sensor lost altogether cannot be learnt, and would outweigh everything else in a squared loss. Nor is what
            # lies far inside a hole ever published.
            depth = np.clip(depth, lo - 0.2 * (hi - lo), hi + 0.2 * (hi - lo))
            depth = np.where(_near_measurements(trust, scale), depth, np.float32(np.nan))
        else:
            lr, lo, hi = reduce_depth(depth, scale), float(depth.min()), float(depth.max())
            trust = _trust(lr)
        span = max(hi - lo, 1e-3)
        if rng.random() < self.range_jitter:
            wide = span * rng.uniform(1, 4)
            lo -= rng.random() * (wide - span)
            span = wide
        return {
            "guide": np.ascontiguousarray(color.transpose(2, 0, 1)).astype(np.float32) / 255,
            "lr": (lr[None] - lo) / np.float32(span),
            "trust": trust[None],
            "hr": (depth[None] - lo) / np.float32(span),
        }


def random_crop(scene: RGBD, crop: int, rng: np.random.Generator) -> RGBD:
    """A (crop, crop) window; flipped left-right, upside down and transposed with p = 0.5 each."""
    height, width = scene.depth.shape
    top, left = rng.integers(height - crop + 1), rng.integers(width - crop + 1)
    window = np.s_[top : top + crop, left : left + crop]
    color, depth = scene.color[window], scene.depth[window]
    if rng.random() < 0.5:
        color, depth = color[:, ::-1], depth[:, ::-1]
    if rng.random() < 0.5:
        color, depth = color[::-1], depth[::-1]
    if rng.random() < 0.5:
        color, depth = color.transpose(1, 0, 2), depth.T
    return RGBD(np.ascontiguousarray(color), np.ascontiguousarray(depth))


def sensor_depth(
    color: np.ndarray, depth: np.ndarray, scale: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float, float]:
    """Colour and LR (H / s, W / s) metres of a random pair of cameras, holes filled; trust in it; range of what was measured."""
    seen, lr = degrade(color, depth, scale, rng, random_settings(rng))
    valid = np.isfinite(lr)
    if valid.mean() < _FEWEST:  # nothing to learn from
        lr = reduce_depth(depth, scale)
        valid = np.ones_like(lr, bool)
    guide = torch.from_numpy(np.array(seen)).permute(2, 0, 1)[None].float() / 255
    filled = fill_holes(torch.from_numpy(np.array(lr))[None, None], F.avg_pool2d(guide, scale))[0, 0].numpy()
    return seen, filled, _trust(lr), float(lr[valid].min()), float(lr[valid].max())


def _near_measurements(trust: np.ndarray, scale: int) -> np.ndarray:
    """(H, W) bool: at most ``_REACH`` HR pixels from a measurement that is not doubtful."""
    measured = torch.from_numpy((trust == 1).repeat(scale, 0).repeat(scale, 1))
    return within_distance(measured[None, None], _REACH)[0, 0].numpy()


def _trust(lr: np.ndarray) -> np.ndarray:
    return measurement_trust(torch.from_numpy(np.array(lr, np.float32))[None, None])[0, 0].numpy()


def softened(depth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Depth (H, W) with edges as wide as those of benchmark images: blurred by 0.25 to 1 px."""
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(depth, rng.uniform(*_EDGE_WIDTH)).astype(np.float32)


def misaligned(depth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Depth (H, W) off its colour as captured depth is: shifted smoothly by up to about 3 px, edges softened by up to 1 px.

    In half of the cases what is near, or what is far, is up to 3 px larger than in colour on every side, as in Lu's images.
    """
    from scipy.ndimage import gaussian_filter, map_coordinates, maximum_filter, minimum_filter, zoom

    shape = depth.shape
    if rng.random() < 0.5:
        grow = minimum_filter if rng.random() < 0.5 else maximum_filter
        depth = grow(depth, 2 * int(rng.integers(1, 4)) + 1)
    amount = rng.uniform(0.3, 2.0)
    cells = int(rng.integers(3, 14))
    fields = [zoom(rng.normal(0, amount, (cells, cells)), (shape[0] / cells, shape[1] / cells), order=1) for _ in "yx"]
    rows, cols = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in shape), indexing="ij")
    warped = map_coordinates(depth, (rows + fields[0], cols + fields[1]), order=0, mode="nearest")
    return gaussian_filter(warped, rng.uniform(*_MISALIGNED_WIDTH)).astype(np.float32)
