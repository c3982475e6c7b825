"""What goes over a connection, in whatever dialect: what is received, and what a peer says of itself."""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = [
    "ACKNOWLEDGEMENTS",
    "ANSWERS",
    "CAPABILITIES",
    "Capabilities",
    "MESSAGES",
    "READ_SIZE",
    "RELIABLE_MESSAGES",
    "Run",
]

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
ANSWERS: Final = 0x100
"""What the dialect itself replies to the other end: to be sent as it is."""


class Run(NamedTuple):
    """Consecutive things of one kind, in the order they came."""

    kind: int
    bodies: list[bytes]
    message_ids: list[bytes] | None = None
    """Those of `RELIABLE_MESSAGES`, one for each body."""


class Capabilities(NamedTuple):
    """What a netmsg peer says of itself."""

    heartbeat_interval: float
    """Seconds between its heartbeats while it has nothing else to send."""
    window: int
    """How many unacknowledged messages it will hold."""
