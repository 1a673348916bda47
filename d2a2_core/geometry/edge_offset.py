"""Watching the calibration: by how much the edges of colour lie beside the edges of depth, without a target.

Depth edges are few and nearly all of them are colour edges too; colour edges are many. So every depth edge looks at the
colour gradient across it at all shifts within some pixels. One edge says little (texture is everywhere); the mean over
hundreds of them has its peak at the offset of the two images.

Convention: (dx, dy) is where colour lies seen from depth, in pixels of the colour image, x right and y down: a colour image
whose content moved 3 px to the right has dx = 3. Both images cover the same rectangle (see :mod:`d2a2_core.depth.resample`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

_TILES = 5  # along each side of the image: edges of one tile belong together when the evidence is resampled
_REPLICATES = 100
_AGREEMENT = (1.0, 0.3)  # replicates agree within so many colour pixels or so many depth pixels, whichever is more
_BLUR = 0.4  # depth pixels: the place of an edge is known no better, peaks that are narrower are chance
_MIN_JUMP = 0.05  # of the nearer depth: a smaller step is no edge to rely on
_MAX_GAP = 4  # LR pixels without depth that an edge may hide in
_EROSION = 2.0  # LR pixels that a sensor drops on either side of an edge; a wider hole is what the foreground occludes
_MAX_DEPTH_PIXELS = 120_000  # looked at of one frame
_FLOOR = 3.0  # grey values: gradients below are taken for noise


@dataclass(frozen=True)
class Offset:
    """What :meth:`EdgeOffset.estimate` found.

    Attributes:
        dx, dy: where colour lies seen from depth, in pixels of the colour image.
        confidence: 0 to 1, the share of resamplings of the image's tiles that find the same offset, within one colour pixel or
            0.3 depth pixels, whichever is more.
        frames: number of frames behind it; older ones count less.
    """

    dx: float
    dy: float
    confidence: float
    frames: int

    @property
    def magnitude(self) -> float:
        """Length of (dx, dy)."""
        return float(np.hypot(self.dx, self.dy))


class EdgeOffset:
    """Estimates the offset between depth edges and colour edges over a window of frames. Memory does not grow.

    Args:
        max_shift: offsets up to this many colour pixels are looked for; an offset beyond gives no estimate.
        window: frames after which one counts 1 / e of the newest.
        min_frames: no estimate before so many frames.
        min_edges: no estimate from fewer depth edge pixels, counted over the window.
        min_confidence: :meth:`drifted` trusts nothing below.
        max_points: depth edge pixels used of one frame, drawn at random; they bound the time.
        work_width: the colour image is reduced by a whole factor to about this width.
        seed: of the draws.

    Raises:
        ValueError: an argument out of range.
    """

    def __init__(
        self,
        max_shift: float = 10.0,
        window: float = 10.0,
        min_frames: int = 5,
        min_edges: int = 300,
        min_confidence: float = 0.9,
        max_points: int = 1000,
        work_width: int = 640,
        seed: int = 0,
    ) -> None:
        if not max_shift >= 2 or not window >= 1 or min(min_frames, min_edges, max_points, work_width) < 1:
            raise ValueError(
                f"expected max_shift >= 2, window >= 1 and positive counts, got max_shift={max_shift}, window={window}, "
                f"min_frames={min_frames}, min_edges={min_edges}, max_points={max_points}, work_width={work_width}"
            )
        self.max_shift, self.window, self.min_frames, self.min_edges = max_shift, window, min_frames, min_edges
        self.min_confidence, self.max_points, self.work_width = min_confidence, max_points, work_width
        self._seed = seed
        # How often each tile is drawn in a bootstrap replicate; a fixed draw makes the confidence repeatable.
        draws = np.random.default_rng(seed).integers(_TILES**2, size=(_REPLICATES, _TILES**2))
        draws = np.stack([np.bincount(d, minlength=_TILES**2) for d in draws])
        self._draws = draws.reshape(-1, _TILES, _TILES).astype(np.float64)
        self.reset()

    def reset(self) -> None:
        """Forgets all frames, as after a change of the camera's mode."""
        self._rng = np.random.default_rng(self._seed)
        self._frames, self._edges = 0, 0.0
        self._size: tuple[tuple[int, ...], tuple[int, ...]] | None = None
        self._surfaces = np.zeros((_TILES, _TILES, 1, 1))

    def update(self, color: np.ndarray, depth: np.ndarray) -> None:
        """Takes a frame into account. A change of the images' sizes starts afresh.

        Args:
            color: uint8 RGB (H, W, 3).
            depth: (h, w) float32 metres, NaN where invalid, of the same view, h <= H and w <= W; any ratio.

        Raises:
            ValueError: images of another shape or type.
        """
        if color.ndim != 3 or color.shape[2] != 3 or color.dtype != np.uint8:
            raise ValueError(f"color must be uint8 RGB (H, W, 3), got {color.dtype} {color.shape}")
        if depth.ndim != 2 or min(depth.shape) < 1 or (np.array(depth.shape) > color.shape[:2]).any():
            raise ValueError(f"depth must be (h, w), at most as large as colour {color.shape[:2]}, got {depth.shape}")
        if self._size != (color.shape, depth.shape):
            self._start(color.shape, depth.shape)
        self._frames += 1
        forget = np.exp(-1 / self.window)
        self._surfaces *= forget
        self._edges *= forget
        grey = np.asarray(Image.fromarray(color).convert("L").reduce(self._factor), np.float32)
        cell_y, cell_x = np.array(color.shape[:2]) / depth.shape / self._factor
        self._look(grey, depth, cell_x, cell_y, self._surfaces)
        self._look(grey.T, depth.T, cell_y, cell_x, self._surfaces.transpose(1, 0, 3, 2))

    def _look(self, grey: np.ndarray, depth: np.ndarray, cell_x: float, cell_y: float, surfaces: np.ndarray) -> None:
        """Adds to ``surfaces`` (tile y, x, shift y, x) what the edges along depth's rows see of the gradient along the rows."""
        radius, (height, width) = self._radius, grey.shape
        every = -(-depth.size // _MAX_DEPTH_PIXELS)  # of a large depth map a part of the rows is enough
        first = int(self._rng.integers(every))
        x, y = depth_edges(depth[first::every])
        y = y * every + first
        # Rounded up or down at random: edges often lie midway, and must not all go the same way.
        x = np.floor((x + 0.5) * cell_x - 0.5 + self._rng.random(len(x))).astype(int)
        y = np.floor((y + 0.5) * cell_y - 0.5 + self._rng.random(len(y))).astype(int)
        inside = (x > radius) & (x < width - radius - 1) & (y > radius) & (y < height - radius - 1)
        x, y = x[inside], y[inside]
        if len(x) > self.max_points // 2:
            chosen = self._rng.choice(len(x), self.max_points // 2, replace=False)
            x, y = x[chosen], y[chosen]
        if not len(x):
            return
        gradient = np.zeros(grey.shape, np.float32)
        np.abs(grey[:, 2:] - grey[:, :-2], out=gradient[:, 1:-1])
        steps = np.arange(-radius, radius + 1)
        places = (y * width + x)[:, None] + (steps[:, None] * width + steps).reshape(1, -1)
        seen = gradient.ravel()[places]  # (edges, shifts)
        # Against its own surroundings, so that an edge in strong texture counts no more than one on a wall.
        seen /= seen + (seen.mean(1, keepdims=True) + _FLOOR)
        seen -= seen.mean(1, keepdims=True)
        tile = (y * _TILES // height) * _TILES + x * _TILES // width
        member = (np.arange(_TILES**2)[:, None] == tile).astype(np.float32)
        # Not @: numpy's BLAS keeps its threads spinning for some 50 ms after, on cores that the network then has to share.
        surfaces += np.einsum("te,es->ts", member, seen).reshape(surfaces.shape)
        self._edges += len(x)

    def estimate(self) -> Offset | None:
        """The offset, or None while there is too little structure, or none within ``max_shift``.

        Where edges are few or hidden in wide holes there is an estimate of low confidence: not to be acted upon.
        """
        if self._frames < self.min_frames or self._edges < self.min_edges:
            return None
        found = self._peaks(self._surfaces.sum((0, 1))[None])[0]
        if np.isnan(found).any():
            return None
        peaks = self._peaks(np.einsum("nyx,yxij->nij", self._draws, self._surfaces))
        tolerance = max(_AGREEMENT[0], _AGREEMENT[1] * self._cell)
        agree = np.hypot(*(peaks - found).T) <= tolerance  # NaN agrees with nothing
        return Offset(float(found[0]), float(found[1]), float(agree.mean()), self._frames)

    def drifted(self, threshold_px: float = 2.0, threshold_cells: float = 0.6) -> bool:
        """Whether the offset is confidently large; False without an estimate.

        Args:
            threshold_px: in colour pixels. An offset must be over both.
            threshold_cells: in depth pixels: whether pixel centres are at integers or at halves is half a one, and neither
                cameras' files nor their drivers agree on that.
        """
        offset = self.estimate()
        return (
            offset is not None
            and offset.confidence >= self.min_confidence
            and offset.magnitude > max(threshold_px, threshold_cells * self._cell)
        )

    def _start(self, color: tuple[int, ...], depth: tuple[int, ...]) -> None:
        self.reset()
        self._size = (color, depth)
        cell = float(max(np.array(color[:2]) / depth))
        self._factor = max(1, round(color[1] / self.work_width), int(min(cell / 2, 2 * color[1] / self.work_width)))
        self._radius = int(np.ceil(self.max_shift / self._factor)) + 1
        self._cell = cell
        self._blur = max(0.7, _BLUR * self._cell / self._factor)
        side = 2 * self._radius + 1
        self._surfaces = np.zeros((_TILES, _TILES, side, side))

    def _peaks(self, surfaces: np.ndarray) -> np.ndarray:
        """(n, 2) colour pixels (x, y) of the peak of each surface (n, side, side); NaN where it is at the border."""
        surfaces = gaussian_filter(surfaces, (0, self._blur, self._blur), mode="nearest")
        number, side = len(surfaces), surfaces.shape[1]
        row, column = np.divmod(surfaces.reshape(number, -1).argmax(1), side)
        at_border = (np.minimum(row, column) < 1) | (np.maximum(row, column) > side - 2)
        row, column, every = row.clip(1, side - 2), column.clip(1, side - 2), np.arange(number)
        middle = surfaces[every, row, column]
        x = column + _parabola(surfaces[every, row, column - 1], middle, surfaces[every, row, column + 1])
        y = row + _parabola(surfaces[every, row - 1, column], middle, surfaces[every, row + 1, column])
        peaks = (np.stack((x, y), 1) - self._radius) * self._factor
        peaks[at_border] = np.nan
        return peaks


def depth_edges(
    depth: np.ndarray, min_jump: float = _MIN_JUMP, max_gap: int = _MAX_GAP
) -> tuple[np.ndarray, np.ndarray]:
    """Places along the rows of a depth map where depth jumps.

    An edge between two measured pixels lies on the boundary of their cells or, where a mixed pixel lies in it, as far into
    that cell as its depth says. One that hides in a narrow hole lies where the foreground ends: it is the background that a
    second viewpoint cannot see. Only holes with both sides measured and apart hide edges, and slopes are none.

    Args:
        depth: (h, w) metres, NaN where invalid.
        min_jump: smallest step, as a part of the nearer depth.
        max_gap: width in pixels of the widest hole that an edge is looked for in.

    Returns:
        (x, y): two arrays of as many LR pixel coordinates, x with fractions.
    """
    if depth.shape[1] < 8:
        return np.empty(0), np.empty(0, int)
    found = [_open_edges(depth, min_jump)] + [_hidden_edges(depth, min_jump, gap) for gap in range(1, max_gap + 1)]
    return np.concatenate([x for x, _ in found]), np.concatenate([y for _, y in found])


def _open_edges(depth: np.ndarray, min_jump: float) -> tuple[np.ndarray, np.ndarray]:
    step = np.nan_to_num(np.diff(depth, axis=1))  # 0 beside holes
    size = np.abs(step)
    nearer = np.nan_to_num(np.minimum(depth[:, :-1], depth[:, 1:]), nan=np.inf)
    around = np.pad(size, ((0, 0), (3, 3)))
    peak = (size > min_jump * nearer) & (size >= around[:, 2:-4]) & (size > around[:, 4:-2])
    peak &= size > 1.5 * (around[:, :-6] + around[:, 6:])  # on a slope the steps farther away are as large
    y, x = np.nonzero(peak)
    # The centre of gravity of the step and the like ones beside it: exact where one mixed pixel lies in the edge.
    sign, beside = np.sign(step[y, x]), np.pad(step, ((0, 0), (1, 1)))
    before, after = np.maximum(beside[y, x] * sign, 0), np.maximum(beside[y, x + 2] * sign, 0)
    return x + 0.5 + (after - before) / (before + size[y, x] + after), y


def _hidden_edges(depth: np.ndarray, min_jump: float, gap: int) -> tuple[np.ndarray, np.ndarray]:
    valid, width, span = np.isfinite(depth), depth.shape[1], gap + 1
    hole = valid[:, :-span] & valid[:, span:]
    for k in range(1, span):
        hole &= ~valid[:, k : width - span + k]
    y, x = np.nonzero(hole)
    left, right = depth[y, x], depth[y, x + span]
    height = np.abs(right - left)
    edge = height > min_jump * (1 + gap / 2) * np.minimum(left, right)
    # A slope climbs on across the hole: what its two sides lead to expect is no edge.
    beyond = (
        np.abs(left - depth[y, np.maximum(x - 1, 0)]),
        np.abs(depth[y, np.minimum(x + span + 1, width - 1)] - right),
    )
    edge &= height > span * (np.nan_to_num(beyond[0]) + np.nan_to_num(beyond[1]))
    y, x, foreground_left = y[edge], x[edge], (left < right)[edge]
    into = 0.5 + min(gap / 2, _EROSION)
    return np.where(foreground_left, x + into, x + span - into), y


def _parabola(before: np.ndarray, middle: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Place of the extremum of the parabola through three neighbours, relative to the middle one, within half a pixel."""
    bend = before - 2 * middle + after
    return np.where(bend < 0, 0.5 * (before - after) / np.minimum(bend, -1e-12), 0.0).clip(-0.5, 0.5)
