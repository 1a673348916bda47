"""The network run by OpenVINO: the same depth as from PyTorch, what cannot be, and nothing sent to anyone."""

import gc
import os
import subprocess
import sys
import weakref

import numpy as np
import pytest
import torch
from torch import nn

from d2a2_core.network import D2A2, D2A2Lite
from d2a2_core.runtime import choose_runtime
from d2a2_core.runtime import openvino as openvino_runtime
from d2a2_core.runtime.fallback import FallbackRuntime
from d2a2_core.runtime.openvino import OpenVinoRuntime, has_openvino
from d2a2_core.runtime.pytorch import TorchRuntime
from d2a2_core.upsampler import DepthUpsampler

needs_openvino = pytest.mark.skipif(not has_openvino(), reason="needs the optional package openvino")


def lite(**options):
    torch.manual_seed(0)
    model = D2A2Lite((4, 8), **{"channels": 8, "blocks": 1, "groups": 2, "geometric": False} | options).eval()
    for module in (*(stage.merge[2] for stage in model.stages), model.detail[4]):
        nn.init.normal_(module.weight, std=0.1)
    return model


def simple():
    """A network that is compiled in a third of a second, for what has to do with the runtime alone."""
    torch.manual_seed(0)
    return D2A2(4, channels=8, blocks=1, domain="none", geometric=False, gated=False, attention="none").eval()


def full():
    torch.manual_seed(0)
    model = D2A2(4, channels=8, blocks=1, groups=2).eval()
    for stage in (model.stage1, model.stage2, model.stage3):  # offsets begin at zero
        nn.init.normal_(stage.dda.geometric.deform.predict.weight, std=0.2)
    return model


def upsampler_of(model, runtime="torch"):
    return DepthUpsampler(choose_runtime(model, "cpu", "float32", runtime))


