"""Where a bag's cameras are: transforms on /tf_static and /tf, calibration files; and images that decoders fail on."""

import io
import json
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("rosbags", reason="needs rosbags (pip install rosbags)")

from bag_files import (
    COLOR,
    COMPRESSED,
    DEPTH,
    FRAME,
    INFO,
    START,
    STORE,
    T,
    color_image,
    depth_image,
    frames,
    info,
    outputs,
    stamp,
    transform,
    write_bag,
)
from bag_stub import StubEngine

from d2a2_core.bag import BagError, BagOptions, upsample_bag
from d2a2_core.bag import messages as msgs
from d2a2_core.geometry.rig import CalibrationError

TF = "tf2_msgs/msg/TFMessage"
CALIBRATION = {
    "color": {"width": 32, "height": 24, "K": [40, 0, 15.5, 0, 41, 11.5, 0, 0, 1], "distortion_model": "plumb_bob", "D": [0.1]},
    "depth": {"width": 8, "height": 6, "K": [10, 0, 3.5, 0, 10, 2.5, 0, 0, 1]},
    "depth_to_color": {"R": [1, 0, 0, 0, 1, 0, 0, 0, 1], "t": [0.07, 0, 0]},
}  # fmt: skip


def tf(topic, *transforms, frame=0.0):
    return topic, TF, START + round(frame * FRAME), STORE.serialize_cdr(T[TF](list(transforms)), TF)


def run(tmp_path, rows, **options):
    """The engine after the last pair of a bag, and what was said."""
    engine = StubEngine()
    source = write_bag(tmp_path / "in", "mcap", sorted(rows, key=lambda m: m[2]))
    return engine, upsample_bag(source, tmp_path / "out", engine, BagOptions(**options))


def images(count=3):
    return [m for m in frames(count) if m[0] not in ("/tf_static", "/soup")]


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("topic", ["/tf_static", "/tf", "/robot/tf"])
def test_transforms_on_any_topic_and_with_leading_slashes(tmp_path, topic, slash):
    rows = [
        tf(topic, transform(f"{slash}link", f"{slash}color_optical", (0.05, 0, 0))),
        tf(topic, transform(f"{slash}link", f"{slash}depth_optical", (0.02, 0, 0)), frame=0.5),
    ]
    engine, summary = run(tmp_path, [*rows, *images()])
    np.testing.assert_allclose(engine.calls[-1][2].translation, [-0.03, 0, 0])
    said = "/tf says where 'depth_optical' is in 'color_optical': its first transforms count for the whole bag"
    assert (said in summary.notes) == (topic != "/tf_static")


def test_static_transforms_count_before_moving_ones_and_the_first_of_these(tmp_path):
    rows = [tf("/tf_static", transform("link", "color_optical", (0.05, 0, 0)))]
    for n, x in enumerate((0.02, 0.01, 0.0)):
        moving = transform("link", "depth_optical", (x, 0, 0)), transform("map", "color_optical", (9, 9, 9))
        rows.append(tf("/tf", *moving, frame=n))
    engine, _ = run(tmp_path, [*rows, *images()])
    np.testing.assert_allclose(engine.calls[-1][2].translation, [-0.03, 0, 0])


def test_frames_that_nothing_joins_are_said_with_what_to_do(tmp_path):
    rows = [tf("/tf", transform("odom", "base", (n, 0, 0)), frame=n / 10) for n in range(30)]
    engine, summary = run(tmp_path, [*rows, *images()])
    assert engine.calls[-1][2] is None
    assert (
        "neither /tf_static nor /tf says where 'depth_optical' is in 'color_optical'; --extrinsics or --calibration can say it"
        in summary.notes
    )


def test_damaged_transforms_are_passed_over(tmp_path):
    rows = [("/tf_static", TF, START, b"\x00\x01\x00\x00\xff\xff\xff\xff"), ("/tf", TF, START, b"")]
    rows += [tf("/tf", transform("color_optical", "depth_optical", (np.nan, 0, 0)))]
    engine, summary = run(tmp_path, [*rows, *images()])
    assert (engine.calls[-1][2], summary.written) == (None, 3)


