"""Stand-in for ROS 2's launch_ros: what this repository's launch files use."""

IS_STAND_IN = True
