"""At least once between netmsg and aiomsg: who acknowledges what, and when."""

from __future__ import annotations

import pytest
from support.aiomsg_process import AiomsgProcess
from support.pairs import TIMEOUT

from netmsg import AckMode, DeliveryGuarantee, Søcket

pytestmark = pytest.mark.interop

AT_LEAST_ONCE = DeliveryGuarantee.AT_LEAST_ONCE


def test_receipts_are_acknowledged_far_beyond_the_window_of_a_peer_that_names_none(aiomsg: AiomsgProcess) -> None:
    messages = [b"%d" % number for number in range(3000)]
    receiver = aiomsg.bind()
    with Søcket(delivery_guarantee=AT_LEAST_ONCE) as sender:
        sender.connect(port=receiver.port)
        receipts = sender.send_many(messages, timeout=TIMEOUT)
        assert receipts is not None
        for receipt in receipts:
            receipt.wait(timeout=TIMEOUT)
        assert receiver.receive(len(messages)) == [(sender.identity, message) for message in messages]
        assert (sender.stats().unacked, sender.stats().resent) == (0, 0)


def test_aiomsg_is_left_with_nothing_to_wait_for(aiomsg: AiomsgProcess) -> None:
    messages = [b"%d" % number for number in range(3000)]
    with Søcket() as receiver:
        receiver.bind(port=0)
        sender = aiomsg.connect(receiver.bound_port, guarantee=AT_LEAST_ONCE)
        sender.send(*messages)
        assert [receiver.recv(timeout=TIMEOUT) for _ in messages] == messages
        expected = len(messages)
        assert sender.wait_for_acks(expected) == {"acknowledged": expected, "waiting": 0, "resent": 0}


def test_a_message_is_not_acknowledged_to_aiomsg_before_recv_hands_it_over(aiomsg: AiomsgProcess) -> None:
    with Søcket() as receiver:
        receiver.bind(port=0)
        sender = aiomsg.connect(receiver.bound_port, guarantee=AT_LEAST_ONCE)
        sender.send(b"first", b"second")
        assert receiver.recv(timeout=TIMEOUT) == b"first"
        assert sender.wait_for_acks(1)["waiting"] == 1
        receiver.send(b"behind any acknowledgement")
        sender.receive(1)
        assert sender.wait_for_acks(0)["waiting"] == 1
        assert receiver.recv(timeout=TIMEOUT) == b"second"
        assert sender.wait_for_acks(2)["waiting"] == 0


def test_with_manual_acknowledgement_aiomsg_waits_for_ack(aiomsg: AiomsgProcess) -> None:
    with Søcket(ack_mode=AckMode.MANUAL) as receiver:
        receiver.bind(port=0)
        sender = aiomsg.connect(receiver.bound_port, guarantee=AT_LEAST_ONCE)
        sender.send(b"first", b"second")
        first, second = (receiver.recv_delivery(timeout=TIMEOUT) for _ in range(2))
        assert [first.data, second.data] == [b"first", b"second"]
        assert first.identity == second.identity == sender.identity
        receiver.send(b"behind any acknowledgement")
        sender.receive(1)
        assert sender.wait_for_acks(0)["waiting"] == 2
        second.ack()
        assert sender.wait_for_acks(1)["waiting"] == 1
        first.ack()
        assert sender.wait_for_acks(2) == {"acknowledged": 2, "waiting": 0, "resent": 0}


def test_on_arrival_aiomsg_gets_its_acknowledgement_without_recv(aiomsg: AiomsgProcess) -> None:
    with Søcket(ack_mode=AckMode.ON_ARRIVAL) as receiver:
        receiver.bind(port=0)
        sender = aiomsg.connect(receiver.bound_port, guarantee=AT_LEAST_ONCE)
        sender.send(b"not taken")
        assert sender.wait_for_acks(1)["waiting"] == 0
        assert receiver.recv(timeout=TIMEOUT) == b"not taken"


def test_a_message_refused_with_nack_is_delivered_again_when_aiomsg_resends_it(aiomsg: AiomsgProcess) -> None:
    """aiomsg resends after 5 s, which is what this test takes."""
    with Søcket(ack_mode=AckMode.MANUAL) as receiver:
        receiver.bind(port=0)
        sender = aiomsg.connect(receiver.bound_port, guarantee=AT_LEAST_ONCE)
        sender.send(b"try me again")
        receiver.recv_delivery(timeout=TIMEOUT).nack()
        again = receiver.recv_delivery(timeout=TIMEOUT)
        assert again.data == b"try me again"
        again.ack()
        assert sender.wait_for_acks(1) == {"acknowledged": 1, "waiting": 0, "resent": 1}


def test_each_end_acknowledges_the_other_in_a_conversation_by_identity(aiomsg: AiomsgProcess) -> None:
    messages = [b"%d" % number for number in range(100)]
    echo = aiomsg.bind(guarantee=AT_LEAST_ONCE)
    with (Søcket(delivery_guarantee=AT_LEAST_ONCE, linger=1.0) as one,
          Søcket(delivery_guarantee=AT_LEAST_ONCE, linger=1.0) as other):
        one.connect(port=echo.port)
        other.connect(port=echo.port)
        echo.start_echo(2 * len(messages))
        receipts = [sock.send(sock.identity + message) for message in messages for sock in (one, other)]
        for sock in (one, other):
            replies = [sock.recv_identity(timeout=TIMEOUT) for _ in messages]
            assert replies == [(echo.identity, sock.identity + message) for message in messages]
        for receipt in receipts:
            assert receipt is not None
            receipt.wait(timeout=TIMEOUT)
        assert echo.wait_for_acks(len(receipts)) == {"acknowledged": len(receipts), "waiting": 0, "resent": 0}
