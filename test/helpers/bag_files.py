"""Bags for the tests of `d2a2 bag`: written message by message, and read back."""

import struct
import zlib

import numpy as np
import pytest

pytest.importorskip("rosbags", reason="needs rosbags (pip install rosbags)")

import lz4.frame
from bag_stub import StubEngine
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from d2a2_core.bag import BagError, BagOptions, upsample_bag
from d2a2_core.bag import messages as msgs
from d2a2_core.bag.compression import zstd_module
from d2a2_core.bag.source import open_bag

zstd = zstd_module()

STORE = get_typestore(Stores.ROS2_JAZZY)
STORE.register(get_types_from_msg("std_msgs/Header header\nuint8[] soup\n", "lab_msgs/msg/Soup"))
T = STORE.types
IMAGE, INFO, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CameraInfo", "sensor_msgs/msg/CompressedImage"
COLOR, DEPTH = "/camera/color/image_raw", "/camera/depth/image_raw"
FOREVER = QosTime(9223372036, 854775807)
LATCHED = Qos(
    QosHistory.KEEP_LAST, 1, QosReliability.RELIABLE, QosDurability.TRANSIENT_LOCAL, FOREVER, FOREVER,
    QosLiveliness.AUTOMATIC, FOREVER, False,
)  # fmt: skip
START = 1_700_000_000_000_000_000
FRAME = 33_333_333
storages = pytest.mark.parametrize("storage", ["mcap", "sqlite3"])


def is_refused(path):
    """Whether reading all of a bag ends in a BagError; any other error is the test's failure."""
    try:
        with open_bag(path) as bag:
            for _ in bag.messages():
                pass
    except BagError:
        return True
    return False


def color_image(i, size=(24, 32), stamp=None, frame="color_optical"):
    pixels = np.random.default_rng(i).integers(0, 256, (*size, 3), dtype=np.uint8)
    return msgs.image(pixels, "rgb8", msgs.header(START + i * FRAME if stamp is None else stamp, frame))


def depth_image(i, size=(6, 8), stamp=None, frame="depth_optical", value=None):
    pixels = np.random.default_rng(i).integers(500, 4000, size, dtype=np.uint16)
    if value is not None:
        pixels[:] = value
    return msgs.image(pixels, "16UC1", msgs.header(START + i * FRAME + 2_000_000 if stamp is None else stamp, frame))


def info(width, height, frame):
    k = np.array([width, 0, width / 2 - 0.5, 0, width, height / 2 - 0.5, 0, 0, 1], float)
    p = np.insert(k, [3, 6, 9], 0.0)
    roi = T["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    return msgs.camera_info(
        T[INFO](msgs.header(START, frame), height, width, "plumb_bob", np.zeros(5), k, np.eye(3).ravel(), p, 0, 0, roi)
    )


def transform(parent, child, xyz, xyzw=(0, 0, 0, 1)):
    return T["geometry_msgs/msg/TransformStamped"](
        msgs.header(START, parent), child,
        T["geometry_msgs/msg/Transform"](
            T["geometry_msgs/msg/Vector3"](*map(float, xyz)), T["geometry_msgs/msg/Quaternion"](*map(float, xyzw))
        ),
    )  # fmt: skip


def write_bag(folder, storage, messages, qos=None):
    """A bag of (topic, msgtype, bag time, serialised message) as they come."""
    with Writer(folder, version=9, storage_plugin=StoragePlugin[storage.upper()]) as writer:
        connections = {}
        for topic, msgtype, time, raw in messages:
            if topic not in connections:
                profiles = [LATCHED] if topic == "/tf_static" else []
                connections[topic] = writer.add_connection(
                    topic, msgtype, typestore=STORE, offered_qos_profiles=profiles
                )
            writer.write(connections[topic], time, raw)
    return folder


def frames(count, color=color_image, depth=depth_image, extras=True):
    """A camera's messages: infos, a latched transform, a type that only this bag knows, and image pairs."""
    if extras:
        yield "/camera/color/camera_info", INFO, START, info(32, 24, "color_optical")
        yield "/camera/depth/camera_info", INFO, START, info(8, 6, "depth_optical")
        tree = [transform("link", "color_optical", (0.05, 0, 0)), transform("link", "depth_optical", (0.02, 0, 0))]
        tf = "tf2_msgs/msg/TFMessage"
        yield "/tf_static", tf, START, STORE.serialize_cdr(T[tf](tree), tf)
    for i in range(count):
        time = START + i * FRAME
        if extras:
            soup = T["lab_msgs/msg/Soup"](msgs.header(time, "x"), np.full(5, i % 256, np.uint8))
            yield "/soup", "lab_msgs/msg/Soup", time, STORE.serialize_cdr(soup, "lab_msgs/msg/Soup")
        yield COLOR, IMAGE, time + 1_000_000, color(i)
        yield DEPTH, IMAGE, time + 3_000_000, depth(i)


def contents(folder):
    """(topic, type, definition, QoS, time, bytes) of every message, in the bag's order."""
    with Reader(folder) as reader:
        return [
            (c.topic, c.msgtype, c.msgdef.data, c.digest, c.ext.offered_qos_profiles, time, bytes(raw))
            for c, time, raw in reader.messages()
        ]


