"""Networks as ONNX files, for runtimes other than PyTorch: written here, and run here by ONNX Runtime."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from d2a2_core.files import replacing
from d2a2_core.network import takes_trust
from d2a2_core.weights import WeightsError, load_weights, read_info, resolve_weights
from d2a2_core.weights.sidecars import SIGMA

_OPSET = 18
_KEY = "d2a2"  # of the file's metadata


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
    try:
        import onnx
    except ImportError as error:
        raise ImportError('exporting needs the package onnx: pip install "onnx>=1.15,<2"') from error
    path = resolve_weights(source)
    model = load_weights(path)
    if model.config.get("geometric", True):
        raise WeightsError(f"{source} has deformable convolutions, which cannot be exported; see d2a2 weights prune")
    if model.config.get("back_projections"):
        raise WeightsError(
            f"{source} back-projects with an antialiased reduction, which cannot be exported; use sensor weights"
        )
    if scale not in model.scales:
        raise ValueError(f"weights {source} are for scales {list(model.scales)}, asked for {scale}")
    height, width = (-(-length // scale) * scale for length in size)
    lr = torch.rand(1, 1, height // scale, width // scale)
    inputs = {"guide": torch.rand(1, 3, height, width), "lr": lr} | (
        {"trust": torch.ones_like(lr)} if takes_trust(model) else {}
    )
    with replacing(target) as partial, warnings.catch_warnings(), torch.inference_mode():
        # Sizes become constants, as they should, and the exporter that traces is said to be old.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model, tuple(inputs.values()), str(partial), input_names=list(inputs), output_names=["hr"],
            opset_version=_OPSET, dynamo=False,
        )  # fmt: skip
        file = onnx.load(partial)
        facts = {"scale": scale, "source": path.stem, "card": read_info(path).card}
        file.metadata_props.add(key=_KEY, value=json.dumps(facts))
        onnx.save(file, partial)
    SIGMA.copy(source, target)


class OnnxModel(nn.Module):
    """A file of :func:`export_onnx` as a network, run by ONNX Runtime.

    Where it runs is up to the runtime that is installed: the first of its execution providers that works (TensorRT, CUDA,
    OpenVINO, ..., the CPU last), in the file's float32; on the CPU with as many threads as torch has now.

    Args:
        path: the file.
        providers: ONNX Runtime's execution providers instead of all there are.

    Raises:
        WeightsError: no such file, or not one of :func:`export_onnx`.
        ImportError: onnxruntime is not installed.
    """

    def __init__(self, path: str | Path, providers: list[str] | None = None) -> None:
        super().__init__()
        try:
            import onnxruntime
        except ImportError as error:
            raise ImportError(f'{path} needs the package onnxruntime: pip install "onnxruntime>=1.17,<2"') from error
        self.path = Path(path)
        try:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = torch.get_num_threads()
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=providers or onnxruntime.get_available_providers()
            )
            facts: dict[str, Any] = json.loads(self._session.get_modelmeta().custom_metadata_map[_KEY])
        except Exception as error:  # the runtime's own kinds of error have no common base
            raise WeightsError(f"{path} is no file of d2a2 export, or damaged ({error}); export it again") from error
        self._shapes = {entry.name: tuple(entry.shape) for entry in self._session.get_inputs()}
        self.precision = "float32"
        self.scales: tuple[int, ...] = (int(facts["scale"]),)
        self.takes_trust = "trust" in self._shapes
        self.config = {"model": "onnx", "scale": self.scales[0], "source": facts["source"]}

    def forward(self, guide: Tensor, lr: Tensor, *trust: Tensor) -> Tensor:
        """As the exported network's: guide (1, 3, H, W), lr and trust (1, 1, H / s, W / s) -> (1, 1, H, W), of the file's size.

        Raises:
            ValueError: another size.
        """
        given = dict(zip(self._shapes, (guide, lr, *trust), strict=False))
        if self.takes_trust and not trust:
            given["trust"] = torch.ones_like(lr)
        if {name: tuple(x.shape) for name, x in given.items()} != self._shapes:
            (_, _, height, width), scale = self._shapes["guide"], self.scales[0]
            raise ValueError(
                f"{self.path.name} was exported for one {width}x{height} image at x{scale}, got guide {tuple(guide.shape)} and "
                f"lr {tuple(lr.shape)}; export another: d2a2 export ... --size {guide.shape[-1]}x{guide.shape[-2]} "
                "(an ensemble of 4 or 8 views turns the image: of a file only 1 or 2, unless it is square)"
            )
        arrays = {name: np.ascontiguousarray(x.float().cpu().numpy()) for name, x in given.items()}
        return torch.from_numpy(self._session.run(None, arrays)[0]).to(guide.device)
