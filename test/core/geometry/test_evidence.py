"""Whether depth is registered already: the order of the evidence, what it says of itself, and what is doubtful about it."""

from dataclasses import replace

import numpy as np
import pytest

from d2a2_core.geometry import Camera, CameraPair, Extrinsics
from d2a2_core.geometry.evidence import says_registered
from d2a2_core.geometry.plan import RegistrationError, plan_registration

COLOR = Camera(128, 96, 110.0, 110.0, 63.5, 47.5)
LENS = replace(COLOR, model="plumb_bob", distortion=(-0.2, 0.05, 0.0, 0.0, 0.0))
OTHER = replace(COLOR, fx=115.0, fy=115.0)
RAW_LENS = replace(LENS.resized(64, 48), fx=52.0)
RAW = Camera(64, 48, 50.0, 50.0, 31.5, 23.5)
BESIDE = np.array([0.05, 0.0, 0.0])
NAMED = "/camera/aligned_depth_to_color/image_raw"


def plan(
    color=COLOR, depth=COLOR, frames=("color", "depth"), tf=None, stated=None, topic="/depth", mode="auto", rectify=False, **more
):  # fmt: skip
    """``tf`` and ``stated`` are translations, the first from TF, the second from a person."""
    size = (depth.height, depth.width) if depth else (96, 128)
    translation = stated if tf is None else tf
    extrinsics = None if translation is None else Extrinsics(np.eye(3), translation, stated=tf is None)
    images = np.zeros((96, 128, 3), np.uint8), np.ones(size, np.float32)
    pair = CameraPair(*images, color, depth, extrinsics, *frames, depth_topic=topic, **more)
    return plan_registration(mode, rectify, pair)


SAME = ("color", "color")


@pytest.mark.parametrize(
    ("case", "registered", "why", "doubt"),
    [
        # The parameter is above all.
        ({"mode": "on", "topic": NAMED, "frames": SAME}, False, "on by parameter", ""),
        ({"mode": "off", "depth": RAW, "tf": BESIDE}, True, "off by parameter", ""),
        # Then the topic's name.
        ({"topic": NAMED, "frames": SAME}, True, "name of its topic", ""),
        ({"topic": NAMED, "color": None, "depth": None}, True, "name of its topic", ""),
        ({"topic": NAMED, "tf": BESIDE}, True, "5 cm and 0 degrees from 'color'", "registration_evidence"),
        ({"topic": NAMED, "depth": RAW, "frames": SAME}, True, "other intrinsics", "registration_evidence"),
        ({"topic": NAMED, "depth": RAW, "tf": BESIDE}, True, "cm and 0 degrees from 'color' and its", "registration_evidence"),
        ({"topic": NAMED, "color": LENS, "depth": COLOR, "frames": SAME}, True, "name of its topic", ""),
        # Then intrinsics and size, against a frame of its own on TF; not against what a person says.
        ({"tf": BESIDE}, True, "although TF puts 'depth' 5 cm", "registration_evidence"),
        ({"stated": BESIDE}, False, "it is in frame 'depth'", ""),
        ({"depth": COLOR.resized(64, 48), "tf": BESIDE}, False, "although the intrinsics", "registration_evidence"),
        ({"depth": RAW, "tf": BESIDE}, False, "it is in frame 'depth'", ""),
        ({"frames": SAME, "stated": BESIDE}, False, "but extrinsics are given", "registration_evidence"),
        ({"frames": SAME, "stated": BESIDE, "depth": RAW}, False, "but extrinsics are given", ""),
        # Then frames and transforms.
        ({"frames": SAME}, True, "same frame 'color' and intrinsics", ""),
        ({"depth": COLOR.resized(32, 24), "frames": SAME}, True, "same frame 'color' and intrinsics", ""),
        ({"tf": np.zeros(3)}, True, "in one place", ""),
        ({"depth": RAW, "tf": np.zeros(3)}, False, "other intrinsics", ""),
        ({}, True, "intrinsics are the colour camera's", "assumed_registered"),
        ({"color": LENS, "depth": COLOR, "frames": SAME}, True, "no distortion", ""),
        ({"color": LENS, "depth": COLOR, "tf": np.zeros(3)}, True, "no distortion", ""),
        ({"color": LENS, "depth": COLOR, "frames": SAME, "depth_rectified": True}, False, "other intrinsics", ""),
        ({"color": LENS, "depth": COLOR, "tf": BESIDE}, True, "although TF puts", "registration_evidence"),
        ({"color": LENS, "depth": COLOR, "tf": BESIDE, "depth_rectified": True}, False, "it is in frame 'depth'", ""),
        ({"color": LENS, "depth": COLOR}, True, "intrinsics are the colour camera's", "assumed_registered"),
        ({"color": COLOR, "depth": LENS, "frames": SAME}, False, "the colour image's size", "registration_evidence"),
        ({"depth": OTHER, "frames": SAME}, False, "the colour image's size", "registration_evidence"),
        ({"depth": OTHER, "frames": SAME, "stated": np.zeros(3)}, False, "other intrinsics", ""),
        ({"depth": LENS, "frames": SAME, "color_rectified": True}, False, "set rectified_input", "registration_evidence"),
        ({"depth": RAW_LENS, "frames": SAME, "color_rectified": True}, False, "set rectified_input", "registration_evidence"),
        ({"color": RAW.resized(128, 96), "depth": LENS, "topic": NAMED}, True, "although", "registration_evidence"),
        ({"depth": replace(COLOR, width=32, height=24), "frames": SAME}, True, "repeats", "assumed_registered"),
        # In the same frame nothing else can be known.
        ({"color": None, "depth": None, "frames": SAME}, True, "no usable camera info", "assumed_registered"),
        ({"depth": None, "frames": ("", "")}, True, "camera info of the depth camera", "assumed_registered"),
    ],
)  # fmt: skip
def test_the_order_of_the_evidence(case, registered, why, doubt):
    result = plan(**case)
    assert result.registered == registered
    assert why in result.why
    assert [code for code, _ in result.doubts] == ([doubt] if doubt else [])
    for _, message in result.doubts:
        assert 'set registration to "off"' in message or 'else to "off"' in message
    if registered:
        assert result.route is None


