"""Both ends of a handshake, in one thread."""

from __future__ import annotations

import time

from netmsg.transports.plain import Transport

__all__ = ["shake"]

PATIENCE = 30.0


def shake(*ends: Transport) -> None:
    """Until it is over for all of them."""
    deadline = time.monotonic() + PATIENCE
    while any(end.handshaking for end in ends):
        assert time.monotonic() < deadline
        for end in ends:
            if end.handshaking:
                try:
                    end.handshake()
                except BlockingIOError:
                    pass
