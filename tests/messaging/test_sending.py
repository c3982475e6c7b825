"""Which peer a message goes to, in what order, and what happens when there is no room or no peer."""

from __future__ import annotations

import gc
import select
import socket
import sys
import threading
from collections import Counter
from contextlib import suppress
from typing import Any

import pytest
from support.pairs import TIMEOUT, Background, connected, until, wait_for_event
from support.wire_peer import DATA, WirePeer, accept, dial, frame, listening

from netmsg import (
    DeliveryGuarantee, Disconnected, Dropped, Full, OnFull, QueueFullError, SendMode, SendTimeoutError, Søcket,
)
from netmsg.messaging import sweeping
from netmsg.messaging.peers import Peer
from netmsg.wire.framing import EnvelopeDecoder


def numbered(count: int, size: int = 0) -> list[bytes]:
    return [b"%d " % n + b"x" * size for n in range(count)]


def numbers(messages: list[bytes]) -> list[int]:
    return [int(message.split()[0]) for message in messages]


def read_messages(peer: WirePeer, count: int) -> list[bytes]:
    return [peer.read_kind(DATA)[1] for _ in range(count)]


def test_round_robin_is_even_within_one_message() -> None:
    with Søcket(linger=0) as sock:
        sock.bind(port=0)
        peers = [dial(sock.bound_port) for _ in range(3)]
        for peer in peers:
            peer.shake_hands()
        sock.wait_for_peers(3, timeout=TIMEOUT)
        for n in range(3001):
            sock.send(b"%d" % n)
        counts = Counter({n: 0 for n in range(3)})
        until(lambda: sum(info.sent for info in sock.peers()) == 3001)
        counts = Counter(info.sent for info in sock.peers())
        assert max(counts) - min(counts) <= 1
        for peer in peers:
            peer.close()


def test_a_newcomer_does_not_upset_the_turn() -> None:
    with Søcket(linger=0) as sock:
        sock.bind(port=0)
        peers: list[WirePeer] = []
        got = Counter[int]()
        for round_number in range(5):
            peers.append(dial(sock.bound_port))
            peers[-1].shake_hands()
            sock.wait_for_peers(len(peers), timeout=TIMEOUT)
            for _ in range(60 * len(peers)):
                sock.send(b"x")
        # The n-th peer was there for the last 5 - n rounds, and had 60 messages in each, give or take one.
        for index, peer in enumerate(peers):
            expected = 60 * (5 - index)
            got[index] = len(read_messages(peer, expected - 1))
            peer.close()
        assert got == {index: 60 * (5 - index) - 1 for index in range(5)}


def test_order_is_kept_per_peer() -> None:
    with connected() as (a, b):
        b.send_many(numbered(50_000))
        assert numbers([a.recv(timeout=TIMEOUT) for _ in range(50_000)]) == list(range(50_000))


def test_small_and_large_messages_stay_in_order() -> None:
    sizes = [0, 100, 5000, 8191, 8192, 70_000, 300_000, 3, 1_100_000, 0]
    with connected() as (a, b):
        for n, size in enumerate(sizes * 3):
            b.send(b"%d " % n + b"x" * size)
        got = [a.recv(timeout=TIMEOUT) for _ in range(len(sizes) * 3)]
        assert numbers(got) == list(range(len(sizes) * 3))
        assert [len(message.split(b" ")[1]) for message in got] == sizes * 3


def test_messages_wait_for_the_first_peer_in_order() -> None:
    with Søcket(linger=0) as sock:
        sock.bind(port=0)
        sock.send_many(numbered(1000))
        with dial(sock.bound_port) as peer:
            peer.shake_hands()
            assert numbers(read_messages(peer, 1000)) == list(range(1000))


