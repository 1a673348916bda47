"""A whole frame as an ONNX file: the pipeline's results, without this package and without PyTorch."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

pytest.importorskip("onnxruntime", reason="running the file needs onnxruntime")
pytest.importorskip("onnx", reason="exporting needs onnx")

import onnxruntime

from d2a2_core.cli import main
from d2a2_core.depth import StableRange
from d2a2_core.geometry import Camera, CameraPair, back_project
from d2a2_core.network import D2A2Lite, D2A2Pico
from d2a2_core.network.sigma_head import SigmaHead
from d2a2_core.pipeline import DepthPipeline, PipelineSettings
from d2a2_core.runtime import open_runtime
from d2a2_core.weights import save_weights, sha256
from d2a2_core.weights.sidecars import SIGMA, save_sigma_head
from d2a2_core.whole_frame import own_range

LIMITS = np.float32([0.05, 20.0, 0.02, 0.02, 0.0, 0.0])


@pytest.fixture(scope="module")
def pico(tmp_path_factory):
    """Small weights of the kind that runs on robots, with a head."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    model = D2A2Pico(channels=8, detail=8, around=8)
    for layer in (model.mixture, model.cells):
        nn.init.normal_(layer.weight, std=0.05)
    save_weights(path, model, {"seed": 7})
    save_sigma_head(SIGMA.path(path), SigmaHead(), {"weights_sha256": sha256(path)})
    return path


def pair(size, depth_size, seed=0):
    """Random colours; two surfaces with holes, noise, stray values and what is out of range."""
    rng = np.random.default_rng(seed)
    color = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    depth = np.where(np.arange(depth_size[1]) < depth_size[1] // 2, 1.0, 2.0) + rng.normal(0, 0.01, depth_size)
    depth[2:5, 3:8] = 0
    depth[rng.random(depth_size) < 0.05] = np.nan
    depth[-1, -1], depth[-2, -2], depth[0, 0] = 30.0, -1.0, np.inf
    return color, depth.astype(np.float32)


def run(path, **given):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return dict(zip([output.name for output in session.get_outputs()], session.run(None, given), strict=True))


# Depth of a cell per measurement, of another grid, with cells that stick out, and finer than the cells.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "depth_size", "extra"),
    [
        ((48, 64), (12, 16), ["--scale", "4"]),
        ((50, 61), (13, 17), ["--depth-size", "17x13", "--points"]),
        ((64, 64), (20, 18), ["--depth-size", "18x20", "--scale", "8", "--no-sigma"]),
    ],
    ids=["a cell each", "sticking out", "another grid"],
)
def test_the_file_gives_what_the_pipeline_gives(tmp_path, pico, size, depth_size, extra):
    path = tmp_path / "whole.onnx"
    assert main(["export", str(path), "--whole", "--weights", str(pico), "--size", f"{size[1]}x{size[0]}", *extra]) == 0
    pipeline = DepthPipeline.from_pretrained(
        pico, "cpu", "float32", PipelineSettings(watchdog=False), runtime="torch", scale=8 if "8" in extra else 4
    )
    for seed in (0, 1):
        color, depth = pair(size, depth_size, seed)
        pipeline.reset()
        expected = pipeline.process(CameraPair(color, depth))
        camera = Camera(size[1], size[0], 50.0, 55.0, 30.0, 24.0)
        given = {"camera": np.float32([50, 55, 30, 24])} if "--points" in extra else {}
        out = run(path, color=color[None], depth=depth[None, None], limits=LIMITS, **given)
        np.testing.assert_allclose(out["upsampled"][0, 0], expected.depth, atol=1e-4)
        assert (out["provenance"][0, 0] != expected.provenance).mean() < 0.001
        assert out["residual"][0] == pytest.approx(expected.residual, abs=1e-4)
        assert ("sigma" in out) == ("--no-sigma" not in extra)
        if "sigma" in out:
            np.testing.assert_allclose(out["sigma"][0, 0], expected.sigma, rtol=0.01, atol=1e-4)
        if "points" in out:
            np.testing.assert_allclose(out["points"][0], back_project(expected.depth, camera), atol=1e-3)


