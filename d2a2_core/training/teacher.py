"""Learning from weights that are there already, of the same or another network: distillation."""

from __future__ import annotations

import random

import torch
from torch import Tensor

from d2a2_core.data.sampling import input_keys
from d2a2_core.network import VIEWS
from d2a2_core.network.ensemble import mean_over
from d2a2_core.training.config import TrainConfig
from d2a2_core.weights import load_weights, resolve_weights


class Teacher:
    """Targets that are in part what other weights make of the same input.

    Where the truth cannot be known from the input, as where it was misplaced at random, the teacher's answer is nearer to what
    can be expected; and as the mean over views drawn anew for each step it stands for the mean over all eight, which is better
    than the answer to any of them (:func:`d2a2_core.network.run_views`). Source: Hinton et al., "Distilling the knowledge in a
    neural network", 2015.

    Args:
        config: its ``teacher``, ``teacher_share``, ``teacher_views``, ``scales`` and ``seed``.
        device: where it runs.

    Raises:
        WeightsError: no such weights.
        ValueError: weights for other scales.
    """

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        self.config = config
        self.model = load_weights(resolve_weights(config.teacher)).to(device, memory_format=torch.channels_last)
        self.model.eval().requires_grad_(False)
        if missing := sorted(set(config.scales) - set(self.model.scales)):
            raise ValueError(
                f"teacher {config.teacher} is for scales {list(self.model.scales)}, this run trains {missing} too; set scales to "
                "those it knows, or name another teacher"
            )

    @torch.no_grad()
    def target(self, batch: dict[str, Tensor], step: int) -> Tensor:
        """(B, 1, H, W): ``batch["hr"]`` mixed with the teacher's answer, NaN where it is. Views depend on seed and step."""
        views = random.Random(f"{self.config.seed} {step}").sample(VIEWS[8], self.config.teacher_views)
        answer = mean_over(self.model, views, *(batch[key] for key in input_keys(self.model)))
        return batch["hr"].lerp(answer, self.config.teacher_share)
