"""The protocol, the published bicubic figures, and what an evaluation writes."""

import json
import math

import numpy as np
import pytest
from PIL import Image

from d2a2_core.data.sets.benchmarks import Sample, open_dataset
from d2a2_core.evaluation.baselines import FunctionMethod, get_method
from d2a2_core.evaluation.evaluator import (
    COLUMNS,
    evaluate,
    format_summary,
    paper_rmse,
    read_csv,
    summarise,
    write_csv,
)
from d2a2_core.evaluation.protocol import make_case


class NamedSamples(list):
    """Samples as a data set: with a name."""

    def __init__(self, name, samples):
        super().__init__(samples)
        self.name = name


@pytest.fixture
def sample() -> Sample:
    """A 37 x 50 scene of metres with a step, and colours that show it."""
    y, x = np.indices((37, 50), dtype=np.float32)
    depth = 1 + 0.01 * y + (x > 20)
    guide = np.repeat((100 * (x > 20))[..., None], 3, axis=2).astype(np.uint8)
    return Sample("scene", guide, depth.astype(np.float32))


# Means of the development images, as measured independently. The sixth figure of Middlebury x16 is 6.84633; its
# published mean of rounded figures says 6.8464.
BICUBIC = {
    "middlebury": (2.5807, 4.4386, 6.8464),
    "lu": (2.9746, 5.8189, 9.5366),
    "nyuv2": (4.9458, 7.8358, 13.5942),
}


@pytest.mark.parametrize("dataset", BICUBIC)
@pytest.mark.slow
def test_bicubic_gives_the_published_figures(dataset, shared):
    samples = open_dataset(dataset, shared / "data/benchmark_dev")
    for scale, expected in zip((4, 8, 16), BICUBIC[dataset], strict=True):
        (summary,) = summarise(evaluate(samples, get_method("bicubic"), scale))
        assert summary["rmse"] == pytest.approx(expected, abs=1e-4)


def test_case_is_cropped_and_normalised_by_the_chosen_range(sample):
    oracle, deploy = (make_case(sample, 4, mode) for mode in ("oracle", "deploy"))
    assert oracle.truth.shape == (36, 48)
    assert oracle.guide.shape == (36, 48, 3)
    assert oracle.lr.shape == (9, 12)
    assert (oracle.lo, oracle.hi) == (oracle.truth.min(), oracle.truth.max())
    assert (deploy.lr.min(), deploy.lr.max()) == (0, 1)
    np.testing.assert_allclose(oracle.in_unit(oracle.lr), deploy.in_unit(deploy.lr), atol=1e-6)
    reference = Image.fromarray(oracle.truth).resize((12, 9), Image.Resampling.BICUBIC)
    np.testing.assert_allclose(oracle.in_unit(oracle.lr), reference, atol=1e-6)


def test_output_is_not_clamped(sample):
    case = make_case(sample, 4)
    too_far = np.full(case.truth.shape, 1.5, np.float32)
    assert case.restore(too_far).max() > case.hi + 0.1
    with pytest.raises(ValueError, match=r"expected a prediction of \(36, 48\), got \(9, 12\)"):
        case.restore(case.lr)


def test_holes_are_filled_for_the_input_and_not_scored(sample):
    depth = sample.depth.copy()
    depth[5:9, 5:9] = np.nan
    holed = Sample("holed", sample.guide, depth)
    case = make_case(holed, 4)
    assert np.isfinite(case.lr).all()
    assert np.isnan(case.truth).sum() == 16
    (row,) = evaluate([holed], get_method("nearest"), 4)
    assert math.isfinite(row["rmse"])
    nothing = Sample("nothing", sample.guide, np.full_like(depth, np.nan))
    with pytest.raises(ValueError, match="nothing: expected a depth map with at least one valid pixel"):
        make_case(nothing, 4)


def test_holes_of_a_measured_lr_take_the_depth_of_their_colour(sample):
    guide, depth = sample.guide[:36, :48], sample.depth[:36, :48]
    lr = np.where(np.arange(12) < 5, np.float32(1), np.float32(2)) * np.ones(
        (9, 1), np.float32
    )  # colour changes at 5, too
    lr[:, 3:6] = np.nan
    filled = make_case(Sample("measured", guide, depth, lr=lr), 4, "deploy").lr
    np.testing.assert_array_equal(filled[:, 3:6], np.tile(np.float32([0, 0, 1]), (9, 1)))


