"""Topics of a bag as its files describe them, whatever they are stored in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

#: How the standard messages of ROS 2 are serialised; of other messages only the bytes can be known.
CDR = "cdr"


@dataclass(frozen=True)
class Connection:
    """One topic.

    Attributes:
        topic: Name.
        msgtype: Type, for instance "sensor_msgs/msg/Image"; empty where the bag has none.
        encoding: How its messages are serialised, :data:`CDR` or for instance "json".
        definition: Text of the message definition (.msg or IDL); empty where the bag has none.
        digest: Hash of the type; empty where the bag has none.
        qos: Offered QoS profiles, as rosbags describes them.
        count: Number of messages.
    """

    topic: str
    msgtype: str
    encoding: str = CDR
    definition: str = ""
    digest: str = ""
    qos: tuple[Any, ...] = ()
    count: int = 0

    @property
    def key(self) -> tuple[str, str, str]:
        """What makes connections of several files, or of several publishers, one."""
        return self.topic, self.msgtype, self.encoding

    def merged(self, other: Connection) -> Connection:
        """Returns this connection with what it lacks from another one of the same key, and the messages of both."""
        return replace(
            self,
            definition=self.definition or other.definition,
            digest=self.digest or other.digest,
            qos=self.qos + tuple(profile for profile in other.qos if profile not in self.qos),
            count=self.count + other.count,
        )


def parse_qos(text: Any) -> tuple[Any, ...]:
    """Offered QoS profiles from the YAML text (or its parsed list) that rosbag2 keeps; none where it cannot be read."""
    from rosbags.rosbag2.metadata import parse_qos as parse

    try:
        return tuple(parse(text or ""))
    except Exception:  # whatever its parser raises on a damaged text: a topic without QoS can still be played
        return ()


def topics_of(connections: Iterable[Connection]) -> str:
    """Names of topics in a message."""
    names = sorted({c.topic for c in connections})
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
