"""Stand-in for ROS 2's launch: what this repository's launch files use, with the same results; not the command line."""

from __future__ import annotations

import os
import signal
import subprocess

from .actions import DeclareLaunchArgument, IncludeLaunchDescription

IS_STAND_IN = True

__all__ = ["LaunchContext", "LaunchDescription", "LaunchService"]


class LaunchContext:
    """What is known while a launch file runs: arguments by name, the environment and the processes it started."""

    def __init__(self) -> None:
        self.launch_configurations: dict[str, str] = {}
        self.environment = dict(os.environ)
        self.processes: list[subprocess.Popen] = []


class LaunchDescription:
    """Actions in the order in which they run."""

    def __init__(self, initial_entities: list | None = None) -> None:
        self.entities = list(initial_entities or [])

    def get_launch_arguments(self) -> list[DeclareLaunchArgument]:
        """Returns the declared arguments, those of included files too."""
        arguments = [entity for entity in self.entities if isinstance(entity, DeclareLaunchArgument)]
        for entity in self.entities:
            if isinstance(entity, IncludeLaunchDescription):
                arguments += entity.load(LaunchContext()).get_launch_arguments()
        return arguments


class LaunchService:
    """Runs a launch description; SIGINT ends the processes that it started."""

    def __init__(self, *, noninteractive: bool = False) -> None:
        self.noninteractive, self._context, self._waiting = noninteractive, LaunchContext(), []

    def include_launch_description(self, launch_description: LaunchDescription) -> None:
        """Takes a description that ``run`` then runs."""
        self._waiting += launch_description.entities

    def run(self) -> int:
        """Runs all actions and waits until all processes have ended; returns 1 if an action failed, else 0."""
        status = 0
        try:
            while self._waiting:
                self._waiting[:0] = self._waiting.pop(0).execute(self._context) or []
            self._wait()
        except KeyboardInterrupt:
            # A terminal sends it to all of its processes by itself.
            self._end(signal.SIGINT if self.noninteractive else 0)
        except Exception as error:
            print(f"[ERROR] [launch]: Caught exception in launch: {error}", flush=True)
            self._end(signal.SIGINT)
            status = 1
        return status

    def _wait(self, seconds: float | None = None) -> None:
        for process in self._context.processes:
            if process.returncode is None and process.wait(seconds):
                print(f"[ERROR] process has died [exit code {process.returncode}, cmd {process.args}]", flush=True)

    def _end(self, *numbers: int) -> None:
        for number in (*numbers, signal.SIGTERM, signal.SIGKILL):
            for process in self._context.processes:
                process.send_signal(number)
            try:
                self._wait(5.0)
            except subprocess.TimeoutExpired:
                continue
            return
