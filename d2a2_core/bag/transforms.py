"""Where the cameras of a bag are, by its transforms."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np

from d2a2_core.bag import messages as msgs
from d2a2_core.bag.connections import Connection
from d2a2_core.bag.source import BagSource
from d2a2_core.geometry import Extrinsics
from d2a2_core.geometry.transform_tree import TransformTree, plain_frame
from d2a2_core.messages.encodings import FrameError
from d2a2_core.stream import stamp_ns as header_stamp_ns

_LATE_NS = 10**9  # a transform is written at most so long after one with a later stamp
_TF = "tf2_msgs/msg/TFMessage"


class BagTransforms:
    """The transforms of a bag: those on /tf_static, and where these do not suffice the first ones on /tf.

    Args:
        source: The bag.
        note: Takes remarks for the user.
    """

    def __init__(self, source: BagSource, note: Callable[[str], None]) -> None:
        self._note = note
        self._tree, self._poses = TransformTree(), TransformTree()
        topics = [c for c in source.connections if c.msgtype == _TF]
        static = [c for c in topics if c.topic.endswith("tf_static")]
        self._known: set[str] = set()
        for stamped in _transforms(source, static):
            self._add(stamped)
            self._poses.add(stamped)
        # Read as far as they are needed: there may be millions.
        moving = [c for c in topics if c not in static]
        self._moving, self._later = _transforms(source, moving), _transforms(source, moving)

    def extrinsics(self, color_frame: str, depth_frame: str) -> Extrinsics | None:
        """From the depth to the colour camera; None where the bag does not say it."""
        found = self._tree.lookup(color_frame, depth_frame)
        if found is None:
            found = self._search(color_frame, depth_frame)
            if found is None:
                self._note(
                    f"neither /tf_static nor /tf says where '{depth_frame}' is in '{color_frame}'; --extrinsics or --calibration "
                    "can say it"
                )
                return None
            self._note(
                f"/tf says where '{depth_frame}' is in '{color_frame}': its first transforms count for the whole bag"
            )
        translation, quaternion = found
        return Extrinsics.from_quaternion(translation.tolist(), quaternion.tolist(), stated=False)

    def pose(self, fixed_frame: str, frame: str, stamp_ns: int) -> np.ndarray | None:
        """(4, 4) from a frame to a fixed one at a time, metres; None where the bag does not say it. Times may only grow."""
        found = self._poses.matrix(fixed_frame, frame, stamp_ns)
        while found is None and (stamped := next(self._later, None)) is not None:
            self._poses.add(stamped, moving=True)
            later = header_stamp_ns(stamped.header) - stamp_ns
            if later >= 0:
                found = self._poses.matrix(fixed_frame, frame, stamp_ns)
            if later > _LATE_NS:
                break
        return found

    def _search(self, color_frame: str, depth_frame: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Takes moving transforms until the two frames are joined."""
        for stamped in self._moving:
            if plain_frame(stamped.child_frame_id) in self._known:
                continue
            self._add(stamped)
            found = self._tree.lookup(color_frame, depth_frame)
            if found is not None:
                return found
        return None

    def _add(self, stamped: Any) -> None:
        self._tree.add(stamped)
        self._known.add(plain_frame(stamped.child_frame_id))


def _transforms(source: BagSource, connections: list[Connection]) -> Iterator[Any]:
    """Every geometry_msgs/TransformStamped on topics, in order of bag time; damaged messages are left out."""
    for connection, _, raw in source.messages(source.positions(connections)):
        with suppress(FrameError):
            yield from msgs.deserialize(raw, connection.msgtype).transforms
