"""Opening bags, and carrying their connections over to another bag unchanged. A thin layer over `rosbags`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

_STORAGES = {".mcap": "mcap", ".db3": "sqlite3"}
_NO_HASH = "RIHS01_" + "0" * 64  # what is written for a type that nobody defines


class BagError(ValueError):
    """A bag cannot be read or written; the message says which, why, and what to do."""


@lru_cache(maxsize=1)
def typestore() -> Any:
    """The standard message types, of ROS 2 Jazzy; the few used here are the same in all distributions from Humble on."""
    from rosbags.typesys import Stores, get_typestore

    return get_typestore(Stores.ROS2_JAZZY)


@contextmanager
def open_bag(path: Path) -> Iterator[Any]:
    """An open rosbags Reader of a bag folder, or of one .mcap or .db3 file.

    Raises:
        BagError: no such bag, or it cannot be read.
        ImportError: without `rosbags`.
    """
    try:
        from rosbags.rosbag2 import Reader
    except ImportError as error:
        raise ImportError(f"bags need the package rosbags: pip install 'rosbags>=0.10,<0.12' ({error})") from error

    reader = Reader(_storage_path(path))
    try:
        reader.open()
    except Exception as error:  # whatever its parsers raise on a file that is cut off or is no bag
        raise BagError(f"{path} cannot be read as a rosbag2 ({error}); {_repair(path)}") from error
    try:
        yield reader
    finally:
        reader.close()


def storage_of(path: Path) -> str:
    """ "mcap" or "sqlite3": how the bag at ``path`` is stored."""
    return _STORAGES[Path(next(_files(_storage_path(path))).name.removesuffix(".zstd")).suffix]


def fingerprint(path: Path) -> list:
    """Names, sizes and times of the bag's files: whether it is the same bag as before."""
    return [[p.name, p.stat().st_size, p.stat().st_mtime_ns] for p in _files(_storage_path(path))]


def messages(reader: Any, connections: Iterable[Any] = ()) -> Iterator[tuple[Any, int, bytes]]:
    """(connection, bag time in ns, serialised message) in order of time.

    Raises:
        BagError: the bag is damaged on the way.
    """
    try:
        yield from reader.messages(list(connections))
    except Exception as error:  # only the reader's own come here: of sqlite, zstd, struct, ...
        raise BagError(f"{reader.path} is damaged ({type(error).__name__}: {error}); {_repair(reader.path)}") from error


def create_bag(folder: Path, storage: str, custom_data: dict[str, str] | None = None) -> Any:
    """A rosbags Writer (a context manager) for a new bag folder.

    Version 8 of the metadata is what ROS 2 Iron wrote; later distributions read it.
    """
    from rosbags.rosbag2 import StoragePlugin, Writer

    writer = Writer(folder, version=8, storage_plugin=StoragePlugin[storage.upper()])
    for key, value in (custom_data or {}).items():
        writer.set_custom_data(key, str(value))
    return writer


def copy_connections(connections: Iterable[Any], writer: Any) -> dict[int, Any]:
    """Adds connections of a Reader to a Writer with their types, definitions and QoS profiles; {old id: new one}."""
    added: dict[tuple, Any] = {}
    by_id = {}
    for old in connections:
        key = (old.topic, old.msgtype, repr(old.ext))
        if key not in added:  # an mcap may hold several channels of one topic
            definition, digest = _definition(old)
            added[key] = writer.add_connection(
                old.topic, old.msgtype, msgdef=definition, rihs01=digest,
                serialization_format=old.ext.serialization_format, offered_qos_profiles=old.ext.offered_qos_profiles,
            )  # fmt: skip
        by_id[old.id] = added[key]
    return by_id


def add_topic(writer: Any, topic: str, msgtype: str) -> Any:
    """Adds a topic of ours: reliable, volatile, two deep, as the live node offers."""
    from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime

    forever = QosTime(9223372036, 854775807)
    qos = Qos(
        QosHistory.KEEP_LAST, 2, QosReliability.RELIABLE, QosDurability.VOLATILE, forever, forever,
        QosLiveliness.AUTOMATIC, forever, False,
    )  # fmt: skip
    return writer.add_connection(topic, msgtype, typestore=typestore(), offered_qos_profiles=[qos])


def _definition(connection: Any) -> tuple[str, str]:
    """Message definition and type hash: the bag's own where it has them, else the standard ones."""
    store, name, text = typestore(), connection.msgtype, connection.msgdef.data
    known = name in store.fielddefs
    if not text and known:
        text = store.generate_msgdef(name, ros_version=2)[0]
    if connection.digest:
        return text, connection.digest
    return text, store.hash_rihs01(name) if known else _hash(name, text)


def _hash(name: str, text: str) -> str:
    from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore

    try:
        scratch = get_typestore(Stores.ROS2_JAZZY)
        idl = text.startswith("=" * 80 + "\nIDL: ")
        types = get_types_from_idl(text) if idl else get_types_from_msg(text, name)
        scratch.register({k: v for k, v in types.items() if k not in scratch.fielddefs})
        return scratch.hash_rihs01(name)
    except Exception:  # a definition it cannot parse is still copied; only its hash stays open
        return _NO_HASH


def _storage_path(path: Path) -> Path:
    """What the Reader is to open: ``path``, or the one file in a folder whose metadata.yaml was never written."""
    if not path.exists():
        raise BagError(f"no bag at {path}; expected a rosbag2 folder, or an .mcap or .db3 file")
    if path.is_file():
        if path.suffix not in _STORAGES:
            raise BagError(f"{path} is not a bag; expected a rosbag2 folder, or an .mcap or .db3 file")
        return path
    if (path / "metadata.yaml").exists():
        return path
    files = list(_files(path))
    if len(files) == 1 and files[0].suffix in _STORAGES:
        return files[0]
    if files:
        raise BagError(f"{path} holds {len(files)} bag files and no metadata.yaml; {_repair(path)}")
    raise BagError(f"{path} is not a bag: it holds neither a metadata.yaml nor an .mcap or .db3 file")


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
        return
    found = sorted(p for p in path.iterdir() if p.suffix in _STORAGES or p.name.endswith((".db3.zstd", ".mcap.zstd")))
    if not found and (path / "metadata.yaml").exists():
        raise BagError(f"{path} has a metadata.yaml, but none of the bag's files")
    yield from found


def _repair(path: Path) -> str:
    return f"if its recording was cut off, `ros2 bag reindex {path}` (or, for mcap, `mcap recover`) may repair it"
