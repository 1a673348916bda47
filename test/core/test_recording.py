"""Folder recordings: the shared ones, made-up ones, and every way a folder can be wrong."""

import json
import struct

import numpy as np
import pytest
from image_messages import png
from PIL import Image

from d2a2_core.depth.units import to_metres
from d2a2_core.recording import Recording, RecordingError

COLOR = {"width": 8, "height": 6, "distortion_model": "plumb_bob", "K": [7, 0, 3.5, 0, 7.5, 2.5, 0, 0, 1], "D": [0.1]}
POSE = {"R": [1, 0, 0, 0, 1, 0, 0, 0, 1], "t": [0, 0, 0]}


def write_frame(folder, prefix="", seed=0, truth=False):
    rng = np.random.default_rng(seed)
    color = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    depth = rng.integers(0, 65536, (3, 4)).astype(np.uint16)
    depth[0, 0] = 0
    Image.fromarray(color).save(folder / f"{prefix}color.png")
    Image.fromarray(depth).save(folder / f"{prefix}depth.png")
    if truth:
        Image.fromarray(np.full((6, 8), 1234, np.uint16)).save(folder / f"{prefix}truth.png")
    return color, depth


def write_calibration(folder, content):
    (folder / "calibration.json").write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.mark.parametrize(
    ("name", "frames", "color", "depth", "registered", "cameras"),
    [
        ("azure_kinect_lab", 60, (720, 1280), (720, 1280), True, {"color", "depth"}),
        ("azure_kinect_mug", 1, (720, 1280), (576, 640), False, {"color", "depth"}),
        ("iphone_lidar", 1, (1440, 1920), (192, 256), True, set()),
    ],
)
def test_shared_recordings_open(shared, name, frames, color, depth, registered, cameras):
    recording = Recording(shared / "data" / name)
    assert len(recording) == frames
    frame = recording[frames - 1]
    assert frame.color.shape == (*color, 3)
    assert frame.color.dtype == np.uint8
    assert frame.depth_mm.shape == frame.depth.shape == depth
    assert frame.depth_mm.dtype == np.uint16
    assert frame.truth is None
    assert recording.registered == registered
    np.testing.assert_array_equal(np.isnan(frame.depth), frame.depth_mm == 0)
    assert 0.1 < np.nanmedian(frame.depth) < 10  # metres
    found = {which: recording.camera(which) for which in ("color", "depth")}
    assert {which for which, camera in found.items() if camera} == cameras
    for which, size in (("color", color), ("depth", depth)):
        if found[which]:
            assert (found[which].height, found[which].width) == size


def test_shared_frames_are_in_order(shared):
    recording = Recording(shared / "data/azure_kinect_lab")
    assert recording.names == [f"{i:03d}" for i in range(60)]


def test_numbered_frames(tmp_path):
    made = {
        name: write_frame(tmp_path, f"{name}.", seed, truth=name == "002") for seed, name in enumerate(("002", "000"))
    }
    (tmp_path / "notes.txt").write_text("not a frame")
    write_calibration(tmp_path, {"color": COLOR, "rate_hz": 30})
    recording = Recording(str(tmp_path))
    assert recording.names == ["000", "002"]
    assert recording.rate_hz == 30.0
    for index, name in enumerate(recording.names):
        frame = recording[index]
        assert frame.name == name
        np.testing.assert_array_equal(frame.color, made[name][0])
        np.testing.assert_array_equal(frame.depth_mm, made[name][1])
    assert recording[0].truth is None
    np.testing.assert_allclose(recording[1].truth, np.full((6, 8), 1.234), rtol=1e-6)
    with pytest.raises(IndexError):
        recording[2]


def test_unpadded_numbers_are_in_numerical_order(tmp_path):
    for number in (0, 2, 10):
        write_frame(tmp_path, f"{number}.")
    assert Recording(tmp_path).names == ["0", "2", "10"]


def test_single_pair_without_calibration(tmp_path):
    color, depth = write_frame(tmp_path)
    recording = Recording(tmp_path)
    assert len(recording) == 1
    np.testing.assert_array_equal(recording[0].color, color)
    np.testing.assert_array_equal(recording[0].depth_mm, depth)
    assert recording.calibration is None
    assert recording.camera("color") is None
    assert recording.camera("depth") is None
    assert recording.registered
    assert recording.rate_hz == 15.0


