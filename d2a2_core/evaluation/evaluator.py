"""Runs a method over a benchmark set: rows of metrics, a summary beside the paper's figures, and a folder with both.

A run folder holds

    metrics.csv                      one row per image (``COLUMNS``)
    summary.json                     means, the paper's figures, what was run, and the range of each picture
    pictures/<image>/*.png           color, lr, bicubic, pred, truth, error, and side_by_side (depth of one image in one
                                     colour scale)
"""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from d2a2_core.data.sets.benchmarks import SPECS, Sample
from d2a2_core.evaluation.baselines import Method, enlarge
from d2a2_core.evaluation.metrics import METRICS, compare, rmse
from d2a2_core.evaluation.protocol import Case, make_case
from d2a2_core.files import PNG_MARK, has_mark, replacing, write_png
from d2a2_core.pictures import colorize_depth, contact_sheet, enlarge_nearest, error_map

COLUMNS = ("dataset", "image", "scale", "method", "range", *METRICS, "seconds")
#: Pictures of an image in a run folder.
PICTURES = ("color", "lr", "bicubic", "pred", "truth", "error", "side_by_side")
_CSV_MARK, _SUMMARY_MARK = f"{','.join(COLUMNS)}\r\n".encode(), b'{\n "summary": ['

Row = dict[str, Any]


def evaluate(
    samples: Sequence[Sample],
    method: Method,
    scale: int,
    range_mode: str = "oracle",
    *,
    run_dir: str | Path | None = None,
    pictures: int = 8,
) -> list[Row]:
    """Metrics of a method on each sample.

    Args:
        samples: for instance :func:`d2a2_core.data.sets.benchmarks.open_dataset`'s result; its ``name``, where it has
            one, is the rows' dataset.
        method: see :mod:`d2a2_core.evaluation.baselines`.
        scale: of the LR.
        range_mode: "oracle" or "deploy", see :mod:`d2a2_core.evaluation.protocol`.
        run_dir: folder to write the run to (see the module), or None.
        pictures: write pictures of this many samples, evenly spread over the set.

    Returns:
        One dict per sample with the keys ``COLUMNS``; rmse and mae in cm, or in 8-bit units where the set is.
    """
    dataset = getattr(samples, "name", "")
    shown = set(np.linspace(0, len(samples) - 1, min(pictures, len(samples))).round().astype(int)) if run_dir else set()
    rows, shots = [], []
    # disable=None: a bar on a terminal only, so that logs stay clean.
    for index in tqdm(range(len(samples)), desc=f"{dataset} x{scale} {method.name}", unit="image", disable=None):
        sample = samples[index]
        case = make_case(sample, scale, range_mode)
        start = time.perf_counter()
        output = method(case.guide, case.lr, scale, case.trust)
        seconds = time.perf_counter() - start
        prediction = case.restore(output)
        values = compare(prediction, case.truth, sample.metric_factor, sample.border, sample.intrinsics)
        head = (dataset, sample.name, scale, method.name, range_mode)
        rows.append(dict(zip(COLUMNS, (*head, *values.values(), seconds), strict=True)))
        if index in shown:
            shot = _save_pictures(Path(run_dir) / "pictures" / sample.name, case, sample, prediction, scale)
            shots.append({"image": sample.name, "rmse": values["rmse"], **shot})
    if run_dir:
        _write_run(Path(run_dir), rows, shots, getattr(samples, "expected", None))
    return rows


def run_outputs(run_dir: Path | None) -> list[Path]:
    """The files in a run folder that an evaluation may write over; none without a folder."""
    if run_dir is None:
        return []
    pictures = [path for name in PICTURES for path in run_dir.glob(f"pictures/*/{name}.png")]
    return [run_dir / "metrics.csv", run_dir / "summary.json", *pictures]


def is_output(path: Path) -> bool:
    """Whether an evaluation wrote a file: rows, a summary or a picture."""
    return any(has_mark(path, mark) for mark in (_CSV_MARK, _SUMMARY_MARK, PNG_MARK))


