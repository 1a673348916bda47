"""One .mcap file: an index of its messages, and their bytes (format: https://mcap.dev/spec).

The index is made from the messages themselves, not from the file's own index: files without one, with a wrong one, or whose
end was never written are read alike. Only record headers are read for it, but compressed chunks have to be decompressed.
"""

from __future__ import annotations

import os
import struct
import zlib
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from d2a2_core.bag.compression import LARGEST, CompressionError, decompress
from d2a2_core.bag.connections import Connection, parse_qos
from d2a2_core.bag.storage import BagError

_MAGIC = b"\x89MCAP0\r\n"
_FOOTER, _SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _STATISTICS = 0x02, 0x03, 0x04, 0x05, 0x06, 0x0B
_HEADER = struct.Struct("<BQ")  # operation, size of the content
_MESSAGE_HEADER = struct.Struct("<HIQQ")  # channel, sequence, log time, publish time
_CHUNK_HEADER = struct.Struct("<QQQII")  # first and last time, size, crc32, length of the compression's name
_LATEST = 2**63 - 1
_CACHED = 4  # chunks: partners may lie in different ones
_TOP = -1  # chunk number of a message that is in none

#: Bytes at (position, size), fewer at the end.
_Read = Callable[[int, int], bytes]


class _Chunk(NamedTuple):
    start: int
    length: int
    size: int
    crc: int
    compression: str


class _CutOffError(Exception):
    """A record is not whole, at the byte that is given."""


