#!/bin/bash
# Runs a command with ROS and this package in its environment.
set -e
# shellcheck source=/dev/null
source "/opt/ros/$ROS_DISTRO/setup.bash" --
# shellcheck source=/dev/null
source /ws/install/setup.bash --
exec "$@"
