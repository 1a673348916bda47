"""Heaps of things before a wall, at close range and cut by the image's border: what benchmark images look like.

Models and simple shapes of any size and pose hang in view of one camera or stand on a table, with patterns that have
nothing to do with their form. Nothing is physically plausible but perspective, occlusion, shading and the shadows.

Convention as in :mod:`d2a2_core.data.scenes.render`: metres, z up; the camera is near the origin and looks along +y.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image

from d2a2_core.data.scenes import room_textures, textures
from d2a2_core.data.scenes.furniture import FurnitureModel, load_mesh
from d2a2_core.data.scenes.render import Light, Material, Mesh, Scene, look_at
from d2a2_core.data.scenes.room_shapes import box, join, lathe, quad, tube

Array = np.ndarray
Rng = np.random.Generator
_MOST_FACES = 50_000  # of a model; a larger one costs a second to load and looks no different in a heap
_LONGEST_M = 4.0  # lorries and containers are no clutter


def make_clutter(models: list[FurnitureModel], intrinsics: Array, size: tuple[int, int], rng: Rng) -> Scene:
    """A heap for a camera of `intrinsics` (3, 3) and `size` (H, W) near the origin; see :func:`clutter_view`.

    `Scene.size` holds (distance of the wall, its double, the same); `Scene.credits` names the models used.
    """
    distance = float(np.exp(rng.uniform(np.log(0.8), np.log(4.0))))
    bank = [textures.random_texture(256, rng) for _ in range(7)]
    bank += [np.asarray(Image.fromarray(f(rng)).resize((256, 256))) for f in
             (room_textures.poster, room_textures.fabric, room_textures.rug)]  # fmt: skip
    wall = _material(bank, rng)
    # Some scenes are painted all over with hardly differing materials: depth edges without a colour edge.
    common = 0.7 if rng.random() < 0.12 else 0.08
    meshes, table = _backdrop(distance, wall, bank, rng)
    small = [m for m in models if max(m.width, m.depth, m.height) < _LONGEST_M]
    credits = []
    typical = np.exp(rng.uniform(np.log(0.12), np.log(0.4)))
    for _ in range(int(np.clip(rng.uniform(6, 12) / typical, 20, 65))):
        mesh, model = _thing(small, rng)
        shade = replace(wall, color=tuple(np.array(wall.color) * rng.uniform(0.9, 1.1)))
        paint = shade if rng.random() < common else (_material(bank, rng) if rng.random() < 0.65 else None)
        if model is None and paint is None:
            paint = Material(tuple(room_textures.muted(rng, 1)[0]), specular=rng.uniform(0, 0.4))
        if paint is not None:
            mesh = _painted(mesh, paint, rng)
        if model is not None:
            credits.append(f"{model.name} ({model.key}) by {model.creator}, {model.licence}")
        meshes.append(_placed(mesh, distance, table, typical, intrinsics, size, rng))
    ambient = tuple(rng.uniform(0.15, 0.5) * rng.uniform(0.9, 1.05, 3))
    return Scene(meshes, _lights(distance, rng), ambient, (distance, 2 * distance, 2 * distance), sorted(set(credits)))


def clutter_view(scene: Scene, rng: Rng) -> Array:
    """(4, 4) camera-to-world of a view of the heap: a step to the side, a small turn."""
    distance = scene.size[0]
    eye = rng.normal(0, 0.06 * distance, 3)
    target = np.array([0.0, distance, 0.0]) + eye * rng.uniform(0, 1) + rng.normal(0, 0.04 * distance, 3)
    return look_at(eye, target, rng.normal(0, 0.08))


# ---- what surrounds the heap -------------------------------------------------------------------------------------------------


def _backdrop(distance: float, wall: Material, bank: list[Array], rng: Rng) -> tuple[list[Mesh], float | None]:
    """A wall, mostly a table, sometimes a side wall and a board; the height of the table or None."""
    wide = 14 * distance
    tile = distance * rng.uniform(0.4, 2.0)
    sheet = quad([-wide / 2, 0, -wide / 2], [wide, 0, 0], [0, 0, wide], wall, tile)
    meshes = [sheet.placed(0, distance, 0, rng.normal(0, 0.25))]
    if rng.random() < 0.4:
        side = rng.choice([-1.0, 1.0])
        end = quad([0, -wide / 2, -wide / 2], [0, wide, 0], [0, 0, wide], _material(bank, rng), tile)
        meshes.append(end.placed(side * distance * rng.uniform(0.3, 0.7), 0, 0, rng.normal(0, 0.15)))
    for _ in range(int(rng.integers(0, 3))):  # boards that lean, posters that hang before the wall
        w, h = distance * rng.uniform(0.15, 0.6, 2)
        board = _painted(box([w, 0.01 * distance, h], Material()), _material(bank, rng), rng)
        at = distance * np.array([rng.uniform(-0.5, 0.5), rng.uniform(0.75, 0.97), rng.uniform(-0.5, 0.2)])
        meshes.append(_turned(board, _tilt(rng, 0.2), 1.0, at))
    if rng.random() < 0.3:
        return meshes, None
    table = -distance * rng.uniform(0.1, 0.35)
    top = quad([-wide / 2, -wide / 2, 0], [wide, 0, 0], [0, wide, 0], _material(bank, rng), tile)
    meshes.append(top.placed(0, 0, table, rng.uniform(0, 3)))
    return meshes, table


def _lights(distance: float, rng: Rng) -> list[Light]:
    """One to three lamps about the camera that together light the heap by about as much as a room is lit."""
    count, lights = int(rng.integers(1, 4)), []
    total = rng.uniform(0.5, 1.2)
    for share in rng.dirichlet(np.ones(count)):
        at = distance * np.array([rng.uniform(-1.2, 1.2), rng.uniform(-0.4, 0.6), rng.uniform(0.0, 1.2)])
        squared = float(((at - [0, 0.8 * distance, 0]) ** 2).sum()) + 0.3
        power = total * share * squared * rng.uniform(0.85, 1.1, 3)
        lights.append(Light(tuple(at), tuple(power), distance * rng.uniform(0.01, 0.15)))
    return lights


# ---- things ------------------------------------------------------------------------------------------------------------------


def _thing(models: list[FurnitureModel], rng: Rng) -> tuple[Mesh, FurnitureModel | None]:
    if models and rng.random() < 0.6:
        model = models[rng.integers(len(models))]
        try:
            mesh = load_mesh(model)
        except ValueError:  # all glass
            return _simple(rng), None
        if len(mesh.faces) <= _MOST_FACES:
            return mesh, model
    return _simple(rng), None


def _simple(rng: Rng) -> Mesh:
    """A box, board, ball, vase, can, stick, wire, fence or frame, about a metre large."""
    plain = Material()
    kind = rng.integers(9)
    if kind == 0:
        return box(rng.uniform(0.15, 1, 3).tolist(), plain)
    if kind == 1:
        return box([rng.uniform(0.3, 1), 0.015, 1.0], plain)
    if kind == 2:
        angle = np.linspace(0, np.pi, 19)
        return lathe(np.stack([np.sin(angle), -np.cos(angle)], 1) / 2 + [0, 0.5], plain, 40)
    if kind == 3:
        height = np.linspace(0, 1, 16)
        radius = 0.12 + 0.2 * np.abs(np.sin(height * rng.uniform(2, 6) + rng.uniform(0, 3))) * rng.uniform(0.3, 1)
        return lathe(np.stack([radius, height], 1), plain, 36)
    if kind == 4:
        radius = rng.uniform(0.1, 0.5)
        return lathe(np.array([[0, 0], [radius, 0], [radius, 1], [0, 1]]), plain, 36)
    if kind in (5, 6):
        t = np.linspace(0, 1, 12 if kind == 6 else 2)
        bend = rng.normal(0, 0.3, 2)[None] * ((t - 0.5) ** 2)[:, None] * (kind == 6)
        radius = np.exp(rng.uniform(np.log(0.004), np.log(0.04)))
        return tube(np.stack([bend[:, 0], bend[:, 1], t], 1), radius, plain)
    count, radius = int(rng.integers(4, 11)), rng.uniform(0.006, 0.03)
    across = np.linspace(0, 1, count)
    bars = [tube([[x, 0, 0], [x, 0, 1]], radius, plain) for x in across]
    if kind == 8:
        bars = [bars[0], bars[-1]]  # a frame
        across = np.array([0.0, 1.0])
    return join([*bars, *(tube([[0, 0, z], [1, 0, z]], radius, plain) for z in (0.0, 1.0))])


def _placed(mesh: Mesh, distance: float, table: float | None, typical: float, intrinsics: Array,
            size: tuple[int, int], rng: Rng) -> Mesh:  # fmt: skip
    """The mesh at a random place in view (or somewhat out of it), scaled to a random share of the image's width."""
    f, (height, width) = intrinsics[0, 0], size
    stands = table is not None and rng.random() < 0.6
    nearest = 0.25 * distance if not stands else min(0.9 * distance, -table * f / (0.55 * height))
    y = distance - (distance - nearest) * rng.random() ** (1.0 if stands else 1.5)
    share = typical * np.exp(rng.normal(0, 0.5))
    u, v = rng.uniform(-0.1, 1.1, 2) * (width, height)
    metres = min(share, 0.8) * width * y / f
    extent = float(np.linalg.norm(np.ptp(mesh.vertices, axis=0)))
    turn = _upright(rng) if stands else _any_turn(rng)
    x, z = (u - intrinsics[0, 2]) * y / f, -(v - intrinsics[1, 2]) * y / f
    # It stays before the wall: a thing half in the wall is one that is cut off by it, which may be, but not too often.
    y = min(y, distance - 0.3 * metres)
    placed = _turned(mesh, turn, metres / max(extent, 1e-6), np.array([x, y, z]))
    return placed.placed(0, 0, table - float(placed.vertices[:, 2].min())) if stands else placed


