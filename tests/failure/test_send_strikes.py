"""One interrupt at every place where it can strike inside of a send: what is kept is kept once and counted once, and no
message is forgotten by one who has it to keep."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from typing import Any, Final

import pytest
from support.lanes import addressed
from support.pairs import TIMEOUT
from support.strikes import Strike, Struck, strike_everywhere
from support.wire_peer import DATA, dial

from netmsg import DeliveryGuarantee, OnFull, SendMode, SendTimeoutError, Søcket
from netmsg.messaging.kept import Limits
from netmsg.messaging.routing import Router
from netmsg.wire.envelope import reliable_frame

RELIABLE: Final = DeliveryGuarantee.AT_LEAST_ONCE


def frame(number: int, size: int) -> Any:
    return reliable_frame(number.to_bytes(16, "big"), bytes(size), 1000)


@pytest.mark.parametrize("size", [0, 2000])
def test_what_is_kept_is_counted(size: int) -> None:
    def trial(strike: Strike) -> None:
        router = Router(SendMode.ROUNDROBIN, Limits(100, 1 << 30), reliable=True)
        placed = 0
        try:
            with strike:
                for number in range(6):
                    if number % 2:
                        router.place(addressed(frame(number, size)), b"peer")
                    else:
                        router.place(frame(number, size))
                    placed += 1
        except Struck:
            pass
        counted = router.unplaced, router.parked.large + router.waiting.large
        kept = router.take_all()
        assert counted == (len(kept), sum(size + 21 for _ in kept) if size else 0)
        assert placed <= len(kept) <= placed + 1

    assert strike_everywhere(trial) > 20


@pytest.mark.parametrize("size", [10, 200])
def test_what_is_published_goes_to_all_or_to_none(size: int) -> None:
    with ExitStack() as stack:
        # Of 100 bytes on a message is kept in two, and counted.
        sock = stack.enter_context(Søcket(SendMode.PUBLISH, send_hwm_bytes=1_000_000, on_full=OnFull.BLOCK, linger=0))
        sock.bind(port=0)
        peers = [stack.enter_context(dial(sock.bound_port)) for _ in range(5)]
        for peer in peers:
            peer.shake_hands()
        sock.wait_for_peers(len(peers), timeout=TIMEOUT)
        sent = 0

        def trial(strike: Strike) -> None:
            nonlocal sent
            with suppress(Struck), strike:
                for _ in range(2):
                    sent += 1
                    sock.send(b"%d " % sent + bytes(size))

        assert strike_everywhere(trial) > 20
        sock.send(b"end")
        got = []
        for peer in peers:
            got.append([peer.read_kind(DATA)[1]])
            while got[-1][-1] != b"end":
                got[-1].append(peer.read_kind(DATA)[1])
        assert all(one == got[0] for one in got)


@pytest.mark.parametrize("identity", [None, b"P" * 16])
@pytest.mark.parametrize("policy", [OnFull.DROP_OLDEST, OnFull.BLOCK])
def test_every_message_has_a_receipt_that_is_settled_in_the_end(policy: OnFull, identity: bytes | None) -> None:
    def trial(strike: Strike) -> None:
        with Søcket(delivery_guarantee=RELIABLE, send_hwm=3, on_full=policy, linger=0) as sock:
            receipts = []
            try:
                with strike:
                    for _ in range(6):
                        receipts.append(sock.send(b"message", identity, timeout=0))
            except (Struck, SendTimeoutError):
                pass
            stats = sock.stats()
            waiting = [receipt for receipt in receipts if not receipt.failed and not receipt.acked]
            assert len(waiting) <= stats.queued <= 3
            assert stats.unacked <= stats.queued <= stats.unacked + 1
        assert all(receipt.failed for receipt in receipts)

    assert strike_everywhere(trial) > 20
