"""Pairs messages of several topics by time: a stand-in for ROS 2's message_filters (Python API of Jazzy).

Written from the documented behaviour: https://docs.ros.org/en/jazzy/p/message_filters/. Stamps are integer nanoseconds
inside. Callbacks run under the synchroniser's lock, as in the real package, so sets arrive one at a time and a callback
must not feed the same synchroniser; unlike there, the lock is released when a callback raises.
"""

import itertools
import threading
from collections.abc import Callable, Sequence
from typing import Any

from rclpy.clock import ROSClock
from rclpy.duration import Duration
from rclpy.logging import get_logger
from rclpy.time import Time

IS_STAND_IN = True

__all__ = ["ApproximateTimeSynchronizer", "Cache", "SimpleFilter", "Subscriber", "TimeSynchronizer"]


def _stamp_ns(stamp: Any) -> int:
    """Nanoseconds of an rclpy Time or a builtin_interfaces Time message."""
    if hasattr(stamp, "nanoseconds"):
        return stamp.nanoseconds
    return stamp.sec * 1_000_000_000 + stamp.nanosec


def _has_stamp(msg: Any) -> bool:
    return hasattr(msg, "header") and hasattr(msg.header, "stamp")


def _warn_headerless(logger_name: str, msg: Any) -> None:
    get_logger(logger_name).warning(
        f"dropped a {type(msg).__name__}: it has no header.stamp to go by. "
        "Pass allow_headerless=True to use the ROS time of arrival instead."
    )


class SimpleFilter:
    """Calls the registered callbacks with what the filter puts out; the base class of all filters."""

    def __init__(self) -> None:
        self.callbacks: dict[int, tuple[Callable, tuple]] = {}

    def registerCallback(self, cb: Callable, *args: Any) -> int:
        """Have `cb(*messages, *args)` called for each output; returns the number of the connection."""
        connection = len(self.callbacks)
        self.callbacks[connection] = (cb, args)
        return connection

    def signalMessage(self, *msg: Any) -> None:
        """Put out `msg` (one message, or one per input of a synchroniser), in order of registration."""
        # A copy: a callback may register another one.
        for cb, args in list(self.callbacks.values()):
            cb(*msg, *args)


class Subscriber(SimpleFilter):
    """A subscription as a filter.

    Arguments are those of `Node.create_subscription` without the callback. As in the real package all but the first
    three must be given by keyword (`qos_profile`, `callback_group`, `event_callbacks`, `qos_overriding_options`, `raw`,
    ...); `qos_profile` is 10 by default. Unknown attributes are looked up on the rclpy subscription, `sub`.
    """

    def __init__(self, node: Any, msg_type: Any, topic: str, **kwargs: Any) -> None:
        super().__init__()
        self.node = node
        self.topic = topic
        kwargs.setdefault("qos_profile", 10)
        self.sub = node.create_subscription(msg_type, topic, self.callback, **kwargs)

    def callback(self, msg: Any) -> None:
        """Receive a message from the subscription."""
        self.signalMessage(msg)

    def getTopic(self) -> str:
        """Topic name as given, before namespace and remapping."""
        return self.topic

    def __getattr__(self, key: str) -> Any:
        # Reached only for names that are not our own. `sub` itself is missing while the subscription is being made.
        if key == "sub":
            raise AttributeError(key)
        return getattr(self.sub, key)


class Cache(SimpleFilter):
    """Keeps the last `cache_size` messages of filter `f`, in order of arrival, and passes every message on.

    Times are rclpy `Time`. A message without a stamp is dropped, or kept under the ROS time with `allow_headerless`.
    """

    def __init__(self, f: SimpleFilter, cache_size: int = 1, allow_headerless: bool = False) -> None:
        super().__init__()
        self.cache_size = cache_size
        self.cache_msgs: list = []
        self.cache_times: list[Time] = []
        self.allow_headerless = allow_headerless
        self.connectInput(f)

    def connectInput(self, f: SimpleFilter) -> None:
        """Take messages from filter `f`."""
        self.incoming_connection = f.registerCallback(self.add)

    def add(self, msg: Any) -> None:
        """Keep `msg`, drop the earliest arrival when full, and pass `msg` on."""
        if _has_stamp(msg):
            stamp = msg.header.stamp
            if not hasattr(stamp, "nanoseconds"):
                stamp = Time.from_msg(stamp)
        elif self.allow_headerless:
            stamp = ROSClock().now()
        else:
            _warn_headerless("message_filters_cache", msg)
            return
        self.cache_times.append(stamp)
        self.cache_msgs.append(msg)
        if len(self.cache_msgs) > self.cache_size:
            del self.cache_msgs[0], self.cache_times[0]
        self.signalMessage(msg)

    def _entries(self) -> list[tuple[Any, Time]]:
        return list(zip(self.cache_msgs, self.cache_times, strict=True))

    def getInterval(self, from_stamp: Time, to_stamp: Time) -> list:
        """Messages with from_stamp <= stamp <= to_stamp."""
        assert from_stamp <= to_stamp, f"expected from_stamp <= to_stamp, got {from_stamp} and {to_stamp}"
        return [msg for msg, time in self._entries() if from_stamp <= time <= to_stamp]

    def getElemAfterTime(self, stamp: Time) -> Any:
        """First arrival with a stamp not before `stamp`; None if there is none."""
        return next((msg for msg, time in self._entries() if time >= stamp), None)

    def getElemBeforeTime(self, stamp: Time) -> Any:
        """Last arrival with a stamp not after `stamp`; None if there is none."""
        return next((msg for msg, time in reversed(self._entries()) if time <= stamp), None)

    def getLastestTime(self) -> Time | None:
        """Stamp of the last arrival (the real package's spelling); None if empty."""
        return self.cache_times[-1] if self.cache_times else None

    def getOldestTime(self) -> Time | None:
        """Stamp of the earliest arrival kept; None if empty."""
        return self.cache_times[0] if self.cache_times else None

    def getLast(self) -> Any:
        """First arrival with a stamp not before that of the last arrival; None if empty."""
        return self.getElemAfterTime(self.cache_times[-1]) if self.cache_times else None


