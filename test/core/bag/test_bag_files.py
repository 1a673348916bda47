"""Bags as recorders and other programs leave them: cut off, without index or metadata, compressed, with other channels."""

import os
import shutil
import sqlite3
import struct
import subprocess
import sys

import numpy as np
import pytest
import yaml

pytest.importorskip("rosbags", reason="needs rosbags (pip install rosbags)")

from bag_files import COLOR, DEPTH, LATCHED, RawMcap, contents, frames, outputs, raw_mcap, storages, write_bag, zstd
from bag_stub import StubEngine

from d2a2_core.bag import BagError, BagOptions, upsample_bag
from d2a2_core.bag.compression import CompressionError, decompress
from d2a2_core.bag.source import open_bag

OTHERS = {
    "/json": ("json", "jsonschema", b'{"type": "object"}'),
    "/proto": ("protobuf", "protobuf", b"\x0a\xff\xfe\x00binary"),
    "/odd": ("cbor", "", b""),
}


def result_of(source, target, **options):
    """What was upsampled, and that everything else came through."""
    engine = StubEngine()
    summary = upsample_bag(source, target, engine, BagOptions(**options))
    return summary, [m for m in contents(target) if not m[0].startswith("/depth_upsampled/")]


def same_messages(copied, messages):
    assert [(m[0], m[1], m[5], m[6]) for m in copied] == [(t, k, s, bytes(r)) for t, k, s, r in messages]


def edit_metadata(folder, change):
    path = folder / "metadata.yaml"
    content = yaml.safe_load(path.read_text())
    change(content["rosbag2_bagfile_information"])
    path.write_text(yaml.safe_dump(content))


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
    for i in range(3000):
        data = bytearray(files[i % 3])
        for _ in range(rng.integers(1, 6)):
            data[rng.integers(8, len(data))] = rng.integers(256)
        path.write_bytes(data[: rng.integers(8, len(data))] if rng.random() < 0.3 else data)
        try:
            with open_bag(path) as bag:
                for _ in bag.messages():
                    pass
        except BagError:
            refused += 1
    assert 300 < refused < 2900


@pytest.mark.slow
def test_mutated_databases_end_in_a_bag_error_or_in_a_bag(tmp_path):
    rng = np.random.default_rng(3)
    whole = (write_bag(tmp_path / "whole", "sqlite3", frames(2)) / "whole.db3").read_bytes()
    path, refused = tmp_path / "in.db3", 0
    for _ in range(2000):
        data = bytearray(whole)
        for _ in range(rng.integers(1, 30)):
            data[rng.integers(0, len(data))] = rng.integers(256)
        path.write_bytes(data[: rng.integers(1, len(data))] if rng.random() < 0.3 else data)
        try:
            with open_bag(path) as bag:
                for _ in bag.messages():
                    pass
        except BagError:
            refused += 1
    assert 200 < refused < 1900


STRANGE = ["x", None, 1.5, 2**63 - 1, -(2**63), b"\xff\x00"]


@pytest.mark.parametrize("value", STRANGE, ids=repr)
@pytest.mark.parametrize("place", ["messages.timestamp", "messages.topic_id", "messages.data", "topics.name", "topics.type",
                                   "topics.offered_qos_profiles", "topics.serialization_format", "topics.id"])  # fmt: skip
def test_database_columns_of_other_types(tmp_path, place, value):
    source = write_bag(tmp_path / "in", "sqlite3", frames(2)) / "in.db3"
    table, column = place.split(".")
    with sqlite3.connect(source) as database:
        text = database.execute("SELECT sql FROM sqlite_master WHERE name = ?", (table,)).fetchone()[0]
        database.execute("PRAGMA writable_schema = 1")
        loose = text.replace("NOT NULL", "").replace(" TEXT", "").replace(" INTEGER ", " ").replace(" BLOB", "")
        loose = loose.replace("PRIMARY KEY", "")
        database.execute("UPDATE sqlite_master SET sql = ? WHERE name = ?", (loose, table))
    with sqlite3.connect(source) as database:
        number = database.execute(f"SELECT max(rowid) FROM {table}").fetchone()[0]
        database.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (value, number))
    try:
        summary = upsample_bag(source, tmp_path / "out", StubEngine(), BagOptions(storage="mcap", end=1e9))
    except BagError:
        assert not (tmp_path / "out").exists()
    else:
        assert summary.written >= 1


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


