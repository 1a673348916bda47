"""The D2A2 network (arXiv 2401.08123), its compact variants and its ablations."""

from d2a2_core.network.d2a2 import D2A2, SCALES, takes_trust
from d2a2_core.network.ensemble import VIEWS, check_views, run_views
from d2a2_core.network.lite import D2A2Lite
from d2a2_core.network.pico import D2A2Pico
from d2a2_core.network.registry import build_model, build_outline

__all__ = [
    "D2A2",
    "SCALES",
    "VIEWS",
    "D2A2Lite",
    "D2A2Pico",
    "build_model",
    "build_outline",
    "check_views",
    "run_views",
    "takes_trust",
]
