"""Networks as ONNX files, for runtimes other than PyTorch."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from d2a2_core.files import has_mark, replacing
from d2a2_core.network import D2A2, D2A2Lite, D2A2Pico, takes_trust
from d2a2_core.weights import WeightsError, load_weights, read_info, resolve_weights
from d2a2_core.weights.sidecars import SIGMA

_OPSET = 18
EXPORT_KEY = "d2a2"  # of the file's metadata


def is_export(path: Path) -> bool:
    """Whether :func:`export_onnx` wrote a file, which a new one may replace."""
    # As protobuf stores the key of the metadata, anywhere in the file.
    return has_mark(path, f"\n\x04{EXPORT_KEY}\x12".encode(), within=-1)


def export_onnx(source: str | Path, target: str | Path, size: tuple[int, int], scale: int) -> None:
    """Writes a network for one size and scale as an ONNX file.

    Its inputs are ``guide`` (1, 3, H, W) RGB in [0, 1], ``lr`` (1, 1, H / s, W / s) in [0, 1] without holes and, where the
    weights take it, ``trust`` of the size of ``lr``; its output ``hr`` is (1, 1, H, W). What is around the network (holes,
    ranges, consistency) is :class:`d2a2_core.DepthUpsampler`'s, which takes the file as weights.

    Args:
        source: shipped name or path of weights that have no deformable convolutions, for which ONNX Runtime has no operator.
        target: the file; one that is there is replaced.
        size: (H, W) of the colour image; rounded up to multiples of the scale, as the upsampler pads it.
        scale: one of the weights'.

    Raises:
        WeightsError: no such weights, or they cannot be exported.
        ImportError: onnx is not installed.
        ValueError: a scale that the weights are not for.
    """
    path, model = exportable(source, scale)
    height, width = (-(-length // scale) * scale for length in size)
    lr = torch.rand(1, 1, height // scale, width // scale)
    inputs = {"guide": torch.rand(1, 3, height, width), "lr": lr} | (
        {"trust": torch.ones_like(lr)} if takes_trust(model) else {}
    )
    facts = {"scale": scale, "source": path.stem, "card": read_info(path).card}
    write_onnx(model, inputs, ["hr"], target, {EXPORT_KEY: json.dumps(facts)})
    SIGMA.copy(source, target)


def exportable(source: str | Path, scale: int) -> tuple[Path, D2A2 | D2A2Lite | D2A2Pico]:
    """Path and network of weights that can be exported, at a scale (0: any); the errors are those of :func:`export_onnx`."""
    path = resolve_weights(source)
    model = load_weights(path)
    if model.config.get("geometric", model.config["model"] != "d2a2-pico"):
        raise WeightsError(f"{source} has deformable convolutions, which cannot be exported; see d2a2 weights prune")
    if model.config.get("back_projections"):
        raise WeightsError(
            f"{source} back-projects with an antialiased reduction, which cannot be exported; use sensor weights"
        )
    if scale and scale not in model.scales:
        raise ValueError(f"weights {source} are for scales {list(model.scales)}, asked for {scale}")
    return path, model


def write_onnx(
    module: nn.Module, inputs: dict[str, Tensor], outputs: Sequence[str], target: str | Path, facts: dict[str, str]
) -> None:
    """Writes a module as an ONNX file of fixed sizes.

    Args:
        module: In eval mode.
        inputs: Name -> a tensor of the size and type, in the order of the module's arguments.
        outputs: Their names.
        target: The file.
        facts: The file's metadata.

    Raises:
        ImportError: onnx is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise ImportError('exporting needs the package onnx: pip install "onnx>=1.15,<2"') from error
    with replacing(target) as partial, warnings.catch_warnings(), torch.inference_mode():
        # Sizes become constants, as they should, and the exporter that traces is said to be old.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            tuple(inputs.values()),
            str(partial),
            input_names=list(inputs),
            output_names=list(outputs),
            opset_version=_OPSET,
            dynamo=False,
        )
        file = onnx.load(partial)
        for key, value in facts.items():
            file.metadata_props.add(key=key, value=value)
        onnx.save(file, partial)
