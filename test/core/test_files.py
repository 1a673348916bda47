"""Files that are never half written."""

import subprocess
import sys

import pytest

from d2a2_core.files import check_outputs, replacing


def test_the_file_appears_whole_when_the_block_ends(tmp_path):
    with replacing(tmp_path / "a.txt") as partial:
        partial.write_text("half")
        assert not (tmp_path / "a.txt").exists()
        with partial.open("a") as file:
            file.write(" whole")
    assert (tmp_path / "a.txt").read_text() == "half whole"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_the_old_file_stays_when_writing_fails(tmp_path, error):
    def fail():
        with replacing(tmp_path / "a.txt") as partial:
            partial.write_text("half")
            raise error

    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(type(error)):
        fail()
    assert (tmp_path / "a.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_the_old_file_stays_when_the_process_is_killed_and_the_next_one_replaces_it(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    killed = (
        "import os, sys; from d2a2_core.files import replacing\n"
        "with replacing(sys.argv[1]) as partial:\n"
        "    partial.write_text('half, and longer than the new one')\n"
        "    os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", killed, tmp_path / "a.txt"]).returncode == -9
    assert (tmp_path / "a.txt").read_text() == "old"
    with replacing(tmp_path / "a.txt") as partial:
        partial.write_text("new")
    assert (tmp_path / "a.txt").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_folders_of_an_output_are_made_and_what_is_in_their_way_is_told_before_any_work(tmp_path, monkeypatch):
    check_outputs([tmp_path / "a/b/c.txt"])
    with replacing(tmp_path / "a/b/c.txt") as partial:
        partial.write_text("new")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("a/b/c.txt", "dangling"):
        with pytest.raises(NotADirectoryError, match=f"{tmp_path / name} is in the way, expected a folder or nothing"):
            check_outputs([tmp_path / name / "d" / "e.txt"])
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write everywhere
    with pytest.raises(PermissionError, match=f"{tmp_path / 'a'} cannot be written"):
        check_outputs([tmp_path / "a/d.txt"])
