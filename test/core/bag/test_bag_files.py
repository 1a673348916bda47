"""Which files make a bag, and what metadata.yaml says of them; compressed bags, ROS 1 bags, and the count of the result."""

import shutil
import struct
import subprocess
import sys

import numpy as np
import pytest
import yaml

pytest.importorskip("rosbags", reason="needs rosbags (pip install rosbags)")

from bag_files import (
    COLOR,
    DEPTH,
    LATCHED,
    frames,
    outputs,
    raw_mcap,
    result_of,
    same_messages,
    storages,
    write_bag,
    zstd,
)
from bag_stub import StubEngine

from d2a2_core.bag import BagError, BagOptions, upsample_bag
from d2a2_core.bag.compression import CompressionError, decompress


def edit_metadata(folder, change):
    path = folder / "metadata.yaml"
    content = yaml.safe_load(path.read_text())
    change(content["rosbag2_bagfile_information"])
    path.write_text(yaml.safe_dump(content))


def test_a_few_bytes_that_claim_to_be_gigabytes_are_refused():
    bomb = zstd.compress(bytes(50_000_000))
    assert len(bomb) < 10_000
    with pytest.raises(CompressionError, match="more than 1000 bytes"):
        decompress(bomb, "zstd", 1000)
    with pytest.raises(CompressionError, match="brotli"):
        decompress(bomb, "brotli")


@storages
@pytest.mark.parametrize("metadata", [True, False])
@pytest.mark.parametrize("mode", ["file", "message"])
def test_compressed_bags_with_and_without_metadata(tmp_path, storage, mode, metadata):
    from rosbags.rosbag2 import CompressionFormat, CompressionMode, Writer

    messages, enter = list(frames(5)), Writer.open

    def compressed(self):
        self.set_compression(CompressionMode[mode.upper()], CompressionFormat.ZSTD)
        enter(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Writer, "open", compressed)
        source = write_bag(tmp_path / "in", storage, messages)
    if not metadata:
        (source / "metadata.yaml").unlink()
    summary, copied = result_of(source, tmp_path / "out")
    assert summary.written == 5
    same_messages(copied, messages)
    assert (tmp_path / "out" / f"out.{'mcap' if storage == 'mcap' else 'db3'}").exists()


def test_a_damaged_compressed_message_is_skipped(tmp_path):
    messages = [[*m] for m in frames(5)]
    for message in messages:
        message[3] = zstd.compress(bytes(message[3]))
    images = [m for m in messages if m[0] == DEPTH]
    images[2][3] = images[2][3][:-20]
    source = raw_mcap(tmp_path / "in.mcap", messages)
    summary, _ = result_of(source, tmp_path / "out")
    assert (summary.written, sum(summary.skipped.values())) == (4, 1)


def test_a_file_that_ros2_took_apart_beside_the_compressed_one_is_not_read_twice(tmp_path):
    messages = list(frames(4))
    source = write_bag(tmp_path / "in", "sqlite3", messages)
    (source / "in.db3.zstd").write_bytes(zstd.compress((source / "in.db3").read_bytes()))
    (source / "metadata.yaml").unlink()
    same_messages(result_of(source, tmp_path / "out")[1], messages)


def test_a_folder_of_split_files_without_metadata_is_one_bag(tmp_path):
    messages = list(frames(8))
    for number in (1, 0, 10):
        part = messages[:12] if number == 0 else messages[12:24] if number == 1 else messages[24:]
        raw_mcap(tmp_path / "in" / f"rec_{number}.mcap", part)
    summary, copied = result_of(tmp_path / "in", tmp_path / "out")
    assert summary.written == 8
    same_messages(copied, messages)


@storages
@pytest.mark.parametrize("begun", [b"", b"\x89MCA", b"\x89MCAP0\r\n"])
def test_a_file_that_a_killed_recorder_had_only_just_begun_is_said(tmp_path, storage, begun):
    ending = ".mcap" if storage == "mcap" else ".db3"
    write_bag(tmp_path / "rec_0", storage, frames(3))
    (tmp_path / "in").mkdir()
    shutil.copy(tmp_path / "rec_0" / f"rec_0{ending}", tmp_path / "in" / f"rec_0{ending}")
    (tmp_path / "in" / f"rec_1{ending}").write_bytes(begun if storage == "mcap" else b"")
    summary, copied = result_of(tmp_path / "in", tmp_path / "out")
    same_messages(copied, list(frames(3)))
    assert any(f"rec_1{ending}" in note for note in summary.notes)