def test_one_frame_with_and_without_a_slash_needs_no_transform(tmp_path):
    rows = frames(2, lambda i: color_image(i, frame="/cam"), lambda i: depth_image(i, frame="cam"))
    engine, summary = run(tmp_path, [m for m in rows if m[0] in (COLOR, DEPTH)])
    assert engine.calls[-1][2] is None
    assert not any("tf" in note for note in summary.notes)


@pytest.mark.parametrize("infos", [True, False])
def test_a_calibration_file_counts_before_the_bags_own(tmp_path, infos):
    path = tmp_path / "rig.json"
    path.write_text(json.dumps(CALIBRATION))
    rows = [m for m in frames(3) if infos or m[0] in (COLOR, DEPTH)]
    engine, _ = run(tmp_path, rows, calibration=str(path), cloud=True)
    color, depth, extrinsics, *_ = engine.calls[-1]
    assert (color.width, color.fx, color.fy, color.distortion[0]) == (32, 40, 41, 0.1)
    assert (depth.width, depth.fx, depth.distorted) == (8, 10, False)
    np.testing.assert_allclose(extrinsics.translation, [0.07, 0, 0])
    published = [m for _, m in outputs(tmp_path / "out", "camera_info")]
    assert [(m.k[0], m.header.frame_id, stamp(m)) for m in published] == [
        (40.0, "color_optical", START + i * FRAME) for i in range(3)
    ]
    assert len(outputs(tmp_path / "out", "points")) == 3


def test_what_a_calibration_file_leaves_open_is_the_bags_and_extrinsics_by_hand_count_first(tmp_path):
    path = tmp_path / "rig.json"
    path.write_text(json.dumps({"color": CALIBRATION["color"]}))
    engine, _ = run(tmp_path, list(frames(2)), calibration=str(path), extrinsics=(0.5, 0, 0, 0, 0, 0, 1))
    color, depth, extrinsics, *_ = engine.calls[-1]
    assert (color.fx, depth.fx) == (40, 8)
    np.testing.assert_allclose(extrinsics.translation, [0.5, 0, 0])


def test_a_calibration_of_another_size_is_fitted_to_the_images(tmp_path):
    path = tmp_path / "rig.json"
    path.write_text(json.dumps({"color": {**CALIBRATION["color"], "width": 64, "height": 48}}))
    engine, _ = run(tmp_path, list(frames(2)), calibration=str(path))
    assert (engine.calls[-1][0].width, engine.calls[-1][0].fx) == (32, 20)


def test_what_is_doubtful_about_a_calibration_file_is_said_once(tmp_path):
    path = tmp_path / "rig.json"
    k = [40, 5, 31.5, 0, 41, 23.5, 0, 0, 1]
    path.write_text(json.dumps(CALIBRATION | {"color": CALIBRATION["color"] | {"K": k}}))
    _, summary = run(tmp_path, list(frames(2)), calibration=str(path))
    assert [note for note in summary.notes if "skew" in note] == [
        "calibration's entry color: K has a skew (K[1]=5), which is not used: up to 1.5 px are lost"
    ]
    assert len([note for note in summary.notes if "principal point (31.5, 23.5)" in note]) == 1


def test_another_calibration_is_another_run(tmp_path):
    path, source = tmp_path / "rig.json", write_bag(tmp_path / "in", "mcap", frames(3))
    path.write_text(json.dumps(CALIBRATION))
    engine = StubEngine()
    engine.process = lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        upsample_bag(source, tmp_path / "out", engine, BagOptions(calibration=str(path)))
    path.write_text(json.dumps({**CALIBRATION, "rate_hz": 5}))
    with pytest.raises(BagError, match=r"other settings \(calibration\)"):
        upsample_bag(source, tmp_path / "out", StubEngine(), BagOptions(calibration=str(path)))
    with pytest.raises(CalibrationError, match="cannot be read"):
        upsample_bag(source, tmp_path / "out", StubEngine(), BagOptions(calibration=str(tmp_path / "nowhere")))


