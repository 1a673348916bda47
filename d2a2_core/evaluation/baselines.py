"""Methods to compare with, behind one small interface: classical filters, and networks of any runtime.

The settings of the filters depend on the scale. With them the evaluator gives the same RMSE and MAE, to 4 digits, as an
independent evaluation of these methods on Middlebury, Lu and NYUv2 images.
OpenCV's filters need the optional package opencv-contrib-python-headless, ONNX files the package onnxruntime.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from d2a2_core.data.reduction import resize
from d2a2_core.network import check_views, run_views
from d2a2_core.runtime import Runtime
from d2a2_core.runtime.onnx import OnnxRuntime


class Method(Protocol):
    """Anything that upsamples depth.

    Attributes:
        name: what tables call it.
    """

    name: str

    def __call__(self, guide: np.ndarray, lr: np.ndarray, scale: int, trust: np.ndarray | None = None) -> np.ndarray:
        """HR depth (H, W) float32 from guide (H, W, 3) uint8 RGB and LR depth (h, w) float32, normalised to [0, 1].

        ``trust`` (h, w) float32 in [0, 1] tells what each LR value is worth; None: all of them 1. Most methods do not ask.
        """
        ...


class FunctionMethod:
    """A function ``f(guide, lr, scale)`` under a name."""

    def __init__(self, name: str, function: Callable[[np.ndarray, np.ndarray, int], np.ndarray]) -> None:
        self.name = name
        self._function = function

    def __call__(self, guide: np.ndarray, lr: np.ndarray, scale: int, trust: np.ndarray | None = None) -> np.ndarray:
        return self._function(guide, lr, scale)


class NetworkMethod:
    """What a runtime computes, as a method.

    Args:
        runtime: Computes the network.
        name: Name for tables.
        ensemble: Number of views of each pair that are averaged, see :func:`d2a2_core.network.run_views`.
    """

    def __init__(self, runtime: Runtime, name: str, ensemble: int = 1) -> None:
        check_views(ensemble)
        self.runtime = runtime
        self.name = name
        self.ensemble = ensemble

    @torch.inference_mode()
    def __call__(self, guide: np.ndarray, lr: np.ndarray, scale: int, trust: np.ndarray | None = None) -> np.ndarray:
        if self.runtime.scales and scale not in self.runtime.scales:
            raise ValueError(f"{self.name} is for scales {list(self.runtime.scales)}, asked for {scale}")
        arrays = [*network_inputs(guide, lr)]
        if trust is not None and self.runtime.takes_trust:
            arrays.append(trust[None, None])
        tensors = [torch.from_numpy(array).to(self.runtime.device, torch.float32) for array in arrays]
        return run_views(self.runtime, self.ensemble, *tensors)[0, 0].cpu().numpy()


def network_inputs(guide: np.ndarray, lr: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Guide (1, 3, H, W) float32 in [0, 1] and LR (1, 1, h, w) float32 from uint8 (H, W, 3) and (h, w)."""
    planes = np.ascontiguousarray(guide.transpose(2, 0, 1)[None], dtype=np.float32) / np.float32(255)
    return planes, np.ascontiguousarray(lr[None, None], dtype=np.float32)


def enlarge(guide: np.ndarray, lr: np.ndarray, scale: int, filter_name: str = "bicubic") -> np.ndarray:
    """Enlarges the LR to the guide's size with Pillow's filter; the guide's colours are ignored."""
    return resize(lr, guide.shape[:2], filter_name)


