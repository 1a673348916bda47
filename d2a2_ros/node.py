"""The upsampling node: wiring between the camera topics, DepthPipeline and the output topics."""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import message_filters
import numpy as np
import torch
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType, JumpThreshold
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_msgs.msg import Header

from d2a2_core import DepthUpsampler
from d2a2_core.depth.provenance import only
from d2a2_core.geometry import Camera, back_project
from d2a2_core.geometry.plan import RegistrationError
from d2a2_core.messages.camera_info import camera_from_info, is_rectified, rectified_info, resized_info
from d2a2_core.messages.encodings import FrameError
from d2a2_core.pipeline import DepthPipeline, PipelineResult, describe
from d2a2_core.weights.sidecars import load_sigma_head
from d2a2_ros.cameras import info_from_camera
from d2a2_ros.clouds import cloud_message
from d2a2_ros.diagnostics import Reporter, Statistics, diagnostic_array, drift_report
from d2a2_ros.images import color_array, depth_array, depth_message, image_type, to_message
from d2a2_ros.parameters import NodeParameters
from d2a2_ros.run import run
from d2a2_ros.transforms import ExtrinsicsSource
from d2a2_ros.worker import LatestWorker

_INFO_WAIT = 0.5  # seconds, once; drivers send the first camera info just after the first image
_SILENCE = 10.0  # seconds without pairs before the node says what is missing; cameras take a while to start
# A recording that starts again sends its first stamps again. One late image is not that: so many in a row, so late, are.
_RESTART_IMAGES, _RESTART_SECONDS = 10, 0.5


@dataclass(frozen=True)
class Pair:
    """What the worker gets: the messages of one pair, by reference; ``epoch`` counts how often stamps began anew."""

    color: Image | CompressedImage
    depth: Image | CompressedImage
    color_info: CameraInfo | None
    depth_info: CameraInfo | None
    epoch: int


