"""The second pass: a new bag of the old one's messages and the journal's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from d2a2_core.bag.journal import Journal
from d2a2_core.bag.layout import ENDINGS
from d2a2_core.bag.messages import CLOUD
from d2a2_core.bag.source import BagSource, open_bag
from d2a2_core.bag.storage import BagError, add_topic, copy_connections, create_bag
from d2a2_core.bag.topics import IMAGE, INFO

#: name under the prefix: type
OUTPUTS = {"image_raw": IMAGE, "camera_info": INFO, "provenance": IMAGE, "sigma": IMAGE, "points": CLOUD}


def merge(
    source: BagSource, folder: Path, journal: Journal, prefix: str, storage: str, update: Callable[[], Any]
) -> None:
    """Writes the bag ``folder``: every message of the old one, and each pair's outputs after the messages of its bag time.

    Args:
        source: The old bag.
        folder: Is made.
        journal: Of all pairs.
        prefix: Of the outputs' topics.
        storage: "mcap" or "sqlite3".
        update: Called once for each message copied.

    Raises:
        BagError: The old bag is damaged, or what was written cannot be read again.
        JournalError: The journal is damaged.
    """
    written, ours = 0, {}
    with create_bag(folder, storage, source.layout.custom) as writer:
        connections = dict(zip(source.connections, copy_connections(source.connections, writer), strict=True))
        records = journal.records_in_order()
        pending = next(records, None)

        def write_pending() -> None:
            nonlocal pending, written
            head, outputs = pending
            for name, data in outputs:
                if name not in ours:
                    ours[name] = add_topic(writer, topic_of(prefix, name), OUTPUTS[name])
                writer.write(ours[name], head["time"], data)
                written += 1
            pending = next(records, None)

        for connection, time, raw in source.messages():
            while pending and pending[0]["time"] < time:
                write_pending()
            writer.write(connections[connection], time, raw)
            written += 1
            update()
        while pending:
            write_pending()
    with open_bag(folder / f"{folder.name}{ENDINGS[storage]}") as result:
        if len(result) != written:
            raise BagError(
                f"{written} messages were written to {folder}, but {len(result)} can be read there: is the disk full?"
            )


def topic_of(prefix: str, name: str) -> str:
    """Topic of one of :data:`OUTPUTS`."""
    return f"{prefix.rstrip('/')}/{name}"
