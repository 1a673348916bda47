"""DepthPipeline: from a camera pair as the drivers publish it to depth that can be trusted, pixel by pixel.

Around the network: registration of depth to the colour camera, rejection of bad measurements, a range that does not flicker,
consistency with what was measured, provenance and uncertainty, and correction of a small offset between the two images. One
instance serves one stream of frames. The live node and `d2a2 bag` run exactly this.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from d2a2_core.depth import (
    StableRange,
    away_from_edges,
    doubtful_pixels,
    enforce_measurements,
    invalid_to_nan,
    nearest_pixel,
    outside_limits,
)
from d2a2_core.depth.consistency import BOUND_ABS_M, BOUND_REL
from d2a2_core.depth.lr_grid import choose_scale, nearest_scale, to_lr_grid
from d2a2_core.depth.provenance import classify
from d2a2_core.geometry import Camera, EdgeOffset, Extrinsics, Registration
from d2a2_core.geometry.plan import REGISTRATIONS, RegistrationPlan, plan_registration, rectifying_grid
from d2a2_core.network.sigma_head import SigmaHead
from d2a2_core.upsampler import DepthUpsampler

GEOMETRIES = ("raw", "rectified")
RANGES = ("stable", "frame")
MAX_OFFSET = 100  # pixels; more is no small error of a calibration
_LOOK_EVERY = 5  # frames between two looks at what the watchdog found
# Colour pixels and LR cells; an offset over both is worth correcting: the first (aligned scenes show less), then what is left.
_WORTH_FIRST, _WORTH_MORE = (1.0, 0.4), (1.0, 0.2)


@dataclass(frozen=True)
class PipelineSettings:
    """What a user may choose.

    Attributes:
        registration: "on", "off", or "auto": by frame_ids, sizes and intrinsics.
        output_geometry: "raw" (the colour image as it came, with its distortion) or "rectified" (a pinhole camera with the same
            matrix).
        min_depth, max_depth: metres; measurements outside are rejected.
        hygiene: whether flying measurements (between foreground and background) and stray ones are rejected.
        max_fill_px: holes are filled up to this many pixels of the colour image away from a measurement.
        depth_range: what depth is normalised by: "stable" over the stream, or each "frame"'s own range.
        consistency: whether the result is made to reproduce the measurements within the bound.
        bound_abs, bound_rel: of consistency, metres and share of the depth; the larger of the two counts.
        color_offset: (dx, dy), where colour lies seen from depth, pixels of the colour image, x right and y down, as
            :class:`d2a2_core.geometry.EdgeOffset` finds it; rounded to whole pixels and taken out.
        watchdog: whether the offset between depth and colour edges is watched.
        correct_offset: whether what the watchdog finds with confidence is taken out, too, up to its ``max_shift``.
    """

    registration: str = "auto"
    output_geometry: str = "raw"
    min_depth: float = 0.05
    max_depth: float = 20.0
    hygiene: bool = True
    max_fill_px: float = 16.0
    depth_range: str = "stable"
    consistency: bool = True
    bound_abs: float = BOUND_ABS_M
    bound_rel: float = BOUND_REL
    color_offset: tuple[float, float] = (0.0, 0.0)
    watchdog: bool = True
    correct_offset: bool = False

    def __post_init__(self) -> None:
        for name, choices in (
            ("registration", REGISTRATIONS),
            ("output_geometry", GEOMETRIES),
            ("depth_range", RANGES),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {choices}, got {getattr(self, name)!r}")
        if len(self.color_offset) != 2 or not all(abs(value) <= MAX_OFFSET for value in self.color_offset):
            raise ValueError(
                f"color_offset must be two numbers [dx, dy] of pixels up to {MAX_OFFSET}, got {list(self.color_offset)}"
            )
        if self.correct_offset and not self.watchdog:
            raise ValueError("correct_offset needs the watchdog, which finds the offset")
        if not 0 <= self.min_depth < self.max_depth:
            raise ValueError(f"expected 0 <= min_depth < max_depth, got {self.min_depth} and {self.max_depth}")
        if not (self.max_fill_px >= 0 and self.bound_abs >= 0 and self.bound_rel >= 0):
            raise ValueError(
                f"expected max_fill_px, bound_abs and bound_rel of at least 0, got {self.max_fill_px}, {self.bound_abs} and "
                f"{self.bound_rel}"
            )


@dataclass(frozen=True)
class PipelineResult:
    """One frame.

    Attributes:
        depth: (H, W) float32 metres along the colour camera's z, NaN where there is none.
        provenance: (H, W) uint8, :class:`d2a2_core.Provenance`.
        sigma: (H, W) float32 metres, half the width of the 68 % interval, NaN where depth is; None without a head, or unasked.
        color: (H, W, 3) uint8, the guide: the colour image, rectified if asked for.
        camera: of all of these, or None where no calibration is known.
        scale: the trained scale that was used.
        registration: what was done and why, for people.
        assumed_registered: whether depth was taken as registered without being known to be.
        residual: largest |reduced result - measurement| over the trusted measurements (not flying, not at a depth edge, where a
            measurement is not the mean of its cell), metres; NaN without any.
        removed: number of measurements rejected.
        offset: (dx, dy), whole pixels by which colour was found or said to lie beside depth, and which were taken out.
    """

    depth: np.ndarray
    provenance: np.ndarray
    sigma: np.ndarray | None
    color: np.ndarray
    camera: Camera | None
    scale: int
    registration: str
    assumed_registered: bool
    residual: float
    removed: int
    offset: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class _Measured:
    """Depth on the network's LR grid, in the colour camera's view.

    ``lr`` (1, 1, h, w) with NaN in holes, ``trusted`` of the same size: where it is neither flying nor stray; ``known`` and
    ``removed`` (1, 1, H, W): the measurement of each pixel, and where one was rejected; ``rejected``: how many.
    """

    lr: Tensor
    trusted: Tensor
    known: Tensor
    removed: Tensor
    scale: int
    rejected: int


class DepthPipeline:
    """See the module. Not safe for use from several threads at once, but for ``watchdog`` to who holds ``watching``.

    Args:
        upsampler: the network; its ``max_fill_px`` is not used here.
        settings: may be replaced between frames.
        sigma_head: of the upsampler's weights, or None.
    """

    def __init__(
        self, upsampler: DepthUpsampler, settings: PipelineSettings | None = None, sigma_head: SigmaHead | None = None
    ) -> None:
        self.upsampler = upsampler
        self.settings = settings or PipelineSettings()
        self.sigma_head = sigma_head.to(upsampler.device) if sigma_head else None
        self.watching = threading.Lock()
        self._registrations: dict[tuple, Registration] = {}
        self._rectifiers: dict[Camera, Tensor] = {}
        self.reset()

    def reset(self) -> None:
        """Forgets the stream so far: the next frame is the first of another."""
        self._range = StableRange()
        self.watchdog = EdgeOffset()
        self._watched, self._watched_offset, self._found = 0, (0, 0), np.zeros(2)
        self._size: tuple[int, ...] = ()

    def state(self) -> dict[str, Any]:
        """What one frame hands on to the next that matters to its result, fit for JSON."""
        return {"range": self._range.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from where :meth:`state` was taken."""
        self._range.restore(state["range"])

    def process(
        self,
        color: np.ndarray,
        depth: np.ndarray,
        color_camera: Camera | None = None,
        depth_camera: Camera | None = None,
        extrinsics: Extrinsics | None = None,
        color_frame: str = "",
        depth_frame: str = "",
        sigma: bool = True,
    ) -> PipelineResult:
        """One pair.

        Args:
            color: (H, W, 3) uint8 RGB.
            depth: (h, w) float metres along z; NaN, 0, negative and infinite values are invalid.
            color_camera, depth_camera: of exactly these images, where known.
            extrinsics: depth camera -> colour camera, where known.
            color_frame, depth_frame: frame_ids; equal ones mean that depth is in the colour camera's place already.
            sigma: whether the uncertainty is wanted.

        Raises:
            RegistrationError: depth has to be registered, but something for it is missing.
            ValueError: sizes or types that cannot be; see :meth:`DepthUpsampler.upsample`.
        """
        color, measured, out_camera, plan = self._prepare(
            color, depth, color_camera, depth_camera, extrinsics, color_frame, depth_frame
        )
        # Where depth lies is what was measured, so colour is moved to it, and the results move with colour back.
        offset = self._offset(color)
        guide = _moved(color, (-offset[0], -offset[1]), None)
        result = self._upsample(guide, measured, out_camera, plan, sigma)
        if self.settings.watchdog:
            self._watch(guide, measured, offset)
        if offset == (0, 0):
            return result
        return replace(
            result, depth=_moved(result.depth, offset, np.nan), provenance=_moved(result.provenance, offset, 0),
            sigma=None if result.sigma is None else _moved(result.sigma, offset, np.nan), color=color, offset=offset,
        )  # fmt: skip

    def watch(
        self,
        color: np.ndarray,
        depth: np.ndarray,
        color_camera: Camera | None = None,
        depth_camera: Camera | None = None,
        extrinsics: Extrinsics | None = None,
        color_frame: str = "",
        depth_frame: str = "",
    ) -> None:
        """Shows a pair to the watchdog alone, without the network: what :meth:`process` takes, and raises."""
        color, measured, _, _ = self._prepare(
            color, depth, color_camera, depth_camera, extrinsics, color_frame, depth_frame
        )
        offset = self._offset(color)
        self._watch(_moved(color, (-offset[0], -offset[1]), None), measured, offset)

    def _prepare(
        self,
        color: np.ndarray,
        depth: np.ndarray,
        color_camera: Camera | None,
        depth_camera: Camera | None,
        extrinsics: Extrinsics | None,
        color_frame: str,
        depth_frame: str,
    ) -> tuple[np.ndarray, _Measured, Camera | None, RegistrationPlan]:
        """The guide, depth on its LR grid, the camera of both, and how they came about."""
        color, depth = self.upsampler.check(color, depth)
        plan = plan_registration(
            self.settings.registration, self.settings.output_geometry == "rectified", depth.shape, color_camera, depth_camera,
            extrinsics, color_frame, depth_frame,
        )  # fmt: skip
        out_camera = color_camera
        if plan.source is not None and (color_camera.height, color_camera.width) != color.shape[:2]:
            raise ValueError(
                f"the colour camera is of {color_camera.width}x{color_camera.height} pixels, its image of "
                f"{color.shape[1]}x{color.shape[0]}; use color_camera.resized"
            )
        if plan.rectify:
            out_camera = replace(color_camera, model="", distortion=())
            color = self._rectify(color, color_camera)
        return color, self._measure(depth, color.shape[:2], plan, out_camera), out_camera, plan

    def _offset(self, color: np.ndarray) -> tuple[int, int]:
        """What is to be taken out of a pair with this colour image."""
        if color.shape != self._size:
            self._size, self._found = color.shape, np.zeros(2)  # what was found were other pixels
        found = self._found if self.settings.correct_offset else 0.0
        dx, dy = np.rint(np.array(self.settings.color_offset) + found).astype(int).tolist()
        return dx, dy

    def _measure(
        self, depth: np.ndarray, size: tuple[int, int], plan: RegistrationPlan, camera: Camera | None
    ) -> _Measured:
        raw = invalid_to_nan(torch.from_numpy(np.array(depth, np.float32, order="C")).to(self.upsampler.device))
        raw = raw[None, None]
        usable, bad, doubtful = self._inspect(raw)
        clear = usable.masked_fill(doubtful, torch.nan)
        if plan.source is not None:
            # A mixed measurement would be splatted to a place where nothing is.
            scale = nearest_scale(self.upsampler.usable_scales, camera.fx / plan.source.fx)
            lr, removed = self._register(plan, camera, scale, clear, raw)
            trusted = torch.isfinite(lr)
            known, removed = (_cells_to_pixels(cells, scale, size) for cells in (lr, removed))
        else:
            # The network is trained with mixed and stray measurements and knows what to make of them (leaving the mixed ones out
            # was measured to cost a tenth in RMSE, the strays 3 %; of a real camera's strays two thirds fit what is around them).
            # But they are neither enforced nor called measured, and no hole is filled for their sake.
            scale = choose_scale(self.upsampler.usable_scales, size, depth.shape)
            lr = to_lr_grid(usable, size, scale)
            trusted = torch.isfinite(to_lr_grid(clear, size, scale))
            known = nearest_pixel(clear, size)
            removed = nearest_pixel((bad | doubtful).float(), size) > 0.5
        return _Measured(lr, trusted, known, removed, scale, int((bad | doubtful).sum()))

    @torch.inference_mode()
    def _upsample(
        self, color: np.ndarray, measured: _Measured, camera: Camera | None, plan: RegistrationPlan, with_sigma: bool
    ) -> PipelineResult:
        settings, lr, scale = self.settings, measured.lr, measured.scale
        guide = self.upsampler.to_guide(torch.from_numpy(np.array(color, order="C")).permute(2, 0, 1)[None])
        depth_range = self._range.update(lr) if settings.depth_range == "stable" else None
        # Measured here already; without hygiene the network's own view of it, which it was trained with.
        trust = (torch.isfinite(lr).float() + measured.trusted.float()) / 2 if settings.hygiene else None
        hr = self.upsampler.predict(guide, lr, scale, depth_range, trust)
        bounds = (settings.bound_abs, settings.bound_rel) if settings.consistency else (torch.inf, torch.inf)
        hr, residual = enforce_measurements(hr, lr, measured.trusted & away_from_edges(lr), scale, *bounds)
        out, provenance = classify(hr, measured.known, settings.max_fill_px, measured.removed)
        sigma = None
        if with_sigma and self.sigma_head is not None:
            sigma = self.sigma_head.predict(guide, lr, out)[0, 0].cpu().numpy()
        residual = residual.abs().nan_to_num(-1.0).amax().item()
        return PipelineResult(
            out[0, 0].cpu().numpy(), provenance[0, 0].cpu().numpy(), sigma, color, camera, scale, plan.why, plan.assumed,
            residual if residual >= 0 else float("nan"), measured.rejected,
        )  # fmt: skip

    def _watch(self, color: np.ndarray, measured: _Measured, offset: tuple[int, int]) -> None:
        """Shows colour that was moved by ``offset`` to the watchdog."""
        scale, lr = measured.scale, measured.lr[0, 0].cpu().numpy()
        # Whole cells alone: the last ones may reach beyond the image, and both must cover the same rectangle.
        rows, cols = (length // scale for length in color.shape[:2])
        if rows and cols:
            with self.watching:
                if offset != self._watched_offset:  # what it has seen so far was of another
                    self.watchdog.reset()
                    self._watched, self._watched_offset = 0, offset
                self.watchdog.update(color[: rows * scale, : cols * scale], lr[:rows, :cols])
                if self.settings.correct_offset:
                    self._correct(scale)

    def _correct(self, scale: int) -> None:
        """Takes over what the watchdog found on top of what is corrected already."""
        self._watched += 1
        if self._watched % _LOOK_EVERY:
            return
        rest = self.watchdog.estimate()
        if rest is None or rest.confidence < self.watchdog.min_confidence:
            return
        found = self._found + np.array([rest.dx, rest.dy])
        # Beyond what it looks for at once it may have followed an alias of the texture.
        pixels, cells = _WORTH_MORE if self._found.any() else _WORTH_FIRST
        if rest.magnitude > max(pixels, cells * scale) and np.hypot(*found) <= self.watchdog.max_shift:
            self._found = np.rint(found)

    def _inspect(self, depth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Depth (1, 1, h, w) without what is out of range, where that was, and which of the rest is flying or stray."""
        bad = outside_limits(depth, self.settings.min_depth, self.settings.max_depth)
        depth = depth.masked_fill(bad, torch.nan)
        if not self.settings.hygiene:
            return depth, bad, torch.zeros_like(bad)
        return depth, bad, doubtful_pixels(depth)

    def _register(
        self, plan: RegistrationPlan, camera: Camera, scale: int, clear: Tensor, raw: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Registered measurements, and the cells that are empty only because theirs were rejected."""
        key = (plan.source, camera, scale, plan.extrinsics)
        if key not in self._registrations:
            self._registrations.clear()  # one stream, one geometry: old ones never come back
            self._registrations[key] = Registration(plan.source, camera.reduced(scale), plan.extrinsics)
        registration = self._registrations[key]
        lr = registration(clear)
        rejected = torch.isfinite(raw) & ~torch.isfinite(clear)
        if not rejected.any():
            return lr, torch.zeros_like(lr, dtype=torch.bool)
        return lr, torch.isfinite(registration(raw)) & ~torch.isfinite(lr)

    def _rectify(self, color: np.ndarray, camera: Camera) -> np.ndarray:
        if camera not in self._rectifiers:
            self._rectifiers.clear()
            self._rectifiers[camera] = rectifying_grid(camera).to(self.upsampler.device)
        image = torch.from_numpy(np.array(color, order="C")).to(self.upsampler.device).permute(2, 0, 1)[None].float()
        grid = self._rectifiers[camera]
        out = torch.nn.functional.grid_sample(image, grid, align_corners=False, padding_mode="border")
        return out[0].permute(1, 2, 0).round().to(torch.uint8).contiguous().cpu().numpy()


def _moved(image: np.ndarray, offset: tuple[int, int], fill: float | None) -> np.ndarray:
    """Content of (H, W, ...) moved right and down by whole pixels; ``fill`` where nothing comes from, None repeats the edge."""
    if offset == (0, 0):
        return image
    (height, width), (dx, dy) = image.shape[:2], offset
    rows, columns = np.arange(height) - dy, np.arange(width) - dx
    out = image[rows.clip(0, height - 1)[:, None], columns.clip(0, width - 1)]
    if fill is not None:
        out[(rows < 0) | (rows >= height)] = fill
        out[:, (columns < 0) | (columns >= width)] = fill
    return out


def _cells_to_pixels(cells: Tensor, scale: int, size: tuple[int, int]) -> Tensor:
    """(B, 1, h, w) on the network's LR grid -> (B, 1, H, W)."""
    return cells.repeat_interleave(scale, 2).repeat_interleave(scale, 3)[..., : size[0], : size[1]]


def describe(result: PipelineResult) -> dict[str, Any]:
    """The figures of a frame, as diagnostics show them."""
    return {
        "registration": result.registration,
        "residual [m]": f"{result.residual:.4f}",
        "rejected": str(result.removed),
    } | ({"corrected offset [px]": f"{result.offset[0]:+d} {result.offset[1]:+d}"} if result.offset != (0, 0) else {})
