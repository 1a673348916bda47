"""What was computed so far, in one file that only grows: an interrupted run goes on where its last whole record ends.

A record is one pair: a JSON header and the serialised messages of the outputs. Nothing but the newest record is ever in
memory.
"""

from __future__ import annotations

import fcntl
import json
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

_RECORD = struct.Struct("<4sIQI")  # magic, bytes of the header, bytes of the messages, crc32 of both
_MAGIC = b"D2P1"


class JournalError(ValueError):
    """The file cannot be used: damaged, or in use."""


class Journal:
    """Appends records, and reads them again. Use :meth:`recover` once before the first :meth:`append`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open(path, "a+b")  # noqa: SIM115 (closed in close)

    def close(self) -> None:
        """Closes the file."""
        with suppress(OSError):  # what could not be written has been told by append
            self._file.close()

    def lock(self) -> None:
        """Keeps other processes out until this one closes the file or ends.

        Raises:
            JournalError: another process is at work.
        """
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise JournalError(f"another process is at work in {self.path.parent}") from error

    def recover(self) -> Iterator[dict]:
        """Yields the header of every whole record; what follows the last one is cut off at the end.

        Raises:
            JournalError: not a journal.
        """
        end, size = 0, self.path.stat().st_size
        while size - end >= _RECORD.size:
            header_size, body_size, _ = self._record_at(end)
            following = end + _RECORD.size + header_size + body_size
            if following > size or (following == size and not self._whole(end)):
                break
            self._file.seek(end + _RECORD.size)
            yield json.loads(self._file.read(header_size))
            end = following
        self._file.truncate(end)

    def append(self, header: dict, messages: Sequence[tuple[str, memoryview | bytes]] = ()) -> None:
        """Writes one record: ``header`` and messages as (name, bytes)."""
        text = json.dumps({**header, "parts": [[name, len(data)] for name, data in messages]}).encode()
        crc = zlib.crc32(text)
        for _, data in messages:
            crc = zlib.crc32(data, crc)
        self._file.seek(0, os.SEEK_END)
        self._file.write(_RECORD.pack(_MAGIC, len(text), sum(len(data) for _, data in messages), crc))
        self._file.write(text)
        for _, data in messages:
            self._file.write(data)
        self._file.flush()  # to the system: it survives the end of this process

    def records_in_order(self) -> Iterator[tuple[dict, list[tuple[str, bytes]]]]:
        """All records as (header, messages), by the header's "time"; where that is equal, in the order in which they came.

        Raises:
            JournalError: A record is damaged.
        """
        places, position, size = [], 0, self.path.stat().st_size
        while position < size:
            header_size, body_size, _ = self._record_at(position)
            if not self._whole(position):
                raise self._damaged(position)
            self._file.seek(position + _RECORD.size)
            places.append((json.loads(self._file.read(header_size))["time"], position))
            position += _RECORD.size + header_size + body_size
        for _, position in sorted(places):
            header_size, _, _ = self._record_at(position)
            header = json.loads(self._file.read(header_size))
            yield header, [(name, self._file.read(length)) for name, length in header.pop("parts")]

    def _record_at(self, position: int) -> tuple[int, int, int]:
        self._file.seek(position)
        raw = self._file.read(_RECORD.size)
        magic, header_size, body_size, crc = _RECORD.unpack(raw) if len(raw) == _RECORD.size else (b"", 0, 0, 0)
        if magic != _MAGIC:
            raise self._damaged(position)
        return header_size, body_size, crc

    def _whole(self, position: int) -> bool:
        header_size, body_size, expected = self._record_at(position)
        left, crc = header_size + body_size, 0
        while left:
            block = self._file.read(min(left, 1 << 20))
            if not block:
                return False
            crc, left = zlib.crc32(block, crc), left - len(block)
        return crc == expected

    def _damaged(self, position: int) -> JournalError:
        return JournalError(f"{self.path} is damaged at byte {position}; remove its folder and start again")
