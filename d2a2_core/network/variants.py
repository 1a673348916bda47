"""The compact variant of D2A2 for CPUs and small boards, and building any model from its configuration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2a2_core.network.d2a2 import (
    D2A2,
    SCALES,
    FusionStage,
    ResidualBlock,
    ShallowDepthFeatures,
    check_inputs,
    conv3x3,
)


class PerScaleBatchNorm(nn.Module):
    """BatchNorm2d with running statistics of its own for every scale, and weight and bias for all of them.

    A batch holds one scale, and features differ in their statistics from scale to scale: running statistics over all of
    them would fit none (measured: Middlebury x16 at bicubic's level, where statistics of its own give a quarter less).
    ``index`` chooses the statistics; the model sets it at the start of each forward.
    """

    def __init__(self, channels: int, count: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(count, channels))
        self.register_buffer("running_var", torch.ones(count, channels))
        self.momentum = 0.1
        self.index = 0

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        mean, var = self.running_mean[self.index], self.running_var[self.index]
        return F.batch_norm(x, mean, var, self.weight, self.bias, self.training, self.momentum)


class D2A2Lite(nn.Module):
    """D2A2 with every convolution at a quarter of the resolution, for any of the scales 4, 8, 16 with one set of weights.

    The guide enters by space-to-depth (no colour is lost), three stages of DDA + MFA follow, each refined by a residual
    block, and PixelShuffle(4) gives the full resolution, added to the bicubic enlargement as in D2A2.

    Args:
        scales: the scales it is trained for, ascending.
        channels: C of all features.
        blocks: residual blocks of the shallow depth features.
        groups: offset groups of the deformable convolutions.
        back_projections: times that what the bicubic reduction of the result lacks of the input is added to it (Irani and
            Peleg, "Improving resolution by image registration", 1991). For inputs that are such a reduction, without
            noise; 0 for a sensor's.
        backend: of the deformable convolution, see :mod:`d2a2_core.network.deformable`.
    """

    def __init__(
        self,
        scales: Sequence[int] = SCALES,
        channels: int = 48,
        blocks: int = 4,
        groups: int = 8,
        back_projections: int = 0,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        if not scales or any(scale not in SCALES for scale in scales):
            raise ValueError(f"scales must be some of {SCALES}, got {tuple(scales)}")
        self.scales = tuple(sorted(scales))
        self.config: dict[str, Any] = {
            "model": "d2a2-lite", "scales": list(self.scales), "channels": channels, "blocks": blocks, "groups": groups,
            "back_projections": back_projections,
        }  # fmt: skip
        self.back_projections = back_projections
        self.guide_head = nn.Sequential(
            nn.PixelUnshuffle(4), conv3x3(48, channels), nn.ReLU(), conv3x3(channels, channels)
        )
        self.guide_levels = nn.ModuleList(
            nn.Sequential(nn.ReLU(), conv3x3(channels, channels)) for _ in range(2)
        )  # each stage sees the guide one convolution deeper
        self.shallow = ShallowDepthFeatures(channels, blocks)
        self.stages = nn.ModuleList(FusionStage(channels, groups, backend=backend) for _ in range(3))
        for stage in self.stages:
            stage.mfa.gate.norm = PerScaleBatchNorm(channels, len(self.scales))
        self.refine = nn.ModuleList(ResidualBlock(channels) for _ in range(3))
        self.tail = nn.Sequential(
            conv3x3(channels, channels), nn.LeakyReLU(0.2), conv3x3(channels, 16), nn.PixelShuffle(4)
        )

    def forward(self, guide: Tensor, lr: Tensor) -> Tensor:
        """As :meth:`D2A2.forward`: guide (B, 3, H, W) in [0, 1], lr (B, 1, H/s, W/s) in [0, 1] -> (B, 1, H, W)."""
        scale = check_inputs(guide, lr, self.scales)
        measured = lr
        for stage in self.stages:
            stage.mfa.gate.norm.index = self.scales.index(scale)
        if scale > 4:
            lr = F.interpolate(lr, scale_factor=scale // 4, mode="bicubic", align_corners=False)
        level = self.guide_head(guide)
        depth = self.shallow(lr)
        for i, (stage, refine) in enumerate(zip(self.stages, self.refine, strict=True)):
            if i:
                level = self.guide_levels[i - 1](level)
            depth = refine(stage(level, depth))
        hr = self.tail(depth) + F.interpolate(lr, scale_factor=4, mode="bicubic", align_corners=False)
        for _ in range(self.back_projections):
            hr = back_project_residual(hr, measured)
        return hr


def back_project_residual(hr: Tensor, lr: Tensor) -> Tensor:
    """hr (B, 1, H, W) plus the bicubic enlargement of what its antialiased bicubic reduction lacks of lr (B, 1, h, w)."""
    hr, lr = hr.float(), lr.float()
    reduced = F.interpolate(hr, size=lr.shape[-2:], mode="bicubic", antialias=True, align_corners=False)
    return hr + F.interpolate(lr - reduced, size=hr.shape[-2:], mode="bicubic", align_corners=False)


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