class UpsampleNode(Node):
    """Subscribes to a colour and a depth camera, publishes depth and a cloud at the colour camera's resolution.

    Raises:
        ParameterError, WeightsError, ValueError: a parameter cannot be used; the message says which and why.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__("upsample_node", **kwargs)
        self.settings = NodeParameters(self)
        if self.settings.threads:
            torch.set_num_threads(self.settings.threads)
        self.upsampler = DepthUpsampler.from_pretrained(
            self.settings.weights,
            self.settings.device,
            self.settings.precision,
            scale=self.settings.scale,
            ensemble=self.settings.ensemble,
            runtime=self.settings.runtime,
        )
        self.pipeline = DepthPipeline(self.upsampler, self.settings.pipeline(), load_sigma_head(self.settings.weights))
        self.extrinsics = ExtrinsicsSource(self, self.settings.extrinsics, self.settings.tf_timeout)
        self.statistics = Statistics()
        self.reporter = Reporter(self.get_logger())
        self._infos: dict[str, CameraInfo] = {}
        self._sizes: tuple | None = None
        self._registration, self._offset = "", (0, 0)
        self._runtime = self.upsampler.runtime
        self._last: tuple[int, Time] | None = None  # epoch and stamp of what was published last; the worker's own
        self._newest: Time | None = None  # colour stamp
        self._late, self._epoch, self._pipeline_epoch = 0, 0, 0
        self._figures: dict[str, str] = {}
        self._infos_awaited = False
        self._quiet_since, self._seen = time.monotonic(), (0, 0, 0)
        self._problem = ""
        self._create_publishers()
        self._worker = LatestWorker(self._process, self._on_error)
        self._create_subscriptions()
        # Not the node's clock: with use_sim_time and no /clock that stands still, and this is what tells so.
        self.create_timer(1.0, self._on_timer, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._jump = self.get_clock().create_jump_callback(
            JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=False),
            post_callback=lambda _: self._start_over("the clock jumped back"),
        )
        self.get_logger().info(
            f"weights '{self.settings.weights}' for scales {list(self.upsampler.scales)} on {self.upsampler.device} "
            f"({self.upsampler.precision}, {self.upsampler.runtime}); "
            f"waiting for {self._color.sub.topic_name} and {self._depth.sub.topic_name}"
        )

    @property
    def busy(self) -> bool:
        """Whether the worker is still computing, after :meth:`destroy_node` too."""
        return self._worker.alive

    def destroy_node(self) -> None:
        """Ends the worker (waiting a moment for the frame it computes), then the node."""
        self.extrinsics.stop()
        self._worker.stop()
        self._jump.unregister()
        super().destroy_node()

    # -- topics --------------------------------------------------------------------------------------------------

    def _create_publishers(self) -> None:
        def publisher(kind, topic):
            # Reliable like a driver's, so that every kind of subscriber can connect; overridable per topic.
            overriding = QoSOverridingOptions.with_default_policies()
            return self.create_publisher(kind, topic, QoSProfile(depth=2), qos_overriding_options=overriding)

        self._depth_out = publisher(Image, "depth_upsampled/image_raw")
        self._info_out = publisher(CameraInfo, "depth_upsampled/camera_info")
        self._provenance_out = publisher(Image, "depth_upsampled/provenance")
        self._sigma_out = publisher(Image, "depth_upsampled/sigma")
        self._cloud_out = publisher(PointCloud2, "depth_upsampled/points")
        self._diagnostics_out = self.create_publisher(DiagnosticArray, "/diagnostics", 10)

    def _create_subscriptions(self) -> None:
        def options() -> dict[str, object]:
            # A profile of its own for each: rclpy writes a topic's overrides into the one that it is given.
            profile, overriding = copy.copy(qos_profile_sensor_data), QoSOverridingOptions.with_default_policies()
            return {"qos_profile": profile, "qos_overriding_options": overriding}

        def images(which: str, topic: str) -> message_filters.Subscriber:
            kind = image_type(self.settings.compressed_input, which, self.resolve_topic_name(topic))
            return message_filters.Subscriber(self, kind, topic, **options())

        self._color, self._depth = images("color", "color/image_raw"), images("depth", "depth/image_raw")
        self._color.registerCallback(self._on_color)  # before the synchroniser, which may have to start over
        self._depth.registerCallback(lambda _: self.statistics.count("depth"))
        self._sync = message_filters.ApproximateTimeSynchronizer(
            [self._color, self._depth], self.settings.sync_queue_size, max(self.settings.sync_slop, 1e-9)
        )  # message_filters pairs what is nearer than the slop: with 0 not even equal stamps
        self._sync.registerCallback(self._on_pair)
        for which in ("color", "depth"):
            keep = partial(self._infos.__setitem__, which)
            self.create_subscription(CameraInfo, f"{which}/camera_info", keep, **options())

    def _on_color(self, msg: Image | CompressedImage) -> None:
        """Counts, and notices that a recording plays again from its start."""
        self.statistics.count("color")
        stamp = Time.from_msg(msg.header.stamp)
        if self._newest is None or stamp > self._newest:
            self._newest, self._late = stamp, 0
        elif (self._newest - stamp).nanoseconds > _RESTART_SECONDS * 1e9:
            self._late += 1
            if self._late >= _RESTART_IMAGES:
                self._start_over(f"{self._late} images in a row were more than {_RESTART_SECONDS:g} s old")

    def _start_over(self, why: str) -> None:
        """Stamps begin anew: nothing that was kept from before may hold them up."""
        self._epoch += 1
        self._newest = None
        self._late = 0
        with self._sync.lock:  # it remembers the latest stamps
            for queue in self._sync.queues:
                queue.clear()
        self.get_logger().info(f"{why}; taking stamps as they come again")

    def _outputs(self) -> tuple:
        return self._depth_out, self._info_out, self._provenance_out, self._sigma_out, self._cloud_out

    # -- from the synchroniser to the worker ---------------------------------------------------------------------

    def _on_pair(self, color: Image | CompressedImage, depth: Image | CompressedImage) -> None:
        """Runs under the synchroniser's lock, so it only hands references over."""
        self.statistics.count("pairs")
        if not any(publisher.get_subscription_count() for publisher in self._outputs()):
            self.statistics.count("unwanted")
        elif self._worker.put(Pair(color, depth, self._infos.get("color"), self._infos.get("depth"), self._epoch)):
            self.statistics.count("replaced")

    def _process(self, pair: Pair) -> None:
        """One pair from messages to messages, in the worker's thread."""
        started = time.monotonic()
        stamp = Time.from_msg((pair.depth if self.settings.stamp_source == "depth" else pair.color).header.stamp)
        if self._last is not None and self._last[0] == pair.epoch and stamp <= self._last[1]:
            self.statistics.count("stale")
            self.statistics.last_fault = "dropped a pair whose stamp is not after the last published one"
            self.reporter.report("stale", self.statistics.last_fault)
            return
        pair = self._described(self._with_infos(pair))
        try:
            result = self._compute(pair)
        except (FrameError, ValueError) as error:
            # The start of a message tells the cause; the figures after it may differ from frame to frame.
            self._unusable(getattr(error, "cause", str(error)[:40]), str(error))
            return
        if self._worker.stopped:  # the publishers may be gone
            return
        if pair.epoch != self._epoch:  # stamps began anew while it was computed
            self.statistics.count("stale")
            return
        frame_id = self.settings.output_frame or pair.color.header.frame_id
        self._publish(result, pair.color_info, Header(stamp=stamp.to_msg(), frame_id=frame_id))
        self._last = pair.epoch, stamp
        age = (self.get_clock().now().nanoseconds - stamp.nanoseconds) * 1e-9
        self.statistics.published(time.monotonic() - started, age)

    def _with_infos(self, pair: Pair) -> Pair:
        """The pair with the camera infos that it lacks, should they have come. Waits a moment for published ones, once.

        Without, the first pair of a raw depth camera would be taken for a registered one.
        """
        missing = [w for w, info in (("color", pair.color_info), ("depth", pair.depth_info)) if info is None]
        end = time.monotonic() + (0.0 if self._infos_awaited else _INFO_WAIT)
        self._infos_awaited = True
        for which in missing:
            published = self.count_publishers(self.resolve_topic_name(f"{which}/camera_info"))
            while published and which not in self._infos and not self._worker.stopped and time.monotonic() < end:
                time.sleep(0.01)
        return replace(pair, **{f"{which}_info": self._infos.get(which) for which in missing}) if missing else pair

    def _described(self, pair: Pair) -> Pair:
        """The pair with infos that fit its images: a rectified image's without distortion, none where there is no such."""
        infos = {}
        for which, info, subscriber in (
            ("color", pair.color_info, self._color), ("depth", pair.depth_info, self._depth)
        ):  # fmt: skip
            topic = subscriber.sub.topic_name
            if info is None or not is_rectified(self.settings.rectified_input, which, topic):
                continue
            try:
                infos[f"{which}_info"] = rectified_info(info)
            except ValueError as error:
                infos[f"{which}_info"] = None
                self.reporter.report(f"rectified {which}", f"camera info for {topic} is not used: it {error}")
        return replace(pair, **infos) if infos else pair

    def _compute(self, pair: Pair) -> PipelineResult:
        color = self._read("colour", color_array, pair.color)
        depth = self._read("depth", depth_array, pair.depth)
        self._note_changes(color.shape[:2], depth.shape)
        frames = pair.color.header.frame_id, pair.depth.header.frame_id
        if pair.epoch != self._pipeline_epoch:
            self.pipeline.reset()
            self._pipeline_epoch = pair.epoch
        self.pipeline.settings = settings = self.settings.pipeline()
        self.upsampler.ensemble = self.settings.ensemble
        extrinsics = None if settings.registration == "off" else self.extrinsics.lookup(*frames)
        with_sigma = self._sigma_out.get_subscription_count() > 0
        try:
            result = self.pipeline.process(
                color, depth, self._camera(pair.color_info, color), self._camera(pair.depth_info, depth), extrinsics, *frames,
                with_sigma,
            )  # fmt: skip
        except RegistrationError as error:
            if not self.extrinsics.blind or frames[0] == frames[1]:
                raise
            hint = "TF cannot be asked here, because Python's tf2_ros (package tf2_ros_py) does not import"
            raise RegistrationError(f"{error} ({hint})") from error
        self._figures = describe(result)
        if self.upsampler.runtime != self._runtime:
            self._runtime = self.upsampler.runtime
            self.reporter.report("runtime", f"{self.upsampler.runtime_problem}; PyTorch goes on")
        if result.offset != self._offset:
            self._offset = result.offset
            self.get_logger().info(
                f"colour lies {result.offset[0]:+d} {result.offset[1]:+d} px beside depth, taken out"
            )
        if result.registration != self._registration:
            self._registration = result.registration
            self.get_logger().info(result.registration)
        if frames[0] != frames[1] and result.assumed_registered:
            self.reporter.report("frames", result.registration)
        return result

    def _camera(self, info: CameraInfo | None, image: np.ndarray) -> Camera | None:
        """The camera of the image that really came; None, and a report, where it is not calibrated."""
        if info is None:
            return None
        height, width = image.shape[:2]
        whole = info.width and info.height and not info.roi.width
        if whole and abs(info.width * height / (info.height * width) - 1) > 0.02:
            self.reporter.report(
                f"shape {info.header.frame_id}",
                f"camera info of '{info.header.frame_id}' is for {info.width}x{info.height}, its image has {width}x{height}: it "
                "is stretched to that; if the driver cuts the image, the calibration is wrong",
            )
        try:
            return camera_from_info(resized_info(info, width, height, info.header))
        except ValueError as error:
            self.reporter.report(f"camera {info.header.frame_id}", f"camera info of '{info.header.frame_id}': {error}")
            return None

    @staticmethod
    def _read(which: str, reader: Callable[[Any], np.ndarray], msg: Image | CompressedImage) -> np.ndarray:
        try:
            return reader(msg)
        except FrameError as error:
            raise FrameError(f"{which} {error.cause}", f"{which}: {error}") from error

    def _publish(self, result: PipelineResult, info: CameraInfo | None, header: Header) -> None:
        height, width = result.depth.shape
        if info is None:
            self.reporter.report(
                "info", f"no camera info on {self.resolve_topic_name('color/camera_info')}: depth is published without "
                "camera info and cloud",
            )  # fmt: skip
        elif self.settings.output_geometry == "rectified":
            info = info_from_camera(result.camera, header)
        else:
            info = resized_info(info, width, height, header)
        if result.camera and self._cloud_out.get_subscription_count():
            self._publish_cloud(result, header)
        if self._depth_out.get_subscription_count():
            self._depth_out.publish(depth_message(result.depth, self.settings.output_encoding, header))
        if self._provenance_out.get_subscription_count():
            self._provenance_out.publish(to_message(result.provenance, "mono8", header))
        if result.sigma is not None and self._sigma_out.get_subscription_count():
            self._sigma_out.publish(to_message(result.sigma, "32FC1", header))
        if info:
            self._info_out.publish(info)

    def _publish_cloud(self, result: PipelineResult, header: Header) -> None:
        depth = only(self.settings.points_provenance, result.depth, result.provenance)
        stride = self.settings.cloud_stride
        thin = np.s_[::stride, ::stride]
        points = back_project(depth, result.camera, stride)
        self._cloud_out.publish(cloud_message(points, result.color[thin], result.provenance[thin], header))

    # -- faults --------------------------------------------------------------------------------------------------

    def _note_changes(self, color: tuple[int, int], depth: tuple[int, int]) -> None:
        """Says what is not an error but is seldom meant."""
        if self._sizes not in (None, (color, depth)):
            (ch, cw), (dh, dw) = self._sizes
            self.reporter.report(
                f"sizes {color} {depth}",
                f"image sizes changed from colour {cw}x{ch}, depth {dw}x{dh} to colour {color[1]}x{color[0]}, depth "
                f"{depth[1]}x{depth[0]}; going on with the new ones",
            )
        self._sizes = (color, depth)

    def _unusable(self, cause: str, message: str) -> None:
        self.statistics.count("unusable")
        self.statistics.last_fault = message
        self.reporter.report(cause, f"skipped a pair: {message}")

    def _on_error(self, error: BaseException) -> None:
        """An error that nothing foresaw: the pair is lost, the node lives on."""
        if not self.context.ok():  # publishing failed because the node ends
            return
        self._unusable(type(error).__name__, f"{type(error).__name__}: {error}")

    def _on_timer(self) -> None:
        self._problem = self._what_is_missing()
        if self._problem:
            cause = self._problem.split(":")[0] + self._problem.partition(";")[2]  # without the figures, which grow
            self.reporter.report(cause, self._problem)
        constants = {
            "weights": self.settings.weights, "device": str(self.upsampler.device), "precision": self.upsampler.precision,
            "runtime": self.upsampler.runtime,
        }  # fmt: skip
        constants |= self._figures
        with self.pipeline.watching:
            drift, offset = drift_report(self.pipeline.watchdog, self.settings.drift_threshold_px)
        if drift:
            self.reporter.report("drift", drift)
        name, now, problem = self.get_fully_qualified_name(), self.get_clock().now(), self._problem or drift
        self._diagnostics_out.publish(diagnostic_array(name, now, self.statistics, constants | offset, problem))

    def _what_is_missing(self) -> str:
        """Why no pairs arrived for a while, or nothing."""
        seen = tuple(self.statistics[key] for key in ("color", "depth", "pairs"))
        color, depth, pairs = (now - before for now, before in zip(seen, self._seen, strict=True))
        if pairs:
            self._quiet_since, self._seen = time.monotonic(), seen
            return ""
        if time.monotonic() - self._quiet_since < _SILENCE:
            return self._problem
        if not color and not depth:
            names = [subscriber.sub.topic_name for subscriber in (self._color, self._depth)]
            counts = [self.count_publishers(name) for name in names]
            return (
                f"no images: nothing came on {names[0]} ({counts[0]} publishers) and {names[1]} ({counts[1]} publishers); "
                "are the cameras running, and the topics remapped to theirs?"
                + self._hint("color")
                + self._hint("depth")
            )
        if not depth:
            name = self._depth.sub.topic_name
            return f"no depth images: {color} colour images came, but nothing on {name}" + self._hint("depth")
        if not color:
            name = self._color.sub.topic_name
            return f"no colour images: {depth} depth images came, but nothing on {name}" + self._hint("color")
        return (
            f"no pairs: {color} colour and {depth} depth images came, but no two stamps within sync_slop="
            f"{self.settings.sync_slop} s; are both cameras' clocks synchronised?"
        )

    def _hint(self, which: str) -> str:
        """What the ROS graph tells about an image topic on which nothing comes: images of the other type, or beside it."""
        subscription = (self._color if which == "color" else self._depth).sub
        name, wanted = subscription.topic_name, subscription.msg_type
        other = Image if wanted is CompressedImage else CompressedImage
        types = {info.topic_type for info in self.get_publishers_info_by_topic(name)}
        if f"sensor_msgs/msg/{other.__name__}" in types:
            return (
                f"; {name} carries {other.__name__}, but the node listens for {wanted.__name__}: set the parameter "
                "compressed_input"
            )
        beside = [f"{name}/{suffix}" for suffix in ("compressed", "compressedDepth")]
        found = [topic for topic in beside if not types and self.count_publishers(topic)]
        return f"; there is {' and '.join(found)}, give that as {which}_image" if found else ""


def main(args: list[str] | None = None) -> int:
    """Entry point of the executable ``upsample_node``; returns its exit status."""
    return run("upsample_node", UpsampleNode, args)


if __name__ == "__main__":
    sys.exit(main())
