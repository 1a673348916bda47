"""Measures on generated scenes what int8 needs to know of weights (:mod:`d2a2_core.runtime.int8`), and what int8 costs.

The scenes are those that uncertainty heads are trained on (:mod:`d2a2_core.calibration.cases`), and go through the same
pipeline. Everything follows from the seed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from d2a2_core.calibration.cases import cases, recording_pipeline
from d2a2_core.runtime import choose_runtime
from d2a2_core.runtime.int8 import LEVELS, Int8Ranges, int8_convolutions, save_int8
from d2a2_core.runtime.openvino import OpenVinoRuntime
from d2a2_core.training.config import TrainConfig
from d2a2_core.training.provenance import provenance
from d2a2_core.training.sources import training_source, validation_source
from d2a2_core.upsampler import DepthUpsampler
from d2a2_core.weights import load_weights, resolve_weights, sha256
from d2a2_core.weights.sidecars import INT8

_VALUES = 8_000  # of each convolution's input that are kept of each run
_SHARES = [0.1 + 0.03 * i for i in range(31)]  # of each end of the whole range, that are tried
_MEASURE = ((384, 384),)  # one size for all: every new one costs OpenVINO seconds


def grid(low: float, high: float) -> tuple[float, float]:
    """The range moved by less than half a step, so that one of the ``LEVELS`` values is 0, which convolutions pad with."""
    step = (high - low) / (LEVELS - 1)
    zero = round(-low / step)
    return -zero * step, (LEVELS - 1 - zero) * step


def best_range(values: Tensor, low: float, high: float) -> tuple[float, float]:
    """The part of [low, high], made to hold 0, with the least mean squared error of rounding and clipping ``values`` (n,).

    A few values far from all others would else leave few levels to the rest. Source: Banner, Nahshan, Soudry, "Post training
    4-bit quantization of convolutional networks for rapid-deployment", NeurIPS 2019; there in closed form, here by trying.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    if high - low < 1e-12:
        return 0.0, 1.0  # nothing came; any range will do

    def error(first: float, last: float) -> float:
        first, last = grid(first, last)
        step = (last - first) / (LEVELS - 1)
        rounded = ((values - first) / step).round_().clamp_(0, LEVELS - 1).mul_(step).add_(first)
        return rounded.sub_(values).square_().mean().item()

    ends = [low, high]
    for side in (1, 0, 1):  # one end at a time, the first one again
        tried = [[share * (low, high)[side] if i == side else ends[i] for i in (0, 1)] for share in _SHARES]
        ends = min((pair for pair in tried if pair[1] - pair[0] > 1e-12), key=lambda pair: error(*pair))
    return grid(*ends)


class RangeRecorder:
    """Watches a network while it runs, as a context; then tells its :class:`Int8Ranges`.

    Args:
        model: called as ``model(guide, lr, ...)``, with ``scales``.
        seed: of which values are kept.
    """

    def __init__(self, model: nn.Module, seed: int) -> None:
        self._model, self._convs = model, int8_convolutions(model)
        self._random = torch.Generator().manual_seed(seed)
        self._scale, self._handles = 0, []
        self._seen: dict[tuple[str, int], list[tuple[float, float, Tensor]]] = {}

    def __enter__(self) -> RangeRecorder:
        self._handles = [self._model.register_forward_pre_hook(self._on_model)]
        self._handles += [conv.register_forward_pre_hook(self._on_conv(name)) for name, conv in self._convs.items()]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _on_model(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._scale = inputs[0].shape[-1] // inputs[1].shape[-1]

    def _on_conv(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def keep(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            values = inputs[0].detach().float().flatten().cpu()
            picked = values[torch.randint(len(values), (_VALUES,), generator=self._random)]
            extremes = values.min().item(), values.max().item()
            self._seen.setdefault((name, self._scale), []).append((*extremes, picked))

        return keep

    def ranges(self) -> Int8Ranges:
        """What the runs so far tell.

        Raises:
            ValueError: a scale of the model, or one of its convolutions, did not run.
        """
        scales = tuple(self._model.scales)
        rows = {}
        for name in self._convs:
            missing = [scale for scale in scales if (name, scale) not in self._seen]
            if missing:
                raise ValueError(f"{name} was not run at scales {missing}; show the network pairs of all of {scales}")
            rows[name] = torch.tensor([self._best(name, scale) for scale in scales], dtype=torch.float32)
        return Int8Ranges(scales, rows)

    def _best(self, name: str, scale: int) -> tuple[float, float]:
        lows, highs, values = zip(*self._seen[name, scale], strict=True)
        return best_range(torch.cat(values), min(lows), max(highs))


def measure_int8(
    weights: str | Path,
    out: Path | None = None,
    seed: int = 0,
    images: int = 48,
    held_out: int = 30,
    data: str = "shapes",
    root: str = "",
) -> tuple[Path, dict[str, float]]:
    """Writes the ranges of weights.

    Args:
        weights: shipped name or path.
        out: the file; default beside the weights, where :func:`d2a2_core.runtime.int8.load_int8` finds it.
        images, held_out: scenes to measure on, and to compare results on; at least one per scale of the weights.
        data, root: of the scenes, as of ``d2a2 train``.

    Returns:
        The file's path, and on held-out scenes RMSE and mean error in mm of float32 and int8; empty where this computer has no
        int8.

    Raises:
        ValueError: too few images.
    """
    weights = resolve_weights(weights)
    out = out or INT8.path(weights)
    model = load_weights(weights)
    config = TrainConfig(data=data, root=root, seed=seed)
    pipeline = recording_pipeline(DepthUpsampler.from_module(model, "cpu", "float32"))
    with RangeRecorder(model, seed) as recorder:
        for _ in tqdm(cases(pipeline, training_source(config), images, seed), "scenes", images, disable=None):
            pass
    ranges = recorder.ranges()
    by_int8 = OpenVinoRuntime.installed() and not OpenVinoRuntime.lacks(torch.device("cpu"), "int8", ranges)
    errors = _compare(weights, ranges, config, held_out) if held_out and by_int8 else {}
    options = f"--seed {seed} --images {images} --held-out {held_out} --data {data}{' --root FOLDER' if root else ''}"
    card = provenance(config) | {
        "title": f"ranges for int8 of {weights.name}",
        "command": f"d2a2 int8 --weights {weights.stem} {options}",
        "weights_sha256": sha256(weights),
        "settings": {"data": data, "root": Path(root).name, "seed": seed, "images": images, "held_out": held_out},
        "held_out": errors,
    }
    save_int8(out, ranges, card)
    return out, errors


def _compare(weights: Path, ranges: Int8Ranges, config: TrainConfig, count: int) -> dict[str, float]:
    source, figures = validation_source(config), {}
    for precision in ("float32", "int8"):
        runtime = choose_runtime(load_weights(weights), "cpu", precision, "openvino", ranges)
        pipeline, total = recording_pipeline(DepthUpsampler(runtime)), np.zeros(3)
        for case in tqdm(cases(pipeline, source, count, config.seed + 1, _MEASURE), precision, count, disable=None):
            error = case.hr[0, 0].numpy().astype(np.float64) - case.truth
            error = error[np.isfinite(error)]
            total += len(error), np.square(error).sum(), np.abs(error).sum()
        figures[f"{precision}_rmse_mm"] = round(1000 * float(np.sqrt(total[1] / total[0])), 2)
        figures[f"{precision}_mae_mm"] = round(1000 * float(total[2] / total[0]), 2)
    return figures
