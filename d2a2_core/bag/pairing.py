"""Pairs of colour and depth images by approximate stamps, as message_filters.ApproximateTimeSynchronizer finds them."""

from __future__ import annotations

from typing import Any


class ApproximatePairs:
    """Puts an image together with the nearest kept one of the other camera, greedily, in order of arrival.

    The rule is that of ROS 2's message_filters (Python, Jazzy) with two inputs and headers: an arriving image is kept;
    beyond ``queue_size`` the earliest stamp is dropped; of the other camera's kept images within the slop the nearest
    makes the pair, the earlier arrival if two are as near; an image with the stamp of a kept one replaces it.

    Attributes:
        nearest_ns: smallest difference of two stamps met so far, to tell a user why there are no pairs.
    """

    def __init__(self, slop_s: float, queue_size: int) -> None:
        self.slop_ns = max(int(slop_s * 1_000_000_000), 1)  # as rclpy's Duration rounds; equal stamps are always a pair
        self.queue_size = queue_size
        self.nearest_ns: int | None = None
        self._queues: tuple[dict[int, Any], dict[int, Any]] = ({}, {})

    def add(self, which: int, stamp_ns: int, item: Any) -> tuple[Any, Any] | None:
        """Takes image ``item`` of input 0 or 1; returns the pair (input 0's, input 1's) that it completes, or None."""
        mine, other = self._queues[which], self._queues[1 - which]
        mine[stamp_ns] = item
        while len(mine) > self.queue_size:
            del mine[min(mine)]
        if stamp_ns not in mine or not other:  # the queue was full of later ones
            return None
        match = min(other, key=lambda s: abs(s - stamp_ns))  # min is stable: the earlier arrival of two as near
        distance = abs(match - stamp_ns)
        self.nearest_ns = distance if self.nearest_ns is None else min(self.nearest_ns, distance)
        if distance >= self.slop_ns:
            return None
        pair = mine.pop(stamp_ns), other.pop(match)
        return pair if which == 0 else pair[::-1]
