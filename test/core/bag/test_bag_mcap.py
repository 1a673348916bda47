"""mcap files as recorders and other programs leave them: cut off, without index, damaged, with other channels."""

import numpy as np
import pytest
from fuzzing import fuzz_count

pytest.importorskip("rosbags", reason="needs rosbags (pip install rosbags)")

from bag_files import RawMcap, frames, is_refused, raw_mcap, result_of, same_messages
from bag_stub import StubEngine

from d2a2_core.bag import BagError, BagOptions, upsample_bag
from d2a2_core.bag.source import open_bag

OTHERS = {
    "/json": ("json", "jsonschema", b'{"type": "object"}'),
    "/proto": ("protobuf", "protobuf", b"\x0a\xff\xfe\x00binary"),
    "/odd": ("cbor", "", b""),
}


@pytest.mark.parametrize("chunk", [None, 1, 3, 1000])
@pytest.mark.parametrize("compression", ["", "zstd", "lz4"])
@pytest.mark.parametrize("indexes", [True, False])
def test_mcap_files_of_any_layout(tmp_path, chunk, compression, indexes):
    messages = list(frames(5))
    source = raw_mcap(tmp_path / "in.mcap", messages, chunk=chunk, compression=compression, indexes=indexes)
    summary, copied = result_of(source, tmp_path / "out")
    assert summary.written == 5
    same_messages(copied, messages)


@pytest.mark.parametrize("chunk", [None, 4])
def test_mcap_messages_that_are_not_in_order_of_time(tmp_path, chunk):
    messages = list(frames(6))
    shuffled = [messages[i] for i in np.random.default_rng(1).permutation(len(messages))]
    summary, copied = result_of(raw_mcap(tmp_path / "in.mcap", shuffled, chunk=chunk), tmp_path / "out")
    assert summary.written == 6
    assert sorted((m[0], m[6]) for m in copied) == sorted((t, bytes(r)) for t, _, _, r in messages)
    assert [m[5] for m in copied] == sorted(m[5] for m in copied)


@pytest.mark.parametrize("compression", ["", "zstd"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.999])
def test_what_is_whole_of_a_cut_off_mcap_is_read_and_the_rest_is_said_to_be_lost(tmp_path, share, compression):
    messages = list(frames(30))
    file = RawMcap(tmp_path / "in.mcap", compression=compression, chunk=5)
    for message in messages:
        file.write(*message)
    file.end_chunk()
    source = file.save(int(len(file.out) * share))
    summary, copied = result_of(source, tmp_path / "out")
    same_messages(copied, messages[: len(copied)])
    assert len(copied) % 5 == 0 or len(copied) == len(messages)
    assert len(copied) > share * len(messages) - 10
    assert f"its {len(copied)} whole messages are read" in summary.notes[0]
    assert f"`mcap recover {source} -o FIXED.mcap`" in summary.notes[0]


def test_an_mcap_that_was_made_longer_than_what_was_written_is_cut_off_there(tmp_path):
    file = RawMcap(tmp_path / "in.mcap")
    for message in frames(6):
        file.write(*message)
    file.end_chunk()
    file.out += bytes(5000)
    summary, _ = result_of(file.save(), tmp_path / "out")
    assert (summary.written, "was cut off" in summary.notes[0]) == (6, True)


def test_an_mcap_with_fewer_messages_than_it_says_is_refused(tmp_path):
    file = RawMcap(tmp_path / "in.mcap")
    for message in frames(3):
        file.write(*message)
    file.close(statistics=file.total + 1)
    with pytest.raises(BagError, match=r"says that it holds 13 messages, but 12 can be read; `mcap recover"):
        upsample_bag(file.path, tmp_path / "out", StubEngine(), BagOptions())


