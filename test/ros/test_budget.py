"""latency_budget_ms and weights: auto on a running node, with pipelines that are made slow."""

import time

import numpy as np
import pytest

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, Image

from d2a2_core import latency_budget, weights_choice
from d2a2_core.geometry import Camera
from d2a2_core.latency_budget import Level
from d2a2_core.pipeline import DepthPipeline
from d2a2_core.weights import WeightsError
from d2a2_ros import budget
from d2a2_ros.cameras import info_from_camera

from .conftest import image, stamped

DEPTH, INFO = (f"depth_upsampled/{name}" for name in ("image_raw", "camera_info"))
CAMERA = Camera(64, 48, 60.0, 60.0, 31.5, 23.5)


@pytest.fixture
def ranked(monkeypatch, tiny_weights, simple_weights, tmp_path):
    """Two ranked weights, the first of which takes a second for each pair; returns their names."""
    names = {str(tiny_weights): 60.0, str(simple_weights): 6.0}
    for module in (weights_choice, budget):
        monkeypatch.setattr(module, "RANKED", names)
    monkeypatch.setenv("D2A2_CACHE", str(tmp_path))
    process = DepthPipeline.process

    def slow(self, pair, sigma=True):
        time.sleep(1.0 if self.upsampler.scales != (4,) else 0.0)
        return process(self, pair, sigma)

    monkeypatch.setattr(DepthPipeline, "process", slow)
    # Frames that wait for the next look are not what these tests are about.
    monkeypatch.setattr(latency_budget, "_SETTLE", 0)
    return tuple(names)


def status(b):
    """The newest status and its values."""
    count = len(b.out["/diagnostics"])
    newest = b.wait_for("/diagnostics", count + 2)[-1].status[0]
    return newest, {pair.key: pair.value for pair in newest.values}


def send(b, info=True):
    """A pair that was taken just now."""
    now = b.node.get_clock().now().nanoseconds * 1e-9
    rng = np.random.default_rng(0)
    if info:
        b.send("color/camera_info", info_from_camera(CAMERA, stamped(now, "camera")))
    b.send("color/image_raw", image(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8), "rgb8", now, "camera"))
    b.send("depth/image_raw", image(np.full((12, 16), 1500, np.uint16), "16UC1", now, "camera"))


def stream_until(b, condition):
    """Sends a pair whenever the one before was published."""

    def step():
        count = len(b.out[DEPTH])
        send(b)
        b.wait(lambda: len(b.out[DEPTH]) > count)
        return condition()

    b.wait(step)


def start(bench, weights, **parameters):
    b = bench(weights, **parameters)
    for topic, kind in ((DEPTH, Image), (INFO, CameraInfo), ("/diagnostics", DiagnosticArray)):
        b.listen(topic, kind)
    return b


@pytest.mark.slow
def test_a_budget_takes_smaller_weights_live_and_gives_them_back(bench, ranked):
    b = start(bench, ranked[0])
    told = []
    b.node.budget._inform = told.append
    send(b)
    b.wait_for(DEPTH)
    assert "level" not in status(b)[1]
    assert b.node.set_parameters([Parameter("latency_budget_ms", value=800.0)])[0].successful
    stream_until(b, lambda: b.node.engine.current == ranked[1])
    _, values = status(b)
    assert values["weights"] == ranked[0]
    assert values["weights in use"] == ranked[1]
    assert values["latency budget [ms]"] == "800"
    assert values["level"] == f"2 of 5: {ranked[1]}"
    assert "is over the budget of 800 ms" in values["reason"]
    assert len([text for text in told if "going to" in text]) == 1
    assert b.node.set_parameters([Parameter("latency_budget_ms", value=0.0)])[0].successful
    stream_until(b, lambda: b.node.engine.current == ranked[0])
    assert "level" not in status(b)[1]
    assert "no latency budget: back to" in told[-1]


@pytest.mark.slow
def test_a_budget_that_cannot_be_met_warns_and_pairs_go_on(bench, ranked):
    b = start(bench, ranked[1], latency_budget_ms=0.01)
    stream_until(b, lambda: b.node.budget.problem() is not None)
    size = b.out[DEPTH][-1].width, b.out[DEPTH][-1].height
    newest, values = status(b)
    assert newest.level == DiagnosticStatus.WARN
    assert values["problem"] == "latency_budget"
    assert "raise the budget" in newest.message
    assert any("raise the budget" in text for text in b.warnings)
    # Half the resolution, and the camera info says so.
    assert size == (32, 24)
    info = b.out[INFO][-1]
    assert (info.width, info.height, info.k[0], info.k[2]) == (32, 24, 30.0, (31.5 + 0.5) / 2 - 0.5)
    count = len(b.out[DEPTH])
    stream_until(b, lambda: len(b.out[DEPTH]) > count + 2)


@pytest.mark.slow
def test_missing_smaller_weights_are_left_out(bench, ranked, monkeypatch):
    load = DepthPipeline.from_pretrained.__func__

    def some(cls, name, *args, **options):
        if name == ranked[1]:
            raise WeightsError("no such file")
        return load(cls, name, *args, **options)

    monkeypatch.setattr(DepthPipeline, "from_pretrained", classmethod(some))
    b = start(bench, ranked[0], latency_budget_ms=500.0)
    stream_until(b, lambda: ranked[1] in b.node.engine.problems and "no sigma" in str(b.node.budget.level))
    assert b.node.engine.current == ranked[0]
    assert any("cannot be used: no such file; going on without them" in text for text in b.warnings)


@pytest.mark.slow
def test_auto_measures_on_the_first_pair(bench, ranked):
    b = start(bench, "auto")
    send(b)
    b.wait_for(DEPTH)
    assert b.node.engine.current == ranked[1]
    assert status(b)[1]["weights"] == "auto"
    send(b)
    b.wait_for(DEPTH, 2)


def test_a_level_multiplies_the_stride_of_the_cloud(bench, simple_weights):
    b = start(bench, simple_weights, latency_budget_ms=5000.0, cloud_stride=3)
    send(b)
    b.wait_for(DEPTH)
    b.wait(lambda: b.node.budget._control is not None)
    b.node.budget._control.level = 2
    assert b.node.budget.level == Level(str(simple_weights), False, 4)
    assert b.node.budget.options(b.node.settings.stream()).cloud_stride == 12


@pytest.mark.parametrize("value", [-1.0, 60001.0, float("nan"), "fast"])
def test_budgets_out_of_range_are_refused(bench, value):
    b = bench()
    result = b.node.set_parameters([Parameter("latency_budget_ms", value=value)])[0]
    assert not result.successful
    assert b.node.settings.latency_budget_ms == 0.0
