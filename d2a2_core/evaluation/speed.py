"""How long a step of training takes, and how much memory."""

from __future__ import annotations

import resource
import time

import numpy as np
import torch

from d2a2_core.evaluation.frame_speed import device_name
from d2a2_core.network import build_model
from d2a2_core.runtime import resolve_device
from d2a2_core.training.losses import reconstruction_loss


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
        "device": f"{device_name(target)} ({precision})",
        "training step": f"{model['model']}, x{scale}, batch {batch_size}, crop {crop}",
        "seconds per step": f"{median:.3f}",
        "images per second": f"{batch_size / median:.2f}",
    }
    return _table(rows | _memory(target))


def _memory(device: torch.device) -> dict[str, str]:
    rows = {"peak process memory [MB]": f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f}"}
    if device.type == "cuda":
        rows["peak GPU memory [MB]"] = f"{torch.cuda.max_memory_allocated(device) / 2**20:.0f}"
    return rows


def _table(rows: dict[str, str]) -> str:
    return "\n".join(f"{key:<26}{value}" for key, value in rows.items())
