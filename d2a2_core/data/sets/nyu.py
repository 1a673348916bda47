"""NYU Depth v2, the labelled part: from the official ``nyu_depth_v2_labeled.mat`` to pairs and to the authors' folders.

Convention: the .mat is an HDF5 file written by MATLAB, so h5py sees every array with its axes reversed: ``images``
(N, 3, W, H) uint8 RGB and ``depths`` (N, W, H) float32 metres (in the colour frame, holes already filled). Pairs are
numbered from 0 as in the file; 0..999 train, 1000..1448 test. Needs the optional package h5py.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from d2a2_core.files import replacing

MAT_NAME = "nyu_depth_v2_labeled.mat"


def open_mat(path: str | Path) -> Any:
    """The opened HDF5 file (use it with ``with``), checked to hold what the labelled set holds.

    Raises:
        ImportError: h5py is not installed.
        FileNotFoundError: no such file.
        ValueError: not an HDF5 file, or not the labelled NYUv2 set.
    """
    try:
        import h5py
    except ImportError as error:
        raise ImportError(f"reading {MAT_NAME} needs the package h5py: pip install h5py") from error
    if not Path(path).is_file():
        raise FileNotFoundError(f"expected the official {MAT_NAME} at {path}, found no such file")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path} is no readable HDF5 file (a broken download?): {error}") from error
    try:
        shapes = {key: getattr(file[key], "shape", None) if key in file else None for key in ("images", "depths")}
    except (KeyError, OSError, RuntimeError) as error:
        file.close()
        raise ValueError(f"{path} is damaged: {error}") from error
    images, depths = shapes["images"], shapes["depths"]
    if images is None or depths is None or len(images) != 4 or images[1] != 3 or images[:1] + images[2:] != depths:
        file.close()
        raise ValueError(f"{path}: expected 'images' (N, 3, W, H) and 'depths' (N, W, H), found {shapes}")
    return file


def count_pairs(path: str | Path) -> int:
    """Number of pairs in the .mat (1449 in the official one)."""
    with open_mat(path) as file:
        return int(file["depths"].shape[0])


def read_pair(path: str | Path, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Pair ``index``: guide (H, W, 3) uint8 RGB and depth (H, W) float32 metres."""
    with open_mat(path) as file:
        return _pair(file, index)


def prepare_nyu(mat: str | Path, out: str | Path, progress: bool = True) -> int:
    """Writes the .mat as the authors' folders: ``out/NYUv2/RGB/N.jpg`` and ``out/NYUv2/Depth/N.npy`` (float32 metres).

    Files already there stay as they are, and a file appears only when it is complete: run it again after an interruption.

    Args:
        mat: the official .mat file.
        out: folder to hold ``NYUv2/`` (or a folder of that name).
        progress: show a progress bar (never in a log: only on a terminal).

    Returns:
        Number of pairs written by this call.
    """
    base = Path(out) if Path(out).name == "NYUv2" else Path(out) / "NYUv2"
    written = 0
    with open_mat(mat) as file:
        for folder in ("RGB", "Depth"):
            (base / folder).mkdir(parents=True, exist_ok=True)
        numbers = range(file["depths"].shape[0])
        for index in tqdm(numbers, desc="NYUv2", unit="pair", disable=None if progress else True):
            colour_file, depth_file = base / "RGB" / f"{index}.jpg", base / "Depth" / f"{index}.npy"
            missing = [path for path in (colour_file, depth_file) if not os.path.lexists(path)]
            if not missing:
                continue
            guide, depth = _pair(file, index)
            # High quality, full chroma: the guide's edges are what the network reads.
            jpeg = {"format": "JPEG", "quality": 97, "subsampling": 0}
            if colour_file in missing:
                with replacing(colour_file) as partial:
                    Image.fromarray(guide).save(partial, **jpeg)
            if depth_file in missing:
                # np.save appends .npy to the name of a path.
                with replacing(depth_file) as partial, partial.open("wb") as stream:
                    np.save(stream, depth)
            written += 1
    return written


def _pair(file: Any, index: int) -> tuple[np.ndarray, np.ndarray]:
    images, depths = file["images"], file["depths"]
    if images.dtype != np.uint8 or depths.dtype.kind != "f":
        raise ValueError(f"expected 'images' of uint8 and 'depths' of floats, got {images.dtype} and {depths.dtype}")
    return (
        np.ascontiguousarray(images[index].transpose(2, 1, 0)),
        np.ascontiguousarray(depths[index].T, dtype=np.float32),
    )
