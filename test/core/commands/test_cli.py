"""The command line, as a user calls it: results on real formats, and one clear line for every mistake."""

import csv
import re

import numpy as np
import pytest
import torch
from PIL import Image

from d2a2_core import D2A2, D2A2Lite
from d2a2_core.cli import main
from d2a2_core.recording import Recording
from d2a2_core.training.ablations import ablation_models
from d2a2_core.weights import load_weights, save_weights


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("w") / "tiny.safetensors"
    save_weights(path, D2A2Lite(channels=8, blocks=1), {"title": "a test"})
    return path


def test_upsample_two_files(tmp_path, tiny):
    Image.fromarray(np.full((32, 48, 3), 90, np.uint8)).save(tmp_path / "a.color.png")
    depth = np.full((8, 12), 2000, np.uint16)
    depth[:, 6:] = 0
    Image.fromarray(depth).save(tmp_path / "a.depth.png")
    out = tmp_path / "out"
    arguments = ["upsample", tmp_path / "a.color.png", tmp_path / "a.depth.png", "--out", out, "--weights", tiny]
    assert main([str(a) for a in [*arguments, "--max-fill-px", 4]]) == 0
    result = np.asarray(Image.open(out / "a.depth.png"))
    assert result.dtype == np.uint16
    assert (abs(result[:, :24].astype(int) - 2000) <= 11).all()
    assert (result[:, 28:] == 0).all()
    provenance = np.asarray(Image.open(out / "a.provenance.png"))
    np.testing.assert_array_equal(np.unique(provenance[:, :24]), [1])
    np.testing.assert_array_equal(np.unique(provenance[:, 24:28]), [3])
    np.testing.assert_array_equal(np.unique(provenance[:, 28:]), [0])


