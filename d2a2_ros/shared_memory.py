"""What Fast DDS has of shared memory. Too little means lost images; killed processes leave theirs behind."""

from __future__ import annotations

import fcntl
import os
import re
from dataclasses import dataclass
from pathlib import Path

from d2a2_ros.diagnostics import Problem

FOLDER = Path("/dev/shm")
_SEGMENT = re.compile(r"fastrtps_[0-9a-f]{16}")
# A segment of config/fastdds.xml with its ports, rounded up.
_NEEDED = 20_000_000
_CLEAN = "remove them with 'fastdds shm clean', or, while no ROS node runs, rm /dev/shm/fastrtps_*"


@dataclass(frozen=True)
class SharedMemory:
    """A look at /dev/shm, in bytes.

    Attributes:
        own: Largest segment of this process; 0 if it has none.
        free, size: Room left in the file system, and all of it.
        stale: In segments whose process has gone without removing them.
        stale_segments: Their number.
    """

    own: int
    free: int
    size: int
    stale: int
    stale_segments: int

    def text(self) -> str:
        """For /diagnostics and messages."""
        parts = [f"own segment {_mb(self.own)}", f"{_mb(self.free)} of {_mb(self.size)} free"]
        if self.stale_segments:
            parts.append(f"{_mb(self.stale)} left by killed processes")
        return ", ".join(parts)

    def problem(self) -> Problem | None:
        """Says that images cannot go through shared memory because there is no room, and what to do."""
        if self.own or self.free >= _NEEDED:
            return None
        cause = f"; {self._left()}" if self.stale_segments else ""
        return Problem(
            "no_shared_memory",
            f"images go by UDP, where many are lost: a process needs {_mb(_NEEDED)} of shared memory, and /dev/shm has "
            f"{_mb(self.free)} of {_mb(self.size)} free{cause}. For a container set --shm-size=256m or more",
        )

    def left_over(self) -> Problem | None:
        """Says that killed processes left segments, and how to remove them."""
        return Problem("stale_shared_memory", self._left()) if self.stale_segments else None

    def _left(self) -> str:
        return f"{self.stale_segments} shared memory segments of killed processes take {_mb(self.stale)}; {_CLEAN}"


def look(folder: Path = FOLDER) -> SharedMemory | None:
    """Looks at the segments of Fast DDS; None where there is no such folder."""
    try:
        room = os.statvfs(folder)
        names = [name for name in os.listdir(folder) if _SEGMENT.fullmatch(name)]
        mine = _open_files()
    except OSError:
        return None
    own, stale = [0], []
    for name in names:
        lock = folder / f"{name}_el"
        try:
            size = (folder / name).stat().st_size
            if str(lock) in mine:
                own.append(size)
            elif not _is_locked(lock):
                stale.append(size)
        except OSError:  # gone meanwhile, or another user's
            continue
    return SharedMemory(max(own), room.f_bavail * room.f_frsize, room.f_blocks * room.f_frsize, sum(stale), len(stale))


def _open_files() -> set[str]:
    """Paths of the files that this process holds open; Fast DDS keeps the locks of its own segments open."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            found.add(os.readlink(f"/proc/self/fd/{number}"))
        except OSError:  # the descriptor of the listing itself
            continue
    return found


def _is_locked(lock: Path) -> bool:
    """Whether a process holds the lock of a segment. A killed one's is released by the kernel."""
    with lock.open("rb") as file:
        try:
            # Closing the file releases it again.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _mb(count: int) -> str:
    return f"{count / 1e6:.0f} MB"
