"""Where one frame is in another, through the tree that /tf and /tf_static make."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

MAX_FRAMES = 10_000
MAX_NAME = 256
_MAX_METRES = 1e9


class TransformTree:
    """A tree of transforms; the latest one of a child frame counts.

    One thread may add while another looks up. Whatever is added, memory and time are bounded: at most :data:`MAX_FRAMES` frames
    with names of at most :data:`MAX_NAME` characters are kept.
    """

    def __init__(self) -> None:
        # child: (parent, translation, quaternion), which map the child's points to the parent
        self._edges: dict[str, tuple[str, tuple[float, ...], tuple[float, ...]]] = {}

    def __len__(self) -> int:
        return len(self._edges)

    def add(self, stamped: Any) -> bool:
        """Takes a geometry_msgs/TransformStamped; returns whether it could be used.

        One that is no rigid transform, joins a frame to itself, or is one frame too many is left out.
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
        self._edges[child] = parent, translation, quaternion
        return True

    def lookup(self, target: str, source: str) -> tuple[np.ndarray, np.ndarray] | None:
        """What maps points in ``source`` to ``target``: translation (3,) in metres and quaternion (4,) x y z w.

        None where no chain of transforms joins the two.
        """
        from_source, from_target = self._ancestors(plain_frame(source)), self._ancestors(plain_frame(target))
        common = next((frame for frame in from_source if frame in from_target), None)
        if common is None:
            return None
        matrix = np.linalg.inv(from_target[common]) @ from_source[common]
        return matrix[:3, 3], Rotation.from_matrix(matrix[:3, :3]).as_quat()

    def _ancestors(self, frame: str) -> dict[str, np.ndarray]:
        """The frame itself and all above it, nearest first, each with the 4x4 matrix that maps the frame's points to it."""
        matrix = np.eye(4)
        found = {frame: matrix}
        while (edge := self._edges.get(frame)) is not None:
            frame, translation, quaternion = edge
            # Transforms may join in a circle.
            if frame in found:
                break
            step = np.eye(4)
            step[:3, :3], step[:3, 3] = Rotation.from_quat(quaternion).as_matrix(), translation
            matrix = step @ matrix
            found[frame] = matrix
        return found


def plain_frame(frame_id: str) -> str:
    """The frame_id without the leading slash that ROS 1 allowed: "/color" and "color" are one frame."""
    return frame_id.lstrip("/")
