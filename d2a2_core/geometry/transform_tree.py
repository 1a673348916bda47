"""Where one frame is in another, through the tree that /tf and /tf_static make."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

MAX_FRAMES = 10_000
MAX_NAME = 256
KEEP_S = 10.0  # seconds of a moving frame's past, by stamps
MAX_SAMPLES = 100_000  # of the past, of all frames together
_MAX_METRES = 1e9


@dataclass
class _Edge:
    """Where a frame is in its parent: the newest transform and, of one that moves, those before, (stamp in ns, 4x4)."""

    parent: str
    matrix: np.ndarray
    past: deque[tuple[int, np.ndarray]] = field(default_factory=deque)


class TransformTree:
    """A tree of transforms; the latest one of a child frame counts, or of one that moves those of a given time.

    One thread may add while another looks up. Whatever is added, memory and time are bounded: at most :data:`MAX_FRAMES` frames
    with names of at most :data:`MAX_NAME` characters are kept, and at most :data:`MAX_SAMPLES` transforms of the past.
    """

    def __init__(self) -> None:
        # By the child; they map its points to the parent.
        self._edges: dict[str, _Edge] = {}
        self._samples = 0

    def __len__(self) -> int:
        return len(self._edges)

    def add(self, stamped: Any, moving: bool = False) -> bool:
        """Takes a geometry_msgs/TransformStamped; returns whether it could be used.

        One that is no rigid transform, joins a frame to itself, or is one frame too many is left out. ``moving``: it counts for
        its stamp alone, and those of the last seconds are kept (:data:`KEEP_S`).
        """
        t, q = stamped.transform.translation, stamped.transform.rotation
        translation, quaternion = (float(t.x), float(t.y), float(t.z)), tuple(float(v) for v in (q.x, q.y, q.z, q.w))
        # A NaN is not below anything.
        if not all(abs(v) < _MAX_METRES for v in translation) or not 1e-6 < math.hypot(*quaternion) < _MAX_METRES:
            return False
        child, parent = plain_frame(stamped.child_frame_id), plain_frame(stamped.header.frame_id)
        if child == parent or not 0 < len(child) <= MAX_NAME or not 0 < len(parent) <= MAX_NAME:
            return False
        if len(self._edges) >= MAX_FRAMES and child not in self._edges:
            return False
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = Rotation.from_quat(quaternion).as_matrix(), translation
        before = self._edges.get(child)
        edge = _Edge(parent, matrix)
        if before is not None:
            self._samples -= len(before.past)
        if moving:
            edge.past = self._past(
                before, parent, int(stamped.header.stamp.sec) * 10**9 + int(stamped.header.stamp.nanosec), matrix
            )
            self._samples += len(edge.past)
        # In one step: another thread may be looking up.
        self._edges[child] = edge
        return True

    def _past(self, before: _Edge | None, parent: str, stamp: int, matrix: np.ndarray) -> deque[tuple[int, np.ndarray]]:
        """What is kept of a frame's past, with a new transform."""
        past = before.past.copy() if before is not None and before.parent == parent else deque()
        # A stamp far back begins anew, as of a recording that is played again; a little back it is late, or there twice.
        if past and past[-1][0] - stamp > KEEP_S * 1e9:
            past.clear()
        if past and stamp <= past[-1][0]:
            return past
        past.append((stamp, matrix))
        while past[-1][0] - past[0][0] > KEEP_S * 1e9 or (len(past) > 1 and self._samples + len(past) > MAX_SAMPLES):
            past.popleft()
        return past

    def lookup(self, target: str, source: str, stamp_ns: int | None = None) -> tuple[np.ndarray, np.ndarray] | None:
        """:meth:`matrix` as translation (3,) in metres and quaternion (4,) x y z w."""
        matrix = self.matrix(target, source, stamp_ns)
        return None if matrix is None else (matrix[:3, 3], Rotation.from_matrix(matrix[:3, :3]).as_quat())

    def matrix(self, target: str, source: str, stamp_ns: int | None = None) -> np.ndarray | None:
        """What maps points in ``source`` to ``target``, (4, 4) metres: now, or at a time, in ns.

        For a time, what moves is interpolated between the transforms before and after. None where no chain joins the two, or one
        of its transforms is not known for that time (yet).
        """
        from_source = self._ancestors(plain_frame(source), stamp_ns)
        from_target = self._ancestors(plain_frame(target), stamp_ns)
        common = next((frame for frame in from_source if frame in from_target), None)
        return None if common is None else np.linalg.inv(from_target[common]) @ from_source[common]

    def _ancestors(self, frame: str, stamp_ns: int | None) -> dict[str, np.ndarray]:
        """The frame itself and all above it, nearest first, each with the 4x4 matrix that maps the frame's points to it."""
        matrix = np.eye(4)
        found = {frame: matrix}
        while (edge := self._edges.get(frame)) is not None:
            frame = edge.parent
            step = edge.matrix if stamp_ns is None or not edge.past else _at(edge.past, stamp_ns)
            # Transforms may join in a circle.
            if frame in found or step is None:
                break
            matrix = step @ matrix
            found[frame] = matrix
        return found


def _at(past: deque[tuple[int, np.ndarray]], stamp_ns: int) -> np.ndarray | None:
    """The transform at a time, between the two around it; None before the first and after the last one."""
    stamps = [stamp for stamp, _ in past]
    after = bisect_left(stamps, stamp_ns)
    if after == len(past) or stamp_ns < stamps[0]:
        return None
    if stamps[after] == stamp_ns:
        return past[after][1]
    (start, first), (end, second) = past[after - 1], past[after]
    share = (stamp_ns - start) / (end - start)
    between = np.eye(4)
    between[:3, 3] = first[:3, 3] + share * (second[:3, 3] - first[:3, 3])
    turns = Rotation.from_matrix(np.stack((first[:3, :3], second[:3, :3])))
    between[:3, :3] = Slerp([0.0, 1.0], turns)(share).as_matrix()
    return between


def plain_frame(frame_id: str) -> str:
    """The frame_id without the leading slash that ROS 1 allowed: "/color" and "color" are one frame."""
    return frame_id.lstrip("/")
