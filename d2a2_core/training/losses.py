"""What training minimises and what validation reports; both over the target's finite values."""

from __future__ import annotations

import torch
from torch import Tensor


def reconstruction_loss(prediction: Tensor, target: Tensor, l2_weight: float = 0.0) -> Tensor:
    """Mean absolute error, plus ``l2_weight`` times the mean squared one, over the target's finite values."""
    valid = torch.isfinite(target)
    error = (prediction - target.nan_to_num()) * valid
    return (error.abs() + l2_weight * error.square()).sum() / valid.sum().clamp(min=1)


def rmse_per_image(prediction: Tensor, target: Tensor) -> list[float]:
    """Root mean square error of each image (B, 1, H, W) over the target's finite values."""
    valid = torch.isfinite(target)
    squares = ((prediction - target.nan_to_num()) ** 2).mul(valid).sum(dim=(1, 2, 3))
    return torch.sqrt(squares / valid.sum(dim=(1, 2, 3)).clamp(min=1)).tolist()
