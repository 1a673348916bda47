"""Measures what int8 needs to know of weights (:mod:`d2a2_core.int8`) on generated scenes, and what int8 costs on held-out ones.

The scenes are those that uncertainty heads are trained on (:mod:`d2a2_core.training.calibrate`), and go through the same
pipeline. Everything follows from the seed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tqdm import tqdm

from d2a2_core.int8 import Int8Ranges, RangeRecorder, has_int8, int8_path, save_int8
from d2a2_core.openvino_runtime import has_openvino
from d2a2_core.training.calibrate import cases, recording_pipeline
from d2a2_core.training.config import TrainConfig
from d2a2_core.training.provenance import provenance
from d2a2_core.training.sources import training_source, validation_source
from d2a2_core.upsampler import DepthUpsampler
from d2a2_core.weights import PRETRAINED, load_weights, record_checksum, resolve_weights, sha256

_MEASURE = ((384, 384),)  # one size for all: every new one costs OpenVINO seconds


def measure_int8(
    weights: str | Path,
    out: Path | None = None,
    seed: int = 0,
    images: int = 48,
    held_out: int = 30,
    data: str = "shapes",
    root: str = "",
) -> tuple[Path, dict[str, float]]:
    """Writes the ranges of weights.

    Args:
        weights: shipped name or path.
        out: the file; default beside the weights, where :func:`d2a2_core.int8.load_int8` finds it.
        images, held_out: scenes to measure on, and to compare results on; at least one per scale of the weights.
        data, root: of the scenes, as of ``d2a2 train``.

    Returns:
        The file's path, and on held-out scenes RMSE and mean error in mm of float32 and int8; empty where this computer has no
        int8.

    Raises:
        ValueError: too few images.
    """
    weights = resolve_weights(weights)
    out = out or int8_path(weights)
    model = load_weights(weights)
    config = TrainConfig(data=data, root=root, seed=seed)
    pipeline = recording_pipeline(DepthUpsampler(model, "cpu", "float32"))
    with RangeRecorder(model, seed) as recorder:
        for _ in tqdm(cases(pipeline, training_source(config), images, seed), "scenes", images, disable=None):
            pass
    ranges = recorder.ranges()
    errors = _compare(weights, ranges, config, held_out) if held_out and has_int8() and has_openvino() else {}
    options = f"--seed {seed} --images {images} --held-out {held_out} --data {data}{' --root FOLDER' if root else ''}"
    card = provenance(config) | {
        "title": f"ranges for int8 of {weights.name}",
        "command": f"d2a2 int8 --weights {weights.stem} {options}",
        "weights_sha256": sha256(weights),
        "settings": {"data": data, "root": Path(root).name, "seed": seed, "images": images, "held_out": held_out},
        "held_out": errors,
    }
    save_int8(out, ranges, card)
    if out.resolve().parent == PRETRAINED.resolve():
        record_checksum(out)
    return out, errors


def _compare(weights: Path, ranges: Int8Ranges, config: TrainConfig, count: int) -> dict[str, float]:
    source, figures = validation_source(config), {}
    for precision in ("float32", "int8"):
        upsampler = DepthUpsampler(load_weights(weights), "cpu", precision, runtime="openvino", int8=ranges)
        pipeline, total = recording_pipeline(upsampler), np.zeros(3)
        for case in tqdm(cases(pipeline, source, count, config.seed + 1, _MEASURE), precision, count, disable=None):
            error = case.hr[0, 0].numpy().astype(np.float64) - case.truth
            error = error[np.isfinite(error)]
            total += len(error), np.square(error).sum(), np.abs(error).sum()
        figures[f"{precision}_rmse_mm"] = round(1000 * float(np.sqrt(total[1] / total[0])), 2)
        figures[f"{precision}_mae_mm"] = round(1000 * float(total[2] / total[0]), 2)
    return figures
