"""Learnt joint upsampling against its definition, and what it is there for."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from d2a2_core.network import SCALES
from d2a2_core.network.joint_upsampling import JointUpsampling


def by_definition(module, guide, lr, trust=None):
    """Pixel by pixel, in float64, from the formula of Kopf et al. (2007); doubtful cells weigh less by an exponential."""
    trust = torch.ones_like(lr) if trust is None else trust
    doubt = torch.zeros(module.heads) if module.doubt is None else 4 * module.doubt.detach().double()
    with torch.no_grad():
        pixels = (module.colour(guide) + module.embed(guide)).double()
        radius = module.log_radius.exp().double()
    scale = guide.shape[-1] // lr.shape[-1]
    cells = F.avg_pool2d(pixels, scale)
    rows, cols = lr.shape[-2:]
    out = torch.zeros(len(guide), module.heads, *guide.shape[-2:], dtype=torch.float64)
    for b, head, y, x in np.ndindex(*out.shape):
        own = pixels[b, head * module.width : (head + 1) * module.width, y, x]
        total = weights = 0.0
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                r, c = y // scale + dy, x // scale + dx
                inside = min(max(r, 0), rows - 1), min(max(c, 0), cols - 1)
                other = cells[b, head * module.width : (head + 1) * module.width, inside[0], inside[1]]
                distance = ((y + 0.5) / scale - 0.5 - r) ** 2 + ((x + 0.5) / scale - 0.5 - c) ** 2
                weight = torch.exp(-0.5 * ((own - other).square().sum() + distance / radius[head] ** 2))
                weight = weight * torch.exp(-doubt[head] * (1 - trust[b, 0, inside[0], inside[1]]))
                total, weights = total + weight * lr[b, 0, inside[0], inside[1]].double(), weights + weight
        out[b, head, y, x] = total / weights
    return out


@pytest.mark.parametrize("scale", [4, 8])
def test_is_the_joint_bilateral_mean(scale):
    torch.manual_seed(scale)
    module = JointUpsampling(heads=2, width=4)
    guide, lr = torch.rand(2, 3, 3 * scale, 2 * scale), torch.rand(2, 1, 3, 2)
    with torch.no_grad():
        torch.testing.assert_close(module(guide, lr).double(), by_definition(module, guide, lr), atol=1e-5, rtol=0)


def test_doubtful_measurements_weigh_less():
    torch.manual_seed(0)
    module = JointUpsampling(heads=2, width=4, trust=True)
    module.doubt.data = torch.tensor([0.2, 1.5])
    guide, lr = torch.rand(2, 3, 12, 16), torch.rand(2, 1, 3, 4)
    trust = torch.tensor([0.0, 0.5, 1.0])[torch.randint(3, lr.shape)]
    with torch.no_grad():
        torch.testing.assert_close(
            module(guide, lr, trust).double(), by_definition(module, guide, lr, trust), atol=1e-5, rtol=0
        )
        torch.testing.assert_close(module(guide, lr), module(guide, lr, torch.ones_like(lr)))
        module.doubt.fill_(5.0)
        lr[:, :, 1, 1], trust[:] = 100, 1
        trust[:, :, 1, 1] = 0  # a hole, filled with nonsense
        assert module(guide, lr, trust).max() < 1.001


@pytest.mark.parametrize("scale", SCALES)
def test_a_flat_depth_stays_flat_and_none_is_invented(scale):
    module = JointUpsampling()
    guide = torch.rand(1, 3, 3 * scale, 4 * scale)
    with torch.no_grad():
        torch.testing.assert_close(
            module(guide, torch.full((1, 1, 3, 4), 0.7)), torch.full((1, 2, 3 * scale, 4 * scale), 0.7)
        )
        lr = torch.rand(1, 1, 3, 4)
        out = module(guide, lr)
    assert out.min() >= lr.min() - 1e-6
    assert out.max() <= lr.max() + 1e-6


def test_puts_an_edge_where_colour_has_it_whichever_side_is_near():
    hr = torch.zeros(2, 1, 64, 64)
    hr[0, ..., 37:], hr[1, ..., :37] = 1, 1  # the edge cuts through a cell
    guide = torch.zeros(2, 3, 64, 64)
    guide[..., 37:] = 0.8
    lr = F.avg_pool2d(hr, 8)
    with torch.no_grad():
        sharp = JointUpsampling()(guide, lr)[:, :1]
    plain = F.interpolate(lr, scale_factor=8, mode="bicubic", align_corners=False)
    errors = (sharp - hr).square().mean((1, 2, 3)).sqrt(), (plain - hr).square().mean((1, 2, 3)).sqrt()
    assert (errors[0] < 0.6 * errors[1]).all()


def test_gradients_reach_everything_it_learns():
    module = JointUpsampling()
    module(torch.rand(1, 3, 32, 32), torch.rand(1, 1, 4, 4)).square().sum().backward()
    assert all(p.grad.abs().max() > 0 for name, p in module.named_parameters() if name != "colour.bias")
