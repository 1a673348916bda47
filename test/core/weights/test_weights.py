"""Weights files: round trip, every kind of damage, and writing that never leaves half a file."""

import json
import re
import subprocess
import sys
import warnings
import zipfile

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from d2a2_core import weights
from d2a2_core.cli import main
from d2a2_core.network import D2A2, D2A2Lite, build_model
from d2a2_core.network.sigma_head import SigmaHead
from d2a2_core.runtime.int8 import load_int8
from d2a2_core.weights import (
    WeightsError,
    list_pretrained,
    load_any,
    load_official_checkpoint,
    load_weights,
    read_info,
    resolve_weights,
    save_weights,
    sha256,
    to_official,
    zoo,
)
from d2a2_core.weights.files import write_safetensors
from d2a2_core.weights.sidecars import INT8, SIGMA, load_sigma_head, save_sigma_head


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return D2A2(8, channels=8, blocks=1, attention="spatial")


@pytest.fixture
def saved(model, tmp_path):
    path = tmp_path / "model.safetensors"
    save_weights(path, model, {"name": "tiny", "steps": 3})
    return path


def write(path, model, config=None, tensors=None, **metadata):
    """A weights file in the project's format, with whatever is to be wrong about it."""
    metadata = {"format": "d2a2-1", "config": json.dumps(config or model.config), "card": "{}", **metadata}
    save_file(tensors or model.state_dict(), path, metadata=metadata)
    return path


def test_round_trip(model, saved):
    info = read_info(saved)
    assert info.config == model.config
    assert info.card == {"name": "tiny", "steps": 3}
    assert info.scales == (8,)
    loaded = load_weights(saved)
    assert not loaded.training
    state = model.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in loaded.state_dict().items())
    assert not list(saved.parent.glob("*.partial"))


def test_scales_of_a_model_for_several(tmp_path):
    save_weights(tmp_path / "lite.safetensors", D2A2Lite((16, 4), channels=8, blocks=1), {})
    assert read_info(tmp_path / "lite.safetensors").scales == (4, 16)


def test_missing_file(tmp_path):
    with pytest.raises(WeightsError, match=r"no weights file at .*nothing\.safetensors"):
        load_weights(tmp_path / "nothing.safetensors")


@pytest.mark.parametrize("keep", [0, 4, 100, 0.5, -1])
def test_truncated_file(saved, keep):
    data = saved.read_bytes()
    saved.write_bytes(data[: int(len(data) * keep) if isinstance(keep, float) else keep])
    with pytest.raises(WeightsError, match="get it again"):
        load_weights(saved)


@pytest.mark.parametrize("data", [b"not weights at all, but quite long" * 10, b"<html>404</html>", b"\xff" * 64])
def test_garbage(tmp_path, data):
    path = tmp_path / "page.safetensors"
    path.write_bytes(data)
    with pytest.raises(WeightsError, match=re.escape(str(path))):
        load_weights(path)


def test_folder_in_place_of_a_file(tmp_path):
    with pytest.raises(WeightsError, match=re.escape(str(tmp_path))):
        load_weights(tmp_path)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_someone_elses_safetensors(model, tmp_path, metadata):
    path = tmp_path / "other.safetensors"
    save_file(model.state_dict(), path, metadata=metadata)
    with pytest.raises(WeightsError, match=r"lacks this project's configuration .*`d2a2 convert` of an authors' .pth"):
        load_weights(path)


@pytest.mark.parametrize("kind", ["sigma", "int8"])
def test_what_lies_beside_weights_is_not_taken_for_weights(kind):
    path = zoo.PRETRAINED / f"d2a2-lite-sensor.{kind}.safetensors"
    with pytest.raises(
        WeightsError, match=rf"lies beside weights \({kind}\); give the weights d2a2-lite-sensor.safetensors"
    ):
        load_weights(path)


def test_a_folder_is_named(tmp_path):
    with pytest.raises(WeightsError, match=f"{tmp_path} is a folder"):
        resolve_weights(tmp_path)


@pytest.mark.parametrize("metadata", [{"config": "{"}, {"config": "[]"}, {"config": "{}"}, {"card": "{"}])
def test_damaged_metadata(model, tmp_path, metadata):
    path = write(tmp_path / "damaged.safetensors", model, **metadata)
    with pytest.raises(WeightsError, match=re.escape(str(path))):
        load_weights(path)


