"""What a camera info says of an image as it really came: its camera, or why there is none, and what is doubtful about it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from d2a2_core.depth.lr_grid import MAX_SHAPE_DIFFERENCE, SAME_SHAPE, shape_difference
from d2a2_core.geometry.camera import Camera, skew_doubt
from d2a2_core.messages.camera_info import (
    camera_from_info,
    has_distortion,
    is_rectified,
    rectified_info,
    resized_info,
    shows_region,
    with_usable_k,
)


@dataclass(frozen=True)
class ImageView:
    """What a camera info says of an image.

    Attributes:
        info: The info for the image as it came; None without one.
        camera: Its camera; None where the info does not give one.
        rectified: Whether the image comes without the distortion of the info that was sent.
        problem: Why there is no camera, for people.
        doubts: Code and message of what a person should look at, the problem included unless no info came.
    """

    info: Any | None = None
    camera: Camera | None = None
    rectified: bool = False
    problem: str = ""
    doubts: tuple[tuple[str, str], ...] = ()


def image_view(
    which: str, info: Any | None, size: tuple[int, ...], header: Any, topic: str, rectified_input: str
) -> ImageView:
    """Reads what ``info`` says of an image of ``size`` (H, W).

    Args:
        which: "color" or "depth".
        info: CameraInfo, or anything with its fields; None where none came.
        header: Of the image; the info returned has it.
        topic: Of the image.
        rectified_input: One of :data:`d2a2_core.messages.camera_info.RECTIFIED_INPUTS`.
    """
    if info is None:
        return ImageView(problem="none came")
    frame, (height, width) = info.header.frame_id, size
    rectified = is_rectified(rectified_input, which, topic) and has_distortion(info)
    if rectified:
        try:
            info = rectified_info(info)
        except ValueError as error:
            return _unusable(f"{which}_info_rectified", f"camera info for {topic} is not used: it {error}")
    doubts = []
    if not (info.width and info.height):
        info = copy.deepcopy(info)
        info.width, info.height = width, height
        doubts.append((
            f"{which}_info_size",
            f"camera info of '{frame}' has no size; it is taken as for {width}x{height} pixels, those of its image",
        ))  # fmt: skip
    whole = not shows_region(info, width, height)
    if whole and _unlike_region(info, width, height):
        roi = info.roi
        doubts.append((
            f"{which}_info_roi",
            f"camera info of '{frame}' is for {info.width}x{info.height} with a region of interest of {roi.width}x{roi.height} "
            f"(binning {info.binning_x}x{info.binning_y}), its image has {width}x{height}, which is neither: it is taken as the "
            "whole, resized; if it is the region, the calibration is wrong",
        ))  # fmt: skip
    stretched = shape_difference(size, (info.height, info.width)) if whole else 1.0
    shapes = f"camera info of '{frame}' is for {info.width}x{info.height}, its image has {width}x{height}"
    info, assumed = with_usable_k(info)
    if assumed:
        doubts.append((f"{which}_info_k", f"camera info of '{frame}': {assumed}"))
    declared, info = info, resized_info(info, width, height, header)
    try:
        camera = camera_from_info(info)
    except ValueError as error:
        return _unusable(f"{which}_info", f"camera info of '{frame}': {error}", info)
    oblong = max(camera.fx / camera.fy, camera.fy / camera.fx)
    if stretched >= MAX_SHAPE_DIFFERENCE and oblong >= MAX_SHAPE_DIFFERENCE:
        return _unusable(f"{which}_info_shape", f"{shapes}, which is turned or cut: the calibration is not used")
    if stretched > SAME_SHAPE:
        doubts.append((
            f"{which}_info_shape",
            f"{shapes}: it is stretched to that; if the driver cuts the image, the calibration is wrong",
        ))  # fmt: skip
    doubts += _camera_doubts(which, declared, camera, whole)
    return ImageView(info, camera, rectified, doubts=tuple(doubts))


def _unusable(code: str, message: str, info: Any | None = None) -> ImageView:
    return ImageView(info, problem=message, doubts=((code, message),))


def _camera_doubts(which: str, info: Any, camera: Camera, whole: bool) -> Iterator[tuple[str, str]]:
    """What is doubtful about the camera that was made of ``info``; ``whole``: the image is not cut."""
    said = f"camera info of '{info.header.frame_id}'"
    # Of an image that is cut, the principal point lies anywhere.
    if whole and (centre := camera.resized(info.width, info.height).doubt()):
        yield f"{which}_info_centre", f"{said}: {centre}"
    if skew := skew_doubt(info.k, info.height):
        yield f"{which}_info_skew", f"{said}: {skew}"
    if not camera.distorted and any(info.d):
        yield (
            f"{which}_distortion",
            f"{said} has distortion coefficients, which are not used: its model is {info.distortion_model!r}",
        )
    if camera.distorted and not info.distortion_model:
        yield (
            f"{which}_distortion",
            f"{said} has {len(info.d)} distortion coefficients without a model's name; they are taken as those of {camera.model}",
        )


def _unlike_region(info: Any, width: int, height: int) -> bool:
    """Whether ``info`` has a region of interest although the image is neither that nor, binned, the whole."""
    roi = info.roi
    partial = 0 < roi.width < info.width or 0 < roi.height < info.height
    binned = info.width // max(info.binning_x, 1), info.height // max(info.binning_y, 1)
    return partial and (width, height) not in (binned, (info.width, info.height))
