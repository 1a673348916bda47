"""Registration: depth as the colour camera would have measured it.

Every depth pixel becomes a point, and every point lands in the target image at a sub-pixel place. A z-buffer about as
dense as the source decides which points the target camera can see; each target pixel then takes the mean of its visible
points, of one surface only, moved along that surface's slope to the pixel's centre. Compared with depth_image_proc's
register node (one source pixel's z into the pixel it rounds to) that is free of half-pixel rounding, of background that
shines through a sparse foreground, and of noise that picks the nearest of several values.

Convention: see :mod:`d2a2_core.geometry.camera` and :mod:`d2a2_core.geometry.extrinsics`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from d2a2_core.depth import fill_holes
from d2a2_core.errors import CodedError
from d2a2_core.geometry.camera import Camera
from d2a2_core.geometry.distort_tensors import distort_tensors
from d2a2_core.geometry.extrinsics import Extrinsics

PROBE_DEPTHS = (0.5, 1.0, 3.0)  # metres; where the two views must have something in common
MIN_SHARE = 0.4  # of a target pixel's expected points, or it is a hole
LEAK = 0.1  # a single pixel so much farther than all of its eight neighbours is not of the scene as the target sees it
# Depth of 640 x 576 pixels refined twofold. At most 0.5 GB, and ten seconds for the first image, were measured at the limit.
MAX_CELLS = 2**21
MAX_SPACING = 32  # target pixels between depth pixels
PAD = 1  # ring of pixels around the target, so that its border has neighbours too


class Registration:
    """Maps depth images of one camera to the view of another.

    What depends on the cameras alone is computed once, and kept per device. Whatever the cameras claim, the grid that coarse
    depth is refined to and the z-buffer of an image have at most ``MAX_CELLS`` cells each, or as many as the depth image or the
    target has pixels.

    Args:
        depth_camera: of the depth images.
        target: the view wanted; for the network the colour camera reduced to the LR grid, ``color.reduced(scale)``.
        extrinsics: from the depth camera's frame to the target camera's.

    Raises:
        ValueError: nothing that the depth camera sees at 0.5, 1 or 3 m lies in the target's view, or a depth pixel would be
            spread over more target pixels than ``MAX_SPACING`` along an axis or more than ``MAX_CELLS`` allow.
    """

    def __init__(self, depth_camera: Camera, target: Camera, extrinsics: Extrinsics) -> None:
        self.depth_camera, self.target, self.extrinsics = depth_camera, target, extrinsics
        self._trivial = depth_camera == target and extrinsics.is_identity(0.0)
        _max_radius(depth_camera)
        self._max_r2 = _max_radius(target) ** 2
        along_x, along_y, area = self._measure()
        # Points up to 1.25 target pixels apart leave no gaps; a coarser source gets points between its pixels.
        spacing = np.percentile(np.maximum(along_x, along_y), 90)
        self._factor = self._refinement(spacing)
        # z-buffer cells per target pixel and axis
        most = max(1, int(np.sqrt(MAX_CELLS / np.prod(self._size))))
        self._z_cells = min(max(1, round(min(self._factor / spacing, MAX_CELLS))), most)
        self._dense = spacing / self._factor <= 0.6
        self._needed = MIN_SHARE * self._factor**2 / area
        if self._dense:  # a full pixel may hold as few whole points as their number along each axis, rounded down
            rows, cols = (np.maximum(np.floor(0.97 * self._factor / along), 1) for along in (along_y, along_x))
            self._needed = np.minimum(self._needed, rows * cols)
        # Up to here a difference of z is one surface: 1 % of noise, and a slope of 76 degrees; 5 % at most.
        focal = min(target.fx, target.fy)
        self._z_tolerance = min(0.01 + 4 / (focal * self._z_cells), 0.05)
        self._tolerance = min(0.01 + 4 * (1 if self._dense else 2) / focal, 0.05)
        self._cache: dict[torch.device, _Constants] = {}

    def _refinement(self, spacing: float) -> int:
        """By how much depth is refined along each axis, given the distance of its pixels in target pixels."""
        cells = self.depth_camera.width * self.depth_camera.height
        most = max(1, int(np.sqrt(MAX_CELLS / cells)))
        if not 0 < spacing <= min(MAX_SPACING, most + 0.25):
            raise CodedError(
                "spread",
                f"pixels of the {self.depth_camera.width}x{self.depth_camera.height} depth image would lie {spacing:.3g} pixels "
                f"of the {self.target.width}x{self.target.height} target apart; expected more than 0 and at most "
                f"{min(MAX_SPACING, most)}: check the focal lengths (depth {self.depth_camera.fx:.6g}, target "
                f"{self.target.fx:.6g} pixels) and the extrinsics",
            )
        return max(1, int(np.ceil(spacing - 0.25)))

    @torch.inference_mode()
    def __call__(self, depth: Tensor) -> Tensor:
        """Registers a batch.

        Args:
            depth: (B, 1, h, w) float32 metres along the depth camera's z, NaN where invalid, on any device.

        Returns:
            (B, 1, H, W) float32 metres along the target camera's z, on the same device; NaN where nothing was measured
            or where something nearer hid it from the depth camera.

        Raises:
            ValueError: depth of another shape or size than the depth camera's.
        """
        expected = (self.depth_camera.height, self.depth_camera.width)
        if depth.ndim != 4 or depth.shape[1] != 1 or tuple(depth.shape[-2:]) != expected:
            raise CodedError(
                "depth_camera_size",
                f"expected depth (B, 1, {expected[0]}, {expected[1]}), the size of its camera, got {tuple(depth.shape)}; "
                "use depth_camera.resized for another size",
            )
        if not depth.is_floating_point():
            raise ValueError(f"expected depth in float metres, got {depth.dtype}; divide millimetres by 1000")
        depth = depth.float()
        if self._trivial:
            return depth.clone()
        constants = self._cache.get(depth.device) or self._cache.setdefault(depth.device, self._constants(depth.device))
        if self._factor > 1:
            depth = _refine(depth, self._factor, min(0.01 + 4 / min(self.depth_camera.fx, self.depth_camera.fy), 0.05))
        points = self._visible(self._project(depth.flatten(1), constants), depth.shape[0])
        values = _without_leaks(self._average(points, depth.shape[0], constants.needed))
        return values[:, None, PAD:-PAD, PAD:-PAD].contiguous()

    @property
    def _size(self) -> tuple[int, int]:
        return self.target.height + 2 * PAD, self.target.width + 2 * PAD

    def _measure(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """At every target pixel, (H + 2, W + 2): the width, height and area of a depth pixel in target pixels."""
        rays = self.depth_camera.rays().astype(np.float64)
        rays = np.concatenate((rays, np.ones_like(rays[..., :1])), axis=-1)
        seen = {}
        for z in PROBE_DEPTHS:
            pixels, inside = self._project_exactly(rays * z)
            if inside.any():
                seen[z] = pixels, inside
        if not seen:
            raise CodedError(
                "no_common_view",
                f"nothing that the depth camera sees at {PROBE_DEPTHS} m lies in the colour camera's view, with rotation "
                f"{self.extrinsics.rotation.round(3).tolist()} and translation "
                f"{self.extrinsics.translation.round(4).tolist()}; expected x_color = R x_depth + t in metres between "
                "optical frames (z forward): check the direction, the unit and the frames",
            )
        pixels, inside = max(seen.values(), key=lambda entry: entry[1].sum())
        # Of an image one pixel wide no neighbour tells anything; a pixel apart is as good a guess as any.
        along_x = np.gradient(pixels, axis=1) if pixels.shape[1] > 1 else np.full_like(pixels, (1.0, 0.0))
        along_y = np.gradient(pixels, axis=0) if pixels.shape[0] > 1 else np.full_like(pixels, (0.0, 1.0))
        area = np.abs(along_x[..., 0] * along_y[..., 1] - along_x[..., 1] * along_y[..., 0])
        known = inside & np.isfinite(area) & (area > 0)
        cells = np.floor(pixels[known] + 0.5).astype(np.int64) + PAD
        cells = cells[:, 1] * self._size[1] + cells[:, 0]
        length = self._size[0] * self._size[1]
        with np.errstate(invalid="ignore"):
            maps = np.stack([
                np.bincount(cells, values[known], length) / np.bincount(cells, minlength=length)
                for values in (np.hypot(*np.moveaxis(along_x, -1, 0)), np.hypot(*np.moveaxis(along_y, -1, 0)), area)
            ])  # fmt: skip
        maps = fill_holes(torch.from_numpy(maps).reshape(3, 1, *self._size))[:, 0].numpy()
        return maps[0], maps[1], maps[2]

    def _project_exactly(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Target pixels (..., 2) of points (..., 3) of the depth camera's frame, float64, and which are in the image."""
        points = self.extrinsics.transform(points)
        with np.errstate(all="ignore"):
            pixels = self.target.project(points)
            r2 = ((points[..., :2] / points[..., 2:]) ** 2).sum(-1)
            inside = (points[..., 2] > 0) & (r2 <= self._max_r2)
            inside &= ((pixels >= -0.5) & (pixels < (self.target.width - 0.5, self.target.height - 0.5))).all(-1)
        return pixels, inside

    def _constants(self, device: torch.device) -> _Constants:
        m, camera = self._factor, self.depth_camera
        rays = camera.resized(m * camera.width, m * camera.height).rays().astype(np.float64)
        rotated = np.concatenate((rays, np.ones_like(rays[..., :1])), axis=-1) @ self.extrinsics.rotation.T
        rotated = torch.from_numpy(np.moveaxis(rotated, -1, 0).reshape(3, -1).astype(np.float32)).to(device)
        return _Constants(rotated, torch.from_numpy(self._needed.astype(np.float32)).to(device))

    def _project(self, depth: Tensor, constants: _Constants) -> _Points:
        """Depth (B, P) -> the points that land in the target or right beside it."""
        (height, width), t = self._size, self.extrinsics.translation.tolist()
        z = (depth * constants.rotated[2]).add_(t[2])
        x = (depth * constants.rotated[0]).add_(t[0]).div_(z)
        y = (depth * constants.rotated[1]).add_(t[1]).div_(z)
        r2 = (x * x).addcmul_(y, y)
        # What lies far outside the view can be folded back into it by the distortion's polynomial.
        keep = (z > 0) & (r2 <= self._max_r2)
        x, y = distort_tensors(x, y, r2, self.target)
        x, y = x.mul_(self.target.fx).add_(self.target.cx + PAD), y.mul_(self.target.fy).add_(self.target.cy + PAD)
        if not self._dense:  # rounding of the numbers alone must not mix neighbours
            x, y = _snap(x), _snap(y)
        keep &= (x >= 0) & (x < width - 1) & (y >= 0) & (y < height - 1)
        chosen = keep.flatten().nonzero()[:, 0]  # comparisons with NaN are false, so invalid depth goes here
        image = chosen // depth.shape[1] if depth.shape[0] > 1 else None
        x, y, z = (v.flatten().index_select(0, chosen) for v in (x, y, z))
        return _Points(x, y, z, image)

    def _visible(self, points: _Points, batch: int) -> _Points:
        """Drops the points behind others, by a z-buffer whose gaps of one cell are closed."""
        height, width = (self._z_cells * length for length in self._size)
        cols = ((points.x + 0.5) * self._z_cells).long().clamp_(max=width - 1)
        cells = ((points.y + 0.5) * self._z_cells).long().clamp_(max=height - 1).mul_(width).add_(cols)
        if points.image is not None:
            cells += points.image * (height * width)
        nearest = torch.full((batch * height * width,), torch.inf, device=points.z.device)
        nearest.scatter_reduce_(0, cells, points.z, "amin")
        # Nearest of 2 x 2, then farthest of the 2 x 2 the other way round: closes gaps in a surface, keeps its outline.
        grown = F.pad(nearest.view(batch, height, width), (0, 1, 0, 1), value=torch.inf)
        grown = torch.minimum(grown[:, 1:], grown[:, :-1])
        grown = torch.minimum(grown[..., 1:], grown[..., :-1])
        closed = F.pad(grown, (1, 0, 1, 0), value=-torch.inf)
        closed = torch.maximum(closed[:, 1:], closed[:, :-1])
        closed = torch.maximum(closed[..., 1:], closed[..., :-1]).flatten()
        chosen = (points.z <= closed.mul_(1 + self._z_tolerance).index_select(0, cells)).nonzero()[:, 0]
        return points.take(chosen)

    def _average(self, points: _Points, batch: int, needed: Tensor) -> Tensor:
        """Visible points -> (B, H + 2, W + 2), NaN where the wanted share of points is missing."""
        height, width = self._size
        shares = _box_shares(points, height, width) if self._dense else _hat_shares(points, height, width)
        length = batch * height * width
        front = torch.full((length,), torch.inf, device=points.z.device)
        front.scatter_reduce_(0, shares.cells, shares.z, "amin")
        is_front = shares.z <= (front * (1 + self._tolerance)).index_select(0, shares.cells)
        weight = is_front.to(shares.z.dtype)
        mean = _Means.of(
            shares._replace(weight=weight if shares.weight is None else weight * shares.weight), front, length
        )
        rest = shares.take((~is_front).nonzero()[:, 0])
        if len(rest.z):
            back = torch.full_like(front, -torch.inf).scatter_reduce_(0, rest.cells, rest.z, "amax")
            is_back = rest.z >= (back * (1 - self._tolerance)).index_select(0, rest.cells)
            mean_back = _Means.of(rest.take(is_back.nonzero()[:, 0]), back, length)
            mean = _Means(*torch.where(mean_back.weight > mean.weight, torch.stack(mean_back), torch.stack(mean)))
        mean = _Means(*(m.view(batch, height, width) for m in mean))
        z = torch.where(mean.weight >= needed, mean.z, torch.nan)
        return self._to_centres(z, mean.dx, mean.dy)

    def _to_centres(self, mean: Tensor, dx: Tensor, dy: Tensor) -> Tensor:
        """Moves every mean, valid at the mean place of its points, to its pixel's centre along the surface's slope."""
        zero = torch.zeros_like(dx)
        slope_x, slope_y = _slope(mean, dx, -1, self._tolerance), _slope(mean, dy, -2, self._tolerance)
        z = mean - slope_x * dx - slope_y * dy
        # Neighbours' means are off to the side as well; their moved values give the slope without that.
        slope_x, slope_y = _slope(z, zero, -1, self._tolerance), _slope(z, zero, -2, self._tolerance)
        return mean - slope_x * dx - slope_y * dy


