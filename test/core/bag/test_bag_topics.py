"""`d2a2 bag`: which topics it takes and of what kinds, what its options do, and what it says of mistakes."""

import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("rosbags", reason="needs rosbags (pip install rosbags)")


from bag_files import (
    COLOR,
    COMPRESSED,
    DEPTH,
    FRAME,
    IMAGE,
    INFO,
    START,
    STORE,
    T,
    color_image,
    contents,
    depth_image,
    frames,
    info,
    outputs,
    raw_mcap,
    stamp,
    write_bag,
)
from bag_stub import StubEngine
from rosbags.rosbag2 import StoragePlugin, Writer
from rvl_file import rvl

from d2a2_core.bag import BagError, BagOptions, upsample_bag
from d2a2_core.bag import messages as msgs
from d2a2_core.depth.provenance import Provenance
from d2a2_core.messages.encodings import FrameError, view


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
        (jpeg.getvalue(), "rgb8; jpeg compressed bgr8", bytes(12) + rvl(lr), "16UC1; compressedDepth rvl"),
        (jpeg.getvalue(), "rgb8; jpeg compressed bgr8", header + rvl(quantised.astype(np.uint16)), "32FC1; compressedDepth rvl"),
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
    np.testing.assert_allclose(images[2] - images[0], 2)  # RVL says the same as PNG, two frames on
    np.testing.assert_array_equal(images[3] - 4, images[1] - 2)
    assert (summary.written, sum(summary.skipped.values())) == (4, 3)


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
        prefix="/fine/", storage="mcap", cloud=True, cloud_stride=5, extrinsics=(0.1, 0, 0, 0, 0, 0, 1), output_frame="optical",
    )  # fmt: skip
    engine = StubEngine()
    upsample_bag(source, tmp_path / "out", engine, options)
    assert (tmp_path / "out" / "out.mcap").exists()
    added = [m for m in contents(tmp_path / "out") if m[0].startswith("/fine/")]
    images = [STORE.deserialize_cdr(m[6], IMAGE) for m in added if m[0] == "/fine/image_raw"]
    assert [stamp(m) for m in images] == [START + i * FRAME + 2_000_000 for i in (3, 4, 5)]
    assert {(m.encoding, m.header.frame_id) for m in images} == {("16UC1", "optical")}
    cloud = next(STORE.deserialize_cdr(m[6], m[1]) for m in added if m[0] == "/fine/points")
    assert (cloud.height, cloud.width, cloud.header.frame_id) == (5, 7, "optical")
    np.testing.assert_allclose(engine.calls[-1][2].translation, [0.1, 0, 0])
    assert len(contents(tmp_path / "out")) == len(contents(source)) + len(added)


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
        (cut_off("mcap", 0.5), r"metadata.yaml says the bag holds 603 messages, but its files hold \d+"),
        (cut_off("sqlite3", 0.5), r"sqlite3 .* \.recover"),
        (cut_off("sqlite3", 0.001), r"sqlite3 .* \.recover"),
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
        (BagOptions(start=100.0), "images lie 0.0 to 0.0 s after the bag's first message"),
    ],
)
def test_options_that_cannot_be(tmp_path, options, said):
    source = write_bag(tmp_path / "in", "mcap", frames(2))
    with pytest.raises(BagError, match=said):
        upsample_bag(source, tmp_path / "out", StubEngine(), options)


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
        {"slop": float("nan")},
        {"start": float("inf")},
        {"end": 1e300},
        {"cloud_stride": 0},
        {"prefix": "fine"},
        {"points_provenance": "some"},
        {"rectified_input": "all"},
        {"extrinsics": (0.1, 0, 0, 0, 0, 0, 0)},
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


@pytest.mark.parametrize("format", ["png", "", "rgb8; png compressed bgr8"])
def test_a_plain_png_of_16_bits_is_depth_by_its_name_whatever_its_format_says(tmp_path, format):
    color, depth = f"{COLOR}/compressed", f"{DEPTH}/compressed"
    messages = [*frames(1)][:3]
    for i in range(2):
        messages.append(
            (color, COMPRESSED, START + i, compressed(i, png(np.full((24, 32, 3), 9, np.uint8)), "png", "cam"))
        )
        messages.append(
            (depth, COMPRESSED, START + i, compressed(i, png(np.full((6, 8), 1500, np.uint16)), format, "cam"))
        )
    said = []
    source = write_bag(tmp_path / "in", "mcap", messages)
    assert upsample_bag(source, tmp_path / "out", StubEngine(), BagOptions(), say=said.append).written == 2
    assert f"colour {color} (png)" in said[0]
    assert f"depth  {depth} ({format} of 16-bit grey)" in said[0]


def test_camera_infos_that_are_not_beside_the_images_are_listed(tmp_path):
    messages = [(t.replace("/color/camera_info", "/rgb_info"), *rest) for t, *rest in frames(2)]
    said = []
    upsample_bag(
        write_bag(tmp_path / "in", "mcap", messages), tmp_path / "out", StubEngine(), BagOptions(), say=said.append
    )
    assert (
        "colour none, depth /camera/depth/camera_info; the bag also has /camera/rgb_info: --color-info can name one"
        in said[0]
    )


def test_a_topic_whose_first_images_are_damaged_is_found(tmp_path):
    damaged = [(COLOR, IMAGE, START - 100 + i, b"\0\1\0\0") for i in range(50)]
    source = write_bag(tmp_path / "in", "mcap", [*damaged, *frames(30)])
    assert upsample_bag(source, tmp_path / "out", StubEngine(), BagOptions()).written == 30


def test_a_bag_that_was_upsampled_before_is_upsampled_again_under_another_prefix(tmp_path):
    upsample_bag(write_bag(tmp_path / "in", "mcap", frames(3)), tmp_path / "once", StubEngine(), BagOptions())
    with pytest.raises(BagError, match="choose another --prefix"):
        upsample_bag(tmp_path / "once", tmp_path / "twice", StubEngine(), BagOptions())
    again = upsample_bag(tmp_path / "once", tmp_path / "twice", StubEngine(), BagOptions(prefix="/again"))
    assert again.written == 3


def test_images_of_the_latest_bag_time_count(tmp_path):
    messages = [(t, k, 2**63 - 1, raw) for t, k, _, raw in frames(3)]
    assert (
        upsample_bag(raw_mcap(tmp_path / "in.mcap", messages), tmp_path / "out", StubEngine(), BagOptions()).written
        == 3
    )


def test_topics_without_messages_are_no_obstacle(tmp_path):
    source = tmp_path / "in"
    with Writer(source, version=9, storage_plugin=StoragePlugin.SQLITE3) as writer:
        for topic in (f"{COLOR}/compressed", "/other/depth/image_rect_raw"):
            writer.add_connection(topic, COMPRESSED if "compressed" in topic else IMAGE, typestore=STORE)
        known = {t: writer.add_connection(t, k, typestore=STORE) for t, k, *_ in frames(1)}
        for topic, _, time, raw in frames(3):
            writer.write(known[topic], time, raw)
    assert upsample_bag(source, tmp_path / "out", StubEngine(), BagOptions()).written == 3