@pytest.mark.parametrize(
    ("moved", "expected"),
    [
        ((4, -3), ["3.9 px to the right|4.0 px to the right|4.1 px to the right", "above", "--color-offset"]),
        ((0, 0), ["less than a pixel"]),
        (None, ["too few depth edges"]),
    ],
)
def test_offset_of_a_recording(tmp_path, repo, capsys, moved, expected):
    sample = Recording(repo / "sample_recording")
    for i in range(0, 24, 3):
        color, depth = sample[i].color, sample[i].depth_mm
        depth = np.full_like(depth, 2000) if moved is None else depth
        Image.fromarray(np.roll(color, (moved or (0, 0))[::-1], (0, 1))).save(tmp_path / f"{i:03}.color.png")
        Image.fromarray(depth).save(tmp_path / f"{i:03}.depth.png")
    assert main(["offset", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert all(re.search(text, said) for text in expected), said


def test_upsample_takes_an_offset_out(tmp_path, tiny):
    Image.fromarray(np.full((32, 48, 3), 90, np.uint8)).save(tmp_path / "a.color.png")
    Image.fromarray(np.full((8, 12), 2000, np.uint16)).save(tmp_path / "a.depth.png")
    arguments = ["upsample", tmp_path / "a.color.png", tmp_path / "a.depth.png", "--out", tmp_path, "--weights", tiny]
    assert main([str(a) for a in [*arguments, "--color-offset", 3, -2]]) == 0
    provenance = np.asarray(Image.open(tmp_path / "a.provenance.png"))
    assert (provenance[:-2, 3:] == 1).all()
    assert (provenance[-2:] == 0).all()
    assert (provenance[:, :3] == 0).all()


@pytest.mark.parametrize(
    ("scale", "middlebury", "lu"), [(4, 2.5807, 2.9746), (8, 4.4386, 5.8189), (16, 6.8463, 9.5366)]
)
@pytest.mark.slow
def test_bicubic_reproduces_the_known_figures(shared, tmp_path, scale, middlebury, lu):
    for dataset, expected in (("middlebury", middlebury), ("lu", lu)):
        path = tmp_path / f"{dataset}.csv"
        arguments = ["evaluate", "--dataset", dataset, "--root", shared / "data/benchmark_dev", "--scale", scale]
        assert main([str(a) for a in [*arguments, "--method", "bicubic", "--csv", path]]) == 0
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert np.mean([float(r["rmse"]) for r in rows]) == pytest.approx(expected, abs=1.01e-4)


@pytest.mark.slow
def test_evaluate_and_report_of_weights(shared, tmp_path, tiny):
    run = tmp_path / "run"
    arguments = ["evaluate", "--dataset", "lu", "--root", shared / "data/benchmark_dev", "--scale", "8"]
    assert (
        main([str(a) for a in [*arguments, "--weights", tiny, "--range", "deploy", "--out", run, "--pictures", 1]]) == 0
    )
    assert main(["report", str(run), "--out", str(tmp_path / "r.html")]) == 0
    assert "RGBD_02" in (tmp_path / "r.html").read_text()


@pytest.mark.slow
def test_evaluate_with_an_ensemble_of_views(shared, tmp_path, tiny):
    def errors(*extra):
        path = tmp_path / "rows.csv"
        arguments = [
            "evaluate",
            "--dataset",
            "lu",
            "--root",
            shared / "data/benchmark_dev",
            "--scale",
            "16",
            "--csv",
            path,
        ]
        assert main([str(a) for a in [*arguments, *extra]]) == 0
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        return rows[0]["method"], [float(row["rmse"]) for row in rows]

    name, one = errors("--weights", tiny)
    views, four = errors("--weights", tiny, "--ensemble", 4)
    assert (name, views) == ("tiny", "tiny (4 views)")
    assert one != four


def test_convert_there_and_back(tmp_path):
    torch.manual_seed(1)
    model = D2A2(8, channels=8, blocks=1)
    save_weights(tmp_path / "a.safetensors", model, {})
    assert main(["convert", str(tmp_path / "a.safetensors"), str(tmp_path / "b.pth")]) == 0
    assert main(["convert", str(tmp_path / "b.pth"), str(tmp_path / "c.safetensors"), "--scale", "8"]) == 0
    back = load_weights(tmp_path / "c.safetensors").state_dict()
    assert all(torch.equal(v, back[k]) for k, v in model.state_dict().items())
    assert all(key.startswith("module.") for key in torch.load(tmp_path / "b.pth", weights_only=True))


def test_ablation_trains_and_tabulates_every_row(tmp_path, capsys):
    settings = {
        "model": "{model: d2a2, scale: 4, channels: 8, blocks: 1}", "data": "shapes", "scales": "4", "crop": "16",
        "batch-size": "2", "steps": "2", "validate-every": "2", "validate-batches": "1", "workers": "0",
        "tensorboard": "false", "device": "cpu",
    }  # fmt: skip
    flags = [a for k, v in settings.items() for a in (f"--{k}", v)]
    assert main(["ablate", "--table", "2", "--out", str(tmp_path), *flags]) == 0
    table = capsys.readouterr().out
    for name in ("baseline", "without MFA", "without DDA", "D2A2"):
        assert name in table
        load_weights(tmp_path / name.replace(" ", "_") / "last.safetensors")
    with (tmp_path / "table2.csv").open(newline="") as file:
        assert len(list(csv.reader(file))) == 5


@pytest.mark.parametrize(("table", "rows"), [(2, 4), (3, 8), (4, 8)])
def test_ablations_are_different_networks(table, rows):
    models = ablation_models(table)
    assert len(models) == rows
    shapes = {
        str(sorted((k, tuple(v.shape)) for k, v in D2A2(channels=8, **o).state_dict().items())) for o in models.values()
    }
    same = 1 if table == 4 else 0  # channel and pixel attention have the same parameters, used differently
    assert len(shapes) >= rows - 2 * same


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["upsample", "nowhere", "--out", "x"], "no recording folder"),
        (["evaluate", "--dataset", "lu", "--root", "nowhere", "--scale", "4", "--method", "bicubic"], "no such folder"),
        (
            ["evaluate", "--dataset", "recording", "--root", "nowhere", "--scale", "4", "--method", "bicubic"],
            "no recording",
        ),
        (
            [
                "evaluate",
                "--dataset",
                "recording",
                "--root",
                "x",
                "--scale",
                "4",
                "--method",
                "jbu",
                "--degrade",
                "mild",
            ],
            "as its camera gave it",
        ),
        (
            ["evaluate", "--dataset", "lu", "--root", "x", "--scale", "4", "--method", "jbu", "--frames", "2"],
            "are for --dataset recording",
        ),
        (
            ["evaluate", "--dataset", "lu", "--root", "x", "--scale", "4", "--method", "jbu", "--ensemble", "4"],
            "are for --weights",
        ),
        (["weights", "info", "nothing"], "no weights 'nothing'"),
        (["train", "--out", "x", "--lr", "fast"], "lr"),
        (["train", "--out", "x", "--preset", "paper"], "root"),
        (["convert", "a.pth", "b.safetensors"], "scale"),
    ],
)
def test_mistakes_are_said_in_one_line(tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "extra",
    [
        [],
        ["--ensemble", "2", "--runtime", "torch"],
        ["--training", "{model: d2a2-lite, channels: 8, blocks: 1}", "--crop", "32"],
    ],
)
@pytest.mark.slow
def test_benchmark_measures_and_tabulates(tiny, capsys, extra):
    arguments = ["benchmark", "--size", "64x48", "--frames", "2", "--weights", str(tiny), "--device", "cpu"]
    assert main([*arguments, *extra]) == 0
    out = capsys.readouterr().out
    assert float(out.split("per second")[1].split()[0]) > 0
    assert "peak process memory" in out
