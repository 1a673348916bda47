"""Prints the median depth of every image that the upsampling node publishes.

ros2 launch d2a2_ros demo.launch.py     # in one terminal
python3 examples/subscribe.py           # in another
"""

import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image


def depth_array(msg: Image) -> np.ndarray:
    """Returns the depth (H, W) in metres along z, NaN where there is none, as a view of the message's data."""
    if msg.encoding != "32FC1":
        raise ValueError(f"expected a 32FC1 image, got {msg.encoding}; set the node's output_encoding to 32FC1")
    rows = np.frombuffer(msg.data, ">f4" if msg.is_bigendian else "<f4").reshape(msg.height, msg.step // 4)
    return rows[:, : msg.width]


class MedianDepth(Node):
    """Listens to the node's depth and camera info."""

    def __init__(self) -> None:
        super().__init__("median_depth")
        self.focal: float | None = None
        self.create_subscription(CameraInfo, "depth_upsampled/camera_info", self.on_info, 5)
        self.create_subscription(Image, "depth_upsampled/image_raw", self.on_depth, 5)

    def on_info(self, msg: CameraInfo) -> None:
        self.focal = msg.k[0]

    def on_depth(self, msg: Image) -> None:
        if self.focal is None:
            return  # The camera info has not arrived yet.
        depth = depth_array(msg)
        known = depth[np.isfinite(depth)]
        if not known.size:
            print("no depth in this image", flush=True)
            return
        median, share = np.median(known), known.size / depth.size
        wide = median * msg.width / self.focal
        print(f"median depth {median:.3f} m, known {share:.0%}; the view is {wide:.2f} m wide there", flush=True)


def main() -> None:
    rclpy.init()
    node = MedianDepth()
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except RuntimeError:  # rclpy's own, when a signal ends it between two waits
        if rclpy.ok():
            raise
    node.destroy_node()
    rclpy.try_shutdown()


if __name__ == "__main__":
    main()
