"""Starts the upsampling node on the topics of a colour and a depth camera."""

from pathlib import Path

import yaml
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import EnvironmentVariable, LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from d2a2_ros.environment import PROCESS, PROFILE_VARIABLES

CONFIG = PathJoinSubstitution([FindPackageShare("d2a2_ros"), "config"])
# argument: the node's own name of the topic
TOPICS = {
    "color_image": "color/image_raw",
    "color_info": "color/camera_info",
    "depth_image": "depth/image_raw",
    "depth_info": "depth/camera_info",
}


def generate_launch_description() -> LaunchDescription:
    """The arguments, the environment and the node."""
    profile = PathJoinSubstitution([CONFIG, "fastdds.xml"])
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "params_file",
                default_value=PathJoinSubstitution([CONFIG, "default.yaml"]),
                description="YAML file with the node's parameters.",
            ),
            DeclareLaunchArgument(
                "camera",
                default_value="",
                description="Takes topics and parameters of config/cameras: azure_kinect, femto, kinect_v2, ...; other arguments "
                "win, and so does a params_file.",
            ),
            DeclareLaunchArgument("namespace", default_value="", description="Namespace of the node and its topics."),
            *(
                DeclareLaunchArgument(name, default_value=topic, description=f"Topic to use as the node's {topic}.")
                for name, topic in TOPICS.items()
            ),
            DeclareLaunchArgument(
                "weights",
                default_value="",
                description="d2a2-lite-sensor, d2a2-nano-sensor, d2a2-pico-sensor, auto, or a file; empty: as params_file says.",
            ),
            DeclareLaunchArgument(
                "device", default_value="", description="auto, cpu, cuda, cuda:1, ...; empty: as params_file says."
            ),
            DeclareLaunchArgument(
                "use_sim_time",
                default_value="",
                choices=["", "true", "false", "True", "False"],
                description="Take the time from /clock; empty: as params_file says, else false.",
            ),
            DeclareLaunchArgument("log_level", default_value="info", description="debug, info, warn, error or fatal."),
            # Without the profile most large images are lost; one that the user chose goes first.
            *(SetEnvironmentVariable(v, EnvironmentVariable(v, default_value=profile)) for v in PROFILE_VARIABLES),
            *(SetEnvironmentVariable(k, EnvironmentVariable(k, default_value=v)) for k, v in PROCESS.items()),
            OpaqueFunction(function=_node),
        ]
    )


def _node(context: LaunchContext) -> list[Node]:
    def argument(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    overrides = {}
    for name in ("weights", "device"):
        if argument(name):
            overrides[name] = ParameterValue(LaunchConfiguration(name), value_type=str)
    if argument("use_sim_time"):
        overrides["use_sim_time"] = ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool)
    config = Path(CONFIG.perform(context))
    files, topics = [_checked_file(argument("params_file"))], {name: argument(name) for name in TOPICS}
    if argument("camera"):
        file, named = _camera(config / "cameras", argument("camera"))
        # Later files win: the camera over the defaults, the user's own file over the camera.
        files.insert(len(files) if Path(files[0]) == config / "default.yaml" else 0, file)
        topics = {name: named[name] if topic == TOPICS[name] else topic for name, topic in topics.items()}
        # For launch files that include this one.
        context.launch_configurations.update(topics)
    return [
        Node(
            package="d2a2_ros",
            executable="upsample_node",
            # Named, so that the overrides are for this very node: else a file's own entry for it would win over them.
            name="upsample_node",
            namespace=argument("namespace"),
            parameters=files + ([overrides] if overrides else []),
            remappings=[(TOPICS[name], topic) for name, topic in topics.items()],
            ros_arguments=["--log-level", argument("log_level")],
            output="screen",
        )
    ]


def _camera(folder: Path, name: str) -> tuple[str, dict[str, str]]:
    """Parameter file and topics of a camera that config/cameras knows."""
    table = yaml.safe_load((folder / "topics.yaml").read_text(encoding="utf-8"))
    if name not in table:
        raise RuntimeError(f"camera must be one of {', '.join(sorted(table))}, got '{name}'")
    return _checked_file(str(folder / f"{name}.yaml")), table[name]


def _checked_file(path: str) -> str:
    """``path``, if it holds parameters. launch only warns about a missing file and starts the node without it."""
    path = str(Path(path).expanduser())
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise RuntimeError(f"params_file cannot be read: {path} ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RuntimeError(f"params_file is not valid YAML: {path} ({error})") from error
    if not isinstance(content, dict) or not all(_holds_parameters(entry) for entry in content.values()):
        raise RuntimeError(
            f"params_file must hold '/**: ros__parameters: name: value', as config/default.yaml does: {path}"
        )
    return path


def _holds_parameters(entry: object) -> bool:
    if not isinstance(entry, dict):
        return False
    return "ros__parameters" in entry or (bool(entry) and all(map(_holds_parameters, entry.values())))
