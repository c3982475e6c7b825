"""Every role, send mode and guarantee, with TLS and without, from netmsg to aiomsg and back."""

from __future__ import annotations

from contextlib import ExitStack
from typing import NamedTuple

import pytest
from support.aiomsg_process import AiomsgProcess
from support.pairs import TIMEOUT
from support.security import Security

from netmsg import DeliveryGuarantee, SendMode, Søcket

pytestmark = pytest.mark.interop

BRIEFLY = 0.5
"""An aiomsg of 2019 that has bound does not end a connection in answer to our end."""

COUNT = 20
LAST = b"last"
MESSAGES = [f"{number:04}".encode() for number in range(COUNT)]
HALF = COUNT // 2


class Way(NamedTuple):
    """A way of sending."""

    mode: SendMode
    guarantee: DeliveryGuarantee
    by_identity: bool = False

    @property
    def reliable(self) -> bool:
        return self.guarantee is DeliveryGuarantee.AT_LEAST_ONCE

    def check(self, shares: list[list[bytes]]) -> None:
        """Whether two receivers got what they should, each in order: by identity the first gets the first half."""
        if self.by_identity:
            assert shares == [MESSAGES[:HALF], MESSAGES[HALF:]]
        elif self.mode is SendMode.PUBLISH:
            assert shares == [MESSAGES, MESSAGES]
        else:
            assert sorted(shares) == [MESSAGES[::2], MESSAGES[1::2]]


WAYS = {
    "round-robin, at most once": Way(SendMode.ROUNDROBIN, DeliveryGuarantee.AT_MOST_ONCE),
    "round-robin, at least once": Way(SendMode.ROUNDROBIN, DeliveryGuarantee.AT_LEAST_ONCE),
    "publish, at most once": Way(SendMode.PUBLISH, DeliveryGuarantee.AT_MOST_ONCE),
    "by identity, at most once": Way(SendMode.ROUNDROBIN, DeliveryGuarantee.AT_MOST_ONCE, by_identity=True),
    "by identity, at least once": Way(SendMode.ROUNDROBIN, DeliveryGuarantee.AT_LEAST_ONCE, by_identity=True),
    "by identity, publisher": Way(SendMode.PUBLISH, DeliveryGuarantee.AT_MOST_ONCE, by_identity=True),
}

every_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
either_role = pytest.mark.parametrize("netmsg_binds", [True, False], ids=["netmsg binds", "netmsg connects"])


@every_way
@either_role
def test_netmsg_sends_and_two_aiomsg_peers_receive(way: Way, netmsg_binds: bool, security: Security,
                                                   aiomsg: AiomsgProcess) -> None:
    with Søcket(way.mode, way.guarantee, linger=BRIEFLY) as sender:
        if netmsg_binds:
            sender.bind(port=0, ssl_context=security.bind)
            receivers = [aiomsg.connect(sender.bound_port, tls=security.peer_connect) for _ in range(2)]
        else:
            receivers = [aiomsg.bind(tls=security.peer_bind) for _ in range(2)]
            for receiver in receivers:
                sender.connect(port=receiver.port, ssl_context=security.connect)
        sender.wait_for_peers(2, timeout=TIMEOUT)
        assert {peer.identity for peer in sender.peers()} == {receiver.identity for receiver in receivers}
        assert all((peer.tls is not None) is (security.bind is not None) for peer in sender.peers())

        receipts = []
        for number, message in enumerate(MESSAGES):
            identity = receivers[number // HALF].identity if way.by_identity else None
            receipts.append(sender.send(message, identity, timeout=TIMEOUT))
        for receiver in receivers:
            receipts.append(sender.send(LAST, receiver.identity, timeout=TIMEOUT))

        received = [receiver.receive_until(LAST) for receiver in receivers]
        assert {identity for share in received for identity, _ in share} == {sender.identity}
        way.check([[message for _, message in share] for share in received])
        for receipt in receipts:
            assert (receipt is not None) is way.reliable
            if receipt is not None:
                receipt.wait(timeout=TIMEOUT)
                assert receipt.acked
        assert sender.stats().resent == 0
        assert sender.close() == 0


@every_way
@either_role
def test_aiomsg_sends_and_two_netmsg_peers_receive(way: Way, netmsg_binds: bool, security: Security,
                                                   aiomsg: AiomsgProcess) -> None:
    with ExitStack() as stack:
        receivers = [stack.enter_context(Søcket(linger=BRIEFLY)) for _ in range(2)]
        if netmsg_binds:
            for receiver in receivers:
                receiver.bind(port=0, ssl_context=security.bind)
            sender = aiomsg.connect(*(receiver.bound_port for receiver in receivers), tls=security.peer_connect,
                                    mode=way.mode, guarantee=way.guarantee)
        else:
            sender = aiomsg.bind(tls=security.peer_bind, mode=way.mode, guarantee=way.guarantee)
            for receiver in receivers:
                receiver.connect(port=sender.port, ssl_context=security.connect)
        assert sender.wait_for_peers(2) == {receiver.identity for receiver in receivers}

        if way.by_identity:
            sender.send(*MESSAGES[:HALF], to=receivers[0].identity)
            sender.send(*MESSAGES[HALF:], to=receivers[1].identity)
        else:
            sender.send(*MESSAGES)
        for receiver in receivers:
            sender.send(LAST, to=receiver.identity)

        shares: list[list[bytes]] = []
        for receiver in receivers:
            shares.append([])
            while (received := receiver.recv_identity(timeout=TIMEOUT)) != (sender.identity, LAST):
                assert received[0] == sender.identity
                shares[-1].append(received[1])
        way.check(shares)
        expected = COUNT + len(receivers) if way.reliable else 0
        assert sender.wait_for_acks(expected) == {"acknowledged": expected, "waiting": 0, "resent": 0}
        assert [receiver.stats().duplicates for receiver in receivers] == [0, 0]
