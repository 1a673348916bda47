"""What is kept on disk of compiled models: found again, never trusted blindly, never in the way."""

from __future__ import annotations

import errno
import os
import stat
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from d2a2_core.frame_graph import Called, FrameGraph, FrameShape
from d2a2_core.network import D2A2
from d2a2_core.runtime import choose_runtime
from d2a2_core.runtime import compiled_cache as cache
from d2a2_core.runtime import openvino as openvino_runtime
from d2a2_core.runtime.int8 import Int8Ranges
from d2a2_core.runtime.openvino import OpenVinoRuntime, has_openvino
from d2a2_core.weights import load_weights, resolve_weights

RANGES = Int8Ranges((4,), {"a": torch.tensor([[0.0, 1.0]])})

needs_openvino = pytest.mark.skipif(not has_openvino(), reason="needs the optional package openvino")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("D2A2_CACHE", str(tmp_path / "cache"))
    cache._complain.cache_clear()
    return tmp_path / "cache"


def test_an_entry_is_found_again(folder):
    assert cache.read("a") is None
    cache.write("a", b"content")
    assert cache.read("a") == b"content"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    cache.write_facts("b", {"pays": True})
    assert cache.read_facts("b") == {"pays": True}
    cache.write("b", b"no json")
    assert cache.read_facts("b") is None


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda b: b[:-1], id="cut"),
        pytest.param(lambda b: b"", id="empty"),
        pytest.param(lambda b: b[:40] + b"\0" + b[41:], id="changed"),
    ],
)
def test_a_damaged_entry_is_none(folder, damage):
    cache.write("a", bytes(range(100)))
    (folder / "a").write_bytes(damage((folder / "a").read_bytes()))
    assert cache.read("a") is None


@pytest.mark.parametrize(
    ("given", "xdg", "expected"),
    [("a", "x", "a"), (None, "x", "x/d2a2"), (None, None, ".cache/d2a2"), (None, "", ".cache/d2a2")],
)
def test_where_it_lies(tmp_path, monkeypatch, given, xdg, expected):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in (("D2A2_CACHE", given), ("XDG_CACHE_HOME", xdg)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value and str(tmp_path / value))
    assert cache.folder() == tmp_path / expected


