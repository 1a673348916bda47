"""Benchmark sets as a depth camera beside a colour camera would give them, for weights that are meant for such cameras.

The severities are those of :mod:`d2a2_core.data.sensors.degradation`; what is scored is the undegraded ground truth.
Sensor models want metres: :mod:`d2a2_core.evaluation.units` brings 8-bit sets to them, and the measured LR back, which noise may
take beyond 0 to 255. Sets in metres are as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from d2a2_core.data.sensors.degradation import Degradation, degrade, preset
from d2a2_core.data.sets.benchmarks import Sample
from d2a2_core.evaluation.units import from_metres, to_metres


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
        samples: for instance :func:`d2a2_core.data.sets.benchmarks.open_dataset`'s result; a measured LR of theirs is not used.
        scale: of the network.
        severity: "mild", "medium" or "severe".
        seed: of the noise.

    Raises:
        ValueError: no such severity.
    """
    name = f"{getattr(samples, 'name', '')} ({severity})".strip()
    return DegradedPairs(samples, scale, preset(severity), seed, name)
