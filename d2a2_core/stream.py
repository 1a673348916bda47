"""One policy for a stream of pairs: messages and camera infos in; depth, its camera info and their header out.

The live node and `d2a2 bag` both run this, so a bag equals the live node by construction. Messages are anything with the
fields of sensor_msgs/Image or CompressedImage and CameraInfo; how they are read and made is the host's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from d2a2_core.depth.diagnosis import depth_problem
from d2a2_core.depth.provenance import POINTS_PROVENANCE, only
from d2a2_core.depth.units import check_depth_unit, to_millimetres
from d2a2_core.errors import CodedError
from d2a2_core.geometry import CameraPair, Extrinsics, back_project
from d2a2_core.geometry.cloud import in_the_air
from d2a2_core.geometry.transform_tree import plain_frame
from d2a2_core.messages.camera_info import RECTIFIED_INPUTS, info_with_camera
from d2a2_core.messages.cloud import pack_cloud
from d2a2_core.messages.encodings import metres_per_count
from d2a2_core.messages.image_view import ImageView, image_view
from d2a2_core.messages.pair_reader import ImageReader, PairReader
from d2a2_core.pipeline import PipelineResult, PipelineSettings
from d2a2_core.stages import stage
from d2a2_core.temporal import MODES, Stabiliser, StabiliserSettings

OUTPUT_ENCODINGS = ("32FC1", "16UC1")
POINTS_EDGE = ("keep", "drop")
STAMP_SOURCES = ("color", "depth")


@dataclass(frozen=True)
class StreamOptions:
    """What a user may choose of the outputs and of how messages are understood.

    Attributes:
        stamp_source: Image whose stamp the outputs carry, "color" or "depth".
        output_frame: frame_id of the outputs; empty: the colour image's.
        output_encoding: "32FC1" (metres, NaN invalid) or "16UC1" (millimetres, 0 invalid, clamped).
        rectified_input: Images that come without the distortion their infos have, one of
            :data:`d2a2_core.messages.camera_info.RECTIFIED_INPUTS`.
        depth_unit: Metres per count of the depth image; 0: by its encoding, millimetres for 16-bit images, metres for 32FC1.
        cloud_stride: The cloud takes every n-th row and column.
        points_provenance: Points the cloud holds, a key of :data:`d2a2_core.depth.provenance.POINTS_PROVENANCE`.
        points_edge: Whether the cloud holds points that may lie between two surfaces, one of :data:`POINTS_EDGE`; see
            :func:`d2a2_core.geometry.cloud.in_the_air`.
        temporal: Whether results are fused over time, one of :data:`d2a2_core.temporal.MODES`.
        temporal_frame: Fixed frame in which the camera's pose is asked for, for "moving".
        remember_s: With ``temporal``, holes keep what was seen there for so many seconds.
    """

    stamp_source: str = "color"
    output_frame: str = ""
    output_encoding: str = "32FC1"
    rectified_input: str = "auto"
    depth_unit: float = 0.0
    cloud_stride: int = 1
    points_provenance: str = "all"
    points_edge: str = "keep"
    temporal: str = "off"
    temporal_frame: str = "odom"
    remember_s: float = 0.5

    def __post_init__(self) -> None:
        for name, choices in (
            ("stamp_source", STAMP_SOURCES),
            ("output_encoding", OUTPUT_ENCODINGS),
            ("rectified_input", RECTIFIED_INPUTS),
            ("points_provenance", tuple(POINTS_PROVENANCE)),
            ("points_edge", POINTS_EDGE),
            ("temporal", MODES),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {choices}, got {getattr(self, name)!r}")
        check_depth_unit(self.depth_unit)
        if self.cloud_stride < 1:
            raise ValueError(f"expected cloud_stride >= 1, got {self.cloud_stride}")
        if not 0 <= self.remember_s < math.inf:
            raise ValueError(f"expected remember_s of at least 0 seconds, got {self.remember_s}")
        if self.temporal == "moving" and not plain_frame(self.temporal_frame):
            raise ValueError(
                'temporal "moving" needs temporal_frame, the fixed frame in which the camera moves, got none'
            )


class Engine(Protocol):
    """What computes: :class:`d2a2_core.pipeline.DepthPipeline`, or anything with these members."""

    settings: PipelineSettings

    def process(self, pair: CameraPair, sigma: bool = True) -> PipelineResult:
        """See :meth:`DepthPipeline.process`."""
        ...

    def reset(self) -> None:
        """Forgets the stream so far."""
        ...

    def state(self) -> dict[str, Any]:
        """Returns what the next frame depends on from the ones before, as JSON can hold it."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Takes what :meth:`state` returned: the next frame comes out as if the ones before had just been processed."""
        ...


class Host(ImageReader, Protocol):
    """What surrounds a stream: it reads messages, knows transforms, makes headers and tells people."""

    def extrinsics(self, color_frame: str, depth_frame: str) -> Extrinsics | None:
        """From the depth to the colour camera; None where unknown."""
        ...

    def pose(self, fixed_frame: str, frame: str, stamp_ns: int) -> np.ndarray | None:
        """(4, 4) from a frame to a fixed one at a time, metres; None where unknown."""
        ...

    def header(self, stamp_ns: int, frame_id: str) -> Any:
        """A std_msgs/Header."""
        ...


