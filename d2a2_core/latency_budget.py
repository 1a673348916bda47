"""Which level of quality keeps the latency of a stream below a budget: the pure logic, fed with latencies.

Levels form a ladder, the best and slowest first. Three late frames, and more than 5 % of the recent ones, lead one level down.
The way up is slower: the latency expected of the better level must be well below the budget, and each attempt that fails doubles
the wait before the next one, so the level does not oscillate.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

WINDOW = 100  # recent frames that count
_LATE = 3  # late frames it takes to go down: one or two may be anybody's fault
_LATE_SHARE = 0.05  # p95
_CALM_SHARE = 0.02  # of late frames, above which no attempt to go up is made
_SETTLE = 2  # frames after a step that do not count: they waited while networks were changed
_ENOUGH = 10  # frames from which the p95 of a level is taken
_ROOM = 0.8  # of the budget, that the better level is expected to need at most
_WAIT_S = 10.0  # seconds at a level before an attempt to go up
_TRIAL_S = 60.0  # seconds after which an attempt has succeeded
_MAX_FAILURES = 5  # doublings of the wait: 320 s
_FORGET = 0.8  # an expectation that forbids the way up fades by this in each wait: what made it may be over


@dataclass(frozen=True)
class Level:
    """A compromise between quality and time.

    Attributes:
        weights: Name or path of the weights.
        sigma: Whether the uncertainty is computed.
        stride: The cloud takes every n-th row and column of those that it would have otherwise.
        halved: Whether the colour image is halved along each axis, and the outputs with it.
    """

    weights: str
    sigma: bool = True
    stride: int = 1
    halved: bool = False

    def __str__(self) -> str:
        parts = [self.weights]
        if not self.sigma:
            parts.append("no sigma")
        if self.stride > 1:
            parts.append(f"cloud stride x{self.stride}")
        if self.halved:
            parts.append("half the colour resolution")
        return ", ".join(parts)


def ladder(weights: Sequence[str]) -> tuple[Level, ...]:
    """The levels for weights, the most accurate first: weights, then sigma and cloud, at last the resolution."""
    last = weights[-1]
    cheaper = (Level(last, False, 2), Level(last, False, 4), Level(last, False, 4, True))
    return (*(Level(name) for name in weights), *cheaper)


class LatencyBudget:
    """Follows the latency of a stream and says which level to take. Not thread-safe.

    Args:
        costs: Cost of each level, the best first, in any unit: what is expected of levels that were never measured.
        start: Level to start at.

    Attributes:
        level: Number of the level to take, 0 is the best.
        reason: Why it is this one, for people.
        exceeded: Whether even the last level is too slow.
    """

    def __init__(self, costs: Sequence[float], start: int = 0) -> None:
        if not costs or min(costs) <= 0 or not 0 <= start < len(costs):
            raise ValueError(f"expected positive costs and one of them to start at, got {list(costs)} and {start}")
        self.level, self.exceeded, self.reason = start, False, "start"
        # Latency of each level by that of the next one.
        self._prior = [max(better / worse, 1.0) for better, worse in pairwise(costs)]
        self._ratios = list(self._prior)
        self._failures = [0] * len(costs)
        self._recent: deque[float] = deque(maxlen=WINDOW)
        self._skip = _SETTLE
        self._since, self._waited_from, self._attempt = -np.inf, -np.inf, False
        self._left: tuple[int, float] | None = None

    @property
    def p95(self) -> float:
        """95th percentile of the recent latencies of this level, seconds; NaN before the first."""
        return float(np.percentile(self._recent, 95)) if self._recent else float("nan")

    def update(self, now: float, latency: float, budget: float) -> bool:
        """Takes a frame into account.

        Args:
            now: Seconds of any clock that does not go back.
            latency: Of the frame, seconds. One that is not finite counts as late.
            budget: Seconds, above 0.

        Returns:
            Whether the level changed.
        """
        if not np.isfinite(self._since):
            self._since = self._waited_from = now
        if self._skip:
            self._skip -= 1
            return False
        self._recent.append(latency if np.isfinite(latency) else 1e9)
        if self._attempt and now - self._since > _TRIAL_S:
            self._attempt, self._failures[self.level] = False, 0
        self._learn()
        late = sum(sample > budget for sample in self._recent)
        too_slow = late >= _LATE and late > _LATE_SHARE * len(self._recent)
        last = self.level == len(self._ratios)
        self.exceeded = last and (too_slow or (self.exceeded and late > _CALM_SHARE * len(self._recent)))
        if too_slow and not last:
            return self._down(now, budget)
        calm = late <= _CALM_SHARE * len(self._recent)
        return self.level > 0 and calm and self._try_up(now, budget)

    def _learn(self) -> None:
        """Compares two neighbouring levels, once the newer one is known."""
        if self._left is None or len(self._recent) < _ENOUGH:
            return
        (other, before), self._left = self._left, None
        better, worse = (before, self.p95) if other < self.level else (self.p95, before)
        boundary = min(other, self.level)
        # A load that came or went in between must not make the better level look worse than it can be.
        self._ratios[boundary] = float(np.clip(better / max(worse, 1e-6), 1.0, self._prior[boundary]))

    def _down(self, now: float, budget: float) -> bool:
        if self._attempt:
            self._failures[self.level] = min(self._failures[self.level] + 1, _MAX_FAILURES)
        self._attempt = False
        self._step(now, +1, f"p95 {1000 * self.p95:.0f} ms is over the budget of {1000 * budget:.0f} ms")
        return True

    def _try_up(self, now: float, budget: float) -> bool:
        better = self.level - 1
        wait = _WAIT_S * 2 ** self._failures[better]
        if len(self._recent) < _ENOUGH or now - self._waited_from < wait:
            return False
        expected = self.p95 * self._ratios[better]
        if expected > _ROOM * budget:
            self._ratios[better], self._waited_from = max(1.0, _FORGET * self._ratios[better]), now
            return False
        self._attempt = True
        self._step(now, -1, f"{1000 * expected:.0f} ms are expected, of a budget of {1000 * budget:.0f} ms")
        return True

    def _step(self, now: float, by: int, reason: str) -> None:
        self._left = (self.level, self.p95) if len(self._recent) >= _LATE else None
        self.level += by
        self.reason, self._since, self._waited_from = reason, now, now
        self._recent.clear()
        self._skip = _SETTLE