def _turned(mesh: Mesh, turn: Array, scale: float, at: Array) -> Mesh:
    """A copy about its centre: turned by `turn` (3, 3), scaled, moved so that its centre lies at `at`."""
    centre = (mesh.vertices.max(0) + mesh.vertices.min(0)) / 2
    return replace(mesh, vertices=(mesh.vertices - centre) @ turn.T * scale + at, normals=mesh.normals @ turn.T)


def _any_turn(rng: Rng) -> Array:
    """A rotation (3, 3), uniform over all."""
    q, r = np.linalg.qr(rng.standard_normal((3, 3)))
    q = q * np.sign(np.diag(r))
    return q * np.linalg.det(q)


def _upright(rng: Rng) -> Array:
    """A turn about z, after the thing was laid on its side in a quarter of the cases."""
    c, s = np.cos(a := rng.uniform(0, 2 * np.pi)), np.sin(a)
    about_z = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])
    side = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]) if rng.random() < 0.25 else np.eye(3)
    return about_z @ side


def _tilt(rng: Rng, amount: float) -> Array:
    """A rotation by small angles about all axes, `amount` radians of standard deviation."""
    a, b, c = rng.normal(0, amount, 3)
    q, r = np.linalg.qr(np.array([[1, -c, b], [c, 1, -a], [-b, a, 1.0]]))
    return q * np.sign(np.diag(r))


