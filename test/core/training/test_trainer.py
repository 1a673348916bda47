"""Training: resuming bit for bit after kill -9, two processes like one, faults that must not cost a checkpoint."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from d2a2_core.data.scenes.generate import Settings, generate
from d2a2_core.network import D2A2Lite, run_views, takes_trust
from d2a2_core.network.deformable import ModulatedDeformConv
from d2a2_core.training.config import make_config, save_config
from d2a2_core.training.losses import reconstruction_loss, rmse_per_image, training_loss
from d2a2_core.training.teacher import Teacher
from d2a2_core.training.trainer import (
    Trainer,
    TrainingError,
    learning_rate_factor,
    train,
)
from d2a2_core.weights import load_weights, read_info

SMALL = {"model": "d2a2-lite", "channels": 8, "blocks": 1, "groups": 4, "context": [8, 8], "detail": 8}
TINY = {
    "model": SMALL | {"scales": [4, 8]}, "data": "shapes", "scales": [4, 8],
    "crop": 32, "batch_size": 4, "steps": 12, "lr": 1e-3, "schedule": "cosine", "warmup": 2, "ema": 0.9, "clip": 1.0,
    "workers": 0, "threads": 1, "validate_every": 6, "validate_batches": 2, "save_every": 2, "log_every": 3,
    "tensorboard": False, "device": "cpu", "range_jitter": 0.5, "misalign": 0.5,
}  # fmt: skip


# For runs whose losses alone are looked at.
UNCHECKED = {"validate_every": 1000, "save_every": 1000}


def tiny(**changes):
    return make_config(overrides=TINY | changes)


def curve(folder):
    """Rows of a run's curve without the times."""
    with open(folder / "curve.csv", newline="") as file:
        return [{k: v for k, v in row.items() if k not in ("seconds", "waited")} for row in csv.DictReader(file)]


def command(config, folder, tmp_path):
    save_config(config, tmp_path / "config.yaml")
    return [
        sys.executable,
        "-m",
        "d2a2_core.cli",
        "train",
        "--out",
        str(folder),
        "--config",
        str(tmp_path / "config.yaml"),
    ]


# The command, killed as by kill -9 within its seventh step.
KILLED = """
import os, signal, sys
from d2a2_core.cli import main
from d2a2_core.training import trainer
loss, calls = trainer.training_loss, []
def killed(*arguments, **options):
    calls.append(arguments)
    if len(calls) == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return loss(*arguments, **options)
trainer.training_loss = killed
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_killed_and_resumed_run_equals_the_uninterrupted_one_bit_for_bit(tmp_path):
    # The curve has a row of step 6 then, which the state of step 4 knows nothing of.
    config = tiny(steps=12, validate_every=6, save_every=4)
    train(config, tmp_path / "whole", quiet=True)
    killed = tmp_path / "killed"
    start = [sys.executable, "-c", KILLED, *command(config, killed, tmp_path)[3:]]
    assert subprocess.run(start, stdout=subprocess.DEVNULL).returncode == -signal.SIGKILL
    assert torch.load(killed / "state.pt", weights_only=True)["step"] == 4
    assert curve(killed)[-1]["step"] == "6"
    # This process's random numbers are those after the whole run: going on must not depend on them.
    train(config, killed, quiet=True)
    assert curve(killed) == curve(tmp_path / "whole")
    a, b = (load_weights(f / "last.safetensors").state_dict() for f in (killed, tmp_path / "whole"))
    assert all(torch.equal(a[k], b[k]) for k in a)


def run_two(config, tmp_path):
    """Trains ``config`` into tmp_path / "two" in two processes, started as a user starts them; fails with where they stand."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    with (tmp_path / "stderr").open("w+") as stderr:
        process = subprocess.Popen(
            start + command(config, tmp_path / "two", tmp_path)[1:],
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"},
        )
        try:
            code = process.wait(300)
        except subprocess.TimeoutExpired:
            code = "still running after five minutes"
            for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
                os.kill(int(child), signal.SIGABRT)  # prints the stacks of its threads
            process.wait()
        stderr.seek(0)
        assert code == 0, f"{code}: {stderr.read()}"


