"""Request and reply between Søckets, and with peers that do not keep to it."""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from support.pairs import TIMEOUT, Background, connected, until, wait_for_event
from support.wire_peer import WirePeer, capabilities, dial, frame

from netmsg import (
    AckMode, ClosedError, ConnectionBrokenError, DeliveryGuarantee, Disconnected, Dropped, LocalProtocolError, OnFull,
    RequestFailedError, SendMode, SendTimeoutError, Søcket, UnknownPeerError,
)
from netmsg.messaging.requesting import Requesting
from netmsg.messaging.requests import Request
from netmsg.wire.envelope import DATA, FAILURE, HEARTBEAT, REPLY, REQUEST

RELIABLE = DeliveryGuarantee.AT_LEAST_ONCE
ANSWERS = capabilities(features=1)
KINDS = [{}, {"delivery_guarantee": RELIABLE}, {"send_mode": SendMode.PUBLISH}]


@contextmanager
def answering(sock: Søcket) -> Iterator[None]:
    """It answers in capitals, for as long as it is open; what begins with ! it does not, and says so."""

    def answer() -> None:
        for delivery in sock.deliveries():
            if not delivery.is_request:
                delivery.ack()
            elif delivery.data.startswith(b"!"):
                delivery.fail(delivery.data[1:].decode())
            else:
                delivery.reply(delivery.data.upper())

    answers = Background(answer)
    try:
        yield
    finally:
        sock.close(linger=0)
        answers.result()


@contextmanager
def peer_of(sock: Søcket, *more: bytes) -> Iterator[WirePeer]:
    """A peer that is spoken with by hand."""
    with dial(sock.bound_port) as peer:
        peer.shake_hands(*more)
        sock.wait_for_peers(timeout=TIMEOUT)
        yield peer


def read_request(peer: WirePeer) -> tuple[bytes, bytes]:
    _, body = peer.read_kind(REQUEST)
    return body[:16], body[16:]


def nothing_is_remembered(sock: Søcket) -> bool:
    return len(sock._sender._requests) == 0 and not sock._sender._requests.unplaced


# Between Søckets


@pytest.mark.parametrize("asking", KINDS)
@pytest.mark.parametrize("answers", [*KINDS, {"ack_mode": AckMode.MANUAL}, {"ack_mode": AckMode.ON_ARRIVAL}])
def test_a_request_is_answered(asking: dict[str, object], answers: dict[str, object]) -> None:
    with connected(answers, asking) as (a, b), answering(a):
        assert b.request(b"question") == b"QUESTION"
        assert b.request(b"", a.identity) == b""
        assert b.request(bytearray(b"x" * 200_000), timeout=TIMEOUT) == b"X" * 200_000
        with pytest.raises(RequestFailedError, match="^no time$") as raised:
            b.request(b"!no time")
        assert raised.value.reason == "no time"
        assert nothing_is_remembered(b)


def test_both_ends_may_ask_at_the_same_time() -> None:
    with connected({}, {}) as (a, b), answering(a), answering(b):
        there, back = Background(lambda: [b.request(b"b%d" % number) for number in range(200)]), [
            a.request(b"a%d" % number) for number in range(200)]
        assert there.result() == [b"B%d" % number for number in range(200)]
        assert back == [b"A%d" % number for number in range(200)]


def test_each_of_many_threads_gets_its_own_answer() -> None:
    with connected({}, {}) as (a, b), answering(a):
        def ask(number: int) -> bool:
            return all(b.request(b"a%d of %d" % (turn, number), timeout=TIMEOUT) == b"A%d OF %d" % (turn, number)
                       for turn in range(10))

        assert all(asking.result() for asking in [Background(ask, number) for number in range(200)])
        assert nothing_is_remembered(b) and b.stats().dropped == {}
        assert b.stats().received == a.stats().received == 2000


