"""The folder beside the target that holds what an interrupted run had done. Nothing in it that others wrote is touched."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from d2a2_core.bag.journal import Journal
from d2a2_core.bag.storage import BagError
from d2a2_core.files import replacing, unfinished_name

_MADE_BY = "d2a2 bag"
_JOB, _JOURNAL = "job.json", "pairs.journal"
_UNFINISHED = unfinished_name(_JOB)  # where the run was killed before it had begun
_MEMORIES = ("memory.0", "memory.1")
_OWN_FILES = (_JOB, _UNFINISHED, _JOURNAL, *_MEMORIES)
_NUMBER = struct.Struct("<4sQI")  # magic, pairs before, crc32 of the rest
_MAGIC = b"D2M1"


class PartialFolder:
    """The folder ``target``.partial. Use :meth:`claim` first.

    Args:
        target: Folder of the new bag.
    """

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(f"{target.name}.partial")
        #: Where the new bag is written, to be moved to its place when it is whole.
        self.bag = self.path / target.name
        endings = (".mcap", ".db3", ".db3-journal")
        self._bag_files = (*(target.name + ending for ending in endings), "metadata.yaml", "metadata.yaml.tmp")

    @contextmanager
    def claim(self, job: dict[str, Any]) -> Iterator[Journal]:
        """Yields the journal of this very job, for this process alone; makes the folder where there is none.

        Args:
            job: Everything the results depend on, as JSON gives it back.

        Raises:
            BagError: The folder is not ours, or holds a run with other settings.
            JournalError: Another process is at work.
            OSError: It cannot be written.
        """
        self._refuse_foreign()
        self.path.mkdir(parents=True, exist_ok=True)
        path = self.path / _JOB
        if not path.exists():
            with replacing(path) as unfinished:
                unfinished.write_text(json.dumps({"made_by": _MADE_BY, **job}))
        journal = Journal(self.path / _JOURNAL)
        try:
            journal.lock()
            different = _differences(self._job(), job)
            if different:
                raise BagError(
                    f"{self.path} holds an interrupted run with other settings ({', '.join(different)}); use the same again, or "
                    "remove that folder"
                )
            yield journal
        finally:
            journal.close()

    def keep_memory(self, pairs: int, memory: bytes) -> None:
        """Keeps what a stream remembers after so many pairs; that of the pair before is there, too, should this be cut off.

        Raises:
            OSError: It cannot be written.
        """
        path = self.path / _MEMORIES[pairs % 2]
        path.write_bytes(_NUMBER.pack(_MAGIC, pairs, zlib.crc32(memory)) + memory)

    def memory(self, pairs: int) -> bytes:
        """What was kept after so many pairs.

        Raises:
            BagError: It is missing or damaged.
        """
        path = self.path / _MEMORIES[pairs % 2]
        content = path.read_bytes() if path.is_file() else b""
        memory = content[_NUMBER.size :]
        if content[: _NUMBER.size] != _NUMBER.pack(_MAGIC, pairs, zlib.crc32(memory)):
            raise BagError(
                f"{path} does not hold what was known after {pairs} pairs; remove {self.path} and start again"
            )
        return memory

    def remove_bag(self) -> None:
        """Removes what an interrupted run wrote of the new bag.

        Raises:
            BagError: There is something else, which is left.
        """
        if self.bag.exists():
            self._empty(self.bag, self._bag_files)

    def remove(self) -> None:
        """Removes the folder.

        Raises:
            BagError: There is something else in it, which is left.
        """
        self.remove_bag()
        self._empty(self.path, _OWN_FILES)

    def _empty(self, folder: Path, names: tuple[str, ...]) -> None:
        for name in names:
            (folder / name).unlink(missing_ok=True)
        try:
            folder.rmdir()
        except OSError as error:
            raise BagError(f"{folder} holds files that d2a2 did not write; they are left there ({error})") from error

    def _refuse_foreign(self) -> None:
        """Raises BagError unless the folder is missing, or holds nothing but what a run of this command writes."""
        if not self.path.exists() and not self.path.is_symlink():
            return
        advice = "nothing was changed there; rename it, or choose another name for OUT"
        if self.path.is_symlink() or not self.path.is_dir():
            raise BagError(
                f"{self.path} is in the way: expected the folder of an interrupted run, or nothing; {advice}"
            )
        foreign = sorted(p.name for p in self.path.iterdir() if p.name not in (*_OWN_FILES, self.bag.name))
        if self.bag.is_dir() and not self.bag.is_symlink():
            foreign += sorted(f"{self.bag.name}/{p.name}" for p in self.bag.iterdir() if p.name not in self._bag_files)
        elif self.bag.exists() or self.bag.is_symlink():
            foreign.append(self.bag.name)
        if foreign:
            raise BagError(f"{self.path} holds what d2a2 did not write ({', '.join(foreign[:5])}); {advice}")
        if self._job().get("made_by") != _MADE_BY and any(p.name != _UNFINISHED for p in self.path.iterdir()):
            raise BagError(f"{self.path} is not of an interrupted run of this version of d2a2; {advice}")

    def _job(self) -> dict[str, Any]:
        """The job that the folder holds; empty where it holds none, or something else."""
        try:
            # Not documents.read_json: settings may be infinite, which JSON proper does not know.
            job = json.loads((self.path / _JOB).read_bytes())
        except (OSError, ValueError, RecursionError):
            return {}
        return job if isinstance(job, dict) else {}


def _differences(before: dict[str, Any], job: dict[str, Any]) -> list[str]:
    """Names of the entries in which two jobs differ; of options each by its own name."""
    old, new = before.get("options") or {}, job["options"]
    different = sorted(k for k in {*old, *new} if old.get(k) != new.get(k))
    return different + [k for k in job if k != "options" and before.get(k) != job[k]]
