"""How long a frame takes and how much memory: warm-up, synchronisation, median and 95th percentile."""

from __future__ import annotations

import resource
import time

import numpy as np
import torch

from d2a2_core.network import build_model
from d2a2_core.runtime import resolve_device
from d2a2_core.training.losses import reconstruction_loss
from d2a2_core.upsampler import DepthUpsampler


def benchmark_upsampler(
    weights: str,
    size: tuple[int, int],
    ratio: float,
    frames: int = 10,
    device: str = "auto",
    precision: str = "auto",
    threads: int = 0,
    ensemble: int = 1,
    runtime: str = "auto",
) -> str:
    """Times :meth:`DepthUpsampler.upsample` on random pairs, arrays in and arrays out.

    Args:
        size: (H, W) of the colour image.
        ratio: H / h, at least 1.
        frames: timed runs, after two that are not.
        threads: of torch on the CPU; 0 leaves its default.
        ensemble, runtime: see :meth:`DepthUpsampler.from_pretrained`.

    Returns:
        A table: device, scale, median and p95 in ms, frames per second, peak memory.
    """
    if threads:
        torch.set_num_threads(threads)
    upsampler = DepthUpsampler.from_pretrained(weights, device, precision, ensemble=ensemble, runtime=runtime)
    rng = np.random.default_rng(0)
    color = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    depth = rng.uniform(1, 3, tuple(max(1, round(v / ratio)) for v in size)).astype(np.float32)
    depth[rng.random(depth.shape) < 0.05] = np.nan
    if upsampler.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(upsampler.device)
    seconds = []
    for _ in range(frames + 2):
        started = time.perf_counter()
        scale = upsampler.upsample(color, depth).scale  # arrays come back, so a GPU has finished
        seconds.append(time.perf_counter() - started)
    median, high = np.percentile(seconds[2:], (50, 95))
    rows = {
        "device": f"{_device_name(upsampler.device)} ({upsampler.precision}, {upsampler.runtime})",
        "colour / depth": f"{size[1]}x{size[0]} / {depth.shape[1]}x{depth.shape[0]} (x{scale})",
        "median / p95 [ms]": f"{1000 * median:.1f} / {1000 * high:.1f}",
        "frames per second": f"{1 / median:.2f}",
    }
    return _table(rows | _memory(upsampler.device))


def benchmark_training(
    model: dict, crop: int = 256, batch_size: int = 4, steps: int = 5, device: str = "auto", precision: str = "float32"
) -> str:
    """Times whole training steps (forward, L1, backward, Adam) on random batches that lie ready in memory.

    Args:
        model: configuration as :func:`d2a2_core.network.build_model` takes it.
        precision: "float32", "tf32" (float32 with TF32 matrix units, on a GPU), "bf16" or "fp16".

    Returns:
        A table: seconds per step (median), images per second, peak memory.
    """
    precision = {"bfloat16": "bf16", "float16": "fp16"}.get(precision, precision)
    if precision not in ("float32", "tf32", "bf16", "fp16"):
        raise ValueError(f"precision of training must be float32, tf32, bf16 or fp16, got {precision!r}")
    target = resolve_device(device)
    network = build_model(model).to(target, memory_format=torch.channels_last).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    scaler = torch.amp.GradScaler(target.type, enabled=precision == "fp16")
    scale = network.scales[0]
    guide = torch.rand(batch_size, 3, crop, crop, device=target)
    lr, hr = (torch.rand(batch_size, 1, n, n, device=target) for n in (crop // scale, crop))
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    seconds = []
    try:
        for _ in range(steps + 1):
            started = time.perf_counter()
            with torch.autocast(target.type, dtype=dtype, enabled=dtype is not None):
                prediction = network(guide, lr)
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(reconstruction_loss(prediction.float(), hr)).backward()
            scaler.step(optimizer)
            scaler.update()
            if target.type == "cuda":
                torch.cuda.synchronize(target)
            seconds.append(time.perf_counter() - started)
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]
    median = float(np.median(seconds[1:]))
    rows = {
        "device": f"{_device_name(target)} ({precision})",
        "training step": f"{model['model']}, x{scale}, batch {batch_size}, crop {crop}",
        "seconds per step": f"{median:.3f}",
        "images per second": f"{batch_size / median:.2f}",
    }
    return _table(rows | _memory(target))


def _device_name(device: torch.device) -> str:
    cuda = device.type == "cuda"
    return torch.cuda.get_device_name(device) if cuda else f"CPU, {torch.get_num_threads()} threads"


def _memory(device: torch.device) -> dict[str, str]:
    rows = {"peak process memory [MB]": f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f}"}
    if device.type == "cuda":
        rows["peak GPU memory [MB]"] = f"{torch.cuda.max_memory_allocated(device) / 2**20:.0f}"
    return rows


def _table(rows: dict[str, str]) -> str:
    return "\n".join(f"{key:<26}{value}" for key, value in rows.items())
