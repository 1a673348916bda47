"""Other nodes that cannot connect to ours because of QoS: what is said, and that nothing is said of those that can."""

import time

import pytest

rclpy = pytest.importorskip(
    "rclpy", reason="needs rclpy (make venv installs it from PyPI; on a ROS machine source ROS)"
)

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus  # noqa: E402
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data  # noqa: E402
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2  # noqa: E402

from d2a2_ros.qos import connection_problem, publisher_options, subscription_options  # noqa: E402

BEST_EFFORT, RELIABLE = ReliabilityPolicy.BEST_EFFORT, ReliabilityPolicy.RELIABLE
VOLATILE, LATCHED = DurabilityPolicy.VOLATILE, DurabilityPolicy.TRANSIENT_LOCAL


def profile(reliability, durability):
    return QoSProfile(depth=1, reliability=reliability, durability=durability)


class Graph:
    """A node of ours in a namespace, and another one."""

    def __init__(self, **overrides):
        given = [rclpy.parameter.Parameter(name, value=value) for name, value in overrides.items()]
        self.ours = rclpy.create_node("upsample_node", namespace="/front", parameter_overrides=given)
        self.theirs = rclpy.create_node("driver", namespace="/cam")

    def problem(self, endpoints=1):
        """What is said as soon as ``endpoints`` of the other node are known."""
        end = time.monotonic() + 20

        def known():
            names, ours = {"/front/color", "/front/out", "/diagnostics"}, self.ours
            return sum(
                info.node_name == "driver"
                for name in names
                for info in ours.get_publishers_info_by_topic(name) + ours.get_subscriptions_info_by_topic(name)
            )

        while known() < endpoints:
            assert time.monotonic() < end, "the other node is not discovered"
            time.sleep(0.01)
        return connection_problem(self.ours)


@pytest.fixture
def graph(ros):
    made = []

    def make(**overrides):
        made.append(Graph(**overrides))
        return made[-1]

    yield make
    for one in made:
        one.ours.destroy_node()
        one.theirs.destroy_node()


@pytest.mark.parametrize(
    "theirs", [(BEST_EFFORT, VOLATILE), (RELIABLE, VOLATILE), (BEST_EFFORT, LATCHED), (RELIABLE, LATCHED)]
)
@pytest.mark.parametrize(
    "asked", [(BEST_EFFORT, VOLATILE), (RELIABLE, VOLATILE), (BEST_EFFORT, LATCHED), (RELIABLE, LATCHED)]
)
def test_a_publisher_that_offers_less_is_named_with_the_parameters(graph, theirs, asked):
    """Whether there is a problem is what the middleware itself says: whether they are connected."""
    names = [policy.name.lower() for policy in asked]
    parameters = [f"qos_overrides./front/color.subscription.{name}" for name in ("reliability", "durability")]
    g = graph(**dict(zip(parameters, names, strict=True)))
    g.ours.create_subscription(Image, "color", lambda _: None, **subscription_options())
    publisher = g.theirs.create_publisher(Image, "/front/color", profile(*theirs))
    problem = g.problem()
    end = time.monotonic() + (0.3 if problem else 20)
    while not publisher.get_subscription_count() and time.monotonic() < end:
        time.sleep(0.01)
    assert (problem is None) == (publisher.get_subscription_count() == 1)
    if problem:
        offered = [policy.name.lower() for policy in theirs]
        assert problem.code == "input_qos"
        both = f"it offers {', '.join(offered)}, this node asks for {', '.join(names)}; "
        assert problem.message.startswith(f"nothing comes from /cam/driver on /front/color: {both}")
        apart = [
            i
            for i in (0, 1)
            if (offered[i], names[i]) in (("best_effort", "reliable"), ("volatile", "transient_local"))
        ]
        for i in (0, 1):
            assert (f"{parameters[i]}: {offered[i]}" in problem.message) == (i in apart)


def test_the_cure_that_is_named_cures(graph):
    """Start again with the parameters of the message."""
    name = "qos_overrides./front/color.subscription.reliability"
    first = graph(**{name: "reliable"})
    first.ours.create_subscription(Image, "color", lambda _: None, **subscription_options())
    first.theirs.create_publisher(Image, "/front/color", profile(BEST_EFFORT, VOLATILE))
    message = first.problem().message
    assert f"start this node with {name}: best_effort, or let /cam/driver offer reliable" in message
    first.ours.destroy_node()
    second = graph(**{name: "best_effort"})
    second.ours.create_subscription(Image, "color", lambda _: None, **subscription_options())
    assert second.problem() is None


