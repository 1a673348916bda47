"""Regridding as other runtimes compute it, and nearest pixels against PyTorch's."""

import io
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from d2a2_core.depth import nearest_pixel
from d2a2_core.depth.lr_grid import to_lr_grid


class Regridding(nn.Module):
    """:func:`to_lr_grid` as a module, for exporters."""

    def __init__(self, size, scale):
        super().__init__()
        self.size, self.scale = size, scale

    def forward(self, depth):
        return to_lr_grid(depth, self.size, self.scale)


def with_holes(size):
    rng = np.random.default_rng(0)
    depth = 1 + 0.02 * rng.random((1, 1, *size)) + (np.arange(size[1]) > size[1] // 2)
    depth[rng.random(depth.shape) < 0.2] = np.nan
    return torch.from_numpy(depth.astype(np.float32))


# ONNX Runtime's ReduceMin and ReduceMax pass over NaN, PyTorch's amin and amax do not: holes grew by what was mixed with them.
@pytest.mark.parametrize(
    ("size", "depth_size", "scale"),
    [
        ((48, 64), (12, 16), 4),
        ((66, 130), (16, 31), 4),
        ((66, 130), (19, 31), 4),
        ((48, 64), (31, 41), 4),
        ((40, 52), (80, 104), 4),
        ((41, 53), (80, 104), 4),
        ((51, 77), (5, 9), 8),
    ],
    ids=["a cell each", "coarser than cells", "finer and coarser", "finer", "twice the colour", "beyond colour", "few"],
)
def test_onnx_runtime_regrids_as_pytorch_does(size, depth_size, scale):
    pytest.importorskip("onnx", reason="exporting needs onnx")
    onnxruntime = pytest.importorskip("onnxruntime", reason="running the file needs onnxruntime")
    depth, module, file = with_holes(depth_size), Regridding(size, scale).eval(), io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (depth,), file, input_names=["depth"], opset_version=18, dynamo=False)
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    # Other values than those the exporter saw, and one column that holds nothing.
    given = depth.flip(-1)
    given[..., 3] = torch.nan
    np.testing.assert_allclose(session.run(None, {"depth": given.numpy()})[0], module(given).numpy(), atol=1e-6)


@pytest.mark.parametrize(
    ("wanted", "had"), [((12, 16), (4, 4)), ((13, 17), (31, 40)), ((48, 70), (13, 19)), ((5, 9), (5, 9))]
)
def test_nearest_pixels_are_pytorchs_nearest_exact(wanted, had):
    image = torch.rand(2, 3, *had, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(nearest_pixel(image, wanted), F.interpolate(image, size=wanted, mode="nearest-exact"))


def test_a_centre_on_the_border_of_two_pixels_takes_the_second():
    # Row k of 3 out of 30 has its centre at (k + 0.5) * 10, the border of rows 4 and 5, 14 and 15, 24 and 25.
    image = torch.arange(30.0).view(1, 1, 30, 1)
    assert nearest_pixel(image, (3, 1)).flatten().tolist() == [5, 15, 25]
