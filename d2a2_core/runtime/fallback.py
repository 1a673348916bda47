"""Two runtimes of one network: the second goes on once the first has failed."""

from __future__ import annotations

import warnings
from collections.abc import Callable

from torch import Tensor, nn

from d2a2_core.runtime.base import Runtime


class FallbackRuntime(Runtime):
    """Runs a network by ``preferred``; once that fails, by ``reserve`` from then on, with a RuntimeWarning.

    Name and precision are those of the runtime that computes now; ``problem`` says why ``preferred`` no longer does. Both have
    the same network and device.
    """

    def __init__(self, preferred: Runtime, reserve: Runtime) -> None:
        self._reserve = reserve
        self._use(preferred)

    def whole(self, make: Callable[[Callable[..., Tensor]], nn.Module]) -> Callable[..., tuple[Tensor, ...]]:
        """See :meth:`Runtime.whole`."""
        runs = {runtime: runtime.whole(make) for runtime in (self._current,)}

        def run(*inputs: Tensor) -> tuple[Tensor, ...]:
            if not self.problem:
                try:
                    return runs[self._current](*inputs)
                except Exception as error:  # each package has its own kinds of errors
                    self._give_up(error)
            if self._current not in runs:
                runs.clear()
                runs[self._current] = self._current.whole(make)
            return runs[self._current](*inputs)

        return run

    def _give_up(self, error: Exception) -> None:
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
            except Exception as error:  # see above
                self._give_up(error)
        return self._current(guide, lr, trust)
