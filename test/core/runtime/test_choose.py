"""What computes a network: the one choice of runtime, device and precision, and a runtime of one's own."""

import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from d2a2_core.evaluation.baselines import NetworkMethod, get_method
from d2a2_core.runtime import RUNTIMES, ModelRuntime, Runtime, choose, choose_runtime, open_runtime
from d2a2_core.runtime.int8 import Int8Ranges
from d2a2_core.upsampler import DepthUpsampler
from d2a2_core.weights import load_weights
from d2a2_core.weights.files import WeightsError

RANGES = Int8Ranges((4, 8), {"convolution": torch.tensor([[0.0, 1.0], [0.0, 1.0]])})


class Bilinear(nn.Module):
    scales = (4, 8)

    def forward(self, guide, lr):
        return F.interpolate(lr, size=guide.shape[-2:], mode="bilinear", align_corners=False)


@pytest.fixture
def computer(monkeypatch):
    """Says what this computer has: at first openvino, which is faster in int8, and no bfloat16."""

    def has(**parts):
        homes = {
            "openvino": "openvino.has_openvino",
            "int8": "openvino.OpenVinoRuntime.int8_pays",
            "bfloat16": "device.has_bfloat16",
        }
        for part, there in parts.items():
            monkeypatch.setattr(f"d2a2_core.runtime.{homes[part]}", lambda *_, there=there: there)

    has(openvino=True, int8=True, bfloat16=False)
    return has


def chosen(precision="auto", runtime="auto", int8=None):
    result = choose_runtime(Bilinear(), "cpu", precision, runtime, int8)
    assert result.device == torch.device("cpu")
    assert result.scales == (4, 8)
    assert not result.takes_trust
    return result.name, result.precision


def test_choice_of_the_runtime(computer):
    assert choose_runtime(Bilinear(), "cpu", "float32").name == "torch"
    assert chosen("float32") == ("openvino", "float32")
    assert chosen("bfloat16") == ("torch", "bfloat16")
    with pytest.raises(
        ValueError, match=r"openvino needs precision float32 or int8, got bfloat16; use precision 'auto'"
    ):
        chosen("bfloat16", "openvino")
    with pytest.raises(ValueError, match=r"runtime must be one of .*, got 'tensorrt'"):
        chosen(runtime="tensorrt")
    computer(bfloat16=True)
    assert chosen() == ("torch", "bfloat16")
    assert chosen(runtime="openvino") == ("openvino", "float32")
    computer(openvino=False, bfloat16=False)
    assert chosen() == ("torch", "float32")
    with pytest.raises(ImportError, match="pip install"):
        chosen("float32", "openvino")


def test_auto_takes_int8_where_it_pays(computer):
    assert chosen(int8=RANGES) == ("openvino", "int8")
    assert chosen(runtime="openvino", int8=RANGES) == ("openvino", "int8")
    assert chosen("float32", int8=RANGES) == ("openvino", "float32")
    assert chosen(runtime="torch", int8=RANGES) == ("torch", "float32")
    assert chosen() == ("openvino", "float32")
    computer(int8=False)
    assert chosen(int8=RANGES) == ("openvino", "float32")
    assert chosen("int8", int8=RANGES) == ("openvino", "int8")  # asked for, it is computed all the same
    computer(bfloat16=True)
    assert chosen(int8=RANGES) == ("torch", "bfloat16")


def test_what_int8_lacks_is_named(computer):
    with pytest.raises(ValueError, match=r"openvino needs weights with ranges beside them.*use precision 'auto'$"):
        chosen("int8")
    with pytest.raises(ValueError, match=r"torch needs precision float32 .* got int8; use .* or runtime 'openvino'"):
        chosen("int8", "torch", RANGES)
    computer(openvino=False)
    with pytest.raises(ValueError, match="openvino needs the package openvino"):
        chosen("int8", int8=RANGES)


def test_a_gpu_is_not_openvinos(computer, monkeypatch):
    monkeypatch.setattr(choose, "resolve_device", lambda _: torch.device("cuda"))
    with pytest.raises(ValueError, match=r"openvino needs device 'cpu', got 'cuda'; use runtime 'torch'"):
        choose_runtime(Bilinear(), "cuda", "auto", "openvino")
    with pytest.raises(
        ValueError, match=r"openvino needs device 'cpu', got 'cuda'; torch needs .*; use precision 'auto'"
    ):
        choose_runtime(Bilinear(), "cuda", "int8", "auto", RANGES)