@dataclass(frozen=True)
class _Constants:
    """rotated: (3, P) the depth camera's rays in the target's frame; needed: (H + 2, W + 2) points for a valid pixel."""

    rotated: Tensor
    needed: Tensor


class _Points(NamedTuple):
    """Points (N,): place in the padded target in pixels, z in metres, and the image of the batch (None: only one)."""

    x: Tensor
    y: Tensor
    z: Tensor
    image: Tensor | None

    def take(self, index: Tensor) -> _Points:
        x, y, z = (v.index_select(0, index) for v in self[:3])
        return _Points(x, y, z, None if self.image is None else self.image.index_select(0, index))


class _Shares(NamedTuple):
    """What points give to pixels (N,): the pixel, the z, the weight (None: 1), and the point's place from its centre."""

    cells: Tensor
    z: Tensor
    weight: Tensor | None
    dx: Tensor
    dy: Tensor

    def take(self, index: Tensor) -> _Shares:
        cells, z, dx, dy = (v.index_select(0, index) for v in (self.cells, self.z, self.dx, self.dy))
        return _Shares(cells, z, None if self.weight is None else self.weight.index_select(0, index), dx, dy)


class _Means(NamedTuple):
    """Weighted means per pixel (L,): z and place of the points; sum of the weights."""

    z: Tensor
    dx: Tensor
    dy: Tensor
    weight: Tensor

    @classmethod
    def of(cls, shares: _Shares, reference: Tensor, length: int) -> _Means:
        """``reference`` (L,) is a z near the mean; sums of small differences keep float32's digits."""

        def total(values: Tensor) -> Tensor:
            values = values if shares.weight is None else values * shares.weight
            return torch.zeros(length, device=values.device).scatter_add_(0, shares.cells, values)

        weight = total(torch.ones_like(shares.z))
        z = reference + total(shares.z - reference.index_select(0, shares.cells)) / weight
        return cls(z, total(shares.dx) / weight, total(shares.dy) / weight, weight)


