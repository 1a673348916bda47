"""The reliability plot of an uncertainty: what was predicted against what was observed (Pillow only)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont

_PANEL, _MARGIN = 360, 64
_INK, _GRID, _BAND, _DOT = (30, 30, 30), (215, 215, 215), (225, 238, 225), (31, 90, 180)
_ACCEPTED = (0.60, 0.76)


def reliability_plot(table: dict[str, Any]) -> Image.Image:
    """Two panels of a table of :meth:`d2a2_core.calibration.sigma.Reliability.table`.

    Left: in each bin of predicted sigma, below which error 68 % of the pixels lie, both in metres on logarithmic axes; on the
    diagonal they agree. Right: the share of errors within sigma in each bin (dots) and kind of pixel (bars); green: 60 to 76 %.
    """
    width = 3 * _MARGIN + 2 * _PANEL + 110
    image = Image.new("RGB", (width, _PANEL + 2 * _MARGIN), "white")
    draw = ImageDraw.Draw(image)
    _predicted_against_observed(draw, table["bins"])
    _coverage(draw, table)
    return image


def _predicted_against_observed(draw: ImageDraw.ImageDraw, bins: Sequence[dict[str, float]]) -> None:
    values = [max(b[key], 1e-5) for b in bins for key in ("sigma", "error_68")]
    lo, hi = math.floor(math.log10(min(values)) * 2) / 2, math.ceil(math.log10(max(values)) * 2) / 2
    hi = max(hi, lo + 0.5)

    def place(x: float, y: float) -> tuple[float, float]:
        fx, fy = ((math.log10(max(v, 1e-5)) - lo) / (hi - lo) for v in (x, y))
        return _MARGIN + fx * _PANEL, _MARGIN + (1 - fy) * _PANEL

    decades = [10.0**e for e in range(math.floor(lo), math.ceil(hi) + 1)]
    for tick in [d * m for d in decades for m in (1, 2, 5) if 10**lo * 0.999 <= d * m <= 10**hi * 1.001]:
        x, y = place(tick, tick)
        draw.line((x, _MARGIN, x, _MARGIN + _PANEL), _GRID)
        draw.line((_MARGIN, y, _MARGIN + _PANEL, y), _GRID)
        _text(draw, (x, _MARGIN + _PANEL + 12), f"{tick * 1000:g}")
        _text(draw, (_MARGIN - 20, y), f"{tick * 1000:g}")
    draw.line((*place(10**lo, 10**lo), *place(10**hi, 10**hi)), (150, 150, 150), 2)
    points = [place(b["sigma"], b["error_68"]) for b in bins]
    draw.line(points, _DOT, 2)
    for x, y in points:
        draw.ellipse((x - 4, y - 4, x + 4, y + 4), _DOT)
    _text(draw, (_MARGIN + _PANEL / 2, _MARGIN + _PANEL + 34), "predicted sigma [mm]")
    _text(draw, (_MARGIN + _PANEL / 2, _MARGIN - 22), "68 % of the errors are below [mm]")


def _coverage(draw: ImageDraw.ImageDraw, table: dict[str, Any]) -> None:
    left, bins, groups = 2 * _MARGIN + _PANEL, table["bins"], table["coverage"]

    def height(share: float) -> float:
        return _MARGIN + (1 - share) * _PANEL

    right = left + _PANEL + 110
    draw.rectangle((left, height(_ACCEPTED[1]), right, height(_ACCEPTED[0])), _BAND)
    for share in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        draw.line((left, height(share), right, height(share)), _GRID)
        _text(draw, (left - 22, height(share)), f"{share:.0%}")
    draw.line((left, height(0.68), right, height(0.68)), (110, 150, 110), 2)
    step = (right - left) / (len(bins) + len(groups) + 1)
    for i, b in enumerate(bins):
        x, y = left + (i + 0.5) * step, height(b["coverage"])
        draw.ellipse((x - 4, y - 4, x + 4, y + 4), _DOT)
        _text(draw, (x, _MARGIN + _PANEL + 12), str(i + 1))
    for i, (name, share) in enumerate(groups.items(), len(bins) + 1):
        x = left + (i + 0.5) * step
        draw.rectangle((x - 5, height(share), x + 5, height(0)), (120, 160, 215))
        _upright(draw, (x, height(0) - 6), name)
    _text(draw, (left + len(bins) * step / 2, _MARGIN + _PANEL + 34), "bin of sigma, small to large")
    _text(draw, (left + (len(bins) + 1 + len(groups) / 2) * step, _MARGIN + _PANEL + 34), "kind of pixel")
    _text(draw, ((left + right) / 2, _MARGIN - 22), f"share of errors within sigma, {table['images']} images")


def _text(draw: ImageDraw.ImageDraw, middle: tuple[float, float], text: str) -> None:
    draw.text(middle, text, _INK, font=ImageFont.load_default(12), anchor="mm")


def _upright(draw: ImageDraw.ImageDraw, foot: tuple[float, float], text: str) -> None:
    """Text that reads upwards from ``foot``, inside a bar."""
    font = ImageFont.load_default(11)
    box = font.getbbox(text)
    label = Image.new("L", (int(box[2]) + 2, int(box[3]) + 2))
    ImageDraw.Draw(label).text((0, 0), text, 255, font=font)
    label = label.rotate(90, expand=True)
    draw.bitmap((foot[0] - label.width / 2, foot[1] - label.height), label, _INK)