def test_publish_goes_to_every_peer() -> None:
    with Søcket(SendMode.PUBLISH, linger=0) as sock:
        sock.bind(port=0)
        peers = [dial(sock.bound_port) for _ in range(5)]
        for peer in peers:
            peer.shake_hands()
        sock.wait_for_peers(5, timeout=TIMEOUT)
        sock.send_many(numbered(500))
        sock.send(b"500 " + b"x" * 100_000)
        for peer in peers:
            assert numbers(read_messages(peer, 501)) == list(range(501))
            peer.close()


def test_a_publisher_keeps_messages_for_the_first_peer() -> None:
    with Søcket(SendMode.PUBLISH, linger=0) as sock:
        sock.bind(port=0)
        sock.send_many(numbered(10))
        with dial(sock.bound_port) as peer:
            peer.shake_hands()
            assert numbers(read_messages(peer, 10)) == list(range(10))


@pytest.mark.parametrize("mode", list(SendMode))
def test_by_identity_goes_to_that_peer_whatever_the_mode(mode: SendMode) -> None:
    with Søcket(mode, linger=0) as sock:
        sock.bind(port=0)
        with dial(sock.bound_port, b"1" * 16) as one, dial(sock.bound_port, b"2" * 16) as two:
            one.shake_hands()
            two.shake_hands()
            sock.wait_for_peers(2, timeout=TIMEOUT)
            sock.send(b"for two", b"2" * 16)
            sock.send(b"for one", b"1" * 16)
            sock.send(b"for two" * 10_000, b"2" * 16)
            assert one.read_kind(DATA)[1] == b"for one"
            assert two.read_kind(DATA)[1] == b"for two"
            assert two.read_kind(DATA)[1] == b"for two" * 10_000


def test_by_identity_to_an_absent_peer_is_dropped_counted_and_told() -> None:
    with Søcket() as sock:
        sock.send(b"x", b"nobody is there!")
        assert sock.stats().dropped == {"peer not connected": 1}
        event = wait_for_event(sock, Dropped)
        assert event.peer == b"nobody is there!" and event.count == 1


def test_what_was_not_sent_comes_back_and_goes_out_in_order() -> None:
    """A server that had read 100 of 5000 restarts: nothing of the rest is lost but what the kernel had."""
    with listening() as listener, Søcket(linger=0, send_hwm=100_000) as sock:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(port=listener.getsockname()[1])
        peer = accept(listener)
        peer.shake_hands()
        sock.wait_for_peers(timeout=TIMEOUT)
        count = 20_000
        sock.send_many(numbered(count, 1000))
        first = numbers(read_messages(peer, 100))
        peer.reset()
        peer = accept(listener)
        peer.shake_hands()
        rest = numbers(read_messages(peer, 1))
        while rest[-1] != count - 1:
            rest += numbers(read_messages(peer, 1))
        peer.close()
        assert first == list(range(100))
        assert rest == list(range(rest[0], count))  # in order, without a gap: the gap is what the kernel had taken
        assert rest[0] < count - 5000


def test_messages_of_a_peer_that_goes_are_given_to_the_others_before_newer_ones() -> None:
    with Søcket(linger=0) as sock:
        sock.bind(port=0)
        stalled = dial(sock.bound_port, receive_buffer=2048)
        stalled.shake_hands()
        sock.wait_for_peers(1, timeout=TIMEOUT)
        sock.send_many(numbered(9000, 1000))
        with dial(sock.bound_port) as other:
            other.shake_hands()
            sock.wait_for_peers(2, timeout=TIMEOUT)
            stalled.reset()
            until(lambda: len(sock.peers()) == 1)
            sock.send(b"9000 ")
            got = numbers(read_messages(other, 1))
            while got[-1] != 9000:
                got += numbers(read_messages(other, 1))
            assert got == list(range(got[0], 9001)) and got[0] < 9000


