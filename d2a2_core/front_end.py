"""The front end: brings a camera pair onto the network's LR grid, and says of every pixel what was measured there.

Needs no network: measuring tools (`d2a2 offset`) use it alone. Plan, rectify, inspect, then register or regrid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from d2a2_core.depth import doubtful_pixels, invalid_to_nan, outside_limits
from d2a2_core.depth.lr_grid import MAX_SPREAD, SAME_SHAPE, check_shapes, choose_scale, nearest_scale, to_lr_grid
from d2a2_core.errors import CodedError
from d2a2_core.geometry import Camera, CameraPair, Registration
from d2a2_core.geometry.plan import REGISTRATIONS, RegistrationPlan, Route, plan_registration, rectifying_grid
from d2a2_core.stages import stage

GEOMETRIES = ("raw", "rectified")


@dataclass(frozen=True)
class FrontEndSettings:
    """What a user may choose of the front end.

    Attributes:
        registration: Whether depth is registered to the colour camera: "on", "off", or "auto", by the evidence; see
            :func:`d2a2_core.geometry.evidence.weigh`.
        output_geometry: "raw" (the colour image as it came, with its distortion) or "rectified" (a pinhole camera with the
            same matrix).
        min_depth, max_depth: Metres; measurements outside are rejected.
        hygiene: Whether flying measurements (between foreground and background) and stray ones are rejected.
    """

    registration: str = "auto"
    output_geometry: str = "raw"
    min_depth: float = 0.05
    max_depth: float = 20.0
    hygiene: bool = True

    def __post_init__(self) -> None:
        for name, choices in (("registration", REGISTRATIONS), ("output_geometry", GEOMETRIES)):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {choices}, got {getattr(self, name)!r}")
        if not 0 <= self.min_depth < self.max_depth:
            raise ValueError(f"expected 0 <= min_depth < max_depth, got {self.min_depth} and {self.max_depth}")


@dataclass(frozen=True)
class Measured:
    """A pair on the network's LR grid, in the colour camera's view.

    Attributes:
        color: (H, W, 3) uint8, the colour image, rectified if asked for.
        lr: (1, 1, h, w) metres, NaN in holes.
        trusted: (1, 1, h, w) bool, measurements that are neither flying nor stray.
        known: (1, 1, h, w) metres, what was measured and not rejected, NaN without: on the LR grid where depth was registered,
            else on the depth image's own, which covers the colour image's view.
        removed: Bool of that size, where the measurement was rejected.
        scale: Colour pixels per LR cell.
        rejected: Number of measurements rejected.
        camera: Camera of ``color``, None where no calibration is known.
        plan: How depth was registered and why.
        doubts: Code and message of what a person should look at.
    """

    color: np.ndarray
    lr: Tensor
    trusted: Tensor
    known: Tensor
    removed: Tensor
    scale: int
    rejected: int
    camera: Camera | None
    plan: RegistrationPlan
    doubts: tuple[tuple[str, str], ...]


class FrontEnd:
    """Prepares the pairs of one stream. What depends on the cameras alone is computed once and kept.

    Args:
        scales: Scales to choose from.
        device: Where the tensors go.
        inspect: Finds flying and stray measurements: :func:`d2a2_core.depth.doubtful_pixels`, or what computes the same.
    """

    def __init__(
        self,
        scales: Sequence[int],
        device: torch.device | str = "cpu",
        inspect: Callable[[Tensor], Tensor] = doubtful_pixels,
    ) -> None:
        self.scales, self.device = tuple(scales), torch.device(device)
        self._find_doubtful = inspect
        self._registrations: dict[tuple[Route, int], Registration] = {}
        self._rectifiers: dict[Camera, Tensor] = {}

    def prepare(self, pair: CameraPair, settings: FrontEndSettings) -> Measured:
        """Brings a pair onto the LR grid.

        Raises:
            RegistrationError: Depth has to be registered, but something for it is missing.
            ValueError: Sizes, or calibrations, that do not go together.
        """
        plan = plan_registration(settings.registration, settings.output_geometry == "rectified", pair)
        color, route = pair.color, plan.route
        camera = pair.color_camera if route is None else route.target
        if camera and route and (camera.height, camera.width) != color.shape[:2]:
            raise CodedError(
                "color_camera_size",
                f"the colour camera is of {camera.width}x{camera.height} pixels, its image of "
                f"{color.shape[1]}x{color.shape[0]}; use color_camera.resized",
            )
        if plan.undistort:
            color = self._rectify(color, plan.undistort)
        raw = torch.from_numpy(np.array(pair.depth, np.float32, order="C")).to(self.device)
        raw = invalid_to_nan(raw)[None, None]
        usable, bad, doubtful = self._inspect(raw, settings)
        rejected = bad | doubtful
        clear = usable.masked_fill(doubtful, torch.nan)
        size, lr_size = (color.shape[0], color.shape[1]), (pair.depth.shape[0], pair.depth.shape[1])
        doubts = plan.doubts
        if plan.registered:
            scale = choose_scale(self.scales, size, lr_size)
            doubt = "" if _explains_shapes(pair) else check_shapes(size, lr_size)
            doubts += (("axis_ratio", doubt),) if doubt else ()
        if route:
            # A mixed measurement would be splatted to a place where nothing is.
            scale = nearest_scale(self.scales, _spread(route))
            lr, lost = self._register(route, scale, clear, raw)
            trusted = torch.isfinite(lr)
            known, removed = lr, lost
        else:
            # The network is trained with mixed and stray measurements and knows what to make of them (leaving the mixed ones out
            # was measured to cost a tenth in RMSE, the strays 3 %; of a real camera's strays two thirds fit what is around them).
            # But they are neither enforced nor called measured, and no hole is filled for their sake.
            lr = to_lr_grid(usable, size, scale)
            trusted = torch.isfinite(to_lr_grid(clear, size, scale))
            known, removed = clear, rejected
        return Measured(color, lr, trusted, known, removed, scale, int(rejected.sum()), camera, plan, doubts)

    def _inspect(self, depth: Tensor, settings: FrontEndSettings) -> tuple[Tensor, Tensor, Tensor]:
        """Depth (1, 1, h, w) without what is out of range, where that was, and which of the rest is flying or stray."""
        bad = outside_limits(depth, settings.min_depth, settings.max_depth)
        depth = depth.masked_fill(bad, torch.nan)
        if not settings.hygiene:
            return depth, bad, torch.zeros_like(bad)
        with stage("inspect"):
            return depth, bad, self._find_doubtful(depth)

    def _register(self, route: Route, scale: int, clear: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Registered measurements, and the cells that are empty only because theirs were rejected."""
        key = (route, scale)
        if key not in self._registrations:
            # One stream, one geometry: old ones never come back.
            self._registrations.clear()
            self._registrations[key] = Registration(route.source, route.target.reduced(scale), route.extrinsics)
        registration = self._registrations[key]
        lr = registration(clear)
        rejected = torch.isfinite(raw) & ~torch.isfinite(clear)
        if not rejected.any():
            return lr, torch.zeros_like(lr, dtype=torch.bool)
        return lr, torch.isfinite(registration(raw)) & ~torch.isfinite(lr)

    def _rectify(self, color: np.ndarray, camera: Camera) -> np.ndarray:
        if camera not in self._rectifiers:
            self._rectifiers.clear()
            self._rectifiers[camera] = rectifying_grid(camera).to(self.device)
        image = torch.from_numpy(np.array(color, order="C")).to(self.device).permute(2, 0, 1)[None].float()
        out = F.grid_sample(image, self._rectifiers[camera], align_corners=False, padding_mode="border")
        return out[0].permute(1, 2, 0).round().to(torch.uint8).contiguous().cpu().numpy()


