"""Values of parameters that are known only when the launch file runs."""

from dataclasses import dataclass
from typing import Any

import yaml
from launch import LaunchContext
from launch.substitutions import perform


@dataclass
class ParameterValue:
    """A text read as ``value_type``: str, bool, int or float."""

    value: Any
    value_type: type

    def evaluate(self, context: LaunchContext) -> str | bool | int | float:
        """Returns the value.

        Raises:
            ValueError: the text cannot be read as ``value_type``.
        """
        text = perform(context, self.value)
        value = text if self.value_type is str else yaml.safe_load(text)
        if self.value_type is float and type(value) is int:
            value = float(value)
        if type(value) is not self.value_type:
            raise ValueError(f"'{text}' is no {self.value_type.__name__}")
        return value
