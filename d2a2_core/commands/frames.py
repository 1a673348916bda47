"""Commands for depth as it comes from cameras: upsample, offset; and how fast that is: benchmark."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from d2a2_core.commands.options import add_network_options, add_overwrite, add_registration, parse_size
from d2a2_core.files import check_outputs, has_mark, is_our_png, replacing, write_png

if TYPE_CHECKING:
    from d2a2_core.recording import Frame


def _upsample_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("input", nargs="+", type=Path, help="a recording folder, or COLOR DEPTH (16-bit PNG, millimetres)")
    p.add_argument(
        "--out",
        type=Path,
        required=True,
        help="folder for NAME.depth.png (mm), .provenance.png and .sigma.png (0.1 mm)",
    )
    add_overwrite(p)
    p.add_argument("--depth-unit", type=float, default=0.0, help="metres per count of the depth images; 0: millimetres")
    p.add_argument("--max-fill-px", type=float, default=16.0, help="fill holes this far, in output pixels")
    add_registration(p)
    p.add_argument(
        "--calibration", type=Path, metavar="FILE",
        help="cameras and where they are, as a recording's calibration.json, which it replaces",
    )  # fmt: skip
    p.add_argument("--no-hygiene", action="store_true", help="keep flying and stray measurements")
    p.add_argument(
        "--color-offset", type=float, nargs=2, default=(0.0, 0.0), metavar=("DX", "DY"),
        help="where colour lies seen from depth, pixels to the right and down, to be taken out; d2a2 offset finds it",
    )  # fmt: skip
    add_network_options(p, "torch", auto=True)


def _check_upsampled(o: argparse.Namespace, folder: Path | None, names: list[str]) -> None:
    """Raises FileExistsError where a result would take the place of a camera's image, or of anything that is not ours."""
    if folder is not None and o.out.exists() and o.out.samefile(folder):
        raise FileExistsError(
            f"--out {o.out} is the recording itself; its depth images would be lost: name another folder"
        )
    inputs = o.input if folder is None else [path for path in folder.iterdir() if path.is_file()]
    outputs = (o.out / f"{name}.{kind}.png" for name in names for kind in ("depth", "provenance", "sigma"))
    check_outputs(outputs, is_our_png, inputs, o.overwrite)


