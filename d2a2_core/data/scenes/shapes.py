"""Layered random shapes: the fast source of training scenes. Exact alignment, endless variety, no licence.

Each shape has its own outline, texture and sloped or curved depth, and the nearest wins in every pixel. Colour edges
without a depth edge (textures, text, shadows) and depth edges without a colour edge (shared textures) both occur.
Depth here is relative: it is not in metres until :func:`sample_scene` maps it to a range.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from d2a2_core.data.scenes.textures import random_texture, recolour

Array = np.ndarray
Rng = np.random.Generator
_SS = 2  # supersampling of outlines: colour is antialiased, depth is not


@dataclass(frozen=True)
class RGBD:
    """An aligned pair: ``color`` uint8 RGB (H, W, 3) and ``depth`` float32 (H, W), NaN where there is none."""

    color: Array
    depth: Array


def sample_scene(size: int, rng: Rng) -> RGBD:
    """A scene of layered shapes, (size, size), depth in metres between about 0.3 and 10."""
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    x, y = axis[None, :], axis[:, None]
    bank = [random_texture(size, rng) for _ in range(int(rng.integers(3, 6)))]
    depth = _background(x, y, rng)
    color = recolour(bank[0], rng).astype(np.float32)
    if rng.random() < 0.3:  # a second wall colour that does not follow the depth
        other = _soften(_outline(size, rng, 0.4, 1.2), 0)
        color += (recolour(bank[-1], rng) - color) * other[..., None]
    # A scene is a small window of a camera image, in which most objects are larger than the window: few edges, long ones.
    zoom = np.exp(rng.uniform(0, np.log(4)))
    count = max(2, int(np.exp(rng.uniform(np.log(5), np.log(45))) / zoom))
    typical = zoom * (rng.uniform(0.2, 0.7) if count * zoom < 14 else rng.uniform(0.1, 0.4))
    shadows = rng.random() < 0.5
    for order in np.sort(rng.uniform(0, 1, count)):
        _add_shape(color, depth, x, y, bank, order, typical, shadows, rng)
    color = _photograph(color, rng)
    near = np.exp(rng.uniform(np.log(0.3), np.log(2.5)))
    far = near + np.exp(rng.uniform(np.log(0.3), np.log(6.0)))
    lo, hi = depth.min(), depth.max()
    relative = (depth - lo) / max(hi - lo, 1e-6)
    if rng.random() < 0.5:  # half of the scenes are planar in depth, half in inverse depth
        metres = near + relative * (far - near)
    else:
        metres = 1 / (1 / near + relative * (1 / far - 1 / near))
    return RGBD(color, metres.astype(np.float32))


def _background(x: Array, y: Array, rng: Rng) -> Array:
    """Depth (S, S) of a wall, or of a corner of two to four planes; 1 is far."""
    planes = [_surface(x, y, rng.uniform(0.75, 1.1), 0.5, rng) for _ in range(int(rng.integers(1, 5)))]
    return np.minimum.reduce(np.broadcast_arrays(*planes)).copy()


def _surface(x: Array, y: Array, level: float, steep: float, rng: Rng) -> Array:
    """A plane, a cylinder, a sphere or a wavy sheet around ``level``."""
    slope = rng.normal(0, steep * rng.random() ** 2, 2)
    out = level + slope[0] * x + slope[1] * y
    kind = rng.random()
    if kind < 0.2:
        cx, cy = rng.uniform(-1, 1, 2)
        bend = rng.normal(0, 0.15, 2) if kind < 0.12 else np.repeat(rng.normal(0, 0.15), 2)
        out = out + bend[0] * (x - cx) ** 2 + bend[1] * (y - cy) ** 2
    elif kind < 0.27:
        fx, fy = rng.uniform(-12, 12, 2)
        out = out + rng.uniform(0.005, 0.04) * np.sin(fx * x + fy * y + rng.uniform(0, 6))
    return np.broadcast_to(out, np.broadcast_shapes(x.shape, y.shape)).astype(np.float32)


def _add_shape(
    color: Array,
    depth: Array,
    x: Array,
    y: Array,
    bank: list[Array],
    order: float,
    typical: float,
    shadows: bool,
    rng: Rng,
) -> None:
    size = len(depth)
    outline = _outline(size, rng, typical * 0.5, typical * 1.6)
    box = Image.fromarray(outline).getbbox()
    if box is None:
        return
    left, top, right, bottom = box
    window = np.s_[top:bottom, left:right]
    alpha = _soften(outline, 0)[window]
    beneath = depth[window]
    if rng.random() < 0.35:  # stands a little before what is behind it: small steps are as common as large ones
        level = float(np.median(beneath)) - np.exp(rng.uniform(np.log(0.01), np.log(0.3)))
    else:
        level = 0.95 - 0.9 * order
    surface = _surface(x[:, left:right], y[top:bottom], level, 0.35, rng)
    visible = surface < beneath
    if shadows and rng.random() < 0.6:
        _cast_shadow(color, outline, rng)
    if rng.random() < 0.06:  # same texture as the scene's first: a depth edge with hardly a colour edge
        paint = color[window] * rng.uniform(0.9, 1.1)
    else:
        paint = _paint(bank, bottom - top, right - left, rng)
    if rng.random() < 0.4:
        paint = paint * _shade(surface)
    color[window] += (paint - color[window]) * (alpha * visible)[..., None]
    depth[window] = np.where(visible & (alpha >= 0.5), surface, beneath)


def _paint(bank: list[Array], height: int, width: int, rng: Rng) -> Array:
    texture = bank[rng.integers(len(bank))]
    top, left = rng.integers(0, len(texture) - height + 1), rng.integers(0, len(texture) - width + 1)
    patch = texture[top : top + height, left : left + width]
    return recolour(patch[::-1] if rng.random() < 0.5 else patch, rng).astype(np.float32)


def _shade(surface: Array) -> Array:
    """Lambert-like shading (h, w, 1) by the slope of the surface."""
    if min(surface.shape) < 2:
        return np.ones((*surface.shape, 1), np.float32)
    gy, gx = np.gradient(surface)
    return np.clip(1 + 25 * (gx + 0.5 * gy), 0.3, 1.4)[..., None]


def _cast_shadow(color: Array, outline: Array, rng: Rng) -> None:
    shift = rng.integers(-14, 15, 2)
    shadow = _soften(np.roll(outline, tuple(shift), (0, 1)), rng.uniform(0.5, 6))
    color *= 1 - rng.uniform(0.15, 0.7) * shadow[..., None]


def _soften(outline: Array, radius: float) -> Array:
    """Mask (S, S) in [0, 1] from a uint8 outline."""
    if radius:
        outline = np.asarray(Image.fromarray(outline).filter(ImageFilter.BoxBlur(radius)))
    return outline.astype(np.float32) / 255


def _outline(size: int, rng: Rng, smallest: float, largest: float) -> Array:
    """Antialiased mask (size, size) uint8 of a random shape; extents are fractions of the image."""
    image = Image.new("L", (size * _SS, size * _SS))
    draw = ImageDraw.Draw(image)
    extent = np.exp(rng.uniform(np.log(smallest), np.log(largest))) * size * _SS
    centre = rng.uniform(-0.2, 1.2, 2) * size * _SS
    kind = rng.choice(len(_KINDS), p=_PROBABILITIES)
    _KINDS[kind](draw, centre, extent / 2, rng)
    if kind < 4 and rng.random() < 0.15:  # a window through the shape
        _KINDS[rng.integers(4)](draw, centre, extent * rng.uniform(0.15, 0.4), rng, 0)
    return np.asarray(image.reduce(_SS))


def _turn(points: Array, centre: Array, angle: float) -> list[tuple[float, float]]:
    c, s = np.cos(angle), np.sin(angle)
    return [tuple(p) for p in (points @ np.array([[c, s], [-s, c]]) + centre)]


def _ellipse(draw: ImageDraw.ImageDraw, centre: Array, radius: float, rng: Rng, fill: int = 255) -> None:
    t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    points = np.stack((np.cos(t), rng.uniform(0.35, 1) * np.sin(t)), 1) * radius
    draw.polygon(_turn(points, centre, rng.uniform(0, np.pi)), fill=fill)


def _box(draw: ImageDraw.ImageDraw, centre: Array, radius: float, rng: Rng, fill: int = 255) -> None:
    ratio = rng.uniform(0.15, 1)
    points = np.array([[-1, -ratio], [1, -ratio], [1, ratio], [-1, ratio]]) * radius
    angle = rng.uniform(0, np.pi) if rng.random() < 0.5 else rng.normal(0, 0.05) + rng.integers(2) * np.pi / 2
    draw.polygon(_turn(points, centre, angle), fill=fill)


def _polygon(draw: ImageDraw.ImageDraw, centre: Array, radius: float, rng: Rng, fill: int = 255) -> None:
    count = int(rng.integers(3, 10))
    t = np.sort(rng.uniform(0, 2 * np.pi, count))
    r = radius * rng.uniform(0.4, 1, count)
    draw.polygon(_turn(np.stack((r * np.cos(t), r * np.sin(t)), 1), centre, 0), fill=fill)


def _blob(draw: ImageDraw.ImageDraw, centre: Array, radius: float, rng: Rng, fill: int = 255) -> None:
    t = np.linspace(0, 2 * np.pi, 96, endpoint=False)
    r = np.full_like(t, 0.7)
    for k in range(2, int(rng.integers(3, 14))):
        r += rng.normal(0, 0.28 / k) * np.cos(k * t + rng.uniform(0, 6.28))
    r = radius * np.clip(r, 0.1, 1.2)
    draw.polygon(_turn(np.stack((r * np.cos(t), r * np.sin(t)), 1), centre, 0), fill=fill)


def _line(draw: ImageDraw.ImageDraw, centre: Array, radius: float, rng: Rng, fill: int = 255) -> None:
    width = max(1, int(np.exp(rng.uniform(np.log(1), np.log(9))) * _SS))
    angle, bend = rng.uniform(0, np.pi), rng.normal(0, 0.2)
    t = np.linspace(-1, 1, 12)
    points = np.stack((t, bend * t**2), 1) * radius * rng.uniform(1, 4)
    draw.line(_turn(points, centre, angle), fill=fill, width=width, joint="curve")


def _bars(draw: ImageDraw.ImageDraw, centre: Array, radius: float, rng: Rng, fill: int = 255) -> None:
    angle = rng.normal(0, 0.1) + rng.integers(2) * np.pi / 2
    count, gap = int(rng.integers(3, 9)), rng.uniform(6, 30) * _SS
    width = max(2, int(gap * rng.uniform(0.12, 0.5)))
    for i in range(count):
        at = (i - count / 2) * gap
        draw.line(_turn(np.array([[-radius, at], [radius, at]]), centre, angle), fill=fill, width=width)


def _ring(draw: ImageDraw.ImageDraw, centre: Array, radius: float, rng: Rng, fill: int = 255) -> None:
    width = max(2, int(radius * rng.uniform(0.05, 0.4)))
    draw.ellipse([*(centre - radius), *(centre + radius)], outline=fill, width=width)


def _glyph(draw: ImageDraw.ImageDraw, centre: Array, radius: float, rng: Rng, fill: int = 255) -> None:
    font = ImageFont.load_default(max(12, int(2 * radius)))
    draw.text(tuple(centre), str(rng.choice(list("ABDEFGHKMRSXY&?@38"))), fill=fill, font=font, anchor="mm")


def _leaves(draw: ImageDraw.ImageDraw, centre: Array, radius: float, rng: Rng, fill: int = 255) -> None:
    for _ in range(int(rng.integers(5, 22))):
        at = centre + rng.normal(0, 0.5, 2) * radius
        _ellipse(draw, at, radius * rng.uniform(0.1, 0.35), rng, fill)


_KINDS = (_ellipse, _box, _polygon, _blob, _line, _bars, _ring, _glyph, _leaves)
_PROBABILITIES = np.array([0.15, 0.2, 0.15, 0.2, 0.08, 0.05, 0.05, 0.06, 0.06])


def _photograph(color: Array, rng: Rng) -> Array:
    """Light, exposure, blur and noise of a camera: colour float (S, S, 3) 0..255 -> uint8."""
    size = len(color)
    if rng.random() < 0.5:  # uneven light
        light = Image.fromarray(rng.integers(90, 256, (3, 3), dtype=np.uint8)).resize((size, size), Image.BICUBIC)
        color = color * (np.asarray(light, np.float32)[..., None] / 220)
    if rng.random() < 0.3:
        color = 255 * (np.clip(color, 0, 255) / 255) ** rng.uniform(0.6, 1.8)
    dark = rng.random() < 0.12
    if dark:
        color = color * rng.uniform(0.12, 0.5)
    if rng.random() < 0.4:
        image = Image.fromarray(np.clip(color, 0, 255).astype(np.uint8))
        color = np.asarray(image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.2))), np.float32)
    if dark or rng.random() < 0.4:
        noise = rng.standard_normal(color.shape, np.float32)
        color = color + noise * np.float32(rng.uniform(1, 8))
    return np.clip(color, 0, 255).astype(np.uint8)