def png_header(width, height, mode=2):
    """The start of a PNG that claims a size."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, mode, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + bytes(40)


def jpeg_header(width, height):
    return (
        b"\xff\xd8\xff\xc0\x00\x11\x08"
        + struct.pack(">HH", height, width)
        + b"\x03\x01\x22\x00\x02\x11\x01\x03\x11\x01"
    )


def good_png():
    file = io.BytesIO()
    Image.fromarray(np.zeros((24, 32, 3), np.uint8)).save(file, "png")
    return file.getvalue()


BROKEN = {
    "a gigapixel PNG": png_header(65535, 65535),
    "a PNG of 2^31 columns": png_header(2**31 - 1, 1),
    "a gigapixel JPEG": jpeg_header(65535, 65535),
    "a PNG with a broken chunk": good_png()[:40] + b"\xff" * 30 + good_png()[70:],
    "a PNG without its chunks' order": good_png()[:8] + good_png()[33:],
    "a cut-off PNG": good_png()[:48],
    "a GIF": b"GIF89a" + bytes(40),
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "nothing": b"",
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("which", ["color", "depth"])
def test_an_image_that_no_decoder_can_read_costs_itself_alone(tmp_path, data, which):
    def image(i, content, kind, frame):
        message = T[COMPRESSED](msgs.header(START + i * FRAME, frame), kind, np.frombuffer(content, np.uint8))
        return COMPRESSED, START + i * FRAME, STORE.serialize_cdr(message, COMPRESSED)

    depth = io.BytesIO()
    Image.fromarray(np.full((6, 8), 1500, np.uint16)).save(depth, "png")
    rows = []
    for i in range(4):
        color_data = data if i == 2 and which == "color" else good_png()
        depth_data = data if i == 2 and which == "depth" else depth.getvalue()
        rows.append((f"{COLOR}/compressed", *image(i, color_data, "rgb8; png compressed bgr8", "c")))
        rows.append((f"{DEPTH}/compressedDepth", *image(i, bytes(12) + depth_data, "16UC1; compressedDepth png", "c")))
    _, summary = run(tmp_path, rows)
    assert (summary.written, summary.pairs, sum(summary.skipped.values())) == (3, 4, 1)
    assert [stamp(m) for _, m in outputs(tmp_path / "out", "image_raw")] == [START + i * FRAME for i in (0, 1, 3)]


def test_a_decoders_own_error_is_a_damaged_frame_and_the_engines_ends_the_run(tmp_path, monkeypatch):
    class DecoderError(Exception):
        """As libraries have them, of no type that anybody else knows."""

    def fails(msg, *_):
        if msg.header.stamp.nanosec % 2:
            raise DecoderError("the sea is wet")
        return read(msg, *_)

    read = msgs.read_depth
    monkeypatch.setattr(msgs, "read_depth", fails)
    _, summary = run(tmp_path, list(frames(4)))
    assert summary.skipped == {"depth_undecodable": 2}
    assert summary.examples["depth_undecodable"] == "depth: image cannot be decoded (DecoderError: the sea is wet)"
    engine = StubEngine()
    engine.process = lambda *_: (_ for _ in ()).throw(RuntimeError("out of memory"))
    with pytest.raises(RuntimeError, match="out of memory"):
        upsample_bag(tmp_path / "in", tmp_path / "out2", engine, BagOptions())


def test_infos_without_a_camera_do_not_matter(tmp_path):
    rows = [m for m in frames(2) if m[0] in (COLOR, DEPTH)]
    rows.append(("/camera/color/camera_info", INFO, START, b"\x00\x01\x00\x00"))
    rows.append(("/other/camera_info", INFO, START, info(9, 9, "x")))
    engine, summary = run(tmp_path, rows)
    assert (engine.calls[-1][0], summary.written) == (None, 2)
    assert any("colour camera info: message is damaged" in note for note in summary.notes)
