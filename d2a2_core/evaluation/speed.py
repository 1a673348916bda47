"""How long a frame takes and how much memory: warm-up, synchronisation, median and 95th percentile."""

from __future__ import annotations

import resource
import time

import numpy as np
import torch

from d2a2_core.upsampler import DepthUpsampler


def benchmark_upsampler(
    weights: str,
    size: tuple[int, int],
    ratio: float,
    frames: int = 10,
    device: str = "auto",
    precision: str = "auto",
    threads: int = 0,
) -> str:
    """Times :meth:`DepthUpsampler.upsample` on random pairs, arrays in and arrays out.

    Args:
        size: (H, W) of the colour image.
        ratio: H / h, at least 1.
        frames: timed runs, after two that are not.
        threads: of torch on the CPU; 0 leaves its default.

    Returns:
        A table: device, scale, median and p95 in ms, frames per second, peak memory.
    """
    if threads:
        torch.set_num_threads(threads)
    upsampler = DepthUpsampler.from_pretrained(weights, device, precision)
    rng = np.random.default_rng(0)
    color = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    depth = rng.uniform(1, 3, tuple(max(1, round(v / ratio)) for v in size)).astype(np.float32)
    depth[rng.random(depth.shape) < 0.05] = np.nan
    cuda = upsampler.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(upsampler.device)
    seconds = []
    for _ in range(frames + 2):
        started = time.perf_counter()
        scale = upsampler.upsample(color, depth).scale  # arrays come back, so a GPU has finished
        seconds.append(time.perf_counter() - started)
    median, high = np.percentile(seconds[2:], (50, 95))
    name = torch.cuda.get_device_name(upsampler.device) if cuda else f"CPU, {torch.get_num_threads()} threads"
    rows = {
        "device": f"{name} ({upsampler.precision})",
        "colour / depth": f"{size[1]}x{size[0]} / {depth.shape[1]}x{depth.shape[0]} (x{scale})",
        "median / p95 [ms]": f"{1000 * median:.1f} / {1000 * high:.1f}",
        "frames per second": f"{1 / median:.2f}",
        "peak process memory [MB]": f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f}",
    }
    if cuda:
        rows["peak GPU memory [MB]"] = f"{torch.cuda.max_memory_allocated(upsampler.device) / 2**20:.0f}"
    return "\n".join(f"{key:<26}{value}" for key, value in rows.items())