@pytest.mark.slow
def test_two_processes_train_the_same_network_as_one(tmp_path):
    # Averages differ from one process only by rounding and by BatchNorm, which sees half a batch: no gate, no BatchNorm.
    model = {"model": "d2a2", "channels": 8, "blocks": 1, "scale": 4, "gated": False}
    config = tiny(steps=4, ema=0.0, model=model, scales=[4], save_every=4)
    train(config, tmp_path / "one", quiet=True)
    run_two(config, tmp_path)
    one, two = (load_weights(tmp_path / n / "last.safetensors").state_dict() for n in ("one", "two"))
    assert max(float((one[k] - two[k]).abs().max()) for k in one) < 1e-4


@pytest.mark.slow
def test_loss_falls_on_generated_data(tmp_path):
    """Scenes differ more than a few steps gain: compared with the same scenes at a learning rate of zero."""
    losses = []
    for lr in (3e-3, 0.0):
        settings = {"steps": 20, "log_every": 5, "lr": lr, "schedule": "fixed", "misalign": 0.0, "range_jitter": 0.0}
        train(tiny(**settings, **UNCHECKED), tmp_path / str(lr), quiet=True)
        losses.append([float(row["loss"]) for row in curve(tmp_path / str(lr))])
    learnt, start = losses
    assert learnt[-1] < 0.8 * start[-1]


@pytest.mark.slow
def test_measured_share_is_a_share_of_the_loss(tmp_path):
    losses = []
    for share in (0.0, 0.5, 1.0):
        folder = tmp_path / str(share)
        train(tiny(steps=1, log_every=1, sensor=1.0, relative_loss=True, measured_share=share), folder, quiet=True)
        losses.append(float(curve(folder)[0]["loss"]))
    everywhere, half, measured = losses
    assert half == pytest.approx((everywhere + measured) / 2, rel=1e-4)
    assert abs(everywhere - measured) > 1e-3


@pytest.mark.slow
def test_a_teacher_alone_is_learnt_from(tmp_path):
    """With a share of 1 the truth does not count: weights that start as the teacher stay, but for what depends on the view."""
    train(tiny(steps=16, lr=3e-3, scales=[4], **UNCHECKED), tmp_path / "before", quiet=True)
    weights = str(tmp_path / "before/last.safetensors")
    start = {"init": weights, "scales": [4], "steps": 4, "lr": 0.0, "warmup": 0, "schedule": "fixed", "log_every": 1}
    start |= UNCHECKED
    losses = {}
    for name, changes in {
        "truth": {},
        "half": {"teacher": weights, "teacher_share": 0.5},
        "teacher": {"teacher": weights, "teacher_share": 1.0},
    }.items():
        train(tiny(**start, **changes), tmp_path / name, quiet=True)
        losses[name] = [float(row["loss"]) for row in curve(tmp_path / name)]
    for truth, half, teacher in zip(losses["truth"], losses["half"], losses["teacher"], strict=True):
        assert teacher < half < truth
        assert teacher < 0.75 * truth
    with pytest.raises(ValueError, match=r"is for scales \[4, 8\], this run trains \[16\] too"):
        Trainer(tiny(model=TINY["model"] | {"scales": [4, 16]}, scales=[4, 16], teacher=weights), tmp_path / "x")