def _without_leaks(z: Tensor) -> Tensor:
    """z (B, H, W) without single pixels that are farther than all around them.

    Where the depth camera lost a piece of an object, nothing in the z-buffer hides what it saw of the wall behind, past the
    object. An opening of one pixel is lost with it.
    """
    height, width = z.shape[1:]
    known = F.pad(z.isfinite(), (1, 1, 1, 1))
    padded = F.pad(z.nan_to_num(-torch.inf), (1, 1, 1, 1), value=-torch.inf)
    windows = [np.s_[:, i : i + height, j : j + width] for i in range(3) for j in range(3) if (i, j) != (1, 1)]
    farthest, count = torch.full_like(z, -torch.inf), torch.zeros_like(z, dtype=torch.uint8)
    for window in windows:
        torch.maximum(farthest, padded[window], out=farthest)
        count += known[window]
    return torch.where((count >= 5) & (z > (1 + LEAK) * farthest), torch.nan, z)


def _box_shares(points: _Points, height: int, width: int) -> _Shares:
    """Every point counts for the pixel it lies in."""
    cols, rows = (points.x + 0.5).long(), (points.y + 0.5).long()
    cells = rows * width + cols
    if points.image is not None:
        cells += points.image * (height * width)
    return _Shares(cells, points.z, None, points.x - cols, points.y - rows)


