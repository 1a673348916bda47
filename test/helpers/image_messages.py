"""Image files and image messages, as bytes and plain objects: tests need neither ROS nor a bag."""

import io
import struct
import zlib
from types import SimpleNamespace


def raw(pixels, encoding, big_endian=0):
    """An Image without row padding."""
    height, width = pixels.shape[:2]
    data = pixels.tobytes()
    return SimpleNamespace(
        height=height, width=width, encoding=encoding, is_bigendian=big_endian, step=len(data) // height, data=data
    )


def compressed(format, data):
    """A CompressedImage."""
    return SimpleNamespace(format=format, data=data)


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(ihdr, rows, *chunks):
    """A PNG from the 13 bytes of IHDR and its rows, filter bytes included; Pillow does not write all that it reads."""
    parts = [chunk(b"IHDR", ihdr), *chunks, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)
