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
_TILE_BIAS = 1.0  # mean innovation of a tile, in standard deviations, from which all of it is replaced
_BUSY = 0.12  # share of a tile's pixels that differ by more than the narrow gate where something moves
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
        bias: Their mean innovation in standard deviations.
    """

    remembered: np.ndarray
    agreeing: float
    bias: float


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
    moving, replaced, bias = _judge(tiles, belief, depth, variance, rules)
    remembered, known, agreeing = np.zeros(depth.shape, bool), 0, 0
    for band in tiles.bands:
        was, z = belief.rows(band.rows), depth[band.rows]
        new = _Comparison(was, z, variance[band.rows], rules)
        in_moving, in_replaced = tiles.enlarge(moving, band), tiles.enlarge(replaced, band)
        agree = new.near & ~(new.far & (in_moving | rules.narrow)) & ~in_replaced
        known += np.count_nonzero(new.known)
        agreeing += np.count_nonzero(agree)
        now = new.fused(was, agree)
        if not new.known.all():
            age = was.age + np.float32(seconds)
            kept = np.isnan(z) & ~np.isnan(was.depth) & (age <= rules.remember_s) & ~in_moving & ~in_replaced
            for fused, past in zip(now.arrays(), (was.depth, was.noise, was.shared, age), strict=True):
                np.copyto(fused, past, where=kept)
            remembered[band.rows] = kept
        for array, fused in zip(was.arrays(), now.arrays(), strict=True):
            array[:] = fused
    return Fused(remembered, agreeing / known if known else 1.0, bias / max(known, 1))


def _judge(
    tiles: _Tiles, belief: Belief, depth: np.ndarray, variance: np.ndarray, rules: Rules
) -> tuple[np.ndarray, np.ndarray, float]:
    """What tiles show that single pixels do not.

    Sigma is wide at depth edges, where the network's result jitters, and a hand that passes may lie within it. So the gate is as
    wide as that only in tiles around which next to nothing differs by more than the narrow one.
    A surface that moves slowly, and a wrong pose, shift neighbours alike, while their errors are independent beyond a few LR
    cells: a tile whose mean innovation is large is replaced as a whole.

    Returns:
        Tiles (h, w) bool around which something moves, tiles (h, w) bool to replace, and the sum of all innovations in
        standard deviations.
    """
    sums = []
    for band in tiles.bands:
        new = _Comparison(belief.rows(band.rows), depth[band.rows], variance[band.rows], rules)
        sums.append([tiles.sums(plane, band) for plane in (new.known, new.far, new.deviation)])
    known, far, bias = (np.concatenate(parts) for parts in zip(*sums, strict=True))
    moving = far > _BUSY * known
    padded = np.pad(moving, 1)
    moving = np.lib.stride_tricks.sliding_window_view(padded, (3, 3)).any((2, 3))
    return moving, np.abs(bias) > _TILE_BIAS * np.maximum(known, TILE), float(bias.sum())


class _Comparison:
    """Some rows of a frame beside what was known of them; attributes (h, W).

    Attributes:
        noise, shared: The frame's share of the variance that averages out, and of the one that does not.
        innovation: Metres, 0 where either is missing.
        spread: Variance of the innovation.
        deviation: Innovation in its standard deviations, at most the gate.
        known: Bool, both are there.
        near, far: Bool, within the gate; beyond the narrow one.
    """

    def __init__(self, was: Belief, depth: np.ndarray, variance: np.ndarray, rules: Rules) -> None:
        gate = np.float32(rules.gate)
        self.depth = depth
        self.noise, self.shared = np.float32(1 - rules.shared) * variance, np.float32(rules.shared) * variance
        self.innovation = depth - was.depth
        self.known = np.isfinite(self.innovation)
        if not self.known.all():
            np.copyto(self.innovation, 0, where=~self.known)
        rest = np.float32(max(rules.memory - 1, 1e-6))
        self.spread = np.minimum(was.noise * (1 + 1 / rest), self.noise / rest)
        np.maximum(self.spread, was.noise, out=self.spread)
        self.spread += self.noise
        self.deviation = np.clip(self.innovation / np.sqrt(self.spread), -gate, gate)
        self.near = (np.abs(self.deviation) < gate) & self.known
        narrow = np.fmax(np.float32(rules.narrow_rel) * depth, np.float32(rules.narrow_abs))
        self.far = np.abs(self.innovation) > narrow

    def fused(self, was: Belief, agree: np.ndarray) -> Belief:
        """The fused rows; the frame's own values where they do not agree."""
        weight = self.noise / self.spread  # 1 - K
        weight *= agree
        return Belief(
            self.depth - weight * self.innovation,
            (1 - weight) * self.noise,
            self.shared + weight * (was.shared - self.shared),
            np.zeros_like(self.depth),
        )


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
        starts = np.concatenate(([0], np.cumsum(heights)))
        step = max(1, _BAND // (TILE * shape[1]))
        self.bands = [
            _Band(slice(starts[i], starts[min(i + step, len(heights))]), slice(i, i + step), heights[i : i + step])
            for i in range(0, len(heights), step)
        ]

    def sums(self, plane: np.ndarray, band: _Band) -> np.ndarray:
        """Sums over the tiles of a band, (rows of tiles, columns of tiles) float32, of its (rows, W) float32 or bool."""
        # Columns of bool fit into a byte: a tile has fewer than 2 TILE rows.
        plane, kind = (plane.view(np.uint8), np.uint8) if plane.dtype == bool else (plane, np.float32)
        ends = np.cumsum(band.heights)
        rows = np.stack(
            [plane[end - height : end].sum(axis=0, dtype=kind) for end, height in zip(ends, band.heights, strict=True)]
        )
        return np.add.reduceat(rows.astype(np.float32), np.cumsum(self._widths) - self._widths, axis=1)

    def enlarge(self, cells: np.ndarray, band: _Band) -> np.ndarray:
        """The pixels (rows, W) of a band of all tiles' (h, w)."""
        return np.repeat(np.repeat(cells[band.cells], self._widths, axis=1), band.heights, axis=0)


def _lengths(length: int) -> np.ndarray:
    lengths = np.full(max(1, length // TILE), min(TILE, length))
    lengths[-1] += length - lengths.sum()
    return lengths
