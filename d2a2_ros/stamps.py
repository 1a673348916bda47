"""What the stamps of one image topic tell, as they arrive: that they went back, and how many images are missing."""

from __future__ import annotations

from collections import deque

# A recording that starts again sends its first stamps again, and a driver may have been started before the clock was set back.
# One late image is not that; so many in so many seconds are, or a few over a while, where the rate is low.
_BACK_SECONDS, _BACK_IMAGES, _BACK_FEW, _BACK_WHILE, _BACK_WINDOW = 0.5, 10, 3, 0.3, 10.0
# Stamps farther ahead than this do not prove that the images after them are late.
_AHEAD_SECONDS = 5.0
_LOSS_WINDOW, _LOSS_IMAGES, _UNSTEADY_SHARE = 10.0, 20, 0.1
_PAUSE_SECONDS = 5.0
_REMEMBERED = 512  # arrivals, for the partner of an image that is late


class StampTrack:
    """The stamps of one topic. Times of arrival are monotonic seconds, stamps nanoseconds.

    Attributes:
        newest: Largest stamp since the last restart, None before the first.
        arrivals: (stamp, time of arrival) of the last images, the newest last.
        loss: Estimate of missing images.
    """

    def __init__(self) -> None:
        self.loss = Loss()
        self.arrivals: deque[tuple[int, float]] = deque(maxlen=_REMEMBERED)
        self.restart()

    def restart(self) -> None:
        """Forgets all stamps; the next one is the first."""
        self.newest: int | None = None
        self._late: deque[float] = deque(maxlen=_BACK_IMAGES)
        self.arrivals.clear()

    def add(self, stamp: int, now: float) -> bool:
        """Takes a stamp; returns whether it shows that stamps went back for good, and goes on from it then."""
        back = self._went_back(stamp, now)
        if back:
            self.restart()
        if self.newest is None or stamp > self.newest:
            self.newest = stamp
        self.arrivals.append((stamp, now))
        self.loss.add(stamp, now)
        return back

    def _went_back(self, stamp: int, now: float) -> bool:
        ahead = 0.0 if self.newest is None else (stamp - self.newest) * 1e-9
        if -_BACK_SECONDS <= ahead <= _AHEAD_SECONDS:
            self._late.clear()
        elif ahead < 0:
            self._late.append(now)
        while self._late and self._late[0] < now - _BACK_WINDOW:
            self._late.popleft()
        late = len(self._late)
        return late >= _BACK_IMAGES or (late >= _BACK_FEW and now - self._late[0] >= _BACK_WHILE)


class Loss:
    """Estimates how many images are missing, from gaps in the stamps of those that come.

    A gap is a whole multiple of the stream's own period. Where other steps are common, the camera has no steady rate and
    nothing can be told. A change of the rate or a pause is no loss.

    Attributes:
        missing: Images missing since the start.
    """

    def __init__(self) -> None:
        self.missing = 0
        self._last: int | None = None
        self._steps: deque[int] = deque(maxlen=16)
        self._seen: deque[tuple[float, int | None]] = deque(maxlen=1000)

    def add(self, stamp: int, now: float) -> None:
        """Takes the stamp in nanoseconds of an image that arrived ``now``, in seconds."""
        step = 0 if self._last is None else stamp - self._last
        self._last = stamp
        if not 0 < step < _PAUSE_SECONDS * 1e9:
            self._steps.clear()
            return
        missing = self._missing(step)
        self._steps.append(step)
        self.missing += missing or 0
        self._seen.append((now, missing))

    def recent(self, now: float) -> tuple[int, int]:
        """Returns how many images came and how many are missing of the last ten seconds; (0, 0) where that cannot be told."""
        recent = [missing for time, missing in self._seen if time > now - _LOSS_WINDOW]
        if len(recent) < _LOSS_IMAGES or recent.count(None) > _UNSTEADY_SHARE * len(recent):
            return 0, 0
        return len(recent), sum(missing or 0 for missing in recent)

    def _missing(self, step: int) -> int | None:
        """Images missing in a step between stamps; None if it is no whole number of periods."""
        if len(self._steps) < 8:
            return 0
        # Not the median: where half of the images are missing, most steps are longer than the period.
        period = sorted(self._steps)[len(self._steps) // 5]
        periods = round(step / period)
        return periods - 1 if periods and abs(step / period - periods) < 0.25 else None
