"""DepthUpsampler around a model whose answer is known: where depth ends up, what is measured, and what is refused."""

import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import distance_transform_edt
from torch import nn

from d2a2_core.depth.lr_grid import choose_scale
from d2a2_core.depth.provenance import Provenance
from d2a2_core.network import D2A2Lite
from d2a2_core.runtime.pytorch import TorchRuntime
from d2a2_core.upsampler import DepthUpsampler
from d2a2_core.weights import save_weights
from d2a2_core.weights.files import WeightsError


class Bilinear(nn.Module):
    """Ignores the guide and enlarges bilinearly, which is exact on planes. Remembers what it was given."""

    def __init__(self, scales=(4, 8, 16)):
        super().__init__()
        self.scales = scales

    def forward(self, guide, lr):
        self.guide, self.lr = guide, lr
        scale = guide.shape[-1] // lr.shape[-1]
        assert scale in self.scales
        assert tuple(guide.shape[-2:]) == (lr.shape[-2] * scale, lr.shape[-1] * scale)
        return F.interpolate(lr, scale_factor=scale, mode="bilinear", align_corners=False)


class Wild(Bilinear):
    """Answers far outside the range of its input, downwards in the left half, upwards in the right."""

    def forward(self, guide, lr):
        sign = torch.where(torch.arange(guide.shape[-1]) < guide.shape[-1] // 2, -1.0, 1.0)
        return super().forward(guide, lr) + 1e3 * sign


def make(model=None, **options):
    return DepthUpsampler.from_module(model or Bilinear(), "cpu", **options)


def gray(height, width):
    return np.full((height, width, 3), 128, np.uint8)


def noisy_pair(size=(37, 50), lr_size=(9, 13), seed=0, holes=0.4):
    rng = np.random.default_rng(seed)
    depth = rng.uniform(0.5, 4, lr_size).astype(np.float32)
    return rng.integers(0, 256, (*size, 3), dtype=np.uint8), depth, rng.random(lr_size) < holes


def random_sizes(count):
    """Sizes (H, W, h, w) of all kinds: odd, tiny, different ratios along the axes, from 1 to 32."""
    rng = np.random.default_rng(7)
    sizes = [(1, 1, 1, 1), (32, 32, 1, 1), (1, 32, 1, 1), (33, 7, 33, 1), (5, 160, 5, 5)]
    while len(sizes) < count:
        h, w = rng.integers(1, 12, 2)
        ratios = np.exp(rng.uniform(0, np.log(32), 2))
        sizes.append((max(int(h * ratios[0]), h), max(int(w * ratios[1]), w), int(h), int(w)))
    return sizes


@pytest.mark.parametrize("sizes", random_sizes(30), ids=str)
def test_constant_depth_of_any_size_stays_itself(sizes):
    height, width, h, w = sizes
    result = make().upsample(gray(height, width), np.full((h, w), 1.75, np.float32))
    assert result.depth.shape == result.provenance.shape == (height, width)
    assert result.depth.dtype == np.float32
    assert result.provenance.dtype == np.uint8
    np.testing.assert_allclose(result.depth, 1.75, atol=1e-6)
    assert (result.provenance == Provenance.MEASURED).all()


@pytest.mark.parametrize("sizes", [(64, 50, 10, 8), (31, 33, 9, 31), (6, 200, 1, 20)], ids=str)
def test_a_real_network_takes_any_size(sizes):
    torch.manual_seed(0)
    height, width, h, w = sizes
    upsampler = make(D2A2Lite(channels=8, blocks=1))
    depth = np.random.default_rng(0).uniform(1, 2, (h, w)).astype(np.float32)
    result = upsampler.upsample(gray(height, width), depth)
    assert result.depth.shape == (height, width)
    assert np.isfinite(result.depth).all()


@pytest.mark.parametrize(
    ("size", "lr_size", "scale"),
    [
        ((80, 120), (20, 30), 4),
        ((96, 128), (12, 16), 8),
        ((160, 224), (10, 14), 16),
        ((75, 101), (23, 31), 4),  # 3.26: cells larger than a measurement
        ((83, 130), (11, 19), 8),
        ((116, 91), (21, 17), 4),  # 5.5: cells smaller than a measurement
        ((64, 60), (64, 60), 4),
        ((90, 70), (60, 50), 4),
        ((384, 352), (12, 11), 16),
        ((96, 90), (12, 30), 4),  # 8 x 3: smaller along one axis, larger along the other
    ],
    ids=str,
)
def test_a_slope_keeps_its_place(size, lr_size, scale):
    """Half a pixel of shift would show as 3 to 5 mm: measurements sit at pixel centres of the same rectangle."""
    rows, cols = np.mgrid[: lr_size[0], : lr_size[1]]
    result = make().upsample(gray(*size), (2 + 0.007 * rows + 0.01 * cols).astype(np.float32))
    assert result.scale == scale
    ratios = [a / b for a, b in zip(size, lr_size, strict=True)]
    v, u = np.mgrid[: size[0], : size[1]]
    expected = 2 + 0.007 * ((v + 0.5) / ratios[0] - 0.5) + 0.01 * ((u + 0.5) / ratios[1] - 0.5)
    # At the border cells are cut and nothing is extrapolated.
    margin = [int(2 * scale + ratio) for ratio in ratios]
    inside = np.s_[margin[0] : -margin[0], margin[1] : -margin[1]]
    error = (result.depth - expected)[inside]
    assert error.size > 100
    # A cell that cuts measurements weighs each as a whole step of the slope, so it is off by a fraction of a step that
    # changes its sign from cell to cell. Whole cells and interpolated ones are exact.
    whole = all(scale <= ratio or scale % ratio == 0 for ratio in ratios)
    assert np.abs(error).max() < (2e-5 if whole else 1.1e-3)
    assert abs(error.mean()) < (2e-5 if whole else 1e-4)
    assert np.abs(result.depth - expected).max() < 0.0101 * (1 + scale / min(ratios))


@pytest.mark.parametrize("invalid", [0.0, -1.0, -1e30, np.inf, -np.inf, "mixed"])
def test_invalid_values_never_matter(invalid):
    color, depth, hole = noisy_pair()
    expected = make().upsample(color, np.where(hole, np.nan, depth).astype(np.float32))
    value = np.resize([0, -3, np.inf, np.nan, -0.0], depth.shape) if invalid == "mixed" else invalid
    result = make().upsample(color, np.where(hole, value, depth).astype(np.float32))
    np.testing.assert_array_equal(result.depth, expected.depth)
    np.testing.assert_array_equal(result.provenance, expected.provenance)
    assert (expected.provenance == Provenance.FILLED).any()


def test_a_hole_keeps_measurements_next_to_it_clean():
    """A plane with a hole in it is the same plane around the hole, up to the LR cell that the hole cuts."""
    depth = np.tile(1 + 0.01 * np.arange(20, dtype=np.float32), (20, 1))
    whole = make().upsample(gray(80, 80), depth).depth
    depth[8:12, 8:12] = np.nan
    result = make().upsample(gray(80, 80), depth)
    assert np.nanmax(np.abs(result.depth - whole)) < 0.05
    far = np.ones((80, 80), bool)
    far[28:52, 28:52] = False
    np.testing.assert_allclose(result.depth[far], whole[far], atol=1e-5)


@pytest.mark.parametrize("size", [(16, 24), (90, 4), (4, 90), (64, 1)], ids=str)
@pytest.mark.parametrize("max_fill_px", [0.0, 16.0, 80.0, np.inf])
def test_nothing_comes_of_nothing(size, max_fill_px):
    invalid = np.full((-(-size[0] // 8), -(-size[1] // 8)), np.nan, np.float32)
    result = make(max_fill_px=max_fill_px).upsample(gray(*size), invalid)
    assert np.isnan(result.depth).all()
    assert (result.provenance == Provenance.NONE).all()


def test_provenance_known_answer():
    depth = np.full((4, 8), np.nan, np.float32)
    depth[:, :2] = 2.0
    result = make(max_fill_px=5).upsample(gray(16, 32), depth)
    expected = np.repeat([[1] * 8 + [3] * 5 + [0] * 19], 16, axis=0)
    np.testing.assert_array_equal(result.provenance, expected)
    np.testing.assert_array_equal(np.isnan(result.depth), expected == 0)
    np.testing.assert_allclose(result.depth[expected > 0], 2.0, atol=1e-6)


@pytest.mark.parametrize("max_fill_px", [0.0, 1.0, 3.5, 16.0, 1000.0, np.inf])
@pytest.mark.parametrize("sizes", [((44, 60), (11, 15)), ((41, 53), (9, 13)), ((90, 6), (10, 3))], ids=str)
def test_provenance_is_the_euclidean_distance_in_output_pixels(max_fill_px, sizes):
    size, lr_size = sizes
    color, depth, _ = noisy_pair(size, lr_size)
    measured = np.zeros(lr_size, bool)
    measured[0, 0] = measured[2, -1] = True
    result = make(max_fill_px=max_fill_px).upsample(color, np.where(measured, depth, np.nan).astype(np.float32))
    nearest = [np.floor((np.arange(a) + 0.5) * b / a).astype(int) for a, b in zip(size, lr_size, strict=True)]
    known = measured[np.ix_(*nearest)]
    expected = np.where(distance_transform_edt(~known) <= max_fill_px, Provenance.FILLED, Provenance.NONE)
    expected[known] = Provenance.MEASURED
    refined = result.provenance == Provenance.REFINED  # a matter of depth, not of distance
    np.testing.assert_array_equal(np.where(refined, Provenance.MEASURED, result.provenance), expected)
    np.testing.assert_array_equal(np.isnan(result.depth), expected == Provenance.NONE)


def test_refined_is_a_measured_pixel_across_a_moved_edge():
    class Shifted(Bilinear):
        def forward(self, guide, lr):
            return super().forward(guide, lr.roll(1, dims=-1))

    depth = np.tile(np.repeat(np.float32([1, 2]), 8), (8, 1))
    result = make(Shifted()).upsample(gray(32, 64), depth)
    np.testing.assert_array_equal(result.provenance[:, 40:], Provenance.MEASURED)
    np.testing.assert_array_equal(result.provenance[:, 32:36], Provenance.REFINED)
    assert set(np.unique(result.provenance)) == {Provenance.MEASURED, Provenance.REFINED}


def test_wild_predictions_stay_near_the_measured_range():
    color, depth, _ = noisy_pair()
    depth[0, 0] = 0.05  # a tenth of the span below it would be behind the camera
    result = make(Wild()).upsample(color, depth)
    span = depth.max() - depth.min()
    assert (result.depth > 0).all()
    assert result.depth.max() <= depth.max() + 0.11 * span


def test_the_network_sees_rgb_and_normalised_depth():
    model = Bilinear()
    color = np.zeros((18, 30, 3), np.uint8)
    color[..., 0], color[..., 2] = 255, 51
    depth = np.random.default_rng(0).uniform(0.5, 4, (9, 15)).astype(np.float32)
    depth[2:4, 2:4] = np.nan
    make(model).upsample(color, depth)
    assert model.guide.shape == (1, 3, 20, 32)  # padded to whole cells, with the colours of the border
    for channel, value in enumerate((1.0, 0.0, 0.2)):
        assert torch.allclose(model.guide[:, channel], torch.tensor(value))
    assert model.lr.min() == 0
    assert model.lr.max() == 1


@pytest.mark.parametrize(
    ("size", "lr_size", "scale"),
    [
        ((40, 40), (10, 10), 4),
        ((56, 56), (10, 10), 4),  # 5.6 is nearer to 4 than to 8, as a factor
        ((57, 57), (10, 10), 8),
        ((113, 113), (10, 10), 8),
        ((114, 114), (10, 10), 16),
        ((10, 10), (10, 10), 4),
        ((320, 320), (10, 10), 16),
        ((1440, 1920), (192, 256), 8),
        ((40, 160), (10, 10), 8),  # the geometric mean counts
    ],
    ids=str,
)
def test_choice_of_scale(size, lr_size, scale):
    assert choose_scale(make().usable_scales, size, lr_size) == scale
    assert choose_scale(make(scale=16).usable_scales, size, lr_size) == 16


def test_forced_scale_is_used():
    color, depth, _ = noisy_pair()
    for scale in (4, 8, 16):
        result = make(scale=scale).upsample(color, depth)
        assert result.scale == scale
        assert result.depth.shape == color.shape[:2]


def test_a_network_that_asks_is_told_where_depth_was_measured():
    class Asking(Bilinear):
        takes_trust = True

        def forward(self, guide, lr, trust):
            self.trust = trust
            return super().forward(guide, lr)

    model = Asking()
    depth = np.full((9, 12), 1, np.float32)
    depth[:, 6:], depth[:, 6] = 2, 1.5  # the seventh column is mixed
    depth[2:4, 2:4] = 0
    make(model).upsample(gray(36, 48), depth)
    expected = np.ones((9, 12), np.float32)
    expected[:, 6], expected[2:4, 2:4] = 0.5, 0
    np.testing.assert_array_equal(model.trust[0, 0], expected)


def test_a_batch_equals_its_images_one_by_one():
    torch.manual_seed(0)
    upsampler = make(D2A2Lite(channels=8, blocks=1), max_fill_px=4)
    pairs = [noisy_pair(seed=seed, holes=holes) for seed, holes in ((0, 0.3), (1, 0.0), (2, 1.0))]
    colors = torch.stack([torch.from_numpy(color).permute(2, 0, 1) for color, _, _ in pairs])
    depths = torch.stack([torch.from_numpy(np.where(hole, np.nan, depth))[None] for _, depth, hole in pairs])
    depth, provenance, scale = upsampler.upsample_tensors(colors, depths)
    as_floats = upsampler.upsample_tensors(colors.float() / 255, depths)
    torch.testing.assert_close(as_floats[0], depth, equal_nan=True)
    for i, (color, _, _) in enumerate(pairs):
        single = upsampler.upsample(color, depths[i, 0].numpy())
        assert single.scale == scale
        np.testing.assert_array_equal(provenance[i, 0].numpy(), single.provenance)
        np.testing.assert_allclose(depth[i, 0].numpy(), single.depth, atol=1e-5)


def test_inputs_may_be_views_and_read_only_and_stay_as_they_are():
    color, depth, hole = noisy_pair()
    depth[hole] = 0
    expected = make().upsample(color, depth)
    color_view, depth_view = color[::-1].copy()[::-1], np.asfortranarray(depth).astype(np.float64)
    for array in (color_view, depth_view):
        array.flags.writeable = False  # as images from files and messages are
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(make().upsample(color_view, depth_view).depth, expected.depth)
        color.flags.writeable = depth.flags.writeable = False
        np.testing.assert_array_equal(make().upsample(color, depth).depth, expected.depth)


def test_bfloat16_is_close_to_float32():
    torch.manual_seed(0)
    model = D2A2Lite(channels=8, blocks=1)
    color, depth, _ = noisy_pair()
    exact = make(model, precision="float32").upsample(color, depth).depth
    rough = make(model, precision="bfloat16").upsample(color, depth).depth
    assert rough.dtype == np.float32
    assert 0 < np.abs(rough - exact).max() < 0.1


def test_bad_images_are_named():
    color, depth = gray(16, 16), np.ones((4, 4), np.float32)
    for bad_color in (color[..., 0], color[..., :2], color.astype(np.float32), color.transpose(2, 0, 1)):
        with pytest.raises(ValueError, match=r"expected color \(H, W, 3\) uint8 RGB, got \("):
            make().upsample(bad_color, depth)
    with pytest.raises(ValueError, match=r"uint16; divide millimetres by 1000"):
        make().upsample(color, np.full((4, 4), 1500, np.uint16))
    for bad_depth in (depth[None], depth[0], depth > 0):
        with pytest.raises(ValueError, match=r"expected depth \(h, w\) float metres"):
            make().upsample(color, bad_depth)


@pytest.mark.parametrize("lr_size", [(65, 16), (16, 65), (400, 400), (4, 0), (0, 0)], ids=str)
def test_depth_far_larger_than_colour_or_empty_is_refused(lr_size):
    with pytest.raises(ValueError, match="expected 1/4 to 32 along each axis") as caught:
        make().upsample(gray(16, 16), np.ones(lr_size, np.float32))
    assert caught.value.code == "size_ratio"


@pytest.mark.parametrize("size", [(0, 16), (16, 0), (0, 0)], ids=str)
def test_an_empty_colour_image_is_refused(size):
    with pytest.raises(ValueError, match="expected 1/4 to 32 along each axis"):
        make().upsample(gray(*size), np.ones((4, 4), np.float32))


@pytest.mark.parametrize("lr_size", [(17, 16), (16, 17), (40, 40), (64, 64), (64, 8), (21, 37)], ids=str)
def test_depth_larger_than_colour_is_reduced_each_surface_by_itself(lr_size):
    """Near to the left, far to the right, a hole between: where a colour pixel sees one of them alone, it keeps it."""
    depth = np.full(lr_size, 1.0, np.float32)
    x = (np.arange(lr_size[1]) + 0.5) / lr_size[1]
    depth[:, x > 0.4] = np.nan
    depth[:, x > 0.7] = 4.0
    result = make(max_fill_px=0.0).upsample(gray(16, 16), depth)
    left, right = result.depth[:, :3], result.depth[:, 14:]
    np.testing.assert_allclose(left, 1.0, atol=1e-5)
    np.testing.assert_allclose(right, 4.0, atol=1e-5)
    assert np.isnan(result.depth[:, 8:10]).all()


def test_ratio_above_32_is_refused():
    with pytest.raises(ValueError, match=r"ratio of 8 x 33"):
        make().upsample(gray(66, 16), np.ones((2, 2), np.float32))


class Corner(Bilinear):
    """Adds to each pixel how far it is from the upper left corner, a hundredth at most: an error that depends on the view."""

    def forward(self, guide, lr):
        plain = super().forward(guide, lr)
        y, x = (torch.linspace(0, 0.005, n) for n in plain.shape[-2:])
        return plain + (y[:, None] + x)


@pytest.mark.parametrize("size", [(32, 32), (24, 40), (21, 34)], ids=str)
def test_an_ensemble_averages_out_what_depends_on_the_view(size):
    color, (rows, cols) = gray(*size), (-(-n // 4) for n in size)
    depth = np.linspace(1, 2, rows * cols, dtype=np.float32).reshape(rows, cols)
    plain = make().upsample(color, depth).depth
    once = make(Corner(), scale=4).upsample(color, depth).depth - plain
    assert once.max() - once.min() > 0.008
    for views in (2, 4, 8):
        error = make(Corner(), scale=4, ensemble=views).upsample(color, depth).depth - plain
        np.testing.assert_allclose(error, error.mean(), atol=1e-4)


@pytest.mark.parametrize("trust", [False, True], ids=["plain", "trust"])
def test_an_ensemble_of_a_real_network_does_not_depend_on_the_view(trust):
    torch.manual_seed(0)
    model = D2A2Lite(channels=8, blocks=1, trust=trust)
    torch.nn.init.normal_(model.detail[4].weight, std=0.1)
    upsampler = make(model, precision="float32", ensemble=8)
    color, depth, _ = noisy_pair(
        (36, 48), (9, 12)
    )  # whole cells: what sticks out is on the right and below in every view
    expected = upsampler.upsample(color, depth).depth
    for turns in range(4):
        for flip in (lambda x: x, np.fliplr):
            view = upsampler.upsample(np.rot90(flip(color), turns), np.rot90(flip(depth), turns)).depth
            np.testing.assert_allclose(view, np.rot90(flip(expected), turns), atol=2e-5)
    upsampler.ensemble = 1
    turned = upsampler.upsample(np.rot90(color), np.rot90(depth)).depth
    assert np.nanmax(np.abs(turned - np.rot90(upsampler.upsample(color, depth).depth))) > 1e-3


def test_a_result_out_of_float16s_range_is_computed_again_in_float32():
    class Large(Bilinear):
        def forward(self, guide, lr):
            a = torch.full((8, 8), 200.0)
            return super().forward(guide, lr) * ((a @ a) / 320_000).mean()  # inf in float16

    color, depth = gray(16, 16), np.linspace(1, 2, 16, dtype=np.float32).reshape(4, 4)
    full = make(Large(), precision="float32")
    # choose_runtime refuses float16 on a CPU, which has it all the same.
    half = DepthUpsampler(TorchRuntime(Large(), "cpu", "float16"))
    expected = full.upsample(color, depth).depth
    assert np.isfinite(expected).all()
    np.testing.assert_array_equal(half.upsample(color, depth).depth, expected)


def test_bad_options_are_named():
    with pytest.raises(ValueError, match="torch needs a GPU for float16; use precision 'auto'"):
        make(precision="float16")
    with pytest.raises(ValueError, match="precision must be 'auto' or one of"):
        make(precision="half")
    with pytest.raises(ValueError, match="device 'gpu' is unknown"):
        DepthUpsampler.from_module(Bilinear(), "gpu")
    with pytest.raises(ValueError, match=r"scale 5 was asked for, but these weights are for \(4, 8\)"):
        make(Bilinear((4, 8)), scale=5)
    with pytest.raises(ValueError, match="does not say which ones it is for; got 0; name one"):
        make(Bilinear(()))
    with pytest.raises(ValueError, match=r"ensemble must be one of \(1, 2, 4, 8\), got 3"):
        make(ensemble=3)


def test_missing_gpu_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ValueError, match="finds 0 GPUs"):
        DepthUpsampler.from_module(Bilinear(), "cuda:0")
    with pytest.raises(ValueError, match="cannot run"):
        DepthUpsampler.from_module(Bilinear(), "meta")
    assert DepthUpsampler.from_module(Bilinear(), "auto").device.type == "cpu"


def test_from_pretrained(tmp_path):
    torch.manual_seed(0)
    model = D2A2Lite((4, 8), channels=8, blocks=1).eval()
    save_weights(tmp_path / "tiny.safetensors", model, {})
    upsampler = DepthUpsampler.from_pretrained(tmp_path / "tiny.safetensors", "cpu", max_fill_px=3, scale=8)
    assert (upsampler.scales, upsampler.scale, upsampler.max_fill_px) == ((4, 8), 8, 3)
    color, depth, _ = noisy_pair()
    np.testing.assert_array_equal(
        upsampler.upsample(color, depth).depth, make(model, scale=8).upsample(color, depth).depth
    )
    with pytest.raises(WeightsError, match="no weights 'none-such'"):
        DepthUpsampler.from_pretrained("none-such")
