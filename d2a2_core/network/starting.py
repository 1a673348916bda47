"""Starting a compact network from weights of nearly the same configuration: what only one of the two has is adapted."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2a2_core.network.variants import D2A2Lite


def adapted_state(start: nn.Module, model: nn.Module) -> dict[str, Tensor]:
    """The state of ``start`` as one of ``model``, by the functions below; of other networks than compact ones as it is."""
    state = start.state_dict()
    if not (isinstance(start, D2A2Lite) and isinstance(model, D2A2Lite)):
        return state
    old, new = start.config, model.config
    if new["trust"] and not old["trust"]:
        state = with_trust(state, model)
    if new["reach"] and not old["reach"]:
        state = with_reach(state, model)
    if old["geometric"] and not new["geometric"]:
        state = without_geometric(state, model)
    return state


def with_trust(state: dict[str, Tensor], model: D2A2Lite) -> dict[str, Tensor]:
    """The state of a model without the input ``trust`` as one of ``model``, which has it: it begins without effect on features.

    Only in :class:`JointUpsampling` doubtful values count less from the start.
    """
    widened = dict(state)
    for key, value in model.state_dict().items():
        old = state.get(key)
        if old is None:
            widened[key] = value.clone()
        elif old.dim() == 4 and old.shape[1] + 1 == value.shape[1]:  # trust comes last among the inputs
            widened[key] = F.pad(old, (0, 0, 0, 0, 0, 1))
    return widened


def with_reach(state: dict[str, Tensor], model: D2A2Lite) -> dict[str, Tensor]:
    """The state of a model with unbounded deformable convolutions, or without any, as one of ``model``, whose are bounded.

    Alignment begins anew, with no effect but the bias that it had: its weights are ``model``'s, its last ones zero.
    """
    fresh = dict(state)
    for key, value in model.state_dict().items():
        if ".dda." in key and not (key.endswith(".deform.bias") and key in state):
            fresh[key] = torch.zeros_like(value) if key.endswith(".deform.weight") else value.clone()
    return fresh


def without_geometric(state: dict[str, Tensor], model: D2A2Lite) -> dict[str, Tensor]:
    """The state of a model whose deformable convolutions give nothing but their bias as one of ``model``, which has none.

    What the bias did goes into the biases of the convolutions after it (but for the outermost pixels, where their padding ended
    it). The domain alignment, which only they used, begins anew, and without effect.
    """
    out = {key: value.clone() for key, value in state.items() if ".dda." not in key}
    out |= {key: value.clone() for key, value in model.state_dict().items() if ".dda." in key}
    for i in range(len(model.stages)):
        constant = state[f"stages.{i}.dda.geometric.deform.bias"]
        aligned = slice(len(constant), 2 * len(constant))  # among the inputs of both: depth, aligned guide, ...
        for name in (f"stages.{i}.mfa.fuse", f"stages.{i}.merge.0"):
            weight = out[f"{name}.weight"]
            out[f"{name}.bias"] += torch.einsum("ochw,c->o", weight[:, aligned], constant)
            weight[:, aligned] = 0
    return out
