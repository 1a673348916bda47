"""Runs the repository's launch files as an install would."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")

# What `ros2 launch` does, less its command line.
LAUNCH = """
import signal, sys
# A shell's background jobs ignore it, and all that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
file, *arguments = sys.argv[1:]
include = IncludeLaunchDescription(file, launch_arguments=[a.split(":=", 1) for a in arguments])
service = LaunchService(noninteractive=True)
service.include_launch_description(LaunchDescription([include]))
sys.exit(service.run())
"""

OUR_TOPICS = ("color/image_raw", "color/camera_info", "depth/image_raw", "depth/camera_info")


def probe(topics: Iterable[str] = OUR_TOPICS) -> str:
    """A script that stands where a node's executable is and writes down what rcl makes of the command line.

    Args:
        topics: Names as the node itself calls them; the script writes what they are remapped to.
    """
    return f"""#!{sys.executable}
import json, os, sys
from pathlib import Path
import rclpy
rclpy.init()
node = rclpy.create_node(Path(__file__).name, automatically_declare_parameters_from_overrides=True)
topics = {list(topics)}
Path(__file__).with_suffix(".json").write_text(json.dumps({{
    "name": node.get_fully_qualified_name(),
    "topics": [node.resolve_topic_name(topic) for topic in topics],
    "parameters": {{key: p.value for key, p in node.get_parameters_by_prefix("").items()}},
    "log_level": rclpy.logging.get_logger_effective_level("upsample_node").name,
    "environment": dict(os.environ),
}}))
"""


PROBE = probe()


class Installed:
    """A prefix as an install makes it, with the repository's launch and config folders."""

    def __init__(self, prefix: Path, repo: Path) -> None:
        self.prefix, self.repo, self.share = prefix, repo, prefix / "share" / "d2a2_ros"
        marker = prefix / "share" / "ament_index" / "resource_index" / "packages" / "d2a2_ros"
        for folder in (marker.parent, self.share, prefix / "lib" / "d2a2_ros"):
            folder.mkdir(parents=True)
        marker.touch()
        for name in ("launch", "config"):
            (self.share / name).symlink_to(repo / name)

    def executable(self, name: str, text: str, package: str = "d2a2_ros") -> Path:
        """Installs a script, and its package where there is none yet."""
        path = self.prefix / "lib" / package / name
        path.parent.mkdir(exist_ok=True)
        (self.prefix / "share" / "ament_index" / "resource_index" / "packages" / package).touch()
        path.write_text(text)
        path.chmod(0o755)
        return path

    def start(self, file: str, *arguments: str, **environment: str) -> subprocess.Popen:
        """Launches share/launch/``file``; the environment has no profile of the user's unless given."""
        env = {key: value for key, value in os.environ.items() if key not in PROFILE_VARIABLES} | environment
        env["AMENT_PREFIX_PATH"] = f"{self.prefix}{os.pathsep}{os.environ.get('AMENT_PREFIX_PATH', '')}"
        env["PYTHONPATH"] = f"{self.repo}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
        env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # the scripts' `env python3`
        env["ROS_LOG_DIR"] = str(self.prefix / "log")
        return subprocess.Popen(
            [sys.executable, "-c", LAUNCH, str(self.share / "launch" / file), *arguments],
            env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip

    def end(self, process: subprocess.Popen) -> str:
        """Ends what was launched as Ctrl-C does; returns its output. Nothing of it is left, whatever happens."""
        try:
            process.send_signal(signal.SIGINT)
            return process.communicate(timeout=60)[0]
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    def probe(self, file: str, *arguments: str, **environment: str) -> dict[str, dict]:
        """Launches with probes for our executables; returns what each probe saw, those installed before too."""
        for name in ("upsample_node", "recording_player"):
            self.executable(name, PROBE)
        process = self.start(file, *arguments, **environment)
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output
        return {file.stem: json.loads(file.read_text()) for file in (self.prefix / "lib").glob("*/*.json")}
