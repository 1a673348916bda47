"""RGB-D SLAM with upsampled depth: the node, RTAB-Map's visual odometry and RTAB-Map. See docs/recipes/rtabmap.md."""

from launch import LaunchDescription

from d2a2_ros.recipes import COLOR_IMAGE, Consumer, recipe

TOPICS = {
    "rgb/image": COLOR_IMAGE,
    # Not the driver's: this one carries the stamps of the depth images, and their calibration is the colour image's.
    "rgb/camera_info": "depth_upsampled/camera_info",
    "depth/image": "depth_upsampled/image_raw",
}


def generate_launch_description() -> LaunchDescription:
    """The upsampling node with all arguments of d2a2.launch.py, and RTAB-Map's two nodes."""
    return recipe(
        "rtabmap",
        Consumer("rtabmap_odom", "rgbd_odometry", "rgbd_odometry", TOPICS),
        Consumer("rtabmap_slam", "rtabmap", "rtabmap", TOPICS),
    )
