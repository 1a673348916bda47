"""JSON and YAML from outside, checked before anything is made of it: a mistake is told with its place, and goes no further."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonschema import Draft7Validator
from jsonschema.exceptions import best_match

#: Schema of a number that arithmetic in float32 and float64 stands; JSON allows any number of digits.
NUMBER = {"type": "number", "minimum": -1e9, "maximum": 1e9}


def parse_json(text: str | bytes, what: str) -> Any:
    """The value that JSON text holds.

    Args:
        text: UTF-8.
        what: Named in the message, for instance the file.

    Raises:
        ValueError: It is not JSON, not UTF-8, nested too deeply, or holds NaN or an infinity, which JSON does not know.
    """
    try:
        return json.loads(text, parse_constant=_refuse)
    except RecursionError as error:
        raise ValueError(f"{what} is nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"{what} is not valid JSON: {error}") from error


def read_json(path: str | Path) -> Any:
    """The value in a JSON file; raises as :func:`parse_json`, and OSError where it cannot be read."""
    return parse_json(Path(path).read_bytes(), str(path))


def read_yaml(path: str | Path) -> Any:
    """The value in a YAML file, of plain types alone; None where it is empty.

    Raises:
        ValueError: It is not YAML, not UTF-8, or nested too deeply.
        OSError: It cannot be read.
    """
    try:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from error


def check_schema(value: Any, schema: dict[str, Any], what: str) -> None:
    """Compares a value with a JSON Schema (draft 7).

    Args:
        value: As JSON gives it.
        schema: What is expected.
        what: Named in the message, for instance the file.

    Raises:
        ValueError: It does not conform; the message names the entry and says what was expected.
    """
    error = best_match(Draft7Validator(schema).iter_errors(value))
    if error is not None:
        place = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in error.absolute_path).lstrip(".")
        message = error.message if len(error.message) < 200 else f"{error.message[:120]} ... {error.message[-60:]}"
        raise ValueError(f"{what}: {f'entry {place}: ' if place else ''}{message}")


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")
