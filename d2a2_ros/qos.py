"""Quality of service of the nodes' topics; each can be overridden by parameters (qos_overrides.<topic>...)."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from itertools import groupby
from typing import Any

from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSPolicyKind, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from rclpy.topic_endpoint_info import TopicEndpointInfo

from d2a2_ros.diagnostics import Problem

_POLICIES = (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY, QoSPolicyKind.DURABILITY)
#: Policies of which a publisher may offer less than a subscriber asks for: what is less, and what is more.
_LEVELS = {
    "reliability": (ReliabilityPolicy.BEST_EFFORT, ReliabilityPolicy.RELIABLE),
    "durability": (DurabilityPolicy.VOLATILE, DurabilityPolicy.TRANSIENT_LOCAL),
}


def subscription_options() -> dict[str, Any]:
    """Keywords of create_subscription for sensor data: best effort, volatile, depth 5."""
    # A profile of its own for each: rclpy writes a topic's overrides into the one that it is given.
    return {
        "qos_profile": copy.copy(qos_profile_sensor_data),
        "qos_overriding_options": QoSOverridingOptions(_POLICIES),
    }


def publisher_options(depth: int) -> dict[str, Any]:
    """Keywords of create_publisher: reliable like a driver's, so that every kind of subscriber can connect."""
    return {"qos_profile": QoSProfile(depth=depth), "qos_overriding_options": QoSOverridingOptions(_POLICIES)}


def connection_problem(node: Node) -> Problem | None:
    """Returns which other node gets no messages from ``node``, or none to it, because of QoS; None where all are connected.

    The code is "input_qos" or "output_qos". The message names both profiles, and the parameters that bring them together.
    Deadline and liveliness, which no parameter overrides, are left to what rclpy itself logs.
    """
    for topic, ends in groupby(sorted(node.subscriptions, key=_topic), key=_topic):
        subscriptions = list(ends)
        for publisher in node.get_publishers_info_by_topic(topic):
            # One of several suffices: infos.py subscribes to latched camera infos a second time.
            if _typed(publisher, subscriptions[0]) and all(_apart(publisher, s) for s in subscriptions):
                return Problem(
                    "input_qos", _message(node, subscriptions[0], publisher, _apart(publisher, subscriptions[0]))
                )
    for publisher in node.publishers:
        for subscriber in node.get_subscriptions_info_by_topic(publisher.topic_name):
            if _typed(subscriber, publisher) and (apart := _apart(publisher, subscriber)):
                return Problem("output_qos", _message(node, publisher, subscriber, apart))
    return None


def _topic(end: Subscription | Publisher) -> str:
    return end.topic_name


def _typed(other: TopicEndpointInfo, ours: Subscription | Publisher) -> bool:
    """Whether both are of one message type: else it is not QoS that keeps them apart."""
    return other.topic_type == f"{ours.msg_type.__module__.split('.')[0]}/msg/{ours.msg_type.__name__}"


def _apart(publisher: Publisher | TopicEndpointInfo, subscriber: Subscription | TopicEndpointInfo) -> list[str]:
    """The policies that keep two ends from connecting."""
    return [
        name
        for name, (less, more) in _LEVELS.items()
        if (getattr(publisher.qos_profile, name), getattr(subscriber.qos_profile, name)) == (less, more)
    ]


def _message(node: Node, ours: Subscription | Publisher, other: TopicEndpointInfo, apart: list[str]) -> str:
    topic, peer = ours.topic_name, f"{other.node_namespace.rstrip('/')}/{other.node_name}"
    if isinstance(ours, Subscription):
        end, said = "subscription", f"nothing comes from {peer} on {topic}: it offers {{}}, this node asks for {{}}; "
    else:
        end, said = "publisher", f"{peer} gets nothing from {topic}: it asks for {{}}, this node offers {{}}; "
    parameters = {name: f"qos_overrides.{topic}.{end}.{name}" for name in apart}
    # Not every topic's QoS can be overridden: that of /diagnostics cannot.
    cures = [f"{p}: {_shown(other, [name])}" for name, p in parameters.items() if node.has_parameter(p)]
    said = said.format(_shown(other, _LEVELS), _shown(ours, _LEVELS))
    said += f"start this node with {' and '.join(cures)}, or " if cures else ""
    return f"{said}let {peer} {'offer' if end == 'subscription' else 'ask for'} {_shown(ours, apart)}"


def _shown(end: Subscription | Publisher | TopicEndpointInfo, policies: Iterable[str]) -> str:
    """Values as the parameters qos_overrides take them."""
    return ", ".join(getattr(end.qos_profile, name).name.lower() for name in policies)
