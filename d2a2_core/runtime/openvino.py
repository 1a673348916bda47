"""A network run by OpenVINO on a CPU: in float32 the same result in two thirds of PyTorch's time; int8 in a third."""

from __future__ import annotations

import importlib.util
import sys
import warnings
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from d2a2_core.runtime.base import ModelRuntime
from d2a2_core.runtime.device import has_int8
from d2a2_core.runtime.int8 import LEVELS, WEIGHT_LEVELS, Int8Ranges, int8_convolutions

_KEPT = 8  # compiled networks: of four views at two scales
_MOST = 32  # compilations of one network, where torch can go on: each leaves some 20 MB behind (traces are never freed)


def has_openvino() -> bool:
    """Whether the package openvino is installed."""
    return importlib.util.find_spec("openvino") is not None


class OpenVinoRuntime(ModelRuntime):
    """Runs a network by OpenVINO in float32 or int8, with as many threads as torch has when a size of images first comes.

    The network is traced and compiled for every such size, which takes two seconds or more; eight are kept.

    Args:
        model: See :class:`ModelRuntime`; on the CPU.
        int8: Ranges of the convolutions that are computed in integers; None: all in float32.
        most_compiled: How often the network may be compiled; one time more is a failure. None: any number.

    Raises:
        ImportError: openvino is not installed.
    """

    name = "openvino"

    def __init__(self, model: nn.Module, int8: Int8Ranges | None = None, most_compiled: int | None = None) -> None:
        if not has_openvino():
            raise ImportError("runtime 'openvino' needs the package openvino: pip install \"openvino>=2025.0,<2028\"")
        super().__init__(model, "cpu", "float32" if int8 is None else "int8")
        self._int8 = int8
        self._most_compiled = most_compiled
        self._compiled: dict[tuple[tuple[int, ...], ...], Callable[..., Tensor]] = {}
        self._count = 0

    @classmethod
    def installed(cls) -> bool:
        """Whether the package openvino is installed."""
        return has_openvino()

    @classmethod
    def lacks(cls, device: torch.device, precision: str, int8: Int8Ranges | None) -> str:
        """A CPU, float32 or int8; for int8 VNNI, and ranges."""
        if device.type != "cpu":
            return f"device 'cpu', got {str(device)!r}"
        if precision not in ("float32", "int8"):
            return f"precision float32 or int8, got {precision}"
        if precision == "int8" and not has_int8():
            return "a CPU with VNNI"
        if precision == "int8" and int8 is None:
            return "weights with ranges beside them (d2a2 int8 --weights FILE)"
        return ""

    @classmethod
    def build(
        cls, model: nn.Module, device: torch.device, precision: str, int8: Int8Ranges | None, alone: bool
    ) -> OpenVinoRuntime:
        """See :meth:`ModelRuntime.build`. Only if it runs alone, images may be of any number of sizes."""
        return cls(model, int8 if precision == "int8" else None, None if alone else _MOST)

    def __call__(self, guide: Tensor, lr: Tensor, trust: Tensor | None = None) -> Tensor:
        """See :meth:`Runtime.__call__`."""
        try:
            return self._run((guide, lr) if trust is None else (guide, lr, trust))
        except Exception as error:  # openvino's own kinds of errors have no common base
            raise RuntimeError(
                f"openvino cannot run this network ({type(error).__name__}: {error}); use runtime 'torch'"
            ) from error

    def _run(self, inputs: tuple[Tensor, ...]) -> Tensor:
        sizes = tuple(tuple(x.shape) for x in inputs)
        run = self._compiled.pop(sizes, None)
        if run is None:
            if self._count == self._most_compiled:
                raise RuntimeError(
                    f"images of more than {self._count} sizes, each of which takes memory that does not come back"
                )
            self._count += 1
            run = _compile(self.model, inputs, self._int8)
            while len(self._compiled) >= _KEPT:
                # The one that has not been used for longest.
                del self._compiled[next(iter(self._compiled))]
        self._compiled[sizes] = run
        return run(*inputs)


def _import_silently() -> ModuleType:
    """openvino, without its reports to a statistics server.

    It comes with a package that sends one when openvino is imported, by a process forked from this one, and lays an identifier
    into the home directory. Where that package cannot be imported openvino does without.
    """
    reporting = "openvino_telemetry"
    blocked = "openvino" not in sys.modules and reporting not in sys.modules
    if blocked:
        # None makes its import fail; the type stubs know only modules.
        sys.modules[reporting] = None  # type: ignore[assignment]
    try:
        import openvino
    finally:
        if blocked:
            del sys.modules[reporting]
    return openvino


@cache
def _core() -> Any:
    """The one openvino.Core of this process.

    Each brings a stack for signals along and, when it goes, puts the one before back: of several, that of one that is gone. The
    next signal then ends the process.
    """
    return _import_silently().Core()


