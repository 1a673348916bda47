"""Building blocks of the compact network (:mod:`d2a2_core.network.lite`)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2a2_core.network.d2a2 import ResidualBlock

# Of the guide's ReLUs below zero. With plain ones and Adam the guide's branch dies in the first steps of training: all its
# weights move together while the depth features are still useless, no unit is positive again, and colour is lost for good.
SLOPE = 0.1


class PerScaleBatchNorm(nn.Module):
    """BatchNorm2d with running statistics of its own for every scale, and weight and bias for all of them.

    A batch holds one scale, and features differ in their statistics from scale to scale: running statistics over all of
    them would fit none (measured: Middlebury x16 at bicubic's level, where statistics of its own give a quarter less).

    Args:
        channels: C.
        count: number of scales.
    """

    def __init__(self, channels: int, count: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(count, channels))
        self.register_buffer("running_var", torch.ones(count, channels))
        self.momentum = 0.1

    def forward(self, x: Tensor, scale_index: int) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W), with the running statistics of the scale at ``scale_index``."""
        mean, var = self.running_mean[scale_index], self.running_var[scale_index]
        return F.batch_norm(x, mean, var, self.weight, self.bias, self.training, self.momentum)


def leaky() -> nn.LeakyReLU:
    """The activation of the guide's layers."""
    return nn.LeakyReLU(SLOPE)


def start_at_zero(conv: nn.Conv2d) -> None:
    """Lets a branch begin without effect on what it is added to."""
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)


def evenly_exposed(guide: Tensor) -> Tensor:
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
        return x + self.conv2(F.leaky_relu(self.conv1(x), SLOPE))


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
        self.down1 = nn.Sequential(nn.Conv2d(channels, half, 3, stride=2, padding=1), leaky(), LeakyBlock(half))
        self.down2 = nn.Sequential(nn.Conv2d(half, quarter, 3, stride=2, padding=1), leaky())
        self.deepest = nn.Sequential(LeakyBlock(quarter), LeakyBlock(quarter))
        self.up2 = nn.Sequential(nn.Conv2d(quarter, 4 * half, 1), nn.PixelShuffle(2))
        self.merge = LeakyBlock(half)
        self.up1 = nn.Sequential(leaky(), nn.Conv2d(half, 4 * channels, 1), nn.PixelShuffle(2))
        start_at_zero(self.up1[1])

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W), of any size."""
        half = self.down1(x)
        around = self.up2(self.deepest(self.down2(half)))
        half = self.merge(half + around[..., : half.shape[2], : half.shape[3]])  # odd sizes come back one larger
        return x + self.up1(half)[..., : x.shape[2], : x.shape[3]]


def back_project_residual(hr: Tensor, lr: Tensor) -> Tensor:
    """hr (B, 1, H, W) plus the bicubic enlargement of what its antialiased bicubic reduction lacks of lr (B, 1, h, w)."""
    hr, lr = hr.float(), lr.float()
    reduced = F.interpolate(hr, size=lr.shape[-2:], mode="bicubic", antialias=True, align_corners=False)
    return hr + F.interpolate(lr - reduced, size=hr.shape[-2:], mode="bicubic", align_corners=False)
