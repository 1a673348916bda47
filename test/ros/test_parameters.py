"""Values that a parameter does not take are refused when a node starts, with a message that says what would do."""

import pytest

rclpy = pytest.importorskip("rclpy", reason="the nodes need rclpy")

from d2a2_ros.parameter_spec import ParameterError  # noqa: E402
from d2a2_ros.parameters import NodeParameters  # noqa: E402
from d2a2_ros.recording_player import RecordingPlayer  # noqa: E402


@pytest.mark.parametrize(
    ("create", "given", "said"),
    [
        (RecordingPlayer, "rate_hz:=5", "'rate_hz' must be float from 0.0 to 1000.0, with a decimal point"),
        (RecordingPlayer, "rate_hz:=5000.0", "'rate_hz' must be float from 0.0 to 1000.0"),
        (RecordingPlayer, "loop:=1", "'loop' must be bool"),
        (NodeParameters, "registration:=on", 'in quotes: registration: "on"'),
        (NodeParameters, "scale:=5", r"'scale' must be one of \[0, 4, 8, 16\], got 5"),
        (NodeParameters, "extrinsics:=[1, 0, 0]", "'extrinsics' must be a list of numbers, each with decimal points"),
    ],
)
def test_wrong_start_values_are_named(create, given, said):
    context = rclpy.Context()
    rclpy.init(args=["--ros-args", "-p", given], context=context)
    try:
        with pytest.raises(ParameterError, match=said):
            create(context=context) if create is RecordingPlayer else create(rclpy.create_node("n", context=context))
    finally:
        rclpy.shutdown(context=context)
