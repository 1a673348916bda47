"""Mutated messages for the readers, each a function of (seed, number) alone.

As a program it reads COUNT of them and prints what came of them as JSON: `python test/helpers/message_fuzz.py COUNT [FIRST]`.
Anything but pixels of the stated shape, a camera, or the readers' own errors ends it with a traceback that names the number.
"""

import copy
import json
import resource
import struct
import sys
import time
import zlib
from array import array
from collections import Counter
from functools import partial
from types import SimpleNamespace

import numpy as np
from image_messages import chunk, compressed, png, saved
from PIL import Image
from rvl_file import rvl

from d2a2_core.bag import messages as msgs
from d2a2_core.errors import CodedError
from d2a2_core.messages import encodings
from d2a2_core.messages.camera_info import camera_from_info, rectified_info, resized_info
from d2a2_core.messages.encodings import COLOR_ENCODINGS, DEPTH_ENCODINGS, PLAIN, FrameError

IMAGE, COMPRESSED, INFO = ("sensor_msgs/msg/" + name for name in ("Image", "CompressedImage", "CameraInfo"))
HEIGHT, WIDTH = 12, 16
ODD_NUMBERS = (0, 1, 2, 3, 7, 8, 15, 16, 17, 255, 256, 4000, 6000, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
ODD_FLOATS = (0.0, -0.0, 1e-320, 1e-9, -1.0, 1.0, 1e9, 1e308, -1e308, float("nan"), float("inf"), -float("inf"))
ODD_WORDS = ("", "rgb8", "16UC1", "32FC1", "mono16", "bayer_rggb8", "yuv422", "jpeg", "png", "\0", "é" * 50, "x" * 5000,
             "16UC1; compressedDepth", "32FC1; compressedDepth rvl", "16UC1; png compressed ", "rgb8; jpeg compressed bgr8",
             "plumb_bob", "equidistant", "rational_polynomial", "fisheye")  # fmt: skip
CHUNKS = (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"eXIf", b"iCCP", b"zTXt", b"tEXt", b"iTXt", b"acTL", b"fcTL", b"fdAT",
          b"gAMA", b"cHRM", b"pHYs", b"sRGB", b"cICP", b"bKGD", b"junk")  # fmt: skip


MARKERS = b"\xe1\xe0\xe2\xed\xee\xdb\xc4\xda\xc2"
#: What the bodies of a JPEG's segments begin with.
SEGMENTS = (
    b"",
    b"Exif\0\0",
    b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0",
    b"ICC_PROFILE\0",
    b"Adobe",
    b"Photoshop 3.0\0",
)
#: Compressed texts, of which Pillow takes 1 MB.
BOMBS = zlib.compress(bytes(900_000)), zlib.compress(bytes(2_000_000))


# -- what is mutated -------------------------------------------------------------------------------------------------------


def header():
    return SimpleNamespace(stamp=SimpleNamespace(sec=1, nanosec=2), frame_id="camera")


def plain(encoding, rng):
    dtype, channels = PLAIN[encoding]
    pixels = (rng.random((HEIGHT, WIDTH, channels)) * 200 + 20).astype(dtype)
    return SimpleNamespace(
        header=header(), height=HEIGHT, width=WIDTH, encoding=encoding, is_bigendian=0,
        step=WIDTH * channels * pixels.itemsize, data=pixels.tobytes(),
    )  # fmt: skip


def originals():
    """(name, message) of every kind; the name's first word says which reader it is for."""
    rng = np.random.default_rng(0)
    rgb = Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))
    counts = rng.integers(0, 4000, (HEIGHT, WIDTH), dtype=np.uint16)
    exif = Image.Exif()
    exif[0x0112], exif[0x011A], exif[0x010F] = 6, 72.0, "a camera"
    for encoding in COLOR_ENCODINGS:
        yield f"color raw {encoding}", plain(encoding, rng)
    for encoding in DEPTH_ENCODINGS:
        yield f"depth raw {encoding}", plain(encoding, rng)
    for mode in ("RGB", "L", "CMYK"):
        yield (
            f"color jpeg {mode}",
            compressed("rgb8; jpeg compressed bgr8", saved(rgb.convert(mode), "JPEG", quality=60)),
        )
    yield "color jpeg exif", compressed("jpeg", saved(rgb, "JPEG", exif=exif))
    yield "color jpeg progressive", compressed("jpeg", saved(rgb, "JPEG", progressive=True))
    for mode in ("RGB", "RGBA", "P", "LA", "1"):
        yield f"color png {mode}", compressed("rgb8; png compressed", saved(rgb.convert(mode), "PNG"))
    yield "color png exif", compressed("png", saved(rgb, "PNG", exif=exif))
    yield "color png 16-bit", compressed("mono16; png compressed", saved(Image.fromarray(counts), "PNG"))
    ihdr = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 16, 2, 0, 0, 0)
    yield "color png 16-bit RGB", compressed("png", png(ihdr, (b"\0" + rng.bytes(6 * WIDTH)) * HEIGHT))
    head = struct.pack("<iff", 0, 20.0, 2.0)
    depth_png, depth_rvl = saved(Image.fromarray(counts), "PNG"), rvl(counts)
    yield "depth png", compressed("16UC1; png compressed", depth_png)
    yield "depth compressedDepth png", compressed("16UC1; compressedDepth png", head + depth_png)
    yield "depth compressedDepth png 32FC1", compressed("32FC1; compressedDepth png", head + depth_png)
    yield "depth compressedDepth rvl", compressed("16UC1; compressedDepth rvl", head + depth_rvl)
    yield "depth compressedDepth rvl 32FC1", compressed("32FC1; compressedDepth rvl", head + depth_rvl)
    k = [20.0, 0, 8, 0, 21.0, 6, 0, 0, 1]
    for model, d in (("plumb_bob", [0.1, 0, 0, 0, 0]), ("equidistant", [0.0] * 4), ("", [])):
        yield f"info {model or 'nameless'}", SimpleNamespace(
            header=header(), width=WIDTH, height=HEIGHT, distortion_model=model, d=array("d", d), k=array("d", k),
            r=array("d", np.eye(3).ravel()), p=array("d", np.insert(k, [3, 6, 9], 0.0)), binning_x=0, binning_y=0,
            roi=SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0, do_rectify=False),
        )  # fmt: skip