def test_a_teachers_target_is_the_mean_of_its_answers_where_there_is_a_truth(tmp_path):
    train(tiny(steps=2, scales=[4]), tmp_path / "run", quiet=True)
    config = tiny(teacher=str(tmp_path / "run/last.safetensors"), teacher_share=0.25, teacher_views=8)
    batch = {"guide": torch.rand(1, 3, 32, 32), "lr": torch.rand(1, 1, 8, 8), "hr": torch.rand(1, 1, 32, 32)}
    batch["hr"][..., :4, :] = torch.nan
    model = load_weights(tmp_path / "run/last.safetensors").eval()
    expected = 0.75 * batch["hr"] + 0.25 * run_views(model, 8, batch["guide"], batch["lr"])
    target = Teacher(config, torch.device("cpu")).target(batch, 3)
    torch.testing.assert_close(target, expected, equal_nan=True)


@pytest.mark.slow
def test_a_run_leaves_what_is_needed_to_repeat_it(tmp_path):
    config = tiny(steps=6)
    best = train(config, tmp_path, quiet=True)
    assert make_config("paper", tmp_path / "config.yaml") == config
    card = read_info(best).card
    assert card["settings"]["seed"] == 0
    assert {"command", "revision", "torch", "started", "step"} <= set(card)
    assert {"loss", "val_rmse", "bicubic_rmse"} <= set(curve(tmp_path)[-1])


@pytest.mark.slow
def test_the_curve_tells_whether_the_guide_is_looked_at(tmp_path, monkeypatch):
    train(tiny(steps=6), tmp_path / "looks", quiet=True)
    row = curve(tmp_path / "looks")[-1]
    assert row["val_rmse"] != row["unguided_rmse"]
    forward = D2A2Lite.forward
    monkeypatch.setattr(D2A2Lite, "forward", lambda self, guide, lr: forward(self, torch.zeros_like(guide), lr))
    train(tiny(steps=6), tmp_path / "blind", quiet=True)
    row = curve(tmp_path / "blind")[-1]
    assert row["val_rmse"] == row["unguided_rmse"]


@pytest.mark.slow
def test_the_curve_tells_whether_colour_is_aligned(tmp_path, monkeypatch):
    train(tiny(steps=6), tmp_path / "aligns", quiet=True)
    row = curve(tmp_path / "aligns")[-1]
    assert row["val_rmse"] != row["unaligned_rmse"]
    forward = ModulatedDeformConv.forward

    def lost(self, x, features):
        return forward(self, torch.zeros_like(x), features)

    monkeypatch.setattr(ModulatedDeformConv, "forward", lost)
    train(tiny(steps=6), tmp_path / "lost", quiet=True)
    row = curve(tmp_path / "lost")[-1]
    assert float(row["val_rmse"]) == pytest.approx(float(row["unaligned_rmse"]), rel=1e-5)


@pytest.mark.parametrize("has", [False, True])
def test_auto_precision_is_bfloat16_only_where_hardware_has_it(tmp_path, monkeypatch, has):
    monkeypatch.setattr("d2a2_core.training.trainer.has_bfloat16", lambda device: has)
    trainer, seen = Trainer(tiny(precision="auto", steps=1), tmp_path / "run", quiet=True), []
    trainer.model.register_forward_pre_hook(lambda *_: seen.append(torch.is_autocast_enabled("cpu")))
    trainer.run()
    assert set(seen) == {has}


@pytest.mark.parametrize("factor", [0.0, 0.5])
def test_offsets_learn_at_a_rate_of_their_own(tmp_path, factor):
    trainer = Trainer(tiny(offset_lr=factor, warmup=0, schedule="fixed", clip=0.0, steps=1), tmp_path, quiet=True)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.run()
    moved = {name: float((p.detach() - before[name]).abs().max()) for name, p in trainer.model.named_parameters()}
    offsets = max(value for name, value in moved.items() if ".deform.predict." in name)
    others = max(value for name, value in moved.items() if ".deform.predict." not in name)
    assert others == pytest.approx(1e-3, rel=0.01)  # Adam's first step is the learning rate
    assert offsets == pytest.approx(factor * 1e-3, rel=0.01)


