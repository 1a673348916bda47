"""Calibration files: known ones, and whatever else a file may hold."""

import json
import random

import numpy as np
import pytest
from fuzzing import fuzz_count

from d2a2_core.documents import parse_json
from d2a2_core.geometry import Camera, Extrinsics
from d2a2_core.geometry.rig import CalibrationError, CameraRig

COLOR = {"width": 8, "height": 6, "distortion_model": "plumb_bob", "K": [7, 0, 3.5, 0, 7.5, 2.5, 0, 0, 1], "D": [0.1]}
WHOLE = {
    "comment": "a lab's",
    "color": COLOR,
    "depth": {"width": 4, "height": 3, "K": [3.5, 0, 1.5, 0, 3.75, 1, 0, 0, 1]},
    "depth_to_color": {"R": [1, 0, 0, 0, 1, 0, 0, 0, 1], "t": [0.03, 0, 0.001]},
    "rate_hz": 30,
}


def read(tmp_path, content):
    path = tmp_path / "rig.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return CameraRig.read(path)


def test_a_whole_rig(tmp_path):
    rig = read(tmp_path, WHOLE)
    assert rig.color == Camera(8, 6, 7, 7.5, 3.5, 2.5, "plumb_bob", (0.1,))
    assert rig.depth == rig.depth_camera((99, 99)) == Camera(4, 3, 3.5, 3.75, 1.5, 1)
    assert rig.extrinsics == Extrinsics(np.eye(3), [0.03, 0, 0.001])
    assert (rig.rate_hz, rig.registered) == (30.0, False)
    assert rig.views((3, 4)) == {
        "color_camera": rig.color, "depth_camera": rig.depth, "extrinsics": rig.extrinsics,
        "color_frame": "color", "depth_frame": "depth", "color_problem": "", "depth_problem": "",
    }  # fmt: skip


def test_what_is_missing_is_unknown_and_depth_has_the_colour_cameras_view(tmp_path):
    assert read(tmp_path, {}) == CameraRig()
    rig = read(tmp_path, {"color": COLOR})
    assert rig.depth_camera((3, 4)) == rig.color.resized(4, 3)
    assert rig.views((3, 4))["depth_frame"] == "color"
    assert rig.views((3, 4))["extrinsics"].is_identity()


def test_cameras_of_another_resolution_are_resized_to_the_images(tmp_path):
    rig = read(tmp_path, WHOLE)
    fitted = rig.fitted((12, 16), (6, 8))
    assert (fitted.color, fitted.depth, fitted.doubts) == (rig.color.resized(16, 12), rig.depth.resized(8, 6), ())
    assert (fitted.extrinsics, fitted.rate_hz) == (rig.extrinsics, rig.rate_hz)
    stretched = rig.fitted((11, 16), (3, 4))
    assert stretched.color == rig.color.resized(16, 11)
    assert [code for code, _ in stretched.doubts] == ["color_info_shape"]


@pytest.mark.parametrize("which", ["color", "depth"])
def test_a_camera_of_a_turned_image_is_not_used_and_no_other_takes_its_place(tmp_path, which):
    rig = read(tmp_path, WHOLE)
    sizes = {"color": ((8, 6), (3, 4)), "depth": ((6, 8), (4, 3))}[which]
    fitted = rig.fitted(*sizes)
    views = fitted.views(sizes[1])
    assert views[f"{which}_camera"] is None
    assert f"entry {which} is for" in views[f"{which}_problem"]
    assert "turned or cut" in dict(fitted.doubts)[f"{which}_info_shape"]
    other = {"color": "depth", "depth": "color"}[which]
    assert views[f"{other}_camera"] is not None
    assert not views[f"{other}_problem"]


