"""Builds a model from its configuration."""

from __future__ import annotations

from typing import Any

from d2a2_core.network.d2a2 import D2A2
from d2a2_core.network.lite import D2A2Lite

MODELS = {"d2a2": D2A2, "d2a2-lite": D2A2Lite}


def build_model(config: dict[str, Any], backend: str = "auto") -> D2A2 | D2A2Lite:
    """Builds a model from a ``config`` as the models themselves carry it.

    Raises:
        ValueError: unknown "model", or options that the model does not have.
    """
    options = dict(config)
    name = options.pop("model", None)
    if name not in MODELS:
        raise ValueError(f"configuration names model {name!r}; known are {sorted(MODELS)}")
    try:
        return MODELS[name](**options, backend=backend)
    except TypeError as error:
        raise ValueError(f"configuration {config} does not fit {name}: {error}") from error
