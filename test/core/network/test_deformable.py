"""The deformable convolution: each backend against its definition, written out as loops in float64."""

import math

import pytest
import torch
import torch.nn.functional as F

from d2a2_core.network.deformable import ModulatedDeformConv, available_backends, deform_conv2d, resolve_backend

BACKENDS = ("native", "torchvision")


def backend_or_skip(name: str) -> str:
    if name not in available_backends():
        pytest.skip(f"backend {name!r} does not import here")
    return name


def bilinear(image: torch.Tensor, y: float, x: float) -> float:
    """Sample of (H, W) at (y, x), where everything outside the image is zero."""
    height, width = image.shape
    y0, x0 = math.floor(y), math.floor(x)
    total = 0.0
    for row, wy in ((y0, y0 + 1 - y), (y0 + 1, y - y0)):
        for col, wx in ((x0, x0 + 1 - x), (x0 + 1, x - x0)):
            if 0 <= row < height and 0 <= col < width:
                total += wy * wx * float(image[row, col])
    return total


def reference(x, offset, mask, weight, bias):
    """Modulated deformable convolution by its definition, stride 1, "same" padding."""
    batch, channels, height, width = x.shape
    outputs, _, kh, kw = weight.shape
    taps = kh * kw
    per_group = channels // (mask.shape[1] // taps)
    columns = torch.zeros(batch, channels, taps, height, width, dtype=torch.float64)
    for b in range(batch):
        for c in range(channels):
            group = c // per_group
            for tap in range(taps):
                at = group * taps + tap
                for i in range(height):
                    for j in range(width):
                        y = i + tap // kw - kh // 2 + float(offset[b, 2 * at, i, j])
                        x_ = j + tap % kw - kw // 2 + float(offset[b, 2 * at + 1, i, j])
                        columns[b, c, tap, i, j] = float(mask[b, at, i, j]) * bilinear(x[b, c], y, x_)
    out = torch.einsum("ock,bckhw->bohw", weight.double().reshape(outputs, channels, taps), columns)
    return out if bias is None else out + bias.double().view(1, -1, 1, 1)


