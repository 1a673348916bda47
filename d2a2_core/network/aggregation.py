"""Mask-to-pixel feature aggregation (MFA): what of the aligned guide goes into the depth features.

Source: arXiv 2401.08123, section on MFA; the other kinds of attention are the ones its Table 4 compares with.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ATTENTIONS = ("pixel", "channel", "spatial", "none")


class GatedConvolution(nn.Module):
    """GC: LReLU(3x3) * sigmoid(3x3), then BatchNorm; masks out guide texture that has no counterpart in depth.

    Args:
        channels: C, of input and output.
        norm: makes the last layer for C channels.
    """

    def __init__(self, channels: int, norm: Callable[[int], nn.Module] = nn.BatchNorm2d) -> None:
        super().__init__()
        self.feature = nn.Conv2d(channels, channels, 3, padding=1)
        self.gate = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = norm(channels)
        nn.init.kaiming_normal_(self.feature.weight)
        nn.init.kaiming_normal_(self.gate.weight)

    def forward(self, x: Tensor, scale_index: int | None = None) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W). ``scale_index`` is for a norm that wants one; None for a plain BatchNorm."""
        masked = F.leaky_relu(self.feature(x), 0.2) * torch.sigmoid(self.gate(x))
        return self.norm(masked) if scale_index is None else self.norm(masked, scale_index)


class Attention(nn.Module):
    """An attention map for F, computed from [F, masked guide] and multiplied into F.

    "pixel" (the paper's): one weight for every channel and pixel. "channel": one for every channel; "spatial": one for
    every pixel (for the ablation). The paper gives no sizes for the last two; they share the pixel attention's trunk.
    """

    def __init__(self, channels: int, kind: str = "pixel") -> None:
        super().__init__()
        if kind not in ATTENTIONS[:-1]:
            raise ValueError(f"attention must be one of {ATTENTIONS[:-1]}, got {kind!r}")
        self.kind = kind
        self.conv1 = nn.Conv2d(2 * channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, 1 if kind == "spatial" else channels, 3, padding=1)

    def forward(self, depth: Tensor, guide: Tensor) -> Tensor:
        """Both (B, C, H, W). Returns the attended depth features (B, C, H, W)."""
        logits = self.conv2(F.leaky_relu(self.conv1(torch.cat((depth, guide), dim=1)), 0.2))
        if self.kind == "channel":
            logits = logits.mean(dim=(2, 3), keepdim=True)
        return depth * torch.sigmoid(logits)


class MaskToPixelAggregation(nn.Module):
    """MFA: fuse [F, warped guide], mask by GC, then attend by PA.

    With attention "none" the fused features themselves are the result, so that without gate and attention the module is
    the baseline of Table 2: concatenation and a convolution back to C channels.

    Args:
        channels: C, of all features.
        gated: whether there is a GC.
        attention: one of ``ATTENTIONS``.
        norm: makes GC's last layer for C channels.
    """

    def __init__(
        self,
        channels: int,
        gated: bool = True,
        attention: str = "pixel",
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        if attention not in ATTENTIONS:
            raise ValueError(f"attention must be one of {ATTENTIONS}, got {attention!r}")
        self.fuse = nn.Conv2d(2 * channels, channels, 3, padding=1)
        self.gate = GatedConvolution(channels, norm) if gated else None
        self.attention = Attention(channels, attention) if attention != "none" else None

    def forward(self, depth: Tensor, guide: Tensor, scale_index: int | None = None) -> Tensor:
        """Depth features F and the aligned guide, both (B, C, H, W), and GC's scale index. Returns the new F (B, C, H, W)."""
        fused = self.fuse(torch.cat((depth, guide), dim=1))
        if self.gate is not None:
            fused = self.gate(fused, scale_index)
        return fused if self.attention is None else self.attention(depth, fused)
