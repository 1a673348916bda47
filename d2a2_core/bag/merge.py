"""The second pass: a new bag of the old one's messages and the journal's."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from d2a2_core.bag.journal import Journal
from d2a2_core.bag.messages import CLOUD
from d2a2_core.bag.storage import BagError, add_topic, copy_connections, create_bag, messages
from d2a2_core.bag.topics import IMAGE, INFO

#: name under the prefix: type
OUTPUTS = {"image_raw": IMAGE, "camera_info": INFO, "provenance": IMAGE, "sigma": IMAGE, "points": CLOUD}


def merge(reader: Any, folder: Path, journal: Journal, prefix: str, storage: str, update: Callable[[], Any]) -> None:
    """Writes the bag ``folder``: every message of the old one, and each pair's outputs after the messages of its bag time.

    Args:
        reader: of the old bag.
        folder: made; what an interrupted merge left there goes.
        journal: of all pairs.
        prefix: of the outputs' topics.
        storage: "mcap" or "sqlite3".
        update: called once for each message copied.

    Raises:
        BagError: the old bag is damaged, or lacks messages that it says it has.
        JournalError: the journal is damaged.
    """
    if folder.exists():
        shutil.rmtree(folder)
    copied, ours = 0, {}
    with create_bag(folder, storage, reader.storage.metadata.custom) as writer:
        connections = copy_connections(reader.connections, writer)
        records = journal.records()
        pending = next(records, None)

        def write_pending() -> None:
            nonlocal pending
            head, outputs = pending
            for name, data in outputs:
                if name not in ours:
                    ours[name] = add_topic(writer, topic_of(prefix, name), OUTPUTS[name])
                writer.write(ours[name], head["time"], data)
            pending = next(records, None)

        for connection, time, raw in messages(reader):
            while pending and pending[0]["time"] < time:
                write_pending()
            writer.write(connections[connection.id], time, raw)
            copied += 1
            update()
        while pending:
            write_pending()
        if copied != reader.message_count:
            raise BagError(f"{reader.path} says it holds {reader.message_count} messages, but {copied} could be read")


def topic_of(prefix: str, name: str) -> str:
    """Topic of one of :data:`OUTPUTS`."""
    return f"{prefix.rstrip('/')}/{name}"
