"""How good a network is on held-out batches, and whether it looks at the colour image and aligns it at all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2a2_core.data.sampling import input_keys
from d2a2_core.network.deformable import ModulatedDeformConv
from d2a2_core.training.losses import rmse_per_image


@torch.no_grad()
def validate(
    model: nn.Module, batches: Sequence[dict[str, Tensor]], device: torch.device, autocast: AbstractContextManager
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """RMSE of a network and of bicubic over batches of :class:`TrainingBatches`, in units of the normalised range.

    "unguided_rmse" is that of the network when each sample gets its neighbour's guide. As long as it equals the proper one, the
    network has learnt to enlarge depth but does not look at the colour image. "unaligned_rmse" is that of the network when
    what its deformable convolutions give is replaced by its mean over the image: equal to the proper one, none is left.

    Args:
        model: on ``device``; in eval mode afterwards.
        batches: at least one.
        autocast: context of the network's forward pass; entered once for each batch.

    Returns:
        "val_rmse", "unguided_rmse", "unaligned_rmse", "bicubic_rmse"; and the last batch's pictures.
    """
    model.eval()
    aligns = any(isinstance(module, ModulatedDeformConv) for module in model.modules())
    errors, unguided, unaligned, bicubic = [], [], [], []
    for batch in batches:
        guide, *rest = (batch[key].to(device) for key in input_keys(model))
        hr = batch["hr"].to(device)
        with autocast:
            prediction = model(guide, *rest).float()
            strange = model(guide.roll(1, 0), *rest).float()
            if aligns:
                with _alignment_levelled(model):
                    level = model(guide, *rest).float()
            else:
                level = prediction
        plain = F.interpolate(rest[0], size=hr.shape[-2:], mode="bicubic", align_corners=False)
        errors += rmse_per_image(prediction, hr)
        unguided += rmse_per_image(strange, hr)
        unaligned += rmse_per_image(level, hr)
        bicubic += rmse_per_image(plain, hr)
    means = {"val_rmse": errors, "unguided_rmse": unguided, "unaligned_rmse": unaligned, "bicubic_rmse": bicubic}
    pictures = {"lr": plain, "prediction": prediction, "truth": hr, "guide": guide}
    return {name: float(np.mean(values)) for name, values in means.items()}, pictures


@contextmanager
def _alignment_levelled(model: nn.Module) -> Iterator[None]:
    """Within it every deformable convolution gives the mean over the image of what it would."""
    handles = [
        module.register_forward_hook(lambda _module, _inputs, out: out.mean((2, 3), keepdim=True).expand_as(out))
        for module in model.modules()
        if isinstance(module, ModulatedDeformConv)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
