"""One self-contained HTML page from one or several run folders (see :mod:`d2a2_core.evaluation.evaluator`).

Everything is inside the file: styles, the little script of the sliders, pictures as WebP data URIs. It opens offline,
can be mailed, works by keyboard (the sliders are native range inputs) and shows every picture without the script too.
Page, styles and script are the files in templates/.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from d2a2_core.evaluation.evaluator import Row, metric_unit, read_csv, summarise
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
_THUMBNAILS = (("color", "Colour"), ("lr", "LR depth"), ("truth", "Ground truth"), ("error", "Error"))


@dataclass(frozen=True)
class Run:
    """One evaluated run: its folder, rows, and what summary.json says about pictures and the size of the full set."""

    folder: Path
    rows: list[Row]
    shots: list[dict[str, Any]]
    expected: int | None

    @property
    def title(self) -> str:
        first = self.rows[0]
        return f"{first['method']} · {first['dataset']} ×{first['scale']} · {first['range']}"


def write_report(
    runs: Sequence[str | Path], out_html: str | Path, title: str = "Depth super-resolution report"
) -> Path:
    """Writes the page.

    Args:
        runs: run folders; runs of the same set, scale and range are compared in one table.
        out_html: file to write.
        title: of the page.

    Raises:
        ValueError: no run.
        FileNotFoundError: a folder without metrics.csv.
    """
    if not runs:
        raise ValueError("expected at least one run folder for a report, got none")
    loaded = [read_run(folder) for folder in runs]
    colours = {"depth_colours": DEPTH_STOPS, "error_colours": ERROR_STOPS}
    page = _template("report.html").substitute(
        title=escape(title),
        style=_template("report.css").substitute({k: ",".join(f"#{s}" for s in stops) for k, stops in colours.items()}),
        tables="\n".join(_tables(loaded)),
        pictures="\n".join(_pictures(run, number) for number, run in enumerate(loaded)),
        details="\n".join(_details(run) for run in loaded),
        script=_template("report.js").template,
    )
    out_html = Path(out_html)
    out_html.parent.mkdir(parents=True, exist_ok=True)
    out_html.write_text(page, encoding="utf-8")
    return out_html


def _template(name: str) -> Template:
    return Template(resources.files("d2a2_core.evaluation").joinpath("templates", name).read_text(encoding="utf-8"))


def read_run(folder: str | Path) -> Run:
    """Reads a run folder; pictures and summary.json may be missing, metrics.csv may not."""
    folder = Path(folder)
    metrics, summary = folder / "metrics.csv", folder / "summary.json"
    if not metrics.is_file():
        raise FileNotFoundError(f"expected an evaluation run with metrics.csv in {folder}, found none")
    rows = read_csv(metrics)
    if not rows:
        raise ValueError(f"{metrics}: expected at least one row, found none")
    stored = json.loads(summary.read_text(encoding="utf-8")) if summary.is_file() else {}
    return Run(folder, rows, stored.get("pictures", []), stored.get("expected"))


def _tables(runs: list[Run]) -> list[str]:
    """A table for each (set, scale, range) with a line per method, and the paper's RMSE under it."""
    groups: dict[tuple, list[tuple[Row, int | None]]] = {}
    for run in runs:
        for entry in summarise(run.rows):
            groups.setdefault((entry["dataset"], entry["scale"], entry["range"]), []).append((entry, run.expected))
    return [_table(key, entries) for key, entries in groups.items()]


def _table(key: tuple, entries: list[tuple[Row, int | None]]) -> str:
    dataset, scale, range_mode = key
    summaries = [entry for entry, _ in entries]
    best = {name: _best([s[name] for s in summaries], better) for name, *_, better in _COLUMNS}
    lines = []
    for entry, expected in entries:
        cells = "".join(_cell(entry[name], digits, factor, best[name]) for name, _, digits, factor, _ in _COLUMNS)
        images = f"{entry['images']}" + (f" of {expected}" if expected else "")
        lines.append(f'<tr><th scope="row">{escape(entry["method"])}</th><td>{images}</td>{cells}</tr>')
    for name, label in (("paper_d2a2", "D2A2 (paper)"), ("paper_dctnet", "DCTNet (paper)")):
        if summaries[0][name] is not None:
            rest = f'<td colspan="{len(_COLUMNS) - 1}"></td>'
            row = f'<th scope="row">{label}</th><td>full set</td><td>{summaries[0][name]:.2f}</td>{rest}'
            lines.append(f'<tr class="paper">{row}</tr>')
    caption = f"{escape(dataset)} ×{scale}, {escape(range_mode)} range; RMSE and MAE in {summaries[0]['unit']}"
    return (
        f"<section><h2>{escape(dataset)} ×{scale} <small>{escape(range_mode)}</small></h2>"
        + _grid(caption, ("Method", "Images", *(column[1] for column in _COLUMNS)), lines)
        + "</section>"
    )


