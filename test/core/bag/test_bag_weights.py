"""`d2a2 bag --weights auto`: one choice for the whole bag, also when its run is interrupted."""

from contextlib import suppress

import pytest
import torch

pytest.importorskip("rosbags", reason="needs rosbags (pip install rosbags)")

from bag_files import contents, frames, write_bag

from d2a2_core import weights_choice
from d2a2_core.cli import main
from d2a2_core.network import D2A2
from d2a2_core.pipeline import DepthPipeline
from d2a2_core.weights import save_weights


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """Seconds that each of two ranked weights is said to take: by path, the more accurate first."""
    times = {}
    for seed, name in enumerate(("large", "small")):
        torch.manual_seed(seed)
        path = tmp_path / f"{name}.safetensors"
        save_weights(
            path, D2A2(4, channels=8, blocks=1, domain="none", geometric=False, gated=False, attention="none"), {}
        )
        times[str(path)] = 0.01
    costs = dict(zip(times, (2.0, 1.0), strict=True))
    monkeypatch.setattr(weights_choice, "RANKED", costs)
    monkeypatch.setenv("D2A2_CACHE", "off")
    by_cost = {}

    def measure(pipeline, pair):
        return by_cost[id(pipeline)]

    load = DepthPipeline.from_pretrained.__func__

    def known(cls, name, *args, **options):
        pipeline = load(cls, name, *args, **options)
        by_cost[id(pipeline)] = times[str(name)]
        return pipeline

    monkeypatch.setattr(DepthPipeline, "from_pretrained", classmethod(known))
    monkeypatch.setattr(weights_choice, "measure", measure)
    return times


def run(source, out):
    return main(["bag", str(source), str(out), "--weights", "auto", "--device", "cpu", "--runtime", "torch"])


def test_a_run_that_goes_on_takes_the_weights_it_began_with(tmp_path, measured, monkeypatch, capsys):
    source = write_bag(tmp_path / "in", "mcap", frames(4))
    assert run(source, tmp_path / "whole") == 0
    assert "large.safetensors: 10 ms for a pair of this size" in capsys.readouterr().out
    process, calls = DepthPipeline.process, []

    def stop(self, *args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return process(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(DepthPipeline, "process", stop)
        with suppress(KeyboardInterrupt):
            assert run(source, tmp_path / "out") != 0
    # Measured again, the machine would be found too slow for the larger weights.
    measured[next(iter(measured))] = 5.0
    assert run(source, tmp_path / "out") == 0
    assert "2 were there from an interrupted run" in capsys.readouterr().out
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert run(source, tmp_path / "other") == 0
    assert contents(tmp_path / "other") != contents(tmp_path / "whole")
