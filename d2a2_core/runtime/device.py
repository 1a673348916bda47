"""Where a network is computed, and in which precision: what a user may choose, and what the hardware supports."""

from __future__ import annotations

from pathlib import Path

import torch

PRECISIONS = ("float32", "float16", "bfloat16", "int8")
_CUDA_WITH_BFLOAT16 = (8, 0)  # compute capability, Ampere


def resolve_device(device: str) -> torch.device:
    """The torch device of a user's choice: "auto" (the GPU where there is one), "cpu", "cuda" or "cuda:N".

    Raises:
        ValueError: unknown name, or a GPU where there is none.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device {device!r} is unknown; use 'auto', 'cpu', 'cuda' or 'cuda:N'") from error
    if resolved.type not in ("cpu", "cuda", "mps"):
        raise ValueError(f"device {device!r} cannot run the network; use 'auto', 'cpu', 'cuda' or 'cuda:N'")
    if resolved.type == "cuda" and (resolved.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device {device!r} was asked for, but torch finds {torch.cuda.device_count()} GPUs; use 'auto' or 'cpu'"
        )
    return resolved


def precisions_to_try(precision: str, device: torch.device) -> tuple[str, ...]:
    """The precisions of a user's choice on a device, best first; the first that a runtime can compute in is taken.

    Raises:
        ValueError: unknown name.
    """
    if precision in PRECISIONS:
        return (precision,)
    if precision != "auto":
        raise ValueError(f"precision must be 'auto' or one of {sorted(PRECISIONS)}, got {precision!r}")
    # bfloat16 before float16: a few values far from all others, in front of a flat wall, exceed float16's range within the
    # network.
    half = ("bfloat16",) if has_bfloat16(device) else ("float16",) if device.type == "cuda" else ()
    return ("int8", *half, "float32")


def has_bfloat16(device: torch.device) -> bool:
    """Whether a GPU or CPU multiplies in bfloat16 itself; others emulate it, which is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= _CUDA_WITH_BFLOAT16
    if device.type != "cpu":
        return False
    checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(check is not None and check() for check in checks)


def sums_int8_exactly() -> bool:
    """Whether this computer's CPU sums products of int8 into 32 bits (VNNI: Intel since 2019, AMD since Zen 4).

    Others sum two of them into 16 bits, which overflow when both are large.
    """
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return False
    return not {"avx512_vnni", "avx_vnni"}.isdisjoint(flags)