def _spread(route: Route) -> float:
    """Pixels of the colour image, along x, that one pixel of the depth image covers.

    Raises:
        CodedError: "spread": so many that a focal length must be wrong.
    """
    spread = max(route.target.fx / route.source.fx, route.target.fy / route.source.fy)
    if spread > MAX_SPREAD:
        raise CodedError(
            "spread",
            f"one depth measurement would be spread over {spread:.3g} pixels of the colour image along an axis; expected at most "
            f"{MAX_SPREAD}: check the focal lengths (colour {route.target.fx:.6g}, depth {route.source.fx:.6g} pixels) in the "
            "camera infos",
        )
    return route.target.fx / route.source.fx


def _explains_shapes(pair: CameraPair) -> bool:
    """Whether both cameras' pixels, square or not, account for the sizes of the images.

    A depth camera that is nothing but the colour camera resized has no information of its own.
    """
    color, depth, size = pair.color_camera, pair.depth_camera, pair.depth.shape[::-1]
    if not color or not depth or depth == color.resized(*size):
        return False
    pixels = (color.fx / color.fy) / (depth.fx / depth.fy)
    images = (pair.color.shape[1] / size[0]) / (pair.color.shape[0] / size[1])
    return bool(1 / SAME_SHAPE <= pixels / images <= SAME_SHAPE)