def test_a_folder_of_several_bags_without_metadata_is_refused(tmp_path):
    for name in ("kitchen.mcap", "hall.mcap"):
        raw_mcap(tmp_path / "in" / name, frames(2))
    with pytest.raises(BagError, match=r"holds several bags .*: hall.mcap, kitchen.mcap; give one of these files"):
        upsample_bag(tmp_path / "in", tmp_path / "out", StubEngine(), BagOptions())
    assert result_of(tmp_path / "in" / "hall.mcap", tmp_path / "out")[0].written == 2


@storages
@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(storage_identifier=""),
        lambda m: m.update(storage_identifier="my_plugin", relative_file_paths=[]),
        lambda m: m.update(compression_mode="FILE", compression_format="zstd"),
        lambda m: m.update(version=99),
        lambda m: m.update(topics_with_message_count=[]),
        lambda m: m.update(starting_time={"nanoseconds_since_epoch": 5}),
    ],
)
def test_metadata_that_does_not_fit_the_files_does_not_stop_anything(tmp_path, storage, change):
    messages = list(frames(3))
    source = write_bag(tmp_path / "in", storage, messages)
    edit_metadata(source, change)
    summary, copied = result_of(source, tmp_path / "out")
    assert summary.written == 3
    same_messages(copied, messages)


