"""Sums of weights: means of a run's stages, and what one family has learnt added to another."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from d2a2_core.network import D2A2, D2A2Lite, D2A2Pico
from d2a2_core.weights.files import WeightsError, load_weights, read_info, save_weights
from d2a2_core.weights.zoo import resolve_weights

_MIN_VARIANCE = 1e-4  # of BatchNorm's running variances in mixed weights


def mix_weights(parts: Sequence[tuple[str | Path, float]]) -> D2A2 | D2A2Lite | D2A2Pico:
    """The sum of weights times factors, tensor by tensor, as a model of the first one's configuration.

    The mean of two stages of a run is often better than either (Izmailov et al., "Averaging weights leads to wider optima and
    better generalization", 2018). What one family has learnt since they parted can be added to another: other + new - old
    (Ilharco et al., "Editing models with task arithmetic", 2023).

    Args:
        parts: shipped name or path, and factor, of each; the factors' sum is 1.

    Raises:
        WeightsError: fewer than two parts, factors that do not sum to 1, or weights of different shapes.
    """
    if len(parts) < 2 or not abs(sum(factor for _, factor in parts) - 1) <= 1e-6:  # NaN is neither
        raise WeightsError(
            f"expected at least two weights with factors whose sum is 1, got {[(str(p), f) for p, f in parts]}"
        )
    models = [load_weights(resolve_weights(path)) for path, _ in parts]
    states = [model.state_dict() for model in models]
    shapes = [{key: value.shape for key, value in state.items()} for state in states]
    for (path, _), other in zip(parts, shapes, strict=True):
        if other != shapes[0]:
            raise WeightsError(
                f"{path} and {parts[0][0]} have no common network: their tensors differ in name or shape"
            )
    mixed = dict(states[0])
    for key, first in states[0].items():
        if first.is_floating_point():
            mixed[key] = sum(factor * state[key] for (_, factor), state in zip(parts, states, strict=True))
            if key.endswith("running_var"):  # a difference may leave none, and the network divides by it
                mixed[key].clamp_(min=_MIN_VARIANCE)
    models[0].load_state_dict(mixed)
    return models[0]


def save_mixed(target: str | Path, parts: Sequence[tuple[str | Path, float]]) -> None:
    """Writes what :func:`mix_weights` makes; each part's name, factor and card are on the new file's card, and all their credits.

    Raises:
        WeightsError: as :func:`mix_weights`; or ``target`` exists.
    """
    if os.path.lexists(target):
        raise WeightsError(f"{target} exists; name a new file, or remove it first")
    mixed: list[dict[str, Any]] = [
        {"file": str(path), "factor": f, "card": read_info(resolve_weights(path)).card} for path, f in parts
    ]
    credits = _all_credits([part["card"] for part in mixed])
    save_weights(target, mix_weights(parts), ({"credits": credits} if credits else {}) | {"mixed": mixed})


def _all_credits(cards: Sequence[dict[str, Any]]) -> dict[str, dict[str, list[str]]]:
    """Licence -> author -> models, of all cards' ``credits``."""
    joined: dict[str, dict[str, set[str]]] = {}
    for card in cards:
        for licence, by in card.get("credits", {}).items():
            for author, models in by.items():
                joined.setdefault(licence, {}).setdefault(author, set()).update(models)
    return {licence: {author: sorted(models) for author, models in by.items()} for licence, by in joined.items()}
