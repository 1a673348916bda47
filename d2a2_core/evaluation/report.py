"""One self-contained HTML page from one or several run folders (see :mod:`d2a2_core.evaluation.evaluator`).

Everything is inside the file: styles, the little script of the sliders, pictures as WebP data URIs. It opens offline,
can be mailed, works by keyboard (the sliders are native range inputs) and shows every picture without the script too.
Page, styles and script are the files in templates/, filled in by jinja2, which escapes whatever a run folder holds.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from d2a2_core.documents import NUMBER, check_schema, read_json
from d2a2_core.evaluation.evaluator import Row, metric_unit, read_csv, summarise
from d2a2_core.files import has_mark, replacing
from d2a2_core.images import read_image
from d2a2_core.pictures import DEPTH_STOPS, ERROR_STOPS

# key, heading, digits, factor, better: -1 lower, 1 higher, 0 not ranked
_COLUMNS = (
    ("rmse", "RMSE", 3, 1, -1),
    ("mae", "MAE", 3, 1, -1),
    ("rel", "REL %", 2, 100, -1),
    ("delta1", "δ<1.25 %", 2, 100, 1),
    ("delta2", "δ<1.25² %", 2, 100, 1),
    ("delta3", "δ<1.25³ %", 2, 100, 1),
    ("rmse_edge", "RMSE at edges", 3, 1, -1),
    ("flying", "Flying px %", 2, 100, -1),
    ("normal_deg", "Normals °", 2, 1, -1),
    ("coverage", "Coverage %", 1, 100, 0),
    ("seconds", "Seconds", 3, 1, 0),
)
_PAPER = (("paper_d2a2", "D2A2 (paper)"), ("paper_dctnet", "DCTNet (paper)"))
_THUMBNAILS = (("color", "Colour"), ("lr", "LR depth"), ("truth", "Ground truth"), ("error", "Error"))
_FIGURES = ("rmse", "bicubic_rmse", "lo", "hi", "error_limit")
_MARK = b'<meta name="generator" content="d2a2 report">'

# What an evaluation writes to summary.json; a figure that is NaN is null there.
_SUMMARY = {
    "type": "object",
    "properties": {
        "expected": {"type": ["integer", "null"]},
        "pictures": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["image", *_FIGURES],
                # The image is also the name of a folder.
                "properties": {"image": {"type": "string", "pattern": r"^[^/\\\x00]+$"}}
                | {key: {"anyOf": [NUMBER, {"type": "null"}]} for key in _FIGURES},
            },
        },
    },
}


@dataclass(frozen=True)
class Run:
    """One evaluated run: its folder, rows, and what summary.json says about pictures and the size of the full set."""

    folder: Path
    rows: list[Row]
    shots: list[dict[str, Any]]
    expected: int | None

    @property
    def title(self) -> str:
        """For instance ``bicubic · lu ×4 · oracle``."""
        first = self.rows[0]
        return f"{first['method']} · {first['dataset']} ×{first['scale']} · {first['range']}"


@dataclass(frozen=True)
class Line:
    """A line of a table: a method's means, an image, or what the paper says, which is only the first cell."""

    name: str
    cells: list[dict[str, Any]]
    images: str = ""
    paper: bool = False


def write_report(
    runs: Sequence[str | Path], out_html: str | Path, title: str = "Depth super-resolution report"
) -> Path:
    """Writes the page.

    Args:
        runs: run folders; runs of the same set, scale and range are compared in one table.
        out_html: file to write.
        title: of the page.

    Raises:
        ValueError: no run, or a file in a run folder that is not as an evaluation writes it; the message names it.
        FileNotFoundError: a folder without metrics.csv, or a picture that is missing.
    """
    if not runs:
        raise ValueError("expected at least one run folder for a report, got none")
    loaded = [read_run(folder) for folder in runs]
    colours = {"depth_colours": DEPTH_STOPS, "error_colours": ERROR_STOPS}
    page = (
        _templates()
        .get_template("report.html")
        .render(
            {name: ",".join(f"#{stop}" for stop in stops) for name, stops in colours.items()},
            title=title,
            headings=[heading for _, heading, *_ in _COLUMNS],
            thumbnails=_THUMBNAILS,
            tables=_tables(loaded),
            runs=[
                {
                    "title": r.title,
                    "shots": [_shot(r, s) for s in r.shots],
                    "lines": [Line(row["image"], _cells(row, {})) for row in r.rows],
                }
                for r in loaded
            ],
        )
    )
    out_html = Path(out_html)
    out_html.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out_html) as partial:
        partial.write_text(page, encoding="utf-8")
    return out_html