def test_by_identity_messages_die_with_their_peer_and_are_counted() -> None:
    with Søcket(linger=0) as sock:
        sock.bind(port=0)
        stalled = dial(sock.bound_port, receive_buffer=2048)
        stalled.shake_hands()
        sock.wait_for_peers(1, timeout=TIMEOUT)
        for message in numbered(9000, 1000):
            sock.send(message, stalled.identity)
        queued = sock.peers()[0].queued
        assert queued > 1000
        stalled.reset()
        assert wait_for_event(sock, Dropped).count == sock.stats().dropped["peer gone"]
        assert 0 < sock.stats().dropped["peer gone"] <= queued
        assert sock.stats().queued == 0


def test_published_copies_wait_for_a_peer_that_we_dial() -> None:
    with listening() as listener, Søcket(SendMode.PUBLISH, linger=0) as sock:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(port=listener.getsockname()[1])
        peer = accept(listener)
        peer.shake_hands()
        sock.wait_for_peers(timeout=TIMEOUT)
        sock.send_many(numbered(9000, 1000))
        peer.reset()
        peer = accept(listener)
        peer.shake_hands()
        got = numbers(read_messages(peer, 1))
        while got[-1] != 8999:
            got += numbers(read_messages(peer, 1))
        peer.close()
        assert got == list(range(got[0], 9000))


# Marks


def stall(sock: Søcket) -> WirePeer:
    """A peer that does not read, and whose share of the kernel's buffers is full."""
    peer = dial(sock.bound_port, receive_buffer=2048)
    peer.shake_hands()
    sock.wait_for_peers(1, timeout=TIMEOUT)
    return peer


def fill(sock: Søcket, **options: Any) -> int:
    """Send until there is no more room: how many were accepted."""
    sent = 0
    with pytest.raises((SendTimeoutError, QueueFullError)):
        for sent in range(1_000_000):
            sock.send(b"%d " % sent + b"x" * 1000, **options)
    return sent


def test_a_stalled_peer_costs_no_more_than_the_mark() -> None:
    with Søcket(send_hwm=50, linger=0) as sock:
        sock.bind(port=0)
        with stall(sock):
            fill(sock, timeout=0.2)
            assert sock.peers()[0].queued == 50
            with pytest.raises(SendTimeoutError):
                sock.send(b"x", sock.peers()[0].identity, timeout=0)
            assert wait_for_event(sock, Full)


def test_the_mark_in_bytes_bounds_large_messages() -> None:
    with Søcket(send_hwm_bytes=10_000_000, linger=0) as sock:
        with pytest.raises(SendTimeoutError):
            for n in range(100):
                sock.send(bytes(1_000_000), timeout=0)
        assert n == 10
        assert sock.stats().queued == 10


def test_blocked_senders_go_on_when_there_is_room_and_nothing_is_lost() -> None:
    with connected({"recv_hwm": 10}, {"send_hwm": 10}) as (a, b):
        threads = [Background(b.send_many, numbered(2000, 100)) for _ in range(4)]
        got = Counter(numbers([a.recv(timeout=TIMEOUT) for _ in range(8000)]))
        for thread in threads:
            thread.result()
        assert got == Counter({n: 4 for n in range(2000)})


def test_a_blocked_sender_goes_on_when_a_peer_comes() -> None:
    with Søcket(send_hwm=1, linger=0) as sock:
        sock.bind(port=0)
        sock.send(b"1")
        blocked = Background(sock.send, b"2")
        with dial(sock.bound_port) as peer:
            peer.shake_hands()
            assert read_messages(peer, 2) == [b"1", b"2"]
            blocked.result()


def test_on_full_raise() -> None:
    with Søcket(send_hwm=50, on_full=OnFull.RAISE, linger=0) as sock:
        sock.bind(port=0)
        with stall(sock):
            with pytest.raises(QueueFullError):
                for _ in range(1_000_000):
                    sock.send(b"x" * 1000)
            assert sock.peers()[0].queued == 50


@pytest.mark.parametrize("policy, kept", [(OnFull.DROP_OLDEST, "90 91 92 93 94 95 96 97 98 99"),
                                          (OnFull.DROP_NEWEST, "0 1 2 3 4 5 6 7 8 9")])
