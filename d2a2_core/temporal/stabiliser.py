"""Stabiliser: the results of one stream, each fused with what the frames before have shown."""

from __future__ import annotations

import json
import struct
from dataclasses import asdict, dataclass

import numpy as np

from d2a2_core.depth.provenance import Provenance
from d2a2_core.documents import parse_json
from d2a2_core.errors import CodedError
from d2a2_core.geometry import Camera, Extrinsics
from d2a2_core.temporal.fusion import Belief, Rules, fuse, start
from d2a2_core.temporal.warp import seen_from

MODES = ("off", "still", "moving")
# Another scene, or a wrong pose: fewer pixels agree, most of the image differs by more standard deviations, or more tiles do.
_CUT_AGREEING, _CUT_BIAS, _CUT_SHIFTED = 0.5, 0.5, 0.4
_DRIFT_M = 0.001  # error of a pose from one frame to the next
_UNKNOWN = np.float32(100)  # square metres, the variance of depth whose sigma is not known
_LEAST = np.float32(1e-8)
_HEADER = struct.Struct("<I")
# Without a sigma: the noise of a ToF camera, 0.001 + 0.0008 z^2 metres (d2a2_core.data.sensors.tof), times what the network
# makes of it, by provenance.
_NOISE_M = (0.001, 0.0008)
_FACTOR = np.zeros(len(Provenance), np.float32)
_FACTOR[[Provenance.NONE, Provenance.MEASURED, Provenance.REFINED]] = 1, 2, 4
_FACTOR[[Provenance.FILLED, Provenance.REMOVED, Provenance.REMEMBERED]] = 6


@dataclass(frozen=True)
class StabiliserSettings:
    """What a user may choose.

    Attributes:
        temporal: "off"; "still": the camera does not move; "moving": it does, and its pose comes with every frame.
        memory_frames: A pixel averages at most so many frames. More is calmer, and follows slow changes later.
        remember_s: Holes keep what was seen there for so many seconds; 0 keeps nothing.
        max_gap_s: After a longer pause between two stamps nothing of before is used.
        shared_error: Share of sigma^2 that is the same in every frame of a scene, and so does not average out, in [0, 1).
            With 0.4 sigma holds the truth as often after 20 frames of a still room (d2a2-nano-sensor) as after one.
        gate: A measurement replaces what was known when it differs by more than so many standard deviations of the difference.
        narrow_abs, narrow_rel: Where something moves also by more than the larger of these, metres and share of the depth.
    """

    temporal: str = "off"
    memory_frames: float = 10.0
    remember_s: float = 0.5
    max_gap_s: float = 0.5
    shared_error: float = 0.4
    gate: float = 4.0
    narrow_abs: float = 0.1
    narrow_rel: float = 0.1

    def __post_init__(self) -> None:
        if self.temporal not in MODES:
            raise ValueError(f"temporal must be one of {MODES}, got {self.temporal!r}")
        if not (self.memory_frames >= 1 and self.max_gap_s > 0 and self.gate > 0):
            raise ValueError(
                f"expected memory_frames of at least 1, max_gap_s and gate above 0, got {self.memory_frames}, "
                f"{self.max_gap_s} and {self.gate}"
            )
        if not (0 <= self.shared_error < 1 and min(self.remember_s, self.narrow_abs, self.narrow_rel) >= 0):
            raise ValueError(
                f"expected shared_error in [0, 1), remember_s, narrow_abs and narrow_rel of at least 0, got {self.shared_error}, "
                f"{self.remember_s}, {self.narrow_abs} and {self.narrow_rel}"
            )

    @property
    def rules(self) -> Rules:
        """The numbers of the filter."""
        return Rules(
            memory=self.memory_frames,
            shared=self.shared_error,
            gate=self.gate,
            narrow_abs=self.narrow_abs,
            narrow_rel=self.narrow_rel,
            narrow=self.temporal == "moving",
            remember_s=self.remember_s,
        )


