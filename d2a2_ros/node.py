"""The upsampling node: wiring between the camera topics, a stream of pairs and the output topics."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, replace
from functools import partial

import message_filters
import numpy as np
import torch
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType, JumpThreshold
from rclpy.duration import Duration
from rclpy.time import Time
from rclpy.utilities import get_rmw_implementation_identifier
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_msgs.msg import Header

from d2a2_core.errors import error_cause
from d2a2_core.geometry import Extrinsics
from d2a2_core.messages.pair_reader import WORDS
from d2a2_core.pipeline import DepthPipeline, describe
from d2a2_core.stream import PairMessages, Pixels, Stream, StreamOptions, StreamResult, Topics
from d2a2_core.upsampler import DepthUpsampler
from d2a2_ros import shared_memory
from d2a2_ros.budget import Budget, engine_of
from d2a2_ros.checks import image_problem, info_problem
from d2a2_ros.clouds import cloud_message
from d2a2_ros.diagnostics import Problem, Reporter, Statistics, diagnostic_array, drift_report
from d2a2_ros.guard import GuardedNode
from d2a2_ros.images import color_array, depth_array, image_type, to_compressed_depth, to_message
from d2a2_ros.infos import InfoSubscription
from d2a2_ros.pairing import Pairing
from d2a2_ros.parameters import NodeParameters
from d2a2_ros.qos import publisher_options, subscription_options
from d2a2_ros.run import run
from d2a2_ros.silence import Silence
from d2a2_ros.transforms import ExtrinsicsSource
from d2a2_ros.worker import LatestWorker

_INFO_WAIT = 0.5  # seconds, once; drivers send the first camera info just after the first image
_LOOK = 0.2  # seconds between looks for latched camera infos
_SHARED_MEMORY_TICKS = 10  # seconds between looks at shared memory
#: Only with the parameter compressed_output.
COMPRESSED = "image_raw/compressedDepth"
OUTPUTS = {
    "image_raw": Image,
    COMPRESSED: CompressedImage,
    "camera_info": CameraInfo,
    "provenance": Image,
    "sigma": Image,
    "points": PointCloud2,
}


@dataclass(frozen=True)
class Job:
    """What the worker gets: the messages of one pair, by reference; ``epoch`` counts how often stamps began anew."""

    pair: PairMessages
    epoch: int


class UpsampleNode(GuardedNode):
    """Subscribes to a colour and a depth camera, publishes depth and a cloud at the colour camera's resolution.

    Raises:
        ParameterError, WeightsError, ValueError: A parameter cannot be used; the message says which and why.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__("upsample_node", **kwargs)
        self.settings = NodeParameters(self)
        if self.settings.threads:
            torch.set_num_threads(self.settings.threads)
        self.settings.stream()  # what does not go together fails here, not with each pair
        self.reporter = Reporter(self.get_logger())
        self.engine = engine_of(self.settings, self.inform)
        self.budget = Budget(self.engine, self.settings.weights, self.inform, self.report)
        self.transforms = ExtrinsicsSource(
            self, self.settings.extrinsics, self.settings.tf_timeout, poses=self.settings.temporal == "moving"
        )
        self.statistics = Statistics()
        self._infos: dict[str, CameraInfo] = {}
        self._infos_awaited = False
        self._runtime_problem, self._starting = "", False
        self._epoch, self._stream_epoch, self._ticks = 0, 0, 0
        self._memory: shared_memory.SharedMemory | None = None
        self._figures: dict[str, str] = {}
        self._create_publishers()
        self._worker = LatestWorker(self._process, self._on_error)
        self._create_subscriptions()
        color, depth = self._color.sub.topic_name, self._depth.sub.topic_name
        self.stream = Stream(self.engine, self, Topics(color, depth, self.resolve_topic_name("color/camera_info")))
        # Not the node's clock: with use_sim_time and no /clock that stands still, and this is what tells so.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1.0, self._on_timer, clock=steady)
        self.create_timer(_LOOK, self._look_for_infos, clock=steady)
        self._jump = self.get_clock().create_jump_callback(
            JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=False),
            post_callback=lambda _: self._start_over("the clock jumped back"),
        )
        self.get_logger().info(
            f"weights '{self.settings.weights}' for scales {list(self.upsampler.scales)} on {self.upsampler.device} "
            f"({self.upsampler.precision}, {self.upsampler.runtime}); waiting for {color} and {depth}"
        )

    @property
    def pipeline(self) -> DepthPipeline:
        """What computes now."""
        return self.engine.pipeline

    @property
    def upsampler(self) -> DepthUpsampler:
        """The network that computes now."""
        return self.engine.pipeline.upsampler

    @property
    def busy(self) -> bool:
        """Whether a thread is still computing or compiling, after :meth:`destroy_node` too."""
        return self._worker.alive or self.engine.preparing

    def destroy_node(self) -> None:
        """Ends the worker (waiting a moment for the frame it computes), then the node."""
        self.transforms.stop()
        self._worker.stop()
        self._jump.unregister()
        super().destroy_node()

    # -- topics --------------------------------------------------------------------------------------------------

    def _create_publishers(self) -> None:
        self._outputs = {
            name: self.create_publisher(kind, f"depth_upsampled/{name}", **publisher_options(depth=2))
            for name, kind in OUTPUTS.items()
            if name != COMPRESSED or self.settings.compressed_output
        }
        self._diagnostics_out = self.create_publisher(DiagnosticArray, "/diagnostics", 10)

    def _create_subscriptions(self) -> None:
        def images(which: str, topic: str) -> message_filters.Subscriber:
            kind = image_type(self.settings.compressed_input, which, self.resolve_topic_name(topic))
            subscriber = message_filters.Subscriber(self, kind, topic, **subscription_options())
            subscriber.registerCallback(partial(self._on_image, which))
            return subscriber

        self._pairing = Pairing(self.settings.sync_slop, self.settings.sync_queue_size, self._start_over)
        self._color, self._depth = images("color", "color/image_raw"), images("depth", "depth/image_raw")
        self._info_subscriptions = {
            which: InfoSubscription(self, f"{which}/camera_info", partial(self._on_info, which)) for which in WORDS
        }
        self._silence = Silence(self, self._color.sub, self._depth.sub, self.settings.sync_slop)

    def _look_for_infos(self) -> None:
        for subscription in self._info_subscriptions.values():
            subscription.look()

    def _on_info(self, which: str, msg: CameraInfo) -> None:
        problem = info_problem(which, msg)
        if problem:
            self._reject(problem)
        else:
            self._infos[which] = msg

    def _on_image(self, which: str, msg: Image | CompressedImage) -> None:
        self.statistics.count(which)
        problem = image_problem(which, msg)
        if problem:
            self._reject(problem)
            return
        pair = self._pairing.add(which, msg)
        if pair:
            self._on_pair(*pair)

    def _start_over(self, why: str) -> None:
        """Stamps begin anew: nothing that was kept from before may hold them up."""
        self._epoch += 1
        self._pairing.restart()
        self.get_logger().info(f"{why}; taking stamps as they come again")

    def _wanted(self, name: str) -> bool:
        """Whether an output is made: the camera info always is, it costs nothing; the depth also to be compressed."""
        return name == "camera_info" or self._subscribed(name) or (name == "image_raw" and self._subscribed(COMPRESSED))

    def _subscribed(self, name: str) -> bool:
        return name in self._outputs and self._outputs[name].get_subscription_count() > 0

    # -- from the synchroniser to the worker ---------------------------------------------------------------------

    def _on_pair(self, color: Image | CompressedImage, depth: Image | CompressedImage) -> None:
        """Only hands references over: images must not wait for the network."""
        self.statistics.count("pairs")
        if not any(publisher.get_subscription_count() for publisher in self._outputs.values()):
            self.statistics.count("unwanted")
            return
        pair = PairMessages(color, depth, self._infos.get("color"), self._infos.get("depth"))
        if self._worker.put(Job(pair, self._epoch)):
            self.statistics.count("replaced")

    def _process(self, job: Job) -> None:
        """One pair from messages to messages, in the worker's thread."""
        started = time.monotonic()
        if job.epoch != self._stream_epoch:
            self.stream.restart()
            self._stream_epoch = job.epoch
        pair = self._with_infos(job.pair)
        self.upsampler.ensemble = self.settings.ensemble
        try:
            self.engine.settings, options = self.settings.pipeline(), self.budget.options(self.settings.stream())
            result = self.stream.process(pair, options, self._wanted("sigma"))
        except ValueError as error:
            self._skip(error)
            return
        self._figures = describe(result.result) | ({"temporal": result.temporal} if result.temporal else {})
        self._note_runtime()
        # The publishers may be gone.
        if self._worker.stopped:
            return
        # Stamps began anew while it was computed.
        if job.epoch != self._epoch:
            self.statistics.count("stale")
            return
        self._publish(result, options)
        age = (self.get_clock().now().nanoseconds - result.stamp_ns) * 1e-9
        self.statistics.published(time.monotonic() - started, age)
        self.budget.published(age, self.settings.latency_budget_ms)

    def _note_runtime(self) -> None:
        """Tells what computes now, where that changed."""
        of, problem, starting = self.upsampler, self._runtime_problem, self._starting
        self._runtime_problem, self._starting = of.runtime_problem, of.starting
        if of.runtime_problem not in ("", problem):
            self.report("runtime", f"{of.runtime_problem}; PyTorch goes on")
        elif of.starting and not starting:
            self.inform(
                "PyTorch computes the first frames, while a faster runtime is measured and compiled: some seconds, most of a "
                "minute the first time on this machine"
            )
        elif starting and not of.starting:
            self.inform(f"{of.runtime} ({of.precision}) computes from now on")

    def _with_infos(self, pair: PairMessages) -> PairMessages:
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
        return replace(pair, **{f"{which}_info": self._infos.get(which) for which in missing})

    def _publish(self, result: StreamResult, options: StreamOptions) -> None:
        depth = None
        for name, payload in result.outputs(options, self._wanted):
            if isinstance(payload, Pixels):
                depth = payload.array if name == "image_raw" else depth
                payload = to_message(payload.array, payload.encoding, result.header)
            elif isinstance(payload, np.ndarray):
                payload = cloud_message(payload, result.header)
            self._outputs[name].publish(payload)
        # Last: compressing takes tens of milliseconds.
        if depth is not None and self._subscribed(COMPRESSED):
            self._outputs[COMPRESSED].publish(to_compressed_depth(depth, result.header))

    # -- the stream's host ---------------------------------------------------------------------------------------

    read_color, read_depth = staticmethod(color_array), staticmethod(depth_array)

    def extrinsics(self, color_frame: str, depth_frame: str) -> Extrinsics | None:
        """From the depth to the colour camera: by parameter, else by TF."""
        return self.transforms.lookup(color_frame, depth_frame)

    def pose(self, fixed_frame: str, frame: str, stamp_ns: int) -> np.ndarray | None:
        """Where the camera was, by TF."""
        return self.transforms.pose(fixed_frame, frame, stamp_ns)

    def header(self, stamp_ns: int, frame_id: str) -> Header:
        """A header for the outputs."""
        return Header(stamp=Time(nanoseconds=stamp_ns).to_msg(), frame_id=frame_id)

    def report(self, code: str, message: str, detail: str = "") -> None:
        """Logs a warning, those of the same code and detail at most every 30 seconds."""
        self.reporter.report(f"{code} {detail}", message)

    def inform(self, message: str) -> None:
        """Logs what is no fault."""
        self.get_logger().info(message)

    # -- faults --------------------------------------------------------------------------------------------------

    def _reject(self, problem: Problem) -> None:
        """Counts and reports a message that cannot be used."""
        self.statistics.count("rejected")
        self.statistics.fault = problem
        self.report(problem.code, problem.message)

    def _skip(self, error: ValueError) -> None:
        """Counts and reports a pair that cannot be used."""
        (code, detail), message = error_cause(error), str(error)
        if code == "stale":
            self.statistics.count("stale")
            self.statistics.fault = Problem(code, message)
            self.report(code, message)
            return
        if code == "no_extrinsics" and self.transforms.blind:
            message += (
                " (TF cannot be asked here, because Python's tf2_ros (package tf2_ros_py) and tf2_msgs do not import)"
            )
        self._unusable(code, message, detail)

    def _unusable(self, code: str, message: str, detail: str = "") -> None:
        self.statistics.count("unusable")
        self.statistics.fault = Problem(code, message)
        self.report(code, f"skipped a pair: {message}", detail)

    def _on_error(self, error: Exception) -> None:
        """An error that nothing foresaw: the pair is lost, the node lives on."""
        # Publishing failed because the node ends.
        if self.context.ok():
            code, detail = error_cause(error)
            self._unusable(code, f"{type(error).__name__}: {error}", detail)

    def on_callback_error(self, error: Exception) -> None:
        """An error of a callback that nothing foresaw: what it was called for is lost, the node lives on."""
        if self.context.ok():
            code, detail = error_cause(error)
            self.statistics.count("errors")
            self.statistics.fault = Problem(code, f"unforeseen error: {type(error).__name__}: {error}")
            self.report(code, self.statistics.fault.message, detail)

    def _on_timer(self) -> None:
        drift, offset = drift_report(self.pipeline.offsets, self.settings.drift_threshold_px)
        self._look_at_memory()
        frozen, late, loss = self._pairing.frozen(), self._pairing.late(), self._loss()
        silence = self._silence.problem(self.statistics, self._pairing.apart(), self._worker.busy)
        slow, infos = self.budget.problem(), self._infos_elsewhere()
        room = self._memory.problem() if self._memory else None
        for problem in filter(None, (frozen, late, silence, loss, drift, infos, room, slow)):
            self.report(problem.code, problem.message)
        of = self.upsampler
        runtime = f"{of.runtime}, until a faster one is ready" if of.starting else of.runtime
        state = {"device": str(of.device), "precision": of.precision, "runtime": runtime} | self.budget.figures()
        if self._memory:
            state["shared memory"] = self._memory.text()
        name, now = self.get_fully_qualified_name(), self.get_clock().now()
        figures = state | self._figures | offset | self._pairing.figures()
        doubts = self.stream.doubts  # logged with each pair
        doubt = Problem(*doubts[0]) if doubts else None
        figures["doubts"] = ", ".join(code for code, _ in doubts)
        problem = frozen or late or silence or loss or drift or infos or self.statistics.fault or slow or doubt or room
        self._diagnostics_out.publish(diagnostic_array(name, now, self.statistics, figures, problem))

    def _infos_elsewhere(self) -> Problem | None:
        """Says where the camera infos are of images that come without."""
        images = {"color": self._color, "depth": self._depth}
        without = (which for which in images if self.statistics[which] and which not in self._infos)
        found = (self._info_subscriptions[which].elsewhere(which, images[which].sub.topic_name) for which in without)
        return next(filter(None, found), None)

    def _look_at_memory(self) -> None:
        """Looks at Fast DDS' shared memory every ten seconds; other middleware has its own."""
        if self._ticks % _SHARED_MEMORY_TICKS == 0 and "fastrtps" in get_rmw_implementation_identifier():
            before, self._memory = self._memory, shared_memory.look()
            # Once, not for as long as they lie there: they do no harm while there is room.
            new = self._memory and self._memory.stale > (before.stale if before else 0)
            if new and (left := self._memory.left_over()):
                self.report(left.code, left.message)
        self._ticks += 1

    def _loss(self) -> Problem | None:
        problem = self._pairing.loss()
        if problem is None:
            return None
        where = f" (shared memory: {self._memory.text()})" if self._memory else ""
        hint = (
            f"{problem.message}; the way to the node is too narrow or the machine too busy{where}: see docs/topics.md"
        )
        return Problem(problem.code, hint)


def main(args: list[str] | None = None) -> int:
    """Entry point of the executable ``upsample_node``; returns its exit status."""
    return run("upsample_node", UpsampleNode, args)


if __name__ == "__main__":
    sys.exit(main())
