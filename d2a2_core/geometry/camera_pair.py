"""One colour and one depth image, with what is known of their cameras."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from d2a2_core.depth.validity import check_images
from d2a2_core.geometry.camera import Camera
from d2a2_core.geometry.extrinsics import Extrinsics


@dataclass(frozen=True, eq=False)
class CameraPair:
    """A pair as the cameras gave it.

    Attributes:
        color: (H, W, 3) uint8 RGB.
        depth: (h, w) float metres along z; NaN, 0, negative and infinite values are invalid.
        color_camera: Camera of exactly the colour image, None where unknown.
        depth_camera: Camera of exactly the depth image, None where unknown.
        extrinsics: Depth camera -> colour camera, None where unknown.
        color_frame: frame_id of the colour image.
        depth_frame: frame_id of the depth image; the same one means that depth is in the colour camera's place already.
        depth_topic: Topic of the depth image, whose name may say that depth is registered; empty where there is none.
        color_rectified, depth_rectified: Whether a lens distortion is known to have been taken out of the image.
        color_problem, depth_problem: Why there is no camera, for people.

    Raises:
        ValueError: Arrays of another shape or type.
    """

    color: np.ndarray
    depth: np.ndarray
    color_camera: Camera | None = None
    depth_camera: Camera | None = None
    extrinsics: Extrinsics | None = None
    color_frame: str = ""
    depth_frame: str = ""
    depth_topic: str = ""
    color_rectified: bool = False
    depth_rectified: bool = False
    color_problem: str = ""
    depth_problem: str = ""

    def __post_init__(self) -> None:
        check_images(self.color, self.depth)
