"""OUT.partial and disks that are full: nothing of others is touched, nothing of ours is lost."""

import errno
import resource
from contextlib import contextmanager

import pytest

pytest.importorskip("rosbags", reason="needs rosbags (pip install rosbags)")

from bag_files import contents, frames, storages, write_bag
from bag_stub import StubEngine

from d2a2_core.bag import BagError, BagOptions, upsample_bag
from d2a2_core.bag.journal import Journal
from d2a2_core.files import unfinished_name


def interrupted(tmp_path, storage="mcap", at=2, count=4):
    """A bag whose run ended at pair ``at``."""
    source = write_bag(tmp_path / "in", storage, frames(count))
    engine = StubEngine()
    process = engine.process

    def stop(*args):
        if engine.frames == at:
            raise KeyboardInterrupt
        return process(*args)

    engine.process = stop
    with pytest.raises(KeyboardInterrupt):
        upsample_bag(source, tmp_path / "out", engine, BagOptions())
    return source


def everything(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


FOREIGN = {
    "photos": lambda partial: (partial / "holiday.jpg").write_bytes(b"sea"),
    "a folder": lambda partial: (partial / "thesis").mkdir(),
    "a job of others": lambda partial: (partial / "job.json").write_text('{"task": 1}'),
    "no job": lambda partial: (partial / "job.json").write_text("[1, 2"),
    "a journal alone": lambda partial: (partial / "pairs.journal").write_bytes(b"mine"),
    "in the new bag": lambda partial: [(partial / "out").mkdir(), (partial / "out" / "notes.txt").write_text("mine")],
    "a file like the new bag": lambda partial: (partial / "out").write_text("mine"),
}


@pytest.mark.parametrize("make", FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize("usable", [True, False])
def test_a_folder_of_others_is_refused_and_stays_as_it_is(tmp_path, make, usable):
    source = write_bag(tmp_path / "in", "mcap", frames(2))
    partial = tmp_path / "out.partial"
    partial.mkdir()
    make(partial)
    before = everything(partial)
    options = BagOptions() if usable else BagOptions(slop=0.0)  # the latter finds no pairs, and clears up after itself
    with pytest.raises(
        BagError, match=r"out\.partial .*nothing was changed there; rename it, or choose another name for OUT"
    ):
        upsample_bag(source, tmp_path / "out", StubEngine(), options)
    assert everything(partial) == before


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_is_no_folder_is_refused(tmp_path, kind):
    source = write_bag(tmp_path / "in", "mcap", frames(2))
    partial = tmp_path / "out.partial"
    partial.write_text("mine") if kind == "file" else partial.symlink_to(source)
    with pytest.raises(BagError, match="is in the way"):
        upsample_bag(source, tmp_path / "out", StubEngine(), BagOptions())
    assert partial.read_text() == "mine" if kind == "file" else partial.is_symlink()


def test_what_others_put_into_an_interrupted_run_stays(tmp_path):
    source = interrupted(tmp_path)
    (tmp_path / "out.partial" / "notes.txt").write_text("mine")
    with pytest.raises(BagError, match=r"holds what d2a2 did not write \(notes.txt\)"):
        upsample_bag(source, tmp_path / "out", StubEngine(), BagOptions())
    (tmp_path / "out.partial" / "notes.txt").unlink()
    assert upsample_bag(source, tmp_path / "out", StubEngine(), BagOptions()).resumed == 2
    assert not (tmp_path / "out.partial").exists()


def test_what_others_put_there_meanwhile_stays_and_is_said(tmp_path):
    class Visited(StubEngine):
        def process(self, *args):
            (tmp_path / "out.partial" / "notes.txt").write_text("mine")
            return super().process(*args)

    source = write_bag(tmp_path / "in", "mcap", frames(2))
    summary = upsample_bag(source, tmp_path / "out", Visited(), BagOptions())
    assert summary.written == 2
    assert "holds files that d2a2 did not write; they are left there" in summary.notes[-1]
    assert everything(tmp_path / "out.partial").keys() == {p.relative_to(tmp_path / "out.partial") for p in
                                                           (tmp_path / "out.partial").iterdir()}  # fmt: skip
    assert (tmp_path / "out.partial" / "notes.txt").read_text() == "mine"


def test_infinite_settings_are_the_same_settings(tmp_path):
    source, job = write_bag(tmp_path / "in", "mcap", frames(2)), {"max_fill_px": float("inf")}
    engine = StubEngine()
    engine.process = lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        upsample_bag(source, tmp_path / "out", engine, BagOptions(), job)
    assert upsample_bag(source, tmp_path / "out", StubEngine(), BagOptions(), job).written == 2


def test_an_empty_folder_and_a_half_written_job_are_no_obstacle(tmp_path):
    source = write_bag(tmp_path / "in", "mcap", frames(2))
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / unfinished_name("job.json")).write_text('{"made')
    assert upsample_bag(source, tmp_path / "out", StubEngine(), BagOptions()).written == 2


def test_a_link_that_leads_nowhere_is_in_the_way_of_the_new_bag(tmp_path):
    source = write_bag(tmp_path / "in", "mcap", frames(2))
    (tmp_path / "out").symlink_to(tmp_path / "nowhere")
    with pytest.raises(BagError, match="exists already"):
        upsample_bag(source, tmp_path / "out", StubEngine(), BagOptions())


def test_a_disk_that_is_full_while_pairs_are_computed(tmp_path, monkeypatch):
    source = write_bag(tmp_path / "in", "mcap", frames(5))
    upsample_bag(source, tmp_path / "whole", StubEngine(), BagOptions())
    append, count = Journal.append, []

    def full(self, *args):
        count.append(1)
        if len(count) == 4:
            self._file.write(b"D2P1 half a record")
            raise OSError(errno.ENOSPC, "No space left on device")
        append(self, *args)

    monkeypatch.setattr(Journal, "append", full)
    with pytest.raises(
        BagError, match=r"out.partial cannot be written \(.*No space left.*make room, .* the same command"
    ):
        upsample_bag(source, tmp_path / "out", StubEngine(), BagOptions())
    monkeypatch.undo()
    assert upsample_bag(source, tmp_path / "out", StubEngine(), BagOptions()).resumed == 3
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@contextmanager
def files_of_at_most(size):
    """No file can grow beyond ``size`` bytes, which ends writing as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@storages
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 1.05])
def test_files_that_cannot_grow(tmp_path, storage, share):
    """At the job, at the first pair, in the middle of the journal, in the new bag."""
    source = write_bag(tmp_path / "in", storage, frames(60))
    upsample_bag(source, tmp_path / "whole", StubEngine(), BagOptions())
    largest = sum(len(m[6]) for m in contents(tmp_path / "whole") if m[0].startswith("/depth_upsampled"))
    said = "out.partial cannot be written .*make room"
    with files_of_at_most(int(share * largest)), pytest.raises(BagError, match=said):
        upsample_bag(source, tmp_path / "out", StubEngine(), BagOptions())
    assert not (tmp_path / "out").exists()
    summary = upsample_bag(source, tmp_path / "out", StubEngine(), BagOptions())
    assert summary.written == 60
    assert (summary.resumed == 60) == (share > 1)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert not (tmp_path / "out.partial").exists()


def test_the_command_ends_with_one_line_and_status_2(tmp_path, monkeypatch, capsys):
    from d2a2_core.cli import main
    from d2a2_core.commands import bag

    source = write_bag(tmp_path / "in", "mcap", frames(2))
    monkeypatch.setattr(bag, "_engine", lambda o: (StubEngine(), {}))
    monkeypatch.setattr(Journal, "append", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")))
    assert main(["bag", str(source), str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert said[-1].startswith(f"d2a2 bag: {tmp_path}/out.partial cannot be written ([Errno 28] No space left)")
