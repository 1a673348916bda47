"""What a depth camera beside a colour camera makes of a true pair: the degradations of training and of degraded benchmarks.

Each has its own strength in :class:`Degradation`; 0 (or "full", 1.0 for a ratio or light) turns it off, and the defaults have all
off. Three presets, :data:`SEVERITIES`, of which the middle one is an indoor ToF camera as it is, roughly:

| setting | unit | mild | medium | severe |
|---|---|---|---|---|
| ratio | LR pixel / the scale's cell | 1 | 1.1 | 1.3 |
| flying_pixels | share of the way to the phase mixture | 0.3 | 0.6 | 0.9 |
| noise (a, b) | sigma = a + b z^2, mm | 1, 0.5 | 2, 1.5 | 4, 3 |
| lateral_jitter | sigma, LR pixels | 0.1 | 0.25 | 0.4 |
| quantisation_m | mm | 1 | 2 | 5 |
| disparity_noise | sigma, pixels | 0.02 | 0.06 | 0.12 |
| disparity_step | pixels | 0 | 1/16 | 1/8 |
| edge_holes | probability | 0.1 | 0.3 | 0.6 |
| edge_band | LR pixels lost on each side of a depth edge | 0 | 0 | 0 |
| shadow | HR pixels times metres | 0 | 0 | 0 |
| blob_holes, blob_radius | per 64 x 64 LR pixels; LR pixels | 0.5, 1.5 | 1.5, 2 | 4, 3 |
| dark_holes, shiny_holes | probability | 0.2, 0 | 0.5, 0.3 | 0.9, 0.6 |
| strays | per 64 x 64 LR pixels | 0 | 0 | 0 |
| faint | share of the measurements | 0 | 0 | 0 |
| view | what is in view | full | full | full |
| shift_px, rotation_deg | largest, HR pixels, degrees | 1, 0.1 | 3, 0.3 | 8, 0.8 |
| color_noise | sigma, 8-bit steps | 2 | 5 | 12 |
| color_blur | sigma, pixels | 0.3 | 0.7 | 1.2 |
| jpeg | quality | 92 | 75 | 45 |
| light | share of the light | 1 | 0.7 | 0.35 |

The sources of the forms of noise, mixture and loss are named in :mod:`d2a2_core.data.sensors.tof`. Disparity noise: a
structured-light camera matches to a fraction of a pixel, d = f b / z, so noise and steps of d grow with z^2 in metres
(Khoshelham and Elberink, "Accuracy and Resolution of Kinect Depth Data for Indoor Mapping Applications", Sensors 2012; steps of
1/8 pixel).
No preset has strays, groups of one to ten pixels that report a depth which is not there (reflections, wrong matches), nor loss of
faint pixels, in bands along edges or in shadows, so that figures of the presets stay what they are; :func:`random_settings` has
them now and then. Strays and faint pixels belong together: with strays alone a network learns that whatever stands alone in a
hole is wrong, while most of what a real camera reports there is right. So do mixed pixels and bands: cameras that take their own
mixed pixels out leave a hole some pixels wide along every edge, beside which measurements are as good as anywhere.
The numbers are ours and no calibration of a product. No preset has a masked view: what lies beyond it nobody can know, and its
error would drown the others'; :func:`random_settings` has one now and then.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image, ImageFilter
from scipy import ndimage

from d2a2_core.data.sensors.tof import OFF, depth_step, linear_luma, simulate_tof
from d2a2_core.depth import regrid
from d2a2_core.images import decode_image

Rng = np.random.Generator
VIEWS = ("full", "round", "hexagon")
REDUCTIONS = ("area", "bicubic", "nearest")
_FOCAL_BASELINE = 43.5  # pixels times metres: 580 pixels and 7.5 cm, the first structured-light camera of many
_MOST_STRAYS = 3.0  # of the random settings
_MOST_FAINT = 0.8  # likewise
_PATCHES = (1.5, 12.0)  # LR pixels over which the light of a surface changes
_EDGE_ABS, _EDGE_REL = 0.03, 0.02  # metres, share of the depth: a second difference beyond the larger is a depth edge
_BANDS, _FILTERED = (0.3, 2.0), 0.35  # LR pixels, of the random settings, and probability
_SHADOWS, _SHADOWED = (3.0, 30.0), 0.3  # HR pixels times metres, likewise; 600 pixels and 5 cm make 30
_EYES = (0.4, 0.1, 0.4, 0.1)  # probability of an eye on the left, above, on the right, below
_RATIOS = (3.0, 17.0)  # HR / LR of the random settings


@dataclass(frozen=True)
class Degradation:
    """Strengths; see the module for units. ``reduction`` is one of ``REDUCTIONS``, ``view`` one of ``VIEWS``."""

    reduction: str = "area"
    ratio: float = 1.0
    flying_pixels: float = 0.0
    noise: tuple[float, float] = (0.0, 0.0)
    lateral_jitter: float = 0.0
    quantisation_m: float = 0.0
    disparity_noise: float = 0.0
    disparity_step: float = 0.0
    edge_holes: float = 0.0
    edge_band: float = 0.0
    shadow: float = 0.0
    blob_holes: float = 0.0
    blob_radius: float = 2.0
    dark_holes: float = 0.0
    shiny_holes: float = 0.0
    strays: float = 0.0
    faint: float = 0.0
    view: str = "full"
    shift_px: float = 0.0
    rotation_deg: float = 0.0
    color_noise: float = 0.0
    color_blur: float = 0.0
    jpeg: int = 0
    light: float = 1.0

    def __post_init__(self) -> None:
        if self.reduction not in REDUCTIONS or self.view not in VIEWS:
            raise ValueError(
                f"expected a reduction out of {REDUCTIONS} and a view out of {VIEWS}, got {self.reduction!r}, {self.view!r}"
            )
        if self.ratio <= 0 or not 0 < self.light <= 1 or not 0 <= self.jpeg <= 100:
            raise ValueError(
                f"expected ratio > 0, light in (0, 1], jpeg in 0..100; got {self.ratio}, {self.light}, {self.jpeg}"
            )
        if not 0 <= self.faint <= 1:
            raise ValueError(f"expected faint in [0, 1], got {self.faint}")
        for name in (
            "disparity_noise",
            "disparity_step",
            "strays",
            "edge_band",
            "shadow",
            "shift_px",
            "rotation_deg",
            "color_noise",
            "color_blur",
        ):
            if getattr(self, name) < 0:
                raise ValueError(f"expected {name} of at least 0, got {getattr(self, name)}")


SEVERITIES: dict[str, Degradation] = {
    "mild": Degradation(
        flying_pixels=0.3, noise=(0.001, 0.0005), lateral_jitter=0.1, quantisation_m=0.001, disparity_noise=0.02,
        edge_holes=0.1, blob_holes=0.5, blob_radius=1.5, dark_holes=0.2, shift_px=1, rotation_deg=0.1,
        color_noise=2, color_blur=0.3, jpeg=92,
    ),
    "medium": Degradation(
        ratio=1.1, flying_pixels=0.6, noise=(0.002, 0.0015), lateral_jitter=0.25, quantisation_m=0.002,
        disparity_noise=0.06, disparity_step=1 / 16, edge_holes=0.3, blob_holes=1.5, blob_radius=2, dark_holes=0.5,
        shiny_holes=0.3, shift_px=3, rotation_deg=0.3, color_noise=5, color_blur=0.7, jpeg=75, light=0.7,
    ),
    "severe": Degradation(
        ratio=1.3, flying_pixels=0.9, noise=(0.004, 0.003), lateral_jitter=0.4, quantisation_m=0.005,
        disparity_noise=0.12, disparity_step=1 / 8, edge_holes=0.6, blob_holes=4, blob_radius=3, dark_holes=0.9,
        shiny_holes=0.6, shift_px=8, rotation_deg=0.8, color_noise=12, color_blur=1.2, jpeg=45, light=0.35,
    ),
}  # fmt: skip


def random_settings(rng: Rng) -> Degradation:
    """Settings for one training sample: each degradation off or anywhere up to "severe", so that none is always there."""
    worst = SEVERITIES["severe"]

    def upto(value: float, share: float = 0.6) -> float:
        return value * rng.random() if rng.random() < share else 0.0

    structured = rng.random() < 0.3  # one kind of camera or the other
    gaps = rng.random() < 0.2  # few large holes instead of many small ones
    return Degradation(
        reduction=str(rng.choice(REDUCTIONS, p=[0.7, 0.15, 0.15])),
        ratio=float(2 ** rng.uniform(-0.5, 0.5)) if rng.random() < 0.4 else 1.0,
        flying_pixels=upto(worst.flying_pixels, 0.8),
        noise=(0.0, 0.0) if structured else (upto(worst.noise[0], 0.9), upto(worst.noise[1], 0.9)),
        lateral_jitter=upto(worst.lateral_jitter, 0.8),
        quantisation_m=upto(worst.quantisation_m),
        disparity_noise=upto(worst.disparity_noise, 0.9) if structured else 0.0,
        disparity_step=upto(worst.disparity_step, 0.7) if structured else 0.0,
        edge_holes=upto(worst.edge_holes, 0.8),
        blob_holes=upto(1.5 if gaps else 2 * worst.blob_holes, 0.8),
        blob_radius=float(rng.uniform(4, 10) if gaps else rng.uniform(1, 4)),
        dark_holes=upto(worst.dark_holes),
        shiny_holes=upto(worst.shiny_holes, 0.3),
        view=str(rng.choice(VIEWS, p=[0.9, 0.05, 0.05])),
        shift_px=upto(worst.shift_px, 0.5),
        rotation_deg=upto(worst.rotation_deg, 0.3),
        color_noise=upto(worst.color_noise, 0.4),
        color_blur=upto(worst.color_blur, 0.3),
        jpeg=int(rng.integers(worst.jpeg, 96)) if rng.random() < 0.3 else 0,
        light=float(rng.uniform(worst.light, 1)) if rng.random() < 0.3 else 1.0,
        strays=upto(_MOST_STRAYS, 0.25),
        faint=upto(_MOST_FAINT, 0.4),
        edge_band=float(rng.uniform(*_BANDS)) if rng.random() < _FILTERED else 0.0,
        shadow=float(rng.uniform(*_SHADOWS)) if rng.random() < _SHADOWED else 0.0,
    )


def degrade(
    color: np.ndarray, depth_hr: np.ndarray, scale: int, rng: Rng, settings: Degradation
) -> tuple[np.ndarray, np.ndarray]:
    """What the two cameras report of a true pair, on the network's grid.

    Args:
        color: (H, W, 3) uint8 RGB.
        depth_hr: (H, W) float32 metres, NaN invalid.
        scale: of the network; H and W need not be multiples.
        rng: of everything random.
        settings: strengths.

    Returns:
        color (H, W, 3) uint8, and LR depth (ceil(H / scale), ceil(W / scale)) float32 metres with NaN in its holes. With a
        ``ratio`` other than 1 the camera has (H, W) / (scale * ratio) pixels, a ratio kept within 3 to 17, and its image is
        brought onto that grid with :func:`d2a2_core.depth.regrid`, as :class:`d2a2_core.DepthUpsampler` does.

    Raises:
        ValueError: sizes of colour and depth differ, or a setting is out of range.
    """
    if color.shape != (*depth_hr.shape, 3):
        raise ValueError(f"expected colour of shape {(*depth_hr.shape, 3)}, got {color.shape}")
    height, width = depth_hr.shape
    ratio = float(scale)
    if settings.ratio != 1.0:
        ratio = float(np.clip(scale * settings.ratio, *_RATIOS))
    size = (max(1, round(height / ratio)), max(1, round(width / ratio)))
    grid = (-(-height // scale), -(-width // scale))
    seen, picture = _misregistered(depth_hr, settings, rng), color
    if settings.ratio == 1.0:  # the camera's grid is the network's, whose last cells may stick out
        size, border = grid, [(0, grid[0] * scale - height), (0, grid[1] * scale - width)]
        seen, picture = np.pad(seen, border, mode="edge"), np.pad(color, [*border, (0, 0)], mode="edge")
    # The sensor model wants whole cells: the nearest size that has them, a few per cent off, sampled to the nearest pixel.
    cell = max(1, round(ratio))
    full = (size[0] * cell, size[1] * cell)
    lr = _measure(_nearest(seen, full), _nearest(picture, full), size, settings, rng)
    if size != grid:
        step = tuple(scale * small / large for small, large in zip(size, (height, width), strict=True))
        lr = regrid(torch.from_numpy(lr)[None, None], grid, step)[0, 0].numpy()
    return degrade_color(color, rng, settings), lr


def degrade_color(color: np.ndarray, rng: Rng, settings: Degradation) -> np.ndarray:
    """Colour (H, W, 3) uint8 after blur, low light (not exposed longer), noise and JPEG, in this order."""
    out = color
    if settings.color_blur > 0:
        out = np.asarray(Image.fromarray(out).filter(ImageFilter.GaussianBlur(settings.color_blur)))
    if settings.light < 1 or settings.color_noise > 0:
        # sRGB is light to the power of about 1 / 2.2.
        values = out.astype(np.float32) * np.float32(settings.light ** (1 / 2.2))
        values += rng.standard_normal(out.shape, np.float32) * np.float32(settings.color_noise)
        out = np.clip(np.round(values), 0, 255).astype(np.uint8)
    if settings.jpeg:
        file = io.BytesIO()
        Image.fromarray(out).save(file, "JPEG", quality=settings.jpeg)
        out = np.asarray(decode_image(file.getvalue()))
    return out


def disparity_noise(depth: np.ndarray, rng: Rng, sigma: float, step: float) -> np.ndarray:
    """Depth in metres of a camera whose disparity has noise of ``sigma`` pixels and steps of ``step`` pixels; NaN stays."""
    disparity = _FOCAL_BASELINE / depth
    if sigma > 0:
        disparity = disparity + sigma * rng.standard_normal(depth.shape)
    if step > 0:
        disparity = np.round(disparity / step) * step
    return np.where(disparity > 0.5, _FOCAL_BASELINE / np.maximum(disparity, 0.5), np.nan).astype(np.float32)


def stray_groups(depth: np.ndarray, rng: Rng, density: float) -> np.ndarray:
    """Depth (h, w) with round groups of wrong values, 0.5 to 1.8 px in radius, also in its holes.

    ``density`` is their mean number per 64 x 64 pixels. Half of them report any depth of the image, the others 0.6 to 1.6 times
    the depth of their place, all within 0.8 times the least and 1.2 times the largest there is.
    """
    out = depth.copy()
    if not np.isfinite(depth).any():
        return out
    low, high = float(np.nanmin(depth)), float(np.nanmax(depth))
    y, x = np.indices(depth.shape)
    for _ in range(rng.poisson(density * depth.size / 4096)):
        row, column = rng.uniform(0, depth.shape)
        group = (y - row) ** 2 + (x - column) ** 2 < rng.uniform(0.5, 1.8) ** 2
        own = depth[min(int(row), depth.shape[0] - 1), min(int(column), depth.shape[1] - 1)]
        anywhere, factor = rng.uniform(low, high), rng.uniform(0.6, 1.6)
        value = own * factor if rng.random() < 0.5 and np.isfinite(own) else anywhere
        out[group] = np.clip(value, 0.8 * low, 1.2 * high)
    return out


def lose_faint(depth: np.ndarray, color: np.ndarray, rng: Rng, share: float) -> np.ndarray:
    """Depth (h, w) without the ``share`` of its measurements that return the least light.

    Light falls with distance and darkness, and in patches for what colour does not show (a surface's infrared albedo, its gloss,
    the angle it is seen at), each by a random amount, plus the pixel's own noise. So whole regions are lost, with ragged borders,
    and here and there in them a true measurement stays.

    Args:
        depth: metres, NaN invalid.
        color: (h, w, 3) uint8 of the same grid.
        share: of the valid measurements, 0 to 1.
    """
    valid = np.isfinite(depth)
    if share <= 0 or not valid.any():
        return depth
    patches = ndimage.gaussian_filter(
        rng.standard_normal(depth.shape), np.exp(rng.uniform(*np.log(_PATCHES))), mode="reflect"
    )
    noise = rng.standard_normal(depth.shape)
    causes = (np.log(linear_luma(color) + 0.05), -np.log(np.where(valid, depth, 1.0)), patches, noise)
    most = (1.0, 1.0, 1.5, 0.5)
    light = np.zeros(depth.shape)
    for cause, weight in zip(causes, most, strict=True):
        light += weight * rng.random() * cause / max(float(cause[valid].std()), 1e-6)
    return np.where(light < np.quantile(light[valid], share), np.float32(np.nan), depth)


def lose_edge_bands(depth: np.ndarray, width: float) -> np.ndarray:
    """Depth (H, W) metres with NaN up to ``width`` pixels on each side of its edges, where a camera's own filter leaves nothing.

    Slanted surfaces have no edges, whatever the angle; borders of NaN have none either.
    """
    edges = depth_step(depth) > np.maximum(_EDGE_ABS, _EDGE_REL * np.nan_to_num(depth))
    if width <= 0 or not edges.any():
        return depth
    # The pixels on both sides of an edge stand out; the edge itself lies half a pixel from them.
    return np.where(ndimage.distance_transform_edt(~edges) + 0.5 <= width, np.float32(np.nan), depth)


def lose_shadows(depth: np.ndarray, strength: float, eye: int = 0) -> np.ndarray:
    """Depth (H, W) metres with NaN where another eye sees something nearer.

    That eye is the projector or the second camera of a stereo camera, or the depth camera itself where its depth was
    registered to this view. To the left of this one, it has a point at depth z of column x at x + strength / z in its image, so
    what comes to lie before an earlier column's point is hidden: on the right of a thing at z, ``strength (1 / z - 1 / z')``
    columns of what is at z' behind it.

    Args:
        depth: NaN hides nothing.
        strength: focal length times baseline, pixels times metres.
        eye: where it is: 0 left, 1 above, 2 right, 3 below.
    """
    turned = np.rot90(depth, eye)
    valid = np.isfinite(turned)
    there = np.arange(turned.shape[1]) + strength / np.where(valid, turned, np.inf)
    hidden = valid & (there < np.maximum.accumulate(there, axis=1) - 1e-6)
    return np.where(np.rot90(hidden, -eye), np.float32(np.nan), depth)


def _measure(
    depth: np.ndarray, color: np.ndarray, size: tuple[int, int], settings: Degradation, rng: Rng
) -> np.ndarray:
    # The camera brings its own light: what is dark in a dim room need not be a dark surface.
    brightest = max(float(np.percentile(color, 95)), 16.0)
    lit = np.clip(color * (200 / brightest), 0, 255).astype(np.uint8) if brightest < 200 else color
    if settings.shadow > 0:
        depth = lose_shadows(depth, settings.shadow, int(rng.choice(4, p=_EYES)))
    depth = lose_edge_bands(depth, settings.edge_band * depth.shape[0] / size[0])
    lr = simulate_tof(
        depth,
        size,
        rng,
        rgb=lit,
        **OFF
        | {
            "reduction": settings.reduction,
            "flying_pixels": settings.flying_pixels,
            "noise": settings.noise,
            "lateral_jitter": settings.lateral_jitter,
            "quantisation_m": settings.quantisation_m,
            "edge_holes": settings.edge_holes,
            "blob_holes": settings.blob_holes * size[0] * size[1] / 4096,
            "blob_radius": settings.blob_radius,
            "dark_holes": settings.dark_holes,
            "shiny_holes": settings.shiny_holes,
            "hexagonal_view": settings.view == "hexagon",
        },
    )
    if settings.disparity_noise > 0 or settings.disparity_step > 0:
        lr = disparity_noise(lr, rng, settings.disparity_noise, settings.disparity_step)
    if settings.faint > 0:
        lr = lose_faint(
            lr, np.array(Image.fromarray(lit).resize(size[::-1], Image.Resampling.BOX)), rng, settings.faint
        )
    if settings.strays > 0:
        lr = stray_groups(lr, rng, settings.strays)
    if settings.view == "round":
        y, x = (np.abs((np.arange(n) + 0.5) / n * 2 - 1) for n in size)
        lr = np.where(y[:, None] ** 2 + x[None] ** 2 <= 1, lr, np.float32(np.nan))
    return lr


def _misregistered(depth: np.ndarray, settings: Degradation, rng: Rng) -> np.ndarray:
    """Depth (H, W) as a view turned and shifted by up to the settings' amounts shows it; its border is repeated."""
    shift = rng.uniform(-1, 1, 2) * settings.shift_px
    angle = np.radians(rng.uniform(-1, 1) * settings.rotation_deg)
    if not shift.any() and angle == 0:
        return depth
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = (np.array(depth.shape) - 1) / 2
    return ndimage.affine_transform(depth, turn, centre - turn @ centre + shift, order=0, mode="nearest")


def _nearest(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W, ...) sampled at the pixels nearest the centres of a grid of ``size`` over the same rectangle."""
    if image.shape[:2] == tuple(size):
        return image
    rows, columns = (
        np.minimum(((np.arange(n) + 0.5) * old / n).astype(int), old - 1)
        for n, old in zip(size, image.shape[:2], strict=True)
    )
    return image[rows[:, None], columns]


def preset(severity: str, **changes) -> Degradation:
    """The preset of that name, with some strengths changed.

    Raises:
        ValueError: no such preset.
    """
    if severity not in SEVERITIES:
        raise ValueError(f"severity must be one of {', '.join(SEVERITIES)}, got {severity!r}")
    return replace(SEVERITIES[severity], **changes)
