"""Frames are computed at once, by PyTorch, while a faster runtime gets ready."""

import subprocess
import sys
import threading
import time

import pytest
import torch
from torch import nn

from d2a2_core.runtime import EagerGraph, Runtime, choose_runtime
from d2a2_core.runtime.openvino import has_openvino
from d2a2_core.runtime.starting import StartingRuntime

WAIT_S = 60


class Times(nn.Module):
    def __init__(self, network, factor):
        super().__init__()
        self.network, self.factor = network, factor

    def forward(self, x):
        return self.factor * x


class Fixed(Runtime):
    """Gives its input times a factor; each graph waits for ``may_start`` in its first call."""

    takes_trust = False

    def __init__(self, name, factor, may_start=None):
        self.name, self.precision, self.device, self.scales = name, "float32", torch.device("cpu"), (4,)
        self.factor, self.may_start, self.seen = factor, may_start, []

    def __call__(self, guide, lr, trust=None):
        return self.factor * lr

    def whole(self, make, profiled=False):
        runtime, graph = self, EagerGraph(Times(self, self.factor), profiled)

        class Slow(EagerGraph):
            def __init__(self):
                pass

            def __call__(self, x):
                if runtime.may_start is not None:
                    assert runtime.may_start.wait(WAIT_S)
                runtime.seen.append(x.clone())
                return graph(x)

            def profile(self):
                return {"": runtime.factor}

        return Slow()


def wait_until(condition):
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.005)


def test_the_reserve_computes_until_the_chosen_one_is_ready():
    begin = threading.Event()
    chosen, reserve = Fixed("fast", 3.0, begin), Fixed("torch", 2.0)
    chosen.precision = "int8"
    runtime = StartingRuntime(lambda: begin.wait(WAIT_S) and chosen, reserve)
    graph, x = runtime.whole(lambda network: None), torch.ones(1, 1, 4, 4)
    for _ in range(3):
        assert graph(x)[0].max() == 2.0
        assert (runtime.name, runtime.precision, runtime.starting) == ("torch", "float32", True)
    assert graph.profile() == {"": 2.0}
    begin.set()
    wait_until(lambda: graph(x)[0].max() == 3.0)
    assert (runtime.name, runtime.precision, runtime.starting, runtime.problem) == ("fast", "int8", False, "")
    assert graph.profile() == {"": 3.0}


def test_a_patient_caller_waits():
    begin = threading.Event()
    begin.set()
    chosen = Fixed("fast", 3.0, begin)
    runtime = StartingRuntime(lambda: chosen, Fixed("torch", 2.0))
    graph, x = runtime.whole(lambda network: None), torch.ones(1, 1, 4, 4)
    runtime.patient = True
    assert graph(x)[0].max() == 3.0
    assert not runtime.starting
    runtime.patient = False
    begin.clear()
    assert graph(torch.ones(1, 1, 8, 8))[0].max() == 2.0
    begin.set()


def test_each_size_gets_ready_by_itself():
    begin = threading.Event()
    begin.set()
    chosen = Fixed("fast", 3.0, begin)
    runtime = StartingRuntime(lambda: chosen, Fixed("torch", 2.0))
    graph, small, large = runtime.whole(lambda network: None), torch.ones(1, 1, 4, 4), torch.ones(1, 1, 8, 8)
    wait_until(lambda: graph(small)[0].max() == 3.0)
    begin.clear()
    assert graph(large)[0].max() == 2.0
    assert runtime.starting
    begin.set()
    assert graph(small)[0].max() == 3.0
    wait_until(lambda: graph(large)[0].max() == 3.0)


def test_graphs_get_ready_one_after_another_without_further_frames():
    begin = threading.Event()
    chosen = Fixed("fast", 3.0, begin)
    runtime = StartingRuntime(lambda: chosen, Fixed("torch", 2.0))
    graphs, x = [runtime.whole(lambda network: None) for _ in range(3)], torch.ones(1, 1, 4, 4)
    for graph in graphs:
        graph(x)
        graph(x)  # asks no second time
    begin.set()
    wait_until(lambda: len(chosen.seen) == 3)
    wait_until(lambda: all(graph(x)[0].max() == 3.0 for graph in graphs))


def test_sizes_that_change_every_frame_do_not_pile_up():
    begin = threading.Event()
    chosen = Fixed("fast", 3.0, begin)
    runtime = StartingRuntime(lambda: chosen, Fixed("torch", 2.0))
    graph = runtime.whole(lambda network: None)
    for side in range(1, 60):
        assert graph(torch.ones(1, 1, side, side))[0].max() == 2.0
    begin.set()
    wait_until(lambda: not runtime.preparing)
    assert len(chosen.seen) <= 6
    # What found no room is asked for again.
    wait_until(lambda: graph(torch.ones(1, 1, 59, 59))[0].max() == 3.0)


