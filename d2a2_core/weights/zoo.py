"""The weights that ship with the package: their names, cards and checksums."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from d2a2_core.files import check_outputs, replacing
from d2a2_core.network import D2A2, D2A2Lite, D2A2Pico
from d2a2_core.weights.files import WeightsError, load_weights, read_info, save_weights, sha256
from d2a2_core.weights.official import load_official_checkpoint

#: The folder of the weights that ship with the package.
PRETRAINED = Path(__file__).parents[1] / "pretrained"

#: Shipped weights for real sensors, the most accurate first, and what each costs: 10^9 multiplications and additions for 640x480
#: at x4, counted one by one.
RANKED = {"d2a2-lite-sensor": 60.3, "d2a2-nano-sensor": 26.9, "d2a2-pico-sensor": 2.95}


def resolve_weights(name_or_path: str | Path) -> Path:
    """Path of a weights file given by path, or by the name of one that ships with the package.

    Raises:
        WeightsError: neither exists; the message lists the names.
    """
    path = Path(name_or_path).expanduser()
    shipped = PRETRAINED / f"{name_or_path}.safetensors"
    for candidate in (path, shipped):
        if candidate.is_file():
            return candidate
    if path.is_dir():
        raise WeightsError(f"{path} is a folder; expected a weights file, or one of the names {list_pretrained()}")
    raise WeightsError(
        f"no weights {str(name_or_path)!r}: neither a file nor one of the shipped names {list_pretrained()}"
    )


def load_any(name_or_path: str | Path, scale: int | None = None, backend: str = "auto") -> D2A2 | D2A2Lite | D2A2Pico:
    """Loads shipped weights, a .safetensors file, or an authors' .pth checkpoint (which needs ``scale``).

    Raises:
        WeightsError: missing, damaged, or a .pth without a scale.
    """
    if Path(name_or_path).suffix in (".pth", ".pt"):
        if scale is None:
            raise WeightsError(f"{name_or_path} is an authors' checkpoint, which does not say its scale; name it")
        return load_official_checkpoint(name_or_path, scale, backend)
    return load_weights(resolve_weights(name_or_path), backend)


def checksums() -> dict[str, str]:
    """SHA-256 of each weights file that ships with the package, by file name (pretrained/sha256.json)."""
    path = PRETRAINED / "sha256.json"
    return json.loads(path.read_text()) if path.exists() else {}


def add_pretrained(source: str | Path, name: str, facts: dict[str, Any]) -> Path:
    """Makes trained weights one of the shipped ones: facts (title, licence, metrics, limits) go onto their card.

    Args:
        source: weights of a run, whose card already tells command, data, seed and revision.
        name: under which :func:`resolve_weights` finds them.
        facts: added to the card.

    Returns:
        The path of the new file; its SHA-256 is in sha256.json beside it.

    Raises:
        ValueError: the name is no file name, or the facts are none by name.
        FileExistsError: a file of that name is there, and it is not the shipped one.
        WeightsError: the source cannot be read.
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w-]*", name):
        raise ValueError(f"expected a name of letters, digits, '-' and '_', for example d2a2-lite, got {name!r}")
    if not isinstance(facts, dict):
        raise ValueError(f"expected a card of 'name: value' lines (title, licence, metrics, limits), got {facts!r:.60}")
    info, target = read_info(source), PRETRAINED / f"{name}.safetensors"
    check_outputs([target], lambda path: sha256(path) == checksums().get(path.name), [Path(source)])
    PRETRAINED.mkdir(exist_ok=True)
    save_weights(target, load_weights(source), info.card | facts)
    record_checksum(target)
    return target


def record_checksum(path: Path) -> None:
    """Writes the SHA-256 of a file in the folder of the shipped weights to sha256.json."""
    known = checksums() | {path.name: sha256(path)}
    with replacing(PRETRAINED / "sha256.json") as partial:
        partial.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n")


def list_pretrained() -> list[str]:
    """Names of the weights that ship with the package."""
    names = sorted(path.stem for path in PRETRAINED.glob("*.safetensors"))
    return [name for name in names if not name.endswith((".sigma", ".int8"))]  # these lie beside weights
