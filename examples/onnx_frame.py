"""Upsamples one registered pair with NumPy and ONNX Runtime alone: neither PyTorch nor d2a2_core is needed on the robot.

d2a2 export frame.onnx --whole --weights d2a2-pico-sensor --size 640x480 --scale 4     (once, on any machine)
python onnx_frame.py frame.onnx color.png depth.png out.png                            (depth: 16-bit PNG, millimetres)
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image
from PIL.PngImagePlugin import PngImageFile


class Upsampler:
    """Keeps the range that normalises depth steady over a stream, so that what stands still does not flicker."""

    def __init__(self, path: str) -> None:
        self.session = onnxruntime.InferenceSession(path, providers=onnxruntime.get_available_providers())
        self.facts = json.loads(self.session.get_modelmeta().custom_metadata_map["d2a2"])
        self.names = [output.name for output in self.session.get_outputs()]
        self.range = np.zeros(2, np.float32)  # least value and span; a span of 0 takes the frame's own

    def __call__(self, color: np.ndarray, depth: np.ndarray) -> dict[str, np.ndarray]:
        """Colour (H, W, 3) uint8 RGB and depth (h, w) float32 metres, 0 where there is none -> the file's outputs by name."""
        for image, size in ((color, self.facts["color_size"]), (depth, self.facts["depth_size"])):
            if list(image.shape[:2]) != size:
                raise ValueError(f"expected an image of {size} (height, width), got {list(image.shape[:2])}")
        limits = np.float32([0.05, 20.0, 0.02, 0.02, *self.range])  # nearest, farthest, bounds of consistency, range
        given = {"color": color[None], "depth": depth[None, None], "limits": limits}
        out = dict(zip(self.names, self.session.run(None, given), strict=True))
        low, span = out["range"]
        if self.range[1] > 0:  # it only grows here; the live node lets it shrink again, too
            high = max(low + span, self.range.sum())
            low = min(low, self.range[0])
            span = high - low
        self.range = np.float32([low, span])
        return out


def main() -> None:
    upsample = Upsampler(sys.argv[1])
    color = np.asarray(PngImageFile(sys.argv[2]).convert("RGB"))
    depth = np.asarray(PngImageFile(sys.argv[3])).astype(np.float32) / 1000
    metres = upsample(color, depth)["upsampled"][0, 0]
    millimetres = np.nan_to_num(1000 * metres).round().clip(0, 65535).astype(np.uint16)
    Image.fromarray(millimetres).save(sys.argv[4])
    print(f"{upsample.facts['weights']}: {np.isfinite(metres).mean():.1%} of the pixels have depth")


if __name__ == "__main__":
    main()
