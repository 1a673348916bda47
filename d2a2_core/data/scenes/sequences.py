"""Short sequences in furnished rooms, with exact depth and poses: what filters over time are measured on.

`d2a2 generate --scenes sequences` writes each as a folder recording (:mod:`d2a2_core.recording`):

    NNN.color.png NNN.depth.png NNN.truth.png NNN.moving.png   calibration.json poses.json

Depth is what a ToF camera in the colour camera's place would report (:mod:`d2a2_core.data.sensors.tof`), ``DEPTH_SCALE`` times
coarser than colour, with noise that is fresh in every frame; truth is exact; moving is 255 on the thing that moves, else 0.
A sequence is a function of (seed, its number), and counts when its poses.json is there.

Convention: see :mod:`d2a2_core.data.scenes.render`; poses are camera-to-world.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation
from tqdm import tqdm

from d2a2_core.data.scenes.generate import closed, models_of, random_intrinsics
from d2a2_core.data.scenes.render import Material, Mesh, Scene, render, render_depth
from d2a2_core.data.scenes.room_shapes import box
from d2a2_core.data.scenes.rooms import close_view, make_room
from d2a2_core.data.sensors.tof import simulate_tof
from d2a2_core.depth.units import to_millimetres
from d2a2_core.documents import check_schema, read_json
from d2a2_core.files import check_outputs, is_our_png, replacing, write_png
from d2a2_core.geometry import Extrinsics

MOTIONS = ("still", "camera", "object")
DEPTH_SCALE = 4
RATE_HZ = 30.0
_STEP_M, _TURN = 0.012, np.radians(0.35)  # of a camera in a hand or on a slow robot, per frame
_COLOR_NOISE = 1.5  # of 255

_POSES = {
    "type": "object",
    "required": ["motion", "frames"],
    "properties": {
        "motion": {"type": "string"},
        "frames": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "stamp_ns", "camera_to_world"],
                "properties": {
                    "name": {"type": "string"},
                    "stamp_ns": {"type": "integer"},
                    "camera_to_world": {"type": "array", "items": {"type": "number"}, "minItems": 16, "maxItems": 16},
                },
            },
        },
    },
}


@dataclass(frozen=True)
class SequenceSettings:
    """What a sequence shows.

    Attributes:
        motion: What moves, one of ``MOTIONS``.
        frames: Their number, at least 2.
        size: (W, H) of colour and truth; multiples of ``DEPTH_SCALE``, at least 32.
        seed: With the sequence's number it decides the rest.
        furniture: Folder with the models.
        licences: Licences of the models that are taken.
    """

    motion: str
    frames: int
    size: tuple[int, int]
    seed: int
    furniture: str
    licences: tuple[str, ...] = ("CC0",)

    def __post_init__(self) -> None:
        if self.motion not in MOTIONS:
            raise ValueError(f"motion must be one of {', '.join(MOTIONS)}, got {self.motion!r}")
        if self.frames < 2:
            raise ValueError(f"expected at least 2 frames, got {self.frames}")
        if min(self.size) < 32 or any(length % DEPTH_SCALE for length in self.size):
            raise ValueError(f"expected a size of at least 32x32 and multiples of {DEPTH_SCALE}, got {self.size}")


@dataclass(frozen=True)
class SequenceFrame:
    """One frame of a sequence.

    Attributes:
        color: (H, W, 3) uint8 RGB.
        depth: (H / s, W / s) float32 metres as the ToF camera reports it, NaN invalid.
        truth: (H, W) float32 metres, everywhere.
        moving: (H, W) bool, the thing that moves.
        pose: (4, 4) camera-to-world.
        stamp_ns: Nanoseconds.
    """

    color: np.ndarray
    depth: np.ndarray
    truth: np.ndarray
    moving: np.ndarray
    pose: np.ndarray
    stamp_ns: int


# -- making ------------------------------------------------------------------------------------------------------------


def make_sequence(settings: SequenceSettings, number: int) -> tuple[np.ndarray, Iterator[SequenceFrame]]:
    """A furnished room and its sequence.

    Returns:
        (3, 3) K of the camera, and the frames, see :func:`film`.

    Raises:
        FileNotFoundError: No furniture models. ImportError: Rendering needs ``embreex``.
    """
    rng = np.random.default_rng([settings.seed, number])
    room = make_room(models_of(settings.furniture, settings.licences), rng)
    intrinsics = random_intrinsics(settings.size, rng)
    start = close_view(room, intrinsics, *settings.size, rng)
    return intrinsics, film(room, intrinsics, start, settings, rng)


def film(
    room: Scene, intrinsics: np.ndarray, start: np.ndarray, settings: SequenceSettings, rng: np.random.Generator
) -> Iterator[SequenceFrame]:
    """Renders the frames of a sequence as they are asked for.

    Args:
        room: What does not move.
        intrinsics: (3, 3) K.
        start: (4, 4) camera-to-world of the first frame.
        settings: Its furniture and seed are not used.
        rng: Decides the motion and the noise.
    """
    width, height = settings.size
    poses, things = [start] * settings.frames, []
    if settings.motion == "camera":
        poses = camera_path(start, settings.frames, rng)
    elif settings.motion == "object":
        things = passing_box(
            closed(render_depth(room, intrinsics, start, width, height)), intrinsics, start, settings.frames, rng
        )
    gain, shot = 0.0, None
    for number, pose in enumerate(poses):
        if shot is None or settings.motion == "camera":
            color, truth = render(room, intrinsics, pose, width, height, seed=int(rng.integers(1 << 31)))
            shot = color, closed(truth)
        color, truth = shot
        moving = np.zeros(truth.shape, bool)
        if things:
            alone = Scene([things[number]], room.lights, room.ambient, room.size)
            thing, z = render(alone, intrinsics, pose, width, height, supersample=1)
            moving = z < truth
            color, truth = np.where(moving[..., None], thing, color), np.where(moving, z, truth)
        gain = gain or _gain(color)
        color = _exposed(color, gain, rng)
        depth = simulate_tof(truth, (height // DEPTH_SCALE, width // DEPTH_SCALE), rng, rgb=color)
        yield SequenceFrame(color, depth, truth.astype(np.float32), moving, pose, round(number * 1e9 / RATE_HZ))


def camera_path(start: np.ndarray, count: int, rng: np.random.Generator) -> list[np.ndarray]:
    """``count`` poses (4, 4) from ``start`` on: a steady pace in one direction while the camera turns, as a hand moves it."""
    step = rng.normal(0, 1, 3) * [1.0, 0.6, 0.8]
    step *= _STEP_M / np.linalg.norm(step)
    turn = rng.normal(0, 1, 3) * [0.7, 1.0, 0.3]
    turn *= _TURN / np.linalg.norm(turn)
    poses = [start]
    for number in range(1, count):
        pace = 1 + 0.3 * np.sin(number)
        poses.append(poses[-1] @ motion(pace * step, pace * turn))
    return poses


def motion(step: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """(4, 4) of a step (3,) in metres after a turn (3,), the rotation vector in radians."""
    return Extrinsics(Rotation.from_rotvec(turn).as_matrix(), step).matrix


def passing_box(
    depth: np.ndarray, intrinsics: np.ndarray, pose: np.ndarray, count: int, rng: np.random.Generator
) -> list[Mesh]:
    """A box that crosses the view before everything else, one mesh for each of ``count`` frames.

    Args:
        depth: (H, W) metres, the view without it.
        intrinsics: (3, 3) K.
        pose: (4, 4) camera-to-world.
    """
    height, width = depth.shape
    far = 0.6 * float(np.percentile(depth, 30))
    side = 0.22 * far * width / intrinsics[0, 0]
    material = Material(tuple(rng.uniform(0.1, 0.9, 3)))
    mesh = box([side, side, 1.4 * side], material)
    row = height * rng.uniform(0.4, 0.6)
    meshes = []
    for column in width * np.linspace(0.25, 0.75, count):
        ray = np.linalg.solve(intrinsics, [column, row, 1.0])
        at = pose[:3, :3] @ (far * ray) + pose[:3, 3]
        meshes.append(mesh.placed(at[0], at[1], at[2] - 0.7 * side, 0.3))
    return meshes


def _gain(color: np.ndarray) -> float:
    """By which light is multiplied in all frames, so that the first one is exposed as cameras do."""
    middle = max(float(np.median((color.astype(np.float32) / 255) ** 2.2)), 1e-3)
    return float(np.clip(0.15 / middle, 0.4, 4.0))


def _exposed(color: np.ndarray, gain: float, rng: np.random.Generator) -> np.ndarray:
    light = np.minimum(gain * (color.astype(np.float32) / 255) ** 2.2, 1)
    noise = _COLOR_NOISE * rng.standard_normal(color.shape, np.float32)
    return np.clip(255 * light ** (1 / 2.2) + noise + 0.5, 0, 255).astype(np.uint8)


# -- folders -----------------------------------------------------------------------------------------------------------


def generate_sequences(settings: SequenceSettings, count: int, folder: str | Path, quiet: bool = False) -> int:
    """Writes the sequences that a folder lacks, each into a folder of its own; returns how many those were.

    Args:
        settings: Of all of them.
        count: Their number.
        folder: Is made where it is missing.
        quiet: No progress bar (there is none anyway where the standard error is no terminal).

    Raises:
        ValueError: A sequence that is there was made with other settings.
        FileExistsError: Something else has the name of a file to write.
    """
    missing = [n for n in range(count) if not _complete(sequence_folder(folder, n), settings)]
    for number in tqdm(missing, desc="sequences", disable=True if quiet else None):
        _write(sequence_folder(folder, number), settings, number)
    return len(missing)


def sequence_folder(folder: str | Path, number: int) -> Path:
    """The folder of one sequence."""
    return Path(folder) / f"{number:06d}"


def read_poses(folder: str | Path) -> tuple[list[str], list[int], list[np.ndarray]]:
    """Names, stamps (ns) and camera-to-world poses (4, 4) of a sequence's frames.

    Raises:
        FileNotFoundError: No poses.json. ValueError: It is not as `d2a2 generate` writes it.
    """
    frames = _poses(Path(folder) / "poses.json")["frames"]
    poses = [np.array(frame["camera_to_world"]).reshape(4, 4) for frame in frames]
    return [frame["name"] for frame in frames], [frame["stamp_ns"] for frame in frames], poses


def _poses(path: Path) -> dict[str, Any]:
    document = read_json(path)
    check_schema(document, _POSES, f"{path} is not as `d2a2 generate` writes it")
    return document


def _complete(folder: Path, settings: SequenceSettings) -> bool:
    path = folder / "poses.json"
    if not path.exists():
        # A sequence that was cut off begins with a picture of ours; else the folder is somebody's recording.
        begun = folder / "000.color.png"
        check_outputs([begun], is_our_png)
        check_outputs([] if begun.exists() else [folder / "calibration.json"])
        return False
    there = _poses(path).get("settings")
    if there != _described(settings):
        raise ValueError(
            f"{folder} was made with other settings ({there}); go on with the same, or name another folder"
        )
    return True


def _described(settings: SequenceSettings) -> dict[str, Any]:
    return {
        "motion": settings.motion,
        "frames": settings.frames,
        "size": list(settings.size),
        "seed": settings.seed,
        "licences": list(settings.licences),
    }


def _write(folder: Path, settings: SequenceSettings, number: int) -> None:
    intrinsics, frames = make_sequence(settings, number)
    listed = []
    for index, frame in enumerate(frames):
        name = f"{index:03d}"
        write_png(folder / f"{name}.color.png", frame.color)
        write_png(folder / f"{name}.depth.png", to_millimetres(frame.depth))
        write_png(folder / f"{name}.truth.png", to_millimetres(frame.truth))
        write_png(folder / f"{name}.moving.png", frame.moving.astype(np.uint8) * 255)
        listed.append({"name": name, "stamp_ns": frame.stamp_ns, "camera_to_world": frame.pose.ravel().tolist()})
    width, height = settings.size
    color = {"width": width, "height": height, "K": intrinsics.ravel().tolist()}
    _write_json(folder / "calibration.json", {"color": color, "rate_hz": RATE_HZ})
    _write_json(folder / "poses.json", {"motion": settings.motion, "settings": _described(settings), "frames": listed})


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with replacing(path) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n")
