"""One self-contained HTML page from one or several run folders (see :mod:`d2a2_core.evaluation.evaluator`).

Everything is inside the file: styles, the little script of the sliders, pictures as WebP data URIs. It opens offline,
can be mailed, works by keyboard (the sliders are native range inputs) and shows every picture without the script too.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from d2a2_core.evaluation.evaluator import Row, metric_unit, read_csv, summarise
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
    body = "\n".join(
        [
            f"<header><h1>{escape(title)}</h1>{_INTRO}</header>",
            "<main>",
            *_tables(loaded),
            *(_pictures(run, number) for number, run in enumerate(loaded)),
            "<section><h2>Per image</h2>",
            *(_details(run) for run in loaded),
            _NOTES,
            "</section></main>",
        ]
    )
    out_html = Path(out_html)
    out_html.parent.mkdir(parents=True, exist_ok=True)
    style = _STYLE
    for word, stops in (("DEPTH", DEPTH_STOPS), ("ERROR", ERROR_STOPS)):
        style = style.replace(word, ",".join(f"#{stop}" for stop in stops))
    out_html.write_text(_PAGE.format(title=escape(title), style=style, body=body, script=_SCRIPT), encoding="utf-8")
    return out_html


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
    with Image.open(path) as image:
        image.convert("RGB").save(stream, "WEBP", quality=90, method=4)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


_INTRO = """<p>Mean over images of each set. The best of each column is bold where several methods are compared. The
paper's rows are Table 1 of <cite>arXiv 2401.08123</cite>: full sets, oracle range.</p>"""

_NOTES = """<h2>What the columns mean</h2><dl>
<dt>Range</dt><dd><b>oracle</b>: depth normalised with the ground truth's minimum and maximum, as published.
<b>deploy</b>: with those of the low-resolution input alone, which is all a robot has.</dd>
<dt>REL, δ</dt><dd>Mean of |error| / truth; share of pixels with max(p/t, t/p) under the limit.</dd>
<dt>RMSE at edges</dt><dd>Over pixels within 5 px of a jump of more than 3 % of the image's depth range.</dd>
<dt>Flying px</dt><dd>Share of those pixels predicted between foreground and background, where nothing is.</dd>
<dt>Normals</dt><dd>Mean angle to the true surface normals away from edges. In 8-bit sets of the height field, for
comparison only.</dd>
<dt>Coverage</dt><dd>Share of pixels with ground truth for which the method gave a depth.</dd></dl>"""

_STYLE = """
:root{color-scheme:light dark;--fg:#1b1f24;--dim:#5b6470;--bg:#fbfbfa;--card:#fff;--line:#dcdfe3;--accent:#0b62c4}
@media(prefers-color-scheme:dark){:root{--fg:#e8eaed;--dim:#a3abb5;--bg:#14171a;--card:#1d2125;--line:#363c43;
--accent:#79b4ff}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:84rem;padding:1.5rem;background:var(--bg);color:var(--fg);
font:16px/1.5 system-ui,sans-serif}
h1{margin:0;font-size:1.8rem}h2{margin:2rem 0 .6rem;font-size:1.25rem}h3{margin:0 0 .5rem;font-size:1rem}
h2 small{color:var(--dim);font-weight:400}header p,caption,dd{color:var(--dim)}
.scroll{overflow-x:auto;background:var(--card);border:1px solid var(--line);border-radius:8px}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;white-space:nowrap}
caption{caption-side:bottom;text-align:left;padding:.5rem .75rem;font-size:.85rem}
th,td{padding:.4rem .6rem;text-align:right;border-bottom:1px solid var(--line)}
th:first-child{text-align:left}thead th{font-size:.85rem;color:var(--dim);white-space:normal;vertical-align:bottom}
tbody th{font-weight:600}
td strong{color:var(--accent)}tr.paper>*{color:var(--dim);font-weight:400;font-style:italic}
details{margin:.5rem 0}summary{cursor:pointer;padding:.3rem 0}
.gallery{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,30rem),1fr));gap:1rem}
.shot{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:1rem}
.shot p{display:flex;flex-wrap:wrap;gap:0 1rem;margin:.6rem 0;font-size:.9rem}.shot p span{white-space:nowrap}
.compare{position:relative;--at:50%;overflow:hidden;border-radius:4px}
.compare img{display:block;width:100%}
.js .compare .after{position:absolute;inset:0;height:100%;clip-path:inset(0 0 0 var(--at))}
.compare input,.bar{display:none}
.js .compare input{display:block;position:absolute;inset:0;width:100%;height:100%;margin:0;opacity:0;cursor:ew-resize}
.js .bar{display:block;position:absolute;top:0;bottom:0;left:var(--at);width:2px;margin-left:-1px;background:#fff;
box-shadow:0 0 0 1px #0008;pointer-events:none}
.js .bar::after{content:"\\2194";position:absolute;top:50%;left:50%;width:2rem;height:2rem;
transform:translate(-50%,-50%);
border-radius:50%;background:#fff;color:#111;text-align:center;line-height:2rem;box-shadow:0 0 0 1px #0008}
.compare:focus-within{outline:3px solid var(--accent);outline-offset:2px}
.tag{display:none}.js .tag{display:block;position:absolute;top:.5rem;padding:0 .5rem;border-radius:4px;background:#000b;
color:#fff;font-size:.8rem;pointer-events:none}.left{left:.5rem}.right{right:.5rem}
.small{display:grid;grid-template-columns:repeat(4,1fr);gap:.5rem}
.small figure{margin:0}.small img{width:100%;border-radius:3px}.small figcaption{font-size:.75rem;color:var(--dim)}
.key{display:inline-block;width:4rem;height:.7rem;margin-right:.4rem;border-radius:2px}
.key.depth{background:linear-gradient(90deg,DEPTH)}.key.error{background:linear-gradient(90deg,ERROR)}
a:focus-visible,summary:focus-visible,.scroll:focus-visible{outline:3px solid var(--accent)}
dt{font-weight:600;margin-top:.5rem}dd{margin:0}
"""

_SCRIPT = """
document.documentElement.classList.add("js");
for (const input of document.querySelectorAll(".compare input")) {
  const show = () => input.parentElement.style.setProperty("--at", input.value + "%");
  input.addEventListener("input", show);
  show();
}
"""

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>{title}</title><style>{style}</style></head>
<body>{body}<script>{script}</script></body></html>
"""
