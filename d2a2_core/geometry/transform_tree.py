"""Where one frame is in another, through the tree that /tf and /tf_static make."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation


class TransformTree:
    """A tree of transforms; the latest one of a child frame counts."""

    def __init__(self) -> None:
        self._edges: dict[str, tuple[str, np.ndarray]] = {}  # child: (parent, 4x4 that maps the child's points to it)

    def __len__(self) -> int:
        return len(self._edges)

    def add(self, stamped: Any) -> None:
        """Takes a geometry_msgs/TransformStamped; one that is no rigid transform is left out."""
        t, q = stamped.transform.translation, stamped.transform.rotation
        translation, quaternion = np.array([t.x, t.y, t.z], float), np.array([q.x, q.y, q.z, q.w], float)
        if not (np.isfinite(translation).all() and 1e-6 < np.linalg.norm(quaternion) < np.inf):
            return
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = Rotation.from_quat(quaternion).as_matrix(), translation
        self._edges[plain_frame(stamped.child_frame_id)] = plain_frame(stamped.header.frame_id), matrix

    def lookup(self, target: str, source: str) -> tuple[np.ndarray, np.ndarray] | None:
        """What maps points in ``source`` to ``target``: translation (3,) in metres and quaternion (4,) x y z w.

        None where no chain of transforms joins the two.
        """
        target, source = plain_frame(target), plain_frame(source)
        neighbours: dict[str, list[tuple[str, np.ndarray]]] = {}
        for child, (parent, matrix) in self._edges.items():
            neighbours.setdefault(child, []).append((parent, matrix))
            neighbours.setdefault(parent, []).append((child, np.linalg.inv(matrix)))
        found, queue = {source: np.eye(4)}, deque([source])
        while queue and target not in found:
            frame = queue.popleft()
            for other, matrix in neighbours.get(frame, ()):
                if other not in found:
                    found[other] = matrix @ found[frame]
                    queue.append(other)
        if target not in found:
            return None
        return found[target][:3, 3], Rotation.from_matrix(found[target][:3, :3]).as_quat()


def plain_frame(frame_id: str) -> str:
    """The frame_id without the leading slash that ROS 1 allowed: "/color" and "color" are one frame."""
    return frame_id.lstrip("/")
