"""A stand-in for ROS 2's sensor_msgs_py: point clouds as NumPy arrays."""

IS_STAND_IN = True
