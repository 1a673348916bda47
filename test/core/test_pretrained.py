"""The weights that ship: intact, described, small, and better than bicubic on real benchmark images."""

import pytest

from d2a2_core.data.benchmarks import open_dataset
from d2a2_core.evaluation.baselines import NetworkMethod, get_method
from d2a2_core.evaluation.evaluator import evaluate, summarise
from d2a2_core.weights import checksums, list_pretrained, load_weights, read_info, resolve_weights, sha256

NAMES = list_pretrained()


def test_the_default_of_node_and_command_line_ships():
    assert "d2a2-lite" in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_file_is_intact_small_and_described(name):
    path = resolve_weights(name)
    assert checksums()[path.name] == sha256(path)
    assert path.stat().st_size < 20e6
    assert {"title", "licence", "command", "settings", "revision", "metrics", "limits"} <= set(read_info(path).card)


@pytest.mark.parametrize("scale", [4, 8])
@pytest.mark.parametrize("range_mode", ["oracle", "deploy"])
def test_beats_bicubic_by_30_percent_on_middlebury(shared, scale, range_mode):
    samples = open_dataset("middlebury", shared / "data/benchmark_dev")
    few = [samples[i] for i in (1, 3, 6)]
    model = load_weights(resolve_weights("d2a2-lite"))
    ours, bicubic = (
        summarise(evaluate(few, method, scale, range_mode, "middlebury"))[0]["rmse"]
        for method in (NetworkMethod(model, None, "ours"), get_method("bicubic"))
    )
    assert ours < 0.7 * bicubic
