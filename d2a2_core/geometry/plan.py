"""Whether a depth image has to be registered, and with what; and the undistorted view of a camera."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from d2a2_core.errors import CodedError
from d2a2_core.geometry.camera import Camera
from d2a2_core.geometry.camera_pair import CameraPair
from d2a2_core.geometry.extrinsics import Extrinsics

REGISTRATIONS = ("auto", "on", "off")
_SAME_INTRINSICS = 0.01  # relative to the focal length


class RegistrationError(CodedError):
    """Depth cannot be brought into the colour camera's view; code and message say what is missing."""


@dataclass(frozen=True)
class Route:
    """How depth gets to the colour camera's view: the camera it is seen with, the one wanted, and the way between them."""

    source: Camera
    target: Camera
    extrinsics: Extrinsics


@dataclass(frozen=True)
class RegistrationPlan:
    """What :func:`plan_registration` decided.

    Attributes:
        route: How depth is registered; None: it is in the colour camera's view already.
        undistort: Camera whose distortion is taken out of the colour image; None: the image stays as it is.
        why: Reason, for people.
        assumed: Whether depth is taken as registered without being known to be.
    """

    route: Route | None
    undistort: Camera | None
    why: str
    assumed: bool = False


def plan_registration(mode: str, rectify: bool, pair: CameraPair) -> RegistrationPlan:
    """Decides whether depth is registered, and with what.

    Args:
        mode: One of :data:`REGISTRATIONS`; "auto" goes by frames, sizes and intrinsics.
        rectify: Whether the result is to be without the colour camera's distortion.
        pair: Images and what is known of their cameras.

    Raises:
        RegistrationError: It has to be, but a camera or the extrinsics are missing.
    """
    color, depth, extrinsics = pair.color_camera, pair.depth_camera, pair.extrinsics
    undistort = None
    if rectify:
        if color is None:
            raise RegistrationError(
                "no_color_camera",
                "output_geometry 'rectified' needs the colour camera's calibration, but there is none",
            )
        undistort = color if color.distorted else None
    wanted, why, assumed = _wanted(mode, pair)
    if not wanted:
        if undistort is None:
            return RegistrationPlan(None, None, why, assumed)
        # The depth image is seen with the distorted colour camera, and is to be seen without.
        height, width = pair.depth.shape
        route = Route(undistort.resized(width, height), undistort.without_distortion(), Extrinsics.identity())
        return RegistrationPlan(route, undistort, why, assumed)
    if color is None or depth is None:
        name = "colour" if color is None else "depth"
        raise RegistrationError(
            "no_color_camera" if color is None else "no_depth_camera",
            f"{why}, but there is no usable camera info of the {name} camera; registration needs both cameras'",
        )
    if extrinsics is None:
        if pair.color_frame != pair.depth_frame:
            raise RegistrationError(
                "no_extrinsics",
                f"{why}, but the transform from '{pair.depth_frame}' to '{pair.color_frame}' is not known: it is not on TF; "
                "publish it (most drivers do) or set the parameter 'extrinsics'",
            )
        extrinsics = Extrinsics.identity()
    target = color if undistort is None else color.without_distortion()
    return RegistrationPlan(Route(depth, target, extrinsics), undistort, why)


def _wanted(mode: str, pair: CameraPair) -> tuple[bool, str, bool]:
    """Whether to register, why, and whether depth is only assumed to be registered."""
    if mode != "auto":
        return mode == "on", f"registration is {mode} by parameter", False
    color_camera, depth_camera, extrinsics = pair.color_camera, pair.depth_camera, pair.extrinsics
    color_frame, depth_frame = pair.color_frame, pair.depth_frame
    if color_camera is None or depth_camera is None:
        missing = "colour" if color_camera is None else "depth"
        why = f"depth is taken as registered: there is no usable camera info of the {missing} camera"
        if depth_frame != color_frame:
            why += (
                f", though depth is in frame '{depth_frame}' and colour in '{color_frame}'; if it is not registered, its edges "
                "will be off"
            )
        return False, why, True
    same_view = same_projection(depth_camera, color_camera.resized(*pair.depth.shape[::-1]))
    if color_frame == depth_frame and (extrinsics is None or extrinsics.is_identity()):
        if same_view:
            return False, f"depth is registered already: same frame '{color_frame}' and intrinsics", False
        # Record3D's driver does so; registered by it, depth would land in a corner of the image.
        copied = replace(depth_camera, width=color_camera.width, height=color_camera.height)
        if same_projection(copied, color_camera):
            why = (
                f"depth is taken as registered: same frame '{color_frame}', and its camera info repeats the colour camera's "
                "intrinsics for an image of another size"
            )
            return False, why, True
        why = f"depth is registered here: same frame '{color_frame}', but other intrinsics than the colour camera's"
        return True, why, False
    if same_view and extrinsics is None:
        why = (
            f"depth is taken as registered: frames '{depth_frame}' and '{color_frame}' differ, but the intrinsics are the "
            "colour camera's"
        )
        return False, why, True
    if color_frame == depth_frame:
        return True, f"depth is registered here: same frame '{color_frame}', but extrinsics are given", False
    return True, f"depth is registered here: it is in frame '{depth_frame}', colour in '{color_frame}'", False


def same_projection(a: Camera, b: Camera) -> bool:
    """Whether two cameras of the same image size see every pixel in the same direction, to about a percent."""
    if (a.width, a.height, a.distorted) != (b.width, b.height, b.distorted):
        return False
    if a.distorted and not ((a.model == "equidistant") == (b.model == "equidistant") and _same_lens(a, b)):
        return False
    differences = np.abs([a.fx - b.fx, a.fy - b.fy, a.cx - b.cx, a.cy - b.cy])
    return bool((differences <= _SAME_INTRINSICS * max(b.fx, b.fy)).all())


def _same_lens(a: Camera, b: Camera) -> bool:
    """Whether the coefficients agree; trailing zeros are optional, and plumb_bob is the rational model's first part."""
    length = max(len(a.distortion), len(b.distortion))
    first, second = (np.pad(camera.distortion, (0, length - len(camera.distortion))) for camera in (a, b))
    return bool(np.allclose(first, second, rtol=1e-3, atol=1e-3))


def rectifying_grid(camera: Camera) -> Tensor:
    """(1, H, W, 2) float32 for ``grid_sample``: where each pixel of the undistorted image lies in the distorted one."""
    rays = camera.without_distortion().rays().astype(np.float64)
    pixels = camera.project(np.concatenate((rays, np.ones_like(rays[..., :1])), axis=-1))
    normalised = (2 * pixels + 1) / (camera.width, camera.height) - 1
    return torch.from_numpy(normalised.astype(np.float32))[None]
