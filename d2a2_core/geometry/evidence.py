"""Whether depth is registered already: the one place that weighs what topic, intrinsics, frames and transforms say."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from d2a2_core.geometry.camera import Camera
from d2a2_core.geometry.camera_pair import CameraPair
from d2a2_core.geometry.extrinsics import Extrinsics

_SAME_INTRINSICS = 0.01  # relative to the focal length
# aligned_depth_to_color (realsense2_camera), depth_to_rgb (azure_kinect_ros_driver), depth_registered (openni2_camera,
# zed_wrapper, depth_image_proc), depth_registered/hw_registered (rgbd_launch). aligned_depth_to_infra1 is another view, and
# image_not_registered none.
_SAYS_REGISTERED = re.compile(r"(^|[/_])(aligned|registered)($|[/_])|depth_?(to|2)_?(rgb|color|colour)($|[/_])")
_OTHER_VIEW = re.compile(
    r"(depth|aligned|registered)_to_(?!rgb|colou?r)|_to_(infra|ir|left|right|mono|fisheye)|(^|[/_])(not|non|no|un)_(aligned|registered)"
)


def says_registered(topic: str) -> bool:
    """Whether a depth topic's name says that its images are in the colour camera's view."""
    name = re.sub("(?<=[a-z0-9])(?=[A-Z])", "_", topic).lower()
    return bool(_SAYS_REGISTERED.search(name)) and not _OTHER_VIEW.search(name)


@dataclass(frozen=True)
class Verdict:
    """What the evidence says.

    Attributes:
        registered: Whether depth is in the colour camera's view already.
        why: The evidence, and what speaks against it, for people: a sentence where depth is registered, else the reason why not.
        assumed: Whether depth is taken as registered although nothing says so.
        conflict: Whether some of the evidence says otherwise.
    """

    registered: bool
    why: str
    assumed: bool = False
    conflict: bool = False


def weigh(pair: CameraPair) -> Verdict:
    """Decides whether depth is registered already. The first of these that says anything decides:

    1. The depth topic's name.
    2. Intrinsics and size: the colour camera's, for an image as large as the colour image.
    3. The frame_ids: different ones with a transform between them, or extrinsics that a person gave.
    4. Intrinsics: the colour camera's, resized to the depth image; or, in the same frame, but for the distortion or the size.
       Others in the same frame are doubtful where depth has the colour image's size, or colour alone is rectified.

    In the same frame and without camera infos nothing can be known, and depth is taken as registered.
    """
    if says_registered(pair.depth_topic):
        against = _against_name(pair)
        why = f"depth is registered already: the name of its topic '{pair.depth_topic}' says so"
        return Verdict(True, why + (f", although {' and '.join(against)}" if against else ""), conflict=bool(against))
    if pair.color_frame == pair.depth_frame:
        return _weigh_same_place(
            pair, f"same frame '{pair.color_frame}'" if pair.color_frame else "no frames are named"
        )
    frames = f"frames '{pair.depth_frame}' and '{pair.color_frame}'"
    if pair.extrinsics and pair.extrinsics.is_identity() and pair.color_camera and pair.depth_camera:
        return _weigh_same_place(pair, f"{frames} in one place")
    return _weigh_places(pair, frames)


def _weigh_same_place(pair: CameraPair, frame: str) -> Verdict:
    color, depth = pair.color_camera, pair.depth_camera
    view = _same_view(pair)
    if pair.extrinsics and not pair.extrinsics.is_identity():
        agree = " and the colour camera's intrinsics" if view else ""
        return Verdict(False, f"{frame}{agree}, but extrinsics are given", conflict=view)
    if color is None or depth is None:
        missing = "colour" if color is None else "depth"
        return Verdict(
            True,
            f"depth is taken as registered: {frame}, and no usable camera info of the {missing} camera tells more",
            assumed=True,
        )
    if view:
        return Verdict(True, f"depth is registered already: {frame} and intrinsics")
    if _same_but_for_lens(pair):
        return Verdict(
            True, f"depth is registered already: {frame} and intrinsics, though its camera info has no distortion"
        )
    # Record3D's driver does so; registered by it, depth would land in a corner of the image.
    if depth.distorted == color.distorted and _same_matrix(depth, color):
        return Verdict(
            True,
            f"depth is taken as registered: {frame}, and its camera info repeats the colour camera's intrinsics for an image of "
            "another size",
            assumed=True,
        )
    return _other_intrinsics(pair, f"{frame}, but other intrinsics than the colour camera's", depth)


def _other_intrinsics(pair: CameraPair, why: str, depth: Camera) -> Verdict:
    """In the same frame: a camera of its own, unless a driver or a node left the wrong camera info beside registered depth."""
    if pair.color_rectified and depth.distorted:
        said = 'colour is rectified, depth is not by the name of its topic (if it is, set rectified_input to "both")'
        return Verdict(False, f"{why}; {said}", conflict=True)
    if pair.depth.shape != pair.color.shape[:2] or pair.depth_rectified or pair.extrinsics:
        return Verdict(False, why)
    return Verdict(False, f"{why}, although it has the colour image's size", conflict=True)


def _weigh_places(pair: CameraPair, frames: str) -> Verdict:
    here = f"it is in frame '{pair.depth_frame}', colour in '{pair.color_frame}'"
    if not (_same_view(pair) or _same_but_for_lens(pair)) or (pair.extrinsics and pair.extrinsics.stated):
        return Verdict(False, here)
    if pair.extrinsics is None:
        why = f"depth is taken as registered: {frames} differ, but the intrinsics are the colour camera's"
        return Verdict(True, why, assumed=True)
    if pair.depth.shape == pair.color.shape[:2]:
        why = (
            "depth is registered already: it has the colour image's size and the colour camera's intrinsics, although TF puts "
            f"'{pair.depth_frame}' {_distance(pair.extrinsics)} from '{pair.color_frame}'"
        )
        return Verdict(True, why, conflict=True)
    return Verdict(False, f"{here}, although the intrinsics are the colour camera's", conflict=True)


def _against_name(pair: CameraPair) -> list[str]:
    """What says that depth is not registered although its topic's name does."""
    against = []
    if pair.extrinsics and not pair.extrinsics.is_identity():
        against.append(f"its frame '{pair.depth_frame}' is {_distance(pair.extrinsics)} from '{pair.color_frame}'")
    color, depth = pair.color_camera, pair.depth_camera
    # A rectified colour image has other intrinsics than the one that depth was registered to.
    of_raw_color = depth and depth.distorted and pair.color_rectified
    if color and depth and not (_same_view(pair) or _same_view(pair, color.without_distortion()) or of_raw_color):
        against.append("its camera info has other intrinsics than the colour camera's")
    return against


