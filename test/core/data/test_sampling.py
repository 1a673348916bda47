"""Training batches: repeatable from any point, the benchmarks' reduction, and shared between processes."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import distance_transform_edt

from d2a2_core.data.reduction import reduce_depth, resize
from d2a2_core.data.sampling import TrainingBatches, misaligned, random_crop
from d2a2_core.data.scene_sources import (
    DisparityScenes,
    GeneratedScenes,
    MixedScenes,
    PairScenes,
    ShapeScenes,
    random_window,
)
from d2a2_core.data.scenes.shapes import RGBD


@dataclass
class Pair:
    """A pair whose depth and colour both say where each pixel came from."""

    guide: np.ndarray
    depth: np.ndarray
    name: str = "pair"


def traceable(number, size=(40, 50)):
    rows, cols = np.mgrid[: size[0], : size[1]]
    guide = np.stack((rows, cols, np.full(size, number)), axis=-1).astype(np.uint8)
    return Pair(guide, (1 + rows + 100.0 * cols + 10_000 * number).astype(np.float32))


def batches(source=None, seed=5, **options):
    options = {"scales": (4, 8), "crop": 32, "batch_size": 2, **options}
    return TrainingBatches(source or PairScenes([traceable(i) for i in range(6)], 1), seed=seed, **options)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


OPTIONS = {"range_jitter": 0.5, "misalign": 0.5}


@pytest.mark.parametrize("source", [None, ShapeScenes(3)], ids=["pairs", "shapes"])
def test_a_batch_depends_on_seed_and_number_alone(source):
    forward, fresh = batches(source, **OPTIONS), batches(source, **OPTIONS)
    made = [forward[k] for k in range(4)]
    for k in (3, 0, 2, 2):  # another order, a repeat, and from another object
        assert same(made[k], fresh[k])
    assert not same(made[0], made[1])
    assert not same(made[0], batches(source, seed=6, **OPTIONS)[0])


def test_the_global_random_state_has_no_part():
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)
    first = batches(**OPTIONS)[1]
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    assert same(first, batches(**OPTIONS)[1])


def test_workers_make_the_same_batches():
    loader = torch.utils.data.DataLoader(batches(), batch_size=None, sampler=[2, 0], num_workers=1)
    for made, k in zip(loader, (2, 0), strict=True):
        assert same(made, batches()[k])


@pytest.mark.parametrize("world", [2, 4])
def test_processes_share_one_batch(world):
    single = batches(batch_size=4, **OPTIONS)
    ranks = [batches(batch_size=4 // world, rank=rank, world=world, **OPTIONS) for rank in range(world)]
    for k in range(3):
        parts = [rank[k] for rank in ranks]
        assert same({key: torch.cat([p[key] for p in parts]) for key in parts[0]}, single[k])


def test_shapes_and_ranges():
    data, seen = batches(ShapeScenes(0), scales=(4, 8, 16)), set()
    for k in range(12):
        batch = data[k]
        scale = 32 // batch["lr"].shape[-1]
        seen.add(scale)
        assert batch["guide"].shape == (2, 3, 32, 32)
        assert batch["hr"].shape == (2, 1, 32, 32)
        assert batch["lr"].shape == (2, 1, 32 // scale, 32 // scale)
        assert all(value.dtype == torch.float32 for value in batch.values())
        assert batch["guide"].min() >= 0
        assert batch["guide"].max() <= 1
        for hr in batch["hr"]:
            assert hr.min() == 0
            assert hr.max() == pytest.approx(1, abs=1e-6)
    assert seen == {4, 8, 16}


@pytest.mark.parametrize("scale", [4, 8, 16])
def test_lr_is_pillows_bicubic_of_hr(scale):
    data = batches(ShapeScenes(0), scales=(scale,), **OPTIONS)
    for k in range(3):
        batch = data[k]
        for hr, lr in zip(batch["hr"][:, 0].numpy(), batch["lr"][:, 0].numpy(), strict=True):
            expected = Image.fromarray(hr).resize((32 // scale, 32 // scale), Image.Resampling.BICUBIC)
            np.testing.assert_allclose(lr, np.asarray(expected), atol=2e-5)


def test_range_jitter_keeps_depth_inside_and_widens():
    spans = []
    for k in range(10):
        hr = batches(range_jitter=1.0)[k]["hr"]
        assert hr.min() >= -1e-6
        assert hr.max() <= 1 + 1e-5
        spans += [float(np.ptp(image.numpy())) for image in hr]
    assert min(spans) < 0.5 < max(spans)
    assert min(spans) >= 0.25 - 1e-5  # at most four times as wide


def test_flat_depth_gives_no_nan():
    flat = Pair(np.zeros((32, 32, 3), np.uint8), np.full((32, 32), 2.0, np.float32))
    batch = batches(PairScenes([flat], 0))[0]
    assert all(value.isfinite().all() for value in batch.values())


def test_crops_keep_colour_and_depth_together_and_turn_every_way():
    pair, orientations, corners = traceable(2), set(), set()
    for seed in range(80):
        made = random_crop(RGBD(pair.guide, pair.depth), 16, np.random.default_rng(seed))
        rows, cols = made.color[..., 0].astype(int), made.color[..., 1].astype(int)
        np.testing.assert_array_equal(made.depth, (1 + rows + 100.0 * cols + 20_000).astype(np.float32))
        assert made.depth.shape == (16, 16)
        assert np.ptp(rows) == np.ptp(cols) == 15
        steps = (rows[1, 0] - rows[0, 0], rows[0, 1] - rows[0, 0], cols[1, 0] - cols[0, 0], cols[0, 1] - cols[0, 0])
        orientations.add(tuple(int(step) for step in steps))
        corners.add((rows.min(), cols.min()))
    assert len(orientations) == 8
    assert {c[0] for c in corners} >= {0, 24}  # both ends of the range can be drawn
    assert max(c[1] for c in corners) <= 34


def test_every_epoch_visits_every_pair_once_in_another_order():
    source = PairScenes([traceable(i) for i in range(6)], seed=1)
    epochs = [[int(source.scene(6 * e + i, 8).color[0, 0, 2]) for i in range(6)] for e in range(3)]
    assert all(sorted(epoch) == list(range(6)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    assert [int(PairScenes(source.pairs, 1).scene(8, 8).color[0, 0, 2])] == epochs[1][2:3]


def test_misalignment_moves_edges_by_a_few_pixels_at_most():
    depth = np.ones((64, 64), np.float32)
    depth[:, 32:] = 3.0
    for seed in range(10):
        moved = misaligned(depth, np.random.default_rng(seed))
        assert moved.dtype == np.float32
        assert moved.shape == depth.shape
        assert moved.min() >= 1 - 1e-5
        assert moved.max() <= 3 + 1e-5
        np.testing.assert_allclose(moved[:, :16], 1, atol=1e-3)
        np.testing.assert_allclose(moved[:, 48:], 3, atol=1e-3)
    assert (moved != depth).any()


def test_errors():
    with pytest.raises(ValueError, match=r"crop \(36\) must be a multiple of the largest scale \(8\)"):
        batches(crop=36)
    with pytest.raises(ValueError, match="at least one pair"):
        PairScenes([], 0)
    with pytest.raises(ValueError, match=r"pair small is \(20, 50\), smaller than crop 32"):
        batches(PairScenes([Pair(np.zeros((20, 50, 3), np.uint8), np.ones((20, 50), np.float32), "small")], 0))[0]
    with pytest.raises(ValueError, match="method must be one of"):
        resize(np.ones((4, 4), np.float32), (2, 2), "cubic")


def test_holes_in_the_truth_are_refused():
    """One NaN would silently turn a whole batch, and then the weights, into NaN."""
    pair = traceable(0)
    pair.depth[:] = np.where(np.arange(50) % 5 == 0, np.nan, pair.depth)
    with pytest.raises(ValueError, match="invalid"):
        batches(PairScenes([pair], 0))[0]


def test_reduce_depth_drops_the_rest():
    assert reduce_depth(np.ones((35, 50), np.float32), 8).shape == (4, 6)
    np.testing.assert_allclose(reduce_depth(np.full((32, 32), 1.5, np.float32), 8), 1.5, rtol=1e-6)
    ramp = np.tile(np.arange(16, dtype=np.float32), (16, 1))
    np.testing.assert_allclose(reduce_depth(ramp, 4, "area")[0], [1.5, 5.5, 9.5, 13.5])


def test_sensor_batches_are_repeatable_finite_and_in_the_range_of_what_was_measured():
    def batch():
        return TrainingBatches(ShapeScenes(3), (4,), 64, 3, seed=5, sensor=1.0)[2]

    first, again = batch(), batch()
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert torch.isfinite(first["lr"]).all()
    lo, hi = first["lr"].amin(dim=(1, 2, 3)), first["lr"].amax(dim=(1, 2, 3))
    assert torch.allclose(lo, torch.zeros(3), atol=1e-5)
    assert torch.allclose(hi, torch.ones(3), atol=1e-5)
    clean = TrainingBatches(ShapeScenes(3), (4,), 64, 3, seed=5)[2]
    for sharp, seen in zip(clean["guide"], first["guide"], strict=True):  # the same window, its colours degraded
        assert torch.corrcoef(torch.stack((sharp.flatten(), seen.flatten())))[0, 1] > 0.7
    assert (clean["lr"] - first["lr"]).abs().max() > 0.05


def test_windows_keep_colour_and_depth_together_at_every_zoom():
    rows, cols = np.mgrid[:100, :120]
    scene = RGBD(
        np.stack((2 * rows, 2 * cols, 0 * rows), -1).astype(np.uint8), (1 + rows + 1000.0 * cols).astype(np.float32)
    )
    steps = []
    for seed in range(40):
        made = random_window(scene, 32, np.random.default_rng(seed), zoom=0.5)
        assert made.color.shape == (32, 32, 3)
        row, col = (made.depth - 1) % 1000, (made.depth - 1) // 1000
        assert (
            np.abs(made.color[..., 0] / 2 - row).max() <= 1.25
        )  # the mean colour of up to 3 pixels beside a pixel's depth
        assert np.abs(made.color[..., 1] / 2 - col).max() <= 1.25
        steps.append(float(row[-1, 0] - row[0, 0]) / 31)
    assert 5 < sum(step == 1 for step in steps) < 35
    assert 1.9 < max(steps) <= 2.25


def test_generated_scenes_avoid_bare_walls_and_vary_with_every_epoch():
    depth = np.full((120, 160), 2.0, np.float32)
    depth[:, 80:] = 3.0
    source = GeneratedScenes([Pair(np.full((120, 160, 3), 90, np.uint8), depth)], seed=2)
    made = [source.scene(i, 32) for i in range(40)]
    eventful = np.mean([np.ptp(scene.depth) > 0 for scene in made])
    assert eventful > 0.55  # one window has the edge with p of about 0.3, one of four with 0.76
    assert len({scene.color.tobytes() for scene in made}) > 15
    np.testing.assert_array_equal(source.scene(7, 32).depth, made[7].depth)


def test_mixed_scenes_come_from_both_in_the_given_share():
    sources = [PairScenes([traceable(number)], 0) for number in (3, 8)]
    for share in (0.0, 0.3, 1.0):
        mixed = MixedScenes(*sources, share, seed=5)
        first = np.mean([mixed.scene(i, 16).color[0, 0, 2] == 3 for i in range(300)])
        assert first == pytest.approx(share, abs=0.08)
    with pytest.raises(ValueError, match="share"):
        MixedScenes(*sources, 1.5, seed=5)


def test_disparity_turns_depth_around_within_its_range():
    plain = PairScenes([traceable(1)], 0).scene(0, 16)
    turned = DisparityScenes(PairScenes([traceable(1)], 0), 1.0, 0).scene(0, 16)
    np.testing.assert_array_equal(turned.color, plain.color)
    assert (turned.depth.min(), turned.depth.max()) == pytest.approx((plain.depth.min(), plain.depth.max()), rel=1e-6)
    ratio = turned.depth * plain.depth
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-5)
    half = DisparityScenes(PairScenes([traceable(1)], 0), 0.5, 0)
    assert 20 < sum((half.scene(i, 16).depth == plain.depth).all() for i in range(60)) < 40


def test_soft_edges_are_a_few_pixels_wide_and_the_lr_is_of_them():
    """The largest step between neighbours is a part of the whole step, as in benchmark images; without it is all of it."""
    edge = np.ones((64, 64), np.float32)
    edge[:, 32:] = 2.0

    class Edge:
        def scene(self, index, crop):
            return RGBD(np.zeros((64, 64, 3), np.uint8), edge)

    shares = {}
    for soft in (0.0, 1.0):
        batch = TrainingBatches(Edge(), (4,), 64, 8, 0, soft=soft)[0]
        hr = batch["hr"].numpy()
        steps = np.maximum(np.abs(np.diff(hr, axis=-1)).max((1, 2, 3)), np.abs(np.diff(hr, axis=-2)).max((1, 2, 3)))
        shares[soft] = steps / np.ptp(hr, axis=(1, 2, 3))
        for lr, depth in zip(batch["lr"].numpy(), hr, strict=True):
            np.testing.assert_allclose(lr[0], reduce_depth(depth[0], 4), atol=1e-5)
    np.testing.assert_allclose(shares[0.0], 1.0, atol=1e-5)
    assert (shares[1.0] > 0.3).all()
    assert (shares[1.0] < 0.99).all()
    assert np.ptp(shares[1.0]) > 0.2  # from nearly sharp to wide


def test_nothing_is_asked_far_inside_a_sensors_holes(monkeypatch):
    """The target is NaN exactly where no measurement that counts (that is not doubtful) lies within 32 pixels."""

    def half_seen(color, depth, scale, rng, settings):
        lr = np.array(reduce_depth(depth, scale))
        lr[:, 16:] = np.nan  # columns 64 to 127
        return color, lr

    monkeypatch.setattr("d2a2_core.data.sampling.degrade", half_seen)
    batch = TrainingBatches(ShapeScenes(0), (4,), 128, 2, 0, sensor=1.0)[0]
    assert (batch["trust"][..., 16:] == 0).all()
    for hr, trust in zip(batch["hr"][:, 0].numpy(), batch["trust"][:, 0].numpy(), strict=True):
        counts = np.kron(trust == 1, np.ones((4, 4))) > 0
        np.testing.assert_array_equal(np.isfinite(hr), distance_transform_edt(~counts) <= 32)
    clean = TrainingBatches(ShapeScenes(0), (4,), 128, 2, 0)[0]["hr"]
    assert torch.isfinite(clean).all()
