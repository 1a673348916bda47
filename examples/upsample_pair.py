"""Upsamples one frame: writes depth.png (16-bit, millimetres, 0 where there is none) and cloud.ply (coloured points, metres).

python examples/upsample_pair.py sample_recording --out out
python examples/upsample_pair.py color.jpg depth.png --focal 525 --out out
"""

import argparse
from pathlib import Path

from PIL import Image

from d2a2_core.depth.units import to_millimetres
from d2a2_core.geometry import Camera, CameraPair, back_project, write_ply
from d2a2_core.pipeline import DepthPipeline
from d2a2_core.recording import Recording, read_frame


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "input", nargs="+", type=Path, help="a recording folder, or COLOR DEPTH (16-bit PNG, millimetres)"
    )
    parser.add_argument("--out", type=Path, default=Path(), help="folder to write to")
    parser.add_argument("--weights", default="d2a2-lite-sensor", help="shipped name, or path of a weights file")
    parser.add_argument(
        "--focal", type=float, help="focal length in pixels, where there is no calibration (default: width)"
    )
    options = parser.parse_args()

    if len(options.input) == 1:
        recording = Recording(options.input[0])
        frame, views = recording[0], recording.views()
    else:
        frame, views = read_frame(*options.input), {}
    pipeline = DepthPipeline.from_pretrained(options.weights, device="auto", precision="auto")
    result = pipeline.process(CameraPair(frame.color, frame.depth, **views))

    height, width = result.depth.shape
    focal = options.focal or width
    camera = result.camera or Camera(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)
    options.out.mkdir(parents=True, exist_ok=True)
    Image.fromarray(to_millimetres(result.depth)).save(options.out / "depth.png")
    count = write_ply(options.out / "cloud.ply", back_project(result.depth, camera), result.color)
    print(f"{width}x{height} depth and {count} points written to {options.out}")


if __name__ == "__main__":
    main()
