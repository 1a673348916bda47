"""Published depth against its measurements: the bound is guaranteed, little else changes."""

import math

import pytest
import torch

from d2a2_core.depth import away_from_edges, enforce_measurements, refined_mask

NAN = math.nan
SIZES = [((12, 16), 4), ((13, 18), 4), ((1, 1), 1), ((1, 1), 4), ((5, 3), 8), ((33, 47), 16), ((9, 7), 1)]


def rand(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def case(size, scale, seed=0, batch=2):
    """Random HR with holes and random measurements: nothing fits."""
    cells = tuple(-(-n // scale) for n in size)
    hr = 0.2 + 6 * rand(batch, 1, *size, seed=seed)
    hr = torch.where(rand(*hr.shape, seed=seed + 1) < 0.1, NAN, hr)
    lr = 0.2 + 6 * rand(batch, 1, *cells, seed=seed + 2)
    lr = torch.where(rand(*lr.shape, seed=seed + 3) < 0.2, NAN, lr)
    return hr, lr, rand(*lr.shape, seed=seed + 4) < 0.7


def naive_means(hr, scale):
    cells = [-(-n // scale) for n in hr.shape[-2:]]
    out = torch.full((*hr.shape[:2], *cells), NAN, dtype=torch.float64)
    for b in range(hr.shape[0]):
        for i in range(cells[0]):
            for j in range(cells[1]):
                cell = hr[b, 0, i * scale : (i + 1) * scale, j * scale : (j + 1) * scale].double()
                cell = cell[cell.isfinite()]
                if cell.numel():
                    out[b, 0, i, j] = cell.mean()
    return out


@pytest.mark.parametrize(("size", "scale"), SIZES, ids=str)
@pytest.mark.parametrize("bounds", [(0.02, 0.02), (0.0, 0.0), (0.5, 0.0), (0.0, 0.1)], ids=str)
@pytest.mark.parametrize("seed", [0, 10, 20])
def test_the_bound_holds_whatever_comes(size, scale, bounds, seed):
    hr, lr, trusted = case(size, scale, seed)
    out, residual = enforce_measurements(hr, lr, trusted, scale, *bounds)
    means = naive_means(out, scale)
    held = trusted & lr.isfinite() & means.isfinite()
    bound = torch.clamp(bounds[1] * lr, min=bounds[0])
    assert ((means - lr).abs() <= bound + 3e-6 * lr)[held].all()
    assert torch.equal(residual.isfinite(), held)
    torch.testing.assert_close(residual[held].double(), (means - lr)[held], rtol=0, atol=1e-5)
    assert torch.equal(out.isfinite(), hr.isfinite())
    assert (out[out.isfinite()] > 0).all()


def test_what_is_within_the_bound_is_not_touched():
    hr = 2 + 0.5 * rand(1, 1, 21, 30)
    lr = naive_means(hr, 4).float() * (1 + 0.018 * (2 * rand(1, 1, 6, 8, seed=1) - 1))
    out, residual = enforce_measurements(hr, lr, torch.ones_like(lr, dtype=torch.bool), 4)
    assert torch.equal(out, hr)
    torch.testing.assert_close(residual, naive_means(hr, 4).float() - lr)
    out[:] = 0
    assert hr.min() >= 2  # a copy


def test_only_the_excess_and_only_nearby():
    hr = torch.full((1, 1, 28, 28), 2.0)
    lr = torch.full((1, 1, 7, 7), 2.0)
    lr[..., 3, 3] = 2.2
    out, residual = enforce_measurements(hr, lr, torch.ones_like(lr, dtype=torch.bool), 4, 0.05, 0.0)
    assert residual[..., 3, 3] == pytest.approx(-0.05, abs=1e-4)
    changed = (out != 2.0).nonzero()[:, 2:]
    assert changed.min() >= 8
    assert changed.max() < 20


def test_a_region_that_is_off_moves_without_lr_blocks():
    """Between cells that err alike the correction is smooth: neighbouring pixels of the ramp stay neighbours."""
    ramp = torch.linspace(1, 3, 64).expand(1, 1, 64, 64)
    lr = naive_means(ramp, 4).float()
    off = 1 + 0.1 * torch.sin(torch.linspace(0, 3, 64)).expand(1, 1, 64, 64)
    out, _ = enforce_measurements(ramp * off, lr, torch.ones_like(lr, dtype=torch.bool), 4)
    before, after = (image.diff(dim=-1)[..., 4:-4] for image in (ramp * off, out))
    assert (after - ramp.diff(dim=-1)[..., 4:-4]).abs().max() < 0.02
    assert after.min() > 0
    assert (before - after).abs().max() < 0.03


def test_an_untrusted_measurement_has_no_say():
    hr = torch.full((1, 1, 8, 8), 2.0)
    lr = torch.tensor([[[[9.0, NAN], [-1.0, math.inf]]]])
    out, residual = enforce_measurements(hr, lr, torch.tensor([[[[False, True], [True, True]]]]), 4)
    assert torch.equal(out, hr)
    assert residual.isnan().all()


def test_images_without_anything():
    hr, lr = torch.full((1, 1, 8, 8), NAN), torch.ones(1, 1, 2, 2)
    everywhere = torch.ones_like(lr, dtype=torch.bool)
    out, residual = enforce_measurements(hr, lr, everywhere, 4)
    assert out.isnan().all()
    assert residual.isnan().all()
    out, residual = enforce_measurements(hr.nan_to_num(2.0), lr * NAN, everywhere, 4)
    assert (out == 2).all()
    assert residual.isnan().all()


def test_depth_that_is_no_depth_still_ends_within_the_bound():
    hr = torch.tensor([[[[-3.0, 0.0], [-1.0, 5.0]]]])
    for value in (0.0005, 1.0, 40.0):
        lr = torch.full((1, 1, 1, 1), value)
        out, residual = enforce_measurements(hr, lr, lr > 0, 2, 0.0, 0.01)
        assert residual.abs() <= 0.01 * lr
        assert (out > 0).all()


@pytest.mark.parametrize("change", ["size", "trusted", "bound"])
def test_what_does_not_fit_together_is_refused(change):
    lr = torch.ones(1, 1, 2, 3 if change == "size" else 2)
    trusted = torch.ones(1, 1, 2, 1 if change == "trusted" else lr.shape[-1], dtype=torch.bool)
    with pytest.raises(ValueError, match="expected"):
        enforce_measurements(torch.ones(1, 1, 8, 8), lr, trusted, 4, -1.0 if change == "bound" else 0.02)


def test_away_from_edges():
    lr = torch.ones(1, 1, 5, 8)
    lr[..., 4:] = 2.0
    lr[..., 2, 1] = NAN
    expected = torch.ones(5, 8, dtype=torch.bool)
    expected[:, 3:5] = False
    expected[2, 1] = False
    assert torch.equal(away_from_edges(lr)[0, 0], expected)
    assert not away_from_edges(torch.full((1, 1, 3, 3), NAN)).any()
    assert away_from_edges(torch.ones(1, 1, 1, 1)).all()


def test_refined():
    measured = torch.tensor([[[[1.0, 1.0, 4.0, 4.0, NAN, 1.0]]]])
    hr = torch.tensor([[[[1.02, 0.96, 4.07, 4.09, 1.0, NAN]]]])
    assert refined_mask(hr, measured).flatten().tolist() == [False, True, False, True, False, False]
