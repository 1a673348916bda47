"""Pairing by stamps over a camera's ordinary and extraordinary days, with message_filters' own queues and a clock of our own."""

import numpy as np
import pytest

pytest.importorskip("rclpy")

from d2a2_ros.pairing import Pairing
from d2a2_ros.stamps import Loss, StampTrack

from .conftest import stamped

HOUR = 3600.0
PERIOD = 1 / 30


class Message:
    def __init__(self, stamp):
        self.header = stamped(stamp, "camera")
        self.stamp = stamp


class Cameras:
    """Sends images at their times of arrival; stamps and times in seconds."""

    def __init__(self, queue_size=10, slop=0.015):
        self.now, self.restarts, self.pairs, self.sent = 0.0, [], [], {"color": 0, "depth": 0}
        self.pairing = Pairing(slop, queue_size, self.restarts.append, lambda: self.now)

    def play(self, events):
        """``events``: (time of arrival, topic, stamp), in any order."""
        for self.now, which, stamp in sorted(events, key=lambda event: event[0]):
            self.sent[which] += 1
            pair = self.pairing.add(which, Message(stamp))
            if pair:
                self.pairs.append((self.now, *(round(msg.stamp, 6) for msg in pair)))


def stream(count=60, start=1000.0, period=PERIOD, depth_late=0.0, color_late=0.0):
    """Colour and depth with equal stamps, each so late."""
    late = {"color": color_late, "depth": depth_late}
    return [(i * period + late[w] + 1e-4 * (w == "depth"), w, start + i * period) for i in range(count) for w in late]


def shifted(events, seconds):
    return [(time + seconds, which, stamp) for time, which, stamp in events]


@pytest.mark.parametrize("which", [("depth",), ("color",), ("color", "depth")])
@pytest.mark.parametrize("period", [1 / 30, 1 / 5])
@pytest.mark.parametrize("count", [1, 3, 10, 40])
def test_images_from_the_future_do_not_hold_up_the_ones_that_follow(which, period, count):
    """A driver that was started before its clock was set back."""
    cameras = Cameras()
    early = [(-1.0 + 0.01 * i, w, 1000 + HOUR + i * period) for i in range(count) for w in which]
    cameras.play(early + stream(60, period=period))
    later = [pair for pair in cameras.pairs if pair[1] < 1000 + HOUR / 2]
    first = later[0][0]
    assert first <= 1.0
    expected = 60 - round(first / period)
    assert len(later) >= expected - 1
    # Only pairs with later stamps hold up a stream; depth alone does not make results stale.
    assert len(cameras.restarts) == (len(which) == 2)


@pytest.mark.parametrize("which", ["color", "depth"])
def test_stamps_that_come_from_the_future_now_and_then_hold_nothing_up(which):
    cameras = Cameras()
    strays = [(i * 0.1, which, 1000 + HOUR + 7 * i) for i in range(60)]
    cameras.play(stream(180) + strays)
    assert len(cameras.pairs) == 180
    assert not cameras.restarts


@pytest.mark.parametrize(
    ("late", "queue", "need"), [(0.51, 10, 16), (0.51, 15, 16), (1.01, 10, 31), (0.51, 16, None), (0.21, 10, None)]
)
@pytest.mark.parametrize("which", ["color", "depth"])
def test_a_late_topic_is_named_with_the_queue_that_would_do(late, queue, need, which):
    cameras = Cameras(queue)
    cameras.play(stream(90, **{f"{which}_late": late}))
    problem = cameras.pairing.late()
    assert not cameras.restarts
    if need is None:
        assert problem is None
        assert len(cameras.pairs) == 90
        return
    assert problem.code == f"late_{which}"
    words = {"color": "colour", "depth": "depth"}
    first = words["depth" if which == "color" else "color"]
    assert f"{words[which]} arrives {late:.1f} s after {first}: raise sync_queue_size to {need}" in problem.message
    cured = Cameras(need)
    cured.play(stream(90, **{f"{which}_late": late}))
    assert len(cured.pairs) == 90
    assert cured.pairing.late() is None


def test_images_that_leave_the_queue_are_counted():
    cameras = Cameras(10)
    cameras.play(stream(60, depth_late=0.5))
    # When colour ends, the last ten are still there.
    assert len(cameras.pairs) == 10
    assert cameras.pairing.evicted["color"] == 50
    waiting = cameras.sent["depth"] - len(cameras.pairs) - cameras.pairing.evicted["depth"]
    assert 0 <= waiting <= 10
    assert cameras.pairing.figures()["colour images without a partner"] == "50"
    every_second = Cameras(10)
    every_second.play([event for i, event in enumerate(stream(60)) if i % 4 != 3])
    assert len(every_second.pairs) == 30
    assert every_second.pairing.evicted["depth"] == 0
    # All images are accounted for: paired, waiting, or gone.
    waiting = every_second.sent["color"] - len(every_second.pairs) - every_second.pairing.evicted["color"]
    assert waiting == 10


