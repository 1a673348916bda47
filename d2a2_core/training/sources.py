"""Which scenes a run trains on and which it is validated on."""

from __future__ import annotations

from d2a2_core.data.benchmarks import open_dataset
from d2a2_core.data.sampling import PairScenes, SceneSource, ShapeScenes
from d2a2_core.training.config import TrainConfig

_HELD_OUT = 1_000_003  # added to the seed: generated scenes that training never draws


def training_source(config: TrainConfig) -> SceneSource:
    """Scenes to train on."""
    return _source(config, "train")


def validation_source(config: TrainConfig) -> SceneSource:
    """Held-out scenes of the same kind; never a benchmark's test set."""
    return _source(config, "val")


def _source(config: TrainConfig, split: str) -> SceneSource:
    if config.data == "shapes":
        return ShapeScenes(config.seed + (0 if split == "train" else _HELD_OUT))
    if not config.root:
        raise ValueError(f"data={config.data} needs root, the folder of the data set")
    return PairScenes(open_dataset(config.data, config.root, split), config.seed)
