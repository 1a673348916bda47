"""DepthPipeline: from a camera pair as the drivers publish it to depth that can be trusted, pixel by pixel.

Around the network: registration of depth to the colour camera, rejection of bad measurements, a range that does not flicker,
consistency with what was measured, provenance and uncertainty, and correction of a small offset between the two images. One
instance serves one stream of frames. The live node and `d2a2 bag` run exactly this.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from d2a2_core.depth import StableRange, valid_range
from d2a2_core.depth.consistency import BOUND_ABS_M, BOUND_REL
from d2a2_core.frame_graph import FrameShape
from d2a2_core.front_end import GEOMETRIES, FrontEnd, FrontEndSettings, Measured
from d2a2_core.geometry import Camera, CameraPair, EdgeOffset
from d2a2_core.geometry.offset_corrector import OffsetCorrector, moved
from d2a2_core.network.sigma_head import SigmaHead
from d2a2_core.runtime import Graph
from d2a2_core.stages import stage
from d2a2_core.upsampler import DepthUpsampler
from d2a2_core.weights.sidecars import load_sigma_head

__all__ = ["GEOMETRIES", "RANGES", "DepthPipeline", "PipelineResult", "PipelineSettings", "describe"]

RANGES = ("stable", "frame")
_KEPT_GRAPHS = 8
MAX_OFFSET = 100  # pixels; more is no small error of a calibration


@dataclass(frozen=True)
class PipelineSettings(FrontEndSettings):
    """What a user may choose: the front end's settings and these.

    Attributes:
        max_fill_px: Holes are filled up to this many pixels of the colour image away from a measurement.
        depth_range: What depth is normalised by: "stable" over the stream, or each "frame"'s own range.
        consistency: Whether the result is made to reproduce the measurements within the bound.
        bound_abs, bound_rel: Bound of consistency, metres and share of the depth; the larger of the two counts.
        color_offset: (dx, dy), where colour lies seen from depth, pixels of the colour image, x right and y down, as
            :class:`d2a2_core.geometry.EdgeOffset` finds it; rounded to whole pixels and taken out.
        watchdog: Whether the offset between depth and colour edges is watched.
        correct_offset: Whether what the watchdog finds with confidence is taken out, too, up to its ``max_shift``.
    """

    max_fill_px: float = 16.0
    depth_range: str = "stable"
    consistency: bool = True
    bound_abs: float = BOUND_ABS_M
    bound_rel: float = BOUND_REL
    color_offset: tuple[float, float] = (0.0, 0.0)
    watchdog: bool = True
    correct_offset: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.depth_range not in RANGES:
            raise ValueError(f"depth_range must be one of {RANGES}, got {self.depth_range!r}")
        if len(self.color_offset) != 2 or not all(abs(value) <= MAX_OFFSET for value in self.color_offset):
            raise ValueError(
                f"color_offset must be two numbers [dx, dy] of pixels up to {MAX_OFFSET}, got {list(self.color_offset)}"
            )
        if self.correct_offset and not self.watchdog:
            raise ValueError("correct_offset needs the watchdog, which finds the offset")
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
        sigma: (H, W) float32 metres, half-width of the 68 % interval, NaN where depth is; None without a head, or unasked.
        color: (H, W, 3) uint8, the guide: the colour image, rectified if asked for.
        camera: Camera of all of these, None where no calibration is known.
        scale: Trained scale that was used.
        registration: What was done and why, for people.
        assumed_registered: Whether depth was taken as registered without being known to be.
        residual: Largest |reduced result - measurement| over the trusted measurements (not flying, not at a depth edge, where a
            measurement is not the mean of its cell), metres; NaN without any.
        removed: Number of measurements rejected.
        offset: (dx, dy), whole pixels by which colour was found or said to lie beside depth, and which were taken out.
        doubts: Code and message of what a person should look at, for instance evidence on registration that conflicts.
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
    doubts: tuple[tuple[str, str], ...] = ()


class DepthPipeline:
    """Computes the frames of one stream. Not thread-safe, except for ``offsets.look``.

    Args:
        upsampler: The network; its ``max_fill_px`` is not used here.
        settings: May be replaced between frames.
        sigma_head: Uncertainty head of the upsampler's weights, or None.
        profiled: Whether :meth:`profile` is wanted.
        stepwise: Whether all around the network is computed step by step, as for a head that is no module.
    """

    def __init__(
        self,
        upsampler: DepthUpsampler,
        settings: PipelineSettings | None = None,
        sigma_head: SigmaHead | None = None,
        profiled: bool = False,
        stepwise: bool = False,
    ) -> None:
        self.upsampler = upsampler
        self.settings = settings or PipelineSettings()
        self.sigma_head = sigma_head.to(upsampler.device) if sigma_head else None
        self.front_end = FrontEnd(upsampler.usable_scales, upsampler.device, upsampler.inspection())
        self._graphs: dict[tuple[FrameShape, bool], Graph] = {}
        self._profiled, self._stepwise = profiled, stepwise
        self.offsets = OffsetCorrector(thinned=True)
        self._range = StableRange()

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        device: str = "auto",
        precision: str = "auto",
        settings: PipelineSettings | None = None,
        **options: Any,
    ) -> DepthPipeline:
        """Loads weights and their uncertainty head, if they have one.

        Args:
            name_or_path: Shipped name, or path of a .safetensors or .onnx file.
            device, precision, options: See :meth:`DepthUpsampler.from_pretrained`; the runtime is "auto" by default.
            settings: Default :class:`PipelineSettings`.

        Raises:
            WeightsError: No such weights, or they are damaged.
            ValueError: Options that cannot be had here; the message says which and why.
        """
        options = {"runtime": "auto"} | options
        upsampler = DepthUpsampler.from_pretrained(name_or_path, device, precision, **options)
        return cls(upsampler, settings, load_sigma_head(name_or_path))

    @property
    def watchdog(self) -> EdgeOffset:
        """Measures the offset between depth and colour edges."""
        return self.offsets.watchdog

    def reset(self) -> None:
        """Forgets the stream so far: the next frame is the first of another."""
        self._range.reset()
        self.offsets.reset()

    def profile(self) -> dict[str, float]:
        """Seconds of the last frame's graph by its parts, see :meth:`d2a2_core.runtime.Graph.profile`."""
        return next(reversed(self._graphs.values())).profile() if self._graphs else {}

    def state(self) -> dict[str, Any]:
        """Returns what one frame hands on to the next that matters to its result, fit for JSON."""
        return {"range": self._range.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from where :meth:`state` was taken."""
        self._range.restore(state["range"])

    def process(self, pair: CameraPair, sigma: bool = True) -> PipelineResult:
        """Computes one pair.

        Args:
            pair: Images and what is known of their cameras.
            sigma: Whether the uncertainty is wanted.

        Raises:
            RegistrationError: Depth has to be registered, but something for it is missing.
            ValueError: Sizes or calibrations that cannot be; see :func:`d2a2_core.depth.lr_grid.choose_scale`.
        """
        settings = self.settings
        with stage("register"):
            measured = self.front_end.prepare(pair, settings)
        # Where depth lies is what was measured, so colour is moved to it, and the results move with colour back.
        offset = self.offsets.offset(measured.color.shape, settings.color_offset, settings.correct_offset)
        guide = moved(measured.color, (-offset[0], -offset[1]), None)
        result = self._upsample(guide, measured, sigma)
        if settings.watchdog:
            with stage("watch"):
                lr = measured.lr[0, 0].cpu().numpy()
                self.offsets.watch(guide, lr, measured.scale, offset, settings.correct_offset)
        if offset == (0, 0):
            return result
        return replace(
            result,
            depth=moved(result.depth, offset, np.nan),
            provenance=moved(result.provenance, offset, 0),
            sigma=None if result.sigma is None else moved(result.sigma, offset, np.nan),
            color=measured.color,
            offset=offset,
        )

    def _upsample(self, color: np.ndarray, measured: Measured, with_sigma: bool) -> PipelineResult:
        settings, lr, device = self.settings, measured.lr, self.upsampler.device
        head = self.sigma_head if with_sigma else None
        graph = self._graph(measured, head)
        depth_range = self._range.update(lr) if settings.depth_range == "stable" else valid_range(lr)
        bounds = (settings.bound_abs, settings.bound_rel) if settings.consistency else (torch.inf, torch.inf)
        limits = torch.tensor([depth_range.lo.item(), depth_range.span.item(), *bounds], device=device)
        # A copy: views of messages are read-only, may be reversed in memory, and torch accepts neither.
        image = torch.from_numpy(np.array(color, order="C"))[None].to(device)
        with stage("graph"):
            depth, provenance, largest, *sigma = graph(
                image, lr, measured.trusted, measured.known, measured.removed, limits
            )
        residual = largest.item()
        return PipelineResult(
            depth=_array(depth),
            provenance=_array(provenance),
            sigma=_array(sigma[0]) if sigma else None,
            color=color,
            camera=measured.camera,
            scale=measured.scale,
            registration=measured.plan.why,
            assumed_registered=measured.plan.assumed,
            residual=residual if residual >= 0 else float("nan"),
            removed=measured.rejected,
            doubts=measured.doubts,
        )

    def _graph(self, measured: Measured, head: SigmaHead | None) -> Graph:
        """The graph for frames of this shape; the newest few are kept."""
        shape = FrameShape(
            size=measured.color.shape[:2],
            scale=measured.scale,
            grid=(measured.known.shape[-2], measured.known.shape[-1]),
            registered=measured.plan.route is not None,
            max_fill_px=self.settings.max_fill_px,
            inspected=self.settings.hygiene,
            views=self.upsampler.ensemble,
        )
        key = shape, head is not None
        graph = self._graphs.pop(key, None) or self.upsampler.graph(shape, head, self._profiled, self._stepwise)
        self._graphs[key] = graph
        while len(self._graphs) > _KEPT_GRAPHS:
            del self._graphs[next(iter(self._graphs))]
        return graph


def _array(image: Tensor) -> np.ndarray:
    """(1, 1, H, W) -> (H, W)."""
    return image[0, 0].cpu().numpy()


def describe(result: PipelineResult) -> dict[str, Any]:
    """The figures of a frame, as diagnostics show them."""
    return {
        "registration": result.registration,
        "residual [m]": f"{result.residual:.4f}",
        "rejected": str(result.removed),
    } | ({"corrected offset [px]": f"{result.offset[0]:+d} {result.offset[1]:+d}"} if result.offset != (0, 0) else {})
