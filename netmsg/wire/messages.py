"""What goes over a connection, in whatever dialect: messages on their way out, what is received, and what a peer says
of itself.

A message waits as the frame that it is in version 1, ready to be written; a peer of another dialect has it encoded when
it is written. A small one of which there is nothing else to say, because it goes to anybody, or from a Søcket that
publishes to everybody, at most once, is nothing but the ``bytes`` of that frame: see `Router.kind_of`. Any other is a
`Message`.
"""

from __future__ import annotations

from enum import Enum, Flag
from typing import Final, NamedTuple, Union

__all__ = [
    "ACKNOWLEDGEMENTS",
    "ANSWERS",
    "CAPABILITIES",
    "Capabilities",
    "FAILURES",
    "Features",
    "Frame",
    "Kind",
    "MESSAGES",
    "Message",
    "Queued",
    "READ_SIZE",
    "REFUSALS",
    "RELIABLE_MESSAGES",
    "REPLIES",
    "REQUESTS",
    "Run",
    "SUBSCRIPTIONS",
    "UNSUBSCRIPTIONS",
    "frame_of",
    "frame_size",
    "large_size",
    "message_id_of",
]

Frame = Union[bytes, tuple[bytes, bytes]]
"""One frame ready to be written: whole, or a large one as its header and its payload, which is not copied."""


class Kind(Enum):
    """What a message is, and so what becomes of it when its peer goes before it was sent."""

    PLAIN = "plain"
    """For anybody, at most once: another peer gets it."""
    ADDRESSED = "addressed"
    """For one peer, at most once: it goes with that."""
    PUBLISHED = "published"
    """For everybody, at most once: it waits for a peer that we dial, and goes with any other."""
    RELIABLE = "reliable"
    """For anybody or for one peer, at least once: another one gets it, or it waits for that one."""
    REQUEST = "request"
    """For anybody who answers or for one peer, at most once: who has asked for it asks another one."""
    REPLY = "reply"
    """The answer to a request, at most once: it goes with the one who has asked."""


class Message:
    """A message on its way out. Only what is large counts in bytes, and is kept in two."""

    __slots__ = ("addressee", "frame", "kind", "large", "message_id", "number")

    def __init__(self, kind: Kind, frame: Frame, large: int, message_id: bytes, addressee: bytes | None) -> None:
        self.kind = kind
        self.frame = frame
        self.large = large
        """How many bytes it counts for: those of its frame, if that is kept in two, or none."""
        self.message_id = message_id
        """16 bytes: by which a RELIABLE one is acknowledged, a REQUEST and its REPLY belong together, and any other,
        where only the newest is kept, is older or newer; otherwise none."""
        self.addressee = addressee
        """The identity of the one who is to get it; ``None`` if anybody may, or everybody."""
        self.number = 0
        """What the `Lane.given` of its peer was when it was last queued there. For RELIABLE ones."""

    def __repr__(self) -> str:
        return f"<Message {self.kind.value} {self.message_id.hex()} of {frame_size(self)} bytes>"


Queued = Union[bytes, Message]
"""What the queues hold."""


def frame_of(queued: Queued) -> Frame:
    """As it is in version 1."""
    return queued if isinstance(queued, bytes) else queued.frame


def frame_size(queued: Queued) -> int:
    frame = queued if isinstance(queued, bytes) else queued.frame
    return len(frame) if isinstance(frame, bytes) else len(frame[0]) + len(frame[1])


def large_size(queued: Queued) -> int:
    """How many bytes a message counts for."""
    return 0 if isinstance(queued, bytes) else queued.large


def message_id_of(queued: Queued) -> bytes:
    """None of most at-most-once messages."""
    return b"" if isinstance(queued, bytes) else queued.message_id


READ_SIZE: Final = 262_144
"""How many bytes to ask the kernel for while messages are small."""

# The kinds of a `Run`; any other is for nobody. What version 1 has too bears the same number there, so that its runs
# need no translation.

MESSAGES: Final = 0x03
"""Payloads, sent at most once."""
RELIABLE_MESSAGES: Final = 0x04
"""Payloads, to be acknowledged by their ids."""
ACKNOWLEDGEMENTS: Final = 0x05
"""Message ids."""
CAPABILITIES: Final = 0x80
"""For `Dialect.capabilities`."""
REQUESTS: Final = 0x81
"""Payloads, to be answered by their ids."""
REPLIES: Final = 0x82
"""Payloads, the answers to the requests of these ids."""
FAILURES: Final = 0x83
"""Why there is no answer to the requests of these ids, in UTF-8."""
REFUSALS: Final = 0x84
"""Message ids: they are for somebody else."""
SUBSCRIPTIONS: Final = 0x85
"""Prefixes: of what is published the other end wants what begins with one of them;"""
UNSUBSCRIPTIONS: Final = 0x86
"""and not with these any more."""
ANSWERS: Final = 0x100
"""What the dialect itself replies to the other end: to be sent as it is."""


class Run(NamedTuple):
    """Consecutive things of one kind, in the order they came."""

    kind: int
    bodies: list[bytes]
    message_ids: list[bytes] | None = None
    """One for each body, where these have any: `RELIABLE_MESSAGES`, `REQUESTS`, `REPLIES`, `FAILURES`."""


class Features(Flag):
    """What a netmsg peer understands beyond aiomsg's protocol; more than these, perhaps."""

    REQUESTS = 1
    NACK = 2
    SUBSCRIPTIONS = 4
    """Of those who publish."""


class Capabilities(NamedTuple):
    """What a netmsg peer says of itself."""

    heartbeat_interval: float
    """Seconds between its heartbeats while it has nothing else to send."""
    window: int
    """How many unacknowledged messages it will hold."""
    features: Features = Features(0)