def test_dropping_before_any_peer_is_exact(policy: OnFull, kept: str) -> None:
    with Søcket(send_hwm=10, on_full=policy, linger=0) as sock:
        sock.bind(port=0)
        for n in range(100):
            sock.send(b"%d" % n)
        assert sock.stats().dropped == {"send queue full": 90}
        with dial(sock.bound_port) as peer:
            peer.shake_hands()
            assert b" ".join(read_messages(peer, 10)).decode() == kept


@pytest.mark.parametrize("policy", [OnFull.DROP_OLDEST, OnFull.DROP_NEWEST, OnFull.DISCONNECT])
def test_what_is_published_before_any_subscriber_and_dropped_is_counted_and_told(policy: OnFull) -> None:
    with Søcket(SendMode.PUBLISH, send_hwm=10, on_full=policy, linger=0) as sock:
        sock.bind(port=0)
        for n in range(25):
            sock.send(b"%d" % n)
        assert sock.stats().queued == 10 and sock.stats().dropped == {"send queue full": 15}
        assert sum(wait_for_event(sock, Dropped).count for _ in range(15)) == 15


def test_every_drop_is_counted_by_however_many_threads() -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with Søcket(send_hwm=1, on_full=OnFull.DROP_NEWEST, linger=0) as sock:
            sock.bind(port=0)
            threads = [Background(lambda: [sock.send(b"x") for _ in range(5000)]) for _ in range(4)]
            for thread in threads:
                thread.result(4 * TIMEOUT)
            assert sock.stats().dropped == {"send queue full": 4 * 5000 - 1}
    finally:
        sys.setswitchinterval(interval)


def test_one_send_drops_one_message_after_a_peer_has_left_more_than_the_mark_behind() -> None:
    with Søcket(send_hwm=500, on_full=OnFull.DROP_OLDEST, linger=0) as sock:
        sock.bind(port=0)
        with stall(sock):
            leaving = dial(sock.bound_port, receive_buffer=4096)
            leaving.shake_hands()
            sock.wait_for_peers(2, timeout=TIMEOUT)
            while sock.stats().dropped.get("send queue full", 0) < 3000:  # and their kernels take no more
                sock.send(b"x" * 4000)
            leaving.close()
            until(lambda: len(sock.peers()) == 1)
            before = sock.stats()
            assert before.queued > 500
            for number in range(1, 700):
                sock.send(b"one more")
                after = sock.stats()
                assert after.dropped["send queue full"] - before.dropped["send queue full"] <= number
            assert after.queued >= 500


@pytest.mark.parametrize("mode", list(SendMode))
def test_threads_that_wait_for_room_are_woken_by_room_that_another_made(mode: SendMode) -> None:
    """With a mark of one, and heartbeats so rare that nothing else would wake them."""
    with Søcket(linger=0) as receiver:
        receiver.bind(port=0)
        with Søcket(mode, send_hwm=1, on_full=OnFull.BLOCK, linger=0, heartbeat_interval=3600.0,
                    heartbeat_timeout=7200.0) as sock:
            sock.connect(port=receiver.bound_port)
            sock.wait_for_peers(timeout=TIMEOUT)
            quiet = threading.Event()

            def send() -> None:
                for _ in range(400):
                    sock.send(b"x", timeout=TIMEOUT / 2)
                    quiet.wait(0.0003)

            interval = sys.getswitchinterval()
            sys.setswitchinterval(1e-6)
            try:
                threads = [Background(send) for _ in range(4)]
                for _ in range(1600):
                    receiver.recv(timeout=TIMEOUT)
                for thread in threads:
                    thread.result()
            finally:
                sys.setswitchinterval(interval)