END = """
import sys, threading, time
import torch
from torch import nn
from d2a2_core.runtime import EagerGraph, Runtime
from d2a2_core.runtime.starting import StartingRuntime

class Torch(Runtime):
    name, precision, device = "torch", "float32", torch.device("cpu")
    def __call__(self, *inputs): return inputs[0]
    def whole(self, make, profiled=False): return EagerGraph(nn.Identity(), profiled)

done = []
def choose():
    for _ in range(20):
        time.sleep(0.05)
        torch.ones(100, 100) @ torch.ones(100, 100)
    print("chosen", flush=True)
    return Torch()

graph = StartingRuntime(choose, Torch()).whole(lambda network: None)
graph(torch.ones(1, 1, 4, 4))
print("leaving", flush=True)
"""


def test_a_program_may_end_while_a_runtime_gets_ready():
    ended = subprocess.run([sys.executable, "-c", END], capture_output=True, text=True, timeout=WAIT_S)
    assert (ended.returncode, ended.stdout.split()) == (0, ["leaving", "chosen"]), ended.stderr


def test_what_gets_ready_is_not_disturbed_by_the_next_frame():
    begin = threading.Event()
    chosen = Fixed("fast", 3.0, begin)
    graph = StartingRuntime(lambda: chosen, Fixed("torch", 2.0)).whole(lambda network: None)
    x = torch.ones(1, 1, 4, 4)
    graph(x)
    x.zero_()
    begin.set()
    wait_until(lambda: chosen.seen)
    assert chosen.seen[0].min() == 1.0


@pytest.mark.parametrize("where", ["choosing", "the first frame"])
def test_a_runtime_that_fails_is_named_and_not_tried_again(where):
    tries = []

    class Failing(Fixed):
        def whole(self, make, profiled=False):
            tries.append("whole")
            raise RuntimeError("no room")

    def choose():
        tries.append("choose")
        if where == "choosing":
            raise ImportError("not installed")
        return Failing("fast", 3.0)

    runtime = StartingRuntime(choose, Fixed("torch", 2.0))
    graph, x = runtime.whole(lambda network: None), torch.ones(1, 1, 4, 4)
    with pytest.warns(RuntimeWarning, match="torch goes on"):
        wait_until(lambda: graph(x) and runtime.problem)
    for _ in range(3):
        assert graph(x)[0].max() == 2.0
    assert "no room" in runtime.problem or "not installed" in runtime.problem
    assert not runtime.starting
    assert len(tries) == (1 if where == "choosing" else 2)


@pytest.mark.skipif(not has_openvino(), reason="openvino is not installed")
def test_openvino_takes_over_from_torch(tmp_path, monkeypatch):
    monkeypatch.setenv("D2A2_CACHE", str(tmp_path))

    class Add(nn.Module):
        scales = (4,)

        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 3, padding=1)

        def forward(self, guide, lr):
            return self.conv(nn.functional.interpolate(lr, scale_factor=4)) + guide.mean(1, keepdim=True)

    torch.manual_seed(0)
    runtime = choose_runtime(Add(), "cpu", "float32", "auto", at_once=True)
    assert isinstance(runtime, StartingRuntime)
    graph = runtime.whole(lambda network: _Whole(network))
    inputs = torch.rand(1, 3, 16, 24), torch.rand(1, 1, 4, 6)
    first = graph(*inputs)[0]
    assert runtime.name == "torch"
    wait_until(lambda: graph(*inputs) and runtime.name == "openvino")
    torch.testing.assert_close(graph(*inputs)[0], first, rtol=1e-5, atol=1e-6)


class _Whole(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, guide, lr):
        return self.network(guide, lr)


def test_only_auto_begins_with_another_runtime():
    network = nn.Identity()
    network.scales = (4,)
    assert choose_runtime(network, "cpu", "float32", "torch", at_once=True).name == "torch"
    assert not isinstance(choose_runtime(network, "cpu", "float32", "torch", at_once=True), StartingRuntime)
    if has_openvino():
        assert choose_runtime(network, "cpu", "float32", "openvino", at_once=True).name == "openvino"
    with pytest.raises(ValueError, match="int8"):
        choose_runtime(network, "cpu", "int8", "auto", at_once=True)