def serialised():
    """(name, msgtype, reader, bytes) of messages in a bag."""
    types = msgs.typestore().types
    rng, head = np.random.default_rng(0), msgs.header(1_000_000_002, "camera")
    color = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    depth = rng.integers(0, 4000, (HEIGHT, WIDTH), dtype=np.uint16)
    yield "cdr color", IMAGE, "color", bytes(msgs.image(color, "rgb8", head))
    yield "cdr depth", IMAGE, "depth", bytes(msgs.image(depth, "16UC1", head))
    data = np.frombuffer(saved(Image.fromarray(color), "JPEG"), np.uint8)
    jpeg = types[COMPRESSED](head, "jpeg", data)
    yield "cdr jpeg", COMPRESSED, "color", bytes(msgs.typestore().serialize_cdr(jpeg, COMPRESSED))
    roi = types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    k = np.array([20.0, 0, 8, 0, 21.0, 6, 0, 0, 1])
    info = types[INFO](
        head, HEIGHT, WIDTH, "plumb_bob", np.zeros(5), k, np.eye(3).ravel(), np.insert(k, [3, 6, 9], 0.0), 0, 0, roi
    )
    yield "cdr info", INFO, "info", bytes(msgs.camera_info(info))


# -- mutation --------------------------------------------------------------------------------------------------------------


