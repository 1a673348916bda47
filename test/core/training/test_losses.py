"""What training minimises."""

import pytest
import torch

from d2a2_core.training.config import make_config
from d2a2_core.training.losses import measured_loss, reconstruction_loss, relative_loss, training_loss


def test_reconstruction_loss_known_answer():
    target = torch.tensor([[[[1.0, 2.0], [3.0, float("nan")]]]])
    prediction = torch.tensor([[[[1.5, 2.0], [2.0, 9.0]]]])
    assert float(reconstruction_loss(prediction, target)) == pytest.approx(0.5)
    assert float(reconstruction_loss(prediction, target, 2.0)) == pytest.approx(0.5 + 2 * 1.25 / 3)


def test_relative_loss_counts_every_sample_alike():
    """A sample ten times as hard, on which the network does as well compared with bicubic, weighs as much."""
    target = torch.zeros(2, 1, 4, 4)
    plain = torch.full_like(target, 0.1)
    plain[1] *= 10
    prediction = 0.5 * plain
    assert float(relative_loss(prediction, plain, target)) == pytest.approx(0.5)
    assert float(relative_loss(plain, plain, target, 30.0)) == pytest.approx(1.0)
    prediction.requires_grad_(True)
    relative_loss(prediction, plain, target).backward()
    easy, hard = prediction.grad.abs().sum(dim=(1, 2, 3))
    assert float(easy) == pytest.approx(10 * float(hard))


def test_a_bare_wall_does_not_outweigh_all():
    flat = torch.zeros(1, 1, 4, 4)
    assert float(relative_loss(flat + 0.001, flat, flat, floor=0.01)) == pytest.approx(0.1)


def test_measured_loss_looks_at_measurements_alone_and_gives_doubtful_ones_a_quarter():
    target, plain = torch.zeros(2, 1, 8, 8), torch.full((2, 1, 8, 8), 0.1)
    trust = torch.ones(2, 1, 2, 2)
    trust[:, 0, 0, 0], trust[:, 0, 1, 1] = 0.0, 0.5
    prediction = 0.5 * plain
    prediction[:, :, :4, :4] = 9.0  # in the hole
    assert float(measured_loss(prediction, plain, target, trust)) == pytest.approx(0.5)
    prediction[:, :, 4:, 4:] = 0.3  # a doubtful cell out of three measured ones
    assert float(measured_loss(prediction, plain, target, trust)) == pytest.approx(0.75 * 0.5 + 0.25 * 3)
    prediction[:, :, :4, 4:] = prediction[:, :, 4:, :4] = 0.2
    assert float(measured_loss(prediction, plain, target, trust)) == pytest.approx(0.75 * 2 + 0.25 * 3)
    nothing = measured_loss(prediction.requires_grad_(True), plain, target, torch.zeros_like(trust))
    assert float(nothing.detach()) == 0
    nothing.backward()
    assert (prediction.grad == 0).all()


def test_a_runs_settings_choose_and_weigh_its_loss():
    torch.manual_seed(0)
    batch = {"hr": torch.rand(2, 1, 16, 16), "lr": torch.rand(2, 1, 4, 4), "trust": torch.ones(2, 1, 4, 4)}
    batch["trust"][:, :, :2] = 0.5
    prediction = torch.rand(2, 1, 16, 16)
    plain = torch.nn.functional.interpolate(batch["lr"], size=(16, 16), mode="bicubic", align_corners=False)

    def loss(**settings):
        return float(training_loss(prediction, batch, make_config(overrides=settings)))

    assert loss() == pytest.approx(float(reconstruction_loss(prediction, batch["hr"])))
    assert loss(l2_weight=3.0) == pytest.approx(float(reconstruction_loss(prediction, batch["hr"], 3.0)))
    relative = float(relative_loss(prediction, plain, batch["hr"]))
    assert loss(relative_loss=True) == pytest.approx(relative)
    measured = float(measured_loss(prediction, plain, batch["hr"], batch["trust"]))
    assert loss(relative_loss=True, measured_share=0.25) == pytest.approx(0.75 * relative + 0.25 * measured)
