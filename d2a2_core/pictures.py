"""Pictures of depth maps, errors and comparisons (NumPy and Pillow only)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

INVALID = (64, 64, 64)  # dark grey: no depth here
# Colours at even steps: from near (0) to far (1) a rainbow that shows small steps everywhere (after Turbo), from no
# error to much a ramp whose brightness alone tells the size (after Inferno).
DEPTH_STOPS = ("30123b", "4662d8", "35abf8", "1ae4b6", "72fe5e", "c8ef34", "faba39", "f66b19", "ca2a04", "7a0403")
ERROR_STOPS = ("000004", "1b0c41", "4a0c6b", "781c6d", "a52c60", "cf4446", "ed6925", "fb9b06", "f7d13d", "fcffa4")


def colorize_depth(depth: np.ndarray, lo: float | None = None, hi: float | None = None) -> np.ndarray:
    """Depth (H, W) -> (H, W, 3) uint8 RGB: ``lo`` blue, ``hi`` red (default: the map's own range), NaN dark grey."""
    finite = depth[np.isfinite(depth)]
    if finite.size:
        lo = float(finite.min()) if lo is None else lo
        hi = float(finite.max()) if hi is None else hi
    return _colorize(depth, lo or 0.0, hi if hi is not None else 1.0, DEPTH_STOPS)


def error_map(prediction: np.ndarray, truth: np.ndarray, limit: float | None = None) -> np.ndarray:
    """|prediction - truth| (H, W) -> (H, W, 3) uint8 RGB: 0 black, ``limit`` and above pale yellow, NaN dark grey.

    Args:
        prediction, truth: depth in one unit.
        limit: in that unit; default 5 % of the true range.
    """
    if limit is None:
        finite = truth[np.isfinite(truth)]
        limit = 0.05 * float(finite.max() - finite.min()) if finite.size else 1.0
    return _colorize(np.abs(prediction - truth), 0.0, limit, ERROR_STOPS)


def enlarge_nearest(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """RGB picture (h, w, 3) shown at ``size`` = (H, W) with its pixels visible."""
    return np.asarray(Image.fromarray(picture).resize(size[::-1], Image.Resampling.NEAREST))


def contact_sheet(panels: Sequence[tuple[str, np.ndarray]], columns: int = 3, width: int = 480) -> Image.Image:
    """Labelled pictures side by side.

    Args:
        panels: (label, (H, W, 3) uint8 RGB); each is scaled to ``width`` pixels wide, keeping its shape.
        columns: per row.
        width: of a panel, in pixels.
    """
    if not panels:
        raise ValueError("expected at least one picture for a contact sheet, got none")
    gap, label_height = 8, 26
    images = [Image.fromarray(rgb).resize((width, round(rgb.shape[0] * width / rgb.shape[1]))) for _, rgb in panels]
    columns = min(columns, len(panels))
    row_height = max(image.height for image in images) + label_height + gap
    rows = -(-len(panels) // columns)
    sheet = Image.new("RGB", (columns * (width + gap) + gap, rows * row_height + gap), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=16)
    for index, ((label, _), image) in enumerate(zip(panels, images, strict=True)):
        left, top = gap + index % columns * (width + gap), gap + index // columns * row_height
        draw.text((left, top), label, fill="black", font=font)
        sheet.paste(image, (left, top + label_height))
    return sheet


def _colorize(values: np.ndarray, lo: float, hi: float, stops: Sequence[str]) -> np.ndarray:
    """Values (H, W) through a piecewise linear colour map; clipped to [lo, hi]."""
    valid = np.isfinite(values)
    position = np.clip((np.where(valid, values, lo) - lo) / max(hi - lo, 1e-12), 0, 1)
    table = np.array([list(bytes.fromhex(stop)) for stop in stops], np.float64)
    at = np.linspace(0, 1, len(stops))
    picture = np.stack([np.interp(position, at, table[:, channel]) for channel in range(3)], axis=-1)
    picture[~valid] = INVALID
    return picture.round().astype(np.uint8)
