"""How long a whole frame takes, stage by stage, as the node and `d2a2 bag` compute it; several weights in turns."""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from d2a2_core.geometry import Extrinsics
from d2a2_core.pipeline import DepthPipeline, PipelineSettings
from d2a2_core.stages import StageClock, stage
from d2a2_core.stream import PairMessages, Pixels, Stream, StreamOptions, Topics
from d2a2_core.upsampler import DepthUpsampler
from d2a2_core.weights.sidecars import load_sigma_head

#: The stages, in the order of a frame. "other" of the graph is what belongs to none: normalising, conversions.
STAGES = (
    "read", "register", "inspect", "fill", "network", "consistency", "provenance", "sigma", "other", "watch", "cloud", "publish",
)  # fmt: skip
_PARTS = {"filling": "fill", "": "other"}  # names of the graph's parts that differ
_WARM = 3  # frames before the ones that count


@dataclass
class FrameTimes:
    """What was measured of one network at one size, milliseconds."""

    weights: str
    size: str
    depth_size: str
    scale: int
    device: str
    runtime: str
    precision: str
    threads: int
    frames: int
    first_frame: float
    p50: float
    p99: float
    peak_memory_mb: int
    stages: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def beside_network(self) -> float:
        """Median of all but the network."""
        return self.p50 - self.stages["network"]["p50"]


def measure_frames(
    weights: Sequence[str],
    sizes: Sequence[tuple[int, int]],
    ratio: float = 4.0,
    frames: int = 30,
    device: str = "auto",
    precision: str = "auto",
    runtime: str = "auto",
    ensemble: int = 1,
    sigma: bool = True,
    cloud: bool = False,
) -> list[FrameTimes]:
    """Computes frames of random scenes by each network in turns.

    Args:
        weights: Shipped names or paths.
        sizes: (H, W) of the colour image.
        ratio: H / h of colour and depth.
        frames: Frames of each that count.
        device, precision, runtime, ensemble: See :meth:`DepthUpsampler.from_pretrained`.
        sigma, cloud: Whether these outputs are made.

    Raises:
        ValueError: No weights, no sizes, fewer than one frame, or options that cannot be had.
    """
    if not weights or not sizes or frames < 1:
        raise ValueError(
            f"expected weights, sizes and at least 1 frame, got {list(weights)}, {list(sizes)} and {frames}"
        )
    out = []
    for size in sizes:
        streams = [_Timed(name, size, ratio, device, precision, runtime, ensemble, sigma, cloud) for name in weights]
        for i in range(_WARM + frames):
            pair = _pair(size, ratio, i)
            for timed in streams:
                timed.compute(pair, counts=i >= _WARM)
        out += [timed.times() for timed in streams]
    return out


class _Timed:
    """One stream of frames."""

    def __init__(
        self, weights: str, size: tuple[int, int], ratio: float, device: str, precision: str, runtime: str, ensemble: int,
        sigma: bool, cloud: bool,
    ) -> None:  # fmt: skip
        self.weights, self.size, self.ratio = weights, size, ratio
        self.started = time.perf_counter()
        upsampler = DepthUpsampler.from_pretrained(weights, device, precision, ensemble=ensemble, runtime=runtime)
        head = load_sigma_head(weights) if sigma else None
        self.pipeline = DepthPipeline(upsampler, PipelineSettings(), head, profiled=True)
        self.stream = Stream(self.pipeline, _Host(), Topics("color/image_rect", "aligned_depth_to_color/image_raw"))
        self.wanted = {"image_raw", "camera_info", "provenance"} | ({"sigma"} if sigma else set())
        self.wanted |= {"points"} if cloud else set()
        self.first, self.scale = 0.0, 0
        self.whole: list[float] = []
        self.stages: list[dict[str, float]] = []

    def compute(self, pair: PairMessages, counts: bool) -> None:
        started = time.perf_counter()
        with StageClock() as clock:
            options = StreamOptions()
            result = self.stream.process(pair, options, "sigma" in self.wanted)
            for _, payload in result.outputs(options, self.wanted.__contains__):
                with stage("publish"):
                    # As messages are filled.
                    array = payload.array if isinstance(payload, Pixels) else payload
                    if isinstance(array, np.ndarray):
                        bytearray(np.ascontiguousarray(array).data.cast("B"))
        seconds = time.perf_counter() - started
        self.scale, self.first = result.result.scale, self.first or seconds
        if counts:
            parts = self.pipeline.profile()
            graph = clock.seconds.pop("graph", 0.0)
            for name, value in parts.items():
                clock.add(_PARTS.get(name, name), value)
            # What a profile does not see: calling it, and copies in and out.
            clock.add("other", graph - sum(parts.values()))
            self.whole.append(seconds)
            self.stages.append(clock.seconds)

    def times(self) -> FrameTimes:
        upsampler = self.pipeline.upsampler
        names = [name for name in STAGES if any(name in one for one in self.stages)]
        stages = {name: _quantiles([one.get(name, 0.0) for one in self.stages]) for name in names}
        whole = _quantiles(self.whole)
        depth = tuple(max(1, round(length / self.ratio)) for length in self.size)
        return FrameTimes(
            self.weights, f"{self.size[1]}x{self.size[0]}", f"{depth[1]}x{depth[0]}", self.scale, device_name(upsampler.device),
            upsampler.runtime, upsampler.precision, torch.get_num_threads(), len(self.whole), round(1000 * self.first, 1),
            whole["p50"], whole["p99"], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, stages,
        )  # fmt: skip


