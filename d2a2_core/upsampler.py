"""DepthUpsampler: the one inference entry. Any pair of sizes in, HR depth with provenance out."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2a2_core.depth import (
    DepthRange,
    fill_holes,
    invalid_to_nan,
    measurement_trust,
    nearest_pixel,
    valid_range,
)
from d2a2_core.depth.lr_grid import choose_scale, to_lr_grid
from d2a2_core.depth.provenance import classify
from d2a2_core.network import check_views, run_views, takes_trust
from d2a2_core.runtime.int8 import Int8Ranges, has_int8, load_int8
from d2a2_core.runtime.openvino import OpenVinoNetwork, has_openvino
from d2a2_core.weights import load_weights, resolve_weights

PRECISIONS = ("float32", "float16", "bfloat16", "int8")
_AUTOCAST = {"float16": torch.float16, "bfloat16": torch.bfloat16}
RUNTIMES = ("auto", "torch", "openvino")


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
        model: a D2A2 or D2A2Lite (anything with ``scales`` and ``forward(guide, lr)``); taken over: put into eval mode,
            moved to the device, its gradients switched off.
        device: "auto" (the GPU where there is one), "cpu", "cuda", "cuda:1", ...
        precision: of the network alone: "float32", "float16", "bfloat16", "int8" (on a CPU, by OpenVINO), or "auto": int8 where
            that is to be had (``int8`` is given; the runtime is "auto" or "openvino"; a CPU with VNNI), else bfloat16 on a GPU
            or CPU that computes in it (Ampere and later; AVX512-BF16 or AMX), else float16 on a GPU and float32 on a CPU. Where
            a result in float16 is not finite it is computed again in float32.
        max_fill_px: holes are filled up to this many pixels of the colour image away from the nearest measured pixel.
        scale: 0 takes the trained scale nearest to the ratio of the sizes; another value forces that scale.
        ensemble: views of each pair (1, 2, 4 or 8) whose results are averaged, see :func:`d2a2_core.network.run_views`: more
            accurate, in as many times the time. May be changed between frames.
        runtime: what computes the network: "torch", "openvino" (on a CPU, in float32 or int8: the same result sooner, after two
            seconds for every new size of images), or "auto": OpenVINO where it is installed and can, else torch.
        int8: what the precision int8 needs to know of the weights, :func:`d2a2_core.runtime.int8.load_int8`.

    Raises:
        ImportError: openvino was asked for and is not installed.
        ValueError: unknown device, precision or runtime, ones that do not go together, a scale that the model is not trained for,
            or another number of views.
    """

    def __init__(
        self,
        model: nn.Module,
        device: str = "auto",
        precision: str = "auto",
        max_fill_px: float = 16.0,
        scale: int = 0,
        ensemble: int = 1,
        runtime: str = "torch",
        int8: Int8Ranges | None = None,
    ) -> None:
        check_views(ensemble)
        self.ensemble = ensemble
        self.device = resolve_device(device)
        self.scales: tuple[int, ...] = tuple(model.scales)
        if scale and scale not in self.scales:
            raise ValueError(f"scale {scale} was asked for, but these weights are for {self.scales}; 0 chooses")
        self.scale = scale
        self.max_fill_px = max_fill_px
        self.model = model.eval().requires_grad_(False).to(self.device)
        # An .onnx file's is in the file.
        self._precision = getattr(model, "precision", None) or _resolve_precision(precision, self.device, runtime, int8)
        by_openvino = self._resolve_runtime(runtime) == "openvino"
        ranges = int8 if self._precision == "int8" else None
        self._network = OpenVinoNetwork(self.model, runtime == "auto", ranges) if by_openvino else self.model

    @property
    def precision(self) -> str:
        """What the network is computed in; where torch had to take over from int8 that is float32."""
        return "float32" if self._precision == "int8" and self.runtime_problem else self._precision

    @property
    def runtime(self) -> str:
        """What computes the network, "torch" or "openvino"; with "auto" the latter may turn out not to with the first pair."""
        return "openvino" if isinstance(self._network, OpenVinoNetwork) and not self.runtime_problem else "torch"

    @property
    def runtime_problem(self) -> str:
        """Why OpenVINO, which was to be taken where it can ("auto"), no longer is; empty without a problem."""
        return getattr(self._network, "problem", "")

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
    ) -> DepthUpsampler:
        """Loads weights that ship with the package (by name) or a .safetensors file (by path).

        ``backend`` is the deformable convolution's; the other arguments are the class's.

        Raises:
            WeightsError: no such weights, or they are damaged.
        """
        model = load_weights(resolve_weights(name_or_path), backend)
        # Ranges that do not belong to the weights give a warning, which whoever did not ask for int8 need not see.
        wanted = runtime != "torch" and precision in ("auto", "int8")
        return cls(
            model, device, precision, max_fill_px, scale, ensemble, runtime, load_int8(name_or_path) if wanted else None
        )

    def upsample(self, color: np.ndarray, depth: np.ndarray) -> UpsampledDepth:
        """Upsamples one pair.

        Args:
            color: (H, W, 3) uint8 RGB.
            depth: (h, w) metres along z; NaN, 0, negative and infinite values are invalid. Same view as ``color``, and
                H / h and W / w each from 1 to 32, whole or not.

        Raises:
            ValueError: wrong shape, type or ratio; the message says what was expected and what came.
        """
        color, depth = self.check(color, depth)
        out, provenance, scale = self.upsample_tensors(
            # Copies: views of messages are read-only, may be reversed in memory, and torch accepts neither.
            torch.from_numpy(np.array(color, order="C")).permute(2, 0, 1)[None],
            torch.from_numpy(np.array(depth, np.float32, order="C"))[None, None],
        )
        return UpsampledDepth(out[0, 0].cpu().numpy(), provenance[0, 0].cpu().numpy(), scale)

    @staticmethod
    def check(color: np.ndarray, depth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Both as arrays, or an error; see :meth:`upsample`."""
        color, depth = np.asarray(color), np.asarray(depth)
        if color.ndim != 3 or color.shape[2] != 3 or color.dtype != np.uint8:
            raise ValueError(f"expected color (H, W, 3) uint8 RGB, got {color.shape} {color.dtype}")
        if depth.ndim != 2 or not np.issubdtype(depth.dtype, np.floating):
            hint = "; divide millimetres by 1000" if np.issubdtype(depth.dtype, np.integer) else ""
            raise ValueError(f"expected depth (h, w) float metres, got {depth.shape} {depth.dtype}{hint}")
        return color, depth

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
        size = tuple(color.shape[-2:])
        scale = choose_scale(self.usable_scales, size, tuple(depth.shape[-2:]))
        measured = invalid_to_nan(depth.to(self.device, non_blocking=True))
        hr = self.predict(self.to_guide(color), to_lr_grid(measured, size, scale), scale)
        out, provenance = classify(hr, nearest_pixel(measured, size), self.max_fill_px)
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
            scale: one of the model's.
            depth_range: what to normalise by; default is the range of ``lr``.
            trust: of the size of ``lr``, for networks that take it; default is :func:`measurement_trust`.

        Returns:
            (B, 1, H, W) float32 metres, everywhere (holes are filled without a limit of distance).
        """
        size = tuple(guide.shape[-2:])
        measured_range = valid_range(lr)
        depth_range = depth_range or measured_range
        guide = F.pad(guide, (0, -size[1] % scale, 0, -size[0] % scale), mode="replicate")
        filled = fill_holes(lr, F.avg_pool2d(guide, scale))
        inputs = [guide, depth_range.normalise(filled)]
        if takes_trust(self.model):
            inputs.append(measurement_trust(lr) if trust is None else trust)
        hr = self._run_network(*inputs)
        hr = depth_range.restore(hr[..., : size[0], : size[1]])
        # Beyond the measured range a network only guesses; a tenth of the span leaves room for thin, blurred objects.
        lo, span = measured_range.lo, measured_range.span
        return hr.clamp((lo - 0.1 * span).clamp(min=1e-3), lo + 1.1 * span)

    @property
    def usable_scales(self) -> tuple[int, ...]:
        """The scales that may be chosen: the one that was asked for, or all of the model's."""
        return (self.scale,) if self.scale else self.scales

    def _run_network(self, *inputs: Tensor) -> Tensor:
        dtype = _AUTOCAST.get(self.precision)
        with torch.autocast(self.device.type, dtype=dtype) if dtype else nullcontext():
            result = run_views(self._network, self.ensemble, *inputs)
        if self.precision == "float16" and not torch.isfinite(result).all():
            return run_views(self._network, self.ensemble, *inputs)
        return result

    def _resolve_runtime(self, runtime: str) -> str:
        if runtime not in RUNTIMES:
            raise ValueError(f"runtime must be one of {RUNTIMES}, got {runtime!r}")
        file = hasattr(self.model, "precision")  # an .onnx file brings its own
        can = self.device.type == "cpu" and self._precision in ("float32", "int8") and not file
        if runtime == "openvino" and not can:
            what = "an .onnx file" if file else f"precision {self._precision} on {self.device}"
            raise ValueError(
                "runtime 'openvino' computes .safetensors weights with precision float32 or int8 on device cpu; got "
                f"{what}; ask for those, or use runtime 'auto'"
            )
        return "openvino" if runtime == "openvino" or (runtime == "auto" and can and has_openvino()) else "torch"


_CUDA_WITH_BFLOAT16 = (8, 0)  # compute capability, Ampere


def resolve_device(device: str) -> torch.device:
    """The torch device of a user's choice: "auto" (the GPU where there is one), "cpu", "cuda" or "cuda:N".

    Raises:
        ValueError: unknown name, or a GPU where there is none.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device {device!r} is unknown; use 'auto', 'cpu', 'cuda' or 'cuda:N'") from error
    if resolved.type not in ("cpu", "cuda", "mps"):
        raise ValueError(f"device {device!r} cannot run the network; use 'auto', 'cpu', 'cuda' or 'cuda:N'")
    if resolved.type == "cuda" and (resolved.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device {device!r} was asked for, but torch finds {torch.cuda.device_count()} GPUs; use 'auto' or 'cpu'"
        )
    return resolved


def _resolve_precision(precision: str, device: torch.device, runtime: str, int8: Int8Ranges | None) -> str:
    if precision not in ("auto", *PRECISIONS):
        raise ValueError(f"precision must be 'auto' or one of {sorted(PRECISIONS)}, got {precision!r}")
    if precision == "auto":
        if not _what_int8_lacks(device, runtime, int8):
            return "int8"
        # bfloat16 first: a few values far from all others, in front of a flat wall, exceed float16's range within the network.
        return "bfloat16" if has_bfloat16(device) else "float16" if device.type == "cuda" else "float32"
    if precision == "int8":
        check_int8(device, runtime, int8)
    if precision == "float16" and device.type == "cpu":
        raise ValueError("precision 'float16' needs a GPU; use 'float32' or 'bfloat16' on the CPU")
    return precision


def check_int8(device: torch.device, runtime: str, int8: Int8Ranges | None) -> None:
    """Raises ValueError where a network cannot be computed in int8; the message says what that needs."""
    lacking = _what_int8_lacks(device, runtime, int8)
    if lacking:
        raise ValueError(f"precision 'int8' needs {lacking}; use 'auto' or 'float32'")


def _what_int8_lacks(device: torch.device, runtime: str, int8: Int8Ranges | None) -> str:
    """Empty where int8 is to be had."""
    if device.type != "cpu":
        return f"device 'cpu', got {str(device)!r}"
    if runtime == "torch" or not has_openvino():
        return "runtime 'auto' or 'openvino', and the package openvino"
    if not has_int8():
        return "a CPU with VNNI"
    return "" if int8 is not None else "weights with ranges beside them (d2a2 int8 --weights FILE)"


def has_bfloat16(device: torch.device) -> bool:
    """Whether a GPU or CPU multiplies in bfloat16 itself; others emulate it, which is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= _CUDA_WITH_BFLOAT16
    if device.type != "cpu":
        return False
    checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(check is not None and check() for check in checks)
