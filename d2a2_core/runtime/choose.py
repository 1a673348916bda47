"""Chooses what computes a network: the one place that decides on runtime, device and precision."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from torch import nn

from d2a2_core.runtime.base import ModelRuntime, Runtime
from d2a2_core.runtime.device import precisions_to_try, resolve_device
from d2a2_core.runtime.fallback import FallbackRuntime
from d2a2_core.runtime.int8 import Int8Ranges, load_int8
from d2a2_core.runtime.onnx import OnnxRuntime
from d2a2_core.runtime.openvino import OpenVinoRuntime
from d2a2_core.runtime.pytorch import TorchRuntime
from d2a2_core.runtime.starting import StartingRuntime
from d2a2_core.weights import load_any, load_weights, resolve_weights

#: The runtimes to choose from, in the order in which "auto" prefers them. PyTorch is the last: it takes over when another fails.
KINDS: tuple[type[ModelRuntime], ...] = (OpenVinoRuntime, TorchRuntime)
RUNTIMES = ("auto", *(kind.name for kind in reversed(KINDS)))


def choose_runtime(
    model: nn.Module,
    device: str = "auto",
    precision: str = "auto",
    runtime: str = "torch",
    int8: Int8Ranges | None = None,
    at_once: bool = False,
) -> Runtime:
    """The runtime that computes a network as a user wants it.

    Args:
        model: Network, see :class:`ModelRuntime`; it is moved to the device and put into eval mode, its gradients switched off.
        device: "auto" (the GPU where there is one), "cpu", "cuda", "cuda:1", ...
        precision: One of :data:`PRECISIONS`, or "auto": the first of these that the hardware computes in and a runtime supports:
            int8 (on a CPU, by OpenVINO, with ``int8``, where a measurement says that it is faster), bfloat16 (a GPU since Ampere;
            a CPU with AVX512-BF16 or AMX),
            float16 (a GPU), float32.
        runtime: Name of a runtime, or "auto": the first of ``KINDS`` that is installed and can; PyTorch goes on, with a
            RuntimeWarning, if that fails later.
        int8: What int8 needs to know of the weights.
        at_once: With runtime "auto": frames need not wait for what measures or compiles first, PyTorch computes them meanwhile,
            see :class:`StartingRuntime`. Their last digits then depend on when it is ready.

    Raises:
        ImportError: The runtime that was asked for is not installed.
        ValueError: Unknown device, precision or runtime, or ones that do not go together.
    """
    names = ("auto", *(kind.name for kind in KINDS))
    if runtime not in names:
        raise ValueError(f"runtime must be one of {names}, got {runtime!r}")
    place = resolve_device(device)

    def lacks(kind: type[ModelRuntime], wanted: str) -> str:
        # One that was asked for by name is built even so: that error says what to install.
        if runtime != kind.name and not kind.installed():
            return f"the package {kind.name}"
        return kind.lacks(place, wanted, int8)

    asked = [kind for kind in KINDS if runtime in ("auto", kind.name)]
    tried = precisions_to_try(precision, place)
    for wanted in tried:
        for kind in asked:
            if not lacks(kind, wanted):
                model = model.eval().requires_grad_(False).to(place)
                if at_once and runtime == "auto" and kind is not TorchRuntime:
                    choose = partial(choose_runtime, model, device, precision, runtime, int8)
                    return StartingRuntime(choose, TorchRuntime(model, place, "float32"))
                if wanted == "int8" and precision == "auto" and not (int8 and kind.int8_pays(model, int8)):
                    continue
                alone = runtime != "auto" or kind is TorchRuntime
                chosen = kind.build(model, place, wanted, int8, alone)
                return chosen if alone else FallbackRuntime(chosen, _reserve(model, chosen))
    reasons = "; ".join(f"{kind.name} needs {lacks(kind, wanted)}" for kind in asked)
    possible = any(not lacks(kind, other) for kind in asked for other in precisions_to_try("auto", place))
    ways = ["precision 'auto'"] if possible else []
    ways += [f"runtime {kind.name!r}" for kind in KINDS if not lacks(kind, wanted)]
    raise ValueError(
        f"precision {precision!r} with runtime {runtime!r} on device {str(place)!r} is not possible: {reasons}; use "
        f"{' or '.join(ways)}"
    )


def _reserve(model: nn.Module, chosen: ModelRuntime) -> TorchRuntime:
    """PyTorch in the same precision where it can, else in float32."""
    can = not TorchRuntime.lacks(chosen.device, chosen.precision, None)
    return TorchRuntime(model, chosen.device, chosen.precision if can else "float32")


def open_runtime(
    name_or_path: str | Path,
    device: str = "auto",
    precision: str = "auto",
    runtime: str = "torch",
    backend: str = "auto",
    scale: int = 0,
    at_once: bool = False,
) -> Runtime:
    """The runtime of weights that ship with the package (by name), a .safetensors or an .onnx file (by path).

    ONNX Runtime runs an .onnx file, in float32. The arguments are those of :func:`choose_runtime`, and:

    Args:
        backend: Backend of the deformable convolution.
        scale: Scale of an authors' .pth checkpoint, which does not say it; without it such a file is refused.
        at_once: See :func:`choose_runtime`; ONNX Runtime has nothing to wait for.

    Raises:
        ImportError, ValueError: See :func:`choose_runtime`.
        WeightsError: No such weights, or they are damaged.
    """
    path = resolve_weights(name_or_path)
    if path.suffix == ".onnx":
        if runtime not in ("auto", TorchRuntime.name) or precision not in ("auto", OnnxRuntime.precision):
            raise ValueError(
                f"{path.name} is an .onnx file, which ONNX Runtime computes in float32, got runtime {runtime!r} and precision "
                f"{precision!r}; use 'auto' for both, or the .safetensors file it was made of"
            )
        return OnnxRuntime(path, resolve_device(device))
    model = load_any(path, scale, backend) if scale else load_weights(path, backend)
    # Ranges that do not belong to the weights give a warning, which a user who did not ask for int8 need not see.
    wanted = runtime != "torch" and precision in ("auto", "int8")
    return choose_runtime(model, device, precision, runtime, load_int8(name_or_path) if wanted else None, at_once)
