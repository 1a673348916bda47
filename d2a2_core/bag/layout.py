"""Which files a bag consists of, and what its metadata.yaml says of them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from d2a2_core.bag.connections import parse_qos
from d2a2_core.bag.sqlite_file import side_files
from d2a2_core.bag.storage import BagError

#: Ending of a bag's files by how they are stored.
ENDINGS = {"mcap": ".mcap", "sqlite3": ".db3"}
_STORAGES = {ending: storage for storage, ending in ENDINGS.items()}
_COMPRESSED = ".zstd"
#: What parsing metadata.yaml, and looking for its entries, may raise.
_UNREADABLE = (
    OSError,
    yaml.YAMLError,
    ValueError,
    ArithmeticError,
    LookupError,
    TypeError,
    AttributeError,
    RecursionError,
)
_EXPECTED = "expected a rosbag2 folder, or an .mcap or .db3 file"


@dataclass
class BagLayout:
    """A bag as a user names it.

    Attributes:
        files: Its files.
        count: Number of messages that metadata.yaml says; None where there is none.
        custom: What metadata.yaml keeps for its writer.
        qos: QoS profiles by topic and type, as metadata.yaml says them: a user may have changed them there.
        digests: Type hashes, alike.
        notes: What a user should know.
    """

    files: list[Path]
    count: int | None = None
    custom: dict[str, str] = field(default_factory=dict)
    qos: dict[tuple[str, str], tuple] = field(default_factory=dict)
    digests: dict[tuple[str, str], str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def storage(self) -> str:
        """ "mcap" or "sqlite3": how the bag is stored."""
        return _STORAGES[Path(plain_name(self.files[0])).suffix]

    @property
    def fingerprint(self) -> list[list[Any]]:
        """Names, sizes and times of the files: whether it is the same bag as before."""
        every = [file for path in self.files for file in (path, *side_files(path))]
        return [[p.name, p.stat().st_size, p.stat().st_mtime_ns] for p in every]


def find_bag(path: Path) -> BagLayout:
    """The files of the bag at ``path``: a folder, with or without metadata.yaml, or one file.

    Raises:
        BagError: There is none; the message says what to do.
    """
    if not path.exists():
        raise BagError(f"no bag at {path}; {_EXPECTED}")
    if path.is_file():
        if path.suffix == ".bag":
            raise BagError(f"{path} is a ROS 1 bag; {_ros1_cure(path)}")
        if not _is_storage(path):
            raise BagError(f"{path} is not a bag; {_EXPECTED}")
        return BagLayout([path])
    found = _storage_files(path)
    metadata = path / "metadata.yaml"
    if metadata.exists():
        return _from_metadata(metadata, found)
    if not found:
        old = sorted(path.glob("*.bag"))
        if old:
            raise BagError(f"{path} holds a ROS 1 bag; {_ros1_cure(old[0])}")
        raise BagError(f"{path} is not a bag: it holds neither a metadata.yaml nor an .mcap or .db3 file")
    if len({_series(p) for p in found}) > 1:
        names = ", ".join(p.name for p in found[:5])
        raise BagError(
            f"{path} holds several bags and no metadata.yaml: {names}; give one of these files, or if they are one recording, "
            f"`ros2 bag reindex {path}` says so"
        )
    return BagLayout(found)


def plain_name(path: Path) -> str:
    """Name of a bag's file without the ending of its compression."""
    return path.name.removesuffix(_COMPRESSED)


def _from_metadata(path: Path, found: list[Path]) -> BagLayout:
    layout = BagLayout(found)
    try:
        content = yaml.safe_load(path.read_text())["rosbag2_bagfile_information"]
        named = [Path(name).name for name in content["relative_file_paths"] or ()]
        layout.count = int(content["message_count"])
        layout.custom = {str(k): str(v) for k, v in (content.get("custom_data") or {}).items()}
        for entry in content["topics_with_message_count"]:
            topic = entry["topic_metadata"]
            key = topic["name"], topic["type"]
            layout.qos[key] = parse_qos(topic.get("offered_qos_profiles"))
            layout.digests[key] = str(topic.get("type_description_hash") or "")
    except _UNREADABLE as error:
        if not found:
            raise BagError(f"{path} cannot be read ({error}), and no bag's file lies beside it") from error
        layout.notes.append(
            f"{path} cannot be read ({' '.join(str(error).split())}); the bag's files are read without it"
        )
        return BagLayout(found, notes=layout.notes)
    if not found:
        raise BagError(f"{path.parent} has a metadata.yaml, but none of the bag's files")
    by_name = {plain_name(p): p for p in found}
    missing = [name for name in named if name.removesuffix(_COMPRESSED) not in by_name]
    if missing:
        raise BagError(
            f"{path} names {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not in its folder; put the files "
            "back, or remove metadata.yaml to read the others alone"
        )
    if named:
        layout.files = [by_name[name.removesuffix(_COMPRESSED)] for name in named]
        others = [p.name for p in found if p not in layout.files]
        if others:
            layout.notes.append(f"not read, since metadata.yaml does not name them: {', '.join(others)}")
    return layout


def _storage_files(folder: Path) -> list[Path]:
    found = sorted(p for p in folder.iterdir() if _is_storage(p))
    # `ros2 bag` takes compressed files apart where they lie, and leaves both.
    return [p for p in found if p.suffix != _COMPRESSED or p.with_name(plain_name(p)) not in found]


def _is_storage(path: Path) -> bool:
    return Path(plain_name(path)).suffix in _STORAGES


def _series(path: Path) -> tuple[str, str]:
    """What the files of one split recording have in common: NAME_0.mcap, NAME_1.mcap, ..."""
    name = Path(plain_name(path))
    return re.sub(r"_\d+$", "", name.stem), name.suffix


def _ros1_cure(path: Path) -> str:
    target = path.with_suffix("")
    return f"`rosbags-convert --src {path} --dst {target}` (of the package rosbags) makes a rosbag2 of it: give {target} then"
