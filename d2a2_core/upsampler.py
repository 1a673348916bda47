"""DepthUpsampler: the one inference entry. Any pair of sizes in, HR depth with provenance out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from d2a2_core.depth import DepthRange, invalid_to_nan, measurement_trust, valid_range
from d2a2_core.depth.cells import CellMap, Within
from d2a2_core.depth.lr_grid import choose_scale, to_lr_grid
from d2a2_core.depth.provenance import classify
from d2a2_core.depth.validity import check_images
from d2a2_core.frame_graph import FrameGraph, FrameShape, Inspection, Prediction
from d2a2_core.network import check_views
from d2a2_core.network.sigma_head import SigmaHead
from d2a2_core.runtime import EagerGraph, Graph, Runtime, choose_runtime, open_runtime


@dataclass(frozen=True)
class UpsampledDepth:
    """Result of :meth:`DepthUpsampler.upsample`.

    Attributes:
        depth: (H, W) float32 metres along z, NaN where there is none.
        provenance: (H, W) uint8, values of :class:`d2a2_core.Provenance`.
        scale: the trained scale that was used.
    """

    depth: np.ndarray
    provenance: np.ndarray
    scale: int


class DepthUpsampler:
    """Brings depth to the resolution of the colour image of the same view.

    Args:
        runtime: Computes the network, see :func:`d2a2_core.runtime.choose_runtime`.
        max_fill_px: Holes are filled up to this many pixels of the colour image away from the nearest measured pixel.
        scale: 0 takes the trained scale nearest to the ratio of the sizes; another value forces that scale.
        ensemble: Number of views of each pair (1, 2, 4 or 8) whose results are averaged, see
            :func:`d2a2_core.network.run_views`: more accurate, in as many times the time. May be changed between frames.

    Attributes:
        device: Device that the network is computed on, and that tensors come out on.
        scales: Scales that the network is for; empty if it is for any.

    Raises:
        ValueError: The network is not for this scale, or is for any and none was given; or another number of views.
    """

    def __init__(self, runtime: Runtime, max_fill_px: float = 16.0, scale: int = 0, ensemble: int = 1) -> None:
        check_views(ensemble)
        self._runtime = runtime
        self.device = runtime.device
        self.scales = runtime.scales
        if scale and self.scales and scale not in self.scales:
            raise ValueError(f"scale {scale} was asked for, but these weights are for {self.scales}; 0 chooses")
        if not scale and not self.scales:
            raise ValueError("expected a scale, since the network does not say which ones it is for; got 0; name one")
        self.max_fill_px = max_fill_px
        self.scale = scale
        self.ensemble = ensemble

    @classmethod
    def from_module(
        cls, model: nn.Module, device: str = "auto", precision: str = "auto", **options: Any
    ) -> DepthUpsampler:
        """Takes a D2A2, a D2A2Lite or your own module with ``scales`` and ``forward(guide, lr)``, run by PyTorch.

        The module is moved to the device and put into eval mode, its gradients switched off. ``options`` are the class's.

        Raises:
            ValueError: See :func:`d2a2_core.runtime.choose_runtime`.
        """
        return cls(choose_runtime(model, device, precision), **options)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        device: str = "auto",
        precision: str = "auto",
        max_fill_px: float = 16.0,
        scale: int = 0,
        backend: str = "auto",
        ensemble: int = 1,
        runtime: str = "torch",
        at_once: bool = False,
    ) -> DepthUpsampler:
        """Loads weights that ship with the package (by name), or a .safetensors or .onnx file (by path).

        ``device``, ``precision``, ``backend``, ``runtime`` and ``at_once`` are those of
        :func:`d2a2_core.runtime.open_runtime`; the other arguments are the class's.

        Raises:
            ImportError: The runtime that was asked for is not installed.
            ValueError: Unknown device, precision or runtime, or ones that do not go together.
            WeightsError: no such weights, or they are damaged.
        """
        opened = open_runtime(name_or_path, device, precision, runtime, backend, at_once=at_once)
        return cls(opened, max_fill_px, scale, ensemble)

    @property
    def precision(self) -> str:
        """What the network is computed in; where torch had to take over from int8 that is float32."""
        return self._runtime.precision

    @property
    def runtime(self) -> str:
        """Name of what computes the network, for instance "torch"; with "auto" it may change when the first choice fails."""
        return self._runtime.name

    @property
    def runtime_problem(self) -> str:
        """Why the runtime that was preferred ("auto") no longer computes the network; empty without a problem."""
        return self._runtime.problem

    @property
    def starting(self) -> bool:
        """Whether PyTorch computes while a faster runtime is getting ready."""
        return self._runtime.starting

    @property
    def preparing(self) -> bool:
        """Whether a thread is getting a faster runtime ready."""
        return self._runtime.preparing

    @contextmanager
    def patient(self) -> Iterator[None]:
        """Within this, frames wait for the faster runtime, should one be getting ready: to measure it, or to have it ready."""
        before, self._runtime.patient = self._runtime.patient, True
        try:
            yield
        finally:
            self._runtime.patient = before

    def upsample(self, color: np.ndarray, depth: np.ndarray) -> UpsampledDepth:
        """Upsamples one pair.

        Args:
            color: (H, W, 3) uint8 RGB.
            depth: (h, w) metres along z; NaN, 0, negative and infinite values are invalid. Same view as ``color``, and
                H / h and W / w each from 1/4 to 32, whole or not.

        Raises:
            ValueError: wrong shape, type or ratio; the message says what was expected and what came.
        """
        color, depth = np.asarray(color), np.asarray(depth)
        check_images(color, depth)
        out, provenance, scale = self.upsample_tensors(
            # Copies: views of messages are read-only, may be reversed in memory, and torch accepts neither.
            torch.from_numpy(np.array(color, order="C")).permute(2, 0, 1)[None],
            torch.from_numpy(np.array(depth, np.float32, order="C"))[None, None],
        )
        return UpsampledDepth(out[0, 0].cpu().numpy(), provenance[0, 0].cpu().numpy(), scale)

    @torch.inference_mode()
    def upsample_tensors(self, color: Tensor, depth: Tensor) -> tuple[Tensor, Tensor, int]:
        """Upsamples a batch; the tensor back of :meth:`upsample`.

        Args:
            color: (B, 3, H, W) RGB, uint8 or float in [0, 1], on any device.
            depth: (B, 1, h, w) metres, invalid as in :meth:`upsample`.

        Returns:
            depth (B, 1, H, W) float32 metres with NaN, provenance (B, 1, H, W) uint8, and the scale that was used; the
            tensors are on the upsampler's device.
        """
        if not depth.is_floating_point():
            raise ValueError(f"expected depth in float metres, got {depth.dtype}; divide millimetres by 1000")
        size = (color.shape[-2], color.shape[-1])
        scale = choose_scale(self.usable_scales, size, (depth.shape[-2], depth.shape[-1]))
        measured = invalid_to_nan(depth.to(self.device, non_blocking=True))
        hr = self.predict(self.to_guide(color), to_lr_grid(measured, size, scale), scale)
        near = Within(CellMap.same_view(size, (depth.shape[-2], depth.shape[-1])), self.max_fill_px).to(self.device)
        out, provenance = classify(hr, measured, near)
        return out, provenance, scale

    def to_guide(self, color: Tensor) -> Tensor:
        """Colour (B, 3, H, W), uint8 or float in [0, 1], as the network wants it: float32 in [0, 1], on the device."""
        color = color.to(self.device, non_blocking=True).contiguous()  # bytes are turned around sooner than floats
        return color.float().div_(255) if color.dtype == torch.uint8 else color.float()

    @torch.inference_mode()
    def predict(
        self,
        guide: Tensor,
        lr: Tensor,
        scale: int,
        depth_range: DepthRange | None = None,
        trust: Tensor | None = None,
    ) -> Tensor:
        """The network on its own grid: one LR cell per ``scale`` x ``scale`` pixels of the guide, the last ones may stick out.

        Args:
            guide: (B, 3, H, W) RGB in [0, 1], on the device.
            lr: (B, 1, ceil(H / scale), ceil(W / scale)) metres, NaN where there is no measurement.
            scale: one of the scales.
            depth_range: what to normalise by; default is the range of ``lr``.
            trust: of the size of ``lr``, for networks that take it; default is :func:`measurement_trust`.

        Returns:
            (B, 1, H, W) float32 metres, everywhere (holes are filled without a limit of distance).
        """
        if not self._runtime.takes_trust:
            trust = None
        elif trust is None:
            trust = measurement_trust(lr)
        prediction = Prediction(self._runtime, self.ensemble)
        return prediction.predict(guide, lr, scale, depth_range or valid_range(lr), trust)

    def graph(
        self, shape: FrameShape, sigma_head: SigmaHead | None = None, profiled: bool = False, stepwise: bool = False
    ) -> Graph:
        """What computes whole frames of a shape with this network: :meth:`FrameGraph.forward`, by the runtime.

        ``stepwise``: only the network is computed by the runtime, and all around it by PyTorch.
        """
        takes_trust = self._runtime.takes_trust
        if stepwise:
            return EagerGraph(FrameGraph(self._runtime, takes_trust, shape, sigma_head).to(self.device), profiled)
        return self._runtime.whole(lambda network: FrameGraph(network, takes_trust, shape, sigma_head), profiled)

    def inspection(self) -> Callable[[Tensor], Tensor]:
        """:class:`Inspection`, by the runtime."""
        run = self._runtime.whole(lambda _: Inspection())
        return lambda depth: run(depth)[0]

    @property
    def usable_scales(self) -> tuple[int, ...]:
        """The scales that may be chosen: the one that was asked for, or all of the model's."""
        return (self.scale,) if self.scale else self.scales
