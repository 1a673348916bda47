"""The example node, run as a user runs it, and how it reads an image."""

import itertools
import runpy
import subprocess
import sys
import threading

import numpy as np
import pytest

pytest.importorskip("rclpy")


@pytest.mark.parametrize("big_endian", [False, True])
def test_depth_is_read_with_padded_rows_and_either_byte_order(repo, big_endian):
    from sensor_msgs.msg import Image

    depth = np.array([[1.5, np.nan, 2.0], [np.nan, 0.25, 7.0]], np.float32)
    padded = np.full((2, 5), -1.0, ">f4" if big_endian else "<f4")
    padded[:, :3] = depth
    msg = Image(height=2, width=3, encoding="32FC1", is_bigendian=int(big_endian), step=20)
    msg.data.frombytes(padded.tobytes())
    example = runpy.run_path(str(repo / "examples" / "subscribe.py"))
    np.testing.assert_array_equal(example["depth_array"](msg), depth)

    msg.encoding = "16UC1"
    with pytest.raises(ValueError, match="32FC1"):
        example["depth_array"](msg)


def test_subscribe_prints_what_the_node_publishes(repo, bench):
    from sensor_msgs.msg import CameraInfo

    b = bench(max_fill_px=0.0)
    process = subprocess.Popen(
        [sys.executable, str(repo / "examples" / "subscribe.py")], stdout=subprocess.PIPE, text=True
    )
    lines = []
    reader = threading.Thread(target=lambda: [lines.append(line) for line in process.stdout])
    reader.start()
    try:
        for topic in ("depth_upsampled/image_raw", "depth_upsampled/camera_info"):
            b.wait(lambda topic=topic: b.tester.count_subscribers(topic))
        k = [40.0, 0.0, 23.5, 0.0, 40.0, 15.5, 0.0, 0.0, 1.0]
        b.send("color/camera_info", CameraInfo(height=32, width=48, distortion_model="plumb_bob", k=k))
        depth = np.full((8, 12), 1500, np.uint16)
        depth[:, :6] = 0  # no measurement in the left half
        stamps = itertools.count(1)

        def has_printed():
            # Camera info and image are different topics: the first images may come before the camera info.
            b.send_pair(next(stamps), depth=depth)
            return lines

        b.wait(has_printed)
    finally:
        process.terminate()
        process.wait(10)
        reader.join(10)
    assert process.returncode == 0, "a signal is the usual end"
    # 48 pixels at 1.5 m by a lens of 40 pixels.
    assert lines[0] == "median depth 1.500 m, known 50%; the view is 1.80 m wide there\n"
