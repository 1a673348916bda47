"""Sigma: the loss, features and files of the head, its training on known noise, and the coverage of the head that ships."""

import importlib.util
import json
import sys
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch import nn

from d2a2_core import cli
from d2a2_core.calibration import sigma
from d2a2_core.calibration.cases import Case, cases, recording_pipeline
from d2a2_core.calibration.reliability import Reliability, near_edges
from d2a2_core.calibration.reliability_plot import reliability_plot
from d2a2_core.calibration.sigma import fit, sample_pixels
from d2a2_core.data.scene_sources import ShapeScenes
from d2a2_core.network.sigma_head import FEATURES, SigmaHead, cell_distance, pinball, sigma_features
from d2a2_core.upsampler import DepthUpsampler
from d2a2_core.weights import DEFAULT_WEIGHTS, PRETRAINED, WeightsError, list_pretrained, sha256
from d2a2_core.weights.sidecars import SIGMA, load_sigma_head, save_sigma_head
from d2a2_core.weights.zoo import checksums


def noisy_plane(rng, noise_m: float, scale: int = 4, size=(96, 128)) -> Case:
    """A slanted wall whose measurements and result have independent Gaussian noise of a known size."""
    v, u = np.mgrid[: size[0], : size[1]]
    truth = (2 + 0.001 * u + 0.0005 * v).astype(np.float32)
    cells = truth.reshape(size[0] // scale, scale, size[1] // scale, scale).mean((1, 3))
    lr = (cells + noise_m * rng.standard_normal(cells.shape)).astype(np.float32)
    hr = (truth + noise_m * rng.standard_normal(size)).astype(np.float32)
    return Case(torch.full((1, 3, *size), 0.5), *(torch.from_numpy(d)[None, None] for d in (lr, hr)), truth)


@pytest.fixture(scope="module")
def shipped() -> SigmaHead:
    head = load_sigma_head(DEFAULT_WEIGHTS)
    if head is None:
        pytest.fail(f"{DEFAULT_WEIGHTS} ships without a fitting uncertainty head; run d2a2 calibrate")
    return head


# -- loss and features -------------------------------------------------------------------------------------------------


def test_pinball_known_values():
    assert pinball(torch.tensor([1.0]), 0.68).item() == pytest.approx(0.68)
    assert pinball(torch.tensor([-1.0]), 0.68).item() == pytest.approx(0.32)
    assert pinball(torch.tensor([1.0, -1.0]), 0.68, torch.tensor([3.0, 1.0])).item() == pytest.approx(0.59)
    assert pinball(torch.tensor([2.0, -1.0, 0.0]), 0.68).item() == pytest.approx((1.36 + 0.32) / 3)


def test_pinball_is_least_at_the_quantile():
    values = torch.from_numpy(np.random.default_rng(0).normal(size=4001)).float()
    guesses = torch.linspace(-1, 2, 301)
    best = guesses[torch.stack([pinball(values - guess, 0.68) for guess in guesses]).argmin()]
    assert best == pytest.approx(np.quantile(values.numpy(), 0.68), abs=0.02)


def test_cell_distance_against_scipy():
    valid = torch.from_numpy(np.random.default_rng(2).random((2, 1, 40, 51)) > 0.99)
    for image in valid:
        expected = np.minimum(ndimage.distance_transform_edt(~image[0].numpy()), 12)
        np.testing.assert_allclose(cell_distance(image[None])[0, 0], expected, rtol=1e-6)
    assert (cell_distance(torch.zeros(1, 1, 5, 7, dtype=torch.bool)) == 12).all()


def test_features_measure_what_they_are_named_after():
    rng = np.random.default_rng(0)
    rough = {}
    for noise in (0.002, 0.02):
        case = noisy_plane(rng, noise)
        features = sigma_features(case.guide, case.lr, case.hr)[0]
        rough[noise] = features[FEATURES.index("lr_roughness_image")].mean()
    assert rough[0.02] - rough[0.002] == pytest.approx(np.log(10), abs=0.4)
    hr = torch.full((1, 1, 64, 64), 2.0)
    hr[..., 32:] = 2.5
    features = sigma_features(torch.zeros(1, 3, 64, 64), torch.full((1, 1, 16, 16), 2.0), hr)[0].exp()
    ranges = {side: features[FEATURES.index(f"hr_range_{side}")][8] for side in (4, 12, 28)}
    step = [np.flatnonzero(ranges[side] > 0.4).tolist() for side in (4, 12, 28)]
    assert step == [[], [7, 8], [5, 6, 7, 8, 9, 10]]  # in blocks of 4 pixels; the step lies between 7 and 8
    assert features[FEATURES.index("hr_minus_lr")][8, 12] == pytest.approx(0.5, abs=1e-3)
    # Of a block that the step divides both sides are seen, and the mean.
    hr[..., 30:] = 2.5
    features = sigma_features(torch.zeros(1, 3, 64, 64), torch.full((1, 1, 16, 16), 2.0), hr)[0].exp()
    assert features[FEATURES.index("hr_range_4")][8, 7] == pytest.approx(0.5, abs=1e-3)
    assert features[FEATURES.index("depth")][8, 7] == pytest.approx(2.25, abs=1e-3)


def test_a_batch_is_its_images():
    rng = np.random.default_rng(1)
    a, b = noisy_plane(rng, 0.001), noisy_plane(rng, 0.03)
    b.lr[..., 3:9, 4:12] = torch.nan
    together = sigma_features(*(torch.cat(pair) for pair in ((a.guide, b.guide), (a.lr, b.lr), (a.hr, b.hr))))
    alone = torch.cat([sigma_features(c.guide, c.lr, c.hr) for c in (a, b)])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scale", [4, 8, 16])
@pytest.mark.parametrize("size", [(48, 64), (51, 77), (17, 16), (5, 3)])
def test_any_size_and_scale(size, scale):
    grid = tuple(-(-length // scale) for length in size)
    lr = torch.rand(2, 1, *grid) + 1
    lr[:, :, : grid[0] // 2] = torch.nan
    hr = torch.rand(2, 1, *size) + 1
    hr[..., :2] = torch.nan
    sigma = SigmaHead().predict(torch.rand(2, 3, *size), lr, hr)
    assert sigma.shape == hr.shape
    assert sigma.dtype == torch.float32
    assert torch.equal(torch.isnan(sigma), torch.isnan(hr))
    assert (sigma[torch.isfinite(sigma)] > 0).all()


@pytest.mark.parametrize("known", [False, True])
def test_without_any_measurement_nothing_but_nan_where_depth_is(known):
    hr = torch.full((1, 1, 32, 48), 1.0 if known else torch.nan)
    sigma = SigmaHead().predict(torch.rand(1, 3, 32, 48), torch.full((1, 1, 8, 12), torch.nan), hr)
    assert torch.isfinite(sigma).all() if known else torch.isnan(sigma).all()


def test_sizes_that_do_not_belong_together():
    with pytest.raises(ValueError, match=r"expected lr on the network's grid, ceil\(\(32, 48\) / s\)"):
        SigmaHead().predict(torch.rand(1, 3, 32, 48), torch.rand(1, 1, 7, 12), torch.rand(1, 1, 32, 48))
    with pytest.raises(ValueError, match=r"expected hr of the guide's size \(32, 48\)"):
        SigmaHead().predict(torch.rand(1, 3, 32, 48), torch.rand(1, 1, 8, 12), torch.rand(1, 1, 32, 40))


# -- training ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_training_finds_known_noise():
    """Gaussian errors: 68 % are below 0.994 standard deviations, for each of several noises the head has not seen."""
    rng = np.random.default_rng(3)
    samples = [sample_pixels(noisy_plane(rng, np.exp(rng.uniform(-7, -3))), 1500, rng) for _ in range(40)]
    head = fit(samples, 0, steps=400, batch=2048)
    for noise in (0.002, 0.006, 0.03):
        case = noisy_plane(rng, noise)
        sigma = head.predict(case.guide, case.lr, case.hr)
        reliability = Reliability()
        reliability.add(case, sigma)
        assert 0.6 < reliability.table()["coverage"]["all"] < 0.76
        assert sigma.median().item() == pytest.approx(0.994 * noise, rel=0.25)


def test_reliability_counts():
    truth = np.ones((16, 32), np.float32)
    hr = torch.ones(1, 1, 16, 32)
    hr[..., 16:] = 1.04
    lr = torch.ones(1, 1, 4, 8)
    lr[..., 4:] = torch.nan
    reliability = Reliability()
    reliability.add(Case(torch.zeros(1, 3, 16, 32), lr, hr, truth), torch.full((1, 1, 16, 32), 0.01))
    table = reliability.table()
    assert table["coverage"] == {
        "all": 0.5, "measured": 1.0, "filled": 0.0, "away_from_edges": 0.5, "sensor": 0.5, "x4": 0.5,
    }  # fmt: skip
    assert table["share"]["measured"] == 0.5
    assert len(table["bins"]) == 10


def test_near_edges_are_steps_and_not_slopes():
    truth = np.tile(np.linspace(2, 4, 100, dtype=np.float32), (20, 1))
    assert not near_edges(truth).any()
    truth[:, 50:] += 1
    rows = near_edges(truth)[10]
    assert rows[47:53].all()
    assert not rows[:44].any()
    assert not rows[56:].any()


# -- files -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def weights(tmp_path):
    """A copy of shipped weights, alone."""
    path = tmp_path / "copy.safetensors"
    path.write_bytes((PRETRAINED / f"{DEFAULT_WEIGHTS}.safetensors").read_bytes())
    return path


def test_head_is_loaded_with_its_weights_only(weights):
    assert load_sigma_head(weights) is None
    head = SigmaHead(8)
    nn.init.normal_(head.std)
    save_sigma_head(SIGMA.path(weights), head, {"weights_sha256": sha256(weights)})
    loaded = load_sigma_head(weights)
    assert all(torch.equal(v, loaded.state_dict()[k]) for k, v in head.state_dict().items())
    save_sigma_head(SIGMA.path(weights), head, {"weights_sha256": "of others"})
    with pytest.warns(UserWarning, match="belongs to other weights"):
        assert load_sigma_head(weights) is None


def test_damaged_heads(weights):
    path = SIGMA.path(weights)
    path.write_bytes(b"not a head")
    with pytest.raises(WeightsError, match="not a readable safetensors file"):
        load_sigma_head(weights)
    path.write_bytes(weights.read_bytes())
    with pytest.raises(WeightsError, match="not an uncertainty head"):
        load_sigma_head(weights)
    head = SigmaHead(8)
    head.config["features"] = ["others"]
    save_sigma_head(path, head, {"weights_sha256": sha256(weights)})
    with pytest.raises(WeightsError, match="another version"):
        load_sigma_head(weights)
    head = SigmaHead(8)
    head.config["hidden"] = 9
    save_sigma_head(path, head, {"weights_sha256": sha256(weights)})
    with pytest.raises(WeightsError, match="damaged"):
        load_sigma_head(weights)


def test_heads_are_no_weights():
    assert not [name for name in list_pretrained() if name.endswith("sigma")]


@pytest.mark.slow
def test_command_writes_head_and_plot(tmp_path, weights, capsys):
    plot = tmp_path / "plots" / "reliability.png"
    has_matplotlib = importlib.util.find_spec("matplotlib") is not None
    arguments = f"calibrate --weights {weights} --images 4 --held-out 3 --seed 5 --size 96x64 --steps 20 --device cpu"
    before = checksums()
    assert cli.main([*arguments.split(), *(["--plot", str(plot)] if has_matplotlib else [])]) == 0
    assert "share of errors within it" in capsys.readouterr().out
    card = SIGMA.read_file(SIGMA.path(weights)).card
    assert card["settings"]["seed"] == 5
    assert card["held_out"]["images"] == 3
    assert {"command", "revision", "weights_sha256"} <= set(card)
    assert load_sigma_head(weights) is not None
    if has_matplotlib:
        assert min(Image.open(plot).size) > 300
    assert checksums() == before  # those of the shipped files alone


def test_a_plot_without_matplotlib_is_refused_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(sigma, "cases", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        sigma.calibrate(DEFAULT_WEIGHTS, tmp_path / "head.safetensors", plot=tmp_path / "plot.png")


def test_plot_shows_coverage():
    pytest.importorskip("matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    def table(coverage):
        bins = [{"sigma": 0.01 * 2**i, "error_68": 0.01 * 2**i, "coverage": coverage} for i in range(10)]
        return {"images": 1, "coverage": {"all": coverage}, "share": {"all": 1.0}, "bins": bins}

    heights = []
    for coverage in (0.68, 0.2):
        figure = reliability_plot(table(coverage))
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        panel = figure.axes[1].get_window_extent()
        picture = np.asarray(canvas.buffer_rgba())[:, int(panel.x0) :, :3]
        rows = np.argwhere((picture == (31, 90, 180)).all(-1))[:, 0]
        heights.append((len(picture) - rows.mean() - panel.y0) / panel.height)
    assert heights == pytest.approx([0.68, 0.2], abs=0.01)


# -- the head that ships -----------------------------------------------------------------------------------------------


def test_shipped_head_is_intact_small_and_described(shipped):
    path = SIGMA.path(PRETRAINED / f"{DEFAULT_WEIGHTS}.safetensors")
    assert checksums()[path.name] == sha256(path)
    assert path.stat().st_size < 50e3
    card = SIGMA.read_file(path).card
    assert {"command", "settings", "revision", "held_out", "weights_sha256"} <= set(card)
    for name, coverage in card["held_out"]["coverage"].items():
        assert (0.5 if name == "near_edge" else 0.6) <= coverage <= 0.78, name
    json.dumps(card)


def test_shipped_head_grows_into_holes(shipped):
    """A noisy wall with a round hole: sigma in the middle of the hole exceeds that at its border, and that outside."""
    rng = np.random.default_rng(7)
    case = noisy_plane(rng, 0.003, size=(240, 320))
    v, u = np.mgrid[:60, :80]
    case.lr[0, 0][torch.from_numpy(np.hypot(v - 30, u - 40) < 7)] = torch.nan
    sigma = shipped.predict(case.guide, case.lr, torch.from_numpy(case.truth)[None, None])[0, 0].numpy()
    v, u = np.mgrid[:240, :320]
    distance = 28 - np.hypot(v - 122, u - 162)  # pixels into the hole
    outside, border, inside, middle = (
        np.median(sigma[(distance > lo) & (distance <= hi)]) for lo, hi in ((-60, -30), (0, 6), (10, 16), (22, 28))
    )
    assert outside < border < inside
    assert inside < 1.05 * middle
    assert (sigma > 0).all()


def test_shipped_head_grows_with_noise(shipped):
    rng = np.random.default_rng(8)
    medians = []
    for noise in (0.001, 0.004, 0.016):
        case = noisy_plane(rng, noise, size=(240, 320))
        medians.append(shipped.predict(case.guide, case.lr, torch.from_numpy(case.truth)[None, None]).median().item())
    assert medians[0] < medians[1] < medians[2]


@pytest.mark.slow
def test_shipped_head_covers_held_out_scenes(shipped):
    pipeline = recording_pipeline(DepthUpsampler.from_pretrained(DEFAULT_WEIGHTS, "cpu"), 16.0)
    reliability = Reliability()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Single images lie between 0.1 and 0.9: a scene is as wrong as its camera is off.
        for case in cases(pipeline, ShapeScenes(987_658), 36, 4, [(160, 224)]):
            reliability.add(case, shipped.predict(case.guide, case.lr, case.hr))
    assert 0.6 <= reliability.table()["coverage"]["all"] <= 0.76
