"""Methods to compare with, behind one small interface: classical filters, any ONNX file, any PyTorch module.

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
from torch import nn

from d2a2_core.data.reduction import resize
from d2a2_core.network import check_views, run_views, takes_trust
from d2a2_core.runtime.int8 import Int8Ranges
from d2a2_core.runtime.openvino import OpenVinoNetwork


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
    """A PyTorch module, run where its parameters are.

    Args:
        model: called as ``model(guide (1, 3, H, W) RGB in [0, 1], lr (1, 1, h, w) in [0, 1]) -> (1, 1, H, W)``,
            with a third argument ``trust`` where it takes one.
        scale: the only scale it was trained for (None: any).
        name: for tables.
        ensemble: views of each pair that are averaged, see :func:`d2a2_core.network.run_views`.
        int8: computes it in int8, by OpenVINO on a CPU, with these ranges.
    """

    def __init__(
        self,
        model: nn.Module,
        scale: int | None,
        name: str,
        ensemble: int = 1,
        int8: Int8Ranges | None = None,
    ) -> None:
        check_views(ensemble)
        self.model = model.eval()
        self._network = OpenVinoNetwork(self.model, int8=int8) if int8 else self.model
        self.ensemble = ensemble
        self.scale = scale
        self.name = name

    @torch.inference_mode()
    def __call__(self, guide: np.ndarray, lr: np.ndarray, scale: int, trust: np.ndarray | None = None) -> np.ndarray:
        if self.scale not in (None, scale):
            raise ValueError(f"{self.name} was trained for scale {self.scale}, asked for {scale}")
        first = next(self.model.parameters(), torch.zeros(1))
        tensors = [torch.from_numpy(array).to(first) for array in network_inputs(guide, lr)]
        if trust is not None and takes_trust(self.model):
            tensors.append(torch.from_numpy(trust[None, None]).to(first))
        return run_views(self._network, self.ensemble, *tensors)[0, 0].cpu().numpy()


class OnnxMethod:
    """An ONNX file with the inputs ``guide`` (1, 3, H, W) RGB in [0, 1] and ``lr`` (1, 1, h, w) in [0, 1].

    Args:
        path: the file. Its first output is (1, 1, H, W).
        providers: ONNX Runtime's execution providers (None: the CPU).

    Raises:
        ImportError: onnxruntime is not installed.
        FileNotFoundError, ValueError: no such file, or other inputs.
    """

    def __init__(self, path: str | Path, providers: list[str] | None = None) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise ImportError(f"{path} needs the package onnxruntime: pip install onnxruntime") from error
        if not Path(path).is_file():
            raise FileNotFoundError(f"expected an ONNX file at {path}, found no such file")
        self._session = onnxruntime.InferenceSession(str(path), providers=providers or ["CPUExecutionProvider"])
        self.name = Path(path).stem
        inputs = {entry.name: entry.shape for entry in self._session.get_inputs()}
        if set(inputs) != {"guide", "lr"}:
            raise ValueError(f"{path}: expected the inputs 'guide' and 'lr', found {inputs}")
        self._inputs = inputs

    def __call__(self, guide: np.ndarray, lr: np.ndarray, scale: int, trust: np.ndarray | None = None) -> np.ndarray:
        arrays = dict(zip(("guide", "lr"), network_inputs(guide, lr), strict=True))
        for key, array in arrays.items():
            fixed = [(want, got) for want, got in zip(self._inputs[key], array.shape, strict=True) if want != got]
            if any(isinstance(want, int) for want, _ in fixed):
                raise ValueError(f"{self.name}: input {key!r} is fixed to {self._inputs[key]}, got {array.shape}")
        return self._session.run(None, arrays)[0][0, 0]


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
    """The method of that name, or of an ``.onnx`` file's path.

    Raises:
        ValueError: no such method.
    """
    if name.lower().endswith(".onnx"):
        return OnnxMethod(name)
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
