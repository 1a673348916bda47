"""Random furnished rooms: shell, furniture standing on the floor and on tables, thin things, procedural textures, lights.

Convention: metres, z up, the floor centred on the origin at z = 0. All randomness comes from the generator handed in, so a seed
and a set of models give one room.
"""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np

from d2a2_core.data.scenes import room_textures as textures
from d2a2_core.data.scenes.furniture import FurnitureModel, load_mesh
from d2a2_core.data.scenes.render import Material, Mesh, Scene, look_at, render_depth
from d2a2_core.data.scenes.room_shapes import Room, box, shell, thin_things, wall_spot

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
_PEOPLE = r"^((fe)?male|holding(Fem|M)ale)\d+$|^(boy|girl)Standing$"
_NO_FURNITURE = r"Doors and windows|Staircases|Characters|Animals"  # categories
_ON_FLOOR = (
    r"^(basketball|teddyBear|slippers|box|briefcase|crate|dustbin|bootie|handbag|ammoBox|riggedFan|littlePlant)$"
)


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
    room = Room(size, rng, [], [], [])
    lights = shell(room)
    for place, pattern, fewest, most in THEMES[theme]:
        for model in _choose(models, pattern, int(rng.integers(fewest, most + 1)), rng):
            mesh = textures.vary(load_mesh(model), rng, variety)
            {"wall": _against_wall, "table": _with_chairs, "mounted": _mounted}[place](room, mesh, model, models)
    _guests(room, models, variety)
    if not room.credits:
        raise ValueError(f"expected models for the theme {theme!r} among the {len(models)} given, found none that fits")
    thin_things(room, lights)
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


def close_view(
    scene: Scene, intrinsics: np.ndarray, width: int, height: int, rng: np.random.Generator, tries: int = 24
) -> np.ndarray:
    """(4, 4) camera-to-world of a view of one thing from 0.5 to 2 m, others before and beside it: as `random_view`, nearer.

    The eye keeps 0.3 m from everything in view.
    """
    small = np.diag([0.1, 0.1, 1.0]) @ intrinsics
    half = np.array(scene.size[:2]) / 2 - 0.1
    bounds = [m.bounds() for m in scene.meshes]
    targets = [b.mean(0) for b in bounds if 0.08 < np.ptp(b, axis=0).max() < 2.2]
    best, best_score = None, -np.inf
    for _ in range(tries if targets else 0):
        target = targets[rng.integers(len(targets))]
        angle, away = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 2.0)
        eye = target + away * np.array([np.cos(angle), np.sin(angle), rng.uniform(-0.1, 0.7)])
        if (np.abs(eye[:2]) > half).any() or not 0.15 < eye[2] < scene.size[2] - 0.2:
            continue
        pose = look_at(eye, target + rng.normal(0, 0.15, 3), rng.normal(0, 0.1))
        depth = render_depth(scene, small, pose, width // 10, height // 10)
        score = view_score(depth + 0.3) + rng.uniform(0, 0.3)
        if score > best_score:
            best, best_score = pose, score
    return best if best_score > 0 else random_view(scene, intrinsics, width, height, rng, tries)


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


def _against_wall(room: Room, mesh: Mesh, model: FurnitureModel, _: list[FurnitureModel], z: float = 0.0) -> None:
    for _try in range(40):
        spot = wall_spot(room, mesh, room.rng.uniform(-1, 1), int(room.rng.integers(4)), z)
        if room.free(spot.bounds()):
            room.add(spot, model)
            return


def _mounted(room: Room, mesh: Mesh, model: FurnitureModel, models: list[FurnitureModel]) -> None:
    _against_wall(room, mesh, model, models, min(max(model.elevation, 1.4), room.size[2] - model.height - 0.05))


def _with_chairs(room: Room, mesh: Mesh, model: FurnitureModel, models: list[FurnitureModel]) -> None:
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


def _guests(room: Room, models: list[FurnitureModel], variety: float) -> None:
    """What the themes do not know: people who stand about, and furniture of the CC-BY archives along the walls."""
    rng = room.rng
    others = [m for m in models if m.licence != "CC0"]
    people = [m for m in others if re.match(_PEOPLE, m.key)]
    furniture = [
        m for m in others
        if not re.match(_NO_FURNITURE, m.category) and m.elevation == 0 and max(m.width, m.depth) < 2.2 and 0.25 < m.height < 2.2
    ]  # fmt: skip
    for number in rng.permutation(len(furniture))[: int(rng.integers(2, 6)) if furniture else 0]:
        model = furniture[number]
        _against_wall(room, textures.vary(load_mesh(model), rng, variety), model, models)
    for number in rng.permutation(len(people))[: int(rng.integers(0, 4)) if people else 0]:
        for _try in range(40):
            x, y = rng.uniform(-0.4, 0.4, 2) * room.size[:2]
            person = load_mesh(people[number]).placed(x, y, 0, rng.uniform(0, 2 * np.pi))
            if room.free(person.bounds()):
                room.add(person, people[number])
                break


def _small_things(room: Room, models: list[FurnitureModel], variety: float) -> None:
    """Things dropped onto level places of the furniture, and a few onto the floor."""
    rng = room.rng
    tracer = Scene(room.meshes).tracer()
    tops = [b for b in room.boxes if 0.3 < b[1, 2] < 1.3 and (b[1] - b[0])[:2].min() > 0.25]
    jobs = [(m, True) for m in _choose(models, _ON_TABLES, 14, rng)] + [
        (m, False) for m in _choose(models, _ON_FLOOR, 4, rng)
    ]
    for model, high in jobs:
        mesh = textures.vary(load_mesh(model), rng, variety / 2)
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


def _fill_shelves(room: Room) -> None:
    """Rows of books on the boards of open shelves; a ray from the front measures how deep every centimetre of a board is free."""
    rng = room.rng
    tracer = Scene(room.meshes).tracer()
    covers = [Material(texture=textures.spine(rng)) for _ in range(12)]
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
