"""What a room is built from: meshes of simple shapes, the room that is being filled, its shell and its thin things.

Convention as in :mod:`d2a2_core.data.scenes.rooms`: metres, z up, the floor centred on the origin at z = 0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from d2a2_core.data.scenes import room_textures as textures
from d2a2_core.data.scenes.furniture import FurnitureModel
from d2a2_core.data.scenes.render import Light, Material, Mesh

# ---- shapes --------------------------------------------------------------------------------------------------------------------


def quad(corner: list[float], edge_u: list[float], edge_v: list[float], material: Material, tile: float = 0.0) -> Mesh:
    """A parallelogram; its texture repeats every `tile` metres, or is stretched over it once where `tile` is 0."""
    c, a, b = (np.asarray(x, float) for x in (corner, edge_u, edge_v))
    vertices = np.stack([c, c + a, c + a + b, c + b])
    repeat = np.array([np.linalg.norm(a), np.linalg.norm(b)]) / tile if tile > 0 else np.ones(2)
    uv = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * repeat
    return _mesh(vertices, np.array([[0, 1, 2], [0, 2, 3]]), uv, material)


def box(size: list[float], material: Material, tile: float = 0.0) -> Mesh:
    """A box of (x, y, z) metres that stands on z = 0, centred on x = y = 0."""
    x, y, z = (float(s) for s in size)
    low = np.array([-x / 2, -y / 2, 0.0])
    ex, ey, ez = np.eye(3) * [x, y, z]
    sides = [
        (low, ex, ez), (low + ex, ey, ez), (low + ex + ey, -ex, ez), (low + ey, -ey, ez), (low + ez, ex, ey), (low + ey, ex, -ey),
    ]  # fmt: skip
    return join([quad(c, a, b, material, tile) for c, a, b in sides])


def lathe(profile: np.ndarray, material: Material, segments: int = 20) -> Mesh:
    """The surface that a profile of (radius, height) points sweeps about the z axis."""
    profile = np.asarray(profile, float)
    angle = np.linspace(0, 2 * np.pi, segments + 1)
    rings = np.stack(
        [profile[:, :1] * np.cos(angle), profile[:, :1] * np.sin(angle), np.repeat(profile[:, 1:], len(angle), 1)], -1
    )
    return _sheet(rings, material)


def tube(path: np.ndarray, radius: float, material: Material, segments: int = 10) -> Mesh:
    """A round pole, wire or cable along a polyline (N, 3)."""
    path = np.asarray(path, float)
    forward = np.gradient(path, axis=0)
    forward /= np.linalg.norm(forward, axis=1, keepdims=True)
    helper = np.eye(3)[int(np.argmin(np.abs(forward[0])))]
    side = np.cross(forward, helper)
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    other = np.cross(forward, side)
    angle = np.linspace(0, 2 * np.pi, segments + 1)[None, :, None]
    return _sheet(path[:, None] + radius * (np.cos(angle) * side[:, None] + np.sin(angle) * other[:, None]), material)


def _curtain(width: float, height: float, material: Material) -> Mesh:
    x = np.linspace(-width / 2, width / 2, 60)
    wave = 0.035 * np.sin(x / width * 2 * np.pi * 4.5)
    top = np.stack([x, wave, np.full_like(x, height)], 1)
    return _sheet(np.stack([top * [1, 1, 0], top]), material)


def _sheet(grid: np.ndarray, material: Material) -> Mesh:
    """A smooth mesh over a grid of points (R, C, 3)."""
    rows, columns = grid.shape[:2]
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]
    faces = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])
    v, u = np.meshgrid(np.linspace(0, 1, rows), np.linspace(0, 1, columns), indexing="ij")
    mesh = _mesh(grid.reshape(-1, 3), faces, np.stack([u, v], -1).reshape(-1, 2), material)
    smooth = np.zeros((rows * columns, 3))
    np.add.at(smooth, faces.ravel(), mesh.normals.reshape(-1, 3))
    smooth /= np.maximum(np.linalg.norm(smooth, axis=1, keepdims=True), 1e-9)
    return replace(mesh, normals=smooth[faces])


def _mesh(vertices: np.ndarray, faces: np.ndarray, uv: np.ndarray, material: Material) -> Mesh:
    corner = vertices[faces]
    normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    return Mesh(vertices, faces, uv[faces], np.repeat(normal[:, None], 3, 1), np.zeros(len(faces), int), [material])


def join(meshes: list[Mesh]) -> Mesh:
    """One mesh of several that share their (single) material."""
    starts = np.cumsum([0] + [len(m.vertices) for m in meshes[:-1]])
    return Mesh(
        np.concatenate([m.vertices for m in meshes]),
        np.concatenate([m.faces + s for m, s in zip(meshes, starts, strict=True)]),
        np.concatenate([m.uv for m in meshes]),
        np.concatenate([m.normals for m in meshes]),
        np.concatenate([m.material for m in meshes]),
        meshes[0].materials,
    )


# ---- the room being filled -----------------------------------------------------------------------------------------------------


@dataclass
class Room:
    """A room while it is being filled: `size` (x, y, z) metres and what stands where.

    `boxes` are the bounds (2, 3) of the meshes that nothing may enter; `credits` names the models used.
    """

    size: np.ndarray
    rng: np.random.Generator
    meshes: list[Mesh]
    boxes: list[np.ndarray]
    credits: list[str]

    def add(self, mesh: Mesh, model: FurnitureModel | None = None, solid: bool = True) -> None:
        """Puts a placed mesh into the room; later things keep out of it where `solid`. `model` is credited."""
        self.meshes.append(mesh)
        if solid:
            self.boxes.append(mesh.bounds())
        if model is not None:
            self.credits.append(f"{model.name} ({model.key}) by {model.creator}, {model.licence}")

    def free(self, box: np.ndarray, overlap: float = 0.0) -> bool:
        """True where the box stays inside the room and enters no solid by more than `overlap` metres along every axis."""
        half = self.size[:2] / 2 + 1e-3
        if (box[0, :2] < -half).any() or (box[1, :2] > half).any() or box[1, 2] > self.size[2]:
            return False
        return not any((box[0] < b[1] - overlap).all() and (b[0] + overlap < box[1]).all() for b in self.boxes)


def wall_spot(room: Room, mesh: Mesh, along: float, side: int, z: float) -> Mesh:
    """The mesh turned and moved so that its back is 2 cm from wall `side` (0 = +y, 1 = -x, 2 = -y, 3 = +x)."""
    yaw = side * np.pi / 2
    turned = mesh.placed(0, 0, z, yaw)
    low, high = turned.bounds()[:, :2]
    half = room.size[:2] / 2
    axis = 1 if side % 2 == 0 else 0
    shift = np.zeros(2)
    shift[axis] = half[axis] - 0.02 - high[axis] if side in (0, 3) else -half[axis] + 0.02 - low[axis]
    reach = half[1 - axis] - 0.03 - (high - low)[1 - axis] / 2
    shift[1 - axis] = along * max(reach, 0.0)
    return turned.placed(shift[0], shift[1], 0.0)


def floor_spot(room: Room, width: float) -> np.ndarray | None:
    """(x, y) of a free place for a thing of `width` metres and up to 1.8 m high, None where none was found."""
    for _ in range(40):
        spot = room.rng.uniform(-0.5, 0.5, 2) * (room.size[:2] - width - 0.1)
        if room.free(np.array([[*(spot - width / 2), 0.02], [*(spot + width / 2), 1.8]])):
            return spot
    return None


# ---- the shell and the thin things ---------------------------------------------------------------------------------------------


def shell(room: Room) -> list[Light]:
    """Floor, ceiling, walls with skirting, a window with curtains, a door, posters, a rug; returns the lights."""
    rng, (sx, sy, sz) = room.rng, room.size
    room.add(
        quad([-sx / 2, -sy / 2, 0], [sx, 0, 0], [0, sy, 0], Material(texture=textures.floor(rng), specular=0.06), 1.6),
        solid=False,
    )
    paint = Material(texture=textures.noise_paint(rng, rng.uniform(0.82, 0.92) * np.ones(3), 0.02))
    room.add(quad([-sx / 2, sy / 2, sz], [sx, 0, 0], [0, -sy, 0], paint, 2.0), solid=False)
    plain, pattern = (
        Material(texture=textures.noise_paint(rng, textures.soft_color(rng), 0.025)),
        Material(texture=textures.wallpaper(rng)),
    )
    skirting = Material((0.85, 0.84, 0.8) if rng.random() < 0.6 else (0.35, 0.22, 0.13))
    special, lights = int(rng.integers(4)), []
    sides = rng.permutation(4)
    for side in range(4):
        paper = pattern if side == special else plain
        room.add(_on_wall(room, side, sx if side % 2 == 0 else sy, sz, 0.0, 0.0, paper, 0.0, 1.2), solid=False)
        length = sx if side % 2 == 0 else sy
        room.add(
            wall_spot(room, box([length - 0.05, 0.015, 0.09], skirting), 0.0, side, 0.0).placed(0, 0, 0), solid=False
        )
        if side == sides[0]:
            lights.append(_window(room, side, length))
        elif side == sides[1]:
            door = wall_spot(
                room,
                box([0.85, 0.05, 2.03], Material(texture=textures.wood(rng, 1), specular=0.05), tile=1.0),
                -0.8,
                side,
                0.0,
            )
            room.add(door)
        posters = int(rng.integers(1, 4)) if side != sides[0] else 0
        for along in rng.permutation(np.linspace(-0.75, 0.75, 5))[:posters] * length / 2:
            w, h = rng.uniform(0.35, 0.8), rng.uniform(0.4, 0.8)
            picture = Material(texture=textures.poster(rng))
            if rng.random() < 0.5:
                frame = box(
                    [w + 0.06, 0.025, h + 0.06], Material(tuple(rng.choice([[0.1] * 3, [0.45, 0.3, 0.16], [0.85] * 3])))
                )
                room.add(wall_spot(room, frame, 0.0, side, 1.37).placed(*_along(side, along), 0.0), solid=False)
            room.add(_on_wall(room, side, w, h, along, 1.4, picture, 0.05), solid=False)
    rug = box([rng.uniform(1.4, 2.4), rng.uniform(1.1, 1.8), 0.012], Material(texture=textures.rug(rng)), tile=0.0)
    room.add(rug.placed(*rng.uniform(-0.4, 0.4, 2), 0.0, rng.integers(2) * np.pi / 2 + rng.normal(0, 0.1)), solid=False)
    return lights


def _along(side: int, distance: float) -> tuple[float, float]:
    return (distance, 0.0) if side % 2 == 0 else (0.0, distance)


def _on_wall(
    room: Room,
    side: int,
    w: float,
    h: float,
    along: float,
    z: float,
    material: Material,
    off: float,
    tile: float = 0.0,
) -> Mesh:
    """A picture of w x h metres on wall `side`, `off` metres in front of it, facing the room; `tile` as in `quad`."""
    distance = room.size[1 if side % 2 == 0 else 0] / 2 - off
    sheet = quad([-w / 2, distance, z], [w, 0, 0], [0, 0, h], material, tile)
    return sheet.placed(*_along(side, along), 0.0, side * np.pi / 2)


def _window(room: Room, side: int, length: float) -> Light:
    rng = room.rng
    w, h, sill = rng.uniform(1.1, 1.7), rng.uniform(1.0, 1.3), rng.uniform(0.8, 1.0)
    along = rng.uniform(-0.5, 0.5) * (length / 2 - w)
    view = Material(texture=textures.outdoors(rng), emission=1.1)
    room.add(_on_wall(room, side, w, h, along, sill, view, 0.005), solid=False)
    white = Material((0.88, 0.88, 0.86))
    for dx, dz, bw, bh in (
        (0, 0, w + 0.1, 0.06),
        (0, h, w + 0.1, 0.06),
        (-w / 2, 0, 0.06, h),
        (w / 2, 0, 0.06, h),
        (0, 0, 0.04, h),
    ):
        bar = wall_spot(room, box([bw, 0.05, bh], white), 0.0, side, sill + dz)
        room.add(bar.placed(*_along(side, along + dx), 0.0), solid=False)
    cloth = Material(texture=textures.fabric(rng))
    rod = wall_spot(
        room,
        tube([[-w / 2 - 0.3, 0, 0], [w / 2 + 0.3, 0, 0]], 0.012, Material((0.2, 0.17, 0.15))),
        0.0,
        side,
        sill + h + 0.12,
    )
    room.add(rod.placed(*_along(side, along), 0.0), solid=False)
    for sign in (-1, 1):
        curtain = _curtain(0.34, sill + h + 0.06, cloth)
        spot = wall_spot(room, curtain, 0.0, side, 0.04).placed(*_along(side, along + sign * (w / 2 + 0.12)), 0.0)
        room.add(spot)
    inward = [(0, -1), (1, 0), (0, 1), (-1, 0)][side]
    middle = np.array(_along(side, along)) - np.array(inward) * (room.size[:2] / 2 - 0.35)
    power = rng.uniform(2.2, 3.4)
    return Light((middle[0], middle[1], sill + h / 2), (power * 0.95, power, power * 1.06), 0.45)


def thin_things(room: Room, lights: list[Light]) -> None:
    """A hanging lamp, a floor lamp, a leaning pole, a cable along a wall and a mobile of balls on threads."""
    rng, sz = room.rng, room.size[2]
    dark, brass = Material((0.08, 0.08, 0.09), specular=0.3), Material((0.6, 0.5, 0.3), specular=0.5)
    x, y = rng.uniform(-0.2, 0.2, 2) * room.size[:2]
    drop = sz - rng.uniform(0.45, 0.75)
    room.add(tube([[x, y, drop + 0.1], [x, y, sz]], 0.004, dark), solid=False)
    shade = Material(tuple(textures.muted(rng, 1)[0]), emission=0.5)
    room.add(lathe([[0.2, 0], [0.12, 0.14], [0.03, 0.2]], shade).placed(x, y, drop))
    power = rng.uniform(1.9, 3.0)
    lights.append(Light((x, y, drop - 0.03), (power, power * 0.9, power * 0.72), 0.12))
    for kind in rng.permutation(["lamp", "pole", "lamp"])[: int(rng.integers(1, 3))]:
        spot = floor_spot(room, 0.34 if kind == "lamp" else 0.2)
        if spot is None:
            continue
        if kind == "lamp":
            height = rng.uniform(1.35, 1.65)
            room.add(lathe([[0.15, 0], [0.15, 0.02], [0.02, 0.035]], brass).placed(*spot, 0.0))
            room.add(tube([[*spot, 0.02], [*spot, height]], 0.012, brass))
            cloth = Material(tuple(rng.uniform(0.7, 0.9) * np.array([1.0, 0.94, 0.82])), emission=0.6)
            room.add(lathe([[0.2, 0], [0.13, 0.27]], cloth).placed(*spot, height - 0.2))
            lights.append(Light((*spot, height + 0.12), (0.8, 0.66, 0.45), 0.08))
        else:
            lean = rng.uniform(-0.1, 0.1, 2)
            room.add(tube([[*spot, 0.0], [*(spot + lean), rng.uniform(1.1, 1.8)]], rng.uniform(0.008, 0.02), brass))
    side, t = int(rng.integers(4)), np.linspace(0, 1, 24)
    sag = np.stack([(t - 0.5) * rng.uniform(1.2, 2.6), 0 * t, 0.8 * (2 * t - 1) ** 2 * rng.uniform(0.2, 0.6)], 1)
    room.add(wall_spot(room, tube(sag, 0.005, dark), rng.uniform(-1, 1), side, rng.uniform(1.5, 1.8)), solid=False)
    if rng.random() < 0.6:
        cx, cy = rng.uniform(-0.33, 0.33, 2) * room.size[:2]
        for _ in range(int(rng.integers(3, 7))):
            bx, by = np.array([cx, cy]) + rng.uniform(-0.22, 0.22, 2)
            bz = sz - rng.uniform(0.3, 0.9)
            room.add(tube([[bx, by, bz], [bx, by, sz]], 0.002, dark), solid=False)
            r, a = rng.uniform(0.025, 0.06), np.linspace(0, np.pi, 9)
            profile = np.stack([r * np.sin(a), -r * np.cos(a)], 1)
            room.add(
                lathe(profile, Material(tuple(rng.uniform(0.1, 0.9, 3)), specular=0.3)).placed(bx, by, bz), solid=False
            )
