"""A bag to read: its files as one, in order of time, each message reachable by its position."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from d2a2_core.bag.compression import ZSTD_MAGIC, CompressionError, decompress, decompress_file
from d2a2_core.bag.connections import CDR, Connection, topics_of
from d2a2_core.bag.layout import BagLayout, find_bag, plain_name
from d2a2_core.bag.mcap_file import McapFile
from d2a2_core.bag.sqlite_file import SqliteFile
from d2a2_core.bag.storage import BagError, typestore


@contextmanager
def open_bag(path: Path) -> Iterator[BagSource]:
    """An open bag: a folder, with or without metadata.yaml, or one .mcap or .db3 file (also .zstd).

    Raises:
        BagError: No such bag, or it cannot be read.
        ImportError: Without `rosbags`.
    """
    try:
        import rosbags.rosbag2  # noqa: F401 (and what it brings along: zstd, lz4)
    except ImportError as error:
        raise ImportError(f"bags need the package rosbags: pip install 'rosbags>=0.11.8,<0.12' ({error})") from error
    with ExitStack() as stack:
        try:
            layout = find_bag(path)
            files = [_open_file(file, stack) for file in layout.files]
        except OSError as error:
            raise BagError(f"{path} cannot be read ({error})") from error
        yield BagSource(path, layout, files)


class BagSource:
    """A bag's messages, numbered in order of bag time (in order of the files where times are equal).

    Args:
        path: As the user named it.
        layout: Files and metadata.
        files: The same files, open.

    Attributes:
        connections: Topics that can be read and written; each topic, type and serialisation once.
        times: (N,) int64, bag times in ns, ascending, not negative.
        which: (N,) int32, index in ``connections`` of each message; -1 for what is left out.
        notes: What a user should know of the bag, above all what is left out.

    Raises:
        BagError: The files hold fewer messages than metadata.yaml says.
    """

    def __init__(self, path: Path, layout: BagLayout, files: list[McapFile | SqliteFile]) -> None:
        self.path, self.layout, self._files = path, layout, files
        self.notes = [*layout.notes, *(note for file in files for note in file.notes)]
        self.connections: list[Connection] = []
        self.left_out: list[Connection] = []
        which = [self._numbers(file)[file.which] for file in files]
        times = np.concatenate([file.times for file in files])
        if (times < 0).any():
            self.notes.append(f"{int((times < 0).sum())} messages have a bag time before 1970, which is taken as 0")
            times = np.maximum(times, 0)
        order = np.argsort(times, kind="stable")
        self.times, self.which = times[order], np.concatenate(which)[order]
        starts = np.cumsum([0, *(len(file.times) for file in files)])
        self._file = np.searchsorted(starts, order, side="right") - 1
        self._local = order - starts[self._file]
        self._check_count()
        self._note_left_out()

    def __len__(self) -> int:
        """Number of messages, with those that are left out."""
        return len(self.times)

    def positions(self, connections: Collection[Connection]) -> np.ndarray:
        """(n,) positions of the messages of some of :attr:`connections`, ascending."""
        numbers = [i for i, connection in enumerate(self.connections) if connection in connections]
        return np.flatnonzero(np.isin(self.which, numbers))

    def messages(self, positions: np.ndarray | None = None) -> Iterator[tuple[Connection, int, bytes]]:
        """(connection, bag time in ns, serialised message) of positions, by default of all that is not left out.

        Raises:
            BagError: The bag is damaged on the way.
        """
        for position in np.flatnonzero(self.which >= 0) if positions is None else positions:
            yield self.connections[self.which[position]], int(self.times[position]), self.read(position)

    def read(self, position: int) -> bytes:
        """The serialised message at a position.

        One that was compressed and is damaged comes as it is stored: whoever reads it finds no message in it.

        Raises:
            BagError: The bag is damaged there.
        """
        with self._boundary():
            return self._plain(self._files[self._file[position]].read(int(self._local[position])))

    def head(self, position: int, size: int) -> bytes:
        """The first bytes of a serialised message, at least ``size`` of them where it has so many; raises as ``read``."""
        with self._boundary():
            data = self._files[self._file[position]].head(int(self._local[position]), max(size, len(ZSTD_MAGIC)))
        return self.read(position) if data.startswith(ZSTD_MAGIC) else data

    @staticmethod
    def _plain(data: bytes) -> bytes:
        """Takes a message apart that the recorder compressed; a serialised one begins with 0."""
        if not data.startswith(ZSTD_MAGIC):
            return data
        try:
            return decompress(data, "zstd")
        except CompressionError:
            return data

    @contextmanager
    def _boundary(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise BagError(f"{self.path} cannot be read ({error})") from error

    def _numbers(self, file: McapFile | SqliteFile) -> np.ndarray:
        """Index in ``connections`` for each connection of a file, and -1 at the end for what has none."""
        numbers = []
        counts = np.bincount(file.which[file.which >= 0], minlength=len(file.connections))
        for connection, count in zip(file.connections, counts.tolist(), strict=True):
            key = connection.topic, _full_type(connection.msgtype)
            added = Connection(
                *key, connection.encoding, connection.definition, connection.digest or self.layout.digests.get(key, ""),
                self.layout.qos.get(key) or connection.qos, count,
            )  # fmt: skip
            usable = connection.encoding == CDR and bool(connection.topic) and bool(connection.msgtype)
            known = self.connections if usable else self.left_out
            index = next((i for i, c in enumerate(known) if c.key == added.key), len(known))
            known[index : index + 1] = [known[index].merged(added) if index < len(known) else added]
            numbers.append(index if usable else -1)
        return np.array([*numbers, -1], np.int32)

    def _check_count(self) -> None:
        said = self.layout.count
        if said is None or said == len(self):
            return
        if said > len(self):
            raise BagError(
                f"{self.path}/metadata.yaml says the bag holds {said} messages, but its files hold {len(self)}. If a file was "
                "cut off or exchanged, put the whole one back; to go on with what there is, remove metadata.yaml"
            )
        self.notes.append(
            f"metadata.yaml says {said} messages; the bag's files hold {len(self)}, and all of these are read"
        )

    def _note_left_out(self) -> None:
        for encoding in sorted({c.encoding for c in self.left_out}):
            kind = [c for c in self.left_out if c.encoding == encoding]
            what = f"{encoding!r} messages" if encoding != CDR else "messages without a type or a topic"
            cure = (
                "; `rosbags-convert` makes a rosbag2 of the ROS 1 bag that they come from" if encoding == "ros1" else ""
            )
            self.notes.append(
                f"left out: {sum(c.count for c in kind)} {what} on {topics_of(kind)}; the new bag holds ROS 2 messages (CDR) "
                f"only{cure}"
            )
        lost = int((self.which < 0).sum()) - sum(c.count for c in self.left_out)
        if lost:
            self.notes.append(f"left out: {lost} messages of which the bag does not say the topic")


def _full_type(name: str) -> str:
    """The standard type that some programs write as ROS 1 does, without the middle of pkg/msg/Type; else the name as it is."""
    full = name.replace("/", "/msg/")
    return full if full in typestore().fielddefs else name


def _open_file(path: Path, stack: ExitStack) -> McapFile | SqliteFile:
    if plain_name(path) != path.name:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="d2a2-bag-")))
        plain = folder / plain_name(path)
        try:
            decompress_file(path, plain)
        except CompressionError as error:
            raise BagError(f"{error}; `zstd -d` may save a part of it") from error
        except OSError as error:
            raise BagError(
                f"{path} cannot be taken apart in {folder} ({error}); set TMPDIR to a folder with room for it"
            ) from error
        path = plain
    file = McapFile(path) if path.suffix == ".mcap" else SqliteFile(path)
    stack.callback(file.close)
    return file