def is_report(path: Path) -> bool:
    """Whether :func:`write_report` wrote a file, which a new one may replace."""
    return has_mark(path, _MARK)


def read_run(folder: str | Path) -> Run:
    """Reads a run folder; pictures and summary.json may be missing, metrics.csv may not.

    Raises:
        ValueError, FileNotFoundError: as :func:`write_report`.
    """
    folder = Path(folder)
    metrics, summary = folder / "metrics.csv", folder / "summary.json"
    if not metrics.is_file():
        raise FileNotFoundError(f"expected an evaluation run with metrics.csv in {folder}, found none")
    rows = read_csv(metrics)
    if not rows:
        raise ValueError(f"{metrics}: expected at least one row, found none")
    stored = read_json(summary) if summary.is_file() else {}
    check_schema(stored, _SUMMARY, f"{summary} is not as d2a2 evaluate writes it")
    return Run(folder, rows, stored.get("pictures", []), stored.get("expected"))


@cache
def _templates() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("d2a2_core.evaluation"),
        # The page is escaped; the styles and the script, which have no .html at their end, are ours.
        autoescape=jinja2.select_autoescape(["html"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _tables(runs: list[Run]) -> list[dict[str, Any]]:
    """A table for each (set, scale, range) with a line per method, and the paper's RMSE under it."""
    groups: dict[tuple, list[tuple[Row, int | None]]] = {}
    for run in runs:
        for entry in summarise(run.rows):
            groups.setdefault((entry["dataset"], entry["scale"], entry["range"]), []).append((entry, run.expected))
    return [_table(key, entries) for key, entries in groups.items()]


def _table(key: tuple, entries: list[tuple[Row, int | None]]) -> dict[str, Any]:
    dataset, scale, range_mode = key
    summaries = [entry for entry, _ in entries]
    best = {name: _best([s[name] for s in summaries], better) for name, *_, better in _COLUMNS}
    lines = [
        Line(entry["method"], _cells(entry, best), f"{entry['images']}" + (f" of {expected}" if expected else ""))
        for entry, expected in entries
    ]
    for name, label in _PAPER:
        if summaries[0][name] is not None:
            cells = [{"text": f"{summaries[0][name]:.2f}", "best": False}]
            lines.append(Line(label, cells, "full set", paper=True))
    caption = f"{dataset} ×{scale}, {range_mode} range; RMSE and MAE in {summaries[0]['unit']}"
    return {"dataset": dataset, "scale": scale, "range": range_mode, "caption": caption, "lines": lines}


def _cells(row: Row, best: dict[str, float | None]) -> list[dict[str, Any]]:
    return [
        {"text": _text(row[name] * factor, f".{digits}f"), "best": row[name] == best.get(name)}
        for name, _, digits, factor, _ in _COLUMNS
    ]


def _text(value: float | None, form: str) -> str:
    """A figure as text; a dash for None and NaN."""
    return "–" if value is None or value != value else format(value, form)


def _best(values: list[float], better: int) -> float | None:
    """The best of several methods' values, None where there is nothing to compare."""
    known = [value for value in values if value == value]
    if len(values) < 2 or not known or not better:
        return None
    return max(known) if better > 0 else min(known)


def _shot(run: Run, shot: dict[str, Any]) -> dict[str, Any]:
    """One image: what the slider compares, bicubic and the prediction, its figures, and its pictures."""
    dataset, method = run.rows[0]["dataset"], run.rows[0]["method"]
    # Bicubic itself is compared with the truth.
    after, after_name = ("truth", "ground truth") if method == "bicubic" else ("pred", method)
    form = {"rmse": ".3f", "bicubic_rmse": ".3f", "lo": ".4g", "hi": ".4g", "error_limit": ".2g"}
    names = {"bicubic", after, *(key for key, _ in _THUMBNAILS)}
    return {
        "image": shot["image"],
        "after": after,
        "after_name": after_name,
        "unit": "levels" if metric_unit(dataset) == "8-bit" else "m",
        "metric_unit": metric_unit(dataset),
        "pictures": {name: _data_uri(run.folder, shot["image"], name) for name in names},
    } | {key: _text(shot[key], form[key]) for key in _FIGURES}


def _data_uri(folder: Path, image: str, name: str) -> str:
    """A picture of a run as WebP: a fifth of the PNG's size, with no visible loss."""
    path = folder / "pictures" / image / f"{name}.png"
    if not path.resolve().is_relative_to((folder / "pictures").resolve()):
        raise ValueError(f"{path} lies outside the run's folder, expected pictures within it; evaluate again")
    stream = io.BytesIO()
    read_image(path).convert("RGB").save(stream, "WEBP", quality=90, method=4)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
