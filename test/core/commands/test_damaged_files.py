"""Files of each kind that we read back, damaged at random: a message of the foreseen kinds or a result, never a traceback."""

import json
import random
import struct
import warnings

import numpy as np
import pytest
import torch
import yaml
from fuzzing import fuzz_count
from PIL import Image

from d2a2_core.cli import FORESEEN, main
from d2a2_core.data.scenes.scene_folder import GeneratedPairs
from d2a2_core.evaluation.evaluator import COLUMNS, read_csv
from d2a2_core.evaluation.report import read_run
from d2a2_core.network import D2A2, D2A2Lite, build_model
from d2a2_core.network.sigma_head import SigmaHead
from d2a2_core.runtime.int8 import Int8Ranges, load_int8, save_int8
from d2a2_core.training.config import make_config
from d2a2_core.training.curve import COLUMNS as CURVE
from d2a2_core.training.curve import read_curve
from d2a2_core.weights import load_any, load_weights, save_weights, sha256, to_official
from d2a2_core.weights.sidecars import SIGMA, load_sigma_head, save_sigma_head

LITE = {
    "model": "d2a2-lite",
    "scales": [4],
    "channels": 8,
    "blocks": 1,
    "context": [8, 8],
    "detail": 8,
    "geometric": False,
}
ODD = [
    None,
    True,
    -1,
    0,
    1e308,
    -1e308,
    10**30,
    2.5,
    "",
    "nan",
    "-1",
    "<b>",
    [],
    [[]],
    {},
    {"": None},
    [None] * 3,
    "x" * 999,
]
WORDS = [
    b"",
    b"-",
    b"NaN",
    b"1e999",
    b"null",
    b"[]",
    b"{}",
    b'"',
    b",",
    b"\n",
    b"\x00",
    b"\xff\xfe",
    b"9" * 400,
    b"[" * 3000,
]


