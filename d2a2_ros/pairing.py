"""Pairs colour and depth images by their stamps, and says why they do not pair."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from statistics import median
from typing import Any

import message_filters
import numpy as np

from d2a2_core.messages.clocks import clock_advice
from d2a2_core.messages.pair_reader import WORDS
from d2a2_core.stream import stamp_ns
from d2a2_ros.diagnostics import Problem
from d2a2_ros.stamps import StampTrack

_TOPICS = ("color", "depth")
_RECENT, _FEW = 5.0, 3  # seconds, and pairs lost in them, that make a topic late
_MISSING_SHARE = 0.25
_FROZEN = 10  # images with the same stamp that are no mere repetition
_COMPARED = 100  # stamps of each topic, for the nearest two


class Pairing:
    """message_filters' synchroniser, and what it does not tell.

    Not thread-safe, but for :meth:`restart`.

    Args:
        slop: Largest difference of the stamps of a pair, seconds.
        queue_size: Images of each topic that wait for their partner.
        on_restart: Called with the reason when stamps begin anew and pairs with later ones have been given out.
        clock: Monotonic seconds.

    Attributes:
        evicted: Images of each topic that left their queue without a partner.
    """

    def __init__(
        self,
        slop: float,
        queue_size: int,
        on_restart: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        # message_filters pairs what is nearer than the slop: with 0 not even equal stamps.
        self._slop, self._queue_size = max(slop, 1e-9), queue_size
        self._on_restart, self._clock = on_restart, clock
        self._inputs = {which: message_filters.SimpleFilter() for which in _TOPICS}
        self._sync = message_filters.ApproximateTimeSynchronizer(list(self._inputs.values()), queue_size, self._slop)
        self._found: list[tuple[Any, Any]] = []
        self._sync.registerCallback(lambda *pair: self._found.append(pair))
        self._tracks = {which: StampTrack() for which in _TOPICS}
        self._paired: int | None = None  # newest stamp of a pair
        self._lost: deque[tuple[float, str, float, int]] = deque(maxlen=1000)  # when, late topic, seconds, queue size
        self.evicted: Counter[str] = Counter()

    def add(self, which: str, msg: Any) -> tuple[Any, Any] | None:
        """Takes an image of the topic "color" or "depth"; returns the pair (colour, depth) that it completes."""
        stamp, now = stamp_ns(msg.header), self._clock()
        if self._tracks[which].add(stamp, now):
            self._step_back(which, stamp)
        queue = self._sync.queues[_TOPICS.index(which)]
        waiting = len(queue) + (stamp not in queue)
        # Outside of message_filters' lock, which an error would leave locked.
        self._found.clear()
        self._inputs[which].signalMessage(msg)
        pair = self._found[0] if self._found else None
        self.evicted[which] += waiting - len(queue) - len(self._found)
        if pair:
            self._paired = max(self._paired or 0, *(stamp_ns(image.header) for image in pair))
        else:
            self._note_late(which, stamp, now)
        return pair

    def restart(self) -> None:
        """Stamps begin anew: nothing that was kept from before may hold them up."""
        with self._sync.lock:
            for queue in self._sync.queues:
                queue.clear()
        for track in self._tracks.values():
            track.restart()
        self._paired = None
        self._lost.clear()

    def _step_back(self, which: str, stamp: int) -> None:
        """One topic's stamps went back. Its own later ones cannot pair any more, and fill the queue."""
        words = f"stamps of {WORDS[which]} images went back"
        if self._paired is not None and self._paired > stamp:
            self.restart()
            self._on_restart(words)
            return
        queue = self._sync.queues[_TOPICS.index(which)]
        with self._sync.lock:
            late = [other for other in queue if other > stamp]
            for other in late:
                del queue[other]
        self.evicted[which] += len(late)
        self._lost.clear()

    def _note_late(self, which: str, stamp: int, now: float) -> None:
        """Remembers an image whose partner was there, but left the queue before it came."""
        (other,) = (track for name, track in self._tracks.items() if name != which)
        for needed, (partner, arrival) in enumerate(reversed(other.arrivals), 1):
            if abs(partner - stamp) < self._slop * 1e9:
                if needed > self._queue_size:
                    self._lost.append((now, which, now - arrival, needed))
                return

    # -- what is wrong -------------------------------------------------------------------------------------------

    def late(self) -> Problem | None:
        """Says which topic comes so late that its partners have left the queue, and which queue would do."""
        recent = [entry for entry in self._lost if entry[0] > self._clock() - _RECENT]
        if len(recent) < _FEW:
            return None
        which = Counter(entry[1] for entry in recent).most_common(1)[0][0]
        mine = [entry for entry in recent if entry[1] == which]
        seconds, needed = median(entry[2] for entry in mine), max(entry[3] for entry in mine)
        first = WORDS["depth" if which == "color" else "color"]
        return Problem(
            f"late_{which}",
            f"{WORDS[which]} arrives {seconds:.1f} s after {first}: raise sync_queue_size to {needed} (it is "
            f"{self._queue_size}); {len(mine)} pairs were lost in the last {_RECENT:g} s",
        )

    def loss(self) -> Problem | None:
        """Says which topic misses more than a quarter of its images, by the gaps in its stamps."""
        for which, track in self._tracks.items():
            came, missing = track.loss.recent(self._clock())
            if missing > _MISSING_SHARE * (came + missing):
                return Problem(
                    f"{which}_lost",
                    f"of about {came + missing} {WORDS[which]} images {missing} did not arrive, as gaps in their stamps show",
                )
        return None

    def frozen(self) -> Problem | None:
        """Says which topic's stamps stand still: its driver does not set them."""
        for which, track in self._tracks.items():
            stamps = [stamp for stamp, _ in list(track.arrivals)[-_FROZEN:]]
            if len(stamps) == _FROZEN and len(set(stamps)) == 1:
                return Problem(
                    f"{which}_stamps",
                    f"the last {_FROZEN} {WORDS[which]} images have the same stamp, {stamps[0] * 1e-9:.3f} s: their driver does "
                    "not set it, and images are paired by their stamps",
                )
        return None

    def apart(self) -> str:
        """Says how far apart the stamps of the two topics are, and what to do about it; empty before both came."""
        color, depth = ([stamp for stamp, _ in self._tracks[which].arrivals] for which in _TOPICS)
        if not color or not depth:
            return ""
        nearest = int(np.abs(np.subtract.outer(color[-_COMPARED:], depth[-_COMPARED:])).min())
        return clock_advice(color[-1], depth[-1], nearest, "sync_slop")

    def figures(self) -> dict[str, str]:
        """Counters, as text for /diagnostics."""
        return {
            f"{WORDS[which]} images {what}": str(count)
            for which in _TOPICS
            for what, count in (
                ("without a partner", self.evicted[which]),
                ("missing, by their stamps", self._tracks[which].loss.missing),
            )
        }
