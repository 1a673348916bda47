"""What training minimises and what validation reports; both over the target's finite values."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


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


def measured_loss(
    prediction: Tensor, plain: Tensor, target: Tensor, trust: Tensor, l2_weight: float = 0.0, floor: float = 0.003
) -> Tensor:
    """:func:`relative_loss` over the pixels of undoubted measurements alone.

    Errors in holes are many times as large, so that a network trained on all pixels alike gives measurements up for them: where
    few stood among holes, ours were off by more than bicubic's.

    Args:
        prediction, plain, target: (B, 1, H, W).
        trust: (B, 1, H/s, W/s), 1 where a measurement is undoubted.
        floor: as there; smaller, since errors are.
    """
    measured = F.interpolate((trust == 1).to(target.dtype), size=target.shape[-2:], mode="nearest") > 0
    return relative_loss(prediction, plain, target.masked_fill(~measured, torch.nan), l2_weight, floor)


def rmse_per_image(prediction: Tensor, target: Tensor) -> list[float]:
    """Root mean square error of each image (B, 1, H, W) over the target's finite values."""
    valid = torch.isfinite(target)
    squares = ((prediction - target.nan_to_num()) ** 2).mul(valid).sum(dim=(1, 2, 3))
    return torch.sqrt(squares / valid.sum(dim=(1, 2, 3)).clamp(min=1)).tolist()