def test_requests_go_round_those_who_answer() -> None:
    with Søcket() as asker, Søcket(send_mode=SendMode.PUBLISH) as one, Søcket() as other:
        asker.bind(port=0)
        for sock in (one, other):
            sock.connect(port=asker.bound_port)
        asker.wait_for_peers(2, timeout=TIMEOUT)
        with peer_of(asker), answering(one), answering(other):
            for sock in (one, other):  # by now both have said that they answer
                assert asker.request(b"named", sock.identity) == b"NAMED"
            for _ in range(10):
                asker.request(b"x")
            assert one.stats().received == other.stats().received == 6
            assert asker.request(b"named", one.identity) == b"NAMED"
            assert one.stats().received == 7


def test_messages_and_requests_come_in_order_and_whoever_takes_a_request_as_a_message_may() -> None:
    with connected({}, {}) as (a, b):
        asked = Background(b.request, b"first", timeout=0.3)
        until(lambda: a.stats().received == 1)
        b.send(b"second")
        asks_again = Background(b.request, b"third", timeout=0.3)
        until(lambda: a.stats().received == 3)
        b.send(b"4")
        assert a.recv(timeout=TIMEOUT) == b"first" and a.recv_identity(timeout=TIMEOUT) == (b.identity, b"second")
        assert a.recv_string(timeout=TIMEOUT) == "third" and a.recv_json(timeout=TIMEOUT) == 4
        for one in (asked, asks_again):
            with pytest.raises(TimeoutError, match="no reply from peer"):
                one.result()


def test_several_are_taken_at_once() -> None:
    with connected({}, {}) as (a, b):
        asked = [Background(b.request, b"x", timeout=0.5) for _ in range(20)]
        until(lambda: a.stats().received == 20)
        taken: list[bytes] = []
        while len(taken) < 20:
            taken += a.recv_many(7, timeout=TIMEOUT)
        assert taken == [b"x"] * 20
        for one in asked:
            with pytest.raises(TimeoutError):
                one.result()


def test_a_descriptor_tells_of_requests() -> None:
    with connected({}, {}) as (a, b), selectors.DefaultSelector() as selector:
        selector.register(a.fileno(), selectors.EVENT_READ)
        for _ in range(3):
            asked = Background(b.request, b"x")
            assert selector.select(TIMEOUT)
            a.recv_delivery(timeout=0).reply(b"y")
            assert asked.result() == b"y"
        assert not selector.select(0)


# Nobody answers


def test_while_nobody_answers_it_waits_for_one_who_does() -> None:
    with Søcket() as asker:
        asker.bind(port=0)
        with peer_of(asker):  # which does not
            asked = Background(asker.request, b"x", timeout=TIMEOUT)
            until(lambda: bool(asker._sender._requests.unplaced))
            with Søcket() as late:
                late.connect(port=asker.bound_port)
                with answering(late):
                    assert asked.result() == b"X"


def test_nobody_comes_in_time() -> None:
    with Søcket() as asker, pytest.raises(SendTimeoutError, match=r"no peer that answers requests within 0.1 s "
                                                                  r"\(0 peers connected\); the Søcket is neither"):
        asker.request(b"x", timeout=0.1)


def test_the_reply_does_not_come_in_time() -> None:
    with connected({}, {}) as (a, b):
        began = time.monotonic()
        with pytest.raises(TimeoutError, match=f"no reply from peer {a.identity.hex()} within 0.2 s"):
            b.request(b"x", timeout=0.2)
        assert 0.2 <= time.monotonic() - began < 2
        with pytest.raises(TimeoutError):
            b.request(b"y", timeout=0)
        assert nothing_is_remembered(b)
        delivery = a.recv_delivery(timeout=TIMEOUT)
        delivery.reply(b"too late")
        assert wait_for_event(b, Dropped).reason == "reply that nobody waits for"
        assert b.stats().dropped == {"reply that nobody waits for": 1}


def test_a_peer_that_is_not_connected_is_unknown() -> None:
    with connected({}, {}) as (a, b), pytest.raises(UnknownPeerError, match="62" * 16):
        b.request(b"x", b"b" * 16, timeout=TIMEOUT)


