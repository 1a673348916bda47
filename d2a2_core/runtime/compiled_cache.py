"""Compiled models and what was measured of them, kept on disk from one start to the next.

Folder: ``$D2A2_CACHE``, else ``$XDG_CACHE_HOME/d2a2``, else ``~/.cache/d2a2``; ``D2A2_CACHE`` empty or "off" keeps nothing. A
compiled model is code, so the folder must belong to the user and be writable to nobody else. Whatever goes wrong with it costs
time and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import warnings
from contextlib import suppress
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from d2a2_core.documents import parse_json
from d2a2_core.files import replacing

LIMIT_BYTES = 512 * 2**20
_PACKAGE = Path(__file__).parents[1]
_OWN = ("d2a2_core.", "torch.")  # modules whose source the key covers
_DELETABLE = re.compile(r"[0-9a-f]{64}\.(openvino|json)")  # what key() names: the folder may hold files of others
_BOOKKEEPING = frozenset(vars(nn.Module()))
_PLAIN = (type(None), bool, int, float, str)


def read(name: str) -> bytes | None:
    """The entry of a name, None where there is none that can be trusted."""
    place = folder()
    if place is None:
        return None
    path = place / name
    try:
        content = path.read_bytes()
    except OSError:
        return None
    # The oldest used ones are deleted first. The folder may be read-only.
    with suppress(OSError):
        os.utime(path)
    digest, body = content[:32], content[32:]
    return body if hashlib.sha256(body).digest() == digest else None


def write(name: str, body: bytes) -> None:
    """Keeps an entry, and deletes the ones that were not used for longest where there are too many."""
    place = folder()
    if place is None:
        return
    try:
        with replacing(place / name) as partial:
            partial.write_bytes(hashlib.sha256(body).digest() + body)
        _shrink(place)
    except FileNotFoundError:
        # Another process wrote this entry at the same time, or deleted old ones.
        return
    except OSError as error:
        _complain(f"cannot keep compiled models in {place} ({error}): each start compiles anew")


def read_facts(name: str) -> dict[str, Any] | None:
    """An entry that :func:`write_facts` made."""
    body = read(name)
    try:
        facts = None if body is None else parse_json(body.decode(), "an entry of the cache")
    except ValueError:
        return None
    return facts if isinstance(facts, dict) else None


def write_facts(name: str, facts: dict[str, Any]) -> None:
    """Keeps a few numbers and words."""
    write(name, json.dumps(facts).encode())


def key(*parts: Any) -> str:
    """A name for what depends on ``parts`` (their text), on this computer and on the versions of all that takes part."""
    digest = hashlib.sha256()
    for part in (*parts, _machine(), _source(), torch.__version__):
        digest.update(f"{part!r}\0".encode())
    return digest.hexdigest()


def module_key(module: nn.Module) -> str | None:
    """What a module computes, as text: structure, attributes and tensors.

    None for modules whose source the key does not cover, or whose attributes are more than values.
    """
    digest = hashlib.sha256()
    for name, part in module.named_modules():
        values = {k: v for k, v in sorted(vars(part).items()) if k not in _BOOKKEEPING}
        if not type(part).__module__.startswith(_OWN) or not _is_value(values):
            return None
        digest.update(f"{name} {type(part)} {part.training} {values}\0".encode())
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def folder() -> Path | None:
    """The folder, made where it is missing; None where nothing is to be kept, or nothing in it can be trusted."""
    chosen = os.environ.get("D2A2_CACHE")
    if chosen is not None and chosen.strip().lower() in ("", "off"):
        return None
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        place = Path(chosen).expanduser() if chosen else base / "d2a2"
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        about = place.stat()
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home
        _complain(f"there is no folder to keep compiled models in ({error}): each start compiles anew")
        return None
    if about.st_uid != os.getuid() or about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        _complain(
            f"{place} belongs to, or can be written by, other users: it is not used, each start compiles anew; run chmod go-w "
            "on it, or set D2A2_CACHE to a folder of your own"
        )
        return None
    return place


def _is_value(value: Any) -> bool:
    """Whether a value's text says all of it."""
    if isinstance(value, (list, tuple, set)):
        return all(map(_is_value, value))
    if isinstance(value, dict):
        return all(map(_is_value, (*value, *value.values())))
    if is_dataclass(value):
        return all(_is_value(getattr(value, field.name)) for field in fields(value))
    return isinstance(value, (*_PLAIN, torch.dtype))


def _shrink(place: Path) -> None:
    paths = [path for path in place.iterdir() if _DELETABLE.fullmatch(path.name)]
    entries = sorted((path.stat().st_mtime, path.stat().st_size, path) for path in paths)
    total = sum(size for _, size, _ in entries)
    for _, size, path in entries:
        if total <= LIMIT_BYTES:
            return
        path.unlink(missing_ok=True)
        total -= size


@cache
def _complain(message: str) -> None:
    """Warns, once for each message."""
    warnings.warn(message, RuntimeWarning, stacklevel=2)


@cache
def _machine() -> str:
    """Name and abilities of the CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return ""
    return "\n".join(line for line in lines if line.startswith(("model name", "flags", "cpu family", "model\t")))


@cache
def _source() -> str:
    """Digest of the package's source: code that has changed must not meet what older code left."""
    digest = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
