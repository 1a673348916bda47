"""The range of a stream: it stays while it fits, grows at once, shrinks late, and a stray pixel does not set it."""

import math

import pytest
import torch

from d2a2_core.depth import StableRange, valid_range


def frame(lo, hi, size=(90, 160), seed=0):
    """Depth evenly spread over [lo, hi] in random places, a tenth of it missing."""
    generator = torch.Generator().manual_seed(seed)
    count = size[0] * size[1]
    values = torch.linspace(lo, hi, count)[torch.randperm(count, generator=generator)]
    values[torch.rand(count, generator=generator) < 0.1] = math.nan
    return values.view(1, 1, *size)


def ends(found):
    assert found.lo.shape == found.span.shape == (1, 1, 1, 1)
    return found.lo.item(), (found.lo + found.span).item()


def test_first_frame():
    lo, hi = ends(StableRange(margin=0.1).update(frame(1.0, 3.0)))
    assert lo == pytest.approx(0.8, abs=0.01)
    assert hi == pytest.approx(3.2, abs=0.01)


def test_small_changes_change_nothing_where_the_frames_own_range_moves():
    stable, seen, own = StableRange(), set(), set()
    for k in range(40):
        depth = frame(1 + 0.05 * math.sin(k), 3 + 0.08 * math.cos(2 * k), seed=k)
        seen.add(ends(stable.update(depth)))
        own.add(ends(valid_range(depth)))
    assert len(seen) == 1
    assert len(own) == 40


def test_a_stray_pixel_does_not_set_it():
    stable = StableRange()
    calm = ends(stable.update(frame(1.0, 3.0)))
    for value in (0.1, 50.0):
        depth = frame(1.0, 3.0)
        depth[0, 0, 4:6, 5:7] = value
        assert ends(stable.update(depth)) == calm
        assert ends(StableRange().update(depth)) == pytest.approx(calm, abs=0.02)


def test_it_grows_at_once_and_only_on_that_side():
    stable = StableRange(margin=0.1)
    lo, _ = ends(stable.update(frame(1.0, 3.0)))
    grown = ends(stable.update(frame(1.0, 5.0)))
    assert grown[0] == lo
    assert grown[1] == pytest.approx(5.4, abs=0.02)
    nearer = ends(stable.update(frame(0.5, 4.0)))
    assert nearer[1] == pytest.approx(grown[1], rel=1e-6)
    assert nearer[0] == pytest.approx(0.15, abs=0.02)


def test_every_measurement_but_the_rare_ones_is_inside():
    stable = StableRange()
    generator = torch.Generator().manual_seed(0)
    for k in range(60):
        near = 0.3 + 3 * torch.rand(1, generator=generator).item()
        depth = frame(near, near + 0.05 + 4 * torch.rand(1, generator=generator).item(), seed=k)
        normalised = stable.update(depth).normalise(depth)
        assert ((normalised < 0) | (normalised > 1)).float().mean() <= 0.002


def test_it_shrinks_after_patience_to_what_was_seen_meanwhile():
    stable = StableRange(patience=5, margin=0.1)
    wide = ends(stable.update(frame(1.0, 6.0)))
    found = [ends(stable.update(frame(1.0, hi))) for hi in (2.0, 2.5, 2.0, 2.0, 2.0, 2.0)]
    assert found[:4] == [wide] * 4
    assert found[4] == found[5] == pytest.approx((0.85, 2.65), abs=0.01)


def test_one_wide_frame_starts_the_wait_again():
    stable = StableRange(patience=5)
    wide = ends(stable.update(frame(1.0, 6.0)))
    for hi in (2.0, 2.0, 2.0, 2.0, 6.0, 2.0, 2.0, 2.0, 2.0):
        assert ends(stable.update(frame(1.0, hi))) == wide


def test_reset_forgets():
    stable = StableRange()
    stable.update(frame(1.0, 9.0))
    stable.reset()
    assert ends(stable.update(frame(2.0, 3.0))) == ends(StableRange().update(frame(2.0, 3.0)))


def test_frames_of_any_size_and_empty_ones():
    stable = StableRange()
    empty = torch.full((1, 1, 4, 5), math.nan)
    assert ends(stable.update(empty))[0] == 0.0
    first = ends(stable.update(frame(1.0, 3.0)))
    assert ends(stable.update(empty)) == first
    assert ends(stable.update(frame(1.0, 3.0, size=(12, 7)))) == first
    assert ends(stable.update(torch.full((1, 1, 1, 1), 2.0))) == first


@pytest.mark.parametrize("depth", [torch.full((1, 1, 1, 1), 2.0), torch.full((1, 1, 9, 9), 2.0)], ids=["pixel", "flat"])
def test_a_flat_scene_gets_the_smallest_span_around_it(depth):
    found = StableRange(min_span=0.04).update(depth)
    assert ends(found) == pytest.approx((1.98, 2.02))
    assert found.normalise(depth).flatten()[0].item() == pytest.approx(0.5, abs=1e-4)


def test_values_beyond_the_range_are_not_cut_off():
    found = StableRange(quantile=0.0, margin=0.0).update(torch.tensor([[[[1.0, 2.0]]]]))
    assert found.normalise(torch.tensor([0.5, 3.0])).flatten().tolist() == pytest.approx([-0.5, 2.0])


@pytest.mark.parametrize(
    "wrong",
    [{"quantile": 0.5}, {"margin": -0.1}, {"patience": 0},
     {"shrink_below": 1.0}, {"min_span": 0.0}],
    ids=str,
)  # fmt: skip
def test_settings_are_checked(wrong):
    with pytest.raises(ValueError, match="expected"):
        StableRange(**wrong)


def test_a_batch_is_no_stream():
    with pytest.raises(ValueError, match="one image"):
        StableRange().update(torch.ones(2, 1, 3, 3))
