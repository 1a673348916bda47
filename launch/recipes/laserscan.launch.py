"""Upsampled depth as a laser scan: the node and depthimage_to_laserscan. See docs/recipes/laserscan.md."""

from launch import LaunchDescription

from d2a2_ros.recipes import Consumer, recipe


def generate_launch_description() -> LaunchDescription:
    """The upsampling node with all arguments of d2a2.launch.py, and the converter."""
    return recipe(
        "laserscan",
        Consumer(
            "depthimage_to_laserscan",
            "depthimage_to_laserscan_node",
            "depthimage_to_laserscan",
            {"depth": "depth_upsampled/image_raw", "depth_camera_info": "depth_upsampled/camera_info"},
        ),
    )
