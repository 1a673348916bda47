"""Weights that suit the machine: `weights: auto`, decided by a measurement on the first pair, and remembered on disk."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from d2a2_core import __version__
from d2a2_core.documents import NUMBER, check_schema, read_json
from d2a2_core.engine import UNUSABLE, AdaptiveEngine, without_watchdog
from d2a2_core.files import replacing
from d2a2_core.geometry import CameraPair
from d2a2_core.pipeline import DepthPipeline, PipelineSettings
from d2a2_core.runtime import compiled_cache
from d2a2_core.weights import RANKED, resolve_weights, sha256

AUTO = "auto"
FRAME_S = 0.1  # 10 Hz: what auto's weights must hold on a CPU
_FRAMES = 3  # measured ones, after one that compiles; the fastest counts
_ENOUGH_S = 1.0  # seconds of them after which no further one is measured
_MOST_S = 4.0  # seconds after which no further weights are measured
# A network with n times the multiply-adds takes at least this much of n times a frame's time, since the rest costs the same.
_LEAST = 0.6
_SCHEMA = {"type": "object", "additionalProperties": {"type": "object", "additionalProperties": NUMBER}}


def ladder_of(weights: str) -> tuple[str, ...]:
    """Weights that a stream may go down to, itself first: all ranked ones for "auto", none but itself for your own."""
    names = tuple(RANKED)
    if weights == AUTO:
        return names
    return names[names.index(weights) :] if weights in names else (weights,)


def open_engine(
    weights: str,
    device: str = "auto",
    precision: str = "auto",
    settings: PipelineSettings | None = None,
    say: Callable[[str], None] = lambda text: None,
    limit_s: Callable[[], float] = lambda: FRAME_S,
    smaller: bool = False,
    at_once: bool = False,
    **options: Any,
) -> AdaptiveEngine:
    """The engine of a stream whose weights may be "auto".

    Args:
        weights: "auto", or as :meth:`DepthPipeline.from_pretrained`.
        device, precision, settings, options: See there.
        say: Told what was chosen and why, and which weights cannot be used.
        limit_s: Seconds that a frame may take at most on a CPU, asked when "auto" decides.
        smaller: Whether the engine may be told to take smaller weights than those that were named.
        at_once: Whether no pair waits for a runtime to get ready, see :func:`d2a2_core.runtime.choose_runtime`; but while "auto"
            measures.

    Raises:
        WeightsError, ValueError, ImportError: See :meth:`DepthPipeline.from_pretrained`; with "auto" only if
            no weights can be used.
    """

    def load(name: str) -> DepthPipeline:
        return DepthPipeline.from_pretrained(name, device, precision, settings, at_once=at_once, **options)

    if weights != AUTO:
        return AdaptiveEngine(load, ladder_of(weights) if smaller else (weights,))
    asked = f"{precision} by {options.get('runtime', 'auto')}"
    engine = AdaptiveEngine(
        load, ladder_of(AUTO), lambda pair, engine: choose_weights(pair, engine, limit_s(), say, asked)
    )
    for name, why in engine.problems.items():
        say(f"weights {name} cannot be used: {why}")
    return engine


def choose_weights(
    pair: CameraPair, engine: AdaptiveEngine, limit_s: float, say: Callable[[str], None], asked: str = ""
) -> str:
    """The most accurate weights of an engine that compute a pair like this one within a limit; on a GPU the most accurate ones.

    The cheapest are measured first. Others are measured only while the ratio of multiply-adds says that they may hold the limit,
    and for a few seconds in all; what was measured once on a machine is read from disk. ``asked`` says how the engine was to
    compute, where that does not show yet.
    """
    if engine.pipeline.upsampler.device.type != "cpu":
        for name in engine.weights:
            if _usable(engine, name, say):
                say(f"weights {name}: the most accurate ones, on a GPU")
                return name
        return engine.current
    key, memory = _key(pair, engine.pipeline, asked), _Memory()
    known, begun = memory.read(key), time.monotonic()
    best, cheapest = engine.current, None
    for name in reversed(engine.weights):
        least = _LEAST * cheapest[1] * RANKED[name] / RANKED[cheapest[0]] if cheapest else 0.0
        if least > limit_s or time.monotonic() - begun > _MOST_S:
            break
        if not _usable(engine, name, say):
            continue
        mark = _mark(name)
        if mark not in known:
            say(f"measuring how long a pair takes with {name}; it is remembered, frames begin after that")
            known[mark] = measure(engine.get(name), pair)
            memory.write(key, known)
        if cheapest is not None and known[mark] > limit_s:
            break
        best, cheapest = name, cheapest or (name, known[mark])
    took = known.get(_mark(best), float("nan"))
    say(
        f"weights {best}: {1000 * took:.0f} ms for a pair of this size"
        + (", the most accurate ones within" if took <= limit_s else ", none are faster, but it is more than")
        + f" {1000 * limit_s:.0f} ms"
    )
    return best


def measure(pipeline: DepthPipeline, pair: CameraPair) -> float:
    """Seconds that a pipeline takes for a pair, after one that is not measured. Its stream is as before."""
    state, settings = pipeline.state(), pipeline.settings
    try:
        pipeline.settings = without_watchdog(settings)
        with pipeline.upsampler.patient():
            pipeline.process(pair)
            times: list[float] = []
            while len(times) < _FRAMES and sum(times) < _ENOUGH_S:
                begun = time.perf_counter()
                pipeline.process(pair)
                times.append(time.perf_counter() - begun)
        return min(times)
    finally:
        pipeline.settings = settings
        pipeline.restore(state)


class _Memory:
    """Seconds for a pair, by machine and weights, in weights.json of the cache folder. Without one, nothing is remembered."""

    def __init__(self) -> None:
        folder = compiled_cache.folder()
        self._path = folder and folder / "weights.json"

    def read(self, key: str) -> dict[str, float]:
        return dict(self._all().get(key, {}))

    def write(self, key: str, seconds: dict[str, float]) -> None:
        if self._path is None:
            return
        everything = self._all() | {key: seconds}
        # A full disk or a folder that is not ours: the measurement is made again next time.
        with suppress(OSError), replacing(self._path) as partial:
            partial.write_text(json.dumps(everything, indent=1) + "\n")

    def _all(self) -> dict[str, dict[str, float]]:
        """What is on disk; nothing where it is damaged: it is written anew then."""
        try:
            found = read_json(self._path) if self._path else {}
            check_schema(found, _SCHEMA, "the measured times")
        except (OSError, ValueError):
            return {}
        return found


def _usable(engine: AdaptiveEngine, name: str, say: Callable[[str], None]) -> bool:
    try:
        engine.get(name)
    except UNUSABLE as error:
        say(f"weights {name} cannot be used: {error}")
        return False
    return True


def _key(pair: CameraPair, pipeline: DepthPipeline, asked: str) -> str:
    """What the time of a pair depends on, but for the weights."""
    (height, width), (rows, columns) = pair.color.shape[:2], pair.depth.shape
    of, settings = pipeline.upsampler, pipeline.settings
    parts = (
        _cpu_name(),
        f"{torch.get_num_threads()} threads",
        f"{width}x{height} from {columns}x{rows}",
        f"{asked}: " + ("a faster runtime than " if of.starting else "") + f"{of.runtime} {of.precision}",
        f"ensemble {of.ensemble} scale {of.scale} {settings.output_geometry}",
        f"d2a2 {__version__}",
    )
    return ", ".join(parts)


def _mark(name: str) -> str:
    """Name and content of weights: trained again they may take another time."""
    return f"{name} {sha256(resolve_weights(name))[:12]}"


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
