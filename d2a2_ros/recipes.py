"""What the launch files in launch/recipes share: the upsampling node with a recipe's parameters, and nodes of other packages."""

from __future__ import annotations

from dataclasses import dataclass

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

COLOR_IMAGE, COLOR_INFO = "color_image", "color_info"
"""Stand in a :class:`Consumer`'s remappings for the colour topics to which the upsampling node subscribes."""


@dataclass(frozen=True)
class Consumer:
    """A node of another package that takes the upsampling node's outputs.

    Attributes:
        package, executable: As `ros2 run` takes them.
        name: Name of the node in the recipe's parameter file.
        remappings: Its own name of each topic: the topic, relative to the namespace, or COLOR_IMAGE or COLOR_INFO.
    """

    package: str
    executable: str
    name: str
    remappings: dict[str, str]


def recipe(name: str, *consumers: Consumer) -> LaunchDescription:
    """d2a2.launch.py with all its arguments and config/recipes/``name``.yaml as parameters, and the consumers."""
    share = FindPackageShare("d2a2_ros")
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "params_file",
                default_value=PathJoinSubstitution([share, "config", "recipes", f"{name}.yaml"]),
                description=f"YAML file with the parameters of all nodes; copy config/recipes/{name}.yaml to change some.",
            ),
            # First: it sets the environment, and knows the topics of camera:=NAME.
            IncludeLaunchDescription(PathJoinSubstitution([share, "launch", "d2a2.launch.py"])),
            OpaqueFunction(function=lambda context: [_node(context, consumer) for consumer in consumers]),
        ]
    )


def _node(context: LaunchContext, consumer: Consumer) -> Node:
    def argument(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    clock = {"use_sim_time": ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool)}
    topics = {name: argument(name) for name in (COLOR_IMAGE, COLOR_INFO)}
    return Node(
        package=consumer.package,
        executable=consumer.executable,
        name=consumer.name,
        namespace=argument("namespace"),
        parameters=[argument("params_file")] + ([clock] if argument("use_sim_time") else []),
        remappings=[(theirs, topics.get(ours, ours)) for theirs, ours in consumer.remappings.items()],
        ros_arguments=["--log-level", argument("log_level")],
        output="screen",
    )
