"""Subscribing to a part of what is published, over real connections."""

from __future__ import annotations

import sys
import threading
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.pairs import TIMEOUT, Background, connected, until, wait_for_event
from support.strikes import Strike, Struck, strike_everywhere
from support.wire_peer import CAPABILITIES, DATA, DATA_REQ, accept, capabilities, dial, frame, listening

from netmsg import ClosedError, DeliveryGuarantee, Disconnected, OnFull, SendMode, Søcket

SUBSCRIBE, UNSUBSCRIBE = 0x85, 0x86
PUBLISHER: dict[str, Any] = {"send_mode": SendMode.PUBLISH}


def everything(sock: Søcket, end: bytes) -> list[bytes]:
    """What it gets up to ``end``."""
    got: list[bytes] = []
    while not got or got[-1] != end:
        got.append(sock.recv(timeout=TIMEOUT))
    return got


def publish_until_told(publisher: Søcket, sent: int, *messages: bytes) -> None:
    """Until no more than ``sent`` of them go out, for the subscriptions have come; and once more, for when the first of
    many comes between two messages, it may be so by chance."""
    def goes() -> bool:
        before = publisher.stats().sent
        publisher.send_many(messages)
        until(lambda: publisher.stats().queued == 0)
        return publisher.stats().sent - before == sent

    until(lambda: goes() and goes())


def test_a_publisher_does_not_send_what_nobody_wants() -> None:
    with connected(PUBLISHER) as (publisher, subscriber):
        subscriber.subscribe(b"end")
        subscriber.subscribe(b"a.")
        publish_until_told(publisher, 1, b"a.1", b"b.1", b"")  # and the one before it, too
        publisher.send(b"end")
        got = everything(subscriber, b"end")
        assert set(got) == {b"a.1", b"end"}
        subscriber.unsubscribe(b"a.")
        publish_until_told(publisher, 0, b"a.2", b"b.2")
        subscriber.unsubscribe(b"end")
        publish_until_told(publisher, 2, b"a.3", b"b.3")
        assert set(everything(subscriber, b"b.3")) <= {b"a.2", b"a.3", b"b.3"}


def test_it_is_told_again_at_every_connection_and_nothing_else_comes() -> None:
    with Søcket(linger=0) as subscriber:
        subscriber.subscribe(b"a")
        with Søcket(SendMode.PUBLISH, linger=0) as first:
            subscriber.connect(port=first.bind(port=0).bound_port)
            first.wait_for_peers(timeout=TIMEOUT)
            publish_until_told(first, 1, b"a1", b"b1")
            port = first.bound_port
        until(lambda: not subscriber.peers())
        with Søcket(SendMode.PUBLISH, linger=0) as second:
            second.bind(port=port)
            second.wait_for_peers(timeout=TIMEOUT)
            publish_until_told(second, 1, b"a2", b"b2")
            got = everything(subscriber, b"a2")
            assert set(got) == {b"a1", b"a2"}


def test_two_that_tell_each_other_more_than_the_kernel_holds_both_come_to_an_end(tmp_path: Path) -> None:
    options: dict[str, Any] = {**PUBLISHER, "send_buffer": 4096, "recv_buffer": 4096, "linger": 0}
    with Søcket(**options) as a, Søcket(**options) as b:
        for sock in a, b:
            for number in range(9000):
                sock.subscribe(b"%250d" % number)
        a.bind_unix(tmp_path / "a")
        b.connect_unix(tmp_path / "a")
        a.wait_for_peers(timeout=TIMEOUT)
        for sock in a, b:
            publish_until_told(sock, 1, b"x", b"%250d" % 8999)


def test_what_others_send_is_looked_at_when_it_comes() -> None:
    """No publisher of netmsg's, and one at least once: of that everything comes."""
    with Søcket(linger=0) as sock:
        sock.bind(port=0)
        sock.subscribe(b"a")
        with dial(sock.bound_port) as peer:
            peer.shake_hands(*(frame(DATA, data) for data in (b"a1", b"b1", b"", b"a2")), frame(DATA, b"b2"),
                             frame(DATA_REQ, bytes(16) + b"b3"), frame(DATA, b"a3"))
            assert everything(sock, b"a3") == [b"a1", b"a2", b"b3", b"a3"]


