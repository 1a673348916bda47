"""Commands for files of weights: weights, convert, export."""

from __future__ import annotations

import argparse
from pathlib import Path

from d2a2_core.commands.options import add_overwrite, add_size, add_weights, parse_size
from d2a2_core.files import check_outputs, replacing


def _weights_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("action", choices=("list", "info", "verify", "add", "mix", "prune"))
    p.add_argument("name", nargs="?", help="shipped name or path (default: all shipped ones); mix, prune: a new file")
    p.add_argument("--source", type=Path, help="add: weights of a run, to ship as NAME; prune: weights to prune")
    p.add_argument("--card", type=Path, help="add: YAML file with title, licence, metrics, limits")
    p.add_argument(
        "--part", type=_part, action="append", default=[], metavar="WEIGHTS=FACTOR",
        help="mix: a summand, twice or more; the factors' sum is 1",
    )  # fmt: skip


def _weights(o: argparse.Namespace) -> int:
    from d2a2_core.commands import weights_actions

    return weights_actions.run(o)


def _part(text: str) -> tuple[str, float]:
    name, _, factor = text.rpartition("=")
    try:
        if name:
            return name, float(factor)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"expected WEIGHTS=FACTOR, for example d2a2-lite=0.5, got {text!r}")


def _convert_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("source", type=Path)
    p.add_argument("target", type=Path)
    p.add_argument("--scale", type=int, help="of an authors' checkpoint, which does not say it")
    add_overwrite(p)


def _convert(o: argparse.Namespace) -> None:
    import torch

    from d2a2_core.weights import load_any, save_weights, to_official

    check_outputs([o.target], inputs=[o.source], overwrite=o.overwrite)
    model = load_any(o.source, o.scale)
    if o.target.suffix == ".safetensors":
        save_weights(o.target, model, {"title": f"converted from {o.source.name}"})
    elif o.target.suffix in (".pth", ".pt"):
        if model.config["model"] != "d2a2":
            raise ValueError(f"{o.source} is a {model.config['model']}; the authors' scripts only know d2a2")
        with replacing(o.target) as partial:
            torch.save(to_official(model.state_dict()), partial)
    else:
        raise ValueError(f"expected a target that ends in .safetensors or .pth, got {o.target.name}")
    print(f"written: {o.target}")


def _export_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("target", type=Path, help="the .onnx file")
    add_weights(p)
    add_size(p)
    p.add_argument("--scale", type=int, choices=(4, 8, 16), help="colour size / depth size")
    p.add_argument("--whole", action="store_true", help="a whole frame, to be run without this package: from the images of a "
                   "registered pair to depth, provenance and sigma (examples/onnx_frame.py)")  # fmt: skip
    p.add_argument("--depth-size", help="with --whole: of the depth image (default: the colour image's over the scale)")
    p.add_argument("--no-sigma", action="store_true", help="with --whole: without the uncertainty")
    p.add_argument("--points", action="store_true", help="with --whole: with the points, for a pinhole camera")
    p.add_argument(
        "--max-fill-px", type=float, default=16.0, help="with --whole: fill holes this far, in output pixels"
    )
    add_overwrite(p)


def _export(o: argparse.Namespace) -> None:
    from d2a2_core.runtime.onnx_export import export_onnx, is_export
    from d2a2_core.weights import resolve_weights
    from d2a2_core.weights.sidecars import SIGMA

    if o.target.suffix != ".onnx":
        raise ValueError(f"expected a target that ends in .onnx, got {o.target.name}")
    if o.scale is None and not (o.whole and o.depth_size):
        raise ValueError(
            "expected --scale, or --whole with --depth-size, which say the depth image's size; got neither"
        )
    source, size = resolve_weights(o.weights), parse_size(o.size)
    check_outputs([o.target], is_export, [source], o.overwrite)
    if o.whole:
        from d2a2_core.whole_export import export_whole

        depth_size = parse_size(o.depth_size) if o.depth_size else tuple(-(-length // o.scale) for length in size)
        outputs = export_whole(
            o.weights, o.target, size, depth_size, o.scale or 0, not o.no_sigma, o.points, o.max_fill_px
        )
        print(f"written: {o.target}, for colour images of {o.size} and depth of {depth_size[1]}x{depth_size[0]}; gives "
              f"{', '.join(outputs)}")  # fmt: skip
        return
    if o.depth_size or o.no_sigma or o.points or o.max_fill_px != 16.0:
        raise ValueError("--depth-size, --no-sigma, --points and --max-fill-px are for --whole")
    if SIGMA.path(source).is_file():  # it goes along
        check_outputs([SIGMA.path(o.target)], SIGMA.wrote, [SIGMA.path(source)], o.overwrite)
    export_onnx(o.weights, o.target, size, o.scale)
    print(f"written: {o.target}, for colour images of {o.size} and depth a {o.scale}th of that")


COMMANDS = {
    "weights": (_weights_options, _weights),
    "convert": (_convert_options, _convert),
    "export": (_export_options, _export),
}
