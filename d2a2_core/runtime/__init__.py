"""Runtimes: what computes a network, where, and in which precision. A new one is a new file and an entry in ``choose.KINDS``."""

from d2a2_core.runtime.base import EagerGraph, Graph, ModelRuntime, Runtime
from d2a2_core.runtime.choose import RUNTIMES, choose_runtime, open_runtime
from d2a2_core.runtime.device import PRECISIONS, has_bfloat16, resolve_device

__all__ = [
    "PRECISIONS",
    "RUNTIMES",
    "EagerGraph",
    "Graph",
    "ModelRuntime",
    "Runtime",
    "choose_runtime",
    "has_bfloat16",
    "open_runtime",
    "resolve_device",
]