@dataclass(frozen=True)
class Topics:
    """Names of the input topics, for messages and for what names tell of images."""

    color: str
    depth: str
    color_info: str = ""


@dataclass(frozen=True)
class PairMessages:
    """The messages of one pair; an info is None where none came."""

    color: Any
    depth: Any
    color_info: Any | None = None
    depth_info: Any | None = None


@dataclass(frozen=True)
class Pixels:
    """An image to publish: (H, W) of the encoding's dtype."""

    array: np.ndarray
    encoding: str


@dataclass(frozen=True)
class StreamResult:
    """One pair's result.

    Attributes:
        header: Header of all outputs.
        stamp_ns: Its stamp.
        result: What the pipeline computed, fused over time if asked for.
        info: CameraInfo of the outputs, of the input's type; None without one.
        temporal: How much of it was fused over time, for people; empty where that is off.
    """

    header: Any
    stamp_ns: int
    result: PipelineResult
    info: Any | None
    temporal: str = ""

    def outputs(self, options: StreamOptions, wanted: Callable[[str], bool]) -> Iterator[tuple[str, Any]]:
        """Yields (name, payload) of the wanted outputs, made as they are asked for.

        Payloads are :class:`Pixels` for image_raw, provenance and sigma, the info for camera_info, and the structured array of
        :func:`d2a2_core.messages.cloud.pack_cloud` for points.
        """
        result = self.result
        if wanted("image_raw"):
            metres = options.output_encoding == "32FC1"
            yield "image_raw", Pixels(result.depth if metres else to_millimetres(result.depth), options.output_encoding)
        if self.info is not None and wanted("camera_info"):
            yield "camera_info", self.info
        if wanted("provenance"):
            yield "provenance", Pixels(result.provenance, "mono8")
        if result.sigma is not None and wanted("sigma"):
            yield "sigma", Pixels(result.sigma, "32FC1")
        if result.camera is not None and wanted("points"):
            stride = options.cloud_stride
            depth = only(options.points_provenance, result.depth, result.provenance)
            with stage("cloud"):
                if options.points_edge == "drop":
                    depth = np.where(in_the_air(result.depth, result.camera, result.sigma), np.float32(np.nan), depth)
                points = back_project(depth, result.camera, stride)
                cloud = pack_cloud(points, result.color[::stride, ::stride], result.provenance[::stride, ::stride])
            yield "points", cloud


