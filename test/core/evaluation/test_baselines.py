"""The baselines: against independent results, and what each of them must do by definition."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from d2a2_core.data.sets.benchmarks import open_dataset
from d2a2_core.evaluation.baselines import METHODS, NetworkMethod, get_method, network_inputs
from d2a2_core.evaluation.metrics import compare
from d2a2_core.evaluation.protocol import make_case

NEEDS_OPENCV = {"guided", "joint_bilateral", "fgs"}


def method_or_skip(name: str):
    if name in NEEDS_OPENCV:
        pytest.importorskip("cv2.ximgproc", reason="needs opencv-contrib-python-headless")
    return get_method(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_agrees_with_an_independent_run(name, shared):
    """RMSE and MAE within 0.1 % on images of the three sets at each scale (most agree in all 4 published digits)."""
    method = method_or_skip(name)
    with open(shared / "reference/tables/peers_dev.csv", newline="") as stream:
        published = {(r["image"], int(r["scale"]), r["method"]): r for r in csv.DictReader(stream)}
    for dataset, index in (("middlebury", 1), ("lu", 0), ("nyuv2", 0)):
        sample = open_dataset(dataset, shared / "data/benchmark_dev")[index]
        for scale in (4, 8, 16):
            case = make_case(sample, scale)
            prediction = case.restore(method(case.guide, case.lr, scale))
            values = compare(prediction, case.truth, sample.metric_factor, sample.border)
            expected = published[sample.name, scale, name]
            assert values["rmse"] == pytest.approx(float(expected["rmse"]), rel=1e-3), (dataset, scale)
            assert values["mae"] == pytest.approx(float(expected["mae"]), rel=1e-3), (dataset, scale)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("scale", [2, 4])
def test_flat_depth_stays_flat(name, scale):
    guide = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    lr = np.full((24 // scale, 32 // scale), 0.25, np.float32)
    result = method_or_skip(name)(guide, lr, scale)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, np.full((24, 32), 0.25), atol=1e-4)


def test_joint_bilateral_upsampling_puts_the_edge_where_the_colour_is():
    """The true edge cuts an LR pixel in two: only the guide knows where."""
    guide = np.zeros((16, 32, 3), np.uint8)
    guide[:, 14:] = 255
    lr = np.tile(np.array([0, 0, 0, 0.5, 1, 1, 1, 1], np.float32), (4, 1))
    case = {name: np.asarray(get_method(name)(guide, lr, 4)) for name in ("bilinear", "jbu")}
    truth = (np.arange(32) >= 14).astype(np.float32)
    error = {name: np.abs(result - truth).mean() for name, result in case.items()}
    assert error["jbu"] < 0.8 * error["bilinear"]


def test_unknown_method_lists_the_known():
    with pytest.raises(
        ValueError, match="expected one of nearest, bilinear, bicubic, guided, joint_bilateral, jbu, fgs"
    ):
        get_method("magic")


@pytest.mark.parametrize(
    ("module", "name", "package"), [("cv2", "guided", "opencv-contrib"), ("onnxruntime", "a.onnx", "onnx")]
)
def test_missing_package_is_named(monkeypatch, module, name, package):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=f"pip install {package}"):
        get_method(name)(np.zeros((8, 8, 3), np.uint8), np.zeros((2, 2), np.float32), 4)


class GreenPlusDepth(nn.Module):
    """Half the guide's green plus the LR's pixels, enlarged."""

    def forward(self, guide, lr):
        return 0.5 * guide[:, 1:2] + nn.functional.interpolate(lr, size=guide.shape[-2:], mode="nearest")


GUIDE = np.random.default_rng(1).integers(0, 256, (8, 12, 3), dtype=np.uint8)
LR = np.linspace(0, 1, 6, dtype=np.float32).reshape(2, 3)
EXPECTED = 0.5 * GUIDE[..., 1] / 255 + LR.repeat(4, 0).repeat(4, 1)


def test_network_gets_rgb_and_depth_in_unit_range():
    method = NetworkMethod(GreenPlusDepth(), 4, "ours")
    np.testing.assert_allclose(method(GUIDE, LR, 4), EXPECTED, atol=1e-6)
    with pytest.raises(ValueError, match="ours was trained for scale 4, asked for 8"):
        method(GUIDE, LR, 8)


def export(path: Path, names=("guide", "lr"), free=True) -> None:
    """The same function as an ONNX file."""
    onnx = pytest.importorskip("onnx", reason="needs onnx to make the test's file")
    from onnx import TensorProto, helper

    big, small = ([1, 3, "H", "W"], [1, 1, "h", "w"]) if free else ([1, 3, 16, 16], [1, 1, 4, 4])
    constant = {
        "weight": np.array([0, 0.5, 0], np.float32).reshape(1, 3, 1, 1),
        "by": np.array([1, 1, 4, 4], np.float32),
    }
    nodes = [
        helper.make_node("Conv", [names[0], "weight"], ["green"]),
        helper.make_node("Resize", [names[1], "", "by"], ["large"], mode="nearest", nearest_mode="floor",
                         coordinate_transformation_mode="asymmetric"),
        helper.make_node("Add", ["green", "large"], ["depth"]),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in zip(names, (big, small), strict=True)],
        [helper.make_tensor_value_info("depth", TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(v, k) for k, v in constant.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)


def test_onnx_file_is_a_method(tmp_path):
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    export(tmp_path / "green.onnx")
    method = get_method(str(tmp_path / "green.onnx"))
    assert method.name == "green"
    np.testing.assert_allclose(method(GUIDE, LR, 4), EXPECTED, atol=1e-6)


def test_onnx_file_with_other_inputs_is_refused(tmp_path):
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    export(tmp_path / "other.onnx", names=("rgb", "lr"))
    with pytest.raises(ValueError, match=r"expected the inputs 'guide' and 'lr', found .*rgb"):
        get_method(str(tmp_path / "other.onnx"))
    export(tmp_path / "fixed.onnx", free=False)
    with pytest.raises(ValueError, match=r"fixed: input 'guide' is fixed to \[1, 3, 16, 16\], got \(1, 3, 8, 12\)"):
        get_method(str(tmp_path / "fixed.onnx"))(GUIDE, LR, 4)


def test_network_inputs_shapes_and_range():
    guide, lr = (torch.from_numpy(array) for array in network_inputs(GUIDE, LR))
    assert guide.shape == (1, 3, 8, 12)
    assert lr.shape == (1, 1, 2, 3)
    assert guide[0, 2, 5, 7] == pytest.approx(GUIDE[5, 7, 2] / 255)
