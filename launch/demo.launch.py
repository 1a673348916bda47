"""Plays a folder recording into the upsampling node."""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

SHARE = FindPackageShare("d2a2_ros")


def generate_launch_description() -> LaunchDescription:
    """d2a2.launch.py, with all its arguments, and the player."""
    player = Node(
        package="d2a2_ros",
        executable="recording_player",
        namespace=LaunchConfiguration("namespace"),
        parameters=[
            {
                "recording": ParameterValue(LaunchConfiguration("recording"), value_type=str),
                "rate_hz": ParameterValue(LaunchConfiguration("rate_hz"), value_type=float),
                "loop": ParameterValue(LaunchConfiguration("loop"), value_type=bool),
                # The node takes seconds to load; a recording that does not loop would be over by then.
                "wait_for_subscribers": True,
            }
        ],
        ros_arguments=["--log-level", LaunchConfiguration("log_level")],
        output="screen",
    )
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "recording",
                default_value=PathJoinSubstitution([SHARE, "sample_recording"]),
                description="Folder of the recording.",
            ),
            DeclareLaunchArgument(
                "rate_hz", default_value="0.0", description="Frames per second; 0 is the rate it was recorded at."
            ),
            DeclareLaunchArgument("loop", default_value="true", description="Start again after the last frame."),
            # First, because it also sets the environment and declares namespace and log_level, which the player needs.
            IncludeLaunchDescription(PathJoinSubstitution([SHARE, "launch", "d2a2.launch.py"])),
            player,
        ]
    )
