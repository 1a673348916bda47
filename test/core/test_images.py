"""JPEG and PNG: what comes out of each kind, what is refused before it is decoded, and every fault is one error."""

import io
import struct
import zlib
from contextlib import suppress

import numpy as np
import pytest
from message_fuzz import chunk, png, saved
from PIL import Image, ImageOps

from d2a2_core import images
from d2a2_core.images import ImageError, color_pixels, decode_image, open_image, orientation, read_image, turned

RGB = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
GREY = RGB[..., 0]


def pixels_of(data):
    return color_pixels(decode_image(data))


# -- right values ----------------------------------------------------------------------------------------------------------


def test_png_of_every_mode_gives_its_colours():
    alpha = np.full((6, 9, 1), 3, np.uint8)
    few = RGB // 128 * 128  # eight colours, so that the palette holds them
    palette = Image.fromarray(few).quantize(8)
    bits = GREY > 127
    for image, expected in (
        (Image.fromarray(RGB), RGB),
        (Image.fromarray(np.concatenate([RGB, alpha], 2)), RGB),
        (Image.fromarray(GREY), np.stack([GREY] * 3, -1)),
        (Image.fromarray(np.stack([GREY, alpha[..., 0]], -1), "LA"), np.stack([GREY] * 3, -1)),
        (palette, few),
        (Image.fromarray(bits), np.stack([bits * np.uint8(255)] * 3, -1)),
    ):
        out = pixels_of(saved(image, "PNG"))
        assert out.dtype == np.uint8
        np.testing.assert_array_equal(out, expected, err_msg=image.mode)
    np.testing.assert_array_equal(pixels_of(saved(palette, "PNG", transparency=0)), few)


@pytest.mark.parametrize(("color_type", "channels"), [(2, 3), (6, 4), (4, 2)])
def test_16_bit_colour_keeps_its_upper_8_bits(color_type, channels):
    counts = np.random.default_rng(0).integers(0, 65536, (6, 9, channels))
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in counts)
    out = pixels_of(png(struct.pack(">IIBBBBB", 9, 6, 16, color_type, 0, 0, 0), rows))
    colors = counts[..., :1].repeat(3, 2) if channels == 2 else counts[..., :3]
    np.testing.assert_array_equal(out, colors >> 8)


def test_16_bit_grey_keeps_its_counts():
    counts = np.random.default_rng(0).integers(0, 65536, (6, 9), dtype=np.uint16)
    out = pixels_of(saved(Image.fromarray(counts), "PNG"))
    assert out.dtype == np.uint16
    np.testing.assert_array_equal(out, counts)


@pytest.mark.parametrize(
    ("mode", "color", "expected"),
    [
        ("RGB", (200, 90, 30), (200, 90, 30)),
        ("L", 77, (77, 77, 77)),
        ("CMYK", (0, 0, 0, 0), (255, 255, 255)),
        ("CMYK", (255, 0, 0, 0), (0, 255, 255)),
        ("CMYK", (0, 0, 0, 155), (100, 100, 100)),
    ],
)
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_of_every_mode_gives_its_colour(mode, color, expected, progressive):
    out = pixels_of(saved(Image.new(mode, (20, 10), color), "JPEG", quality=95, progressive=progressive))
    assert out.shape == (10, 20, 3)
    assert np.abs(out.astype(int) - expected).max() <= 3


@pytest.mark.parametrize("way", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_exif_orientation_is_turned_as_pillow_does(way, kind):
    exif = Image.Exif()
    exif[0x0112] = way
    data = saved(Image.fromarray(RGB), kind, exif=exif)
    image = decode_image(data)
    assert orientation(image) == way
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    np.testing.assert_array_equal(turned(color_pixels(image), orientation(image)), expected)


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0", b"Exif\0\0II*\0", b"Exif\0\0XX*\0\x08\0\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\x03\0" * 9,
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x63\0\0\0\0\0\0\0",
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x04\0\0\0six\0\0\0\0\0",
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x05\0\x01\0\0\0\x1a\0\0\0\0\0\0\0" + bytes(8),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data", "ignore:Truncated File Read", "ignore:Tag data larger")
def test_broken_exif_does_not_lose_the_image(exif):
    whole = saved(Image.fromarray(RGB), "JPEG")
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    image = decode_image(whole[:2] + segment + whole[2:])
    assert orientation(image) == 1
    np.testing.assert_array_equal(color_pixels(image), pixels_of(whole))


@pytest.mark.parametrize("share", [0.006, 0.02, 0.045])
def test_glare_leaves_the_rest_its_grey_levels(share):
    rng = np.random.default_rng(0)
    counts = rng.integers(200, 800, (240, 320)).astype(np.uint16)
    counts[: round(240 * share * 2), :160] = 65535
    grey = images.grey_to_rgb(counts, *images.grey_range(counts))[..., 0]
    assert len(np.unique(grey)) > 100
    assert (grey[counts == 65535] == 255).all()
    assert grey[counts < 800].max() < 160


