"""The action that starts a node."""

import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import yaml
from ament_index_python import get_package_prefix
from launch import LaunchContext
from launch.substitutions import perform

from .parameter_descriptions import ParameterValue


@dataclass(kw_only=True)
class Node:
    """Starts ``prefix/lib/package/executable``; parameters are files and dictionaries, of which later ones win."""

    executable: str
    package: str
    name: str | None = None
    namespace: Any
    parameters: list = field(default_factory=list)
    remappings: list[tuple[str, Any]] = field(default_factory=list)
    ros_arguments: list = field(default_factory=list)
    output: str = "log"

    def execute(self, context: LaunchContext) -> None:
        context.processes.append(subprocess.Popen(self._command(context), env=context.environment))

    def _command(self, context: LaunchContext) -> list[str]:
        command = [str(Path(get_package_prefix(self.package), "lib", self.package, self.executable)), "--ros-args"]
        command += [perform(context, argument) for argument in self.ros_arguments]
        namespace = "/" + perform(context, self.namespace).lstrip("/")
        rules = [("__ns", namespace), *self.remappings] + ([("__node", self.name)] if self.name else [])
        for ours, theirs in rules:
            command += ["-r", f"{ours}:={perform(context, theirs)}"]
        for values in self.parameters:
            if isinstance(values, dict):
                # A node whose name is not known gets them by the wildcard.
                entry = f"{namespace.rstrip('/')}/{self.name}" if self.name else "/**"
                file = _write(entry, {name: _evaluate(value, context) for name, value in values.items()})
            else:
                file = perform(context, values)
            command += ["--params-file", file]
        return command


def _evaluate(value: Any, context: LaunchContext) -> str | bool | int | float:
    return value.evaluate(context) if isinstance(value, ParameterValue) else value


def _write(entry: str, values: dict) -> str:
    with NamedTemporaryFile("w", prefix="launch_params_", delete=False) as file:
        yaml.dump({entry: {"ros__parameters": values}}, file)
    return file.name
