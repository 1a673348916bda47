"""RGB-guided depth super-resolution with D2A2: network, training, evaluation and inference. Free of ROS."""

from d2a2_core.network import D2A2, D2A2Lite
from d2a2_core.provenance import Provenance
from d2a2_core.upsampler import DepthUpsampler, UpsampledDepth
from d2a2_core.weights import WeightsError, load_official_checkpoint

__version__ = "0.1.0"

__all__ = [
    "D2A2",
    "D2A2Lite",
    "DepthUpsampler",
    "Provenance",
    "UpsampledDepth",
    "WeightsError",
    "load_official_checkpoint",
]