@pytest.mark.parametrize(
    ("case", "code", "said"),
    [
        ({"depth": None}, "no_depth_camera", "camera info of the depth camera"),
        ({"color": None}, "no_color_camera", "camera info of the colour camera"),
        ({"depth": None, "tf": BESIDE, "depth_problem": "K is zero"}, "no_depth_camera", "camera (K is zero);"),
        ({"depth": None, "tf": np.zeros(3)}, "no_depth_camera", "--calibration"),
        ({"color": None, "depth": None}, "no_color_camera", 'set registration to "off"'),
        ({"depth": None, "frames": SAME, "stated": BESIDE}, "no_depth_camera", "extrinsics are given"),
        ({"depth": None, "mode": "on", "frames": SAME}, "no_depth_camera", "on by parameter"),
        ({"depth": RAW}, "no_extrinsics", "transform from 'depth' to 'color' is not known"),
        ({"depth": RAW, "frames": ("color", "")}, "no_extrinsics", "--calibration"),
        ({"color": COLOR, "depth": LENS}, "no_extrinsics", "'extrinsics'"),
    ],
)
def test_depth_of_another_place_is_not_taken_as_registered(case, code, said):
    with pytest.raises(RegistrationError) as caught:
        plan(**case)
    assert caught.value.code == code
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("rectify", "rectified", "source", "target"),
    [(False, False, None, None), (True, False, LENS, COLOR), (False, True, COLOR, LENS), (True, True, None, None)],
)
def test_registered_depth_is_seen_with_the_lens_of_the_colour_image_unless_it_was_rectified(
    rectify, rectified, source, target
):
    """As the driver leaves it, it lies pixel by pixel on the colour image, distortion included."""
    route = plan(color=LENS, topic=NAMED, rectify=rectify, depth_rectified=rectified).route
    assert (route and route.source, route and route.target) == (source, target)
    assert route is None or route.extrinsics.is_identity()


@pytest.mark.parametrize("rectify", [False, True])
def test_depth_registered_to_a_raw_colour_image_is_brought_to_the_rectified_one(rectify):
    """The colour image came rectified, by P; the depth camera's info repeats the raw one's."""
    rectified = Camera(128, 96, 104.0, 105.0, 62.0, 48.0)
    result = plan(color=rectified, depth=LENS, topic=NAMED, frames=SAME, color_rectified=True, rectify=rectify)
    assert (result.route.source, result.route.target) == (LENS, rectified)
    assert not result.doubts
    off = plan(color=rectified, depth=LENS, topic=NAMED, frames=SAME, color_rectified=True, mode="off")
    assert off.route is None


@pytest.mark.parametrize(
    ("topic", "expected"),
    [
        ("/camera/camera/aligned_depth_to_color/image_raw", True),
        ("/camera/aligned_depth_to_color/image_raw/compressedDepth", True),
        ("/camera/aligned_depth_to_infra1/image_raw", False),
        ("/depth_to_rgb/image_raw", True),
        ("/k4a/depth_to_rgb/hw_registered/image_rect", True),
        ("/camera/depth_registered/image_rect", True),
        ("/camera/depth_registered/sw_registered/image_rect_raw", True),
        ("/zed/zed_node/depth/depth_registered", True),
        ("/camera/depth2color/image", True),
        ("/cam/alignedDepth/image", True),
        ("/camera/depth/image_rect_raw", False),
        ("/depth/image_raw", False),
        ("/unregistered/depth/image_raw", False),
        ("/camera/rgb_to_depth/image_raw", False),
        ("/misaligned/depth", False),
        ("", False),
        ("/camera/depth/image_not_registered", False),
        ("/camera/non_aligned/depth", False),
        ("/camera/aligned_depth_to_tof/image_raw", False),
        ("/camera/color_aligned_to_depth/depth", False),
        ("/camera/depth_aligned_to_rgb", True),
    ],
)
def test_names_of_registered_depth(topic, expected):
    assert says_registered(topic) is expected
