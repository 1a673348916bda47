"""RVL as its paper describes it, one pixel at a time: what the decoder is tested with."""

import struct


def encode(pixels):
    """The bytes of a flat sequence of 16-bit integers."""
    nibbles, last, i = [], 0, 0
    pixels = [int(p) for p in pixels]

    def number(value):
        while value > 7:
            nibbles.append(value & 7 | 8)
            value >>= 3
        nibbles.append(value)

    while i < len(pixels):
        start = i
        while i < len(pixels) and not pixels[i]:
            i += 1
        number(i - start)
        start = i
        while i < len(pixels) and pixels[i]:
            i += 1
        number(i - start)
        for pixel in pixels[start:i]:
            difference, last = pixel - last, pixel
            number(2 * difference if difference >= 0 else -2 * difference - 1)
    nibbles += [0] * (-len(nibbles) % 8)
    words = ["".join(f"{n:x}" for n in nibbles[k : k + 8]) for k in range(0, len(nibbles), 8)]
    return b"".join(struct.pack("<I", int(word, 16)) for word in words)


def rvl(image):
    """The payload behind compressedDepth's header: columns, rows, data."""
    return struct.pack("<II", image.shape[1], image.shape[0]) + encode(image.ravel())
