"""Which measurements are no surface: flying pixels go, poles, slopes and noise stay; stray groups in holes go."""

import math

import pytest
import torch

from d2a2_core.depth import flying_pixels, measurement_trust, outside_limits, stray_pixels

NAN = math.nan


def walls(size=(40, 60), near=1.0, far=3.0, edge=30):
    depth = torch.full((1, 1, *size), near)
    depth[..., edge:] = far
    return depth


def noise(depth, a, b, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return depth + (a + b * depth**2) * torch.randn(depth.shape, generator=generator)


# --- limits -----------------------------------------------------------------------------------------------------------


def test_limits_are_inclusive_and_holes_are_not_outside():
    depth = torch.tensor([[[[0.1, 0.2, 1.0, 5.0, 5.1, NAN]]]])
    assert outside_limits(depth, 0.2, 5.0).flatten().tolist() == [True, False, False, False, True, False]


@pytest.mark.parametrize(("low", "high"), [(-1, 2), (2, 2), (3, 2)])
def test_limits_must_be_a_range(low, high):
    with pytest.raises(ValueError, match="min_depth < max_depth"):
        outside_limits(torch.ones(1, 1, 2, 2), low, high)


# --- flying pixels ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.0, 0.001])
@pytest.mark.parametrize("mix", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("transposed", [False, True])
def test_a_mixed_column_at_an_edge_is_found_and_nothing_else(mix, sigma, transposed):
    depth = noise(walls(), 0, sigma)
    depth[..., 30] = 1 + 2 * mix
    expected = torch.zeros_like(depth, dtype=torch.bool)
    expected[..., 30] = True
    if transposed:
        depth, expected = depth.mT, expected.mT
    assert torch.equal(flying_pixels(depth), expected)


def test_two_mixed_columns():
    depth = walls()
    depth[..., 29], depth[..., 30] = 1.4, 2.5
    assert flying_pixels(depth)[..., 29:31].all()
    assert flying_pixels(depth).sum() == 2 * 40


def test_a_diagonal_edge():
    rows, cols = torch.meshgrid(torch.arange(40), torch.arange(40), indexing="ij")
    depth = torch.where(rows + cols < 40, 1.0, 3.0)
    depth[rows + cols == 40] = 2.0
    found = flying_pixels(depth[None, None])[0, 0]
    assert torch.equal(found, rows + cols == 40)


def test_beside_a_hole():
    depth = walls()
    depth[..., 30] = 2.0
    depth[..., 31:33] = NAN
    assert flying_pixels(depth)[..., 30].all()
    assert flying_pixels(depth).sum() == 40


@pytest.mark.parametrize("ratio", [1.01, 1.05, 1.2])
@pytest.mark.parametrize("sigma", [0.0, 0.0008])
def test_a_steep_plane_survives(ratio, sigma):
    """A plane is linear in inverse depth; at 1.2 its depth grows by a fifth from pixel to pixel at the far end."""
    inverse = torch.linspace(1 / 0.5, 1 / 5.0, 2 + int(1.8 / (0.2 * (ratio - 1))))
    depth = noise((1 / inverse).expand(1, 1, 20, -1), 0.001, sigma, seed=1)
    for image in (depth, depth.flip(-1), depth.mT):
        assert flying_pixels(image).float().mean() < 2e-3


@pytest.mark.parametrize("width", [1, 2, 3])
@pytest.mark.parametrize("slope", [0.0, 0.5, 1.0])
def test_a_thin_pole_survives_before_a_wall_and_before_an_edge(width, slope):
    rows, cols = torch.meshgrid(torch.arange(40.0), torch.arange(60.0), indexing="ij")
    pole = (cols - (20 + slope * rows).floor()) % 60 < width
    for background in (torch.full((40, 60), 3.0), walls(near=2.0)[0, 0]):
        depth = noise(torch.where(pole, 1.0, background)[None, None], 0.001, 0.001)
        assert not flying_pixels(depth)[0, 0][pole].any()


@pytest.mark.parametrize(("a", "b"), [(0.0, 0.001), (0.003, 0.002), (0.0, 0.01), (0.1, 0.0)])
def test_noise_is_not_taken_for_flying(a, b):
    depth = noise(torch.linspace(0.5, 4, 160).expand(1, 1, 120, -1), a, b)
    assert flying_pixels(depth).float().mean() < 1e-3


def test_small_mixtures_are_left():
    depth = walls(far=1.06)
    depth[..., 30] = 1.03
    assert not flying_pixels(depth).any()
    assert flying_pixels(depth, min_step=0.02, rel_step=0.01)[..., 30].all()


# --- stray pixels -----------------------------------------------------------------------------------------------------


def in_a_hole(shape):
    """A wall with a large hole, and in it a group of pixels."""
    depth = torch.full((1, 1, 40, 40), 2.0)
    depth[..., 8:32, 8:32] = NAN
    group = torch.zeros_like(depth, dtype=torch.bool)
    for dy, dx in shape:
        group[..., 20 + dy, 20 + dx] = True
    depth[group] = 1.2
    return depth, group


@pytest.mark.parametrize("shape", [[(0, 0)], [(0, 0), (0, 1)], [(0, 0), (1, 1), (2, 0)]], ids=len)
def test_a_tiny_group_in_a_hole_goes(shape):
    depth, group = in_a_hole(shape)
    assert torch.equal(stray_pixels(depth), group)


@pytest.mark.parametrize(
    "shape", [[(0, 0), (0, 1), (1, 0), (1, 1)], [(k, 0) for k in range(8)]], ids=["square", "pole"]
)
def test_a_larger_group_stays(shape):
    assert not stray_pixels(in_a_hole(shape)[0]).any()


def test_pixels_of_different_depth_do_not_support_each_other():
    depth, group = in_a_hole([(0, 0), (0, 1), (1, 0), (1, 1)])
    depth[group] = torch.tensor([0.5, 1.0, 2.5, 4.0])
    assert torch.equal(stray_pixels(depth), group)


def test_an_odd_value_among_measurements_is_for_min_hole_to_decide():
    depth = torch.full((1, 1, 20, 20), 2.0)
    depth[..., 10, 10] = 1.0
    assert not stray_pixels(depth).any()
    assert stray_pixels(depth, min_hole=0.0).nonzero().tolist() == [[0, 0, 10, 10]]


def test_the_corner_of_a_full_image_is_no_hole():
    depth = torch.full((1, 1, 20, 20), 2.0)
    depth[..., 0, 0] = 1.0
    assert not stray_pixels(depth).any()


def test_without_stray_pixels_the_filled_hole_has_no_disc():
    from d2a2_core.depth import fill_holes

    depth, _ = in_a_hole([(0, 0), (0, 1)])
    assert fill_holes(depth).min() < 1.3
    assert fill_holes(torch.where(stray_pixels(depth), NAN, depth)).min() > 1.99


# --- both -------------------------------------------------------------------------------------------------------------


def test_trust_is_one_a_half_or_nothing():
    depth = torch.ones(1, 1, 9, 12)
    depth[..., 6:] = 2.0
    depth[..., 6] = 1.5  # mixed
    depth[..., 2:4, 2:4] = torch.nan
    depth[..., 8:] = torch.nan
    depth[..., 4, 10] = 1.2  # stray
    expected = torch.isfinite(depth).float()
    expected[..., 6], expected[..., 4, 10] = 0.5, 0.5
    torch.testing.assert_close(measurement_trust(depth), expected)
    assert not measurement_trust(torch.full((1, 1, 3, 3), torch.nan)).any()


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (2, 3), (16, 16), (17, 33)], ids=str)
def test_any_size_and_empty_images(size):
    for find in (flying_pixels, stray_pixels):
        for value in (NAN, 1.5):
            depth = torch.full((2, 1, *size), value)
            found = find(depth)
            assert found.shape == depth.shape
            assert found.dtype == torch.bool
            assert not found.any()


def test_a_single_measurement_is_stray_and_does_not_fly():
    depth = torch.full((1, 1, 9, 9), NAN)
    depth[..., 4, 4] = 1.0
    assert not flying_pixels(depth).any()
    assert stray_pixels(depth).nonzero().tolist() == [[0, 0, 4, 4]]


@pytest.mark.parametrize("find", [flying_pixels, stray_pixels])
def test_images_of_a_batch_do_not_mix_and_the_input_stays(find):
    generator = torch.Generator().manual_seed(3)
    depth = walls(size=(24, 30), edge=20).repeat(2, 1, 1, 1)
    depth[..., 20] = 2.0
    depth[1] += 0.5
    depth[..., :16][torch.rand(2, 1, 24, 16, generator=generator) < 0.95] = NAN
    before = depth.clone()
    found = find(depth)
    assert found.any()
    assert torch.equal(found, torch.cat([find(depth[:1]), find(depth[1:])]))
    assert not (found & depth.isnan()).any()
    torch.testing.assert_close(depth, before, rtol=0, atol=0, equal_nan=True)
