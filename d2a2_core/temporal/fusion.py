"""One recursive filter per pixel: a new frame and what is known from the frames before become one.

Of a frame's error variance sigma^2 a share is the same from frame to frame: a network that sees the same colours makes the same
mistake again. Only the rest averages out. So the filter holds two variances for each pixel, P of what averages out and B of
what does not, and what it publishes is sqrt(P + B), which never falls below sqrt(B):

    R = (1 - shared) sigma^2,  K = P / (P + R),  depth += K (z - depth),  P = K R,  B += K (shared sigma^2 - B)

P first grows to P memory / (memory - 1), but not beyond R / (memory - 1): so K is at least 1 / memory while sigma stays the same.
A measurement that disagrees replaces the pixel: depth = z, P = R, B = shared sigma^2. It is never averaged with what was known.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

TILE = 16  # pixels; several LR cells, whose errors are mostly independent of one another
_TILE_BIAS = 1.0  # mean innovation of a tile, in standard deviations, from which it counts as shifted
_SHIFTED = 0.5  # standard deviations, and in the direction of the tile, from which a pixel in it is replaced
_BUSY = 0.12  # share of a tile's pixels that differ by more than the narrow gate where something moves
_EVERY = 2  # tiles are judged by every second row: neighbours err alike anyway
_BAND = 1 << 15  # pixels; what is computed at a time stays in a processor's cache


@dataclass
class Belief:
    """What is known of each pixel, all (H, W) float32.

    Attributes:
        depth: Metres along z, NaN where nothing is known.
        noise: P, square metres, the variance of what averages out; finite everywhere.
        shared: B, square metres, the variance of what does not; finite everywhere.
        age: Seconds since the pixel was last measured.
    """

    depth: np.ndarray
    noise: np.ndarray
    shared: np.ndarray
    age: np.ndarray

    @classmethod
    def empty(cls, shape: tuple[int, int]) -> Belief:
        """Nothing is known of any pixel."""
        return cls(np.full(shape, np.nan, np.float32), *(np.ones(shape, np.float32) for _ in range(3)))

    def arrays(self) -> tuple[np.ndarray, ...]:
        """All four, in the order of the attributes."""
        return self.depth, self.noise, self.shared, self.age

    def copy(self) -> Belief:
        """Arrays of its own."""
        return Belief(*(array.copy() for array in self.arrays()))

    def rows(self, rows: slice) -> Belief:
        """A view of some rows."""
        return Belief(*(array[rows] for array in self.arrays()))


@dataclass(frozen=True)
class Rules:
    """Numbers of the filter.

    Attributes:
        memory: Frames that one pixel averages at most.
        shared: Share of sigma^2 that is the same from frame to frame, in [0, 1).
        gate: Standard deviations of the innovation (z - depth) up to which a measurement agrees.
        narrow_abs, narrow_rel: Where something moves it agrees at most up to the larger of these, metres and share of the depth.
        narrow: Whether that holds everywhere.
        remember_s: Seconds for which a hole keeps what was seen there.
    """

    memory: float
    shared: float
    gate: float
    narrow_abs: float
    narrow_rel: float
    narrow: bool
    remember_s: float


@dataclass(frozen=True)
class Fused:
    """How a frame was fused.

    Attributes:
        remembered: (H, W) bool, holes of the frame that keep what was seen before.
        agreeing: Share of the pixels known before and measured now that agree; 1 where there are none.
        bias: Median over the tiles of their mean innovation, in standard deviations.
        shifted: Share of the tiles whose mean innovation is large.
    """

    remembered: np.ndarray
    agreeing: float
    bias: float
    shifted: float


def start(belief: Belief, depth: np.ndarray, variance: np.ndarray, rules: Rules) -> None:
    """Makes ``belief`` what a frame says alone; arguments as in :func:`fuse`."""
    belief.depth[:] = depth
    np.multiply(variance, np.float32(1 - rules.shared), out=belief.noise)
    np.multiply(variance, np.float32(rules.shared), out=belief.shared)
    belief.age[:] = 0


def fuse(belief: Belief, depth: np.ndarray, variance: np.ndarray, seconds: float, rules: Rules) -> Fused:
    """Fuses a frame into what is known.

    Args:
        belief: What was known before, seen from where the frame was taken; is changed to what is known now.
        depth: (H, W) float32 metres, NaN in holes.
        variance: (H, W) float32 square metres, sigma^2, positive everywhere.
        seconds: Since the frame before.
        rules: Numbers of the filter.
    """
    tiles = _Tiles(depth.shape)
    new = _Comparison(tiles.largest, rules)
    moving, shift, bias = _judge(new, tiles, belief, depth, variance)
    remembered, known, agreeing = np.zeros(depth.shape, bool), 0, 0
    for band in tiles.bands:
        was, z = belief.rows(band.rows), depth[band.rows]
        new.compare(was, z, variance[band.rows])
        in_moving, shifted = tiles.enlarge(moving, band), tiles.enlarge(shift, band)
        agree = new.near & ~(new.far & (in_moving | rules.narrow))
        if shifted.any():
            agree &= new.deviation * shifted < _SHIFTED
        known += int(np.count_nonzero(new.known))
        agreeing += int(np.count_nonzero(agree))
        past = None if new.known.all() else was.copy()
        new.update(was, agree)
        if past is not None:
            past.age += np.float32(seconds)
            kept = np.isnan(z) & ~np.isnan(past.depth) & (past.age <= rules.remember_s) & ~in_moving & (shifted == 0)
            for array, before in zip(was.arrays(), past.arrays(), strict=True):
                np.copyto(array, before, where=kept)
            remembered[band.rows] = kept
    return Fused(remembered, agreeing / known if known else 1.0, bias, float(np.mean(shift != 0)))


def _judge(
    new: _Comparison, tiles: _Tiles, belief: Belief, depth: np.ndarray, variance: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """What tiles show that single pixels do not.

    Sigma is wide at depth edges, where the network's result jitters, and a hand that passes may lie within it. So the gate is as
    wide as that only in tiles around which next to nothing differs by more than the narrow one.
    A surface that moves slowly, and a wrong pose, shift neighbours alike, while their errors are independent beyond a few LR
    cells: where the mean innovation of a tile is large, all that differs in the same direction is replaced.

    Returns:
        Tiles (h, w) bool around which something moves; of each tile -1, 0 or 1 float32, the direction in which it is shifted;
        and the median of their mean innovations in standard deviations.
    """
    sums = []
    for band in tiles.bands:
        rows = slice(band.rows.start, band.rows.stop, _EVERY)
        new.compare(belief.rows(rows), depth[rows], variance[rows])
        heights = -(-band.heights // _EVERY)
        sums.append([tiles.sums(plane, heights) for plane in (new.known, new.far, new.deviation)])
    known, far, total = (np.concatenate(parts) for parts in zip(*sums, strict=True))
    busy = np.pad(far > _BUSY * known, 1)
    moving = np.asarray(np.lib.stride_tricks.sliding_window_view(busy, (3, 3)).any(axis=(2, 3)))
    shift = np.sign(total) * (np.abs(total) > _TILE_BIAS * np.maximum(known, TILE))
    means = total[known > 0] / known[known > 0]
    return moving, shift, float(np.median(means)) if len(means) else 0.0


class _Comparison:
    """Some rows of a frame beside what was known of them. One object serves all bands: fresh memory is slow.

    Attributes (h, W) after :meth:`compare`:
        noise: R, the frame's variance that averages out.
        innovation: Metres, 0 where either is missing.
        spread: Variance of the innovation.
        deviation: Innovation in its standard deviations, at most the gate.
        known: Bool, both are there.
        near, far: Bool, within the gate; beyond the narrow one.
    """

    def __init__(self, shape: tuple[int, int], rules: Rules) -> None:
        self._rules = rules
        self._floats, self._bools = np.empty((5, *shape), np.float32), np.empty((3, *shape), bool)

    def compare(self, was: Belief, depth: np.ndarray, variance: np.ndarray) -> None:
        """Fills the attributes; arguments as in :func:`fuse`."""
        rules, height = self._rules, len(depth)
        self._depth, self._variance = depth, variance
        self.noise, self.innovation, self.spread, self.deviation, self._scratch = self._floats[:, :height]
        self.known, self.near, self.far = self._bools[:, :height]
        np.multiply(variance, np.float32(1 - rules.shared), out=self.noise)
        np.subtract(depth, was.depth, out=self.innovation)
        np.isfinite(self.innovation, out=self.known)
        if not self.known.all():
            np.copyto(self.innovation, 0, where=~self.known)
        rest = np.float32(max(rules.memory - 1, 1e-6))
        np.multiply(was.noise, 1 + 1 / rest, out=self.spread)
        np.minimum(self.spread, np.multiply(self.noise, 1 / rest, out=self._scratch), out=self.spread)
        np.maximum(self.spread, was.noise, out=self.spread)
        self.spread += self.noise
        np.divide(self.innovation, np.sqrt(self.spread, out=self._scratch), out=self.deviation)
        gate = np.float32(rules.gate)
        np.clip(self.deviation, -gate, gate, out=self.deviation)
        np.less(np.abs(self.deviation, out=self._scratch), gate, out=self.near)
        self.near &= self.known
        size = np.abs(self.innovation, out=self._scratch)
        np.greater(size, np.float32(rules.narrow_abs), out=self.far)
        if self.far.any():
            self.far &= size > np.float32(rules.narrow_rel) * depth

    def update(self, was: Belief, agree: np.ndarray) -> None:
        """Fuses the rows where they agree; elsewhere takes the frame's own values."""
        gain = np.divide(self.noise, self.spread, out=self.deviation)
        gain *= agree  # 1 - K
        self.innovation *= gain
        np.subtract(self._depth, self.innovation, out=was.depth)
        np.subtract(1, gain, out=gain)
        np.multiply(gain, self.noise, out=was.noise)
        change = np.multiply(self._variance, np.float32(self._rules.shared), out=self._scratch)
        change -= was.shared
        change *= gain
        was.shared += change
        was.age[:] = 0


