"""Upsampled depth into a map of surfaces and distances: the node and nvblox. See docs/recipes/nvblox.md."""

from launch import LaunchDescription

from d2a2_ros.recipes import COLOR_IMAGE, COLOR_INFO, Consumer, recipe


def generate_launch_description() -> LaunchDescription:
    """The upsampling node with all arguments of d2a2.launch.py, and nvblox in a process of its own."""
    return recipe(
        "nvblox",
        Consumer(
            "nvblox_ros",
            "nvblox_node",
            "nvblox_node",
            {
                "camera_0/depth/image": "depth_upsampled/image_raw",
                "camera_0/depth/camera_info": "depth_upsampled/camera_info",
                "camera_0/color/image": COLOR_IMAGE,
                "camera_0/color/camera_info": COLOR_INFO,
            },
        ),
    )
