"""`d2a2 bag`: what goes in comes out unchanged, the results are in the right place, and nothing that happens loses data."""

import json
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rosbags", reason="needs rosbags (pip install rosbags)")

import bag_stub
from bag_files import (
    FRAME,
    IMAGE,
    START,
    STORE,
    color_image,
    contents,
    depth_image,
    frames,
    outputs,
    stamp,
    storages,
    transform,
    write_bag,
)
from bag_stub import StubEngine
from rosbags.interfaces import QosDurability

from d2a2_core.bag import BagError, BagOptions, upsample_bag
from d2a2_core.bag.journal import Journal, JournalError
from d2a2_core.geometry.transform_tree import TransformTree
from d2a2_core.messages.encodings import view


@storages
def test_every_message_comes_through_unchanged_and_the_results_beside_them(tmp_path, storage):
    source = write_bag(tmp_path / "in", storage, frames(7))
    engine = StubEngine()
    summary = upsample_bag(source, tmp_path / "out", engine, BagOptions(cloud=True))
    assert (summary.pairs, summary.written, summary.color_images, summary.depth_images) == (7, 7, 7, 7)
    assert summary.notes == ["depth is taken as registered: a stub said so"]

    before, after = contents(source), contents(tmp_path / "out")
    assert [m for m in after if not m[0].startswith("/depth_upsampled/")] == before
    assert {m[4][0].durability for m in after if m[0] == "/tf_static"} == {QosDurability.TRANSIENT_LOCAL}
    assert [m[5] for m in after] == sorted(m[5] for m in after)

    images = outputs(tmp_path / "out", "image_raw")
    assert [time for time, _ in images] == [START + i * FRAME + 3_000_000 for i in range(7)]
    for i, (_, msg) in enumerate(images):
        assert (stamp(msg), msg.header.frame_id) == (START + i * FRAME, "color_optical")
        assert (msg.encoding, msg.width, msg.height, msg.step, msg.is_bigendian) == ("32FC1", 32, 24, 128, 0)
        lr = view(STORE.deserialize_cdr(depth_image(i), IMAGE)) * np.float32(0.001)
        np.testing.assert_array_equal(view(msg), lr.repeat(4, 0).repeat(4, 1) + np.float32(i + 1))
    assert {msg.encoding for _, msg in outputs(tmp_path / "out", "provenance")} == {"mono8"}
    np.testing.assert_allclose(view(outputs(tmp_path / "out", "sigma")[3][1]), view(images[3][1]) * 0.01)
    infos = outputs(tmp_path / "out", "camera_info")
    assert [stamp(m) for _, m in infos] == [stamp(m) for _, m in images]
    assert (infos[0][1].width, infos[0][1].k[0], infos[0][1].header.frame_id) == (32, 32.0, "color_optical")

    cloud = outputs(tmp_path / "out", "points")[2][1]
    fields = {f.name: (f.offset, f.datatype) for f in cloud.fields}
    assert fields == {"x": (0, 7), "y": (4, 7), "z": (8, 7), "rgb": (12, 7), "provenance": (16, 2)}
    points = cloud.data.view(np.dtype([("xyz", "f4", 3), ("bgr", "u1", 4), ("provenance", "u1")])).reshape(24, 32)
    np.testing.assert_array_equal(points["xyz"][..., 2], view(images[2][1]))
    color = view(STORE.deserialize_cdr(color_image(2), IMAGE))
    np.testing.assert_array_equal(points["bgr"][..., 2::-1], color)
    np.testing.assert_allclose(points["xyz"][0, 0, 0], (0 - 15.5) / 32 * points["xyz"][0, 0, 2], rtol=1e-6)

    color_camera, depth_camera, extrinsics, *names = engine.calls[-1]
    assert ((color_camera.width, depth_camera.width), names) == ((32, 8), ["color_optical", "depth_optical"])
    np.testing.assert_allclose(extrinsics.translation, [-0.03, 0, 0])
    assert not (tmp_path / "out.partial").exists()


@storages
@pytest.mark.slow
def test_a_run_killed_at_any_point_goes_on_and_gives_the_same_bag(tmp_path, storage):
    source = write_bag(tmp_path / "in", storage, frames(12))
    upsample_bag(source, tmp_path / "whole", StubEngine(), BagOptions(cloud=True))

    # Cutting the journal short is what a kill in the middle of a write leaves.
    arguments = [Path(bag_stub.__file__), source, tmp_path / "out", "4", "cut", "9", "merge"]
    ended = subprocess.run([sys.executable, *arguments], check=True, capture_output=True, text=True).stdout
    assert ended.split() == [str(-signal.SIGKILL)] * 3
    assert not (tmp_path / "out").exists()
    engine = StubEngine()
    summary = upsample_bag(source, tmp_path / "out", engine, BagOptions(cloud=True))
    assert (summary.resumed, summary.written) == (12, 12)
    assert engine.calls == []
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_an_interrupted_run_goes_on_only_with_the_same_settings(tmp_path):
    source = write_bag(tmp_path / "in", "mcap", frames(3))
    engine = StubEngine()
    engine.process = lambda *_: sys.exit(1)
    with pytest.raises(SystemExit):
        upsample_bag(source, tmp_path / "out", engine, BagOptions(), {"weights": "a"})
    for options, job, named in (
        (BagOptions(slop=0.01), {"weights": "a"}, "slop"),
        (BagOptions(), {"weights": "b"}, "engine"),
    ):
        with pytest.raises(BagError, match=named):
            upsample_bag(source, tmp_path / "out", StubEngine(), options, job)
    assert upsample_bag(source, tmp_path / "out", StubEngine(), BagOptions(), {"weights": "a"}).written == 3