def test_not_finite_loss_stops_before_it_reaches_a_checkpoint(tmp_path, monkeypatch):
    trainer = Trainer(tiny(), tmp_path, quiet=True)
    monkeypatch.setattr(
        "d2a2_core.training.trainer.training_loss",
        lambda *inputs: training_loss(*inputs) * (torch.nan if trainer.step == 5 else 1),  # the sixth step
    )
    with pytest.raises(TrainingError, match="not finite"):
        trainer.run()
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 4


def test_not_finite_gradient_with_a_finite_loss_reaches_no_checkpoint(tmp_path):
    trainer = Trainer(tiny(clip=0.0), tmp_path, quiet=True)
    weight = next(trainer.model.parameters())
    weight.register_hook(lambda g: g * torch.nan if trainer.step == 4 else g)  # the fifth step
    with pytest.raises(TrainingError, match="not finite"):
        trainer.run()
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["step"] == 4
    assert all(v.isfinite().all() for v in state["model"].values())


def test_full_disk_keeps_the_previous_checkpoint(tmp_path, monkeypatch):
    trainer = Trainer(tiny(), tmp_path, quiet=True)
    save, calls = torch.save, []

    def full_disk(state, path):
        calls.append(path)
        if len(calls) == 2:
            Path(path).write_bytes(b"half")
            raise OSError(28, "No space left on device")
        save(state, path)

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(TrainingError, match="No space left"):
        trainer.run()
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 2


def test_unreadable_sample_is_named_and_costs_no_checkpoint(tmp_path, monkeypatch):
    from d2a2_core.data.scene_sources import ShapeScenes

    scene = ShapeScenes.scene

    def broken(self, index, crop):
        if index == 20:  # in the sixth batch of four
            raise OSError("RGB/0815.jpg: image file is truncated")
        return scene(self, index, crop)

    monkeypatch.setattr(ShapeScenes, "scene", broken)
    with pytest.raises(TrainingError, match=r"0815\.jpg"):
        train(tiny(), tmp_path, quiet=True)
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 4


def test_other_settings_in_the_same_folder_are_refused(tmp_path):
    train(tiny(steps=2), tmp_path, quiet=True)
    with pytest.raises(TrainingError, match="lr"):
        train(tiny(steps=2, lr=5e-4), tmp_path, quiet=True)


@pytest.mark.slow
def test_averaged_weights_follow_quickly_at_first_and_whole_numbers_are_copied(tmp_path):
    model = {"model": "d2a2", "channels": 8, "blocks": 1, "scale": 4}  # its BatchNorm counts batches
    settings = {"model": model, "scales": [4], "schedule": "fixed", "ema": 0.25, "lr": 1e-2}
    expected = Trainer(tiny(**settings), tmp_path / "start").model.state_dict()
    for step, decay in enumerate((2 / 11, 3 / 12, 0.25), 1):
        train(tiny(**settings, steps=step), tmp_path / "run", quiet=True)
        trained = torch.load(tmp_path / "run/state.pt", weights_only=True)["model"]
        for key, value in trained.items():
            floating = value.is_floating_point()
            expected[key] = decay * expected[key] + (1 - decay) * value if floating else value
    saved = load_weights(tmp_path / "run/last.safetensors").state_dict()
    torch.testing.assert_close(saved, expected)
    assert saved["stage1.mfa.gate.norm.num_batches_tracked"] == 3
    assert not torch.equal(saved["tail1.weight"], trained["tail1.weight"])


@pytest.mark.parametrize("damage", ["key", "bytes"])
def test_a_state_that_cannot_be_read_is_refused_and_says_how_to_go_on(tmp_path, damage):
    train(tiny(steps=2), tmp_path, quiet=True)
    file = tmp_path / "state.pt"
    state = torch.load(file, weights_only=True)
    if damage == "key":
        del state["averaged"]
    torch.save(state, file)
    if damage == "bytes":
        file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(TrainingError, match=r"another version.*init=.*last\.safetensors"):
        train(tiny(steps=2), tmp_path, quiet=True)


