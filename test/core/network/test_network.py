"""The networks: size, agreement with the authors' release, ablations, and errors."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from d2a2_core.network import D2A2, SCALES, D2A2Lite, build_model, takes_trust
from d2a2_core.network.deformable import BoundedDeformConv, ModulatedDeformConv
from d2a2_core.network.warm_start import adapted_state, with_reach, with_trust, without_geometric
from d2a2_core.weights import from_official, load_official_checkpoint, load_weights, save_weights, to_official

TINY = {"channels": 16, "blocks": 1}
ABLATIONS = [
    {"domain": "instance_norm"},
    {"domain": "batch_norm"},
    {"domain": "none"},
    {"geometric": False},
    {"domain": "none", "geometric": False},
    {"gated": False},
    {"attention": "channel"},
    {"attention": "spatial"},
    {"attention": "none"},
    {"domain": "none", "geometric": False, "gated": False, "attention": "none"},
]


def pair(scale, size=(32, 48), batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    guide = torch.rand(batch, 3, *size, generator=generator)
    lr = torch.rand(batch, 1, size[0] // scale, size[1] // scale, generator=generator)
    return guide, lr


def count(model):
    return sum(p.numel() for p in model.parameters())


def parity(shared, scale):
    folder = shared / "reference/parity"
    with np.load(folder / f"reference_c16_x{scale}.npz") as data:
        vectors = {key: torch.from_numpy(data[key]) for key in ("rgb_bgr", "lr", "out")}
    return folder / f"official_c16_x{scale}.pth", vectors


@pytest.mark.parametrize("scale", SCALES)
def test_parameter_count_of_the_paper(scale):
    assert count(D2A2(scale)) == 2_533_711


@pytest.mark.parametrize("scale", SCALES)
def test_agrees_with_the_authors_release(shared, scale):
    path, vectors = parity(shared, scale)
    model = load_official_checkpoint(path, scale)
    assert not model.training
    with torch.no_grad():
        out = model(vectors["rgb_bgr"].flip(1), vectors["lr"])
        assert (out - vectors["out"]).abs().max() < 1e-5
        # The loader turns the first convolution to RGB, so the authors' own channel order must now be wrong.
        assert (model(vectors["rgb_bgr"], vectors["lr"]) - vectors["out"]).abs().max() > 0.03


def test_checkpoint_without_dataparallel_prefix(shared, tmp_path):
    path, vectors = parity(shared, 4)
    state = torch.load(path, weights_only=True)
    assert all(key.startswith("module.") for key in state)
    torch.save({key.removeprefix("module."): value for key, value in state.items()}, tmp_path / "plain.pth")
    with torch.no_grad():
        out = load_official_checkpoint(tmp_path / "plain.pth", 4)(vectors["rgb_bgr"].flip(1), vectors["lr"])
    assert (out - vectors["out"]).abs().max() < 1e-5


def test_official_names_and_back(shared):
    state = torch.load(parity(shared, 8)[0], weights_only=True)
    ours = from_official(state)
    assert set(ours) == set(D2A2(8, channels=16).state_dict())
    back = to_official(ours)
    assert list(back) == list(state)
    assert all(torch.equal(back[key], state[key]) for key in state)


def test_our_names_and_back():
    state = D2A2(4, channels=16).state_dict()
    official = to_official(state, prefix="")
    assert not set(official) & set(state)  # every single key has a name of the authors'
    again = from_official(official)
    assert set(again) == set(state)
    assert all(torch.equal(again[key], state[key]) for key in state)
    assert torch.equal(official["LTE.conv_head.0.weight"], state["guide_pyramid.head.0.weight"].flip(1))


@pytest.mark.parametrize("scale", SCALES)
def test_batch_equals_singles_in_eval_mode(scale):
    model = D2A2(scale, **TINY).eval()
    guide, lr = pair(scale)
    with torch.no_grad():
        both = model(guide, lr)
        single = torch.cat([model(guide[i : i + 1], lr[i : i + 1]) for i in range(2)])
    assert both.shape == (2, 1, 32, 48)
    torch.testing.assert_close(both, single, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{}, *ABLATIONS, "lite"], ids=str)
@pytest.mark.slow
def test_every_variant_trains_saves_and_loads(options, tmp_path):
    torch.manual_seed(0)
    model = D2A2Lite((4, 8), **TINY) if options == "lite" else D2A2(4, **TINY, **options)
    guide, lr = pair(4, (24, 16))
    target = F.interpolate(lr, scale_factor=4, mode="bilinear") + 0.3 * guide[:, :1]
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)
    losses = []
    for _ in range(12):
        loss = F.l1_loss(model(guide, lr), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0], losses
    unused = [name for name, p in model.named_parameters() if p.grad is None]
    assert not unused

    save_weights(tmp_path / "tiny.safetensors", model, {})
    loaded = load_weights(tmp_path / "tiny.safetensors")
    assert loaded.config == model.config
    assert count(loaded) == count(model)
    with torch.no_grad():
        assert torch.equal(loaded(guide, lr), model.eval()(guide, lr))


def test_ablations_leave_parts_out():
    sizes = {str(options): count(D2A2(4, **TINY, **options)) for options in ({}, *ABLATIONS)}
    full = sizes.pop("{}")
    assert all(size < full for key, size in sizes.items() if "channel" not in key), sizes


def test_offsets_start_at_zero_and_learn():
    """The zero-initialised predictor must get a gradient, or the alignment would stay a plain convolution for ever."""
    model = D2A2(4, **TINY)
    guide, lr = pair(4, (16, 16))
    model(guide, lr).square().mean().backward()
    for stage in (model.stage1, model.stage2, model.stage3):
        predict = stage.dda.geometric.deform.predict
        assert not predict.weight.any()
        assert predict.weight.grad[:144].abs().max() > 0  # offsets
        assert predict.weight.grad[144:].abs().max() > 0  # masks


@pytest.mark.parametrize("scale", SCALES)
def test_lite_serves_every_scale_with_one_set_of_weights(scale):
    model = D2A2Lite(channels=16, blocks=1).eval()
    assert model.scales == SCALES
    with torch.no_grad():
        assert model(*pair(scale)).shape == (2, 1, 32, 48)


def test_lite_knows_only_its_scales():
    model = D2A2Lite((8, 4), channels=16, blocks=1)
    assert model.scales == (4, 8)
    with pytest.raises(ValueError, match="is not 4 or 8 times"):
        model(*pair(16))


def test_lite_costs_a_sixth():
    def multiplications(model):
        total = 0

        def count_one(module, inputs, output):
            nonlocal total
            total += output[0].numel() * module.weight[0].numel()

        for module in model.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.register_forward_hook(count_one)
        with torch.no_grad():
            model(torch.rand(1, 3, 32, 32), torch.rand(1, 1, 8, 8))
        return total

    assert multiplications(D2A2Lite()) < multiplications(D2A2(4)) / 6


@pytest.mark.parametrize("size", [(4, 12), (20, 28), (36, 44)], ids=str)
def test_lite_takes_features_of_odd_sizes(size):
    model = D2A2Lite((4,), channels=8, blocks=1).eval()
    with torch.no_grad():
        assert model(torch.rand(1, 3, *size), torch.rand(1, 1, size[0] // 4, size[1] // 4)).shape == (1, 1, *size)


@pytest.mark.slow
def test_lite_learns_to_look_at_the_guide():
    """Compact weights once shipped whose guide branch had died (all of its ReLUs below zero) without any test noticing."""
    torch.manual_seed(0)
    model = D2A2Lite((8,), channels=16, blocks=1, groups=4, context=(8, 8), detail=16).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    rng = np.random.default_rng(0)

    def batch(count):
        """A step of depth at a random place, brighter or darker than its surroundings, which only the guide tells exactly."""
        at = torch.from_numpy(rng.integers(20, 44, (count, 1, 1, 1)))
        right = (torch.arange(64).expand(count, 1, 64, 64) >= at).float()
        sign = torch.from_numpy(rng.choice([-1.0, 1.0], (count, 1, 1, 1))).float()
        return (0.5 + 0.3 * sign * (right - 0.5)).expand(-1, 3, -1, -1), F.avg_pool2d(right, 8), right

    for _ in range(40):
        guide, lr, hr = batch(4)
        optimizer.zero_grad()
        (model(guide, lr) - hr).abs().mean().backward()
        optimizer.step()
    guide, lr, hr = batch(8)
    with torch.no_grad():
        guided, unguided = ((model(g, lr) - hr).square().mean().sqrt() for g in (guide, guide.roll(1, 0)))
    assert guided < 0.8 * unguided
    for name, p in model.named_parameters():
        assert name == "joint.colour.bias" or p.grad.abs().max() > 0, name


def astray(conv, offset=80.0, logit=-90.0):
    """Offsets and masks as training without a bound left them."""
    with torch.no_grad():
        conv.predict.bias[: 18 * conv.groups], conv.predict.bias[18 * conv.groups :] = offset, logit
    return conv


def test_bounded_alignment_samples_within_its_reach():
    conv = astray(BoundedDeformConv(4, 2, reach=3.0), -1e6, 1e6)
    with torch.no_grad():
        conv.weight.zero_()
        conv.weight[:, :, 1, 1] = torch.eye(4)
        rows, cols = torch.arange(16.0)[:, None], torch.arange(20.0)
        out = conv((rows + 0.1 * cols).expand(1, 4, 16, 20), torch.zeros(1, 4, 16, 20))
    expected = torch.sigmoid(torch.tensor(4.0)) * ((rows - 3) + 0.1 * (cols - 3))
    torch.testing.assert_close(out[..., 3:, 3:], expected[3:, 3:].expand(1, 4, 13, 17), rtol=1e-4, atol=1e-4)


def test_a_bound_without_alignment_is_refused():
    for options in ({"reach": 4.0, "geometric": False}, {"reach": -1.0}):
        with pytest.raises(ValueError, match=r"reach .* bounds the deformable convolutions"):
            build_model({"model": "d2a2-lite"} | options)


def test_only_bounded_alignment_comes_back_from_far():
    x = torch.rand(2, 8, 32, 32)
    largest = {}
    for name, conv in (("paper", ModulatedDeformConv(8, 2)), ("bounded", BoundedDeformConv(8, 2, 4.0))):
        astray(conv)(x, x).square().sum().backward()
        largest[name] = conv.predict.weight.grad.abs().max().item()
    assert largest["paper"] < 1e-30
    assert largest["bounded"] > 1e-5


def test_weights_whose_alignment_was_lost_begin_anew_without_effect():
    torch.manual_seed(0)
    options = {"channels": 8, "blocks": 1, "groups": 4, "context": (8, 8), "detail": 16}
    lost, bounded = D2A2Lite((8,), **options).eval(), D2A2Lite((8,), **options, reach=4.0).eval()
    for stage in lost.stages:
        torch.nn.init.normal_(astray(stage.dda.geometric.deform).bias)
    for module in (*(stage.merge[2] for stage in lost.stages), lost.detail[4]):
        torch.nn.init.normal_(module.weight, std=0.1)
    bounded.load_state_dict(with_reach(lost.state_dict(), bounded))
    guide, lr = pair(8)
    with torch.no_grad():
        torch.testing.assert_close(bounded(guide, lr), lost(guide, lr))
    assert build_model(bounded.config).stages[2].dda.geometric.deform.reach == 4.0
    before = [stage.dda.geometric.deform.predict.weight.clone() for stage in bounded.stages]
    optimizer = torch.optim.Adam(bounded.train().parameters(), lr=1e-3)
    for _ in range(3):
        optimizer.zero_grad()
        bounded(guide, lr).square().mean().backward()
        optimizer.step()
    for stage, old in zip(bounded.stages, before, strict=True):
        assert not torch.equal(stage.dda.geometric.deform.predict.weight, old)


def test_weights_whose_alignment_was_lost_can_do_without_it():
    torch.manual_seed(0)
    options = {"channels": 8, "blocks": 1, "groups": 4, "context": (8, 8), "detail": 16, "trust": True}
    lost, without = D2A2Lite((4, 8), **options).eval(), D2A2Lite((4, 8), **options, geometric=False).eval()
    for stage in lost.stages:
        torch.nn.init.normal_(astray(stage.dda.geometric.deform).bias)
    for module in (*(stage.merge[2] for stage in lost.stages), lost.detail[4]):
        torch.nn.init.normal_(module.weight, std=0.1)
    without.load_state_dict(without_geometric(lost.state_dict(), without))
    assert not any("geometric" in name for name, _ in build_model(without.config).named_parameters())
    guide, lr = pair(4, size=(160, 192), batch=1)
    with torch.no_grad():
        expected, out = lost(guide, lr), without(guide, lr)
    inside = (..., slice(64, -64), slice(64, -64))  # at the border padding ended the bias, and context sees far
    torch.testing.assert_close(out[inside], expected[inside], rtol=0, atol=1e-5)
    without.train()
    without(guide, lr).square().mean().backward()
    for stage in without.stages:  # the domain alignment is learnt again
        assert stage.mfa.fuse.weight.grad[:, 8:].abs().max() > 0


@pytest.mark.slow
def test_lite_with_trust_begins_as_the_one_without_and_learns_what_it_is_worth():
    """Holes of LR hold nonsense: whoever is told where they are can do without it."""
    torch.manual_seed(0)
    options = {"channels": 8, "blocks": 1, "groups": 4, "context": (8, 8), "detail": 16}
    plain, told = D2A2Lite((8,), **options).eval(), D2A2Lite((8,), **options, trust=True).eval()
    assert takes_trust(told)
    assert not takes_trust(plain)
    told.load_state_dict(with_trust(plain.state_dict(), told))

    def batch(count):
        hr = torch.rand(count, 1, 1, 1).expand(-1, -1, 64, 64)
        holes = torch.rand(count, 1, 8, 8) < 0.3
        lr = torch.where(holes, torch.rand(count, 1, 8, 8), F.avg_pool2d(hr, 8))
        return torch.rand(count, 3, 64, 64), lr, 1 - holes.float(), hr

    guide, lr, trust, hr = batch(4)
    with torch.no_grad():
        torch.testing.assert_close(told(guide, lr), plain(guide, lr))
        torch.testing.assert_close(told(guide, lr, torch.ones_like(lr)), plain(guide, lr))
        told.joint.doubt.zero_()
        torch.testing.assert_close(told(guide, lr, trust), plain(guide, lr))
        told.joint.doubt.fill_(0.5)
    optimizer = torch.optim.Adam(told.train().parameters(), lr=2e-3)
    for _ in range(30):
        guide, lr, trust, hr = batch(4)
        optimizer.zero_grad()
        (told(guide, lr, trust) - hr).abs().mean().backward()
        optimizer.step()
    assert told.joint.doubt.grad.abs().max() > 0
    guide, lr, trust, hr = batch(8)
    with torch.no_grad():
        right, wrong = ((told(guide, lr, t) - hr).abs().mean() for t in (trust, torch.ones_like(lr)))
    assert right < 0.8 * wrong


@pytest.mark.parametrize(
    "wider",
    [
        {"channels": 12},
        {"context": (12, 8)},
        {"context": (8, 16)},
        {"detail": 24},
        {"channels": 16, "context": (12, 16)},
    ],
    ids=str,
)
def test_a_wider_network_begins_as_the_narrow_one_and_learns_with_all_of_it(wider):
    torch.manual_seed(0)
    options = {"channels": 8, "blocks": 1, "context": (8, 8), "detail": 16, "trust": True, "geometric": False}
    narrow, wide = D2A2Lite((4, 8), **options), D2A2Lite((4, 8), **options | wider)
    for module in (
        *(stage.merge[2] for stage in narrow.stages),
        *(s.context.up1[1] for s in narrow.stages),
        narrow.detail[4],
    ):
        torch.nn.init.normal_(module.weight, std=0.1)
    narrow.train()
    for scale in (4, 8):  # running statistics of their own
        narrow(*pair(scale))
    wide.load_state_dict(adapted_state(narrow, wide))
    narrow.eval()
    wide.eval()
    for scale in (4, 8):
        guide, lr = pair(scale, seed=1)
        trust = (lr > 0.5).float()
        with torch.no_grad():
            torch.testing.assert_close(wide(guide, lr, trust), narrow(guide, lr, trust), atol=1e-5, rtol=0)
    before = {name: p.detach().clone() for name, p in wide.named_parameters()}
    optimizer = torch.optim.SGD(wide.parameters(), lr=1.0)
    for _ in range(2):  # in the first, what leads to the new channels has no gradient yet
        optimizer.zero_grad()
        wide(*pair(4, seed=2)).square().mean().backward()
        optimizer.step()
    old = dict(narrow.named_parameters())
    for name, p in wide.named_parameters():
        new = slice(len(old[name]), None)  # output channels; a ReLU leaves some without a gradient
        if p.dim() == 4 and len(p) > len(old[name]):
            assert (p.detach() != before[name])[new].flatten(1).any(1).float().mean() > 0.4, name


def test_a_narrower_network_does_not_take_wide_weights():
    wide = D2A2Lite((8,), channels=16, blocks=1, geometric=False)
    narrow = D2A2Lite((8,), channels=8, blocks=1, geometric=False)
    with pytest.raises(ValueError, match=r"is \(16, .*in the weights to start from, \(8, "):
        adapted_state(wide, narrow)


@pytest.mark.parametrize("more", [{"blocks": 2}, {"context": ()}, {"heads": 3}, {"scales": (4, 8)}], ids=str)
def test_a_wider_network_that_differs_in_more_is_refused(more):
    options = {"scales": (8,), "channels": 8, "blocks": 1, "context": (8, 8), "geometric": False}
    with pytest.raises(ValueError, match="only channels, context, detail may be larger"):
        adapted_state(D2A2Lite(**options), D2A2Lite(**options | {"channels": 12} | more))


def test_trust_must_be_wanted_and_fit():
    guide, lr = pair(4)
    with pytest.raises(ValueError, match="expected trust None, as this model takes none"):
        D2A2Lite(**TINY)(guide, lr, torch.ones_like(lr))
    with pytest.raises(ValueError, match="expected trust of the size of lr"):
        D2A2Lite(**TINY, trust=True)(guide, lr, torch.ones_like(lr[..., 1:]))


@pytest.mark.parametrize("model", [D2A2(4, **TINY), D2A2Lite(**TINY)], ids=["d2a2", "lite"])
def test_bad_inputs_are_named(model):
    guide, lr = pair(4)
    for bad_guide, bad_lr in ((guide[:, :1], lr), (guide, lr[:, 0]), (guide[:1], lr), (guide, guide[..., ::4, ::4])):
        with pytest.raises(ValueError, match=r"expected guide \(B, 3, H, W\)"):
            model(bad_guide, bad_lr)
    for bad_lr in (lr[..., :-1], lr[..., ::2], lr[..., ::2, ::2][..., :3]):
        with pytest.raises(ValueError, match="DepthUpsampler brings any pair"):
            model(guide, bad_lr)


def test_bad_options_are_named():
    with pytest.raises(ValueError, match="scale must be one of"):
        D2A2(3)
    with pytest.raises(ValueError, match="scales must be some of"):
        D2A2Lite((4, 5))
    with pytest.raises(ValueError, match="scales must be some of"):
        D2A2Lite(())
    with pytest.raises(ValueError, match="domain alignment must be one of"):
        D2A2(4, **TINY, domain="layer_norm")
    with pytest.raises(ValueError, match="attention must be one of"):
        D2A2(4, **TINY, attention="self")
    with pytest.raises(ValueError, match="names model 'resnet'"):
        build_model({"model": "resnet"})
    with pytest.raises(ValueError, match="does not fit d2a2"):
        build_model({"model": "d2a2", "depth": 3})


def test_statistics_match_the_definition():
    from d2a2_core.network.alignment import channel_statistics

    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    mean, std = channel_statistics(x)
    flat = x.flatten(2).numpy()
    np.testing.assert_allclose(mean.numpy(), flat.mean(2), atol=1e-12)
    np.testing.assert_allclose(std.numpy(), np.sqrt(flat.var(2, ddof=1) + 1e-5), atol=1e-12)


def test_lite_keeps_running_statistics_of_its_own_for_every_scale():
    torch.manual_seed(0)
    model = D2A2Lite(scales=(4, 8), channels=8, blocks=1).train()
    norm = model.stages[0].mfa.gate.norm
    before = norm.running_mean.clone()
    guide = torch.rand(2, 3, 32, 32)
    model(guide, torch.rand(2, 1, 4, 4))  # x8
    assert torch.equal(norm.running_mean[0], before[0])
    assert not torch.equal(norm.running_mean[1], before[1])
    reference = torch.nn.BatchNorm2d(8).eval()
    reference.running_mean, reference.running_var = norm.running_mean[1].clone(), norm.running_var[1].clone()
    x = torch.randn(2, 8, 5, 5)
    torch.testing.assert_close(norm.eval()(x, 1), reference(x))


def test_a_forward_leaves_nothing_behind_in_any_module():
    model = D2A2Lite(scales=(4, 8), channels=8, blocks=1, trust=True).eval()

    def attributes():
        return [{k: v for k, v in vars(m).items() if not k.startswith("_")} for m in model.modules()]

    before = attributes()
    for scale in (8, 4):
        with torch.inference_mode():
            model(*pair(scale))
        assert attributes() == before


def test_traced_at_one_scale_while_another_is_computed():
    torch.manual_seed(0)
    model = D2A2Lite(scales=(4, 8), channels=8, blocks=1, geometric=False).train()
    for scale in (4, 8, 8):
        model(*pair(scale))  # different statistics
    model.eval()
    with torch.no_grad():
        traced = torch.jit.trace(model, pair(4), check_trace=False)
        model(*pair(8))
        assert torch.equal(traced(*pair(4, seed=1)), model(*pair(4, seed=1)))
