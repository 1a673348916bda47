"""Whether a depth image has to be registered, and with what; and the undistorted view of a camera."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from d2a2_core.errors import CodedError
from d2a2_core.geometry.camera import Camera
from d2a2_core.geometry.camera_pair import CameraPair
from d2a2_core.geometry.evidence import Verdict, weigh
from d2a2_core.geometry.extrinsics import Extrinsics

REGISTRATIONS = ("auto", "on", "off")
_IF_REGISTERED = 'if depth is registered already, set registration to "off"'


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
        registered: Whether depth is in the colour camera's place already.
        route: How depth is brought to the view wanted; None: it is in it.
        undistort: Camera whose distortion is taken out of the colour image; None: the image stays as it is.
        why: Reason, for people.
        assumed: Whether depth is taken as registered without being known to be.
        doubts: Code and message of what a person should look at.
    """

    registered: bool
    route: Route | None
    undistort: Camera | None
    why: str
    assumed: bool = False
    doubts: tuple[tuple[str, str], ...] = ()


def plan_registration(mode: str, rectify: bool, pair: CameraPair) -> RegistrationPlan:
    """Decides whether depth is registered, and with what.

    Args:
        mode: One of :data:`REGISTRATIONS`; "auto" goes by the evidence, see :func:`d2a2_core.geometry.evidence.weigh`.
        rectify: Whether the result is to be without the colour camera's distortion.
        pair: Images and what is known of their cameras.

    Raises:
        RegistrationError: It has to be, but a camera or the extrinsics are missing.
    """
    undistort = None
    if rectify:
        if pair.color_camera is None:
            raise RegistrationError(
                "no_color_camera",
                "output_geometry 'rectified' needs the colour camera's calibration, but there is none"
                + _because(pair.color_problem),
            )
        undistort = pair.color_camera if pair.color_camera.distorted else None
    if mode == "auto":
        verdict = weigh(pair)
    else:
        verdict = Verdict(mode == "off", f"registration is {mode} by parameter")
    why = verdict.why if verdict.registered else f"depth is registered here: {verdict.why}"
    if verdict.registered:
        # Where a person says "off" nothing is guessed, not even which of the images lacks the lens distortion.
        seen = _seen_with(pair) if mode == "auto" else pair.color_camera
        route = _same_place(pair, seen, undistort)
    else:
        route = _between_cameras(pair, undistort, verdict.why)
    return RegistrationPlan(verdict.registered, route, undistort, why, verdict.assumed, _doubts(verdict, why))


def _seen_with(pair: CameraPair) -> Camera | None:
    """Camera of registered depth: the colour camera, with the lens distortion of the image that depth was registered to."""
    color, depth = pair.color_camera, pair.depth_camera
    if color and pair.depth_rectified:
        return color.without_distortion()
    if depth and depth.distorted and pair.color_rectified:
        return depth
    return color


def _same_place(pair: CameraPair, seen: Camera | None, undistort: Camera | None) -> Route | None:
    """For depth in the colour camera's place: nothing, unless one of the two images has the lens distortion and one has not."""
    color = pair.color_camera if undistort is None else undistort.without_distortion()
    if seen is None or color is None or seen.distorted == color.distorted:
        return None
    height, width = pair.depth.shape
    return Route(seen.resized(width, height), color, Extrinsics.identity())


def _between_cameras(pair: CameraPair, undistort: Camera | None, reason: str) -> Route:
    missing, code = "", ""
    if pair.color_camera is None:
        code, missing = "no_color_camera", f"camera info of the colour camera{_because(pair.color_problem)}"
    elif pair.depth_camera is None:
        code, missing = "no_depth_camera", f"camera info of the depth camera{_because(pair.depth_problem)}"
    if missing:
        raise RegistrationError(
            code,
            f"depth has to be registered ({reason}), but there is no usable {missing}; give the topic of its camera info, or a "
            f"calibration file (--calibration of d2a2 bag and d2a2 upsample); {_IF_REGISTERED}",
        )
    assert pair.color_camera is not None
    assert pair.depth_camera is not None
    extrinsics = pair.extrinsics
    if extrinsics is None and pair.color_frame != pair.depth_frame:
        raise RegistrationError(
            "no_extrinsics",
            f"depth has to be registered ({reason}), but the transform from '{pair.depth_frame}' to '{pair.color_frame}' is not "
            "known; publish it on TF (most drivers do), set the parameter 'extrinsics', or give a calibration file "
            f"(--calibration of d2a2 bag and d2a2 upsample); {_IF_REGISTERED}",
        )
    target = pair.color_camera if undistort is None else undistort.without_distortion()
    return Route(pair.depth_camera, target, extrinsics or Extrinsics.identity())


def _doubts(verdict: Verdict, why: str) -> tuple[tuple[str, str], ...]:
    right, wrong = ("off", "on") if verdict.registered else ("on", "off")
    cure = f'set registration to "{right}" if that is right, else to "{wrong}"'
    if verdict.assumed:
        return (("assumed_registered", f"{why}; if it is not registered, its edges will be off: {cure}"),)
    return (("registration_evidence", f"{why}; {cure}"),) if verdict.conflict else ()


def _because(problem: str) -> str:
    return f" ({problem})" if problem else ""


def rectifying_grid(camera: Camera) -> Tensor:
    """(1, H, W, 2) float32 for ``grid_sample``: where each pixel of the undistorted image lies in the distorted one."""
    rays = camera.without_distortion().rays().astype(np.float64)
    pixels = camera.project(np.concatenate((rays, np.ones_like(rays[..., :1])), axis=-1))
    normalised = (2 * pixels + 1) / (camera.width, camera.height) - 1
    return torch.from_numpy(normalised.astype(np.float32))[None]