def _same_view(pair: CameraPair, color: Camera | None = None) -> bool:
    """Whether the depth camera is the colour camera (or ``color``), resized to the depth image."""
    color = color or pair.color_camera
    height, width = pair.depth.shape
    return bool(color and pair.depth_camera and same_projection(pair.depth_camera, color.resized(width, height)))


def _same_but_for_lens(pair: CameraPair) -> bool:
    """Whether the depth camera is the colour camera, resized, without its distortion.

    Drivers that register depth leave the distortion out of its camera info; if they rectified it, that is another view.
    """
    color, depth = pair.color_camera, pair.depth_camera
    if not color or not depth or depth.distorted or pair.depth_rectified:
        return False
    return _same_view(pair, color.without_distortion())


def _distance(extrinsics: Extrinsics) -> str:
    angle = np.degrees(np.arccos(np.clip((np.trace(extrinsics.rotation) - 1) / 2, -1, 1)))
    return f"{100 * np.linalg.norm(extrinsics.translation):.3g} cm and {angle:.2g} degrees"


def same_projection(a: Camera, b: Camera) -> bool:
    """Whether two cameras of the same image size see every pixel in the same direction, to about a percent."""
    if (a.width, a.height, a.distorted) != (b.width, b.height, b.distorted):
        return False
    if a.distorted and not ((a.model == "equidistant") == (b.model == "equidistant") and _same_lens(a, b)):
        return False
    return _same_matrix(a, b)


def _same_matrix(a: Camera, b: Camera) -> bool:
    differences = np.abs([a.fx - b.fx, a.fy - b.fy, a.cx - b.cx, a.cy - b.cy])
    return bool((differences <= _SAME_INTRINSICS * max(b.fx, b.fy)).all())


def _same_lens(a: Camera, b: Camera) -> bool:
    """Whether the coefficients agree; trailing zeros are optional, and plumb_bob is the rational model's first part."""
    length = max(len(a.distortion), len(b.distortion))
    first, second = (np.pad(camera.distortion, (0, length - len(camera.distortion))) for camera in (a, b))
    return bool(np.allclose(first, second, rtol=1e-3, atol=1e-3))