@pytest.mark.parametrize("said", [frame(DATA, b"x"), frame(HEARTBEAT), capabilities(), capabilities(features=None)])
def test_a_peer_that_does_not_answer_is_told_at_once(said: bytes) -> None:
    with Søcket() as asker:
        asker.bind(port=0)
        with peer_of(asker, said) as peer:
            until(lambda: asker._router.ring[0].owner.has_been_heard)
            began = time.monotonic()
            with pytest.raises(LocalProtocolError, match="does not answer requests"):
                asker.request(b"x", peer.identity, timeout=TIMEOUT)
            assert time.monotonic() - began < 0.9


def test_one_that_says_nothing_has_a_second_to_say_what_it_can() -> None:
    with Søcket() as asker:
        asker.bind(port=0)
        with peer_of(asker) as peer:
            asked = Background(asker.request, b"x", peer.identity, timeout=TIMEOUT)
            until(lambda: bool(asker._sender._requests.unplaced))
            peer.send(ANSWERS)
            correlation_id, data = read_request(peer)
            assert data == b"x"
            peer.send(frame(REPLY, correlation_id + b"y"))
            assert asked.result() == b"y"
        with peer_of(asker) as silent:
            with pytest.raises(LocalProtocolError, match="does not answer requests"):
                asker.request(b"x", silent.identity, timeout=TIMEOUT)
            assert nothing_is_remembered(asker)


# What goes wrong


@pytest.fixture
def asker() -> Iterator[Søcket]:
    with Søcket(linger=0) as sock:
        sock.bind(port=0)
        yield sock


@pytest.mark.parametrize("ends", [WirePeer.close, WirePeer.reset])
def test_who_goes_with_a_request_breaks_it_at_once(asker: Søcket, ends: object) -> None:
    with peer_of(asker, ANSWERS) as peer:
        asked = Background(asker.request, b"x", timeout=60.0)
        read_request(peer)
        ends(peer)  # type: ignore[operator]
        with pytest.raises(ConnectionBrokenError, match=f"{peer.identity.hex()} has ended before it replied"):
            asked.result()
        assert nothing_is_remembered(asker)


def test_a_reply_that_came_before_the_end_counts(asker: Søcket) -> None:
    with peer_of(asker, ANSWERS) as peer:
        asked = Background(asker.request, b"x", timeout=TIMEOUT)
        correlation_id, _ = read_request(peer)
        peer.send(frame(REPLY, correlation_id + b"y"))
        peer.close()
        assert asked.result() == b"y"


def test_what_was_not_sent_goes_to_another_one(asker: Søcket) -> None:
    with peer_of(asker, ANSWERS) as deaf:
        asker.send(b"z" * 20_000_000)  # more than the kernel takes
        asked = Background(asker.request, b"x", timeout=TIMEOUT)
        until(lambda: len(asker._sender._requests) == 1 and not asker._sender._requests.unplaced)
        with Søcket() as other:
            other.connect(port=asker.bound_port)
            with answering(other):
                deaf.reset()
                assert asked.result() == b"X"


def test_replies_of_others_doubled_and_unknown_ones_are_counted_and_harm_nobody(asker: Søcket) -> None:
    with peer_of(asker, ANSWERS) as peer, peer_of(asker, ANSWERS) as stranger:
        asked = Background(asker.request, b"x", peer.identity, timeout=TIMEOUT)
        correlation_id, _ = read_request(peer)
        stranger.send(frame(REPLY, correlation_id + b"foreign"), frame(FAILURE, correlation_id + b"foreign"))
        until(lambda: asker.stats().dropped.get("reply that nobody waits for") == 2)
        peer.send(frame(REPLY, bytes(16) + b"unknown"), frame(REPLY, correlation_id + b"mine"),
                  frame(REPLY, correlation_id + b"twice"), frame(FAILURE, correlation_id + b"twice"))
        assert asked.result() == b"mine"
        until(lambda: asker.stats().dropped.get("reply that nobody waits for") == 5)
        assert len(asker.peers()) == 2


