"""One pair of a bag: from serialised images to serialised outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from d2a2_core.bag import messages as msgs
from d2a2_core.bag.topics import INFO, Topics
from d2a2_core.bag.transforms import StaticTransforms
from d2a2_core.depth.provenance import only
from d2a2_core.geometry import Camera, Extrinsics, back_project
from d2a2_core.messages.camera_info import camera_from_info, is_rectified, rectified_info, resized_info
from d2a2_core.messages.encodings import FrameError

if TYPE_CHECKING:
    from d2a2_core.bag.convert import BagOptions, Engine


class PairWorker:
    """One pair from serialised messages to serialised messages."""

    def __init__(
        self,
        topics: Topics,
        engine: Engine,
        options: BagOptions,
        transforms: StaticTransforms,
        note: Callable[[str], None],
    ) -> None:
        self._topics, self._engine, self._options = topics, engine, options
        self._transforms, self._note = transforms, note

    def outputs(
        self, color: bytes, depth: bytes, infos: tuple, last: int | None
    ) -> tuple[dict, list[tuple[str, memoryview]]]:
        """The journal's header, which says what happened, and the messages; none where the pair cannot be used.

        Args:
            color, depth: serialised images.
            infos: serialised camera infos of both, or None.
            last: stamp of the newest outputs so far, ns. As the live node does, a pair that is not after it is dropped.
        """
        stamps = msgs.stamp_ns(color), msgs.stamp_ns(depth)
        stamp = stamps[self._options.stamp_source == "depth"]
        head = {"stamp": stamp, "cause": "", "message": ""}
        if last is not None and stamp <= last:
            return head | {"cause": "stale", "message": "the stamp is not after that of the pair before"}, []
        try:
            return head, self._process(color, depth, infos, stamp)
        except ValueError as error:  # FrameError is one
            return head | {"cause": getattr(error, "cause", str(error)[:40]), "message": str(error)}, []

    def _process(self, color_raw: bytes, depth_raw: bytes, infos: tuple, stamp: int) -> list[tuple[str, memoryview]]:
        color_msg, color = self._read("colour", color_raw, self._topics.color.msgtype, msgs.read_color)
        depth_msg, depth = self._read("depth", depth_raw, self._topics.depth.msgtype, msgs.read_depth)
        frames = color_msg.header.frame_id, depth_msg.header.frame_id
        head = msgs.header(stamp, self._options.output_frame or frames[0])
        info, camera = self._camera("color", infos[0], color.shape[:2], head)
        _, depth_camera = self._camera("depth", infos[1], depth.shape, head)
        result = self._engine.process(color, depth, camera, depth_camera, self._extrinsics(*frames), *frames)
        self._note(result.registration)
        return list(self._messages(result, info, camera, head))

    def _messages(self, result: Any, info: Any, camera: Camera | None, head: Any) -> Iterator[tuple[str, memoryview]]:
        o = self._options
        yield "image_raw", msgs.depth_image(result.depth, o.output_encoding, head)
        if info is not None:
            yield "camera_info", msgs.camera_info(_as_seen_by(info, camera, result.camera))
        yield "provenance", msgs.image(result.provenance, "mono8", head)
        if result.sigma is not None:
            yield "sigma", msgs.image(result.sigma, "32FC1", head)
        if o.cloud and result.camera is not None:
            every = (slice(None, None, o.cloud_stride),) * 2
            depth = only(o.points_provenance, result.depth, result.provenance)
            points = back_project(depth, result.camera, o.cloud_stride)
            yield "points", msgs.cloud(points, result.color[every], result.provenance[every], head)

    @staticmethod
    def _read(which: str, raw: bytes, msgtype: str, reader: Callable) -> tuple[Any, np.ndarray]:
        try:
            msg = msgs.deserialize(raw, msgtype)
            return msg, reader(msg)
        except FrameError as error:
            raise FrameError(f"{which} {error.cause}", f"{which}: {error}") from error

    def _camera(self, which: str, raw: bytes | None, size: tuple, head: Any) -> tuple[Any, Camera | None]:
        """The camera info for an image of ``size`` (H, W), and its camera, None where it is not calibrated."""
        if raw is None:
            return None, None
        said = "colour" if which == "color" else which
        topic = getattr(self._topics, which).topic
        try:
            info = msgs.deserialize(raw, INFO)
            if is_rectified(self._options.rectified_input, which, topic):
                info = rectified_info(info)
        except (FrameError, ValueError) as error:
            self._note(f"{said} camera info: {error}")
            return None, None
        info = resized_info(info, size[1], size[0], head)
        try:
            return info, camera_from_info(info)
        except ValueError as error:
            self._note(f"{said} camera info: {error}")
            return info, None

    def _extrinsics(self, color_frame: str, depth_frame: str) -> Extrinsics | None:
        if self._options.extrinsics is not None:
            return Extrinsics.from_values(list(self._options.extrinsics))
        if color_frame == depth_frame:
            return None
        found = self._transforms.lookup(color_frame, depth_frame)
        if found is None:
            self._note(f"/tf_static does not say where '{depth_frame}' is in '{color_frame}'")
            return None
        return Extrinsics.from_quaternion(*(tuple(map(float, values)) for values in found))


def _as_seen_by(info: Any, camera: Camera | None, output: Camera | None) -> Any:
    """``info`` of the colour image with ``camera``, changed to that of the output where this was rectified."""
    if output is None or output == camera:
        return info
    c = output
    info.distortion_model, info.d = c.model or "plumb_bob", np.array(c.distortion or (0.0,) * 5, float)
    info.k = np.array([c.fx, 0, c.cx, 0, c.fy, c.cy, 0, 0, 1], float)
    info.r = np.eye(3).ravel()
    info.p = np.array([c.fx, 0, c.cx, 0, 0, c.fy, c.cy, 0, 0, 0, 1, 0], float)
    return info
