"""message_filters pairs messages as documented, be it the real package or the stand-in of pip_ros."""

import os
import random
import threading
import time
import types

import pytest

message_filters = pytest.importorskip(
    "message_filters", reason="message_filters is not installed", exc_type=ImportError
)
rclpy_time = pytest.importorskip("rclpy.time", reason="rclpy is not installed", exc_type=ImportError)
builtin_interfaces = pytest.importorskip("builtin_interfaces.msg", reason="builtin_interfaces is not installed")

STAND_IN = getattr(message_filters, "IS_STAND_IN", False)
only_stand_in = pytest.mark.skipif(
    not STAND_IN, reason="the real message_filters keeps its lock when a callback raises"
)

MS = 1_000_000


def message(stamp_ns, name=None):
    """A message with a header stamp, in ns, and a name to know it by (the stamp if none is given)."""
    stamp = builtin_interfaces.Time(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    return types.SimpleNamespace(header=types.SimpleNamespace(stamp=stamp), name=stamp_ns if name is None else name)


class Rig:
    """Inputs without a middleware, a synchroniser, and the names in the sets it put out."""

    def __init__(self, kind, *args, inputs=2, **kwargs):
        self.inputs = [message_filters.SimpleFilter() for _ in range(inputs)]
        self.sync = getattr(message_filters, kind)(self.inputs, *args, **kwargs)
        self.sets = []
        self.sync.registerCallback(lambda *msgs: self.sets.append(tuple(m.name for m in msgs)))

    def feed(self, index, *stamps_ns):
        for stamp in stamps_ns:
            self.inputs[index].signalMessage(message(stamp))
        return self.sets


def exact(queue_size, **kwargs):
    return Rig("TimeSynchronizer", queue_size, **kwargs)


def approximate(queue_size, slop, **kwargs):
    return Rig("ApproximateTimeSynchronizer", queue_size, slop, **kwargs)


def test_callbacks_get_the_messages_then_their_own_arguments_in_order_of_registration():
    calls = []
    source = message_filters.SimpleFilter()
    first = source.registerCallback(lambda *args: calls.append(("a", *args)), 1, 2)
    second = source.registerCallback(lambda *args: calls.append(("b", *args)))
    source.signalMessage("x", "y")
    assert calls == [("a", "x", "y", 1, 2), ("b", "x", "y")]
    assert first != second


def test_exact_pairs_equal_stamps_only():
    rig = exact(10)
    rig.feed(0, 1, 2, 3)
    assert rig.feed(1, 2, 4) == [(2, 2)]
    assert rig.feed(0, 4) == [(2, 2), (4, 4)]


def test_exact_needs_every_input():
    rig = exact(10, inputs=3)
    rig.feed(0, 5)
    assert rig.feed(2, 5) == []
    assert rig.feed(1, 5) == [(5, 5, 5)]


def test_exact_takes_a_set_out_so_a_repeated_stamp_needs_a_new_partner():
    rig = exact(10)
    rig.feed(0, 7)
    rig.feed(1, 7)
    assert rig.feed(1, 7) == [(7, 7)]
    assert rig.feed(0, 7) == [(7, 7), (7, 7)]


def test_exact_a_full_queue_drops_the_oldest_stamp_not_the_first_arrival():
    rig = exact(2)
    rig.feed(0, 30, 10, 20)
    assert rig.feed(1, 10) == []
    assert rig.feed(1, 30) == [(30, 30)]


def test_exact_stamps_differ_by_one_nanosecond_across_a_second():
    rig = exact(5)
    rig.feed(0, 2 * 10**9)
    assert rig.feed(1, 2 * 10**9 - 1) == []


@pytest.mark.parametrize(("delta_ns", "paired"), [(10 * MS - 1, True), (10 * MS, False), (10 * MS + 1, False)])
@pytest.mark.parametrize("sign", [-1, 1])
def test_slop_is_exclusive(delta_ns, paired, sign):
    rig = approximate(5, 0.01)
    start = 10**9
    rig.feed(0, start)
    assert rig.feed(1, start + sign * delta_ns) == ([(start, start + sign * delta_ns)] if paired else [])


def test_no_slop_pairs_nothing():
    rig = approximate(5, 0.0)
    rig.feed(0, 10**9)
    assert rig.feed(1, 10**9) == []


def test_the_nearest_of_several_candidates_is_taken():
    rig = approximate(10, 0.1)
    rig.feed(0, 100 * MS, 150 * MS, 190 * MS)
    assert rig.feed(1, 155 * MS) == [(150 * MS, 155 * MS)]


def test_of_two_equally_near_the_first_arrival_is_taken():
    rig = approximate(10, 0.1)
    rig.feed(0, 120 * MS, 100 * MS)
    assert rig.feed(1, 110 * MS) == [(120 * MS, 110 * MS)]


def test_one_arrival_completes_one_set():
    rig = approximate(10, 0.1)
    rig.feed(0, 100 * MS, 101 * MS)
    assert rig.feed(1, 100 * MS) == [(100 * MS, 100 * MS)]
    assert rig.feed(1, 101 * MS) == [(100 * MS, 100 * MS), (101 * MS, 101 * MS)]


def test_greedy_pairing_can_put_sets_out_of_order():
    """The node has to drop these: a late pair arrives after a newer one."""
    rig = approximate(10, 0.02)
    rig.feed(0, 100 * MS, 133 * MS)
    assert rig.feed(1, 134 * MS, 101 * MS) == [(133 * MS, 134 * MS), (100 * MS, 101 * MS)]


def test_three_inputs_span_less_than_the_slop_together():
    rig = approximate(10, 0.01, inputs=3)
    rig.feed(0, 100 * MS)
    # Both are within the slop of the new message, but not of each other.
    rig.feed(1, 112 * MS)
    assert rig.feed(2, 106 * MS) == []
    # A worse candidate for the new message alone makes the set possible.
    assert rig.feed(1, 109 * MS) == [(100 * MS, 109 * MS, 106 * MS)]


def test_a_message_older_than_a_full_queue_is_gone_at_once():
    rig = approximate(1, 0.1)
    rig.feed(1, 105 * MS)
    rig.feed(0, 300 * MS)
    assert rig.feed(0, 100 * MS) == []
    assert rig.feed(1, 301 * MS) == [(300 * MS, 301 * MS)]


def test_stamps_of_rclpy_are_taken_too():
    rig = approximate(5, 0.01)
    rig.inputs[0].signalMessage(
        types.SimpleNamespace(header=types.SimpleNamespace(stamp=rclpy_time.Time(nanoseconds=50)), name="clock")
    )
    assert rig.feed(1, 60) == [("clock", 60)]


def test_headerless_messages_are_dropped_or_go_by_arrival():
    dropped, kept = approximate(5, 10.0), approximate(5, 10.0, allow_headerless=True)
    for rig in (dropped, kept):
        for name, source in zip("ab", rig.inputs, strict=True):
            source.signalMessage(types.SimpleNamespace(name=name))
    assert dropped.sets == []
    assert kept.sets == [("a", "b")]


def test_arrival_time_replaces_the_stamp():
    try:
        rig = approximate(5, 60.0, sync_arrival_time=True)
    except TypeError:
        pytest.skip("this message_filters has no sync_arrival_time")
    rig.feed(0, 1)
    assert rig.feed(1, 10**18) == [(1, 10**18)]


def jittered_stream(seed):
    """(input, stamp in ns) by arrival: two 30 Hz cameras, 5 ms apart, with jitter, drops and late arrivals."""
    rng = random.Random(seed)
    events = []
    for index in range(2):
        for k in range(24):
            stamp = int(10**9 + k * 33.3 * MS + index * 5 * MS + rng.uniform(-4, 4) * MS) // MS * MS
            late = rng.uniform(0, 60) * MS
            if rng.random() >= 0.2:
                events.append((stamp + late, index, stamp))
    return [(index, stamp) for _, index, stamp in sorted(events)]


# Put out by the real message_filters 4.11 (Jazzy) for jittered_stream(1); stamps in ms.
EXPECTED_PAIRS = {
    (10, 0.016): [
        (997, 1001),
        (1096, 1105),
        (1168, 1171),
        (1135, 1138),
        (1233, 1240),
        (1297, 1304),
        (1330, 1338),
        (1402, 1404),
        (1430, 1437),
        (1463, 1468),
        (1501, 1506),
        (1535, 1535),
        (1700, 1702),
    ],
    (2, 0.03): [
        (997, 1001),
        (1096, 1071),
        (1168, 1171),
        (1135, 1138),
        (1233, 1208),
        (1297, 1304),
        (1330, 1338),
        (1402, 1404),
        (1463, 1437),
        (1501, 1506),
        (1535, 1535),
        (1700, 1702),
    ],
}


@pytest.mark.parametrize(("queue_size", "slop"), list(EXPECTED_PAIRS))
def test_a_jittered_stream_gives_the_recorded_pairs(queue_size, slop):
    rig = approximate(queue_size, slop)
    for index, stamp in jittered_stream(1):
        rig.feed(index, stamp)
    assert [(a // MS, b // MS) for a, b in rig.sets] == EXPECTED_PAIRS[queue_size, slop]


@pytest.mark.parametrize("seed", range(20))
def test_sets_are_within_the_slop_and_use_no_message_twice(seed):
    rig = approximate(10, 0.016)
    for index, stamp in jittered_stream(seed):
        rig.feed(index, stamp)
    assert len(rig.sets) >= 5
    assert all(abs(a - b) < 16 * MS for a, b in rig.sets)
    assert all(len(set(side)) == len(side) for side in zip(*rig.sets, strict=True))


def test_cache_keeps_the_last_arrivals_and_passes_all_on():
    cache = message_filters.Cache(source := message_filters.SimpleFilter(), 2)
    got = []
    cache.registerCallback(lambda msg: got.append(msg.name))
    for stamp in (10, 30, 20):
        source.signalMessage(message(stamp))

    def at(ns):
        return rclpy_time.Time(nanoseconds=ns, clock_type=cache.cache_times[0].clock_type)

    assert got == [10, 30, 20]
    assert [m.name for m in cache.getInterval(at(0), at(100))] == [30, 20]
    assert [m.name for m in cache.getInterval(at(10), at(20))] == [20]
    assert cache.getElemAfterTime(at(31)) is None
    assert cache.getElemBeforeTime(at(30)).name == 20
    assert (cache.getOldestTime(), cache.getLastestTime()) == (at(30), at(20))


def test_a_cache_is_an_input_of_a_synchroniser():
    sources = [message_filters.SimpleFilter() for _ in range(2)]
    sync = message_filters.TimeSynchronizer([message_filters.Cache(s, 1) for s in sources], 5)
    got = []
    sync.registerCallback(lambda a, b: got.append((a.name, b.name)))
    for source in sources:
        source.signalMessage(message(8))
    assert got == [(8, 8)]


@only_stand_in
@pytest.mark.parametrize("make", [lambda: exact(5), lambda: approximate(5, 0.01)])
def test_a_raising_callback_leaves_the_synchroniser_usable(make):
    rig = make()

    def fail(*_):
        raise RuntimeError("callback failed")

    rig.sync.registerCallback(fail)
    rig.feed(0, 1000)
    with pytest.raises(RuntimeError, match="callback failed"):
        rig.feed(1, 1000)
    assert not rig.sync.lock.locked()
    # The failed set was consumed, the next one comes once.
    rig.sync.callbacks.popitem()
    rig.feed(0, 2000)
    assert rig.feed(1, 2000) == [(1000, 1000), (2000, 2000)]


def test_callbacks_of_two_threads_do_not_overlap():
    rig = approximate(50, 0.001)
    inside, overlaps = [], []

    def watch(*_):
        inside.append(1)
        if len(inside) > 1:
            overlaps.append(1)
        time.sleep(0.0005)
        inside.pop()

    rig.sync.registerCallback(watch)
    stamps = [10**9 + k * 33 * MS for k in range(40)]
    threads = [threading.Thread(target=rig.feed, args=(i, *stamps)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not overlaps
    assert sorted(rig.sets) == [(s, s) for s in stamps]


class FakeNode:
    """Records create_subscription calls; the subscription is a namespace with a topic_name."""

    def __init__(self):
        self.calls = []

    def create_subscription(self, msg_type, topic, callback, *args, **kwargs):
        self.calls.append((msg_type, topic, args, kwargs))
        self.callback = callback
        return types.SimpleNamespace(topic_name="/ns/" + topic)


def test_subscriber_hands_its_keywords_to_the_node_and_its_messages_on():
    node = FakeNode()
    subscriber = message_filters.Subscriber(node, int, "color", qos_profile=3, callback_group="group")
    message_filters.Subscriber(node, int, "depth")
    assert node.calls[0] == (int, "color", (), {"qos_profile": 3, "callback_group": "group"})
    assert node.calls[1][3] == {"qos_profile": 10}
    assert (subscriber.getTopic(), subscriber.topic_name) == ("color", "/ns/color")
    with pytest.raises(AttributeError):
        subscriber.no_such_attribute  # noqa: B018


def test_subscriber_passes_its_messages_on():
    node, got = FakeNode(), []
    subscriber = message_filters.Subscriber(node, int, "color")
    subscriber.registerCallback(lambda *args: got.append(args), "extra")
    node.callback(42)
    assert got == [(42, "extra")]


def test_live_subscribers_are_synchronised(monkeypatch, tmp_path):
    """Two real topics through rclpy in this process."""
    rclpy = pytest.importorskip("rclpy", reason="rclpy is not installed", exc_type=ImportError)
    pytest.importorskip("rclpy.executors", exc_type=ImportError)
    point = pytest.importorskip("geometry_msgs.msg", reason="geometry_msgs is not installed").PointStamped
    monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    monkeypatch.setenv("ROS_LOCALHOST_ONLY", "1")
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=1 + os.getpid() % 100)
    node = rclpy.create_node("message_filters_test", context=context)
    executor = rclpy.executors.SingleThreadedExecutor(context=context)
    executor.add_node(node)
    try:
        publishers = [node.create_publisher(point, topic, 10) for topic in ("left", "right")]
        inputs = [message_filters.Subscriber(node, point, topic, qos_profile=10) for topic in ("left", "right")]
        pairs = []
        sync = message_filters.ApproximateTimeSynchronizer(inputs, 10, 0.01)
        sync.registerCallback(lambda a, b: pairs.append((a.header.stamp.nanosec, b.header.stamp.nanosec)))
        for attempt in range(100):
            if pairs:
                break
            for offset, publisher in enumerate(publishers):
                msg = point()
                msg.header.stamp.sec, msg.header.stamp.nanosec = 1 + attempt, offset * MS
                publisher.publish(msg)
            executor.spin_once(timeout_sec=0.1)
        assert pairs[0] == (0, MS)
    finally:
        executor.shutdown()
        node.destroy_node()
        context.try_shutdown()
