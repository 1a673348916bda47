"""What `d2a2 weights ACTION` does: list, info, verify, add, mix, prune."""

from __future__ import annotations

import argparse

import yaml

from d2a2_core.documents import read_yaml
from d2a2_core.weights import list_pretrained, read_info, resolve_weights, sha256
from d2a2_core.weights.mixing import save_mixed
from d2a2_core.weights.sidecars import SIDECARS, files_of
from d2a2_core.weights.zoo import add_pretrained, checksums


def run(o: argparse.Namespace) -> int:
    """Does what ``o.action`` says; returns the exit status.

    Raises:
        ValueError: an argument that the action needs is missing.
        WeightsError: a file is missing or damaged, or does not fit.
    """
    return _ACTIONS[o.action](o)


def _add(o: argparse.Namespace) -> int:
    if not (o.name and o.source and o.card):
        raise ValueError("add needs a name, --source and --card")
    print(f"written: {add_pretrained(o.source, o.name, read_yaml(o.card))}")
    return 0


def _mix(o: argparse.Namespace) -> int:
    if not o.name:
        raise ValueError("mix needs a file to write")
    save_mixed(o.name, o.part)
    print(f"written: {o.name}")
    return 0


def _prune(o: argparse.Namespace) -> int:
    if not (o.name and o.source):
        raise ValueError("prune needs a file to write and --source")
    from d2a2_core.training.pruning import save_pruned

    share = save_pruned(o.name, o.source)
    print(f"written: {o.name}; its results differ by {100 * share:.3f} % of their error")
    return 0


def _list(o: argparse.Namespace) -> int:
    for name in _names(o):
        path = resolve_weights(name)
        info = read_info(path)
        scales = ", ".join(f"x{s}" for s in info.scales)
        size = path.stat().st_size / 1e6
        beside = "  ".join(s.kind if s.path(path).is_file() else f"no {s.kind}" for s in SIDECARS)
        print(f"{name}  {info.config['model']}  {scales}  {beside}  {size:.1f} MB  {info.card.get('title', '')}")
    return 0


def _info(o: argparse.Namespace) -> int:
    for name in _names(o):
        path = resolve_weights(name)
        info = read_info(path)
        facts = {"file": str(path), "sha256": sha256(path), "config": info.config, "card": info.card}
        print(yaml.safe_dump(facts, sort_keys=False, width=110, allow_unicode=True))
    return 0


def _verify(o: argparse.Namespace) -> int:
    """1 when a file, or the sigma head or the ranges beside it, is not the shipped one."""
    failed, known = 0, checksums()
    for name in _names(o):
        path = resolve_weights(name)
        for file in files_of(path):
            good = sha256(file) == known.get(file.name)
            failed += not good
            reason = (
                "differs from the shipped file: get it again" if file.name in known else "not one of the shipped files"
            )
            print(f"{name if file == path else file.name}: {'ok' if good else reason}")
    return 1 if failed else 0


def _names(o: argparse.Namespace) -> list[str]:
    names = [o.name] if o.name else list_pretrained()
    if not names:
        raise ValueError("no weights ship with this copy of the package; name a file")
    return names


_ACTIONS = {"list": _list, "info": _info, "verify": _verify, "add": _add, "mix": _mix, "prune": _prune}