@storages
def test_qos_in_the_metadata_counts_even_where_the_storage_says_something_else(tmp_path, storage):
    messages = list(frames(3))
    source = write_bag(tmp_path / "in", storage, messages)
    latched = yaml.safe_load((source / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    profile = next(
        t["topic_metadata"]["offered_qos_profiles"]
        for t in latched["topics_with_message_count"]
        if t["topic_metadata"]["name"] == "/tf_static"
    )

    def change(metadata):
        for entry in metadata["topics_with_message_count"]:
            if entry["topic_metadata"]["name"] == COLOR:
                entry["topic_metadata"]["offered_qos_profiles"] = profile

    edit_metadata(source, change)
    summary, copied = result_of(source, tmp_path / "out")
    assert summary.written == 3
    same_messages(copied, messages)
    assert {tuple(m[4]) for m in copied if m[0] == COLOR} == {(LATCHED,)}


@pytest.mark.parametrize(
    "content",
    [
        "rosbag2_bagfile_information: [",
        "",
        "[1, 2]",
        "[" * 20_000,
        "rosbag2_bagfile_information: {relative_file_paths: [1], message_count: .inf}",
        "rosbag2_bagfile_information: {relative_file_paths: [in.mcap], message_count: 12, topics_with_message_count: 3}",
        "\ufffe\udcff",
    ],
)
def test_metadata_that_cannot_be_read_is_said_and_done_without(tmp_path, content):
    source = write_bag(tmp_path / "in", "mcap", frames(3))
    (source / "metadata.yaml").write_bytes(content.encode("utf-8", "surrogatepass"))
    summary, _ = result_of(source, tmp_path / "out")
    assert summary.written == 3
    assert "the bag's files are read without it" in summary.notes[0]


def test_a_bag_with_fewer_messages_than_its_metadata_says_is_refused_before_anything_is_computed(tmp_path):
    source = write_bag(tmp_path / "in", "mcap", frames(3))
    edit_metadata(source, lambda m: m.update(message_count=40))
    engine = StubEngine()
    with pytest.raises(BagError, match=r"says the bag holds 40 messages, but its files hold 12.*remove metadata.yaml"):
        upsample_bag(source, tmp_path / "out", engine, BagOptions())
    assert engine.frames == 0
    edit_metadata(source, lambda m: m.update(message_count=4))
    summary, _ = result_of(source, tmp_path / "out")
    assert "metadata.yaml says 4 messages; the bag's files hold 12, and all of these are read" in summary.notes


def test_missing_and_unnamed_files_are_said(tmp_path):
    source = write_bag(tmp_path / "in", "mcap", frames(3))
    shutil.copy(source / "in.mcap", source / "in_1.mcap")
    assert "not read, since metadata.yaml does not name them: in_1.mcap" in result_of(source, tmp_path / "out")[0].notes
    (source / "in.mcap").unlink()
    with pytest.raises(BagError, match=r"names in.mcap, which is not in its folder; put the files back"):
        upsample_bag(source, tmp_path / "out2", StubEngine(), BagOptions())


def test_the_way_for_a_ros_1_bag_leads_there(tmp_path):
    from rosbags.rosbag1 import Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS1_NOETIC)
    header, image = store.types["std_msgs/msg/Header"], store.types["sensor_msgs/msg/Image"]
    with Writer(tmp_path / "old.bag") as writer:
        for topic, encoding, shape in ((COLOR, "rgb8", (24, 32, 3)), (DEPTH, "16UC1", (6, 8, 2))):
            connection = writer.add_connection(topic, "sensor_msgs/msg/Image", typestore=store)
            data = np.full(shape, 5, np.uint8)
            for i in range(3):
                time = store.types["builtin_interfaces/msg/Time"](1 + i, 0)
                message = image(header(i, time, "cam"), *shape[:2], encoding, 0, shape[1] * shape[2], data.ravel())
                writer.write(connection, (1 + i) * 10**9, store.serialize_ros1(message, "sensor_msgs/msg/Image"))
    with pytest.raises(BagError) as refused:
        upsample_bag(tmp_path / "old.bag", tmp_path / "out", StubEngine(), BagOptions())
    command = str(refused.value).split("`")[1].split()
    assert command[0] == "rosbags-convert"
    subprocess.run([sys.executable, "-m", "rosbags.convert", *command[1:]], check=True)
    assert result_of(tmp_path / "old", tmp_path / "out")[0].written == 3


@pytest.mark.parametrize("folder", [True, False])
def test_a_ros_1_bag_names_the_way(tmp_path, folder):
    bag = tmp_path / "in" / "old.bag"
    bag.parent.mkdir()
    bag.write_bytes(b"#ROSBAG V2.0\n")
    with pytest.raises(BagError, match=rf"ROS 1 bag; `rosbags-convert --src {bag} --dst {bag.with_suffix('')}`"):
        upsample_bag(bag.parent if folder else bag, tmp_path / "out", StubEngine(), BagOptions())


@pytest.mark.parametrize(
    "content", [b"", b"\x89MCAP0\r\n", b"\x89MCAP0\r\n" + struct.pack("<BQ", 1, 2**63) + b"x" * 50]
)
def test_files_that_are_hardly_there(tmp_path, content):
    (tmp_path / "in.mcap").write_bytes(content)
    with pytest.raises(BagError):
        upsample_bag(tmp_path / "in.mcap", tmp_path / "out", StubEngine(), BagOptions())
    (tmp_path / "in.db3").write_bytes(content)
    with pytest.raises(BagError):
        upsample_bag(tmp_path / "in.db3", tmp_path / "out", StubEngine(), BagOptions())


def test_outputs_are_counted_in_the_new_bag(tmp_path, monkeypatch):
    """A writer that loses messages without a word, as a disk that is full may make one do."""
    from rosbags.rosbag2.storage_mcap import McapWriter

    write, lost = McapWriter.write, []

    def forgetful(self, connection, time, data):
        if connection.topic.endswith("provenance") and not lost:
            lost.append(time)
            return
        write(self, connection, time, data)

    monkeypatch.setattr(McapWriter, "write", forgetful)
    source = write_bag(tmp_path / "in", "sqlite3", frames(3))
    with pytest.raises(BagError, match=r"messages were written to .*, but \d+ can be read"):
        upsample_bag(source, tmp_path / "out", StubEngine(), BagOptions(storage="mcap"))
    assert not (tmp_path / "out").exists()
    monkeypatch.undo()
    again = upsample_bag(source, tmp_path / "out", StubEngine(), BagOptions(storage="mcap"))
    assert (again.resumed, again.written) == (3, 3)
    assert len(outputs(tmp_path / "out", "provenance")) == 3
