"""Commands for files of weights: weights, convert, export."""

from __future__ import annotations

import argparse
from pathlib import Path

from d2a2_core.commands import weights_actions
from d2a2_core.commands.options import parse_size
from d2a2_core.weights import DEFAULT_WEIGHTS


def add_to(commands: argparse._SubParsersAction) -> None:
    """Adds these commands to `d2a2`."""
    _add_weights(commands)
    _add_convert(commands)
    _add_export(commands)


def _add_weights(commands: argparse._SubParsersAction) -> None:
    p = commands.add_parser(
        "weights", help="list, describe, verify, mix or prune weights; add a run's to the shipped ones"
    )
    weights_actions.add_options(p)
    p.set_defaults(run=weights_actions.run)


def _add_convert(commands: argparse._SubParsersAction) -> None:
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


def _add_export(commands: argparse._SubParsersAction) -> None:
    p = commands.add_parser(
        "export", help="write the network as an ONNX file, which upsample, bag and node take as weights"
    )
    p.add_argument("target", type=Path, help="the .onnx file")
    p.add_argument("--weights", default=DEFAULT_WEIGHTS, help="shipped name or path of a .safetensors file")
    p.add_argument("--size", default="640x480", help="of the colour image, WIDTHxHEIGHT")
    p.add_argument("--scale", type=int, required=True, choices=(4, 8, 16))
    p.set_defaults(run=_export)


def _export(o: argparse.Namespace) -> None:
    from d2a2_core.runtime.onnx_export import export_onnx

    if o.target.suffix != ".onnx":
        raise ValueError(f"expected a target that ends in .onnx, got {o.target.name}")
    export_onnx(o.weights, o.target, parse_size(o.size), o.scale)
    print(f"written: {o.target}, for colour images of {o.size} and depth a {o.scale}th of that")