def pair(size=(32, 48), ratio=4):
    rng = np.random.default_rng(0)
    color = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    depth = rng.uniform(1, 3, (-(-size[0] // ratio), -(-size[1] // ratio))).astype(np.float32)
    depth[2:4, 3:6] = np.nan
    return color, depth


# Every size is compiled, for four seconds and more: one that is padded, (30, 41), is enough. Turned views of a square have its
# size.
@needs_openvino
@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "cases"),
    [
        pytest.param(lite, [((32, 32), 4, 4), ((32, 32), 8, 1), ((32, 32), 4, 1)], id="lite"),
        pytest.param(lambda: lite(trust=True, back_projections=1), [((30, 41), 4, 1)], id="trust and back projection"),
        pytest.param(full, [((32, 32), 4, 4)], id="full"),
    ],
)
def test_gives_the_same_depth(make, cases):
    torches, runs = (upsampler_of(make(), runtime) for runtime in ("torch", "openvino"))
    assert runs.runtime == "openvino"
    for size, ratio, views in cases:
        torches.ensemble = runs.ensemble = views
        expected, result = (upsampler.upsample(*pair(size, ratio)) for upsampler in (torches, runs))
        np.testing.assert_allclose(result.depth, expected.depth, atol=2e-5)
        np.testing.assert_array_equal(result.provenance, expected.provenance)


@needs_openvino
def test_results_of_frames_before_stay_as_they_are():
    network = OpenVinoRuntime(simple())
    inputs = [torch.rand(1, 3, 32, 48), torch.rand(1, 1, 8, 12)]
    with torch.inference_mode():
        first = network(*inputs)
        kept = first.clone()
        network(inputs[0], 1 - inputs[1])
    assert torch.equal(first, kept)


SILENT = """
import sys, torch
from d2a2_core.network import D2A2
from d2a2_core.runtime.openvino import OpenVinoRuntime
network = OpenVinoRuntime(D2A2(4, channels=8, blocks=1, domain="none", geometric=False, gated=False).eval())
with torch.inference_mode():
    network(torch.rand(1, 3, 32, 48), torch.rand(1, 1, 8, 12))
print("openvino" in sys.modules, [name for name in sys.modules if "telemetry" in name and "ovc" not in name])
"""


@needs_openvino
@pytest.mark.slow
def test_sends_nothing(tmp_path):
    """openvino reports its import to a server by a package that comes with it, and lays an identifier into the home directory."""
    done = subprocess.run(
        [sys.executable, "-c", SILENT],
        env=os.environ | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "True []"
    assert not list(tmp_path.iterdir())


SIGNALLED = """
import ctypes, faulthandler, gc, torch
from pathlib import Path
from d2a2_core.network import D2A2
from d2a2_core.runtime.openvino import OpenVinoRuntime

class Stack(ctypes.Structure):
    _fields_ = [("sp", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]

def is_there():
    stack = Stack()
    assert not ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack))
    spans = (line.split()[0].split("-") for line in Path("/proc/self/maps").read_text().splitlines())
    return any(int(first, 16) <= stack.sp < int(end, 16) for first, end in spans)

faulthandler.enable()
options = {"channels": 8, "blocks": 1, "domain": "none", "geometric": False, "gated": False, "attention": "none"}
networks = [OpenVinoRuntime(D2A2(4, **options).eval()) for _ in range(3)]
with torch.inference_mode():
    for network in networks:
        network(torch.rand(1, 3, 32, 48), torch.rand(1, 1, 8, 12))
network = None
for _ in range(3):
    networks.pop(0)
    gc.collect()
    print(is_there())
"""


@needs_openvino
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_stack_for_signals_is_there_after_networks_are_gone():
    """Each of OpenVINO's cores brings one, and puts back the one before, which may be freed: the next signal ends the process."""
    done = subprocess.run([sys.executable, "-c", SIGNALLED], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (0, ["True"] * 3), done.stderr


class Untraceable(nn.Module):
    scales = (4,)

    def forward(self, guide, lr):
        if torch.jit.is_tracing():
            raise TypeError("not to be traced")
        return nn.functional.interpolate(lr, scale_factor=4)


@needs_openvino
def test_what_it_cannot_run_is_left_to_torch_where_that_may_be():
    color, depth = pair()
    expected = upsampler_of(Untraceable()).upsample(color, depth).depth
    upsampler = upsampler_of(Untraceable(), "auto")
    with pytest.warns(
        RuntimeWarning, match=r"cannot run this network \(TypeError: not to be traced.*\); torch goes on"
    ):
        np.testing.assert_array_equal(upsampler.upsample(color, depth).depth, expected)
    assert upsampler.runtime == "torch"
    np.testing.assert_array_equal(upsampler.upsample(color, depth).depth, expected)  # and is not tried again
    upsampler = upsampler_of(Untraceable(), "openvino")
    with pytest.raises(RuntimeError, match="use runtime 'torch'"):
        upsampler.upsample(color, depth)


@needs_openvino
def test_a_failure_later_on_is_left_to_torch_too(monkeypatch):
    def fails(*_):
        raise RuntimeError("could not allocate memory")

    monkeypatch.setattr(openvino_runtime, "_load_or_compile", lambda *_: Request(fails))
    color, depth = pair()
    upsampler = upsampler_of(lite(), "auto")
    with pytest.warns(RuntimeWarning, match="could not allocate memory"):
        result = upsampler.upsample(color, depth).depth
    np.testing.assert_array_equal(result, upsampler_of(lite()).upsample(color, depth).depth)
    assert upsampler.runtime == "torch"
    assert "could not allocate memory" in upsampler.runtime_problem


class Guide(nn.Module):
    """Gives back the guide."""

    def forward(self, guide, lr):
        return guide


class Request:
    """What OpenVINO computes with, here by a function."""

    def __init__(self, compute):
        self.compute = compute

    def infer(self, arrays, share_inputs):
        return {0: self.compute(*arrays)}


def inputs(width):
    return torch.zeros(1, 3, 4, width), torch.zeros(1, 1, 1, 1)


def test_ever_new_sizes_are_left_to_torch(monkeypatch):
    monkeypatch.setattr(openvino_runtime, "has_openvino", lambda: True)

    def compile_(model, inputs, ranges, profiled, count_compilation):
        count_compilation()
        return Request(model)

    monkeypatch.setattr(openvino_runtime, "_load_or_compile", compile_)
    network = choose_runtime(Guide(), "cpu", "float32", "auto")
    for width in range(1, 33):
        network(*inputs(width))
    assert (network.name, network.problem) == ("openvino", "")
    with pytest.warns(RuntimeWarning, match="more than 32 models would be compiled.*give all images one size"):
        assert network(*inputs(33)).shape[-1] == 33
    assert network.name == "torch"
    alone = choose_runtime(Guide(), "cpu", "float32", "openvino")
    for width in range(1, 35):
        assert alone(*inputs(width)).shape[-1] == width


@needs_openvino
@pytest.mark.slow
def test_what_was_compiled_is_freed_once_torch_goes_on(monkeypatch):
    monkeypatch.setenv("D2A2_CACHE", "off")
    preferred = OpenVinoRuntime(lite(), most_compiled=1)
    gone = weakref.ref(preferred)
    network = FallbackRuntime(preferred, TorchRuntime(lite(), "cpu", "float32"))
    del preferred
    with torch.inference_mode():
        network(torch.rand(1, 3, 32, 48), torch.rand(1, 1, 8, 12))
        with pytest.warns(RuntimeWarning, match="more than 1 models"):
            network(torch.rand(1, 3, 32, 64), torch.rand(1, 1, 8, 16))
    gc.collect()
    assert gone() is None


def test_the_sizes_used_last_are_kept(monkeypatch):
    compiled = []

    def compile_(model, inputs, *_):
        compiled.append(inputs[0].shape[-1])
        return Request(model)

    monkeypatch.setattr(openvino_runtime, "has_openvino", lambda: True)
    monkeypatch.setattr(openvino_runtime, "_load_or_compile", compile_)
    network = OpenVinoRuntime(Guide())
    for width in (1, 2, 3, 4, 5, 6, 7, 8, 1, 9, 1, 3, 2):
        network(*inputs(width))
    assert compiled == [1, 2, 3, 4, 5, 6, 7, 8, 9, 2]