def result_of(source, target, **options):
    """The summary of a run with the stub engine, and the new bag's messages but for those that were added."""
    summary = upsample_bag(source, target, StubEngine(), BagOptions(**options))
    return summary, [m for m in contents(target) if not m[0].startswith("/depth_upsampled/")]


def same_messages(copied, messages):
    """Asserts that topics, types, times and bytes are those of what was written."""
    assert [(m[0], m[1], m[5], m[6]) for m in copied] == [(t, k, s, bytes(r)) for t, k, s, r in messages]


def outputs(folder, name):
    """The messages of one of the added topics, with their bag times."""
    with Reader(folder) as reader:
        connections = [c for c in reader.connections if c.topic == f"/depth_upsampled/{name}"]
        if not connections:
            return []
        return [(time, STORE.deserialize_cdr(raw, c.msgtype)) for c, time, raw in reader.messages(connections)]


def stamp(msg):
    return msg.header.stamp.sec * 10**9 + msg.header.stamp.nanosec


class RawMcap:
    """An .mcap file written record by record, so that it can be as recorders and other programs write it.

    ``write`` takes (topic, msgtype, bag time, serialised message); ``channels`` may set a topic's (message encoding, schema
    encoding, schema) and hence what its type is described by.
    """

    def __init__(self, path, compression="", chunk=3, indexes=True, channels=None, profile="ros2"):
        self.path, self.compression, self.chunk_messages, self.indexes = path, compression, chunk, indexes
        self.described = channels or {}
        self.out = bytearray(b"\x89MCAP0\r\n" + _record(0x01, _text(profile) + _text("tests")))
        self.topics, self.pending, self.count, self.total = {}, bytearray(), 0, 0
        self.index, self.chunk_indexes = {}, []

    def write(self, topic, msgtype, time, raw):
        if topic not in self.topics:
            number = self.topics[topic] = len(self.topics) + 1
            encoding, kind, text = self.described.get(topic, ("cdr", "ros2msg", b""))
            if kind == "ros2msg" and not text:
                text = STORE.generate_msgdef(msgtype, ros_version=2)[0].encode()
            self.pending += _record(0x03, struct.pack("<H", number) + _text(msgtype) + _text(kind) + _text(text))
            self.pending += _record(
                0x04, struct.pack("<HH", number, number) + _text(topic) + _text(encoding) + _text(b"")
            )
        self.index.setdefault(self.topics[topic], []).append((time, len(self.pending)))
        self.pending += _record(0x05, struct.pack("<HIQQ", self.topics[topic], 0, time, time) + bytes(raw))
        self.count += 1
        self.total += 1
        if self.count == self.chunk_messages:
            self.end_chunk()

    def end_chunk(self):
        """``chunk`` None writes records without chunks."""
        data = bytes(self.pending)
        if self.chunk_messages is None:
            self.out += data
        elif data:
            packed = {"": lambda d: d, "zstd": zstd.compress, "lz4": lz4.frame.compress}[self.compression](data)
            head = struct.pack("<QQQI", 0, 2**62, len(data), zlib.crc32(data))
            start, offsets = len(self.out), b""
            self.out += _record(0x06, head + _text(self.compression) + struct.pack("<Q", len(packed)) + packed)
            end = len(self.out)
            for channel, entries in self.index.items() if self.indexes else ():
                offsets += struct.pack("<HQ", channel, len(self.out))
                listed = b"".join(struct.pack("<QQ", *entry) for entry in entries)
                self.out += _record(0x07, struct.pack("<HI", channel, len(listed)) + listed)
            place = struct.pack("<QQQQ", 0, 2**62, start, end - start) + _text(offsets)
            sizes = struct.pack("<QQ", len(packed), len(data))
            index = place + struct.pack("<Q", len(self.out) - end) + _text(self.compression) + sizes
            self.chunk_indexes.append(_record(0x08, index))
        self.pending, self.count, self.index = bytearray(), 0, {}

    def close(self, statistics=None):
        """Ends the file as the format says; ``statistics``: number of messages to claim."""
        self.end_chunk()
        self.out += _record(0x0F, bytes(4))
        summary = len(self.out)
        self.out += b"".join(self.chunk_indexes)
        total = self.total if statistics is None else statistics
        self.out += _record(0x0B, struct.pack("<QHIIIIQQI", total, 0, 0, 0, 0, 0, 0, 0, 0))
        self.out += _record(0x02, struct.pack("<QQI", summary, 0, 0)) + b"\x89MCAP0\r\n"
        return self.save()

    def save(self, size=None):
        """Writes the first ``size`` bytes."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_bytes(self.out[:size])
        return self.path


def raw_mcap(path, messages, **kwargs):
    """A whole .mcap file of messages, see :class:`RawMcap`."""
    file = RawMcap(path, **kwargs)
    for message in messages:
        file.write(*message)
    file.close()
    return path


def _record(operation, content):
    return struct.pack("<BQ", operation, len(content)) + content


def _text(text):
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<I", len(data)) + data
