"""Compact weights without the deformable convolutions that training turned off."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from d2a2_core.data.sampling import TrainingBatches, input_keys
from d2a2_core.data.scene_sources import ShapeScenes
from d2a2_core.network import D2A2Lite, build_model
from d2a2_core.network.warm_start import without_geometric
from d2a2_core.weights import WeightsError, load_weights, read_info, resolve_weights, save_weights
from d2a2_core.weights.sidecars import SIGMA

_LOST = 0.01  # of the error: results that change by less do not tell whether they are there


def save_pruned(target: str | Path, source: str | Path) -> float:
    """Writes compact weights whose deformable convolutions are lost as ones that have none: the same results, sooner.

    Lost are offsets of dozens of pixels and masks of zero, as training left them in our first compact weights. A sigma head
    beside the source goes along.

    Returns:
        How far the results differ on generated scenes: root mean square of the difference over that of the error.

    Raises:
        WeightsError: they have none, the results differ by more than a hundredth of the error, or ``target`` or a head beside it
            exists.
            beside it.
    """
    for path in (target, SIGMA.path(target)):
        if os.path.lexists(path):
            raise WeightsError(f"{path} exists; name a new file, or remove it first")
    model, info = load_weights(resolve_weights(source)).eval(), read_info(resolve_weights(source))
    if not (isinstance(model, D2A2Lite) and model.config["geometric"]):
        raise WeightsError(
            f"expected compact weights (d2a2-lite) with deformable convolutions, {source} is {model.config}"
        )
    pruned = build_model(model.config | {"geometric": False}).eval()
    pruned.load_state_dict(without_geometric(model.state_dict(), pruned))
    difference = error = 0.0
    for batch in (TrainingBatches(ShapeScenes(0), (scale,), 256, 2, 0)[0] for scale in model.scales):
        with torch.inference_mode():
            old, new = (m(*(batch[key] for key in input_keys(m))) for m in (model, pruned))
        difference += (new - old).square().mean().item()
        error += (old - batch["hr"]).square().mean().item()
    share = (difference / error) ** 0.5
    if not share <= _LOST:
        raise WeightsError(
            f"without deformable convolutions the results of {source} change by {100 * share:.1f} % of their error: they are "
            "in use. Train on without them: d2a2 train --init ... --model '{..., geometric: false}'"
        )
    save_weights(
        target, pruned, info.card | {"pruned": f"deformable convolutions, which were lost, from {Path(source).name}"}
    )
    SIGMA.copy(source, target)
    return share
