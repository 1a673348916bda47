"""One policy for a stream of pairs: messages and camera infos in; depth, its camera info and their header out.

The live node and `d2a2 bag` both run this, so a bag equals the live node by construction. Messages are anything with the
fields of sensor_msgs/Image or CompressedImage and CameraInfo; how they are read and made is the host's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from d2a2_core.depth.lr_grid import MAX_SHAPE_DIFFERENCE, SAME_SHAPE, shape_difference
from d2a2_core.depth.provenance import POINTS_PROVENANCE, only
from d2a2_core.depth.units import to_millimetres
from d2a2_core.errors import CodedError
from d2a2_core.geometry import Camera, CameraPair, Extrinsics, back_project
from d2a2_core.messages.camera_info import (
    RECTIFIED_INPUTS,
    camera_from_info,
    has_distortion,
    info_with_camera,
    is_rectified,
    rectified_info,
    resized_info,
    with_usable_k,
)
from d2a2_core.messages.cloud import pack_cloud
from d2a2_core.messages.encodings import FrameError
from d2a2_core.pipeline import PipelineResult, PipelineSettings

OUTPUT_ENCODINGS = ("32FC1", "16UC1")
STAMP_SOURCES = ("color", "depth")
#: What people are told of the two images.
WORDS = {"color": "colour", "depth": "depth"}


@dataclass(frozen=True)
class StreamOptions:
    """What a user may choose of the outputs and of how messages are understood.

    Attributes:
        stamp_source: Image whose stamp the outputs carry, "color" or "depth".
        output_frame: frame_id of the outputs; empty: the colour image's.
        output_encoding: "32FC1" (metres, NaN invalid) or "16UC1" (millimetres, 0 invalid, clamped).
        rectified_input: Images that come without the distortion their infos have, one of
            :data:`d2a2_core.messages.camera_info.RECTIFIED_INPUTS`.
        cloud_stride: The cloud takes every n-th row and column.
        points_provenance: Points the cloud holds, a key of :data:`d2a2_core.depth.provenance.POINTS_PROVENANCE`.
    """

    stamp_source: str = "color"
    output_frame: str = ""
    output_encoding: str = "32FC1"
    rectified_input: str = "auto"
    cloud_stride: int = 1
    points_provenance: str = "all"

    def __post_init__(self) -> None:
        for name, choices in (
            ("stamp_source", STAMP_SOURCES),
            ("output_encoding", OUTPUT_ENCODINGS),
            ("rectified_input", RECTIFIED_INPUTS),
            ("points_provenance", tuple(POINTS_PROVENANCE)),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {choices}, got {getattr(self, name)!r}")
        if self.cloud_stride < 1:
            raise ValueError(f"expected cloud_stride >= 1, got {self.cloud_stride}")


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


class Host(Protocol):
    """What surrounds a stream: it reads messages, knows transforms, makes headers and tells people."""

    def read_color(self, msg: Any) -> np.ndarray:
        """RGB uint8 (H, W, 3) of an Image or CompressedImage; raises FrameError."""
        ...

    def read_depth(self, msg: Any) -> np.ndarray:
        """Depth (h, w) float32 metres of an Image or CompressedImage; raises FrameError."""
        ...

    def extrinsics(self, color_frame: str, depth_frame: str) -> Extrinsics | None:
        """From the depth to the colour camera; None where unknown."""
        ...

    def header(self, stamp_ns: int, frame_id: str) -> Any:
        """A std_msgs/Header."""
        ...

    def report(self, code: str, message: str, detail: str = "") -> None:
        """Tells a warning. Ones with the same code and detail have the same cause, and need not be told again and again."""
        ...

    def inform(self, message: str) -> None:
        """Tells what is no fault."""
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
        result: What the pipeline computed.
        info: CameraInfo of the outputs, of the input's type; None without one.
    """

    header: Any
    stamp_ns: int
    result: PipelineResult
    info: Any | None

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
            points = back_project(depth, result.camera, stride)
            yield "points", pack_cloud(points, result.color[::stride, ::stride], result.provenance[::stride, ::stride])


