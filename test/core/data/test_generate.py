"""Generated folders: scenes by (seed, number), whole or absent whenever the process dies, and readable for training."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from d2a2_core.cli import main
from d2a2_core.data.sampling import TrainingBatches
from d2a2_core.data.scenes.generate import Settings, generate, missing
from d2a2_core.data.scenes.scene_folder import BLOCK, GeneratedPairs, color_path, read_scene, write_preview, write_scene
from d2a2_core.data.scenes.shapes import RGBD
from d2a2_core.training.config import make_config
from d2a2_core.training.sources import training_source, validation_source

SHAPES = Settings("shapes", 6, (48, 40), seed=3)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def content(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.png")}


def test_depth_survives_to_a_sixty_thousandth_of_its_range_and_colour_exactly(tmp_path):
    rng = np.random.default_rng(0)
    scene = RGBD(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8), rng.uniform(0.4, 7.3, (30, 40)).astype(np.float32))
    write_scene(tmp_path, 12, scene)
    read = read_scene(tmp_path, 12)
    np.testing.assert_array_equal(read.color, scene.color)
    assert np.abs(read.depth - scene.depth).max() < 6.9 / 65535
    assert read.depth.dtype == np.float32
    flat = RGBD(scene.color, np.full((30, 40), 2.5, np.float32))
    write_scene(tmp_path, 13, flat)
    np.testing.assert_allclose(read_scene(tmp_path, 13).depth, 2.5, rtol=1e-6)


def test_scenes_depend_on_seed_and_number_alone(tmp_path):
    generate(SHAPES, tmp_path / "a")
    generate(Settings("shapes", 2, (48, 40), seed=3), tmp_path / "b")
    assert generate(SHAPES, tmp_path / "b") == 4  # a longer folder of the same seed
    generate(Settings("shapes", 6, (48, 40), seed=4), tmp_path / "c")
    first, second, third = (content(tmp_path / name) for name in "abc")
    assert len(first) == 12
    assert first == second
    assert all(first[name] != third[name] for name in first)


@pytest.mark.slow
def test_several_processes_make_the_same_folder(tmp_path):
    settings = Settings("shapes", BLOCK + 3, (40, 40), seed=1)
    assert generate(settings, tmp_path / "one") == BLOCK + 3
    assert generate(settings, tmp_path / "two", workers=2) == BLOCK + 3
    assert content(tmp_path / "one") == content(tmp_path / "two")


@pytest.mark.slow
def test_after_a_kill_no_half_scene_counts_and_the_rest_is_made(tmp_path):
    settings = Settings("shapes", 20, (128, 96), seed=8)
    killed = tmp_path / "killed"
    code = f"from d2a2_core.data.scenes.generate import Settings, generate\ngenerate({settings!r}, {str(killed)!r})"
    process = subprocess.Popen([sys.executable, "-c", code])
    while not color_path(killed, 3).exists() and process.poll() is None:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)  # at a moment that nobody chose
    process.wait()
    there = [n for n in range(20) if color_path(killed, n).exists()]
    assert 3 < len(there) < 20
    for number in there:
        assert read_scene(killed, number).depth.shape == (96, 128)
    assert sum(len(missing(settings, killed, block)) for block in range(3)) == 20 - len(there)
    assert generate(settings, killed) == 20 - len(there)
    generate(settings, tmp_path / "whole")
    assert content(killed) == content(tmp_path / "whole")


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux's /proc to see the workers")
@pytest.mark.slow
def test_workers_end_with_the_process_that_started_them(tmp_path):
    """Else they would go on writing, beside those of the same command when it is started again."""
    settings = Settings("shapes", 2 * BLOCK, (640, 480), seed=8)
    script = tmp_path / "script.py"  # spawned workers import it
    script.write_text(
        "from d2a2_core.data.scenes.generate import Settings, generate\n"
        f"if __name__ == '__main__':\n    generate({settings!r}, {str(tmp_path / 'killed')!r}, workers=2)\n"
    )
    process = subprocess.Popen([sys.executable, str(script)])
    while not any((tmp_path / "killed").glob("*.color.png")) and process.poll() is None:
        time.sleep(0.01)
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(workers) >= 2
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    until = time.monotonic() + 30
    while any(_alive(pid) for pid in workers) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(_alive(pid) for pid in workers)
    assert len(list((tmp_path / "killed").glob("*.color.png"))) < 2 * BLOCK  # each had a block to make


def _alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("at", range(4))
def test_a_death_in_the_middle_of_writing_leaves_a_scene_that_does_not_count(tmp_path, monkeypatch, at):
    """The process dies at each of the four steps of writing a scene: both files, both renames."""
    from PIL import Image

    count = 0

    def dying(original):
        def call(*args, **kwargs):
            nonlocal count
            count += 1
            if count == at + 1:
                raise KeyboardInterrupt
            return original(*args, **kwargs)

        return call

    scene = RGBD(np.zeros((8, 8, 3), np.uint8), np.ones((8, 8), np.float32))
    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", dying(Image.Image.save))
        patch.setattr(Path, "replace", dying(Path.replace))
        with pytest.raises(KeyboardInterrupt):
            write_scene(tmp_path, 0, scene)
    assert not color_path(tmp_path, 0).exists()
    write_scene(tmp_path, 0, scene)
    assert names(tmp_path) == ["000000.color.png", "000000.depth.png"]


def test_the_manifest_says_what_is_there(tmp_path):
    generate(SHAPES, tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["settings"] == {
        "kind": "shapes",
        "count": 6,
        "size": [48, 40],
        "seed": 3,
        "furniture": "",
        "licences": ["CC0"],
    }
    assert [scene["number"] for scene in manifest["scenes"]] == list(range(6))
    assert len({tuple(scene["seed"]) for scene in manifest["scenes"]}) == 6
    assert {"command", "revision", "models"} <= manifest.keys()


def test_a_folder_goes_on_with_its_own_settings_only(tmp_path):
    generate(SHAPES, tmp_path)
    with pytest.raises(ValueError, match=r"other settings \(size, seed\)"):
        generate(Settings("shapes", 6, (64, 40), seed=4), tmp_path)
    assert generate(SHAPES, tmp_path) == 0
    with pytest.raises(ValueError, match="scenes must be one of"):
        Settings("gardens", 6, (48, 40), 0)
    with pytest.raises(ValueError, match="need furniture"):
        Settings("rooms", 6, (48, 40), 0)


def test_pairs_are_split_into_whole_blocks_that_stay(tmp_path):
    tiny = RGBD(np.zeros((4, 4, 3), np.uint8), np.ones((4, 4), np.float32))
    settings = Settings("shapes", 100, (32, 32), seed=0)
    (tmp_path / "manifest.json").write_text(json.dumps({"settings": {**settings.__dict__}}))
    for number in range(60):
        write_scene(tmp_path, number, tiny)
    train, held_out = GeneratedPairs(tmp_path, "train"), GeneratedPairs(tmp_path, "val")
    assert held_out.numbers == list(range(32, 40))
    assert sorted(train.numbers + held_out.numbers) == list(range(60))
    for number in range(60, 100):
        write_scene(tmp_path, number, tiny)
    assert GeneratedPairs(tmp_path, "val").numbers == held_out.numbers
    assert len(GeneratedPairs(tmp_path)) == 100
    with pytest.raises(ValueError, match="split"):
        GeneratedPairs(tmp_path, "test")
    with pytest.raises(FileNotFoundError, match=r"manifest\.json"):
        GeneratedPairs(tmp_path / "elsewhere")


def test_the_cache_is_small_and_reads_a_scene_once(tmp_path, monkeypatch):
    import d2a2_core.data.scenes.scene_folder as module

    generate(SHAPES, tmp_path)
    pairs, read = GeneratedPairs(tmp_path, cache=2), []
    monkeypatch.setattr(module, "read_scene", lambda folder, n: read.append(n) or read_scene(folder, n))
    for index in (0, 0, 1, 2, 2, 0):
        assert pairs[index].guide.shape == (40, 48, 3)
    assert read == [0, 1, 2, 0]


@pytest.mark.parametrize("data", ["generated", "mixed"])
def test_training_reads_one_or_several_folders(tmp_path, data):
    for seed in (1, 2):
        generate(Settings("shapes", 4, (80, 64), seed), tmp_path / str(seed))
    root = f"{tmp_path / '1'},{tmp_path / '2'}"
    config = make_config("lite", None, {"data": data, "root": root, "crop": 32, "rooms_share": 0.5, "disparity": 0.3})
    sources = [training_source(config), validation_source(config)]
    first = [TrainingBatches(source, (4, 8), 32, 4, 0)[1] for source in sources]
    again = TrainingBatches(training_source(config), (4, 8), 32, 4, 0)[1]
    for key, value in again.items():
        assert (first[0][key] == value).all()
    assert first[0]["guide"].shape == first[1]["guide"].shape == (4, 3, 32, 32)
    assert (first[0]["guide"] != first[1]["guide"]).any()


def test_the_command(tmp_path, capsys):
    out = tmp_path / "made"
    options = ["generate", "--scenes", "shapes", "--count", "3", "--size", "64x48", "--out", str(out), "--preview"]
    assert main(options) == 0
    assert "3 scenes written" in capsys.readouterr().out
    assert main(options) == 0
    assert "0 scenes written" in capsys.readouterr().out
    scenes = [f"00000{n}.{kind}.png" for n in range(3) for kind in ("color", "depth")]
    assert names(out) == sorted([*scenes, "manifest.json", "preview.png"])
    assert main([*options, "--size", "64"]) == 2
    assert "WIDTHxHEIGHT" in capsys.readouterr().err


def test_the_preview_shows_colour_above_depth(tmp_path):
    from PIL import Image

    generate(SHAPES, tmp_path)
    write_preview(tmp_path, tmp_path / "preview.png", columns=4, rows=2, width=48)
    sheet = np.asarray(Image.open(tmp_path / "preview.png"))
    assert sheet.shape == (2 * 80, 4 * 48, 3)
    np.testing.assert_array_equal(sheet[:40, 48:96], read_scene(tmp_path, 1).color)
    assert not sheet[80:, 96:].any()  # six scenes: the last two places are empty


# -- rendered scenes ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def furniture(tmp_path):
    pytest.importorskip("embreex", reason="rendering needs the extra 'render' (embreex)")
    spec = importlib.util.spec_from_file_location("rooms_tests", Path(__file__).with_name("test_rooms.py"))
    test_rooms = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(test_rooms)
    folder = tmp_path / "furniture"
    folder.mkdir()
    test_rooms.write_archive(folder / "free.sh3f", test_rooms.CC0)
    return folder


@pytest.mark.parametrize("kind", ["rooms", "clutter"])
@pytest.mark.slow
def test_rendered_scenes_are_whole_repeatable_and_credited(tmp_path, furniture, kind):
    settings = Settings(kind, 3, (64, 48), 5, str(furniture))
    generate(settings, tmp_path / "a")
    generate(Settings(kind, 1, (64, 48), 5, str(furniture)), tmp_path / "b")
    generate(settings, tmp_path / "b")  # the room is built again for the scenes that were missing
    assert content(tmp_path / "a") == content(tmp_path / "b")
    for pair in GeneratedPairs(tmp_path / "a"):
        assert np.isfinite(pair.depth).all()
        assert pair.depth.min() > 0.1
        assert pair.depth.max() < 60
        assert pair.guide.std() > 2
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    assert {model["licence"] for model in manifest["models"]} == {"CC0"}
    assert all(model["creator"] == "Somebody" for model in manifest["models"])


def test_clutter_is_close_full_of_edges_and_cut_by_the_border():
    pytest.importorskip("embreex", reason="rendering needs the extra 'render' (embreex)")
    from d2a2_core.data.scenes.clutter import clutter_view, make_clutter
    from d2a2_core.data.scenes.render import render_depth

    intrinsics = np.array([[90.0, 0, 63.5], [0, 90.0, 47.5], [0, 0, 1]])
    edges, border = [], []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        scene = make_clutter([], intrinsics, (96, 128), rng)
        depth = render_depth(scene, intrinsics, clutter_view(scene, rng), 128, 96)
        assert np.isnan(depth).mean() < 0.01
        steps = np.abs(np.diff(depth, axis=1)) > 0.03 * scene.size[0]
        edges.append(steps.mean())
        border.append(steps[0].any() or steps[-1].any())
        assert np.nanmedian(depth) < 2.5 * scene.size[0]
    assert np.mean(edges) > 0.01
    assert np.mean(border) > 0.6