@pytest.mark.parametrize("wrong", [frame(REQUEST, bytes(15)), frame(REPLY), frame(FAILURE, bytes(3)),
                                   frame(FAILURE, bytes(16 + 257)), frame(REPLY, bytes(16 + 101)),
                                   frame(REQUEST, bytes(16 + 101))])
def test_what_is_malformed_ends_that_connection_alone(wrong: bytes) -> None:
    with Søcket(linger=0, max_message_size=100) as sock:
        sock.bind(port=0)
        with peer_of(sock, ANSWERS) as good, dial(sock.bound_port) as bad:
            bad.shake_hands(ANSWERS, wrong)
            bad.wait_for_end()
            assert "protocol error" in wait_for_event(sock, Disconnected).reason
            asked = Background(sock.request, b"x", timeout=TIMEOUT)
            correlation_id, _ = read_request(good)
            good.send(frame(REPLY, correlation_id + b"y"))
            assert asked.result() == b"y"


def test_a_request_of_one_that_did_not_say_what_it_can_is_answered(asker: Søcket) -> None:
    with peer_of(asker, frame(REQUEST, bytes(16) + b"x")) as peer:
        asker.recv_delivery(timeout=TIMEOUT).reply(b"y")
        assert peer.read_kind(REPLY)[1] == bytes(16) + b"y"


def test_closing_ends_all_waiting() -> None:
    with connected({}, {}) as (a, b):
        placed = [Background(b.request, b"x", timeout=60.0) for _ in range(10)]
        until(lambda: a.stats().received == 10)
        with Søcket(linger=0) as lonely:
            unplaced = [Background(lonely.request, b"x", timeout=60.0) for _ in range(3)]
            until(lambda: len(lonely._sender._requests) == 3)
            lonely.close()
            b.close(linger=0)
            for asked in (*placed, *unplaced):
                with pytest.raises(ClosedError):
                    asked.result()
            assert nothing_is_remembered(b) and nothing_is_remembered(lonely)
            with pytest.raises(ClosedError):
                b.request(b"x")


def test_what_is_given_up_and_was_not_sent_is_not_sent(asker: Søcket) -> None:
    with peer_of(asker, ANSWERS) as peer:
        asker.send(b"z" * 20_000_000)  # more than the kernel takes
        with pytest.raises(TimeoutError):
            asker.request(b"x", timeout=0.2)
        assert asker.stats().queued == 1
        asker.send(b"last")
        peer.read_kind(DATA)
        assert peer.read_frame() == (DATA, b"last")


# Marks


def test_replies_are_read_past_the_marks() -> None:
    """The asker takes no messages; but the reply stands behind them."""
    with connected({}, {"recv_hwm": 5}) as (a, b), answering(a):
        a.send_many([b"%d" % number for number in range(100)])
        assert b.request(b"x", timeout=TIMEOUT) == b"X"
        assert [b.recv(timeout=TIMEOUT) for _ in range(100)] == [b"%d" % number for number in range(100)]


def test_requests_wait_for_room_whatever_the_policy() -> None:
    for policy in OnFull:
        with connected({}, {"send_hwm": 1, "on_full": policy}) as (a, b), answering(a):
            asked = [Background(b.request, b"x%d" % number, timeout=TIMEOUT) for number in range(30)]
            assert [one.result() for one in asked] == [b"X%d" % number for number in range(30)]


def test_a_reply_waits_for_room_and_the_answer_can_be_tried_again() -> None:
    with Søcket(linger=0, send_hwm=1) as sock:
        sock.bind(port=0)
        with peer_of(sock, ANSWERS, *(frame(REQUEST, bytes(15) + bytes((n,)) + b"x") for n in range(6))) as peer:
            requests = [sock.recv_delivery(timeout=TIMEOUT) for _ in range(6)]
            requests[0].reply(b"z" * 20_000_000)  # more than the kernel takes
            with pytest.raises(SendTimeoutError):
                for request in requests[1:]:
                    request.reply(b"y", timeout=0.1)
            waiting = Background(request.reply, b"again", timeout=TIMEOUT)
            answers = Counter(peer.read_kind(REPLY)[1][16:] for _ in range(int(request.identity == peer.identity)))
            while not answers[b"again"]:
                answers[peer.read_kind(REPLY)[1][16:]] += 1
            waiting.result()
            assert len([answer for answer in answers if answer != b"y"]) == 2


