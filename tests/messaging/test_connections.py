"""Connections: coming, going and coming back, heartbeats, duplicates, authorization, TLS, and peers that misbehave."""

from __future__ import annotations

import logging
import secrets
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trustme
from support.pairs import TIMEOUT, Background, connected, until, wait_for_event
from support.processes import PYTHON
from support.wire_peer import (
    CAPABILITIES, DATA, HEARTBEAT, HELLO, WirePeer, accept, capabilities, dial, frame, hello, listening,
)

from netmsg import (
    Connected, Connecting, Disconnected, DuplicatePeer, HandshakeFailed, IOThread, LineCodec, Listening, OnDuplicate,
    PacketClient, PacketServer, PeerInfo, RemoteProtocolError, Retrying, SendMode, Søcket, TLSHandshakeError,
    create_tcp_server,
)
from netmsg.messaging.peers import Peer
from netmsg.speaking import wait_until_said


def test_the_dialling_end_speaks_first_and_says_hello_once() -> None:
    with listening() as listener, Søcket(linger=0) as sock:
        sock.connect(port=listener.getsockname()[1])
        with accept(listener) as peer:
            assert peer.read_exactly(22) == hello(sock.identity)
            peer.send(hello(peer.identity))
            kind, body = peer.read_frame()
            assert kind == CAPABILITIES and len(body) >= 8


def test_the_accepting_end_listens_first() -> None:
    with Søcket(linger=0) as sock:
        sock.bind(port=0)
        with dial(sock.bound_port) as peer:
            peer.sock.settimeout(0.05)
            with pytest.raises(TimeoutError):
                peer.read_frame()
            peer.sock.settimeout(TIMEOUT)
            assert peer.shake_hands() == sock.identity


def test_hello_and_data_may_come_in_one_segment_or_byte_by_byte() -> None:
    with Søcket(linger=0) as sock:
        sock.bind(port=0)
        with dial(sock.bound_port) as peer:
            peer.shake_hands(frame(DATA, b"pipelined"), frame(DATA, b"x" * 100_000))
            assert sock.recv(timeout=TIMEOUT) == b"pipelined"
            assert len(sock.recv(timeout=TIMEOUT)) == 100_000
        with dial(sock.bound_port) as peer:
            peer.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in hello(peer.identity) + frame(DATA, b"dripped"):
                peer.send(bytes((byte,)))
            assert sock.recv(timeout=TIMEOUT) == b"dripped"


def test_unknown_types_are_skipped() -> None:
    with Søcket(linger=0) as sock:
        sock.bind(port=0)
        with dial(sock.bound_port) as peer:
            peer.shake_hands(frame(0x7F, b"?"), frame(0xFF, b"x" * 200_000), frame(0x06), frame(DATA, b"known"))
            assert sock.recv(timeout=TIMEOUT) == b"known"


BAD_AFTER_HELLO = {
    "an empty envelope": b"\0\0\0\0",
    "an ACK of 3 bytes": frame(0x05, b"abc"),
    "an ACK without an id": frame(0x05),
    "a DATA_REQ too short": frame(0x04, b"short"),
    "a DATA_REQ without anything": frame(0x04),
    "CAPABILITIES without anything": frame(0x80),
    "a second HELLO": hello(b"I" * 16),
    "a HEARTBEAT with a body": frame(0x02, b"?"),
    "short CAPABILITIES": frame(0x80, b"abc"),
    "a frame too large": b"\xff\xff\xff\xff\x03",
    "a length too large, without a type": b"\xff\xff\xff\xff",
    "DATA over the largest message": frame(0x03, b"x" * 1001),
}


@pytest.mark.parametrize("bad", BAD_AFTER_HELLO.values(), ids=BAD_AFTER_HELLO.keys())
def test_a_violation_closes_that_connection_and_nothing_else(bad: bytes) -> None:
    with Søcket(max_message_size=1000, linger=0) as sock:
        sock.bind(port=0)
        with dial(sock.bound_port) as bystander, dial(sock.bound_port) as peer:
            bystander.shake_hands()
            peer.shake_hands(frame(DATA, b"good"), bad, b"" if bad.endswith(b"\xff") else frame(DATA, b"never read"))
            assert sock.recv(timeout=TIMEOUT) == b"good"
            peer.wait_for_end()
            event = wait_for_event(sock, Disconnected)
            assert event.peer == peer.identity and isinstance(event.error, RemoteProtocolError)
            assert "protocol error" in event.reason
            assert [info.identity for info in sock.peers()] == [bystander.identity]
            bystander.send(frame(DATA, b"still here"))
            assert sock.recv(timeout=TIMEOUT) == b"still here"
            with pytest.raises(TimeoutError):
                sock.recv(timeout=0)


BAD_HELLO = {
    "another version": (hello(b"I" * 16, version=2), "version 2"),
    "an identity of 15 bytes": (frame(HELLO, b"\x01" + b"I" * 15), "an identity of 15 bytes in its HELLO, and 16"),
    "an identity of 6 bytes": (frame(HELLO, b"\x01" + b"I" * 6), "an identity of 6 bytes in its HELLO, and 16"),
    "a HELLO of one byte": (frame(HELLO), "a HELLO without a version"),
    "data first": (frame(DATA, b"x"), "its first frame is DATA, not HELLO"),
    "a heartbeat first": (frame(HEARTBEAT), "its first frame is HEARTBEAT, not HELLO"),
    "random bytes": (b"\x99" * 50, "not a Søcket: its first bytes are b'\\x99"),
    "another protocol": (b"SSH-2.0-OpenSSH_9.2\r\n", "not a Søcket: its first bytes are b'SSH-2'"),
    "one byte that cannot begin a HELLO": (b"\x01", "not a Søcket"),
    "a frame too large": (b"\x7f\xff\xff\xff\x01", "not a Søcket"),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00", "a TLS client on a plain port"),
    "an HTTP request": (b"GET / HTTP/1.1\r\nOrigin: http://evil.example\r\n\r\n", "WebSocket"),
}


