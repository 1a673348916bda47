"""Pairing over a whole bag: by stamps alone, whatever the order in which images were recorded."""

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rosbags", reason="needs rosbags (pip install rosbags)")

from bag_files import (
    COLOR,
    DEPTH,
    FRAME,
    IMAGE,
    INFO,
    START,
    color_image,
    depth_image,
    frames,
    info,
    outputs,
    stamp,
    write_bag,
)
from bag_stub import StubEngine

from d2a2_core.bag import BagError, BagOptions, upsample_bag
from d2a2_core.bag import messages as msgs
from d2a2_core.bag.pairing import pair_stamps
from d2a2_core.commands.bag import report

MS = 1_000_000


def pairs(color, depth, slop=15 * MS):
    found, _ = pair_stamps(np.array(color, np.int64), np.array(depth, np.int64), slop)
    return [(color[i], depth[j]) for i, j in found]


@pytest.mark.parametrize(
    ("color", "depth", "expected"),
    [
        ([0, 30, 60], [2, 28, 61], [(0, 2), (30, 28), (60, 61)]),
        ([60, 0, 30], [61, 2, 28], [(0, 2), (30, 28), (60, 61)]),  # the order of arrival does not matter
        ([0, 15, 30], [15, 30, 45], [(15, 15), (30, 30)]),  # the nearest, not as many as possible
        ([0, 20], [11, 24], [(0, 11), (20, 24)]),  # what the nearest leave is paired, too
        ([0, 20], [10], [(0, 10)]),  # as near: the earlier
        ([10], [0, 20], [(10, 0)]),
        ([0, 4], [5, 12], [(4, 5)]),  # (0, 12) would lie around (4, 5)
        ([0, 16], [20], [(16, 20)]),
        ([0], [15], []),  # the slop is not included
        ([], [1], []),
        ([1], [], []),
        ([-5, 5], [-4, 4], [(-5, -4), (5, 4)]),
    ],
)
def test_known_pairs(color, depth, expected):
    assert pairs(np.multiply(color, MS).tolist(), np.multiply(depth, MS).tolist()) == [
        (c * MS, d * MS) for c, d in expected
    ]


def test_equal_stamps_are_pairs_without_any_slop():
    assert pairs([1, 5, 9], [9, 1, 6], slop=0) == [(1, 1), (9, 9)]


def test_properties_of_random_stamps():
    rng = np.random.default_rng(0)
    for _ in range(200):
        color, depth = (np.unique(rng.integers(-300, 300, rng.integers(0, 60))) for _ in range(2))
        slop = int(rng.integers(0, 40))
        found, nearest = pair_stamps(rng.permutation(color), rng.permutation(depth), slop)
        chosen = pairs(color.tolist(), depth.tolist(), slop)
        assert len(found) == len(chosen)
        used_color, used_depth = {c for c, _ in chosen}, {d for _, d in chosen}
        assert len(used_color) == len(used_depth) == len(chosen)
        assert all(a[0] < b[0] and a[1] < b[1] for a, b in pairwise(chosen))
        assert all(abs(c - d) < max(slop, 1) for c, d in chosen)
        differences = np.abs(color[:, None] - depth[None])
        assert nearest == (int(differences.min()) if differences.size else None)
        # Nobody prefers another free one: two that are left alone are beyond the slop, or a pair lies between.
        for c in set(color.tolist()) - used_color:
            for d in set(depth.tolist()) - used_depth:
                low, high = min(c, d), max(c, d)
                between = any(low <= x <= high for pair in chosen for x in pair)
                assert high - low >= max(slop, 1) or between


def test_in_a_regular_stream_pairs_are_those_of_message_filters():
    message_filters = pytest.importorskip("message_filters")
    rng = np.random.default_rng(5)
    for trial in range(50):
        inputs = [message_filters.SimpleFilter() for _ in range(2)]
        sync = message_filters.ApproximateTimeSynchronizer(inputs, 10, 0.015)
        expected = []
        sync.registerCallback(lambda a, b, expected=expected: expected.append((a.stamp, b.stamp)))
        stamps = [np.arange(60) * 33 * MS + rng.integers(-7 * MS, 7 * MS, 60) for _ in range(2)]
        kept = [s[rng.random(60) < 0.9] for s in stamps]  # some are lost
        arrivals = sorted(
            (ns + int(rng.integers(0, 20 * MS)), which, ns) for which in (0, 1) for ns in kept[which].tolist()
        )
        for _, which, ns in arrivals:
            header = SimpleNamespace(stamp=SimpleNamespace(sec=0, nanosec=ns, nanoseconds=ns))
            inputs[which].signalMessage(SimpleNamespace(stamp=ns, header=header))
        assert pairs(kept[0].tolist(), kept[1].tolist()) == sorted(expected), trial


def image_bag(folder, rows):
    """A bag of (bag time in frames, "c" or "d", frame number of the stamp)."""
    made = {"c": (COLOR, color_image), "d": (DEPTH, depth_image)}
    messages = [
        (made[kind][0], IMAGE, START + round(time * FRAME), made[kind][1](abs(int(i)), stamp=START + round(i * FRAME)))
        for time, kind, i in rows
    ]
    return write_bag(folder, "mcap", sorted(messages, key=lambda m: m[2]))


def stamps_in_frames(folder):
    return [round((stamp(m) - START) / FRAME, 3) for _, m in outputs(folder, "image_raw")]


