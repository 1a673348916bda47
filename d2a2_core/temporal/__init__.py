"""Depth over time: each frame's result fused with what the frames before have shown."""

from d2a2_core.temporal.stabiliser import MODES, Stabilised, Stabiliser, StabiliserSettings

__all__ = ["MODES", "Stabilised", "Stabiliser", "StabiliserSettings"]
