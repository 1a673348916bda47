"""Nothing that we did not write is overwritten or removed, by any command; what we wrote can be replaced or continued."""

import json
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from d2a2_core.cli import main
from d2a2_core.data.sample_recording import write_recording
from d2a2_core.files import check_outputs, replacing
from d2a2_core.network.lite import D2A2Lite
from d2a2_core.network.sigma_head import SigmaHead
from d2a2_core.weights import save_weights, sha256, zoo
from d2a2_core.weights.sidecars import SIGMA, save_sigma_head

MINE = b"what a user made, and has no copy of"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("w") / "tiny.safetensors"
    save_weights(path, D2A2Lite(channels=8, blocks=1, geometric=False), {"title": "a test"})
    return path


@pytest.fixture
def recording(tmp_path):
    folder = tmp_path / "recording"
    folder.mkdir()
    for i in range(2):
        Image.fromarray(np.full((16, 24, 3), 90, np.uint8)).save(folder / f"{i:03}.color.png")
        Image.fromarray(np.full((4, 6), 2000 + i, np.uint16)).save(folder / f"{i:03}.depth.png")
    return folder


def tree(folder):
    """Every path below a folder with what is in it."""
    return {
        str(path.relative_to(folder)): os.readlink(path) if path.is_symlink() else path.is_file() and path.read_bytes()
        for path in folder.rglob("*")
    }


def run(*arguments):
    return main([str(a) for a in arguments])


def link_to_folder(recording, out):
    out.symlink_to(recording)


def hard_links(recording, out):
    out.mkdir()
    for path in recording.iterdir():
        (out / path.name).hardlink_to(path)


def symbolic_links(recording, out):
    out.mkdir()
    for path in recording.iterdir():
        (out / path.name).symlink_to(path)


def another_camera(recording, out):
    out.mkdir()
    (out / "001.depth.png").write_bytes((recording / "000.depth.png").read_bytes())


def folder_of_that_name(recording, out):
    (out / "000.provenance.png").mkdir(parents=True)


def dangling_link(recording, out):
    out.mkdir()
    (out / "000.sigma.png").symlink_to(out / "nowhere")


@pytest.mark.parametrize("make", [link_to_folder, hard_links, symbolic_links, folder_of_that_name])
@pytest.mark.parametrize("extra", [[], ["--overwrite"]], ids=str)
def test_upsample_never_overwrites_the_recording_or_a_folder(tmp_path, recording, tiny, capsys, make, extra):
    make(recording, tmp_path / "out")
    before = tree(tmp_path)
    assert run("upsample", recording, "--out", tmp_path / "out", "--weights", tiny, *extra) == 2
    assert tree(tmp_path) == before
    said = capsys.readouterr().err
    assert f"{tmp_path / 'out'}" in said
    assert "name another" in said


@pytest.mark.parametrize("out", ["", "../recording", "."])
def test_upsample_into_the_recording_itself_is_refused(recording, tiny, monkeypatch, capsys, out):
    monkeypatch.chdir(recording)
    before = tree(recording)
    for extra in ([], ["--overwrite"]):
        assert run("upsample", recording, "--out", out or recording, "--weights", tiny, *extra) == 2
    assert tree(recording) == before
    assert "is the recording itself; its depth images would be lost: name another folder" in capsys.readouterr().err


@pytest.mark.parametrize("make", [another_camera, dangling_link])
def test_upsample_overwrites_others_files_only_when_told(tmp_path, recording, tiny, capsys, make):
    make(recording, tmp_path / "out")
    before = tree(tmp_path)
    command = ("upsample", recording, "--out", tmp_path / "out", "--weights", tiny)
    assert run(*command) == 2
    assert tree(tmp_path) == before
    assert (
        "is there and was not written by this command; name another output, or move it away (or add --overwrite)"
        in (capsys.readouterr().err)
    )
    assert run(*command, "--overwrite") == 0
    assert tree(recording) == {k.removeprefix("recording/"): v for k, v in before.items() if k.startswith("recording/")}


def test_upsample_replaces_its_own_results(tmp_path, recording, tiny):
    command = ("upsample", recording, "--out", tmp_path / "out", "--weights", tiny)
    assert run(*command) == 0
    first = tree(tmp_path / "out")
    assert run(*command) == 0
    assert tree(tmp_path / "out") == first
    # Results beside colour are a recording as well, which is not lost either.
    for path in recording.glob("*.color.png"):
        path.rename(tmp_path / "out" / path.name)
    first = tree(tmp_path / "out")
    assert run("upsample", tmp_path / "out", "--out", tmp_path / "out", "--weights", tiny, "--overwrite") == 2
    pair = tmp_path / "out" / "000.color.png", tmp_path / "out" / "000.depth.png"
    assert run("upsample", *pair, "--out", tmp_path / "out", "--weights", tiny, "--overwrite") == 2
    assert tree(tmp_path / "out") == first


