"""ONNX files: the same depth as from PyTorch, through the upsampler and the command line, and what cannot be."""

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("onnx", reason="exporting needs onnx")
pytest.importorskip("onnxruntime", reason="running the file needs onnxruntime")

from d2a2_core import DepthUpsampler, WeightsError
from d2a2_core.cli import main
from d2a2_core.network import D2A2, D2A2Lite
from d2a2_core.network.sigma_head import SigmaHead
from d2a2_core.runtime.onnx import export_onnx
from d2a2_core.weights import save_weights, sha256
from d2a2_core.weights.sidecars import SIGMA, load_sigma_head, save_sigma_head


def weights(path, **options):
    torch.manual_seed(0)
    model = D2A2Lite((4, 8), **{"channels": 8, "blocks": 1, "groups": 2, "geometric": False} | options)
    for module in (*(stage.merge[2] for stage in model.stages), model.detail[4]):
        nn.init.normal_(module.weight, std=0.1)
    save_weights(path, model, {"seed": 7})
    return path


# The second size is padded to whole cells.
@pytest.mark.slow
@pytest.mark.parametrize(("trust", "size"), [(False, (32, 48)), (True, (30, 41))], ids=["plain", "trust, padded"])
def test_the_file_gives_the_same_depth(tmp_path, trust, size):
    source = weights(tmp_path / "w.safetensors", trust=trust)
    assert (
        main(
            [
                "export",
                str(tmp_path / "w.onnx"),
                "--weights",
                str(source),
                "--size",
                f"{size[1]}x{size[0]}",
                "--scale",
                "4",
            ]
        )
        == 0
    )
    rng = np.random.default_rng(0)
    color, depth = rng.integers(0, 256, (*size, 3), dtype=np.uint8), rng.uniform(1, 3, (8, 11)).astype(np.float32)
    depth[2:4, 3:6] = np.nan
    expected, result = (
        DepthUpsampler.from_pretrained(path, "cpu", "float32").upsample(color, depth)
        for path in (source, tmp_path / "w.onnx")
    )
    np.testing.assert_allclose(result.depth, expected.depth, atol=2e-5)
    np.testing.assert_array_equal(result.provenance, expected.provenance)
    assert result.scale == 4


@pytest.mark.slow
def test_a_head_goes_along_and_other_sizes_are_named(tmp_path):
    source = weights(tmp_path / "w.safetensors")
    save_sigma_head(SIGMA.path(source), SigmaHead(), {"weights_sha256": sha256(source)})
    export_onnx(source, tmp_path / "w8.onnx", (32, 48), 8)
    assert load_sigma_head(tmp_path / "w8.onnx") is not None
    upsampler = DepthUpsampler.from_pretrained(tmp_path / "w8.onnx", "cpu")
    assert upsampler.scales == (8,)
    with pytest.raises(ValueError, match=r"exported for one 48x32 image at x8, got guide .* --size 64x32"):
        upsampler.upsample(np.zeros((32, 64, 3), np.uint8), np.ones((4, 8), np.float32))


def test_what_cannot_be_exported_or_read(tmp_path, capsys):
    save_weights(tmp_path / "full.safetensors", D2A2(4, channels=8, blocks=1), {})
    weights(tmp_path / "w.safetensors")
    weights(tmp_path / "clean.safetensors", back_projections=1)
    for arguments, said in (
        (["full.safetensors", "4"], "has deformable convolutions"),
        (["clean.safetensors", "4"], "back-projects"),
        (["w.safetensors", "16"], "are for scales [4, 8], asked for 16"),
    ):
        command = [
            "export",
            str(tmp_path / "x.onnx"),
            "--weights",
            str(tmp_path / arguments[0]),
            "--scale",
            arguments[1],
        ]
        assert main(command) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "x.onnx").exists()
    (tmp_path / "x.onnx").write_bytes(b"nothing")
    with pytest.raises(WeightsError, match="is no file of d2a2 export"):
        DepthUpsampler.from_pretrained(tmp_path / "x.onnx", "cpu")