def test_16_bit_grey_is_spread_by_its_percentiles():
    counts = np.linspace(400, 1400, 100 * 100).round().astype(np.uint16).reshape(100, 100)
    counts[0, :5], counts[50, :5] = 65535, 0  # fewer than half a percent
    lo, hi = images.grey_range(counts)
    assert abs(lo - 405) < 12
    assert abs(hi - 1395) < 12
    out = images.grey_to_rgb(counts, lo, hi)
    assert (out.shape, out.dtype) == ((100, 100, 3), np.uint8)
    assert len(np.unique(out)) > 240
    assert (out[0, 0].tolist(), out[50, 0].tolist()) == ([255] * 3, [0] * 3)
    np.testing.assert_array_equal(images.grey_to_rgb(counts.astype(">u2"), lo, hi), out)


def test_noise_of_a_dark_image_is_not_blown_up():
    counts = np.random.default_rng(0).integers(100, 104, (50, 50), dtype=np.uint16)
    out = images.grey_to_rgb(counts, *images.grey_range(counts))
    assert np.ptp(out) < 16


# -- refused before anything is decoded ------------------------------------------------------------------------------------


def header_of_png(width, height, bits=1, color_type=0):
    return png(struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, 0), b"")


def header_of_jpeg(width, height):
    data = bytearray(saved(Image.new("RGB", (16, 16)), "JPEG"))
    struct.pack_into(">HH", data, data.index(b"\xff\xc0") + 5, height, width)
    return bytes(data)