def test_colour_of_other_modes_becomes_rgb(tmp_path):
    write_frame(tmp_path)
    Image.new("L", (8, 6), 77).save(tmp_path / "color.png")
    frame = Recording(tmp_path)[0]
    assert frame.color.shape == (6, 8, 3)
    assert (frame.color == 77).all()


def test_16_bit_grey_is_a_guide_of_8_bits(tmp_path):
    write_frame(tmp_path)
    Image.fromarray(np.linspace(300, 900, 48).astype(np.uint16).reshape(6, 8)).save(tmp_path / "color.png")
    color = Recording(tmp_path)[0].color
    assert (color.shape, color.dtype) == ((6, 8, 3), np.uint8)
    assert len(np.unique(color)) > 40
    assert (color.min(), color.max()) == (0, 255)


def test_colour_is_turned_as_exif_says(tmp_path):
    write_frame(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
    Image.fromarray(stored).save(tmp_path / "color.png", exif=exif)
    np.testing.assert_array_equal(Recording(tmp_path)[0].color[..., 0], np.rot90(stored, -1))


def test_cameras(tmp_path):
    write_frame(tmp_path)
    write_calibration(tmp_path, {"color": COLOR})
    recording = Recording(tmp_path)
    color, depth = recording.camera("color"), recording.camera("depth")
    assert (color.width, color.height, color.fx, color.fy, color.cx, color.cy) == (8, 6, 7, 7.5, 3.5, 2.5)
    assert (color.model, color.distortion) == ("plumb_bob", (0.1,))
    # Not listed: the depth is in the colour camera's view, at its own size.
    assert (depth.width, depth.height, depth.fx, depth.fy, depth.cx, depth.cy) == (4, 3, 3.5, 3.75, 1.5, 1.0)
    write_calibration(tmp_path, {"color": COLOR, "depth": {**COLOR, "width": 4, "height": 3}})
    assert Recording(tmp_path).camera("depth").fx == 7


@pytest.mark.parametrize(
    ("pose", "registered"),
    [
        (None, True),
        (POSE, True),
        ({**POSE, "t": [0.03, 0, 0]}, False),
        ({**POSE, "R": [0, -1, 0, 1, 0, 0, 0, 0, 1]}, False),
    ],
)
def test_registered(tmp_path, pose, registered):
    write_frame(tmp_path)
    write_calibration(tmp_path, {"color": COLOR, "depth_to_color": pose} if pose else {"color": COLOR})
    assert Recording(tmp_path).registered is registered


def test_to_metres():
    metres = to_metres(np.array([[0, 1, 1500, 65535]], np.uint16))
    assert metres.dtype == np.float32
    np.testing.assert_array_equal(np.isnan(metres), [[True, False, False, False]])
    np.testing.assert_allclose(metres[0, 1:], [0.001, 1.5, 65.535], rtol=1e-6)


# --- what can be wrong ------------------------------------------------------------------------------------------------


def test_missing_folder(tmp_path):
    with pytest.raises(RecordingError, match=r"no recording folder at .*nowhere"):
        Recording(tmp_path / "nowhere")


def test_file_in_place_of_a_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RecordingError, match="no recording folder"):
        Recording(tmp_path / "file")


def test_folder_without_frames(tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "holiday.png")
    with pytest.raises(RecordingError, match=r"holds no frames; expected NNN\.color\.jpg"):
        Recording(tmp_path)


@pytest.mark.parametrize("lost", ["001.color.png", "001.depth.png"])
def test_unpaired_frames(tmp_path, lost):
    for name in ("000", "001"):
        write_frame(tmp_path, f"{name}.")
    (tmp_path / lost).unlink()
    with pytest.raises(RecordingError, match=r"frames \['001'\] lack their colour or their depth"):
        Recording(tmp_path)


def test_eight_bit_depth(tmp_path):
    write_frame(tmp_path)
    Image.new("L", (4, 3), 9).save(tmp_path / "depth.png")
    with pytest.raises(RecordingError, match=r"depth\.png must be a 16-bit greyscale PNG in millimetres, got .*uint8"):
        Recording(tmp_path)[0]


def test_colour_in_place_of_depth(tmp_path):
    write_frame(tmp_path)
    Image.new("RGB", (4, 3)).save(tmp_path / "depth.png")
    with pytest.raises(RecordingError, match="must be a 16-bit greyscale PNG"):
        Recording(tmp_path)[0]