@dataclass(frozen=True)
class _Band:
    """Whole rows of tiles: the rows of pixels, of tiles, and how many of pixels each row of tiles has."""

    rows: slice
    cells: slice
    heights: np.ndarray


def bands(shape: tuple[int, ...]) -> list[slice]:
    """Rows of an image (H, W) that are computed at a time."""
    return [band.rows for band in _Tiles(shape).bands]


class _Tiles:
    """Tiles of ``TILE`` x ``TILE`` pixels; the last ones take what is left over, too."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        heights, self._widths = (_lengths(length) for length in shape)
        self._columns = _indicator(self._widths)
        starts = np.concatenate(([0], np.cumsum(heights)))
        step = max(1, _BAND // (TILE * shape[1]))
        self.bands = [
            _Band(slice(starts[i], starts[min(i + step, len(heights))]), slice(i, i + step), heights[i : i + step])
            for i in range(0, len(heights), step)
        ]
        self.largest = max(band.rows.stop - band.rows.start for band in self.bands), shape[1]

    def sums(self, plane: np.ndarray, heights: np.ndarray) -> np.ndarray:
        """Sums over tiles, float32, of (rows, W) float32 or bool; ``heights`` are the rows of each row of tiles."""
        return _indicator(heights).T @ plane.astype(np.float32, copy=False) @ self._columns

    def enlarge(self, cells: np.ndarray, band: _Band) -> np.ndarray:
        """The pixels (rows, W) of a band of all tiles' (h, w)."""
        return np.repeat(np.repeat(cells[band.cells], self._widths, axis=1), band.heights, axis=0)


def _indicator(lengths: np.ndarray) -> np.ndarray:
    """(sum of lengths, number of lengths) float32: 1 where a pixel belongs to a tile."""
    return np.repeat(np.eye(len(lengths), dtype=np.float32), lengths, axis=0)


def _lengths(length: int) -> np.ndarray:
    lengths = np.full(max(1, length // TILE), min(TILE, length))
    lengths[-1] += length - lengths.sum()
    return lengths