@pytest.mark.parametrize(
    "change",
    [
        {"channels": 16},
        {"blocks": 2},
        {"attention": "none"},
        {"scale": 5},
        {"model": "d2a3"},
        {"bogus": 1},
        {"groups": 0},
    ],
    ids=str,
)
def test_tensors_that_do_not_fit_the_configuration(model, tmp_path, change):
    path = write(tmp_path / "misfit.safetensors", model, {**model.config, **change})
    with pytest.raises(WeightsError, match="do not fit its configuration"):
        load_weights(path)


def test_missing_tensor(model, tmp_path):
    tensors = dict(model.state_dict())
    del tensors["tail2.bias"]
    with pytest.raises(WeightsError, match=r"tail2\.bias"):
        load_weights(write(tmp_path / "hole.safetensors", model, tensors=tensors))


def test_unknown_name_lists_the_known_ones(monkeypatch, tmp_path, model):
    monkeypatch.setattr(zoo, "PRETRAINED", tmp_path)
    write(tmp_path / "small.safetensors", model)
    assert list_pretrained() == ["small"]
    assert resolve_weights("small") == tmp_path / "small.safetensors"
    with pytest.raises(WeightsError, match=r"no weights 'smal'.*\['small'\]"):
        resolve_weights("smal")


def test_a_path_beats_a_shipped_name(monkeypatch, tmp_path, saved):
    monkeypatch.setattr(zoo, "PRETRAINED", tmp_path)
    assert resolve_weights(str(saved)) == saved


def test_mixed_weights_are_the_sum_of_their_tensors(tmp_path):
    def made(name, seed):
        torch.manual_seed(seed)
        model = D2A2Lite(scales=(4, 8), channels=8, blocks=1)
        for key, value in model.state_dict().items():
            if key.endswith("running_var"):
                value.uniform_(0.001, 1)
        weights.save_weights(tmp_path / name, model, {"seed": seed})
        return tmp_path / name, model.state_dict()

    (a, x), (b, y), (c, z) = (made(f"{seed}.safetensors", seed) for seed in range(3))
    mixed = weights.mix_weights([(a, 1.0), (b, 1.0), (c, -1.0)]).state_dict()
    for key, value in mixed.items():
        expected = x[key] + y[key] - z[key]
        if key.endswith("running_var"):
            assert (expected < 1e-4).any()  # or the bound is not tried
            expected = expected.clamp(min=1e-4)
        torch.testing.assert_close(value, expected)

    assert main(["weights", "mix", str(tmp_path / "m.safetensors"), "--part", f"{a}=0.25", "--part", f"{b}=.75"]) == 0
    info = weights.read_info(tmp_path / "m.safetensors")
    assert [(part["factor"], part["card"]) for part in info.card["mixed"]] == [(0.25, {"seed": 0}), (0.75, {"seed": 1})]
    torch.testing.assert_close(
        weights.load_weights(tmp_path / "m.safetensors").tail[0].bias, 0.25 * x["tail.0.bias"] + 0.75 * y["tail.0.bias"]
    )


def test_mixed_weights_keep_the_credits_of_all_parts(tmp_path):
    model, parts = D2A2Lite(scales=(4,), channels=8, blocks=1), []
    for name, credits in (
        ("a", {"CC-BY-3.0": {"Ada": ["chair"], "Bo": ["lamp"]}}),
        ("b", {"CC-BY-3.0": {"Ada": ["bed", "chair"]}, "CC-BY-4.0": {"Cy": ["cup"]}}),
        ("c", {}),
    ):
        weights.save_weights(tmp_path / name, model, {"credits": credits} if credits else {})
        parts.append((tmp_path / name, 1 / 3))
    weights.save_mixed(tmp_path / "m", parts)
    assert weights.read_info(tmp_path / "m").card["credits"] == {
        "CC-BY-3.0": {"Ada": ["bed", "chair"], "Bo": ["lamp"]},
        "CC-BY-4.0": {"Cy": ["cup"]},
    }


