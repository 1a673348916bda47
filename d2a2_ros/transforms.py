"""Where the depth camera is, seen from the colour camera: from a parameter, or from TF."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.time import Time

from d2a2_core.geometry import Extrinsics
from d2a2_core.geometry.transform_tree import TransformTree

Found = tuple[Sequence[float], Sequence[float]]
"""Translation x y z in metres, and quaternion x y z w."""
Lookup = Callable[[str, str, int | None], Found | None]
"""From (target frame, source frame, stamp in ns or None for now) to what maps points in the source to the target; None where
that is not known."""

_CHANGE = 1e-5  # radians and metres: less is rounding, as of transforms that are composed anew each time
_PAIRS_OF_FRAMES = 64  # whose last transforms are kept
# Seconds: /tf of an image's time often comes a little after the image. After a wait in vain, so long none.
_POSE_WAIT, _POSE_PAUSE = 0.15, 1.0


class ExtrinsicsSource:
    """Extrinsics between two frames. A fixed value wins; else TF is asked for every pair, so that a change is noticed.

    Also the poses of moving frames.

    Args:
        node: its logger tells of changes.
        values: tx ty tz qx qy qz qw from the depth to the colour camera, or empty for TF.
        timeout: seconds to wait for TF, once.
        poses: whether :meth:`pose` will be asked.

    Raises:
        ValueError: values that are no rigid transform.
    """

    def __init__(self, node: Node, values: Sequence[float], timeout: float, poses: bool = False) -> None:
        self._node, self._timeout = node, timeout
        self._fixed = Extrinsics.from_values(list(values)) if len(values) else None
        self._tf = None if self._fixed and not poses else _tf_lookup(node)
        self._pose_pause_ends = 0.0
        self._last: dict[tuple[str, str], Extrinsics] = {}
        self._deadline: float | None = None
        self._stopped = threading.Event()

    @property
    def blind(self) -> bool:
        """Whether there is neither a fixed value nor a TF to ask: neither tf2_ros nor tf2_msgs imports."""
        return self._fixed is None and self._tf is None

    def stop(self) -> None:
        """Ends a wait that is under way, and waits no more."""
        self._stopped.set()

    def lookup(self, color_frame: str, depth_frame: str) -> Extrinsics | None:
        """From the depth to the colour camera, or None where it is not known. Waits until ``timeout`` after the first call.

        tf2 refuses frames with a leading slash, so they come without.

        Raises:
            ValueError: TF holds what is no rigid transform.
        """
        if self._fixed is not None or color_frame == depth_frame:
            return self._fixed
        if self._tf is None:
            return None
        frames = (color_frame, depth_frame)
        # Not a wait for each pair of frames: a camera may name new ones in every image.
        if self._deadline is None:
            self._deadline = time.monotonic() + self._timeout
        found = self._ask(frames, self._deadline)
        before = self._last.get(frames)
        if found is None or (before and _close(before, found)):
            return before  # a static transform does not end
        self._node.get_logger().info(
            f"transform from '{depth_frame}' to '{color_frame}' {'has changed' if before else 'found on TF'}: {found}",
            throttle_duration_sec=10.0,
        )
        if len(self._last) >= _PAIRS_OF_FRAMES:
            self._last.clear()
        self._last[frames] = found
        return found

    def pose(self, fixed_frame: str, frame: str, stamp_ns: int) -> np.ndarray | None:
        """(4, 4) from a frame to a fixed one at a time, metres; None where TF does not know it. Waits a moment for it."""
        if self._tf is None:
            return None
        begun = time.monotonic()
        end = begun if begun < self._pose_pause_ends else begun + _POSE_WAIT
        while (found := self._tf(fixed_frame, frame, stamp_ns)) is None:
            if time.monotonic() >= end:
                if end > begun:
                    self._pose_pause_ends = end + _POSE_PAUSE
                return None
            if not self._node.context.ok() or self._stopped.wait(0.005):
                return None
        try:
            return Extrinsics.from_quaternion(*found, stated=False).matrix
        except ValueError:  # TF holds what is no rigid transform: as good as none, the frame counts alone
            return None

    def _ask(self, frames: tuple[str, str], deadline: float) -> Extrinsics | None:
        # Own polling: tf2_ros' timeouts run on ROS time, which stands still while a recording is paused.
        while (found := self._tf(*frames, None)) is None:
            if time.monotonic() >= deadline or not self._node.context.ok() or self._stopped.wait(0.05):
                return None
        try:
            return Extrinsics.from_quaternion(*found, stated=False)
        except ValueError as error:
            raise ValueError(
                f"the transform from '{frames[1]}' to '{frames[0]}' on TF cannot be used: {error}"
            ) from error


def _close(a: Extrinsics, b: Extrinsics) -> bool:
    off = max(np.abs(a.rotation - b.rotation).max(), np.abs(a.translation - b.translation).max())
    return bool(off <= _CHANGE)


def _tf_lookup(node: Node) -> Lookup | None:
    """What to ask for transforms: tf2_ros; else our own tree of what is on /tf and /tf_static; None where neither can be had."""
    try:
        from tf2_ros import Buffer, TransformListener
    except ImportError:
        return _tree_lookup(node)
    buffer = Buffer()
    buffer.d2a2_listener = TransformListener(buffer, node)  # lives as long as the buffer

    def lookup(target: str, source: str, stamp_ns: int | None) -> Found | None:
        at = Time() if stamp_ns is None else Time(nanoseconds=stamp_ns)
        if not buffer.can_transform(target, source, at, Duration()):
            return None
        try:
            transform = buffer.lookup_transform(target, source, at).transform
        except Exception:  # tf2's own types, no ValueErrors: what was there a moment ago is not any more
            return None
        t, q = transform.translation, transform.rotation
        return (t.x, t.y, t.z), (q.x, q.y, q.z, q.w)

    return lookup


def _tree_lookup(node: Node) -> Lookup | None:
    try:
        from tf2_msgs.msg import TFMessage
    except ImportError:
        return None
    tree = TransformTree()

    def take(msg: TFMessage, moving: bool) -> None:
        for stamped in msg.transforms:
            tree.add(stamped, moving)

    # As tf2_ros subscribes.
    node.create_subscription(TFMessage, "/tf", lambda msg: take(msg, True), QoSProfile(depth=100))
    latched = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    node.create_subscription(TFMessage, "/tf_static", lambda msg: take(msg, False), latched)
    return tree.lookup
