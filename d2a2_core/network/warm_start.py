"""Starting a compact network from weights of nearly the same configuration: what only one of the two has is adapted."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2a2_core.network.lite import D2A2Lite
from d2a2_core.network.pico import D2A2Pico

_WIDTHS = ("channels", "context", "detail")


def adapted_state(start: nn.Module, model: nn.Module) -> dict[str, Tensor]:
    """The state of ``start`` as one of ``model``, by the functions below; of other networks as it is.

    Raises:
        ValueError: a network that is narrower, or one that is wider and differs in more.
    """
    state = start.state_dict()
    if isinstance(start, D2A2Lite) and isinstance(model, D2A2Pico):
        return from_joint_upsampling(state, model)
    if not (isinstance(start, D2A2Lite) and isinstance(model, D2A2Lite)):
        return state
    old, new = start.config, model.config
    if new["trust"] and not old["trust"]:
        state = with_trust(state, model)
    if new["reach"] and not old["reach"]:
        state = with_reach(state, model)
    if old["geometric"] and not new["geometric"]:
        state = without_geometric(state, model)
    if not new["geometric"] and any(new[name] != old[name] for name in _WIDTHS):
        if len(new["context"]) != len(old["context"]) or any(
            new[name] != old[name] for name in ("scales", "blocks", "heads")
        ):
            raise ValueError(
                f"weights of {old} cannot start a network of {new}: only {', '.join(_WIDTHS)} may be larger"
            )
        state = with_width(state, model)
    return state


def from_joint_upsampling(state: dict[str, Tensor], model: D2A2Pico) -> dict[str, Tensor]:
    """The state of ``model`` with the embedding of a :class:`D2A2Lite`'s first head: it begins as that head alone.

    Raises:
        ValueError: an embedding of another width.
    """
    width = model.width
    fresh = {key: value.clone() for key, value in model.state_dict().items()}
    taken = {
        "embed.0.weight": state["joint.embed.0.weight"],
        "embed.0.bias": state["joint.embed.0.bias"],
        **{
            f"{layer}.{kind}": state[f"joint.{layer}.{kind}"][:width]
            for layer in ("embed.2", "colour")
            for kind in ("weight", "bias")
        },
        "log_radius": state["joint.log_radius"][0],
    }
    if model.takes_trust and "joint.doubt" in state:
        taken["doubt"] = state["joint.doubt"][0]
    for key, value in taken.items():
        if fresh[key].shape != value.shape:
            raise ValueError(
                f"{key} is {tuple(value.shape)} in the weights to start from, {tuple(fresh[key].shape)} in the model"
            )
    return fresh | {key: value.clone() for key, value in taken.items()}


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


def with_width(state: dict[str, Tensor], model: D2A2Lite) -> dict[str, Tensor]:
    """The state of a narrower model as one of ``model``, which has more channels: they begin without effect on the others.

    Source: Chen, Goodfellow, Shlens, "Net2Net: accelerating learning via knowledge transfer", ICLR 2016; there new channels are
    copies of old ones, here they are ``model``'s own, and what leads from them to the old ones is zero. Neither model may have
    deformable convolutions.

    Raises:
        ValueError: a model that is narrower somewhere.
    """
    old_channels = len(state["shallow.head.bias"])
    widened = {}
    for key, value in model.state_dict().items():
        old = state[key]
        if any(before > after for before, after in zip(old.shape, value.shape, strict=True)):
            raise ValueError(
                f"{key} is {tuple(old.shape)} in the weights to start from, {tuple(value.shape)} in the model"
            )
        if old.shape == value.shape:
            widened[key] = old
            continue
        widened[key] = value = value.clone()
        if value.dim() == 1:
            value[: len(old)] = old
            continue
        if key.endswith(("running_mean", "running_var")):
            value[:, : old.shape[1]] = old
            continue
        value[: len(old)] = 0
        for before, after in _inputs(key, old_channels, model.config["channels"], old.shape[1]):
            value[: len(old), after] = old[:, before]
    return widened


def _inputs(key: str, old: int, new: int, count: int) -> list[tuple[slice, slice]]:
    """Where a layer's ``count`` inputs are before and after features go from ``old`` to ``new`` channels; some are joined."""
    joined = {"mfa.fuse": 2, "mfa.attention.conv1": 2, "merge.0": 3, "detail.0": 1}
    times = next((n for name, n in joined.items() if key.removesuffix(".weight").endswith(name)), 0)
    parts = [(slice(i * old, (i + 1) * old), slice(i * new, i * new + old)) for i in range(times)]
    rest = count - times * old
    return [*parts, (slice(times * old, count), slice(times * new, times * new + rest))]
