"""A thread that always works on the newest item."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from d2a2_ros.guard import guarded

T = TypeVar("T")


class LatestWorker(Generic[T]):
    """Runs ``work(item)`` in one thread. Of the items that arrive while it is busy only the newest is kept.

    ``work`` handles its own errors; one that escapes is passed to ``on_error`` and the thread lives on.

    Attributes:
        busy: Whether an item is in work.
    """

    def __init__(self, work: Callable[[T], None], on_error: Callable[[Exception], None]) -> None:
        self._work = guarded(work, lambda error: None if self._stopped else on_error(error))
        self.busy = False
        self._waiting: T | None = None
        self._stopped = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="upsampling", daemon=True)
        self._thread.start()

    def put(self, item: T) -> bool:
        """Hands an item over; returns whether it replaced one that was still waiting."""
        with self._changed:
            replaced = self._waiting is not None
            self._waiting = item
            self._changed.notify()
            return replaced

    @property
    def stopped(self) -> bool:
        """Whether :meth:`stop` was called."""
        return self._stopped

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def stop(self, timeout: float = 3.0) -> None:
        """Ends the thread after the item in work, waiting for it up to ``timeout`` seconds; the waiting one is dropped."""
        with self._changed:
            self._stopped = True
            self._waiting = None
            self._changed.notify()
        self._thread.join(timeout)

    def _run(self) -> None:
        while True:
            with self._changed:
                while self._waiting is None and not self._stopped:
                    self._changed.wait()
                if self._stopped:
                    return
                item, self._waiting = self._waiting, None
            self.busy = True
            self._work(item)
            self.busy = False