class TimeSynchronizer(SimpleFilter):
    """Puts out sets of messages, one from each filter of `fs`, whose stamps are equal.

    Each input keeps at most `queue_size` messages: those with the latest stamps. A message with the stamp of one kept
    replaces it. Sets that become complete at once are put out in order of time.
    """

    def __init__(self, fs: Sequence[SimpleFilter], queue_size: int) -> None:
        super().__init__()
        self.queue_size = queue_size
        self.lock = threading.Lock()
        self.connectInput(fs)

    def connectInput(self, fs: Sequence[SimpleFilter]) -> None:
        """Take messages from the filters `fs`, with empty queues."""
        # One {stamp in ns: message} per input, in order of arrival.
        self.queues: list[dict[int, Any]] = [{} for _ in fs]
        self.input_connections = [
            f.registerCallback(self.add, queue, index)
            for index, (f, queue) in enumerate(zip(fs, self.queues, strict=True))
        ]

    def add(self, msg: Any, my_queue: dict[int, Any], my_queue_index: int | None = None) -> None:
        """Take `msg` into `my_queue`, one of `queues`, and put out every set this completes."""
        with self.lock:
            self._keep(my_queue, _stamp_ns(msg.header.stamp), msg)
            for stamp in sorted(set.intersection(*map(set, self.queues))):
                self._emit([stamp] * len(self.queues))

    def _keep(self, queue: dict[int, Any], stamp: int, msg: Any) -> None:
        queue[stamp] = msg
        while len(queue) > self.queue_size:
            del queue[min(queue)]

    def _emit(self, stamps: Sequence[int]) -> None:
        """Put out the set with one stamp per queue. Taken out first: a callback that raises sees a set only once."""
        self.signalMessage(*[queue.pop(stamp) for queue, stamp in zip(self.queues, stamps, strict=True)])


class ApproximateTimeSynchronizer(TimeSynchronizer):
    """Puts out sets of messages, one from each filter of `fs`, whose stamps span less than `slop` seconds.

    Greedy: each arriving message is at once put together with the kept messages nearest to it in time, if that gives a
    set; it completes at most one set. A message without a stamp is dropped, or with `allow_headerless` goes by the ROS
    time of its arrival; with `sync_arrival_time` every message does.
    """

    def __init__(
        self,
        fs: Sequence[SimpleFilter],
        queue_size: int,
        slop: float,
        allow_headerless: bool = False,
        sync_arrival_time: bool = False,
    ) -> None:
        self.slop = Duration(seconds=slop)
        self.allow_headerless = allow_headerless
        self.sync_arrival_time = sync_arrival_time
        super().__init__(fs, queue_size)

    def add(self, msg: Any, my_queue: dict[int, Any], my_queue_index: int | None = None) -> None:
        """Take `msg` into `my_queue`, which is `queues[my_queue_index]`, and put out the set it completes, if any."""
        has_stamp = _has_stamp(msg)
        if not has_stamp and not self.allow_headerless:
            _warn_headerless("message_filters_approx", msg)
            return
        if has_stamp and not self.sync_arrival_time:
            stamp = _stamp_ns(msg.header.stamp)
        else:
            stamp = ROSClock().now().nanoseconds
        with self.lock:
            self._keep(my_queue, stamp, msg)
            chosen = self._nearest_set(stamp, my_queue_index)
            if chosen is not None:
                self._emit(chosen)

    def _nearest_set(self, stamp: int, my_queue_index: int | None) -> Sequence[int] | None:
        """One stamp per queue, within the slop of each other and with `stamp` from `my_queue_index`; None if none."""
        slop = self.slop.nanoseconds
        candidates = []
        for index, queue in enumerate(self.queues):
            if index == my_queue_index:
                # The new message is gone again if the queue was full of later ones.
                near = [stamp] if stamp in queue else []
            else:
                # Sorted is stable: of two equally near messages the earlier arrival comes first.
                near = sorted((s for s in queue if abs(s - stamp) <= slop), key=lambda s: abs(s - stamp))
            if not near:
                return None
            candidates.append(near)
        return next((s for s in itertools.product(*candidates) if max(s) - min(s) < slop), None)
