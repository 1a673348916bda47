"""The upsampling node's parameters as attributes; what they mean stands in :mod:`d2a2_ros.parameter_table`."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.exceptions import ParameterUninitializedException
from rclpy.node import Node
from rclpy.parameter import Parameter

from d2a2_core.pipeline import PipelineSettings
from d2a2_core.stream import StreamOptions
from d2a2_ros.parameter_table import SPECS


class NodeParameters:
    """Declares :data:`SPECS` on a node and gives their current values as attributes.

    Raises:
        ParameterError: a start value is of the wrong type or out of range.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        for spec in SPECS:
            spec.declare(node)
        node.add_on_set_parameters_callback(self._validate)
        given = getattr(node, "_parameter_overrides", {})  # rclpy has no public list of what was asked for
        unknown = sorted(n for n in given if not node.has_parameter(n) and not n.startswith("qos_overrides."))
        if unknown:
            known = ", ".join(spec.name for spec in SPECS)
            node.get_logger().warning(f"unknown parameters are ignored: {', '.join(unknown)}; known are {known}")

    def __getattr__(self, name: str) -> Any:
        try:
            return self._node.get_parameter(name).value
        except ParameterUninitializedException:  # one that need not be set
            return next(spec.default for spec in SPECS if spec.name == name)

    def stream(self) -> StreamOptions:
        """The options of the stream as they are now."""
        return StreamOptions(**{f.name: getattr(self, f.name) for f in fields(StreamOptions)})

    def pipeline(self) -> PipelineSettings:
        """The settings of the pipeline as they are now.

        Raises:
            ValueError: settings that do not go together; the message says which.
        """
        return self._pipeline({})

    def _pipeline(self, changes: dict[str, Any]) -> PipelineSettings:
        names = [f.name for f in fields(PipelineSettings) if f.name != "watchdog"]
        values = {name: changes[name] if name in changes else getattr(self, name) for name in names}
        values["color_offset"] = tuple(values["color_offset"] or ()) or (0.0, 0.0)
        return PipelineSettings(**values, watchdog=self.drift_threshold_px > 0 or values["correct_offset"])

    def _validate(self, parameters: list[Parameter]) -> SetParametersResult:
        changes, specs = {parameter.name: parameter.value for parameter in parameters}, {s.name: s for s in SPECS}
        try:
            for name in changes.keys() & specs.keys():
                specs[name].check(changes[name])
            self._pipeline(changes)
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)
