"""RGB-guided depth super-resolution with D2A2: network, training, evaluation and inference. Free of ROS."""

from __future__ import annotations

from typing import TYPE_CHECKING

from d2a2_core.lazy import lazy_names

if TYPE_CHECKING:
    from d2a2_core.depth.provenance import Provenance
    from d2a2_core.network import D2A2, D2A2Lite, D2A2Pico
    from d2a2_core.upsampler import DepthUpsampler, UpsampledDepth
    from d2a2_core.weights import WeightsError, load_official_checkpoint

__version__ = "0.2.0"

__all__ = [
    "D2A2",
    "D2A2Lite",
    "D2A2Pico",
    "DepthUpsampler",
    "Provenance",
    "UpsampledDepth",
    "WeightsError",
    "load_official_checkpoint",
]

# `d2a2 --help` must not wait for PyTorch.
__getattr__ = lazy_names(
    __name__,
    {
        "D2A2": "network",
        "D2A2Lite": "network",
        "D2A2Pico": "network",
        "DepthUpsampler": "upsampler",
        "Provenance": "depth.provenance",
        "UpsampledDepth": "upsampler",
        "WeightsError": "weights",
        "load_official_checkpoint": "weights",
    },
)