class Stream:
    """Takes pairs in the order of their stamps. Not thread-safe.

    Args:
        engine: Computes.
        host: Reads, tells, knows transforms.
        topics: Names of the input topics.

    Attributes:
        last_stamp: Stamp in ns of the newest result, None before the first.
    """

    def __init__(self, engine: Engine, host: Host, topics: Topics) -> None:
        self.engine, self.topics = engine, topics
        self._host = host
        self.last_stamp: int | None = None
        self._sizes: tuple[tuple[int, ...], tuple[int, ...]] | None = None
        self._registration, self._offset = "", (0, 0)

    def restart(self) -> None:
        """Stamps begin anew: the next pair is the first of another stream."""
        self.last_stamp = None
        self.engine.reset()

    def process(self, pair: PairMessages, options: StreamOptions, sigma: bool = True) -> StreamResult:
        """Computes one pair.

        Args:
            pair: Messages.
            options: May change from pair to pair.
            sigma: Whether the uncertainty is wanted.

        Raises:
            CodedError: Code "stale": the stamp is not after that of the newest result.
            FrameError: An image cannot be read.
            ValueError: The pair cannot be used; see :meth:`DepthPipeline.process`.
        """
        stamp = stamp_ns((pair.depth if options.stamp_source == "depth" else pair.color).header)
        if self.last_stamp is not None and stamp <= self.last_stamp:
            raise CodedError("stale", "dropped a pair whose stamp is not after the last published one")
        color = self._read("color", self._host.read_color, pair.color)
        depth = self._read("depth", self._host.read_depth, pair.depth)
        self._note_sizes(color.shape[:2], depth.shape)
        frames = pair.color.header.frame_id, pair.depth.header.frame_id
        header = self._host.header(stamp, options.output_frame or frames[0])
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
        result = self.engine.process(views, sigma)
        self._note_result(result)
        rectified = self.engine.settings.output_geometry == "rectified"
        if info is not None and result.camera is not None and (rectified or result.camera != camera):
            info = info_with_camera(info, result.camera)
        self.last_stamp = stamp
        return StreamResult(header, stamp, result, info)

    @staticmethod
    def _read(which: str, reader: Callable[[Any], np.ndarray], msg: Any) -> np.ndarray:
        try:
            return reader(msg)
        except FrameError as error:
            raise FrameError(f"{which}_{error.code}", f"{WORDS[which]}: {error}", error.detail) from error

    def _view(self, which: str, info: Any | None, size: tuple[int, ...], header: Any, options: StreamOptions) -> _View:
        """What the camera info says of the image of ``size`` (H, W) that really came; what is wrong with it is reported."""
        if info is None:
            return _View(problem="none came")
        topic, frame = getattr(self.topics, which), info.header.frame_id
        rectified = is_rectified(options.rectified_input, which, topic) and has_distortion(info)
        if rectified:
            try:
                info = rectified_info(info)
            except ValueError as error:
                return self._unusable(f"{which}_info_rectified", f"camera info for {topic} is not used: it {error}")
        height, width = size
        whole = info.width and info.height and not info.roi.width
        stretched = shape_difference(size, (info.height, info.width)) if whole else 1.0
        shapes = f"camera info of '{frame}' is for {info.width}x{info.height}, its image has {width}x{height}"
        info, assumed = with_usable_k(info)
        if assumed:
            self._host.report(f"{which}_info_k", f"camera info of '{frame}': {assumed}")
        info = resized_info(info, width, height, header)
        try:
            camera = camera_from_info(info)
        except ValueError as error:
            return self._unusable(f"{which}_info", f"camera info of '{frame}': {error}", info)
        oblong = max(camera.fx / camera.fy, camera.fy / camera.fx)
        if stretched >= MAX_SHAPE_DIFFERENCE and oblong >= MAX_SHAPE_DIFFERENCE:
            return self._unusable(
                f"{which}_info_shape", f"{shapes}, which is turned or cut: the calibration is not used"
            )
        if stretched > SAME_SHAPE:
            self._host.report(
                f"{which}_info_shape",
                f"{shapes}: it is stretched to that; if the driver cuts the image, the calibration is wrong",
            )
        if camera.distorted and not info.distortion_model:
            self._host.report(
                f"{which}_distortion",
                f"camera info of '{frame}' has {len(info.d)} distortion coefficients without a model's name; they are taken as "
                f"those of {camera.model}",
            )
        return _View(info, camera, rectified)

    def _unusable(self, code: str, message: str, info: Any | None = None) -> _View:
        self._host.report(code, message)
        return _View(info, problem=message)

    def _note_sizes(self, color: tuple[int, ...], depth: tuple[int, ...]) -> None:
        """Warns about a change that is legal but usually unintended."""
        if self._sizes not in (None, (color, depth)):
            (ch, cw), (dh, dw) = self._sizes
            self._host.report(
                "sizes",
                f"image sizes changed from colour {cw}x{ch}, depth {dw}x{dh} to colour {color[1]}x{color[0]}, depth "
                f"{depth[1]}x{depth[0]}; going on with the new ones",
                f"{color} {depth}",
            )
        self._sizes = (color, depth)

    def _note_result(self, result: PipelineResult) -> None:
        if result.offset != self._offset:
            self._offset = result.offset
            self._host.inform(f"colour lies {result.offset[0]:+d} {result.offset[1]:+d} px beside depth, taken out")
        if result.registration != self._registration:
            self._registration = result.registration
            self._host.inform(result.registration)
        for code, message in result.doubts:
            self._host.report(code, message)


@dataclass(frozen=True)
class _View:
    """What a camera info says of an image.

    Attributes:
        info: The info for the image as it came; None without one.
        camera: Its camera; None where the info does not give one.
        rectified: Whether the image comes without the distortion of the info that was sent.
        problem: Why there is no camera, for people.
    """

    info: Any | None = None
    camera: Camera | None = None
    rectified: bool = False
    problem: str = ""


def stamp_ns(header: Any) -> int:
    """Nanoseconds of a header's stamp."""
    return int(header.stamp.sec) * 1_000_000_000 + int(header.stamp.nanosec)