@pytest.mark.parametrize("value", ["", "off", "OFF "])
def test_it_can_be_switched_off(tmp_path, monkeypatch, value):
    monkeypatch.setenv("D2A2_CACHE", value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache.write("a", b"content")
    assert cache.read("a") is None
    assert not list(tmp_path.iterdir())


def test_what_others_can_write_is_not_used(folder):
    cache.write("a", b"content")
    folder.chmod(0o777)
    with pytest.warns(RuntimeWarning, match="other users"):
        assert cache.read("a") is None


def test_a_folder_that_cannot_be_is_said_once_and_costs_nothing_else(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("D2A2_CACHE", str(tmp_path / "file" / "cache"))
    cache._complain.cache_clear()
    with pytest.warns(RuntimeWarning, match="each start compiles anew"):
        cache.write("a", b"content")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cache.read("a") is None


def test_the_oldest_used_go_first(folder, monkeypatch):
    monkeypatch.setattr(cache, "LIMIT_BYTES", 400)
    names = [cache.key(i) + ".openvino" for i in range(4)]
    for i, name in enumerate(names[:3]):
        cache.write(name, bytes(100))
        os.utime(folder / name, (i, i))
    assert cache.read(names[0])  # used now
    cache.write(names[3], bytes(100))
    assert {path.name for path in folder.iterdir()} == {names[0], *names[2:]}


@pytest.mark.parametrize("name", ["thesis.pdf", "model.openvino", "0123abcd.json"])
def test_files_of_others_are_never_deleted(folder, monkeypatch, name):
    """The folder may be one that the user keeps other things in."""
    monkeypatch.setattr(cache, "LIMIT_BYTES", 10)
    folder.mkdir(mode=0o700)
    (folder / name).write_bytes(bytes(1000))
    os.utime(folder / name, (0, 0))
    cache.write(cache.key("a") + ".openvino", bytes(100))
    assert [path.name for path in folder.iterdir()] == [name]


def test_a_read_only_disk_is_read(folder, monkeypatch):
    cache.write("a", b"content")

    def refused(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "utime", refused)
    assert cache.read("a") == b"content"


def test_two_processes_that_keep_the_same_are_no_reason_to_warn(folder, monkeypatch):
    def overtaken(self, target):
        raise FileNotFoundError(errno.ENOENT, "the other one has renamed it")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        monkeypatch.setattr(Path, "replace", overtaken)
        cache.write("a", b"content")


def test_a_full_disk_costs_the_cache_alone(folder, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.warns(RuntimeWarning, match="No space left on device.*each start compiles anew"):
        cache.write("a", b"content")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cache.write("b", b"content")


def test_a_key_tells_what_differs_apart():
    def net(**options):
        torch.manual_seed(0)
        return D2A2(4, **{"channels": 8, "blocks": 1, "groups": 2} | options)

    first = cache.module_key(net())
    assert first == cache.module_key(net())
    changed = net()
    with torch.no_grad():
        next(changed.parameters())[0] += 1
    assert (
        len({first, cache.module_key(changed), cache.module_key(net(blocks=2)), cache.module_key(net(gated=False))})
        == 4
    )
    assert cache.key("a", 1) != cache.key("a", 2)


def test_modules_of_others_are_not_kept():
    """Their source is not part of the key, so that a change of it would go unseen."""

    class Own(nn.Module):
        def forward(self, guide, lr):
            return guide

    assert cache.module_key(Own()) is None
    assert cache.module_key(nn.Sequential(nn.Conv2d(1, 1, 1), Own())) is None
    assert cache.module_key(nn.Conv2d(1, 1, 1)) is not None


def test_modules_that_hold_more_than_values_are_not_kept():
    """The text of a function does not say what it computes."""
    assert cache.module_key(Called(lambda x: x)) is None
    assert cache.module_key(nn.Sequential(Called(torch.relu))) is None


SHAPE = FrameShape((32, 48), 4, (8, 12), registered=True, max_fill_px=16.0)


@pytest.mark.parametrize(
    "change",
    [{"views": 2}, {"inspected": False}, {"max_fill_px": 4.0}, {"registered": False}, {"scale": 8}, {"size": (32, 44)}],
    ids=str,
)
def test_what_differs_in_a_frame_graph_differs_in_its_key(change):
    """Also where the sizes of its inputs are the same: another graph's compiled model would give wrong depth in silence."""
    network = nn.Conv2d(4, 1, 1)
    graph, other = (FrameGraph(network, True, shape) for shape in (SHAPE, replace(SHAPE, **change)))
    assert cache.module_key(graph) is not None
    assert cache.module_key(graph) == cache.module_key(FrameGraph(network, True, SHAPE))
    assert cache.module_key(graph) != cache.module_key(other)
    assert cache.module_key(graph) != cache.module_key(FrameGraph(network, False, SHAPE))


@needs_openvino
@pytest.mark.slow
@torch.inference_mode()
def test_a_graph_with_more_views_does_not_meet_the_compiled_one_with_fewer(folder):
    model = load_weights(resolve_weights("d2a2-nano-sensor")).eval()
    random = torch.Generator().manual_seed(0)
    lr = 1 + torch.rand(1, 1, 8, 12, generator=random)
    color = torch.randint(0, 256, (1, 32, 48, 3), dtype=torch.uint8, generator=random)
    given = color, lr, lr > 1.3, lr, lr < 1.1, torch.tensor([1.0, 1.0, torch.inf, torch.inf])
    depths = []
    for views in (1, 2):
        shape = replace(SHAPE, views=views)
        depth, *_ = OpenVinoRuntime(model).whole(lambda network, shape=shape: FrameGraph(network, True, shape))(*given)
        torch.testing.assert_close(depth, FrameGraph(model, True, shape)(*given)[0], atol=1e-4, rtol=0, equal_nan=True)
        depths.append(depth)
    assert (depths[0] - depths[1]).nan_to_num().abs().max() > 0.01


@needs_openvino
@pytest.mark.slow
@torch.inference_mode()
def test_the_second_process_compiles_nothing(folder, monkeypatch):
    def runtime():
        torch.manual_seed(0)
        options = {
            "channels": 8,
            "blocks": 1,
            "domain": "none",
            "geometric": False,
            "gated": False,
            "attention": "none",
        }
        return OpenVinoRuntime(D2A2(4, **options).eval())

    given = torch.rand(1, 3, 32, 48), torch.rand(1, 1, 8, 12)
    expected = runtime()(*given)
    entry = next(folder.glob("*.openvino"))
    with monkeypatch.context() as patched:
        patched.setattr(openvino_runtime, "_convert", lambda *_: pytest.fail("compiled again"))
        assert torch.equal(runtime()(*given), expected)
    # What looks whole, but is no compiled model, is compiled again.
    cache.write(entry.name, b"nothing")
    assert torch.equal(runtime()(*given), expected)
    assert len(cache.read(entry.name)) > 1000


@needs_openvino
@pytest.mark.slow
def test_int8_is_measured_once(folder, monkeypatch):
    measured = []

    def compare(*_):
        measured.append(1)
        return {"pays": True, "float32": 2.0, "int8": 1.0, "error": 0.0}

    monkeypatch.setattr(openvino_runtime, "_compare_int8", compare)
    model, wide = D2A2(4, channels=8, blocks=1, groups=2), Int8Ranges((4,), {"a": torch.tensor([[0.0, 2.0]])})
    assert OpenVinoRuntime.int8_pays(model, RANGES)
    assert OpenVinoRuntime.int8_pays(model, RANGES)
    assert len(measured) == 1
    assert OpenVinoRuntime.int8_pays(model, wide)
    assert len(measured) == 2


@needs_openvino
def test_a_network_that_int8_cannot_be_timed_on_runs_in_float32(folder):
    model = D2A2(4, channels=8, blocks=1, domain="none", geometric=False, gated=False, attention="none")
    with pytest.warns(
        RuntimeWarning, match=r"int8 is not used: .*convolutions for int8 are not in the network: \['a'\]"
    ):
        runtime = choose_runtime(model, "cpu", "auto", "auto", RANGES)
    assert (runtime.name, runtime.precision) == ("openvino", "float32")