def _compile(model: nn.Module, inputs: tuple[Tensor, ...], int8: Int8Ranges | None) -> Callable[..., Tensor]:
    core = _core()
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    # What openvino.convert_model does, in a third of its time.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that sizes become constants, as they should
        traced = torch.jit.trace(model, inputs, check_trace=False)
        frontend = FrontEndManager().load_by_framework("pytorch")
        decoder = TorchScriptPythonDecoder(traced, example_input=inputs)  # the frontend does not keep it alive
        network = frontend.convert(frontend.load(decoder))
    network.reshape({index: list(x.shape) for index, x in enumerate(inputs)})
    _enlarge_by_convolution(network)
    if int8 is not None:
        _round_inputs(network, model, int8.of(inputs[0].shape[-1] // inputs[1].shape[-1]))
    options = {
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "ENABLE_CPU_PINNING": False,  # two processes would be bound to the same cores
    }
    request = core.compile_model(network, "CPU", options).create_infer_request()

    def run(*given: Tensor) -> Tensor:
        result = request.infer([x.float().contiguous().numpy() for x in given], share_inputs=True)
        return torch.from_numpy(result[0])  # a copy: the next frame does not overwrite it

    return run


def _round_inputs(network: Any, model: nn.Module, ranges: dict[str, tuple[float, float]]) -> None:
    """Rounds the inputs and weights of ``ranges``' convolutions to integers of 8 bits, which lets OpenVINO compute in these."""
    from openvino import opset13 as ops

    def rounded(source: Any, low: np.ndarray, high: np.ndarray, levels: int) -> Any:
        low, high = (ops.constant(limit.astype(np.float32)) for limit in (low, high))
        return ops.fake_quantize(source, low, high, low, high, levels).output(0)

    convolutions, done = int8_convolutions(model), set()
    for node in network.get_ops():
        name = node.get_friendly_name().split("/")[0].removeprefix("__module.")
        if node.get_type_name() != "Convolution" or name not in ranges or name not in convolutions:
            continue
        low, high = (np.full((1, 1, 1, 1), limit) for limit in ranges[name])
        largest = convolutions[name].weight.detach().abs().amax((1, 2, 3)).clamp(min=1e-12).numpy().reshape(-1, 1, 1, 1)
        node.input(0).replace_source_output(rounded(node.input_value(0), low, high, LEVELS))
        node.input(1).replace_source_output(rounded(node.input_value(1), -largest, largest, WEIGHT_LEVELS))
        done.add(name)
    if done != set(ranges):
        missing = sorted(set(ranges) - done)
        raise RuntimeError(
            f"{len(missing)} of {len(ranges)} convolutions for int8 are not in the network: {missing[:3]}"
        )


def _enlarge_by_convolution(network: Any) -> None:
    """Puts a convolution and a shuffle in the place of each bicubic enlargement by a whole factor.

    The result is the same, up to rounding; OpenVINO's own takes 9 ms to 640x480, more than any layer of d2a2-nano-sensor.
    """
    from openvino import opset13 as ops

    for node in network.get_ops():
        if node.get_type_name() != "Interpolate":
            continue
        how = node.get_attributes()
        (_, channels, *small), (*_, height, width) = node.input(0).get_shape(), node.output(0).get_shape()
        factor = height // small[0]
        if (
            how["mode"] != "cubic"
            or how["antialias"]
            or "half_pixel" not in how["coordinate_transformation_mode"]
            or channels != 1
            or factor < 2
            or (height, width) != (factor * small[0], factor * small[1])
        ):
            continue
        weights = _bicubic_weights(factor, how["cube_coeff"])
        around = ops.constant(np.array([0, 0, 2, 2]))
        padded = ops.pad(node.input_value(0), around, around, "edge")
        phases = ops.convolution(padded, ops.constant(weights), [1, 1], [0, 0], [0, 0], [1, 1])
        node.output(0).replace(ops.depth_to_space(phases, "depth_first", factor).output(0))


def _bicubic_weights(factor: int, a: float) -> np.ndarray:
    """(factor^2, 1, 5, 5): what each of the 5 x 5 values around one gives to the factor x factor values in its place.

    Source: Keys, "Cubic convolution interpolation for digital image processing", 1981; ``a`` is his.
    """
    rows = np.zeros((factor, 5))
    for phase in range(factor):
        at = (phase + 0.5) / factor - 0.5
        for i, tap in enumerate(range(-2, 3)):
            x = abs(at - tap)
            if x <= 1:
                rows[phase, i] = ((a + 2) * x - (a + 3)) * x * x + 1
            elif x < 2:
                rows[phase, i] = a * (((x - 5) * x + 8) * x - 4)
    return np.einsum("ai,bj->abij", rows, rows).reshape(factor**2, 1, 5, 5).astype(np.float32)
