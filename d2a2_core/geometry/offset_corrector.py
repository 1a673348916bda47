"""The offset between the two images of a stream: watched, and taken out where that is asked for.

Convention: see :mod:`d2a2_core.geometry.edge_offset`.
"""

from __future__ import annotations

import threading

import numpy as np

from d2a2_core.geometry.edge_offset import EdgeOffset, Offset

_LOOK_EVERY = 5  # frames between two looks at what the watchdog found
_AT_FIRST, _THEN_EVERY = (
    30,
    4,
)  # frames that are all shown to it, and every which one later: a calibration drifts slowly
# Colour pixels and LR cells; an offset over both is worth correcting: the first (aligned scenes show less), then what is left.
_WORTH_FIRST, _WORTH_MORE = (1.0, 0.4), (1.0, 0.2)


class OffsetCorrector:
    """Follows the offset of one stream. Only :meth:`look` may be called from another thread.

    Args:
        watchdog: Measures the offset; its ``max_shift`` bounds what is corrected.
        thinned: Whether, after some frames, only every few are shown to the watchdog.
    """

    def __init__(self, watchdog: EdgeOffset | None = None, thinned: bool = False) -> None:
        self._thinned = thinned
        self.watchdog = watchdog or EdgeOffset()
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Forgets the stream so far."""
        with self._lock:
            self.watchdog.reset()
        self._watched, self._watched_offset, self._found, self._shown = 0, (0, 0), np.zeros(2), 0
        self._shape: tuple[int, ...] = ()

    def offset(self, shape: tuple[int, ...], given: tuple[float, float], correct: bool) -> tuple[int, int]:
        """Returns what to take out of a pair: whole pixels (dx, dy) by which colour lies beside depth.

        Args:
            shape: Shape of the colour image; what was found is forgotten when it changes.
            given: Known offset, pixels.
            correct: Whether the offset that was found is added.
        """
        if shape != self._shape:
            self._shape, self._found = shape, np.zeros(2)
        dx, dy = np.rint(np.array(given) + (self._found if correct else 0.0)).astype(int).tolist()
        return dx, dy

    def watch(self, color: np.ndarray, lr: np.ndarray, scale: int, offset: tuple[int, int], correct: bool) -> None:
        """Shows a pair to the watchdog.

        Args:
            color: (H, W, 3) uint8 RGB, ``offset`` already taken out.
            lr: (ceil(H / scale), ceil(W / scale)) metres, NaN invalid.
            scale: Colour pixels per LR cell.
            offset: What was taken out.
            correct: Whether a confident finding is taken over into :meth:`offset`.
        """
        # Whole cells only: the last ones may reach beyond the image, and both must cover the same rectangle.
        rows, cols = (length // scale for length in color.shape[:2])
        if not rows or not cols:
            return
        with self._lock:
            if offset != self._watched_offset:
                # What was seen so far belongs to another offset.
                self.watchdog.reset()
                self._watched, self._watched_offset, self._shown = 0, offset, 0
            self._shown += 1
            if self._thinned and self._shown > _AT_FIRST and self._shown % _THEN_EVERY:
                return
            self.watchdog.update(color[: rows * scale, : cols * scale], lr[:rows, :cols])
            if correct:
                self._correct(scale)

    def look(self, threshold_px: float) -> tuple[Offset | None, bool]:
        """Returns the offset that is left, None while unknown, and whether it is confidently above the threshold."""
        with self._lock:
            offset = self.watchdog.estimate()
            return offset, offset is not None and self.watchdog.drifted(threshold_px)

    def _correct(self, scale: int) -> None:
        """Takes over what the watchdog found on top of what is corrected already."""
        self._watched += 1
        if self._watched % _LOOK_EVERY:
            return
        rest = self.watchdog.estimate()
        if rest is None or rest.confidence < self.watchdog.min_confidence:
            return
        found = self._found + np.array([rest.dx, rest.dy])
        # Beyond what it looks for at once it may have followed an alias of the texture.
        pixels, cells = _WORTH_MORE if self._found.any() else _WORTH_FIRST
        if rest.magnitude > max(pixels, cells * scale) and np.hypot(*found) <= self.watchdog.max_shift:
            self._found = np.rint(found)


def moved(image: np.ndarray, offset: tuple[int, int], fill: float | None) -> np.ndarray:
    """Moves the content of (H, W, ...) right and down by whole pixels.

    ``fill`` stands where nothing comes from; None repeats the edge.
    """
    if offset == (0, 0):
        return image
    (height, width), (dx, dy) = image.shape[:2], offset
    rows, columns = np.arange(height) - dy, np.arange(width) - dx
    out = image[rows.clip(0, height - 1)[:, None], columns.clip(0, width - 1)]
    if fill is not None:
        out[(rows < 0) | (rows >= height)] = fill
        out[:, (columns < 0) | (columns >= width)] = fill
    return out
