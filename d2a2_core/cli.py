"""The command `d2a2`: parses, calls, prints. What it does lives in the modules it calls."""

from __future__ import annotations

import argparse
import os
import re
import sys
from dataclasses import MISSING, fields
from pathlib import Path

import yaml

from d2a2_core.weights import DEFAULT_WEIGHTS


def main(arguments: list[str] | None = None) -> int:
    """Runs one subcommand; returns the exit status: 2 for a user's mistake, with one line that says what to do."""
    options = _parser().parse_args(arguments)
    try:
        return options.run(options) or 0
    except BrokenPipeError:  # whoever read the output has seen enough, as `head` does
        return 0
    except (ValueError, OSError, RuntimeError, ImportError, yaml.YAMLError) as error:
        print(f"d2a2 {options.command}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="d2a2", description="RGB-guided depth super-resolution with D2A2.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_upsample(commands)
    _add_offset(commands)
    _add_bag(commands)
    _add_train(commands)
    _add_ablate(commands)
    _add_generate(commands)
    _add_evaluate(commands)
    _add_report(commands)
    _add_weights(commands)
    _add_calibrate(commands)
    _add_convert(commands)
    _add_export(commands)
    _add_prepare_nyu(commands)
    _add_benchmark(commands)
    return parser


# -- upsample ----------------------------------------------------------------------------------------------------------


def _add_upsample(commands) -> None:
    p = commands.add_parser("upsample", help="upsample a folder recording, or one colour and one depth image")
    p.add_argument("input", nargs="+", type=Path, help="a recording folder, or COLOR DEPTH (16-bit PNG, millimetres)")
    p.add_argument(
        "--out",
        type=Path,
        required=True,
        help="folder for NAME.depth.png (mm), .provenance.png and .sigma.png (0.1 mm)",
    )
    p.add_argument("--max-fill-px", type=float, default=16.0, help="fill holes this far, in output pixels")
    p.add_argument(
        "--registration", default="auto", choices=("auto", "on", "off"), help="of depth to the colour camera"
    )
    p.add_argument("--no-hygiene", action="store_true", help="keep flying and stray measurements")
    p.add_argument(
        "--color-offset", type=float, nargs=2, default=(0.0, 0.0), metavar=("DX", "DY"),
        help="where colour lies seen from depth, pixels to the right and down, to be taken out; d2a2 offset finds it",
    )  # fmt: skip
    _add_model_options(p)
    _add_ensemble(p)
    _add_runtime(p, "torch")
    p.set_defaults(run=_upsample)


def _add_ensemble(p: argparse.ArgumentParser) -> None:
    from d2a2_core.network.ensemble import VIEWS

    p.add_argument(
        "--ensemble", type=int, default=1, choices=tuple(VIEWS),
        help="run the network on so many views of each pair, turned and mirrored, and average: more accurate, as much slower",
    )  # fmt: skip


def _add_runtime(p: argparse.ArgumentParser, default: str) -> None:
    p.add_argument(
        "--runtime", default=default, choices=("auto", "torch", "openvino"),
        help="what computes the network; OpenVINO takes two seconds before the first frame and less for each, on a CPU; auto: "
        f"where it is installed and can (default: {default})",
    )  # fmt: skip


def _add_model_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--weights", default=DEFAULT_WEIGHTS, help="shipped name or path of a .safetensors or .onnx file")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    p.add_argument(
        "--precision", default="auto", help="auto, float32, float16 or bfloat16 (training: tf32, fp16, bf16)"
    )


def _upsample(o: argparse.Namespace) -> None:
    from PIL import Image
    from tqdm import tqdm

    from d2a2_core.data.recording import Recording, read_frame, to_millimetres
    from d2a2_core.pipeline import DepthPipeline, PipelineSettings
    from d2a2_core.uncertainty import load_sigma_head
    from d2a2_core.upsampler import DepthUpsampler

    if len(o.input) > 2:
        raise ValueError(f"expected one recording folder, or one colour and one depth image, got {len(o.input)} paths")
    if len(o.input) == 1:
        frames = Recording(o.input[0])
        views = frames.views()
    else:
        frames, views = [read_frame(*o.input)], {}
    upsampler = DepthUpsampler.from_pretrained(o.weights, o.device, o.precision, ensemble=o.ensemble, runtime=o.runtime)
    settings = PipelineSettings(
        o.registration, max_fill_px=o.max_fill_px, hygiene=not o.no_hygiene, color_offset=tuple(o.color_offset), watchdog=False,
    )  # fmt: skip
    pipeline = DepthPipeline(upsampler, settings, load_sigma_head(o.weights))
    o.out.mkdir(parents=True, exist_ok=True)
    for i in tqdm(range(len(frames)), unit="frame", disable=None):
        frame = frames[i]
        result = pipeline.process(frame.color, frame.depth, **views)
        Image.fromarray(to_millimetres(result.depth)).save(o.out / f"{frame.name}.depth.png")
        Image.fromarray(result.provenance).save(o.out / f"{frame.name}.provenance.png")
        if result.sigma is not None:
            Image.fromarray(to_millimetres(10 * result.sigma)).save(o.out / f"{frame.name}.sigma.png")
    print(f"{len(frames)} depth images written to {o.out}; {result.registration}")