def write_csv(rows: Iterable[Row], path: str | Path) -> None:
    """Rows of :func:`evaluate` as CSV; metrics with 6 digits after the point."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:.6f}" if isinstance(v, float) else v for k, v in row.items()})


def read_csv(path: str | Path) -> list[Row]:
    """Rows that :func:`write_csv` wrote.

    Raises:
        ValueError: it is not such a file; the message names the line.
    """
    with open(path, newline="", encoding="utf-8") as stream:
        reader = csv.reader(stream)
        try:
            head = next(reader, [])
            if tuple(head) != COLUMNS:
                raise ValueError(f"{path}: expected the columns {', '.join(COLUMNS)}, found {', '.join(head)!r:.200}")
            return [_parse_row(values, f"{path}, line {reader.line_num}") for values in reader]
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path}, line {reader.line_num}: not readable as CSV: {error}") from error


def _parse_row(values: list[str], place: str) -> Row:
    if len(values) != len(COLUMNS):
        raise ValueError(f"{place}: expected {len(COLUMNS)} values, found {len(values)}")
    row: Row = dict(zip(COLUMNS, values, strict=True))
    for name, kind in (("scale", int), *((name, float) for name in (*METRICS, "seconds"))):
        try:
            row[name] = kind(row[name])
        except ValueError:
            raise ValueError(f"{place}: expected a number as {name}, found {row[name]!r:.80}") from None
    return row


def summarise(rows: Sequence[Row]) -> list[Row]:
    """Means over the images of each (dataset, scale, method, range), in the order of their first row.

    Adds ``images`` (how many), ``unit`` of rmse and mae, and ``paper_d2a2`` and ``paper_dctnet``: the RMSE of Table 1
    for that set and scale (full set, oracle range), None where the paper has none.
    """
    keys = ("dataset", "scale", "method", "range")
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    summary = []
    for group, members in groups.items():
        columns = {key: np.array([row[key] for row in members], float) for key in (*METRICS, "seconds")}
        means = {k: float(np.nanmean(v)) if np.isfinite(v).any() else float("nan") for k, v in columns.items()}
        dataset, scale = group[0], group[1]
        summary.append(
            dict(zip(keys, group, strict=True))
            | means
            | {"images": len(members), "unit": metric_unit(dataset)}
            | {f"paper_{name.lower()}": paper_rmse(name, dataset, scale) for name in ("D2A2", "DCTNet")}
        )
    return summary


def format_summary(rows: Sequence[Row]) -> str:
    """The summary as a text table for a terminal, the paper's RMSE beside ours."""
    head = ("dataset", "scale", "method", "range", "images", "RMSE", "paper D2A2", "paper DCTNet", "unit", "MAE", "REL",
            "delta1", "edge RMSE", "flying %", "normals deg", "s/image")  # fmt: skip
    lines = [head]
    for s in summarise(rows):
        lines.append(
            (s["dataset"], f"x{s['scale']}", s["method"], s["range"], str(s["images"]), f"{s['rmse']:.4f}",
             *("-" if s[key] is None else f"{s[key]:.2f}" for key in ("paper_d2a2", "paper_dctnet")), s["unit"],
             f"{s['mae']:.4f}", f"{s['rel']:.4f}", f"{s['delta1']:.4f}", f"{s['rmse_edge']:.3f}",
             f"{100 * s['flying']:.2f}", f"{s['normal_deg']:.2f}", f"{s['seconds']:.3f}")
        )  # fmt: skip
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def metric_unit(dataset: str) -> str:
    """What rmse and mae of a set are in: "8-bit" levels or "cm"."""
    name = dataset.split(" ")[0]  # "middlebury (severe)" is in what middlebury is in
    return "8-bit" if name in SPECS and SPECS[name].unit == "8-bit" else "cm"


def paper_table() -> dict[str, dict[str, float]]:
    """Table 1 of arXiv 2401.08123: method -> {"<dataset>_x<scale>": RMSE}."""
    text = resources.files("d2a2_core.evaluation").joinpath("paper_table1.csv").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {
        row.pop("method"): {key: float(value) for key, value in row.items()}
        for row in csv.DictReader(io.StringIO("\n".join(lines)))
    }


def paper_rmse(method: str, dataset: str, scale: int) -> float | None:
    """The paper's RMSE of a method, or None where Table 1 has no such entry."""
    return paper_table()[method].get(f"{dataset}_x{scale}")


def _save_pictures(folder: Path, case: Case, sample: Sample, prediction: np.ndarray, scale: int) -> dict[str, float]:
    """Writes the pictures of one image; returns bicubic's RMSE and the range that the colours stand for."""
    folder.mkdir(parents=True, exist_ok=True)
    truth, size = case.truth, case.truth.shape
    bicubic = case.restore(enlarge(case.guide, case.lr, scale))
    lo, hi = float(np.nanmin(truth)), float(np.nanmax(truth))
    limit = 0.05 * (hi - lo)
    panels = [
        ("Colour", case.guide),
        (f"LR depth, 1/{scale}", enlarge_nearest(colorize_depth(case.in_unit(case.lr), lo, hi), size)),
        ("Bicubic", colorize_depth(bicubic, lo, hi)),
        ("Prediction", colorize_depth(prediction, lo, hi)),
        ("Ground truth", colorize_depth(truth, lo, hi)),
        ("Error of the prediction", error_map(prediction, truth, limit)),
    ]
    pictures = [*(picture for _, picture in panels), contact_sheet(panels)]
    for name, picture in zip(PICTURES, pictures, strict=True):
        write_png(folder / f"{name}.png", picture)
    cut = slice(sample.border, -sample.border or None)
    error = (bicubic - truth).astype(np.float64)[cut, cut]
    return {"bicubic_rmse": rmse(error) * sample.metric_factor, "lo": lo, "hi": hi, "error_limit": limit}


def _write_run(run_dir: Path, rows: list[Row], shots: list[dict], expected: int | None) -> None:
    write_csv(rows, run_dir / "metrics.csv")
    summary = {"summary": summarise(rows), "expected": expected, "pictures": shots}
    text = json.dumps(_finite(summary), indent=1, allow_nan=False)
    with replacing(run_dir / "summary.json") as partial:
        partial.write_text(text + "\n", encoding="utf-8")


def _finite(value: Any) -> Any:
    """The same structure with None for NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
