"""D2A2, the network of arXiv 2401.08123, assembled: guide pyramid, three stages of DDA + MFA, bicubic skip."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from d2a2_core.network.aggregation import MaskToPixelAggregation
from d2a2_core.network.alignment import DynamicDualAlignment
from d2a2_core.network.deformable import ModulatedDeformConv

SCALES = (4, 8, 16)


def conv3x3(inputs: int, outputs: int) -> nn.Conv2d:
    """3x3 convolution, stride 1, padding 1, with bias."""
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def check_inputs(guide: Tensor, lr: Tensor, scales: tuple[int, ...]) -> int:
    """Checks guide (B, 3, H, W) against lr (B, 1, H/s, W/s) and returns s.

    Raises:
        ValueError: wrong number of dimensions or channels, sizes that do not fit together, or H, W not multiples of 4.
    """
    if guide.dim() != 4 or guide.shape[1] != 3 or lr.dim() != 4 or lr.shape[1] != 1 or len(guide) != len(lr):
        raise ValueError(
            f"expected guide (B, 3, H, W) and lr (B, 1, H/s, W/s), got {tuple(guide.shape)} and {tuple(lr.shape)}"
        )
    for scale in scales:
        if (lr.shape[2] * scale, lr.shape[3] * scale) == tuple(guide.shape[2:]):
            return scale
    raise ValueError(
        f"guide {tuple(guide.shape[2:])} is not {' or '.join(map(str, scales))} times lr {tuple(lr.shape[2:])}; "
        "DepthUpsampler brings any pair of sizes onto such a grid"
    )


def check_trust(trust: Tensor | None, lr: Tensor, taken: bool) -> None:
    """Raises ValueError for trust that does not fit ``lr``, or for a model that takes none."""
    if trust is not None and (not taken or trust.shape != lr.shape):
        what = f"of the size of lr {tuple(lr.shape)}" if taken else "None, as this model takes none"
        raise ValueError(f"expected trust {what}, got one of {tuple(trust.shape)}")


def takes_trust(model: nn.Module) -> bool:
    """Whether a model wants a third input: what each value of ``lr`` is worth (:func:`d2a2_core.depth.measurement_trust`)."""
    return getattr(model, "takes_trust", False)  # a user's own module need not know of it


class ResidualBlock(nn.Module):
    """x + Conv(ReLU(Conv(x)))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(channels, channels)
        self.conv2 = conv3x3(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return x + self.conv2(F.relu(self.conv1(x)))


class GuidePyramid(nn.Module):
    """Guide features at H, H/2 and H/4."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.head = nn.Sequential(conv3x3(3, channels), nn.ReLU())
        self.level1 = nn.Sequential(conv3x3(channels, channels), nn.ReLU(), conv3x3(channels, channels))
        self.level2, self.level3 = (
            nn.Sequential(nn.Conv2d(channels, channels, 1, stride=2), nn.ReLU(), conv3x3(channels, channels))
            for _ in range(2)
        )

    def forward(self, guide: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 3, H, W) -> features (B, C, ...) at H, H/2, H/4."""
        full = self.level1(self.head(guide))
        half = self.level2(full)
        return full, half, self.level3(half)


class ShallowDepthFeatures(nn.Module):
    """Depth features before any fusion: 3x3, residual blocks, long skip."""

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        self.head = conv3x3(1, channels)
        self.blocks = nn.Sequential(*(ResidualBlock(channels) for _ in range(blocks)))

    def forward(self, depth: Tensor) -> Tensor:
        """(B, 1, h, w) -> (B, C, h, w)."""
        first = F.relu(self.head(depth))
        return F.leaky_relu(self.blocks(first) + first, 0.2)


class FusionStage(nn.Module):
    """One stage: guide level -> 3x3, LReLU; DDA aligns it to the depth features; MFA puts the two together."""

    def __init__(
        self,
        channels: int,
        groups: int = 8,
        domain: str = "lda",
        geometric: bool = True,
        gated: bool = True,
        attention: str = "pixel",
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.head = conv3x3(channels, channels)
        deform = partial(ModulatedDeformConv, groups=groups, backend=backend) if geometric else None
        self.dda = DynamicDualAlignment(channels, deform, domain)
        self.mfa = MaskToPixelAggregation(channels, gated, attention)

    def forward(self, guide: Tensor, depth: Tensor) -> Tensor:
        """Guide level R and depth features F, both (B, C, H, W). Returns the new F."""
        guide = F.leaky_relu(self.head(guide), 0.2)
        return self.mfa(depth, self.dda(guide, depth))


class D2A2(nn.Module):
    """RGB-guided depth super-resolution by dynamic dual alignment and aggregation.

    Args:
        scale: 4, 8 or 16.
        channels: C; 64 in the paper.
        blocks: residual blocks of the shallow depth features.
        groups: offset groups of the deformable convolutions.
        domain: "lda" (the paper's), "instance_norm", "batch_norm" or "none": Table 3.
        geometric: the deformable alignment DGA: Table 3.
        gated: the gated convolution GC: Table 4.
        attention: "pixel" (the paper's), "channel", "spatial" or "none": Table 4.
        backend: of the deformable convolution, see :mod:`d2a2_core.network.deformable`.
    """

    exact = ("tail1", "tail2", "predict")  # modules that int8 leaves in float32: what makes depth, and positions

    def __init__(
        self,
        scale: int = 4,
        channels: int = 64,
        blocks: int = 4,
        groups: int = 8,
        domain: str = "lda",
        geometric: bool = True,
        gated: bool = True,
        attention: str = "pixel",
        backend: str = "auto",
    ) -> None:
        super().__init__()
        if scale not in SCALES:
            raise ValueError(f"scale must be one of {SCALES}, got {scale}")
        self.scales = (scale,)
        #: What rebuilds this model; the backend is left out, since it belongs to the machine, not to the weights.
        self.config: dict[str, Any] = {
            "model": "d2a2", "scale": scale, "channels": channels, "blocks": blocks, "groups": groups,
            "domain": domain, "geometric": geometric, "gated": gated, "attention": attention,
        }  # fmt: skip
        stage = (channels, groups, domain, geometric, gated, attention, backend)
        self.guide_pyramid = GuidePyramid(channels)
        self.shallow = ShallowDepthFeatures(channels, blocks)
        self.stage1, self.stage2, self.stage3 = (FusionStage(*stage) for _ in range(3))
        self.up1, self.up2 = (nn.Sequential(conv3x3(channels, 4 * channels), nn.PixelShuffle(2)) for _ in range(2))
        self.tail1 = conv3x3(channels, channels // 2)
        self.tail2 = nn.Conv2d(channels // 2, 1, 1)

    def forward(self, guide: Tensor, lr: Tensor) -> Tensor:
        """Enlarges depth under the guidance of a colour image.

        Args:
            guide: (B, 3, H, W) RGB in [0, 1]; H and W multiples of the scale.
            lr: (B, 1, H/s, W/s) depth normalised to [0, 1], no invalid values.

        Returns:
            (B, 1, H, W) depth in the units of ``lr``.
        """
        (scale,) = self.scales
        check_inputs(guide, lr, self.scales)
        if scale > 4:  # depth always enters the network at H/4
            lr = F.interpolate(lr, scale_factor=scale // 4, mode="bicubic", align_corners=False)
        full, half, quarter = self.guide_pyramid(guide)
        depth = self.shallow(lr)
        depth = self.up1(self.stage1(quarter, depth))
        depth = self.up2(self.stage2(half, depth))
        depth = self.stage3(full, depth)
        residual = self.tail2(F.leaky_relu(self.tail1(depth), 0.2))
        return residual + F.interpolate(lr, scale_factor=4, mode="bicubic", align_corners=False)
