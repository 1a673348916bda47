"""Where the depth camera is, seen from the colour camera: from a parameter, or from TF where tf2_ros is installed."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import numpy as np
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.time import Time

from d2a2_core.geometry import Extrinsics

_CHANGE = 1e-5  # radians and metres: less is rounding, as of transforms that are composed anew each time


class ExtrinsicsSource:
    """Extrinsics between two frames. A fixed value wins; else TF is asked for every pair, so that a change is noticed.

    Args:
        node: its logger tells of changes.
        values: tx ty tz qx qy qz qw from the depth to the colour camera, or empty for TF.
        timeout: seconds to wait for TF, once for each pair of frames.

    Raises:
        ValueError: values that are no rigid transform.
    """

    def __init__(self, node: Node, values: Sequence[float], timeout: float) -> None:
        self._node, self._timeout = node, timeout
        self._fixed = Extrinsics.from_values(list(values)) if len(values) else None
        self._buffer = None if self._fixed else _tf_buffer(node)
        self._last: dict[tuple[str, str], Extrinsics] = {}
        self._waited: set[tuple[str, str]] = set()
        self._stopped = threading.Event()

    @property
    def blind(self) -> bool:
        """Whether there is neither a fixed value nor a TF to ask."""
        return self._fixed is None and self._buffer is None

    def stop(self) -> None:
        """Ends a wait that is under way, and waits no more."""
        self._stopped.set()

    def lookup(self, color_frame: str, depth_frame: str) -> Extrinsics | None:
        """From the depth to the colour camera, or None where it is not known. Waits at most ``timeout``, the first time.

        Raises:
            ValueError: TF holds what is no rigid transform.
        """
        if self._fixed is not None or color_frame == depth_frame:
            return self._fixed
        if self._buffer is None:
            return None
        frames = (color_frame, depth_frame)
        wait = 0.0 if frames in self._waited else self._timeout
        self._waited.add(frames)
        found = self._ask(frames, wait)
        before = self._last.get(frames)
        if found is None or (before and _close(before, found)):
            return before  # a static transform does not end
        self._node.get_logger().info(
            f"transform from '{depth_frame}' to '{color_frame}' {'has changed' if before else 'found on TF'}: {found}",
            throttle_duration_sec=10.0,
        )
        self._last[frames] = found
        return found

    def _ask(self, frames: tuple[str, str], wait: float) -> Extrinsics | None:
        # Own polling: tf2_ros' timeouts run on ROS time, which stands still while a recording is paused.
        end = time.monotonic() + wait
        while not self._buffer.can_transform(*frames, Time(), Duration()):
            if time.monotonic() >= end or not self._node.context.ok() or self._stopped.wait(0.05):
                return None
        try:
            transform = self._buffer.lookup_transform(*frames, Time()).transform
        except Exception:  # tf2's own types, no ValueErrors: what was there a moment ago is not any more
            return None
        t, q = transform.translation, transform.rotation
        try:
            return Extrinsics.from_quaternion((t.x, t.y, t.z), (q.x, q.y, q.z, q.w), stated=False)
        except ValueError as error:
            raise ValueError(
                f"the transform from '{frames[1]}' to '{frames[0]}' on TF cannot be used: {error}"
            ) from error


def _close(a: Extrinsics, b: Extrinsics) -> bool:
    off = max(np.abs(a.rotation - b.rotation).max(), np.abs(a.translation - b.translation).max())
    return bool(off <= _CHANGE)


def _tf_buffer(node: Node):
    """A tf2_ros buffer that listens, or None where tf2_ros is not installed (it is not on PyPI)."""
    try:
        from tf2_ros import Buffer, TransformListener
    except ImportError:
        return None
    buffer = Buffer()
    buffer.d2a2_listener = TransformListener(buffer, node)  # lives as long as the buffer
    return buffer
