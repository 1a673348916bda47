"""Which scenes a run trains on and which it is validated on."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from d2a2_core.data.scene_sources import (
    DisparityScenes,
    GeneratedScenes,
    MixedScenes,
    PairScenes,
    SceneSource,
    ShapeScenes,
)
from d2a2_core.data.scenes.scene_folder import GeneratedPairs
from d2a2_core.data.sets.benchmarks import open_dataset
from d2a2_core.training.config import TrainConfig

_HELD_OUT = 1_000_003  # added to the seed: generated scenes that training never draws


def training_source(config: TrainConfig) -> SceneSource:
    """Scenes to train on."""
    return _source(config, "train")


def validation_source(config: TrainConfig) -> SceneSource:
    """Held-out scenes of the same kind; never a benchmark's test set."""
    return _source(config, "val")


class _Joined(Sequence):
    """Several sequences, one after the other."""

    def __init__(self, parts: list[Sequence]) -> None:
        self.parts = parts
        self.ends = list(accumulate(len(part) for part in parts))

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, index: int):
        part = bisect_right(self.ends, index)
        return self.parts[part][index - (self.ends[part - 1] if part else 0)]


def _source(config: TrainConfig, split: str) -> SceneSource:
    source = _metric_source(config, split)
    return DisparityScenes(source, config.disparity, config.seed) if config.disparity else source


def _metric_source(config: TrainConfig, split: str) -> SceneSource:
    shapes = ShapeScenes(config.seed + (0 if split == "train" else _HELD_OUT))
    if config.data == "shapes":
        return shapes
    if not config.root:
        raise ValueError(f"data={config.data} needs root, the folder of the data set")
    if config.data in ("generated", "mixed"):
        generated = GeneratedScenes(
            _Joined([GeneratedPairs(part, split) for part in config.root.split(",")]), config.seed
        )
        return (
            generated if config.data == "generated" else MixedScenes(generated, shapes, config.rooms_share, config.seed)
        )
    return PairScenes(open_dataset(config.data, config.root, split), config.seed)
