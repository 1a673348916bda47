"""Benchmark sets as a depth camera beside a colour camera would give them, for weights that are meant for such cameras.

The severities are those of :mod:`d2a2_core.data.degradation`; what is scored is the undegraded ground truth. Sensor models want
metres: 8-bit sets are disparity-like (large is near), so 255 is taken for 0.5 m, 0 for 5 m, and what lies between is linear in
inverse depth; the measured LR is brought back to 8-bit units the same way, which noise may take beyond 0 to 255. Sets in metres
are as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from d2a2_core.data.benchmarks import Sample
from d2a2_core.data.degradation import Degradation, degrade, preset

NEAR_M, FAR_M = 0.5, 5.0


class DegradedPairs(Sequence):
    """Degraded samples, made when asked for; sample i is a function of (its index, seed, scale, settings) alone.

    Attributes:
        name: that of the set with the severity, for instance "middlebury (severe)".
        expected: number of pairs of the complete set, where known.
    """

    def __init__(self, samples: Sequence[Sample], scale: int, settings: Degradation, seed: int, name: str) -> None:
        self.samples, self.scale, self.settings, self.seed, self.name = samples, scale, settings, seed, name
        self.expected = getattr(samples, "expected", None)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        sample = self.samples[index]
        height, width = (length // self.scale * self.scale for length in sample.depth.shape)
        guide, truth = sample.guide[:height, :width], sample.depth[:height, :width]
        eight_bit = sample.unit == "8-bit"
        rng = np.random.default_rng([self.seed, index, self.scale])
        guide, lr = degrade(guide, to_metres(truth) if eight_bit else truth, self.scale, rng, self.settings)
        return replace(sample, guide=guide, depth=truth, lr=from_metres(lr) if eight_bit else lr)


def degraded_pairs(samples: Sequence[Sample], scale: int, severity: str, seed: int = 0) -> DegradedPairs:
    """The samples with degraded colour and a measured LR (H // s, W // s) with NaN in its holes.

    Args:
        samples: for instance :func:`d2a2_core.data.benchmarks.open_dataset`'s result; a measured LR of theirs is not used.
        scale: of the network.
        severity: "mild", "medium" or "severe".
        seed: of the noise.

    Raises:
        ValueError: no such severity.
    """
    name = f"{getattr(samples, 'name', '')} ({severity})".strip()
    return DegradedPairs(samples, scale, preset(severity), seed, name)


def to_metres(levels: np.ndarray) -> np.ndarray:
    """8-bit disparity-like levels -> float32 metres: 255 is 0.5 m, 0 is 5 m."""
    inverse = 1 / FAR_M + levels.astype(np.float64) / 255 * (1 / NEAR_M - 1 / FAR_M)
    return (1 / inverse).astype(np.float32)


def from_metres(depth: np.ndarray) -> np.ndarray:
    """The inverse of :func:`to_metres`; NaN stays."""
    return (255 * (1 / depth.astype(np.float64) - 1 / FAR_M) / (1 / NEAR_M - 1 / FAR_M)).astype(np.float32)
