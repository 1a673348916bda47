"""One recursive filter per pixel: a new frame and what is known from the frames before become one.

Of a frame's error variance sigma^2 a share is the same from frame to frame: a network that sees the same colours makes the same
mistake again. Only the rest averages out. So the filter holds two variances for each pixel, P of what averages out and B of
what does not, and what it publishes is sqrt(P + B), which never falls below sqrt(B):

    R = (1 - shared) sigma^2,  K = P / (P + R),  depth += K (z - depth),  P = max(K R, R / memory),  B += K (shared sigma^2 - B)

A measurement beyond the gate replaces the pixel: depth = z, P = R, B = shared sigma^2. Nothing is averaged across the gate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

TILE = 16  # pixels; several LR cells, whose errors are mostly independent of one another
_TILE_BIAS = 1.0  # mean innovation of a tile, in standard deviations, from which all of it is replaced


@dataclass
class Belief:
    """What is known of each pixel, all (H, W) float32.

    Attributes:
        depth: Metres along z, NaN where nothing is known.
        noise: P, square metres, the variance of what averages out.
        shared: B, square metres, the variance of what does not.
        age: Seconds since the pixel was last measured.
    """

    depth: np.ndarray
    noise: np.ndarray
    shared: np.ndarray
    age: np.ndarray

    def arrays(self) -> tuple[np.ndarray, ...]:
        """All four, in the order of the attributes."""
        return self.depth, self.noise, self.shared, self.age


@dataclass(frozen=True)
class Rules:
    """Numbers of the filter.

    Attributes:
        memory: Frames that one pixel averages at most.
        shared: Share of sigma^2 that is the same from frame to frame, in [0, 1).
        gate: Standard deviations of the innovation up to which a measurement agrees.
        gate_abs, gate_rel: It agrees at most up to the larger of these, metres and share of the depth, whatever sigma says.
        remember_s: Seconds for which a hole keeps what was seen there.
    """

    memory: float
    shared: float
    gate: float
    gate_abs: float
    gate_rel: float
    remember_s: float


@dataclass(frozen=True)
class Fused:
    """A fused frame.

    Attributes:
        belief: What is known now.
        remembered: (H, W) bool, holes of the frame that keep what was seen before.
        agreeing: Share of the pixels known before and measured now that were fused; 1 where there were none.
        bias: Their mean innovation in standard deviations.
    """

    belief: Belief
    remembered: np.ndarray
    agreeing: float
    bias: float


def first(depth: np.ndarray, variance: np.ndarray, rules: Rules) -> Belief:
    """What a frame says without any before it; arguments as in :func:`fuse`."""
    return Belief(depth.copy(), (1 - rules.shared) * variance, rules.shared * variance, np.zeros_like(depth))


def fuse(before: Belief, depth: np.ndarray, variance: np.ndarray, seconds: float, rules: Rules) -> Fused:
    """Fuses a frame with what was known before it.

    Args:
        before: Seen from where the frame was taken.
        depth: (H, W) float32 metres, NaN in holes.
        variance: (H, W) float32 square metres, sigma^2, positive everywhere.
        seconds: Since the frame before.
        rules: Numbers of the filter.
    """
    frame = first(depth, variance, rules)
    innovation = depth - before.depth
    known = np.isfinite(innovation)
    innovation[~known] = 0
    spread = before.noise + frame.noise
    deviation = np.clip(innovation / np.sqrt(spread), -rules.gate, rules.gate)
    agree = np.abs(deviation) < rules.gate
    agree &= np.abs(innovation) < np.fmax(rules.gate_rel * depth, rules.gate_abs)
    agree &= known
    trusted = _trusted(deviation, agree, known)
    count, agreeing = np.count_nonzero(known), np.count_nonzero(agree)
    agree &= trusted

    kept = np.minimum(frame.noise / spread, 1 - 1 / np.float32(rules.memory))
    kept *= agree
    belief = frame
    belief.depth -= kept * innovation
    belief.noise *= 1 - kept
    belief.shared += kept * (before.shared - belief.shared)
    age = before.age + np.float32(seconds)
    remembered = np.isnan(depth) & trusted & (age <= rules.remember_s) & np.isfinite(before.depth)
    if remembered.any():
        for now, past in zip(belief.arrays(), (before.depth, before.noise, before.shared, age), strict=True):
            np.copyto(now, past, where=remembered)
    return Fused(belief, remembered, agreeing / count if count else 1.0, float(deviation.sum()) / max(count, 1))


def _trusted(deviation: np.ndarray, agree: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(H, W) bool: tiles in which what was known before still holds.

    Errors of neighbours are independent beyond a few LR cells, so their mean over a tile is small; a surface that moves slower than
    the gate, or a wrong pose, shifts all of them alike.
    """
    total, agreeing, count = (_tile_sums(plane) for plane in (deviation, agree, known))
    trusted = (np.abs(total) <= _TILE_BIAS * np.maximum(count, TILE)) & (2 * agreeing >= count)
    height, width = deviation.shape
    return np.repeat(np.repeat(trusted, TILE, 0)[:height], TILE, 1)[:, :width]


def _tile_sums(plane: np.ndarray) -> np.ndarray:
    """(H, W) -> (ceil(H / TILE), ceil(W / TILE)) float32."""
    height, width = plane.shape
    rows = np.add.reduceat(plane.astype(np.float32, copy=False), np.arange(0, height, TILE), axis=0)
    return np.add.reduceat(rows, np.arange(0, width, TILE), axis=1)
