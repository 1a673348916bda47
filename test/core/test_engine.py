"""AdaptiveEngine and `weights: auto`, with stand-ins for networks whose time is given."""

import json
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from d2a2_core import weights_choice
from d2a2_core.engine import AdaptiveEngine, halved
from d2a2_core.geometry import Camera, CameraPair, Extrinsics
from d2a2_core.geometry.plan import RegistrationError
from d2a2_core.latency_budget import Level
from d2a2_core.network.sigma_head import SigmaHead
from d2a2_core.pipeline import DepthPipeline, PipelineSettings
from d2a2_core.upsampler import DepthUpsampler
from d2a2_core.weights import RANKED, WeightsError, load_weights, resolve_weights
from d2a2_core.weights_choice import choose_weights, ladder_of, open_engine

CAMERA = Camera(96, 64, 80.0, 82.0, 47.5, 31.5)
DEPTH_CAMERA = CAMERA.resized(24, 16)


class Slow(nn.Module):
    """Bilinear, in a given time; computes in a way of its own, so that results tell which one it was."""

    scales = (4, 8)

    def __init__(self, seconds=0.0, add=0.0, error=None):
        super().__init__()
        self.seconds, self.add, self.error, self.calls = seconds, add, error, 0

    def forward(self, guide, lr):
        self.calls += 1
        if self.error:
            raise self.error
        time.sleep(self.seconds)
        return F.interpolate(lr, size=guide.shape[-2:], mode="bilinear", align_corners=False) + self.add


def pipeline(model, head=True):
    upsampler = DepthUpsampler.from_module(model, "cpu")
    return DepthPipeline(upsampler, PipelineSettings(consistency=False), SigmaHead() if head else None)


def pair(i=0, **changes):
    rng = np.random.default_rng(i)
    color = rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)
    depth = (2.0 + np.linspace(0, 0.5 + 0.1 * i, 24)[None] + np.zeros((16, 1))).astype(np.float32)
    base = CameraPair(color, depth, CAMERA, DEPTH_CAMERA, None, "camera", "camera")
    return replace(base, **changes)


def engine_of(models, **options):
    def load(name):
        if isinstance(models[name], Exception):
            raise models[name]
        return pipeline(models[name])

    return AdaptiveEngine(load, tuple(models), **options)


def settle(engine, first=1):
    """Computes pairs until the wanted weights are there; the results."""
    out, end = [], time.monotonic() + 20
    while engine.changing and time.monotonic() < end:
        out.append(engine.process(pair(first + len(out))))
    assert not engine.changing
    return out


def test_weights_change_in_a_running_stream_without_losing_its_state():
    engine = engine_of({"a": Slow(), "b": Slow(add=0.01)})
    corrector = engine.pipeline.offsets
    for i in range(3):
        engine.process(pair(i))
    state, first = engine.state(), engine.pipeline
    frames = corrector.watchdog._frames
    engine.apply(Level("b"))
    seen = settle(engine, 2)
    assert engine.current == "b"
    assert engine.pipeline is not first
    assert engine.pipeline.offsets is corrector
    # Each pair was shown to the watchdog once, that of the warm-up too.
    assert corrector.watchdog._frames == frames + len(seen)
    assert engine.state()["range"]["range"][0] <= state["range"]["range"][0]
    alone = pipeline(Slow(add=0.01))
    alone.restore(engine.state())
    np.testing.assert_array_equal(engine.process(pair(5)).depth, alone.process(pair(5)).depth)
    engine.apply(Level("a"))
    settle(engine)
    assert engine.pipeline is first  # kept, not loaded again


def test_no_pair_waits_for_the_next_network():
    loading = Slow(0.5)
    engine = engine_of({"a": Slow(), "b": loading})
    engine.process(pair())
    engine.apply(Level("b"))
    results = settle(engine)
    assert len(results) > 3
    assert loading.calls == 2  # the warm-up, and the pair since


@pytest.mark.parametrize("fault", [WeightsError("no such file"), Slow(error=RuntimeError("no memory"))])
def test_weights_that_fail_are_given_up_and_the_stream_goes_on(fault):
    engine = engine_of({"a": Slow(), "b": fault})
    engine.apply(Level("b"))
    settle(engine)
    assert engine.current == "a"
    assert "no" in engine.problems["b"]
    assert engine.weights == ("a",)
    assert np.isfinite(engine.process(pair()).depth).all()


def test_an_unusable_pair_does_not_condemn_weights():
    engine = engine_of({"a": Slow(), "b": Slow()})
    engine.apply(Level("b"))
    bad = pair(color_camera=None, extrinsics=Extrinsics(np.eye(3), np.array([0.1, 0, 0])), depth_frame="depth")
    with pytest.raises(RegistrationError):
        engine.process(bad)
    settle(engine)
    assert engine.current == "b"