class _Host:
    """Reads messages that hold arrays."""

    def read_color(self, msg: Any) -> np.ndarray:
        return np.frombuffer(msg.data, np.uint8).reshape(msg.height, msg.width, 3)

    def read_depth(self, msg: Any, unit: float) -> np.ndarray:
        counts = np.frombuffer(msg.data, np.uint16).reshape(msg.height, msg.width)
        return counts * np.float32(unit or 0.001)

    def extrinsics(self, color_frame: str, depth_frame: str) -> Extrinsics | None:
        return None

    def pose(self, fixed_frame: str, frame: str, stamp_ns: int) -> np.ndarray | None:
        return None

    def header(self, stamp_ns: int, frame_id: str) -> Any:
        return _header(stamp_ns, frame_id)

    def report(self, code: str, message: str, detail: str = "") -> None:
        pass

    def inform(self, message: str) -> None:
        pass


def _header(stamp_ns: int, frame_id: str) -> Any:
    return SimpleNamespace(stamp=SimpleNamespace(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9), frame_id=frame_id)


def _pair(size: tuple[int, int], ratio: float, number: int) -> PairMessages:
    """Messages of a scene of slanted planes before a wall, with holes, noise and its own colours."""
    random = np.random.default_rng(number)
    height, width = (max(1, round(length / ratio)) for length in size)
    y, x = np.mgrid[:height, :width] / (height, width)[0]
    depth, color = 3 + 0.5 * x, np.full((*size, 3), 120, np.uint8)
    rows, cols = (np.arange(length) * count // length for length, count in zip(size, (height, width), strict=True))
    for _ in range(12):
        center, radius = random.uniform(0, 1, 2) * (1, width / height), random.uniform(0.05, 0.25)
        inside = np.abs(y - center[0]) + np.abs(x - center[1]) < radius
        depth = np.where(inside, random.uniform(0.8, 2.5) + random.uniform(-1, 1) * (x - center[1]), depth)
        color[inside[rows][:, cols]] = random.integers(0, 256, 3)
    depth = depth + random.normal(0, 0.002, depth.shape) * depth**2
    depth[random.random(depth.shape) < 0.05] = 0
    stamp = 10**9 + number * 33_000_000
    image = lambda data, encoding: SimpleNamespace(  # noqa: E731
        header=_header(stamp, "camera"), height=data.shape[0], width=data.shape[1], encoding=encoding,
        step=data.strides[0], is_bigendian=0, data=data.tobytes(),
    )  # fmt: skip
    return PairMessages(
        image(color, "rgb8"), image((1000 * depth).astype(np.uint16), "16UC1"), _info(size, stamp), None
    )


def _info(size: tuple[int, int], stamp: int) -> Any:
    """Of a pinhole camera, 58 degrees wide."""
    focal, cx, cy = 0.9 * size[1], (size[1] - 1) / 2, (size[0] - 1) / 2
    return SimpleNamespace(
        header=_header(stamp, "camera"), height=size[0], width=size[1], distortion_model="plumb_bob", d=[0.0] * 5,
        k=[focal, 0.0, cx, 0.0, focal, cy, 0.0, 0.0, 1.0], r=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
        p=[focal, 0.0, cx, 0.0, 0.0, focal, cy, 0.0, 0.0, 0.0, 1.0, 0.0], binning_x=0, binning_y=0,
        roi=SimpleNamespace(x_offset=0, y_offset=0, height=0, width=0, do_rectify=False),
    )  # fmt: skip


def _quantiles(seconds: Sequence[float]) -> dict[str, float]:
    return {name: round(1000 * float(np.percentile(seconds, q)), 2) for name, q in (("p50", 50), ("p99", 99))}


def device_name(device: torch.device) -> str:
    """The GPU's or CPU's name, for people."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "CPU"
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    flags = {word for line in lines if line.startswith("flags") for word in line.split()}
    abilities = [name for flag, name in (("avx2", "AVX2"), ("avx512f", "AVX512"), ("avx_vnni", "VNNI"), ("avx512_vnni", "VNNI"),
                                         ("amx_tile", "AMX")) if flag in flags]  # fmt: skip
    return f"{names[0] if names else 'CPU'} ({', '.join(dict.fromkeys(abilities)) or 'no vector units known'})"


def table(times: Sequence[FrameTimes]) -> str:
    """The figures for people: one column per network and size."""
    first = times[0]
    rows: list[list[str]] = [["", *(f"{Path(t.weights).stem.removeprefix('d2a2-')} {t.size}" for t in times)]]
    rows.append(["computed by", *(f"{t.runtime} {t.precision}" for t in times)])
    for name in STAGES:
        if any(name in t.stages for t in times):
            cells = [t.stages.get(name) for t in times]
            rows.append([name, *("-" if c is None else f"{c['p50']:.1f} / {c['p99']:.1f}" for c in cells)])
    rows.append(["whole frame", *(f"{t.p50:.1f} / {t.p99:.1f}" for t in times)])
    rows.append(["beside the network", *(f"{t.beside_network:.1f}" for t in times)])
    rows.append(["frames per second", *(f"{1000 / t.p50:.2f}" for t in times)])
    rows.append(["first frame", *(f"{t.first_frame:.0f}" for t in times)])
    rows.append(["peak process memory", *(f"{t.peak_memory_mb} MB" for t in times)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(times) + 1)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([f"{first.device}, {first.threads} threads; median / p99 in ms of {first.frames} frames", *lines])


def as_json(times: Sequence[FrameTimes]) -> list[dict[str, Any]]:
    """The figures for programs."""
    return [asdict(t) | {"beside_network": round(t.beside_network, 2)} for t in times]
