"""The folder of scenes that `d2a2 generate` writes: its files, and reading them for training.

For scene N of `count` it holds

    00000N.color.png    RGB, lossless
    00000N.depth.png    16-bit; metres = offset_m + step_m * value, both in the file's text chunks; the step is the scene's
                        own range / 65535 (below 0.2 mm in rooms), so that crops normalised by their own range show no steps
    manifest.json       settings, command, git revision, the list of scenes with their seeds, the models' credits and licences
    preview.png         contact sheet of the first scenes, with `--preview`

A file gets its name when it is complete, the depth's before the colour's, so a scene counts when its colour is there.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

from d2a2_core.data.scenes.shapes import RGBD
from d2a2_core.documents import check_schema, read_json
from d2a2_core.files import replacing, write_png
from d2a2_core.images import read_image

BLOCK = 8  # scenes that share a room; a block is what a worker makes at a time
_HELD_OUT = (4, 10)  # of ten blocks the fifth is for validation: whole rooms, and the same ones while the folder grows
_LEVELS = 65535


_MANIFEST = {
    "type": "object",
    "required": ["settings"],
    "properties": {
        "settings": {
            "type": "object",
            "required": ["count"],
            "properties": {"count": {"type": "integer", "minimum": 1, "maximum": 10**7}},
        },
        "models": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "creator", "licence"],
                "properties": {key: {"type": "string"} for key in ("name", "creator", "licence")},
            },
        },
    },
}


def read_manifest(folder: str | Path) -> dict[str, Any] | None:
    """A folder's manifest.json, or None where there is none.

    Raises:
        ValueError: `d2a2 generate` did not write it, or it is damaged.
    """
    path = Path(folder) / "manifest.json"
    if not path.exists():
        return None
    manifest = read_json(path)
    check_schema(manifest, _MANIFEST, f"{path} is not as `d2a2 generate` writes it")
    return manifest


def color_path(folder: Path, number: int) -> Path:
    """Where the colour of a scene lies; its depth is beside it."""
    return Path(folder) / f"{number:06d}.color.png"


def depth_path(folder: Path, number: int) -> Path:
    """Where the depth of a scene lies."""
    return Path(folder) / f"{number:06d}.depth.png"


def write_scene(folder: Path, number: int, scene: RGBD) -> None:
    """Writes one scene; the file that makes it count comes into being last and whole."""
    lo, hi = float(scene.depth.min()), float(scene.depth.max())
    step = max(hi - lo, 1e-6) / _LEVELS
    info = PngImagePlugin.PngInfo()
    info.add_text("offset_m", repr(lo))
    info.add_text("step_m", repr(step))
    values = np.round((scene.depth.astype(np.float64) - lo) / step).astype(np.uint16)
    for path, image, options in (
        (depth_path(folder, number), values, {"pnginfo": info}),
        (color_path(folder, number), scene.color, {}),
    ):
        with replacing(path) as partial:
            Image.fromarray(np.ascontiguousarray(image)).save(partial, format="PNG", **options)


def read_scene(folder: Path, number: int) -> RGBD:
    """One scene: color uint8 (H, W, 3), depth float32 metres (H, W).

    Raises:
        ValueError: the depth file was not written by :func:`write_scene`.
    """
    path = depth_path(folder, number)
    image = read_image(path)
    text = getattr(image, "text", {})
    if not {"offset_m", "step_m"} <= set(text):
        raise ValueError(f"{path}: expected a depth PNG with offset_m and step_m, as `d2a2 generate` writes it")
    lo, step = float(text["offset_m"]), float(text["step_m"])
    depth = (np.asarray(image, np.float64) * step + lo).astype(np.float32)
    return RGBD(np.asarray(read_image(color_path(folder, number)).convert("RGB")), depth)


class GeneratedPairs(Sequence):
    """The scenes of a generated folder, read when asked for; items have ``name``, ``guide`` and ``depth``.

    Args:
        folder: written by :func:`d2a2_core.data.scenes.generate.generate`; it may still grow.
        split: "train", "val" (every tenth block of 8 scenes, so whole rooms; of a small folder its last tenth) or "all".
        cache: scenes kept in memory.

    Raises:
        FileNotFoundError: no manifest, or no scene of the split.
        ValueError: the manifest is not one.
    """

    def __init__(self, folder: str | Path, split: str = "all", cache: int = 16) -> None:
        self.folder = Path(folder)
        manifest = read_manifest(folder)
        if manifest is None:
            raise FileNotFoundError(
                f"expected a folder made by `d2a2 generate` at {folder}, found no manifest.json in it"
            )
        count = int(manifest["settings"]["count"])
        there = [n for n in range(count) if color_path(self.folder, n).exists()]
        self.numbers = _split(there, split)
        if not self.numbers:
            raise FileNotFoundError(
                f"{folder} has {len(there)} scenes, none of them for {split!r}; let `d2a2 generate` go on"
            )
        self._cache: OrderedDict[int, GeneratedPair] = OrderedDict()
        self._limit = cache

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> GeneratedPair:
        number = self.numbers[index]
        if number not in self._cache:
            scene = read_scene(self.folder, number)
            self._cache[number] = GeneratedPair(f"{self.folder.name}/{number:06d}", scene.color, scene.depth)
            if len(self._cache) > self._limit:
                self._cache.popitem(last=False)
        return self._cache[number]


@dataclass(frozen=True)
class GeneratedPair:
    """One scene: guide uint8 (H, W, 3), depth float32 metres (H, W)."""

    name: str
    guide: np.ndarray
    depth: np.ndarray


def _split(numbers: list[int], split: str) -> list[int]:
    if split == "all":
        return numbers
    nth, of = _HELD_OUT
    held_out = [n for n in numbers if n // BLOCK % of == nth] or numbers[-max(1, len(numbers) // 10) :]
    if split == "val":
        return held_out
    if split == "train":
        return sorted(set(numbers) - set(held_out))
    raise ValueError(f"split must be 'train', 'val' or 'all', got {split!r}")


def write_preview(folder: str | Path, path: str | Path, columns: int = 4, rows: int = 4, width: int = 320) -> None:
    """A contact sheet of the first scenes of a folder: colour above depth (each in its own range, near is warm)."""
    from d2a2_core.pictures import colorize_depth

    pairs = GeneratedPairs(folder)
    tiles = []
    for i in range(min(columns * rows, len(pairs))):
        pair = pairs[i]
        height = round(width * pair.depth.shape[0] / pair.depth.shape[1])
        picture = colorize_depth(pair.depth, float(pair.depth.min()), float(pair.depth.max()))
        both = [Image.fromarray(p).resize((width, height), Image.Resampling.BOX) for p in (pair.guide, picture)]
        tiles.append(np.vstack([np.asarray(image) for image in both]))
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    sheet = np.vstack([np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)])
    write_png(path, sheet)
