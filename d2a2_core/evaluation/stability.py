"""How much calmer, better or later depth becomes over time: figures of a sequence with exact depth and poses.

Sequences come from `d2a2 generate --scenes sequences`; the depth to stabilise from a pipeline, or simulated from the truth.
Convention: depth (H, W) float32 metres, NaN invalid; poses are camera-to-world.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from d2a2_core.data.scenes.sequences import SequenceFrame, read_poses
from d2a2_core.data.sensors.tof import blobs
from d2a2_core.depth.provenance import Provenance
from d2a2_core.geometry import Camera, CameraPair, back_project
from d2a2_core.images import read_image
from d2a2_core.pipeline import DepthPipeline
from d2a2_core.recording import Recording
from d2a2_core.temporal import Stabiliser, StabiliserSettings

_SETTLED = 10  # frames after which a still scene's flicker counts
_SAME_SURFACE = 0.01  # share of the depth
_GHOST_ABS, _GHOST_REL = 0.03, 0.05  # metres, share of the depth, by which depth must be nearer than the truth
_TRAIL = 10  # frames for which a place that a thing has left is watched


@dataclass(frozen=True)
class Shot:
    """A frame's result, and what is true.

    Attributes:
        depth, sigma: (H, W) float32 metres, NaN invalid.
        provenance: (H, W) uint8.
        truth: (H, W) float32 metres.
        moving: (H, W) bool, the thing that moves.
        pose: (4, 4).
        stamp_ns: Nanoseconds.
        camera: Of all of these.
    """

    depth: np.ndarray
    sigma: np.ndarray
    provenance: np.ndarray
    truth: np.ndarray
    moving: np.ndarray
    pose: np.ndarray
    stamp_ns: int
    camera: Camera

    @property
    def error(self) -> np.ndarray:
        """(H, W) metres."""
        return self.depth - self.truth


def read_shots(folder: str | Path, pipeline: DepthPipeline) -> list[Shot]:
    """A sequence's frames as the pipeline upsamples them; its weights must have an uncertainty head."""
    recording = Recording(folder)
    names, stamps, poses = read_poses(folder)
    pipeline.reset()
    shots = []
    for index, (name, stamp, pose) in enumerate(zip(names, stamps, poses, strict=True)):
        frame = recording[index]
        result = pipeline.process(CameraPair(color=frame.color, depth=frame.depth, **recording.views()))
        if result.sigma is None or result.camera is None or frame.truth is None:
            raise ValueError(
                f"{folder}: expected a sequence with calibration and truth, and weights with an uncertainty head"
            )
        moving = np.asarray(read_image(Path(folder) / f"{name}.moving.png")) > 0
        shots.append(
            Shot(result.depth, result.sigma, result.provenance, frame.truth, moving, pose, stamp, result.camera)
        )
    return shots


def simulated_shots(
    frames: Iterable[SequenceFrame], intrinsics: np.ndarray, shared: float, rng: np.random.Generator
) -> list[Shot]:
    """The truth with errors like a network's.

    Noise of the size of sigma, a share ``shared`` of whose variance stays with the surface while the rest is fresh in every frame
    and smooth over some pixels; depth edges that jitter by half a pixel; holes that come and go.
    """
    waves, phases = rng.normal(0, 60, (24, 3)), rng.uniform(0, 2 * np.pi, 24)  # 1 / metres: a few centimetres
    shots = []
    for frame in frames:
        height, width = frame.truth.shape
        camera = Camera(width, height, intrinsics[0, 0], intrinsics[1, 1], intrinsics[0, 2], intrinsics[1, 2])
        points = back_project(frame.truth, camera) @ frame.pose[:3, :3].T + frame.pose[:3, 3]
        stays = np.sqrt(2 / len(waves)) * np.sin(points @ waves.T + phases).sum(-1)
        v, u = np.mgrid[:height, :width] + 0.5 * np.stack([_smooth(frame.truth.shape, 3, rng) for _ in range(2)])
        jittered = frame.truth[
            np.clip(np.rint(v), 0, height - 1).astype(int), np.clip(np.rint(u), 0, width - 1).astype(int)
        ]
        step = ndimage.maximum_filter(frame.truth, 3) - ndimage.minimum_filter(frame.truth, 3)
        sigma = np.maximum(2 * (0.001 + 0.0008 * frame.truth**2), np.where(step > 0.05 * frame.truth, 0.4 * step, 0))
        noise = np.minimum(sigma, 0.02) * (
            np.sqrt(shared) * stays + np.sqrt(1 - shared) * _smooth(frame.truth.shape, 1.5, rng)
        )
        holes = blobs(frame.truth.shape, 3.0, 4.0, rng)
        depth = np.where(holes, np.nan, jittered + noise).astype(np.float32)
        provenance = np.where(holes, Provenance.NONE, Provenance.MEASURED).astype(np.uint8)
        sigma = np.where(holes, np.nan, sigma).astype(np.float32)
        shots.append(Shot(depth, sigma, provenance, frame.truth, frame.moving, frame.pose, frame.stamp_ns, camera))
    return shots


