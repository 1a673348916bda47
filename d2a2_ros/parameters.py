"""Parameters of the upsampling node: one table of names, defaults, ranges and meanings."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.exceptions import (
    InvalidParameterTypeException,
    InvalidParameterValueException,
    ParameterUninitializedException,
)
from rclpy.node import Node
from rclpy.parameter import Parameter

from d2a2_core.depth.provenance import POINTS_PROVENANCE
from d2a2_core.geometry.plan import REGISTRATIONS
from d2a2_core.messages.camera_info import RECTIFIED_INPUTS
from d2a2_core.network import VIEWS
from d2a2_core.pipeline import GEOMETRIES, RANGES, PipelineSettings
from d2a2_core.runtime import PRECISIONS, RUNTIMES
from d2a2_core.weights import DEFAULT_WEIGHTS
from d2a2_ros.images import COMPRESSED_INPUTS


class ParameterError(ValueError):
    """A parameter has a value that cannot be used; the message names it and says what would do."""


@dataclass(frozen=True)
class Spec:
    """One parameter. ``choices`` are for strings and integers, ``bounds`` (inclusive) for numbers."""

    name: str
    default: Any
    description: str
    choices: tuple = ()
    bounds: tuple | None = None
    live: bool = False  # may be changed while the node runs
    type: Parameter.Type | None = None  # of a parameter that need not be set; it has no default then

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


SPECS = (
    Spec("weights", DEFAULT_WEIGHTS, "Name of weights that ship with the package, or path of a .safetensors or .onnx file."),
    Spec("device", "auto", "Where the network runs: auto (the GPU where there is one), cpu, cuda, cuda:1, ..."),
    Spec(
        "precision", "auto",
        "Of the network; auto: int8 by OpenVINO on a CPU that can, else bfloat16 where hardware has it, else float16 on a GPU, "
        "float32 on a CPU.",
        choices=("auto", *PRECISIONS),
    ),
    Spec(
        "runtime", "auto", "What computes the network; auto: OpenVINO on a CPU (int8, float32) where installed, else torch.",
        choices=RUNTIMES,
    ),
    Spec(
        "scale", 0, "Trained scale to use; 0 chooses the one nearest to the ratio of the image sizes.", choices=(0, 4, 8, 16)
    ),
    Spec(
        "ensemble", 1, "Views of each pair, turned and mirrored, whose results are averaged: more accurate, and slower.",
        choices=tuple(VIEWS), live=True,
    ),
    Spec(
        "max_fill_px", 16.0, "Holes are filled up to this many output pixels away from a measured one.",
        bounds=(0.0, 4096.0), live=True,
    ),
    Spec(
        "sync_slop", 0.015, "Largest difference in seconds of the stamps of a pair; keep it under half a frame period.",
        bounds=(0.0, 10.0),
    ),
    Spec("sync_queue_size", 10, "Messages of each topic that wait for their partner.", bounds=(1, 1000)),
    Spec(
        "output_encoding", "32FC1", "Of the upsampled depth: 32FC1 (metres, NaN invalid) or 16UC1 (millimetres, 0 invalid).",
        choices=("32FC1", "16UC1"), live=True,
    ),
    Spec("cloud_stride", 1, "The cloud takes every n-th row and column.", bounds=(1, 64), live=True),
    Spec(
        "stamp_source", "color", "Whose stamp the outputs carry; they are in the colour camera's frame either way.",
        choices=("color", "depth"), live=True,
    ),
    Spec(
        "registration", "auto", "Whether depth is brought into the colour camera's view here; auto goes by frame_ids, sizes and "
        "intrinsics.", choices=REGISTRATIONS,
    ),
    Spec(
        "extrinsics", (), "From the depth to the colour camera, tx ty tz (metres) qx qy qz qw; not set: from TF.",
        type=Parameter.Type.DOUBLE_ARRAY,
    ),
    Spec("tf_timeout", 2.0, "Seconds to wait for the transform between the cameras, once.", bounds=(0.0, 60.0)),
    Spec(
        "output_geometry", "raw", "raw: the colour image's own geometry, with its distortion; rectified: without.",
        choices=GEOMETRIES,
    ),
    Spec(
        "rectified_input", "auto", "Which images come without lens distortion although their camera info has some; auto: those "
        "of topics with rect or rectified in their name.", choices=RECTIFIED_INPUTS,
    ),
    Spec(
        "compressed_input", "auto", "Which images come as CompressedImage; auto: those of topics named .../compressed or "
        ".../compressedDepth.", choices=COMPRESSED_INPUTS,
    ),
    Spec(
        "output_frame", "", "frame_id of the outputs; empty: the colour image's. For drivers whose own is not an optical frame.",
    ),
    Spec("min_depth", 0.05, "Measurements nearer than this are rejected, metres.", bounds=(0.0, 1000.0), live=True),
    Spec("max_depth", 20.0, "Measurements farther than this are rejected, metres.", bounds=(0.0, 1000.0), live=True),
    Spec("hygiene", True, "Whether flying and stray measurements are rejected.", live=True),
    Spec(
        "depth_range", "stable", "What depth is normalised by: stable over time, or each frame's own range.",
        choices=RANGES, live=True,
    ),
    Spec("consistency", True, "Whether the result must reproduce the measurements within the bounds.", live=True),
    Spec("bound_abs", 0.02, "Bound of consistency, metres.", bounds=(0.0, 10.0), live=True),
    Spec("bound_rel", 0.02, "Bound of consistency as a share of the depth; the larger counts.", bounds=(0.0, 1.0), live=True),
    Spec(
        "points_provenance", "all", "Which points the cloud holds: measured; refined: these and moved edges; filled: these and "
        "filled holes; all.", choices=tuple(POINTS_PROVENANCE), live=True,
    ),
    Spec(
        "drift_threshold_px", 2.0, "Offset between depth and colour edges, in pixels, above which the calibration is said to "
        "have drifted, if it is above 0.6 low-resolution cells too (2.4 px at x4); 0 does not watch.",
        bounds=(0.0, 100.0), live=True,
    ),
    Spec(
        "color_offset", (), "Where colour lies seen from depth, [dx, dy] pixels to the right and down, taken out of the results.",
        type=Parameter.Type.DOUBLE_ARRAY, live=True,
    ),
    Spec(
        "correct_offset", False, "Whether an offset of up to 10 pixels that edges show with confidence is taken out, too.",
        live=True,
    ),
    Spec("threads", 0, "CPU threads of the network; 0 leaves it to torch.", bounds=(0, 256)),
)  # fmt: skip


class NodeParameters:
    """Declares :data:`SPECS` on a node and gives their current values as attributes.

    Raises:
        ParameterError: a start value is of the wrong type or out of range.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        for spec in SPECS:
            try:
                start = spec.default if spec.type is None else spec.type
                spec.check(node.declare_parameter(spec.name, start, spec.descriptor()).value)
            except (InvalidParameterTypeException, InvalidParameterValueException) as error:
                raise ParameterError(f"parameter '{spec.name}' must be {spec.wanted()}: {error}") from error
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
