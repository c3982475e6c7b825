"""A peer comes back while its old connection still seems to stand: nothing that was on its way there is lost."""

from __future__ import annotations

import os
import time

from support.pairs import TIMEOUT, until
from support.wire_peer import CAPABILITIES, capabilities, dial

from netmsg import DeliveryGuarantee, Søcket

INTERVAL = 5.0 if os.environ.get("NETMSG_SOAK") else 0.5
"""Seconds between two heartbeats of who has gone: it has one of them, and a second, to show itself."""

IDENTITY = b"I" * 16


def test_what_was_on_its_way_to_a_ghost_goes_to_who_comes_in_its_place_and_nobody_dials_twice() -> None:
    with Søcket(delivery_guarantee=DeliveryGuarantee.AT_LEAST_ONCE, linger=0, resend_after=60.0).bind(port=0) as sock:
        with dial(sock.bound_port, IDENTITY) as ghost:
            ghost.shake_hands(capabilities(int(INTERVAL * 1000)))
            sock.wait_for_peers(timeout=TIMEOUT)
            ghost.read_kind(CAPABILITIES)
            sock.send_many([b"%d" % number for number in range(100)], IDENTITY)
            begun = time.monotonic()
            with Søcket(identity=IDENTITY, linger=0).connect(port=sock.bound_port) as back:
                sock.send_many([b"%d" % number for number in range(100, 200)], IDENTITY)
                assert [int(back.recv(timeout=INTERVAL + TIMEOUT)) for _ in range(200)] == list(range(200))
                assert time.monotonic() - begun < INTERVAL + 1.0 + 2.0
                until(lambda: sock.stats().unacked == 0)
                assert (sock.stats().connections, back.stats().connections, back.stats().disconnections) == (2, 1, 0)
