"""Compressed parts of bags, taken out within limits: a few bytes may claim to be gigabytes."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
#: Largest message or chunk in bytes. Recorders write chunks of some megabytes; the largest messages are clouds of 100 MB.
LARGEST = 1 << 30


class CompressionError(ValueError):
    """Compressed data is damaged, or too large."""


def decompress(data: bytes, method: str, limit: int = LARGEST) -> bytes:
    """Returns what ``data`` holds.

    Args:
        data: One frame.
        method: "zstd", "lz4", or "" for data that is not compressed.
        limit: Largest result in bytes.

    Raises:
        CompressionError: It is damaged, larger than ``limit``, or the method is unknown.
    """
    if method == "":
        return data
    if method not in _DECOMPRESSORS:
        raise CompressionError(f"compression {method!r} is unknown; expected zstd or lz4")
    decompressor = _DECOMPRESSORS[method]()
    try:
        plain = decompressor.decompress(data, max_length=limit)
    except Exception as error:  # each library has errors of its own
        raise CompressionError(f"{method} data is damaged ({error})") from error
    if not decompressor.eof:
        raise CompressionError(f"{method} data is cut off, or holds more than {limit} bytes")
    return plain


def decompress_file(source: Path, target: Path) -> None:
    """Writes what the zstd file ``source`` holds to ``target``.

    Raises:
        CompressionError: It is damaged or cut off.
        OSError: A file cannot be read or written.
    """
    zstd = zstd_module()
    try:
        with zstd.open(source, "rb") as compressed, open(target, "wb") as plain:
            shutil.copyfileobj(compressed, plain, 1 << 20)
    except (zstd.ZstdError, EOFError) as error:
        raise CompressionError(f"{source} is damaged or cut off ({error})") from error


def zstd_module() -> Any:
    """The zstd of Python, or what `rosbags` brings along for it before Python 3.14."""
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd


def _lz4() -> Any:
    from lz4.frame import LZ4FrameDecompressor

    return LZ4FrameDecompressor()


_DECOMPRESSORS = {"zstd": lambda: zstd_module().ZstdDecompressor(), "lz4": _lz4}
