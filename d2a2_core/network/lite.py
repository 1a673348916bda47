"""The compact variant of D2A2 for CPUs and small boards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2a2_core.network.aggregation import MaskToPixelAggregation
from d2a2_core.network.alignment import DynamicDualAlignment
from d2a2_core.network.blocks import (
    SLOPE,
    Context,
    PerScaleBatchNorm,
    back_project_residual,
    evenly_exposed,
    leaky,
    start_at_zero,
)
from d2a2_core.network.d2a2 import SCALES, ResidualBlock, ShallowDepthFeatures, check_inputs, check_trust, conv3x3
from d2a2_core.network.deformable import BoundedDeformConv, ModulatedDeformConv
from d2a2_core.network.joint_upsampling import JointUpsampling


class GuidedStage(nn.Module):
    """DDA + MFA, a residual block, and a way for the guide around MFA; then context.

    MFA alone only weights the depth features, by numbers in (0, 1): little of the guide gets through three of them in a row,
    and next to no gradient gets back to it.

    Args:
        channels: C, of guide and depth features.
        scales: number of scales.
        extra: channels of further inputs.
        context: widths of the :class:`Context`; empty for none.
        deform: makes the deformable convolution for C channels; None for a stage without.
    """

    def __init__(
        self,
        channels: int,
        scales: int,
        extra: int,
        context: Sequence[int] = (),
        deform: Callable[[int], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.head = conv3x3(channels, channels)
        self.dda = DynamicDualAlignment(channels, deform)
        self.mfa = MaskToPixelAggregation(channels, norm=partial(PerScaleBatchNorm, count=scales))
        self.refine = ResidualBlock(channels)
        self.merge = nn.Sequential(conv3x3(3 * channels + extra, channels), leaky(), conv3x3(channels, channels))
        self.context = Context(channels, context) if context else nn.Identity()
        start_at_zero(self.merge[2])

    def forward(self, guide: Tensor, depth: Tensor, extra: Tensor, scale_index: int) -> Tensor:
        """Guide level R, depth features F, both (B, C, H, W), and further inputs (B, E, H, W). Returns the new F.

        ``scale_index`` is the position of the scale among the model's, whose statistics normalise.
        """
        guide = F.leaky_relu(self.head(guide), 0.2)
        aligned = self.dda(guide, depth)
        depth = self.refine(self.mfa(depth, aligned, scale_index))
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
        if len(context) not in (0, 2):
            raise ValueError(f"context must be two widths, or empty, got {context!r}")
        if not reach >= 0 or (reach and not geometric):
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
            nn.PixelUnshuffle(4), conv3x3(48, channels), leaky(), conv3x3(channels, channels)
        )
        self.guide_levels = nn.ModuleList(
            nn.Sequential(leaky(), conv3x3(channels, channels)) for _ in range(2)
        )  # each stage sees the guide one convolution deeper
        self.joint = JointUpsampling(heads, trust=trust)
        self.shallow = ShallowDepthFeatures(channels, blocks)
        extra = 16 * heads + trust
        deform = partial(ModulatedDeformConv, groups=groups, backend=backend) if geometric else None
        if reach:
            deform = partial(BoundedDeformConv, groups=groups, reach=reach, backend=backend)
        self.stages = nn.ModuleList(GuidedStage(channels, len(self.scales), extra, context, deform) for _ in range(3))
        self.tail = nn.Sequential(conv3x3(channels, channels), nn.LeakyReLU(0.2), conv3x3(channels, 16))
        self.detail = nn.Sequential(
            conv3x3(channels + 48 + 16 + extra, detail),
            leaky(),
            conv3x3(detail, detail),
            leaky(),
            conv3x3(detail, 16),
        )
        guided = (self.guide_head[1], self.guide_head[3], *(level[1] for level in self.guide_levels))
        for conv in (*guided, *(stage.head for stage in self.stages), self.detail[0], self.detail[2]):
            nn.init.kaiming_normal_(conv.weight, a=SLOPE)
        start_at_zero(self.detail[4])

    def forward(self, guide: Tensor, lr: Tensor, trust: Tensor | None = None) -> Tensor:
        """As :meth:`D2A2.forward`: guide (B, 3, H, W) in [0, 1], lr (B, 1, H/s, W/s) in [0, 1] -> (B, 1, H, W).

        ``trust``, of the size of ``lr`` and in [0, 1], is for models that take it; default is 1 everywhere.

        Raises:
            ValueError: sizes that do not fit together, or trust for a model that takes none.
        """
        scale = check_inputs(guide, lr, self.scales)
        check_trust(trust, lr, self.takes_trust)
        measured = lr
        guide = evenly_exposed(guide)
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
            depth = stage(level, depth, sides.to(depth.dtype), self.scales.index(scale))
        shape = plain - F.interpolate(lr, scale_factor=4, mode="nearest")  # of depth in a block, whatever its level
        near = (F.pixel_unshuffle(guide, 4), F.pixel_unshuffle(4 * shape, 4), sides)
        pixels = torch.cat((depth, *(x.to(depth.dtype) for x in near)), dim=1)
        hr = F.pixel_shuffle(self.tail(depth) + self.detail(pixels), 4) + plain
        for _ in range(self.back_projections):
            hr = back_project_residual(hr, measured)
        return hr