@pytest.mark.parametrize("shared_memory", [True, False])
@pytest.mark.parametrize("left", ["both", "file"])
def test_messages_in_a_write_ahead_log_are_read(tmp_path, left, shared_memory):
    """As `kill -9` of a recorder leaves it: what it wrote last lies beside the database."""
    messages = list(frames(4))
    whole = write_bag(tmp_path / "whole", "sqlite3", messages)
    folder = tmp_path / "in"
    folder.mkdir()
    code = f"""
import os, shutil, sqlite3
shutil.copy({str(whole / "whole.db3")!r}, {str(folder / "in.db3")!r})
db = sqlite3.connect({str(folder / "in.db3")!r}, isolation_level=None)
rows = db.execute("SELECT * FROM messages WHERE id > 8").fetchall()
db.execute("DELETE FROM messages WHERE id > 8")
db.execute("PRAGMA journal_mode=WAL")
db.execute("PRAGMA wal_autocheckpoint=0")
db.executemany("INSERT INTO messages VALUES (?, ?, ?, ?)", rows)
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    wal = folder / "in.db3-wal"
    assert wal.stat().st_size
    if not shared_memory:
        (folder / "in.db3-shm").unlink()
    names = {p.name for p in folder.iterdir()}
    before = wal.read_bytes(), (folder / "in.db3").read_bytes()
    summary, copied = result_of(folder if left == "both" else folder / "in.db3", tmp_path / "out")
    assert summary.written == 4
    same_messages(copied, messages)
    assert any("was not closed by its recorder" in note for note in summary.notes)
    assert before == (wal.read_bytes(), (folder / "in.db3").read_bytes())
    assert {p.name for p in folder.iterdir()} == names | {"in.db3-shm"}  # SQLite's index of the log


def test_a_write_ahead_log_that_cannot_be_read_says_how_to_mend_it(tmp_path, monkeypatch):
    source = write_bag(tmp_path / "in", "sqlite3", frames(2)) / "in.db3"
    source.with_name("in.db3-wal").write_bytes(b"frames")
    connect = sqlite3.connect

    def locked(path, **kwargs):
        if "in.db3" in path and "immutable" not in path:
            raise sqlite3.OperationalError("unable to open database file")  # as in a folder that cannot be written
        return connect(path, **kwargs)

    monkeypatch.setattr(sqlite3, "connect", locked)
    with pytest.raises(
        BagError, match=r"copy it, with in.db3-wal, into a folder .* 'PRAGMA wal_checkpoint\(TRUNCATE\)'"
    ):
        upsample_bag(source, tmp_path / "out", StubEngine(), BagOptions())


def test_a_database_whose_name_means_something_in_addresses(tmp_path):
    source = write_bag(tmp_path / "in", "sqlite3", frames(2)) / "in.db3"
    name = tmp_path / "run #1? 50%20.db3"
    source.rename(name)
    with pytest.raises(BagError, match=r"cannot write to .*out#1.*--storage mcap"):
        upsample_bag(name, tmp_path / "out#1", StubEngine(), BagOptions())
    assert {p.name for p in tmp_path.iterdir()} == {"in", name.name}
    assert result_of(name, tmp_path / "out#1", storage="mcap")[0].written == 2


def test_a_folder_of_split_files_without_metadata_is_one_bag(tmp_path):
    messages = list(frames(8))
    for number in (1, 0, 10):
        part = messages[:12] if number == 0 else messages[12:24] if number == 1 else messages[24:]
        raw_mcap(tmp_path / "in" / f"rec_{number}.mcap", part)
    summary, copied = result_of(tmp_path / "in", tmp_path / "out")
    assert summary.written == 8
    same_messages(copied, messages)


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


@pytest.mark.parametrize("table", ["message_definitions", "schema", "metadata"])
def test_databases_of_older_distributions(tmp_path, table):
    """Humble's have neither definitions nor hashes, Foxy's no QoS."""
    messages = list(frames(3))
    source = write_bag(tmp_path / "in", "sqlite3", messages) / "in.db3"
    with sqlite3.connect(source) as database:
        database.execute(f"DROP TABLE {table}")
        database.execute("ALTER TABLE topics DROP COLUMN type_description_hash")
        if table == "schema":
            database.execute("ALTER TABLE topics DROP COLUMN offered_qos_profiles")
    summary, copied = result_of(source, tmp_path / "out")
    assert summary.written == 3
    same_messages(copied, messages)
    image = next(m for m in copied if m[0] == COLOR)
    assert ("std_msgs/Header header" in image[2], image[3].startswith("RIHS01_")) == (True, True)


def test_database_messages_without_a_topic_are_left_out_with_a_word(tmp_path):
    source = write_bag(tmp_path / "in", "sqlite3", frames(3)) / "in.db3"
    with sqlite3.connect(source) as database:
        database.execute("UPDATE messages SET topic_id = 77 WHERE id IN (5, 6)")
        database.execute("UPDATE messages SET data = 'text' WHERE id = 4")
    summary, _ = result_of(source, tmp_path / "out")
    assert "left out: 2 messages of which the bag does not say the topic" in summary.notes


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


def test_a_channel_without_ros_messages_alone_is_said(tmp_path):
    source = raw_mcap(
        tmp_path / "in.mcap", [("/json", "a.B", 5, b"{}")], channels={"/json": ("json", "jsonschema", b"{}")}
    )
    with pytest.raises(BagError, match=r"no depth topic.*left out: 1 'json' messages on /json"):
        upsample_bag(source, tmp_path / "out", StubEngine(), BagOptions())


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


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path):
    source = write_bag(tmp_path / "in", "mcap", frames(2)) / "in.mcap"
    source.chmod(0)
    with pytest.raises(BagError, match="Permission denied"):
        upsample_bag(source, tmp_path / "out", StubEngine(), BagOptions())


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