def outputs(tmp_path, tiny):
    """Command (its name and arguments) and the files that it would write."""
    pth = tmp_path / "in.pth"
    torch.save({}, pth)
    mat = tmp_path / "labelled.mat"
    with h5py.File(mat, "w") as file:
        file["images"], file["depths"] = np.zeros((1, 3, 8, 6), np.uint8), np.ones((1, 8, 6), np.float32)
    card, source = tmp_path / "card.yaml", tmp_path / "source.safetensors"
    card.write_text("title: x\n")
    source.write_bytes(tiny.read_bytes())
    out = tmp_path / "out"
    tiny_run = ["--data", "shapes", "--model", "{model: d2a2, scale: 4, channels: 8, blocks: 1}", "--crop", 16,
                "--steps", 1, "--batch-size", 1, "--workers", 0, "--device", "cpu", "--tensorboard", "false",
                "--validate-batches", 1]  # fmt: skip
    scored = ["evaluate", "--dataset", "lu", "--root", tmp_path, "--scale", 4, "--method", "bicubic"]
    # Never read: the output is checked first.
    for name in ("RGB", "Depth"):
        (tmp_path / "Lu" / name).mkdir(parents=True)
        Image.fromarray(np.zeros((8, 8, 3) if name == "RGB" else (8, 8), np.uint8)).save(tmp_path / f"Lu/{name}/a.png")
    return {
        "report": (["report", tmp_path, "--out", out / "r.html"], ["r.html"]),
        "csv": ([*scored, "--csv", out / "rows.csv"], ["rows.csv"]),
        "evaluate": ([*scored, "--out", out], ["metrics.csv", "summary.json", "pictures/a/pred.png"]),
        "to_safetensors": (["convert", source, out / "a.safetensors"], ["a.safetensors"]),
        "to_pth": (["convert", source, out / "a.pth"], ["a.pth"]),
        "convert_itself": (["convert", out / "a.pth", out / "a.pth", "--scale", 4], ["a.pth"]),
        "export": (["export", out / "a.onnx", "--weights", source, "--scale", 4], ["a.onnx"]),
        "calibrate": (["calibrate", "--weights", source, "--out", out / "s"], ["s"]),
        "plot": (["calibrate", "--weights", source, "--plot", out / "p.png"], ["p.png"]),
        "int8": (["int8", "--weights", source, "--out", out / "i"], ["i"]),
        "over_weights": (["int8", "--weights", source, "--out", source], []),
        "mix": (["weights", "mix", out / "m", "--part", f"{source}=.5", "--part", f"{source}=.5"], ["m"]),
        "prune": (["weights", "prune", out / "p", "--source", source], ["p", "p.sigma.safetensors"]),
        "add": (["weights", "add", "mine", "--source", source, "--card", card], ["mine.safetensors"]),
        "add_outside": (["weights", "add", "../mine", "--source", source, "--card", card], ["../mine.safetensors"]),
        "train": (
            ["train", "--out", out, *tiny_run],
            ["config.yaml", "provenance.json", "curve.csv", "state.pt", "last.safetensors", "best.safetensors"],
        ),
        "ablate": (["ablate", "--table", 2, "--out", out, *tiny_run], ["table2.csv", "baseline/last.safetensors"]),
        "generate": (
            ["generate", "--scenes", "shapes", "--count", 1, "--size", "32x32", "--out", out, "--preview"],
            ["manifest.json", "000000.color.png", "000000.depth.png", "preview.png"],
        ),
        "prepare-nyu": (["prepare-nyu", mat, out], ["NYUv2/RGB/0.jpg", "NYUv2/Depth/0.npy"]),
    }  # fmt: skip


CASES = [
    "report", "csv", "evaluate", "to_safetensors", "to_pth", "convert_itself", "export", "calibrate", "plot", "int8",
    "over_weights", "mix", "prune", "add", "add_outside", "train", "ablate", "generate", "prepare-nyu",
]  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_no_command_overwrites_what_it_did_not_write(tmp_path, tiny, monkeypatch, capsys, case):
    monkeypatch.setattr(zoo, "PRETRAINED", tmp_path / "out")
    monkeypatch.chdir(tmp_path)
    command, names = outputs(tmp_path, tiny)[case]
    places = [tmp_path / "out" / name for name in names] or [tmp_path / "source.safetensors"]
    for place in places:
        if names:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(MINE)
        before = place.read_bytes()
        status = run(*command)
        assert place.read_bytes() == before
        if case != "prepare-nyu":  # which leaves files that are there as they are
            assert status == 2
            said = capsys.readouterr().err
            assert case == "add_outside" or place.name in said
            assert len(said.strip().splitlines()) == 1
        if names:
            place.unlink()


