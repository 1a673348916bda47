"""The compact variant of D2A2 for CPUs and small boards, and building any model from its configuration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2a2_core.network.d2a2 import (
    SCALES,
    FusionStage,
    ResidualBlock,
    ShallowDepthFeatures,
    check_inputs,
    conv3x3,
)
from d2a2_core.network.deformable import ModulatedDeformConv, deform_conv2d
from d2a2_core.network.joint_upsampling import JointUpsampling


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


# Of the guide's ReLUs below zero. With plain ones and Adam the guide's branch dies in the first steps of training: all its
# weights move together while the depth features are still useless, no unit is positive again, and colour is lost for good.
_SLOPE = 0.1


_LARGEST_LOGIT = 4.0  # of a mask: it stays within 0.018 and 0.982


def _act() -> nn.LeakyReLU:
    return nn.LeakyReLU(_SLOPE)


def _start_at_zero(conv: nn.Conv2d) -> None:
    """Lets a branch begin without effect on what it is added to."""
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)


def _evenly_exposed(guide: Tensor) -> Tensor:
    """Guide (B, 3, H, W) with the mean of each channel at 0 and the contrast of a well exposed image, amplified 4 times at most.

    A dark image says as much about edges as a bright one. And were the input not centred, a common step of all weights would
    drive every feature the same way.
    """
    centred = guide - guide.mean(dim=(2, 3), keepdim=True)
    return centred * (0.25 / centred.square().mean(dim=(1, 2, 3), keepdim=True).sqrt().clamp(min=0.0625))


class LeakyBlock(ResidualBlock):
    """x + Conv(LReLU(Conv(x)))."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return x + self.conv2(F.leaky_relu(self.conv1(x), _SLOPE))


class BoundedDeformConv(ModulatedDeformConv):
    """A deformable convolution that training can bring back from wherever it has gone.

    Unbounded ones were lost: offsets had grown until all samples lay outside the image, masks had shrunk to 1e-38, and no
    gradient came through them any more. (What did come was so small that a CPU took three times as long for a step.)

    Args:
        channels, groups, backend: as :class:`ModulatedDeformConv`'s.
        reach: limit of the offsets, in pixels of the features.
    """

    def __init__(self, channels: int, groups: int, reach: float, backend: str = "auto") -> None:
        super().__init__(channels, groups, backend)
        self.reach = reach

    def forward(self, x: Tensor, offset_features: Tensor) -> Tensor:
        """``x``, ``offset_features``: (B, C, H, W). Returns (B, C, H, W)."""
        prediction = self.predict(offset_features).float()  # positions are not for half precision
        offset, logits = prediction.split((18 * self.groups, 9 * self.groups), dim=1)
        offset, logits = _limited(offset, self.reach), _limited(logits, _LARGEST_LOGIT)
        return deform_conv2d(x, offset, torch.sigmoid(logits), self.weight, self.bias, self.backend)


def _limited(x: Tensor, limit: float) -> Tensor:
    """x within (-limit, limit), with a slope of 1 at 0 that falls as 1 / x^2: a tanh's is soon none at all."""
    return x / (1 + x.abs() / limit)