def test_a_reply_to_one_that_has_gone_is_dropped_and_counted(asker: Søcket) -> None:
    with peer_of(asker, ANSWERS, frame(REQUEST, bytes(16) + b"x")):
        request = asker.recv_delivery(timeout=TIMEOUT)
    until(lambda: not asker.peers())
    request.reply(b"y")
    assert asker.stats().dropped == {"peer not connected": 1}


def test_arguments_are_checked() -> None:
    with Søcket() as sock:
        for arguments, options, error in ((("text",), {}, TypeError), ((b"x", b"short"), {}, ValueError),
                                          ((b"x",), {"timeout": -1}, ValueError),
                                          ((b"x",), {"timeout": float("nan")}, ValueError)):
            with pytest.raises(error):
                sock.request(*arguments, **options)
    with pytest.raises(ClosedError):
        sock.request(b"x")


def test_on_the_network_thread_nobody_waits() -> None:
    with Søcket() as sock:
        sock.bind(port=0)
        said: list[BaseException] = []
        there = threading.Event()

        def ask() -> None:
            try:
                sock.request(b"x")
            except BaseException as error:
                said.append(error)
            there.set()

        sock._io.call(ask)
        assert there.wait(TIMEOUT) and isinstance(said.pop(), LocalProtocolError)


def test_an_interrupt_at_its_end_leaves_nothing_behind(asker: Søcket, monkeypatch: pytest.MonkeyPatch) -> None:
    end, strikes = Requesting.end, [KeyboardInterrupt()]

    def struck(self: Requesting, request: Request) -> None:
        if strikes:
            raise strikes.pop()
        end(self, request)

    monkeypatch.setattr(Requesting, "end", struck)
    with pytest.raises(KeyboardInterrupt):
        asker.request(b"x", timeout=0)
    assert nothing_is_remembered(asker) and not asker._sender._room.asked


def test_what_is_given_up_makes_room_for_others(asker: Søcket) -> None:
    with Søcket(linger=0, send_hwm=2) as sock:
        sock.bind(port=0)
        with peer_of(sock, ANSWERS):
            sock.send(b"z" * 20_000_000)  # more than the kernel takes
            first = Background(sock.request, b"x", timeout=0.3)
            until(lambda: len(sock._sender._requests) == 1 and not sock._sender._requests.unplaced)
            second = Background(sock.request, b"y", timeout=TIMEOUT)
            until(lambda: bool(sock._sender._requests.unplaced))
            with pytest.raises(TimeoutError):
                first.result()
            until(lambda: not sock._sender._requests.unplaced)
            sock.close(linger=0)
            with pytest.raises(ClosedError):
                second.result()


def test_after_a_reconnection_it_is_known_who_answers_though_nothing_is_taken() -> None:
    with connected({}, {"recv_hwm": 1, "reconnection_delay": lambda: 0.01}) as (a, b), answering(a):
        a.send_many([b"%d" % number for number in range(5)])
        assert b.request(b"x", a.identity, timeout=TIMEOUT) == b"X"
        (peer,) = b._engine.connections.open
        peer.sock.shutdown(socket.SHUT_RDWR)
        wait_for_event(b, Disconnected)
        b.wait_for_peers(timeout=TIMEOUT)
        assert b.request(b"y", a.identity, timeout=TIMEOUT) == b"Y"


def test_those_who_find_nobody_are_not_woken_by_every_write(asker: Søcket) -> None:
    with peer_of(asker):
        lonely = [Background(asker.request, b"x", timeout=0.5) for _ in range(5)]
        until(lambda: len(asker._sender._requests.unplaced) == 5 and not any(
            request.look for request in asker._sender._requests.unplaced))
        asker.send(b"y")
        assert not any(request.look for request in asker._sender._requests.unplaced)
        for one in lonely:
            with pytest.raises(SendTimeoutError):
                one.result()
