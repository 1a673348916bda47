"""Files that are never half written, and never written over what somebody else made."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

#: Within the first bytes of every PNG of :func:`write_png`: the text chunk "Software".
PNG_MARK = b"tEXtSoftware\0d2a2"


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yields a new file's path beside ``path``, and puts what was written there in the place of ``path`` when the block ends.

    The folder is made where there is none.
    Whoever opens ``path`` finds the old file (or none) or the whole new one, also after the process was killed. If the block
    raises, the new file is removed and ``path`` stays as it is. Other names of the old file (hard links, what a symbolic link
    points to) keep the old content. A killed process may leave the new file behind, under a name that only this function uses;
    the next one overwrites it. Not guaranteed: that the new file survives a power cut (nothing is synced), and anything about
    two processes that write the same file at once.

    Raises:
        OSError: the file cannot be replaced, for instance because the block wrote none.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(unfinished_name(path.name))
    # It may be a link to something else.
    partial.unlink(missing_ok=True)
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def unfinished_name(name: str) -> str:
    """Name that a file of :func:`replacing` has until it is complete."""
    return f".{name}.d2a2-partial"


def check_outputs(
    paths: Iterable[Path],
    ours: Callable[[Path], bool] = lambda _: False,
    inputs: Iterable[Path] = (),
    overwrite: bool | None = None,
) -> None:
    """Refuses outputs that would take the place of something that we did not write. To be called before any work.

    Args:
        paths: What will be written.
        ours: Whether a file that is there was written by us and may be replaced; see :func:`has_mark`.
        inputs: Files that are read: never replaced, whatever ``overwrite`` says.
        overwrite: Whether other files may be replaced, too; directories may not. None: the caller has no such option.

    Raises:
        FileExistsError: One of them must not be replaced; the message says which, and what to do.
        NotADirectoryError, PermissionError: One of them cannot be written where it is.
    """
    paths = list(paths)
    for folder in {_lowest_there(path.absolute().parent) for path in paths}:
        if not folder.is_dir():
            raise NotADirectoryError(f"{folder} is in the way, expected a folder or nothing; name another output")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(f"{folder} cannot be written; name another output, or see that you may write there")
    there = [path for path in paths if os.path.lexists(path)]
    read = {_identity(path) for path in inputs} - {None} if there else set()
    for path in there:
        if _identity(path) in read:
            raise FileExistsError(f"{path} is an input, which would be overwritten; name another output")
        if path.is_dir():
            raise FileExistsError(f"{path} is a folder, expected a file to write; name another output")
        if not overwrite and (path.is_symlink() or not ours(path)):
            ways = "name another output, or move it away" + (" (or add --overwrite)" if overwrite is not None else "")
            raise FileExistsError(f"{path} is there and was not written by this command; {ways}")


def _lowest_there(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(path for path in (folder, *folder.parents) if os.path.lexists(path))


def has_mark(path: Path, mark: bytes, within: int = 1024) -> bool:
    """Whether a file's first bytes hold a mark that we give to files of a kind; False for what is no readable file."""
    try:
        with path.open("rb") as file:
            return mark in file.read(within)
    except OSError:
        return False


def is_our_png(path: Path) -> bool:
    """Whether :func:`write_png` wrote a file."""
    return has_mark(path, PNG_MARK)


def write_png(path: str | Path, pixels: Any) -> None:
    """Writes a PNG whole or not at all, with the mark by which :func:`is_our_png` knows it.

    Args:
        pixels: Array (H, W) uint8 or uint16 or (H, W, 3) uint8, or a Pillow image.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("Software", "d2a2")
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    with replacing(path) as partial:
        image.save(partial, format="PNG", pnginfo=info)


def files_below(root: str | Path) -> list[Path]:
    """All files below a folder, also through symbolic links to folders; each folder once, by its own name if it can."""
    found: list[Path] = []
    seen: set[str] = set()
    starts = [Path(root)]
    # Links come last, so that a folder that is also there without one keeps its name; they may lead in a circle.
    for start in starts:
        for folder, below, files in os.walk(start):
            if os.path.realpath(folder) in seen:
                below.clear()
                continue
            seen.add(os.path.realpath(folder))
            found += [Path(folder, name) for name in files]
            starts += [path for name in sorted(below) if (path := Path(folder, name)).is_symlink()]
    return sorted(found)


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells a file from all others, whatever its name; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
