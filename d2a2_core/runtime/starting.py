"""A runtime that computes from the first frame on, while a faster one gets ready."""

from __future__ import annotations

import threading
import warnings
from collections import deque
from collections.abc import Callable

from torch import Tensor

from d2a2_core.runtime.base import Graph, GraphMaker, Runtime

_ROOM = 4  # that wait to get ready: where sizes change all the time, no more is kept
Sizes = tuple[tuple[int, ...], ...]


class StartingRuntime(Runtime):
    """Computes by ``reserve`` at once, and each graph by what ``choose`` gives as soon as that is ready for its sizes.

    To choose (which may measure) and to compile takes seconds, on the first start on a machine most of a minute. That is done in
    a thread, one graph after another; or in the caller's, while ``patient`` is set. Name, precision and ``problem`` are those of
    what computed the last frame.

    Args:
        choose: Gives the runtime that is preferred; called once.
        reserve: The same network on the same device.
    """

    def __init__(self, choose: Callable[[], Runtime], reserve: Runtime) -> None:
        self._choose, self._reserve = choose, reserve
        self._chosen: Runtime | None = None
        self._failed = ""
        self._lock = threading.Lock()  # held while something gets ready
        self._waiting: deque[Callable[[Runtime], None]] = deque()
        self.preparing = False
        self._waiting_lock = threading.Lock()
        self.device, self.scales, self.takes_trust = reserve.device, reserve.scales, reserve.takes_trust
        self.computes(reserve)

    def __call__(self, guide: Tensor, lr: Tensor, trust: Tensor | None = None) -> Tensor:
        """See :meth:`Runtime.__call__`."""
        return (self._chosen or self._reserve)(guide, lr, trust)

    def whole(self, make: GraphMaker, profiled: bool = False) -> Graph:
        """See :meth:`Runtime.whole`."""
        return _StartingGraph(self, make, profiled, self._reserve)

    def computes(self, runtime: Runtime) -> None:
        """Notes what computes a frame."""
        self.name, self.precision = runtime.name, runtime.precision
        self.problem = self._failed or runtime.problem
        self.starting = runtime is self._reserve and not self._failed

    def prepare(self, work: Callable[[Runtime], None]) -> bool:
        """Does something with the chosen runtime: in the thread, unless ``patient`` is set. Returns whether there is room.

        Python waits for the thread when it ends: to end around a compiler would crash it.
        """
        if self.patient:
            self._prepare(work)
            return True
        with self._waiting_lock:
            if len(self._waiting) >= _ROOM:
                return False
            self._waiting.append(work)
            if self.preparing:
                return True
            self.preparing = True
        threading.Thread(target=self._work).start()
        return True

    def _work(self) -> None:
        while True:
            with self._waiting_lock:
                if not self._waiting or not threading.main_thread().is_alive():
                    self.preparing = False
                    return
                work = self._waiting.popleft()
            self._prepare(work)

    def _prepare(self, work: Callable[[Runtime], None]) -> None:
        try:
            with self._lock:
                if self._failed:
                    return
                if self._chosen is None:
                    self._chosen = self._choose()
                work(self._chosen)
        except (ImportError, RuntimeError, ValueError) as error:
            cause = error.__cause__ or error
            self._failed = f"what is faster than {self._reserve.name} fails ({type(cause).__name__}: {cause})"
            warnings.warn(f"{self._failed}; {self._reserve.name} goes on", RuntimeWarning, stacklevel=2)


class _StartingGraph(Graph):
    """A graph by the reserve, until the chosen runtime has computed a frame of the sizes at hand."""

    def __init__(self, runtime: StartingRuntime, make: GraphMaker, profiled: bool, reserve: Runtime) -> None:
        self._runtime, self._make, self._profiled, self._reserve = runtime, make, profiled, reserve
        self._by_reserve: Graph | None = None
        self._by_chosen: tuple[Runtime, Graph] | None = None
        self._asked: set[Sizes] = set()
        self._ready: set[Sizes] = set()
        self._last: Graph | None = None

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        sizes = tuple(tuple(x.shape) for x in inputs)
        if sizes not in self._ready and (sizes not in self._asked or self._runtime.patient):
            # Copies: what a frame is read from may be overwritten by the next one.
            kept = [x.clone() for x in inputs]
            if self._runtime.prepare(lambda chosen: self._compute_first(chosen, sizes, kept)):
                self._asked.add(sizes)
        if sizes in self._ready and self._by_chosen is not None:
            runtime, self._last = self._by_chosen
        else:
            self._by_reserve = self._by_reserve or self._reserve.whole(self._make, self._profiled)
            runtime, self._last = self._reserve, self._by_reserve
        self._runtime.computes(runtime)
        return self._last(*inputs)

    def _compute_first(self, chosen: Runtime, sizes: Sizes, inputs: list[Tensor]) -> None:
        if sizes in self._ready:
            return
        if self._by_chosen is None:
            self._by_chosen = chosen, chosen.whole(self._make, self._profiled)
        self._by_chosen[1](*inputs)
        self._ready.add(sizes)

    def profile(self) -> dict[str, float]:
        return self._last.profile() if self._last else {}
