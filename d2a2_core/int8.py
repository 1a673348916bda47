"""Int8: the range of values that each convolution of a network is given, measured, and kept in a file beside the weights.

OpenVINO computes a convolution in integers where it knows that range (:mod:`d2a2_core.openvino_runtime`). Those next to the
result, which a model names ``exact``, stay in float32.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from d2a2_core.weights import WeightsError, open_weights, resolve_weights, sha256, write_safetensors

LEVELS = 256  # of an input
WEIGHT_LEVELS = 255  # symmetric around 0
_FORMAT = "d2a2-int8-1"
_VALUES = 8_000  # of each convolution's input that are kept of each run
_SHARES = [0.1 + 0.03 * i for i in range(31)]  # of each end of the whole range, that are tried


@dataclass(frozen=True)
class Int8Ranges:
    """What is known of the inputs of a network's convolutions.

    Attributes:
        scales: of the weights, in the order of the rows below.
        ranges: name of each convolution -> (scales, 2) float32, the least and the largest value that integers stand for.
    """

    scales: tuple[int, ...]
    ranges: dict[str, Tensor]

    def of(self, scale: int) -> dict[str, tuple[float, float]]:
        """(least, largest) of each convolution at one of the scales."""
        return {name: tuple(rows[self.scales.index(scale)].tolist()) for name, rows in self.ranges.items()}


def int8_convolutions(model: nn.Module) -> dict[str, nn.Conv2d]:
    """Name -> convolution of those that may be computed in integers: all but the ones in modules that ``model.exact`` names."""
    exact = [f".{part}." for part in getattr(model, "exact", ())]
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and not any(part in f".{name}." for part in exact)
    }


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


# -- files -------------------------------------------------------------------------------------------------------------


def int8_path(weights: str | Path) -> Path:
    """Where the ranges of a weights file lie: NAME.int8.safetensors beside NAME.safetensors."""
    weights = Path(weights)
    return weights.with_name(f"{weights.stem}.int8.safetensors")


def save_int8(path: str | Path, ranges: Int8Ranges, card: dict[str, Any]) -> None:
    """Writes ranges; their card tells at least ``weights_sha256``, the weights that they belong to."""
    metadata = {"format": _FORMAT, "scales": json.dumps(ranges.scales), "card": json.dumps(card)}
    write_safetensors(path, {name: rows.contiguous() for name, rows in ranges.ranges.items()}, metadata)


def load_int8(name_or_path: str | Path) -> Int8Ranges | None:
    """The ranges of weights given by name or path; None where they have none.

    Ranges measured with other weights than the ones they lie beside are not used, and a warning says so.

    Raises:
        WeightsError: the weights are missing, or the ranges' file is damaged.
    """
    weights = resolve_weights(name_or_path)
    path = int8_path(weights)
    if not path.is_file():
        return None
    with open_weights(path) as file:
        metadata = file.metadata() or {}
        ranges = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    again = f"run d2a2 int8 --weights {name_or_path}"
    try:
        if metadata["format"] != _FORMAT:
            raise ValueError(f"format {metadata['format']!r}, expected {_FORMAT!r}")
        scales, card = tuple(json.loads(metadata["scales"])), json.loads(metadata["card"])
        if any(rows.shape != (len(scales), 2) or not (rows[:, 0] < rows[:, 1]).all() for rows in ranges.values()):
            raise ValueError("ranges that are none")
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path} does not hold the ranges for int8 ({error!r}); {again}") from error
    if card.get("weights_sha256") != sha256(weights):
        warnings.warn(
            f"{path} was measured with other weights than {weights.name}, so int8 is not to be had; {again}",
            stacklevel=2,
        )
        return None
    return Int8Ranges(scales, ranges)


def has_int8() -> bool:
    """Whether this computer's CPU multiplies and sums int8 in one instruction (VNNI: Intel since 2019, AMD since Zen 4).

    Others gain little by it, or sum into 16 bits, which overflow.
    """
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return False
    return not {"avx512_vnni", "avx_vnni"}.isdisjoint(flags)
