"""`d2a2 bag`: what goes in comes out unchanged, the results are in the right place, and nothing that happens loses data."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("rosbags", reason="needs rosbags (pip install rosbags)")

from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from d2a2_core.bag import BagError, BagOptions, upsample_bag
from d2a2_core.bag import messages as msgs
from d2a2_core.bag.journal import Journal, JournalError
from d2a2_core.bag.pairing import ApproximatePairs
from d2a2_core.bag.transforms import StaticTransforms
from d2a2_core.data.encodings import FrameError, view
from d2a2_core.provenance import Provenance

sys.path.insert(0, str(Path(__file__).parent))
from bag_stub import StubEngine

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


def outputs(folder, name):
    """The messages of one of the added topics, with their bag times."""
    with Reader(folder) as reader:
        connections = [c for c in reader.connections if c.topic == f"/depth_upsampled/{name}"]
        if not connections:
            return []
        return [(time, STORE.deserialize_cdr(raw, c.msgtype)) for c, time, raw in reader.messages(connections)]


def stamp(msg):
    return msg.header.stamp.sec * 10**9 + msg.header.stamp.nanosec


@storages
def test_every_message_comes_through_unchanged_and_the_results_beside_them(tmp_path, storage):
    source = write_bag(tmp_path / "in", storage, frames(7))
    engine = StubEngine()
    summary = upsample_bag(source, tmp_path / "out", engine, BagOptions(cloud=True))
    assert (summary.pairs, summary.written, summary.color_images, summary.depth_images) == (7, 7, 7, 7)
    assert summary.notes == ["depth is taken as registered: a stub said so"]

    before, after = contents(source), contents(tmp_path / "out")
    assert [m for m in after if not m[0].startswith("/depth_upsampled/")] == before
    assert {m[4][0].durability for m in after if m[0] == "/tf_static"} == {QosDurability.TRANSIENT_LOCAL}
    assert [m[5] for m in after] == sorted(m[5] for m in after)

    images = outputs(tmp_path / "out", "image_raw")
    assert [time for time, _ in images] == [START + i * FRAME + 3_000_000 for i in range(7)]
    for i, (_, msg) in enumerate(images):
        assert (stamp(msg), msg.header.frame_id) == (START + i * FRAME, "color_optical")
        assert (msg.encoding, msg.width, msg.height, msg.step, msg.is_bigendian) == ("32FC1", 32, 24, 128, 0)
        lr = view(STORE.deserialize_cdr(depth_image(i), IMAGE)) * np.float32(0.001)
        np.testing.assert_array_equal(view(msg), lr.repeat(4, 0).repeat(4, 1) + np.float32(i + 1))
    assert {msg.encoding for _, msg in outputs(tmp_path / "out", "provenance")} == {"mono8"}
    np.testing.assert_allclose(view(outputs(tmp_path / "out", "sigma")[3][1]), view(images[3][1]) * 0.01)
    infos = outputs(tmp_path / "out", "camera_info")
    assert [stamp(m) for _, m in infos] == [stamp(m) for _, m in images]
    assert (infos[0][1].width, infos[0][1].k[0], infos[0][1].header.frame_id) == (32, 32.0, "color_optical")

    cloud = outputs(tmp_path / "out", "points")[2][1]
    fields = {f.name: (f.offset, f.datatype) for f in cloud.fields}
    assert fields == {"x": (0, 7), "y": (4, 7), "z": (8, 7), "rgb": (12, 7), "provenance": (16, 2)}
    points = cloud.data.view(np.dtype([("xyz", "f4", 3), ("bgr", "u1", 4), ("provenance", "u1")])).reshape(24, 32)
    np.testing.assert_array_equal(points["xyz"][..., 2], view(images[2][1]))
    color = view(STORE.deserialize_cdr(color_image(2), IMAGE))
    np.testing.assert_array_equal(points["bgr"][..., 2::-1], color)
    np.testing.assert_allclose(points["xyz"][0, 0, 0], (0 - 15.5) / 32 * points["xyz"][0, 0, 2], rtol=1e-6)

    color_camera, depth_camera, extrinsics, *names = engine.calls[-1]
    assert ((color_camera.width, depth_camera.width), names) == ((32, 8), ["color_optical", "depth_optical"])
    np.testing.assert_allclose(extrinsics.translation, [-0.03, 0, 0])
    assert not (tmp_path / "out.partial").exists()


@storages
def test_a_run_killed_at_any_point_goes_on_and_gives_the_same_bag(tmp_path, storage):
    source = write_bag(tmp_path / "in", storage, frames(12))
    upsample_bag(source, tmp_path / "whole", StubEngine(), BagOptions(cloud=True))

    # Cutting the journal short is what a kill in the middle of a write leaves.
    arguments = [Path(__file__).parent / "bag_stub.py", source, tmp_path / "out", "4", "cut", "9", "merge"]
    ended = subprocess.run([sys.executable, *arguments], check=True, capture_output=True, text=True).stdout
    assert ended.split() == [str(-signal.SIGKILL)] * 3
    assert not (tmp_path / "out").exists()
    engine = StubEngine()
    summary = upsample_bag(source, tmp_path / "out", engine, BagOptions(cloud=True))
    assert (summary.resumed, summary.written) == (12, 12)
    assert engine.calls == []
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_an_interrupted_run_goes_on_only_with_the_same_settings(tmp_path):
    source = write_bag(tmp_path / "in", "mcap", frames(3))
    engine = StubEngine()
    engine.process = lambda *_: sys.exit(1)
    with pytest.raises(SystemExit):
        upsample_bag(source, tmp_path / "out", engine, BagOptions(), {"weights": "a"})
    for options, job, named in (
        (BagOptions(slop=0.01), {"weights": "a"}, "slop"),
        (BagOptions(), {"weights": "b"}, "engine"),
    ):
        with pytest.raises(BagError, match=named):
            upsample_bag(source, tmp_path / "out", StubEngine(), options, job)
    assert upsample_bag(source, tmp_path / "out", StubEngine(), BagOptions(), {"weights": "a"}).written == 3


def test_journal_keeps_other_processes_out_and_notices_damage(tmp_path):
    journal = Journal(tmp_path / "j")
    journal.lock()
    with pytest.raises(JournalError, match="another process"):
        Journal(tmp_path / "j").lock()
    for i in range(3):
        journal.append({"i": i}, [("a", b"x" * 100), ("b", b"")])
    journal.close()
    raw = bytearray((tmp_path / "j").read_bytes())
    raw[len(raw) // 2] ^= 1
    (tmp_path / "j").write_bytes(raw)
    with pytest.raises(JournalError, match="damaged"):
        list(Journal(tmp_path / "j").records())


@storages
def test_memory_does_not_grow_with_the_bag(tmp_path, storage):
    def peak(count):
        """MiB that Python takes at most."""
        name = tmp_path / str(count)
        write_bag(
            name, storage, frames(count, lambda i: color_image(i % 8, (96, 128), START + i * FRAME), extras=False)
        )
        tracemalloc.start()
        try:
            upsample_bag(name, tmp_path / f"{count}.out", StubEngine(), BagOptions())
            return tracemalloc.get_traced_memory()[1] / 2**20
        finally:
            tracemalloc.stop()

    peak(3)  # what is made once
    short, long = peak(60), peak(260)  # 200 frames more are 8 MiB in and 23 MiB out
    assert long - short < 1.5


@storages
def test_damaged_frames_are_skipped_counted_and_kept(tmp_path, storage):
    def damaged_color(i):
        raw = color_image(i)
        return {1: raw[:40], 2: raw[:7], 3: raw[:-100]}.get(i, raw)

    def damaged_depth(i):
        return depth_image(i, value=65535 if i == 5 else None)

    source = write_bag(tmp_path / "in", storage, frames(8, damaged_color, damaged_depth))
    summary = upsample_bag(source, tmp_path / "out", StubEngine(), BagOptions())
    assert summary.written == 4
    assert sum(summary.skipped.values()) == 4
    assert any("unbelievable" in text for text in summary.examples.values())
    assert [m for m in contents(tmp_path / "out") if not m[0].startswith("/depth_up")] == contents(source)
    assert [stamp(m) for _, m in outputs(tmp_path / "out", "image_raw")] == [START + i * FRAME for i in (0, 4, 6, 7)]


def test_pairing_is_that_of_message_filters():
    message_filters = pytest.importorskip("message_filters")
    rng = np.random.default_rng(5)
    for trial in range(200):
        slop, size = float(rng.choice([0.0, 0.005, 0.01, 0.02])), int(rng.integers(1, 6))
        inputs = [message_filters.SimpleFilter() for _ in range(2)]
        sync = message_filters.ApproximateTimeSynchronizer(inputs, size, slop)
        expected, got = [], []
        sync.registerCallback(lambda a, b, expected=expected: expected.append((a.name, b.name)))
        ours = ApproximatePairs(slop, size)
        for n in range(60):
            which = int(rng.integers(2))
            ns = int(rng.integers(0, 60)) * 1_000_000 + n // 3 * 3_000_000  # repeats, ties, and out of order
            msg = SimpleNamespace(
                name=n, header=SimpleNamespace(stamp=SimpleNamespace(sec=0, nanosec=ns, nanoseconds=ns))
            )
            inputs[which].signalMessage(msg)
            pair = ours.add(which, ns, n)
            got += [pair] if pair else []
        assert got == expected, trial


def test_static_transforms_are_chained_both_ways():
    tree = StaticTransforms()
    quarter = (0, 0, np.sin(np.pi / 4), np.cos(np.pi / 4))  # 90 degrees about z
    tree.add(transform("base", "a", (1, 0, 0), quarter))
    tree.add(transform("a", "b", (0, 2, 0)))
    tree.add(transform("/base", "c", (0, 0, 3)))
    tree.add(transform("base", "broken", (0, 0, 3), (0, 0, 0, 0)))
    t, q = tree.lookup("c", "b")  # b's origin: 2 along a's y, which is -x of base; then 3 below c
    np.testing.assert_allclose(t, [-1, 0, -3], atol=1e-12)
    np.testing.assert_allclose(q, quarter)
    back, _ = tree.lookup("b", "c")
    np.testing.assert_allclose(back, [0, -1, 3], atol=1e-12)
    assert tree.lookup("c", "elsewhere") is None
    assert tree.lookup("c", "broken") is None


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def compressed(i, data, format, frame):
    return STORE.serialize_cdr(
        T[COMPRESSED](msgs.header(START + i * FRAME, frame), format, np.frombuffer(data, np.uint8)), COMPRESSED
    )


def test_compressed_colour_and_depth(tmp_path):
    color, depth = f"{COLOR}/compressed", f"{DEPTH}/compressedDepth"
    lr = np.full((6, 8), 1500, np.uint16)
    quantised = np.array([[0, 2, 12, 22]], np.uint16).repeat(3, 0)
    header = bytes(4) + np.array([20.0, 2.0], "<f4").tobytes()  # depth = 20 / (value - 2)
    jpeg = io.BytesIO()
    Image.fromarray(np.full((24, 32, 3), (200, 30, 90), np.uint8)).save(jpeg, "jpeg", quality=95)
    rows = [
        (jpeg.getvalue(), "rgb8; jpeg compressed bgr8", bytes(12) + png(lr), "16UC1; compressedDepth png"),
        (png(np.zeros((24, 32, 3), np.uint8)), "bgr8; png compressed bgr8", header + png(quantised), "32FC1; compressedDepth"),
        (jpeg.getvalue(), "rgb8; jpeg compressed bgr8", bytes(12) + b"noise", "16UC1; compressedDepth png"),
        (jpeg.getvalue()[:200], "rgb8; jpeg compressed bgr8", bytes(12) + png(lr), "16UC1; compressedDepth png"),
        (jpeg.getvalue(), "rgb8; jpeg compressed bgr8", bytes(12) + png(lr), "16UC1; compressedDepth rvl"),
    ]  # fmt: skip
    messages = []
    for i, (c, cf, d, df) in enumerate(rows):
        messages += [(color, COMPRESSED, START + i * FRAME, compressed(i, c, cf, "c"))]
        messages += [(depth, COMPRESSED, START + i * FRAME, compressed(i, d, df, "c"))]
    source = write_bag(tmp_path / "in", "mcap", messages)
    summary = upsample_bag(source, tmp_path / "out", StubEngine(), BagOptions())
    images = [view(m) for _, m in outputs(tmp_path / "out", "image_raw")]
    np.testing.assert_allclose(images[0], 2.5)
    column = images[1][0] - 2  # the second frame
    assert np.isnan(column[0])
    assert np.isinf(column[8])
    np.testing.assert_allclose(column[[16, 24]], [2.0, 1.0])
    assert (summary.written, sum(summary.skipped.values())) == (2, 3)
    assert any("rvl" in text for text in summary.examples.values())


def test_compressed_colour_comes_out_as_rgb():
    file = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), (200, 30, 90), np.uint8)).save(file, "jpeg", quality=95)
    msg = STORE.deserialize_cdr(compressed(0, file.getvalue(), "jpeg", "c"), COMPRESSED)
    np.testing.assert_allclose(msgs.read_color(msg), np.full((8, 8, 3), (200, 30, 90)), atol=4)
    msg.format = "16UC1; compressedDepth png"
    with pytest.raises(FrameError, match="swapped"):
        msgs.read_color(msg)


def one_of_each(*topics):
    """One message on each of (topic, "color" | "depth" | an encoding)."""
    for topic, kind in topics:
        yield topic, IMAGE, START, color_image(0) if kind == "color" else depth_image(0)


@pytest.mark.parametrize(
    ("topics", "expected"),
    [
        ([("/rgb/image_raw", "color"), ("/depth/image_raw", "depth"), ("/depth_to_rgb/image_raw", "depth")], 2),
        ([("/c/color/image_raw", "color"), ("/c/aligned_depth_to_color/image_raw", "depth")], 1),
        ([("/c/infra1/image_rect_raw", "color"), ("/c/color/image_raw", "color"), ("/c/depth/image", "depth")], 2),
    ],
)
def test_topics_are_guessed(tmp_path, topics, expected):
    said = []
    source = write_bag(tmp_path / "in", "mcap", one_of_each(*topics))
    upsample_bag(source, tmp_path / "out", StubEngine(), BagOptions(), say=said.append)
    color = next(t for t, kind in topics if kind == "color" and "infra" not in t)
    assert f"colour {color} (rgb8)" in said[0]
    assert f"depth  {topics[expected][0]} (16UC1)" in said[0]


def test_of_two_cameras_one_must_be_named_and_its_partner_is_found(tmp_path):
    topics = [(f"/cam{n}/{what}/image_raw", what) for n in (1, 2) for what in ("color", "depth")]
    source = write_bag(tmp_path / "in", "mcap", one_of_each(*topics))
    with pytest.raises(BagError, match=r"/cam1/depth/image_raw \(16UC1\), /cam2/depth/image_raw"):
        upsample_bag(source, tmp_path / "out", StubEngine(), BagOptions())
    for options in (BagOptions(color="/cam2/color/image_raw"), BagOptions(depth="cam2/depth/image_raw")):
        said = []
        upsample_bag(source, tmp_path / "out", StubEngine(), options, say=said.append)
        assert said[0].count("cam2") == 2
        shutil.rmtree(tmp_path / "out")


def test_window_offsets_and_options(tmp_path):
    source = write_bag(tmp_path / "in", "sqlite3", frames(10))
    options = BagOptions(
        start=2.5 * FRAME * 1e-9, end=5.5 * FRAME * 1e-9, stamp_source="depth", output_encoding="16UC1",
        prefix="/fine/", storage="mcap", cloud=True, cloud_stride=5, extrinsics=(0.1, 0, 0, 0, 0, 0, 1),
    )  # fmt: skip
    engine = StubEngine()
    upsample_bag(source, tmp_path / "out", engine, options)
    assert (tmp_path / "out" / "out.mcap").exists()
    added = [m for m in contents(tmp_path / "out") if m[0].startswith("/fine/")]
    images = [STORE.deserialize_cdr(m[6], IMAGE) for m in added if m[0] == "/fine/image_raw"]
    assert [stamp(m) for m in images] == [START + i * FRAME + 2_000_000 for i in (3, 4, 5)]
    assert {m.encoding for m in images} == {"16UC1"}
    cloud = next(STORE.deserialize_cdr(m[6], m[1]) for m in added if m[0] == "/fine/points")
    assert (cloud.height, cloud.width) == (5, 7)
    np.testing.assert_allclose(engine.calls[-1][2].translation, [0.1, 0, 0])
    assert len(contents(tmp_path / "out")) == len(contents(source)) + len(added)


def test_a_pair_whose_stamp_goes_back_is_dropped_as_in_the_node(tmp_path):
    order = [0, 1, 4, 2, 5]
    messages = [
        m
        for n, i in enumerate(order)
        for m in (
            (COLOR, IMAGE, START + n * FRAME, color_image(i)),
            (DEPTH, IMAGE, START + n * FRAME, depth_image(i)),
        )
    ]
    summary = upsample_bag(write_bag(tmp_path / "in", "mcap", messages), tmp_path / "out", StubEngine(), BagOptions())
    assert summary.skipped == {"stale": 1}
    assert [stamp(m) for _, m in outputs(tmp_path / "out", "image_raw")] == [START + i * FRAME for i in (0, 1, 4, 5)]


def test_a_single_file_and_a_folder_without_metadata_are_bags_too(tmp_path):
    for storage, name in (("mcap", "in1.mcap"), ("sqlite3", "in2.db3")):
        source = write_bag(tmp_path / Path(name).stem, storage, frames(3))
        for path in (source / name, source):
            assert upsample_bag(path, tmp_path / "out", StubEngine(), BagOptions()).written == 3
            shutil.rmtree(tmp_path / "out")
            (source / "metadata.yaml").unlink(missing_ok=True)


def no_depth(folder):
    return write_bag(folder, "mcap", ((t, k, s, r) for t, k, s, r in frames(3) if t != DEPTH))


def late_depth(folder):
    return write_bag(folder, "mcap", frames(3, depth=lambda i: depth_image(i, stamp=START + i * FRAME + 16_500_000)))


def cut_off(storage, share):
    def make(folder):
        file = next(write_bag(folder, storage, frames(200)).glob(f"{folder.name}.*"))
        os.truncate(file, int(file.stat().st_size * share))
        return folder

    return make


def unusable(folder):
    return write_bag(folder, "mcap", frames(30, depth=lambda i: depth_image(i, value=65535)))


def text_file(folder):
    folder.with_suffix(".mcap").write_text("no bag")
    return folder.with_suffix(".mcap")


def empty_folder(folder):
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: folder, "no bag at"),
        (empty_folder, "is not a bag"),
        (text_file, "cannot be read"),
        (no_depth, "no depth topic"),
        (late_depth, "no two stamps within 0.015 s.*0.016500 s apart"),
        (cut_off("mcap", 0.5), "reindex"),
        (cut_off("sqlite3", 0.5), "reindex"),
        (cut_off("sqlite3", 0.001), "reindex"),
        (unusable, "none of the first 20 pairs.*unbelievable"),
    ],
)
def test_mistakes_are_said_and_leave_nothing_behind(tmp_path, make, said):
    source = make(tmp_path / "in")
    with pytest.raises(BagError, match=said):
        upsample_bag(source, tmp_path / "out", StubEngine(), BagOptions())
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.partial").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (BagOptions(color="/nowhere"), r"no images on /nowhere; image topics: .*/camera/color/image_raw \(rgb8\)"),
        (BagOptions(color_info="/nowhere"), "no camera info on /nowhere"),
        (BagOptions(color=DEPTH), "was given for colour and for depth"),
        (BagOptions(prefix="/camera/depth"), "has /camera/depth/camera_info, /camera/depth/image_raw already"),
        (BagOptions(start=100.0), "nothing to pair"),
    ],
)
def test_options_that_cannot_be(tmp_path, options, said):
    source = write_bag(tmp_path / "in", "mcap", frames(2))
    with pytest.raises(BagError, match=said):
        upsample_bag(source, tmp_path / "out", StubEngine(), options)


def test_the_real_engine_goes_on_where_it_stopped():
    """The range of the stream is what one frame hands on; a pair of the same images comes out the same after a restart."""
    import torch

    from d2a2_core import D2A2Lite, DepthUpsampler
    from d2a2_core.pipeline import DepthPipeline, PipelineSettings

    def stream():
        torch.manual_seed(0)
        upsampler = DepthUpsampler(D2A2Lite(channels=8, blocks=1), "cpu")
        return DepthPipeline(upsampler, PipelineSettings(watchdog=False))

    rng = np.random.default_rng(0)
    color = rng.integers(0, 256, (32, 48, 3), dtype=np.uint8)
    first, second = (rng.uniform(1, far, (8, 12)).astype(np.float32) for far in (4.0, 2.0))
    unbroken = stream()
    unbroken.process(color, first)
    state = json.loads(json.dumps(unbroken.state()))
    expected = unbroken.process(color, second)
    resumed = stream()
    resumed.restore(state)
    np.testing.assert_array_equal(resumed.process(color, second).depth, expected.depth)
    assert resumed.state() == unbroken.state()
    assert not np.array_equal(stream().process(color, second).depth, expected.depth, equal_nan=True)  # it does matter


def test_the_cloud_can_be_without_what_was_not_measured(tmp_path):
    class HalfFilled(StubEngine):
        def process(self, *args):
            result = super().process(*args)
            result.provenance[:, :16] = Provenance.FILLED
            return result

    source = write_bag(tmp_path / "in", "mcap", frames(2))
    upsample_bag(source, tmp_path / "out", HalfFilled(), BagOptions(cloud=True, points_provenance="measured"))
    cloud = outputs(tmp_path / "out", "points")[0][1]
    xyz = cloud.data.view(np.dtype([("xyz", "f4", 3), ("bgr", "u1", 4), ("provenance", "u1")]))["xyz"].reshape(
        24, 32, 3
    )
    assert np.isnan(xyz[:, :16]).all()
    assert np.isfinite(xyz[:, 16:]).all()
    assert np.isfinite(view(outputs(tmp_path / "out", "image_raw")[0][1])).all()


@pytest.mark.parametrize(("setting", "used"), [("auto", 30.0), ("none", 32.0)])
def test_a_rectified_image_is_not_undistorted_again(tmp_path, setting, used):
    """image_rect comes with the raw image's camera info: D is the lens's, P the rectified image's."""
    raw = msgs.deserialize(info(32, 24, "color_optical"), INFO)
    raw.d, raw.p = np.array([-0.2, 0.1, 0, 0, 0]), np.array([30.0, 0, 15, 0, 0, 31, 11, 0, 0, 0, 1, 0])
    rows = [("/camera/color/camera_info", INFO, START, msgs.camera_info(raw))]
    rows += [
        (topic.replace("color/image_raw", "color/image_rect"), *rest)
        for topic, *rest in frames(2)
        if topic != "/camera/color/camera_info"
    ]
    engine = StubEngine()
    upsample_bag(
        write_bag(tmp_path / "in", "mcap", rows), tmp_path / "out", engine, BagOptions(rectified_input=setting)
    )
    camera = engine.calls[-1][0]
    assert (camera.fx, camera.distorted) == (used, setting == "none")
    published = outputs(tmp_path / "out", "camera_info")[0][1]
    assert published.k[0] == used
    assert any(published.d) == (setting == "none")


@pytest.mark.parametrize(
    "options",
    [
        {"slop": -1.0},
        {"queue_size": 0},
        {"cloud_stride": 0},
        {"prefix": "fine"},
        {"points_provenance": "some"},
        {"rectified_input": "all"},
    ],
)
def test_numbers_that_cannot_be(options):
    with pytest.raises(BagError, match=next(iter(options))):
        BagOptions(**options)


def test_nothing_is_overwritten(tmp_path):
    source = write_bag(tmp_path / "in", "mcap", frames(2))
    (tmp_path / "out").mkdir()
    with pytest.raises(BagError, match="exists already"):
        upsample_bag(source, tmp_path / "out", StubEngine(), BagOptions())
    with pytest.raises(BagError, match="folder"):
        upsample_bag(source, tmp_path / "out.mcap", StubEngine(), BagOptions())
