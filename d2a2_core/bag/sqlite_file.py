"""One .db3 file: an index of its messages, and their bytes."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from d2a2_core.bag.connections import CDR, Connection, parse_qos
from d2a2_core.bag.storage import BagError

#: What SQLite keeps beside a database that was not closed.
SIDE_FILES = ("-wal", "-journal")
_ROWS = 4096  # fetched at once


class SqliteFile:
    """An open .db3 file; the attributes and methods are those of :class:`d2a2_core.bag.mcap_file.McapFile`.

    Messages that a killed recorder left in a write-ahead log beside the file are read with it; neither file is changed, but
    SQLite may leave its index of the log (-shm) there.

    Raises:
        BagError: Not a rosbag2 database, damaged, or its write-ahead log cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.notes = path, []
        self._unfinished = [side for side in side_files(path) if side.stat().st_size]
        # An immutable database needs no locks and no writable folder, but what lies beside it is not looked at.
        mode = "mode=ro" if self._unfinished else "mode=ro&immutable=1"
        with self._boundary():
            self._database = sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True)
            self._database.text_factory = lambda text: text.decode(errors="replace")
        try:
            with self._boundary():
                if self._database.execute("SELECT 1 FROM sqlite_master").fetchone():
                    self._read_index(self._read_topics())
                else:  # what a recorder leaves that was killed as it began this file
                    self.connections, self._rows, self.which, self.times = [], *np.zeros((3, 0), np.int64)
                    self.notes.append(f"{path} is an empty database: nothing was recorded in it")
        except BagError:
            self.close()
            raise
        if self._unfinished:
            self.notes.append(
                f"{path} was not closed by its recorder; what lies in {self._unfinished[0].name} beside it is read, too"
            )

    def close(self) -> None:
        """Closes the file."""
        self._database.close()

    def read(self, i: int) -> bytes:
        """Stored bytes of message ``i``; raises BagError where the file is damaged."""
        return self._select("data", i)

    def head(self, i: int, size: int) -> bytes:
        """The first ``size`` stored bytes of message ``i``."""
        return self._select(f"substr(data, 1, {size:d})", i)

    def _select(self, what: str, i: int) -> bytes:
        with self._boundary():
            row = self._database.execute(
                f"SELECT {what} FROM messages WHERE rowid = ?", (int(self._rows[i]),)
            ).fetchone()
        return row[0] if row and isinstance(row[0], bytes) else b""

    def _read_topics(self) -> dict[int, int]:
        """Sets the connections; returns topic id: index in them."""
        columns = {row[1] for row in self._database.execute("PRAGMA table_info(topics)")}
        if not {"id", "name", "type"} <= columns:
            raise BagError(f"{self.path} is not a bag: the database has no table of topics")
        wanted = ("id", "name", "type", "serialization_format", "offered_qos_profiles", "type_description_hash")
        selected = ", ".join(name if name in columns else "''" for name in wanted)
        definitions = self._read_definitions()
        numbers, self.connections = {}, []
        for number, *values in self._database.execute(f"SELECT {selected} FROM topics"):
            # Columns may hold values of any type.
            topic, msgtype, encoding, qos, digest = (value if isinstance(value, str) else "" for value in values)
            numbers[number] = len(self.connections)
            definition, known = definitions.get(msgtype, ("", ""))
            self.connections.append(
                Connection(topic, msgtype, encoding or CDR, definition, digest or known, parse_qos(qos))
            )
        return numbers

    def _read_definitions(self) -> dict[str, tuple[str, str]]:
        """Definition and hash by type."""
        if not self._database.execute("PRAGMA table_info(message_definitions)").fetchall():
            return {}  # before ROS 2 Iron
        rows = self._database.execute(
            "SELECT topic_type, encoding, encoded_message_definition, type_description_hash FROM message_definitions"
        )
        found = {}
        for name, encoding, text, digest in rows:
            readable = encoding in ("ros2msg", "ros2idl") and isinstance(text, str)
            found[name] = text if readable else "", digest if isinstance(digest, str) else ""
        return found

    def _read_index(self, numbers: dict[int, int]) -> None:
        cursor = self._database.execute("SELECT rowid, topic_id, timestamp FROM messages ORDER BY timestamp, rowid")
        parts = [np.zeros((0, 3), np.int64)]
        while rows := cursor.fetchmany(_ROWS):
            parts.append(np.array([(row, numbers.get(topic, -1), time) for row, topic, time in rows], np.int64))
        self._rows, which, self.times = np.concatenate(parts).T
        self.which = which.astype(np.int32)

    @contextmanager
    def _boundary(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, ValueError, OverflowError, TypeError) as error:  # the others: columns of another type
            if isinstance(error, BagError):
                raise
            raise BagError(f"{self.path} cannot be read ({error}); {self._cure()}") from error

    def _cure(self) -> str:
        if self._unfinished:
            return (
                f"its recorder did not close it: copy it, with {' and '.join(side.name for side in self._unfinished)}, into a "
                "folder that you may write to and give that copy, or merge them there by "
                f"`sqlite3 {self.path.name} 'PRAGMA wal_checkpoint(TRUNCATE)'`"
            )
        return f"if its recording was cut off, `sqlite3 {self.path} .recover | sqlite3 FIXED.db3` saves what is whole"


def side_files(path: Path) -> list[Path]:
    """Files of SQLite's beside the database at ``path``."""
    candidates = (path.with_name(path.name + ending) for ending in SIDE_FILES)
    return [candidate for candidate in candidates if candidate.exists()]
