"""Which of a bag's topics are the colour and the depth camera: as the user says, else by type, encoding and name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from d2a2_core.bag.connections import Connection
from d2a2_core.bag.source import BagSource
from d2a2_core.bag.storage import BagError, typestore
from d2a2_core.geometry.evidence import says_registered
from d2a2_core.messages.camera_info import info_topic_beside
from d2a2_core.messages.encodings import COLOR_ENCODINGS, DEPTH_ENCODINGS, is_compressed_depth

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
INFO = "sensor_msgs/msg/CameraInfo"

_COLOR_NAMES = ("rgb", "color", "colour")
_PNG, _GREY_16 = b"\x89PNG\r\n\x1a\n", b"\x10\x00"  # its beginning; bits and colour type, after width and height
_GREY = " of 16-bit grey"
_TRIED = 20  # messages of a topic, the first ones and then over the whole bag, until one can be read
_NEITHER = (
    "infra",
    "/ir/",
    "/ir_",
    "confidence",
    "disparity",
    "fisheye",
    "depth_upsampled",
)  # images, but of no use here


@dataclass(frozen=True)
class Candidate:
    """An image topic: its connection, and what the encoding of its first readable message makes it ("color", "depth")."""

    topic: str
    msgtype: str
    encoding: str
    kind: str
    frame_id: str
    connection: Connection

    @property
    def registered(self) -> bool:
        """Whether its name says that the depth is in the colour camera's view."""
        return says_registered(self.topic)

    def __str__(self) -> str:
        return f"{self.topic} ({self.encoding})"


@dataclass(frozen=True)
class BagTopics:
    """The choice; the infos are topic names, or None where none is beside the image. ``other_infos`` are those not chosen."""

    color: Candidate
    depth: Candidate
    color_info: str | None
    depth_info: str | None
    other_infos: tuple[str, ...] = ()

    def describe(self) -> str:
        """One line per choice, for the user."""
        registered = ", registered by its name" if self.depth.registered else ""
        lacking = [f"--{w}-info" for w in ("color", "depth") if getattr(self, f"{w}_info") is None]
        hint = f"; the bag also has {', '.join(self.other_infos[:5])}: {' and '.join(lacking)} can name one"
        return (
            f"colour {self.color}, frame '{self.color.frame_id}'\ndepth  {self.depth}, frame '{self.depth.frame_id}'"
            f"{registered}\ncamera info: colour {self.color_info or 'none'}, depth {self.depth_info or 'none'}"
            + (hint if lacking and self.other_infos else "")
        )


def choose_topics(
    source: BagSource, color: str | None, depth: str | None, color_info: str | None, depth_info: str | None
) -> BagTopics:
    """Takes the topics that are given, and guesses the others.

    Raises:
        BagError: a topic that is not there or of another type, none to choose, or several that are as good.
    """
    candidates = list(_candidates(source))
    if not candidates:
        there = (
            ", ".join(sorted(f"{c.topic} ({c.msgtype})" for c in source.connections)[:10]) or "none that can be read"
        )
        raise BagError(f"the bag has no {IMAGE} or {COMPRESSED} that can be read; its topics: {there}")
    chosen_depth = _choose("depth", depth, candidates, _depth_rank, color)
    chosen_color = _choose("color", color, candidates, _color_rank, chosen_depth.topic)
    if chosen_color.topic == chosen_depth.topic:
        raise BagError(f"{chosen_color.topic} was given for colour and for depth")
    infos = _info(source, color_info, chosen_color), _info(source, depth_info, chosen_depth)
    others = sorted({c.topic for c in source.connections if c.msgtype == INFO} - {*infos})
    return BagTopics(chosen_color, chosen_depth, *infos, tuple(others))


def _candidates(source: BagSource) -> Iterable[Candidate]:
    for connection in source.connections:
        if connection.msgtype not in (IMAGE, COMPRESSED):
            continue
        positions = source.positions([connection])
        tried = np.concatenate((positions[:_TRIED], positions[_TRIED :: max(len(positions) // _TRIED, 1)]))
        for _, _, raw in source.messages(tried):
            try:
                msg = typestore().deserialize_cdr(raw, connection.msgtype)
            except Exception:  # damaged; the next one may do
                continue
            encoding = msg.encoding if connection.msgtype == IMAGE else msg.format
            if connection.msgtype == COMPRESSED and bytes(msg.data[:8]) == _PNG and bytes(msg.data[24:26]) == _GREY_16:
                encoding += _GREY
            kind = _kind(connection.topic, connection.msgtype, encoding)
            yield Candidate(connection.topic, connection.msgtype, encoding, kind, msg.header.frame_id, connection)
            break


def _kind(topic: str, msgtype: str, encoding: str) -> str:
    name = topic.lower()
    if any(word in name for word in _NEITHER):
        return ""
    if msgtype == COMPRESSED:
        plain_depth = encoding.endswith(_GREY) and "depth" in name
        if plain_depth or is_compressed_depth(encoding) or encoding.startswith(DEPTH_ENCODINGS):
            return "depth"
        return "color" if any(word in encoding.lower() for word in ("jpeg", "jpg", "png")) else ""
    if encoding == "mono16":  # infrared images are mono16 too
        return "depth" if "depth" in name else ""
    return "depth" if encoding in DEPTH_ENCODINGS else "color" if encoding in COLOR_ENCODINGS else ""


def _depth_rank(c: Candidate) -> tuple:
    return c.registered, "depth" in c.topic.lower(), c.msgtype == IMAGE


def _color_rank(c: Candidate) -> tuple:
    name = c.topic.lower()
    return any(word in name for word in _COLOR_NAMES), not c.encoding.startswith("mono"), c.msgtype == IMAGE


def _choose(kind: str, given: str | None, all_: list[Candidate], rank: Callable, partner: str | None) -> Candidate:
    said = "depth" if kind == "depth" else "colour"
    if given is not None:
        found = next((c for c in all_ if c.topic == given or c.topic == f"/{given}"), None)
        if found is None:
            raise BagError(f"the bag has no images on {given}; image topics: {_listed(all_)}")
        return found
    fitting = [c for c in all_ if c.kind == kind]
    if not fitting:
        raise BagError(f"the bag has no {said} topic; image topics: {_listed(all_)}. Name it with --{kind}")
    best = [c for c in fitting if rank(c) == max(map(rank, fitting))]
    if partner and len(best) > 1:  # of several cameras, that of the partner
        best = [c for c in best if _common(c.topic, partner) == max(_common(b.topic, partner) for b in best)]
    if len(best) > 1:
        raise BagError(f"several topics could be the {said} image: {_listed(best)}; name one with --{kind}")
    return best[0]


def _listed(candidates: Iterable[Candidate]) -> str:
    return ", ".join(map(str, candidates)) or "none"


def _common(a: str, b: str) -> int:
    """Number of leading name parts that two topics share."""
    count = 0
    for x, y in zip(a.strip("/").split("/"), b.strip("/").split("/"), strict=False):
        if x != y:
            break
        count += 1
    return count


def _info(source: BagSource, given: str | None, image: Candidate) -> str | None:
    """The CameraInfo topic that is given, else the one beside the image topic; None without one."""
    names = {c.topic for c in source.connections if c.msgtype == INFO}
    if given is not None:
        for name in (given, f"/{given}"):
            if name in names:
                return name
        raise BagError(f"the bag has no camera info on {given}; there is: {', '.join(sorted(names)) or 'none'}")
    sibling = info_topic_beside(image.topic)
    return sibling if sibling in names else None
