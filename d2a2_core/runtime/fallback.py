"""Two runtimes of one network: the second goes on once the first has failed."""

from __future__ import annotations

import warnings
from collections.abc import Callable

from torch import Tensor

from d2a2_core.runtime.base import Graph, GraphMaker, Runtime


class FallbackRuntime(Runtime):
    """Runs a network by ``preferred``; once that fails, by ``reserve`` from then on, with a RuntimeWarning.

    Name and precision are those of the runtime that computes now; ``problem`` says why ``preferred`` no longer does. Both have
    the same network and device.
    """

    def __init__(self, preferred: Runtime, reserve: Runtime) -> None:
        self._reserve = reserve
        self._use(preferred)

    def whole(self, make: GraphMaker, profiled: bool = False) -> Graph:
        """See :meth:`Runtime.whole`."""
        return _FallbackGraph(self, lambda: self._current.whole(make, profiled))

    def give_up(self, error: Exception) -> None:
        """The reserve takes over, because of an error."""
        cause = error.__cause__ or error
        self.problem = f"{self.name} cannot run this network ({type(cause).__name__}: {cause})"
        self._use(self._reserve)
        warnings.warn(f"{self.problem}; {self.name} goes on", RuntimeWarning, stacklevel=3)

    def _use(self, runtime: Runtime) -> None:
        self._current = runtime
        self.name, self.device, self.precision = runtime.name, runtime.device, runtime.precision
        self.scales, self.takes_trust = runtime.scales, runtime.takes_trust

    def __call__(self, guide: Tensor, lr: Tensor, trust: Tensor | None = None) -> Tensor:
        """See :meth:`Runtime.__call__`; raises only what ``reserve`` raises."""
        if not self.problem:
            try:
                return self._current(guide, lr, trust)
            except Exception as error:  # a runtime's own kinds of errors have no common base
                self.give_up(error)
        return self._current(guide, lr, trust)


class _FallbackGraph(Graph):
    """A graph by the runtime that computes now."""

    def __init__(self, runtime: FallbackRuntime, make: Callable[[], Graph]) -> None:
        self._runtime, self._make = runtime, make
        self._graph, self._problem = make(), runtime.problem

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        if not self._runtime.problem:
            try:
                return self._graph(*inputs)
            except Exception as error:  # as above
                self._runtime.give_up(error)
        if self._problem != self._runtime.problem:
            self._graph, self._problem = self._make(), self._runtime.problem
        return self._graph(*inputs)

    def profile(self) -> dict[str, float]:
        return self._graph.profile()