def _details(run: Run) -> str:
    lines = [
        f'<tr><th scope="row">{escape(row["image"])}</th>'
        + "".join(_cell(row[name], digits, factor) for name, _, digits, factor, _ in _COLUMNS)
        + "</tr>"
        for row in run.rows
    ]
    table = _grid(run.title, ("Image", *(column[1] for column in _COLUMNS)), lines)
    return f"<details><summary>{escape(run.title)} ({len(run.rows)} images)</summary>{table}</details>"


def _grid(caption: str, heads: Sequence[str], lines: Sequence[str]) -> str:
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    # Focusable, so that a wide table scrolls by keyboard.
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table>'
        f"<caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _cell(value: float, digits: int, factor: float, best: float | None = None) -> str:
    if value != value:
        return "<td>–</td>"
    text = f"{value * factor:.{digits}f}"
    return f"<td><strong>{text}</strong></td>" if value == best else f"<td>{text}</td>"


def _best(values: list[float], better: int) -> float | None:
    """The best of several methods' values, None where there is nothing to compare."""
    known = [value for value in values if value == value]
    if len(values) < 2 or not known or not better:
        return None
    return max(known) if better > 0 else min(known)


def _pictures(run: Run, number: int) -> str:
    figures = [_figure(run, shot, f"s{number}-{index}") for index, shot in enumerate(run.shots)]
    if not figures:
        return ""
    return f'<section><h2>Pictures: {escape(run.title)}</h2><div class="gallery">{"".join(figures)}</div></section>'


def _figure(run: Run, shot: dict[str, Any], name: str) -> str:
    """One image: the slider between bicubic and the prediction, its figures, and the other pictures small."""
    folder, image, dataset = run.folder / "pictures" / shot["image"], escape(shot["image"]), run.rows[0]["dataset"]
    # Bicubic itself is compared with the truth.
    method = escape(run.rows[0]["method"])
    after, after_name = ("truth", "ground truth") if method == "bicubic" else ("pred", method)
    unit = "levels" if metric_unit(dataset) == "8-bit" else "m"
    small = "".join(
        f'<figure><img src="{_data_uri(folder / f"{key}.png")}" alt="{label} of {image}">'
        f"<figcaption>{label}</figcaption></figure>"
        for key, label in _THUMBNAILS
    )
    return f"""
<article class="shot" aria-labelledby="{name}">
<h3 id="{name}">{image}</h3>
<div class="compare">
<img src="{_data_uri(folder / "bicubic.png")}" alt="Depth of {image}: bicubic">
<img class="after" src="{_data_uri(folder / f"{after}.png")}" alt="Depth of {image}: {after_name}">
<span class="tag left">bicubic</span><span class="tag right">{after_name}</span><span class="bar"></span>
<input type="range" min="0" max="100" value="50" aria-label="{image}: share of bicubic against {after_name}, percent">
</div>
<p><span><b>RMSE {shot["rmse"]:.3f}</b> {metric_unit(dataset)}</span><span>bicubic {shot["bicubic_rmse"]:.3f}</span>
<span><i class="key depth"></i>{shot["lo"]:.4g} to {shot["hi"]:.4g} {unit}</span>
<span><i class="key error"></i>error 0 to {shot["error_limit"]:.2g} {unit}</span></p>
<div class="small">{small}</div>
</article>"""


def _data_uri(path: Path) -> str:
    """A picture as WebP: a fifth of the PNG's size, with no visible loss."""
    stream = io.BytesIO()
    read_image(path).convert("RGB").save(stream, "WEBP", quality=90, method=4)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