def test_requests_come_in_any_case() -> None:
    with connected(PUBLISHER) as (publisher, subscriber):
        subscriber.subscribe(b"a")
        asking = Background(publisher.request, b"what", timeout=TIMEOUT)
        subscriber.recv_delivery(timeout=TIMEOUT).reply(b"that")
        assert asking.result() == b"that"


@pytest.mark.parametrize("features, told", [(4, True), (7, True), (3, False), (None, False)])
def test_only_who_understands_it_is_told(features: int | None, told: bool) -> None:
    with Søcket(linger=0) as sock, listening() as listener:
        sock.subscribe(b"one")
        sock.connect(port=listener.getsockname()[1])
        peer = accept(listener)
        with peer:
            peer.shake_hands(capabilities(features=features))
            peer.read_kind(CAPABILITIES)
            sock.wait_for_peers(timeout=TIMEOUT)
            peer.send(frame(DATA, b"one"))
            assert sock.recv(timeout=TIMEOUT) == b"one", "so its capabilities have been heard"
            sock.subscribe(b"two")
            sock.unsubscribe(b"one")
            sock.send(b"sent")
            expected = [(SUBSCRIBE, b"one"), (SUBSCRIBE, b"two"), (UNSUBSCRIBE, b"one")] if told else []
            kinds = SUBSCRIBE, UNSUBSCRIBE, DATA
            got = [peer.read_kind(*kinds)]
            while len(got) <= len(expected):
                got.append(peer.read_kind(*kinds))
            assert sorted(got) == sorted([*expected, (DATA, b"sent")])
            assert [one for one in got if one[0] != DATA] == expected


def test_who_does_not_want_it_does_not_stand_in_the_way() -> None:
    """A subscriber that reads nothing, and is full: what others want goes out."""
    with Søcket(SendMode.PUBLISH, send_hwm=2, send_buffer=4096, on_full=OnFull.BLOCK, linger=0) as publisher:
        publisher.bind(port=0)
        with dial(publisher.bound_port) as deaf, Søcket(linger=0) as other:
            deaf.shake_hands(capabilities(features=0), frame(SUBSCRIBE, b"d"))
            other.subscribe(b"o")
            other.connect(port=publisher.bound_port)
            publisher.wait_for_peers(2, timeout=TIMEOUT)
            publish_until_told(publisher, 0, b"nobody's")
            with pytest.raises(TimeoutError):
                while True:
                    publisher.send(b"d" * 1_000_000, timeout=0.05)
            for number in range(20):
                publisher.send(b"o%d" % number, timeout=TIMEOUT)
            assert everything(other, b"o19") == [b"o%d" % number for number in range(20)]


def test_ten_thousand_are_possible_and_one_more_is_the_end_of_that_connection() -> None:
    with Søcket(SendMode.PUBLISH, linger=0) as publisher:
        publisher.bind(port=0)
        with dial(publisher.bound_port) as peer:
            peer.shake_hands(*(frame(SUBSCRIBE, b"%d" % number) for number in range(10_001)))
            peer.wait_for_end()
        assert "10000 subscriptions" in wait_for_event(publisher, Disconnected).reason


def test_ten_thousand_of_ones_own() -> None:
    with connected(PUBLISHER) as (publisher, subscriber):
        for number in range(10_000):
            subscriber.subscribe(b"%05d" % number)
        subscriber.subscribe(b"00000")
        with pytest.raises(ValueError, match="10000"):
            subscriber.subscribe(b"x")
        publish_until_told(publisher, 1, b"x", b"09999")
        assert set(everything(subscriber, b"09999")) == {b"09999"}


def test_who_is_told_while_they_change_is_never_told_more_than_there_are() -> None:
    told: list[bytes] = []
    peer: Any = SimpleNamespace(subscribe=lambda prefixes, wanted: told.extend(prefixes))
    with Søcket() as sock:
        for length in (*range(1, 200), 250):
            sock.subscribe(bytes(length))
        subscriptions = sock._engine.receiver.subscriptions
        over = threading.Event()

        def change() -> None:
            here, there = b"x", b"x" * 250
            sock.subscribe(here)
            while not over.is_set():
                sock.unsubscribe(here)
                sock.subscribe(there)
                here, there = there, here

        changing = Background(change)
        interval = sys.getswitchinterval()
        try:
            sys.setswitchinterval(1e-6)
            for _ in range(3000):
                told.clear()
                subscriptions.tell_all(peer)
                assert len(told) <= 201
        finally:
            sys.setswitchinterval(interval)
            over.set()
            changing.result()


