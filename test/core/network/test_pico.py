"""The network for camera rate: what it begins as, what it may give, and what it costs."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from d2a2_core.network import D2A2Lite, D2A2Pico, build_model
from d2a2_core.network.blocks import evenly_exposed
from d2a2_core.network.pico import least_slopes
from d2a2_core.network.warm_start import adapted_state

SCALES = (4, 8, 16)


def pair(scale: int, cells: tuple[int, int] = (5, 7), seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    guide = torch.rand(2, 3, *(scale * length for length in cells), generator=random)
    lr, trust = (torch.rand(2, 1, *cells, generator=random) for _ in range(2))
    return guide, lr, trust


def trained(seed: int = 0) -> D2A2Pico:
    """Weights as after training: the layers that start at zero do something."""
    torch.manual_seed(seed)
    model = D2A2Pico().eval()
    for layer in (model.mixture, model.cells):
        torch.nn.init.normal_(layer.weight, std=0.05)
    return model


@pytest.mark.parametrize("scale", SCALES)
@torch.inference_mode()
def test_it_begins_as_the_first_head_of_joint_upsampling(scale):
    torch.manual_seed(3)
    lite = D2A2Lite(channels=8, blocks=1, detail=8, context=(), geometric=False, trust=True).eval()
    lite.joint.log_radius.copy_(torch.tensor([0.2, -0.4]))
    model = D2A2Pico().eval()
    model.load_state_dict(adapted_state(lite, model))
    guide, lr, trust = pair(scale)
    torch.testing.assert_close(model(guide, lr, trust), lite.joint(evenly_exposed(guide), lr, trust)[:, :1])


def test_an_embedding_of_another_width_is_refused():
    with pytest.raises(ValueError, match=r"embed\.2\.weight"):
        adapted_state(D2A2Lite(channels=8, blocks=1, detail=8, context=(), geometric=False, heads=1), D2A2Pico(width=8))


@pytest.mark.parametrize("scale", SCALES)
@torch.inference_mode()
def test_with_flat_planes_every_pixel_lies_between_the_cells_around_it(scale):
    model = trained()
    for layer, keep in ((model.mixture, 9 * 16), (model.cells, model.width + 1)):
        layer.weight[keep:] = 0
        layer.bias[keep:] = 0
    guide, lr, trust = pair(scale, seed=2)
    wide = F.pad(lr, (1, 1, 1, 1), mode="replicate")
    low, high = (F.interpolate(x, scale_factor=scale) for x in (-F.max_pool2d(-wide, 3, 1), F.max_pool2d(wide, 3, 1)))
    hr = model(guide, lr, trust)
    assert (hr >= low - 1e-5).all()
    assert (hr <= high + 1e-5).all()
    assert hr.std() > 0.01


@pytest.mark.parametrize("scale", SCALES)
@torch.inference_mode()
def test_a_slanted_plane_stays_one_where_measured_slopes_are_believed(scale):
    model = D2A2Pico().eval()
    model.slope.fill_(0.25)
    guide, lr, _ = pair(scale, (8, 9))
    rows, cols = (torch.arange(length) for length in guide.shape[-2:])
    plane = 0.2 + (0.3 * (rows[:, None] + 0.5) + 0.2 * (cols + 0.5)) / guide.shape[-1]
    cells = F.avg_pool2d(plane[None, None], scale).expand_as(lr)
    inner = (
        ...,
        slice(2 * scale, -2 * scale),
        slice(2 * scale, -2 * scale),
    )  # at the border the slope to one side is unknown
    torch.testing.assert_close(model(guide, cells)[inner], plane.expand_as(guide[:, :1])[inner])


def test_the_lesser_slope_counts():
    values = torch.tensor([[0.0, 1.0, 3.0, 6.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])[None, None]
    slopes = least_slopes(values)
    assert slopes[0, 0].tolist() == [[0, 1, 2, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert slopes[0, 1].tolist() == [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert torch.equal(least_slopes(values.mT)[0, 1], slopes[0, 0].T)


@torch.inference_mode()
def test_a_constant_depth_and_trust_matter_as_they_should():
    model = trained()
    guide, lr, trust = pair(4)
    assert not torch.equal(model(guide, lr, trust), model(guide, lr))
    torch.testing.assert_close(model(guide, lr, torch.ones_like(lr)), model(guide, lr))
    plain = D2A2Pico().eval()(guide, torch.full_like(lr, 0.4))
    torch.testing.assert_close(plain, torch.full_like(plain, 0.4))


@torch.inference_mode()
def test_at_most_three_billion_operations_for_640x480():
    model = D2A2Pico().eval()
    with FlopCounterMode(display=False) as count:
        model(torch.rand(1, 3, 480, 640), torch.rand(1, 1, 120, 160), torch.ones(1, 1, 120, 160))
    assert 2e9 < count.get_total_flops() <= 3e9


@pytest.mark.parametrize("cells", [(1, 1), (1, 6), (5, 3)], ids=str)
@pytest.mark.parametrize("scale", SCALES)
def test_all_sizes_train(scale, cells):
    model = trained().train()
    guide, lr, trust = pair(scale, cells)
    hr = model(guide, lr, trust)
    assert hr.shape == (2, 1, *guide.shape[-2:])
    hr.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_its_configuration_builds_it_again():
    model = D2A2Pico(scales=(8, 4), channels=16, detail=8, around=24, width=4, trust=False)
    again = build_model(model.config)
    again.load_state_dict(model.state_dict())
    assert again.config == model.config
    assert again.scales == (4, 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"scales": [2]}, "does not fit"), ({"width": 1}, "does not fit"), ({"heads": 2}, "does not fit")],
    ids=str,
)
def test_options_it_does_not_have_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build_model({"model": "d2a2-pico"} | options)


def test_inputs_that_do_not_fit_are_refused():
    guide, lr, trust = pair(4)
    with pytest.raises(ValueError, match="expected trust of the size of lr"):
        D2A2Pico()(guide, lr, trust[..., :-1])
    with pytest.raises(ValueError, match="takes none"):
        D2A2Pico(trust=False)(guide, lr, trust)
    with pytest.raises(ValueError, match="is not 4 or 8 or 16 times"):
        D2A2Pico()(guide[..., :-4], lr, trust)
