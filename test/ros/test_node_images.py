"""The node and images that are not as they should be: units of depth, 16-bit guides, claimed sizes."""

import struct

import numpy as np
import pytest

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from image_messages import png
from rclpy.parameter import Parameter
from sensor_msgs.msg import CompressedImage, Image

from d2a2_ros import node as node_module
from d2a2_ros.images import depth_array

DEPTH = "depth_upsampled/image_raw"
COMPRESSED = f"{DEPTH}/compressedDepth"


def problem(b):
    """Level and code of the newest diagnostics."""
    status = b.out["/diagnostics"][-1].status[0]
    return status.level, next(v.value for v in status.values if v.key == "problem")


def test_a_wrong_unit_is_a_warning_until_it_is_cured(bench):
    b = bench()
    b.listen(DEPTH, Image)
    b.listen("/diagnostics", DiagnosticArray)
    millimetres = np.full((8, 12), 1500.0, np.float32)
    for stamp in (1.0, 2.0, 3.0):
        b.send_pair(stamp, depth=millimetres)
        b.wait_for(DEPTH, int(stamp))
    b.wait(lambda: b.out["/diagnostics"] and problem(b) == (DiagnosticStatus.WARN, "depth_limits"))
    # Told once, not with every pair.
    assert len([w for w in b.warnings if "is it in millimetres? Set depth_unit to 0.001" in w]) == 1
    assert b.node.set_parameters([Parameter("depth_unit", value=0.001)])[0].successful
    b.send_pair(4.0, depth=millimetres)
    depth = depth_array(b.wait_for(DEPTH, 4)[3])
    np.testing.assert_allclose(depth, 1.5, atol=0.05)
    b.wait(lambda: problem(b)[1] not in ("depth_limits", "no_depth_values"))
    b.send_pair(5.0, depth=np.zeros((8, 12), np.float32))
    b.wait(lambda: problem(b) == (DiagnosticStatus.WARN, "no_depth_values"))


def test_a_unit_that_cannot_be_is_refused(bench):
    b = bench()
    for value in (-0.001, 1e6, float("nan")):
        assert not b.node.set_parameters([Parameter("depth_unit", value=value)])[0].successful


def test_claimed_sizes_cost_a_pair_and_no_more(bench):
    b = bench(compressed_input="both")
    b.listen(DEPTH, Image)
    good = png(struct.pack(">IIBBBBB", 48, 32, 8, 2, 0, 0, 0), (b"\0" + bytes(144)) * 32)
    fine = png(struct.pack(">IIBBBBB", 12, 8, 16, 0, 0, 0, 0), (b"\0" + b"\x05\xdc" * 12) * 8)
    bomb = png(struct.pack(">IIBBBBB", 65535, 65535, 8, 2, 0, 0, 0), b"")
    zeros = bytes(12) + struct.pack("<IIQ", 8192, 8192, 0)
    pairs = [
        ("png", bomb, "16UC1; png compressed", fine),
        ("png", good, "16UC1; compressedDepth rvl", zeros),
        ("png", good, "16UC1; png compressed", fine),
    ]
    for second, (color_format, color, depth_format, depth) in enumerate(pairs, 1):
        for topic, format, data in (("color/image_raw", color_format, color), ("depth/image_raw", depth_format, depth)):
            msg = CompressedImage(format=format, data=data)
            msg.header.stamp.sec, msg.header.frame_id = second, "camera"
            b.send(topic, msg)
        b.wait(lambda done=second: b.node.statistics["unusable"] + b.node.statistics["published"] == done)
    assert depth_array(b.wait_for(DEPTH)[0]).shape == (32, 48)
    assert b.node.statistics["unusable"] == 2
    assert any("colour: compressed colour image is of 65535x65535 pixels" in w for w in b.warnings)
    assert any("depth: compressed depth image is of 8192x8192 pixels" in w for w in b.warnings)


@pytest.mark.parametrize(("encoding", "tolerance"), [("32FC1", 1.5**2 / 20200), ("16UC1", 0.0)])
def test_compressed_depth_is_the_depth_image(bench, encoding, tolerance):
    b = bench(compressed_output=True, output_encoding=encoding)
    b.listen(DEPTH, Image)
    b.listen(COMPRESSED, CompressedImage)
    depth = np.full((8, 12), 1500, np.uint16)
    depth[2:6, 2:6] = 0
    b.node.set_parameters([Parameter("max_fill_px", value=0.0)])
    b.send_pair(3.0, depth=depth)
    raw, packed = b.wait_for(DEPTH)[0], b.wait_for(COMPRESSED)[0]
    assert packed.format == f"{encoding}; compressedDepth png"
    assert packed.header == raw.header
    expected, got = depth_array(raw), depth_array(packed)
    # 0 is how a 16-bit image says that there is no depth.
    unknown = ~(expected > 0)
    assert unknown.any()
    np.testing.assert_array_equal(~(got > 0), unknown)
    np.testing.assert_allclose(got[~unknown], expected[~unknown], rtol=1e-6, atol=tolerance)


def test_compressed_depth_alone_makes_the_node_compute(bench):
    b = bench(compressed_output=True)
    b.listen(COMPRESSED, CompressedImage)
    b.send_pair()
    np.testing.assert_allclose(depth_array(b.wait_for(COMPRESSED)[0]), 1.5, atol=0.05)
    assert b.node.statistics["unwanted"] == 0


def test_depth_is_compressed_only_for_a_subscriber(bench, monkeypatch):
    made = []
    real = node_module.to_compressed_depth
    monkeypatch.setattr(node_module, "to_compressed_depth", lambda *given: made.append(given) or real(*given))
    b = bench(compressed_output=True)
    b.listen(DEPTH, Image)
    b.send_pair(1.0)
    b.wait_for(DEPTH)
    b.wait(lambda: b.node.statistics["published"] == 1)
    assert not made
    b.listen(COMPRESSED, CompressedImage)
    b.send_pair(2.0)
    b.wait_for(COMPRESSED)
    assert len(made) == 1


def test_without_compressed_output_there_is_no_such_topic(bench):
    b = bench()
    names = {publisher.topic_name for publisher in b.node.publishers}
    assert f"/{DEPTH}" in names
    assert f"/{COMPRESSED}" not in names
    # The publisher is made at the start.
    assert not b.node.set_parameters([Parameter("compressed_output", value=True)])[0].successful