def test_who_tells_its_capabilities_twice_is_told_once() -> None:
    with Søcket(linger=0) as sock, listening() as listener:
        sock.subscribe(b"one")
        sock.connect(port=listener.getsockname()[1])
        with accept(listener) as peer:
            peer.shake_hands(capabilities(features=4), capabilities(features=4), frame(DATA, b"one"))
            assert sock.recv(timeout=TIMEOUT) == b"one"
            sock.send(b"sent")
            assert [peer.read_kind(SUBSCRIBE, DATA)[0] for _ in range(2)] == [SUBSCRIBE, DATA]


def test_who_waits_for_room_is_woken_when_that_is_not_wanted_any_more() -> None:
    with Søcket(SendMode.PUBLISH, send_hwm=2, send_buffer=4096, on_full=OnFull.BLOCK, linger=0) as publisher:
        publisher.bind(port=0)
        with dial(publisher.bound_port) as deaf:
            deaf.shake_hands(capabilities(features=0), frame(SUBSCRIBE, b"d"), frame(SUBSCRIBE, b"e"))
            publisher.wait_for_peers(timeout=TIMEOUT)
            publish_until_told(publisher, 0, b"nobody's")
            with pytest.raises(TimeoutError):
                while True:
                    publisher.send(b"d" * 1_000_000, timeout=0.05)
            blocked = Background(publisher.send, b"d" * 1_000_000, timeout=TIMEOUT)
            deaf.send(frame(UNSUBSCRIBE, b"d"))
            blocked.result()


def test_an_interrupted_call_can_be_repeated() -> None:
    with Søcket(linger=0) as sock:
        sock.bind(port=0)
        with dial(sock.bound_port) as peer:
            peer.shake_hands()
            sock.wait_for_peers(timeout=TIMEOUT)

            def trial(strike: Strike) -> None:
                for call, expected in ((sock.subscribe, [b"a"]), (sock.unsubscribe, [b"x", b"a"])):
                    with suppress(Struck), strike:
                        call(b"a")
                    call(b"a")
                    peer.send(frame(DATA, b"x"), frame(DATA, b"a"))
                    assert everything(sock, b"a") == expected

            assert strike_everywhere(trial) > 5


@pytest.mark.parametrize("prefix, error", [("text", TypeError), (5, TypeError), (None, TypeError),
                                           (b"x" * 256, ValueError)])
def test_what_is_no_prefix_is_refused(prefix: Any, error: type[Exception]) -> None:
    with Søcket() as sock:
        for call in (sock.subscribe, sock.unsubscribe):
            with pytest.raises(error):
                call(prefix)


def test_prefixes_may_be_of_any_buffer_and_the_socket_be_open() -> None:
    with connected(PUBLISHER) as (publisher, subscriber):
        subscriber.subscribe(bytearray(b"a"))
        subscriber.subscribe(memoryview(b"b"))
        subscriber.unsubscribe(bytearray(b"b"))
        publish_until_told(publisher, 1, b"a", b"b")
    with pytest.raises(ClosedError):
        subscriber.subscribe(b"a")
    with pytest.raises(ClosedError):
        subscriber.unsubscribe(b"a")


def test_in_a_conversation_too() -> None:
    """Two that take turns: the one that waits reads by itself, until it wants only a part."""
    with connected(PUBLISHER) as (a, b):
        echo = Background(lambda: [a.send(a.recv(timeout=TIMEOUT)) for _ in range(200)])
        for number in range(200):
            if number == 100:
                b.subscribe(b"even")
            b.send(b"even" if number % 2 == 0 or number < 100 else b"odd")
            if number < 100 or number % 2 == 0:
                assert b.recv(timeout=TIMEOUT) == b"even"
        echo.result()
        with pytest.raises(TimeoutError):
            b.recv(timeout=0.05)


def test_at_least_once_nothing_is_filtered() -> None:
    with connected({"delivery_guarantee": DeliveryGuarantee.AT_LEAST_ONCE}) as (a, b):
        b.subscribe(b"x")
        receipt = a.send(b"y")
        assert b.recv(timeout=TIMEOUT) == b"y"
        receipt.wait(timeout=TIMEOUT)  # type: ignore[union-attr]