@pytest.mark.slow
def test_averaged_weights_as_version_0_1_kept_them_go_on(tmp_path):
    settings = {"schedule": "fixed", "ema": 0.9}
    train(tiny(steps=4, **settings), tmp_path / "whole", quiet=True)
    train(tiny(steps=2, **settings), tmp_path / "old", quiet=True)
    state = torch.load(tmp_path / "old/state.pt", weights_only=True)
    averaged = {k.removeprefix("module."): v for k, v in state["averaged"].items() if k != "n_averaged"}
    torch.save(state | {"averaged": averaged}, tmp_path / "old/state.pt")
    train(tiny(steps=4, **settings), tmp_path / "old", quiet=True)
    a, b = (load_weights(tmp_path / run / "last.safetensors").state_dict() for run in ("whole", "old"))
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_warm_start_from_another_scale(tmp_path):
    first = tiny(steps=2, model={"model": "d2a2", "channels": 8, "blocks": 1, "scale": 4}, scales=[4])
    weights = train(first, tmp_path / "x4", quiet=True)
    second = tiny(model={"model": "d2a2", "channels": 8, "blocks": 1, "scale": 8}, scales=[8], init=str(weights))
    start = Trainer(second, tmp_path / "x8", quiet=True).model.state_dict()
    state = load_weights(weights).state_dict()
    assert all(torch.equal(start[k], state[k]) for k in state)


