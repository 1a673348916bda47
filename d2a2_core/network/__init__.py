"""The D2A2 network (arXiv 2401.08123), its compact variant and its ablations."""

from d2a2_core.network.d2a2 import D2A2, SCALES, takes_trust
from d2a2_core.network.variants import D2A2Lite, build_model

__all__ = ["D2A2", "SCALES", "D2A2Lite", "build_model", "takes_trust"]
