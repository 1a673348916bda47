"""Commands for comparing methods: evaluate, report."""

from __future__ import annotations

import argparse
from pathlib import Path

from d2a2_core.commands.options import add_device, add_ensemble, add_overwrite, add_scale
from d2a2_core.files import check_outputs


def _evaluate_options(p: argparse.ArgumentParser) -> None:
    from d2a2_core.data.sets.benchmarks import SPECS

    p.add_argument("--dataset", required=True, choices=(*sorted(SPECS), "recording"),
                   help="a benchmark set, or a recording of your own camera, scored at its own measurements")  # fmt: skip
    p.add_argument("--root", type=Path, required=True, help="folder that holds the set's folder, or that folder")
    p.add_argument("--split", default="test")
    add_scale(p)
    what = p.add_mutually_exclusive_group(required=True)
    what.add_argument("--method", help="nearest, bilinear, bicubic, guided, joint_bilateral, jbu, fgs, or FILE.onnx")
    what.add_argument("--weights", help="shipped name, .safetensors file, or an authors' .pth checkpoint")
    p.add_argument("--range", default="oracle", choices=("oracle", "deploy"), help="what normalises the LR")
    p.add_argument("--every", type=int, default=1,
                   help="recording: every n-th pixel of its depth, where the driver has enlarged it")  # fmt: skip
    p.add_argument("--frames", type=int, default=0, help="recording: at most this many of its frames, evenly spread")
    p.add_argument("--degrade", choices=("mild", "medium", "severe"), help="LR and colour as a depth camera gives them")
    p.add_argument("--degrade-seed", type=int, default=0, help="with --degrade; the same seed gives the same images")
    add_device(p)
    p.add_argument("--precision", default="float32", choices=("float32", "int8"), help="int8: of shipped names and files "
                   "with ranges beside them (d2a2 int8), on a CPU, by OpenVINO")  # fmt: skip
    add_ensemble(p)
    p.add_argument("--csv", type=Path, help="write one row per image to this file")
    p.add_argument("--out", type=Path, help="write a run folder (metrics, pictures) for `d2a2 report`")
    p.add_argument("--pictures", type=int, default=8, help="images with pictures in the run folder")
    add_overwrite(p)


def _evaluate(o: argparse.Namespace) -> None:
    from d2a2_core.data.sets.benchmarks import open_dataset
    from d2a2_core.evaluation.baselines import NetworkMethod, get_method
    from d2a2_core.evaluation.evaluator import evaluate, format_summary, is_output, run_outputs, write_csv
    from d2a2_core.runtime import open_runtime

    if o.method and (o.ensemble > 1 or o.precision != "float32"):
        raise ValueError(f"--ensemble and --precision are for --weights, not for --method {o.method}")
    if o.dataset == "recording":
        from d2a2_core.evaluation.recorded import RecordedPairs

        if o.degrade:
            raise ValueError("--degrade is for benchmark sets; a recording is as its camera gave it")
        samples = RecordedPairs(o.root, o.scale, o.every, o.frames)
    else:
        if o.every != 1 or o.frames:
            raise ValueError(f"--every and --frames are for --dataset recording, not for {o.dataset}")
        samples = open_dataset(o.dataset, o.root, o.split)
    check_outputs([*([o.csv] if o.csv else []), *run_outputs(o.out)], is_output, overwrite=o.overwrite)
    print(samples.describe())
    if o.degrade:
        from d2a2_core.evaluation.degraded import degraded_pairs

        samples = degraded_pairs(samples, o.scale, o.degrade, o.degrade_seed)
    if o.method:
        method = get_method(o.method)
    else:
        device, runtime = o.device, "torch"
        if o.precision == "int8":
            device, runtime = "cpu" if device == "auto" else device, "openvino"
        network = open_runtime(o.weights, device, o.precision, runtime, scale=o.scale)
        path = Path(o.weights)
        # Every run's weights are called best or last; its folder says which run it is.
        name = path.parent.name if path.stem in ("best", "last") and path.parent.name else path.stem
        name += f" ({o.ensemble} views)" if o.ensemble > 1 else ""
        name += " (int8)" if o.precision == "int8" else ""
        method = NetworkMethod(network, name, o.ensemble)
    rows = evaluate(samples, method, o.scale, o.range, run_dir=o.out, pictures=o.pictures)
    if o.csv:
        write_csv(rows, o.csv)
    print(format_summary(rows))


def _report_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("runs", nargs="+", type=Path, help="folders written by `d2a2 evaluate --out`")
    p.add_argument("--out", type=Path, default=Path("report.html"))
    add_overwrite(p)


def _report(o: argparse.Namespace) -> None:
    from d2a2_core.evaluation.report import is_report, write_report

    check_outputs([o.out], is_report, overwrite=o.overwrite)
    write_report(o.runs, o.out)
    print(f"written: {o.out}")


COMMANDS = {
    "evaluate": (_evaluate_options, _evaluate),
    "report": (_report_options, _report),
}