@dataclass(frozen=True)
class Stabilised:
    """One frame.

    Attributes:
        depth: (H, W) float32 metres, NaN where nothing is known.
        sigma: (H, W) float32 metres, half-width of the 68 % interval, NaN where ``depth`` is; None for a frame without one.
        provenance: (H, W) uint8, :class:`d2a2_core.Provenance`; REMEMBERED in holes that keep what was seen there.
        restarted: Why nothing of the frames before was used: "first", "stamp_back", "stamp_gap", "size", "camera", "no_pose",
            "no_camera", "cut" (also a wrong pose), "off"; empty where it was used.
        agreeing: Share of the pixels known before that agree with this frame, in [0, 1].
    """

    depth: np.ndarray
    sigma: np.ndarray | None
    provenance: np.ndarray
    restarted: str = ""
    agreeing: float = 1.0


class Stabiliser:
    """Fuses the frames of one stream, in the order of their stamps. Not thread-safe.

    Args:
        settings: May be replaced between frames.
    """

    def __init__(self, settings: StabiliserSettings | None = None) -> None:
        self.settings = settings or StabiliserSettings()
        self.reset()

    def reset(self) -> None:
        """Forgets the stream so far."""
        self._belief: Belief | None = None
        self._spare: Belief | None = None  # for the next frame's, in "moving"
        self._variance = np.empty((0, 0), np.float32)
        self._camera: Camera | None = None
        self._stamp_ns = 0
        self._pose: np.ndarray | None = None

    def process(
        self,
        depth: np.ndarray,
        sigma: np.ndarray | None,
        provenance: np.ndarray,
        camera: Camera | None,
        stamp_ns: int,
        pose: np.ndarray | None = None,
    ) -> Stabilised:
        """Fuses one frame.

        Args:
            depth: (H, W) float32 metres along z, NaN invalid. It is not written to.
            sigma: (H, W) float32 metres, half-width of the 68 % interval; without one a ToF camera's noise is assumed.
            provenance: (H, W) uint8, :class:`d2a2_core.Provenance`.
            camera: Camera of these images; needed for "moving".
            stamp_ns: Nanoseconds.
            pose: (4, 4) from the camera's optical frame to a fixed frame, metres; needed for "moving", else not used.

        Raises:
            CodedError: Code "sizes": the images or the camera differ in size. Code "pose": no rigid transform.
        """
        if self.settings.temporal == "off":
            self.reset()
            return Stabilised(depth, sigma, provenance, "off")
        _check_sizes(depth, sigma, provenance, camera)
        pose = _rigid(pose) if pose is not None and self.settings.temporal == "moving" else None
        variance = self._variance_of(depth, sigma, provenance)
        why = self._why_restart(depth, camera, stamp_ns, pose)
        rules, agreeing, belief = self.settings.rules, 1.0, self._belief
        if belief is not None and not why:
            belief = self._in_view(belief, camera, pose, depth)
            fused = fuse(belief, depth, variance, (stamp_ns - self._stamp_ns) * 1e-9, rules)
            agreeing = fused.agreeing
            if agreeing < _CUT_AGREEING or abs(fused.bias) > _CUT_BIAS or fused.shifted > _CUT_SHIFTED:
                why = "cut"
            elif fused.remembered.any():
                provenance = np.where(fused.remembered, np.uint8(Provenance.REMEMBERED), provenance)
        if belief is None or belief.depth.shape != depth.shape:
            belief, self._spare = Belief.empty(depth.shape), None
        if why:
            start(belief, depth, variance, rules)
        self._belief, self._camera, self._stamp_ns, self._pose = belief, camera, stamp_ns, pose
        return Stabilised(belief.depth.copy(), None if sigma is None else _sigma(belief), provenance, why, agreeing)

    def _why_restart(self, depth: np.ndarray, camera: Camera | None, stamp_ns: int, pose: np.ndarray | None) -> str:
        """Why what was known does not fit this frame; empty where it does."""
        if self._belief is None:
            return "first"
        if stamp_ns <= self._stamp_ns:
            return "stamp_back"
        if stamp_ns - self._stamp_ns > self.settings.max_gap_s * 1e9:
            return "stamp_gap"
        if depth.shape != self._belief.depth.shape:
            return "size"
        if camera != self._camera:
            return "camera"
        if self.settings.temporal == "moving":
            if camera is None:
                return "no_camera"
            if pose is None or self._pose is None:
                return "no_pose"
        return ""

    def _in_view(self, belief: Belief, camera: Camera | None, pose: np.ndarray | None, depth: np.ndarray) -> Belief:
        """What is known, seen from where a frame was taken."""
        if self.settings.temporal == "still" or camera is None or pose is None or self._pose is None:
            return belief
        if np.array_equal(pose, self._pose):
            return belief
        out = self._spare or Belief.empty(depth.shape)
        seen_from(belief, np.linalg.inv(pose) @ self._pose, camera, depth, _DRIFT_M, out)
        self._spare = belief
        return out

    def _variance_of(self, depth: np.ndarray, sigma: np.ndarray | None, provenance: np.ndarray) -> np.ndarray:
        """(H, W) float32 square metres, positive everywhere, also where there is no depth; valid until the next frame."""
        if self._variance.shape != depth.shape:
            self._variance = np.empty(depth.shape, np.float32)
        if sigma is None:
            sigma = (np.float32(_NOISE_M[0]) + np.float32(_NOISE_M[1]) * depth * depth) * _FACTOR[provenance]
        np.multiply(sigma, sigma, out=self._variance)
        # Holes have no sigma. Depth without one is hardly believed.
        np.fmin(self._variance, _UNKNOWN, out=self._variance)
        return np.maximum(self._variance, _LEAST, out=self._variance)

    # -- state ---------------------------------------------------------------------------------------------------------

    def state(self) -> bytes:
        """Everything that the next frame depends on: 16 bytes a pixel, and a header as JSON."""
        shape = None if self._belief is None else list(self._belief.depth.shape)
        header = {
            "shape": shape,
            "camera": None if self._camera is None else asdict(self._camera),
            "stamp_ns": self._stamp_ns,
            "pose": None if self._pose is None else self._pose.ravel().tolist(),
        }
        text = json.dumps(header).encode()
        arrays = () if self._belief is None else self._belief.arrays()
        return b"".join((_HEADER.pack(len(text)), text, *(array.astype("<f4").tobytes() for array in arrays)))

    def restore(self, state: bytes) -> None:
        """Goes on from where :meth:`state` was taken.

        Raises:
            ValueError: It is no such state.
        """
        try:
            self.reset()
            (length,) = _HEADER.unpack_from(state)
            header = parse_json(state[_HEADER.size : _HEADER.size + length], "its header")
            self._stamp_ns = int(header["stamp_ns"])
            self._pose = None if header["pose"] is None else np.array(header["pose"], float).reshape(4, 4)
            camera = header["camera"]
            self._camera = None if camera is None else Camera(**camera | {"distortion": tuple(camera["distortion"])})
            if header["shape"] is not None:
                planes = np.frombuffer(state, "<f4", offset=_HEADER.size + length).reshape(4, *header["shape"])
                self._belief = Belief(*(plane.astype(np.float32) for plane in planes))
        except (ValueError, KeyError, TypeError, struct.error) as error:
            self.reset()
            raise ValueError(f"the stabiliser's state is damaged ({error}); start again without it") from error