def test_the_first_weights_must_load():
    with pytest.raises(WeightsError, match="damaged"):
        engine_of({"a": WeightsError("damaged"), "b": Slow()})


def test_half_the_colour_resolution_is_that_of_a_smaller_camera():
    engine = engine_of({"a": Slow()})
    engine.settings = replace(engine.settings, color_offset=(2.0, -4.0))
    whole = engine.process(pair())
    engine.apply(Level("a", sigma=False, halved=True))
    half = engine.process(pair())
    assert half.depth.shape == (32, 48)
    assert half.sigma is None
    assert whole.sigma is not None
    assert (half.camera.width, half.camera.height) == (48, 32)
    assert half.camera.cx == (47.5 + 0.5) / 2 - 0.5
    assert half.camera.fy == 41.0
    assert half.registration == whole.registration
    assert (whole.offset, half.offset) == ((2, -4), (1, -2))
    assert engine.settings.color_offset == (2.0, -4.0)
    np.testing.assert_allclose(np.nanmedian(half.depth), np.nanmedian(whole.depth), atol=0.02)
    engine.apply(Level("a"))
    assert engine.process(pair()).depth.shape == (64, 96)


def test_registered_depth_is_still_registered_at_half_the_resolution():
    beside = {"extrinsics": Extrinsics(np.eye(3), np.array([0.03, 0, 0])), "depth_frame": "depth"}
    engine = engine_of({"a": Slow()})
    whole = engine.process(pair(**beside))
    engine.apply(Level("a", halved=True))
    half = engine.process(pair(**beside))
    assert half.registration == whole.registration
    assert half.camera == CAMERA.resized(48, 32)
    both = np.isfinite(half.depth) & np.isfinite(whole.depth[::2, ::2])
    assert both.mean() > 0.5
    assert np.abs(half.depth - whole.depth[::2, ::2])[both].max() < 0.05


def test_pairs_that_would_become_unusable_are_not_halved():
    """Without a camera nothing tells the size; depth may be four times as large as colour, but no more."""
    engine = engine_of({"a": Slow()})
    engine.apply(Level("a", halved=True))
    assert engine.process(pair(color_camera=None)).depth.shape == (64, 96)
    large = {"depth": np.ones((256, 384), np.float32), "depth_camera": CAMERA.resized(384, 256)}
    assert engine.process(pair(**large)).depth.shape == (64, 96)
    same = {"depth": np.ones((64, 96), np.float32), "depth_camera": CAMERA}
    assert engine.process(pair(**same)).depth.shape == (32, 48)


def test_odd_sizes_are_halved_with_their_camera():
    camera = Camera(97, 63, 80.0, 82.0, 48.0, 31.0)
    ramp = np.broadcast_to(np.arange(97, dtype=np.uint8)[None, :, None] * 2, (63, 97, 3))
    out = halved(CameraPair(ramp, np.ones((16, 24), np.float32), camera))
    assert out.color.shape == (31, 48, 3)
    assert out.color_camera == camera.resized(48, 31)
    # The ramp tells where a pixel's centre came from.
    column = np.arange(1, 47)
    centre = (column + 0.5) * 97 / 48 - 0.5
    np.testing.assert_allclose(out.color[10, 1:47, 0], 2 * centre, atol=1)


# -- weights: auto -----------------------------------------------------------------------------------------------------


@pytest.fixture
def ranked(monkeypatch, tmp_path):
    """Three weights of known cost, and a memory of its own."""
    costs = {"large": 100.0, "middle": 30.0, "small": 1.0}
    monkeypatch.setattr(weights_choice, "RANKED", costs)
    monkeypatch.setattr(weights_choice, "_mark", lambda name: name)

    def measure(pipeline, first):
        pipeline.process(first)
        return pipeline.upsampler._runtime.model.seconds

    # What the stand-ins are said to take: a busy machine must not fail tests.
    monkeypatch.setattr(weights_choice, "measure", measure)
    monkeypatch.setenv("D2A2_CACHE", str(tmp_path / "cache"))
    return costs


def auto(models, said, limit=0.1):
    return engine_of(models, choose=lambda first, engine: choose_weights(first, engine, limit, said.append))


@pytest.mark.parametrize(
    ("seconds", "expected", "measured"),
    [
        ((0.0, 0.0, 0.0), "large", {"large", "middle", "small"}),
        ((0.3, 0.002, 0.001), "middle", {"large", "middle", "small"}),
        ((0.3, 0.3, 0.05), "small", {"small"}),  # others by the prediction
        ((0.3, 0.3, 0.3), "small", {"small"}),  # none holds it
    ],
)
def test_auto_takes_the_most_accurate_weights_that_hold_the_rate(ranked, seconds, expected, measured):
    models, said = {name: Slow() for name in ranked}, []
    for model, given in zip(models.values(), seconds, strict=True):
        model.seconds = given
    engine = auto(models, said)
    assert not engine.chosen
    engine.process(pair())
    assert engine.chosen
    assert engine.current == expected
    models[expected].calls -= 1  # the pair itself
    assert {name for name, model in models.items() if model.calls} == measured
    assert f"weights {expected}: " in said[-1]
    assert ("none are faster" in said[-1]) == (seconds[2] > 0.1)


