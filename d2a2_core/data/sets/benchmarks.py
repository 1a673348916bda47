"""The benchmark sets of guided depth super-resolution, found by what is there: a part of a set works, and says so.

Layout (that of D2A2's authors); ``root`` is the folder that holds the set's folder, or the set's folder itself:

    NYUv2/{RGB/N.jpg, Depth/N.npy}             float metres; or the official nyu_depth_v2_labeled.mat in its place
    Middlebury/{RGB,Depth}/*.png               8-bit depth units
    Lu/{RGB,Depth}/*.png                       8-bit depth units
    RGBDD/{RGB/*.jpg, Depth/*.png}             uint16 millimetres (the benchmark split, LR made from HR)

``rgbdd-real`` (RGB-D-D with the LR that a phone's ToF camera measured) is found in any folder below ``root`` as
``<id>_RGB.jpg``, ``<id>_HR_gt.png``, ``<id>_LR_fill_depth.png``: the publisher's ``models/models_test/<id>/`` and
``Test/{RGBDD_RGB,RGBDD_GT,RGBDD_LR}/`` both do; plain ``{RGB,Depth,LR}/<id>.*`` too. Paths through a ``train`` or
``*_train`` folder are the training split; ``light*`` folders are not part of the split.

A colour and a depth file belong together when their names agree without a role such as ``_output_color``,
``_output_depth``, ``_RGB``, ``_HR_gt`` (Lu's files really say ``_ouput_color``).
"""

from __future__ import annotations

import re
import tokenize
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from d2a2_core.data.sets import nyu
from d2a2_core.files import files_below
from d2a2_core.images import read_image

# Validation part of NYUv2's first 1000 pairs: 10 of the 50 blocks of 20 consecutive pairs, drawn once with
# sorted(np.random.default_rng(0).permutation(50)[:10]). Whole blocks, because neighbours show the same room.
NYU_VALIDATION_BLOCKS = (2, 3, 4, 18, 20, 23, 24, 26, 34, 36)
# Pinhole (fx, fy, cx, cy) in pixels of the 640x480 colour camera, from NYUv2's own toolbox (camera_params.m).
NYU_INTRINSICS = (518.857901, 519.469611, 325.582449, 253.736166)

# What numpy.load raises: it takes a header for Python, and a file that begins like an archive for one.
_DAMAGED_NPY = (ValueError, EOFError, OSError, SyntaxError, tokenize.TokenError, zipfile.BadZipFile)
_ROLE = re.compile(r"[_-]?(ou?t?put)?[_-]?(colou?r|rgb|depth|hr_gt|lr_fill_depth|gt|lr)$", re.IGNORECASE)


@dataclass(frozen=True)
class Sample:
    """One benchmark pair.

    Attributes:
        name: the depth file's stem.
        guide: (H, W, 3) uint8 RGB.
        depth: (H, W) float32 ground truth in ``unit``; NaN where there is none.
        lr: (h, w) float32 measured LR depth in ``unit`` (NaN = invalid), or None: the protocol makes it from ``depth``.
        unit: "m" or "8-bit".
        metric_factor: what a depth in ``unit`` is multiplied by for the published figures (100: metres to cm).
        border: pixels the protocol cuts from each side before scoring.
        intrinsics: (fx, fy, cx, cy) in pixels of ``depth``, or None where unknown.
    """

    name: str
    guide: np.ndarray
    depth: np.ndarray
    lr: np.ndarray | None = None
    unit: str = "m"
    metric_factor: float = 100.0
    border: int = 0
    intrinsics: tuple[float, float, float, float] | None = None


@dataclass(frozen=True)
class Pair:
    """Where one sample lies."""

    name: str
    guide: Path
    depth: Path
    lr: Path | None = None


