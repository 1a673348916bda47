"""The ToF simulation degradation by degradation, and the sample recording that ships with the project."""

import numpy as np
import pytest
from PIL import Image

from d2a2_core.data.sensors.tof import OFF, simulate_tof
from d2a2_core.recording import Recording

SIZE = (30, 40)


def scene(seed: int = 0) -> np.ndarray:
    """A smooth slanted background with a nearer rectangle and NaN patches, (120, 160) metres."""
    v, u = np.mgrid[0:120, 0:160]
    depth = (2.5 + 0.004 * u + 0.002 * v).astype(np.float32)
    depth[33:77, 42:101] = 1.2
    rng = np.random.default_rng(seed)
    depth[rng.random(depth.shape) < 0.1] = np.nan
    depth[90:110, 10:41] = np.nan
    return depth


def tof(depth, seed: int = 0, size=SIZE, **on) -> np.ndarray:
    return simulate_tof(depth, size, np.random.default_rng(seed), **{**OFF, **on})


def edges(depth: np.ndarray) -> np.ndarray:
    """LR pixels within one pixel of the rectangle's outline."""
    near = np.zeros(SIZE, bool)
    near[33 // 4 - 1 : 77 // 4 + 2, 42 // 4 - 1 : 101 // 4 + 2] = True
    near[33 // 4 + 2 : 77 // 4 - 1, 42 // 4 + 2 : 101 // 4 - 1] = False
    return near


def test_all_off_is_the_mean_of_the_cell():
    depth = np.random.default_rng(3).uniform(0.5, 5, (120, 160)).astype(np.float32)
    expected = depth.reshape(30, 4, 40, 4).mean((1, 3))
    np.testing.assert_allclose(tof(depth), expected, rtol=1e-6)
    wide = depth.reshape(15, 8, 80, 2).mean((1, 3))
    np.testing.assert_allclose(tof(depth, size=(15, 80)), wide, rtol=1e-6)


def test_invalid_depth_neither_leaks_nor_shifts_the_mean():
    depth = scene()
    out = tof(depth)
    cells = depth.reshape(30, 4, 40, 4).transpose(0, 2, 1, 3).reshape(30, 40, 16)
    valid = np.isfinite(cells).sum(-1)
    np.testing.assert_array_equal(np.isfinite(out), valid >= 8)
    kept = valid >= 8
    np.testing.assert_allclose(out[kept], np.nanmean(cells[kept], -1), rtol=1e-6)
    everything = simulate_tof(depth, SIZE, np.random.default_rng(0))
    assert np.isnan(everything[24:26, 4:9]).all()  # well inside the invalid patch
    assert np.nanmin(everything) > 1.1
    assert np.nanmax(everything) < 3.5


@pytest.mark.parametrize("z", [1.0, 3.0])
def test_axial_noise_has_the_stated_sigma(z):
    out = tof(np.full((400, 400), z, np.float32), size=(200, 200), noise=(0.002, 0.001))
    sigma = 0.002 + 0.001 * z**2
    assert out.mean() == pytest.approx(z, abs=4 * sigma / 200)
    assert out.std() == pytest.approx(sigma, rel=0.02)


def test_quantisation_steps():
    depth = scene()
    out = tof(depth, quantisation_m=0.01)
    out = out[np.isfinite(out)].astype(np.float64)
    np.testing.assert_allclose(out, np.round(out, 2), atol=1e-6)
    exact = tof(depth)
    assert np.abs(out - exact[np.isfinite(exact)]).max() <= 0.005 + 1e-6


def test_flying_pixels_appear_at_depth_edges_only_and_lie_between_the_surfaces():
    depth = np.full((120, 160), 3.0, np.float32)
    depth[:, 80:] = 1.5  # the edge falls between two cells, so the mean alone has no mixed pixel
    plain, flying = tof(depth), tof(depth, flying_pixels=1.0)
    assert set(np.unique(plain)) == {np.float32(1.5), np.float32(3.0)}
    changed = np.abs(flying - plain) > 1e-4
    assert set(np.nonzero(changed.any(0))[0]) == {19, 20}
    assert ((flying[changed] > 1.5) & (flying[changed] < 3.0)).all()
    # A near surface returns four times the light of one at twice the distance: the mixture leans towards it.
    assert (flying[5:-5, 19] < 0.75 * 3.0 + 0.25 * 1.5).all()
    slanted = np.tile(np.linspace(1, 4, 160, dtype=np.float32), (120, 1))
    np.testing.assert_array_equal(tof(slanted, flying_pixels=1.0), tof(slanted))


def test_mixing_two_surfaces_is_the_argument_of_the_phasor_sum():
    depth = np.full((120, 160), 3.0, np.float32)
    depth[:, 80:] = 1.5
    wave = 0.75 / 9 * np.exp(2j * np.pi * 3 / 15) + 0.25 / 2.25 * np.exp(2j * np.pi * 1.5 / 15)
    expected = np.angle(wave) * 15 / (2 * np.pi)
    np.testing.assert_allclose(tof(depth, flying_pixels=1.0)[10, 19], expected, rtol=1e-5)


def test_lateral_jitter_moves_edges_and_leaves_planes_alone():
    depth = np.full((120, 160), 3.0, np.float32)
    depth[:, 80:] = 1.5
    out = tof(depth, lateral_jitter=0.5)
    changed = (out != tof(depth)).any(0)
    assert changed[19]
    assert changed[20]
    assert not changed[:16].any()
    assert not changed[24:].any()


def test_edge_holes_lie_on_edges_at_the_stated_rate():
    depth = np.full((120, 160), 2.5, np.float32)
    depth[33:77, 42:101] = 1.2
    lost = np.isnan(tof(depth, edge_holes=1.0))
    assert lost.any()
    assert not (lost & ~edges(depth)).any()
    rates = [np.isnan(tof(depth, seed, edge_holes=0.3))[lost].mean() for seed in range(60)]
    assert np.mean(rates) == pytest.approx(0.3, abs=0.04)
    slanted = np.tile(np.linspace(1, 6, 160, dtype=np.float32), (120, 1))  # 12 cm per LR pixel, and no edge
    assert not np.isnan(tof(slanted, edge_holes=1.0)).any()


def test_blob_holes_come_in_the_stated_number():
    plane = np.full((120, 160), 2.0, np.float32)
    areas = [np.isnan(tof(plane, seed, blob_holes=2.0, blob_radius=2.0)).sum() for seed in range(200)]
    # The radii are 2 x uniform(0.4, 1.6) along each axis, so a blob's mean area is pi * 2 * 2; some of it falls outside.
    assert np.mean(areas) == pytest.approx(2 * np.pi * 4, rel=0.25)
    assert min(areas) == 0


def test_dark_holes_lie_on_dark_pixels():
    plane = np.full((120, 160), 2.0, np.float32)
    rgb = np.full((120, 160, 3), 200, np.uint8)
    rgb[:, :80] = 0
    lost = np.isnan(tof(plane, rgb=rgb, dark_holes=1.0))
    assert lost[:, :20].all()
    assert not lost[:, 20:].any()


def test_hexagon_blanks_the_corners_symmetrically():
    valid = np.isfinite(tof(np.full((120, 160), 2.0, np.float32), hexagonal_view=True))
    np.testing.assert_array_equal(valid, valid[::-1])
    np.testing.assert_array_equal(valid, valid[:, ::-1])
    assert not valid[0, 0]
    assert valid[15].all()
    assert valid.mean() == pytest.approx(0.75, abs=0.02)


def test_seed_decides_everything():
    depth = scene()
    rgb = np.random.default_rng(1).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    first, again, other = (simulate_tof(depth, SIZE, np.random.default_rng(s), rgb=rgb) for s in (4, 4, 5))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other, equal_nan=True)
    assert first.dtype == np.float32


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"size": (31, 40)}, "divides"),
        ({"edge_holes": 1.5}, "edge_holes"),
        ({"noise": (-0.1, 0)}, "noise"),
        ({"rgb": np.zeros((3, 3, 3), np.uint8)}, "rgb"),
    ],
)
def test_wrong_arguments_are_named(changes, words):
    with pytest.raises(ValueError, match=words):
        tof(scene(), **changes)