# -- offset ------------------------------------------------------------------------------------------------------------


def _add_offset(commands) -> None:
    p = commands.add_parser(
        "offset", help="by how much colour lies beside depth in a recording: an error of the calibration"
    )
    p.add_argument("recording", type=Path, help="folder recording")
    p.add_argument(
        "--registration", default="auto", choices=("auto", "on", "off"), help="of depth to the colour camera"
    )
    p.set_defaults(run=_offset)


def _offset(o: argparse.Namespace) -> None:
    from tqdm import tqdm

    from d2a2_core.data.recording import Recording
    from d2a2_core.geometry import EdgeOffset
    from d2a2_core.pipeline import DepthPipeline, PipelineSettings
    from d2a2_core.upsampler import DepthUpsampler

    frames = Recording(o.recording)
    # The network is not run; its weights say which scales there are.
    pipeline = DepthPipeline(DepthUpsampler.from_pretrained(DEFAULT_WEIGHTS, "cpu"), PipelineSettings(o.registration))
    pipeline.watchdog = EdgeOffset(window=max(len(frames), 1), min_frames=1)
    views = frames.views()
    for i in tqdm(range(len(frames)), unit="frame", disable=None):
        frame = frames[i]
        pipeline.watch(frame.color, frame.depth, **views)
    found = pipeline.watchdog.estimate()
    if found is None:
        print(
            f"{len(frames)} frames: too few depth edges, or no offset within {pipeline.watchdog.max_shift:g} pixels fits"
        )
        return
    print(
        f"{len(frames)} frames: colour lies {abs(found.dx):.1f} px to the {'right' if found.dx > 0 else 'left'} of depth and "
        f"{abs(found.dy):.1f} px {'below' if found.dy > 0 else 'above'}, confidence {found.confidence:.2f}"
    )
    if found.confidence < pipeline.watchdog.min_confidence:
        print(f"below a confidence of {pipeline.watchdog.min_confidence:g} that is no reason to change anything")
    elif found.magnitude < 1:
        print("less than a pixel: nothing to take out")
    else:
        print(
            f"to take it out: --color-offset {found.dx:.1f} {found.dy:.1f}; in the node: color_offset: [{found.dx:.1f}, "
            f"{found.dy:.1f}]"
        )


# -- bag ---------------------------------------------------------------------------------------------------------------


def _add_bag(commands) -> None:
    from d2a2_core.bag.command import add_options

    p = commands.add_parser("bag", help="upsample a rosbag2: the same bag with depth_upsampled topics in it")
    add_options(p)
    _add_model_options(p)
    _add_ensemble(p)
    _add_runtime(p, "auto")
    p.set_defaults(run=_bag)


def _bag(o: argparse.Namespace) -> None:
    from d2a2_core.bag.command import run

    run(o)


# -- train -------------------------------------------------------------------------------------------------------------


def _add_train(commands) -> None:
    p = commands.add_parser("train", help="train a network, or go on with a run")
    p.add_argument("--out", type=Path, required=True, help="the run's folder; a run that is there goes on")
    _add_train_settings(p)
    p.set_defaults(run=_train)


def _add_train_settings(p: argparse.ArgumentParser) -> None:
    from d2a2_core.training.config import PRESETS, TrainConfig

    p.add_argument("--preset", default="paper", choices=sorted(PRESETS), help="settings to start from")
    p.add_argument("--config", type=Path, help="YAML file with settings that override the preset's")
    for f in fields(TrainConfig):
        default = f.default if f.default is not MISSING else f.default_factory()
        p.add_argument(f"--{f.name.replace('_', '-')}", dest=f"set_{f.name}", help=f"default {default!r}")


def _settings(o: argparse.Namespace):
    from d2a2_core.training.config import TrainConfig, make_config

    given = {f.name: getattr(o, f"set_{f.name}") for f in fields(TrainConfig)}
    return make_config(o.preset, o.config, {k: _value(k, v) for k, v in given.items() if v is not None})