def mutated_value(value, rng):
    """A copy of a structure of JSON with one entry changed, left out or added."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        change = rng.random()
        if change < 0.15:
            return {k: v for k, v in value.items() if k != key}
        if change < 0.25:
            return value | {rng.choice(["", "x", "__class__"]): rng.choice(ODD)}
        return value | {key: mutated_value(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.7:
        i = rng.randrange(len(value))
        return [*value[:i], mutated_value(value[i], rng), *value[i + 1 :]]
    return rng.choice(ODD)


def mutated_bytes(data, rng):
    """Bytes with a few changed, cut off, or replaced by what parsers stumble over."""
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(data) + 1)
        kind = rng.random()
        if kind < 0.4 and at < len(data):
            data = data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
        elif kind < 0.55:
            data = data[:at]
        else:
            data = data[:at] + rng.choice(WORDS) + data[at + rng.randint(0, 12) :]
    return data


def mutated_safetensors(data, rng):
    """A weights file or sidecar with its header's metadata, its tensors' entries, or its bytes changed."""
    (length,) = struct.unpack("<Q", data[:8])
    if rng.random() < 0.25:
        return mutated_bytes(data[: 8 + length], rng) + data[8 + length :]
    header = json.loads(data[8 : 8 + length])
    metadata = header["__metadata__"]
    key = rng.choice([*metadata, *(["config", "card"] * 3)])
    if rng.random() < 0.8 and key in metadata and key != "format":
        metadata[key] = json.dumps(mutated_value(json.loads(metadata[key]), rng))
    else:
        header = mutated_value(header, rng)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def mutated_json(data, rng):
    if rng.random() < 0.3:
        return mutated_bytes(data, rng)
    return json.dumps(mutated_value(json.loads(data), rng)).encode()


def mutated_yaml(data, rng):
    if rng.random() < 0.4:
        return mutated_bytes(data, rng)
    return yaml.safe_dump(mutated_value(yaml.safe_load(data), rng)).encode()


def weights_file(tmp_path):
    save_weights(
        tmp_path / "w.safetensors", build_model(LITE), {"title": "a", "credits": {"CC-BY": {"Ada": ["chair"]}}}
    )
    return tmp_path / "w.safetensors", mutated_safetensors, load_weights


def head_file(tmp_path):
    weights, *_ = weights_file(tmp_path)
    save_sigma_head(SIGMA.path(weights), SigmaHead(), {"weights_sha256": sha256(weights)})
    return SIGMA.path(weights), mutated_safetensors, lambda _: load_sigma_head(weights)


def ranges_file(tmp_path):
    weights, *_ = weights_file(tmp_path)
    path = weights.with_name("w.int8.safetensors")
    save_int8(path, Int8Ranges((4,), {"a": torch.tensor([[0.0, 1.0]])}), {"weights_sha256": sha256(weights)})
    return path, mutated_safetensors, lambda _: load_int8(weights)


def checkpoint(tmp_path):
    torch.save(to_official(D2A2(4, channels=8, blocks=1).state_dict()), tmp_path / "w.pth")
    return tmp_path / "w.pth", mutated_bytes, lambda path: load_any(path, 4)


def summary(tmp_path):
    rows_file(tmp_path)
    shot = {"image": "a", "rmse": 0.5, "bicubic_rmse": 0.6, "lo": 1.0, "hi": 2.0, "error_limit": 0.1}
    (tmp_path / "summary.json").write_text(json.dumps({"summary": [], "expected": 6, "pictures": [shot, shot]}))
    return tmp_path / "summary.json", mutated_json, lambda path: read_run(path.parent)


def rows_file(tmp_path):
    line = ",".join(["lu", "a", "4", "bicubic", "oracle", *["0.5"] * (len(COLUMNS) - 5)])
    (tmp_path / "metrics.csv").write_text("\r\n".join([",".join(COLUMNS), line, line, ""]), newline="")
    return tmp_path / "metrics.csv", mutated_bytes, read_csv


def curve_file(tmp_path):
    lines = [",".join(CURVE), *(",".join([str(i), *["0.5"] * (len(CURVE) - 1)]) for i in range(3))]
    (tmp_path / "curve.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "curve.csv", mutated_bytes, read_curve


def settings_file(tmp_path):
    settings = {
        "model": LITE,
        "scales": [4],
        "lr": 1e-3,
        "steps": 10,
        "data": "shapes",
        "relative_loss": True,
        "seed": 3,
    }
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(settings))
    return tmp_path / "c.yaml", mutated_yaml, lambda path: build_model(make_config("lite", path).model)


def manifest(tmp_path):
    content = {"settings": {"count": 3}, "models": [{"name": "a", "creator": "b", "licence": "CC0"}], "scenes": []}
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    (tmp_path / "000000.color.png").touch()
    return tmp_path / "manifest.json", mutated_json, lambda path: GeneratedPairs(path.parent)


KINDS = [
    weights_file, head_file, ranges_file, checkpoint, summary, rows_file, curve_file, settings_file, manifest,
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_damaged_files_give_a_message_or_a_result(tmp_path, kind):
    path, mutated, read = kind(tmp_path)
    whole, rng, said = path.read_bytes(), random.Random(kind.__name__), []
    read(path)
    count = fuzz_count(100)
    for _ in range(count):
        path.write_bytes(mutated(whole, rng))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of weights that a sidecar is not for
                read(path)
        except FORESEEN as error:
            said.append(str(error))
    assert len(said) > count / 10  # or nothing was tried
    assert all(0 < len(text) < 3000 for text in said)


def test_damaged_onnx_files_give_a_message_or_a_result(tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from d2a2_core.runtime.onnx import OnnxRuntime

    kind = onnx.TensorProto.FLOAT
    info = onnx.helper.make_tensor_value_info
    inputs = [info("guide", kind, (1, 3, 16, 16)), info("lr", kind, (1, 1, 4, 4))]
    sizes = onnx.helper.make_tensor("sizes", onnx.TensorProto.INT64, [4], [1, 1, 16, 16])
    nodes = [onnx.helper.make_node("Resize", ["lr", "", "", "sizes"], ["hr"])]
    graph = onnx.helper.make_graph(nodes, "g", inputs, [info("hr", kind, (1, 1, 16, 16))], [sizes])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
    model.metadata_props.add(key="d2a2", value='{"scale": 4}')
    path, rng = tmp_path / "a.onnx", random.Random(0)
    guide, lr = torch.rand(1, 3, 16, 16), torch.rand(1, 1, 4, 4)
    whole = model.SerializeToString()
    path.write_bytes(whole)
    assert OnnxRuntime(path)(guide, lr).shape == (1, 1, 16, 16)
    said = []
    for _ in range(fuzz_count(100)):
        path.write_bytes(mutated_bytes(whole, rng))
        try:
            OnnxRuntime(path)(guide, lr)
        except FORESEEN as error:
            said.append(str(error))
    assert len(said) > 10
    assert all(path.name in text for text in said)


@pytest.mark.parametrize(
    ("inputs", "output", "said"),
    [
        ({"guide": (1, 3, 8, 8), "lr": (1, 1, 2, 2)}, (1, 3, 8, 8), "expected a result of float32 (1, 1, 8, 8)"),
        ({"guide": (1, 3, 8, 8)}, (1, 3, 8, 8), "expected the inputs 'guide' and 'lr'"),
        ({"guide": (1, 3, 8, 8), "lr": (2, 2)}, (1, 3, 8, 8), "four axes"),
    ],
)
def test_onnx_files_of_other_networks_are_refused(tmp_path, inputs, output, said):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from d2a2_core.runtime.onnx import OnnxRuntime

    info = onnx.helper.make_tensor_value_info
    values = [info(name, onnx.TensorProto.FLOAT, shape) for name, shape in inputs.items()]
    node = onnx.helper.make_node("Identity", ["guide"], ["hr"])
    graph = onnx.helper.make_graph([node], "g", values, [info("hr", onnx.TensorProto.FLOAT, output)])
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8),
        tmp_path / "a.onnx",
    )
    with pytest.raises(FORESEEN) as error:
        OnnxRuntime(tmp_path / "a.onnx")(torch.rand(1, 3, 8, 8), torch.rand(1, 1, 2, 2))
    assert said in str(error.value)


SETTINGS = [
    ("lr", "abc", "must be a number"), ("lr", ".nan", "at least 0, got nan"), ("lr", "[1]", "must be a number"),
    ("lr", "true", "a number"),
    ("lr", "1e400", "must be at most"), ("steps", "1e30", "whole number"), ("steps", "9" * 30, "must be at most"),
    ("scales", "[[4]]", "must be whole numbers"), ("scales", ".inf", "must be whole numbers"), ("scales", "{}", "scales"),
    ("scales", "[]", "do not fit"), ("model", "[]", "'name: value' entries"),
    ("model", "{model: d2a2-lite, scales: 5}", "do not fit"),
    ("model", "{model: [d2a2]}", "names model"), ("model", "{model: d2a2, channels: 6000}", "6000"), ("seed", "-1", "at least 0"),
    ("workers", "2020-99-99", "not valid YAML|whole number"), ("1", "2", "unknown setting"), ("? [a]", "1", "not valid YAML"),
    ("seed", "&a [*a]", "whole number"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value", "said"), SETTINGS)
def test_settings_that_cannot_be_are_told_in_one_line(tmp_path, capsys, name, value, said):
    (tmp_path / "c.yaml").write_text(f"data: shapes\ndevice: cpu\n{name}: {value}\n")
    assert main(["train", "--out", str(tmp_path / "run"), "--config", str(tmp_path / "c.yaml")]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert any(part in lines[0] for part in said.split("|")), lines
    assert not (tmp_path / "run").exists()


def test_a_programming_error_keeps_its_traceback(monkeypatch):
    from d2a2_core.commands import evaluation

    add_options, _ = evaluation.COMMANDS["report"]
    for error in (KeyError("x"), TypeError("x"), ZeroDivisionError("x"), ImportError("x", name="d2a2_core.x")):

        def run(_, error=error):
            raise error

        monkeypatch.setitem(evaluation.COMMANDS, "report", (add_options, run))
        with pytest.raises(type(error)):
            main(["report", "x"])


@pytest.mark.slow
def test_a_damaged_state_of_a_run_names_the_way_on(tmp_path, capsys):
    command = [
        "train", "--out", str(tmp_path), "--data", "shapes", "--model", "{model: d2a2, scale: 4, channels: 8, blocks: 1}",
        "--crop", "16", "--steps", "1", "--batch-size", "1", "--workers", "0", "--device", "cpu", "--tensorboard", "false",
    ]  # fmt: skip
    assert main(command) == 0
    state, rng = tmp_path / "state.pt", random.Random(0)
    whole = torch.load(state, weights_only=True)
    good = state.read_bytes()
    damaged = [mutated_bytes(good[: rng.randrange(len(good))], rng) for _ in range(5)]
    for key in ("step", "best", "losses", "rng", "model", "optimizer", "scaler"):
        for value in ("x", None, [None], {}, -5):
            torch.save(whole | {key: value}, state)
            damaged.append(state.read_bytes())
    capsys.readouterr()
    told = 0
    for data in damaged:
        state.write_bytes(data)
        status = main([*command[:-2], "--tensorboard", "false"])
        said = capsys.readouterr().err
        told += status == 2
        assert status in (0, 2)
        assert status == 0 or "state.pt is damaged or was written by another version" in said
    assert told > len(damaged) / 2


def test_weights_without_a_number_give_a_message_and_no_depth(tmp_path, capsys):
    weights, *_ = weights_file(tmp_path)
    head = SigmaHead()
    with torch.no_grad():
        for tensor in head.state_dict().values():
            tensor.fill_(np.nan)
    save_sigma_head(SIGMA.path(weights), head, {"weights_sha256": sha256(weights)})
    with pytest.raises(FORESEEN, match="NaN or infinity"):
        load_sigma_head(weights)
    model = D2A2Lite((4,), channels=8, blocks=1)
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.fill_(np.nan)
    save_weights(weights, model, {})
    pair = [str(tmp_path / "a.color.png"), str(tmp_path / "a.depth.png")]
    Image.fromarray(np.full((16, 24, 3), 90, np.uint8)).save(pair[0])
    Image.fromarray(np.full((4, 6), 2000, np.uint16)).save(pair[1])
    assert main(["upsample", *pair, "--out", str(tmp_path / "out"), "--weights", str(weights)]) == 2
    assert "holds NaN or infinity, so that no depth comes out; get the file again" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