def _hat_shares(points: _Points, height: int, width: int) -> _Shares:
    """Every point counts for the four pixels around it, with bilinear weights."""
    cols, rows = points.x.long(), points.y.long()
    dx, dy = points.x - cols, points.y - rows
    base = rows * width + cols
    if points.image is not None:
        base += points.image * (height * width)
    corners = [(i, j, (dy if i else 1 - dy) * (dx if j else 1 - dx)) for i in (0, 1) for j in (0, 1)]
    cells = torch.cat([base + (i * width + j) for i, j, _ in corners])
    weight = torch.cat([w for _, _, w in corners])
    dx, dy = torch.cat([dx - j for _, j, _ in corners]), torch.cat([dy - i for i, _, _ in corners])
    shares = _Shares(cells, points.z.repeat(4), weight, dx, dy)
    return shares.take((weight > 0).nonzero()[:, 0])


def _snap(x: Tensor) -> Tensor:
    """Rounds what is within 0.001 pixel of a whole pixel."""
    whole = x.round()
    return torch.where((x - whole).abs() < 1e-3, whole, x)


def _refine(depth: Tensor, factor: int, tolerance: float) -> Tensor:
    """(B, 1, h, w) -> (B, 1, factor h, factor w): every pixel continued along the slope of its own surface."""
    depth = depth[:, 0]
    zero = torch.zeros_like(depth)
    slope_x, slope_y = _slope(depth, zero, -1, tolerance), _slope(depth, zero, -2, tolerance)
    offset = (torch.arange(factor, device=depth.device) + 0.5) / factor - 0.5
    rows = depth[..., None] + slope_x[..., None] * offset  # B, h, w, across
    fine = rows[:, :, None] + (slope_y[..., None, None] * offset).movedim(-1, 2)  # B, h, down, w, across
    return fine.reshape(len(depth), 1, factor * depth.shape[1], factor * depth.shape[2])


