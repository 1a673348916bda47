"""Publishes a folder recording (see d2a2_core.recording) as the four topics of a colour and a depth camera."""

from __future__ import annotations

import sys
import time

from rcl_interfaces.msg import FloatingPointRange, ParameterDescriptor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from d2a2_core.recording import Recording, RecordingError
from d2a2_ros.cameras import info_from_camera
from d2a2_ros.images import to_message
from d2a2_ros.run import run

_DISCOVERY = 1.0  # seconds that connections beyond the player's own (of the outputs, for instance) get to be made


class RecordingPlayer(Node):
    """Plays frame after frame with fresh stamps; ``finished`` turns true after the last one, unless it loops.

    Raises:
        RecordingError: the folder cannot be played; the message says why.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__("recording_player", **kwargs)

        def parameter(name: str, default, description: str, bounds: tuple | None = None):
            descriptor = ParameterDescriptor(description=description, read_only=True)
            if bounds:
                descriptor.floating_point_range = [FloatingPointRange(from_value=bounds[0], to_value=bounds[1])]
            return self.declare_parameter(name, default, descriptor).value

        folder = parameter("recording", "", "Folder of the recording.")
        rate = parameter("rate_hz", 0.0, "Frames per second; 0 is the rate it was recorded at.", (0.0, 1000.0))
        self._loop = parameter("loop", True, "Start again after the last frame.")
        self._patient = parameter("wait_for_subscribers", False, "Start once both images have a subscriber.")
        self._pause = parameter(
            "first_pause", 0.0, "Seconds after the first frame, for subscribers that take long over one.", (0.0, 600.0)
        )
        color_frame = parameter("color_frame_id", "camera_color_optical_frame", "frame_id of the colour camera.")
        depth_frame = parameter(
            "depth_frame_id", "camera_depth_optical_frame", "frame_id of depth that is not registered."
        )
        if not folder:
            raise RecordingError("parameter 'recording' is empty; set it to the folder of a recording")
        self.recording = Recording(folder)
        self._frames = {"color": color_frame, "depth": color_frame if self.recording.registered else depth_frame}
        self._cameras = {which: self.recording.camera(which) for which in self._frames}
        self._publish = {
            (which, kind): self.create_publisher(
                kind, f"{which}/{topic}", QoSProfile(depth=5),
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            )
            for which in self._frames
            for kind, topic in ((Image, "image_raw"), (CameraInfo, "camera_info"))
        }  # fmt: skip
        if self._cameras["color"] is None:
            self.get_logger().warning(f"{folder} has no calibration for its colour camera: no camera info is published")
        self._next, self.finished = 0, False
        self._since: float | None = None  # when both images were first seen to have a subscriber
        self._resume = 0.0  # when the pause after the first frame is over
        rate = rate or self.recording.rate_hz
        self.create_timer(1.0 / rate, self._on_timer)
        self.get_logger().info(f"{len(self.recording)} frames of {folder} at {rate:g} Hz")

    def _on_timer(self) -> None:
        if self.finished or (self._patient and not self._has_had_subscribers()) or time.monotonic() < self._resume:
            return
        if self._pause:
            self._resume, self._pause = time.monotonic() + self._pause, 0.0
        self._patient = False
        frame = self.recording[self._next]
        stamp = self.get_clock().now().to_msg()
        for which, image, encoding in (("color", frame.color, "rgb8"), ("depth", frame.depth_mm, "16UC1")):
            header = Header(stamp=stamp, frame_id=self._frames[which])
            if self._cameras[which] is not None:
                self._publish[which, CameraInfo].publish(info_from_camera(self._cameras[which], header))
            self._publish[which, Image].publish(to_message(image, encoding, header))
        self._next += 1
        if self._next == len(self.recording):
            self._next = 0
            self.finished = not self._loop

    def _has_had_subscribers(self) -> bool:
        """Whether both images have had a subscriber for a moment."""
        if not all(self._publish[which, Image].get_subscription_count() for which in self._frames):
            self._since = None
            return False
        self._since = self._since or time.monotonic()
        return time.monotonic() - self._since >= _DISCOVERY


def main(args: list[str] | None = None) -> int:
    """Entry point of the executable ``recording_player``; returns its exit status."""
    return run("recording_player", RecordingPlayer, args)


if __name__ == "__main__":
    sys.exit(main())
