"""Texts that are known only when the launch file runs. A value may be one, a plain text, or a list of both to be joined."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import LaunchContext


class SubstitutionFailure(Exception):
    """A substitution has no value in this context."""


class Substitution:
    """Base of the substitutions: ``perform(context)`` returns the text."""


def perform(context: LaunchContext, value: Any) -> str:
    """Returns the text of ``value``."""
    if isinstance(value, Substitution):
        return value.perform(context)
    if isinstance(value, str | os.PathLike):
        return os.fspath(value)
    return "".join(perform(context, part) for part in value)


@dataclass
class LaunchConfiguration(Substitution):
    """Value of a launch argument."""

    variable_name: str

    def perform(self, context: LaunchContext) -> str:
        if self.variable_name not in context.launch_configurations:
            raise SubstitutionFailure(f"launch configuration '{self.variable_name}' does not exist")
        return context.launch_configurations[self.variable_name]


@dataclass
class EnvironmentVariable(Substitution):
    """Value of an environment variable."""

    name: str
    default_value: Any = None

    def perform(self, context: LaunchContext) -> str:
        if self.name in context.environment:
            return context.environment[self.name]
        if self.default_value is None:
            raise SubstitutionFailure(f"environment variable '{self.name}' does not exist")
        return perform(context, self.default_value)


@dataclass
class PathJoinSubstitution(Substitution):
    """Parts of a path, joined."""

    substitutions: list

    def perform(self, context: LaunchContext) -> str:
        return os.path.join(*(perform(context, part) for part in self.substitutions))