# -- a runtime of one's own --------------------------------------------------------------------------------------------


class Nearest(Runtime):
    """A whole runtime: enlarges the LR depth, without a model."""

    name, precision, device, scales = "nearest", "float32", torch.device("cpu"), (4,)

    def __call__(self, guide, lr, trust=None):
        return F.interpolate(lr, size=guide.shape[-2:], mode="nearest")


class Fails(Nearest):
    def __call__(self, guide, lr, trust=None):
        raise MemoryError("none left")


PAIR = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8), np.linspace(1, 2, 24).reshape(4, 6)


def test_another_runtime_serves_upsampler_and_evaluation():
    upsampler = DepthUpsampler(Nearest(), ensemble=4)
    assert (upsampler.runtime, upsampler.precision, upsampler.scales) == ("nearest", "float32", (4,))
    np.testing.assert_allclose(upsampler.upsample(*PAIR).depth, PAIR[1].repeat(4, 0).repeat(4, 1), atol=1e-6)
    lr = (PAIR[1] - 1).astype(np.float32)
    method = NetworkMethod(Nearest(), "ours")
    np.testing.assert_array_equal(method(PAIR[0], lr, 4), get_method("nearest")(PAIR[0], lr, 4))
    with pytest.raises(MemoryError):
        DepthUpsampler(Fails()).upsample(*PAIR)


class TwiceTheTime(ModelRuntime):
    """A runtime as it would stand in a file of its own: computes a model twice, in bfloat16 alone."""

    name = "twice"
    works = True

    @classmethod
    def installed(cls):
        return True

    @classmethod
    def lacks(cls, device, precision, int8):
        return "" if precision == "bfloat16" else f"precision bfloat16, got {precision}"

    @classmethod
    def build(cls, model, device, precision, int8, alone):
        return cls(model, device, precision)

    def __call__(self, guide, lr, trust=None):
        if not self.works:
            raise MemoryError("none left")
        return (self.model(guide, lr) + self.model(guide, lr)) / 2


def test_another_runtime_of_models_is_one_class_and_one_entry(computer, monkeypatch):
    computer(bfloat16=True)
    monkeypatch.setattr(choose, "KINDS", (TwiceTheTime, *choose.KINDS))
    assert chosen() == ("twice", "bfloat16")
    assert chosen(runtime="twice") == ("twice", "bfloat16")
    assert chosen("float32") == ("openvino", "float32")
    with pytest.raises(ValueError, match=r"twice needs precision bfloat16, got float32; use .* or runtime 'torch'"):
        chosen("float32", "twice")
    upsampler = DepthUpsampler(choose_runtime(Bilinear(), "cpu", runtime="auto"))
    expected = DepthUpsampler.from_module(Bilinear(), "cpu", "float32").upsample(*PAIR).depth
    np.testing.assert_array_equal(upsampler.upsample(*PAIR).depth, expected)
    monkeypatch.setattr(TwiceTheTime, "works", False)
    with pytest.warns(RuntimeWarning, match=r"twice cannot run this network \(MemoryError: none left\); torch goes on"):
        upsampler.upsample(*PAIR)
    assert (upsampler.runtime, upsampler.precision) == ("torch", "bfloat16")
    assert "none left" in upsampler.runtime_problem


# -- files, and what is imported ---------------------------------------------------------------------------------------


def test_an_onnx_file_is_not_a_file_of_weights_and_brings_its_own_runtime(tmp_path):
    path = tmp_path / "x.onnx"
    path.write_bytes(b"nothing")
    with pytest.raises(WeightsError, match=r"expected the \.safetensors file"):
        load_weights(path)
    for options in ({"precision": "bfloat16"}, {"precision": "int8"}, {"runtime": "openvino"}):
        with pytest.raises(ValueError, match=r"which ONNX Runtime computes in float32, got .*; use 'auto' for both"):
            open_runtime(path, "cpu", **options)


@pytest.mark.slow
def test_optional_packages_are_imported_only_where_they_compute():
    code = """
import sys
import d2a2_core.runtime
from d2a2_core.runtime import onnx, onnx_export
print([name for name in ("onnx", "onnxruntime", "openvino") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_names_for_users():
    assert RUNTIMES == ("auto", "torch", "openvino")
