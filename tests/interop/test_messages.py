"""Messages of every size between netmsg and aiomsg, and what aiomsg makes of netmsg's own frames."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from support.aiomsg_process import AiomsgProcess
from support.pairs import TIMEOUT
from support.security import Security

from netmsg import DeliveryGuarantee, Søcket

pytestmark = pytest.mark.interop

HELLO, DATA, CAPABILITIES = 0x01, 0x03, 0x80
MIB = 2**20
ODD = [
    b"",
    b"\0",
    b"aiomsg-heartbeat",
    b"\x02",
    b"GET / HTTP/1.1\r\n\r\n",
    bytes(16) + b"\0REQ\0",
    bytes(range(256)),
    random.Random(1).randbytes(MIB),
    b"",
    random.Random(2).randbytes(MIB - 1),
]
"""Empty, a mebibyte, and what might be taken for something else."""

either_guarantee = pytest.mark.parametrize("guarantee", DeliveryGuarantee, ids=lambda guarantee: guarantee.value)


@either_guarantee
def test_empty_large_and_deceptive_messages_reach_aiomsg_as_they_are(guarantee: DeliveryGuarantee, security: Security,
                                                                     aiomsg: AiomsgProcess) -> None:
    receiver = aiomsg.bind(tls=security.peer_bind)
    with Søcket(delivery_guarantee=guarantee) as sender:
        sender.connect(port=receiver.port, ssl_context=security.connect)
        receipts = sender.send_many(ODD, timeout=TIMEOUT)
        assert [message for _, message in receiver.receive(len(ODD))] == ODD
        for receipt in receipts or []:
            receipt.wait(timeout=TIMEOUT)


@either_guarantee
def test_empty_large_and_deceptive_messages_come_from_aiomsg_as_they_are(guarantee: DeliveryGuarantee,
                                                                         security: Security,
                                                                         aiomsg: AiomsgProcess) -> None:
    with Søcket() as receiver:
        receiver.bind(port=0, ssl_context=security.bind)
        sender = aiomsg.connect(receiver.bound_port, tls=security.peer_connect, guarantee=guarantee)
        sender.send(*ODD)
        assert [receiver.recv(timeout=TIMEOUT) for _ in ODD] == ODD
        assert sender.wait_for_acks(0)["resent"] == 0


def test_many_small_messages_reach_aiomsg_in_order(security: Security, aiomsg: AiomsgProcess) -> None:
    messages = [b"%d" % number for number in range(10_000)]
    with Søcket() as sender:
        sender.bind(port=0, ssl_context=security.bind)
        receiver = aiomsg.connect(sender.bound_port, tls=security.peer_connect)
        sender.send_many(messages, timeout=TIMEOUT)
        assert receiver.receive(len(messages)) == [(sender.identity, message) for message in messages]


def test_many_small_messages_come_from_aiomsg_in_order(security: Security, aiomsg: AiomsgProcess) -> None:
    messages = [b"%d" % number for number in range(10_000)]
    sender = aiomsg.bind(tls=security.peer_bind)
    with Søcket() as receiver:
        receiver.connect(port=sender.port, ssl_context=security.connect)
        sender.send(*messages)
        received: list[bytes] = []
        while len(received) < len(messages):
            received += receiver.recv_many(1000, timeout=TIMEOUT)
        assert received == messages


def test_aiomsg_skips_the_frame_that_tells_our_capabilities(start_aiomsg: Callable[..., AiomsgProcess]) -> None:
    aiomsg = start_aiomsg()
    with Søcket() as binder, Søcket() as connector:
        binder.bind(port=0)
        dialler = aiomsg.connect(binder.bound_port)
        listener = aiomsg.bind()
        connector.connect(port=listener.port)
        binder.wait_for_peers(timeout=TIMEOUT)
        connector.wait_for_peers(timeout=TIMEOUT)
        binder.send(b"to the dialler")
        connector.send(b"to the listener")
        assert dialler.receive(1) == [(binder.identity, b"to the dialler")]
        assert listener.receive(1) == [(connector.identity, b"to the listener")]
        assert aiomsg.wait_for_frames(DATA, 2) == {HELLO: 2, CAPABILITIES: 2, DATA: 2}