@pytest.mark.parametrize("bad", [frame(CAPABILITIES, b"short"), frame(CAPABILITIES), frame(0x05, b"ab")])
def test_nothing_is_delivered_that_came_behind_what_breaks_the_protocol(bad: bytes) -> None:
    many = (frame(0x70) + frame(HEARTBEAT)) * 300  # more than is decoded at once
    with Søcket(linger=0) as sock, dial(sock.bind(port=0).bound_port) as peer:
        peer.shake_hands()
        peer.send(frame(DATA, b"a"), bad, frame(DATA, b"b"), many, frame(DATA, b"c"), frame(DATA, b"d"))
        assert "protocol error" in wait_for_event(sock, Disconnected).reason
        assert sock.recv_many(10, timeout=TIMEOUT) == [b"a"]
        with pytest.raises(TimeoutError):
            sock.recv(timeout=0)


@pytest.mark.parametrize("first, reason", BAD_HELLO.values(), ids=BAD_HELLO.keys())
def test_what_is_no_hello_is_refused_with_an_event_that_says_why(first: bytes, reason: str) -> None:
    with Søcket(linger=0) as sock:
        sock.bind(port=0)
        with dial(sock.bound_port) as peer:
            peer.send(first)
            event = wait_for_event(sock, HandshakeFailed)
            assert reason in event.reason and isinstance(event.error, RemoteProtocolError)
            assert event.address[0] == "127.0.0.1"
            peer.wait_for_end()
        assert sock.peers() == [] and sock.stats().connections == 0


