"""Images in bags that are not plain 8-bit colour and millimetres: guides of 16 bits, units, and what cannot be decoded."""

import struct

import numpy as np
import pytest

pytest.importorskip("rosbags", reason="needs rosbags (pip install rosbags)")

from bag_files import (
    COLOR,
    COMPRESSED,
    DEPTH,
    FRAME,
    IMAGE,
    INFO,
    START,
    STORE,
    T,
    contents,
    depth_image,
    info,
    write_bag,
)
from bag_stub import StubEngine
from image_messages import png
from rvl_file import rvl

from d2a2_core.bag import BagOptions, upsample_bag
from d2a2_core.bag import messages as msgs


def infrared(i):
    """A guide of 16 bits that gets brighter and darker, so that its range has a history."""
    gain = [1, 4, 1, 1, 2, 1][i]
    counts = np.random.default_rng(i).integers(200, 1000 * gain, (24, 32)).astype(np.uint16)
    return msgs.image(counts, "mono16", msgs.header(START + i * FRAME, "color_optical"))


def compressed(i, format, data, frame):
    msg = T[COMPRESSED](msgs.header(START + i * FRAME, frame), format, np.frombuffer(data, np.uint8))
    return bytes(STORE.serialize_cdr(msg, COMPRESSED))


def frames(count, color=infrared, color_type=IMAGE, depth=depth_image, depth_type=IMAGE):
    yield "/camera/color/camera_info", INFO, START, info(32, 24, "color_optical")
    for i in range(count):
        yield COLOR, color_type, START + i * FRAME, color(i)
        yield DEPTH, depth_type, START + i * FRAME + 3_000_000, depth(i)


def test_a_16_bit_guide_keeps_its_range_over_an_interruption(tmp_path):
    source, options = write_bag(tmp_path / "in", "mcap", frames(6)), BagOptions(color=COLOR, cloud=True)
    upsample_bag(source, tmp_path / "whole", StubEngine(), options)

    class Interrupted(StubEngine):
        def process(self, pair, sigma=True):
            if self.frames == 3:
                raise KeyboardInterrupt
            return super().process(pair, sigma)

    with pytest.raises(KeyboardInterrupt):
        upsample_bag(source, tmp_path / "out", Interrupted(), options)
    summary = upsample_bag(source, tmp_path / "out", StubEngine(), options)
    assert (summary.resumed, summary.written) == (3, 6)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_the_unit_of_depth_and_what_is_said_of_a_wrong_one(tmp_path):
    def tenths(i):
        return depth_image(i, value=50_000)

    source = write_bag(tmp_path / "in", "mcap", frames(3, depth=tenths))
    engine = StubEngine()
    summary = upsample_bag(source, tmp_path / "out", engine, BagOptions(color=COLOR))
    said = "above max_depth 20 m: is it in tenths of a millimetre? Set depth_unit to 0.0001"
    assert len([note for note in summary.notes if said in note]) == 1
    seen = []
    engine.process = lambda pair, sigma=True: seen.append(pair.depth) or StubEngine().process(pair, sigma)
    summary = upsample_bag(source, tmp_path / "cured", engine, BagOptions(color=COLOR, depth_unit=0.0001))
    np.testing.assert_allclose(seen[0], 5.0, rtol=1e-6)
    assert not any("median" in note for note in summary.notes)


BOMB = png(struct.pack(">IIBBBBB", 65535, 65535, 8, 2, 0, 0, 0), b"")
ZEROS = bytes(12) + struct.pack("<IIQ", 8192, 8192, 0)


@pytest.mark.parametrize(
    ("which", "damage", "code"),
    [
        ("color", BOMB, "color_too_large"),
        ("color", b"%!PS-Adobe-3.0 EPSF-3.0\n", "color_format"),
        ("color", b"\x89PNG\r\n\x1a\n", "color_damaged"),
        ("depth", ZEROS, "depth_too_large"),
    ],
)
def test_a_frame_that_cannot_be_decoded_is_skipped_and_counted(tmp_path, which, damage, code):
    good = png(struct.pack(">IIBBBBB", 32, 24, 8, 2, 0, 0, 0), (b"\0" + bytes(96)) * 24)

    def color(i):
        return compressed(i, "rgb8; png compressed", damage if which == "color" and i == 1 else good, "color_optical")

    def depth(i):
        fine = bytes(12) + rvl(np.full((6, 8), 1500))
        return compressed(
            i, "16UC1; compressedDepth rvl", damage if which == "depth" and i == 1 else fine, "depth_optical"
        )

    source = write_bag(tmp_path / "in", "mcap", frames(3, color, COMPRESSED, depth, COMPRESSED))
    summary = upsample_bag(source, tmp_path / "out", StubEngine(), BagOptions(color=COLOR, depth=DEPTH))
    assert dict(summary.skipped) == {code: 1}
    assert summary.written == 2