def test_files_of_ours_are_replaced(tmp_path, tiny, monkeypatch):
    monkeypatch.chdir(tmp_path)
    every = outputs(tmp_path, tiny)
    for case in ("evaluate", "csv", "generate"):
        for _ in range(2):
            assert run(*every[case][0]) == 0, case
    (tmp_path / "out" / "page").mkdir()
    for _ in range(2):
        assert run("report", tmp_path / "out", "--out", tmp_path / "out" / "page" / "r.html") == 0
    (tmp_path / "out" / "pictures" / "a" / "notes.txt").write_bytes(MINE)
    assert run(*every["evaluate"][0]) == 0
    (tmp_path / "out" / "pictures" / "a" / "pred.png").write_bytes(MINE)
    assert run(*every["evaluate"][0]) == 2
    assert run(*every["evaluate"][0], "--overwrite") == 0


@pytest.mark.slow
def test_an_exported_file_is_replaced_but_no_sigma_head(tmp_path, tiny, capsys):
    pytest.importorskip("onnx")
    source = tmp_path / "w.safetensors"
    source.write_bytes(tiny.read_bytes())
    save_sigma_head(SIGMA.path(source), SigmaHead(), {"weights_sha256": sha256(source)})
    head = SIGMA.path(source).read_bytes()
    export = ["--weights", source, "--scale", 4, "--size", "32x32"]
    for _ in range(2):
        assert run("export", tmp_path / "other.onnx", *export) == 0
    # Its head would lie where that of the weights lies.
    assert run("export", tmp_path / "w.onnx", *export) == 2
    assert "w.sigma.safetensors is an input, which would be overwritten; name another output" in capsys.readouterr().err
    assert SIGMA.path(source).read_bytes() == head
    assert not (tmp_path / "w.onnx").exists()


def test_a_sidecar_may_be_made_again_but_not_in_the_place_of_another_kind(tmp_path, tiny):
    head = tmp_path / "a.sigma.safetensors"
    save_sigma_head(head, SigmaHead(), {"weights_sha256": sha256(tiny)})
    check_outputs([head], SIGMA.wrote)
    for other in (tiny, tmp_path / "empty"):
        (tmp_path / "empty").touch()
        with pytest.raises(FileExistsError):
            check_outputs([other], SIGMA.wrote)


def test_the_sample_recording_is_not_made_over_a_users_own(tmp_path, recording):
    before = tree(tmp_path)
    with pytest.raises(FileExistsError, match=r"000\.color\.png is there"):
        write_recording(recording, tmp_path, 0, 1)
    assert tree(tmp_path) == before


def test_a_file_under_a_temporary_name_of_ours_is_the_only_one_that_is_removed(tmp_path):
    for name in ("a.txt.partial", "a.txt.tmp", "a.txt~"):
        (tmp_path / name).write_bytes(MINE)
    with replacing(tmp_path / "a.txt") as new:
        new.write_text("new")
    assert tree(tmp_path) == {n: MINE for n in ("a.txt.partial", "a.txt.tmp", "a.txt~")} | {"a.txt": b"new"}


def test_replacing_does_not_write_through_links(tmp_path):
    for name in ("hard", "soft", "stale"):
        (tmp_path / name).write_bytes(MINE)
    (tmp_path / "a").hardlink_to(tmp_path / "hard")
    (tmp_path / "b").symlink_to(tmp_path / "soft")
    with replacing(tmp_path / "c") as new:
        pass_through = Path(new)
        new.write_text("")
    pass_through.symlink_to(tmp_path / "stale")  # left behind under the name that is used next
    for name in "abc":
        with replacing(tmp_path / name) as new:
            new.write_text("new")
    assert {(tmp_path / name).read_bytes() for name in ("hard", "soft", "stale")} == {MINE}
    assert {(tmp_path / name).read_text() for name in "abc"} == {"new"}


@pytest.mark.slow
def test_a_run_that_ended_before_its_first_checkpoint_starts_again(tmp_path, tiny):
    command = outputs(tmp_path, tiny)["train"][0]
    assert run(*command) == 0
    (tmp_path / "out" / "state.pt").unlink()
    assert run(*command) == 0
    manifest = tmp_path / "out" / "provenance.json"
    for damage in (lambda: manifest.write_text(json.dumps([])), manifest.unlink):
        damage()
        assert run(*command) == 2
