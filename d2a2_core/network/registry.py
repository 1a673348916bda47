"""Builds a model from its configuration, within limits: a configuration may come from anybody's file."""

from __future__ import annotations

import reprlib
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from d2a2_core.documents import check_schema
from d2a2_core.network.aggregation import ATTENTIONS
from d2a2_core.network.alignment import DOMAIN_ALIGNMENTS
from d2a2_core.network.d2a2 import D2A2, SCALES
from d2a2_core.network.lite import D2A2Lite
from d2a2_core.network.pico import D2A2Pico

_REPR = reprlib.Repr()
_REPR.maxdict, _REPR.maxstring, _REPR.maxlevel = 16, 40, 2
MODELS = {"d2a2": D2A2, "d2a2-lite": D2A2Lite, "d2a2-pico": D2A2Pico}


def _whole(low: int, high: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": low, "maximum": high}


def _object(**properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {"model": {}, **properties}, "additionalProperties": False}


_SWITCH = {"type": "boolean"}
_SCALES = {"type": "array", "items": {"enum": list(SCALES)}, "minItems": 1, "uniqueItems": True}
_WIDTH = _whole(1, 512)
_SHARED = {"channels": _WIDTH, "blocks": _whole(0, 64), "groups": _whole(1, 64), "geometric": _SWITCH}
# Several times what any weights have: a width of 64, 4 blocks, 1 back projection.
_SCHEMAS = {
    "d2a2": _object(
        **_SHARED,
        scale={"enum": list(SCALES)},
        domain={"enum": list(DOMAIN_ALIGNMENTS)},
        gated=_SWITCH,
        attention={"enum": list(ATTENTIONS)},
    ),
    "d2a2-lite": _object(
        **_SHARED,
        scales=_SCALES,
        context={"type": "array", "items": _WIDTH, "maxItems": 2},
        detail=_WIDTH,
        heads=_whole(1, 16),
        back_projections=_whole(0, 16),
        trust=_SWITCH,
        reach={"type": "number", "maximum": 1000},
    ),
    "d2a2-pico": _object(
        channels=_WIDTH,
        scales=_SCALES,
        detail=_WIDTH,
        around=_WIDTH,
        width=_whole(3, 64),
        trust=_SWITCH,
    ),
}


def build_model(config: dict[str, Any], backend: str = "auto") -> D2A2 | D2A2Lite | D2A2Pico:
    """Builds a model from a ``config`` as the models themselves carry it.

    Raises:
        ValueError: unknown "model", or options that the model does not have or that exceed its limits; the message names them.
    """
    name = config.get("model") if isinstance(config, dict) else None
    if not isinstance(name, str) or name not in MODELS:
        raise ValueError(
            f"configuration {_short(config)} names model {_short(name)}; expected one of {sorted(MODELS)}, for example "
            "{model: d2a2-lite}"
        )
    options = {str(key): _plain(value, key) for key, value in config.items()}
    check_schema(options, _SCHEMAS[name], f"configuration {_short(config)} does not fit {name}")
    del options["model"]
    try:
        return MODELS[name](**options, backend=backend)
    except (TypeError, ZeroDivisionError) as error:
        raise ValueError(f"configuration {_short(config)} does not fit {name}: {error}") from error


def build_outline(config: dict[str, Any], backend: str = "auto") -> D2A2 | D2A2Lite | D2A2Pico:
    """As :func:`build_model`, on the device "meta": names and shapes of all tensors, without memory for them."""
    with torch.device("meta"), _WithoutValues():
        return build_model(config, backend)


class _WithoutValues(TorchFunctionMode):
    """Leaves out random initial values: on the device "meta" their operators would first load torch's compiler, for seconds."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (Tensor.normal_, Tensor.uniform_) or getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def _plain(value: Any, key: str) -> Any:
    """As JSON has it: lists for tuples, and whole numbers as int, since JSON does not tell 8.0 from 8."""
    many = isinstance(value, (list, tuple))
    entries = list(value[:9]) if many else [value]
    # Not left to the schema: YAML's references let a short text stand for lists of lists of any size.
    if len(entries) > 8 or not all(isinstance(entry, (str, int, float)) for entry in entries):
        raise ValueError(
            f"configuration entry {key} must be a number, a word, or a short list of numbers, got {_short(value)}"
        )
    entries = [int(e) if isinstance(e, float) and e.is_integer() else e for e in entries]
    return entries if many else entries[0]


def _short(value: Any) -> str:
    return _REPR.repr(value)
