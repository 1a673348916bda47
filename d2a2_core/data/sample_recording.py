"""Renders the sample recording: a camera that moves through one furnished room, with a simulated ToF camera and the truth.

    python -m d2a2_core.data.sample_recording OUT --models FOLDER [--seed 5] [--frames 30]

FOLDER holds the archives of Debian's package sweethome3d-furniture. Needs the package `embreex`. The format is that of
:mod:`d2a2_core.recording`. The same seed, models and library versions give the same files.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from d2a2_core.data.scenes.furniture import find_models
from d2a2_core.data.scenes.render import Scene, look_at, render, render_depth
from d2a2_core.data.scenes.rooms import make_room, random_view, view_score
from d2a2_core.data.sensors.tof import simulate_tof
from d2a2_core.files import check_outputs, has_mark

WIDTH, HEIGHT, SCALE = 640, 480, 4
RATE_HZ = 15.0
INTRINSICS = np.array([[525.0, 0.0, 319.5], [0.0, 525.0, 239.5], [0.0, 0.0, 1.0]])


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m d2a2_core.data.sample_recording", description=__doc__.splitlines()[0]
    )
    parser.add_argument("out", type=Path, help="folder to write, made where absent")
    parser.add_argument("--models", type=Path, required=True, help="folder with the *.sh3f archives")
    parser.add_argument("--seed", type=int, default=5, help="of the room, the camera path and the noise")
    parser.add_argument("--frames", type=int, default=30)
    parser.add_argument("--theme", default="living", help="kind of room")
    parser.add_argument("--quality", type=int, default=88, help="JPEG quality of the colour images")
    parser.add_argument("--supersample", type=int, default=4, help="colour samples per pixel along each axis")
    options = parser.parse_args(arguments)
    try:
        credits = write_recording(**vars(options))
    except (OSError, ImportError, ValueError) as error:
        print(f"sample_recording: {error}", file=sys.stderr)
        return 1
    size = sum(p.stat().st_size for p in options.out.iterdir()) / 1e6
    print(f"{options.out}: {options.frames} frames, {size:.2f} MB, {len(credits)} models")
    return 0


def write_recording(
    out: Path, models: Path, seed: int, frames: int, theme: str = "living", quality: int = 88, supersample: int = 4
) -> list[str]:
    """Renders and writes all files; returns the credits of the models used. See the module's text for the format."""
    if frames < 1:
        raise ValueError(f"expected at least one frame, got {frames}")
    old = [path for kind in ("*.color.*", "*.depth.png", "*.truth.png", "calibration.json") for path in out.glob(kind)]
    check_outputs([*old, out / "README.md"], lambda _: has_mark(out / "README.md", b"# Sample recording\n"))
    rng = np.random.default_rng(seed)
    scene = make_room(find_models(models), rng, theme=theme, variety=0.08)
    out.mkdir(parents=True, exist_ok=True)
    for path in old:
        path.unlink()
    for number, pose in enumerate(tqdm(camera_path(scene, frames, rng), desc="rendering", unit="frame")):
        rgb, depth = render(scene, INTRINSICS, pose, WIDTH, HEIGHT, supersample, noise=1.0, seed=seed * 1000 + number)
        tof = simulate_tof(depth, (HEIGHT // SCALE, WIDTH // SCALE), rng, rgb=rgb)
        stem = f"{number:03d}"
        Image.fromarray(rgb).save(out / f"{stem}.color.jpg", quality=quality, subsampling=0, optimize=True)
        save_millimetres(out / f"{stem}.depth.png", tof)
        save_millimetres(out / f"{stem}.truth.png", depth)
    (out / "calibration.json").write_text(json.dumps(calibration(), indent=1) + "\n")
    command = f"python -m d2a2_core.data.sample_recording OUT --models FOLDER --seed {seed} --frames {frames}"
    command += f" --theme {theme} --quality {quality} --supersample {supersample}"
    (out / "README.md").write_text(_readme(command, seed, frames, scene.credits))
    return scene.credits


def camera_path(scene: Scene, frames: int, rng: np.random.Generator, tries: int = 16) -> list[np.ndarray]:
    """Camera-to-world poses (4, 4) of a slow hand-held sweep that never comes close to anything.

    Of `tries` sweeps around good views the one whose worst pose sees most is taken.
    """
    best, best_score = [], -np.inf
    for _ in range(tries):
        middle = random_view(scene, INTRINSICS, WIDTH, HEIGHT, rng, tries=8)
        eye, forward = middle[:3, 3], middle[:3, 2]
        side = np.array([forward[1], -forward[0], 0.0]) / np.linalg.norm(forward[:2])
        target = eye + 2.4 * forward
        sway, shake = rng.uniform(0.2, 0.35), rng.uniform(0, 2 * np.pi, 4)
        poses = []
        for t in np.linspace(-1, 1, frames):
            moved = eye + sway * t * side + 0.12 * t * forward
            moved[2] += 0.04 * np.sin(2.2 * t + shake[0])
            looked = target - 0.12 * sway * t * side + 0.03 * np.array([*np.sin(3.1 * t + shake[1:3]), np.sin(4 * t)])
            poses.append(look_at(moved, looked, 0.015 * np.sin(2.6 * t + shake[3])))
        score = min(_view(scene, pose) for pose in (poses[0], poses[len(poses) // 2], poses[-1]))
        if score > best_score:
            best, best_score = poses, score
    return best


def _view(scene: Scene, pose: np.ndarray) -> float:
    return view_score(render_depth(scene, np.diag([0.125, 0.125, 1.0]) @ INTRINSICS, pose, WIDTH // 8, HEIGHT // 8))


def calibration() -> dict:
    """The contents of calibration.json: one view for both cameras, so the depth camera is the colour camera resized."""
    depth_k = INTRINSICS / SCALE
    depth_k[:2, 2] = (INTRINSICS[:2, 2] + 0.5) / SCALE - 0.5  # pixel centres at integers
    depth_k[2, 2] = 1.0
    model = {"distortion_model": "plumb_bob", "D": [0.0] * 5}
    return {
        "comment": "K, D as in sensor_msgs/CameraInfo (pixel centres at integers); x_color = R x_depth + t, metres",
        "rate_hz": RATE_HZ,
        "color": {"width": WIDTH, "height": HEIGHT, "K": INTRINSICS.ravel().tolist(), **model},
        "depth": {
            "width": WIDTH // SCALE,
            "height": HEIGHT // SCALE,
            "K": depth_k.ravel().tolist(),
            **model,
            "unit": "millimetre",
            "invalid": 0,
        },
        "depth_to_color": {"R": np.eye(3).ravel().tolist(), "t": [0.0, 0.0, 0.0]},
    }


def save_millimetres(path: Path, depth: np.ndarray) -> None:
    """Writes (H, W) metres as a uint16 PNG in millimetres; NaN and what uint16 cannot hold become 0."""
    millimetres = np.round(np.nan_to_num(depth, nan=0.0).astype(np.float64) * 1000)
    millimetres[(millimetres < 0) | (millimetres > 65535)] = 0
    Image.fromarray(millimetres.astype(np.uint16)).save(path, optimize=True)


def _readme(command: str, seed: int, frames: int, credits: list[str]) -> str:
    return f"""# Sample recording

{frames} frames of a camera that moves through one furnished room, made by this project's renderer and ToF simulation.
No real place, person or camera is in it.

- `NNN.color.jpg`: {WIDTH}x{HEIGHT} colour.
- `NNN.depth.png`: {WIDTH // SCALE}x{HEIGHT // SCALE} uint16 millimetres, 0 = invalid: a simulated time-of-flight camera (mixed
  edges, noise, 1 mm steps, holes), in the view of the colour camera.
- `NNN.truth.png`: {WIDTH}x{HEIGHT} uint16 millimetres, 0 = none: the true depth along z, through the centre of every pixel.
- `calibration.json`: both cameras, {RATE_HZ:g} Hz.

Made with (seed {seed}; FOLDER holds the archives of Debian's package `sweethome3d-furniture`):

    {command}

## Terms

The recording is dedicated to the public domain (CC0 1.0, https://creativecommons.org/publicdomain/zero/1.0/): it is ours to give
away, because everything in it is procedural or CC0. CC0 asks for no credit; these are the models seen in or around the view:

{chr(10).join("- " + c for c in credits)}
"""


if __name__ == "__main__":
    sys.exit(main())
