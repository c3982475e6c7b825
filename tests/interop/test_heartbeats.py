"""Idle, silent and dead connections between netmsg and an aiomsg whose heartbeat is quicker than the usual 5 s."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from support.aiomsg_process import AiomsgProcess
from support.pairs import TIMEOUT, wait_for_event

from netmsg import DeliveryGuarantee, Disconnected, Søcket

pytestmark = pytest.mark.interop

INTERVAL, DEAD_AFTER = 0.4, 2.0
HELLO, HEARTBEAT = 0x01, 0x02

Start = Callable[..., AiomsgProcess]


def test_idle_connections_survive_on_heartbeats_alone(start_aiomsg: Start) -> None:
    aiomsg = start_aiomsg(heartbeat=(INTERVAL, DEAD_AFTER))
    with (Søcket(heartbeat_interval=INTERVAL, heartbeat_timeout=DEAD_AFTER) as binder,
          Søcket(heartbeat_interval=INTERVAL, heartbeat_timeout=DEAD_AFTER) as connector):
        binder.bind(port=0)
        dialler = aiomsg.connect(binder.bound_port)
        listener = aiomsg.bind()
        connector.connect(port=listener.port)
        binder.wait_for_peers(timeout=TIMEOUT)
        connector.wait_for_peers(timeout=TIMEOUT)
        idle_since = time.monotonic()

        # From either socket, enough for longer than both ends would bear silence.
        frames = aiomsg.wait_for_frames(HEARTBEAT, 2 * 8)
        assert time.monotonic() - idle_since > DEAD_AFTER
        assert frames[HELLO] == 2, "they did not connect anew"
        for sock, peer in ((binder, dialler), (connector, listener)):
            assert sock.stats().disconnections == 0
            sock.send(b"still there")
            assert peer.receive(1) == [(sock.identity, b"still there")]
            peer.send(b"so am I")
            assert sock.recv_identity(timeout=TIMEOUT) == (peer.identity, b"so am I")


@pytest.mark.parametrize("netmsg_binds", [True, False], ids=["netmsg binds", "netmsg connects"])
def test_an_aiomsg_that_falls_silent_is_dead_within_the_timeout_and_welcome_afterwards(netmsg_binds: bool,
                                                                                       start_aiomsg: Start) -> None:
    aiomsg = start_aiomsg(heartbeat=(INTERVAL, DEAD_AFTER))
    with Søcket(delivery_guarantee=DeliveryGuarantee.AT_LEAST_ONCE, heartbeat_interval=INTERVAL,
                heartbeat_timeout=DEAD_AFTER) as sock:
        if netmsg_binds:
            sock.bind(port=0)
            peer = aiomsg.connect(sock.bound_port)
        else:
            peer = aiomsg.bind()
            sock.connect(port=peer.port)
        sock.wait_for_peers(timeout=TIMEOUT)

        aiomsg.pause()
        paused_at = time.monotonic()
        receipt = sock.send(b"for later")
        event = wait_for_event(sock, Disconnected)
        took = time.monotonic() - paused_at
        assert event.peer == peer.identity and "nothing heard" in event.reason
        assert DEAD_AFTER - 2 * INTERVAL < took < DEAD_AFTER + 1.0
        assert receipt is not None and not receipt.acked

        aiomsg.resume()
        receipt.wait(timeout=TIMEOUT)
        assert peer.receive(1) == [(sock.identity, b"for later")]
