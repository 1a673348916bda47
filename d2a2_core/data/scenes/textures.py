"""Seeded procedural textures, the colour half of the generated scenes. All are uint8 RGB (S, S, 3), in sRGB."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Array = np.ndarray
Rng = np.random.Generator

_WORDS = "depth guide scale 42 ROS pixel 3.14 edge HELLO stereo lens RGB-D 007 fusion Kinect grid exit A4 open".split()  # noqa: SIM905


def random_texture(size: int, rng: Rng) -> Array:
    """One texture of a random kind, (size, size, 3) uint8."""
    kinds = (smooth, value_noise, value_noise, stripes, checker, dots, text, cells, grain)
    return kinds[rng.integers(len(kinds))](size, rng)


def recolour(texture: Array, rng: Rng) -> Array:
    """Mixes the channels of an (H, W, 3) uint8 texture at random around a random colour, so that one serves many objects."""
    contrast = rng.uniform(0.0, 1.2) ** 1.5
    mix = np.eye(3) * rng.uniform(0.3, 1.0) + rng.normal(0, 0.3, (3, 3))
    base = random_colour(rng).astype(np.float32)
    centred = texture.astype(np.float32) - 127.5
    return np.clip(base + contrast * centred @ mix.T.astype(np.float32), 0, 255).astype(np.uint8)


def random_colour(rng: Rng) -> Array:
    """A colour (3,) uint8; half of them close to grey, as in real rooms."""
    value = rng.uniform(15, 245)
    tint = rng.normal(0, 60 if rng.random() < 0.5 else 12, 3)
    return np.clip(value + tint, 0, 255).astype(np.uint8)


def smooth(size: int, rng: Rng) -> Array:
    """Slow gradients."""
    return _resized_noise(rng.integers(2, 4), size, rng)


def value_noise(size: int, rng: Rng) -> Array:
    """Several octaves of interpolated noise; grey or coloured, isotropic or stretched like wood."""
    out = np.zeros((size, size, 3), np.float32)
    stretch = 1 if rng.random() < 0.7 else int(rng.integers(3, 12))
    cells, weight, total = int(rng.integers(2, 24)), 1.0, 0.0
    persistence = rng.uniform(0.4, 0.9)
    while cells <= size and total < 2.5:
        out += weight * _resized_noise((cells, max(2, cells // stretch)), size, rng)
        total += weight
        cells *= 2
        weight *= persistence
    out = (out / total - 127.5) * 1.6 + 127.5
    if rng.random() < 0.4:
        out = np.broadcast_to(out[..., :1], out.shape)
    return np.clip(out, 0, 255).astype(np.uint8)


def grain(size: int, rng: Rng) -> Array:
    """Fine noise, as of carpet or plaster."""
    return np.clip(rng.normal(127, rng.uniform(10, 60), (size, size, 1)), 0, 255).astype(np.uint8).repeat(3, axis=2)


def stripes(size: int, rng: Rng) -> Array:
    """Parallel stripes, sharp or soft, at any angle."""
    phase = _ramp(size, rng) * rng.uniform(0.02, 0.5) + rng.uniform(0, 6.28)
    wave = np.sin(phase)
    if rng.random() < 0.6:
        wave = np.clip(wave * rng.uniform(2, 8) + rng.uniform(-0.7, 0.7), -1, 1)
    return _two_colours((wave + 1) / 2, rng)


def checker(size: int, rng: Rng) -> Array:
    """Tiles or a checkerboard, turned at random."""
    angle, period = rng.uniform(0, np.pi), rng.uniform(5, 50)
    u, v = _turned(size, angle)
    if rng.random() < 0.5:
        mask = ((np.floor(u / period) + np.floor(v / period)) % 2).astype(np.float32)
    else:  # tiles with joints
        joint = rng.uniform(0.04, 0.15) * period
        mask = ((u % period < joint) | (v % period < joint)).astype(np.float32)
    return _two_colours(mask, rng)


def dots(size: int, rng: Rng) -> Array:
    """A regular pattern of dots."""
    u, v = _turned(size, rng.uniform(0, np.pi))
    period = rng.uniform(6, 40)
    distance = np.hypot(u % period - period / 2, v % period - period / 2)
    return _two_colours(np.clip(rng.uniform(0.15, 0.4) * period - distance + 0.5, 0, 1), rng)


def text(size: int, rng: Rng) -> Array:
    """Lines of text in several sizes: many edges, none of them in depth."""
    image = Image.new("RGB", (size, size), tuple(int(c) for c in random_colour(rng)))
    draw = ImageDraw.Draw(image)
    y = 0
    while y < size:
        height = int(rng.integers(7, 40))
        font = ImageFont.load_default(height)
        words = " ".join(rng.choice(_WORDS, 8))
        draw.text((int(rng.integers(-20, 20)), y), words, fill=tuple(int(c) for c in random_colour(rng)), font=font)
        y += height + int(rng.integers(1, 12))
    return np.asarray(image)


def cells(size: int, rng: Rng) -> Array:
    """Voronoi cells, computed at half resolution."""
    half = (size + 1) // 2
    seeds = rng.uniform(0, half, (int(rng.integers(6, 40)), 2)).astype(np.float32)
    axis = np.arange(half, dtype=np.float32)
    distance = (axis[None, :, None] - seeds[:, 0, None, None]) ** 2 + (
        axis[None, None, :] - seeds[:, 1, None, None]
    ) ** 2
    index = np.argmin(distance, axis=0)
    palette = np.stack([random_colour(rng) for _ in seeds])
    return palette[index].repeat(2, axis=0).repeat(2, axis=1)[:size, :size]


def _resized_noise(cells: int | tuple[int, int], size: int, rng: Rng) -> Array:
    shape = (cells, cells) if np.isscalar(cells) else cells
    noise = Image.fromarray(rng.integers(0, 256, (*shape, 3), dtype=np.uint8))
    return np.asarray(noise.resize((size, size), Image.Resampling.BICUBIC))


def _turned(size: int, angle: float) -> tuple[Array, Array]:
    axis = np.arange(size, dtype=np.float32)
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return c * axis[None] + s * axis[:, None] + size, -s * axis[None] + c * axis[:, None] + size


def _ramp(size: int, rng: Rng) -> Array:
    return _turned(size, rng.uniform(0, np.pi))[0]


def _two_colours(weight: Array, rng: Rng) -> Array:
    a, b = random_colour(rng).astype(np.float32), random_colour(rng).astype(np.float32)
    return (a + (b - a) * weight[..., None].astype(np.float32)).astype(np.uint8)