@dataclass(frozen=True)
class Spec:
    """What is known about a set: its folder and the number of pairs of each split when complete."""

    folder: str
    expected: dict[str, int]
    unit: str = "m"
    border: int = 0
    intrinsics: tuple[float, float, float, float] | None = None

    @property
    def metric_factor(self) -> float:
        return 100.0 if self.unit == "m" else 1.0


SPECS = {
    "middlebury": Spec("Middlebury", {"test": 30}, unit="8-bit"),
    "lu": Spec("Lu", {"test": 6}, unit="8-bit"),
    "nyuv2": Spec("NYUv2", {"train": 800, "val": 200, "test": 449}, border=6, intrinsics=NYU_INTRINSICS),
    "rgbdd": Spec("RGBDD", {"test": 405}),
    "rgbdd-real": Spec("RGBDD", {"train": 2215, "test": 405}),
}


class BenchmarkSet(Sequence):
    """The pairs found of one split of a set; ``dataset[i]`` reads a :class:`Sample`.

    Attributes:
        name, split: as given to :func:`open_dataset`.
        folder: where it was found.
        pairs: what was found, in the order of the names.
        expected: number of pairs of the complete split.
    """

    def __init__(self, name: str, split: str, folder: Path, pairs: list[Pair]) -> None:
        self.name, self.split, self.folder, self.pairs = name, split, folder, pairs
        self.spec = SPECS[name]
        self.expected = self.spec.expected[split]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        pair, spec = self.pairs[index], self.spec
        if pair.depth.suffix == ".mat":
            guide, depth = nyu.read_pair(pair.depth, int(pair.name))
        else:
            guide, depth = read_guide(pair.guide), read_depth(pair.depth, spec.unit)
        if guide.shape[:2] != depth.shape:
            raise ValueError(f"{pair.depth}: depth is {depth.shape}, its guide {pair.guide} is {guide.shape[:2]}")
        lr = None
        if pair.lr is not None:
            # Measured pairs have holes; the benchmark's synthetic ones are scored over all pixels, as published.
            lr, depth = _zeros_to_nan(read_depth(pair.lr, spec.unit)), _zeros_to_nan(depth)
        return Sample(pair.name, guide, depth, lr, spec.unit, spec.metric_factor, spec.border, spec.intrinsics)

    def describe(self) -> str:
        """For instance ``middlebury test: 8 of 30 pairs found in .../Middlebury``."""
        return f"{self.name} {self.split}: {len(self)} of {self.expected} pairs found in {self.folder}"


def open_dataset(name: str, root: str | Path, split: str = "test") -> BenchmarkSet:
    """Finds the pairs of a set.

    Args:
        name: a key of ``SPECS``.
        root: folder that holds the set's folder, or that folder (for NYUv2 also the official .mat, or its folder).
        split: "test"; NYUv2 also "train" (800 pairs) and "val" (200 held out of the first 1000), RGB-D-D real "train".

    Raises:
        ValueError: unknown name or split, unpaired files (named), or two files of one name.
        FileNotFoundError: no such folder, or no pair of the split in it.
    """
    if name not in SPECS:
        raise ValueError(f"unknown data set {name!r}: expected one of {', '.join(SPECS)}")
    if split not in SPECS[name].expected:
        raise ValueError(f"{name} has no split {split!r}: expected one of {', '.join(SPECS[name].expected)}")
    root = Path(root)
    if not root.exists():
        raise FileNotFoundError(f"expected the data set {name} at {root}, found no such folder")
    if name == "rgbdd-real":
        folder, pairs = root, _real_pairs(root, split)
    else:
        folder, pairs = _folder_pairs(name, root)
    if name == "nyuv2":
        if strange := [pair.name for pair in pairs if not pair.name.isdecimal()]:
            raise ValueError(f"{folder}: expected pairs named by their number, as 0.jpg and 0.npy, found {strange[:5]}")
        pairs = [pair for pair in pairs if nyu_split(int(pair.name)) == split]
    if not pairs:
        raise FileNotFoundError(f"no pair of the {split} split of {name} found in {folder}. {_layout_hint(name)}")
    return BenchmarkSet(name, split, folder, pairs)


