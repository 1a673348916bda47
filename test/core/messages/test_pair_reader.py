"""The images of a stream: sizes compared before decoding, the range of 16-bit grey, turned images."""

import json
import struct

import numpy as np
import pytest
from image_messages import compressed, raw, saved
from PIL import Image

from d2a2_core.errors import CodedError
from d2a2_core.messages import encodings
from d2a2_core.messages.pair_reader import PairReader


class Host:
    """Reads as a bag's host does, and keeps what it is told."""

    def __init__(self):
        self.reports, self.told = [], []

    def read_color(self, msg):
        return (encodings.color_array if hasattr(msg, "encoding") else encodings.compressed_color_array)(msg)

    def read_depth(self, msg, unit):
        return (encodings.depth_array if hasattr(msg, "encoding") else encodings.compressed_depth_array)(msg, unit)

    def report(self, code, message, detail=""):
        self.reports.append((code, message))

    def inform(self, message):
        self.told.append(message)


def depth(height, width):
    return raw(np.full((height, width), 1500, np.uint16), "16UC1")


def color(height, width):
    return raw(np.zeros((height, width, 3), np.uint8), "rgb8")


@pytest.mark.parametrize(
    ("color_size", "depth_size", "fits"),
    [
        ((480, 640), (480, 640), True), ((480, 640), (15, 20), True), ((480, 640), (20, 15), True), ((480, 640), (8, 8), True),
        ((120, 160), (480, 640), True), ((120, 160), (640, 480), True), ((480, 640), (4, 20), False),
        ((480, 640), (4, 4), False), ((120, 160), (481, 640), False), ((120, 160), (480, 641), False),
        ((480, 640), (4000, 4000), False), ((1, 30_000), (480, 640), False),
    ],
)  # fmt: skip
def test_sizes_that_cannot_be_of_one_view_are_refused_before_decoding(color_size, depth_size, fits):
    host = Host()
    if not fits:
        host.read_color = host.read_depth = None
        with pytest.raises(CodedError, match="cannot be images of one view") as caught:
            PairReader(host).read(color(*color_size), depth(*depth_size), 0.0)
        assert caught.value.code == "size_ratio"
        return
    colors, metres = PairReader(host).read(color(*color_size), depth(*depth_size), 0.0)
    assert (colors.shape, metres.shape) == ((*color_size, 3), depth_size)


def test_rvl_of_nothing_but_zeros_is_refused_beside_a_small_image(monkeypatch):
    monkeypatch.setattr(encodings, "decode_rvl", None)
    bomb = compressed("16UC1; compressedDepth rvl", bytes(12) + struct.pack("<IIQ", 4000, 4000, 0))
    with pytest.raises(CodedError) as caught:
        PairReader(Host()).read(color(480, 640), bomb, 0.0)
    assert caught.value.code == "size_ratio"


def test_the_codes_name_the_image():
    for pair, code in (
        ((compressed("jpeg", b"\xff\xd8\xff"), depth(6, 8)), "color_damaged"),
        ((color(6, 8), compressed("16UC1; compressedDepth png", bytes(20))), "depth_format"),
        ((raw(np.zeros((6, 8, 3), np.uint8), "soup"), depth(6, 8)), "color_encoding"),
    ):
        with pytest.raises(CodedError) as caught:
            PairReader(Host()).read(*pair, 0.0)
        assert caught.value.code == code


@pytest.mark.parametrize("name", ["color", "depth"])
def test_an_empty_image_is_called_so(name):
    pair = {"color": color(6, 8), "depth": depth(6, 8)}
    pair[name].height = 0
    with pytest.raises(CodedError) as caught:
        PairReader(Host()).read(*pair.values(), 0.0)
    assert caught.value.code == f"{name}_empty"


def infrared(seed, gain=1.0, size=(60, 80)):
    """A scene of 200 to 1400 counts of 65536, with noise."""
    rng = np.random.default_rng(seed)
    scene = np.linspace(200, 1400, size[0] * size[1]).reshape(size)
    return np.clip(scene * gain + rng.normal(0, 4, size), 0, 65535).astype(np.uint16)


@pytest.mark.parametrize("packed", [False, True], ids=["mono16", "png"])
def test_a_16_bit_guide_has_all_its_contrast_and_does_not_flicker(packed):
    reader, outs = PairReader(Host()), []
    for seed in range(10):
        counts = infrared(seed)
        msg = compressed("mono16; png", saved(Image.fromarray(counts), "PNG")) if packed else raw(counts, "mono16")
        out, _ = reader.read(msg, depth(6, 8), 0.0)
        assert (out.shape, out.dtype) == ((60, 80, 3), np.uint8)
        assert (out[..., 0] == out[..., 1]).all()
        outs.append(out[..., 0].astype(int))
    assert all(len(np.unique(out)) > 200 for out in outs)
    # Less than two percent are at either end, where nothing can be told apart.
    assert all(np.isin(out, (0, 255)).mean() < 0.02 for out in outs)
    # The same pixel stays: noise of 4 counts is one level here.
    assert np.abs(np.diff([out.mean() for out in outs])).max() < 0.5


def test_the_range_follows_the_light_and_is_forgotten_with_the_stream():
    reader = PairReader(Host())
    reader.read(raw(infrared(0), "mono16"), depth(6, 8), 0.0)
    bright, _ = reader.read(raw(infrared(1, gain=4), "mono16"), depth(6, 8), 0.0)
    assert np.isin(bright, (0, 255)).mean() < 0.02
    dim, _ = reader.read(raw(infrared(2), "mono16"), depth(6, 8), 0.0)
    assert dim.max() < 100  # steady: it does not jump back at once
    reader.reset()
    fresh, _ = reader.read(raw(infrared(2), "mono16"), depth(6, 8), 0.0)
    assert fresh.max() > 240


def test_the_range_goes_on_from_a_state_in_json():
    whole, first, second = (PairReader(Host()) for _ in range(3))
    gains = [1, 4, 1, 1, 2]
    expected = [whole.read(raw(infrared(i, g), "mono16"), depth(6, 8), 0.0)[0] for i, g in enumerate(gains)]
    for i, gain in enumerate(gains[:2]):
        first.read(raw(infrared(i, gain), "mono16"), depth(6, 8), 0.0)
    second.restore(json.loads(json.dumps(first.state())))
    for i in range(2, 5):
        out, _ = second.read(raw(infrared(i, gains[i]), "mono16"), depth(6, 8), 0.0)
        np.testing.assert_array_equal(out, expected[i])


def test_a_turned_image_is_told_once():
    exif = Image.Exif()
    exif[0x0112] = 6
    portrait = compressed("jpeg", saved(Image.new("RGB", (32, 16)), "JPEG", exif=exif))
    upright = compressed("jpeg", saved(Image.new("RGB", (16, 32)), "JPEG"))
    host = Host()
    reader = PairReader(host)
    for message in (portrait, portrait, upright):
        assert reader.read(message, depth(8, 4), 0.0)[0].shape == (32, 16, 3)
    assert host.told == ["colour images are turned upright by their EXIF orientation 6; they have 16x32 pixels then"]
    assert not host.reports