class Context(nn.Module):
    """What is around: a small U-Net at half and a quarter of the features' resolution, whose result is added to them.

    At x8 and x16 one LR pixel covers a large part of what 3x3 convolutions at one resolution see.

    Args:
        channels: of the features.
        widths: channels at half and at a quarter of the resolution.
    """

    def __init__(self, channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        half, quarter = widths
        self.down1 = nn.Sequential(nn.Conv2d(channels, half, 3, stride=2, padding=1), _act(), LeakyBlock(half))
        self.down2 = nn.Sequential(nn.Conv2d(half, quarter, 3, stride=2, padding=1), _act())
        self.deepest = nn.Sequential(LeakyBlock(quarter), LeakyBlock(quarter))
        self.up2 = nn.Sequential(nn.Conv2d(quarter, 4 * half, 1), nn.PixelShuffle(2))
        self.merge = LeakyBlock(half)
        self.up1 = nn.Sequential(_act(), nn.Conv2d(half, 4 * channels, 1), nn.PixelShuffle(2))
        _start_at_zero(self.up1[1])

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W), of any size."""
        half = self.down1(x)
        around = self.up2(self.deepest(self.down2(half)))
        half = self.merge(half + around[..., : half.shape[2], : half.shape[3]])  # odd sizes come back one larger
        return x + self.up1(half)[..., : x.shape[2], : x.shape[3]]


class GuidedStage(FusionStage):
    """DDA + MFA, a residual block, and a way for the guide around MFA; then context.

    MFA alone only weights the depth features, by numbers in (0, 1): little of the guide gets through three of them in a row,
    and next to no gradient gets back to it.

    Args:
        channels, groups, backend: as :class:`FusionStage`'s.
        scales: number of scales.
        extra: channels of further inputs.
        context: widths of the :class:`Context`; empty for none.
        geometric: whether there is a deformable convolution.
        reach: of :class:`BoundedDeformConv`; 0 for the paper's deformable convolution.
    """

    def __init__(
        self,
        channels: int,
        groups: int,
        scales: int,
        extra: int,
        context: Sequence[int] = (),
        geometric: bool = True,
        reach: float = 0.0,
        backend: str = "auto",
    ) -> None:
        super().__init__(channels, groups, geometric=geometric, backend=backend)
        if reach:
            self.dda.geometric.deform = BoundedDeformConv(channels, groups, reach, backend)
        self.mfa.gate.norm = PerScaleBatchNorm(channels, scales)
        self.refine = ResidualBlock(channels)
        self.merge = nn.Sequential(conv3x3(3 * channels + extra, channels), _act(), conv3x3(channels, channels))
        self.context = Context(channels, context) if context else nn.Identity()
        _start_at_zero(self.merge[2])

    def forward(self, guide: Tensor, depth: Tensor, extra: Tensor) -> Tensor:
        """Guide level R, depth features F, both (B, C, H, W), and further inputs (B, E, H, W). Returns the new F."""
        guide = F.leaky_relu(self.head(guide), 0.2)
        aligned = self.dda(guide, depth)
        depth = self.refine(self.mfa(depth, aligned))
        return self.context(depth + self.merge(torch.cat((depth, aligned, guide, extra), dim=1)))


class D2A2Lite(nn.Module):
    """D2A2 with every convolution at a quarter of the resolution, for any of the scales 4, 8, 16 with one set of weights.

    The guide enters by space-to-depth (no colour is lost) and by :class:`JointUpsampling`; three stages of DDA + MFA follow
    (:class:`GuidedStage`), and PixelShuffle(4) gives the full resolution, added to the bicubic enlargement as in D2A2.

    Args:
        scales: the scales it is trained for, ascending.
        channels: C of all features.
        blocks: residual blocks of the shallow depth features.
        groups: offset groups of the deformable convolutions.
        context: channels of each stage's :class:`Context` at 1/8 and 1/16 of the resolution; empty for none.
        detail: channels of the last layers' second look at the pixels of guide and depth.
        heads: depth maps made by :class:`JointUpsampling`.
        trust: whether a third input tells what each LR value is worth, see :func:`d2a2_core.depth.measurement_trust`.
        back_projections: times that what the bicubic reduction of the result lacks of the input is added to it (Irani and
            Peleg, "Improving resolution by image registration", 1991). For inputs that are such a reduction, without
            noise; 0 for a sensor's.
        geometric: whether there are deformable convolutions. Without them the guide is aligned in its statistics alone, in
            three fifths of the time.
        reach: limit of the deformable convolutions' offsets, in pixels of the features (4 of the guide each); 0 for none, as in
            the paper: they get lost in training then (:class:`BoundedDeformConv`).
        backend: of the deformable convolution, see :mod:`d2a2_core.network.deformable`.
    """

    # See D2A2's. With the last stage's merge in int8 flat surfaces get ripples: on a real recording normals were 19.0 degrees
    # off instead of 17.2 (16.6 in float32), in 7 % less time.
    exact = ("joint.colour", "tail", "detail", "predict", "stages.2.merge")

    def __init__(
        self,
        scales: Sequence[int] = SCALES,
        channels: int = 48,
        blocks: int = 4,
        groups: int = 8,
        context: Sequence[int] = (64, 96),
        detail: int = 64,
        heads: int = 2,
        back_projections: int = 0,
        trust: bool = False,
        geometric: bool = True,
        reach: float = 0.0,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        if not scales or any(scale not in SCALES for scale in scales):
            raise ValueError(f"scales must be some of {SCALES}, got {tuple(scales)}")
        if reach < 0 or (reach and not geometric):
            raise ValueError(
                f"reach {reach} bounds the deformable convolutions; leave it out, or set geometric to true"
            )
        self.scales = tuple(sorted(scales))
        self.config: dict[str, Any] = {
            "model": "d2a2-lite", "scales": list(self.scales), "channels": channels, "blocks": blocks, "groups": groups,
            "context": list(context), "detail": detail, "heads": heads, "back_projections": back_projections,
            "trust": trust, "geometric": geometric, "reach": reach,
        }  # fmt: skip
        self.takes_trust = trust
        self.back_projections = back_projections
        self.guide_head = nn.Sequential(
            nn.PixelUnshuffle(4), conv3x3(48, channels), _act(), conv3x3(channels, channels)
        )
        self.guide_levels = nn.ModuleList(
            nn.Sequential(_act(), conv3x3(channels, channels)) for _ in range(2)
        )  # each stage sees the guide one convolution deeper
        self.joint = JointUpsampling(heads, trust=trust)
        self.shallow = ShallowDepthFeatures(channels, blocks)
        extra = 16 * heads + trust
        self.stages = nn.ModuleList(
            GuidedStage(channels, groups, len(self.scales), extra, context, geometric, reach, backend) for _ in range(3)
        )
        self.tail = nn.Sequential(conv3x3(channels, channels), nn.LeakyReLU(0.2), conv3x3(channels, 16))
        self.detail = nn.Sequential(
            conv3x3(channels + 48 + 16 + extra, detail),
            _act(),
            conv3x3(detail, detail),
            _act(),
            conv3x3(detail, 16),
        )
        guided = (self.guide_head[1], self.guide_head[3], *(level[1] for level in self.guide_levels))
        for conv in (*guided, *(stage.head for stage in self.stages), self.detail[0], self.detail[2]):
            nn.init.kaiming_normal_(conv.weight, a=_SLOPE)
        _start_at_zero(self.detail[4])

    def forward(self, guide: Tensor, lr: Tensor, trust: Tensor | None = None) -> Tensor:
        """As :meth:`D2A2.forward`: guide (B, 3, H, W) in [0, 1], lr (B, 1, H/s, W/s) in [0, 1] -> (B, 1, H, W).

        ``trust``, of the size of ``lr`` and in [0, 1], is for models that take it; default is 1 everywhere.

        Raises:
            ValueError: sizes that do not fit together, or trust for a model that takes none.
        """
        scale = check_inputs(guide, lr, self.scales)
        if trust is not None and (not self.takes_trust or trust.shape != lr.shape):
            what = f"of the size of lr {tuple(lr.shape)}" if self.takes_trust else "None, as this model takes none"
            raise ValueError(f"expected trust {what}, got one of {tuple(trust.shape)}")
        measured = lr
        for stage in self.stages:
            stage.mfa.gate.norm.index = self.scales.index(scale)
        guide = _evenly_exposed(guide)
        joint = self.joint(guide, lr, trust)
        if scale > 4:
            lr = F.interpolate(lr, scale_factor=scale // 4, mode="bicubic", align_corners=False)
        plain = F.interpolate(lr, scale_factor=4, mode="bicubic", align_corners=False)
        sides = F.pixel_unshuffle(4 * (joint - plain), 4)  # per 4x4 block, at the features' resolution
        if self.takes_trust:
            doubt = 1 - (torch.ones_like(measured) if trust is None else trust)
            sides = torch.cat((sides, F.interpolate(doubt, scale_factor=scale // 4, mode="nearest")), dim=1)
        level = self.guide_head(guide)
        depth = self.shallow(lr)
        for i, stage in enumerate(self.stages):
            if i:
                level = self.guide_levels[i - 1](level)
            depth = stage(level, depth, sides.to(depth.dtype))
        shape = plain - F.interpolate(lr, scale_factor=4, mode="nearest")  # of depth in a block, whatever its level
        near = (F.pixel_unshuffle(guide, 4), F.pixel_unshuffle(4 * shape, 4), sides)
        pixels = torch.cat((depth, *(x.to(depth.dtype) for x in near)), dim=1)
        hr = F.pixel_shuffle(self.tail(depth) + self.detail(pixels), 4) + plain
        for _ in range(self.back_projections):
            hr = back_project_residual(hr, measured)
        return hr


def back_project_residual(hr: Tensor, lr: Tensor) -> Tensor:
    """hr (B, 1, H, W) plus the bicubic enlargement of what its antialiased bicubic reduction lacks of lr (B, 1, h, w)."""
    hr, lr = hr.float(), lr.float()
    reduced = F.interpolate(hr, size=lr.shape[-2:], mode="bicubic", antialias=True, align_corners=False)
    return hr + F.interpolate(lr - reduced, size=hr.shape[-2:], mode="bicubic", align_corners=False)