def test_auto_remembers_and_a_damaged_memory_is_written_anew(ranked, tmp_path):
    def run(expected_calls):
        models = {name: Slow() for name in ranked}
        engine = auto(models, [])
        engine.process(pair())
        assert engine.current == "large"
        assert models["middle"].calls == expected_calls

    run(1)
    run(0)
    memory = tmp_path / "cache" / "weights.json"
    (entry,) = json.loads(memory.read_text()).items()
    assert "threads, 96x64 from 24x16" in entry[0]
    assert entry[1].keys() == ranked.keys()
    for damage in ("{", "[]", '{"a": {"b": "fast"}}', ""):
        memory.write_text(damage)
        run(1)
    memory.unlink()
    memory.mkdir()  # cannot be written
    run(1)


def test_auto_goes_on_without_weights_that_are_missing(ranked):
    said = []
    engine = auto({"large": WeightsError("no such file"), "middle": Slow(), "small": WeightsError("gone")}, said)
    engine.process(pair())
    assert engine.current == "middle"
    assert "weights large cannot be used: no such file" in said
    with pytest.raises(WeightsError):
        auto({"large": WeightsError("1"), "middle": WeightsError("2"), "small": WeightsError("3")}, [])


def test_auto_decides_by_the_first_usable_pair(ranked):
    engine = auto({name: Slow() for name in ranked}, [])
    bad = pair(color_camera=None, extrinsics=Extrinsics(np.eye(3), np.array([0.1, 0, 0])), depth_frame="depth")
    with pytest.raises(RegistrationError):
        engine.process(bad)
    assert not engine.chosen
    first = engine.process(pair())
    assert engine.current == "large"
    np.testing.assert_array_equal(first.depth, pipeline(Slow()).process(pair()).depth)


def test_a_run_that_goes_on_takes_the_same_weights(ranked):
    engine = auto({name: Slow() for name in ranked}, [])
    assert "weights" not in engine.state()
    engine.process(pair())
    state = json.loads(json.dumps(engine.state()))
    slow = auto({"large": Slow(0.2), "middle": Slow(), "small": Slow()}, [], limit=0.0)
    slow.restore(state)
    slow.process(pair(1))
    assert slow.current == "large"
    other = auto({"middle": Slow(), "small": Slow()}, [])
    with pytest.raises(ValueError, match="expected weights 'large'"):
        other.restore(state)


def test_a_measurement_leaves_no_trace_in_the_stream():
    one, other = pipeline(Slow()), pipeline(Slow())
    assert weights_choice.measure(one, pair(3)) > 0
    assert one.state() == other.state()
    assert one.settings == other.settings
    assert one.watchdog._frames == 0
    np.testing.assert_array_equal(one.process(pair()).depth, other.process(pair()).depth)


def test_on_a_gpu_auto_takes_the_most_accurate_weights(ranked, monkeypatch):
    models = {"large": Slow(), "middle": Slow(), "small": Slow()}
    engine = auto(models, [])
    monkeypatch.setattr(engine.pipeline.upsampler, "device", torch.device("cuda"))
    assert choose_weights(pair(), engine, 0.1, lambda text: None) == "large"
    assert not any(model.calls for model in models.values())


def test_the_ladder_goes_down_from_the_given_weights():
    assert ladder_of("auto") == tuple(RANKED)
    assert ladder_of("d2a2-nano-sensor") == tuple(RANKED)[1:]
    assert ladder_of("mine.safetensors") == ("mine.safetensors",)


def test_a_gpu_that_is_absent_is_told(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="cuda"):
        open_engine("auto", "cuda")


@pytest.mark.slow
@pytest.mark.parametrize("name", RANKED)
def test_the_costs_are_those_of_the_networks(name):
    """Counted by PyTorch: multiplications and additions, for 640x480 at x4."""
    from torch.utils.flop_counter import FlopCounterMode

    model = load_weights(resolve_weights(name)).eval()
    inputs = [torch.rand(1, 3, 120, 160), *(torch.rand(1, 1, 30, 40) for _ in range(1 + model.takes_trust))]
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(*inputs)
    assert 16 * counter.get_total_flops() / 1e9 == pytest.approx(RANKED[name], rel=0.05)
    assert list(RANKED.values()) == sorted(RANKED.values(), reverse=True)