# ---- the sample recording in the repository ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sample(repo) -> Recording:
    folder = repo / "sample_recording"
    if not folder.is_dir():
        pytest.skip(f"no sample recording at {folder}")
    return Recording(folder)


def test_sample_recording_agrees_with_its_calibration(sample):
    assert len(sample) >= 24
    assert sample.registered
    assert sample.rate_hz == 15
    color, depth = sample.calibration["color"], sample.calibration["depth"]
    for kind, entry in (("color.jpg", color), ("depth.png", depth), ("truth.png", color)):
        files = sorted(sample.folder.glob(f"*.{kind}"))
        assert len(files) == len(sample)
        assert {Image.open(f).size for f in files} == {(entry["width"], entry["height"])}
    s = depth["width"] / color["width"]
    k, small = np.reshape(color["K"], (3, 3)), np.reshape(depth["K"], (3, 3))
    np.testing.assert_allclose(small[:2, 2], (k[:2, 2] + 0.5) * s - 0.5)
    np.testing.assert_allclose(np.diag(small)[:2], np.diag(k)[:2] * s)


def test_sample_recording_is_small_and_states_its_terms(sample):
    assert sum(p.stat().st_size for p in sample.folder.iterdir()) <= 6e6
    text = (sample.folder / "README.md").read_text()
    assert "CC0" in text
    assert "d2a2_core.data.sample_recording" in text


def test_sample_depth_is_a_degraded_truth_at_room_range(sample):
    frame = sample[len(sample) // 2]
    truth = np.nanmean(frame.truth.reshape(120, 4, 160, 4), axis=(1, 3))
    error = np.abs(frame.depth - truth)
    assert 0.02 < np.isnan(frame.depth).mean() < 0.25
    assert 0.0005 < np.nanmedian(error) < 0.03
    assert 1.0 < np.nanmedian(frame.truth) < 4.0
