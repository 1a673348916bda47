"""Writing bags, and what all of `bag` needs: the error, and the standard message types. A thin layer over `rosbags`."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from d2a2_core.bag.connections import Connection

_NO_HASH = "RIHS01_" + "0" * 64  # what is written for a type that nobody defines


class BagError(ValueError):
    """A bag cannot be read or written; the message says which, why, and what to do."""


@lru_cache(maxsize=1)
def typestore() -> Any:
    """The standard message types, of ROS 2 Jazzy; the few used here are the same in all distributions from Humble on."""
    from rosbags.typesys import Stores, get_typestore

    return get_typestore(Stores.ROS2_JAZZY)


def check_target(folder: Path, storage: str) -> None:
    """Raises BagError where the library would write a new bag somewhere else than into ``folder``."""
    if storage == "sqlite3" and not {"?", "#", "%"}.isdisjoint(str(folder)):  # it makes an address of the name
        raise BagError(
            f"cannot write to {folder} as sqlite3: expected a path without ?, # and %; or use --storage mcap"
        )


def create_bag(folder: Path, storage: str, custom_data: dict[str, str] | None = None) -> Any:
    """A rosbags Writer (a context manager) for a new bag folder.

    Version 8 of the metadata is what ROS 2 Iron wrote; later distributions read it.
    """
    from rosbags.rosbag2 import StoragePlugin, Writer

    writer = Writer(folder, version=8, storage_plugin=StoragePlugin[storage.upper()])
    for key, value in (custom_data or {}).items():
        writer.set_custom_data(key, str(value))
    return writer


def copy_connections(connections: Iterable[Connection], writer: Any) -> list[Any]:
    """Adds topics of a bag to a Writer with their types, definitions and QoS profiles; returns what to write to, in order."""
    added = []
    for connection in connections:
        definition, digest = _definition(connection)
        added.append(
            writer.add_connection(
                connection.topic, connection.msgtype, msgdef=definition, rihs01=digest,
                serialization_format=connection.encoding, offered_qos_profiles=connection.qos,
            )
        )  # fmt: skip
    return added


def add_topic(writer: Any, topic: str, msgtype: str) -> Any:
    """Adds a topic of ours: reliable, volatile, two deep, as the live node offers."""
    from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime

    forever = QosTime(9223372036, 854775807)
    qos = Qos(
        QosHistory.KEEP_LAST, 2, QosReliability.RELIABLE, QosDurability.VOLATILE, forever, forever,
        QosLiveliness.AUTOMATIC, forever, False,
    )  # fmt: skip
    return writer.add_connection(topic, msgtype, typestore=typestore(), offered_qos_profiles=[qos])


def _definition(connection: Connection) -> tuple[str, str]:
    """Message definition and type hash: the bag's own where it has them, else the standard ones."""
    store, name, text = typestore(), connection.msgtype, connection.definition
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