def test_a_foreign_origin_is_answered_403() -> None:
    with Søcket(linger=0) as sock:
        sock.bind(port=0)
        with dial(sock.bound_port) as peer:
            peer.send(b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nOrigin: http://evil.example\r\n\r\n")
            assert peer.read_exactly(12) == b"HTTP/1.1 403"


def test_a_connection_closed_before_its_first_byte_is_no_event() -> None:
    with Søcket(linger=0) as sock:
        sock.bind(port=0)
        dial(sock.bound_port).close()
        dial(sock.bound_port).reset()
        with dial(sock.bound_port) as peer:
            peer.shake_hands()
            events = sock.events(timeout=TIMEOUT)
            assert [type(next(events)) for _ in range(2)] == [Listening, Connected]


def test_a_dripped_handshake_is_cut_at_its_timeout() -> None:
    with Søcket(handshake_timeout=0.3, linger=0) as sock:
        sock.bind(port=0)
        started = time.monotonic()
        with dial(sock.bound_port) as silent, dial(sock.bound_port) as dripping:
            dripping.send(hello(dripping.identity)[:10])
            dripping.wait_for_end()
            silent.wait_for_end()
            assert 0.2 < time.monotonic() - started < TIMEOUT / 2
        assert "no end to the handshake" in wait_for_event(sock, HandshakeFailed).reason


def test_pending_handshakes_are_bounded_and_the_oldest_makes_room() -> None:
    with Søcket(linger=0) as sock:
        sock.bind(port=0)
        pending = [dial(sock.bound_port) for _ in range(257)]
        pending[0].wait_for_end()
        with dial(sock.bound_port) as legitimate:
            legitimate.shake_hands()
        assert "evicted" in wait_for_event(sock, HandshakeFailed).reason
        for peer in pending:
            peer.close()


def test_many_idle_strangers_cost_no_thread_and_do_not_hold_up_close() -> None:
    with Søcket() as sock:
        sock.bind(port=0)
        strangers = [dial(sock.bound_port) for _ in range(200)]
        for stranger in strangers:
            stranger.send(b"\0\0\0\x12")
        assert len([thread for thread in threading.enumerate() if thread.name.startswith("netmsg-")]) == 1
        started = time.monotonic()
        sock.close()
        assert time.monotonic() - started < 2.0
        for stranger in strangers:
            stranger.close()


def test_at_max_connections_clients_wait_in_the_backlog() -> None:
    with Søcket(max_connections=2, linger=0) as sock:
        sock.bind(port=0)
        one, two, three = (dial(sock.bound_port) for _ in range(3))
        one.shake_hands()
        two.shake_hands()
        three.send(hello(three.identity))
        three.sock.settimeout(0.1)
        with pytest.raises(TimeoutError):
            three.read_frame()
        three.sock.settimeout(TIMEOUT)
        one.close()
        assert three.read_frame()[0] == HELLO
        two.close()
        three.close()


@contextmanager
def kept_from_looking(io: IOThread) -> Iterator[None]:
    """Meanwhile the network thread is busy with a handler of its own: what happens has happened once it looks."""
    begun, over = threading.Event(), threading.Event()

    def handler(client: Any, packet: str) -> None:
        begun.set()
        over.wait(TIMEOUT)

    with PacketServer(handler, create_tcp_server(interface="127.0.0.1"), codec=LineCodec(), max_workers=0,
                      io_thread=io) as server:
        with PacketClient(("127.0.0.1", server.port), LineCodec()) as client:
            client.send_packet("be busy")
            assert begun.wait(TIMEOUT)
            try:
                yield
            finally:
                over.set()


def test_what_waits_for_a_peer_is_not_for_one_that_has_gone_before_it_was_let_in() -> None:
    with IOThread() as io, Søcket(linger=0, io_thread=io) as sock:
        sock.bind(port=0)
        sock.send_many([b"1", b"2", b"3"])
        with kept_from_looking(io):
            for _ in range(3):
                gone = dial(sock.bound_port)
                gone.send(hello(gone.identity))
                gone.close()
        wait_for_event(sock, Disconnected)
        with dial(sock.bound_port) as peer:
            peer.shake_hands()
            assert [peer.read_kind(DATA)[1] for _ in range(3)] == [b"1", b"2", b"3"]


def test_what_one_has_said_that_has_gone_before_it_was_let_in_is_received() -> None:
    with IOThread() as io, Søcket(linger=0, io_thread=io) as sock:
        sock.bind(port=0)
        with kept_from_looking(io):
            gone = dial(sock.bound_port)
            gone.send(hello(gone.identity), frame(DATA, b"one"), frame(DATA, b"two"))
            gone.close()
        assert sock.recv_identity(timeout=TIMEOUT) == (gone.identity, b"one")
        assert sock.recv_identity(timeout=TIMEOUT) == (gone.identity, b"two")


def test_one_that_we_dial_and_that_has_gone_is_dialled_again() -> None:
    with listening() as listener, IOThread() as io, Søcket(linger=0, io_thread=io) as sock:
        sock.send(b"message")
        sock.connect(port=listener.getsockname()[1])
        gone = accept(listener)
        with kept_from_looking(io):
            gone.send(hello(gone.identity), frame(DATA, b"farewell"))
            gone.close()
        assert sock.recv(timeout=TIMEOUT) == b"farewell"
        with accept(listener) as peer:
            peer.send(hello(peer.identity))
            assert peer.read_kind(DATA)[1] == b"message"


def test_a_dial_in_vain_makes_no_room_at_max_connections() -> None:
    with listening() as listener, Søcket(max_connections=2, linger=0, reconnection_delay=lambda: 0.01) as sock:
        sock.bind(port=0)
        with dial(sock.bound_port) as one, dial(sock.bound_port) as two, dial(sock.bound_port) as three:
            one.shake_hands()
            two.shake_hands()
            sock.wait_for_peers(2, timeout=TIMEOUT)
            three.send(hello(three.identity))
            sock.connect(port=listener.getsockname()[1])
            for _ in range(3):
                accept(listener).close()
                wait_for_event(sock, HandshakeFailed)
            three.sock.settimeout(0.1)
            with pytest.raises(TimeoutError):
                three.read_frame()
            assert len(sock.peers()) == 2


# Reconnection


def test_a_connector_comes_back_when_the_binder_is_made_anew() -> None:
    with Søcket(linger=0) as b:
        a = Søcket(linger=0).bind(port=0)
        port = a.bound_port
        b.connect(port=port)
        b.send(b"1")
        assert a.recv(timeout=TIMEOUT) == b"1"
        a.close()
        until(lambda: not b.peers())
        b.send(b"2")
        with Søcket(linger=0) as a:
            a.bind(port=port)
            assert a.recv(timeout=TIMEOUT) == b"2"
            a.send(b"3")
            assert b.recv(timeout=TIMEOUT) == b"3"
        assert b.stats().connections == 2 and b.stats().disconnections >= 1


def test_a_connector_waits_for_a_binder_that_comes_later() -> None:
    with Søcket(linger=0) as a, Søcket(linger=0) as b:
        a.bind(port=0)
        port = a.bound_port
        a.close()
        b.connect(port=port)
        assert isinstance(wait_for_event(b, Retrying).error, ConnectionRefusedError | OSError)
        with Søcket(linger=0) as late:
            late.bind(port=port)
            b.send(b"x")
            assert late.recv(timeout=TIMEOUT) == b"x"


def test_the_events_of_a_connection_in_order() -> None:
    with Søcket(linger=0) as b, Søcket(linger=0) as a:
        a.bind(port=0)
        address = a.bound_addresses[0]
        b.connect(*address)
        b.wait_for_peers(timeout=TIMEOUT)
        a.close()
        events = b.events(timeout=TIMEOUT)
        connecting, up, down, retrying = (next(events) for _ in range(4))
        assert isinstance(connecting, Connecting) and connecting.address == address
        assert isinstance(up, Connected) and up.peer == a.identity and up.address == address
        assert isinstance(down, Disconnected) and down.peer == a.identity and down.reason
        assert isinstance(retrying, Retrying) and 0 <= retrying.delay <= 0.1
        assert connecting.at <= up.at <= down.at <= retrying.at <= time.time()
        b.close()
        assert all(isinstance(event, (Connecting, Retrying)) for event in b.events(timeout=0))


def test_a_server_that_hangs_up_after_hello_is_not_stormed() -> None:
    accepted = 0
    with listening() as listener, Søcket(linger=0) as sock:
        sock.connect(port=listener.getsockname()[1])
        ends = time.monotonic() + 1.5
        listener.settimeout(0.2)
        while time.monotonic() < ends:
            try:
                with accept(listener) as peer:
                    peer.shake_hands()
                    accepted += 1
            except TimeoutError:
                pass
    assert 2 <= accepted < 30


def test_the_users_delay_is_used_and_close_does_not_wait_for_it() -> None:
    asked = threading.Event()

    def delay() -> float:
        assert threading.current_thread().name.startswith("netmsg-callback-")
        asked.set()
        return 30.0

    with Søcket(reconnection_delay=delay) as sock:
        sock.connect(port=_free_port())
        assert asked.wait(TIMEOUT)
        assert wait_for_event(sock, Retrying).delay == 30.0
        started = time.monotonic()
        sock.close()
        assert time.monotonic() - started < 2.0


class Odd:
    """No number, in whatever way it is asked to be one or to say what it is."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __float__(self) -> float:
        raise self.error

    def __repr__(self) -> str:
        raise self.error


@pytest.mark.parametrize("wish", [
    "nonsense", None, -1.0, float("nan"), float("inf"), ZeroDivisionError(), 10**400, 10**5000,
    Odd(RuntimeError("odd")), Odd(SystemExit()), SystemExit(), KeyboardInterrupt(), "x" * 100_000,
], ids=lambda wish: type(wish).__name__)
def test_a_delay_that_makes_no_sense_is_logged_and_the_default_used(
        wish: Any, caplog: pytest.LogCaptureFixture) -> None:
    def delay() -> float:
        if isinstance(wish, BaseException):
            raise wish
        return wish  # type: ignore[no-any-return]

    with caplog.at_level(logging.WARNING, "netmsg"), Søcket(reconnection_delay=delay, linger=0) as sock:
        sock.connect(port=_free_port())
        assert 0 <= wait_for_event(sock, Retrying).delay <= 0.1
        assert wait_for_event(sock, Connecting)
        assert wait_for_event(sock, Retrying)
        assert wait_for_event(sock, Retrying)
        wait_until_said(TIMEOUT)
    what = "raised" if isinstance(wish, BaseException) else "returned"
    assert caplog.text.count(f"reconnection_delay() {what}") == 1  # a minute, at most
    assert len(caplog.text) < 100_000


def test_a_delay_that_is_not_told_in_time_is_the_default_one_and_holds_up_nobody(
        caplog: pytest.LogCaptureFixture) -> None:
    never = threading.Event()
    with Søcket(reconnection_delay=lambda: float(never.wait(60)), authorize=lambda peer: True, linger=0) as sock:
        sock.bind(port=0)
        sock.connect(port=_free_port())
        wait_for_event(sock, Connecting)
        with dial(sock.bound_port) as peer:
            peer.shake_hands()
            assert wait_for_event(sock, Connected).peer == peer.identity
        assert wait_for_event(sock, Retrying) and wait_for_event(sock, Connecting)
        assert wait_for_event(sock, Retrying) and wait_for_event(sock, Connecting)
        wait_until_said(TIMEOUT)
    assert caplog.text.count("reconnection_delay() does not return") == 1
    never.set()


def test_even_without_a_delay_there_is_a_short_one() -> None:
    """Or one address that refuses would keep a core busy."""
    with Søcket(reconnection_delay=lambda: 0.0, linger=0) as sock:
        sock.connect(port=_free_port())
        assert [wait_for_event(sock, Retrying).delay for _ in range(3)] == [0.01] * 3


def test_while_closing_the_next_attempt_is_soon() -> None:
    """However long the wait was to be: for the delay, or for the function that is to tell it."""
    never = threading.Event()
    for delay in (lambda: 1000.0, lambda: float(never.wait(60))):
        with socket.socket() as reserved, Søcket(linger=TIMEOUT, reconnection_delay=delay) as sock:
            reserved.bind(("127.0.0.1", 0))
            sock.connect(port=reserved.getsockname()[1])
            sock.send(b"to be delivered")
            wait_for_event(sock, Connecting)
            until(lambda: "refused" in _trouble(sock))
            closing = Background(sock.close)
            wait_for_event(sock, Connecting)
            assert wait_for_event(sock, Retrying).delay <= 0.1
            reserved.listen()
            reserved.settimeout(TIMEOUT)
            with accept(reserved) as peer:
                peer.shake_hands()
                assert peer.read_kind(DATA)[1] == b"to be delivered"
                peer.close()
            assert closing.result() == 0
    never.set()


def _trouble(sock: Søcket) -> str:
    with pytest.raises(TimeoutError) as raised:
        sock.wait_for_peers(timeout=0)
    return str(raised.value)


def _free_port() -> int:
    """A port on which nobody listens: one that was just closed, which the kernel does not hand out again at once."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_an_unknown_host_is_retried_and_told() -> None:
    with Søcket(linger=0) as sock:
        sock.connect("no.such.host.invalid", 1)
        assert isinstance(wait_for_event(sock, Retrying).error, socket.gaierror)


def test_an_attempt_ends_at_its_timeout() -> None:
    # A listener with a full backlog neither accepts nor refuses.
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        fillers = []
        for _ in range(8):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(address)
            fillers.append(filler)
        with Søcket(linger=0) as sock:
            sock.connect(*address, connect_timeout=0.3)
            event = wait_for_event(sock, Retrying)
            assert "0.3 s" in event.reason and isinstance(event.error, TimeoutError)
        for filler in fillers:
            filler.close()


def test_a_socket_that_is_connected_to_itself_is_told_so() -> None:
    with Søcket(linger=0) as sock:
        sock.bind(port=0)
        sock.connect(port=sock.bound_port)
        assert "itself" in wait_for_event(sock, HandshakeFailed).reason


# Heartbeats


def test_heartbeats_are_sent_in_silence() -> None:
    with Søcket(heartbeat_interval=0.1, heartbeat_timeout=5.0, linger=0) as sock:
        sock.bind(port=0)
        with dial(sock.bound_port) as peer:
            peer.shake_hands()
            for _ in range(3):
                assert peer.read_kind(HEARTBEAT, DATA) == (HEARTBEAT, b"")


def test_a_silent_peer_is_dead_after_the_timeout() -> None:
    with Søcket(heartbeat_interval=0.1, heartbeat_timeout=0.4, linger=0) as sock:
        sock.bind(port=0)
        started = time.monotonic()
        with dial(sock.bound_port) as silent, dial(sock.bound_port) as talking:
            silent.shake_hands()
            talking.shake_hands()
            sock.wait_for_peers(2, timeout=TIMEOUT)
            talker = threading.Event()

            def talk() -> None:
                while not talker.wait(0.05):
                    talking.send(frame(HEARTBEAT))

            thread = threading.Thread(target=talk)
            thread.start()
            event = wait_for_event(sock, Disconnected)
            assert event.peer == silent.identity and "nothing heard" in event.reason
            assert 0.3 < time.monotonic() - started < TIMEOUT / 2
            assert [info.identity for info in sock.peers()] == [talking.identity]
            talker.set()
            thread.join()


def test_idle_connections_live_on_their_heartbeats() -> None:
    options = {"heartbeat_interval": 0.1, "heartbeat_timeout": 0.5}
    with connected(options, options) as (a, b):
        threading.Event().wait(1.2)
        b.send(b"still here")
        assert a.recv(timeout=TIMEOUT) == b"still here"
        assert a.stats().disconnections == 0 == b.stats().disconnections


def test_a_large_message_that_keeps_arriving_is_a_sign_of_life() -> None:
    with Søcket(heartbeat_interval=0.1, heartbeat_timeout=0.4, linger=0) as sock:
        sock.bind(port=0)
        with dial(sock.bound_port) as peer:
            peer.shake_hands()
            whole = frame(DATA, b"x" * 1000)
            pause = threading.Event()
            for start in range(0, len(whole), 67):
                peer.send(whole[start:start + 67])
                pause.wait(0.1)
            assert sock.recv(timeout=TIMEOUT) == b"x" * 1000


def test_a_frame_that_trickles_below_the_floor_is_not() -> None:
    with Søcket(heartbeat_interval=0.1, heartbeat_timeout=1.5, linger=0) as sock:
        sock.bind(port=0)
        with dial(sock.bound_port) as peer:
            peer.shake_hands()
            whole = frame(DATA, b"x" * 1000)
            peer.send(whole[:1])
            assert "nothing heard" in wait_for_event(sock, Disconnected).reason


def test_a_paused_peer_is_not_judged_by_its_silence() -> None:
    with Søcket(heartbeat_interval=0.1, heartbeat_timeout=0.3, recv_hwm=1, linger=0) as sock:
        sock.bind(port=0)
        with dial(sock.bound_port) as peer:
            peer.shake_hands(frame(DATA, b"1"), frame(DATA, b"2"))
            until(lambda: sock.stats().received == 1)
            for _ in range(8):
                assert peer.read_kind(HEARTBEAT)[0] == HEARTBEAT  # ours go on
            assert (sock.recv(timeout=TIMEOUT), sock.recv(timeout=TIMEOUT)) == (b"1", b"2")


def test_what_fails_in_looking_at_one_peer_is_its_end_alone(monkeypatch: pytest.MonkeyPatch,
                                                            caplog: pytest.LogCaptureFixture) -> None:
    unlucky = secrets.token_bytes(16)
    heartbeat = Peer.heartbeat

    def failing(self: Peer) -> None:
        if self.identity == unlucky:
            raise ArithmeticError("on purpose")
        heartbeat(self)

    monkeypatch.setattr(Peer, "heartbeat", failing)
    with Søcket(linger=0, heartbeat_interval=0.1, heartbeat_timeout=TIMEOUT) as sock:
        sock.bind(port=0)
        with dial(sock.bound_port) as one, dial(sock.bound_port, unlucky) as other:
            one.shake_hands()
            other.shake_hands()
            other.wait_for_end()
            assert wait_for_event(sock, Disconnected).peer == unlucky
            assert one.read_kind(HEARTBEAT) and len(sock.peers()) == 1
    caplog.clear()


FLOOD = """
import socket, sys
sock = socket.socket(socket.AF_UNIX)
sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
sock.connect(sys.argv[1])
sock.settimeout(2)
sock.sendall(bytes.fromhex(sys.argv[2]))
sock.recv(22)
sock.shutdown(socket.SHUT_RD)
numbers = iter(range(200_000))
while piece := [b"\\0\\0\\3\\xeb\\3%06d" % number + bytes(996) for _, number in zip(range(2000), numbers)]:
    sock.sendall(b"".join(piece))
"""


def test_a_peer_that_takes_nothing_more_and_floods_is_read_within_the_marks(tmp_path: Path) -> None:
    """Over a UNIX socket it can say so; what it had sent before is read, but not all it goes on to send."""
    with Søcket(linger=0, recv_hwm=10).bind_unix(tmp_path / "here") as sock:
        flooder = subprocess.Popen([*PYTHON, "-c", FLOOD, str(tmp_path / "here"), hello(bytes(16)).hex()],
                                   stderr=subprocess.DEVNULL)
        try:
            until(lambda: sock.stats().received)
            sock.send(b"cannot be sent")
            until(lambda: not sock.peers())
            flooder.wait(4 * TIMEOUT)
        finally:
            flooder.kill()
            flooder.wait()
        count = sock.stats().received
        assert 10 <= count < 10_000
        assert [int(sock.recv(timeout=TIMEOUT)[:6]) for _ in range(count)] == list(range(count))


def test_what_a_tls_client_says_in_one_breath_with_its_goodbye_is_heard(
        tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    """HELLO, messages and the end are read at once."""
    server, client = tls_contexts
    with Søcket(linger=0).bind("localhost", 0, ssl_context=server) as sock:
        for number in range(20):
            raw = socket.create_connection(("localhost", sock.bound_port), TIMEOUT)
            with client.wrap_socket(raw, server_hostname="localhost") as connection:
                connection.sendall(hello(secrets.token_bytes(16)) + frame(DATA, b"%d" % number) * 100)
                with suppress(ssl.SSLError):  # it does not expect to be greeted
                    connection.unwrap()
                assert [sock.recv(timeout=TIMEOUT) for _ in range(100)] == [b"%d" % number] * 100


def test_a_paused_peer_that_breaks_the_protocol_is_nobody_elses_end() -> None:
    """It shows when its messages are taken, and what is behind them is read."""
    with Søcket(linger=0, recv_hwm=10) as sock:
        sock.bind(port=0)
        with dial(sock.bound_port) as honest, dial(sock.bound_port) as other:
            honest.shake_hands()
            other.shake_hands(*[frame(DATA, b"x")] * 10, frame(HEARTBEAT), b"\0\0\0\0")
            assert [sock.recv(timeout=TIMEOUT) for _ in range(10)] == [b"x"] * 10
            with pytest.raises(TimeoutError):
                sock.recv(timeout=0)
            other.wait_for_end()
            honest.send(frame(DATA, b"still here"))
            assert sock.recv(timeout=TIMEOUT) == b"still here"


@pytest.mark.parametrize("attempt", range(3))
def test_a_tls_client_that_closes_with_more_than_the_mark_unread_is_nobody_elses_end(
        attempt: int, tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    server, client = tls_contexts
    with Søcket(linger=0, recv_hwm=10).bind("localhost", 0, ssl_context=server) as sock:
        sender = Søcket(linger=TIMEOUT).connect("localhost", sock.bound_port, ssl_context=client)
        sender.send_many([b"%d" % number for number in range(200)])
        closing = Background(sender.close)
        assert [sock.recv(timeout=TIMEOUT) for _ in range(200)] == [b"%d" % number for number in range(200)]
        with pytest.raises(TimeoutError):
            sock.recv(timeout=0.05)
        assert closing.result() == 0 and not sock.closed


def test_what_is_dialled_and_breaks_while_nobody_takes_its_messages_is_dialled_again() -> None:
    with listening() as listener, Søcket(linger=0, recv_hwm=10, reconnection_delay=lambda: 0.01) as sock:
        sock.connect(port=listener.getsockname()[1])
        peer = accept(listener)
        peer.shake_hands(*(frame(DATA, b"%d" % number) for number in range(20)))
        until(lambda: sock.stats().received == 10)
        peer.reset()
        until(lambda: sock.send(b"is anybody there?") or not sock.peers())
        with accept(listener, peer.identity) as again:
            again.shake_hands(*(frame(DATA, b"%d" % number) for number in range(20, 30)))
            assert again.read_kind(DATA)[1] == b"is anybody there?"
            assert [int(sock.recv(timeout=TIMEOUT)) for _ in range(30)] == list(range(30))


# Duplicate identities


def test_probe_keeps_the_old_connection_while_it_is_alive() -> None:
    with Søcket(linger=0) as sock:
        sock.bind(port=0)
        with dial(sock.bound_port, b"I" * 16) as old, dial(sock.bound_port, b"I" * 16) as new:
            old.shake_hands(capabilities(200))
            new.send(hello(b"I" * 16))
            while True:
                old.send(frame(HEARTBEAT))
                new.sock.settimeout(0.05)
                try:
                    assert new.sock.recv(1) == b""
                    break
                except TimeoutError:
                    continue
            event = wait_for_event(sock, DuplicatePeer)
            assert event.peer == b"I" * 16 and "new connection is closed" in event.reason
            old.send(frame(DATA, b"the old one"))
            assert sock.recv(timeout=TIMEOUT) == b"the old one"


def test_probe_replaces_a_ghost_within_its_heartbeat_interval_and_a_second() -> None:
    with Søcket(linger=0) as sock:
        sock.bind(port=0)
        with dial(sock.bound_port, b"I" * 16) as ghost, dial(sock.bound_port, b"I" * 16) as new:
            ghost.shake_hands(capabilities(200))
            sock.wait_for_peers(1, timeout=TIMEOUT)
            ghost.read_kind(CAPABILITIES)
            started = time.monotonic()
            new.shake_hands(frame(DATA, b"the new one"))
            assert 1.0 < time.monotonic() - started < 4.0
            assert sock.recv(timeout=TIMEOUT) == b"the new one"
            ghost.wait_for_end()
            assert "old connection is closed" in wait_for_event(sock, DuplicatePeer).reason


def test_probing_takes_its_time_even_beyond_the_handshake_timeout() -> None:
    with Søcket(handshake_timeout=0.3, linger=0) as sock:
        sock.bind(port=0)
        with dial(sock.bound_port, b"I" * 16) as ghost, dial(sock.bound_port, b"I" * 16) as new:
            ghost.shake_hands(capabilities(200))
            sock.wait_for_peers(1, timeout=TIMEOUT)
            new.shake_hands()
            ghost.wait_for_end()


def test_the_newcomer_is_let_in_when_the_old_connection_ends_meanwhile() -> None:
    with Søcket(linger=0) as sock:
        sock.bind(port=0)
        old = dial(sock.bound_port, b"I" * 16)
        old.shake_hands()
        with dial(sock.bound_port, b"I" * 16) as new:
            new.send(hello(b"I" * 16))
            new.sock.settimeout(0.1)
            with pytest.raises(TimeoutError):
                new.read_frame()
            new.sock.settimeout(TIMEOUT)
            old.close()
            assert new.read_frame()[0] == HELLO


def test_reject_closes_the_newcomer_at_once() -> None:
    with Søcket(on_duplicate=OnDuplicate.REJECT, linger=0) as sock:
        sock.bind(port=0)
        with dial(sock.bound_port, b"I" * 16) as old, dial(sock.bound_port, b"I" * 16) as new:
            old.shake_hands()
            new.send(hello(b"I" * 16))
            new.wait_for_end()
            assert wait_for_event(sock, DuplicatePeer)
            assert len(sock.peers()) == 1


def test_takeover_closes_the_old_one_at_once() -> None:
    with Søcket(on_duplicate=OnDuplicate.TAKEOVER, linger=0) as sock:
        sock.bind(port=0)
        with dial(sock.bound_port, b"I" * 16) as old, dial(sock.bound_port, b"I" * 16) as new:
            old.shake_hands()
            new.shake_hands()
            old.wait_for_end()
            assert len(sock.peers()) == 1


def test_two_sockets_that_dial_each_other_keep_one_connection() -> None:
    with Søcket(linger=0, identity=b"A" * 16) as a, Søcket(linger=0, identity=b"B" * 16) as b:
        a.bind(port=0)
        b.bind(port=0)
        a.connect(port=b.bound_port)
        b.connect(port=a.bound_port)
        # Both know the connection that B, the greater, dialled as the one that stays.
        until(lambda: a.peers() and b.peers() and b.peers()[0].address[1] == a.bound_port
              and a.peers()[0].address[1] != b.bound_port)
        for n in range(100):
            a.send(b"%d" % n)
            b.send(b"%d" % n)
        assert [b.recv(timeout=TIMEOUT) for _ in range(100)] == [b"%d" % n for n in range(100)]
        assert [a.recv(timeout=TIMEOUT) for _ in range(100)] == [b"%d" % n for n in range(100)]


# Authorization


def test_authorize_is_asked_after_hello_and_before_any_message_moves() -> None:
    verdicts = {b"Y" * 16: True, b"N" * 16: False}
    asked: list[PeerInfo] = []

    def authorize(peer: PeerInfo) -> bool:
        assert threading.current_thread().name.startswith("netmsg-callback-")
        asked.append(peer)
        if peer.identity == b"E" * 16:
            raise SystemExit
        return verdicts[peer.identity]  # a stranger makes it raise

    with Søcket(authorize=authorize, linger=0) as sock:
        sock.bind(port=0)
        sock.send(b"secret")
        for identity, reason in ((b"N" * 16, "not authorized"), (b"?" * 16, "raised"), (b"E" * 16, "raised")):
            with dial(sock.bound_port, identity) as refused:
                refused.send(hello(identity), frame(DATA, b"from a stranger"))
                with pytest.raises((EOFError, ConnectionError)):
                    refused.read_frame()
                assert reason in wait_for_event(sock, HandshakeFailed).reason
        with dial(sock.bound_port, b"Y" * 16) as allowed:
            allowed.shake_hands(frame(DATA, b"from a friend"))
            assert allowed.read_kind(DATA)[1] == b"secret"
            assert sock.recv(timeout=TIMEOUT) == b"from a friend"
        assert [peer.identity for peer in asked] == [b"N" * 16, b"?" * 16, b"E" * 16, b"Y" * 16]
        assert asked[0].address[0] == "127.0.0.1" and asked[0].tls is None


class NoVerdict:
    def __bool__(self) -> bool:
        raise ArithmeticError("neither true nor false")


def test_a_verdict_that_is_neither_true_nor_false_is_none(caplog: pytest.LogCaptureFixture) -> None:
    verdicts = [NoVerdict(), True]
    with Søcket(linger=0, authorize=lambda peer: verdicts.pop(0)) as sock:  # type: ignore[arg-type, return-value]
        sock.bind(port=0)
        with dial(sock.bound_port) as peer:
            peer.send(hello(peer.identity))
            peer.wait_for_end()
            assert "neither true nor false" in wait_for_event(sock, HandshakeFailed).reason
        with dial(sock.bound_port) as peer:
            peer.shake_hands()
            sock.wait_for_peers(timeout=TIMEOUT)
    caplog.clear()  # it keeps the traceback, and with it what that refers to


def test_what_strangers_make_authorize_raise_is_logged_sparingly(caplog: pytest.LogCaptureFixture) -> None:
    def authorize(peer: PeerInfo) -> bool:
        raise KeyError(peer.identity)

    with Søcket(linger=0, authorize=authorize) as sock:
        sock.bind(port=0)
        for _ in range(20):
            with dial(sock.bound_port) as peer:
                peer.send(hello(peer.identity))
                peer.wait_for_end()
        wait_until_said(TIMEOUT)
    assert len([record for record in caplog.records if record.exc_info]) == 1
    assert len(caplog.records) == 2  # the other one is about who was refused


def test_authorize_is_not_asked_about_those_who_have_gone() -> None:
    """It takes its time over the first; meanwhile a crowd comes and goes."""
    asked: list[bytes] = []
    begun, go_on = threading.Event(), threading.Event()

    def authorize(peer: PeerInfo) -> bool:
        asked.append(peer.identity)
        begun.set()
        return go_on.wait(TIMEOUT)

    with Søcket(linger=0, authorize=authorize, handshake_timeout=TIMEOUT) as sock:
        sock.bind(port=0)
        with dial(sock.bound_port) as first, dial(sock.bound_port) as last:
            first.send(hello(first.identity))
            assert begun.wait(TIMEOUT)
            for _ in range(50):
                with dial(sock.bound_port) as stranger:
                    stranger.send(hello(stranger.identity))
                assert "during the handshake" in wait_for_event(sock, HandshakeFailed).reason
            last.send(hello(last.identity))
            go_on.set()
            sock.wait_for_peers(2, timeout=TIMEOUT)
            assert asked == [first.identity, last.identity]


def test_a_client_that_has_said_all_before_the_verdict_and_gone_is_heard() -> None:
    asked, go_on = threading.Event(), threading.Event()

    def authorize(peer: PeerInfo) -> bool:
        asked.set()
        return go_on.wait(TIMEOUT)

    with Søcket(linger=0, authorize=authorize, handshake_timeout=TIMEOUT) as sock:
        sock.bind(port=0)
        with dial(sock.bound_port) as peer:
            peer.send(hello(peer.identity), frame(DATA, b"all I have"))
            assert asked.wait(TIMEOUT)
            peer.sock.shutdown(socket.SHUT_WR)
            go_on.set()
            assert sock.recv(timeout=TIMEOUT) == b"all I have"


def test_no_verdict_in_time_closes() -> None:
    release = threading.Event()
    with Søcket(authorize=lambda peer: release.wait(TIMEOUT), handshake_timeout=0.2, linger=0) as sock:
        sock.bind(port=0)
        with dial(sock.bound_port) as peer:
            peer.send(hello(peer.identity))
            peer.wait_for_end()
            assert "no end to the handshake" in wait_for_event(sock, HandshakeFailed).reason
            release.set()
        assert sock.stats().connections == 0


# TLS


def test_tls_both_ways_and_large(tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    server, client = tls_contexts
    with Søcket(linger=0) as a, Søcket(linger=0) as b:
        a.bind("localhost", 0, ssl_context=server)
        b.connect("localhost", a.bound_port, ssl_context=client)
        messages = [secrets.token_bytes(size) for size in (0, 1, 100, 16_384, 70_000, 3_000_000)] * 3
        for sender, receiver in ((a, b), (b, a)):
            sending = Background(sender.send_many, messages)
            assert [receiver.recv(timeout=TIMEOUT) for _ in messages] == messages
            sending.result()


def _failing_contexts(kind: str) -> tuple[ssl.SSLContext | None, ssl.SSLContext | None, str]:
    """Contexts of the two ends that cannot go together, and what the connecting end says of it."""
    authority, other = trustme.CA(), trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    client = ssl.create_default_context(ssl.Purpose.SERVER_AUTH)
    authority.configure_trust(client)
    if kind == "wrong authority":
        other.issue_cert("localhost").configure_cert(server)
        return server, client, "certificate verify failed"
    if kind == "wrong name":
        authority.issue_cert("example.org").configure_cert(server)
        return server, client, "Hostname mismatch"
    if kind == "expired":
        import datetime
        past = datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)
        authority.issue_cert("localhost", not_after=past).configure_cert(server)
        return server, client, "certificate has expired"
    if kind == "plain server":
        return None, client, ""
    authority.issue_cert("localhost").configure_cert(server)
    return server, None, ""  # a plain client


@pytest.mark.parametrize("kind", ["wrong authority", "wrong name", "expired", "plain server", "plain client"])
def test_a_failed_handshake_is_an_event_with_its_cause(kind: str) -> None:
    server, client, says = _failing_contexts(kind)
    with Søcket(linger=0) as a, Søcket(linger=0) as b:
        a.bind("localhost", 0, ssl_context=server)
        b.connect("localhost", a.bound_port, ssl_context=client)
        event = wait_for_event(b, HandshakeFailed)
        assert says in event.reason
        if says:
            assert isinstance(event.error, TLSHandshakeError)
            assert isinstance(event.error.__cause__, ssl.SSLCertVerificationError)
        assert wait_for_event(a, HandshakeFailed).reason
        assert not a.peers() and not b.peers()


def test_the_server_wants_a_certificate(authority: trustme.CA,
                                        tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    server, _ = tls_contexts
    anonymous = ssl.create_default_context(ssl.Purpose.SERVER_AUTH)
    authority.configure_trust(anonymous)
    with Søcket(linger=0) as a, Søcket(linger=0) as b:
        a.bind("localhost", 0, ssl_context=server)
        b.connect("localhost", a.bound_port, ssl_context=anonymous)
        assert "certificate" in wait_for_event(a, HandshakeFailed).reason.lower()
        assert wait_for_event(b, HandshakeFailed).reason
        assert not a.peers()


def test_the_same_certificate_replaces_its_connection_at_once(
        tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    server, client = tls_contexts
    with Søcket(linger=0) as a:
        a.bind("localhost", 0, ssl_context=server)

        def dial_tls() -> WirePeer:
            raw = socket.create_connection(("127.0.0.1", a.bound_port), TIMEOUT)
            return WirePeer(client.wrap_socket(raw, server_hostname="localhost"), b"I" * 16)

        with dial_tls() as old:
            old.shake_hands()
            started = time.monotonic()
            with dial_tls() as new:
                new.shake_hands()
                assert time.monotonic() - started < 4.0
                old.wait_for_end()
                assert "same certificate" in wait_for_event(a, DuplicatePeer).reason


def test_authorize_sees_the_certificate(tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    server, client = tls_contexts
    seen: list[PeerInfo] = []

    def authorize(peer: PeerInfo) -> bool:
        seen.append(peer)
        return True

    with Søcket(authorize=authorize, linger=0) as a, Søcket(linger=0) as b:
        a.bind("localhost", 0, ssl_context=server)
        b.connect("localhost", a.bound_port, ssl_context=client)
        b.wait_for_peers(timeout=TIMEOUT)
        assert seen[0].tls is not None and seen[0].tls.peer_certificate is not None
        names = [value for _, value in seen[0].tls.peer_certificate["subjectAltName"]]
        assert names == ["client@example.org"]


def test_many_tls_dials_at_once_all_succeed(tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    """More than the handshake steps of one round: those that have to wait for another are not forgotten."""
    server, client = tls_contexts
    with IOThread() as io, Søcket(linger=0) as hub:
        hub.bind("localhost", 0, ssl_context=server)
        socks = [Søcket(io_thread=io, linger=0).connect("localhost", hub.bound_port, ssl_context=client)
                 for _ in range(60)]
        hub.wait_for_peers(60, timeout=30)
        assert hub.stats().connections == 60
        for sock in socks:
            sock.close()


def test_a_tls_goodbye_right_behind_data_is_noticed_at_once(
        tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    server, client = tls_contexts
    with Søcket(linger=0) as sock:
        sock.bind("localhost", 0, ssl_context=server)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = client.wrap_bio(incoming, outgoing, server_hostname="localhost")
        with socket.create_connection(("127.0.0.1", sock.bound_port), TIMEOUT) as raw:
            while True:
                try:
                    tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    raw.sendall(outgoing.read())
                    incoming.write(raw.recv(65536))
            tls.write(hello(b"I" * 16))
            raw.sendall(outgoing.read())
            sock.wait_for_peers(timeout=TIMEOUT)
            for words in (b"first words", b"more words"):
                tls.write(frame(DATA, words))
                raw.sendall(outgoing.read())
                assert sock.recv(timeout=TIMEOUT) == words
            tls.write(frame(DATA, b"last words"))
            try:
                tls.unwrap()
            except ssl.SSLError:
                pass
            raw.sendall(outgoing.read())  # in one piece, and without the end of the connection behind it
            assert sock.recv(timeout=TIMEOUT) == b"last words"
            assert wait_for_event(sock, Disconnected).peer == b"I" * 16


def test_nodelay_is_set_so_that_two_writes_and_a_read_do_not_wait() -> None:
    with connected() as (a, b):
        def echo() -> None:
            for message in a.messages():
                a.send(message)

        worker = Background(echo)
        started = time.monotonic()
        for _ in range(50):
            b.send(b"1")
            b.send(b"2")
            assert {b.recv(timeout=TIMEOUT), b.recv(timeout=TIMEOUT)} == {b"1", b"2"}
        assert time.monotonic() - started < 50 * 0.04 / 2  # with Nagle and delayed ACKs: 40 ms each
        a.close()
        worker.result()


def test_each_message_is_counted_once_whatever_write_the_end_of_a_connection_cuts() -> None:
    with Søcket(send_hwm=100_000, linger=0) as sock:
        sock.bind(port=0)
        with dial(sock.bound_port, receive_buffer=4096) as peer:
            peer.shake_hands()
            until(lambda: sock.peers())
            sock.send_many([bytes(100)] * 50_000)
            until(lambda: sock.stats().sent > 0)
        until(lambda: sock.stats().disconnections == 1)
        stats = sock.stats()
        assert stats.sent + stats.queued == 50_000


def test_the_counters_never_go_back_while_peers_come_and_go() -> None:
    with Søcket(SendMode.PUBLISH, linger=0) as sock:
        sock.bind(port=0)
        over = threading.Event()

        def come_and_go() -> None:
            while not over.is_set():
                with dial(sock.bound_port) as peer:
                    peer.shake_hands(frame(DATA, b"hello"))
                    sock.send(b"hello")
                    peer.read_frame()

        coming = [Background(come_and_go) for _ in range(2)]
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-5)
        try:
            before = sock.stats()
            while before.disconnections < 200:
                stats = sock.stats()
                for name in ("sent", "received", "bytes_sent", "bytes_received", "connections", "disconnections"):
                    assert getattr(stats, name) >= getattr(before, name), name
                before = stats
        finally:
            sys.setswitchinterval(interval)
            over.set()
        for thread in coming:
            thread.result()
