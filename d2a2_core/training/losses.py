"""What training minimises and what validation reports; both over the target's finite values."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from d2a2_core.training.config import TrainConfig


def training_loss(prediction: Tensor, batch: dict[str, Tensor], config: TrainConfig) -> Tensor:
    """The loss that a run's settings ask for.

    Args:
        prediction: (B, 1, H, W) float32.
        batch: as :class:`d2a2_core.data.sampling.TrainingBatches` gives it.
        config: its ``l2_weight``, ``relative_loss`` and ``measured_share``.
    """
    weight = config.l2_weight
    if not config.relative_loss:
        loss = reconstruction_loss(prediction, batch["hr"], weight)
    else:
        plain = F.interpolate(batch["lr"], size=batch["hr"].shape[-2:], mode="bicubic", align_corners=False)
        loss = relative_loss(prediction, plain, batch["hr"], weight)
        if share := config.measured_share:
            loss = (1 - share) * loss + share * measured_loss(prediction, plain, batch["hr"], batch["trust"], weight)
    return loss


def reconstruction_loss(prediction: Tensor, target: Tensor, l2_weight: float = 0.0) -> Tensor:
    """Mean absolute error, plus ``l2_weight`` times the mean squared one, over the target's finite values."""
    valid = torch.isfinite(target)
    error = (prediction - target.nan_to_num()) * valid
    return (error.abs() + l2_weight * error.square()).sum() / valid.sum().clamp(min=1)


def relative_loss(
    prediction: Tensor, plain: Tensor, target: Tensor, l2_weight: float = 0.0, floor: float = 0.01
) -> Tensor:
    """Mean over the images of (loss of the prediction) / (loss of a plain enlargement), as :func:`reconstruction_loss`.

    Without it large scales outweigh small ones where they are mixed, and scenes too fine for their scale, of which nothing can
    be learnt, outweigh all others.

    Args:
        prediction, plain, target: (B, 1, H, W).
        floor: smallest divisor, so that a bare wall does not count a thousandfold.
    """
    return torch.stack([
        reconstruction_loss(p, t, l2_weight) / reconstruction_loss(b, t, l2_weight).clamp(min=floor)
        for p, b, t in zip(prediction, plain, target, strict=True)
    ]).mean()  # fmt: skip


def measured_loss(prediction: Tensor, plain: Tensor, target: Tensor, trust: Tensor, l2_weight: float = 0.0) -> Tensor:
    """:func:`relative_loss` over the pixels of measurements alone: three quarters undoubted ones, a quarter doubtful ones.

    Errors in holes are many times as large, so that a network trained on all pixels alike gives measurements up for them: where
    few stood among holes, ours were off by more than bicubic's. Doubtful ones, alone in a hole or between two surfaces, are so
    few that they need a share of their own: those alone are mostly true, and were given up even so.

    Args:
        prediction, plain, target: (B, 1, H, W).
        trust: (B, 1, H/s, W/s), 1 where a measurement is undoubted, 0 in holes, between the two where it is doubtful.
    """
    trust = F.interpolate(trust.to(target.dtype), size=target.shape[-2:], mode="nearest")

    def of(pixels: Tensor, floor: float) -> Tensor:
        return relative_loss(prediction, plain, target.masked_fill(~pixels, torch.nan), l2_weight, floor)

    # Divisors are smaller than where errors in holes are among them, more so where there are many pixels.
    return 0.75 * of(trust == 1, 0.003) + 0.25 * of((trust > 0) & (trust < 1), 0.01)


def rmse_per_image(prediction: Tensor, target: Tensor) -> list[float]:
    """Root mean square error of each image (B, 1, H, W) over the target's finite values."""
    valid = torch.isfinite(target)
    squares = ((prediction - target.nan_to_num()) ** 2).mul(valid).sum(dim=(1, 2, 3))
    return torch.sqrt(squares / valid.sum(dim=(1, 2, 3)).clamp(min=1)).tolist()
