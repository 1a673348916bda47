"""Scenes made ahead of training: `d2a2 generate` fills a folder (:mod:`d2a2_core.data.scenes.scene_folder`) with them.

A scene is a function of (seed, its number), whatever the number of workers and however often the run was killed.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from tqdm import tqdm

from d2a2_core.data.scenes.scene_folder import BLOCK, color_path, depth_path, read_manifest, write_scene
from d2a2_core.data.scenes.shapes import RGBD, sample_scene
from d2a2_core.files import check_outputs, replacing

KINDS = ("shapes", "rooms", "clutter", "mixed")
_CLUTTER_VIEWS = 2  # of one heap
_MIXED_ROOMS = 0.35  # share of rooms in "mixed", the rest is clutter


@dataclass(frozen=True)
class Settings:
    """What a folder holds. ``kind`` is one of ``KINDS``, ``size`` (W, H), ``furniture`` a folder with the models, of which those
    of the ``licences`` are taken."""

    kind: str
    count: int
    size: tuple[int, int]
    seed: int
    furniture: str = ""
    licences: tuple[str, ...] = ("CC0",)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"scenes must be one of {', '.join(KINDS)}, got {self.kind!r}")
        if self.count < 1 or min(self.size) < 32:
            raise ValueError(
                f"expected a count of at least 1 and a size of at least 32x32, got {self.count}, {self.size}"
            )
        if self.kind != "shapes" and not self.furniture:
            raise ValueError(f"scenes of {self.kind} need furniture, the folder with the models (*.sh3f)")


def generate(settings: Settings, folder: str | Path, workers: int = 1, quiet: bool = False) -> int:
    """Makes what is missing of a folder; returns how many scenes that were.

    Args:
        settings: of the folder; one that is there goes on with the same ones (``count`` may grow).
        folder: made where it is missing.
        workers: processes; 0 and 1 work in this one.
        quiet: no progress bar (there is none anyway where the standard error is no terminal).

    Raises:
        ValueError: the folder holds scenes of other settings, or a manifest.json that is not ours.
        FileExistsError: the folder holds images named like scenes, but no manifest.
        FileNotFoundError: no furniture models. ImportError: rendering needs ``embreex``.
    """
    folder = Path(folder)
    _check_same(settings, folder)
    credits = _credits(settings)
    folder.mkdir(parents=True, exist_ok=True)
    _write_manifest(settings, folder, credits)
    jobs = [(settings, str(folder), b) for b in range(-(-settings.count // BLOCK))]
    jobs = [job for job in jobs if missing(settings, folder, job[2])]
    made = 0
    total = sum(len(missing(settings, folder, job[2])) for job in jobs)
    with tqdm(total=total, desc=settings.kind, unit="scene", disable=True if quiet else None) as progress:
        if workers < 2:
            for job in jobs:
                for _ in _make_block(*job):
                    made += 1
                    progress.update()
            return made
        with multiprocessing.get_context("spawn").Pool(workers, _end_with_parent) as pool:
            for number in pool.imap_unordered(_work, jobs):
                made += number
                progress.update(number)
    return made


def missing(settings: Settings, folder: Path, block: int) -> list[int]:
    """Numbers of the scenes of a block that are not there yet."""
    numbers = range(block * BLOCK, min((block + 1) * BLOCK, settings.count))
    return [n for n in numbers if not color_path(folder, n).exists()]


# -- making ------------------------------------------------------------------------------------------------------------


def _end_with_parent() -> None:
    """Has this worker end when the process that started it is gone: a killed one cannot tell it, and the next would meet it."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        parent.join()
        os._exit(1)  # at once: scenes are written under another name first

    threading.Thread(target=watch, daemon=True).start()


def _work(job: tuple[Settings, str, int]) -> int:
    return sum(1 for _ in _make_block(*job))


def _make_block(settings: Settings, folder: str, block: int) -> Iterator[int]:
    """Makes the missing scenes of a block one by one."""
    wanted = missing(settings, Path(folder), block)
    kind = block_kind(settings, block)
    shared: dict = {}  # the room or heap that several scenes show
    for number in wanted:
        scene = _MAKERS[kind](settings, number, shared)
        write_scene(Path(folder), number, scene)
        yield number


def block_kind(settings: Settings, block: int) -> str:
    """What a block shows: the folder's kind, or one of two at random."""
    if settings.kind != "mixed":
        return settings.kind
    return "rooms" if np.random.default_rng([settings.seed, block, 7]).random() < _MIXED_ROOMS else "clutter"


def _shapes(settings: Settings, number: int, _: dict) -> RGBD:
    width, height = settings.size
    scene = sample_scene(max(settings.size), np.random.default_rng([settings.seed, number]))
    return RGBD(scene.color[:height, :width], scene.depth[:height, :width])


