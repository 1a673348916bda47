"""Subscribes to camera infos, however they are published."""

from __future__ import annotations

from collections.abc import Callable

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo

from d2a2_core.messages.camera_info import info_topic_beside
from d2a2_ros.diagnostics import Problem
from d2a2_ros.qos import subscription_options


class InfoSubscription:
    """Gets the camera infos of a topic from publishers that repeat them and from latched ones, in any order of start.

    Only who asks for durability gets a latched (transient local) info that was sent before, and who asks gets nothing from
    publishers without. So there is a second subscription as soon as a latched publisher is seen; asking all from the start would
    make every other driver warn of an incompatible subscriber. A latched publisher's later infos come twice, which does no harm:
    the latest one counts.

    Args:
        node: Subscribes.
        topic: Relative name.
        take: Called with each info.
    """

    def __init__(self, node: Node, topic: str, take: Callable[[CameraInfo], None]) -> None:
        self._node, self._take = node, take
        self.sub = node.create_subscription(CameraInfo, topic, take, **subscription_options())
        self._latched = self.sub.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL

    def look(self) -> None:
        """Subscribes to a latched publisher that has come since the last look."""
        if self._latched:
            return
        for publisher in self._node.get_publishers_info_by_topic(self.sub.topic_name):
            qos = publisher.qos_profile
            if qos.durability == DurabilityPolicy.TRANSIENT_LOCAL and qos.reliability == ReliabilityPolicy.RELIABLE:
                latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
                self._node.create_subscription(CameraInfo, self.sub.topic_name, self._take, latched)
                self._latched = True
                return

    def elsewhere(self, which: str, image_topic: str) -> Problem | None:
        """Says where the camera infos are, if nobody publishes them on this topic but somebody beside the image.

        Args:
            which: "color" or "depth".
            image_topic: Resolved name of its images.
        """
        topic, beside = self.sub.topic_name, info_topic_beside(image_topic)
        if topic == beside or self._node.count_publishers(topic) or not self._node.count_publishers(beside):
            return None
        return Problem(
            f"{which}_info_elsewhere",
            f"nobody publishes {topic}, but there is {beside} beside the images: remap {which}/camera_info to it (launch "
            f"argument {which}_info)",
        )
