"""One pair of a bag, from serialised images to serialised outputs; what is done with it is :mod:`d2a2_core.stream`'s."""

from __future__ import annotations

from typing import Any

import numpy as np

from d2a2_core.bag import messages as msgs
from d2a2_core.bag.options import BagOptions, Summary
from d2a2_core.bag.topics import INFO, BagTopics
from d2a2_core.bag.transforms import BagTransforms
from d2a2_core.errors import error_cause
from d2a2_core.geometry import Extrinsics
from d2a2_core.messages.encodings import FrameError
from d2a2_core.messages.pair_reader import WORDS
from d2a2_core.stream import Engine, PairMessages, Pixels, Stream, Topics


class BagHost:
    """The surroundings of a stream that comes from a bag.

    Args:
        transforms: The bag's.
        fixed: From the depth to the colour camera, where it is given: comes before the bag's transforms.
        summary: Keeps what is told.
    """

    def __init__(self, transforms: BagTransforms, fixed: Extrinsics | None, summary: Summary) -> None:
        self._transforms, self._fixed = transforms, fixed
        self.read_color, self.read_depth, self.header = msgs.read_color, msgs.read_depth, msgs.header
        self.report, self.inform = summary.warn, summary.note

    def extrinsics(self, color_frame: str, depth_frame: str) -> Extrinsics | None:
        """From the depth to the colour camera: as given, else by the bag's transforms."""
        if self._fixed is not None or color_frame == depth_frame:
            return self._fixed
        return self._transforms.extrinsics(color_frame, depth_frame)

    def pose(self, fixed_frame: str, frame: str, stamp_ns: int) -> np.ndarray | None:
        """Where the camera was, by the bag's transforms."""
        return self._transforms.pose(fixed_frame, frame, stamp_ns)


class PairConverter:
    """Turns the serialised messages of pairs into serialised outputs.

    Args:
        topics: The bag's cameras.
        engine: Computes.
        host: Surroundings of the stream.
        options: Of the outputs; ``cloud`` says whether points are made.
    """

    def __init__(self, topics: BagTopics, engine: Engine, host: BagHost, options: BagOptions) -> None:
        names = Topics(topics.color.topic, topics.depth.topic, topics.color_info or "")
        self.stream = Stream(engine, host, names)
        self._types = topics.color.msgtype, topics.depth.msgtype
        self._host, self._options = host, options

    def outputs(self, color: bytes, depth: bytes, infos: tuple) -> tuple[dict, list[tuple[str, memoryview]]]:
        """Returns the journal's header, which says what happened, and the messages; none where the pair cannot be used.

        Args:
            color, depth: Serialised images.
            infos: Serialised camera infos of both, or None.
        """
        stamp = msgs.stamp_ns(depth if self._options.stamp_source == "depth" else color)
        head = {"stamp": stamp, "code": "", "detail": "", "message": ""}
        try:
            pair = PairMessages(
                self._image("color", color, self._types[0]),
                self._image("depth", depth, self._types[1]),
                self._info("color", infos[0]),
                self._info("depth", infos[1]),
            )
            result = self.stream.process(pair, self._options)
        except ValueError as error:
            code, detail = error_cause(error)
            return head | {"code": code, "detail": detail, "message": str(error)}, []
        wanted = result.outputs(self._options, lambda name: name != "points" or self._options.cloud)
        return head, [(name, _serialised(payload, result.header)) for name, payload in wanted]

    @staticmethod
    def _image(which: str, raw: bytes, msgtype: str) -> Any:
        try:
            return msgs.deserialize(raw, msgtype)
        except FrameError as error:
            raise FrameError(f"{which}_{error.code}", f"{WORDS[which]}: {error}", error.detail) from error

    def _info(self, which: str, raw: bytes | None) -> Any | None:
        try:
            return None if raw is None else msgs.deserialize(raw, INFO)
        except FrameError as error:
            self._host.report(f"{which}_info_{error.code}", f"{WORDS[which]} camera info: {error}")
            return None


def _serialised(payload: Any, header: Any) -> memoryview:
    if isinstance(payload, Pixels):
        return msgs.image(payload.array, payload.encoding, header)
    return msgs.cloud(payload, header) if isinstance(payload, np.ndarray) else msgs.camera_info(payload)
