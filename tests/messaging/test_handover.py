"""Two connections of one peer: which of them stays, and that nothing is lost, doubled or reordered by it."""

from __future__ import annotations

import socket
import ssl
import sys
import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import trustme
from support.pairs import TIMEOUT, Background, until, wait_for_event
from support.wire_peer import (
    ACK, DATA, DATA_REQ, HEARTBEAT, HELLO, WirePeer, accept, capabilities, dial, frame, hello, listening,
)

from netmsg import Connecting, DeliveryGuarantee, Disconnected, DuplicatePeer, OnDuplicate, Retrying, SendMode, Søcket
from netmsg.messaging import admission

LESSER, GREATER = b"A" * 16, b"B" * 16


def numbered(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


def dial_each_other(way: str, one: Søcket, other: Søcket, folder: Path, contexts: tuple[Any, Any]) -> None:
    """Bind both first, so that the dials cross."""
    if way == "unix":
        one.bind_unix(folder / "one")
        other.bind_unix(folder / "other")
        one.connect_unix(folder / "other")
        other.connect_unix(folder / "one")
        return
    server, client = contexts if way == "tls" else (None, None)
    one.bind("localhost", 0, ssl_context=server)
    other.bind("localhost", 0, ssl_context=server)
    one.connect("localhost", other.bound_port, ssl_context=client)
    other.connect("localhost", one.bound_port, ssl_context=client)


@pytest.mark.parametrize("attempt", range(4))
@pytest.mark.parametrize("way", ["tcp", "unix", "tls"])
@pytest.mark.parametrize("guarantee", list(DeliveryGuarantee))
def test_those_who_dial_each_other_and_send_at_once_lose_nothing(
        guarantee: DeliveryGuarantee, way: str, attempt: int, tmp_path: Path,
        tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    count = 2000
    names = (LESSER, GREATER) if attempt % 2 else (GREATER, LESSER)
    with (Søcket(delivery_guarantee=guarantee, identity=names[0], linger=0) as one,
          Søcket(delivery_guarantee=guarantee, identity=names[1], linger=0) as other):
        receivers = [Background(receive, sock, count) for sock in (one, other)]
        dial_each_other(way, one, other, tmp_path, tls_contexts)
        senders = [Background(sock.send_many, numbered(count)) for sock in (one, other)]
        for sender in senders:
            for receipt in sender.result() or ():
                receipt.wait(timeout=TIMEOUT)
        for receiver in receivers:
            messages = receiver.result()
            assert sorted(messages) == sorted(numbered(count))
            if guarantee is DeliveryGuarantee.AT_MOST_ONCE:
                assert messages == numbered(count)
        until(lambda: len(one.peers()) == len(other.peers()) == 1)


def receive(sock: Søcket, count: int) -> list[bytes]:
    return [sock.recv(timeout=TIMEOUT) for _ in range(count)]


def test_who_has_the_peer_by_another_connection_does_not_dial_again_until_that_has_gone() -> None:
    """The greater identity's dial stays, so the lesser one rests."""
    with Søcket(identity=LESSER, linger=0, reconnection_delay=lambda: 0.01) as lesser:
        lesser.bind(port=0)
        with Søcket(identity=GREATER, linger=0, reconnection_delay=lambda: 0.01) as greater:
            greater.bind(port=0)
            port = greater.bound_port
            lesser.connect(port=port)
            greater.connect(port=lesser.bound_port)
            wait_for_event(lesser, DuplicatePeer)
            until(lambda: len(lesser.peers()) == len(greater.peers()) == 1
                  and lesser.peers()[0].address[1] != port)
            with pytest.raises(TimeoutError):
                for event in lesser.events(timeout=0.3):
                    assert not isinstance(event, (Connecting, Retrying)), event
        with Søcket(identity=GREATER, linger=0) as again:
            again.bind(port=port)  # and does not dial
            again.send(b"back")
            assert lesser.recv(timeout=TIMEOUT) == b"back"


def test_what_comes_by_the_connection_that_goes_is_read_before_the_other() -> None:
    """The peer has sent on both, and half-closes the one when it knows which of them stays."""
    with listening() as listener, Søcket(identity=GREATER, linger=0) as sock:
        sock.bind(port=0)
        with dial(sock.bound_port, LESSER) as goes:
            goes.shake_hands()
            sock.wait_for_peers(timeout=TIMEOUT)
            sock.connect(port=listener.getsockname()[1])
            with accept(listener, LESSER) as stays:
                stays.shake_hands(*(frame(DATA, b"%d" % number) for number in range(10, 20)))
                until(lambda: sock.stats().connections == 2)
                sock.send(b"answer")
                goes.send(*(frame(DATA, b"%d" % number) for number in range(10)))
                goes.wait_for_end()  # it says that it sends nothing more by this one
                goes.sock.shutdown(socket.SHUT_WR)
                assert receive(sock, 20) == numbered(20)
                assert stays.read_kind(DATA)[1] == b"answer"


def test_what_was_sent_by_the_connection_that_goes_is_not_in_vain() -> None:
    """Its acknowledgement may still come by that one; so it is no resend that it goes out by the other as well."""
    with listening() as listener, Søcket(delivery_guarantee=DeliveryGuarantee.AT_LEAST_ONCE, identity=GREATER,
                                         max_resends=0, linger=0) as sock:
        sock.bind(port=0)
        with dial(sock.bound_port, LESSER) as goes:
            goes.shake_hands()
            receipt = sock.send(b"job")
            message_id = goes.read_kind(DATA_REQ)[1][:16]
            sock.connect(port=listener.getsockname()[1])
            with accept(listener, LESSER) as stays:
                stays.shake_hands()
                until(lambda: sock.stats().connections == 2)
                assert not receipt.failed
                goes.send(frame(ACK, message_id))
                receipt.wait(timeout=TIMEOUT)
                assert sock.stats().resent == sock.stats().undelivered == 0


def test_what_was_sent_by_the_connection_that_goes_is_for_nobody_else() -> None:
    """The peer never goes away: it has a second connection, and then only that one."""
    with listening() as listener, Søcket(delivery_guarantee=DeliveryGuarantee.AT_LEAST_ONCE, identity=GREATER,
                                         linger=0) as sock:
        sock.bind(port=0)
        with dial(sock.bound_port, LESSER) as goes, dial(sock.bound_port) as other:
            goes.shake_hands()
            other.shake_hands()
            sock.wait_for_peers(2, timeout=TIMEOUT)
            receipts = sock.send_many(numbered(100))
            sent = [goes.read_kind(DATA_REQ)[1] for _ in range(50)]
            others = [other.read_kind(DATA_REQ)[1] for _ in range(50)]
            sock.connect(port=listener.getsockname()[1])
            with accept(listener, LESSER) as stays:
                stays.shake_hands()
                until(lambda: sock.stats().connections == 3)
                sock.send(b"last", other.identity)
                assert other.read_kind(DATA_REQ)[1][16:] == b"last"
                goes.wait_for_end()
                goes.sock.shutdown(socket.SHUT_WR)
                assert [stays.read_kind(DATA_REQ)[1] for _ in range(50)] == sent
                stays.send(*(frame(ACK, message[:16]) for message in sent))
                other.send(*(frame(ACK, message[:16]) for message in others))
                for receipt in receipts:
                    receipt.wait(timeout=TIMEOUT)


@pytest.mark.parametrize("mode", list(SendMode))
def test_a_third_connection_leaves_one_peer_under_the_identity(mode: SendMode) -> None:
    """While it is found out whether the first is alive, the third replaces it: the second must not be let in, too."""
    with listening() as listener, Søcket(mode, identity=GREATER, linger=0) as sock:
        sock.bind(port=0)
        with dial(sock.bound_port, LESSER) as first, dial(sock.bound_port, LESSER) as second:
            first.shake_hands()
            sock.wait_for_peers(timeout=TIMEOUT)
            second.send(hello(LESSER))
            sock.connect(port=listener.getsockname()[1])
            with accept(listener, LESSER) as third:
                third.shake_hands()
                second.wait_for_end()
                first.wait_for_end()
                first.close()
                until(lambda: [peer.address for peer in sock.peers()] == [listener.getsockname()])
                sock.send(b"once")
                assert third.read_kind(DATA)[1] == b"once"


def test_a_peer_that_went_away_unread_may_come_back_and_loses_nothing() -> None:
    """Nobody takes its messages, so its goodbye is not read; each of its connections counts against the same mark."""
    with Søcket(recv_hwm=10, linger=0) as sock:
        sock.bind(port=0)
        for visit in range(5):
            with dial(sock.bound_port, LESSER) as peer:
                peer.shake_hands(*(frame(DATA, b"%d" % (20 * visit + number)) for number in range(20)))
                until(lambda: sock.stats().connections == visit + 1)
        assert sock.stats().received == 10
        assert receive(sock, 100) == numbered(100)
        until(lambda: not sock.peers())


def test_who_comes_again_and_has_gone_before_it_is_let_in_loses_nothing_though_its_last_connection_is_unread() -> None:
    may_come_in = threading.Event()
    with Søcket(recv_hwm=3, linger=0, authorize=lambda peer: may_come_in.wait(TIMEOUT)) as sock:
        sock.bind(port=0)
        for visit in range(3):
            with dial(sock.bound_port, LESSER) as peer:
                peer.send(hello(LESSER), *(frame(DATA, b"%d" % (800 * visit + number)) for number in range(800)))
                if visit == 0:
                    may_come_in.set()
                    peer.read_frame()
                    may_come_in.clear()
                peer.sock.shutdown(socket.SHUT_WR)
                may_come_in.set()
                until(lambda: sock.stats().connections == visit + 1)
                may_come_in.clear()
        assert receive(sock, 2400) == numbered(2400)
        until(lambda: not sock.peers())


def test_a_ghost_that_is_not_read_is_replaced_when_its_system_no_longer_answers() -> None:
    """Its connection is reset while it lies unread, as by a host that has been started anew."""
    with Søcket(recv_hwm=10, linger=0) as sock:
        sock.bind(port=0)
        ghost = dial(sock.bound_port, LESSER)
        ghost.shake_hands(*(frame(DATA, b"%d" % number) for number in range(20)))
        until(lambda: sock.stats().received == 10)
        sock.send(b"to whom it is not read any further")
        assert ghost.read_kind(DATA)
        ghost.reset()
        with dial(sock.bound_port, LESSER) as peer:
            assert peer.shake_hands() == sock.identity
            sock.send(b"to the living")
            assert peer.read_kind(DATA)[1] == b"to the living"


def test_probing_does_not_take_a_connection_for_dead_that_is_not_read_yet() -> None:
    """It waits behind the one before it, whose messages nobody takes."""
    with Søcket(recv_hwm=10, linger=0, heartbeat_interval=0.2) as sock:
        sock.bind(port=0)
        with dial(sock.bound_port, LESSER) as first:
            first.shake_hands(*(frame(DATA, b"%d" % number) for number in range(20)))
            until(lambda: sock.stats().received == 10)
        with dial(sock.bound_port, LESSER) as second, dial(sock.bound_port, LESSER) as third:
            second.shake_hands(capabilities(200), *(frame(DATA, b"%d" % number) for number in range(20, 40)))
            until(lambda: sock.stats().connections == 2)
            third.send(hello(LESSER))
            third.wait_for_end()
            assert receive(sock, 40) == numbered(40)
            sock.send(b"to the second")
            assert second.read_kind(DATA)[1] == b"to the second"


@pytest.mark.parametrize("way", ["taken over", "the same certificate"])
def test_who_closes_in_good_order_and_comes_again_loses_nothing(
        way: str, tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    """Whatever is done about duplicates: the old connection has said goodbye, and is read to its end."""
    server, client = tls_contexts if way == "the same certificate" else (None, None)
    policy = OnDuplicate.TAKEOVER if way == "taken over" else OnDuplicate.PROBE
    with Søcket(recv_hwm=10, linger=0, on_duplicate=policy) as sock:
        sock.bind("localhost", 0, ssl_context=server)
        for life in range(3):
            visitor = Søcket(identity=LESSER, linger=0.5)
            visitor.connect("localhost", sock.bound_port, ssl_context=client)
            visitor.send_many([b"%d" % number for number in range(1000 * life, 1000 * life + 1000)])
            visitor.close()
        assert receive(sock, 3000) == numbered(3000)


def test_a_ghosts_time_does_not_begin_anew_with_each_attempt() -> None:
    with Søcket(linger=0) as sock:
        sock.bind(port=0)
        with dial(sock.bound_port, LESSER) as ghost:
            ghost.shake_hands(capabilities(1000))
            until(lambda: sock.peers())
            attempts = 0
            let_in = False
            while not let_in and attempts < 20:
                attempts += 1
                with dial(sock.bound_port, LESSER) as back:
                    back.sock.settimeout(0.5)
                    try:
                        let_in = bool(back.shake_hands())
                    except (TimeoutError, EOFError, ConnectionError):
                        pass
            assert let_in


def test_one_identity_has_so_many_connections_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MOST_OF_ONE", 3)
    with Søcket(recv_hwm=10, linger=0) as sock:
        sock.bind(port=0)
        for visit in range(3):
            with dial(sock.bound_port, LESSER) as peer:
                peer.shake_hands(*(frame(DATA, b"%d" % (20 * visit + number)) for number in range(20)))
                until(lambda: sock.stats().connections == visit + 1)
        with dial(sock.bound_port, LESSER) as peer:
            peer.send(hello(LESSER))
            peer.wait_for_end()
        with dial(sock.bound_port, GREATER) as stranger:
            stranger.shake_hands()
        assert receive(sock, 60) == numbered(60)
        until(lambda: not sock.peers())
        with dial(sock.bound_port, LESSER) as peer:
            peer.shake_hands(frame(DATA, b"again"))
            assert sock.recv(timeout=TIMEOUT) == b"again"


@pytest.mark.parametrize("identified", [True, False])
def test_messages_not_sent_yet_go_to_the_connection_that_takes_over(identified: bool) -> None:
    with Søcket(on_duplicate=OnDuplicate.TAKEOVER, linger=0) as sock:
        sock.bind(port=0)
        with dial(sock.bound_port, LESSER, receive_buffer=4096) as old, dial(sock.bound_port, LESSER) as new:
            old.shake_hands()
            sock.wait_for_peers(timeout=TIMEOUT)
            sock.send_many([b"%d " % number + bytes(1000) for number in range(9000)],
                           LESSER if identified else None)
            new.shake_hands()
            sock.send(b"9000 ", LESSER)
            got: list[int] = []
            while not got or got[-1] != 9000:
                got.append(int(new.read_kind(DATA)[1].split()[0]))
            assert got == list(range(got[0], 9001)) and len(got) > 1000
            assert sock.stats().dropped == {}


def test_a_sender_that_was_too_late_for_the_old_connection_keeps_its_order() -> None:
    """It had looked up the old one when that was taken over; its next message must not overtake this."""
    with Søcket(on_duplicate=OnDuplicate.TAKEOVER, linger=0) as sock:
        sock.bind(port=0)
        with dial(sock.bound_port, LESSER) as old, dial(sock.bound_port, LESSER) as new:
            old.shake_hands()
            sock.wait_for_peers(timeout=TIMEOUT)
            looked_up, go_on = threading.Event(), threading.Event()

            def stop_once(frame: Any, event: str, _: Any) -> Any:
                if frame.f_code is Søcket.send.__code__ and "queue" in frame.f_locals and not looked_up.is_set():
                    looked_up.set()
                    go_on.wait(TIMEOUT)
                return stop_once

            def send() -> None:
                sys.settrace(stop_once)
                sock.send(b"first")
                sys.settrace(None)
                sock.send(b"second")

            sending = Background(send)
            assert looked_up.wait(TIMEOUT)
            new.shake_hands()
            until(lambda: sock.stats().connections == 2)
            go_on.set()
            sending.result()
            assert [new.read_kind(DATA)[1] for _ in range(2)] == [b"first", b"second"]


def test_an_at_least_once_message_goes_out_again_by_the_connection_that_takes_over() -> None:
    with Søcket(delivery_guarantee=DeliveryGuarantee.AT_LEAST_ONCE, on_duplicate=OnDuplicate.TAKEOVER,
                linger=0) as sock, ExitStack() as stack:
        sock.bind(port=0)
        old = stack.enter_context(dial(sock.bound_port, LESSER))
        old.shake_hands()
        sock.send(b"job")
        sent = old.read_kind(DATA_REQ)[1]
        new = stack.enter_context(dial(sock.bound_port, LESSER))
        new.send(hello(LESSER))
        assert new.read_kind(HELLO)[0] == HELLO
        assert new.read_kind(DATA_REQ)[1] == sent


def test_who_waits_for_an_acknowledgement_reads_past_the_mark_of_the_connection_before() -> None:
    """The peer has come again, and acknowledges by its new connection; the messages of the old one nobody takes."""
    with Søcket(delivery_guarantee=DeliveryGuarantee.AT_LEAST_ONCE, recv_hwm=10, linger=0) as sock:
        sock.bind(port=0)
        with dial(sock.bound_port, LESSER) as old:
            old.shake_hands(*(frame(DATA, b"%d" % number) for number in range(500)))
            until(lambda: sock.stats().received == 10)
        with dial(sock.bound_port, LESSER) as new:
            new.shake_hands()
            until(lambda: sock.stats().connections == 2)
            receipt = sock.send(b"job")
            new.send(frame(ACK, new.read_kind(DATA_REQ)[1][:16]))
            receipt.wait(timeout=TIMEOUT)
            assert receive(sock, 500) == numbered(500)


@pytest.mark.parametrize("comes", ["by its own dialling", "by ours"])
@pytest.mark.parametrize("names", [(LESSER, GREATER), (GREATER, LESSER)])
def test_copies_that_are_kept_for_what_we_dial_reach_it_whoever_dials(names: tuple[bytes, bytes], comes: str) -> None:
    """And first; and `close` does not wait for them when they have gone."""
    ours, theirs = names
    with listening() as listener:
        sock = Søcket(SendMode.PUBLISH, identity=ours, reconnection_delay=lambda: 0.01, send_hwm=500)
        sock.bind(port=0).connect(port=listener.getsockname()[1])
        with accept(listener, theirs) as first:
            first.shake_hands()
            sock.wait_for_peers(timeout=TIMEOUT)
            for number in range(200):
                sock.send(b"%06d" % number + bytes(100_000))
            first.reset()
        wait_for_event(sock, Disconnected)  # behind all that becomes of what it was not sent
        kept = sock.stats().queued
        assert kept > 0
        with (dial(sock.bound_port, theirs) if comes == "by its own dialling" else accept(listener, theirs)) as again:
            again.shake_hands()
            sock.wait_for_peers(timeout=TIMEOUT)
            sock.send(b"newer")
            got = [again.read_kind(DATA)[1][:6] for _ in range(kept + 1)]
            assert got[:-1] == sorted(got[:-1]) and got[-1] == b"newer" and sock.stats().dropped == {}
            closing = Background(sock.close, linger=TIMEOUT / 2)
            again.wait_for_end()
            again.close()
            assert closing.result() == 0


def test_copies_that_are_kept_for_a_peer_reach_it_by_another_way_that_we_dial() -> None:
    """It was found to be the same one behind both addresses, and comes back at the second alone."""
    with listening() as one, listening() as two:
        sock = Søcket(SendMode.PUBLISH, on_duplicate=OnDuplicate.REJECT, reconnection_delay=lambda: 0.01, send_hwm=500)
        sock.connect(port=one.getsockname()[1])
        with accept(one, LESSER) as first:
            first.shake_hands()
            sock.wait_for_peers(timeout=TIMEOUT)
            sock.connect(port=two.getsockname()[1])
            with accept(two, LESSER) as refused:
                refused.send(hello(LESSER))
                refused.wait_for_end()
            for number in range(200):
                sock.send(b"%06d" % number + bytes(100_000))
            one.close()
            first.reset()
        with accept(two, LESSER) as again:
            again.shake_hands()
            until(lambda: sock.stats().connections == 2)
            kept = sock.stats().queued
            sock.send(b"newer")
            got = [again.read_kind(DATA)[1][:6]]
            while got[-1] != b"newer":
                got.append(again.read_kind(DATA)[1][:6])
            assert got[:-1] == sorted(got[:-1]) and len(got) > kept > 0
            closing = Background(sock.close, linger=TIMEOUT / 2)
            again.wait_for_end()
            again.close()
            assert closing.result() == 0


def test_copies_that_are_kept_for_a_peer_reach_it_by_another_way_under_a_new_identity_too() -> None:
    """It was restarted, and the way for which they are kept is found to lead to it only when it is up already."""
    with listening() as one, listening() as two:
        sock = Søcket(SendMode.PUBLISH, on_duplicate=OnDuplicate.REJECT, reconnection_delay=lambda: 0.01, send_hwm=500)
        sock.connect(port=one.getsockname()[1])
        with accept(one, LESSER) as first:
            first.shake_hands()
            sock.wait_for_peers(timeout=TIMEOUT)
            for number in range(200):
                sock.send(b"%06d" % number + bytes(100_000))
            first.reset()
            wait_for_event(sock, Disconnected)  # and not before: it is in the midst of being counted
            kept = sock.stats().queued
            sock.connect(port=two.getsockname()[1])
            with accept(two, GREATER) as restarted:
                restarted.shake_hands()
                sock.wait_for_peers(timeout=TIMEOUT)
                with accept(one, GREATER) as refused:
                    refused.send(hello(GREATER))
                    refused.wait_for_end()
                sock.send(b"newer")
                got = {restarted.read_kind(DATA)[1][:6] for _ in range(kept + 1)}
                assert kept > 0 and b"newer" in got and b"000199" in got
                closing = Background(sock.close, linger=TIMEOUT / 2)
                restarted.wait_for_end()
                restarted.close()
                assert closing.result() == 0


def test_mutual_tls_and_crossing_dials_come_to_rest(tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext],
                                                    authority: trustme.CA) -> None:
    """Both ends show the same certificate by either connection."""
    def contexts(name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
        own = authority.issue_cert("localhost", f"{name}.example.org")
        server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        client = ssl.create_default_context()
        server.verify_mode = ssl.CERT_REQUIRED
        for context in (server, client):
            own.configure_cert(context)
            authority.configure_trust(context)
        return server, client

    (one_server, one_client), (other_server, other_client) = contexts("one"), contexts("other")
    with (Søcket(identity=LESSER, linger=0, reconnection_delay=lambda: 0.01) as one,
          Søcket(identity=GREATER, linger=0, reconnection_delay=lambda: 0.01) as other):
        one.bind("localhost", 0, ssl_context=one_server)
        other.bind("localhost", 0, ssl_context=other_server)
        one.connect("localhost", other.bound_port, ssl_context=one_client)
        other.connect("localhost", one.bound_port, ssl_context=other_client)
        wait_for_event(one, DuplicatePeer)
        with pytest.raises(TimeoutError):
            for event in one.events(timeout=0.5):
                assert not isinstance(event, (Connecting, Retrying)), event
        assert one.stats().connections <= 2 and other.stats().connections <= 2


def test_a_tls_peer_that_says_goodbye_in_the_middle_does_not_leave_its_messages_to_another(
        tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    """What it can decrypt counts as sent."""
    server, client = tls_contexts
    with Søcket(linger=0).bind("localhost", 0, ssl_context=server) as sock, socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        raw.settimeout(TIMEOUT)
        raw.connect(("127.0.0.1", sock.bound_port))
        with WirePeer(client.wrap_socket(raw, server_hostname="localhost"), LESSER) as first:
            first.shake_hands()
            sock.wait_for_peers(timeout=TIMEOUT)
            sock.send_many([b"%d " % number + bytes(1000) for number in range(5000)])
            got = [int(first.read_kind(DATA)[1].split()[0]) for _ in range(500)]
            socket.socket.shutdown(first.sock, socket.SHUT_WR)
            try:
                while True:
                    got.append(int(first.read_kind(DATA)[1].split()[0]))
            except (EOFError, OSError):
                pass
        with Søcket(linger=0).connect("localhost", sock.bound_port, ssl_context=client) as second:
            rest = [int(second.recv(timeout=TIMEOUT).split()[0]) for _ in range(5000 - len(got))]
        assert got + rest == list(range(5000))


# Not at once: the connection that is there has been there for long

@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "AT_ONCE", 0.0)


def test_a_ghost_that_we_have_dialled_is_replaced_when_its_peer_dials_us(late: None) -> None:
    """It lost its connection without a word, came back, and is the first to dial."""
    with listening() as listener, Søcket(identity=GREATER, heartbeat_interval=0.1, heartbeat_timeout=60.0,
                                         linger=0) as sock:
        sock.bind(port=0)
        sock.connect(port=listener.getsockname()[1])
        with accept(listener, LESSER) as ghost:
            ghost.shake_hands(capabilities(100))
            sock.wait_for_peers(timeout=TIMEOUT)
            with dial(sock.bound_port, LESSER) as again:
                again.send(hello(LESSER))
                assert "no sign of life" in wait_for_event(sock, DuplicatePeer).reason
                assert again.read_kind(HELLO)
                sock.send(b"to the one that is there")
                assert again.read_kind(DATA)[1] == b"to the one that is there"


def test_who_dials_under_the_name_of_a_peer_does_not_silence_it(late: None) -> None:
    with listening() as listener, Søcket(identity=GREATER, heartbeat_interval=0.1, heartbeat_timeout=60.0,
                                         linger=0) as sock:
        sock.bind(port=0)
        sock.connect(port=listener.getsockname()[1])
        with accept(listener, LESSER) as peer:
            peer.shake_hands(capabilities(100))
            sock.wait_for_peers(timeout=TIMEOUT)
            for _ in range(3):
                with dial(sock.bound_port, LESSER) as stranger:
                    stranger.send(hello(LESSER))
                    ending = Background(stranger.wait_for_end)
                    while ending.is_alive():
                        peer.send(frame(DATA, b"here I am"))
                        assert sock.recv(timeout=TIMEOUT) == b"here I am"
                    assert "alive" in wait_for_event(sock, DuplicatePeer).reason
            assert [info.identity for info in sock.peers()] == [LESSER]


def told(sock: Søcket) -> list[Any]:
    """The events that are there already."""
    events = []
    with suppress(TimeoutError):
        for event in sock.events(timeout=0):
            events.append(event)
    return events


def test_a_second_way_to_a_peer_is_not_dialled_again_while_the_first_is_there() -> None:
    with listening() as listener, Søcket(heartbeat_interval=0.1, heartbeat_timeout=60.0, linger=0,
                                         reconnection_delay=lambda: 0.01) as sock:
        sock.connect(port=listener.getsockname()[1])
        with accept(listener, LESSER) as first:
            first.shake_hands(capabilities(100))
            sock.wait_for_peers(timeout=TIMEOUT)
            sock.connect(port=listener.getsockname()[1])
            with accept(listener, LESSER) as second:
                second.send(hello(LESSER))
                second.read_kind(HELLO)
                ending = Background(second.wait_for_end)

                def second_is_over() -> bool:
                    first.send(frame(HEARTBEAT))
                    return not ending.is_alive()

                until(second_is_over)
            assert "alive" in wait_for_event(sock, DuplicatePeer).reason
            assert not [event for event in told(sock) if isinstance(event, (Connecting, Retrying))]
        for _ in range(2):  # now both are dialled again
            accept(listener, LESSER).close()
