"""What the system tells of the other end, in `struct tcp_info`, here written by hand."""

from __future__ import annotations

import struct

import pytest

from netmsg.sockets.liveness import _is_answered


def tcp_info(*, unacknowledged: int = 0, probes: int = 0, last: float) -> bytes:
    """``probes``: those that were not answered; ``last``: how many seconds ago the last acknowledgement came."""
    numbers = [0] * 13
    numbers[4], numbers[12] = unacknowledged, int(last * 1000)
    return struct.pack("=8B13I", 1, 0, 0, probes, 0, 0, 0, 0, *numbers)


@pytest.mark.parametrize(("info", "answered"), [
    (tcp_info(last=3600.0), True),
    (tcp_info(unacknowledged=3, last=1.9), True),
    (tcp_info(unacknowledged=3, last=2.1), False),
    (tcp_info(probes=1, last=1.9), True),
    (tcp_info(probes=1, last=60.0), False),
], ids=["nothing to answer", "sent just now", "sent in vain", "full, and asked just now", "full, and asked in vain"])
def test_who_answers(info: bytes, answered: bool) -> None:
    assert _is_answered(info, 2.0) is answered
