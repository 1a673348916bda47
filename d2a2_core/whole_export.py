"""Whole frames as ONNX files: for robots that have ONNX Runtime and NumPy, and no PyTorch."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from d2a2_core import __version__
from d2a2_core.depth.lr_grid import choose_scale
from d2a2_core.frame_graph import FrameShape
from d2a2_core.network import takes_trust
from d2a2_core.runtime.onnx_export import EXPORT_KEY, exportable, write_onnx
from d2a2_core.weights import sha256
from d2a2_core.weights.sidecars import load_sigma_head
from d2a2_core.whole_frame import WholeFrame

INPUTS = {
    "color": "uint8 (1, H, W, 3) RGB",
    "depth": "float32 (1, 1, h, w) metres, in the colour image's view; 0 and NaN are invalid",
    "limits": "float32 (6,): least and largest depth, bounds of consistency (m, share), least value and span of the range "
    "(span 0: this frame's own)",
    "camera": "float32 (4,): fx, fy, cx, cy of the colour image",
}
OUTPUTS = {
    "upsampled": "float32 (1, 1, H, W) metres, NaN where there is no depth",
    "provenance": "uint8 (1, 1, H, W): 0 none, 1 measured, 2 refined, 3 filled, 4 removed",
    "residual": "float32 (1,): largest deviation from a trusted measurement in metres, -1 without one",
    "range": "float32 (2,): least value and span that this frame asks for",
    "sigma": "float32 (1, 1, H, W) metres, half of the 68 % interval",
    "points": "float32 (1, H, W, 3) metres, x right, y down, z ahead",
}


def export_whole(
    source: str | Path,
    target: Path,
    size: tuple[int, int],
    depth_size: tuple[int, int],
    scale: int = 0,
    sigma: bool = True,
    points: bool = False,
    max_fill_px: float = 16.0,
) -> tuple[str, ...]:
    """Writes everything from a registered pair to depth as one ONNX file of fixed sizes.

    Args:
        source: Shipped name or path of weights without deformable convolutions.
        target: The file; one that is there is replaced.
        size, depth_size: (H, W) of the images.
        scale: One of the weights'; 0 takes the nearest to the ratio of the sizes.
        sigma: Whether the uncertainty is an output, where the weights have a head for it.
        points: Whether points are.
        max_fill_px: See :class:`d2a2_core.pipeline.PipelineSettings`.

    Returns:
        Names of the outputs.

    Raises:
        WeightsError: No such weights, or they cannot be exported.
        ImportError: onnx is not installed.
        ValueError: A scale that the weights are not for, or sizes that cannot be of one view.
    """
    path, model = exportable(source, scale)
    scale = choose_scale((scale,) if scale else model.scales, size, depth_size)
    shape = FrameShape(size, scale, depth_size, registered=False, max_fill_px=max_fill_px)
    head = load_sigma_head(source) if sigma else None
    whole = WholeFrame(model.eval(), takes_trust(model), shape, head, points).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    inputs = {
        "color": torch.randint(0, 256, (1, *size, 3), dtype=torch.uint8, generator=generator),
        "depth": 1 + torch.rand(1, 1, *depth_size, generator=generator),
        "limits": torch.tensor([0.05, 20.0, 0.02, 0.02, 0.0, 0.0]),
    } | ({"camera": torch.tensor([size[1], size[1], size[1] / 2, size[0] / 2], dtype=torch.float32)} if points else {})
    facts = {
        "whole_frame": True,
        "version": __version__,
        "weights": path.stem,
        "weights_sha256": sha256(path),
        "scale": scale,
        "color_size": list(size),
        "depth_size": list(depth_size),
        "inputs": {name: INPUTS[name] for name in inputs},
        "outputs": {name: OUTPUTS[name] for name in whole.outputs},
    }
    write_onnx(whole, inputs, whole.outputs, target, {EXPORT_KEY: json.dumps(facts)})
    return whole.outputs