@pytest.mark.slow
def test_warm_start_of_a_network_with_trust_from_one_without(tmp_path):
    weights = train(tiny(steps=2, model=SMALL, scales=[4], sensor=1.0), tmp_path / "plain", quiet=True)
    second = tiny(steps=2, model=SMALL | {"trust": True}, scales=[4], sensor=1.0, init=str(weights))
    start = Trainer(second, tmp_path / "told", quiet=True).model.eval()
    guide, lr = torch.rand(1, 3, 32, 32), torch.rand(1, 1, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(start(guide, lr), load_weights(weights)(guide, lr))
    trained = load_weights(train(second, tmp_path / "told", quiet=True))
    assert takes_trust(trained)
    assert not torch.equal(trained.joint.doubt, start.joint.doubt)  # its trust reached it
    with pytest.raises(TrainingError, match="do not fit"):
        Trainer(tiny(model=SMALL, scales=[4], init=str(tmp_path / "told/last.safetensors")), tmp_path / "x", quiet=True)


@pytest.mark.slow
def test_warm_start_of_bounded_alignment_from_an_unbounded_one(tmp_path):
    weights = train(tiny(steps=2, model=SMALL, scales=[4]), tmp_path / "before", quiet=True)
    old = load_weights(weights).state_dict()
    second = tiny(steps=2, model=SMALL | {"reach": 4.0}, scales=[4], init=str(weights))
    start = Trainer(second, tmp_path / "after", quiet=True).model.state_dict()
    assert all(torch.equal(start[k], old[k]) for k in old if ".dda." not in k)
    assert not any(start[k].any() for k in start if k.endswith("deform.weight"))
    again = train(second, tmp_path / "after", quiet=True)
    third = Trainer(
        tiny(steps=2, model=SMALL | {"reach": 4.0}, scales=[4], init=str(again)), tmp_path / "third", quiet=True
    )
    kept = load_weights(again).state_dict()
    assert all(torch.equal(v, kept[k]) for k, v in third.model.state_dict().items())  # goes on with its own
    none = tiny(steps=2, model=SMALL | {"geometric": False}, scales=[4], init=str(weights))
    trained = train(none, tmp_path / "none", quiet=True)  # deformable convolutions can be left out, and put back
    back = Trainer(
        tiny(steps=2, model=SMALL | {"reach": 4.0}, scales=[4], init=str(trained)), tmp_path / "back", quiet=True
    )
    before, after = load_weights(trained).state_dict(), back.model.state_dict()
    assert all(torch.equal(after[k], before[k]) for k in before if ".dda." not in k)


@pytest.mark.slow
def test_authors_of_models_are_credited_in_the_weights(tmp_path):
    for name, licence in (("free", "CC0"), ("a", "CC-BY-3.0"), ("b", "CC-BY-3.0")):
        generate(Settings("shapes", 8, (64, 48), seed=1), tmp_path / name)
        manifest = json.loads((tmp_path / name / "manifest.json").read_text())
        models = [{"name": f"{name} chair", "key": "c", "creator": "Ada", "licence": licence}]
        (tmp_path / name / "manifest.json").write_text(json.dumps(manifest | {"models": models}))
    roots = {name: str(tmp_path / name) for name in ("free", "a", "b")}
    config = tiny(steps=2, data="generated", root=",".join(roots.values()))
    card = read_info(train(config, tmp_path / "run", quiet=True)).card
    assert card["credits"] == {"CC-BY-3.0": {"Ada": ["a chair", "b chair"]}}
    config = tiny(steps=2, data="generated", root=roots["free"])
    assert "credits" not in read_info(train(config, tmp_path / "free run", quiet=True)).card


def test_cosine_schedule_known_values():
    config = tiny(steps=102, warmup=2)
    factors = [learning_rate_factor(s, config) for s in (0, 1, 2, 52, 102)]
    np.testing.assert_allclose(factors, [0.5, 1.0, 1.0, 0.5, 0.0], atol=1e-12)


def test_loss_and_rmse_leave_pixels_without_truth_out():
    target = torch.tensor([[[[1.0, torch.nan], [3.0, 4.0]]]])
    prediction = torch.tensor([[[[2.0, 99.0], [3.0, 1.0]]]])
    assert reconstruction_loss(prediction, target).item() == pytest.approx(4 / 3)
    assert reconstruction_loss(prediction, target, 0.5).item() == pytest.approx((1 + 0.5 + 3 + 4.5) / 3)
    assert rmse_per_image(prediction, target) == [pytest.approx((10 / 3) ** 0.5)]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"lr": "fast"}, "lr"),
        ({"colour": 1}, "colour"),
        ({"schedule": "step"}, "schedule"),
        ({"steps": 0}, "steps"),
        ({"ema": 2.0}, "ema"),
        ({"workers": -1}, "workers"),
        ({"scales": [0]}, "scales"),
        ({"model": {"model": "d2a2", "scale": 8}, "scales": [4]}, "scales"),
        ({"model": {"model": "d2a2-lite", "back_projections": 1}, "sensor": 0.5}, "back_projections"),
        ({"measured_share": 0.5, "relative_loss": False}, "share of relative_loss"),
        ({"teacher_views": 9}, "teacher_views"),
        ({"teacher_share": 1.5}, "teacher_share"),
        ({"lr": -1.0}, "'lr' must be at least 0, got -1.0"),
        ({"lr": float("nan")}, "'lr' must be at least 0, got nan"),
        ({"rooms_share": 2.0}, "'rooms_share' must be from 0 to 1, got 2.0"),
    ],
)
def test_wrong_settings_are_named(change, named):
    with pytest.raises(ValueError, match=named):
        make_config(overrides=change)


def test_scales_follow_the_models_own_scale():
    assert make_config(overrides={"model": {"model": "d2a2", "scale": 8}}).scales == (8,)


def test_yaml_file_and_flags_override_the_preset_in_that_order(tmp_path):
    (tmp_path / "c.yaml").write_text("lr: 1e-3\nbatch_size: 2\n")
    config = make_config("lite", tmp_path / "c.yaml", {"batch_size": 16})
    assert (config.lr, config.batch_size, config.crop) == (1e-3, 16, 192)
