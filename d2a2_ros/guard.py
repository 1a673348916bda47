"""The one place that keeps an error of a callback from ending the node."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.subscription import Subscription
from rclpy.timer import Timer


def guarded(callback: Callable[..., Any], on_error: Callable[[Exception], None]) -> Callable[..., Any]:
    """Returns the callback with its errors passed to ``on_error``, and with its signature, which rclpy looks at."""

    @functools.wraps(callback)
    def call(*arguments: Any, **keywords: Any) -> Any:
        try:
            return callback(*arguments, **keywords)
        except Exception as error:  # whatever a message, or a library that reads it, brings about
            return on_error(error)

    return call


class GuardedNode(Node):
    """A node that no message can end: an error of a callback goes to :meth:`on_callback_error`.

    That holds for what message_filters, tf2_ros and the clock subscribe to, too, as they do so through the node.
    """

    def on_callback_error(self, error: Exception) -> None:
        """Counts and reports an error that nothing foresaw."""
        raise NotImplementedError

    def create_subscription(
        self, msg_type: type, topic: str, callback: Callable[..., Any], *arguments: Any, **keywords: Any
    ) -> Subscription:
        """As rclpy's, guarded."""
        callback = guarded(callback, self.on_callback_error)
        return super().create_subscription(msg_type, topic, callback, *arguments, **keywords)

    def create_timer(self, period: float, callback: Callable[..., Any], *arguments: Any, **keywords: Any) -> Timer:
        """As rclpy's, guarded."""
        return super().create_timer(period, guarded(callback, self.on_callback_error), *arguments, **keywords)
