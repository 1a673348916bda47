"""The command line, as a user calls it: results on real formats, and one clear line for every mistake."""

import csv
import json
import re
import runpy
import subprocess
import sys
from dataclasses import fields

import numpy as np
import pytest
import torch
from PIL import Image

from d2a2_core.cli import COMMANDS, main
from d2a2_core.network.d2a2 import D2A2
from d2a2_core.network.lite import D2A2Lite
from d2a2_core.recording import Recording
from d2a2_core.training.ablations import ablation_models
from d2a2_core.training.config import TrainConfig
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


def test_upsample_takes_a_unit_and_says_which_would_do(tmp_path, tiny, capsys):
    Image.fromarray(np.full((32, 48, 3), 90, np.uint8)).save(tmp_path / "a.color.png")
    Image.fromarray(np.full((8, 12), 40_000, np.uint16)).save(tmp_path / "a.depth.png")
    arguments = ["upsample", tmp_path / "a.color.png", tmp_path / "a.depth.png", "--weights", tiny, "--out"]
    assert main([str(a) for a in [*arguments, tmp_path / "wrong"]]) == 0
    assert "is it in tenths of a millimetre? Set depth_unit to 0.0001" in capsys.readouterr().out
    assert main([str(a) for a in [*arguments, tmp_path / "right", "--depth-unit", 0.0001]]) == 0
    assert "median" not in capsys.readouterr().out
    out = np.asarray(Image.open(tmp_path / "right" / "a.depth.png"))
    assert (abs(out.astype(int) - 4000) <= 80).all()
    assert main([str(a) for a in [*arguments, tmp_path / "refused", "--depth-unit", -1]]) == 2


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
    arguments = [
        "upsample",
        tmp_path / "a.color.png",
        tmp_path / "a.depth.png",
        "--out",
        tmp_path / "out",
        "--weights",
        tiny,
    ]
    assert main([str(a) for a in [*arguments, "--color-offset", 3, -2]]) == 0
    provenance = np.asarray(Image.open(tmp_path / "out" / "a.provenance.png"))
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
    root = tmp_path / "data"
    for folder in ("RGB", "Depth"):  # one picture is enough
        source = min((shared / "data/benchmark_dev/Lu" / folder).iterdir())
        (root / "Lu" / folder).mkdir(parents=True)
        (root / "Lu" / folder / source.name).symlink_to(source)

    def errors(*extra):
        path = tmp_path / "rows.csv"
        arguments = [
            "evaluate",
            "--dataset",
            "lu",
            "--root",
            root,
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
    views, two = errors("--weights", tiny, "--ensemble", 2)
    assert (name, views) == ("tiny", "tiny (2 views)")
    assert one != two


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


@pytest.mark.slow
def test_benchmark_of_training_tabulates(capsys):
    model = "{model: d2a2-lite, channels: 8, blocks: 1}"
    assert main(["benchmark", "--training", model, "--crop", "32", "--frames", "2", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert float(out.split("per second")[1].split()[0]) > 0
    assert "peak process memory" in out


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["torch", "auto"])
def test_benchmark_measures_every_stage_of_several_networks_and_sizes(tiny, tmp_path, capsys, runtime):
    file = tmp_path / "speed.json"
    arguments = [
        "benchmark",
        "--size",
        "64x48,96x64",
        "--frames",
        "2",
        "--weights",
        f"{tiny},{tiny}",
        "--device",
        "cpu",
    ]
    assert main([*arguments, "--runtime", runtime, "--cloud", "--json", str(file)]) == 0
    out, rows = capsys.readouterr().out, json.loads(file.read_text())
    assert [row["size"] for row in rows] == ["64x48", "64x48", "96x64", "96x64"]
    for row in rows:
        stages = row["stages"]
        assert {"read", "register", "inspect", "fill", "network", "consistency", "provenance", "cloud"} <= set(stages)
        assert all(stage in out for stage in stages)
        assert row["first_frame"] > 0
        assert row["p99"] >= row["p50"] > stages["network"]["p50"] > 0
        assert row["device"].split("(")[0].strip() in out
    assert main([*arguments, "--runtime", "torch", "--json", str(file)]) == 0  # its own file may be replaced
    file.write_text("mine")
    assert main([*arguments, "--runtime", "torch", "--json", str(file)]) == 2


@pytest.mark.slow
def test_benchmark_refuses_what_it_cannot_measure(tiny, capsys):
    for extra, said in ((["--frames", "0"], "at least 1 frame"), (["--size", "64"], "WIDTHxHEIGHT")):
        assert main(["benchmark", "--weights", str(tiny), *extra]) == 2
        assert said in capsys.readouterr().err


def imported_by(arguments):
    """Names of all modules that Python has imported after `d2a2 ARGUMENTS`."""
    code = f"""
import sys
from d2a2_core.cli import main
try:
    main({arguments!r})
except SystemExit as end:
    assert not end.code
print("modules:", *sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split("modules:")[1].split()


def test_help_lists_all_commands_and_imports_none(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    said = capsys.readouterr().out
    assert all(re.search(rf"^    {name}\s", said, re.MULTILINE) for name in COMMANDS)
    modules = imported_by(["--help"])
    assert "d2a2_core.cli" in modules
    assert not {"torch", "numpy"} & set(modules)
    assert not [name for name in modules if name.startswith("d2a2_core.commands")]


@pytest.mark.parametrize("arguments", [["weights", "list"], ["train"], ["calibrate"], ["generate"], ["report"]])
def test_help_of_commands_whose_options_need_no_network_does_without_torch(arguments):
    modules = imported_by([*arguments, "--help"])
    assert f"d2a2_core.commands.{COMMANDS[arguments[0]][0]}" in modules
    assert "torch" not in modules


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_its_help(monkeypatch, capsys, name):
    monkeypatch.setenv("COLUMNS", "500")  # no line breaks at hyphens
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    assert end.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    assert said.startswith(f"usage: d2a2 {name} ")
    assert COMMANDS[name][1] in said


def test_help_of_train_says_what_each_setting_does(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "500")  # no line breaks at hyphens
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    lines = capsys.readouterr().out
    said = " ".join(lines.split())
    for setting in fields(TrainConfig):
        assert f"--{setting.name.replace('_', '-')} VALUE {setting.metadata['help']} Default: " in said
        assert f"\n{setting.metadata['group']}:\n" in lines
        assert all(choice in setting.metadata["help"] for choice in setting.metadata["choices"]), setting.name


def test_training_page_has_the_settings_as_the_code_says(repo):
    page = (repo / "docs" / "training.md").read_text()
    generate = runpy.run_path(str(repo / "scripts" / "generate_docs.py"))["GENERATED"]["docs/training.md"]
    assert page == generate(page), "docs/training.md is out of date; run: python scripts/generate_docs.py"


@pytest.mark.parametrize(
    ("arguments", "said"), [(["trian"], "invalid choice: 'trian'"), ([], "required: COMMAND"), (["train"], "--out")]
)
def test_a_command_that_is_unknown_or_incomplete_ends_with_usage(capsys, arguments, said):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("usage: d2a2")
    assert said in error


@pytest.mark.parametrize(("raised", "status"), [(KeyboardInterrupt, 130), (BrokenPipeError, 0), (OSError, 2)])
def test_exit_status_of_what_a_command_raises(monkeypatch, raised, status):
    def run(_):
        raise raised

    from d2a2_core.commands import evaluation

    add_options, _ = evaluation.COMMANDS["report"]
    monkeypatch.setitem(evaluation.COMMANDS, "report", (add_options, run))
    assert main(["report", "x"]) == status
