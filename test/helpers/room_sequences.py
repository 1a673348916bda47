"""A room without furniture models, and short sequences in it with exact depth and poses."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from d2a2_core.data.scenes.render import Material, Scene, look_at
from d2a2_core.data.scenes.room_shapes import Room, box, shell, thin_things
from d2a2_core.data.scenes.sequences import SequenceFrame, SequenceSettings, film

SIZE = (160, 120)
INTRINSICS = np.array([[140.0, 0, 79.5], [0, 140.0, 59.5], [0, 0, 1]])
SEEDS = {"still": 11, "camera": 12, "object": 13}


def plain_room(seed: int) -> Scene:
    """Shell, thin things and boxes that stand about."""
    rng = np.random.default_rng(seed)
    room = Room(np.array([4.6, 4.0, 2.5]), rng, [], [], [])
    lights = shell(room)
    for _ in range(9):
        size = rng.uniform(0.25, 0.9, 3)
        spot = rng.uniform(-0.35, 0.35, 2) * room.size[:2]
        room.add(box(list(size), Material(tuple(rng.uniform(0.2, 0.8, 3)))).placed(*spot, 0.0, rng.uniform(0, np.pi)))
    thin_things(room, lights)
    return Scene(room.meshes, lights, size=tuple(room.size))


@lru_cache(maxsize=3)
def sequence(motion: str, frames: int = 14) -> tuple[SequenceFrame, ...]:
    """One sequence of ``SIZE`` pixels, seen from a corner of a room; do not write to it."""
    rng = np.random.default_rng(SEEDS[motion])
    start = look_at([-2.0, -1.7, 1.4], [0.3, 0.3, 0.6])
    return tuple(film(plain_room(SEEDS[motion]), INTRINSICS, start, SequenceSettings(motion, frames, SIZE, 0, ""), rng))