@pytest.mark.parametrize("policy", [OnFull.DROP_OLDEST, OnFull.DROP_NEWEST])
def test_what_is_kept_for_a_subscriber_that_crashes_again_and_again_does_not_grow(policy: OnFull) -> None:
    with listening() as listener:
        with Søcket(SendMode.PUBLISH, on_full=policy, send_hwm=50, linger=0, reconnection_delay=lambda: 0.01) as sock:
            sock.connect(port=listener.getsockname()[1])
            for _ in range(5):
                peer = accept(listener)
                peer.shake_hands()
                sock.wait_for_peers(timeout=TIMEOUT)
                before = sum(sock.stats().dropped.values())
                while sum(sock.stats().dropped.values()) < before + 50:
                    sock.send(bytes(20_000))
                peer.reset()
                until(lambda: not sock.peers())
                for _ in range(100):
                    sock.send(bytes(20_000))
                assert sock.stats().queued <= 51


@pytest.mark.parametrize("policy", [OnFull.DROP_OLDEST, OnFull.DROP_NEWEST])
@pytest.mark.parametrize("mode", list(SendMode))
def test_every_drop_at_a_stalled_peer_is_counted(policy: OnFull, mode: SendMode) -> None:
    total = 20_000
    with Søcket(mode, send_hwm=100, on_full=policy, linger=0) as sock:
        sock.bind(port=0)
        with stall(sock) as peer:
            for n in range(total):
                sock.send(b"%d " % n + b"x" * 1000)
            assert sock.peers()[0].queued <= 100
            dropped = sock.stats().dropped["send queue full"]
            got = numbers(read_messages(peer, total - dropped))
            assert got == sorted(got) and len(got) == total - dropped
            until(lambda: not sock.stats().queued)  # it may have all before the network thread has noted that
            sock.send(b"-1 ")
            assert numbers(read_messages(peer, 1)) == [-1]


def test_one_slow_subscriber_does_not_stop_the_publisher() -> None:
    with Søcket(SendMode.PUBLISH, send_hwm=100, linger=0) as sock:
        sock.bind(port=0)
        with stall(sock), dial(sock.bound_port) as quick:
            quick.shake_hands()
            sock.wait_for_peers(2, timeout=TIMEOUT)
            for n in range(200):
                for m in range(20):
                    sock.send(b"%d " % (n * 20 + m) + b"x" * 1000)
                assert numbers(read_messages(quick, 20)) == list(range(n * 20, n * 20 + 20))


def test_disconnect_cuts_the_peer_that_does_not_keep_up() -> None:
    with Søcket(SendMode.PUBLISH, send_hwm=100, on_full=OnFull.DISCONNECT, linger=0) as sock:
        sock.bind(port=0)
        with stall(sock), dial(sock.bound_port) as quick:
            quick.shake_hands()
            sock.wait_for_peers(2, timeout=TIMEOUT)
            sent = 0
            while len(sock.peers()) == 2:
                sock.send_many(numbered(20, 1000))
                assert numbers(read_messages(quick, 20)) == list(range(20))
                sent += 20
                assert sent < 100_000
            assert [peer.identity for peer in sock.peers()] == [quick.identity]


def test_disconnect_spares_who_has_not_been_sent_yet_what_was_kept_for_it() -> None:
    """As long as what is published meanwhile does not reach the mark."""
    with Søcket(SendMode.PUBLISH, send_hwm=100, on_full=OnFull.DISCONNECT, linger=0) as sock:
        sock.bind(port=0)
        sock.send_many(numbered(100, 200_000))
        with dial(sock.bound_port, receive_buffer=4096) as peer:
            peer.shake_hands()
            sock.wait_for_peers(timeout=TIMEOUT)
            for number in range(100, 190):
                sock.send(b"%d " % number + bytes(200_000))
            assert sock.stats().disconnections == 0 and sock.stats().dropped == {}
            assert [int(message.split()[0]) for message in read_messages(peer, 190)] == list(range(190))
            sent = 0
            while sock.stats().disconnections == 0:
                sock.send(bytes(200_000))
                sent += 1
                assert sent < 10_000


