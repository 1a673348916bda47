"""The two images of each pair of a stream: sizes are checked first, then pixels are decoded, and what changes is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import numpy as np
import torch

from d2a2_core.depth import StableRange
from d2a2_core.depth.lr_grid import MAX_SPREAD, MIN_RATIO
from d2a2_core.errors import CodedError
from d2a2_core.images import GREY_MIN_SPAN, GREY_QUANTILE, grey_sample, grey_to_rgb
from d2a2_core.messages.encodings import FrameError, ImageHeader, color_header, depth_header

T = TypeVar("T")

#: What people are told of the two images.
WORDS = {"color": "colour", "depth": "depth"}


class ImageReader(Protocol):
    """What turns messages into pixels, and tells people."""

    def read_color(self, msg: Any) -> np.ndarray:
        """RGB uint8 (H, W, 3) of an Image or CompressedImage, or (H, W) uint16 of 16-bit grey; raises FrameError."""
        ...

    def read_depth(self, msg: Any, unit: float) -> np.ndarray:
        """Depth (h, w) float32 metres of an Image or CompressedImage of ``unit`` metres per count; raises FrameError."""
        ...

    def report(self, code: str, message: str, detail: str = "") -> None:
        """Tells a warning. Ones with the same code and detail have the same cause, and need not be told again and again."""
        ...

    def inform(self, message: str) -> None:
        """Tells what is no fault."""
        ...


class PairReader:
    """Reads the pairs of one stream. 16-bit grey guides are scaled to 8 bits by a range that is steady over the stream.

    Args:
        host: Reads one image; is told of changes.
    """

    def __init__(self, host: ImageReader) -> None:
        self._host = host
        self._sizes: tuple[tuple[int, ...], tuple[int, ...]] | None = None
        self._orientation = 1
        self._grey = StableRange(GREY_QUANTILE, margin=0.02, min_span=GREY_MIN_SPAN)

    def reset(self) -> None:
        """The next pair is the first of another stream."""
        self._grey.reset()

    def state(self) -> dict[str, Any]:
        """Returns what the next pair's pixels depend on from the ones before, as JSON can hold it."""
        return {"grey": self._grey.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from where :meth:`state` was taken."""
        self._grey.restore(state["grey"])

    def read(self, color_msg: Any, depth_msg: Any, depth_unit: float) -> tuple[np.ndarray, np.ndarray]:
        """Reads a pair.

        Args:
            color_msg, depth_msg: Images or CompressedImages.
            depth_unit: Metres per count; 0: by the encoding.

        Returns:
            Colour (H, W, 3) uint8 RGB and depth (h, w) float32 metres, invalid as the camera gave it.

        Raises:
            FrameError: An image cannot be read, or is too large; the code begins with "color_" or "depth_".
            CodedError: Code "size_ratio": the sizes cannot be those of two images of one view.
        """
        header = _read("color", color_header, color_msg)
        _check_sizes(header.size, _read("depth", depth_header, depth_msg).size)
        color = _read("color", self._host.read_color, color_msg)
        depth = _read("depth", lambda msg: self._host.read_depth(msg, depth_unit), depth_msg)
        self._note_orientation(header)
        self._note_sizes(color.shape[:2], depth.shape)
        return color if color.ndim == 3 else self._scaled(color), depth

    def _scaled(self, counts: np.ndarray) -> np.ndarray:
        sample = torch.from_numpy(grey_sample(counts).astype(np.float32))
        grey = self._grey.update(sample[None, None])
        return grey_to_rgb(counts, grey.lo.item(), (grey.lo + grey.span).item())

    def _note_orientation(self, header: ImageHeader) -> None:
        if header.orientation not in (1, self._orientation):
            height, width = header.size
            self._host.inform(
                f"colour images are turned upright by their EXIF orientation {header.orientation}; they have {width}x{height} "
                "pixels then"
            )
        self._orientation = header.orientation

    def _note_sizes(self, color: tuple[int, ...], depth: tuple[int, ...]) -> None:
        """Warns about a change that is legal but usually unintended."""
        if self._sizes not in (None, (color, depth)):
            (ch, cw), (dh, dw) = self._sizes
            self._host.report(
                "sizes",
                f"image sizes changed from colour {cw}x{ch}, depth {dw}x{dh} to colour {color[1]}x{color[0]}, depth "
                f"{depth[1]}x{depth[0]}; going on with the new ones",
                f"{color} {depth}",
            )
        self._sizes = (color, depth)


def _read(which: str, reader: Callable[[Any], T], msg: Any) -> T:
    try:
        return reader(msg)
    except FrameError as error:
        raise FrameError(f"{which}_{error.code}", f"{WORDS[which]}: {error}", error.detail) from error
    except Exception as error:  # a decoding library's own that nobody knew of: one image is lost, a run of hours is not
        message = f"{WORDS[which]}: image cannot be decoded ({type(error).__name__}: {error})"
        raise FrameError(f"{which}_undecodable", message) from error


def _check_sizes(color: tuple[int, int], depth: tuple[int, int]) -> None:
    """Raises CodedError for sizes (H, W) that are no images of one view, however one of them may be turned."""
    for height, width in (depth, depth[::-1]):
        ratios = color[0] / height, color[1] / width
        if min(ratios) >= MIN_RATIO and max(ratios) <= MAX_SPREAD:
            return
    raise CodedError(
        "size_ratio",
        f"colour {color[1]}x{color[0]} and depth {depth[1]}x{depth[0]} cannot be images of one view; expected depth of 1/"
        f"{MAX_SPREAD} to {1 / MIN_RATIO:g} times colour's size along each axis",
    )
