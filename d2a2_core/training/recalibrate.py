"""Running statistics of normalisation layers, computed anew for finished weights ("precise BatchNorm").

Averaged weights (EMA) have never seen the running statistics that were averaged along with them, and a schedule that ends at a
learning rate of zero leaves statistics of weights that are no more. A few forward passes set them right.
"""

from __future__ import annotations

import torch
from torch import nn

from d2a2_core.data.sampling import TrainingBatches, input_keys
from d2a2_core.data.scene_sources import SceneSource
from d2a2_core.network.lite import PerScaleBatchNorm


@torch.no_grad()
def recalibrate(
    model: nn.Module, source: SceneSource, crop: int, batch_size: int, batches: int, seed: int, **options
) -> None:
    """Replaces the model's running statistics by means over ``batches`` batches of each of its scales.

    Args:
        model: changed in place; in eval mode afterwards.
        source, crop, batch_size, seed, options: as of :class:`TrainingBatches`.
    """
    norms = [m for m in model.modules() if isinstance(m, (nn.BatchNorm2d, PerScaleBatchNorm))]
    momenta = [norm.momentum for norm in norms]
    model.train()
    for scale in model.scales:
        data = TrainingBatches(source, (scale,), crop, batch_size, seed, **options)
        for i in range(batches):
            for norm in norms:
                norm.momentum = 1 / (i + 1)  # a plain mean; the first batch replaces what was there
            batch = data[i]
            model(*(batch[key] for key in input_keys(model)))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()
