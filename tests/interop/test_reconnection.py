"""One end goes away and comes back, netmsg or aiomsg, the one that binds or the one that connects."""

from __future__ import annotations

import secrets
from collections.abc import Callable

import pytest
from support.aiomsg_process import AiomsgProcess, reserved_port
from support.pairs import TIMEOUT, wait_for_event
from support.security import Security

from netmsg import DeliveryGuarantee, Disconnected, Søcket

pytestmark = pytest.mark.interop

AT_LEAST_ONCE = DeliveryGuarantee.AT_LEAST_ONCE
BEFORE, UNREAD, AWAY = ([b"%s %d" % (word, number) for number in range(5)] for word in (b"before", b"unread", b"away"))

Start = Callable[..., AiomsgProcess]


def test_a_connector_carries_on_when_aiomsg_is_killed_and_comes_back_on_its_port(security: Security,
                                                                                 start_aiomsg: Start) -> None:
    with reserved_port() as port, Søcket(delivery_guarantee=AT_LEAST_ONCE) as sender:
        first = start_aiomsg()
        receiver = first.bind(port, tls=security.peer_bind)
        sender.connect(port=port, ssl_context=security.connect)
        receipts = sender.send_many(BEFORE) or []
        assert [message for _, message in receiver.receive(len(BEFORE))] == BEFORE
        for receipt in receipts:
            receipt.wait(timeout=TIMEOUT)

        first.pause()
        receipts = sender.send_many(UNREAD) or []
        first.kill()
        assert wait_for_event(sender, Disconnected).peer == receiver.identity
        receipts += sender.send_many(AWAY) or []
        assert not any(receipt.acked for receipt in receipts)

        successor = start_aiomsg().bind(port, tls=security.peer_bind)
        assert [message for _, message in successor.receive(len(UNREAD + AWAY))] == UNREAD + AWAY
        for receipt in receipts:
            receipt.wait(timeout=TIMEOUT)
        assert [peer.identity for peer in sender.peers()] == [successor.identity]


def test_a_binder_carries_on_when_aiomsg_is_killed_and_another_connects(security: Security,
                                                                        start_aiomsg: Start) -> None:
    with Søcket(delivery_guarantee=AT_LEAST_ONCE, linger=1.0) as sender:
        sender.bind(port=0, ssl_context=security.bind)
        first = start_aiomsg()
        receiver = first.connect(sender.bound_port, tls=security.peer_connect)
        receipts = sender.send_many(BEFORE) or []
        assert [message for _, message in receiver.receive(len(BEFORE))] == BEFORE
        for receipt in receipts:
            receipt.wait(timeout=TIMEOUT)

        first.pause()
        receipts = sender.send_many(UNREAD) or []
        first.kill()
        assert wait_for_event(sender, Disconnected).peer == receiver.identity
        receipts += sender.send_many(AWAY) or []

        successor = start_aiomsg().connect(sender.bound_port, tls=security.peer_connect)
        assert [message for _, message in successor.receive(len(UNREAD + AWAY))] == UNREAD + AWAY
        for receipt in receipts:
            receipt.wait(timeout=TIMEOUT)


def test_what_is_sent_at_most_once_while_aiomsg_is_away_waits_for_it(start_aiomsg: Start) -> None:
    with reserved_port() as port, Søcket() as sender:
        first = start_aiomsg()
        first.bind(port)
        sender.connect(port=port)
        sender.wait_for_peers(timeout=TIMEOUT)
        first.kill()
        wait_for_event(sender, Disconnected)
        sender.send_many(AWAY)
        assert [message for _, message in start_aiomsg().bind(port).receive(len(AWAY))] == AWAY


def test_an_aiomsg_connector_carries_on_when_we_close_and_bind_again(security: Security,
                                                                     aiomsg: AiomsgProcess) -> None:
    with reserved_port() as port:
        with Søcket() as first:
            first.bind(port=port, ssl_context=security.bind)
            peer = aiomsg.connect(port, tls=security.peer_connect, guarantee=AT_LEAST_ONCE)
            peer.send(*BEFORE)
            assert [first.recv(timeout=TIMEOUT) for _ in BEFORE] == BEFORE
            peer.wait_for_acks(len(BEFORE))
        peer.wait_for_peers(0)
        peer.send(*AWAY)
        with Søcket() as successor:
            successor.bind(port=port, ssl_context=security.bind)
            # In any order: while nobody is there aiomsg puts messages at the end of its queue again.
            assert sorted(successor.recv(timeout=TIMEOUT) for _ in AWAY) == AWAY
            expected = len(BEFORE + AWAY)
            assert peer.wait_for_acks(expected) == {"acknowledged": expected, "waiting": 0, "resent": 0}
            successor.send(b"and back")
            assert peer.receive(1) == [(successor.identity, b"and back")]


def test_an_aiomsg_binder_knows_us_again_when_we_close_and_connect_under_one_identity(security: Security,
                                                                                      aiomsg: AiomsgProcess) -> None:
    identity = secrets.token_bytes(16)
    peer = aiomsg.bind(tls=security.peer_bind, guarantee=AT_LEAST_ONCE)
    for _ in range(3):
        with Søcket(identity=identity, linger=0.5) as sock:  # that of 2019 never answers a goodbye
            sock.connect(port=peer.port, ssl_context=security.connect)
            assert peer.wait_for_peers(1) == {identity}
            peer.send(*BEFORE, to=identity)
            assert [sock.recv(timeout=TIMEOUT) for _ in BEFORE] == BEFORE
            sock.send(b"and back")
            assert peer.receive(1) == [(identity, b"and back")]
        peer.wait_for_peers(0)
    assert peer.wait_for_acks(3 * len(BEFORE))["waiting"] == 0
