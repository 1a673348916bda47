"""A network run by OpenVINO on a CPU: in float32 the same result in two thirds of PyTorch's time; int8 in a third."""

from __future__ import annotations

import importlib.util
import sys
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from types import ModuleType
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from d2a2_core.runtime import compiled_cache as cache
from d2a2_core.runtime.base import Graph, GraphMaker, ModelRuntime
from d2a2_core.runtime.int8 import LEVELS, WEIGHT_LEVELS, Int8Ranges, weight_room

_KEPT = 8  # compiled networks: of four views at two scales
_PROBE = (240, 320)  # pixels of what int8 is timed on
_MOST = 32  # compilations of one network, where torch can go on: each leaves some 20 MB behind (traces are never freed)


def has_openvino() -> bool:
    """Whether the package openvino is installed."""
    return importlib.util.find_spec("openvino") is not None


class OpenVinoRuntime(ModelRuntime):
    """Runs a network by OpenVINO in float32 or int8, with as many threads as torch has when a size of images first comes.

    The network is traced and compiled for every such size, which takes seconds, and kept on disk
    (:mod:`d2a2_core.runtime.compiled_cache`); eight are kept in memory.

    Args:
        model: See :class:`ModelRuntime`; on the CPU.
        int8: Ranges of the convolutions that are computed in integers; None: all in float32.
        most_compiled: How often something may be compiled; one time more is a failure. None: any number.

    Raises:
        ImportError: openvino is not installed.
    """

    name = "openvino"

    def __init__(self, model: nn.Module, int8: Int8Ranges | None = None, most_compiled: int | None = None) -> None:
        if not has_openvino():
            raise ImportError("runtime 'openvino' needs the package openvino: pip install \"openvino>=2025.0,<2028\"")
        super().__init__(model, "cpu", "float32" if int8 is None else "int8")
        self._int8 = int8
        self._most = self._left = most_compiled
        self._network = _Compiled(self, model, False)

    @classmethod
    def installed(cls) -> bool:
        """Whether the package openvino is installed."""
        return has_openvino()

    @classmethod
    def lacks(cls, device: torch.device, precision: str, int8: Int8Ranges | None) -> str:
        """A CPU, float32 or int8; for int8 ranges."""
        if device.type != "cpu":
            return f"device 'cpu', got {str(device)!r}"
        if precision not in ("float32", "int8"):
            return f"precision float32 or int8, got {precision}"
        if precision == "int8" and int8 is None:
            return "weights with ranges beside them (d2a2 int8 --weights FILE)"
        return ""

    @classmethod
    def build(
        cls, model: nn.Module, device: torch.device, precision: str, int8: Int8Ranges | None, alone: bool
    ) -> OpenVinoRuntime:
        """See :meth:`ModelRuntime.build`. Only if it runs alone, images may be of any number of sizes."""
        return cls(model, int8 if precision == "int8" else None, None if alone else _MOST)

    @classmethod
    def int8_pays(cls, model: nn.Module, int8: Int8Ranges) -> bool:
        """Whether this computer computes a network in int8 faster than in float32, by a tenth at least, and to the same result.

        Measured once, on random images, and kept on disk. A flag of the CPU does not tell: with VNNI it nearly always pays,
        without it often does.
        """
        about, rows = cache.module_key(model), [(name, rows.tolist()) for name, rows in sorted(int8.ranges.items())]
        name = None if about is None else cache.key("int8", about, int8.scales, rows, *_conditions()) + ".json"
        facts = cache.read_facts(name) if name else None
        if facts is None or not isinstance(facts.get("pays"), bool):
            try:
                facts = _compare_int8(model, int8)
            except RuntimeError as error:
                warnings.warn(f"int8 is not used: {error.__cause__ or error}", RuntimeWarning, stacklevel=2)
                return False
            if name:
                cache.write_facts(name, facts)
        return facts["pays"]

    def __call__(self, guide: Tensor, lr: Tensor, trust: Tensor | None = None) -> Tensor:
        """See :meth:`Runtime.__call__`."""
        inputs = (guide, lr) if trust is None else (guide, lr, trust)
        return self._network(*(x.float() for x in inputs))[0]

    def whole(self, make: GraphMaker, profiled: bool = False) -> Graph:
        """See :meth:`Runtime.whole`: all of the graph is compiled."""
        return _Compiled(self, make(self.model).eval(), profiled)

    def count_compilation(self) -> None:
        """One compilation more, where another runtime can go on if there are too many."""
        if self._left == 0:
            raise RuntimeError(
                f"more than {self._most} models would be compiled, one or more for each size of images, and each takes memory "
                "that does not come back; give all images one size"
            )
        if self._left is not None:
            self._left -= 1

    def ranges(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> dict[str, tuple[float, float]]:
        """The ranges of the network's convolutions within a module, by their names there; none in float32."""
        prefix = next((name for name, part in module.named_modules() if part is self.model), None)
        if self._int8 is None or prefix is None:
            return {}
        shape = getattr(module, "shape", None)
        scale = shape.scale if shape is not None else inputs[0].shape[-1] // inputs[1].shape[-1]
        return {f"{prefix}.{name}" if prefix else name: ends for name, ends in self._int8.of(scale).items()}


@dataclass
class _Request:
    """A compiled model, how often it was called, and what :meth:`_Compiled.profile` told last: of how many calls, seconds."""

    infer: Any
    calls: int = 0
    told: tuple[int, dict[str, float]] = field(default_factory=lambda: (0, {}))


class _Compiled(Graph):
    """A module, compiled for each set of sizes of its inputs; those used last are kept."""

    def __init__(self, runtime: OpenVinoRuntime, module: nn.Module, profiled: bool) -> None:
        self._runtime, self._module, self._profiled = runtime, module, profiled
        self._by_sizes: dict[tuple[tuple[int, ...], ...], _Request] = {}
        # One thread may compile for other sizes while another computes, see d2a2_core.runtime.starting.
        self._lock = threading.Lock()

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        try:
            request = self._request(inputs)
            results = request.infer.infer([x.contiguous().numpy() for x in inputs], share_inputs=True)
            request.calls += 1
            # Copies: the next frame does not overwrite them.
            return tuple(torch.from_numpy(results[i]) for i in range(len(results)))
        except Exception as error:  # openvino's own kinds of errors have no common base
            raise RuntimeError(
                f"openvino cannot run this network ({type(error).__name__}: {error}); use runtime 'torch'"
            ) from error

    def profile(self) -> dict[str, float]:
        """See :meth:`Graph.profile`; the mean of the calls since it was last asked."""
        if not self._profiled or not self._by_sizes:
            return {}
        request = next(reversed(self._by_sizes.values()))
        total: dict[str, float] = {}
        for node in request.infer.get_profiling_info():
            inside = node.node_name.startswith("__module.")
            part = node.node_name.removeprefix("__module.").split("/")[0].split(".")[0] if inside else ""
            # What openvino tells is the mean of all calls so far.
            total[part] = total.get(part, 0.0) + request.calls * node.real_time.total_seconds()
        calls, before = request.told
        request.told = request.calls, total
        return {part: (value - before.get(part, 0.0)) / max(request.calls - calls, 1) for part, value in total.items()}

    def _request(self, inputs: tuple[Tensor, ...]) -> _Request:
        sizes = tuple(tuple(x.shape) for x in inputs)
        with self._lock:
            request = self._by_sizes.get(sizes)
        if request is None:
            ranges = self._runtime.ranges(self._module, inputs)
            counted = self._runtime.count_compilation
            request = _Request(_load_or_compile(self._module, inputs, ranges, self._profiled, counted))
        with self._lock:
            # The one used last stands last.
            self._by_sizes.pop(sizes, None)
            self._by_sizes[sizes] = request
            while len(self._by_sizes) > _KEPT:
                del self._by_sizes[next(iter(self._by_sizes))]
        return request


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


@lru_cache
def _core() -> Any:
    """The one openvino.Core of this process.

    Each brings a stack for signals along and, when it goes, puts the one before back: of several, that of one that is gone. The
    next signal then ends the process.
    """
    return _import_silently().Core()


def _conditions() -> tuple[Any, ...]:
    """What a compiled model depends on, beside the module and its inputs."""
    return _import_silently().__version__, torch.get_num_threads()


def _options(profiled: bool) -> dict[str, Any]:
    return {
        "PERF_COUNT": profiled,
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "ENABLE_CPU_PINNING": False,  # two processes would be bound to the same cores
    }


def _load_or_compile(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    ranges: dict[str, tuple[float, float]],
    profiled: bool,
    count_compilation: Callable[[], None],
) -> Any:
    """An infer request for inputs of these sizes: of what an earlier process compiled, where it did."""
    core, about = _core(), cache.module_key(module)
    kinds = [(tuple(x.shape), str(x.dtype)) for x in inputs]
    name = (
        None
        if about is None
        else cache.key(about, kinds, sorted(ranges.items()), profiled, *_conditions()) + ".openvino"
    )
    content = cache.read(name) if name else None
    if content is not None:
        try:
            return core.import_model(content, "CPU", _options(profiled)).create_infer_request()
        except Exception:  # openvino's own kinds of errors have no common base; it is compiled again
            content = None
    # What is loaded leaves next to nothing behind, so that it does not count.
    count_compilation()
    compiled = core.compile_model(_convert(module, inputs, ranges), "CPU", _options(profiled))
    if name:
        cache.write(name, compiled.export_model().getvalue())
    return compiled.create_infer_request()


def _convert(module: nn.Module, inputs: tuple[Tensor, ...], ranges: dict[str, tuple[float, float]]) -> Any:
    """The module as an OpenVINO model of fixed sizes."""
    _core()
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    # What openvino.convert_model does, in a third of its time.
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # that sizes become constants, as they should
        traced = torch.jit.trace(module, inputs, check_trace=False)
        frontend = FrontEndManager().load_by_framework("pytorch")
        decoder = TorchScriptPythonDecoder(traced, example_input=inputs)  # the frontend does not keep it alive
        network = frontend.convert(frontend.load(decoder))
    network.reshape({index: list(x.shape) for index, x in enumerate(inputs)})
    _enlarge_by_convolution(network)
    if ranges:
        _round_inputs(network, module, ranges)
    return network


def _compare_int8(model: nn.Module, int8: Int8Ranges) -> dict[str, Any]:
    """Times both precisions in turns, and compares their results."""
    random, scale = torch.Generator().manual_seed(0), int8.scales[0]
    lr = torch.rand(1, 1, *(length // scale for length in _PROBE), generator=random)
    smooth = nn.functional.avg_pool2d(lr, 5, 1, 2, count_include_pad=False)
    guide = nn.functional.interpolate(smooth, size=_PROBE, mode="bilinear").expand(-1, 3, -1, -1).contiguous()
    runtimes = [OpenVinoRuntime(model), OpenVinoRuntime(model, int8)]
    inputs = (guide, smooth, torch.ones_like(lr))[: 2 + runtimes[0].takes_trust]
    exact, rounded = (runtime(*inputs) for runtime in runtimes)
    best = [float("inf")] * 2
    for _ in range(7):
        for i, runtime in enumerate(runtimes):
            started = time.perf_counter()
            runtime(*inputs)
            best[i] = min(best[i], time.perf_counter() - started)
    # In units of the range that depth is normalised by. Sums that overflow give errors of its size.
    error = float((exact - rounded).abs().mean())
    return {"pays": best[1] < 0.9 * best[0] and error < 0.02, "float32": best[0], "int8": best[1], "error": error}


def _round_inputs(network: Any, module: nn.Module, ranges: dict[str, tuple[float, float]]) -> None:
    """Rounds the inputs and weights of ``ranges``' convolutions to integers of 8 bits, which lets OpenVINO compute in these."""
    from openvino import opset13 as ops

    def rounded(source: Any, low: np.ndarray, high: np.ndarray, levels: int) -> Any:
        low, high = (ops.constant(limit.astype(np.float32)) for limit in (low, high))
        return ops.fake_quantize(source, low, high, low, high, levels).output(0)

    done = set()
    for node in network.get_ops():
        name = node.get_friendly_name().split("/")[0].removeprefix("__module.")
        if node.get_type_name() != "Convolution" or name not in ranges:
            continue
        low, high = (np.full((1, 1, 1, 1), limit) for limit in ranges[name])
        weight = cast(nn.Conv2d, module.get_submodule(name)).weight.detach()
        largest = weight_room() * weight.abs().amax((1, 2, 3)).clamp(min=1e-12).numpy().reshape(-1, 1, 1, 1)
        node.input(0).replace_source_output(rounded(node.input_value(0), low, high, LEVELS))
        node.input(1).replace_source_output(rounded(node.input_value(1), -largest, largest, WEIGHT_LEVELS))
        done.add(name)
    if done != set(ranges):
        missing = sorted(set(ranges) - done)
        raise RuntimeError(
            f"{len(missing)} of {len(ranges)} convolutions for int8 are not in the network: {missing[:3]}"
        )


def _enlarge_by_convolution(network: Any) -> None:
    """Puts a convolution and a shuffle in the place of each bicubic or bilinear enlargement of one plane by a whole factor.

    The result is the same, up to rounding. OpenVINO's own to 640x480 take 9 ms (bicubic, more than any layer of
    d2a2-nano-sensor) and up to 4 ms (bilinear).
    """
    from openvino import opset13 as ops

    for node in network.get_ops():
        if node.get_type_name() != "Interpolate":
            continue
        how = node.get_attributes()
        (_, channels, *small), (*_, height, width) = node.input(0).get_shape(), node.output(0).get_shape()
        factor = height // small[0]
        reach = {"cubic": 2, "linear": 1, "linear_onnx": 1}.get(how["mode"])
        if (
            reach is None
            or how["antialias"]
            or "half_pixel" not in how["coordinate_transformation_mode"]
            or channels != 1
            or factor < 2
            or (height, width) != (factor * small[0], factor * small[1])
        ):
            continue
        weights = _enlarging_weights(factor, reach, how["cube_coeff"])
        around = ops.constant(np.array([0, 0, reach, reach]))
        padded = ops.pad(node.input_value(0), around, around, "edge")
        phases = ops.convolution(padded, ops.constant(weights), [1, 1], [0, 0], [0, 0], [1, 1])
        node.output(0).replace(ops.depth_to_space(phases, "depth_first", factor).output(0))


def _enlarging_weights(factor: int, reach: int, a: float) -> np.ndarray:
    """(factor^2, 1, n, n): what each of the n x n values around one, n = 2 reach + 1, gives to the factor x factor in its place.

    Bilinear with a reach of 1, bicubic with 2. Source: Keys, "Cubic convolution interpolation for digital image processing",
    1981; ``a`` is his.
    """
    at = (np.arange(factor) + 0.5) / factor - 0.5
    x = np.abs(at[:, None] - np.arange(-reach, reach + 1))
    if reach == 1:
        rows = (1 - x).clip(min=0)
    else:
        near, far = ((a + 2) * x - (a + 3)) * x * x + 1, a * (((x - 5) * x + 8) * x - 4)
        rows = np.where(x <= 1, near, np.where(x < 2, far, 0.0))
    return np.einsum("ai,bj->abij", rows, rows).reshape(factor**2, 1, *[2 * reach + 1] * 2).astype(np.float32)
