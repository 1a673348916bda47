"""Cameras and point clouds."""

from d2a2_core.geometry.camera import Camera
from d2a2_core.geometry.cloud import back_project, write_ply

__all__ = ["Camera", "back_project", "write_ply"]