class _Findings:
    """What a person should look at, and in how many of the frames it was found."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def add(self, frame: Frame, doubts: Iterable[tuple[str, str]]) -> None:
        """Takes those of one frame."""
        if frame.turned:
            height, width = frame.color.shape[:2]
            self._counts[
                f"note: the colour image was turned upright by its EXIF orientation, to {width}x{height} pixels; depth and "
                "calibration must be those of the upright image"
            ] += 1
        self._counts.update(f"warning: {message}" for _, message in doubts)

    def print(self, frames: int) -> None:
        """Prints each once, on stderr."""
        for message, count in self._counts.items():
            print(message + (f" ({count} of {frames} frames)" if frames > 1 else ""), file=sys.stderr)


def _upsample(o: argparse.Namespace) -> None:
    from tqdm import tqdm

    from d2a2_core.depth.diagnosis import depth_problem
    from d2a2_core.depth.units import MILLIMETRE, check_depth_unit, to_metres, to_millimetres
    from d2a2_core.geometry import CameraPair
    from d2a2_core.geometry.rig import CameraRig
    from d2a2_core.pipeline import PipelineSettings
    from d2a2_core.recording import Recording, read_frame
    from d2a2_core.weights_choice import open_engine

    check_depth_unit(o.depth_unit)
    unit = o.depth_unit or MILLIMETRE
    if len(o.input) > 2:
        raise ValueError(f"expected one recording folder, or one colour and one depth image, got {len(o.input)} paths")
    if len(o.input) == 1:
        frames = Recording(o.input[0])
        rig = CameraRig() if o.calibration else frames.rig
        _check_upsampled(o, frames.folder, frames.names)
    else:
        frames, rig = [read_frame(*o.input)], CameraRig()
        _check_upsampled(o, None, [frames[0].name])
    if o.calibration:
        rig = CameraRig.read(o.calibration)
    first, findings = frames[0], _Findings()
    rig = rig.fitted(first.color.shape[:2], first.depth_mm.shape)
    views = rig.views(first.depth_mm.shape)
    settings = PipelineSettings(
        registration=o.registration,
        max_fill_px=o.max_fill_px,
        hygiene=not o.no_hygiene,
        color_offset=tuple(o.color_offset),
        watchdog=False,
    )
    engine = open_engine(o.weights, o.device, o.precision, settings, print, ensemble=o.ensemble, runtime=o.runtime)
    o.out.mkdir(parents=True, exist_ok=True)
    problems = []
    for i in tqdm(range(len(frames)), unit="frame", disable=None):
        frame = frames[i]
        depth = to_metres(frame.depth_mm, unit)
        problem = depth_problem(depth, settings.min_depth, settings.max_depth, unit)
        problems += [(frame.name, problem)] if problem else []
        result = engine.process(CameraPair(frame.color, depth, **views))
        findings.add(frame, [*rig.doubts, *result.doubts])
        write_png(o.out / f"{frame.name}.depth.png", to_millimetres(result.depth))
        write_png(o.out / f"{frame.name}.provenance.png", result.provenance)
        if result.sigma is not None:
            write_png(o.out / f"{frame.name}.sigma.png", to_millimetres(10 * result.sigma))
    print(f"{len(frames)} depth images written to {o.out}; {result.registration}")
    findings.print(len(frames))
    if problems:
        name, problem = problems[0]
        print(f"{len(problems)} of {len(frames)} frames gave little or no depth; {name}: {problem.message}")


def _offset_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("recording", type=Path, help="folder recording")
    add_registration(p)


def _offset(o: argparse.Namespace) -> None:
    from tqdm import tqdm

    from d2a2_core.front_end import FrontEnd, FrontEndSettings
    from d2a2_core.geometry import CameraPair, EdgeOffset
    from d2a2_core.geometry.offset_corrector import OffsetCorrector
    from d2a2_core.network import SCALES
    from d2a2_core.recording import Recording

    frames = Recording(o.recording)
    front_end, settings = FrontEnd(SCALES), FrontEndSettings(o.registration)
    watchdog = EdgeOffset(window=max(len(frames), 1), min_frames=1)
    corrector, rig, findings = OffsetCorrector(watchdog), frames.fitted_rig, _Findings()
    views = frames.views()
    for i in tqdm(range(len(frames)), unit="frame", disable=None):
        frame = frames[i]
        measured = front_end.prepare(CameraPair(frame.color, frame.depth, **views), settings)
        findings.add(frame, [*rig.doubts, *measured.doubts])
        corrector.watch(measured.color, measured.lr[0, 0].numpy(), measured.scale, (0, 0), correct=False)
    findings.print(len(frames))
    found = watchdog.estimate()
    if found is None:
        print(f"{len(frames)} frames: too few depth edges, or no offset within {watchdog.max_shift:g} pixels fits")
        return
    print(
        f"{len(frames)} frames: colour lies {abs(found.dx):.1f} px to the {'right' if found.dx > 0 else 'left'} of depth and "
        f"{abs(found.dy):.1f} px {'below' if found.dy > 0 else 'above'}, confidence {found.confidence:.2f}"
    )
    if found.confidence < watchdog.min_confidence:
        print(f"below a confidence of {watchdog.min_confidence:g} that is no reason to change anything")
    elif found.magnitude < 1:
        print("less than a pixel: nothing to take out")
    else:
        print(
            f"to take it out: --color-offset {found.dx:.1f} {found.dy:.1f}; in the node: color_offset: [{found.dx:.1f}, "
            f"{found.dy:.1f}]"
        )


def _benchmark_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--size", default="640x480", help="of the colour image, WIDTHxHEIGHT; several with commas")
    p.add_argument("--ratio", type=float, default=4.0, help="colour size / depth size")
    p.add_argument("--frames", type=int, default=30, help="that count, of each network at each size")
    p.add_argument("--threads", type=int, default=0, help="CPU threads (0: torch's default)")
    p.add_argument("--no-sigma", action="store_true", help="without the uncertainty")
    p.add_argument("--cloud", action="store_true", help="with the point cloud")
    p.add_argument("--json", type=Path, help="write the figures to this file, too")
    p.add_argument(
        "--training",
        metavar="MODEL",
        help="time training steps instead, of e.g. '{model: d2a2, scale: 4}'; --precision may be tf32 then",
    )
    p.add_argument("--crop", type=int, default=256, help="with --training")
    p.add_argument("--batch-size", type=int, default=4, help="with --training")
    add_network_options(p, "auto")
    add_overwrite(p)


def _benchmark(o: argparse.Namespace) -> None:
    import torch

    if o.training:
        from d2a2_core.evaluation.speed import benchmark_training

        precision = "float32" if o.precision == "auto" else o.precision
        model = yaml.safe_load(o.training)
        print(benchmark_training(model, o.crop, o.batch_size, o.frames, o.device, precision))
        return
    from d2a2_core.evaluation.frame_speed import as_json, measure_frames, table

    check_outputs([o.json] if o.json else [], _is_benchmark, overwrite=o.overwrite)
    if o.threads:
        torch.set_num_threads(o.threads)
    sizes = [parse_size(text) for text in o.size.split(",")]
    times = measure_frames(
        o.weights.split(","),
        sizes,
        o.ratio,
        o.frames,
        o.device,
        o.precision,
        o.runtime,
        o.ensemble,
        not o.no_sigma,
        o.cloud,
    )
    print(table(times))
    if o.json:
        with replacing(o.json) as partial:
            partial.write_text(json.dumps(as_json(times), indent=1) + "\n")
        print(f"written: {o.json}")


def _is_benchmark(path: Path) -> bool:
    return has_mark(path, b'"beside_network"', within=-1)


COMMANDS = {
    "upsample": (_upsample_options, _upsample),
    "offset": (_offset_options, _offset),
    "benchmark": (_benchmark_options, _benchmark),
}