def test_journal_keeps_other_processes_out_and_notices_damage(tmp_path):
    journal = Journal(tmp_path / "j")
    journal.lock()
    with pytest.raises(JournalError, match="another process"):
        Journal(tmp_path / "j").lock()
    for i in range(3):
        journal.append({"time": i}, [("a", b"x" * 100), ("b", b"")])
    journal.close()
    raw = bytearray((tmp_path / "j").read_bytes())
    raw[len(raw) // 2] ^= 1
    (tmp_path / "j").write_bytes(raw)
    with pytest.raises(JournalError, match="damaged"):
        list(Journal(tmp_path / "j").records_in_order())


@storages
@pytest.mark.slow
def test_memory_does_not_grow_with_the_bag(tmp_path, storage):
    def peak(count):
        """MiB that Python takes at most."""
        name = tmp_path / str(count)
        write_bag(
            name, storage, frames(count, lambda i: color_image(i % 8, (96, 128), START + i * FRAME), extras=False)
        )
        tracemalloc.start()
        try:
            upsample_bag(name, tmp_path / f"{count}.out", StubEngine(), BagOptions())
            return tracemalloc.get_traced_memory()[1] / 2**20
        finally:
            tracemalloc.stop()

    peak(3)  # what is made once
    short, long = peak(120), peak(320)  # 200 frames more are 8 MiB in and 23 MiB out; some chunks of 1 MiB are kept
    assert long - short < 1.5


@storages
def test_damaged_frames_are_skipped_counted_and_kept(tmp_path, storage):
    def damaged_color(i):
        raw = color_image(i)
        return {1: raw[:40], 2: raw[:7], 3: raw[:-100]}.get(i, raw)

    def damaged_depth(i):
        return depth_image(i, value=65535 if i == 5 else None)

    source = write_bag(tmp_path / "in", storage, frames(8, damaged_color, damaged_depth))
    summary = upsample_bag(source, tmp_path / "out", StubEngine(), BagOptions())
    assert summary.written == 4
    assert sum(summary.skipped.values()) == 4
    assert any("unbelievable" in text for text in summary.examples.values())
    assert [m for m in contents(tmp_path / "out") if not m[0].startswith("/depth_up")] == contents(source)
    assert [stamp(m) for _, m in outputs(tmp_path / "out", "image_raw")] == [START + i * FRAME for i in (0, 4, 6, 7)]


def test_static_transforms_are_chained_both_ways():
    tree = TransformTree()
    quarter = (0, 0, np.sin(np.pi / 4), np.cos(np.pi / 4))  # 90 degrees about z
    tree.add(transform("base", "a", (1, 0, 0), quarter))
    tree.add(transform("a", "b", (0, 2, 0)))
    tree.add(transform("/base", "c", (0, 0, 3)))
    tree.add(transform("base", "broken", (0, 0, 3), (0, 0, 0, 0)))
    t, q = tree.lookup("c", "b")  # b's origin: 2 along a's y, which is -x of base; then 3 below c
    np.testing.assert_allclose(t, [-1, 0, -3], atol=1e-12)
    np.testing.assert_allclose(q, quarter)
    back, _ = tree.lookup("b", "c")
    np.testing.assert_allclose(back, [0, -1, 3], atol=1e-12)
    assert tree.lookup("c", "elsewhere") is None
    assert tree.lookup("c", "broken") is None


def test_the_real_engine_goes_on_where_it_stopped():
    """The range of the stream is what one frame hands on; a pair of the same images comes out the same after a restart."""
    import torch

    from d2a2_core.geometry import CameraPair
    from d2a2_core.network.lite import D2A2Lite
    from d2a2_core.pipeline import DepthPipeline, PipelineSettings
    from d2a2_core.upsampler import DepthUpsampler

    def stream():
        torch.manual_seed(0)
        upsampler = DepthUpsampler.from_module(D2A2Lite(channels=8, blocks=1), "cpu")
        return DepthPipeline(upsampler, PipelineSettings(watchdog=False))

    rng = np.random.default_rng(0)
    color = rng.integers(0, 256, (32, 48, 3), dtype=np.uint8)
    first, second = (rng.uniform(1, far, (8, 12)).astype(np.float32) for far in (4.0, 2.0))
    unbroken = stream()
    unbroken.process(CameraPair(color, first))
    state = json.loads(json.dumps(unbroken.state()))
    expected = unbroken.process(CameraPair(color, second))
    resumed = stream()
    resumed.restore(state)
    np.testing.assert_array_equal(resumed.process(CameraPair(color, second)).depth, expected.depth)
    assert resumed.state() == unbroken.state()
    assert not np.array_equal(
        stream().process(CameraPair(color, second)).depth, expected.depth, equal_nan=True
    )  # it does matter
