"""The wall clock is set, by an hour: nothing happens."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from support.pairs import TIMEOUT, Background, until_waiting
from support.wire_peer import ACK, DATA_REQ, HEARTBEAT, WirePeer, capabilities, dial, frame

from netmsg import DeliveryGuarantee, Søcket

HOUR = 3600.0


def exchange_heartbeats(peer: WirePeer, count: int) -> None:
    """Of which nothing else comes in between."""
    for _ in range(count):
        assert peer.read_kind(HEARTBEAT, DATA_REQ)[0] == HEARTBEAT
        peer.send(frame(HEARTBEAT))


@pytest.mark.parametrize("offset", [HOUR, -HOUR], ids=["forwards", "backwards"])
def test_a_clock_that_is_set_parts_nobody_sends_nothing_again_and_keeps_nothing_back(
        offset: float, monkeypatch: pytest.MonkeyPatch) -> None:
    real, real_ns = time.time, time.time_ns
    with Søcket(heartbeat_interval=0.1, heartbeat_timeout=5.0, resend_after=60.0, linger=0,
                delivery_guarantee=DeliveryGuarantee.AT_LEAST_ONCE).bind(port=0) as sock:
        with dial(sock.bound_port) as peer:
            peer.shake_hands(capabilities(100))
            sock.wait_for_peers(timeout=TIMEOUT)
            receipt = sock.send(b"before")
            message_id = peer.read_kind(DATA_REQ)[1][:16]
            exchange_heartbeats(peer, 3)
            monkeypatch.setattr(time, "time", lambda: real() + offset)
            monkeypatch.setattr(time, "time_ns", lambda: real_ns() + int(offset * 1e9))
            exchange_heartbeats(peer, 10)
            monkeypatch.undo()
            exchange_heartbeats(peer, 10)
            peer.send(frame(ACK, message_id))
            assert receipt is not None
            receipt.wait(timeout=TIMEOUT)
            assert sock.stats().disconnections == sock.stats().resent == 0


@pytest.mark.parametrize("offset", [HOUR, -HOUR], ids=["forwards", "backwards"])
def test_who_waits_while_it_is_set_waits_for_as_long_as_was_said(
        offset: float, monkeypatch: pytest.MonkeyPatch) -> None:
    def waited(call: Callable[[], object]) -> float:
        begun = time.monotonic()
        with pytest.raises(TimeoutError):
            call()
        return time.monotonic() - begun

    real = time.time
    with Søcket(linger=0) as empty, Søcket(send_hwm=1, linger=0) as full:
        full.send(b"fills the queue")
        waiting = [Background(waited, lambda: empty.recv(timeout=1.0)),
                   Background(waited, lambda: full.send(b"x", timeout=1.0))]
        for call in waiting:
            until_waiting(call)
        monkeypatch.setattr(time, "time", lambda: real() + offset)
        for call in waiting:
            assert 1.0 <= call.result() < TIMEOUT
