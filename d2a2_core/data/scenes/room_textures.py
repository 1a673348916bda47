"""Colours and pictures of the things in a room. Textures are (H, W, 3) uint8 sRGB; colours are sRGB in [0, 1].

Each depicts one kind of surface, upright; :mod:`d2a2_core.data.scenes.textures` paints abstract patterns at any angle instead.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image, ImageDraw

from d2a2_core.data.scenes.render import Material, Mesh


def vary(mesh: Mesh, rng: np.random.Generator, share: float) -> Mesh:
    """With probability `share` the mesh in other colours, a third of those with a pattern projected along the main axes."""
    if rng.random() >= share:
        return mesh
    if rng.random() < 0.35:
        pattern = Material(texture=[fabric, wallpaper, poster, floor][rng.integers(4)](rng))
        corner = mesh.vertices[mesh.faces]
        main = np.argmax(np.abs(mesh.normals.sum(1)), axis=1)
        uv = np.where((main == 0)[:, None, None], corner[..., [1, 2]], corner[..., [0, 2]])
        uv = np.where((main == 2)[:, None, None], corner[..., [0, 1]], uv) / rng.uniform(0.3, 1.0)
        return replace(mesh, uv=uv, materials=[pattern] * len(mesh.materials))
    tint = rng.uniform(0.5, 1.1) * rng.uniform(0.75, 1.1, 3)
    materials = [
        replace(
            m,
            color=tuple(np.clip(np.array(m.color) * tint, 0.03, 0.9)),
            texture=None if m.texture is None else np.clip(m.texture * tint, 0, 255).astype(np.uint8),
        )
        for m in mesh.materials
    ]
    return replace(mesh, materials=materials)


def _clouds(rng: np.random.Generator, shape: tuple[int, int], cells: tuple[int, int]) -> np.ndarray:
    """Smooth noise in [0, 1] with `cells` bumps along each axis."""
    coarse = Image.fromarray(rng.random(cells, np.float32))
    return np.clip(np.asarray(coarse.resize(shape[::-1], Image.Resampling.BICUBIC)), 0, 1)


def _to_uint8(image: np.ndarray) -> np.ndarray:
    return np.clip(np.round(image * 255), 0, 255).astype(np.uint8)


def muted(rng: np.random.Generator, count: int) -> np.ndarray:
    """(count, 3) colours of printed and dyed things: all lightnesses, moderate saturation."""
    grey = rng.uniform(0.18, 0.82, (count, 1))
    return np.clip(grey + rng.uniform(0.15, 0.6, (count, 1)) * (rng.random((count, 3)) - 0.5), 0.04, 0.95)


def soft_color(rng: np.random.Generator) -> np.ndarray:
    """(3,) a light, almost grey colour, as of painted walls."""
    return rng.uniform(0.62, 0.88) + rng.uniform(-0.09, 0.09, 3)


def noise_paint(rng: np.random.Generator, color: np.ndarray, strength: float) -> np.ndarray:
    """Paint of sRGB `color` (3,) in [0, 1] that varies by up to `strength`, finely and in large spots."""
    cloud = _clouds(rng, (256, 256), (48, 48)) + _clouds(rng, (256, 256), (6, 6)) - 1.0
    return _to_uint8(color + strength * cloud[..., None])


def wood(rng: np.random.Generator, planks: int) -> np.ndarray:
    """Wood with the grain along u, in `planks` boards that differ in tone."""
    n = 512
    light, dark = [
        ([0.78, 0.6, 0.4], [0.6, 0.42, 0.25]),
        ([0.55, 0.36, 0.2], [0.38, 0.23, 0.12]),
        ([0.7, 0.66, 0.6], [0.52, 0.48, 0.43]),
    ][rng.integers(3)]
    rings = np.sin(2 * np.pi * (6 * _clouds(rng, (n, n), (20, 4)) + np.arange(n)[:, None] / 23))
    grain = 0.3 * (0.5 + 0.5 * rings) + 0.7 * _clouds(rng, (n, n), (170, 9))
    board = np.arange(n) * planks // n
    tone = rng.uniform(0.82, 1.1, planks)[board]
    image = (np.array(dark) + grain[..., None] * (np.array(light) - dark)) * tone[:, None, None]
    if planks > 1:
        image[np.diff(board, prepend=0) > 0] *= 0.45
        for k, joint in enumerate(rng.integers(0, n, planks)):
            image[board == k, joint : joint + 2] *= 0.5
    return _to_uint8(image)


def floor(rng: np.random.Generator) -> np.ndarray:
    """A floor of boards or, less often, of tiles with joints."""
    if rng.random() < 0.65:
        return wood(rng, int(rng.integers(8, 14)))
    tiles = int(rng.integers(4, 9))
    cell = np.arange(512) * tiles // 512
    checker = (cell[:, None] + cell[None]) % 2 * rng.uniform(0, 1)
    a, b = soft_color(rng), rng.uniform(0.2, 0.75, 3)
    image = a + checker[..., None] * (b - a) + 0.06 * (_clouds(rng, (512, 512), (60, 60))[..., None] - 0.5)
    gap = np.diff(cell, prepend=0) > 0
    image[gap], image[:, gap] = 0.4, 0.4
    return _to_uint8(image)


def wallpaper(rng: np.random.Generator) -> np.ndarray:
    """Wallpaper in two tones of a colour: stripes, dots, bricks or waves."""
    n, base = 512, soft_color(rng)
    accent = np.clip(base * rng.uniform(0.55, 0.92, 3), 0, 1)
    y, x = np.mgrid[0:n, 0:n] / n
    kind = rng.integers(4)
    count = int(rng.integers(4, 12))
    if kind == 0:
        mask = (x * count % 1 < rng.uniform(0.2, 0.6)).astype(float)
    elif kind == 1:
        mask = (
            ((x * count) % 1 - 0.5) ** 2 + ((y * count + 0.5 * (x * count).astype(int)) % 1 - 0.5) ** 2 < 0.06
        ).astype(float)
    elif kind == 2:
        row = (y * count * 2).astype(int)
        mask = (((y * count * 2) % 1 < 0.1) | ((x * count + 0.5 * (row % 2)) % 1 < 0.05)).astype(float)
    else:
        mask = 0.5 + 0.5 * np.sin(2 * np.pi * count * x + 3 * np.sin(2 * np.pi * y * 2))
    return _to_uint8(
        base + mask[..., None] * (accent - base) + 0.02 * (_clouds(rng, (n, n), (120, 120))[..., None] - 0.5)
    )


def fabric(rng: np.random.Generator) -> np.ndarray:
    """Woven cloth with stripes that run down it."""
    n, color = 256, muted(rng, 1)[0]
    y, x = np.mgrid[0:n, 0:n]
    weave = 0.06 * np.sin(x * np.pi / 4) * np.sin(y * np.pi / 4)
    stripe = (x * int(rng.integers(2, 9)) // n % 2) * rng.uniform(0, 0.35)
    return _to_uint8(color * (1 - stripe)[..., None] + weave[..., None])


def rug(rng: np.random.Generator) -> np.ndarray:
    """A whole rug: a border of three lines around a field of diamonds."""
    n = 384
    colors = muted(rng, 5) * np.array([1.0, 0.92, 0.85])
    y, x = np.mgrid[0:n, 0:n] / n
    border = np.minimum(np.minimum(x, 1 - x), np.minimum(y, 1 - y))
    diamond = (np.abs((x * 6) % 1 - 0.5) + np.abs((y * 4) % 1 - 0.5) < 0.3).astype(int)
    index = np.where(border < 0.03, 0, np.where(border < 0.08, 1, np.where(border < 0.1, 2, 3 + diamond)))
    return _to_uint8(colors[index] + 0.12 * (rng.random((n, n, 1)) - 0.5))


def poster(rng: np.random.Generator) -> np.ndarray:
    """A picture field over lines of letter-like glyphs: many sharp edges without any depth."""
    w, h = 320, 400
    paper, ink = rng.uniform(0.65, 0.95, 3), rng.uniform(0.0, 0.35, 3)
    image = np.tile(paper, (h, w, 1))
    split = int(rng.uniform(0.3, 0.75) * h)
    field_colors = muted(rng, 2)
    image[12:split, 12:-12] = field_colors[0] + _clouds(rng, (split - 12, w - 24), (7, 5))[..., None] * np.ptp(
        field_colors, axis=0
    )
    picture = Image.fromarray(_to_uint8(image))
    draw = ImageDraw.Draw(picture)
    for _ in range(int(rng.integers(2, 7))):
        x, y, r = rng.uniform(20, w - 60), rng.uniform(15, max(split - 70, 20)), rng.uniform(12, 55)
        shape = [draw.ellipse, draw.rectangle][rng.integers(2)]
        shape([x, y, min(x + r, w - 14), min(y + r, split)], fill=tuple(int(c) for c in rng.integers(20, 240, 3)))
    image = np.array(picture)
    top, size = split + 10, int(rng.integers(4, 7))
    while top + 5 * size < h - 8:
        for left in range(16, w - 16 - 4 * size, 4 * size):
            if rng.random() < 0.83:
                glyph = np.kron(rng.random((5, 3)) < 0.62, np.ones((size, size), bool))
                image[top : top + 5 * size, left : left + 3 * size][glyph] = _to_uint8(ink)
        top += 7 * size
        size = max(2, size - 1)
    return image


def spine(rng: np.random.Generator) -> np.ndarray:
    """The spine of a book: bars of ink on its cover's colour."""
    base, ink = muted(rng, 2)
    image = np.tile(base, (64, 32, 1))
    for top in rng.integers(4, 56, 3):
        image[top : top + int(rng.integers(1, 6))] = ink
    return _to_uint8(image)


def outdoors(rng: np.random.Generator) -> np.ndarray:
    """What is seen through a window: sky over trees."""
    n = 256
    y = np.linspace(0, 1, n)[:, None, None]
    sky = np.array([0.75, 0.86, 0.97]) + (y - 0.5) * 0.2 + 0.2 * (_clouds(rng, (n, n), (6, 4))[..., None] - 0.5)
    trees = np.array([0.35, 0.5, 0.28]) * (0.6 + 0.7 * _clouds(rng, (n, n), (40, 40))[..., None])
    skyline = 0.55 + 0.25 * _clouds(rng, (1, n), (2, 9))[..., None]
    return _to_uint8(np.where(y > skyline, trees, sky))