def nyu_split(index: int) -> str:
    """The split ("train", "val" or "test") that pair ``index`` (from 0) of the labelled NYUv2 set belongs to."""
    if index >= 1000:
        return "test"
    return "val" if index // 20 in NYU_VALIDATION_BLOCKS else "train"


def read_guide(path: Path) -> np.ndarray:
    """Colour image (H, W, 3) uint8 RGB.

    Raises:
        ValueError: not an 8-bit colour image.
    """
    image = read_image(path)
    if image.mode not in ("RGB", "RGBA", "P"):
        raise ValueError(f"{path}: expected an 8-bit colour image, got Pillow mode {image.mode!r}")
    return np.asarray(image.convert("RGB"))


def read_depth(path: Path, unit: str) -> np.ndarray:
    """Depth map (H, W) float32 in ``unit``: "8-bit" from an 8-bit PNG; "m" from a float .npy or a uint16 mm PNG.

    Raises:
        ValueError: another type, shape or unit than the set's.
    """
    depth = _read_npy(path) if path.suffix == ".npy" else _read_png(path, unit)
    if depth.ndim != 2:
        raise ValueError(f"{path}: expected a depth map (H, W), got shape {depth.shape}")
    return depth


def _read_npy(path: Path) -> np.ndarray:
    try:
        # Mapped, so that a header cannot ask for more memory than the file has bytes.
        depth = np.load(path, mmap_mode="r")
    except _DAMAGED_NPY as error:
        raise ValueError(f"{path} cannot be read as a .npy file: {error}") from error
    if not isinstance(depth, np.ndarray) or depth.ndim != 2 or not depth.size:
        raise ValueError(f"{path}: expected a depth map (H, W), got {getattr(depth, 'shape', 'an archive of arrays')}")
    if depth.dtype.kind != "f":
        raise ValueError(f"{path}: expected floating-point metres, got {depth.dtype} (millimetres? divide by 1000)")
    if np.nanmax(depth) > 100:
        raise ValueError(f"{path}: expected metres, got values up to {np.nanmax(depth):.0f} (divide mm by 1000)")
    return depth.astype(np.float32)


def _read_png(path: Path, unit: str) -> np.ndarray:
    depth = np.asarray(read_image(path))
    if unit == "8-bit":
        if depth.dtype != np.uint8:
            raise ValueError(f"{path}: expected an 8-bit depth image, got {depth.dtype}")
        if depth.ndim == 3:  # some copies store grey depth as RGB
            if (depth[..., :3] != depth[..., :1]).any():
                raise ValueError(f"{path}: expected grey depth, got a colour image (is it the guide?)")
            depth = depth[..., 0]
        return depth.astype(np.float32)
    # Older Pillow opens 16-bit PNGs as 32-bit integers.
    if depth.dtype not in (np.uint16, np.int32):
        raise ValueError(f"{path}: expected uint16 millimetres, got {depth.dtype}")
    return depth.astype(np.float32) / np.float32(1000)


def _zeros_to_nan(depth: np.ndarray) -> np.ndarray:
    return np.where(depth > 0, depth, np.float32(np.nan))


def _folder_pairs(name: str, root: Path) -> tuple[Path, list[Pair]]:
    """The set's folder and all pairs in it (before the split)."""
    if name == "nyuv2":
        for mat in (root, root / nyu.MAT_NAME, root / SPECS[name].folder / nyu.MAT_NAME):
            if mat.is_file():
                return mat, [Pair(str(index), mat, mat) for index in range(nyu.count_pairs(mat))]
    folder = _find_folder(name, root)
    guides = _by_key(p for p in (folder / "RGB").iterdir() if p.suffix.lower() in (".png", ".jpg", ".jpeg"))
    depths = _by_key(p for p in (folder / "Depth").iterdir() if p.suffix.lower() in (".png", ".npy"))
    return folder, _match({"RGB": guides, "Depth": depths}, folder)


