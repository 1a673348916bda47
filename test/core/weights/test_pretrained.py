"""The weights that ship: intact, described, small, and better than bicubic on real benchmark images."""

import functools
import json
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from d2a2_core.data.sampling import TrainingBatches
from d2a2_core.data.scene_sources import ShapeScenes
from d2a2_core.data.sets.benchmarks import open_dataset
from d2a2_core.depth import fill_holes, invalid_to_nan
from d2a2_core.evaluation.baselines import NetworkMethod, get_method
from d2a2_core.evaluation.evaluator import evaluate, summarise
from d2a2_core.recording import Recording
from d2a2_core.runtime import choose_runtime
from d2a2_core.training.losses import rmse_per_image
from d2a2_core.upsampler import DepthUpsampler
from d2a2_core.weights import DEFAULT_WEIGHTS, list_pretrained, load_weights, read_info, resolve_weights, sha256
from d2a2_core.weights.zoo import checksums

NAMES = list_pretrained()


def test_the_default_of_node_and_command_line_ships():
    assert DEFAULT_WEIGHTS in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_file_is_intact_small_and_described(name):
    path = resolve_weights(name)
    assert checksums()[path.name] == sha256(path)
    assert path.stat().st_size < 20e6
    card = read_info(path).card
    assert {"title", "licence", "command", "settings", "revision", "metrics", "limits"} <= set(card)
    assert not re.search(r"""[\s"'=]/\w+/""", json.dumps(card)), "a path of the machine it was trained on"


@functools.cache
def shapes(scale):
    """A batch of pictures of shapes; the same for all weights."""
    return TrainingBatches(ShapeScenes(12345), (scale,), 160, 12, 6)[0]


@pytest.mark.parametrize("scale", [8, 16])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.slow
def test_looks_at_the_guide(name, scale):
    """With the colours of another scene the error must be clearly larger: weights that ignore them once went unnoticed."""
    batch = shapes(scale)
    model = load_weights(resolve_weights(name)).eval()
    with torch.inference_mode():
        errors = [
            np.mean(rmse_per_image(model(guide, batch["lr"]), batch["hr"]))
            for guide in (batch["guide"], batch["guide"].roll(1, 0))
        ]
    assert errors[0] < 0.93 * errors[1]


@pytest.mark.parametrize(("range_mode", "scale"), [("oracle", 4), ("deploy", 8)])
@pytest.mark.slow
def test_beats_bicubic_by_30_percent_on_middlebury(shared, scale, range_mode):
    dataset = open_dataset("middlebury", shared / "data/benchmark_dev")
    samples = [dataset[i] for i in range(0, len(dataset), 2)]
    runtime = choose_runtime(load_weights(resolve_weights("d2a2-lite")), "cpu", "float32")
    ours, bicubic = (
        summarise(evaluate(samples, method, scale, range_mode))[0]["rmse"]
        for method in (NetworkMethod(runtime, "ours"), get_method("bicubic"))
    )
    assert ours < 0.7 * bicubic


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith("-sensor")])
@pytest.mark.slow
def test_sensor_weights_beat_bicubic_on_a_noisy_sensor_with_holes(repo, name):
    recording = Recording(repo / "sample_recording")
    upsampler = DepthUpsampler.from_pretrained(name, device="cpu")
    for index in (3, 21):
        frame = recording[index]
        ours = upsampler.upsample(frame.color, frame.depth).depth
        filled = fill_holes(invalid_to_nan(torch.from_numpy(frame.depth)[None, None]))
        bicubic = F.interpolate(filled, size=ours.shape, mode="bicubic", align_corners=False)[0, 0].numpy()
        valid = np.isfinite(ours) & np.isfinite(frame.truth)
        assert valid.mean() > 0.95
        rmse, plain = (np.sqrt(np.mean((d[valid] - frame.truth[valid]) ** 2)) for d in (ours, bicubic))
        assert rmse < 0.9 * plain