def test_what_cannot_be_mixed(tmp_path, saved, capsys):
    small = tmp_path / "small.safetensors"
    weights.save_weights(small, D2A2Lite(scales=(4,), channels=8, blocks=1), {})
    with pytest.raises(weights.WeightsError, match="no common network"):
        weights.mix_weights([(saved, 0.5), (small, 0.5)])
    for parts in ([(saved, 1.0)], [(saved, 0.5), (saved, 0.6)], [(saved, 0.5), (saved, float("nan"))]):
        with pytest.raises(weights.WeightsError, match="sum is 1"):
            weights.mix_weights(parts)
    for part in ("nothing", "a=1.2.3", "=0.5"):
        with pytest.raises(SystemExit) as exit_:
            main(["weights", "mix", str(tmp_path / "m"), "--part", part])
        assert exit_.value.code == 2
        assert f"expected WEIGHTS=FACTOR, for example d2a2-lite=0.5, got '{part}'" in capsys.readouterr().err
    assert not (tmp_path / "m").exists()


def test_mixing_does_not_overwrite(tmp_path, saved, capsys):
    before = saved.read_bytes()
    assert main(["weights", "mix", str(saved), "--part", f"{saved}=0.5", "--part", f"{saved}=0.5"]) == 2
    assert "exists; name a new file" in capsys.readouterr().err
    assert saved.read_bytes() == before


@pytest.mark.parametrize("written", [0, 10])
def test_failing_write_leaves_the_old_file(monkeypatch, saved, written):
    before = saved.read_bytes()

    def full_disk(tensors, path, metadata):
        with open(path, "wb") as file:
            file.write(b"x" * written)
        raise OSError("No space left on device")

    monkeypatch.setattr("d2a2_core.weights.files.save_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_weights(saved, D2A2(4, channels=8, blocks=1), {})
    assert saved.read_bytes() == before
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]  # and no half file either


def test_parameters_on_views_are_saved(tmp_path):
    """A transposed parameter is not contiguous, which safetensors refuses to write."""
    model = D2A2(4, channels=8, blocks=1)
    weight = model.tail1.weight.detach()
    model.tail1.weight = nn.Parameter(weight.permute(0, 1, 3, 2))
    save_weights(tmp_path / "view.safetensors", model, {})
    loaded = load_weights(tmp_path / "view.safetensors")
    assert torch.equal(loaded.tail1.weight, weight.permute(0, 1, 3, 2))


