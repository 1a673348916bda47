"""Why nothing comes: no pairs to this node, or no messages through a connection that QoS prevents."""

from __future__ import annotations

import time

from rclpy.node import Node
from rclpy.subscription import Subscription
from sensor_msgs.msg import CompressedImage, Image

from d2a2_ros.diagnostics import Problem, Statistics
from d2a2_ros.qos import connection_problem

_SILENCE = 10.0  # seconds without pairs before the node says what is missing; cameras take a while to start
_PERIODS = 2.5  # and so many times as long as between the last pairs, for cameras that take minutes on purpose


class Silence:
    """Watches for pairs that do not come, and for other nodes that cannot connect.

    Args:
        node: Asked about the ROS graph.
        color, depth: Subscriptions of the images.
        slop: Largest difference of the stamps of a pair, seconds.
    """

    def __init__(self, node: Node, color: Subscription, depth: Subscription, slop: float) -> None:
        self._node, self._color, self._depth, self._slop = node, color, depth, slop
        self._since, self._seen, self._patience = time.monotonic(), (0, 0, 0), _SILENCE
        self._paired: float | None = None  # when pairs were last seen to have come
        self._problem: Problem | None = None

    def problem(self, statistics: Statistics, apart: str, busy: bool) -> Problem | None:
        """Returns why no pairs arrived for a while, or who cannot connect; None while all is well.

        Args:
            statistics: Counts images and pairs.
            apart: How far apart the stamps are, and what to do about it.
            busy: Whether a pair is being computed. Whoever waits for its result, which may take a network's compilation, is
                not silent.
        """
        seen = statistics["color"], statistics["depth"], statistics["pairs"]
        color, depth, pairs = (now - before for now, before in zip(seen, self._seen, strict=True))
        now = time.monotonic()
        if pairs or busy:
            if pairs:
                between = 0.0 if self._paired is None else now - self._paired
                self._paired, self._patience = now, max(_SILENCE, _PERIODS * between)
            self._since, self._seen, self._problem = now, seen, None
        elif now - self._since >= self._patience:
            self._problem = self._diagnose(color, depth, apart)
        return connection_problem(self._node) or self._problem

    def _diagnose(self, color: int, depth: int, apart: str) -> Problem:
        names = self._color.topic_name, self._depth.topic_name
        if not color and not depth:
            counts = [self._node.count_publishers(name) for name in names]
            hint = self._hint("color", self._color) + self._hint("depth", self._depth)
            question = "are the cameras running, and the topics remapped to theirs?"
            if self._paired is not None:
                question = f"the last pair came {time.monotonic() - self._paired:.0f} s ago; have the cameras stopped?"
            return Problem(
                "no_images" + ("_elsewhere" if hint else ""),
                f"no images: nothing came on {names[0]} ({counts[0]} publishers) and {names[1]} ({counts[1]} publishers); "
                f"{question}{hint}",
            )
        if not depth:
            hint = self._hint("depth", self._depth)
            code = "no_depth" + ("_elsewhere" if hint else "")
            return Problem(code, f"no depth images: {color} colour images came, but nothing on {names[1]}{hint}")
        if not color:
            hint = self._hint("color", self._color)
            code = "no_color" + ("_elsewhere" if hint else "")
            return Problem(code, f"no colour images: {depth} depth images came, but nothing on {names[0]}{hint}")
        return Problem(
            "no_pairs",
            f"no pairs: {color} colour and {depth} depth images came, but no two stamps within sync_slop={self._slop} s; {apart}",
        )

    def _hint(self, which: str, subscription: Subscription) -> str:
        """What the ROS graph tells about an image topic on which nothing comes: images of the other type, or beside it."""
        name, wanted = subscription.topic_name, subscription.msg_type
        other = Image if wanted is CompressedImage else CompressedImage
        types = {info.topic_type for info in self._node.get_publishers_info_by_topic(name)}
        if f"sensor_msgs/msg/{other.__name__}" in types:
            return (
                f"; {name} carries {other.__name__}, but the node listens for {wanted.__name__}: set the parameter "
                "compressed_input"
            )
        beside = [f"{name}/{suffix}" for suffix in ("compressed", "compressedDepth")]
        found = [topic for topic in beside if not types and self._node.count_publishers(topic)]
        return f"; there is {' and '.join(found)}, give that as {which}_image" if found else ""
