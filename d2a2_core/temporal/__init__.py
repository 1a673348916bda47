"""Depth over time: what the frames before have shown."""