def test_how_many_were_accepted_before_the_queue_was_full_is_told() -> None:
    with Søcket(send_hwm=7, on_full=OnFull.RAISE, linger=0) as sock:
        sock.send(b"before")
        with pytest.raises(QueueFullError) as raised:
            sock.send_many([b"x"] * 20)
        assert raised.value.sent == 6


@pytest.mark.parametrize("timeout", [0, TIMEOUT])
@pytest.mark.parametrize("by_identity", [False, True])
@pytest.mark.parametrize("guarantee", list(DeliveryGuarantee))
def test_disconnect_cuts_who_takes_nothing_though_nobody_else_is_there(
        guarantee: DeliveryGuarantee, by_identity: bool, timeout: float) -> None:
    with Søcket(delivery_guarantee=guarantee, send_hwm=50, on_full=OnFull.DISCONNECT, linger=0, resend_after=0.1,
                heartbeat_interval=0.1, heartbeat_timeout=60) as sock:
        sock.bind(port=0)
        with stall(sock) as stalled:
            sent = 0
            while sock.peers():
                with suppress(SendTimeoutError):
                    sock.send(bytes(10_000), stalled.identity if by_identity else None, timeout=timeout)
                sent += 1
                assert sent < 1_000_000
            assert "did not keep up" in wait_for_event(sock, Disconnected).reason


@pytest.mark.parametrize("guarantee", list(DeliveryGuarantee))
def test_a_burst_disconnects_nobody_who_keeps_up(guarantee: DeliveryGuarantee) -> None:
    with (Søcket(delivery_guarantee=guarantee, send_hwm=20, on_full=OnFull.DISCONNECT, linger=0) as sock,
          Søcket() as one, Søcket() as other):
        sock.bind(port=0)
        for reader in (one, other):
            reader.connect(port=sock.bound_port)
        sock.wait_for_peers(2, timeout=TIMEOUT)

        def read(reader: Søcket) -> int:
            return sum(1 for _ in iter(reader.recv, b"the end"))

        reading = [Background(read, reader) for reader in (one, other)]
        for number in range(4000):
            while True:
                try:
                    sock.send(b"x" * 1000, timeout=0 if number % 2 else TIMEOUT)
                    break
                except SendTimeoutError:
                    pass
        until(lambda: not sock.stats().queued and not sock.stats().unacked)
        for peer in sock.peers():
            sock.send(b"the end", peer.identity, timeout=TIMEOUT)
        assert sum(thread.result() for thread in reading) == 4000
        assert sock.stats().disconnections == 0 and not sock.stats().dropped


def test_publishing_with_block_is_all_or_none() -> None:
    with Søcket(SendMode.PUBLISH, send_hwm=50, on_full=OnFull.BLOCK, linger=0) as sock:
        sock.bind(port=0)
        with stall(sock), dial(sock.bound_port) as quick:
            quick.shake_hands()
            sock.wait_for_peers(2, timeout=TIMEOUT)
            sent = fill(sock, timeout=0.2)
            sock.send(b"end", quick.identity)
            got = []
            while (message := quick.read_kind(DATA)[1]) != b"end":
                got.append(message)
            assert numbers(got) == list(range(sent))


def test_a_receiver_that_pauses_loses_nothing_and_stops_reading() -> None:
    with connected({"recv_hwm": 100}, {"send_hwm": 100_000}) as (a, b):
        b.send_many(numbered(100_000, 100))
        until(lambda: a.stats().received == 100)
        assert numbers([a.recv(timeout=TIMEOUT) for _ in range(100_000)]) == list(range(100_000))


@pytest.mark.parametrize("attempt", range(10))
def test_what_came_before_the_end_of_a_connection_is_handed_over_however_little_room_there_was(attempt: int) -> None:
    with Søcket(recv_hwm=1000, linger=0) as sock:
        sock.bind(port=0)
        with dial(sock.bound_port) as peer:
            peer.shake_hands(*(frame(DATA, b"%d" % n) for n in range(10_000)))
        assert numbers([sock.recv(timeout=TIMEOUT) for _ in range(10_000)]) == list(range(10_000))


