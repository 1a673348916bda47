"""Cameras and point clouds."""

from d2a2_core.geometry.camera import Camera
from d2a2_core.geometry.camera_pair import CameraPair
from d2a2_core.geometry.cloud import back_project, write_ply
from d2a2_core.geometry.edge_offset import EdgeOffset, Offset
from d2a2_core.geometry.extrinsics import Extrinsics
from d2a2_core.geometry.registration import Registration

__all__ = ["Camera", "CameraPair", "EdgeOffset", "Extrinsics", "Offset", "Registration", "back_project", "write_ply"]