def test_methods_are_told_what_the_measurements_are_worth(sample):
    lr = np.ones((9, 12), np.float32)
    lr[:, 6:], lr[2:4, 2:4] = 2, np.nan
    seen = []

    class Curious:
        name = "curious"

        def __call__(self, guide, lr, scale, trust=None):
            seen.append(trust)
            return np.zeros(guide.shape[:2], np.float32)

    evaluate([Sample("real", sample.guide[:36, :48], sample.depth[:36, :48], lr=lr)], Curious(), 4)
    np.testing.assert_array_equal(seen[0], np.isfinite(lr))
    small = make_case(Sample("half", sample.guide, sample.depth, lr=lr[::3, ::3]), 4).trust
    expected = np.ones((9, 12), np.float32)
    expected[3:6, 3:6] = 0
    np.testing.assert_array_equal(small, expected)


def test_measured_lr_is_used_instead_of_a_reduction(sample):
    measured = np.full((20, 30), 3, np.float32)
    measured[10:] = 4
    case = make_case(Sample("real", sample.guide, sample.depth, lr=measured), 4, "deploy")
    assert case.lr.shape == (9, 12)
    np.testing.assert_allclose(case.in_unit(case.lr)[[0, -1]], [[3] * 12, [4] * 12], atol=1e-4)


def test_flat_depth_has_a_range(sample):
    flat = Sample("flat", sample.guide, np.full_like(sample.depth, 2))
    (row,) = evaluate([flat], get_method("bicubic"), 4, "deploy")
    assert row["rmse"] == pytest.approx(0, abs=1e-4)


def test_bad_requests(sample):
    with pytest.raises(ValueError, match="range must be one of"):
        make_case(sample, 4, "honest")
    with pytest.raises(ValueError, match="smaller than the scale 64"):
        make_case(sample, 64)


def test_rows_survive_csv_and_summary_means_them(sample, tmp_path):
    better = FunctionMethod("constant", lambda guide, lr, scale: np.full(guide.shape[:2], 0.5, np.float32))
    rows = evaluate(NamedSamples("middlebury", [sample, sample]), better, 4)
    assert tuple(rows[0]) == COLUMNS
    rows[1]["rmse"] = rows[0]["rmse"] + 2
    rows[1]["rel"] = float("nan")
    write_csv(rows, tmp_path / "new" / "rows.csv")
    back = read_csv(tmp_path / "new" / "rows.csv")
    assert back[0]["rmse"] == pytest.approx(rows[0]["rmse"], abs=1e-6)
    (summary,) = summarise(back)
    assert summary["images"] == 2
    assert summary["rmse"] == pytest.approx(rows[0]["rmse"] + 1, abs=1e-6)
    assert summary["rel"] == pytest.approx(rows[0]["rel"], abs=1e-6)  # the mean of what there is
    assert summary["unit"] == "8-bit"
    table = format_summary(rows).splitlines()
    assert len(table) == 2
    assert "1.04" in table[1]  # the paper's D2A2 on Middlebury x4
    assert "1.10" in table[1]  # and its DCTNet


def test_paper_figures():
    assert paper_rmse("D2A2", "nyuv2", 16) == 5.12
    assert paper_rmse("DCTNet", "rgbdd", 8) == 1.74
    assert paper_rmse("D2A2", "rgbdd-real", 4) is None


def test_run_folder_holds_what_the_report_needs(sample, tmp_path, capfd):
    samples = NamedSamples("rgbdd", (Sample(f"s{k}", sample.guide, sample.depth + k, border=2) for k in range(5)))
    rows = evaluate(samples, get_method("nearest"), 4, run_dir=tmp_path, pictures=3)
    assert capfd.readouterr().err == ""  # no progress bar outside a terminal
    assert len(read_csv(tmp_path / "metrics.csv")) == 5
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [shot["image"] for shot in summary["pictures"]] == ["s0", "s2", "s4"]
    assert summary["pictures"][1]["rmse"] == pytest.approx(rows[2]["rmse"])
    (bicubic,) = evaluate(samples[2:3], get_method("bicubic"), 4)
    assert summary["pictures"][1]["bicubic_rmse"] == pytest.approx(bicubic["rmse"])
    for name in ("color", "lr", "bicubic", "pred", "truth", "error"):
        with Image.open(tmp_path / "pictures/s2" / f"{name}.png") as picture:
            assert picture.size == (48, 36)
    assert (tmp_path / "pictures/s2/side_by_side.png").is_file()
