"""The curve of a run: what a resumed run writes again is not there twice; TensorBoard gets figures and pictures."""

import csv

import pytest
import torch

from d2a2_core.training.curve import COLUMNS, Curve


def rows(folder):
    with (folder / "curve.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_rows_after_the_step_a_run_goes_on_from_are_dropped(tmp_path):
    curve = Curve(tmp_path, 0, tensorboard=False)
    for step in (10, 20, 30):
        curve.add({"step": step, "loss": step / 10, "lr": 1e-3})
    with (tmp_path / "curve.csv").open("a") as file:
        file.write(",,\n")  # torn off by a kill
    curve = Curve(tmp_path, 20, tensorboard=False)
    curve.add({"step": 30, "loss": 7.0, "lr": 1e-3, "val_rmse": 0.5})
    assert [(r["step"], r["loss"]) for r in rows(tmp_path)] == [("10", "1.0"), ("20", "2.0"), ("30", "7.0")]
    assert tuple(rows(tmp_path)[0]) == COLUMNS
    curve.show({}, 30)
    curve.close()
    assert not (tmp_path / "tensorboard").exists()


def test_tensorboard_gets_figures_and_pictures(tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    curve = Curve(tmp_path, 0, tensorboard=True)
    curve.add({"step": 5, "loss": 0.25, "lr": 1e-3, "val_rmse": 0.125})
    truth = torch.rand(6, 1, 8, 8)
    truth[0, 0, 0, 0] = torch.nan
    curve.show({"truth": truth, "guide": torch.rand(6, 3, 8, 8)}, 5)
    curve.close()
    seen = events.EventAccumulator(str(tmp_path / "tensorboard"))
    seen.Reload()
    assert [(e.step, e.value) for e in seen.Scalars("val_rmse")] == [(5, 0.125)]
    assert {"truth", "guide"} == {tag.split("/")[0] for tag in seen.Tags()["images"]}
