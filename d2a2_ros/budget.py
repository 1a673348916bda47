"""Keeps the node's latency below `latency_budget_ms`: feeds the budget's logic, applies its levels, and reports them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from d2a2_core.engine import AdaptiveEngine
from d2a2_core.latency_budget import LatencyBudget, Level, ladder
from d2a2_core.stream import StreamOptions
from d2a2_core.weights import RANKED
from d2a2_core.weights_choice import FRAME_S, ladder_of, open_engine
from d2a2_ros.diagnostics import Problem
from d2a2_ros.parameters import NodeParameters

# What leaving out sigma, thinning the cloud further and halving the image cost by comparison, until it is measured.
_CHEAPER = (0.8, 0.7, 0.25)


def engine_of(settings: NodeParameters, say: Callable[[str], None]) -> AdaptiveEngine:
    """The engine that the node's parameters ask for; raises as :func:`open_engine`."""
    return open_engine(
        settings.weights,
        settings.device,
        settings.precision,
        settings.pipeline(),
        say=say,
        limit_s=lambda: settings.latency_budget_ms / 1000 or FRAME_S,
        smaller=True,
        at_once=True,
        scale=settings.scale,
        ensemble=settings.ensemble,
        runtime=settings.runtime,
    )


class Budget:
    """Not thread-safe: for the worker. Only :meth:`problem` and :meth:`figures` may be called from another thread.

    Args:
        engine: Computes the stream.
        weights: The parameter: a name, a path or "auto".
        inform, warn: Log a step; log code and message of what is wrong.
    """

    def __init__(
        self,
        engine: AdaptiveEngine,
        weights: str,
        inform: Callable[[str], None],
        warn: Callable[[str, str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine, self._weights, self._inform, self._warn, self._clock = engine, weights, inform, warn, clock
        self._budget = 0.0  # seconds
        self._names: tuple[str, ...] = ()
        self._levels: tuple[Level, ...] = ()
        self._control: LatencyBudget | None = None
        self._base = ""
        self._told: set[str] = set()

    def options(self, options: StreamOptions) -> StreamOptions:
        """The stream's options at the present level."""
        return replace(options, cloud_stride=options.cloud_stride * self.level.stride) if self._control else options

    @property
    def level(self) -> Level:
        """The present level; only while there is a budget."""
        assert self._control is not None
        return self._levels[self._control.level]

    def published(self, latency: float, budget_ms: float) -> None:
        """Takes a published pair into account; the level that follows holds from the next pair on.

        Args:
            latency: Seconds from the pair's stamp to its publication.
            budget_ms: The parameter as it is now; 0: none.
        """
        # Latencies while another runtime is getting ready are not those of the weights.
        if not self._engine.chosen or self._engine.pipeline.upsampler.starting:
            return
        self._base = self._base or self._engine.current
        for name, why in self._engine.problems.items():
            if name not in self._told:
                self._told.add(name)
                self._warn("weights", f"weights {name} cannot be used: {why}; going on without them")
        budget = budget_ms / 1000
        if budget <= 0:
            self._stop()
            return
        names = tuple(name for name in ladder_of(self._weights) if name not in self._engine.problems)
        if self._control is None or names != self._names:
            self._start(names)
        if budget != self._budget:
            self._budget = budget
            self._inform(f"latency budget {budget_ms:g} ms: at {self.level}")
        # Until the network of a level is ready, latencies are those of another one.
        if not self._engine.changing and self._control.update(self._clock(), latency, budget):
            self._inform(f"latency budget {budget_ms:g} ms: going to {self.level}: {self._control.reason}")
        self._engine.apply(self.level)

    def problem(self) -> Problem | None:
        """What is wrong: even the last level is too slow."""
        control = self._control
        if control is None or not control.exceeded:
            return None
        return Problem(
            "latency_budget",
            f"the latency is {1000 * control.p95:.0f} ms (p95), above latency_budget_ms ({1000 * self._budget:g}), even at the "
            f"last level ({self._levels[control.level]}): raise the budget, or give smaller images. Where recorded images are "
            "played, their stamps must be those of the node's clock (use_sim_time)",
        )

    def figures(self) -> dict[str, str]:
        """What /diagnostics shows."""
        control, shown = self._control, {"weights": self._weights, "weights in use": self._engine.current}
        if control is None:
            return shown
        return shown | {
            "latency budget [ms]": f"{1000 * self._budget:g}",
            "level": f"{control.level + 1} of {len(self._levels)}: {self._levels[control.level]}",
            "level p95 [ms]": f"{1000 * control.p95:.1f}",
            "reason": control.reason,
        }

    def _start(self, names: tuple[str, ...]) -> None:
        self._names, self._levels = names, ladder(names)
        costs = [RANKED.get(name, 1.0) for name in names]
        costs += [costs[-1] * share for share in _CHEAPER]
        begin = names.index(self._engine.current) if self._engine.current in names else 0
        self._control, self._budget = LatencyBudget(costs, begin), 0.0

    def _stop(self) -> None:
        if self._control is None:
            return
        self._control, self._budget = None, 0.0
        self._engine.apply(Level(self._base))
        self._inform(f"no latency budget: back to weights {self._base}, sigma, the whole cloud and the full resolution")