def _smooth(shape: tuple[int, ...], radius: float, rng: np.random.Generator) -> np.ndarray:
    """Noise of unit variance, correlated over ``radius`` pixels."""
    noise = ndimage.gaussian_filter(rng.standard_normal(shape), radius, mode="wrap")
    return noise / noise.std()


def stabilised(shots: Sequence[Shot], settings: StabiliserSettings) -> list[Shot]:
    """The same frames, each fused with the ones before."""
    stabiliser = Stabiliser(settings)
    results = [stabiliser.process(s.depth, s.sigma, s.provenance, s.camera, s.stamp_ns, s.pose) for s in shots]
    return [
        replace(shot, depth=result.depth, sigma=result.sigma, provenance=result.provenance)
        for shot, result in zip(shots, results, strict=True)
    ]


# -- figures -----------------------------------------------------------------------------------------------------------


def figures(shots: Sequence[Shot]) -> dict[str, float]:
    """Figures of a sequence, millimetres unless said otherwise.

    Returns:
        "rmse 2", "rmse 5", "rmse 10", "rmse": of the frame with that index, and of all from the fifth on. "flicker" and "flicker
        median": mean and median over surfaces of the temporal standard deviation of the error. "inside": share of the truth
        within sigma. "moving": RMSE on what moves. "static": on the rest. "ghosts": pixels that a thing has left whose depth is
        still nearer than the truth. "late": pixels that the thing has just covered or left whose depth is far from the truth.
    """
    errors = np.stack([shot.error for shot in shots])
    moving = np.stack([shot.moving for shot in shots])
    found = {f"rmse {index}": _rms(errors[index]) for index in (2, 5, 10) if index < len(shots)}
    found |= {"rmse": _rms(errors[5:])} | _flicker(shots, errors, moving)
    found["inside"] = float(np.mean([np.mean((np.abs(s.error) < s.sigma)[np.isfinite(s.depth)]) for s in shots[5:]]))
    if moving.any():
        truth = np.stack([shot.truth for shot in shots])
        limit = np.maximum(_GHOST_ABS, _GHOST_REL * truth)
        left = np.zeros_like(moving)
        for index in range(1, len(shots)):
            left[index] = moving[max(0, index - _TRAIL) : index].any(0) & ~moving[index]
        changed = np.zeros_like(moving)
        changed[1:] = moving[1:] != moving[:-1]
        found |= {"moving": _rms(errors[moving]), "static": _rms(errors[~moving])}
        found |= {
            "ghosts": float((left & (errors < -limit)).sum()),
            "late": float((changed & (np.abs(errors) > limit)).sum()),
        }
    return found


def _rms(errors: np.ndarray) -> float:
    return 1e3 * float(np.sqrt(np.nanmean(np.square(errors, dtype=np.float64))))


def _flicker(shots: Sequence[Shot], errors: np.ndarray, moving: np.ndarray) -> dict[str, float]:
    """Of pixels where the camera stands still; else of what one frame and the next both see, by their difference."""
    if all(np.array_equal(shot.pose, shots[0].pose) for shot in shots):
        spread = np.where(moving.any(0), np.nan, errors[_SETTLED:].std(0, ddof=1))
    else:
        spread = np.concatenate(
            [_difference(shots[i - 1], shots[i], errors[i - 1], errors[i]) for i in range(5, len(shots))]
        )
    spread = 1e3 * spread[np.isfinite(spread)]
    return {"flicker": float(spread.mean()), "flicker median": float(np.median(spread))}


def _difference(before: Shot, now: Shot, error_before: np.ndarray, error: np.ndarray) -> np.ndarray:
    """|error - error before| / sqrt(2), metres, of the points that both frames see."""
    points = back_project(now.truth, now.camera) @ now.pose[:3, :3].T + now.pose[:3, 3]
    points = (points - before.pose[:3, 3]) @ before.pose[:3, :3]
    pixels = np.rint(now.camera.project(points)).astype(int)
    inside = (pixels >= 0).all(-1) & (pixels < (now.camera.width, now.camera.height)).all(-1)
    u, v = np.where(inside, pixels[..., 0], 0), np.where(inside, pixels[..., 1], 0)
    same = inside & (np.abs(before.truth[v, u] - points[..., 2]) < _SAME_SURFACE * points[..., 2])
    return np.abs(error - error_before[v, u])[same] / np.sqrt(2)