def test_a_subscriber_that_asks_for_more_is_named(graph):
    g = graph()
    publisher = g.ours.create_publisher(Image, "out", **publisher_options(depth=2))
    g.theirs.create_subscription(Image, "/front/out", lambda _: None, qos_profile_sensor_data)
    assert g.problem() is None
    g.theirs.create_subscription(Image, "/front/out", lambda _: None, profile(RELIABLE, LATCHED))
    problem = g.problem(2)
    assert problem.code == "output_qos"
    assert problem.message == (
        "/cam/driver gets nothing from /front/out: it asks for reliable, transient_local, this node offers reliable, volatile; "
        "start this node with qos_overrides./front/out.publisher.durability: transient_local, or let /cam/driver ask for volatile"
    )
    assert publisher.get_subscription_count() == 1


def test_no_parameter_is_named_where_there_is_none(graph):
    g = graph()
    g.ours.create_publisher(DiagnosticArray, "/diagnostics", 10)
    g.theirs.create_subscription(DiagnosticArray, "/diagnostics", lambda _: None, profile(RELIABLE, LATCHED))
    message = g.problem().message
    assert message.endswith("this node offers reliable, volatile; let /cam/driver ask for volatile")


def test_one_connection_of_two_suffices(graph):
    """As camera infos are subscribed to: for latched publishers a second time."""
    g = graph()
    g.ours.create_subscription(CameraInfo, "color", lambda _: None, profile(RELIABLE, LATCHED))
    g.theirs.create_publisher(CameraInfo, "/front/color", profile(RELIABLE, VOLATILE))
    assert g.problem().code == "input_qos"
    g.ours.create_subscription(CameraInfo, "color", lambda _: None, **subscription_options())
    assert g.problem() is None


def test_another_message_type_is_not_a_matter_of_qos(graph):
    """silence.py says which parameter that one needs."""
    g = graph(**{"qos_overrides./front/color.subscription.reliability": "reliable"})
    g.ours.create_subscription(Image, "color", lambda _: None, **subscription_options())
    # Of its own: one participant takes only one type of a topic.
    context = rclpy.Context()
    rclpy.init(args=[], context=context)
    other = rclpy.create_node("driver", context=context)
    try:
        other.create_publisher(CompressedImage, "/front/color", profile(BEST_EFFORT, VOLATILE))
        assert g.problem() is None
    finally:
        other.destroy_node()
        rclpy.shutdown(context=context)


def test_the_node_says_who_cannot_connect_and_is_well_again_when_they_are_gone(bench):
    b = bench()
    b.listen("/diagnostics", DiagnosticArray)
    latched = b.tester.create_subscription(
        PointCloud2, "depth_upsampled/points", lambda _: None, profile(RELIABLE, LATCHED)
    )

    def shown():
        status = b.out["/diagnostics"][-1].status[0] if b.out["/diagnostics"] else None
        return (status.level, {v.key: v.value for v in status.values}["problem"], status.message) if status else None

    b.wait(lambda: shown() and shown()[:2] == (DiagnosticStatus.WARN, "output_qos"))
    assert "qos_overrides./depth_upsampled/points.publisher.durability: transient_local" in shown()[2]
    b.wait(lambda: any("/tester gets nothing from /depth_upsampled/points" in w for w in b.warnings))
    b.tester.destroy_subscription(latched)
    b.wait(lambda: shown()[1] != "output_qos")


def test_the_node_names_a_driver_from_which_nothing_comes(bench):
    b = bench(**{"qos_overrides./color/image_raw.subscription.reliability": "reliable"})
    b.tester.create_publisher(Image, "color/image_raw", qos_profile_sensor_data)
    b.wait(
        lambda: any("nothing comes from /tester on /color/image_raw: it offers best_effort" in w for w in b.warnings)
    )
    assert any("qos_overrides./color/image_raw.subscription.reliability: best_effort" in w for w in b.warnings)