def test_sha256(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


class TestOfficialCheckpoint:
    """load_official_checkpoint with everything that is not the authors' checkpoint."""

    def test_missing(self, tmp_path):
        with pytest.raises(WeightsError, match="no checkpoint at"):
            load_official_checkpoint(tmp_path / "none.pth", 4)

    def test_garbage(self, tmp_path):
        (tmp_path / "page.pth").write_bytes(b"<html>404</html>")
        with pytest.raises(WeightsError, match="cannot be read"):
            load_official_checkpoint(tmp_path / "page.pth", 4)

    def test_truncated(self, tmp_path, model):
        torch.save(weights.to_official(model.state_dict()), tmp_path / "whole.pth")
        data = (tmp_path / "whole.pth").read_bytes()
        (tmp_path / "half.pth").write_bytes(data[: len(data) // 2])
        with pytest.raises(WeightsError, match="cannot be read"):
            load_official_checkpoint(tmp_path / "half.pth", 4)

    def test_code_in_a_pickle_does_not_run(self, tmp_path):
        class Bomb:
            def __reduce__(self):
                return (open, (str(tmp_path / "boom"), "w"))

        torch.save({"weight": Bomb()}, tmp_path / "bomb.pth")
        with pytest.raises(WeightsError, match="cannot be read") as refused:
            load_official_checkpoint(tmp_path / "bomb.pth", 4)
        assert "weights_only" not in str(refused.value)  # torch advises to switch that off
        assert not (tmp_path / "boom").exists()

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ([torch.zeros(1)], "does not hold a state dict"),
            ({"epoch": 3}, "does not hold a state dict"),
            ({"weight": torch.zeros(1)}, "not a D2A2 checkpoint"),
        ],
    )
    def test_other_contents(self, tmp_path, content, message):
        torch.save(content, tmp_path / "other.pth")
        with pytest.raises(WeightsError, match=message):
            load_official_checkpoint(tmp_path / "other.pth", 4)

    @pytest.mark.parametrize("options", [{"gated": False}, {"groups": 4}], ids=str)
    def test_another_architecture(self, tmp_path, options):
        state = weights.to_official(D2A2(4, channels=8, blocks=1, **options).state_dict())
        torch.save(state, tmp_path / "ablation.pth")
        with pytest.raises(WeightsError, match="does not fit"):
            load_official_checkpoint(tmp_path / "ablation.pth", 4)

    def test_width_that_eight_groups_do_not_divide(self, tmp_path):
        state = weights.to_official(D2A2(4, channels=12, blocks=1, groups=4).state_dict())
        torch.save(state, tmp_path / "c12.pth")
        with pytest.raises(WeightsError, match="does not fit"):
            load_official_checkpoint(tmp_path / "c12.pth", 4)


def test_what_cannot_be_written_is_an_os_error_that_names_the_file(tmp_path):
    target = tmp_path / "m.safetensors"
    target.mkdir()
    with pytest.raises(OSError, match=r"m\.safetensors"):
        write_safetensors(target, {"a": torch.zeros(2)}, {})


@pytest.mark.slow
def test_weights_are_pruned_only_of_alignment_that_is_lost(tmp_path, capsys):
    torch.manual_seed(0)
    model = D2A2Lite((4, 8), channels=8, blocks=1, groups=2)
    for stage in model.stages:
        nn.init.normal_(stage.merge[2].weight, std=0.1)
    source, target = tmp_path / "source.safetensors", tmp_path / "target.safetensors"
    save_weights(source, model, {"seed": 7})
    command = ["weights", "prune", str(target), "--source", str(source)]
    assert main(command) == 2
    assert "they are in use" in capsys.readouterr().err
    assert not target.exists()
    with torch.no_grad():
        for stage in model.stages:
            stage.dda.geometric.deform.predict.bias[-18:] = -90.0  # masks
    save_weights(source, model, {"seed": 7})
    save_sigma_head(SIGMA.path(source), SigmaHead(), {"weights_sha256": sha256(source)})
    assert main(command) == 0
    assert load_sigma_head(target) is not None
    info = read_info(target)
    assert (info.config["geometric"], info.card["seed"]) == (False, 7)
    assert main(command) == 2
    assert "exists" in capsys.readouterr().err
    assert main(["weights", "prune", str(tmp_path / "again.safetensors"), "--source", str(target)]) == 2
    assert "expected compact weights (d2a2-lite) with deformable" in capsys.readouterr().err


SETTINGS = {
    "d2a2": {"model": "d2a2", "scale": 4, "channels": 8, "blocks": 1},
    "lite": {"model": "d2a2-lite", "scales": [4, 8], "channels": 8, "blocks": 1, "context": [8, 8], "detail": 8},
}
EXCESSIVE = [
    *((name, key, 6000) for name in SETTINGS for key in ("channels", "blocks", "groups")),
    *((name, "blocks", 10**9) for name in SETTINGS),
    ("lite", "back_projections", 10**9),
    ("lite", "heads", 10**6),
    ("lite", "detail", 10**6),
    ("lite", "context", [10**6, 8]),
    ("lite", "context", [8]),
    ("lite", "context", [8] * 10**6),
    ("lite", "context", [[[8]], 8]),
    ("lite", "scales", []),
    ("lite", "scales", [4] * 1000),
    ("lite", "scales", [1024]),
    ("lite", "reach", 1e300),
    ("lite", "reach", float("nan")),
    ("lite", "trust", "yes"),
    *((name, "channels", value) for name in SETTINGS for value in (0, -8, 8.5, "8", None, [], {}, True)),
    ("d2a2", "scale", None),
    ("d2a2", "domain", ["lda"]),
    ("d2a2", "model", ["d2a2"]),
    ("d2a2", "model", None),
]


@pytest.mark.parametrize(("name", "key", "value"), EXCESSIVE, ids=lambda value: str(value)[:20])
def test_a_configuration_beyond_the_limits_is_refused_by_name_before_a_network_is_built(monkeypatch, name, key, value):
    monkeypatch.setattr(nn.Conv2d, "__init__", None)  # not one layer
    with pytest.raises(ValueError, match=key) as error:
        build_model(SETTINGS[name] | {key: value})
    assert len(str(error.value)) < 700


def test_a_list_of_lists_without_end_is_refused_at_once():
    """YAML's references make it of a few lines."""
    endless = [8]
    for _ in range(60):
        endless = [endless] * 8
    for key in ("context", "channels", "model"):
        with pytest.raises(ValueError, match=key) as error:
            build_model(SETTINGS["lite"] | {key: endless})
        assert len(str(error.value)) < 2000


@pytest.mark.parametrize("name", SETTINGS)
def test_whole_numbers_may_have_a_point_and_lists_may_be_tuples(name):
    expected = build_model(SETTINGS[name])
    as_floats = {k: float(v) if isinstance(v, int) else v for k, v in SETTINGS[name].items()}
    as_tuples = {k: tuple(v) if isinstance(v, list) else v for k, v in SETTINGS[name].items()}
    for config in (as_floats, as_tuples):
        assert build_model(config).config == expected.config


LOADED = """
import resource, sys, time
from d2a2_core.weights import WeightsError, load_any
load_any("d2a2-nano-sensor")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[1:]:
    try:
        load_any(path, 4)
    except WeightsError as error:
        assert "do not fit" in str(error) or "does not fit" in str(error) or "bytes" in str(error), error
    else:
        raise AssertionError(path)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_what_a_file_makes_us_allocate_is_bounded_by_its_size(tmp_path):
    """Networks of gigabytes that a configuration within the limits asks for, in files of a few hundred bytes."""
    tensors = {"tail.0.bias": torch.zeros(512)}
    large = {"model": "d2a2-lite", "scales": [4], "channels": 512, "blocks": 64, "context": [512, 512], "detail": 512}
    large_full = {"model": "d2a2", "scale": 4, "channels": 512, "blocks": 64}
    paths = [write(tmp_path / f"{i}.safetensors", None, c, tensors) for i, c in enumerate((large, large_full))]
    with torch.device("meta"):
        shapes = to_official(build_model(large_full).state_dict())
    one = torch.zeros(1)
    claimed = {key: one.expand(value.shape or (1,)).view(value.shape) for key, value in shapes.items()}
    torch.save(claimed, tmp_path / "claims.pth")
    torch.save({"module.LTE.conv_head.0.weight": one.expand(512, 3, 3, 3)}, tmp_path / "lacks.pth")
    paths += [tmp_path / "claims.pth", tmp_path / "lacks.pth"]
    assert sum(path.stat().st_size for path in paths) < 300_000
    command = [sys.executable, "-c", LOADED, *map(str, paths)]
    grown_kb = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert int(grown_kb) < 50_000


def test_a_compressed_checkpoint_is_not_unpacked(tmp_path):
    torch.save({"weight": torch.zeros(2_000_000)}, tmp_path / "plain.pth")
    with (
        zipfile.ZipFile(tmp_path / "plain.pth") as plain,
        zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for part in plain.infolist():
            bomb.writestr(part.filename, plain.read(part))
    assert (tmp_path / "bomb.pth").stat().st_size < 20_000
    with pytest.raises(WeightsError, match="it is compressed"):
        load_official_checkpoint(tmp_path / "bomb.pth", 4)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_refused_by_the_tensors_name(tmp_path, value):
    model = D2A2(8, channels=8, blocks=1)
    tensors = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    tensors["tail1.weight"][3, 2, 1, 0] = value
    said = r"tail1\.weight holds NaN or infinity"
    with pytest.raises(WeightsError, match=said):
        load_weights(write(tmp_path / "a.safetensors", model, tensors=tensors))
    torch.save(to_official(tensors), tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=said):
        load_any(tmp_path / "a.pth", 8)
    tensors["tail1.weight"][3, 2, 1, 0] = 3e38
    load_weights(write(tmp_path / "b.safetensors", model, tensors=tensors))


def test_negative_variances_are_refused(model, tmp_path):
    tensors = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    key = next(key for key in tensors if key.endswith("running_var"))
    tensors[key][0] = -1
    with pytest.raises(WeightsError, match=r"running_var is a variance"):
        load_weights(write(tmp_path / "a.safetensors", model, tensors=tensors))


def test_weights_in_half_precision_are_loaded_in_ours_and_other_types_refused(model, tmp_path):
    for dtype in (torch.float16, torch.float64):
        tensors = {k: v.to(dtype) if v.is_floating_point() else v for k, v in model.state_dict().items()}
        loaded = load_weights(write(tmp_path / "h.safetensors", model, tensors=tensors)).state_dict()
        for key, value in model.state_dict().items():
            assert loaded[key].dtype == value.dtype
            torch.testing.assert_close(loaded[key], tensors[key].to(value.dtype), rtol=0, atol=0)
    for dtype in (torch.int8, torch.bool, torch.complex64):
        tensors = dict(model.state_dict()) | {"tail2.bias": torch.ones(1, dtype=dtype)}
        with pytest.raises(WeightsError, match=r"tail2\.bias is torch"):
            load_weights(write(tmp_path / "i.safetensors", model, tensors=tensors))


def test_loaded_weights_do_not_change_with_the_file(model, saved):
    loaded = load_weights(saved)
    saved.write_bytes(bytes(saved.stat().st_size))
    assert torch.equal(loaded.tail1.weight, model.tail1.weight)


ODD = ["[]", "5", "null", '"x"', "true", "NaN", "{", '{"credits": 5}', '{"credits": {"CC0": []}}', "[" * 100_000]


@pytest.mark.parametrize("key", ["card", "config", "scales"])
@pytest.mark.parametrize("kind", ["weights", "sigma", "int8"])
@pytest.mark.parametrize("text", [t for t in ODD], ids=lambda t: t[:20])
def test_entries_of_the_wrong_kind_are_refused_by_file_and_name(tmp_path, model, kind, key, text):
    weights_file, path = tmp_path / "w.safetensors", tmp_path / f"w.{kind}.safetensors"
    save_weights(weights_file, D2A2Lite((4,), channels=8, blocks=1), {})
    card = json.dumps({"weights_sha256": sha256(weights_file)})
    if kind == "weights":
        path, read = write(tmp_path / "odd.safetensors", model, **{key: text}), lambda: load_weights(path)
        known = ("card", "config")
    elif kind == "sigma":
        head = SigmaHead()
        metadata = {"format": SIGMA.format, "config": json.dumps(head.config), "card": card} | {key: text}
        save_file(head.state_dict(), path, metadata)
        read, known = lambda: load_sigma_head(weights_file), ("card", "config")
    else:
        metadata = {"format": INT8.format, "scales": "[4]", "card": card} | {key: text}
        save_file({"a": torch.tensor([[0.0, 1.0]])}, path, metadata)
        read, known = lambda: load_int8(weights_file), ("card", "scales")
    if key not in known or (kind != "weights" and key == "card" and "credits" in text):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other weights
            read()
        return
    with pytest.raises(WeightsError, match=key) as error:
        read()
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hidden": 10**6}, "hidden"),
        ({"hidden": "16"}, "hidden"),
        ({"features": 5}, "features"),
        ({"features": ["depth"]}, "another version"),
        ({"hidden": 8}, "expected"),
    ],
    ids=str,
)
def test_a_head_of_other_sizes_is_refused(tmp_path, change, said):
    head = SigmaHead()
    metadata = {"format": SIGMA.format, "config": json.dumps(head.config | change), "card": "{}"}
    save_file(head.state_dict(), tmp_path / "w.sigma.safetensors", metadata)
    with pytest.raises(WeightsError, match=said):
        SIGMA.read_file(tmp_path / "w.sigma.safetensors")


@pytest.mark.parametrize("rows", [torch.zeros(3, 2), torch.zeros(2), torch.tensor([[0.0, float("inf")]])], ids=str)
def test_ranges_of_other_sizes_or_without_end_are_refused(tmp_path, rows):
    save_file({"a": rows}, tmp_path / "i", {"format": INT8.format, "scales": "[4]", "card": "{}"})
    with pytest.raises(WeightsError, match=r"a is \(|a holds NaN or infinity"):
        INT8.read_file(tmp_path / "i")


@pytest.mark.parametrize(
    "state",
    [
        {5: torch.zeros(1)},
        {"LTE.conv_head.0.weight": torch.zeros(())},
        {"LTE.conv_head.0.weight": torch.zeros(8)},
        {"LTE.conv_head.0.weight": torch.zeros(0, 3, 3, 3)},
        {"LTE.conv_head.0.weight": torch.zeros(8, 3, 3, 3).to_sparse()},
        {"LTE.conv_head.0.weight": torch.zeros(8, 3, 3, 3, device="meta")},
        {"LTE.conv_head.0.weight": torch.zeros(600, 3, 3, 3)},
    ],
)
def test_a_checkpoint_of_other_tensors_is_refused(tmp_path, state):
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(WeightsError, match=r"odd\.pth"):
        load_official_checkpoint(tmp_path / "odd.pth", 4)


@pytest.mark.parametrize("card", ["5", "[1]", "{", "\x00", "title: [" + "[" * 2000])
def test_a_card_that_is_none_is_told_in_one_line(tmp_path, saved, monkeypatch, capsys, card):
    monkeypatch.setattr(zoo, "PRETRAINED", tmp_path / "zoo")
    (tmp_path / "card.yaml").write_text(card)
    assert main(["weights", "add", "x", "--source", str(saved), "--card", str(tmp_path / "card.yaml")]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not (tmp_path / "zoo").exists()
