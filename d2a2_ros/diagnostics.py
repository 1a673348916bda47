"""What the node counts, and how it tells: /diagnostics and throttled log messages."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.impl.rcutils_logger import RcutilsLogger
from rclpy.time import Time

from d2a2_core.geometry.offset_corrector import OffsetCorrector

_RATE_SECONDS = 10.0  # back to which results count for the rate
# What comes in a message may be of any length, and of any number of kinds.
_MAX_TEXT, _MAX_CAUSE, _MAX_CAUSES = 1000, 200, 100


def shorten(text: str, length: int = _MAX_TEXT) -> str:
    """The text, or its beginning where it is longer than ``length`` characters."""
    return text if len(text) <= length else f"{text[:length]}... ({len(text)} characters)"


@dataclass(frozen=True)
class Problem:
    """What is wrong: a stable code for programs, and a message for people."""

    code: str
    message: str


class Reporter:
    """Reports each cause at once, and again at most every ``period`` seconds, with the number of times in between.

    Of more than a hundred causes within a period the others are only counted: hostile messages must not flood the log.
    """

    def __init__(
        self, logger: RcutilsLogger, period: float = 30.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._logger, self._period, self._clock = logger, period, clock
        self._last: dict[str, float] = {}
        self._held_back: Counter[str] = Counter()
        self._lock = threading.Lock()

    def report(self, cause: str, message: str) -> None:
        """Logs ``message`` as a warning, unless the same cause was reported within the period."""
        cause = shorten(cause, _MAX_CAUSE)
        with self._lock:
            now = self._clock()
            if now - self._last.get(cause, -np.inf) < self._period:
                self._held_back[cause] += 1
                return
            if cause not in self._last and len(self._last) >= _MAX_CAUSES and not self._forget(now):
                return
            self._last[cause] = now
            again = self._held_back.pop(cause, 0)
        self._logger.warning(shorten(message) + (f" ({again} more since the last report)" if again else ""))

    def _forget(self, now: float) -> bool:
        """Forgets causes that were last reported before the period began; returns whether there were any."""
        old = [cause for cause, time in self._last.items() if now - time >= self._period]
        for cause in old:
            del self._last[cause]
            self._held_back.pop(cause, None)
        return bool(old)


class Statistics:
    """Counters and recent timings of the node; safe to use from all its threads."""

    #: what is counted: key -> text on /diagnostics
    COUNTERS: ClassVar = {
        "color": "colour images received",
        "depth": "depth images received",
        "pairs": "pairs received",
        "unwanted": "pairs ignored (no subscriber)",
        "replaced": "pairs replaced by a newer one",
        "stale": "pairs dropped (stamp went back)",
        "unusable": "pairs not usable",
        "rejected": "messages not usable",
        "errors": "unforeseen errors",
        "published": "pairs published",
    }

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._seconds: deque[float] = deque(maxlen=100)
        self._latency: deque[float] = deque(maxlen=100)
        self._finished: deque[float] = deque(maxlen=30)
        self.fault: Problem | None = None

    def count(self, what: str) -> None:
        """Adds one to a counter of :attr:`COUNTERS`."""
        with self._lock:
            self._counts[what] += 1

    def published(self, seconds: float, latency: float) -> None:
        """Notes a published pair: how long it was computed, and how old its stamp was then (both seconds)."""
        with self._lock:
            self._counts["published"] += 1
            self._seconds.append(seconds)
            self._latency.append(latency)
            self._finished.append(time.monotonic())
            self.fault = None

    def __getitem__(self, what: str) -> int:
        with self._lock:
            return self._counts[what]

    def values(self) -> dict[str, str]:
        """Everything, as text for /diagnostics."""
        with self._lock:
            out = {text: str(self._counts[key]) for key, text in self.COUNTERS.items()}
            if len(self._finished) > 1:
                recent = [t for t in self._finished if t > time.monotonic() - _RATE_SECONDS]
                spans = recent[-1] - recent[0] if recent else 0.0
                out["rate [Hz]"] = f"{(len(recent) - 1) / spans if spans > 0 else 0.0:.2f}"
            for name, samples in (("computing", self._seconds), ("latency", self._latency)):
                if samples:
                    median, high = np.percentile(samples, (50, 95))
                    out[f"{name} median [ms]"], out[f"{name} p95 [ms]"] = f"{1000 * median:.1f}", f"{1000 * high:.1f}"
            return out


def drift_report(offsets: OffsetCorrector, threshold_px: float) -> tuple[Problem | None, dict[str, str]]:
    """Returns what is wrong with the offset between depth and colour edges, if anything, and its figures.

    Low confidence means that nothing is known, not that all is well. A threshold of 0 does not look.
    """
    offset, drifted = offsets.look(threshold_px) if threshold_px else (None, False)
    if offset is None:
        return None, {}
    figures = {
        "edge offset [px]": f"{offset.dx:+.1f} {offset.dy:+.1f}",
        "edge offset confidence": f"{offset.confidence:.2f}",
    }
    if not drifted:
        return None, figures
    message = (
        f"depth edges are {offset.magnitude:.1f} px off the colour edges (right {offset.dx:+.1f}, down {offset.dy:+.1f}): the "
        "extrinsics or intrinsics have drifted; calibrate the cameras again, or set correct_offset"
    )
    return Problem("drift", message), figures


def diagnostic_array(
    name: str, stamp: Time, statistics: Statistics, state: dict[str, str], problem: Problem | None
) -> DiagnosticArray:
    """The node's state as one DiagnosticStatus: OK, or WARN with the problem's message; its code is the value "problem"."""
    values = state | {"problem": problem.code if problem else ""} | statistics.values()
    status = DiagnosticStatus(
        level=DiagnosticStatus.WARN if problem else DiagnosticStatus.OK,
        name=f"{name}: depth upsampling",
        message=shorten(problem.message) if problem else "ok",
        hardware_id=state.get("device", ""),
        values=[KeyValue(key=k, value=shorten(v)) for k, v in values.items()],
    )
    array = DiagnosticArray(status=[status])
    array.header.stamp = stamp.to_msg()
    return array
