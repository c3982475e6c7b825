"""One interrupt at every place where it can strike inside of a call that tells the network thread something, and the
call is repeated: all is as if it had not been interrupted."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from support.pairs import TIMEOUT, Background, connected, until
from support.strikes import Strike, Struck, strike_everywhere
from support.wire_peer import DATA, accept, listening

from netmsg import AckMode, DeliveryGuarantee, Event, Full, OnFull, QueueFullError, SendMode, Søcket, create_tcp_server

LINGER = 6 * TIMEOUT


@pytest.mark.parametrize("bound", [True, False])
def test_a_closing_ends_at_once_where_nothing_is_left_to_be_sent(bound: bool) -> None:
    def trial(strike: Strike) -> None:
        sock = Søcket(linger=LINGER)
        if bound:
            sock.bind(port=0)
        with suppress(Struck), strike:
            sock.close()
        assert Background(sock.close).result() == 0

    assert strike_everywhere(trial) > 20


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # where the interrupt came before it had begun
def test_a_closing_that_nobody_repeats_ends_when_the_object_goes() -> None:
    def is_free(port: int) -> bool:
        try:
            create_tcp_server(port, interface="127.0.0.1").close()
        except OSError:
            return False
        return True

    def trial(strike: Strike) -> None:
        sock = Søcket(linger=0).bind(port=0, hostname="127.0.0.1")
        port = sock.bound_port
        with suppress(Struck), strike:
            sock.close()
        del sock
        until(lambda: is_free(port))

    assert strike_everywhere(trial) > 20


def test_a_closing_acknowledges_what_was_taken() -> None:
    def trial(strike: Strike) -> None:
        receiver = Søcket(linger=LINGER).connect(port=sender.bound_port)
        receipt = sender.send(b"message")
        assert receiver.recv(timeout=TIMEOUT) == b"message"
        with suppress(Struck), strike:
            receiver.close()
        Background(receiver.close).result()
        receipt.wait(timeout=TIMEOUT)

    with Søcket(delivery_guarantee=DeliveryGuarantee.AT_LEAST_ONCE, linger=0).bind(port=0) as sender:
        assert strike_everywhere(trial) > 20


@pytest.mark.parametrize("how", [
    lambda sock: int(sock.recv_string(timeout=TIMEOUT)), lambda sock: sock.recv_json(timeout=TIMEOUT),
    lambda sock: next(sock.json_messages()),
], ids=["recv_string", "recv_json", "json_messages"])
def test_a_message_that_was_not_handed_over_is_the_next(how: Callable[[Søcket[Any]], int]) -> None:
    with connected() as (receiver, sender):
        def trial(strike: Strike) -> None:
            received = receiver.stats().received
            sender.send_many([b"1", b"2"])
            until(lambda: receiver.stats().received == received + 2)
            taken: list[int] = []
            with suppress(Struck), strike:
                taken += [how(receiver)]
            while len(taken) < 2:
                taken.append(int(receiver.recv(timeout=TIMEOUT)))
            assert taken == [1, 2]

        assert strike_everywhere(trial) > 10


def test_a_message_is_the_next_when_its_decoding_is_interrupted() -> None:
    def interrupted(value: str) -> float:
        raise Struck("decoding")

    with connected() as (receiver, sender):
        sender.send_json([1.5])
        with pytest.raises(Struck):
            receiver.recv_json(timeout=TIMEOUT, parse_float=interrupted)
        assert receiver.recv_json(timeout=TIMEOUT) == [1.5]


def test_an_acknowledgement_arrives_and_counts_once() -> None:
    with connected({"delivery_guarantee": DeliveryGuarantee.AT_LEAST_ONCE},
                   {"ack_mode": AckMode.MANUAL, "recv_hwm": 2}) as (sender, receiver):
        def trial(strike: Strike) -> None:
            receipt = sender.send(b"message")
            assert receipt is not None
            delivery = receiver.recv_delivery(timeout=TIMEOUT)
            with suppress(Struck), strike:
                delivery.ack()
            delivery.ack()
            receipt.wait(timeout=TIMEOUT)

        assert strike_everywhere(trial) > 3


def test_the_descriptor_is_readable_while_a_message_waits() -> None:
    def trial(strike: Strike) -> None:
        with Søcket(linger=0).connect(port=sender.bound_port) as receiver:
            sender.send(b"message")
            until(lambda: receiver.stats().received == 1)
            with suppress(Struck), strike:
                receiver.fileno()
            assert select.select([receiver.fileno()], [], [], TIMEOUT)[0]
            assert receiver.recv(timeout=TIMEOUT) == b"message"
        until(lambda: not sender.peers())

    with Søcket(linger=0).bind(port=0) as sender:
        assert strike_everywhere(trial) > 3


def test_what_is_dialled_is_dialled_or_forgotten() -> None:
    """Closing waits for nobody who is not dialled."""
    def serve(listener: socket.socket) -> None:
        with accept(listener) as peer, suppress(OSError, EOFError):
            peer.shake_hands()
            peer.read_kind(DATA)

    def trial(strike: Strike) -> None:
        with listening() as listener, Søcket(linger=LINGER) as sock:
            serving = Background(serve, listener)
            sock.send(b"message")
            with suppress(Struck), strike:
                sock.connect(port=listener.getsockname()[1])
            Background(sock.close).result()
            socket.create_connection(listener.getsockname()).close()  # in case that nobody has come
            serving.result()

    assert strike_everywhere(trial) > 10


def test_a_full_queue_is_told_of() -> None:
    def trial(strike: Strike) -> None:
        with Søcket(send_hwm=1, on_full=OnFull.RAISE, linger=0) as sock:
            sock.send(b"message")
            with suppress(Struck), strike:
                for _ in range(2):  # one that tells, and one that need not
                    with suppress(QueueFullError):
                        sock.send(b"refused")
            with pytest.raises(QueueFullError):
                sock.send(b"refused")
            events: list[Event] = []
            with suppress(TimeoutError):
                events += sock.events(timeout=0)
            assert Full in map(type, events)

    assert strike_everywhere(trial) >= 20


@pytest.mark.parametrize("mode", SendMode)
def test_what_is_dropped_is_counted(mode: SendMode) -> None:
    def trial(strike: Strike) -> None:
        with Søcket(mode, send_hwm=2, on_full=OnFull.DROP_OLDEST, linger=0) as sock:
            sock.send_many([b"1", b"2"])
            with suppress(Struck), strike:
                sock.send(b"3")
            stats = sock.stats()
            assert stats.queued + stats.dropped.get("send queue full", 0) >= 2

    assert strike_everywhere(trial) > 20
