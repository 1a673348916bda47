"""Depth around the network: hole filling, distances and regridding against slow, plain references."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt

from d2a2_core.depth import fill_holes, invalid_to_nan, nearest_pixel, regrid, valid_range, within_distance
from d2a2_core.depth.resample import masked_area, masked_bilinear, reduce_surfaces

SIZES = [(16, 16), (13, 21), (1, 9), (9, 1), (1, 1), (2, 3), (40, 7)]


def holey(size, share=0.5, seed=0, batch=1):
    generator = torch.Generator().manual_seed(seed)
    depth = 0.3 + 5 * torch.rand(batch, 1, *size, generator=generator)
    return torch.where(torch.rand(batch, 1, *size, generator=generator) < share, torch.nan, depth)


def smooth(size, slope=0.01, dtype=torch.float32):
    rows, cols = torch.meshgrid(*(torch.arange(n, dtype=dtype) for n in size), indexing="ij")
    return (2 + slope * rows - 0.7 * slope * cols)[None, None]


# --- validity ---------------------------------------------------------------------------------------------------------


def test_invalid_to_nan():
    values = torch.tensor([1.5, 0.0, -0.0, -2.0, math.inf, -math.inf, math.nan, 1e-3], dtype=torch.float64)
    out = invalid_to_nan(values)
    assert out.dtype == torch.float32
    assert out.isnan().tolist() == [False, True, True, True, True, True, True, False]
    assert out[0] == 1.5


def test_input_is_not_written_to():
    values = torch.tensor([1.0, 0.0])
    invalid_to_nan(values)
    assert values.tolist() == [1.0, 0.0]


# --- holes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.95])
def test_filling_keeps_measurements_and_stays_in_range(size, share):
    depth = holey(size, share, batch=2)
    depth[:, :, 0, 0] = 1.0  # at least one measurement
    filled = fill_holes(depth)
    valid = depth.isfinite()
    assert filled.isfinite().all()
    assert torch.equal(filled[valid], depth[valid])  # bit for bit
    for one, original, mask in zip(filled, depth, valid, strict=True):
        low, high = original[mask].min(), original[mask].max()
        assert one.min() >= low * (1 - 1e-6)
        assert one.max() <= high * (1 + 1e-6)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_constant_stays_constant(size):
    depth = torch.where(holey(size, 0.8).isnan(), torch.nan, 1.7)
    depth[..., -1, -1] = 1.7
    torch.testing.assert_close(fill_holes(depth), torch.full_like(depth, 1.7), rtol=1e-6, atol=0)


def test_without_any_measurement_zero():
    assert torch.equal(fill_holes(torch.full((1, 1, 5, 6), torch.nan)), torch.zeros(1, 1, 5, 6))


def test_images_of_a_batch_do_not_mix():
    depth = holey((11, 14), 0.6, batch=2)
    depth[1] += 100
    both = fill_holes(depth)
    torch.testing.assert_close(both, torch.cat([fill_holes(depth[:1]), fill_holes(depth[1:])]), rtol=0, atol=0)


def test_a_hole_takes_the_depth_of_its_own_side():
    """Two walls with a small hole in each: filling must not bring in the other wall from 12 pixels away."""
    depth = torch.ones(1, 1, 32, 32)
    depth[..., 16:] = 4.0
    depth[..., 10:12, 2:4] = torch.nan
    depth[..., 10:12, 28:30] = torch.nan
    filled = fill_holes(depth)
    assert (filled[..., 10:12, 2:4] - 1).abs().max() < 1e-6
    assert (filled[..., 10:12, 28:30] - 4).abs().max() < 1e-6


@pytest.mark.parametrize("size", [(16, 16), (13, 21), (1, 9), (2, 3), (40, 7)], ids=str)
def test_guided_filling_takes_a_measurement_that_is_most_alike(size):
    """Against plain loops: at least as alike as the first ones along 16 directions, at most as any within reach."""
    depth = holey(size, 0.7, seed=3, batch=2)
    guide = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(4))
    out, plain = fill_holes(depth, guide), fill_holes(depth)
    directions = [(y, x) for y in range(-2, 3) for x in range(-2, 3) if math.gcd(y, x) == 1]
    assert len(directions) == 16
    for b, v, u in np.ndindex(2, *size):
        if torch.isfinite(depth[b, 0, v, u]):
            assert out[b, 0, v, u] == depth[b, 0, v, u]
            continue
        known = {
            (y, x): ((y - v) ** 2 + (x - u) ** 2) / 32
            + float((guide[b, :, y, x] - guide[b, :, v, u]).square().sum()) / 0.045
            for y, x in np.ndindex(*size)
            if torch.isfinite(depth[b, 0, y, x]) and max(abs(y - v), abs(x - u)) <= 6
        }
        firsts = [
            next(((v + k * dy, u + k * dx) for k in range(1, 7) if (v + k * dy, u + k * dx) in known), None)
            for dy, dx in directions
        ]
        worst = min((known[place] for place in firsts if place), default=None)
        if worst is None and float(out[b, 0, v, u]) == float(plain[b, 0, v, u]):
            continue  # nobody around knows of a measurement
        unlike = [cost for place, cost in known.items() if float(depth[(b, 0, *place)]) == float(out[b, 0, v, u])]
        assert unlike, "a depth that was not measured within reach"
        assert worst is None or min(unlike) <= worst + 1e-5


def test_a_hole_is_divided_where_the_colour_changes():
    depth = torch.ones(1, 1, 12, 20)
    depth[..., 10:] = 3.0
    whole = depth.clone()
    depth[..., 6:13] = torch.nan  # more of the near side is missing than of the far one
    guide = (whole > 2).float().expand(-1, 3, -1, -1)
    assert torch.equal(fill_holes(depth, guide), whole)
    assert not torch.equal(fill_holes(depth), whole)


# --- distance ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [*SIZES, (60, 3), (3, 60)], ids=str)
@pytest.mark.parametrize("radius", [-1.0, 0.0, 0.9, 1.0, 1.5, 5.0, 7.3, 45.0, 1e6, math.inf])
def test_within_distance_is_scipys(size, radius):
    for share in (0.02, 0.3):
        seeds = np.random.default_rng(int(100 * share)).random(size) < share
        if seeds.any():
            expected = distance_transform_edt(~seeds) <= max(radius, 0)
        else:
            expected = np.zeros(size, bool)
        result = within_distance(torch.from_numpy(seeds)[None, None], radius)
        np.testing.assert_array_equal(result[0, 0].numpy(), expected)


def test_within_distance_from_one_corner_reaches_the_other():
    seeds = torch.zeros(1, 1, 10, 10, dtype=torch.bool)
    seeds[..., 0, 0] = True
    assert not within_distance(seeds, 12.7)[..., -1, -1]  # 9 sqrt(2) = 12.73
    assert within_distance(seeds, 12.8).all()


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_nothing_is_near_nothing(size):
    assert not within_distance(torch.zeros(1, 1, *size, dtype=torch.bool), 50.0).any()


# --- range ------------------------------------------------------------------------------------------------------------


def test_range_is_per_image_and_ignores_holes():
    depth = torch.tensor([[1.0, 3.0, math.nan], [math.nan, 5.0, 7.0]])[:, None, None]
    found = valid_range(depth)
    assert found.lo.flatten().tolist() == [1.0, 5.0]
    assert found.span.flatten().tolist() == [2.0, 2.0]
    normalised = found.normalise(depth)
    assert normalised.nan_to_num(-1).flatten().tolist() == [0.0, 1.0, -1.0, -1.0, 0.0, 1.0]
    torch.testing.assert_close(found.restore(normalised), depth, equal_nan=True)


def test_range_of_a_flat_and_of_an_empty_image():
    depth = torch.stack((torch.full((1, 2, 2), 1.5), torch.full((1, 2, 2), math.nan)))
    found = valid_range(depth, min_span=0.02)
    assert found.lo.flatten().tolist() == [1.5, 0.0]
    assert found.span.flatten().tolist() == pytest.approx([0.02, 0.02])


# --- grids ------------------------------------------------------------------------------------------------------------


def naive_area(depth, size, cell, min_share=0.25):
    height, width = depth.shape
    out = np.full(size, np.nan)
    for i in range(size[0]):
        for j in range(size[1]):
            total = weight = covered = 0.0
            for y in range(height):
                for x in range(width):
                    dy = min((i + 1) * cell[0], y + 1) - max(i * cell[0], y)
                    dx = min((j + 1) * cell[1], x + 1) - max(j * cell[1], x)
                    if dy > 0 and dx > 0:
                        covered += dy * dx
                        if np.isfinite(depth[y, x]):
                            total += dy * dx * depth[y, x]
                            weight += dy * dx
            if weight > 0 and weight >= covered * min_share - 1e-4:
                out[i, j] = total / weight
    return out


def naive_bilinear(depth, size, cell, max_step=0.05):
    height, width = depth.shape
    out = np.full(size, np.nan)
    for i in range(size[0]):
        for j in range(size[1]):
            y = min(max((i + 0.5) * cell[0] - 0.5, 0), height - 1)
            x = min(max((j + 0.5) * cell[1] - 0.5, 0), width - 1)
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
            four = np.array([depth[y0, x0], depth[y0, x1], depth[y1, x0], depth[y1, x1]])
            fy, fx = y - y0, x - x0
            weights = np.array([(1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx])
            flat = np.isfinite(four).all() and four.max() - four.min() <= max_step * four.min()
            out[i, j] = weights @ four if flat else four[weights.argmax()]
    return out


@pytest.mark.parametrize(
    ("source", "size", "cell"),
    [
        ((8, 12), (4, 6), (2.0, 2.0)),
        ((9, 14), (6, 6), (1.5, 7 / 3)),
        ((7, 10), (3, 4), (2.6, 2.9)),  # the last cells reach beyond the source
        ((7, 10), (7, 4), (1.0, 2.5)),
        ((5, 5), (1, 1), (5.0, 5.0)),
    ],
    ids=str,
)
@pytest.mark.parametrize("share", [0.0, 0.5, 0.8])
def test_masked_area_is_the_mean_of_what_a_cell_covers(source, size, cell, share):
    depth = holey(source, share)
    result = masked_area(depth, size, cell)
    np.testing.assert_allclose(result[0, 0].numpy(), naive_area(depth[0, 0].double().numpy(), size, cell), rtol=1e-5)


def test_a_cell_needs_a_quarter_of_it_valid():
    depth = torch.full((1, 1, 2, 6), torch.nan)
    depth[0, 0, 0, 0] = 3.0  # 1 of 4
    depth[0, 0, :, 2:4] = torch.tensor([[1.0, 2.0], [torch.nan, torch.nan]])
    assert masked_area(depth, (1, 3), (2, 2)).nan_to_num(-1).flatten().tolist() == [3.0, 1.5, -1.0]
    depth = torch.full((1, 1, 3, 3), torch.nan)
    depth[..., :1, :2] = 3.0  # 2 of 9
    assert masked_area(depth, (1, 1), (3, 3)).isnan().all()


@pytest.mark.parametrize(
    ("source", "size", "cell"),
    [
        ((5, 6), (10, 12), (0.5, 0.5)),
        ((4, 7), (9, 10), (0.41, 0.7)),
        ((4, 7), (4, 16), (1.0, 0.44)),
        ((1, 1), (3, 3), (0.3, 0.3)),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["smooth", "rough", "holes"])
def test_masked_bilinear_is_its_definition(source, size, cell, kind):
    depth = {"smooth": smooth(source), "rough": holey(source, 0.0), "holes": holey(source, 0.3)}[kind]
    if kind == "holes":
        depth = torch.where(depth.isnan(), torch.nan, smooth(source))
    result = masked_bilinear(depth.double(), size, cell)[0, 0].numpy()
    np.testing.assert_allclose(result, naive_bilinear(depth[0, 0].double().numpy(), size, cell), rtol=1e-9)


def test_no_flying_pixels_at_an_edge():
    depth = torch.full((1, 1, 6, 9), 1.0)
    depth[..., 4:] = 3.0
    depth[..., 2, 4] = torch.nan
    fine = masked_bilinear(depth, (16, 25), (6 / 16, 9 / 25))
    values = fine[fine.isfinite()]
    assert torch.minimum((values - 1).abs(), (values - 3).abs()).max() < 1e-6
    # The hole is as large as its own pixel, no larger: exactly where the nearest measurement is that one.
    nearest = nearest_pixel(depth, (16, 25))
    assert torch.equal(fine.isnan(), nearest.isnan())


def test_regrid_onto_itself_changes_nothing():
    depth = holey((7, 8))
    assert torch.equal(regrid(depth, (7, 8)).nan_to_num(-1), depth.nan_to_num(-1))


@pytest.mark.parametrize(
    ("source", "size", "cell"),
    [((8, 6), (4, 12), (2.0, 0.5)), ((6, 9), (15, 4), (0.4, 2.4)), ((10, 10), (5, 4), None), ((5, 4), (10, 10), None)],
    ids=str,
)
def test_regrid_coarser_along_one_axis_and_finer_along_the_other(source, size, cell):
    depth = torch.where(holey(source, 0.2).isnan(), torch.nan, smooth(source))
    used = cell or (source[0] / size[0], source[1] / size[1])
    between = tuple(n if c > 1 else s for n, s, c in zip(size, source, used, strict=True))
    expected = naive_area(depth[0, 0].double().numpy(), between, [max(c, 1.0) for c in used])
    expected = naive_bilinear(expected, size, [min(c, 1.0) for c in used])
    np.testing.assert_allclose(regrid(depth, size, cell)[0, 0].numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("size", [(3, 4), (6, 10), (12, 5), (24, 33), (17, 20), (31, 4)], ids=str)
def test_regrid_has_no_shift(size):
    """The new values of a ramp are the ramp at the new pixel centres, clamped to the old centres at the border."""
    out = regrid(smooth((12, 20), slope=0.01), size)[0, 0].numpy()
    v, u = np.mgrid[: size[0], : size[1]]
    rows = ((v + 0.5) * 12 / size[0] - 0.5).clip(0, 11)
    cols = ((u + 0.5) * 20 / size[1] - 0.5).clip(0, 19)
    np.testing.assert_allclose(out, 2 + 0.01 * rows - 0.007 * cols, rtol=1e-5)


@pytest.mark.parametrize("size", [(7, 9), (5, 20), (12, 8)], ids=str)
def test_nearest_pixel_is_the_cell_the_centre_lies_in(size):
    image = torch.arange(20.0).view(1, 1, 4, 5)
    rows, cols = (np.floor((np.arange(n) + 0.5) * m / n).astype(int) for n, m in zip(size, (4, 5), strict=True))
    np.testing.assert_array_equal(nearest_pixel(image, size)[0, 0].numpy(), image[0, 0].numpy()[np.ix_(rows, cols)])


# --- reducing ---------------------------------------------------------------------------------------------------------


def reduced_slowly(depth, size, max_step=0.05):
    """One cell after the other, by the pixels that it touches."""
    (h, w), (height, width) = depth.shape, size
    out = np.full(size, np.nan)
    for i, j in np.ndindex(*size):
        top, left, bottom, right = i * h / height, j * w / width, (i + 1) * h / height, (j + 1) * w / width
        rows = np.arange(int(top + 1e-6), min(math.ceil(bottom - 1e-6), h))
        cols = np.arange(int(left + 1e-6), min(math.ceil(right - 1e-6), w))
        share = np.outer(
            np.minimum(rows + 1, bottom) - np.maximum(rows, top), np.minimum(cols + 1, right) - np.maximum(cols, left)
        )
        values = depth[np.ix_(rows, cols)]
        known = np.isfinite(values)
        if share[known].sum() < 0.25 * share.sum() - 1e-4:
            continue
        if values[known].max() - values[known].min() <= max_step * values[known].min():
            out[i, j] = (share * np.nan_to_num(values))[known].sum() / share[known].sum()
        else:
            out[i, j] = depth[int((top + bottom) / 2), int((left + right) / 2)]
    return out


@pytest.mark.parametrize("size", [(16, 24), (15, 21), (8, 24), (16, 11), (5, 7), (1, 1)], ids=str)
def test_reducing_is_the_slow_reference(size):
    depth = smooth((16, 24), dtype=torch.float64)
    depth[..., 6:, 9:] = 4
    depth = torch.where(holey((16, 24), 0.3).isnan(), torch.nan, depth)
    result = reduce_surfaces(depth, size)
    np.testing.assert_allclose(result[0, 0].numpy(), reduced_slowly(depth[0, 0].numpy(), size), atol=1e-6)


@pytest.mark.parametrize("size", [(180, 320), (177, 200), (60, 106)], ids=str)
def test_reducing_makes_no_value_between_two_surfaces(size):
    depth = torch.full((1, 1, 240, 424), 3.0)
    depth[..., 37:161, 51:290] = 1.0
    depth[..., 100:120, 300:350] = torch.nan
    result = reduce_surfaces(depth, size)
    assert set(result[result.isfinite()].round(decimals=4).tolist()) == {1.0, 3.0}
    assert result.isnan().float().mean() == pytest.approx(20 * 50 / (240 * 424), rel=0.25)
