"""Dynamic dual alignment (DDA): brings guide features to the domain (LDA) and geometry (DGA) of the depth features.

Source: Jiang, Kuang et al., "The Devil is in the Details: Boosting Guided Depth Super-Resolution via Rethinking
Cross-Modal Alignment and Aggregation", arXiv 2401.08123, eq. 1 and 2.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

DOMAIN_ALIGNMENTS = ("lda", "instance_norm", "batch_norm", "none")


def channel_statistics(x: Tensor, eps: float = 1e-5) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over the image of (B, C, H, W), each (B, C).

    The variance is unbiased and ``eps`` is added under the root. Computed in float32 when x is in half precision.
    """
    x = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    # In two passes: on CPUs torch.var_mean takes seven times as long.
    mean = x.mean(dim=(2, 3), keepdim=True)
    # A single pixel has no unbiased variance; zero keeps tiny images finite.
    variance = (x - mean).square().sum(dim=(2, 3)) / max(1, x.shape[2] * x.shape[3] - 1)
    return mean[:, :, 0, 0], torch.sqrt(variance + eps)


class LearnableDomainAlignment(nn.Module):
    """LDA (eq. 1): gives the normalised guide one scale and one shift, predicted from the depth features' statistics."""

    def __init__(self, channels: int, hidden: int = 64) -> None:
        super().__init__()

        def mlp() -> nn.Sequential:
            return nn.Sequential(
                nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1)
            )

        self.std_mlp = mlp()
        self.mean_mlp = mlp()

    def forward(self, guide: Tensor, depth: Tensor) -> Tensor:
        """Guide features R and depth features F, both (B, C, H, W). Returns R in the domain of F."""
        guide_mean, guide_std = channel_statistics(guide)
        depth_mean, depth_std = channel_statistics(depth)
        scale = self.std_mlp(depth_std)  # (B, 1): one scalar for all channels
        shift = self.mean_mlp(depth_mean)
        gain = scale / guide_std  # (B, C)
        bias = shift - guide_mean * gain
        return guide * gain[..., None, None].to(guide.dtype) + bias[..., None, None].to(guide.dtype)


class DomainAlignment(nn.Module):
    """R + Conv1x1(align(R)), where align is LDA or one of the norms that Table 3 compares it with."""

    def __init__(self, channels: int, kind: str = "lda") -> None:
        super().__init__()
        if kind not in DOMAIN_ALIGNMENTS:
            raise ValueError(f"domain alignment must be one of {DOMAIN_ALIGNMENTS}, got {kind!r}")
        self.kind = kind
        if kind == "lda":
            self.align = LearnableDomainAlignment(channels)
        elif kind == "instance_norm":
            self.align = nn.InstanceNorm2d(channels, affine=True)
        elif kind == "batch_norm":
            self.align = nn.BatchNorm2d(channels)
        if kind != "none":
            self.conv = nn.Conv2d(channels, channels, 1)

    def forward(self, guide: Tensor, depth: Tensor) -> Tensor:
        """Both (B, C, H, W). Returns the domain-aligned guide A, (B, C, H, W)."""
        if self.kind == "none":
            return guide
        aligned = self.align(guide, depth) if self.kind == "lda" else self.align(guide)
        return guide + self.conv(aligned)


class DynamicGeometricAlignment(nn.Module):
    """DGA (eq. 2): warps the guide onto the depth with a deformable convolution steered by [F, A].

    Args:
        channels: C, of all features.
        deform: makes the deformable convolution for C channels, for instance
            :class:`~d2a2_core.network.deformable.ModulatedDeformConv`.
    """

    def __init__(self, channels: int, deform: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.offset_features = nn.Sequential(
            nn.Conv2d(2 * channels, channels, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.LeakyReLU(0.2),
        )
        self.deform = deform(channels)

    def forward(self, guide: Tensor, aligned: Tensor, depth: Tensor) -> Tensor:
        """R, A and F, all (B, C, H, W). Samples R, not A. Returns the warped guide (B, C, H, W)."""
        return self.deform(guide, self.offset_features(torch.cat((depth, aligned), dim=1)))


class DynamicDualAlignment(nn.Module):
    """DDA: LDA, then DGA. Either can be switched off for the ablations of Table 2 and 3.

    Args:
        channels: C, of all features.
        deform: makes DGA's deformable convolution for C channels; None leaves DGA out.
        domain: see :class:`DomainAlignment`.
    """

    def __init__(self, channels: int, deform: Callable[[int], nn.Module] | None, domain: str = "lda") -> None:
        super().__init__()
        self.domain = DomainAlignment(channels, domain)
        self.geometric = DynamicGeometricAlignment(channels, deform) if deform else None

    def forward(self, guide: Tensor, depth: Tensor) -> Tensor:
        """Guide features R and depth features F, both (B, C, H, W). Returns the aligned guide (B, C, H, W)."""
        aligned = self.domain(guide, depth)
        return aligned if self.geometric is None else self.geometric(guide, aligned, depth)
