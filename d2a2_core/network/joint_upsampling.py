"""Joint upsampling with learnt similarity: what a depth map enlarged by the guide's colours alone would be.

Source: Kopf et al., "Joint bilateral upsampling", SIGGRAPH 2007, with a learnt embedding of the guide in place of its colours.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2a2_core.depth.cells import cell_means

DOUBT = 4.0  # steps of the optimiser are small beside differences of logarithms


class JointUpsampling(nn.Module):
    """Every HR pixel takes the depth of those of the 3x3 LR pixels around it whose guide is most like its own.

    The result is in the units of depth, so a network finds it useful from the first step on. From colour itself it does not:
    whether the brighter side of an edge is the near one differs from edge to edge, so that the gradient of anything linear in
    the guide averages out, and a network that learns to enlarge depth first never comes to look at it.

    Args:
        heads: embeddings, each of which gives one depth map.
        width: channels of an embedding.
        trust: whether it is told what the measurements are worth, and learns how far to leave the doubtful ones out.
    """

    def __init__(self, heads: int = 2, width: int = 6, trust: bool = False) -> None:
        super().__init__()
        self.heads, self.width = heads, width
        self.embed = nn.Sequential(
            nn.Conv2d(3, 12, 3, padding=1), nn.LeakyReLU(0.1), nn.Conv2d(12, heads * width, 3, padding=1)
        )
        self.colour = nn.Conv2d(3, heads * width, 1)
        with torch.no_grad():  # starts as the classical filter: colour differences over a sigma
            self.embed[2].weight.mul_(0.1)
            nn.init.zeros_(self.colour.weight)
            nn.init.zeros_(self.colour.bias)
            for head, sigma in enumerate(torch.logspace(-1.0, -0.4, heads, device="cpu").tolist()):
                for channel in range(3):
                    self.colour.weight[head * width + channel, channel] = 0.7 / sigma
        self.log_radius = nn.Parameter(torch.full((heads,), -0.35))  # of the Gaussian over distance, in LR pixels
        # An LR pixel without any trust weighs exp(-DOUBT * this): a seventh at first.
        self.doubt = nn.Parameter(torch.full((heads,), 0.5)) if trust else None

    def forward(self, guide: Tensor, lr: Tensor, trust: Tensor | None = None) -> Tensor:
        """Guide (B, 3, H, W), LR and its trust (B, 1, H/s, W/s) -> (B, heads, H, W) in the units of ``lr``."""
        batch, _, height, width = guide.shape
        rows, cols = lr.shape[-2:]
        scale = height // rows
        pixels = (self.colour(guide) + self.embed(guide)).float().contiguous()
        own = pixels.view(batch, self.heads, self.width, rows, scale, width)
        cells = _wide(cell_means(pixels, scale), scale).view(batch, self.heads, self.width, rows + 2, 1, -1)
        norm = 0.5 * cells.square().sum(2)
        if self.doubt is not None and trust is not None:
            distrust = _wide(1 - trust.float(), scale).view(batch, 1, rows + 2, 1, -1)
            norm = norm + DOUBT * self.doubt.view(self.heads, 1, 1, 1) * distrust
        depth = _wide(lr.float(), scale).view(batch, 1, rows + 2, 1, -1)
        distance = squared_distance(scale, guide.device)
        across = distance.repeat(1, cols)
        closeness = 0.5 * torch.exp(-2 * self.log_radius).view(self.heads, 1, 1, 1)
        logits, values = [], []
        for i, j in ((i, j) for i in range(3) for j in range(3)):
            y, x = slice(i, i + rows), slice(j * scale, j * scale + width)
            # -|p - q|^2 / 2 without |p|^2, which is the same for all q and drops out of the softmax.
            logit = -norm[..., y, :, x] - closeness * (distance[i][:, None] + across[j])
            for channel in range(self.width):
                logit = torch.addcmul(logit, own[:, :, channel], cells[:, :, channel, y, :, x])
            logits.append(logit)
            values.append(depth[..., y, :, x])
        return mixture(logits, values).reshape(batch, self.heads, height, width)


def mixture(logits: Sequence[Tensor], values: Sequence[Tensor]) -> Tensor:
    """Mean of several values, weighted by the softmax over their logits."""
    # One after the other: a stack of them takes longer than the sums.
    largest = logits[0].detach()
    for logit in logits[1:]:
        largest = torch.maximum(largest, logit.detach())
    total = weights = 0.0
    for logit, value in zip(logits, values, strict=True):
        weight = torch.exp(logit - largest)
        total, weights = total + weight * value, weights + weight
    return total / weights


def _wide(x: Tensor, scale: int) -> Tensor:
    """(B, C, h, w) -> (B, C, h + 2, (w + 2) * s): a border of one replicated, every column ``scale`` times.

    So that the sums over cells run along rows as long as the HR image's: broadcast along the few pixels of a cell they take half
    as long again.
    """
    return F.pad(x, (1, 1, 1, 1), mode="replicate").repeat_interleave(scale, 3)


def squared_distance(scale: int, device: torch.device) -> Tensor:
    """(3, s): along one axis, in LR pixels, from each pixel of a cell to the centres of the cell before, its own and the next."""
    inside = (torch.arange(scale, device=device) + 0.5) / scale - 0.5
    return (inside - torch.arange(-1, 2, device=device)[:, None]) ** 2
