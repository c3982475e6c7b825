"""At least once: receipts, acknowledgements, resends under one id, duplicates, windows."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from support.pairs import TIMEOUT, Background, connected, until, wait_for_event
from support.wire_peer import ACK, DATA_REQ, NACK, WirePeer, accept, capabilities, dial, frame, listening

from netmsg import (
    AckMode, ClosedError, DeliveryGuarantee, Disconnected, OnFull, Receipt, SendTimeoutError, Søcket, Undelivered,
    UndeliveredError,
)

RELIABLE = DeliveryGuarantee.AT_LEAST_ONCE


def request(message_id: bytes, data: bytes) -> bytes:
    return frame(DATA_REQ, message_id + data)


def read_request(peer: WirePeer) -> tuple[bytes, bytes]:
    _, body = peer.read_kind(DATA_REQ)
    return body[:16], body[16:]


def acks(peer: WirePeer, count: int) -> list[bytes]:
    return [peer.read_kind(ACK)[1] for _ in range(count)]


def identifier(number: int) -> bytes:
    return number.to_bytes(16, "big")


def test_a_receipt_tells_when_the_message_was_acknowledged() -> None:
    with connected({}, {"delivery_guarantee": RELIABLE}) as (a, b):
        receipt = b.send(b"x")
        assert isinstance(receipt, Receipt) and len(receipt.message_id) == 16
        assert not receipt.acked and not receipt.failed
        with pytest.raises(TimeoutError):
            receipt.wait(timeout=0)
        waiting = Background(receipt.wait)
        assert a.recv(timeout=TIMEOUT) == b"x"
        waiting.result()
        assert receipt.acked and not receipt.failed
        receipts = b.send_many([b"1", b"2"])
        assert receipts is not None and len(receipts) == 2
        for _ in range(2):
            a.recv(timeout=TIMEOUT)
        for receipt in receipts:
            receipt.wait(timeout=TIMEOUT)


def test_nothing_is_acknowledged_before_it_is_handed_over() -> None:
    """A receive queue of 100 and 1000 messages: 100 acknowledged means 100 delivered."""
    with Søcket(recv_hwm=100, linger=0) as sock:
        sock.bind(port=0)
        with dial(sock.bound_port) as peer:
            peer.shake_hands(*(request(identifier(n), b"%d" % n) for n in range(1000)))
            until(lambda: sock.stats().received >= 100)
            for n in range(50):
                assert sock.recv(timeout=TIMEOUT) == b"%d" % n
            assert acks(peer, 50) == [identifier(n) for n in range(50)]
            peer.sock.settimeout(0.05)
            with pytest.raises(TimeoutError):
                peer.read_kind(ACK)
            peer.sock.settimeout(TIMEOUT)
            for n in range(50, 1000):
                assert sock.recv(timeout=TIMEOUT) == b"%d" % n
            assert acks(peer, 950) == [identifier(n) for n in range(50, 1000)]


@pytest.mark.parametrize("receive", ["recv", "recv_identity", "recv_many", "recv_delivery", "messages"])
def test_every_way_of_receiving_acknowledges(receive: str) -> None:
    with connected({}, {"delivery_guarantee": RELIABLE}) as (a, b):
        receipts = [b.send(b"%d" % n) for n in range(100)]
        got = 0
        messages = a.messages()
        while got < 100:
            if receive == "recv_many":
                got += len(a.recv_many(7, timeout=TIMEOUT))
            elif receive == "messages":
                next(messages)
                got += 1
            else:
                getattr(a, receive)(timeout=TIMEOUT)
                got += 1
        for receipt in receipts:
            assert receipt is not None
            receipt.wait(timeout=TIMEOUT)


def test_on_arrival_acknowledges_without_recv() -> None:
    with connected({"ack_mode": AckMode.ON_ARRIVAL}, {"delivery_guarantee": RELIABLE}) as (a, b):
        receipt = b.send(b"x")
        assert receipt is not None
        receipt.wait(timeout=TIMEOUT)
        assert a.recv(timeout=TIMEOUT) == b"x"


def test_manual_acknowledgement_is_up_to_the_application() -> None:
    with Søcket(ack_mode=AckMode.MANUAL, linger=0) as sock:
        sock.bind(port=0)
        with dial(sock.bound_port) as peer:
            peer.shake_hands(request(identifier(1), b"one"), request(identifier(2), b"two"))
            one, two = sock.recv_delivery(timeout=TIMEOUT), sock.recv_delivery(timeout=TIMEOUT)
            assert (one.data, two.data, one.identity) == (b"one", b"two", peer.identity)
            assert not one.is_request
            two.ack()
            two.ack()
            assert acks(peer, 1) == [identifier(2)]
            one.ack()
            assert acks(peer, 1) == [identifier(1)]


def test_a_refused_message_is_delivered_again_when_it_is_sent_again() -> None:
    with Søcket(ack_mode=AckMode.MANUAL, linger=0) as sock:
        sock.bind(port=0)
        with dial(sock.bound_port) as peer:
            peer.shake_hands(request(identifier(1), b"one"))
            sock.recv_delivery(timeout=TIMEOUT).nack()
            peer.send(request(identifier(1), b"one"))
            again = sock.recv_delivery(timeout=TIMEOUT)
            assert again.data == b"one"
            again.ack()
            assert acks(peer, 1) == [identifier(1)]


def test_refused_messages_come_back_from_a_netmsg_sender() -> None:
    with connected({"ack_mode": AckMode.MANUAL}, {"delivery_guarantee": RELIABLE, "resend_after": 0.1}) as (a, b):
        receipt = b.send(b"x")
        assert receipt is not None
        for _ in range(3):
            a.recv_delivery(timeout=TIMEOUT).nack()
        a.recv_delivery(timeout=TIMEOUT).ack()
        receipt.wait(timeout=TIMEOUT)


def test_a_refused_message_goes_to_another_worker_at_once() -> None:
    """Long before ``resend_after``."""
    with Søcket(delivery_guarantee=RELIABLE, resend_after=60.0, linger=0) as queue:
        queue.bind(port=0)
        with Søcket(ack_mode=AckMode.MANUAL) as one, Søcket(ack_mode=AckMode.MANUAL) as two:
            for count, worker in enumerate((one, two), 1):
                worker.connect(port=queue.bound_port)
                queue.wait_for_peers(count, timeout=TIMEOUT)
            receipt = queue.send(b"job")
            assert receipt is not None
            one.recv_delivery(timeout=TIMEOUT).nack()
            two.recv_delivery(timeout=TIMEOUT).ack()
            receipt.wait(timeout=TIMEOUT)
            assert queue.stats().resent == 1


@pytest.mark.parametrize("features, told", [(2, True), (3, True), (1, False), (None, False)])
def test_a_refusal_is_told_to_those_who_understand_it(features: int | None, told: bool) -> None:
    with Søcket(ack_mode=AckMode.MANUAL, linger=0) as sock:
        sock.bind(port=0)
        with dial(sock.bound_port) as peer:
            peer.shake_hands(capabilities(features=features), *(request(identifier(n), b"%d" % n) for n in (1, 2)))
            sock.recv_delivery(timeout=TIMEOUT).nack()
            sock.recv_delivery(timeout=TIMEOUT).ack()
            answers = [peer.read_kind(ACK, NACK) for _ in range(1 + told)]
            assert answers == [(NACK, identifier(1))] * told + [(ACK, identifier(2))]


@pytest.mark.parametrize("body", [b"", b"?" * 15, b"?" * 17])
def test_a_malformed_refusal_is_the_end_of_that_connection(body: bytes) -> None:
    with Søcket(delivery_guarantee=RELIABLE, linger=0) as sock:
        sock.bind(port=0)
        with dial(sock.bound_port) as peer:
            peer.shake_hands(frame(NACK, body))
            peer.wait_for_end()
            assert "NACK" in wait_for_event(sock, Disconnected).reason


def test_unacknowledged_deliveries_count_against_the_receive_mark() -> None:
    with Søcket(ack_mode=AckMode.MANUAL, recv_hwm=5, linger=0) as sock:
        sock.bind(port=0)
        with dial(sock.bound_port) as peer:
            peer.shake_hands(*(request(identifier(n), b"%d" % n) for n in range(10)))
            held = [sock.recv_delivery(timeout=TIMEOUT) for _ in range(5)]
            with pytest.raises(TimeoutError):
                sock.recv_delivery(timeout=0.1)
            for delivery in held:
                delivery.ack()
            assert [sock.recv_delivery(timeout=TIMEOUT).data for _ in range(5)] == [b"5", b"6", b"7", b"8", b"9"]


def test_acknowledging_after_close_is_an_error() -> None:
    with connected({"ack_mode": AckMode.MANUAL}, {"delivery_guarantee": RELIABLE}) as (a, b):
        b.send(b"x")
        delivery = a.recv_delivery(timeout=TIMEOUT)
        a.close()
        with pytest.raises(ClosedError):
            delivery.ack()


def test_a_duplicate_is_delivered_once_and_acknowledged_only_if_its_first_copy_was() -> None:
    with Søcket(linger=0) as sock:
        sock.bind(port=0)
        with dial(sock.bound_port) as peer:
            peer.shake_hands(request(identifier(1), b"one"), request(identifier(1), b"one"))
            until(lambda: sock.stats().duplicates == 1)
            peer.sock.settimeout(0.05)
            with pytest.raises(TimeoutError):
                peer.read_kind(ACK)
            peer.sock.settimeout(TIMEOUT)
            assert sock.recv(timeout=TIMEOUT) == b"one"
            assert acks(peer, 1) == [identifier(1)]
            peer.send(request(identifier(1), b"one"), request(identifier(2), b"two"))
            assert acks(peer, 1) == [identifier(1)]
            assert sock.recv(timeout=TIMEOUT) == b"two"


def test_the_same_id_from_another_sender_is_another_message() -> None:
    with Søcket(linger=0) as sock:
        sock.bind(port=0)
        with dial(sock.bound_port) as one, dial(sock.bound_port) as two:
            one.shake_hands(request(identifier(1), b"from one"))
            assert sock.recv(timeout=TIMEOUT) == b"from one"
            assert acks(one, 1) == [identifier(1)]
            two.shake_hands(request(identifier(1), b"from two"))
            assert sock.recv(timeout=TIMEOUT) == b"from two"
            assert acks(two, 1) == [identifier(1)]


def test_a_duplicate_on_a_new_connection_is_recognised_and_acknowledged_there() -> None:
    with Søcket(linger=0) as sock:
        sock.bind(port=0)
        with dial(sock.bound_port, b"I" * 16) as peer:
            peer.shake_hands(request(identifier(1), b"one"))
            until(lambda: sock.stats().received == 1)
        until(lambda: not sock.peers())
        with dial(sock.bound_port, b"I" * 16) as peer:
            peer.shake_hands(request(identifier(1), b"one"))
            until(lambda: sock.stats().duplicates == 1)
            assert sock.recv(timeout=TIMEOUT) == b"one"
            assert acks(peer, 1) == [identifier(1)]


def test_the_unacknowledged_are_sent_again_on_reconnection_under_the_same_ids_before_the_unsent() -> None:
    with listening() as listener, Søcket(delivery_guarantee=RELIABLE, linger=0) as sock:
        sock.connect(port=listener.getsockname()[1])
        peer = accept(listener)
        peer.shake_hands()
        sent = [sock.send(b"%d" % n) for n in range(10)]
        first = [read_request(peer) for _ in range(10)]
        peer.send(frame(ACK, first[3][0]))
        until(lambda: sent[3] is not None and sent[3].acked)
        peer.close()
        until(lambda: not sock.peers())
        sock.send(b"10")
        peer = accept(listener)
        peer.shake_hands()
        second = [read_request(peer) for _ in range(10)]
        assert second[:9] == first[:3] + first[4:] and second[9][1] == b"10"
        assert sock.stats().resent == 9
        peer.close()


def test_a_message_without_acknowledgement_is_sent_again_with_growing_delays() -> None:
    with listening() as listener, Søcket(delivery_guarantee=RELIABLE, resend_after=0.1, linger=0) as sock:
        sock.connect(port=listener.getsockname()[1])
        with accept(listener) as peer:
            peer.shake_hands()
            receipt = sock.send(b"x")
            assert receipt is not None
            ids = {read_request(peer)[0] for _ in range(4)}
            assert ids == {receipt.message_id}
            assert sock.stats().resent == 3
            peer.send(frame(ACK, receipt.message_id))
            receipt.wait(timeout=TIMEOUT)


def test_a_message_is_given_up_after_so_many_resends() -> None:
    with listening() as listener, Søcket(delivery_guarantee=RELIABLE, resend_after=0.05, max_resends=2,
                                         linger=0) as sock:
        sock.connect(port=listener.getsockname()[1])
        with accept(listener) as peer:
            peer.shake_hands()
            receipt = sock.send(b"x")
            assert receipt is not None
            for _ in range(3):
                read_request(peer)
            with pytest.raises(UndeliveredError):
                receipt.wait(timeout=TIMEOUT)
            assert receipt.failed and not receipt.acked
            assert wait_for_event(sock, Undelivered).message_id == receipt.message_id
            assert sock.stats().undelivered == 1 and sock.stats().unacked == 0


@pytest.mark.parametrize("hands_back", [False, True])
def test_close_waits_for_no_message_that_is_given_up_meanwhile(hands_back: bool) -> None:
    with Søcket(delivery_guarantee=RELIABLE, resend_after=60.0 if hands_back else 0.05, max_resends=0, linger=0,
                heartbeat_interval=60.0, heartbeat_timeout=180.0) as sock:
        sock.bind(port=0)
        with dial(sock.bound_port) as one, dial(sock.bound_port) as other:
            one.shake_hands()
            sock.wait_for_peers(timeout=TIMEOUT)
            other.shake_hands()
            sock.wait_for_peers(2, timeout=TIMEOUT)
            receipt = sock.send(b"x")
            assert receipt is not None
            message_id, _ = read_request(one)
            closing = Background(sock.close, linger=10 * TIMEOUT)
            if hands_back:
                one.send(frame(NACK, message_id))
            one.wait_for_end()
        assert closing.result() == 0
        assert receipt.failed


def test_what_is_handed_back_while_closing_goes_to_whom_we_had_said_goodbye() -> None:
    with listening() as one_listener, listening() as other_listener, \
            Søcket(delivery_guarantee=RELIABLE, linger=0, max_unacked=1) as sock:
        sock.connect(port=one_listener.getsockname()[1])
        with accept(one_listener) as one:
            one.shake_hands()
            sock.wait_for_peers(timeout=TIMEOUT)
            sock.connect(port=other_listener.getsockname()[1])
            with accept(other_listener) as other:
                other.shake_hands()
                sock.wait_for_peers(2, timeout=TIMEOUT)
                sock.send(b"x")
                message_id, _ = read_request(one)
                closing = Background(sock.close, linger=10 * TIMEOUT)
                other.wait_for_end()
            one.send(frame(NACK, message_id))
            with accept(other_listener) as other:
                other.shake_hands()
                assert read_request(other) == (message_id, b"x")
                other.send(frame(ACK, message_id))
        assert closing.result() == 0


def test_connections_that_break_count_as_resends() -> None:
    with listening() as listener, Søcket(delivery_guarantee=RELIABLE, max_resends=1, linger=0) as sock:
        sock.connect(port=listener.getsockname()[1])
        receipt = sock.send(b"poison")
        assert receipt is not None
        for _ in range(2):
            with accept(listener) as peer:
                peer.shake_hands()
                assert read_request(peer)[1] == b"poison"
        with pytest.raises(UndeliveredError):
            receipt.wait(timeout=TIMEOUT)


def test_a_message_to_a_peer_that_goes_is_given_to_another() -> None:
    with Søcket(delivery_guarantee=RELIABLE, max_unacked=1, linger=0) as sock:
        sock.bind(port=0)
        with dial(sock.bound_port) as one:
            one.shake_hands()
            receipt = sock.send(b"job")
            assert receipt is not None
            assert read_request(one)[1] == b"job"
            with dial(sock.bound_port) as two:
                two.shake_hands()
                sock.wait_for_peers(2, timeout=TIMEOUT)
                one.close()
                assert read_request(two) == (receipt.message_id, b"job")
                two.send(frame(ACK, receipt.message_id))
                receipt.wait(timeout=TIMEOUT)


def test_an_acknowledgement_from_the_wrong_peer_counts_for_nothing() -> None:
    with Søcket(delivery_guarantee=RELIABLE, linger=0) as sock:
        sock.bind(port=0)
        with dial(sock.bound_port) as one, dial(sock.bound_port) as two:
            one.shake_hands()
            two.shake_hands()
            sock.wait_for_peers(2, timeout=TIMEOUT)
            receipt = sock.send(b"for one", one.identity)
            assert receipt is not None
            two.send(frame(ACK, receipt.message_id), frame(ACK, identifier(77)), frame(0x03, b"behind the ACK"))
            assert sock.recv(timeout=TIMEOUT) == b"behind the ACK"
            assert not receipt.acked
            one.send(frame(ACK, receipt.message_id), frame(ACK, receipt.message_id))
            receipt.wait(timeout=TIMEOUT)


def test_by_turns_to_a_peer_by_identity_and_to_anybody_it_gets_them_in_the_order_of_sending() -> None:
    """Beyond its window they wait in two places."""
    with connected({"delivery_guarantee": RELIABLE, "max_unacked": 10}) as (a, b):
        for number in range(500):
            a.send(b"%d" % number, b.identity if number % 2 else None)
        assert [int(b.recv(timeout=TIMEOUT)) for _ in range(500)] == list(range(500))


def test_max_unacked_distributes_work_fairly() -> None:
    with Søcket(delivery_guarantee=RELIABLE, max_unacked=1, linger=0) as sock:
        sock.bind(port=0)
        with dial(sock.bound_port) as slow, dial(sock.bound_port) as quick:
            slow.shake_hands()
            quick.shake_hands()
            sock.wait_for_peers(2, timeout=TIMEOUT)
            sock.send_many([b"%d" % n for n in range(20)])
            read_request(slow)  # and no more of it
            done = []
            for _ in range(19):
                message_id, data = read_request(quick)
                done.append(data)
                quick.send(frame(ACK, message_id))
            assert len(set(done)) == 19
            assert max(info.unacked for info in sock.peers()) == 1


def test_the_window_that_a_peer_announces_is_kept() -> None:
    with listening() as listener, Søcket(delivery_guarantee=RELIABLE, linger=0) as sock:
        sock.connect(port=listener.getsockname()[1])
        with accept(listener) as peer:
            peer.shake_hands(capabilities(window=7))
            sock.wait_for_peers(timeout=TIMEOUT)
            peer.send(frame(0x03, b"behind the CAPABILITIES"))
            sock.recv(timeout=TIMEOUT)
            sock.send_many([b"%d" % n for n in range(100)])
            first = [read_request(peer) for _ in range(7)]
            peer.sock.settimeout(0.05)
            with pytest.raises(TimeoutError):
                read_request(peer)
            peer.sock.settimeout(TIMEOUT)
            peer.send(*(frame(ACK, message_id) for message_id, _ in first))
            assert [read_request(peer)[1] for _ in range(7)] == [b"%d" % n for n in range(7, 14)]


def test_by_identity_is_kept_for_an_absent_peer() -> None:
    with Søcket(delivery_guarantee=RELIABLE, linger=0) as sock:
        sock.bind(port=0)
        receipt = sock.send(b"for you alone", b"Y" * 16)
        assert receipt is not None
        with dial(sock.bound_port) as other:
            other.shake_hands()
            sock.send(b"for anybody")
            assert read_request(other)[1] == b"for anybody"
        with dial(sock.bound_port, b"Y" * 16) as you:
            you.shake_hands()
            messages = {read_request(you)[1] for _ in range(2)}
            assert messages == {b"for you alone", b"for anybody"}


def test_by_identity_never_goes_to_somebody_else_when_the_peer_goes() -> None:
    with Søcket(delivery_guarantee=RELIABLE, linger=0) as sock:
        sock.bind(port=0)
        with dial(sock.bound_port) as other:
            other.shake_hands()
            with dial(sock.bound_port, b"Y" * 16) as you:
                you.shake_hands()
                sock.wait_for_peers(2, timeout=TIMEOUT)
                sock.send(b"for you alone", b"Y" * 16)
                read_request(you)
            until(lambda: len(sock.peers()) == 1)
            sock.send(b"for anybody")
            assert read_request(other)[1] == b"for anybody"
            with dial(sock.bound_port, b"Y" * 16) as you:
                you.shake_hands()
                assert read_request(you)[1] == b"for you alone"


@pytest.mark.parametrize("gone", [None, b"Y" * 16])
def test_what_waits_for_one_that_never_comes_stands_in_the_way_of_nobody_else(gone: bytes | None) -> None:
    with Søcket(delivery_guarantee=RELIABLE, send_hwm=10, linger=0) as sock:
        for _ in range(10):
            sock.send(b"x", gone, timeout=0)
        with pytest.raises(SendTimeoutError):
            sock.send(b"x", gone, timeout=0)
        for identity in {None, b"Y" * 16, b"Z" * 16} - {gone}:
            sock.send(b"x", identity, timeout=0)
        assert sock.stats().queued == 12 and sock.close() == 12


def test_a_blocked_sender_is_woken_although_messages_stay_parked_for_an_absent_peer() -> None:
    with Søcket(delivery_guarantee=RELIABLE, send_hwm=10, linger=0) as sock:
        sock.bind(port=0)
        for _ in range(6):
            sock.send(b"parked", b"Y" * 16)
        for _ in range(4):
            sock.send(b"waiting")
        blocked = Background(sock.send, b"blocked")
        with dial(sock.bound_port) as peer:
            peer.shake_hands()
            for _ in range(5):
                message_id, data = read_request(peer)
                peer.send(frame(ACK, message_id))
            assert data == b"blocked"
            blocked.result()


@pytest.mark.parametrize("policy", [OnFull.DROP_NEWEST, OnFull.DROP_OLDEST])
def test_the_receipt_of_a_dropped_message_fails(policy: OnFull) -> None:
    with Søcket(delivery_guarantee=RELIABLE, send_hwm=2, on_full=policy, linger=0) as sock:
        receipts = [sock.send(b"x") for _ in range(3)]
        failed = [receipt.failed for receipt in receipts if receipt is not None]
        assert failed == ([True, False, False] if policy is OnFull.DROP_OLDEST else [False, False, True])
        assert sock.stats().dropped == {"send queue full": 1}


def test_receipts_fail_at_close_and_are_counted() -> None:
    with listening() as listener, Søcket(delivery_guarantee=RELIABLE) as sock:
        sock.connect(port=listener.getsockname()[1])
        with accept(listener) as peer:
            peer.shake_hands()
            receipt = sock.send(b"x")
            assert receipt is not None
            read_request(peer)
            waiting = Background(receipt.wait)
            assert sock.close(linger=0.1) == 1
            with pytest.raises(UndeliveredError):
                waiting.result()
            assert receipt.failed


def test_two_sides_with_more_in_flight_than_the_other_takes_do_not_wait_for_each_other() -> None:
    """ACKs stand behind data: a single-threaded echo worker at the other end of a sender that does not receive."""
    options = {"delivery_guarantee": RELIABLE, "recv_hwm": 20, "send_hwm": 20}
    with connected(options, options) as (a, b):
        def echo() -> None:
            for message in b.messages():
                b.send(message)

        worker = Background(echo)
        count = 2000
        sender = Background(lambda: [a.send(b"%d" % n) for n in range(count)])
        got = Counter(int(a.recv(timeout=TIMEOUT)) for _ in range(count))
        assert got == Counter(range(count))
        sender.result()
        b.close()
        worker.result()


def test_acknowledgements_behind_data_are_reached_while_a_sender_waits() -> None:
    with Søcket(delivery_guarantee=RELIABLE, recv_hwm=10, send_hwm=1, linger=0) as sock:
        sock.bind(port=0)
        with dial(sock.bound_port) as peer:
            peer.shake_hands()
            receipt = sock.send(b"x")
            assert receipt is not None
            message_id, _ = read_request(peer)
            peer.send(*(frame(0x03, b"%d" % n) for n in range(1000)), frame(ACK, message_id))
            receipt.wait(timeout=TIMEOUT)
            assert [sock.recv(timeout=TIMEOUT) for _ in range(1000)] == [b"%d" % n for n in range(1000)]


def test_who_never_acknowledges_is_not_read_for_ever_because_somebody_waits() -> None:
    with Søcket(delivery_guarantee=RELIABLE, recv_hwm=10, linger=0) as sock:
        sock.bind(port=0)
        with dial(sock.bound_port) as peer:
            peer.shake_hands()
            receipt = sock.send(b"job")
            assert receipt is not None
            read_request(peer)
            waiting = Background(receipt.wait, timeout=3 * TIMEOUT)
            peer.sock.settimeout(0.5)
            with pytest.raises(TimeoutError):
                for _ in range(100):
                    peer.send(frame(0x03, bytes(100)) * 1000)
            assert sock.stats().received < 11_000
            sock.close()
            with pytest.raises(UndeliveredError):
                waiting.result()


def test_every_message_that_a_peer_lost_is_sent_again_before_any_of_them_a_second_time() -> None:
    with Søcket(delivery_guarantee=RELIABLE, resend_after=0.3, linger=0) as sock:
        sock.bind(port=0)
        with dial(sock.bound_port) as peer:
            peer.shake_hands()
            for number in range(40):
                sock.send(b"%d" % number)
            lost = []
            for number in range(40):
                message_id, body = read_request(peer)
                if number < 20:
                    lost.append(body)
                else:
                    peer.send(frame(ACK, message_id))
            assert [read_request(peer)[1] for _ in range(20)] == lost


def test_a_peer_that_announces_no_window_is_given_two_hundred_messages() -> None:
    """Some of the other implementations drop acknowledgements when more than 256 of them are due."""
    with Søcket(delivery_guarantee=RELIABLE, linger=0) as sock:
        sock.bind(port=0)
        with dial(sock.bound_port) as peer:
            peer.shake_hands()
            sock.wait_for_peers(timeout=TIMEOUT)
            sock.send_many([b"x"] * 1000)
            assert sock.peers()[0].unacked == 200
            ids = [read_request(peer)[0] for _ in range(200)]
            peer.sock.settimeout(0.1)
            with pytest.raises(TimeoutError):
                read_request(peer)
            peer.sock.settimeout(TIMEOUT)
            peer.send(*(frame(ACK, message_id) for message_id in ids))
            read_request(peer)


def test_many_messages_through_broken_connections_arrive_at_least_once() -> None:
    with Søcket(delivery_guarantee=RELIABLE, linger=math.inf) as sender:
        sender.bind(port=0)
        count = 3000
        seen: Counter[int] = Counter()
        sending = Background(sender.send_many, [b"%d" % n for n in range(count)])
        while len(seen) < count:
            with Søcket(linger=0) as receiver:
                receiver.connect(port=sender.bound_port)
                try:
                    for _ in range(500):
                        seen[int(receiver.recv(timeout=1.0))] += 1
                except TimeoutError:
                    pass
        sending.result()
        assert set(seen) == set(range(count))