class Stream:
    """Takes pairs in the order of their stamps. Not thread-safe.

    Args:
        engine: Computes.
        host: Reads, tells, knows transforms.
        topics: Names of the input topics.

    Attributes:
        last_stamp: Stamp in ns of the newest result, None before the first.
        doubts: Code and message of what a person should look at, of the newest pair whose images could be read: depth that is not
            understood, camera infos, registration. Empty where nothing is doubtful.
    """

    def __init__(self, engine: Engine, host: Host, topics: Topics) -> None:
        self.engine, self.topics = engine, topics
        self._host = host
        self.last_stamp: int | None = None
        self._reader = PairReader(host)
        self._registration, self._offset = "", (0, 0)
        self._stabiliser = Stabiliser()
        self.doubts: tuple[tuple[str, str], ...] = ()
        self._found: list[tuple[str, str]] = []

    def restart(self) -> None:
        """Stamps begin anew: the next pair is the first of another stream."""
        self.last_stamp, self.doubts = None, ()
        self._reader.reset()
        self._stabiliser.reset()
        self.engine.reset()

    def state(self) -> dict[str, Any]:
        """Returns what the next pair's result depends on from the ones before, as JSON can hold it; the last stamp aside."""
        return {"reader": self._reader.state(), "engine": self.engine.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from where :meth:`state` was taken."""
        self._reader.restore(state["reader"])
        self.engine.restore(state["engine"])

    def memory(self) -> bytes:
        """What is known of the pixels over time, some 16 bytes for each; empty where nothing is. Belongs to :meth:`state`."""
        return self._stabiliser.state()

    def restore_memory(self, memory: bytes) -> None:
        """Goes on with what :meth:`memory` gave.

        Raises:
            ValueError: It is no such memory.
        """
        self._stabiliser.restore(memory)

    def process(self, pair: PairMessages, options: StreamOptions, sigma: bool = True) -> StreamResult:
        """Computes one pair.

        Args:
            pair: Messages.
            options: May change from pair to pair.
            sigma: Whether the uncertainty is wanted.

        Raises:
            CodedError: Code "stale": the stamp is not after that of the newest result.
            FrameError: An image cannot be read, or is too large.
            CodedError: Code "size_ratio": The images' sizes cannot be of one view.
            ValueError: The pair cannot be used; see :meth:`DepthPipeline.process`.
        """
        stamp = stamp_ns((pair.depth if options.stamp_source == "depth" else pair.color).header)
        if self.last_stamp is not None and stamp <= self.last_stamp:
            raise CodedError("stale", "dropped a pair whose stamp is not after the last published one")
        with stage("read"):
            color, depth = self._reader.read(pair.color, pair.depth, options.depth_unit)
        self._found = []
        try:
            return self._compute(pair, color, depth, stamp, options, sigma)
        finally:
            # At once: another thread may be reading it.
            self.doubts = tuple(self._found)

    def _compute(
        self, pair: PairMessages, color: np.ndarray, depth: np.ndarray, stamp: int, options: StreamOptions, sigma: bool
    ) -> StreamResult:
        self._note_depth(depth, options.depth_unit or metres_per_count(pair.depth))
        frames = plain_frame(pair.color.header.frame_id), plain_frame(pair.depth.header.frame_id)
        header = self._host.header(stamp, plain_frame(options.output_frame) or frames[0])
        color_view = self._view("color", pair.color_info, color.shape[:2], header, options)
        depth_view = self._view("depth", pair.depth_info, depth.shape, header, options)
        info, camera = color_view.info, color_view.camera
        if pair.color_info is None:
            self._host.report(
                "no_color_info",
                f"no camera info on {self.topics.color_info or 'any topic beside the colour image'}: depth comes without camera "
                "info and cloud",
            )
        by_hand = self.engine.settings.registration == "off"
        extrinsics = None if by_hand else self._host.extrinsics(*frames)
        views = CameraPair(
            color,
            depth,
            camera,
            depth_view.camera,
            extrinsics,
            *frames,
            depth_topic=self.topics.depth,
            color_rectified=color_view.rectified,
            depth_rectified=depth_view.rectified,
            color_problem=color_view.problem,
            depth_problem=depth_view.problem,
        )
        needed = options.temporal != "off" or options.points_edge == "drop"
        result = self.engine.process(views, sigma or needed)
        self._note_result(result)
        rectified = self.engine.settings.output_geometry == "rectified"
        if info is not None and result.camera is not None and (rectified or result.camera != camera):
            info = info_with_camera(info, result.camera)
        result, temporal = self._stabilise(result, frames[0], pair, options)
        self.last_stamp = stamp
        return StreamResult(header, stamp, result, info, temporal)

    def _stabilise(
        self, result: PipelineResult, frame: str, pair: PairMessages, options: StreamOptions
    ) -> tuple[PipelineResult, str]:
        """The result fused with what the frames before have shown, and a word about it."""
        self._stabiliser.settings = StabiliserSettings(options.temporal, remember_s=options.remember_s)
        if options.temporal == "off":
            self._stabiliser.reset()
            return result, ""
        # Where colour was when its image was taken: results are in its view.
        stamp, pose = stamp_ns(pair.color.header), None
        if options.temporal == "moving":
            fixed = plain_frame(options.temporal_frame)
            pose = self._host.pose(fixed, frame, stamp)
            if pose is None:
                self._doubt(
                    "no_pose",
                    f"temporal is 'moving', but nothing says where '{frame}' is in '{fixed}' when the image was taken: frames "
                    "are not fused; publish that transform on /tf, or set temporal_frame to your odometry's or map's fixed frame",
                )
        with stage("temporal"):
            fused = self._stabiliser.process(result.depth, result.sigma, result.provenance, result.camera, stamp, pose)
        said = f"started anew ({fused.restarted})" if fused.restarted else f"{fused.agreeing:.0%} agree with before"
        return replace(result, depth=fused.depth, sigma=fused.sigma, provenance=fused.provenance), said

    def _view(
        self, which: str, info: Any | None, size: tuple[int, ...], header: Any, options: StreamOptions
    ) -> ImageView:
        view = image_view(which, info, size, header, getattr(self.topics, which), options.rectified_input)
        # By hand: depth's camera is not used then.
        if not (which == "depth" and self.engine.settings.registration == "off"):
            for code, message in view.doubts:
                self._doubt(code, message)
        return view

    def _doubt(self, code: str, message: str) -> None:
        self._found.append((code, message))
        self._host.report(code, message)

    def _note_depth(self, depth: np.ndarray, unit: float) -> None:
        """Reports depth that is not understood; the pair is computed all the same, it may be that nothing is in view."""
        settings = self.engine.settings
        problem = depth_problem(depth, settings.min_depth, settings.max_depth, unit)
        if problem is not None:
            self._doubt(problem.code, problem.message)

    def _note_result(self, result: PipelineResult) -> None:
        if result.offset != self._offset:
            self._offset = result.offset
            self._host.inform(f"colour lies {result.offset[0]:+d} {result.offset[1]:+d} px beside depth, taken out")
        if result.registration != self._registration:
            self._registration = result.registration
            self._host.inform(result.registration)
        for code, message in result.doubts:
            self._doubt(code, message)


def stamp_ns(header: Any) -> int:
    """Nanoseconds of a header's stamp."""
    return int(header.stamp.sec) * 1_000_000_000 + int(header.stamp.nanosec)