def _room(settings: Settings, number: int, shared: dict) -> RGBD:
    from d2a2_core.data.scenes.rooms import close_view, make_room, random_view

    if "scene" not in shared:
        rng = np.random.default_rng([settings.seed, number // BLOCK, 1])
        shared["scene"] = make_room(
            models_of(settings.furniture, settings.licences), rng, variety=rng.uniform(0.2, 0.8)
        )
    rng = np.random.default_rng([settings.seed, number])
    intrinsics = random_intrinsics(settings.size, rng)
    view = close_view if rng.random() < 0.6 else random_view
    return _shot(
        shared["scene"], intrinsics, lambda: view(shared["scene"], intrinsics, *settings.size, rng), settings, rng
    )


def _clutter(settings: Settings, number: int, shared: dict) -> RGBD:
    from d2a2_core.data.scenes.clutter import clutter_view, make_clutter

    heap = number // _CLUTTER_VIEWS
    if shared.get("heap") != heap:
        rng = np.random.default_rng([settings.seed, heap, 2])
        intrinsics = random_intrinsics(settings.size, rng)
        scene = make_clutter(models_of(settings.furniture, settings.licences), intrinsics, settings.size[::-1], rng)
        shared |= {"heap": heap, "scene": scene, "intrinsics": intrinsics}
    rng = np.random.default_rng([settings.seed, number])
    return _shot(shared["scene"], shared["intrinsics"], lambda: clutter_view(shared["scene"], rng), settings, rng)


_MAKERS = {"shapes": _shapes, "rooms": _room, "clutter": _clutter}


def _shot(scene, intrinsics: np.ndarray, view, settings: Settings, rng: np.random.Generator) -> RGBD:
    """A picture from the first view out of a few whose depth is complete, its exposure set as cameras do."""
    from d2a2_core.data.scenes.render import render, render_depth

    for _ in range(8):
        pose = view()
        depth = render_depth(scene, intrinsics, pose, *settings.size)
        if np.isnan(depth).mean() < 1e-3 and np.nanmin(depth) > 0.12:
            break
    else:
        raise ValueError("no view without holes found in a scene; please report the command with its seed")
    color, depth = render(scene, intrinsics, pose, *settings.size, seed=int(rng.integers(1 << 31)))
    return RGBD(_exposed(color, rng), closed(depth))


def _exposed(color: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Median brightness brought to where cameras bring it, roughly; a little noise."""
    light = (color.astype(np.float32) / 255) ** 2.2
    middle = max(float(np.median(light)), 1e-3)
    light *= np.clip(rng.uniform(0.06, 0.25) / middle, 0.4, 4.0)
    noise = rng.standard_normal(color.shape, np.float32) * np.float32(rng.uniform(0, 2.5))
    return np.clip(255 * np.minimum(light, 1) ** (1 / 2.2) + noise + 0.5, 0, 255).astype(np.uint8)


def closed(depth: np.ndarray) -> np.ndarray:
    """The few pixels whose ray slipped between two triangles get their nearest neighbour's depth."""
    holes = np.isnan(depth)
    if not holes.any():
        return depth
    from scipy.ndimage import distance_transform_edt

    rows, columns = distance_transform_edt(holes, return_distances=False, return_indices=True)
    return depth[rows, columns]


def random_intrinsics(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """(3, 3) K of a camera with 40 to 75 degrees of horizontal view."""
    width, height = size
    f = width / 2 / np.tan(np.radians(rng.uniform(40, 75)) / 2)
    return np.array([[f, 0, (width - 1) / 2], [0, f, (height - 1) / 2], [0, 0, 1.0]])


@lru_cache(maxsize=1)
def models_of(folder: str, licences: tuple[str, ...]) -> list:
    """The models of a folder that have one of the licences; kept, since reading the catalogs takes seconds."""
    from d2a2_core.data.scenes.furniture import find_models

    return find_models(folder, licences)


# -- the folder --------------------------------------------------------------------------------------------------------


def _check_same(settings: Settings, folder: Path) -> None:
    manifest = read_manifest(folder)
    if manifest is None:
        scenes = (path(folder, number) for number in range(settings.count) for path in (color_path, depth_path))
        check_outputs(scenes if folder.exists() else [])
        return
    there = {"licences": ["CC0"]} | manifest["settings"]  # there was no choice once
    now = json.loads(json.dumps(asdict(settings)))
    changed = [k for k in now if k not in ("count", "furniture") and there.get(k) != now[k]]
    if changed:
        raise ValueError(
            f"{folder} holds scenes of other settings ({', '.join(changed)}); go on with the same, or name another"
        )


def _write_manifest(settings: Settings, folder: Path, credits: list[dict]) -> None:
    here = Path(__file__).parent
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True, check=True
        )
        revision = described.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        revision = "unknown (not a git checkout)"
    scenes = [
        {"number": n, "kind": block_kind(settings, n // BLOCK), "seed": [settings.seed, n], "files": color_path(folder, n).name}
        for n in range(settings.count)
    ]  # fmt: skip
    manifest = {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "revision": revision,
        "settings": asdict(settings) | {"furniture": Path(settings.furniture).name},
        "models": credits,
        "scenes": scenes,
    }
    with replacing(folder / "manifest.json") as partial:
        partial.write_text(json.dumps(manifest, indent=1) + "\n")


def _credits(settings: Settings) -> list[dict]:
    if settings.kind == "shapes":
        return []
    return [
        {"name": m.name, "key": m.key, "creator": m.creator, "licence": m.licence}
        for m in models_of(settings.furniture, settings.licences)
    ]