class McapFile:
    """An open .mcap file.

    Attributes:
        connections: Topics; one may have several.
        times: (N,) int64, bag times in ns, in the order of the file.
        which: (N,) int32, index in ``connections`` of each message; -1 for a channel that is not described.
        notes: What a user should know of the file.

    Raises:
        BagError: Not an mcap file, or damaged in its middle.
        OSError: It cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.notes = path, []
        self._file = open(path, "rb")  # noqa: SIM115 (closed in close)
        self._size = os.fstat(self._file.fileno()).st_size
        self._schemas: dict[int, tuple[str, str, str]] = {}
        self._channels: dict[int, Connection] = {}
        self._chunks: list[_Chunk] = []
        self._cache: OrderedDict[int, bytes] = OrderedDict()
        self._expected: int | None = None  # number of messages, as the file's statistics say
        # Of each message: time, channel, chunk, position of its data in the file or the chunk, and size.
        self._entries = array("q"), array("l"), array("l"), array("q"), array("q")
        try:
            self._scan_file()
        except (BagError, OSError):
            self.close()
            raise
        self.times, channels, self._chunk, self._position, self._length = (np.array(e) for e in self._entries)
        del self._entries
        numbers = {channel: i for i, channel in enumerate(self._channels)}
        self.which = np.array([numbers.get(c, -1) for c in channels.tolist()], np.int32)
        self.connections = list(self._channels.values())

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def read(self, i: int) -> bytes:
        """Stored bytes of message ``i``; raises BagError where its chunk is damaged."""
        return self._part(i, int(self._length[i]))

    def head(self, i: int, size: int) -> bytes:
        """The first ``size`` stored bytes of message ``i``, sooner than all of them."""
        number = int(self._chunk[i])
        size = min(size, int(self._length[i]))
        if number == _TOP or self._chunks[number].compression:
            return self._part(i, size)
        return self._at(self._chunks[number].start + int(self._position[i]), size)

    def _part(self, i: int, size: int) -> bytes:
        number, position = int(self._chunk[i]), int(self._position[i])
        if number == _TOP:
            return self._at(position, size)
        return self._data(number)[position : position + size]

    def _at(self, position: int, size: int) -> bytes:
        return os.pread(self._file.fileno(), size, position)

    def _data(self, number: int) -> bytes:
        """The records of a chunk; the ones used last are kept."""
        if number not in self._cache:
            chunk = self._chunks[number]
            try:
                data = decompress(self._at(chunk.start, chunk.length), chunk.compression, chunk.size)
            except CompressionError as error:
                raise self._damaged(chunk.start, str(error)) from error
            if len(data) != chunk.size or (chunk.crc and zlib.crc32(data) != chunk.crc):
                raise self._damaged(chunk.start, "a chunk's checksum or size is wrong")
            self._cache[number] = data
            while len(self._cache) > _CACHED:
                self._cache.popitem(last=False)
        self._cache.move_to_end(number)
        return self._cache[number]

    # -- the index ---------------------------------------------------------------------------------------------------------

    def _scan_file(self) -> None:
        start = self._at(0, len(_MAGIC))
        if not _MAGIC.startswith(start):
            raise BagError(f"{self.path} cannot be read: it does not start as an mcap file does")
        try:
            for operation, start, size in _records(self._at, len(_MAGIC), self._size):
                if operation == _FOOTER:
                    break
                self._take(self._at, operation, start, size, _TOP)
            else:
                raise _CutOffError(self._size)
        except _CutOffError as error:
            (position,) = error.args
            end = max(self._size - len(_MAGIC), len(_MAGIC))
            if self._at(end, len(_MAGIC)) == _MAGIC:  # the end was written: this is something else
                raise self._damaged(position, "a record is not whole") from error
            self.notes.append(
                f"the recording of {self.path} was cut off: its {len(self._entries[0])} whole messages are read, what came "
                f"after byte {position} is lost. The original stays as it is; `mcap recover {self.path} -o FIXED.mcap` mends it"
            )
        if self._expected is not None and self._expected > len(self._entries[0]):
            raise BagError(
                f"{self.path} is damaged: it says that it holds {self._expected} messages, but {len(self._entries[0])} can be "
                f"read; {self._cure()}"
            )

    def _take(self, read: _Read, operation: int, start: int, size: int, chunk: int) -> None:
        if operation == _MESSAGE:
            channel, _, time, _ = self._unpack(_MESSAGE_HEADER, read, start, size)
            header = _MESSAGE_HEADER.size
            for array_, value in zip(
                self._entries, (min(time, _LATEST), channel, chunk, start + header, size - header), strict=True
            ):
                array_.append(value)
        elif operation == _CHUNK and chunk == _TOP:
            self._take_chunk(start, size)
        elif operation in (_SCHEMA, _CHANNEL):
            try:
                self._describe(operation, read(start, size))
            except (struct.error, UnicodeDecodeError) as error:
                raise self._damaged(start, f"a description of messages cannot be read: {error}") from error
        elif operation == _STATISTICS:
            (self._expected,) = self._unpack(struct.Struct("<Q"), read, start, size)

    def _take_chunk(self, start: int, size: int) -> None:
        *_, plain, crc, name = self._unpack(_CHUNK_HEADER, self._at, start, size)
        data = start + _CHUNK_HEADER.size + min(name, 16) + 8
        text = self._at(start + _CHUNK_HEADER.size, min(name, 16))
        (length,) = self._unpack(struct.Struct("<Q"), self._at, data - 8, start + size - data + 8)
        if data + length > start + size or plain > LARGEST:
            raise self._damaged(start, "a chunk's sizes are wrong")
        number = len(self._chunks)
        self._chunks.append(_Chunk(data, length, plain, crc, text.decode("ascii", "replace")))
        compressed = bool(text)

        def read(position: int, count: int) -> bytes:
            return self._data(number)[position : position + count] if compressed else self._at(data + position, count)

        try:
            for operation, inner, inner_size in _records(read, 0, plain if compressed else length):
                self._take(read, operation, inner, inner_size, number)
        except _CutOffError as error:
            raise self._damaged(start, "a chunk's records are not whole") from error

    def _describe(self, operation: int, content: bytes) -> None:
        if operation == _SCHEMA:
            (number,) = struct.unpack_from("<H", content)
            name, at = _string(content, 2)
            encoding, at = _string(content, at)
            # Other descriptions than ROS's, of which some are no text, mean nothing to those who read the result.
            text = _string(content, at)[0].decode() if encoding in (b"ros2msg", b"ros2idl") else ""
            self._schemas.setdefault(number, (name.decode(), encoding.decode(), text))
            return
        number, schema = struct.unpack_from("<HH", content)
        topic, at = _string(content, 4)
        encoding, at = _string(content, at)
        pairs, _ = _string(content, at)
        metadata, at = {}, 0
        while at < len(pairs):
            key, at = _string(pairs, at)
            metadata[key], at = _string(pairs, at)
        msgtype, _, definition = self._schemas.get(schema, ("", "", ""))
        known = self._channels.setdefault(
            number,
            Connection(
                topic.decode(), msgtype, encoding.decode(), definition,
                metadata.get(b"topic_type_hash", b"").decode(), parse_qos(metadata.get(b"offered_qos_profiles", b"").decode()),
            ),
        )  # fmt: skip
        if known.topic != topic.decode():
            raise self._damaged(0, f"channel {number} is {known.topic} and {topic.decode()}")

    def _unpack(self, layout: struct.Struct, read: _Read, start: int, size: int) -> tuple:
        if size < layout.size:
            raise self._damaged(start, f"a record of {size} bytes is too short")
        return layout.unpack(read(start, layout.size))

    def _damaged(self, position: int, why: str) -> BagError:
        return BagError(f"{self.path} is damaged at byte {position}: {why}; {self._cure()}")

    def _cure(self) -> str:
        return f"`mcap recover {self.path} -o FIXED.mcap` saves what is whole"


def _records(read: _Read, position: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(operation, position of the content, its size) of each record up to ``end``; raises _CutOffError."""
    while position < end:
        header = read(position, _HEADER.size)
        operation, size = _HEADER.unpack(header) if len(header) == _HEADER.size else (0, 0)
        start = position + _HEADER.size
        if operation == 0 or start + size > end:  # 0 is no operation: a file that was made longer than what was written
            raise _CutOffError(position)
        yield operation, start, size
        position = start + size


def _string(content: bytes, at: int) -> tuple[bytes, int]:
    """A string with its length before it, and where the next field starts; raises struct.error."""
    (length,) = struct.unpack_from("<I", content, at)
    return struct.unpack_from(f"{length}s", content, at + 4)[0], at + 4 + length
