"""Pairs of colour and depth images by their stamps alone, over a whole bag."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from d2a2_core.bag import messages as msgs
from d2a2_core.bag.options import BagOptions, Summary
from d2a2_core.bag.source import BagSource
from d2a2_core.bag.storage import BagError, typestore
from d2a2_core.bag.topics import INFO, BagTopics, Candidate
from d2a2_core.geometry.camera import Camera
from d2a2_core.geometry.rig import CameraRig
from d2a2_core.messages.camera_info import info_with_camera
from d2a2_core.messages.clocks import clock_advice
from d2a2_core.messages.encodings import FrameError

_FEW = 3  # images with the same stamp, which may be a mere repetition
_LATEST = np.iinfo(np.int64).max
_STAMP_BYTES = 12  # of a serialised message, up to the end of header.stamp


class BagPair(NamedTuple):
    """The serialised messages of a pair, and the bag time in ns at which it was complete; an info is None where there is none."""

    time: int
    color: bytes
    depth: bytes
    infos: tuple[bytes | None, bytes | None]


class BagPairs:
    """The pairs of a bag within the time window, in order of their stamps: found by stamps alone, then read one by one.

    Camera infos are the rig's, else the bag's latest before the pair was complete, else its first.

    Args:
        bag: Is read.
        topics: Its cameras.
        rig: Cameras that are given.
        options: Slop and time window.
        summary: Gets the numbers of images, and what cannot be paired.

    Raises:
        BagError: A driver did not set its stamps.
    """

    def __init__(
        self, bag: BagSource, topics: BagTopics, rig: CameraRig, options: BagOptions, summary: Summary
    ) -> None:
        self._bag = bag
        self._infos = _Infos(bag, topics.color_info, rig.color), _Infos(bag, topics.depth_info, rig.depth)
        window = _window(bag, options)
        color, depth = (_images(bag, image, window, summary) for image in (topics.color, topics.depth))
        summary.color_images, summary.depth_images = color.count, depth.count
        found, nearest = pair_stamps(color.stamps, depth.stamps, int(options.slop * 1e9))
        if nearest is not None:
            middle = (int(np.median(images.stamps)) for images in (color, depth))
            summary.unpaired = clock_advice(*middle, nearest, "--slop")
        elif not (color.count and depth.count):
            times = bag.times[bag.positions([topics.color.connection, topics.depth.connection])] - bag.times[0]
            first, last = times[[0, -1]] * 1e-9
            summary.unpaired = f"the bag's images lie {first:.1f} to {last:.1f} s after the bag's first message"
        #: (k, 2) positions of the images in the bag.
        self._positions = np.stack((color.positions[found[:, 0]], depth.positions[found[:, 1]]), axis=1)
        alone = len(color.stamps) - len(found), len(depth.stamps) - len(found)
        if len(found) and any(alone):
            summary.note(f"without a partner within {options.slop} s: {alone[0]} colour and {alone[1]} depth images")

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, number: int) -> BagPair:
        color, depth = self._positions[number].tolist()
        last = max(color, depth)
        infos = self._infos[0].before(last), self._infos[1].before(last)
        return BagPair(int(self._bag.times[last]), self._bag.read(color), self._bag.read(depth), infos)


class _Infos:
    """The camera infos on ``topic``, or the one of the camera that is given."""

    def __init__(self, bag: BagSource, topic: str | None, given: Camera | None) -> None:
        self._bag = bag
        self._raw = None if given is None else _info_message(given)
        named = [c for c in bag.connections if c.msgtype == INFO and c.topic == topic and given is None]
        self._positions = bag.positions(named)
        self._read: int | None = None

    def before(self, position: int) -> bytes | None:
        """The latest serialised one before a position of the bag, else the first; None without any."""
        if len(self._positions):
            found = int(self._positions[max(int(np.searchsorted(self._positions, position)) - 1, 0)])
            if found != self._read:
                self._raw, self._read = self._bag.read(found), found
        return self._raw


class _Images(NamedTuple):
    """Images that can be paired: positions in the bag and stamps in ns; and the number of all within the time window."""

    positions: np.ndarray
    stamps: np.ndarray
    count: int


def _window(bag: BagSource, options: BagOptions) -> tuple[int, int]:
    """Bag times in ns within which images count, the second not included unless it is the latest of all."""
    first = int(bag.times[0])
    end = _LATEST if options.end is None else min(first + int(options.end * 1e9), _LATEST)
    return min(first + int((options.start or 0.0) * 1e9), _LATEST), end


def _images(bag: BagSource, image: Candidate, window: tuple[int, int], summary: Summary) -> _Images:
    positions = bag.positions([image.connection])
    times = bag.times[positions]
    positions = positions[(times >= window[0]) & ((times < window[1]) | (window[1] == _LATEST))]
    usable, stamps = [], []
    for position in positions.tolist():
        try:
            stamps.append(msgs.stamp_ns(bag.head(position, _STAMP_BYTES)))
            usable.append(position)
        except FrameError as error:
            summary.skip(error.code, f"{image.topic}: {error}", image.topic)
    different, first, times_each = np.unique(np.array(stamps, np.int64), return_index=True, return_counts=True)
    most = int(times_each.max(initial=0))
    if most > max(_FEW, len(stamps) / 2):
        raise BagError(
            f"{most} of {len(stamps)} images on {image.topic} have the same stamp, "
            f"{different[times_each.argmax()] * 1e-9:.3f} s: its driver did not set it, and images are paired by their stamps; "
            "record again with stamps"
        )
    for _ in range(len(stamps) - len(different)):
        summary.skip("same_stamp", f"{image.topic}: an image has the stamp of an earlier one", image.topic)
    return _Images(np.array(usable, np.int64)[first], different, len(positions))


def _info_message(camera: Camera) -> bytes:
    types = typestore().types
    roi = types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    empty = types[INFO](
        msgs.header(0, "calibration"), 0, 0, "", np.zeros(0), np.zeros(9), np.zeros(9), np.zeros(12), 0, 0, roi
    )
    return bytes(msgs.camera_info(info_with_camera(empty, camera)))


def pair_stamps(color: np.ndarray, depth: np.ndarray, slop_ns: int) -> tuple[np.ndarray, int | None]:
    """Pairs stamps with the nearest of the other camera; the order in which they came does not matter.

    The nearest two stamps of all make the first pair, the nearest two of the rest the next, and so on. Of two as near, the
    earlier pair comes first. A later pair never lies around an earlier one, so both stamps ascend from pair to pair. In a
    regular stream these are the pairs of message_filters.ApproximateTimeSynchronizer, which sees images one by one.

    Args:
        color: (n,) int64 stamps in ns, each once, in any order.
        depth: (m,) alike.
        slop_ns: Largest difference, not included; equal stamps always make a pair.

    Returns:
        (k, 2) indices in ``color`` and ``depth``, ascending by stamps; and the smallest difference of any two stamps in ns, None
        without any.
    """
    stamps = np.concatenate((color, depth))
    index = np.concatenate((np.arange(len(color)), np.arange(len(depth))))
    is_depth = np.repeat((False, True), (len(color), len(depth)))
    order = np.argsort(stamps, kind="stable")
    stamps, index, is_depth = stamps[order], index[order], is_depth[order]
    # The nearest two of both kinds are neighbours here, and a pair of others than neighbours would lie around one.
    left = np.flatnonzero(is_depth[1:] != is_depth[:-1])
    distances = stamps[left + 1] - stamps[left]
    nearest = int(distances.min()) if len(distances) else None
    left, distances = left[distances < max(slop_ns, 1)], distances[distances < max(slop_ns, 1)]
    free = np.ones(len(stamps) + 1, bool)
    firsts = []
    for i in left[np.argsort(distances, kind="stable")].tolist():
        if free[i] and free[i + 1]:
            free[i] = free[i + 1] = False
            firsts.append(i)
    first = np.sort(np.array(firsts, np.int64))
    swapped = is_depth[first]
    one, other = index[first], index[first + 1]
    return np.stack((np.where(swapped, other, one), np.where(swapped, one, other)), axis=1), nearest
