"""The one deformable convolution of the project, with two interchangeable backends.

Convention: offsets are laid out as in ``torchvision.ops.deform_conv2d``: for every offset group and every tap of the
kernel (row by row) first dy, then dx, in pixels. Pixel centres are at integers; samples outside the image are zero, and
a sample less than one pixel outside is blended with that zero.
"""

from __future__ import annotations

import importlib.util
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BACKENDS = ("auto", "native", "torchvision")
_MAX_SAMPLES = 2**26  # of one pass of the native backend: 256 MB in float32
_LARGEST_LOGIT = 4.0  # of a bounded convolution's mask, which stays within 0.018 and 0.982


@cache
def available_backends() -> tuple[str, ...]:
    """Returns the names of the backends that can run here."""
    if importlib.util.find_spec("torchvision") is None:
        return ("native",)
    try:
        from torchvision.ops import deform_conv2d  # noqa: F401
    except (ImportError, RuntimeError):
        # A torchvision built for another torch fails while it registers its operators.
        return ("native",)
    return ("native", "torchvision")


def resolve_backend(backend: str, device: str = "cpu") -> str:
    """Returns the backend to use on a type of device; refuses unknown or missing ones.

    "auto" is native on a CPU, where torchvision takes 1.7 times as long (C = 64, 160x120, 8 groups, one thread: 334 ms against
    194 ms; with the backward pass four times), and torchvision elsewhere, if it imports.

    Raises:
        ValueError: Unknown name.
        RuntimeError: torchvision was asked for, but it does not import here.
    """
    if backend not in BACKENDS:
        raise ValueError(f"deformable convolution backend must be one of {BACKENDS}, got {backend!r}")
    # Whether torchvision is there is only known once it is imported, which takes three seconds: not where it is not used.
    if backend == "native" or (backend == "auto" and device == "cpu"):
        return "native"
    available = available_backends()
    if backend == "auto":
        return "torchvision" if "torchvision" in available else "native"
    if backend not in available:
        raise RuntimeError(
            "backend 'torchvision' was asked for, but torchvision does not import; use 'native' or 'auto'"
        )
    return backend