def test_depth_that_is_recorded_half_a_second_late_is_paired(tmp_path):
    rows = [(i, "c", i) for i in range(40)] + [(i + 15.5, "d", i) for i in range(40)]
    summary = upsample_bag(image_bag(tmp_path / "in", rows), tmp_path / "out", StubEngine(), BagOptions())
    assert (summary.pairs, summary.written) == (40, 40)
    assert not any("partner" in note for note in summary.notes)
    assert stamps_in_frames(tmp_path / "out") == list(range(40))
    # The bag time of a result is that at which its pair was complete.
    times = [time for time, _ in outputs(tmp_path / "out", "image_raw")]
    assert times == [START + round((i + 15.5) * FRAME) for i in range(40)]


def test_images_stamped_in_the_future_cost_themselves_alone(tmp_path):
    rows = [(i, "c", i) for i in range(60)] + [(i + 0.1, "d", i + 10**6 if 20 <= i < 30 else i) for i in range(60)]
    summary = upsample_bag(image_bag(tmp_path / "in", rows), tmp_path / "out", StubEngine(), BagOptions())
    assert summary.written == 50
    assert "without a partner within 0.015 s: 10 colour and 10 depth images" in summary.notes
    assert stamps_in_frames(tmp_path / "out") == [i for i in range(60) if not 20 <= i < 30]


def test_after_the_clock_was_set_back_all_pairs_come_in_order_of_stamps(tmp_path):
    order = [100, 101, 102, 0, 1, 2, 3]
    rows = [(n + shift, kind, i) for n, i in enumerate(order) for kind, shift in (("c", 0), ("d", 0.1))]
    summary = upsample_bag(image_bag(tmp_path / "in", rows), tmp_path / "out", StubEngine(), BagOptions())
    assert (summary.written, dict(summary.skipped)) == (7, {})
    # Computed in order of stamps, written in order of bag time.
    assert stamps_in_frames(tmp_path / "out") == order
    times = [time for time, _ in outputs(tmp_path / "out", "image_raw")]
    assert times == sorted(times)


def test_of_images_with_the_same_stamp_the_first_is_used_and_the_others_are_reported(tmp_path):
    rows = [(i + turn * 10, kind, i) for turn in range(3) for i in range(5) for kind in "cd"]
    summary = upsample_bag(image_bag(tmp_path / "in", rows), tmp_path / "out", StubEngine(), BagOptions())
    assert (summary.written, summary.pairs) == (5, 5)
    assert dict(summary.skipped) == {f"same_stamp {COLOR}": 10, f"same_stamp {DEPTH}": 10}
    assert f"skipped 10: {COLOR}: an image has the stamp of an earlier one" in report(summary)


@pytest.mark.parametrize("which", ["c", "d", "cd"])
def test_stamps_that_a_driver_does_not_set_are_refused(tmp_path, which):
    rows = [(i, kind, -START / FRAME if kind in which else i) for i in range(9) for kind in "cd"]
    topic = COLOR if "c" in which else DEPTH
    with pytest.raises(
        BagError, match=f"9 of 9 images on {topic} have the same stamp, 0.000 s: its driver did not set it"
    ):
        upsample_bag(image_bag(tmp_path / "in", rows), tmp_path / "out", StubEngine(), BagOptions())


@pytest.mark.parametrize(
    ("later", "said"),
    [
        (0.5, "apart; a larger --slop pairs them"),
        (108_000, r"apart; depth's are \+3600.000 s after colour's"),
        (-START / FRAME + 100, r"depth is stamped \d\.\d+ s, which is no time of day as that of colour"),
    ],
)
def test_clocks_that_do_not_fit_are_told_apart(tmp_path, later, said):
    rows = [(i, kind, i + later * (kind == "d")) for i in range(9) for kind in "cd"]
    with pytest.raises(BagError, match=said):
        upsample_bag(image_bag(tmp_path / "in", rows), tmp_path / "out", StubEngine(), BagOptions())


@pytest.mark.parametrize("ns", [-(2**31) * 10**9, -1, 0, (2**31 - 1) * 10**9 + 999_999_999])
def test_any_stamp_that_a_message_can_hold_is_paired(tmp_path, ns):
    messages = [(COLOR, IMAGE, START, color_image(0, stamp=ns)), (DEPTH, IMAGE, START, depth_image(0, stamp=ns))]
    upsample_bag(write_bag(tmp_path / "in", "mcap", messages), tmp_path / "out", StubEngine(), BagOptions())
    assert [stamp(m) for _, m in outputs(tmp_path / "out", "image_raw")] == [ns]


def test_camera_infos_are_the_latest_before_the_pair_else_the_first(tmp_path):
    class Widths(StubEngine):
        def process(self, pair, sigma=True):
            self.widths = [*getattr(self, "widths", ()), pair.color_camera.fx]
            return super().process(pair, sigma)

    def focal(value):
        msg = msgs.deserialize(info(32, 24, "color_optical"), INFO)
        msg.k = np.array([value, *msg.k[1:]])
        return msgs.camera_info(msg)

    rows = list(frames(6, extras=False))
    for frame, value in ((1.5, 40.0), (3.5, 50.0)):
        rows.append(("/camera/color/camera_info", INFO, START + round(frame * FRAME), focal(value)))
    engine = Widths()
    source = write_bag(tmp_path / "in", "mcap", sorted(rows, key=lambda m: m[2]))
    upsample_bag(source, tmp_path / "out", engine, BagOptions())
    assert engine.widths == [40.0, 40.0, 40.0, 40.0, 50.0, 50.0]


def test_images_that_cannot_be_paired_at_all_are_said(tmp_path):
    rows = [(i, "c", i) for i in range(5)]
    source = image_bag(tmp_path / "in", [*rows, *((i, "d", i + 0.6) for i in range(5))])
    with pytest.raises(BagError, match=r"no two stamps within 0.01 s; the nearest two stamps are 0.01333\d s"):
        upsample_bag(source, tmp_path / "out", StubEngine(), BagOptions(slop=0.01))
    assert not (tmp_path / "out.partial").exists()
