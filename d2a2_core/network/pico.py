"""The variant of D2A2 for camera rate: three billion operations for a frame of 640x480 at x4, a twentieth of lite's."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2a2_core.depth.cells import cell_means
from d2a2_core.network.aggregation import MaskToPixelAggregation
from d2a2_core.network.alignment import DynamicDualAlignment
from d2a2_core.network.blocks import LeakyBlock, PerScaleBatchNorm, evenly_exposed, leaky, start_at_zero
from d2a2_core.network.d2a2 import SCALES, check_inputs, check_trust, conv3x3
from d2a2_core.network.joint_upsampling import DOUBT, mixture, squared_distance

_SLOPE = 4.0  # steps of the optimiser are small


class D2A2Pico(nn.Module):
    """Every HR pixel is a mixture of the planes through the 3x3 LR pixels around it; the network decides of which.

    Three things decide: how like the pixel's colours are to those that each LR pixel stands for, in a learnt embedding (as in
    :class:`d2a2_core.network.joint_upsampling.JointUpsampling`); what each measurement is worth; and what one stage of DDA + MFA
    at an eighth of the resolution, with its surroundings at a sixteenth, adds to both for every pixel. Source of mixtures with
    weights from a coarser grid: Teed and Deng, "RAFT", ECCV 2020.

    Args:
        scales: the scales it is trained for, ascending.
        channels: C of the stage.
        detail: channels at a quarter of the resolution.
        around: channels at a sixteenth.
        width: of the embedding.
        trust: whether a third input tells what each LR value is worth, see :func:`d2a2_core.depth.measurement_trust`.
        backend: as the other networks have it; nothing here depends on it.
    """

    exact = ("colour", "mixture", "cells")

    def __init__(
        self,
        scales: Sequence[int] = SCALES,
        channels: int = 32,
        detail: int = 24,
        around: int = 40,
        width: int = 6,
        trust: bool = True,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        if not scales or any(scale not in SCALES for scale in scales):
            raise ValueError(f"scales must be some of {SCALES}, got {tuple(scales)}")
        self.scales = tuple(sorted(scales))
        self.config: dict[str, Any] = {
            "model": "d2a2-pico", "scales": list(self.scales), "channels": channels, "detail": detail, "around": around,
            "width": width, "trust": trust,
        }  # fmt: skip
        self.takes_trust, self.width = trust, width
        # The embedding of colours, at full resolution; starts as the classical bilateral filter.
        self.embed = nn.Sequential(conv3x3(3, 12), leaky(), conv3x3(12, width))
        self.colour = nn.Conv2d(3, width, 1)
        with torch.no_grad():
            self.embed[2].weight.mul_(0.1)
            nn.init.zeros_(self.colour.weight)
            nn.init.zeros_(self.colour.bias)
            for channel in range(3):
                self.colour.weight[channel, channel] = 0.7 / 0.2
        self.log_radius = nn.Parameter(torch.tensor(-0.35))
        self.doubt = nn.Parameter(torch.tensor(0.5))
        # How far the measured slopes are believed; planes are flat at first.
        self.slope = nn.Parameter(torch.tensor(0.0))
        # The trunk.
        self.guide_head = nn.Sequential(nn.PixelUnshuffle(4), conv3x3(48, detail), leaky())
        self.guide_down = nn.Conv2d(detail, channels, 3, stride=2, padding=1)
        self.depth_head = nn.Sequential(conv3x3(4 * (2 + trust), channels), leaky(), conv3x3(channels, channels))
        self.dda = DynamicDualAlignment(channels, None)
        self.mfa = MaskToPixelAggregation(channels, norm=partial(PerScaleBatchNorm, count=len(self.scales)))
        self.merge = nn.Sequential(conv3x3(2 * channels, channels), leaky(), conv3x3(channels, channels))
        self.down = nn.Sequential(nn.Conv2d(channels, around, 3, stride=2, padding=1), leaky())
        self.around = nn.Sequential(LeakyBlock(around), LeakyBlock(around))
        self.up = nn.Sequential(nn.Conv2d(around, 4 * channels, 1), nn.PixelShuffle(2))
        self.widen = nn.Sequential(leaky(), nn.Conv2d(channels, 4 * detail, 1), nn.PixelShuffle(2))
        self.fuse = nn.Sequential(conv3x3(detail + 16, channels), leaky())
        self.mixture = nn.Conv2d(channels, 16 * 10, 1)
        self.cells = nn.Conv2d(channels, width + 4, 1)
        start_at_zero(self.mixture)
        start_at_zero(self.cells)

    def forward(self, guide: Tensor, lr: Tensor, trust: Tensor | None = None) -> Tensor:
        """As :meth:`D2A2.forward`: guide (B, 3, H, W) in [0, 1], lr (B, 1, H/s, W/s) in [0, 1] -> (B, 1, H, W).

        ``trust``, of the size of ``lr`` and in [0, 1], is for models that take it; default is 1 everywhere.

        Raises:
            ValueError: sizes that do not fit together, or trust for a model that takes none.
        """
        scale = check_inputs(guide, lr, self.scales)
        check_trust(trust, lr, self.takes_trust)
        doubt = torch.zeros_like(lr) if trust is None else 1 - trust
        guide = evenly_exposed(guide)
        queries = (self.colour(guide) + self.embed(guide)).float()
        features = self._features(guide, lr, doubt, scale)
        cells, blocks = self.cells(features).float(), self.mixture(features).float()
        if scale > 4:
            cells = F.avg_pool2d(cells, scale // 4)
            blocks = F.pixel_unshuffle(F.pixel_shuffle(blocks, 4), scale)
        to_keys, to_norm, to_values, to_slopes = cells.split((self.width, 1, 1, 2), dim=1)
        keys = cell_means(queries, scale) + to_keys
        norm = 0.5 * keys.square().sum(1, keepdim=True) + DOUBT * self.doubt * doubt.float() + to_norm
        slopes = _SLOPE * self.slope * least_slopes(lr.float()) + 0.1 * to_slopes
        return self._mix(queries, blocks, keys, norm, lr.float() + 0.1 * to_values, slopes, scale)

    def _mix(
        self, queries: Tensor, blocks: Tensor, keys: Tensor, norm: Tensor, values: Tensor, slopes: Tensor, scale: int
    ) -> Tensor:
        """Every pixel's mixture of the planes of the 3 x 3 cells around it.

        Args:
            queries: (B, E, H, W), of the pixels.
            blocks: (B, 10 s s, h, w): what is added to each pixel's nine logits, and to the result.
            keys, norm: (B, E, h, w) and (B, 1, h, w), of the cells: a logit is <query, key> - norm.
            values, slopes: (B, 1, h, w) and (B, 2, h, w): depth at the cells' centres, and its change per cell along x and y.
        """
        batch, _, rows, cols = values.shape
        inside = scale * scale
        # Planes apart once, not for each of the nine cells: runtimes copy them.
        *shares, rest = blocks.view(batch, 10, inside, rows, cols).unbind(1)
        own = F.pixel_unshuffle(queries, scale).view(batch, self.width, inside, rows, cols).unbind(1)
        keys, norm, values, slopes = (F.pad(x, (1, 1, 1, 1), mode="replicate") for x in (keys, norm, values, slopes))
        inner = (torch.arange(scale, device=values.device) + 0.5) / scale - 0.5  # of a cell's pixels, in cells
        distance = squared_distance(scale, values.device)
        closeness = 0.5 * torch.exp(-2 * self.log_radius)
        logits, candidates = [], []
        for i, j in ((i, j) for i in range(3) for j in range(3)):
            own_norm, value, slope = (x[:, :, i : i + rows, j : j + cols] for x in (norm, values, slopes))
            far = closeness * (distance[i][:, None] + distance[j]).reshape(1, inside, 1, 1)
            logit = shares[len(logits)] - far - own_norm
            for query, key in zip(own, keys.split(1, 1), strict=True):
                logit = torch.addcmul(logit, query, key[:, :, i : i + rows, j : j + cols])
            logits.append(logit)
            down, right = (inner - (i - 1))[:, None].expand(scale, scale), (inner - (j - 1)).expand(scale, scale)
            value = torch.addcmul(value, slope[:, :1], right.reshape(1, inside, 1, 1))
            candidates.append(torch.addcmul(value, slope[:, 1:], down.reshape(1, inside, 1, 1)))
        return F.pixel_shuffle(mixture(logits, candidates) + 0.1 * rest, scale)

    def _features(self, guide: Tensor, lr: Tensor, doubt: Tensor, scale: int) -> Tensor:
        """(B, C, H/4, W/4): what guide and depth say together, around each block of 4 x 4 pixels."""
        level = self.guide_head(guide)
        coarse = F.pad(lr, (1, 1, 1, 1), mode="replicate")
        relief = lr - F.avg_pool2d(coarse, 3, stride=1)  # of depth around a measurement, whatever its level
        given = torch.cat((lr, 4 * relief, doubt) if self.takes_trust else (lr, 4 * relief), dim=1)
        if scale > 4:
            given = F.interpolate(given, scale_factor=scale // 4, mode="nearest")
        size = level.shape[-2:]
        odd = (0, size[1] % 2, 0, size[0] % 2)
        depth = self.depth_head(F.pixel_unshuffle(F.pad(given, odd, mode="replicate"), 2))
        eighth = self.guide_down(F.pad(level, odd, mode="replicate"))
        aligned = self.dda(eighth, depth)
        attended = self.mfa(depth, aligned, self.scales.index(scale))
        depth = depth + self.merge(torch.cat((attended, aligned), dim=1))
        wide = self.up(self.around(self.down(depth)))
        depth = depth + wide[..., : depth.shape[2], : depth.shape[3]]
        level = level + self.widen(depth)[..., : size[0], : size[1]]
        return self.fuse(torch.cat((level, self._shape(lr, scale)), dim=1))

    def _shape(self, lr: Tensor, scale: int) -> Tensor:
        """(B, 16, H/4, W/4): the eight neighbours' depth relative to the cell's own, at two distances."""
        around = []
        for reach in (1, 2):
            wide = F.pad(lr, (reach,) * 4, mode="replicate")
            rows, cols = lr.shape[-2:]
            for i in (0, reach, 2 * reach):
                for j in (0, reach, 2 * reach):
                    if (i, j) != (reach, reach):
                        around.append(wide[:, :, i : i + rows, j : j + cols] - lr)
        shape = 4 * torch.cat(around, dim=1)
        return F.interpolate(shape, scale_factor=scale // 4, mode="nearest") if scale > 4 else shape


def least_slopes(values: Tensor) -> Tensor:
    """(B, 1, h, w) -> (B, 2, h, w): change per cell along x and y, the lesser of both sides', 0 where these differ in sign."""
    rows, cols = values.shape[-2:]
    wide = F.pad(values, (1, 1, 1, 1), mode="replicate")
    slopes = []
    for before, after in (
        (values - wide[..., 1:-1, :cols], wide[..., 1:-1, 2:] - values),
        (values - wide[..., :rows, 1:-1], wide[..., 2:, 1:-1] - values),
    ):
        rising, falling = torch.minimum(before, after).clamp(min=0), torch.maximum(before, after).clamp(max=0)
        slopes.append(rising + falling)
    return torch.cat(slopes, dim=1)