def test_a_recording_that_loops_starts_over_once_a_loop_and_is_not_late():
    cameras = Cameras()
    for loop in range(4):
        cameras.play(shifted(stream(60), 2.0 * loop))
    assert len(cameras.restarts) == 3
    assert "went back" in cameras.restarts[0]
    assert cameras.pairing.late() is None
    assert len(cameras.pairs) >= 4 * 60 - 3 * 11


def test_jitter_of_arrivals_is_no_step_back():
    rng = np.random.default_rng(0)
    cameras = Cameras(16)
    cameras.play([(time + rng.uniform(0, 0.4), which, stamp) for time, which, stamp in stream(300)])
    assert not cameras.restarts
    assert len(cameras.pairs) == 300


def test_how_far_apart_the_stamps_are():
    cameras = Cameras()
    assert cameras.pairing.apart() == ""
    cameras.play([(0.0, "color", 1000.0), (0.0, "depth", 4600.25)])
    assert "depth's are +3600.250 s after colour's" in cameras.pairing.apart()
    cameras.play([(1.0, "color", 1001.0), (1.0, "depth", 1001.02)])
    assert "are 0.020000 s apart; a larger sync_slop pairs them" in cameras.pairing.apart()


@pytest.mark.parametrize("which", ["color", "depth"])
def test_stamps_that_stand_still_are_named(which):
    cameras = Cameras()
    cameras.play([event if event[1] != which else (event[0], which, 0.0) for event in stream(9)])
    assert cameras.pairing.frozen() is None
    cameras.play([(1.0, which, 0.0)])
    assert cameras.pairing.frozen().code == f"{which}_stamps"
    assert "have the same stamp, 0.000 s" in cameras.pairing.frozen().message
    cameras.play(shifted(stream(1), 2.0))
    assert cameras.pairing.frozen() is None


def arrivals(steps):
    """Loss after these steps between stamps, in seconds, each as long in coming."""
    loss, now = Loss(), 0.0
    loss.add(0, 0.0)
    for step in steps:
        now += step
        loss.add(round(now * 1e9), now)
    return loss, now


def thinned(kept, count, rng, jitter=0.0):
    stamps = (np.arange(count) + rng.uniform(-jitter, jitter, count)) * PERIOD
    return np.diff(stamps[rng.random(count) < kept])


@pytest.mark.parametrize("kept", [0.5, 0.65, 0.9, 1.0])
@pytest.mark.parametrize("jitter", [0.0, 0.05])
def test_missing_images_are_estimated_from_gaps(kept, jitter):
    loss, now = arrivals(thinned(kept, 400, np.random.default_rng(1), jitter))
    came, missing = loss.recent(now)
    assert missing / (came + missing) == pytest.approx(1 - kept, abs=0.07)


@pytest.mark.parametrize(
    "steps",
    [
        [PERIOD] * 100 + [2 * PERIOD] * 100,  # a longer exposure at dusk
        [1 / 15] * 100 + [1 / 30] * 100,
        [PERIOD] * 60 + [4.0] + [PERIOD] * 60 + [20.0] + [PERIOD] * 60,  # paused
        list(np.random.default_rng(2).uniform(0.03, 0.3, 100)),  # no steady rate
        [PERIOD * 1.4, PERIOD * 0.6] * 60,
    ],
)
def test_a_change_of_rate_a_pause_and_no_rate_are_no_loss(steps):
    loss = Loss()
    now = 0.0
    loss.add(0, 0.0)
    for step in steps:
        now += step
        loss.add(round(now * 1e9), now)
        came, missing = loss.recent(now)
        assert missing <= 0.25 * (came + missing) or missing >= 100, (now, came, missing)


def test_a_topic_that_misses_a_quarter_is_named():
    cameras = Cameras()
    rng = np.random.default_rng(0)
    cameras.play([event for event in stream(280) if event[1] == "color" or rng.random() < 0.5])
    problem = cameras.pairing.loss()
    assert problem.code == "depth_lost"
    assert "depth images" in problem.message
    whole = Cameras()
    whole.play(stream(280))
    assert whole.pairing.loss() is None


def test_a_track_forgets_what_is_long_ago():
    track = StampTrack()
    for i in range(5000):
        track.add(i, float(i))
    assert len(track.arrivals) <= 512
