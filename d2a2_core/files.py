"""Files that are never half written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yields ``path``.partial to write to, and puts what was written in the place of ``path`` when the block ends.

    Whoever opens ``path`` finds the old file (or none) or the whole new one, also after the process was killed. If the block
    raises, the partial file is removed and ``path`` stays as it is. A killed process may leave the partial file behind; the next
    one overwrites it. Not guaranteed: that the new file survives a power cut (nothing is synced), and anything about two
    processes that write the same file at once.

    Raises:
        OSError: the file cannot be replaced, for instance because the block wrote none.
    """
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
