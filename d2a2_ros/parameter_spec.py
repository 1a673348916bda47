"""One ROS parameter: its name, default, meaning and allowed values; how it is declared on a node and checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter


class ParameterError(ValueError):
    """A parameter has a value that cannot be used; the message names it and says what would do."""


@dataclass(frozen=True)
class Spec:
    """One parameter.

    Attributes:
        description: What it means, in sentences that name all choices; shown by `ros2 param describe`, in config/default.yaml and
            in docs/.
        choices: Allowed strings or integers; empty: any.
        bounds: Inclusive range of a number.
        live: Whether it may be changed while the node runs.
        type: Type of a parameter that need not be set. Its ``default`` is what :class:`NodeParameters` gives then.
        example: Value that config/default.yaml shows of such a parameter.
        details: What docs/ say besides, in Markdown.
    """

    name: str
    default: Any
    description: str
    choices: tuple = ()
    bounds: tuple | None = None
    live: bool = False
    type: Parameter.Type | None = None
    example: Any = None
    details: str = ""

    def descriptor(self) -> ParameterDescriptor:
        """The ROS descriptor, ranges included."""
        out = ParameterDescriptor(description=self.description, read_only=not self.live)
        if self.choices:
            out.additional_constraints = "one of: " + ", ".join(map(str, self.choices))
        if self.bounds and isinstance(self.default, float):
            out.floating_point_range = [FloatingPointRange(from_value=self.bounds[0], to_value=self.bounds[1])]
        elif self.bounds:
            out.integer_range = [IntegerRange(from_value=self.bounds[0], to_value=self.bounds[1], step=1)]
        return out

    def wanted(self) -> str:
        """What to give, and how to write it in YAML, for messages."""
        allowed = f" from {self.bounds[0]} to {self.bounds[1]}" if self.bounds else ""
        if self.type == Parameter.Type.DOUBLE_ARRAY:
            return "a list of numbers, each with decimal points: [0.0, 1.0]"
        if isinstance(self.default, float):
            return f"float{allowed}, with a decimal point (6.0, not 6)"
        if "on" in self.choices:  # YAML reads a bare on as true
            return f'str, in quotes: {self.name}: "on"'
        return f"{type(self.default).__name__}{allowed}"

    def check(self, value: Any) -> None:
        """Raises ParameterError for a value that is not allowed."""
        if self.choices and value not in self.choices:
            raise ParameterError(f"parameter '{self.name}' must be one of {list(self.choices)}, got {value!r}")
        if self.bounds and not self.bounds[0] <= value <= self.bounds[1]:
            raise ParameterError(
                f"parameter '{self.name}' must be from {self.bounds[0]} to {self.bounds[1]}, got {value!r}"
            )

    def declare(self, node: Node) -> Any:
        """Declares the parameter on ``node`` and returns its value, None where it need not be set and is not.

        Raises:
            ParameterError: the value that was given is of the wrong type or not allowed.
        """
        start = self.default if self.type is None else self.type
        try:
            value = node.declare_parameter(self.name, start, self.descriptor()).value
        except (InvalidParameterTypeException, InvalidParameterValueException) as error:
            raise ParameterError(f"parameter '{self.name}' must be {self.wanted()}: {error}") from error
        self.check(value)
        return value
