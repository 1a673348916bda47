"""A network run by OpenVINO on a CPU: the same result in two thirds of the time or less, where that package is installed."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

_KEPT = 8  # compiled networks: of four views at two scales


def has_openvino() -> bool:
    """Whether the package openvino is installed."""
    return importlib.util.find_spec("openvino") is not None


class OpenVinoNetwork(nn.Module):
    """Runs a network by OpenVINO in float32, with as many threads as torch has when a size of images first comes.

    For every such size the network is traced and compiled anew, in about two seconds; eight are kept.

    Args:
        model: called as ``model(guide, lr)`` or ``model(guide, lr, trust)``, on the CPU; its weights must not change any more.
        fallback: what OpenVINO cannot run is left to torch, with a warning; else it is an error.

    Raises:
        ImportError: openvino is not installed.
    """

    def __init__(self, model: nn.Module, fallback: bool = False) -> None:
        super().__init__()
        if not has_openvino():
            raise ImportError('runtime "openvino" needs the package openvino: pip install "openvino>=2025.0"')
        self.model = model
        self.fallback = fallback
        self.fell_back = False
        self._compiled: dict[tuple, Callable[..., Tensor]] = {}

    def forward(self, *inputs: Tensor) -> Tensor:
        """As the network's.

        Raises:
            RuntimeError: OpenVINO cannot run this network, and nothing else is to.
        """
        sizes = tuple(tuple(x.shape) for x in inputs)
        run = self._compiled.pop(sizes, None)
        if run is None:
            run = self._compile(inputs)
            while len(self._compiled) >= _KEPT:
                del self._compiled[next(iter(self._compiled))]  # the one that has not been used for longest
        self._compiled[sizes] = run
        return run(*inputs)

    def _compile(self, inputs: tuple[Tensor, ...]) -> Callable[..., Tensor]:
        try:
            return _compile(self.model, inputs)
        except Exception as error:  # the runtime's own kinds of error have no common base
            said = f"OpenVINO cannot run this network ({type(error).__name__}: {error})"
            if not self.fallback:
                raise RuntimeError(f'{said}; use runtime "torch"') from error
            self.fell_back = True
            warnings.warn(f"{said}; PyTorch does", RuntimeWarning, stacklevel=3)
            return self.model


def _compile(model: nn.Module, inputs: tuple[Tensor, ...]) -> Callable[..., Tensor]:
    # Not openvino.convert_model, which does the same in three times the time and reports to a statistics server.
    import openvino
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that sizes become constants, as they should
        traced = torch.jit.trace(model, inputs, check_trace=False)
        frontend = FrontEndManager().load_by_framework("pytorch")
        decoder = TorchScriptPythonDecoder(traced, example_input=inputs)  # the frontend does not keep it alive
        network = frontend.convert(frontend.load(decoder))
    network.reshape({index: list(x.shape) for index, x in enumerate(inputs)})
    threads = torch.get_num_threads()
    options = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    request = openvino.Core().compile_model(network, "CPU", options).create_infer_request()

    def run(*given: Tensor) -> Tensor:
        result = request.infer([x.float().contiguous().numpy() for x in given], share_inputs=True)
        return torch.from_numpy(result[0])  # a copy: the next frame does not overwrite it

    return run
