"""Random furnished rooms: shell, CC0 furniture standing on the floor and on tables, thin things, procedural textures, lights.

Convention: metres, z up, the floor centred on the origin at z = 0. All randomness comes from the generator handed in, so a seed
and a set of models give one room.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from d2a2_core.data.furniture import FurnitureModel, load_mesh
from d2a2_core.data.render import Light, Material, Mesh, Scene, look_at, render_depth

# What stands in a room, by model folder name: (place, pattern, fewest, most). "wall": its back to a wall; "table": towards the
# middle, with chairs; "mounted": hangs on a wall at its catalog height.
THEMES: dict[str, list[tuple[str, str, int, int]]] = {
    "living": [
        ("wall", r"^(couch|sofa2?|couch2|L_shaped_sofa)$", 1, 1),
        ("wall", r"^(televisionCabinet|pianoAQueue|bookcase|shelves|verticalShelves|cupboard)$", 3, 4),
        ("table", r"^(oakTable|table|tableWithTablecloth)$", 1, 1),
        ("wall", r"^(armchair2|modernArmchair|designChair|bedsideTable2|speaker3|pianoBench)$", 2, 3),
        ("wall", r"^(plant|decorativePlant|electricGuitar|radiator|radiator3)$", 2, 3),
        ("mounted", r"^(cuckooClock|wallLight)$", 1, 1),
    ],
    "office": [
        ("wall", r"^(desk|lbDesk|technicalTable1|technicalTable2)$", 2, 2),
        ("wall", r"^(bookcase|shelves|verticalShelves|whiteBoard|lockedLocker|cupboard)$", 3, 4),
        ("table", r"^(lbDesk|table|technicalTable1)$", 1, 1),
        ("wall", r"^(plant|decorativePlant|radiator|fireExtinguisher|dustbin)$", 2, 4),
        ("mounted", r"^(emergencySign)$", 1, 1),
    ],
    "bedroom": [
        ("wall", r"^(bed1|bed2|bed3|bedWithTexture)$", 1, 1),
        ("wall", r"^(bedsideTable2|wardrobeWithSlidingDoors|cupboard|shelves|babyRockingBed)$", 3, 4),
        ("wall", r"^(armchair2|desk|caballito|plant|radiator3|electricGuitar)$", 2, 4),
        ("table", r"^(tableWithTablecloth)$", 0, 1),
        ("mounted", r"^(cuckooClock|wallLight)$", 0, 1),
    ],
    "kitchen": [
        ("wall", r"^(refrigerator|largeFridge|highCabinet)$", 1, 2),
        ("wall", r"^(lowerCabinet|drawersCabinet|sinkCabinet|islandExtension|doubleOven)$", 3, 5),
        ("table", r"^(oakTable|table|tableWithTablecloth)$", 1, 1),
        ("wall", r"^(stool|stool2|plant|bench|radiator)$", 1, 3),
        ("mounted", r"^(upperCabinet|glassDoorCabinet|smallUpperCabinet|rangeHood|knifeStandSwap)$", 1, 3),
    ],
}
_CHAIRS = r"^(oakChair|plasticChair|chair|chair2|antiqueChair|chairWithCushion|osakaChair|thonet|sillaBlanca|armchair)$"
_ON_TABLES = (
    r"^(caffe_final|cartoon_biplane|deer|desklamp|kitchenaid|mamadeira|plasticCup|tableFan|teddyBear|tetrapak|yogurtBottle|"
    r"headphones|littlePlant|kalender|bread|cactus|coffeeBrewer|riggedFan|orchids|handbag|cupcake|JapaneseLantern|woodToy|augalas|"
    r"scissors|flacon|ruler|hotDog)$"
)
_ON_FLOOR = (
    r"^(basketball|teddyBear|slippers|box|briefcase|crate|dustbin|bootie|handbag|ammoBox|riggedFan|littlePlant)$"
)


@dataclass
class _Room:
    """A room while it is being furnished: what stands where."""

    size: np.ndarray
    rng: np.random.Generator
    meshes: list[Mesh]
    boxes: list[np.ndarray]
    credits: list[str]

    def add(self, mesh: Mesh, model: FurnitureModel | None = None, solid: bool = True) -> None:
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


def make_room(
    models: list[FurnitureModel], rng: np.random.Generator, *, theme: str | None = None, variety: float = 0.3
) -> Scene:
    """A furnished room; `theme` is a key of THEMES or None for a random one.

    `variety` in [0, 1] is the share of furniture that gets random colours or patterns instead of its own (more texture edges that
    are no depth edges). `Scene.credits` names the models used.

    Raises:
        ValueError: when the theme is unknown or none of its models is in `models`.
    """
    if theme is not None and theme not in THEMES:
        raise ValueError(f"expected a theme out of {sorted(THEMES)}, got {theme!r}")
    theme = theme or str(rng.choice(sorted(THEMES)))
    size = np.array([rng.uniform(4.0, 5.6), rng.uniform(3.6, 4.8), rng.uniform(2.4, 2.9)])
    room = _Room(size, rng, [], [], [])
    lights = _shell(room)
    for place, pattern, fewest, most in THEMES[theme]:
        for model in _choose(models, pattern, int(rng.integers(fewest, most + 1)), rng):
            mesh = _vary(load_mesh(model), rng, variety)
            {"wall": _against_wall, "table": _with_chairs, "mounted": _mounted}[place](room, mesh, model, models)
    if not room.credits:
        raise ValueError(f"expected models for the theme {theme!r} among the {len(models)} given, found none that fits")
    _thin_things(room, lights)
    _fill_shelves(room)
    _small_things(room, models, variety)
    ambient = tuple(rng.uniform(0.3, 0.45) * np.array([1.0, rng.uniform(0.94, 1.0), rng.uniform(0.86, 1.02)]))
    return Scene(room.meshes, lights, ambient, tuple(size), sorted(set(room.credits)))


def random_view(
    scene: Scene, intrinsics: np.ndarray, width: int, height: int, rng: np.random.Generator, tries: int = 24
) -> np.ndarray:
    """(4, 4) camera-to-world of an eye-level view with much to see: the best of `tries` by depth edges and range.

    The eye keeps 0.6 m from everything in view. Judged on a depth map of a tenth of the size.
    """
    small = np.diag([0.1, 0.1, 1.0]) @ intrinsics
    half = np.array(scene.size[:2]) / 2
    best, best_score = None, -np.inf
    for _ in range(tries):
        eye = np.append(rng.uniform(-0.92, 0.92, 2) * half, rng.uniform(1.1, 1.75))
        target = np.append(rng.uniform(-0.7, 0.7, 2) * half, rng.uniform(0.4, 1.1))
        if np.linalg.norm(target - eye) < 1.0:
            continue
        pose = look_at(eye, target, rng.normal(0, 0.04))
        score = view_score(render_depth(scene, small, pose, width // 10, height // 10))
        if score > best_score:
            best, best_score = pose, score
    return best if best is not None else look_at([-half[0] * 0.9, -half[1] * 0.9, 1.5], [0, 0, 0.8])


def view_score(depth: np.ndarray) -> float:
    """How good a view is: the share of pixels at 1 to 4 m plus four times the share on depth steps over 5 cm; -1 too close."""
    if np.isnan(depth).any() or np.percentile(depth, 1) < 0.6:
        return -1.0
    steps = np.abs(np.diff(depth, axis=1))[:-1] + np.abs(np.diff(depth, axis=0))[:, :-1]
    return float(((depth > 1) & (depth < 4)).mean() + 4 * (steps > 0.05).mean())


# ---- where things go -----------------------------------------------------------------------------------------------------------


def _choose(models: list[FurnitureModel], pattern: str, count: int, rng: np.random.Generator) -> list[FurnitureModel]:
    fitting = [m for m in models if re.match(pattern, m.key)]
    return [fitting[i] for i in rng.permutation(len(fitting))[:count]]


def _wall_spot(room: _Room, mesh: Mesh, along: float, side: int, z: float) -> Mesh:
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


def _against_wall(room: _Room, mesh: Mesh, model: FurnitureModel, _: list[FurnitureModel], z: float = 0.0) -> None:
    for _try in range(40):
        spot = _wall_spot(room, mesh, room.rng.uniform(-1, 1), int(room.rng.integers(4)), z)
        if room.free(spot.bounds()):
            room.add(spot, model)
            return


def _mounted(room: _Room, mesh: Mesh, model: FurnitureModel, models: list[FurnitureModel]) -> None:
    _against_wall(room, mesh, model, models, min(max(model.elevation, 1.4), room.size[2] - model.height - 0.05))


def _with_chairs(room: _Room, mesh: Mesh, model: FurnitureModel, models: list[FurnitureModel]) -> None:
    rng = room.rng
    for _try in range(40):
        x, y = rng.uniform(-0.3, 0.3, 2) * room.size[:2]
        yaw = rng.integers(2) * np.pi / 2 + rng.normal(0, 0.06)
        table = mesh.placed(x, y, 0, yaw)
        if room.free(table.bounds()):
            break
    else:
        return
    room.add(table, model)
    kinds = _choose(models, _CHAIRS, 1 if rng.random() < 0.7 else 4, rng)
    half = np.array([model.width, model.depth]) / 2
    seats = [(k, s) for k in (0, 1) for s in np.linspace(-0.5, 0.5, 2 if half[1 - k] > 0.65 else 1)] if kinds else []
    for number, (axis, along) in enumerate([*seats, *seats]):
        sign = 1 if number < len(seats) else -1
        chair = kinds[number % len(kinds)]
        at = np.zeros(2)
        at[axis] = sign * (half[axis] + chair.depth / 2 - 0.14 + rng.uniform(0, 0.2))
        at[1 - axis] = along * half[1 - axis] * (len({s for k, s in seats if k == axis}) > 1)
        facing = yaw + [[-np.pi / 2, np.pi / 2], [0.0, np.pi]][axis][sign < 0] + rng.normal(0, 0.2)
        c, s = np.cos(yaw), np.sin(yaw)
        spot = load_mesh(chair).placed(x + c * at[0] - s * at[1], y + s * at[0] + c * at[1], 0, facing)
        if rng.random() < 0.85 and room.free(spot.bounds(), overlap=0.2):
            room.add(spot, chair)


def _small_things(room: _Room, models: list[FurnitureModel], variety: float) -> None:
    """Things dropped onto level places of the furniture, and a few onto the floor."""
    rng = room.rng
    tracer = Scene(room.meshes).tracer()
    tops = [b for b in room.boxes if 0.3 < b[1, 2] < 1.3 and (b[1] - b[0])[:2].min() > 0.25]
    jobs = [(m, True) for m in _choose(models, _ON_TABLES, 14, rng)] + [
        (m, False) for m in _choose(models, _ON_FLOOR, 4, rng)
    ]
    for model, high in jobs:
        mesh = _vary(load_mesh(model), rng, variety / 2)
        for _try in range(25):
            if high and not tops:
                break
            area = tops[rng.integers(len(tops))] if high else np.array([-room.size / 2, room.size / 2])
            x, y = rng.uniform(area[0, :2], area[1, :2])
            spot = mesh.placed(x, y, 0, rng.uniform(0, 2 * np.pi))
            low, top = spot.bounds()
            grid = np.stack(np.meshgrid(*np.linspace(low[:2], top[:2], 5).T, [area[1, 2] + 0.02 if high else 1.3]), -1)
            _, fall, _, _ = tracer.cast(grid.reshape(-1, 3), np.tile([0.0, 0.0, -1.0], (25, 1)))
            z = grid[0, 0, 0, 2] - fall
            if not np.ptp(z) < 0.012 or (z.max() > 0.25) != high:  # also refuses NaN: beyond the edge of the room
                continue
            spot = spot.placed(0, 0, float(z.max()))
            if room.free(spot.bounds(), overlap=0.02):
                room.add(spot, model)
                break


def _fill_shelves(room: _Room) -> None:
    """Rows of books on the boards of open shelves; a ray from the front measures how deep every centimetre of a board is free."""
    rng = room.rng
    tracer = Scene(room.meshes).tracer()
    covers = [Material(texture=_spine(rng)) for _ in range(12)]
    for mesh, credit_box in [(m, m.bounds()) for m in room.meshes]:
        extent = credit_box[1] - credit_box[0]
        if not (0.6 < extent[2] < 2.2 and extent[:2].min() < 0.5 and extent[:2].max() < 1.5):
            continue
        axis = int(np.argmin(extent[:2]))
        centre = (credit_box[0] + credit_box[1]) / 2
        inward = -1.0 if centre[axis] < 0 else 1.0  # furniture with its back to a wall opens towards the middle
        for z, clear in _boards(mesh, extent[0] * extent[1]):
            steps = np.arange(credit_box[0, 1 - axis] + 0.03, credit_box[1, 1 - axis] - 0.03, 0.01)
            origin = np.zeros((len(steps), 3))
            origin[:, 1 - axis], origin[:, 2] = steps, z + min(0.1, clear / 2)
            origin[:, axis] = centre[axis] - inward * (extent[axis] / 2 + 0.02)
            direction = np.zeros((len(steps), 3))
            direction[:, axis] = inward
            room_behind = tracer.cast(origin, direction)[1] - 0.02
            at = 0
            while at < len(steps) - 6:
                thick = int(rng.integers(2, 6))
                deep = float(np.min(room_behind[at : at + thick + 1]))
                if not 0.14 < deep < 0.6 or rng.random() < 0.12:
                    at += 1 if rng.random() < 0.7 else 6
                    continue
                size = np.zeros(3)
                size[axis], size[1 - axis] = min(deep - 0.01, rng.uniform(0.13, 0.2)), thick * 0.01 - 0.002
                size[2] = min(clear - 0.02, rng.uniform(0.17, 0.29))
                book = np.zeros(3)
                book[1 - axis] = steps[at] + thick * 0.005
                book[axis] = origin[0, axis] + inward * (0.02 + deep - size[axis] / 2)
                room.add(
                    box(size, covers[rng.integers(len(covers))], tile=0.3).placed(book[0], book[1], z), solid=False
                )
                at += thick


def _boards(mesh: Mesh, footprint: float) -> list[tuple[float, float]]:
    """(height, clearance above) of the inner boards: heights at which upward faces cover 30 % of the footprint."""
    corner = mesh.vertices[mesh.faces]
    cross = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]) / 2
    level = np.abs(cross[:, 2]) > 0.95 * np.linalg.norm(cross, axis=1)
    heights = np.round(corner[level, :, 2].max(1), 2)
    found = [h for h in np.unique(heights) if np.abs(cross[level, 2])[heights == h].sum() > 0.3 * footprint]
    return [(float(a), float(b - a)) for a, b in pairwise(found) if 0.2 < b - a < 0.6]


# ---- the shell and the thin things ---------------------------------------------------------------------------------------------


def _shell(room: _Room) -> list[Light]:
    """Floor, ceiling, walls with skirting, a window with curtains, a door, posters, a rug; returns the lights."""
    rng, (sx, sy, sz) = room.rng, room.size
    room.add(
        quad([-sx / 2, -sy / 2, 0], [sx, 0, 0], [0, sy, 0], Material(texture=_floor(rng), specular=0.06), 1.6),
        solid=False,
    )
    paint = Material(texture=_noise_paint(rng, rng.uniform(0.82, 0.92) * np.ones(3), 0.02))
    room.add(quad([-sx / 2, sy / 2, sz], [sx, 0, 0], [0, -sy, 0], paint, 2.0), solid=False)
    plain, pattern = Material(texture=_noise_paint(rng, _soft_color(rng), 0.025)), Material(texture=_wallpaper(rng))
    skirting = Material((0.85, 0.84, 0.8) if rng.random() < 0.6 else (0.35, 0.22, 0.13))
    special, lights = int(rng.integers(4)), []
    sides = rng.permutation(4)
    for side in range(4):
        paper = pattern if side == special else plain
        room.add(_on_wall(room, side, sx if side % 2 == 0 else sy, sz, 0.0, 0.0, paper, 0.0, 1.2), solid=False)
        length = sx if side % 2 == 0 else sy
        room.add(
            _wall_spot(room, box([length - 0.05, 0.015, 0.09], skirting), 0.0, side, 0.0).placed(0, 0, 0), solid=False
        )
        if side == sides[0]:
            lights.append(_window(room, side, length))
        elif side == sides[1]:
            door = _wall_spot(
                room, box([0.85, 0.05, 2.03], Material(texture=_wood(rng, 1), specular=0.05), tile=1.0), -0.8, side, 0.0
            )
            room.add(door)
        posters = int(rng.integers(1, 4)) if side != sides[0] else 0
        for along in rng.permutation(np.linspace(-0.75, 0.75, 5))[:posters] * length / 2:
            w, h = rng.uniform(0.35, 0.8), rng.uniform(0.4, 0.8)
            picture = Material(texture=_poster(rng))
            if rng.random() < 0.5:
                frame = box(
                    [w + 0.06, 0.025, h + 0.06], Material(tuple(rng.choice([[0.1] * 3, [0.45, 0.3, 0.16], [0.85] * 3])))
                )
                room.add(_wall_spot(room, frame, 0.0, side, 1.37).placed(*_along(side, along), 0.0), solid=False)
            room.add(_on_wall(room, side, w, h, along, 1.4, picture, 0.05), solid=False)
    rug = box([rng.uniform(1.4, 2.4), rng.uniform(1.1, 1.8), 0.012], Material(texture=_rug(rng)), tile=0.0)
    room.add(rug.placed(*rng.uniform(-0.4, 0.4, 2), 0.0, rng.integers(2) * np.pi / 2 + rng.normal(0, 0.1)), solid=False)
    return lights


def _along(side: int, distance: float) -> tuple[float, float]:
    return (distance, 0.0) if side % 2 == 0 else (0.0, distance)


def _on_wall(
    room: _Room,
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


def _window(room: _Room, side: int, length: float) -> Light:
    rng = room.rng
    w, h, sill = rng.uniform(1.1, 1.7), rng.uniform(1.0, 1.3), rng.uniform(0.8, 1.0)
    along = rng.uniform(-0.5, 0.5) * (length / 2 - w)
    view = Material(texture=_outdoors(rng), emission=1.1)
    room.add(_on_wall(room, side, w, h, along, sill, view, 0.005), solid=False)
    white = Material((0.88, 0.88, 0.86))
    for dx, dz, bw, bh in (
        (0, 0, w + 0.1, 0.06),
        (0, h, w + 0.1, 0.06),
        (-w / 2, 0, 0.06, h),
        (w / 2, 0, 0.06, h),
        (0, 0, 0.04, h),
    ):
        bar = _wall_spot(room, box([bw, 0.05, bh], white), 0.0, side, sill + dz)
        room.add(bar.placed(*_along(side, along + dx), 0.0), solid=False)
    cloth = Material(texture=_fabric(rng))
    rod = _wall_spot(
        room,
        tube([[-w / 2 - 0.3, 0, 0], [w / 2 + 0.3, 0, 0]], 0.012, Material((0.2, 0.17, 0.15))),
        0.0,
        side,
        sill + h + 0.12,
    )
    room.add(rod.placed(*_along(side, along), 0.0), solid=False)
    for sign in (-1, 1):
        curtain = _curtain(0.34, sill + h + 0.06, cloth)
        spot = _wall_spot(room, curtain, 0.0, side, 0.04).placed(*_along(side, along + sign * (w / 2 + 0.12)), 0.0)
        room.add(spot)
    inward = [(0, -1), (1, 0), (0, 1), (-1, 0)][side]
    middle = np.array(_along(side, along)) - np.array(inward) * (room.size[:2] / 2 - 0.35)
    power = rng.uniform(2.2, 3.4)
    return Light((middle[0], middle[1], sill + h / 2), (power * 0.95, power, power * 1.06), 0.45)


def _thin_things(room: _Room, lights: list[Light]) -> None:
    """A hanging lamp, a floor lamp, a leaning pole, a cable along a wall and a mobile of balls on threads."""
    rng, sz = room.rng, room.size[2]
    dark, brass = Material((0.08, 0.08, 0.09), specular=0.3), Material((0.6, 0.5, 0.3), specular=0.5)
    x, y = rng.uniform(-0.2, 0.2, 2) * room.size[:2]
    drop = sz - rng.uniform(0.45, 0.75)
    room.add(tube([[x, y, drop + 0.1], [x, y, sz]], 0.004, dark), solid=False)
    shade = Material(tuple(_muted(rng, 1)[0]), emission=0.5)
    room.add(lathe([[0.2, 0], [0.12, 0.14], [0.03, 0.2]], shade).placed(x, y, drop))
    power = rng.uniform(1.9, 3.0)
    lights.append(Light((x, y, drop - 0.03), (power, power * 0.9, power * 0.72), 0.12))
    for kind in rng.permutation(["lamp", "pole", "lamp"])[: int(rng.integers(1, 3))]:
        spot = _floor_spot(room, 0.34 if kind == "lamp" else 0.2)
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
    room.add(_wall_spot(room, tube(sag, 0.005, dark), rng.uniform(-1, 1), side, rng.uniform(1.5, 1.8)), solid=False)
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


def _floor_spot(room: _Room, width: float) -> np.ndarray | None:
    for _ in range(40):
        spot = room.rng.uniform(-0.5, 0.5, 2) * (room.size[:2] - width - 0.1)
        if room.free(np.array([[*(spot - width / 2), 0.02], [*(spot + width / 2), 1.8]])):
            return spot
    return None


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


# ---- textures: (H, W, 3) uint8 sRGB --------------------------------------------------------------------------------------------


def _vary(mesh: Mesh, rng: np.random.Generator, share: float) -> Mesh:
    """With probability `share` the mesh in other colours, a third of those with a pattern projected along the main axes."""
    if rng.random() >= share:
        return mesh
    if rng.random() < 0.35:
        pattern = Material(texture=[_fabric, _wallpaper, _poster, _floor][rng.integers(4)](rng))
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
    from PIL import Image

    coarse = Image.fromarray(rng.random(cells, np.float32))
    return np.clip(np.asarray(coarse.resize(shape[::-1], Image.Resampling.BICUBIC)), 0, 1)


def _to_uint8(image: np.ndarray) -> np.ndarray:
    return np.clip(np.round(image * 255), 0, 255).astype(np.uint8)


def _muted(rng: np.random.Generator, count: int) -> np.ndarray:
    """(count, 3) colours of printed and dyed things: all lightnesses, moderate saturation."""
    grey = rng.uniform(0.18, 0.82, (count, 1))
    return np.clip(grey + rng.uniform(0.15, 0.6, (count, 1)) * (rng.random((count, 3)) - 0.5), 0.04, 0.95)


def _soft_color(rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(0.62, 0.88) + rng.uniform(-0.09, 0.09, 3)


def _noise_paint(rng: np.random.Generator, color: np.ndarray, strength: float) -> np.ndarray:
    cloud = _clouds(rng, (256, 256), (48, 48)) + _clouds(rng, (256, 256), (6, 6)) - 1.0
    return _to_uint8(color + strength * cloud[..., None])


def _wood(rng: np.random.Generator, planks: int) -> np.ndarray:
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


def _floor(rng: np.random.Generator) -> np.ndarray:
    if rng.random() < 0.65:
        return _wood(rng, int(rng.integers(8, 14)))
    tiles = int(rng.integers(4, 9))
    cell = np.arange(512) * tiles // 512
    checker = (cell[:, None] + cell[None]) % 2 * rng.uniform(0, 1)
    a, b = _soft_color(rng), rng.uniform(0.2, 0.75, 3)
    image = a + checker[..., None] * (b - a) + 0.06 * (_clouds(rng, (512, 512), (60, 60))[..., None] - 0.5)
    gap = np.diff(cell, prepend=0) > 0
    image[gap], image[:, gap] = 0.4, 0.4
    return _to_uint8(image)


def _wallpaper(rng: np.random.Generator) -> np.ndarray:
    n, base = 512, _soft_color(rng)
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


def _fabric(rng: np.random.Generator) -> np.ndarray:
    n, color = 256, _muted(rng, 1)[0]
    y, x = np.mgrid[0:n, 0:n]
    weave = 0.06 * np.sin(x * np.pi / 4) * np.sin(y * np.pi / 4)
    stripe = (x * int(rng.integers(2, 9)) // n % 2) * rng.uniform(0, 0.35)
    return _to_uint8(color * (1 - stripe)[..., None] + weave[..., None])


def _rug(rng: np.random.Generator) -> np.ndarray:
    n = 384
    colors = _muted(rng, 5) * np.array([1.0, 0.92, 0.85])
    y, x = np.mgrid[0:n, 0:n] / n
    border = np.minimum(np.minimum(x, 1 - x), np.minimum(y, 1 - y))
    diamond = (np.abs((x * 6) % 1 - 0.5) + np.abs((y * 4) % 1 - 0.5) < 0.3).astype(int)
    index = np.where(border < 0.03, 0, np.where(border < 0.08, 1, np.where(border < 0.1, 2, 3 + diamond)))
    return _to_uint8(colors[index] + 0.12 * (rng.random((n, n, 1)) - 0.5))


def _poster(rng: np.random.Generator) -> np.ndarray:
    """A picture field over lines of letter-like glyphs: many sharp edges without any depth."""
    from PIL import Image, ImageDraw

    w, h = 320, 400
    paper, ink = rng.uniform(0.65, 0.95, 3), rng.uniform(0.0, 0.35, 3)
    image = np.tile(paper, (h, w, 1))
    split = int(rng.uniform(0.3, 0.75) * h)
    field_colors = _muted(rng, 2)
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


def _spine(rng: np.random.Generator) -> np.ndarray:
    base, ink = _muted(rng, 2)
    image = np.tile(base, (64, 32, 1))
    for top in rng.integers(4, 56, 3):
        image[top : top + int(rng.integers(1, 6))] = ink
    return _to_uint8(image)


def _outdoors(rng: np.random.Generator) -> np.ndarray:
    n = 256
    y = np.linspace(0, 1, n)[:, None, None]
    sky = np.array([0.75, 0.86, 0.97]) + (y - 0.5) * 0.2 + 0.2 * (_clouds(rng, (n, n), (6, 4))[..., None] - 0.5)
    trees = np.array([0.35, 0.5, 0.28]) * (0.6 + 0.7 * _clouds(rng, (n, n), (40, 40))[..., None])
    skyline = 0.55 + 0.25 * _clouds(rng, (1, n), (2, 9))[..., None]
    return _to_uint8(np.where(y > skyline, trees, sky))