def _train(o: argparse.Namespace) -> None:
    from d2a2_core.training.trainer import train

    best = train(_settings(o), o.out)
    if os.environ.get("RANK", "0") == "0":
        print(f"weights: {best}")


def _add_ablate(commands) -> None:
    p = commands.add_parser("ablate", help="train and tabulate all rows of one of the paper's ablations")
    p.add_argument("--table", type=int, required=True, choices=(2, 3, 4), help="of the paper")
    p.add_argument(
        "--out", type=Path, required=True, help="folder of the runs and of the table; goes on when started again"
    )
    _add_train_settings(p)
    p.set_defaults(run=_ablate)


def _ablate(o: argparse.Namespace) -> None:
    from d2a2_core.training.ablations import run_ablation

    print(run_ablation(o.table, _settings(o), o.out))


def _add_generate(commands) -> None:
    from d2a2_core.data.generate import KINDS

    p = commands.add_parser("generate", help="make scenes to train on, or go on with a folder of them")
    p.add_argument(
        "--scenes", required=True, choices=KINDS, help="mixed is rooms and clutter; all but shapes need models"
    )
    p.add_argument("--count", type=int, required=True)
    p.add_argument("--size", default="640x480", help="WIDTHxHEIGHT")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--out", type=Path, required=True, help="folder; scenes that are there stay")
    p.add_argument("--workers", type=int, default=1, help="processes")
    p.add_argument(
        "--furniture", type=Path, default=Path("/usr/share/sweethome3d/furniture"), help="folder with *.sh3f"
    )
    p.add_argument(
        "--licences",
        default="CC0",
        type=lambda text: tuple(text.split(",")),
        help="of the models, with commas: CC0, CC-BY (their creators must be named: the manifest and the weights' cards do)",
    )
    p.add_argument("--preview", action="store_true", help="also write preview.png, a contact sheet of the first scenes")
    p.set_defaults(run=_generate)


def _generate(o: argparse.Namespace) -> None:
    from d2a2_core.data.generate import Settings, generate
    from d2a2_core.data.scene_folder import write_preview

    height, width = _size(o.size)
    furniture = "" if o.scenes == "shapes" else str(o.furniture)
    made = generate(Settings(o.scenes, o.count, (width, height), o.seed, furniture, o.licences), o.out, o.workers)
    if o.preview:
        write_preview(o.out, o.out / "preview.png")
    print(f"{made} scenes written to {o.out}, which now has {o.count}")


def _value(name: str, text: str):
    """A flag's value, read as YAML ("4", "[4, 8]", "{model: d2a2, scale: 8}"); texts stay texts."""
    from d2a2_core.training.config import TrainConfig

    default = getattr(TrainConfig(), name)
    return text if isinstance(default, str) else yaml.safe_load(text)


# -- evaluate, report --------------------------------------------------------------------------------------------------


def _add_evaluate(commands) -> None:
    from d2a2_core.data.benchmarks import SPECS

    p = commands.add_parser("evaluate", help="measure a method or weights on a benchmark set")
    p.add_argument("--dataset", required=True, choices=(*sorted(SPECS), "recording"),
                   help="a benchmark set, or a recording of your own camera, scored at its own measurements")  # fmt: skip
    p.add_argument("--root", type=Path, required=True, help="folder that holds the set's folder, or that folder")
    p.add_argument("--split", default="test")
    p.add_argument("--scale", type=int, required=True, choices=(4, 8, 16))
    what = p.add_mutually_exclusive_group(required=True)
    what.add_argument("--method", help="nearest, bilinear, bicubic, guided, joint_bilateral, jbu, fgs, or FILE.onnx")
    what.add_argument("--weights", help="shipped name, .safetensors file, or an authors' .pth checkpoint")
    p.add_argument("--range", default="oracle", choices=("oracle", "deploy"), help="what normalises the LR")
    p.add_argument("--every", type=int, default=1,
                   help="recording: every n-th pixel of its depth, where the driver has enlarged it")  # fmt: skip
    p.add_argument("--frames", type=int, default=0, help="recording: at most this many of its frames, evenly spread")
    p.add_argument("--degrade", choices=("mild", "medium", "severe"), help="LR and colour as a depth camera gives them")
    p.add_argument("--degrade-seed", type=int, default=0, help="with --degrade; the same seed gives the same images")
    p.add_argument("--device", default="auto")
    _add_ensemble(p)
    p.add_argument("--csv", type=Path, help="write one row per image to this file")
    p.add_argument("--out", type=Path, help="write a run folder (metrics, pictures) for `d2a2 report`")
    p.add_argument("--pictures", type=int, default=8, help="images with pictures in the run folder")
    p.set_defaults(run=_evaluate)