@pytest.mark.parametrize(
    "data",
    [
        header_of_jpeg(65535, 65535), header_of_jpeg(6001, 6000), header_of_png(65535, 65535), header_of_png(6001, 6000),
        header_of_png(2**31 - 1, 2**31 - 1), header_of_png(13500, 13500), header_of_png(10_000, 10_000, 16, 6),
        # Between Pillow's warning and its error.
        header_of_png(12_000, 10_000),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("error")
def test_what_is_too_large_is_refused_before_it_is_decoded(data, monkeypatch):
    monkeypatch.setattr(images.PngImageFile, "load", None)
    monkeypatch.setattr(images.JpegImageFile, "load", None)
    with pytest.raises(ImageError, match=r"expected at most 36 million pixels") as caught:
        decode_image(data)
    assert caught.value.code == "too_large"


def test_a_second_header_does_not_get_around_the_limit(monkeypatch):
    monkeypatch.setattr(images.PngImageFile, "load", None)
    large = chunk(b"IHDR", struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0))
    data = png(struct.pack(">IIBBBBB", 16, 16, 8, 2, 0, 0, 0), b"", large)
    with pytest.raises(ImageError) as caught:
        decode_image(data)
    assert caught.value.code == "too_large"


def test_eight_k_is_read():
    pixels = np.zeros((4320, 8192), bool)
    pixels[::7, ::5] = True
    out = pixels_of(saved(Image.fromarray(pixels), "PNG"))
    assert out.shape == (4320, 8192, 3)
    np.testing.assert_array_equal(out[..., 1] > 0, pixels)


def with_scans(count):
    """A progressive JPEG whose last scan comes again and again: 60 bytes for each pass over the image."""
    data = saved(Image.fromarray(RGB), "JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * (count - data.count(b"\xff\xda")) + data[-2:]


def test_a_jpeg_of_endless_scans_is_refused():
    assert pixels_of(with_scans(24)).shape == RGB.shape
    with pytest.raises(ImageError, match="JPEG of 25 scans") as caught:
        open_image(with_scans(25))
    assert caught.value.code == "too_large"


def test_what_lies_behind_a_jpeg_is_no_scan_of_it():
    """Phones append a film."""
    assert pixels_of(saved(Image.fromarray(RGB), "JPEG") + b"\xff\xda\0\2" * 100).shape == RGB.shape


SEGMENTS = {
    "exif": b"\xff\xe1\0\x09Exif\0\0x", "comment": b"\xff\xfe\0\2", "table": b"\xff\xdb\0\2", "fill": b"\xff",
    "restart": b"\xff\xd0", "end": b"\xff\xd9", "junk": b"\xff\xf0junk", "zeros": b"\xff\0",
}  # fmt: skip


@pytest.mark.parametrize("part", SEGMENTS)
def test_a_jpeg_of_endless_parts_is_refused_before_pillow_reads_them(part, monkeypatch):
    data = saved(Image.fromarray(RGB), "JPEG")
    few, many = (data[:2] + SEGMENTS[part] * count + data[2:] for count in (30, 100_000))
    assert open_image(few).size == (9, 6)
    monkeypatch.setattr(images.JpegImageFile, "_open", None)
    with pytest.raises(ImageError, match="made of more small parts"):
        open_image(many)


@pytest.mark.parametrize("kind", [b"tEXt", b"iTXt", b"IDAT", b"junk", b"PLTE"])
@pytest.mark.parametrize("place", [b"IDAT", b"IEND"])
def test_a_png_of_endless_parts_is_refused_before_pillow_reads_them(kind, place, monkeypatch):
    data = saved(Image.fromarray(RGB), "PNG")
    at = data.index(place) - 4
    monkeypatch.setattr(images.PngImageFile, "_open", None)
    with pytest.raises(ImageError, match="made of more small parts"):
        open_image(data[:at] + chunk(kind, b"") * 5000 + data[at:])


def test_chunks_that_unpack_to_a_megabyte_each_are_few(monkeypatch):
    data, profile = saved(Image.fromarray(RGB), "PNG"), chunk(b"iCCP", b"name\0\0" + zlib.compress(bytes(900_000)))
    assert len(profile) < 1024
    at = data.index(b"IDAT") - 4
    few, many = (data[:at] + profile * count + data[at:] for count in (30, 1000))
    assert pixels_of(few).shape == RGB.shape
    monkeypatch.setattr(images.PngImageFile, "_open", None)
    with pytest.raises(ImageError, match="made of more small parts"):
        open_image(many)


def test_a_png_in_many_chunks_is_read():
    """libpng writes 8 kB at a time."""
    noise = np.random.default_rng(0).integers(0, 256, (1000, 3000, 3), dtype=np.uint8)
    rows = zlib.compress(b"".join(b"\0" + row.tobytes() for row in noise), 0)
    parts = [chunk(b"IDAT", rows[at : at + 8192]) for at in range(0, len(rows), 8192)]
    whole = png(struct.pack(">IIBBBBB", 3000, 1000, 8, 2, 0, 0, 0), b"")
    at = whole.index(b"IDAT") - 4
    data = whole[:at] + b"".join(parts) + chunk(b"IEND", b"")
    assert len(parts) > 1000
    np.testing.assert_array_equal(pixels_of(data), noise)


def test_a_file_of_endless_bytes_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "_MOST_BYTES", 1000)
    path = tmp_path / "a.png"
    path.write_bytes(saved(Image.fromarray(RGB), "PNG") + bytes(2000))
    with pytest.raises(ImageError, match="bytes") as caught:
        read_image(path)
    assert caught.value.code == "too_large"


# -- other formats, and damage ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "WEBP", "PPM", "EPS", "ICO", "TGA", "PCX", "JPEG2000", "PDF"])
def test_formats_that_are_not_promised_are_refused_whatever_the_name(tmp_path, kind, monkeypatch):
    path = tmp_path / "000.color.png"
    try:
        Image.fromarray(RGB).resize((32, 32)).save(path, kind)
    except (OSError, KeyError) as error:
        pytest.skip(f"this Pillow does not write {kind}: {error}")
    monkeypatch.setattr("subprocess.check_call", None)  # Ghostscript
    with pytest.raises(
        ImageError, match=r"000\.color\.png cannot be read as an image: it is neither JPEG nor PNG"
    ) as caught:
        read_image(path)
    assert caught.value.code == "format"


def test_pillow_is_never_asked_to_choose_a_format(repo):
    sources = [
        path for folder in ("d2a2_core", "d2a2_ros", "examples", "scripts") for path in (repo / folder).rglob("*.py")
    ]
    assert len(sources) > 100
    assert not [str(path) for path in sources if "Image.open(" in path.read_text()]


@pytest.mark.parametrize(
    "error",
    [
        OSError("truncated"), SyntaxError("broken"), ValueError("x"), TypeError("x"), KeyError("x"), IndexError("x"),
        EOFError(), struct.error("x"), zlib.error("x"), AssertionError(), OverflowError("x"), ZeroDivisionError("x"),
        MemoryError(), RuntimeError("x"), NotImplementedError(), AttributeError("x"), RecursionError("x"),
        Image.DecompressionBombError("x"), Image.DecompressionBombWarning("x"), UnicodeDecodeError("utf-8", b"", 0, 1, "x"),
    ],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
@pytest.mark.parametrize("place", ["_open", "load", "crop"])
def test_whatever_pillow_raises_is_one_error(error, place, monkeypatch):
    def fail(*_, **__):
        raise error

    data = saved(Image.fromarray(RGB), "PNG")
    monkeypatch.setattr(images.PngImageFile, place, fail, raising=False)
    with pytest.raises(ImageError, match="is damaged") as caught:
        pixels_of(data)
    assert caught.value.code == "damaged"


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_an_image_cut_anywhere_is_damaged_or_whole(kind):
    data = saved(Image.fromarray(RGB), kind)
    for end in range(len(data)):
        with suppress(ImageError):
            assert pixels_of(data[:end]).shape == RGB.shape


def test_a_missing_file_is_an_oserror(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_image(tmp_path / "none.png")