def mutated_bytes(data, rng):
    """``data`` with one to four faults; half of the PNGs get their checksums right again, so that it goes deeper."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        # Headers are short and matter most.
        at = int(rng.integers(len(data) + 1 if rng.random() < 0.5 else min(len(data), 200) + 1))
        kind = rng.integers(8)
        if kind == 0:
            data[at : at + 1] = rng.bytes(1)
        elif kind == 1:
            data[at : at + 4] = struct.pack(rng.choice([">I", "<I"]), ODD_NUMBERS[rng.integers(len(ODD_NUMBERS))])
        elif kind == 2:
            data[at : at + 2] = struct.pack(rng.choice([">H", "<H"]), ODD_NUMBERS[rng.integers(13)])
        elif kind == 3:
            del data[at : at + int(rng.integers(1, 40))]
        elif kind == 4:
            data[at:at] = rng.bytes(int(rng.integers(1, 40)))
        elif kind == 5:
            other = int(rng.integers(len(data) + 1))
            data[at:at] = data[other : other + int(rng.integers(1, 200))]
        elif kind == 6 and rng.random() < 0.5:
            del data[at:]
        else:
            data = inserted(data, rng)
    if data.startswith(b"\x89PNG") and rng.random() < 0.5:
        data = with_checksums(data)
    return bytes(data)


def inserted(data, rng):
    """``data`` with a chunk or a segment of random contents, checksum and length right, behind another one."""
    body = rng.bytes(int(rng.integers(0, 30)))
    start = data.find(b"\x89PNG")
    if start >= 0:
        if rng.random() < 0.3:
            body = b"name\0\0" + BOMBS[rng.integers(2)]
        place = data.find([b"IDAT", b"IEND", b"IHDR"][rng.integers(3)]) - 4
        return data[: max(place, 0)] + chunk(CHUNKS[rng.integers(len(CHUNKS))], body) + data[max(place, 0) :]
    if data.startswith(b"\xff\xd8"):
        body = SEGMENTS[rng.integers(len(SEGMENTS))] + body
        return (
            data[:2]
            + bytes([0xFF, MARKERS[rng.integers(len(MARKERS))]])
            + struct.pack(">H", len(body) + 2)
            + body
            + data[2:]
        )
    return data


def with_checksums(data):
    at = 8
    while at + 12 <= len(data):
        length = struct.unpack_from(">I", data, at)[0]
        end = at + 8 + length
        if end + 4 > len(data):
            break
        data[end : end + 4] = struct.pack(">I", zlib.crc32(data[at + 4 : end]))
        at = end + 4
    return data


def mutated(message, rng):
    """A copy of a message with faults in its fields, in its data, or in both."""
    message = copy.copy(message) if hasattr(message, "data") else copy.deepcopy(message)
    names = [name for name in vars(message) if name not in ("header", "data")]
    if not hasattr(message, "data") or rng.random() < 0.4:
        for _ in range(rng.integers(1, 4)):
            change(message, names[rng.integers(len(names))], rng)
    if hasattr(message, "data") and rng.random() < 0.8:
        message.data = mutated_bytes(message.data, rng)
    return message


def change(message, name, rng):
    value = getattr(message, name)
    if isinstance(value, int):
        setattr(message, name, int(ODD_NUMBERS[rng.integers(len(ODD_NUMBERS))]))
    elif isinstance(value, str):
        setattr(message, name, ODD_WORDS[rng.integers(len(ODD_WORDS))])
    elif isinstance(value, SimpleNamespace):
        change(value, list(vars(value))[rng.integers(len(vars(value)))], rng)
    elif name == "d" and rng.random() < 0.5:
        setattr(message, name, array("d", rng.choice(ODD_FLOATS, rng.integers(0, 15))))
    elif len(value):
        value[int(rng.integers(len(value)))] = float(ODD_FLOATS[rng.integers(len(ODD_FLOATS))])


# -- reading ---------------------------------------------------------------------------------------------------------------


def read(which, message):
    """Reads a message as the readers' users do; raises their errors, and AssertionError where the result is none."""
    if which == "info":
        info = resized_info(rectified_info(message), WIDTH, HEIGHT, message.header)
        camera = camera_from_info(info)
        assert (camera.width, camera.height) == (WIDTH, HEIGHT)
        return
    raw = hasattr(message, "encoding")
    prefix = "" if raw else "compressed_"
    reader = getattr(encodings, f"{prefix}{which}_array")
    try:
        size = getattr(encodings, f"{which}_header")(message).size
    except FrameError as error:
        # What the header shows, the reader sees as well.
        again = outcome("", lambda: reader(message))
        if again != error.code:
            raise AssertionError(f"the header was refused ({error}), the image gave {again!r}") from error
        raise
    pixels = reader(message)
    if which == "depth":
        assert (pixels.shape, pixels.dtype) == (size, np.float32)
    else:
        assert (pixels.shape, pixels.dtype) in (((*size, 3), np.uint8), (size, np.uint16), (size, ">u2"))


def outcome(name, call):
    """ "read", or the code of the error that is the readers' own."""
    try:
        call()
    except CodedError as error:
        return error.code
    except ValueError:
        # Cameras that cannot be are a ValueError, as their docstrings say.
        if "info" not in name:
            raise
        return "no camera"
    return "read"


def run(count, first=0, seed=0):
    """Reads ``count`` mutated messages from number ``first`` on; returns the figures."""
    kinds = [(name, None, None, message) for name, message in originals()] + list(serialised())
    outcomes, slowest, slowest_name, before = Counter(), 0.0, "", memory_mb()
    for number in range(first, first + count):
        rng = np.random.default_rng((seed, number))
        name, msgtype, which, message = kinds[number % len(kinds)]
        if msgtype is None:
            call = partial(read, name.split()[0], mutated(message, rng))
        else:
            call = partial(read_serialised, which, mutated_bytes(message, rng), msgtype)
        started = time.perf_counter()
        try:
            code = outcome(name, call)
        except BaseException as error:
            error.add_note(f"message number {number} ({name}) of seed {seed}")
            raise
        taken = time.perf_counter() - started
        if taken > slowest:
            slowest, slowest_name = taken, f"{number} {name}"
        outcomes[f"{' '.join(name.split()[:3])}: {code}"] += 1
    return {"count": count, "outcomes": outcomes, "slowest": [slowest, slowest_name], "memory_mb": memory_mb() - before}


def memory_mb():
    """The most memory this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def read_serialised(which, raw, msgtype):
    message = msgs.deserialize(raw, msgtype)
    msgs.stamp_ns(raw)
    read(which, message)


if __name__ == "__main__":
    print(json.dumps(run(int(sys.argv[1]), *map(int, sys.argv[2:3])), indent=1, sort_keys=True))
