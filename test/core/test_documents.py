"""JSON from outside: what is wrong is told with its place, and no input ends in another error than ValueError."""

import pytest

from d2a2_core.documents import NUMBER, check_schema, parse_json, read_json, read_yaml

CAMERA = {
    "type": "object",
    "required": ["K"],
    "properties": {"K": {"type": "array", "items": NUMBER, "minItems": 9, "maxItems": 9}},
}


@pytest.mark.parametrize("text", ["{", "NaN", "[Infinity]", "[" * 100_000, b"\xff", "1" * 5000, ""])
def test_what_is_no_json_is_a_value_error_that_names_the_file(text):
    with pytest.raises(ValueError, match="calibration"):
        parse_json(text, "calibration")


@pytest.mark.parametrize("number", ["1e999", "1" * 400, "-1e10"])
def test_a_number_out_of_range_is_told_with_its_place(number):
    value = parse_json('{"color": {"K": [1, 2, ' + number + ", 4, 5, 6, 7, 8, 9]}}", "f")
    with pytest.raises(ValueError, match=r"f: entry color\.K\[2\]:") as raised:
        check_schema(value, {"properties": {"color": CAMERA}}, "f")
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize("value", [[], None, {"K": 3}, {"K": [True] * 9}, {"K": ["1"] * 9}, {"K": [1] * 8}, {}])
def test_another_shape_or_type_is_refused(value):
    with pytest.raises(ValueError, match="what"):
        check_schema(value, CAMERA, "what")


def test_a_conforming_file_comes_back(tmp_path):
    (tmp_path / "c.json").write_text('{"K": [1, 0, 2.5, 0, 1, 2, 0, 0, 1]}')
    value = read_json(tmp_path / "c.json")
    check_schema(value, CAMERA, "c")
    assert value["K"][2] == 2.5


@pytest.mark.parametrize(
    "text", [b"a: [", b"\xff\xfe\x00", b"a: !!python/object:os.system x", b"[" * 50_000, b"a: 2020-99-99"]
)
def test_what_is_no_yaml_is_a_value_error_that_names_the_file(tmp_path, text):
    (tmp_path / "c.yaml").write_bytes(text)
    with pytest.raises(ValueError, match=r"c\.yaml is not valid YAML"):
        read_yaml(tmp_path / "c.yaml")


def test_yaml_gives_plain_values(tmp_path):
    (tmp_path / "c.yaml").write_text("a: {b: [1, 2.5, x]}")
    assert read_yaml(tmp_path / "c.yaml") == {"a": {"b": [1, 2.5, "x"]}}