def test_one_message_taken_at_a_time_by_a_selector_is_enough_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The regular look, which would help after a second, never comes."""
    monkeypatch.setattr(sweeping, "LOOK_EVERY", 3600.0)
    with Søcket(recv_hwm=2, linger=0, heartbeat_interval=36_000.0, heartbeat_timeout=72_000.0,
                resend_after=36_000.0) as sock:
        sock.bind(port=0)
        with dial(sock.bound_port) as peer:
            peer.shake_hands(*(frame(DATA, b"%d" % number) for number in range(200)))
            descriptor = sock.fileno()
            for number in range(200):
                assert select.select([descriptor], [], [], TIMEOUT)[0], f"not readable before message {number}"
                assert sock.recv(timeout=0) == b"%d" % number


def test_what_has_been_taken_keeps_nothing_of_the_connection_alive() -> None:
    def there() -> list[object]:
        gc.collect()
        return [thing for thing in gc.get_objects() if isinstance(thing, (Peer, EnvelopeDecoder))]

    others = there()  # what other tests have left
    with Søcket(linger=0) as sock:
        sock.bind(port=0)
        for _ in range(20):
            with dial(sock.bound_port) as peer:
                peer.shake_hands(frame(DATA, b"hello"))
                assert sock.recv(timeout=TIMEOUT) == b"hello"
        until(lambda: not sock.peers())
        until(lambda: all(any(thing is one for one in others) for thing in there()))


def test_the_receive_mark_in_bytes_stops_reading() -> None:
    with connected({"recv_hwm_bytes": 1_000_000}) as (a, b):
        b.send_many([bytes(100_000)] * 200)
        until(lambda: a.stats().received >= 10)
        assert a.stats().received <= 13  # soft by what one read brings
        assert sum(len(a.recv(timeout=TIMEOUT)) for _ in range(200)) == 20_000_000


def test_many_threads_may_send_and_receive_at_once() -> None:
    with connected() as (a, b):
        senders = [Background(b.send_many, [b"%d:%d" % (t, n) for n in range(5000)]) for t in range(4)]
        got: list[list[bytes]] = [[] for _ in range(4)]

        def receive(index: int) -> None:
            for message in a.messages():
                got[index].append(message)

        receivers = [threading.Thread(target=receive, args=(index,)) for index in range(4)]
        for thread in receivers:
            thread.start()
        for sender in senders:
            sender.result()
        until(lambda: sum(map(len, got)) >= 20_000)
        a.close()
        for thread in receivers:
            thread.join(TIMEOUT)
        everything = [message for part in got for message in part]
        assert Counter(everything) == Counter(b"%d:%d" % (t, n) for t in range(4) for n in range(5000))
        for part in got:
            for t in range(4):
                mine = [int(message.split(b":")[1]) for message in part if message.startswith(b"%d:" % t)]
                assert mine == sorted(mine)


def test_the_network_thread_cannot_be_made_to_wait_for_itself() -> None:
    """A blocking send on the engine's own thread, as from a finalizer, is an error and not a deadlock."""
    from netmsg import IOThread, LocalProtocolError
    from netmsg.reactor.io_thread import reactor_of
    with IOThread() as io, Søcket(send_hwm=1, io_thread=io, linger=0) as sock:
        sock.bind(port=0)
        sock.send(b"fills the queue")
        outcome: list[BaseException] = []
        done = threading.Event()

        def send() -> None:
            try:
                sock.send(b"would wait")
            except BaseException as error:
                outcome.append(error)
            done.set()

        reactor_of(io).call(send)
        assert done.wait(TIMEOUT)
        assert isinstance(outcome[0], LocalProtocolError)