@pytest.mark.slow
def test_the_range_is_the_hosts_where_it_gives_one(tmp_path, pico):
    path = tmp_path / "whole.onnx"
    assert main(["export", str(path), "--whole", "--weights", str(pico), "--size", "64x48", "--scale", "4"]) == 0
    color, depth = pair((48, 64), (12, 16))
    own = run(path, color=color[None], depth=depth[None, None], limits=LIMITS)
    same = run(path, color=color[None], depth=depth[None, None], limits=np.float32([*LIMITS[:4], *own["range"]]))
    np.testing.assert_allclose(same["upsampled"], own["upsampled"], atol=1e-5)
    wide = run(path, color=color[None], depth=depth[None, None], limits=np.float32([*LIMITS[:4], 0.0, 10.0]))
    assert np.nanmax(np.abs(wide["upsampled"] - own["upsampled"])) > 1e-3
    np.testing.assert_array_equal(wide["range"], own["range"])


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_range_it_asks_for_is_the_streams_first(share):
    random = torch.Generator().manual_seed(3)
    lr = 1 + 2 * torch.rand(1, 1, 40, 50, generator=random)
    lr[torch.rand(lr.shape, generator=random) < share] = torch.nan
    asked, expected = own_range(lr), StableRange().update(lr)
    if share == 1:
        assert asked[1] > 0
        return
    torch.testing.assert_close(asked, torch.cat((expected.lo.flatten(), expected.span.flatten())))


ALONE = """
import sys
for name in ("torch", "d2a2_core"):
    sys.modules[name] = None
sys.argv = sys.argv[1:]
import runpy
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
def test_the_example_needs_neither_torch_nor_this_package(tmp_path, pico, repo):
    assert (
        main(["export", str(tmp_path / "w.onnx"), "--whole", "--weights", str(pico), "--size", "64x48", "--scale", "4"])
        == 0
    )
    color, depth = pair((48, 64), (12, 16))
    counts = np.nan_to_num(1000 * depth, nan=0, posinf=0).clip(0, 65535).astype(np.uint16)
    Image.fromarray(color).save(tmp_path / "color.png")
    Image.fromarray(counts).save(tmp_path / "depth.png")
    example = repo / "examples" / "onnx_frame.py"
    assert len(example.read_text().splitlines()) <= 60
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(example), "w.onnx", "color.png", "depth.png", "out.png"],
        cwd=tmp_path, capture_output=True, text=True, check=False, env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "% of the pixels have depth" in done.stdout
    pipeline = DepthPipeline.from_pretrained(pico, "cpu", "float32", PipelineSettings(watchdog=False), runtime="torch")
    expected = pipeline.process(CameraPair(color, counts.astype(np.float32) / 1000)).depth
    written = np.asarray(Image.open(tmp_path / "out.png")).astype(float)
    np.testing.assert_allclose(written, np.nan_to_num(1000 * expected), atol=1.1)


@pytest.mark.slow
def test_the_file_says_what_it_takes_and_gives(tmp_path, pico):
    path = tmp_path / "whole.onnx"
    assert main(["export", str(path), "--whole", "--weights", str(pico), "--size", "64x48", "--scale", "4"]) == 0
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    facts = json.loads(session.get_modelmeta().custom_metadata_map["d2a2"])
    assert facts["color_size"] == [48, 64]
    assert facts["depth_size"] == [12, 16]
    assert facts["weights_sha256"] == sha256(pico)
    assert list(facts["inputs"]) == [entry.name for entry in session.get_inputs()]
    assert list(facts["outputs"]) == [entry.name for entry in session.get_outputs()]
    with pytest.raises(ValueError, match=r"a whole frame's file.*examples/onnx_frame\.py"):
        open_runtime(path, "cpu")


def test_what_cannot_be_exported_is_said(tmp_path, pico, capsys):
    deformable = tmp_path / "d.safetensors"
    save_weights(deformable, D2A2Lite(channels=8, blocks=1, groups=2), {})
    target = str(tmp_path / "x.onnx")
    for arguments, said in (
        (["--whole", "--weights", str(deformable), "--scale", "4"], "deformable"),
        (["--whole", "--weights", str(pico)], "expected --scale, or --whole with --depth-size"),
        (["--weights", str(pico), "--scale", "4", "--points"], "are for --whole"),
        (["--whole", "--weights", str(pico), "--depth-size", "4x3"], "expected 1/4 to 32"),
    ):
        assert main(["export", target, "--size", "640x480", *arguments]) == 2
        assert said in capsys.readouterr().err
        assert not (tmp_path / "x.onnx").exists()