@pytest.mark.parametrize("which", ["color", "depth"])
@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "flipped"])
def test_damaged_image(tmp_path, which, damage):
    write_frame(tmp_path)
    path = tmp_path / f"{which}.png"
    data = path.read_bytes()
    middle = data.index(b"IDAT") + 8
    path.write_bytes(
        {
            "truncated": data[:middle],
            "empty": b"",
            "text": b"<html>404</html>",
            "flipped": data[:middle] + bytes(b ^ 0xFF for b in data[middle : middle + 6]) + data[middle + 6 :],
        }[damage]
    )
    with pytest.raises(RecordingError, match=rf"{which}\.png cannot be read as an image"):
        Recording(tmp_path)[0]


@pytest.mark.parametrize("which", ["color", "depth"])
def test_files_that_are_no_jpeg_or_png_are_refused_whatever_their_name(tmp_path, which):
    write_frame(tmp_path)
    Image.new("RGB", (8, 6)).save(tmp_path / f"{which}.png", "EPS")
    with pytest.raises(RecordingError, match=rf"{which}\.png cannot be read as an image: it is neither JPEG nor PNG"):
        Recording(tmp_path)[0]


@pytest.mark.parametrize("which", ["color", "depth"])
def test_a_claimed_size_is_refused(tmp_path, which):
    write_frame(tmp_path)
    (tmp_path / f"{which}.png").write_bytes(png(struct.pack(">IIBBBBB", 65535, 65535, 16, 0, 0, 0, 0), b""))
    with pytest.raises(RecordingError, match=rf"{which}\.png .* is of 65535x65535 pixels; expected at most"):
        Recording(tmp_path)[0]


@pytest.mark.parametrize("content", ["{", "", "[1, 2]", '"K"', "\ufffd{"])
def test_broken_calibration(tmp_path, content):
    write_frame(tmp_path)
    write_calibration(tmp_path, content)
    with pytest.raises(RecordingError, match=r"calibration\.json"):
        _ = Recording(tmp_path).rate_hz


@pytest.mark.parametrize(
    "change",
    [
        {"K": [1, 2]},
        {"K": None},
        {"K": [0] * 9},
        {"K": [1e300] * 9},
        {"K": [True] * 9},
        {"width": "wide"},
        {"width": 1e300},
        {"height": -1},
        {"height": 6.5},
        {"distortion_model": "fov"},
        {"D": ["a"]},
        {"D": None},
    ],
    ids=str,
)
def test_unusable_camera(tmp_path, change):
    write_frame(tmp_path)
    write_calibration(tmp_path, {"color": {**COLOR, **change}})
    with pytest.raises(RecordingError, match=rf"{tmp_path}/calibration\.json: entry color"):
        Recording(tmp_path).camera("color")


@pytest.mark.parametrize(
    "pose", [{"R": POSE["R"]}, {"t": [0, 0, 0]}, {"R": [1, 0], "t": [0, 0, 0]}, [1], {**POSE, "t": ["x"]}]
)
def test_unusable_pose(tmp_path, pose):
    write_frame(tmp_path)
    write_calibration(tmp_path, {"color": COLOR, "depth_to_color": pose})
    with pytest.raises(RecordingError, match=rf"{tmp_path}/calibration\.json: entry depth_to_color"):
        _ = Recording(tmp_path).registered


@pytest.mark.parametrize("rate", ["fast", 0, -1, 1e-320, 1e300, True, [15]])
def test_unusable_rate(tmp_path, rate):
    write_frame(tmp_path)
    write_calibration(tmp_path, {"color": COLOR, "rate_hz": rate})
    with pytest.raises(RecordingError, match=r"calibration\.json: entry rate_hz: "):
        _ = Recording(tmp_path).rate_hz


@pytest.mark.parametrize("pose", [None, {}])
def test_a_pose_that_says_nothing_is_none(tmp_path, pose):
    write_frame(tmp_path)
    write_calibration(tmp_path, {"color": COLOR, "depth_to_color": pose, "comment": ["anything"]})
    assert Recording(tmp_path).extrinsics is None


def test_a_calibration_that_is_a_folder(tmp_path):
    write_frame(tmp_path)
    (tmp_path / "calibration.json").mkdir()
    with pytest.raises(RecordingError, match=r"calibration cannot be read: .*Is a directory.*calibration\.json"):
        Recording(tmp_path).views()
