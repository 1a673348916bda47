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


class Context(nn.Module):
    """What is around: a small U-Net at half and a quarter of the features' resolution, whose result is added to them.

    At x8 and x16 one LR pixel covers a large part of what 3x3 convolutions at one resolution see. The last layer starts at
    zero, so that the block is the identity at first.

    Args:
        channels: of the features.
        widths: channels at half and at a quarter of the resolution.
    """

    def __init__(self, channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        half, quarter = widths
        self.down1 = nn.Sequential(nn.Conv2d(channels, half, 3, stride=2, padding=1), nn.ReLU(), ResidualBlock(half))
        self.down2 = nn.Sequential(nn.Conv2d(half, quarter, 3, stride=2, padding=1), nn.ReLU())
        self.deepest = nn.Sequential(ResidualBlock(quarter), ResidualBlock(quarter))
        self.up2 = nn.Sequential(nn.Conv2d(quarter, 4 * half, 1), nn.PixelShuffle(2))
        self.merge = ResidualBlock(half)
        self.up1 = nn.Sequential(nn.ReLU(), nn.Conv2d(half, 4 * channels, 1), nn.PixelShuffle(2))
        nn.init.zeros_(self.up1[1].weight)
        nn.init.zeros_(self.up1[1].bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W), of any size."""
        half = self.down1(x)
        around = self.up2(self.deepest(self.down2(half)))
        half = self.merge(half + around[..., : half.shape[2], : half.shape[3]])  # odd sizes come back one larger
        return x + self.up1(half)[..., : x.shape[2], : x.shape[3]]


class Detail(nn.Module):
    """A second look at the guide's pixels: corrects each 4x4 block of the result where an edge runs through it.

    The stages only weight depth features by what they see in the guide; here the guide's own pixels and those of the
    enlarged depth come in. Starts at zero.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv3x3(channels + 48 + 16, width), nn.ReLU(), conv3x3(width, width), nn.ReLU(), conv3x3(width, 16)
        )
        nn.init.zeros_(self.body[-1].weight)
        nn.init.zeros_(self.body[-1].bias)

    def forward(self, depth: Tensor, guide: Tensor, plain: Tensor) -> Tensor:
        """Features (B, C, h, w), guide (B, 3, 4h, 4w) and enlarged depth (B, 1, 4h, 4w) -> (B, 1, 4h, 4w) to be added."""
        pixels = (F.pixel_unshuffle(guide, 4).to(depth.dtype), F.pixel_unshuffle(plain, 4).to(depth.dtype))
        return F.pixel_shuffle(self.body(torch.cat((depth, *pixels), dim=1)), 4)


class D2A2Lite(nn.Module):
    """D2A2 with every convolution at a quarter of the resolution, for any of the scales 4, 8, 16 with one set of weights.

    The guide enters by space-to-depth (no colour is lost), three stages of DDA + MFA follow, each refined by a residual
    block, and PixelShuffle(4) gives the full resolution, added to the bicubic enlargement as in D2A2.

    Args:
        scales: the scales it is trained for, ascending.
        channels: C of all features.
        blocks: residual blocks of the shallow depth features.
        groups: offset groups of the deformable convolutions.
        context: channels of a :class:`Context` after each stage at 1/8 and 1/16 of the resolution; empty for none.
        detail: channels of a :class:`Detail` beside the last layers; 0 for none.
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
        context: Sequence[int] = (),
        detail: int = 0,
        back_projections: int = 0,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        if not scales or any(scale not in SCALES for scale in scales):
            raise ValueError(f"scales must be some of {SCALES}, got {tuple(scales)}")
        self.scales = tuple(sorted(scales))
        self.config: dict[str, Any] = {
            "model": "d2a2-lite", "scales": list(self.scales), "channels": channels, "blocks": blocks, "groups": groups,
            "context": list(context), "detail": detail, "back_projections": back_projections,
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
        self.context = nn.ModuleList(Context(channels, context) for _ in self.stages) if context else None
        self.tail = nn.Sequential(
            conv3x3(channels, channels), nn.LeakyReLU(0.2), conv3x3(channels, 16), nn.PixelShuffle(4)
        )
        self.detail = Detail(channels, detail) if detail else None

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
            if self.context is not None:
                depth = self.context[i](depth)
        plain = F.interpolate(lr, scale_factor=4, mode="bicubic", align_corners=False)
        hr = self.tail(depth) + plain
        if self.detail is not None:
            hr = hr + self.detail(depth, guide, plain)
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
