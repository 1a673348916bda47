"""The checkpoints of the paper's authors (.pth): their names of the layers and ours, and their BGR guide."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor

from d2a2_core.network import D2A2, SCALES, build_outline
from d2a2_core.weights.files import WeightsError, check_shapes, checked_tensor

# The authors' names (left, a prefix of their keys) and ours. Order matters: the first prefix that fits is taken.
_STAGE_NAMES = {
    "LDA.calc_msl.std_mlp.mlp": "dda.domain.align.std_mlp",
    "LDA.calc_msl.mean_mlp.mlp": "dda.domain.align.mean_mlp",
    "conv_after_LDA": "dda.domain.conv",
    "conv_fuse1": "dda.geometric.offset_features.0",
    "get_offset": "dda.geometric.offset_features.2",
    "DCN.conv_offset_mask": "dda.geometric.deform.predict",
    "DCN": "dda.geometric.deform",
    "conv_fuse2": "mfa.fuse",
    "GC.conv2d": "mfa.gate.feature",
    "GC.mask_conv2d": "mfa.gate.gate",
    "GC.batch_norm2d": "mfa.gate.norm",
    "attention.mul_conv1": "mfa.attention.conv1",
    "attention.mul_conv2": "mfa.attention.conv2",
}
_OFFICIAL_NAMES = {
    "LTE.conv_head": "guide_pyramid.head",
    "LTE.slice1": "guide_pyramid.level1",
    "LTE.slice2": "guide_pyramid.level2",
    "LTE.slice3": "guide_pyramid.level3",
    "mainNet.SFE.conv_head": "shallow.head",
    "mainNet.SFE.RBs": "shallow.blocks",
    **{f"mainNet.conv{i}{i}_head": f"stage{i}.head" for i in (1, 2, 3)},
    **{f"mainNet.concat{i}.{k}": f"stage{i}.{v}" for i in (1, 2, 3) for k, v in _STAGE_NAMES.items()},
    "mainNet.upsampler12.conv": "up1.0",
    "mainNet.upsampler23.conv": "up2.0",
    "mainNet.conv_tail1": "tail1",
    "mainNet.conv_tail2": "tail2",
}
_GUIDE_HEAD = "guide_pyramid.head.0.weight"


def load_official_checkpoint(path: str | Path, scale: int, backend: str = "auto") -> D2A2:
    """Loads a checkpoint of the paper's authors (.pth) into our D2A2, in eval mode on the CPU.

    Their network is fed BGR; the channels of its first convolution are swapped here, so that the model takes RGB.

    Args:
        path: a state dict in the authors' names, with or without DataParallel's ``module.`` prefix.
        scale: 4, 8 or 16; their files do not say it.

    Raises:
        WeightsError: missing or damaged file, or keys and shapes that are not the authors'.
    """
    try:
        check_archive(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise WeightsError(f"no checkpoint at {path}") from error
    except UnpicklingError as error:
        # Without torch's own text: it advises to switch off what keeps a file from running code.
        raise WeightsError(
            f"{path} cannot be read as a checkpoint of tensors: it is none, or holds more than tensors, which may be code and is "
            "never loaded; expected what torch.save(model.state_dict(), path) wrote"
        ) from error
    except Exception as error:  # torch.load raises a different type for each kind of damage
        raise WeightsError(f"{path} cannot be read as a checkpoint of tensors: {error}") from error
    if not isinstance(state, dict) or not all(_is_plain(k, v) for k, v in state.items()):
        raise WeightsError(f"{path} does not hold a state dict (a dict of tensors)")
    # A tensor may claim to be larger than what is stored for it.
    if sum(value.nbytes for value in state.values()) > Path(path).stat().st_size:
        raise WeightsError(f"{path} holds fewer bytes than its tensors claim; get it again")
    state = {_rename(key.removeprefix("module."), _OFFICIAL_NAMES): value for key, value in state.items()}
    if _GUIDE_HEAD not in state or state[_GUIDE_HEAD].dim() != 4:
        raise WeightsError(f"{path} lacks LTE.conv_head.0.weight: it is not a D2A2 checkpoint")
    if scale not in SCALES:
        raise ValueError(f"scale must be one of {SCALES}, got {scale}")
    blocks = sum(key.startswith("shallow.blocks") and key.endswith("conv1.weight") for key in state)
    config = {"model": "d2a2", "scale": scale, "channels": state[_GUIDE_HEAD].shape[0], "blocks": blocks}
    try:
        model = build_outline(config, backend)
        assert isinstance(model, D2A2)
        expected = model.state_dict()
        check_shapes({key: tuple(value.shape) for key, value in state.items()}, expected)
    except ValueError as error:
        raise WeightsError(f"{path} does not fit D2A2: {error}") from error
    state = {key: checked_tensor(state[key], key, like, path) for key, like in expected.items()}
    model.load_state_dict(_swap_guide_channels(state), assign=True)
    return model.eval()


def _is_plain(key: object, value: object) -> bool:
    """Whether an entry is a name and a tensor of numbers in memory: not sparse, quantised, or without its data."""
    return (
        isinstance(key, str)
        and isinstance(value, Tensor)
        and (value.layout, value.device.type) == (torch.strided, "cpu")
        and not value.is_quantized
    )


def from_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Renames the authors' keys to ours and turns the guide from BGR to RGB. Unknown keys keep their names."""
    renamed = {_rename(key.removeprefix("module."), _OFFICIAL_NAMES): value for key, value in state.items()}
    return _swap_guide_channels(renamed)


def to_official(state: dict[str, Tensor], prefix: str = "module.") -> dict[str, Tensor]:
    """The inverse of :func:`from_official`: a state dict that the authors' own scripts load (BGR guide)."""
    ours = {v: k for k, v in _OFFICIAL_NAMES.items()}
    return {prefix + _rename(key, ours): value for key, value in _swap_guide_channels(state).items()}


def check_archive(path: str | Path) -> None:
    """Raises ValueError where a file of torch.save holds compressed parts, which torch does not write: they may be enormous."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if sum(part.file_size for part in archive.infolist()) > Path(path).stat().st_size:
                raise ValueError("it is compressed, or damaged")


def _rename(key: str, names: dict[str, str]) -> str:
    for old, new in names.items():
        if re.match(re.escape(old) + r"(\.|$)", key):
            return new + key[len(old) :]
    return key


def _swap_guide_channels(state: dict[str, Tensor]) -> dict[str, Tensor]:
    state = dict(state)
    if _GUIDE_HEAD in state:
        state[_GUIDE_HEAD] = state[_GUIDE_HEAD].flip(1)
    return state
