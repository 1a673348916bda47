"""AdaptiveEngine: several weights behind one stream, exchanged while it runs.

Weights are loaded when they are first wanted, in a thread of their own: the stream goes on with the present ones until the new
network has computed a pair (which is what makes a runtime compile it). No frame waits for a change, but while the thread works it
shares the CPU with the stream. What the stream knows (stable range, offset) is handed over.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from d2a2_core.errors import CodedError
from d2a2_core.geometry import CameraPair
from d2a2_core.geometry.offset_corrector import OffsetCorrector
from d2a2_core.latency_budget import Level
from d2a2_core.pipeline import DepthPipeline, PipelineResult, PipelineSettings

#: Errors of loading weights or of a runtime, which must not end a stream that runs on other weights.
UNUSABLE = (ImportError, OSError, RuntimeError, ValueError)


class AdaptiveEngine:
    """A :class:`d2a2_core.stream.Engine` over several weights. Not thread-safe, except for ``pipeline.offsets.look``.

    Args:
        load: Makes the pipeline of weights given by name or path.
        weights: The ones to choose from, the most accurate first.
        choose: Called with the first pair and a function that gives a pipeline by name; returns the weights to take.
            None: the first of ``weights``.

    Attributes:
        weights: Those that can be used, as far as is known.
        problems: Why others cannot, by name.
        pipeline: The one that computes now.

    Raises:
        WeightsError, ValueError, ImportError: The first weights cannot be loaded; with ``choose``, none of them can.
    """

    def __init__(
        self,
        load: Callable[[str], DepthPipeline],
        weights: Sequence[str],
        choose: Callable[[CameraPair, AdaptiveEngine], str] | None = None,
    ) -> None:
        self._load, self._choose, self._many = load, choose, choose is not None
        self.weights = tuple(weights)
        self.problems: dict[str, str] = {}
        self._made: dict[str, DepthPipeline] = {}
        self._sigma, self._halved = True, False
        self._half_offsets = OffsetCorrector()
        self._worker: threading.Thread | None = None
        self.current = self._wanted = self._first_usable() if choose else self.weights[0]
        self.pipeline = self.get(self.current)
        self._offsets = self.pipeline.offsets

    def _first_usable(self) -> str:
        """The cheapest weights that can be loaded: a choice begins with those."""
        for name in reversed(self.weights):
            try:
                self.get(name)
            except UNUSABLE:
                if not self.weights:
                    raise
            else:
                return name
        raise ValueError("expected weights to choose from, got none")

    @property
    def settings(self) -> PipelineSettings:
        """Settings of the pipeline, whichever computes."""
        return self.pipeline.settings

    @settings.setter
    def settings(self, settings: PipelineSettings) -> None:
        self.pipeline.settings = settings

    @property
    def chosen(self) -> bool:
        """Whether it is settled which weights the stream starts with."""
        return self._choose is None

    def get(self, name: str) -> DepthPipeline:
        """The pipeline of weights, loaded when first asked for; an error is noted in :attr:`problems` and raised."""
        if name not in self._made:
            try:
                self._made[name] = self._load(name)
            except UNUSABLE as error:
                self._give_up(name, error)
                raise
        return self._made[name]

    @property
    def changing(self) -> bool:
        """Whether other weights are wanted than those that compute."""
        return self._wanted != self.current

    @property
    def preparing(self) -> bool:
        """Whether a thread loads or compiles; Python waits for it when it ends."""
        made = list(self._made.values())
        return (self._worker is not None and self._worker.is_alive()) or any(p.upsampler.preparing for p in made)

    def apply(self, level: Level) -> None:
        """Takes a level: its weights as soon as they are ready, the rest from the next pair on."""
        self._wanted, self._sigma, self._halved = level.weights, level.sigma, level.halved

    def process(self, pair: CameraPair, sigma: bool = True) -> PipelineResult:
        """Computes one pair; see :meth:`DepthPipeline.process`.

        A level may leave out sigma, or halve the colour image. The latter only with a colour camera, which tells receivers the
        size of the results, and only where colour is at least as large as depth: a pair must stay usable.
        """
        if self._choose is not None:
            # Again with the next pair, should this one be unusable.
            self._take(self._choose(pair, self))
            self._choose, self._wanted = None, self.current
        if self.changing:
            self._prepare(pair)
        if not (self._halved and _can_halve(pair)):
            self.pipeline.offsets = self._offsets
            return self.pipeline.process(pair, sigma and self._sigma)
        settings = self.settings
        try:
            self.pipeline.settings, self.pipeline.offsets = halved_settings(settings), self._half_offsets
            return self.pipeline.process(halved(pair), sigma and self._sigma)
        finally:
            self.pipeline.settings = settings

    def reset(self) -> None:
        """Forgets the stream so far, but not which weights it was computed with."""
        self.pipeline.reset()
        self._offsets.reset()
        self._half_offsets.reset()

    def state(self) -> dict[str, Any]:
        """Returns what the next frame depends on from the ones before: the pipeline's state, and the weights that were chosen."""
        return self.pipeline.state() | ({"weights": self.current} if self._many and self.chosen else {})

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from where :meth:`state` was taken, with the same weights: nothing is chosen anew.

        Raises:
            CodedError: "weights": they are none of this engine's.
        """
        if "weights" in state:
            if state["weights"] not in self.weights:
                raise CodedError(
                    "weights", f"expected weights {state['weights']!r}, as before; there are {self.weights}"
                )
            self._take(state["weights"])
            self._choose, self._wanted = None, self.current
        self.pipeline.restore(state)

    def _take(self, name: str) -> None:
        before, self.pipeline = self.pipeline, self.get(name)
        self.current = name
        if before is self.pipeline:
            return
        self.pipeline.settings = before.settings
        self.pipeline.upsampler.ensemble = before.upsampler.ensemble
        self.pipeline.restore(before.state())
        self.pipeline.offsets = self._offsets

    def _prepare(self, pair: CameraPair) -> None:
        """Takes the wanted weights if they are ready, else has them made ready with this pair."""
        name = self._wanted
        if name in self.problems:
            self._wanted = self.current
        elif self._worker is not None and self._worker.is_alive():
            return
        elif name in self._made:
            self._take(name)
        else:
            self._worker = threading.Thread(target=self._warm_up, args=(name, pair, self.settings))
            self._worker.start()

    def _warm_up(self, name: str, pair: CameraPair, settings: PipelineSettings) -> None:
        try:
            pipeline = self._load(name)
        except UNUSABLE as error:
            self._give_up(name, error)
            return
        state = pipeline.state()
        try:
            pipeline.settings = without_watchdog(settings)
            with pipeline.upsampler.patient():
                pipeline.process(pair, self._sigma)
        except ValueError:
            # The pair cannot be used, which says nothing of the weights: the next one is tried.
            return
        except RuntimeError as error:
            self._give_up(name, error)
            return
        pipeline.restore(state)
        self._made[name] = pipeline

    def _give_up(self, name: str, error: Exception) -> None:
        self.problems = self.problems | {name: str(error)}
        self.weights = tuple(other for other in self.weights if other != name)


def _can_halve(pair: CameraPair) -> bool:
    sizes = zip(pair.color.shape[:2], pair.depth.shape, strict=True)
    return pair.color_camera is not None and all(length >= max(other, 2) for length, other in sizes)


def halved(pair: CameraPair) -> CameraPair:
    """The pair with the colour image of half the size along each axis (rounded down), and its camera."""
    height, width = (max(length // 2, 1) for length in pair.color.shape[:2])
    # Each pixel is the mean of the area it covers.
    color = np.asarray(Image.fromarray(np.ascontiguousarray(pair.color)).resize((width, height), Image.Resampling.BOX))
    camera = pair.color_camera
    return replace(pair, color=color, color_camera=camera.resized(width, height) if camera else None)


def halved_settings(settings: PipelineSettings) -> PipelineSettings:
    """The settings for :func:`halved` pairs: what is in pixels of the colour image is halved, too."""
    dx, dy = settings.color_offset
    return replace(settings, color_offset=(dx / 2, dy / 2), max_fill_px=settings.max_fill_px / 2)


def without_watchdog(settings: PipelineSettings) -> PipelineSettings:
    """The settings for pairs that are computed only to see how: the watchdog is to see each pair of the stream once."""
    return replace(settings, watchdog=False, correct_offset=False)
