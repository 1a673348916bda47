"""Where training scenes come from: endless, repeatable sequences of pairs of colour and depth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from PIL import Image, ImageFilter

from d2a2_core.data.reduction import resize
from d2a2_core.data.scenes.shapes import RGBD, sample_scene

_TRIES = 4  # windows drawn of a generated scene
_EVENTFUL = 0.04  # range of depth over its mean, below which a window is drawn again


class SceneSource(Protocol):
    """Where training pairs come from: scene ``index`` of an endless, repeatable sequence."""

    def scene(self, index: int, crop: int) -> RGBD:
        """A pair of at least (crop, crop) pixels."""
        ...


class ShapeScenes:
    """Endless layered shapes (:mod:`d2a2_core.data.scenes.shapes`), made on the fly."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def scene(self, index: int, crop: int) -> RGBD:
        """A scene slightly larger than the crop, so that shapes are cut by its border."""
        return sample_scene(crop + 32, np.random.default_rng([self.seed, index]))


class PairScenes:
    """A fixed list of pairs (NYUv2, a generated folder), visited in a new seeded order every epoch.

    Args:
        pairs: anything indexable whose items have ``guide`` uint8 (H, W, 3) and ``depth`` float32 (H, W).
        seed: of the orders.
    """

    def __init__(self, pairs: Sequence, seed: int) -> None:
        if not len(pairs):
            raise ValueError("expected at least one pair to train on, got none")
        self.pairs = pairs
        self.seed = seed

    def scene(self, index: int, crop: int) -> RGBD:
        """Pair ``index`` of the endless sequence of epochs.

        Raises:
            ValueError: the pair is smaller than the crop.
        """
        epoch, position = divmod(index, len(self.pairs))
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.pairs))
        pair = self.pairs[int(order[position])]
        if min(pair.depth.shape) < crop:
            raise ValueError(f"pair {getattr(pair, 'name', position)} is {pair.depth.shape}, smaller than crop {crop}")
        return RGBD(pair.guide, pair.depth)


class GeneratedScenes(PairScenes):
    """Pairs of a generated folder (:class:`d2a2_core.data.scenes.scene_folder.GeneratedPairs`): a window of each, never the same.

    Windows without depth (a bare wall) are drawn again, a few times; four in ten are views from further away, reduced by 1.4
    to 2.2; half get the colours of another camera.
    """

    def scene(self, index: int, crop: int) -> RGBD:
        """A (crop, crop) window of pair ``index`` of the endless sequence of epochs."""
        pair = super().scene(index, crop)
        rng = np.random.default_rng([self.seed, index, 3])
        for _ in range(_TRIES):
            window = random_window(pair, crop, rng)
            if np.ptp(window.depth) > _EVENTFUL * window.depth.mean():
                break
        return RGBD(_recorded(window.color, rng), window.depth) if rng.random() < 0.5 else window


class MixedScenes:
    """Scenes of one source with probability ``share``, else of another.

    Args:
        first, second: the sources.
        share: of the first, in [0, 1].
        seed: of the choice.
    """

    def __init__(self, first: SceneSource, second: SceneSource, share: float, seed: int) -> None:
        if not 0 <= share <= 1:
            raise ValueError(f"expected a share in [0, 1], got {share}")
        self.first, self.second, self.share, self.seed = first, second, share, seed

    def scene(self, index: int, crop: int) -> RGBD:
        """Scene ``index`` of whichever source the seed says."""
        chosen = np.random.default_rng([self.seed, index, 2]).random() < self.share
        return (self.first if chosen else self.second).scene(index, crop)


class DisparityScenes:
    """Scenes of a source, of which a share has its depth turned into what Middlebury's images hold: large is near.

    z becomes z_min z_max / z, which has the same range and is linear in disparity. No sensor's noise fits such depth: for
    weights of the clean, bicubic task.

    Args:
        source: of scenes in metres.
        share: probability of the turn.
        seed: of the choice.
    """

    def __init__(self, source: SceneSource, share: float, seed: int) -> None:
        self.source, self.share, self.seed = source, share, seed

    def scene(self, index: int, crop: int) -> RGBD:
        """Scene ``index`` of the source, turned or not."""
        scene = self.source.scene(index, crop)
        if np.random.default_rng([self.seed, index, 4]).random() >= self.share:
            return scene
        product = scene.depth.min() * scene.depth.max()
        return RGBD(scene.color, (product / scene.depth).astype(np.float32))


def random_window(scene: RGBD, crop: int, rng: np.random.Generator, zoom: float = 0.4) -> RGBD:
    """A (crop, crop) window; with probability ``zoom`` one up to 2.2 times as large, reduced to that size.

    Colour is reduced by area, depth to the pixel nearest each centre, as a camera further away would see them.
    """
    height, width = scene.depth.shape
    factor = rng.uniform(1.4, 2.2) if rng.random() < zoom else 1.0
    side = min(round(crop * factor), height, width)
    top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
    window = np.s_[top : top + side, left : left + side]
    color, depth = scene.color[window], scene.depth[window]
    if side != crop:
        color = np.asarray(Image.fromarray(color).resize((crop, crop), Image.Resampling.BOX))
        depth = resize(depth, (crop, crop), "nearest")
    return RGBD(color, depth)


def _recorded(color: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """uint8 colour (H, W, 3) with another exposure, white balance and gamma, slightly blurred and noisy."""
    if rng.random() < 0.5:
        color = np.asarray(Image.fromarray(color).filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.0))))
    gain = np.exp(rng.normal(0, 0.25)) * np.exp(rng.normal(0, 0.06, 3))
    if rng.random() < 0.25:  # a dim room, as in Lu's images
        gain = gain * rng.uniform(0.15, 0.6)
    light = np.minimum((color / np.float32(255)) ** np.float32(np.exp(rng.normal(0, 0.25))) * gain, 1)
    noise = rng.standard_normal(color.shape, np.float32) * np.float32(rng.uniform(0, 5))
    return np.clip(255 * light + noise + 0.5, 0, 255).astype(np.uint8)
