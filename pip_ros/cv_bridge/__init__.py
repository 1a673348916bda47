"""A stand-in for ROS 2's cv_bridge: image messages from and to NumPy arrays."""

from cv_bridge.core import CvBridge, CvBridgeError

IS_STAND_IN = True

__all__ = ["CvBridge", "CvBridgeError"]
