"""A network run by PyTorch, on any device."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, nn

from d2a2_core.runtime.base import ModelRuntime
from d2a2_core.runtime.int8 import Int8Ranges

_AUTOCAST = {"float32": None, "float16": torch.float16, "bfloat16": torch.bfloat16}


class TorchRuntime(ModelRuntime):
    """Runs a network by PyTorch; a result in float16 that is not finite is computed again in float32."""

    name = "torch"

    @classmethod
    def installed(cls) -> bool:
        """Always."""
        return True

    @classmethod
    def lacks(cls, device: torch.device, precision: str, int8: Int8Ranges | None) -> str:
        """A GPU for float16; int8 it does not compute."""
        if precision not in _AUTOCAST:
            return f"precision {' or '.join(_AUTOCAST)}, got {precision}"
        return "a GPU for float16" if precision == "float16" and device.type == "cpu" else ""

    @classmethod
    def build(
        cls, model: nn.Module, device: torch.device, precision: str, int8: Int8Ranges | None, alone: bool
    ) -> TorchRuntime:
        """See :meth:`ModelRuntime.build`."""
        return cls(model, device, precision)

    def __call__(self, guide: Tensor, lr: Tensor, trust: Tensor | None = None) -> Tensor:
        """See :meth:`Runtime.__call__`."""
        inputs = (guide, lr) if trust is None else (guide, lr, trust)
        dtype = _AUTOCAST[self.precision]
        with torch.autocast(self.device.type, dtype=dtype) if dtype else nullcontext():
            result = self.model(*inputs).float()
        if self.precision == "float16" and not torch.isfinite(result).all():
            return self.model(*inputs).float()
        return result