def _check_sizes(depth: np.ndarray, sigma: np.ndarray | None, provenance: np.ndarray, camera: Camera | None) -> None:
    shapes = {depth.shape, provenance.shape} | ({sigma.shape} if sigma is not None else set())
    if camera is not None:
        shapes.add((camera.height, camera.width))
    if len(shapes) != 1 or depth.ndim != 2:
        raise CodedError(
            "sizes", f"expected depth, sigma, provenance and camera of one size (H, W), got {sorted(shapes)}"
        )


def _rigid(pose: np.ndarray) -> np.ndarray:
    """The pose as (4, 4) float64, its rotation exactly orthonormal."""
    matrix = np.asarray(pose, np.float64)
    try:
        if matrix.shape != (4, 4):
            raise ValueError(f"expected 4 x 4 numbers, got {matrix.shape}")
        return Extrinsics(matrix[:3, :3], matrix[:3, 3]).matrix
    except ValueError as error:
        raise CodedError("pose", f"the camera's pose cannot be used: {error}") from error


def _sigma(belief: Belief) -> np.ndarray:
    sigma = belief.noise + belief.shared
    np.sqrt(sigma, out=sigma)
    holes = np.isnan(belief.depth)
    if holes.any():
        sigma[holes] = np.nan
    return sigma