def _evaluate(o: argparse.Namespace) -> None:
    from d2a2_core.data.benchmarks import open_dataset
    from d2a2_core.evaluation.baselines import NetworkMethod, get_method
    from d2a2_core.evaluation.evaluator import evaluate, format_summary, write_csv
    from d2a2_core.upsampler import resolve_device
    from d2a2_core.weights import load_any

    if o.method and o.ensemble > 1:
        raise ValueError(f"--ensemble is for --weights, not for --method {o.method}")
    if o.dataset == "recording":
        from d2a2_core.evaluation.recorded import RecordedPairs

        if o.degrade:
            raise ValueError("--degrade is for benchmark sets; a recording is as its camera gave it")
        samples = RecordedPairs(o.root, o.scale, o.every, o.frames)
    else:
        if o.every != 1 or o.frames:
            raise ValueError(f"--every and --frames are for --dataset recording, not for {o.dataset}")
        samples = open_dataset(o.dataset, o.root, o.split)
    print(samples.describe())
    if o.degrade:
        from d2a2_core.evaluation.degraded import degraded_pairs

        samples = degraded_pairs(samples, o.scale, o.degrade, o.degrade_seed)
    if o.method:
        method = get_method(o.method)
    else:
        model = load_any(o.weights, o.scale)
        if o.scale not in model.scales:
            raise ValueError(f"weights {o.weights} are for scales {list(model.scales)}, asked for {o.scale}")
        path = Path(o.weights)
        # Every run's weights are called best or last; its folder says which run it is.
        name = path.parent.name if path.stem in ("best", "last") and path.parent.name else path.stem
        name += f" ({o.ensemble} views)" if o.ensemble > 1 else ""
        method = NetworkMethod(model.to(resolve_device(o.device)), None, name, o.ensemble)
    rows = evaluate(samples, method, o.scale, o.range, run_dir=o.out, pictures=o.pictures)
    if o.csv:
        write_csv(rows, o.csv)
    print(format_summary(rows))


def _add_report(commands) -> None:
    p = commands.add_parser("report", help="make one HTML page of one or several evaluations")
    p.add_argument("runs", nargs="+", type=Path, help="folders written by `d2a2 evaluate --out`")
    p.add_argument("--out", type=Path, default=Path("report.html"))
    p.set_defaults(run=_report)


def _report(o: argparse.Namespace) -> None:
    from d2a2_core.evaluation.report import write_report

    write_report(o.runs, o.out)
    print(f"written: {o.out}")


# -- weights -----------------------------------------------------------------------------------------------------------


def _add_weights(commands) -> None:
    from d2a2_core import weights_command

    p = commands.add_parser(
        "weights", help="list, describe, verify, mix or prune weights; add a run's to the shipped ones"
    )
    weights_command.add_options(p)
    p.set_defaults(run=weights_command.run)


def _add_calibrate(commands) -> None:
    p = commands.add_parser("calibrate", help="train and check the uncertainty head of weights")
    p.add_argument("--weights", default=DEFAULT_WEIGHTS, help="shipped name or path of a .safetensors file")
    p.add_argument("--out", type=Path, help="file of the head; default: NAME.sigma.safetensors beside the weights")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--images", type=int, default=360, help="generated scenes to train on")
    p.add_argument("--held-out", type=int, default=90, help="generated scenes to measure the coverage on")
    p.add_argument("--data", default="shapes", help="scenes, as of d2a2 train")
    p.add_argument("--root", default="", help="their folder, as of d2a2 train")
    p.add_argument("--size", nargs="+", help="of the scenes, in turn: WIDTHxHEIGHT, multiples of 16 (default: three)")
    p.add_argument("--steps", type=int, default=1500, help="of the head's training")
    p.add_argument("--plot", type=Path, help="PNG of the reliability plot (default: reliability.png in this folder)")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    p.set_defaults(run=_calibrate)


def _calibrate(o: argparse.Namespace) -> None:
    from d2a2_core.training.calibrate import SIZES, calibrate, format_table

    plot = o.plot or Path("reliability.png")
    sizes = [_size(text) for text in o.size] if o.size else SIZES
    path, table = calibrate(
        o.weights, o.out, o.seed, o.images, o.held_out, o.data, o.root, sizes, o.steps, o.device, plot
    )
    print(f"{format_table(table)}\nwritten: {path} and {plot}")


