"""The actions: ``execute(context)`` does it, and returns the actions that come next or None."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .launch_description_sources import get_launch_description_from_python_launch_file
from .substitutions import perform

if TYPE_CHECKING:
    from . import LaunchContext, LaunchDescription


@dataclass
class DeclareLaunchArgument:
    """Gives an argument its default where it has no value yet, and checks the value."""

    name: str
    default_value: Any = None
    description: str | None = None
    choices: list[str] | None = None

    def execute(self, context: LaunchContext) -> None:
        if self.name not in context.launch_configurations:
            if self.default_value is None:
                raise RuntimeError(f"Required launch argument '{self.name}' was not provided")
            context.launch_configurations[self.name] = perform(context, self.default_value)
        value = context.launch_configurations[self.name]
        if self.choices is not None and value not in self.choices:
            raise RuntimeError(f"Argument '{self.name}' is '{value}', must be one of {self.choices}")


@dataclass
class SetEnvironmentVariable:
    """Sets a variable for the processes that are started after it."""

    name: str
    value: Any

    def execute(self, context: LaunchContext) -> None:
        context.environment[self.name] = perform(context, self.value)


@dataclass
class OpaqueFunction:
    """Calls ``function(context)``, which returns the actions that come next."""

    function: Callable

    def execute(self, context: LaunchContext) -> list | None:
        return self.function(context)


@dataclass
class IncludeLaunchDescription:
    """Runs another launch file; the one that includes it sees its arguments, too."""

    launch_description_source: Any
    launch_arguments: Iterable[tuple[str, Any]] = ()

    def load(self, context: LaunchContext) -> LaunchDescription:
        """Reads the file."""
        return get_launch_description_from_python_launch_file(perform(context, self.launch_description_source))

    def execute(self, context: LaunchContext) -> list:
        for name, value in self.launch_arguments:
            context.launch_configurations[name] = perform(context, value)
        return self.load(context).entities
