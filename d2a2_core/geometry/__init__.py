"""Cameras, registration and point clouds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from d2a2_core.lazy import lazy_names

if TYPE_CHECKING:
    from d2a2_core.geometry.camera import Camera
    from d2a2_core.geometry.camera_pair import CameraPair
    from d2a2_core.geometry.cloud import back_project, write_ply
    from d2a2_core.geometry.edge_offset import EdgeOffset, Offset
    from d2a2_core.geometry.extrinsics import Extrinsics
    from d2a2_core.geometry.registration import Registration

__all__ = [
    "Camera",
    "CameraPair",
    "EdgeOffset",
    "Extrinsics",
    "Offset",
    "Registration",
    "back_project",
    "write_ply",
]

# What needs no tensors (cameras, units) must not wait for PyTorch.
__getattr__ = lazy_names(
    __name__,
    {
        "Camera": "camera",
        "CameraPair": "camera_pair",
        "EdgeOffset": "edge_offset",
        "Extrinsics": "extrinsics",
        "Offset": "edge_offset",
        "Registration": "registration",
        "back_project": "cloud",
        "write_ply": "cloud",
    },
)