def _slope(z: Tensor, offset: Tensor, axis: int, tolerance: float) -> Tensor:
    """Change of z per pixel along an axis of (B, H, W), from the neighbours of the same surface; 0 where none is.

    ``offset`` is where, along that axis and from its pixel's centre, each z is valid.
    """
    first, second = z.narrow(axis, 0, z.shape[axis] - 1), z.narrow(axis, 1, z.shape[axis] - 1)
    gap = 1 + offset.narrow(axis, 1, z.shape[axis] - 1) - offset.narrow(axis, 0, z.shape[axis] - 1)
    step = second - first
    same = (step.abs() <= tolerance * torch.minimum(first, second)).to(z.dtype)
    step = torch.where(same > 0, step / gap.clamp(min=0.5), 0.0)
    before, after = ((1, 0), (0, 1)) if axis == -1 else ((0, 0, 1, 0), (0, 0, 0, 1))
    return (F.pad(step, before) + F.pad(step, after)) / (F.pad(same, before) + F.pad(same, after)).clamp(min=1)


def _max_radius(camera: Camera) -> float:
    """Largest distance from the axis, in undistorted x / z and y / z, of anything in the camera's image."""
    radius = np.hypot(*np.moveaxis(camera.rays().astype(np.float64), -1, 0))
    if not np.isfinite(radius).any():
        raise CodedError("impossible_distortion", f"no pixel of {camera} has a ray: its distortion is impossible")
    # A little more, for the outer half of the outermost pixels and the ring around them.
    return float(np.nanmax(radius)) * (1 + 4 / max(camera.width, camera.height)) + 1e-6