@pytest.mark.parametrize("compression", ["", "zstd"])
def test_a_damaged_chunk_is_named_and_nothing_is_written(tmp_path, compression):
    source = raw_mcap(tmp_path / "in.mcap", frames(6), compression=compression)
    data = bytearray(source.read_bytes())
    data[len(data) // 2] ^= 0xFF
    source.write_bytes(data)
    with pytest.raises(BagError, match=r"in.mcap is damaged at byte \d+.*`mcap recover"):
        upsample_bag(source, tmp_path / "out", StubEngine(), BagOptions())
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_mutated_mcap_files_end_in_a_bag_error_or_in_a_bag(tmp_path):
    rng = np.random.default_rng(2)
    path = tmp_path / "in.mcap"
    files = [
        raw_mcap(path, frames(2), compression=c, chunk=n).read_bytes() for c, n in (("", 3), ("zstd", 3), ("", None))
    ]
    refused = 0
    count = fuzz_count(1000)
    for i in range(count):
        data = bytearray(files[i % 3])
        for _ in range(rng.integers(1, 6)):
            data[rng.integers(8, len(data))] = rng.integers(256)
        path.write_bytes(data[: rng.integers(8, len(data))] if rng.random() < 0.3 else data)
        refused += is_refused(path)
    assert 0.1 * count < refused < 0.97 * count


def test_channels_of_others_are_left_out_with_a_word(tmp_path):
    ours = list(frames(4))
    others = [(topic, "their.Type", ours[0][2] + i, b'{"a": 1}\xff') for i, topic in enumerate(OTHERS)]
    source = raw_mcap(tmp_path / "in.mcap", [*ours, *others, *others], channels=OTHERS, profile="")
    summary, copied = result_of(source, tmp_path / "out")
    assert summary.written == 4
    same_messages(copied, ours)
    assert [n for n in summary.notes if "left out" in n] == [
        f"left out: 2 {encoding!r} messages on {topic}; the new bag holds ROS 2 messages (CDR) only"
        for encoding, topic in (("cbor", "/odd"), ("json", "/json"), ("protobuf", "/proto"))
    ]
    with open_bag(tmp_path / "out") as result:
        assert {c.encoding for c in result.connections} == {"cdr"}
        assert result.notes == []


def test_cdr_channels_with_a_description_that_is_not_ros_are_copied(tmp_path):
    messages = [*frames(2), ("/dds", "lab/Thing", frames(1).__next__()[2], b"\x00\x01\x00\x00abcd")]
    source = raw_mcap(tmp_path / "in.mcap", messages, channels={"/dds": ("cdr", "omgidl", b"struct Thing {};")})
    _, copied = result_of(source, tmp_path / "out")
    assert [m[6] for m in copied if m[0] == "/dds"] == [b"\x00\x01\x00\x00abcd"]


def test_a_channel_without_ros_messages_alone_is_said(tmp_path):
    source = raw_mcap(
        tmp_path / "in.mcap", [("/json", "a.B", 5, b"{}")], channels={"/json": ("json", "jsonschema", b"{}")}
    )
    with pytest.raises(BagError, match=r"no sensor_msgs/msg/Image .*left out: 1 'json' messages on /json"):
        upsample_bag(source, tmp_path / "out", StubEngine(), BagOptions())


def test_types_without_their_middle_are_the_standard_ones(tmp_path):
    short = {topic: ("cdr", "ros2msg", f"# {topic}") for topic, *_ in frames(1)}
    messages = list(frames(3))
    named = [(topic, kind.replace("/msg/", "/"), time, raw) for topic, kind, time, raw in messages if topic != "/soup"]
    source = raw_mcap(tmp_path / "in.mcap", named, channels=short)
    summary, copied = result_of(source, tmp_path / "out")
    assert summary.written == 3
    same_messages(copied, [m for m in messages if m[0] != "/soup"])


def test_a_bag_without_images_says_what_it_holds(tmp_path):
    source = raw_mcap(tmp_path / "in.mcap", [m for m in frames(2) if "image" not in m[0]])
    with pytest.raises(
        BagError, match=r"no sensor_msgs/msg/Image .*: /camera/color/camera_info \(sensor_msgs/msg/Camera"
    ):
        upsample_bag(source, tmp_path / "out", StubEngine(), BagOptions())