def _find_folder(name: str, root: Path) -> Path:
    wanted = SPECS[name].folder
    below = [path for path in sorted(root.iterdir()) if path.name.lower() == wanted.lower()] if root.is_dir() else []
    # `root` may be the set's folder under another name, but not the folder of another known set.
    others = {spec.folder.lower() for spec in SPECS.values()} - {wanted.lower()}
    for folder in [*below, root]:
        if (folder / "RGB").is_dir() and (folder / "Depth").is_dir() and _own_name(folder, wanted) not in others:
            return folder
    raise FileNotFoundError(f"found no {name} in {root}. {_layout_hint(name)}")


def _own_name(folder: Path, wanted: str) -> str:
    """A folder's name in lower case; behind a link of another name than ``wanted``, that of the folder itself."""
    return (folder if folder.name.lower() == wanted.lower() else folder.resolve()).name.lower()


def _layout_hint(name: str) -> str:
    if name == "rgbdd-real":
        return "Expected <id>_RGB.jpg, <id>_HR_gt.png and <id>_LR_fill_depth.png in folders below it"
    depth = "N.npy (metres)" if name == "nyuv2" else "*.png"
    mat = f", or {nyu.MAT_NAME}" if name == "nyuv2" else ""
    return f"Expected {SPECS[name].folder}/RGB/ with colour images and {SPECS[name].folder}/Depth/ with {depth}{mat}"


def _real_pairs(root: Path, split: str) -> list[Pair]:
    """Pairs of RGB-D-D with a measured LR, anywhere below ``root``."""
    roles: dict[str, list[Path]] = {"RGB": [], "Depth": [], "LR": []}
    for path in files_below(root):
        role = _real_role(path)
        folders = [part.lower() for part in path.relative_to(root).parts[:-1]]
        is_train = any(part == "train" or part.endswith("_train") for part in [root.name.lower(), *folders])
        if role and is_train == (split == "train") and not any(part.startswith("light") for part in folders):
            roles[role].append(path)
    if not roles["LR"]:
        return []
    found = {role: _by_key(paths) for role, paths in roles.items()}
    # Pairs without a measured LR (the benchmark split beside it, another set) are none of this one's.
    return _match({role: {k: v for k, v in files.items() if k in found["LR"]} for role, files in found.items()}, root)


def _real_role(path: Path) -> str | None:
    stem, parent = path.stem.lower(), path.parent.name.lower()
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".npy"):
        return None
    if stem.endswith("_lr_fill_depth") or parent in ("lr", "rgbdd_lr"):
        return "LR"
    if stem.endswith("_hr_gt") or parent in ("depth", "gt", "rgbdd_gt"):
        return "Depth"
    if stem.endswith("_rgb") or parent in ("rgb", "rgbdd_rgb"):
        return "RGB"
    return None  # the publisher's folders hold more, for instance the raw depth


def _by_key(paths) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(paths):
        key = _ROLE.sub("", path.stem)
        if key in found:
            raise ValueError(f"{found[key]} and {path} have the same name {key!r}: keep one of them")
        found[key] = path
    return found


def _match(roles: dict[str, dict[str, Path]], folder: Path) -> list[Pair]:
    """Pairs of files of one name; all roles must be there for each."""
    every = set().union(*roles.values())
    missing = [f"{key} (no {role})" for key in sorted(every) for role, files in roles.items() if key not in files]
    if missing:
        more = f" and {len(missing) - 8} more" if len(missing) > 8 else ""
        raise ValueError(f"unpaired files in {folder}: {', '.join(missing[:8])}{more}; complete or remove them")
    keys = sorted(every, key=lambda key: (int(key), key) if key.isdigit() else (0, key))
    lr = roles.get("LR", {})
    return [Pair(roles["Depth"][key].stem, roles["RGB"][key], roles["Depth"][key], lr.get(key)) for key in keys]