@pytest.mark.parametrize(
    ("entry", "code"),
    [
        ({"K": [7, 0, 8, 0, 7.5, 6, 0, 0, 1]}, "color_info_centre"),
        ({"K": [7, 4, 3.5, 0, 7.5, 2.5, 0, 0, 1]}, "color_info_skew"),
        ({"distortion_model": "none"}, "color_distortion"),
    ],
)
def test_a_doubtful_entry_is_said(tmp_path, entry, code):
    rig = read(tmp_path, WHOLE | {"color": WHOLE["color"] | entry})
    assert [found for found, _ in rig.doubts] == [code]
    assert "entry color" in rig.doubts[0][1]
    assert rig.color is not None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not valid JSON"),
        ("[1]", "is not of type 'object'"),
        ('{"color": {"width": NaN}}', "NaN is no number of JSON"),
        ("[" * 100_000, "nested too deeply"),
        ({"color": {**COLOR, "K": [1, 2]}}, r"entry color\.K: .*too short"),
        ({"color": {**COLOR, "K": ["7"] * 9}}, r"entry color\.K\[\d\]: '7' is not of type 'number'"),
        ({"color": {**COLOR, "width": 10**400}}, r"entry color\.width: .*greater than the maximum of 65535"),
        ('{"color": {"width": 1e400, "height": 1, "K": []}}', "entry color"),
        ({"color": {"width": 8}}, "entry color: 'height' is a required property"),
        ({"depth": {**COLOR, "K": [0] * 9}}, "entry depth: camera is not calibrated"),
        ({"depth": {**COLOR, "distortion_model": "fov"}}, "entry depth: .*'fov'"),
        ({"depth_to_color": {"R": [2] + [0] * 8, "t": [0, 0, 0]}}, "entry depth_to_color: expected an orthonormal"),
        ({"depth_to_color": {"R": [1] * 9, "t": [0, 0, 1e300]}}, r"entry depth_to_color\.t\[2\]: 1e\+300 is greater"),
        ({"rate_hz": 1e-320}, "entry rate_hz: .*less than the minimum of 0.0001"),
    ],
)
def test_mistakes_are_told_with_file_and_entry(tmp_path, content, said):
    with pytest.raises(CalibrationError, match=rf"(?s){tmp_path}/rig\.json.*{said}"):
        read(tmp_path, content)


def test_no_such_file(tmp_path):
    with pytest.raises(CalibrationError, match=r"calibration cannot be read: .*No such file.*nowhere\.json"):
        CameraRig.read(tmp_path / "nowhere.json")


HUGE = "a number that no float holds"
VALUES = [
    HUGE, None, True, 0, -1, 1e308, -1e308, 1e-320, 10**30, 2**63, "", "1", "plumb_bob", "equidistant", [], {}, [[]], [1] * 9,
    ["x"] * 9, {"R": [1] * 9}, 1.5, "\ud800", [1e308] * 9, [0] * 20,
]  # fmt: skip


def mutated(random_, value):
    """A value with one of its parts exchanged, removed, doubled or added."""
    if isinstance(value, dict) and value and random_.random() < 0.9:
        key = random_.choice(list(value))
        action = random_.random()
        if action < 0.1:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: mutated(random_, value[key])}
    if isinstance(value, list) and value and random_.random() < 0.8:
        i = random_.randrange(len(value))
        return [*value[:i], *random_.choice([[], [value[i]] * 2, [mutated(random_, value[i])]]), *value[i + 1 :]]
    return random_.choice(VALUES)


def rig_or_message(text):
    try:
        return CameraRig.from_json(parse_json(text, "rig.json"), "rig.json")
    except ValueError as error:
        return str(error)


def test_whatever_a_calibration_holds_it_is_used_or_refused_by_name():
    count = fuzz_count(2000)
    random_, used = random.Random(count), 0
    whole = json.dumps(WHOLE).encode()
    for i in range(count):
        if i % 4:
            content = WHOLE
            for _ in range(random_.randint(1, 3)):
                content = mutated(random_, content)
            text = json.dumps(content).replace(json.dumps(HUGE), "1e999").encode("utf-8", "surrogatepass")
        else:
            raw = bytearray(whole)
            for _ in range(random_.randint(1, 4)):
                raw[random_.randrange(len(raw))] = random_.choice(b'0123456789e-+.,:[]{}"\x00\xff\\')
            text = bytes(raw)
        rig = rig_or_message(text)
        if isinstance(rig, str):
            assert "rig.json" in rig, text
            continue
        used += 1
        views = rig.views((3, 4))
        assert all(np.isfinite([c.fx, c.fy, c.cx, c.cy]).all() for c in (views["color_camera"], rig.depth) if c)
        if rig.rate_hz is not None:
            assert 1e-9 < 1 / rig.rate_hz < 1e9
    assert 0.02 * count < used < 0.9 * count
