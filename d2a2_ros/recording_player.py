"""Publishes a folder recording (see d2a2_core.recording) as the four topics of a colour and a depth camera."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import SimpleNamespace

from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from d2a2_core.recording import Recording, RecordingError
from d2a2_ros.cameras import info_from_camera
from d2a2_ros.images import to_message
from d2a2_ros.parameter_spec import Spec
from d2a2_ros.qos import publisher_options
from d2a2_ros.run import run

_DISCOVERY = 1.0  # seconds that connections beyond the player's own (of the outputs, for instance) get to be made
_LOOK = 0.1  # seconds between looks for subscribers, until the first frame is sent

SPECS = (
    Spec(
        "recording",
        "",
        "Folder of the recording.",
        details="Must be set. demo.launch.py takes the sample that ships with the package.",
    ),
    Spec(
        "rate_hz",
        0.0,
        "Frames per second; 0 is the rate it was recorded at.",
        bounds=(0.0, 1000.0),
        details="Where the recording does not say its rate, it is 15.",
    ),
    Spec("loop", True, "Whether to start again after the last frame.", details="Otherwise the node ends there."),
    Spec(
        "wait_for_subscribers",
        False,
        "Whether to wait until both images have a subscriber.",
        details="demo.launch.py sets it.",
    ),
    Spec(
        "first_pause",
        0.0,
        "Seconds of pause after the first frame, for subscribers that take long over one.",
        bounds=(0.0, 600.0),
        details="The node is slower while OpenVINO compiles.",
    ),
    Spec("color_frame_id", "camera_color_optical_frame", "frame_id of the colour camera."),
    Spec("depth_frame_id", "camera_depth_optical_frame", "frame_id of depth that is not registered."),
)


class RecordingPlayer(Node):
    """Plays frame after frame with fresh stamps; ``finished`` turns true after the last one, unless it loops.

    Raises:
        ParameterError: a parameter is of the wrong type or out of range.
        RecordingError: the folder cannot be played; the message says why.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__("recording_player", **kwargs)
        given = SimpleNamespace(**{spec.name: spec.declare(self) for spec in SPECS})
        folder, rate = given.recording, given.rate_hz
        self._loop, self._patient, self._pause = given.loop, given.wait_for_subscribers, given.first_pause
        if not folder:
            raise RecordingError("parameter 'recording' is empty; set it to the folder of a recording")
        self.recording = Recording(folder)
        depth_frame = given.color_frame_id if self.recording.registered else given.depth_frame_id
        self._frames = {"color": given.color_frame_id, "depth": depth_frame}
        self._cameras = {which: self.recording.camera(which) for which in self._frames}
        self._publish = {
            (which, kind): self.create_publisher(kind, f"{which}/{topic}", **publisher_options(depth=5))
            for which in self._frames
            for kind, topic in ((Image, "image_raw"), (CameraInfo, "camera_info"))
        }
        if self._cameras["color"] is None:
            self.get_logger().warning(f"{folder} has no calibration for its colour camera: no camera info is published")
        self._next, self.finished = 0, False
        self._since: float | None = None  # when both images were first seen to have a subscriber
        rate = rate or self.recording.rate_hz
        self._period = 1.0 / rate
        self._timer = self.create_timer(_LOOK, self._start)
        self.get_logger().info(f"{len(self.recording)} frames of {folder} at {rate:g} Hz")

    def _start(self) -> None:
        """Sends the first frame as soon as it may be sent, whatever the rate: at low ones subscribers would wait for periods."""
        if self._patient and not self._has_had_subscribers():
            return
        self._send()
        self._continue_in(max(self._pause, self._period), self._go_on)

    def _go_on(self) -> None:
        """After the pause that follows the first frame."""
        self._send()
        self._continue_in(self._period, self._send)

    def _continue_in(self, period: float, callback: Callable[[], None]) -> None:
        self._timer.cancel()
        self._timer = self.create_timer(period, callback)

    def _send(self) -> None:
        if self.finished:
            return
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
