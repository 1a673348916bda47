"""Where a frame's time goes: named stages, timed only where somebody asks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

_clock: ContextVar[StageClock | None] = ContextVar("d2a2_stage_clock", default=None)


def stage(name: str) -> AbstractContextManager[None]:
    """A context whose time counts for ``name``, but for the stages within it. Without a :class:`StageClock` it costs nothing."""
    clock = _clock.get()
    return nullcontext() if clock is None else clock.measure(name)


class StageClock:
    """Sums up the seconds of all stages while it is entered.

    Attributes:
        seconds: Name of a stage -> seconds so far.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._within: list[float] = []  # seconds of the stages inside each open one

    def __enter__(self) -> StageClock:
        self._token = _clock.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        _clock.reset(self._token)

    def add(self, name: str, seconds: float) -> None:
        """Counts time that was measured otherwise."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """See :func:`stage`."""
        self._within.append(0.0)
        started = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - started
            self.add(name, seconds - self._within.pop())
            if self._within:
                self._within[-1] += seconds
