"""An ONNX file run by ONNX Runtime: one of `d2a2 export`, or anybody's with the same inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from d2a2_core.runtime.base import Runtime
from d2a2_core.weights import WeightsError


class OnnxRuntime(Runtime):
    """Runs an ONNX file by ONNX Runtime, in the file's float32.

    Where it runs is up to the onnxruntime that is installed: the first of its execution providers that works (TensorRT, CUDA,
    OpenVINO, ..., the CPU last); on the CPU with as many threads as torch has now.

    Args:
        path: The file. Its inputs are ``guide``, ``lr`` and perhaps ``trust``, all float32, of fixed sizes or of any; its first
            output is the HR depth. See :meth:`Runtime.__call__`.
        device: Device on which tensors go in and come out.
        providers: ONNX Runtime's execution providers; default are all that it has.

    Raises:
        ImportError: onnxruntime is not installed.
        WeightsError: No such file, or it is damaged.
        ValueError: The file has other inputs, or another output.
    """

    name = "onnx"
    precision = "float32"

    def __init__(
        self, path: str | Path, device: torch.device | str = "cpu", providers: list[str] | None = None
    ) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise ImportError(f'{path} needs the package onnxruntime: pip install "onnxruntime>=1.17,<2"') from error
        self.path = Path(path)
        self.device = torch.device(device)
        if not self.path.is_file():
            raise WeightsError(f"expected an ONNX file at {path}, found no such file")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=providers or onnxruntime.get_available_providers()
            )
        except Exception as error:  # onnxruntime's own kinds of errors have no common base
            raise WeightsError(
                f"{path} is no ONNX file, or damaged ({error}); write it again, for instance with d2a2 export"
            ) from error
        # An axis of any size has a name, or None, in place of a number.
        self._shapes = {entry.name: tuple(entry.shape) for entry in self._session.get_inputs()}
        if "limits" in self._shapes:
            raise ValueError(
                f"{path} is a whole frame's file, which runs without this package (examples/onnx_frame.py); as weights take "
                "one that d2a2 export wrote without --whole"
            )
        if not {"guide", "lr"} <= set(self._shapes) <= {"guide", "lr", "trust"}:
            raise ValueError(f"{path}: expected the inputs 'guide' and 'lr', found {self._shapes}")
        if any(len(shape) != 4 for shape in self._shapes.values()):
            raise ValueError(f"{path}: expected inputs with four axes (B, C, H, W), found {self._shapes}")
        # Only tensors of float32 can be given to it.
        if wrong := {e.name: e.type for e in self._session.get_inputs() if e.type != "tensor(float)"}:
            raise ValueError(f"{path}: expected inputs of float32, found {wrong}")
        outputs = self._session.get_outputs()
        if not outputs or outputs[0].type != "tensor(float)":
            raise ValueError(
                f"{path}: expected the depth in float32 as first output, found {[e.type for e in outputs]}"
            )
        self._output = outputs[0].name
        self.takes_trust = "trust" in self._shapes
        self.scales = _fixed_scale(self._shapes["guide"], self._shapes["lr"])

    def __call__(self, guide: Tensor, lr: Tensor, trust: Tensor | None = None) -> Tensor:
        """See :meth:`Runtime.__call__`.

        Raises:
            ValueError: Another size than the file's.
            RuntimeError: ONNX Runtime cannot compute it, or the result is no depth of the guide's size.
        """
        given = {"guide": guide, "lr": lr}
        if self.takes_trust:
            given["trust"] = torch.ones_like(lr) if trust is None else trust
        for name, x in given.items():
            self._check(name, tuple(x.shape), f"{guide.shape[-1]}x{guide.shape[-2]}")
        arrays = {name: np.ascontiguousarray(x.float().cpu().numpy()) for name, x in given.items()}
        try:
            result = self._session.run([self._output], arrays)[0]
        except Exception as error:  # see above
            raise RuntimeError(f"{self.path.name} cannot be computed ({type(error).__name__}: {error})") from error
        size = (len(guide), 1, *guide.shape[-2:])
        if not isinstance(result, np.ndarray) or result.dtype != np.float32 or result.shape != size:
            raise RuntimeError(f"{self.path.name}: expected a result of float32 {size}, got {_kind_of(result)}")
        return torch.from_numpy(result).to(guide.device)

    def _check(self, name: str, shape: tuple[int, ...], size: str) -> None:
        expected = self._shapes[name]
        if any(isinstance(want, int) and want != got for want, got in zip(expected, shape, strict=True)):
            raise ValueError(
                f"{self.path.name}: input {name!r} is fixed to {expected}, got {shape}; make a file for images of that size "
                f"(d2a2 export ... --size {size}). An ensemble of 4 or 8 views turns the image: of a file of fixed size only "
                "1 or 2, unless it is square"
            )


def _kind_of(value: Any) -> str:
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__


def _fixed_scale(guide: tuple[Any, ...], lr: tuple[Any, ...]) -> tuple[int, ...]:
    """The scale of a file whose sizes are fixed; empty for one of any size."""
    if not all(isinstance(length, int) and length > 0 for length in (*guide[2:], *lr[2:])):
        return ()
    scale = guide[-1] // lr[-1]
    return (scale,) if guide[2:] == tuple(scale * length for length in lr[2:]) else ()
