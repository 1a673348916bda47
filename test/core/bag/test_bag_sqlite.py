"""sqlite3 files as recorders leave them: with a write-ahead log, of older distributions, damaged."""

import sqlite3
import subprocess
import sys

import numpy as np
import pytest
from fuzzing import fuzz_count

pytest.importorskip("rosbags", reason="needs rosbags (pip install rosbags)")

from bag_files import COLOR, frames, is_refused, result_of, same_messages, write_bag
from bag_stub import StubEngine

from d2a2_core.bag import BagError, BagOptions, upsample_bag


@pytest.mark.slow
def test_mutated_databases_end_in_a_bag_error_or_in_a_bag(tmp_path):
    rng = np.random.default_rng(3)
    whole = (write_bag(tmp_path / "whole", "sqlite3", frames(2)) / "whole.db3").read_bytes()
    path, refused = tmp_path / "in.db3", 0
    count = fuzz_count(400)
    for _ in range(count):
        data = bytearray(whole)
        for _ in range(rng.integers(1, 30)):
            data[rng.integers(0, len(data))] = rng.integers(256)
        path.write_bytes(data[: rng.integers(1, len(data))] if rng.random() < 0.3 else data)
        refused += is_refused(path)
    assert 0.1 * count < refused < 0.95 * count


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