def _add_convert(commands) -> None:
    p = commands.add_parser("convert", help="turn an authors' .pth checkpoint into .safetensors, or back")
    p.add_argument("source", type=Path)
    p.add_argument("target", type=Path)
    p.add_argument("--scale", type=int, help="of an authors' checkpoint, which does not say it")
    p.set_defaults(run=_convert)


def _convert(o: argparse.Namespace) -> None:
    import torch

    from d2a2_core.weights import load_any, save_weights, to_official

    model = load_any(o.source, o.scale)
    if o.target.suffix == ".safetensors":
        save_weights(o.target, model, {"title": f"converted from {o.source.name}"})
    elif o.target.suffix in (".pth", ".pt"):
        if model.config["model"] != "d2a2":
            raise ValueError(f"{o.source} is a {model.config['model']}; the authors' scripts only know d2a2")
        torch.save(to_official(model.state_dict()), o.target)
    else:
        raise ValueError(f"expected a target that ends in .safetensors or .pth, got {o.target.name}")
    print(f"written: {o.target}")


def _add_export(commands) -> None:
    p = commands.add_parser(
        "export", help="write the network as an ONNX file, which upsample, bag and node take as weights"
    )
    p.add_argument("target", type=Path, help="the .onnx file")
    p.add_argument("--weights", default=DEFAULT_WEIGHTS, help="shipped name or path of a .safetensors file")
    p.add_argument("--size", default="640x480", help="of the colour image, WIDTHxHEIGHT")
    p.add_argument("--scale", type=int, required=True, choices=(4, 8, 16))
    p.set_defaults(run=_export)


def _export(o: argparse.Namespace) -> None:
    from d2a2_core.exported import export_onnx

    if o.target.suffix != ".onnx":
        raise ValueError(f"expected a target that ends in .onnx, got {o.target.name}")
    export_onnx(o.weights, o.target, _size(o.size), o.scale)
    print(f"written: {o.target}, for colour images of {o.size} and depth a {o.scale}th of that")


# -- prepare-nyu, benchmark --------------------------------------------------------------------------------------------


def _add_prepare_nyu(commands) -> None:
    p = commands.add_parser("prepare-nyu", help="unpack nyu_depth_v2_labeled.mat into the authors' folder layout")
    p.add_argument("mat", type=Path)
    p.add_argument("out", type=Path)
    p.set_defaults(run=_prepare_nyu)


def _prepare_nyu(o: argparse.Namespace) -> None:
    from d2a2_core.data.nyu import prepare_nyu

    print(f"{prepare_nyu(o.mat, o.out)} pairs written to {o.out}")


def _add_benchmark(commands) -> None:
    p = commands.add_parser("benchmark", help="time and memory per frame on this machine")
    p.add_argument("--size", default="640x480", help="of the colour image, WIDTHxHEIGHT")
    p.add_argument("--ratio", type=float, default=4.0, help="colour size / depth size")
    p.add_argument("--frames", type=int, default=10)
    p.add_argument("--threads", type=int, default=0, help="CPU threads (0: torch's default)")
    p.add_argument("--training", metavar="MODEL", help="time training steps instead, of e.g. '{model: d2a2, scale: 4}'")
    p.add_argument("--crop", type=int, default=256, help="with --training")
    p.add_argument("--batch-size", type=int, default=4, help="with --training")
    _add_model_options(p)
    _add_ensemble(p)
    _add_runtime(p, "auto")
    p.set_defaults(run=_benchmark)


def _benchmark(o: argparse.Namespace) -> None:
    from d2a2_core.evaluation.speed import benchmark_training, benchmark_upsampler

    if o.training:
        precision = "float32" if o.precision == "auto" else o.precision
        model = yaml.safe_load(o.training)
        print(benchmark_training(model, o.crop, o.batch_size, o.frames, o.device, precision))
        return
    print(
        benchmark_upsampler(
            o.weights, _size(o.size), o.ratio, o.frames, o.device, o.precision, o.threads, o.ensemble, o.runtime
        )
    )


def _size(text: str) -> tuple[int, int]:
    """(height, width) of "640x480"."""
    size = re.fullmatch(r"(\d+)x(\d+)", text.lower())
    if not size:
        raise ValueError(f"--size must be WIDTHxHEIGHT, for example 640x480; got {text!r}")
    return int(size[2]), int(size[1])


if __name__ == "__main__":
    sys.exit(main())