def _material(bank: list[Array], rng: Rng) -> Material:
    """A pattern of the bank, most often in other colours; one in six a plain colour."""
    if rng.random() < 0.17:
        return Material(tuple(room_textures.muted(rng, 1)[0]), specular=rng.uniform(0, 0.3))
    picture = bank[rng.integers(len(bank))]
    picture = np.clip(textures.recolour(picture, rng) if rng.random() < 0.7 else picture, 12, 235)
    return Material(texture=picture, specular=rng.uniform(0, 0.2))


def _painted(mesh: Mesh, paint: Material, rng: Rng) -> Mesh:
    """The mesh in one material, its texture projected along the main axes, about one to three repeats over the whole."""
    corner = mesh.vertices[mesh.faces]
    main = np.argmax(np.abs(mesh.normals.sum(1)), axis=1)[:, None, None]
    uv = np.where(main == 0, corner[..., [1, 2]], np.where(main == 2, corner[..., [0, 1]], corner[..., [0, 2]]))
    extent = max(float(np.ptp(mesh.vertices, axis=0).max()), 1e-6)
    return replace(
        mesh,
        uv=uv / extent * np.exp(rng.uniform(0, np.log(3))) + rng.random(2),
        material=np.zeros(len(mesh.faces), int),
        materials=[paint],
    )
