"""Whether a depth image has to be registered, and with what; and the undistorted view of a camera."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from d2a2_core.geometry.camera import Camera
from d2a2_core.geometry.extrinsics import Extrinsics

REGISTRATIONS = ("auto", "on", "off")
_SAME_INTRINSICS = 0.01  # relative to the focal length


class RegistrationError(ValueError):
    """Depth cannot be brought into the colour camera's view; the message says what is missing."""


@dataclass(frozen=True)
class RegistrationPlan:
    """What :func:`plan_registration` decided.

    Attributes:
        source: camera that the depth image is seen with; None: it is of the colour camera's view already.
        extrinsics: from ``source`` to the colour camera.
        rectify: whether the colour image is rectified.
        why: for people.
        assumed: whether depth is taken as registered without being known to be.
    """

    source: Camera | None
    extrinsics: Extrinsics | None
    rectify: bool
    why: str
    assumed: bool = False


def plan_registration(
    mode: str,
    rectify: bool,
    lr_size: tuple[int, int],
    color_camera: Camera | None,
    depth_camera: Camera | None,
    extrinsics: Extrinsics | None,
    color_frame: str,
    depth_frame: str,
) -> RegistrationPlan:
    """Decides whether depth is registered, and with what.

    Args:
        mode: one of :data:`REGISTRATIONS`; "auto" goes by frames, sizes and intrinsics.
        rectify: whether the result is to be without the colour camera's distortion.
        lr_size: (h, w) of the depth image.
        color_camera, depth_camera, extrinsics, color_frame, depth_frame: as of
            :meth:`d2a2_core.pipeline.DepthPipeline.process`.

    Raises:
        RegistrationError: it has to be, but a camera or the extrinsics are missing.
    """
    if rectify and color_camera is None:
        raise RegistrationError("output_geometry 'rectified' needs the colour camera's calibration, but there is none")
    rectify = rectify and color_camera.distorted
    wanted, why, assumed = _wanted(mode, lr_size, color_camera, depth_camera, extrinsics, color_frame, depth_frame)
    if not wanted:
        if rectify:  # the depth image is seen with the distorted colour camera, and is to be seen without
            return RegistrationPlan(color_camera.resized(*lr_size[::-1]), Extrinsics.identity(), True, why, assumed)
        return RegistrationPlan(None, None, False, why, assumed)
    for camera, name in ((color_camera, "colour"), (depth_camera, "depth")):
        if camera is None:
            raise RegistrationError(
                f"{why}, but there is no usable camera info of the {name} camera; registration needs both cameras'"
            )
    if extrinsics is None:
        if color_frame != depth_frame:
            raise RegistrationError(
                f"{why}, but the transform from '{depth_frame}' to '{color_frame}' is not known: it is not on TF; publish it "
                "(most drivers do) or set the parameter 'extrinsics'"
            )
        extrinsics = Extrinsics.identity()
    return RegistrationPlan(depth_camera, extrinsics, rectify, why)


def _wanted(
    mode: str,
    lr_size: tuple[int, int],
    color_camera: Camera | None,
    depth_camera: Camera | None,
    extrinsics: Extrinsics | None,
    color_frame: str,
    depth_frame: str,
) -> tuple[bool, str, bool]:
    """Whether to register, why, and whether depth is only assumed to be registered."""
    if mode != "auto":
        return mode == "on", f"registration is {mode} by parameter", False
    if color_camera is None or depth_camera is None:
        missing = "colour" if color_camera is None else "depth"
        why = f"depth is taken as registered: there is no usable camera info of the {missing} camera"
        if depth_frame != color_frame:
            why += (
                f", though depth is in frame '{depth_frame}' and colour in '{color_frame}'; if it is not registered, its edges "
                "will be off"
            )
        return False, why, True
    same_view = same_projection(depth_camera, color_camera.resized(*lr_size[::-1]))
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
    k = [np.pad(camera.distortion, (0, length - len(camera.distortion))) for camera in (a, b)]
    return bool(np.allclose(*k, rtol=1e-3, atol=1e-3))


def rectifying_grid(camera: Camera) -> Tensor:
    """(1, H, W, 2) float32 for ``grid_sample``: where each pixel of the undistorted image lies in the distorted one."""
    rays = replace(camera, model="", distortion=()).rays().astype(np.float64)
    pixels = camera.project(np.concatenate((rays, np.ones_like(rays[..., :1])), axis=-1))
    normalised = (2 * pixels + 1) / (camera.width, camera.height) - 1
    return torch.from_numpy(normalised.astype(np.float32))[None]