def deform_conv2d(
    x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor | None = None, backend: str = "auto"
) -> Tensor:
    """Modulated deformable convolution (Zhu et al., "Deformable ConvNets v2", 2019), stride 1, "same" padding.

    Args:
        x: (B, C, H, W) features to sample.
        offset: (B, 2 * G * K, H, W) pixels, K = kh * kw taps; per group, per tap dy then dx.
        mask: (B, G * K, H, W) weights of the samples, in [0, 1].
        weight: (Cout, C, kh, kw) with odd kh and kw, one weight group.
        bias: (Cout,) or None.
        backend: "auto", "native" or "torchvision".

    Returns:
        (B, Cout, H, W).
    """
    kh, kw = weight.shape[-2:]
    taps = kh * kw
    if mask.shape[1] % taps or offset.shape[1] != 2 * mask.shape[1]:
        raise ValueError(
            f"expected offset with 2*G*{taps} and mask with G*{taps} channels, got {offset.shape[1]} and {mask.shape[1]}"
        )
    groups = mask.shape[1] // taps
    if x.shape[1] % groups:
        raise ValueError(f"{x.shape[1]} channels cannot be split into {groups} offset groups")
    if resolve_backend(backend, x.device.type) == "torchvision":
        from torchvision.ops import deform_conv2d as torchvision_deform_conv2d

        return torchvision_deform_conv2d(x, offset, weight, bias, padding=(kh // 2, kw // 2), mask=mask)
    return _native(x, offset, mask, weight, bias, groups)


def _native(x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
    b, c, h, w = x.shape
    # In bands of rows: all samples of a 720p image at once would take gigabytes.
    band = max(1, _MAX_SAMPLES // (b * c * weight.shape[-2] * weight.shape[-1] * w))
    parts = [
        _rows(x, offset[:, :, i : i + band], mask[:, :, i : i + band], weight, groups, i) for i in range(0, h, band)
    ]
    out = torch.cat(parts, dim=2)
    return out if bias is None else out + bias.to(out.dtype).view(1, -1, 1, 1)


def _rows(x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, groups: int, top: int) -> Tensor:
    """Rows ``top``... of the result, as many as ``offset`` and ``mask`` have."""
    b, c, h, w = x.shape
    n = offset.shape[2]
    kh, kw = weight.shape[-2:]
    taps = kh * kw
    # Where each tap samples, in pixels: own position + position in the kernel + offset.
    offset = offset.reshape(b * groups, taps, 2, n, w)
    dtype = torch.float32 if offset.dtype in (torch.float16, torch.bfloat16) else offset.dtype
    rows = torch.arange(top, top + n, device=x.device, dtype=dtype).view(1, 1, n, 1)
    cols = torch.arange(w, device=x.device, dtype=dtype).view(1, 1, 1, w)
    tap = torch.arange(taps, device=x.device)
    tap_y = (torch.div(tap, kw, rounding_mode="floor") - kh // 2).to(dtype).view(1, taps, 1, 1)
    tap_x = (tap % kw - kw // 2).to(dtype).view(1, taps, 1, 1)
    y = rows + tap_y + offset[:, :, 0]
    x_ = cols + tap_x + offset[:, :, 1]
    # grid_sample without align_corners maps [-1, 1] to the outer pixel borders: pixel p is at (2 p + 1) / size - 1.
    grid = torch.stack(((2 * x_ + 1) / w - 1, (2 * y + 1) / h - 1), dim=-1).reshape(b * groups, taps * n, w, 2)
    # Half precision would round the grid, which spans the image, by up to pixels: sampling stays in the grid's type.
    sampled = F.grid_sample(
        x.reshape(b * groups, c // groups, h, w).to(dtype),
        grid.to(dtype),
        mode="bilinear",
        padding_mode="zeros",
        align_corners=False,
    ).to(x.dtype)
    sampled = sampled.view(b, groups, c // groups, taps, n * w) * mask.reshape(b, groups, 1, taps, n * w).to(x.dtype)
    columns = sampled.reshape(b, c * taps, n * w)
    return torch.matmul(weight.reshape(weight.shape[0], c * taps).to(columns.dtype), columns).view(b, -1, n, w)


class ModulatedDeformConv(nn.Module):
    """3x3 deformable convolution whose offsets and mask are predicted from separate features (DGA, eq. 2).

    The predictor starts at zero: at first the module samples the regular grid with all masks at one half.

    Args:
        channels: C, of input, offset features and output.
        groups: offset groups; must divide C.
        backend: see :func:`deform_conv2d`.
    """

    def __init__(self, channels: int, groups: int = 8, backend: str = "auto") -> None:
        super().__init__()
        if channels % groups:
            raise ValueError(f"channels ({channels}) must be divisible by offset groups ({groups})")
        self.groups = groups
        # Refuses what is not available before any work is done.
        resolve_backend(backend)
        self.backend = backend
        conv = nn.Conv2d(channels, channels, 3)  # holds the kernel; its default initialisation is the one wanted
        self.weight = conv.weight
        self.bias = nn.Parameter(torch.zeros(channels))
        self.predict = nn.Conv2d(channels, 27 * groups, 3, padding=1)
        nn.init.zeros_(self.predict.weight)
        nn.init.zeros_(self.predict.bias)

    def forward(self, x: Tensor, offset_features: Tensor) -> Tensor:
        """``x``, ``offset_features``: (B, C, H, W). Returns (B, C, H, W)."""
        prediction = self.predict(offset_features)
        offset, logits = prediction.split((18 * self.groups, 9 * self.groups), dim=1)
        return deform_conv2d(x, offset, torch.sigmoid(logits), self.weight, self.bias, self.backend)


class BoundedDeformConv(ModulatedDeformConv):
    """A deformable convolution that training can bring back from wherever it has gone.

    Unbounded ones were lost: offsets had grown until all samples lay outside the image, masks had shrunk to 1e-38, and no
    gradient came through them any more. (What did come was so small that a CPU took three times as long for a step.)

    Args:
        channels, groups, backend: as :class:`ModulatedDeformConv`'s.
        reach: limit of the offsets, in pixels of the features.
    """

    def __init__(self, channels: int, groups: int, reach: float, backend: str = "auto") -> None:
        super().__init__(channels, groups, backend)
        self.reach = reach

    def forward(self, x: Tensor, offset_features: Tensor) -> Tensor:
        """``x``, ``offset_features``: (B, C, H, W). Returns (B, C, H, W)."""
        prediction = self.predict(offset_features).float()  # positions are not for half precision
        offset, logits = prediction.split((18 * self.groups, 9 * self.groups), dim=1)
        offset, logits = _limited(offset, self.reach), _limited(logits, _LARGEST_LOGIT)
        return deform_conv2d(x, offset, torch.sigmoid(logits), self.weight, self.bias, self.backend)


def _limited(x: Tensor, limit: float) -> Tensor:
    """x within (-limit, limit), with a slope of 1 at 0 that falls as 1 / x^2: a tanh's is soon none at all."""
    return x / (1 + x.abs() / limit)