def guided(guide: np.ndarray, lr: np.ndarray, scale: int, eps: float = 0.01) -> np.ndarray:
    """Guided filter (He, Sun, Tang 2010) of the bicubic result, radius s / 4; guide in [0, 1], so is sqrt(eps)."""
    return _ximgproc("guidedFilter")(_unit(guide), enlarge(guide, lr, scale), max(1, scale // 4), eps)


def joint_bilateral(guide: np.ndarray, lr: np.ndarray, scale: int, sigma_color: float = 0.06) -> np.ndarray:
    """Joint bilateral filter of the bicubic result; sigma_color of the L1 colour distance, colours in [0, 1]."""
    sigma_space = _by_scale({4: 1.0, 8: 4.0, 16: 8.0}, scale)
    smooth = _ximgproc("jointBilateralFilter")
    return smooth(_unit(guide), enlarge(guide, lr, scale), -1, sigma_color, sigma_space)


def fast_global_smoother(guide: np.ndarray, lr: np.ndarray, scale: int) -> np.ndarray:
    """Fast global smoother (Min et al. 2014) of the bicubic result; (lambda, sigma_color) by scale."""
    strength, sigma_color = _by_scale({4: (0.3, 8.0), 8: (3.0, 8.0), 16: (100.0, 3.0)}, scale)
    return _ximgproc("fastGlobalSmootherFilter")(guide, enlarge(guide, lr, scale), strength, sigma_color)


def joint_bilateral_upsampling(
    guide: np.ndarray, lr: np.ndarray, scale: int, radius: int = 2, sigma_color: float = 0.2, sigma_space: float = 0.5
) -> np.ndarray:
    """Joint bilateral upsampling (Kopf et al. 2007): a weighted mean of (2 radius + 1)^2 LR pixels at each HR pixel.

    An LR pixel weighs by its distance (sigma_space, in LR pixels) and by how its colour, the mean of the guide's
    s x s pixels it covers, differs from the HR pixel's (Euclidean, sigma_color, colours in [0, 1]).
    """
    colour = _unit(guide)
    h, w = lr.shape
    coarse = colour.reshape(h, scale, w, scale, 3).mean(axis=(1, 3))
    y, x = ((np.arange(n * scale) + 0.5) / scale - 0.5 for n in (h, w))
    total = np.zeros(guide.shape[:2], np.float32)
    weights = np.full(guide.shape[:2], 1e-12, np.float32)
    for dy in range(-radius, radius + 1):
        rows = np.round(y).astype(int) + dy
        near_y = np.exp(-((rows - y) ** 2) / (2 * sigma_space**2))
        rows = rows.clip(0, h - 1)
        for dx in range(-radius, radius + 1):
            columns = np.round(x).astype(int) + dx
            near_x = np.exp(-((columns - x) ** 2) / (2 * sigma_space**2))
            columns = columns.clip(0, w - 1)
            alike = np.square(colour - coarse[rows[:, None], columns]).sum(axis=-1)
            weight = np.outer(near_y, near_x) * np.exp(-alike / (2 * sigma_color**2))
            total += weight * lr[rows[:, None], columns]
            weights += weight
    # Where all colours differ the weights vanish together: the nearest LR pixel is then the answer.
    nearest = lr.repeat(scale, axis=0).repeat(scale, axis=1)
    return np.where(weights > 1e-9, total / weights, nearest)


METHODS: dict[str, Callable[..., np.ndarray]] = {
    "nearest": partial(enlarge, filter_name="nearest"),
    "bilinear": partial(enlarge, filter_name="bilinear"),
    "bicubic": enlarge,
    "guided": guided,
    "joint_bilateral": joint_bilateral,
    "jbu": joint_bilateral_upsampling,
    "fgs": fast_global_smoother,
}


def get_method(name: str) -> Method:
    """The method of that name, or of an ``.onnx`` file's path, which ONNX Runtime computes on the CPU.

    Raises:
        ImportError, WeightsError: See :class:`OnnxRuntime`.
        ValueError: no such method, or an .onnx file with other inputs than ``guide`` and ``lr``.
    """
    if name.lower().endswith(".onnx"):
        return NetworkMethod(OnnxRuntime(name, providers=["CPUExecutionProvider"]), Path(name).stem)
    key = name.lower().replace("-", "_")
    if key not in METHODS:
        raise ValueError(f"unknown method {name!r}: expected one of {', '.join(METHODS)}, or the path of an .onnx file")
    return FunctionMethod(key, METHODS[key])


def _unit(guide: np.ndarray) -> np.ndarray:
    return guide.astype(np.float32) / np.float32(255)


def _by_scale(table: dict[int, Any], scale: int) -> Any:
    """The entry of the scale closest to ``scale``, on a logarithmic axis."""
    return table[min(table, key=lambda known: abs(np.log(known / scale)))]


def _ximgproc(function: str) -> Callable[..., np.ndarray]:
    try:
        from cv2 import ximgproc
    except ImportError as error:
        raise ImportError(
            f"{function} needs OpenCV's contrib modules: pip install opencv-contrib-python-headless (and remove any "
            "other opencv-python package, which would hide them)"
        ) from error
    return getattr(ximgproc, function)