def case(groups, channels=4, outputs=3, size=(4, 6), kernel=(3, 3), spread=1.0, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    taps = kernel[0] * kernel[1]

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    return (
        normal(2, channels, *size),
        spread * normal(2, 2 * groups * taps, *size),
        torch.sigmoid(normal(2, groups * taps, *size)),
        normal(outputs, channels, *kernel),
        normal(outputs),
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("groups", "size", "kernel", "spread"),
    [
        (1, (4, 6), (3, 3), 0.5),
        (2, (6, 3), (3, 3), 2.0),  # many samples fall outside, by fractions of a pixel and by more
        (4, (3, 5), (3, 3), 20.0),  # most fall far outside
        (2, (4, 5), (1, 3), 1.0),
        (2, (1, 1), (3, 3), 0.7),
    ],
)
def test_agrees_with_the_definition(backend, groups, size, kernel, spread):
    arguments = case(groups, size=size, kernel=kernel, spread=spread)
    out = deform_conv2d(*arguments, backend=backend_or_skip(backend))
    torch.testing.assert_close(out, reference(*arguments), rtol=0, atol=1e-10)


@pytest.mark.parametrize("backend", BACKENDS)
def test_samples_on_the_border_fade_to_zero(backend):
    """A one-pixel image sampled off its centre: (1 - |dy|) (1 - |dx|) of it, and nothing from one pixel on."""
    x = torch.full((1, 1, 1, 1), 2.0, dtype=torch.float64)
    weight = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    mask = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    for dy, dx in ((0.0, 0.0), (-0.25, 0.0), (0.5, -0.5), (0.999, 0.0), (1.0, 0.0), (-1.5, 0.0), (0.0, 1e6)):
        offset = torch.tensor([dy, dx], dtype=torch.float64).view(1, 2, 1, 1)
        out = deform_conv2d(x, offset, mask, weight, backend=backend_or_skip(backend))
        expected = 2.0 * max(0.0, 1 - abs(dy)) * max(0.0, 1 - abs(dx))
        assert out.item() == pytest.approx(expected, abs=1e-12), (dy, dx)


@pytest.mark.parametrize("backend", BACKENDS)
def test_float32_and_no_bias(backend):
    x, offset, mask, weight, _ = case(2, spread=1.5, dtype=torch.float32)
    out = deform_conv2d(x, offset, mask, weight, None, backend=backend_or_skip(backend))
    assert out.dtype == torch.float32
    torch.testing.assert_close(out.double(), reference(x, offset, mask, weight, None), rtol=0, atol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients(backend):
    x, offset, mask, weight, bias = case(2, channels=2, outputs=2, size=(3, 4), spread=1.5)
    # Bilinear sampling has kinks at whole pixels, where no numeric gradient exists.
    offset = offset.floor() + 0.2 + 0.6 * (offset - offset.floor())
    inputs = [t.requires_grad_() for t in (x, offset, mask, weight, bias)]
    backend_or_skip(backend)
    assert torch.autograd.gradcheck(lambda *a: deform_conv2d(*a, backend=backend), inputs, fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_features_are_sampled_where_the_offsets_say(dtype):
    """Positions must not be rounded to the features' precision: a unit offset in a wide image still hits its column."""
    width = 700
    x = (torch.arange(width) % 2).to(dtype).expand(1, 1, 1, width)  # alternates, so a column off is as wrong as can be
    offset = torch.zeros(1, 2, 1, width, dtype=dtype)
    offset[:, 1] = 1
    ones = torch.ones(1, 1, 1, width, dtype=dtype)
    out = deform_conv2d(x, offset, ones, torch.ones(1, 1, 1, 1, dtype=dtype), backend="native")
    assert out.dtype == dtype
    torch.testing.assert_close(out[..., :-1].float(), x[..., 1:].float(), rtol=0, atol=0.02)


def test_module_starts_as_half_a_convolution():
    module = ModulatedDeformConv(8, groups=4)
    x, features = torch.randn(2, 8, 5, 7), torch.randn(2, 8, 5, 7)
    with torch.no_grad():
        module.bias.copy_(torch.randn(8))
        expected = 0.5 * F.conv2d(x, module.weight, padding=1) + module.bias.view(1, -1, 1, 1)
        torch.testing.assert_close(module(x, features), expected, rtol=1e-4, atol=1e-5)


def test_module_splits_its_prediction_into_offsets_then_mask():
    """Channels 0..2GK-1 of the predictor are offsets (dy first), the rest mask logits."""
    module = ModulatedDeformConv(8, groups=8)
    x = torch.randn(1, 8, 6, 6)
    with torch.no_grad():
        module.predict.bias[:144].view(8, 9, 2)[..., 0] = 1.0  # dy = 1 everywhere
        module.predict.bias[144:] = 50.0  # masks = 1
        moved = F.pad(x, (0, 0, 0, 1))[..., 1:, :]
        # Rows near the border see zeros beyond the image where a convolution of the moved image sees other ones.
        out, expected = module(x, x), F.conv2d(moved, module.weight, module.bias, padding=1)
    torch.testing.assert_close(out[..., 1:-1, :], expected[..., 1:-1, :], rtol=1e-4, atol=1e-5)


def test_errors():
    x, offset, mask, weight, bias = case(2)
    with pytest.raises(ValueError, match=r"expected offset with 2\*G\*9"):
        deform_conv2d(x, offset[:, :-1], mask, weight, bias)
    with pytest.raises(ValueError, match="got 36 and 17"):
        deform_conv2d(x, offset, mask[:, :-1], weight, bias)
    with pytest.raises(ValueError, match="3 channels cannot be split into 2"):
        deform_conv2d(x[:, :3], offset, mask, weight[:, :3], bias)
    with pytest.raises(ValueError, match=r"must be one of.*'cudnn'"):
        deform_conv2d(x, offset, mask, weight, bias, backend="cudnn")
    with pytest.raises(ValueError, match=r"channels \(12\) must be divisible by offset groups \(8\)"):
        ModulatedDeformConv(12, 8)


def test_auto_is_torchvision_off_the_cpu_only(monkeypatch):
    monkeypatch.setattr("d2a2_core.network.deformable.available_backends", lambda: ("native", "torchvision"))
    assert [resolve_backend("auto", device) for device in ("cpu", "cuda")] == ["native", "torchvision"]
    assert resolve_backend("torchvision", "cpu") == "torchvision"


def test_missing_torchvision_is_named(monkeypatch):
    monkeypatch.setattr("d2a2_core.network.deformable.available_backends", lambda: ("native",))
    assert resolve_backend("auto", "cuda") == "native"
    with pytest.raises(RuntimeError, match="torchvision does not import"):
        resolve_backend("torchvision")


def test_bands_of_rows_make_no_difference(monkeypatch):
    """The native backend works through large images in bands; one row at a time must give the same."""
    arguments = case(2, size=(7, 5), spread=3.0)
    expected = deform_conv2d(*arguments, backend="native")
    monkeypatch.setattr("d2a2_core.network.deformable._MAX_SAMPLES", 1)
    torch.testing.assert_close(deform_conv2d(*arguments, backend="native"), expected, rtol=0, atol=1e-12)
