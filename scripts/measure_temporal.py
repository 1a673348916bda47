#!/usr/bin/env python3
"""Measures what the temporal stabiliser does to sequences made by `d2a2 generate --scenes sequences`.

    scripts/measure_temporal.py data/sequences/* [--weights d2a2-nano-sensor] [--time 640x480]

Prints one row of figures per sequence (frame by frame -> stabilised; see :mod:`d2a2_core.evaluation.stability`).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from d2a2_core.evaluation.stability import figures, read_shots, stabilised
from d2a2_core.geometry import Camera
from d2a2_core.pipeline import DepthPipeline
from d2a2_core.temporal import Stabiliser, StabiliserSettings


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sequences", nargs="*", type=Path, help="folders of single sequences")
    parser.add_argument("--weights", default="d2a2-nano-sensor")
    parser.add_argument("--memory-frames", type=float, default=StabiliserSettings.memory_frames)
    parser.add_argument("--time", metavar="WIDTHxHEIGHT", help="also time frames of that size")
    options = parser.parse_args()
    pipeline = DepthPipeline.from_pretrained(options.weights, "cpu") if options.sequences else None
    for folder in options.sequences:
        shots = read_shots(folder, pipeline)
        still = all(np.array_equal(shot.pose, shots[0].pose) for shot in shots)
        settings = StabiliserSettings("still" if still else "moving", memory_frames=options.memory_frames)
        before, after = figures(shots), figures(stabilised(shots, settings))
        print(f"{folder} ({settings.temporal})")
        for name, value in before.items():
            ratio = f"{after[name] / value:6.2f}" if value else ""
            print(f"  {name:15s}{value:10.3f} -> {after[name]:10.3f}  {ratio}")
    if options.time:
        width, height = (int(length) for length in options.time.split("x"))
        for mode in ("still", "moving"):
            for holes in (0.0, 0.02):
                milliseconds = 1e3 * seconds_per_frame(mode, width, height, holes)
                print(f"{mode}, {100 * holes:g} % holes: {milliseconds:.1f} ms a frame at {width}x{height}")


def seconds_per_frame(mode: str, width: int, height: int, holes: float, count: int = 20) -> float:
    """Median time of a frame: a wavy wall with a box before it, noise, and a camera that moves sideways in "moving"."""
    rng = np.random.default_rng(0)
    camera = Camera(width, height, 0.8 * width, 0.8 * width, (width - 1) / 2, (height - 1) / 2)
    depth = np.tile(2 + 0.1 * np.sin(np.arange(width) / 50), (height, 1))
    depth[height // 4 : height // 2, width // 3 : width // 2] = 1.0
    sigma, provenance = np.full(depth.shape, 0.007, np.float32), np.ones(depth.shape, np.uint8)
    stabiliser = Stabiliser(StabiliserSettings(mode))
    times = []
    for number in range(count):
        frame = (depth + 0.004 * rng.standard_normal(depth.shape)).astype(np.float32)
        frame[rng.random(depth.shape) < holes] = np.nan
        pose = np.eye(4)
        pose[0, 3] = 0.001 * number
        started = time.perf_counter()
        stabiliser.process(frame, sigma, provenance, camera, number * 33_000_000, pose)
        times.append(time.perf_counter() - started)
    return float(np.median(times[3:]))


if __name__ == "__main__":
    main()
