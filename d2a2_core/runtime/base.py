"""The interface of a runtime: what the upsampler and the evaluation ask of it, and what :func:`choose_runtime` asks."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from d2a2_core.network import takes_trust
from d2a2_core.runtime.int8 import Int8Ranges

GraphMaker = Callable[[Callable[..., Tensor]], nn.Module]


class Graph(ABC):
    """Computes a module that contains a network; see :meth:`Runtime.whole`."""

    @abstractmethod
    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The module's outputs."""

    @abstractmethod
    def profile(self) -> dict[str, float]:
        """Seconds of the last call by the names of the module's parts, "" for the rest; empty unless it is profiled."""


class EagerGraph(Graph):
    """Runs a module as it is, step by step."""

    def __init__(self, module: nn.Module, profiled: bool) -> None:
        self._module, self._profiled = module, profiled
        self._parts: dict[str, float] = {}
        for name, part in module.named_children() if profiled else ():
            part.register_forward_pre_hook(lambda *_, name=name: self._count(name, -time.perf_counter()))
            part.register_forward_hook(lambda *_, name=name: self._count(name, time.perf_counter()))

    def _count(self, name: str, seconds: float) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._parts[name] = self._parts.get(name, 0.0) + seconds

    @torch.inference_mode()
    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """See :meth:`Graph.__call__`."""
        self._parts, started = {}, time.perf_counter()
        outputs = self._module(*inputs)
        if self._profiled:
            self._count("", time.perf_counter() - started - sum(self._parts.values()))
        return outputs if isinstance(outputs, tuple) else (outputs,)

    def profile(self) -> dict[str, float]:
        """See :meth:`Graph.profile`."""
        return dict(self._parts)


class Runtime(ABC):
    """Computes a network on the LR grid.

    Attributes:
        name: Name of the runtime, for instance "torch".
        device: Device on which tensors go in and come out.
        precision: Precision the network is computed in, one of :data:`d2a2_core.runtime.PRECISIONS`.
        scales: Scales the network is for; empty if it is for any.
        takes_trust: Whether the network takes the third input.
        problem: Why another runtime had to take over; empty if none had to.
        starting: Whether a faster one is getting ready, see :class:`d2a2_core.runtime.starting.StartingRuntime`.
        preparing: Whether a thread is at work for that.
        patient: Whether frames are to wait for that one; may be set.
    """

    name: str
    device: torch.device
    precision: str
    scales: tuple[int, ...] = ()
    takes_trust: bool = False
    problem: str = ""
    starting: bool = False
    preparing: bool = False
    patient: bool = False

    @abstractmethod
    def __call__(self, guide: Tensor, lr: Tensor, trust: Tensor | None = None) -> Tensor:
        """HR depth (B, 1, H, W) float32.

        Args:
            guide: (B, 3, H, W) RGB in [0, 1]. All inputs are on ``device``.
            lr: (B, 1, H / s, W / s) depth, normalised to [0, 1], without holes; s is one of the scales.
            trust: (B, 1, H / s, W / s) in [0, 1], what each value of ``lr`` is worth; only for networks that take it.
                None: all of them 1.

        Raises:
            ValueError: The inputs have sizes that the runtime does not take.
            RuntimeError: The runtime fails.
        """

    def whole(self, make: GraphMaker, profiled: bool = False) -> Graph:
        """What computes a graph around the network.

        Args:
            make: Builds the graph around what it is given, the network or what computes it.
            profiled: Whether :meth:`Graph.profile` is wanted; it costs a little time.
        """
        return EagerGraph(make(self).to(self.device).eval(), profiled)


class ModelRuntime(Runtime):
    """A runtime that computes PyTorch modules: the kind that :func:`d2a2_core.runtime.choose_runtime` chooses from.

    Args:
        model: Called as ``model(guide, lr)``, or ``model(guide, lr, trust)`` if its attribute ``takes_trust`` is True; it is on
            ``device``, and its weights must not change any more. Its attribute ``scales``, if any, says what it is for.
    """

    def __init__(self, model: nn.Module, device: torch.device | str, precision: str) -> None:
        self.model = model
        self.device = torch.device(device)
        self.precision = precision
        self.scales = tuple(getattr(model, "scales", ()))
        self.takes_trust = takes_trust(model)

    @classmethod
    @abstractmethod
    def installed(cls) -> bool:
        """Whether its package, which has the runtime's name, is installed."""

    @classmethod
    @abstractmethod
    def lacks(cls, device: torch.device, precision: str, int8: Int8Ranges | None) -> str:
        """What it would need to compute in a precision on a device ("a GPU", for messages); empty if it can."""

    @classmethod
    def int8_pays(cls, model: nn.Module, int8: Int8Ranges) -> bool:
        """Whether int8, which nothing is lacked for, is to be preferred to float32 where the user leaves the choice."""
        return False

    @classmethod
    @abstractmethod
    def build(
        cls, model: nn.Module, device: torch.device, precision: str, int8: Int8Ranges | None, alone: bool
    ) -> ModelRuntime:
        """The runtime of a model, where it lacks nothing. ``alone``: no other takes over when it fails.

        Raises:
            ImportError: The package is not installed; the message says how to install it.
        """
