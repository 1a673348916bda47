"""What is kept on disk of compiled models: found again, never trusted blindly, never in the way."""

from __future__ import annotations

import os
import stat
import warnings

import pytest
import torch
from torch import nn

from d2a2_core.network import D2A2
from d2a2_core.runtime import compiled_cache as cache
from d2a2_core.runtime import openvino as openvino_runtime
from d2a2_core.runtime.openvino import OpenVinoRuntime, has_openvino

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
    for i, name in enumerate("abc"):
        cache.write(name, bytes(100))
        (folder / name).touch()
        os.utime(folder / name, (i, i))
    assert cache.read("a")  # used now
    cache.write("d", bytes(100))
    assert {path.name for path in folder.iterdir()} == {"a", "c", "d"}


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
    model = D2A2(4, channels=8, blocks=1, groups=2)
    assert OpenVinoRuntime.int8_pays(model, None)
    assert OpenVinoRuntime.int8_pays(model, None)
    assert len(measured) == 1
