"""Quality of service of the nodes' topics; each can be overridden by parameters (qos_overrides.<topic>...)."""

from __future__ import annotations

import copy
from typing import Any

from rclpy.qos import QoSPolicyKind, QoSProfile, qos_profile_sensor_data
from rclpy.qos_overriding_options import QoSOverridingOptions

_POLICIES = (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY, QoSPolicyKind.DURABILITY)


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
