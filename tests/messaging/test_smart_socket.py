"""The face of the Søcket: arguments, the simple calls, timeouts, iteration, the descriptor."""

from __future__ import annotations

import inspect
import math
import os
import select
import selectors
import socket
import ssl
import threading
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from support.pairs import TIMEOUT, Background, connected, until, until_waiting, wait_for_event
from support.wrong import wrong

import netmsg
from netmsg import (
    AckMode, ClosedError, Connected, ConnectFailedError, DeliveryGuarantee, HandshakeFailed, IOThread, Listening,
    LocalProtocolError, OnFull, QueueFullError, Retrying, SendMode, SendTimeoutError, Søcket,
)


def test_socket_is_the_ascii_alias() -> None:
    assert netmsg.Socket is netmsg.Søcket


def test_the_defaults_are_those_of_the_contract() -> None:
    defaults = {name: parameter.default for name, parameter in inspect.signature(Søcket).parameters.items()}
    assert defaults == {
        "send_mode": SendMode.ROUNDROBIN, "delivery_guarantee": DeliveryGuarantee.AT_MOST_ONCE, "identity": None,
        "reconnection_delay": None, "send_hwm": 10_000, "send_hwm_bytes": 64 * 2**20, "recv_hwm": 10_000,
        "recv_hwm_bytes": 64 * 2**20, "on_full": None, "max_message_size": 64 * 2**20, "max_connections": 10_000,
        "heartbeat_interval": 5.0, "heartbeat_timeout": 15.0, "handshake_timeout": 10.0, "ack_mode": AckMode.ON_RECV,
        "resend_after": 5.0, "max_resends": None, "max_unacked": None, "dedupe": 100_000, "outbox": None,
        "on_duplicate": netmsg.OnDuplicate.PROBE, "authorize": None, "linger": 5.0, "io_thread": None,
        "on_no_peer": netmsg.OnNoPeer.KEEP, "conflate": False, "send_buffer": None, "recv_buffer": None,
        "outbox_sync": "full", "dedupe_path": None,
    }
    bind = {name: parameter.default for name, parameter in inspect.signature(Søcket.bind).parameters.items()}
    assert bind["hostname"] == "127.0.0.1" and bind["port"] == 25000 and bind["websocket_origins"] == ()
    connect = {name: parameter.default for name, parameter in inspect.signature(Søcket.connect).parameters.items()}
    assert connect["hostname"] == "127.0.0.1" and connect["port"] == 25000 and connect["connect_timeout"] == 5.0


@pytest.mark.parametrize("arguments", [
    {"send_mode": SendMode.PUBLISH, "delivery_guarantee": DeliveryGuarantee.AT_LEAST_ONCE},
    {"identity": b"short"}, {"identity": b""}, {"identity": bytes(17)},
    {"send_hwm": 0}, {"recv_hwm": -1}, {"send_hwm_bytes": 0}, {"recv_hwm_bytes": 0}, {"max_message_size": 0},
    {"max_message_size": 2**32}, {"max_connections": 0}, {"dedupe": -1}, {"max_resends": -1}, {"max_unacked": 0},
    {"heartbeat_interval": 0}, {"heartbeat_interval": math.nan}, {"handshake_timeout": -1.0},
    {"heartbeat_interval": 5.0, "heartbeat_timeout": 4.0}, {"resend_after": math.inf}, {"linger": -1},
    {"linger": math.nan}, {"send_buffer": 0}, {"recv_buffer": -1},
    {"delivery_guarantee": DeliveryGuarantee.AT_LEAST_ONCE, "on_no_peer": netmsg.OnNoPeer.DROP},
    {"delivery_guarantee": DeliveryGuarantee.AT_LEAST_ONCE, "conflate": True},
])
def test_bad_values_are_refused_at_construction(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Søcket(**arguments)


@pytest.mark.parametrize("arguments", [
    {"send_mode": "publish"}, {"delivery_guarantee": 1}, {"identity": "a" * 16}, {"on_full": "block"},
    {"ack_mode": None}, {"linger": None},
    {"on_duplicate": 0}, {"send_hwm": 1.5}, {"recv_hwm": "1"}, {"max_unacked": True},
    {"heartbeat_interval": "5"}, {"reconnection_delay": 1.0}, {"authorize": "yes"}, {"io_thread": threading.Thread()},
    {"on_no_peer": "drop"}, {"conflate": 1}, {"send_buffer": 4096.0}, {"recv_buffer": "4k"},
])
def test_bad_types_are_refused_at_construction(arguments: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        Søcket(**arguments)


def test_messages_go_both_ways() -> None:
    with connected() as (a, b):
        a.send(b"to b")
        b.send(b"to a")
        assert (a.recv(timeout=TIMEOUT), b.recv(timeout=TIMEOUT)) == (b"to a", b"to b")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_addresses_are_of_two_parts_in_either_family(host: str) -> None:
    with Søcket(linger=0) as a, Søcket(linger=0) as b:
        a.bind(host, 0)
        b.connect(host, a.bound_port)
        a.wait_for_peers(timeout=TIMEOUT)
        b.wait_for_peers(timeout=TIMEOUT)
        bound = (host, a.bound_port)
        assert a.bound_addresses == [bound] and b.peers()[0].address == bound
        assert a.peers()[0].address[0] == host and len(a.peers()[0].address) == 2
        assert wait_for_event(a, Listening).address == bound
        assert wait_for_event(b, Connected).address == bound
        with socket.create_connection((host, a.bound_port), TIMEOUT) as stranger:
            stranger.sendall(b"\x99" * 10)
            failed = wait_for_event(a, HandshakeFailed).address
            assert failed[0] == host and len(failed) == 2


def test_the_addresses_that_were_tried_are_of_two_parts() -> None:
    with socket.socket(socket.AF_INET6) as unused, Søcket(linger=0) as sock:
        unused.bind(("::1", 0))
        port = unused.getsockname()[1]
        sock.connect("::1", port)
        error = wait_for_event(sock, Retrying).error
        assert isinstance(error, ConnectFailedError) and [address for address, _ in error.attempts] == [("::1", port)]


def test_abstract_addresses_are_text() -> None:
    name = f"\0netmsg-test-address-{os.getpid()}"
    with Søcket(linger=0) as a, Søcket(linger=0) as b:
        a.bind_unix(name)
        b.connect_unix(os.fsencode(name))
        a.wait_for_peers(timeout=TIMEOUT)
        b.wait_for_peers(timeout=TIMEOUT)
        assert [a.bound_addresses[0], a.peers()[0].address, b.peers()[0].address] == [name] * 3
        assert wait_for_event(a, Listening).address == name
        assert wait_for_event(a, Connected).address == name


def test_a_bind_that_cannot_be_completed_leaves_nothing_open() -> None:
    """Of two addresses, one is taken."""
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken, Søcket(linger=0) as sock:
        port = taken.getsockname()[1]
        with pytest.raises(OSError):
            sock.bind("localhost", port) if _both_families() else sock.bind("::1", port)
        assert sock.bound_addresses == [] and sock.bound_urls == []
        sock.bind("127.0.0.1", port)


def _both_families() -> bool:
    return len({family for family, *_ in socket.getaddrinfo("localhost", 1, type=socket.SOCK_STREAM)}) == 2


def test_bind_and_connect_return_the_socket() -> None:
    with Søcket(linger=0) as a, Søcket(linger=0) as b:
        assert a.bind(port=0) is a
        assert b.connect(port=a.bound_port) is b


def test_identities_are_told() -> None:
    with connected({"identity": b"A" * 16}, {"identity": b"B" * 16}) as (a, b):
        b.send(b"x")
        assert a.recv_identity(timeout=TIMEOUT) == (b"B" * 16, b"x")
        a.send(b"y", b"B" * 16)
        assert b.recv_identity(timeout=TIMEOUT) == (b"A" * 16, b"y")
        assert a.identity == b"A" * 16
        assert [peer.identity for peer in a.peers()] == [b"B" * 16]


@pytest.mark.parametrize("data", [b"bytes", bytearray(b"bytearray"), memoryview(b"memoryview"), b"",
                                  memoryview(b"every other")[::2], b"x" * 100_000, bytearray(b"y" * 100_000)])
def test_anything_bytes_like_can_be_sent(data: Any) -> None:
    with connected() as (a, b):
        b.send(data)
        received = a.recv(timeout=TIMEOUT)
        assert received == bytes(data) and type(received) is bytes


def test_what_may_change_is_copied_when_it_is_sent() -> None:
    with connected() as (a, b):
        for size in (10, 100_000):
            data = bytearray(b"a" * size)
            with Søcket(linger=0) as unconnected:
                unconnected.bind(port=0)
                unconnected.send(data)
                data[:] = b"b" * size
                with Søcket(linger=0) as c:
                    c.connect(port=unconnected.bound_port)
                    assert c.recv(timeout=TIMEOUT) == b"a" * size


@pytest.mark.parametrize("data", ["text", 5, None, object(), [b"x"]])
def test_what_is_not_bytes_is_refused_and_nothing_is_sent(data: Any) -> None:
    with connected() as (a, b):
        with pytest.raises(TypeError):
            b.send(data)
        b.send(b"next")
        assert a.recv(timeout=TIMEOUT) == b"next"


def test_messages_longer_than_allowed_are_refused_by_send() -> None:
    with connected({"max_message_size": 100}, {"max_message_size": 100}) as (a, b):
        b.send(b"x" * 100)
        with pytest.raises(ValueError, match="max_message_size"):
            b.send(b"x" * 101)
        with pytest.raises(ValueError, match="max_message_size"):
            b.send(b"x" * 101, a.identity)
        assert len(a.recv(timeout=TIMEOUT)) == 100


@pytest.mark.parametrize("identity", [b"", b"x", bytes(15)])
def test_an_identity_of_another_size_cannot_be_addressed(identity: bytes) -> None:
    with Søcket() as sock, pytest.raises(ValueError):
        sock.send(b"x", identity)


def test_text_and_json() -> None:
    with connected() as (a, b):
        b.send_string("Søcket")
        assert a.recv_string(timeout=TIMEOUT) == "Søcket"
        b.send_json({"ø": [1, None, "x"]})
        assert a.recv_json(timeout=TIMEOUT) == {"ø": [1, None, "x"]}
        b.send(b"\xff")
        with pytest.raises(UnicodeDecodeError):
            a.recv_string(timeout=TIMEOUT)
        b.send(b"{")
        with pytest.raises(ValueError):
            a.recv_json(timeout=TIMEOUT)


def test_json_takes_the_arguments_of_the_json_module() -> None:
    with connected() as (a, b):
        b.send_json({"b": 1.5, "a": {1}}, sort_keys=True, default=sorted)
        assert a.recv(timeout=TIMEOUT) == b'{"a": [1], "b": 1.5}'
        b.send_json(1.1)
        assert a.recv_json(timeout=TIMEOUT, parse_float=Decimal) == Decimal("1.1")
        with pytest.raises(TypeError):
            b.send_json({1})
        with pytest.raises(TypeError):
            b.send_json(1, no_such_option=True)


def test_json_messages_can_be_asked_again_after_one_that_is_none() -> None:
    with connected() as (a, b):
        for data in (b"[1]", b"{", b"\xff", b"2.5"):
            b.send(data)
        documents = a.json_messages(parse_float=str)
        assert next(documents) == [1]
        for _ in range(2):
            with pytest.raises(ValueError):
                next(documents)
        assert next(documents) == "2.5"
        a.close()
        assert list(documents) == []


@pytest.mark.parametrize("call", [
    lambda sock: sock.send(5, timeout=-1), lambda sock: sock.send(b"x", b"short", timeout=-1),
    lambda sock: sock.send(bytes(100), timeout=-1), lambda sock: sock.send_many(5, timeout=-1),
    lambda sock: sock.send_many(b"one message", timeout=-1), lambda sock: sock.send_many([], b"short", timeout=-1),
    lambda sock: sock.send_string(5, timeout=-1), lambda sock: sock.send_json({1}, timeout=-1),
    lambda sock: sock.recv_many(0, timeout=-1), lambda sock: sock.wait_for_peers("x", timeout=-1),
    lambda sock: sock.bind(5, timeout=-1), lambda sock: sock.bind("tcp://", timeout=-1),
])
def test_the_timeout_is_checked_before_anything_else(call: Any) -> None:
    with Søcket(max_message_size=10) as sock, pytest.raises(ValueError, match="timeout"):
        call(sock)


@pytest.mark.parametrize("call", [
    lambda sock: sock.recv_many(1, timeout=-1), lambda sock: sock.recv(timeout=-1),
    lambda sock: sock.recv_json(timeout=-1),
])
def test_the_timeout_is_checked_before_the_mode(call: Any) -> None:
    with Søcket(ack_mode=AckMode.MANUAL) as sock, pytest.raises(ValueError, match="timeout"):
        call(sock)


def test_send_many_by_the_names_of_its_parameters() -> None:
    with connected() as (a, b):
        assert b.send_many(iterable=[b"1", b"2"], identity=None, timeout=TIMEOUT) is None
        assert [a.recv(timeout=TIMEOUT) for _ in range(2)] == [b"1", b"2"]
        with pytest.raises(ValueError, match="identity"):
            b.send_many([], b"short")


def test_recv_takes_its_timeout_by_keyword_only() -> None:
    with Søcket() as sock:
        with pytest.raises(TypeError):
            sock.recv(1.0)  # type: ignore[call-arg]
        with pytest.raises(TypeError):
            sock.recv_identity(1.0)  # type: ignore[call-arg]


RECEIVING: list[Any] = [
    lambda sock, timeout: sock.recv(timeout=timeout),
    lambda sock, timeout: sock.recv_identity(timeout=timeout),
    lambda sock, timeout: sock.recv_many(10, timeout=timeout),
    lambda sock, timeout: sock.recv_delivery(timeout=timeout),
    lambda sock, timeout: sock.recv_string(timeout=timeout),
    lambda sock, timeout: sock.recv_json(timeout=timeout),
    lambda sock, timeout: sock.wait_for_peers(timeout=timeout),
    lambda sock, timeout: next(sock.events(timeout=timeout)),
]


@pytest.mark.parametrize("call", RECEIVING)
@pytest.mark.parametrize("timeout", [0, 0.01])
def test_running_out_of_time_is_a_timeout_error(call: Any, timeout: float) -> None:
    with Søcket() as sock:
        with pytest.raises(TimeoutError):
            call(sock, timeout)


@pytest.mark.parametrize("call", [*RECEIVING, lambda sock, timeout: sock.send(b"x", timeout=timeout),
                                  lambda sock, timeout: sock.send_many([b"x"], timeout=timeout),
                                  lambda sock, timeout: sock.bind(port=0, timeout=timeout),
                                  lambda sock, timeout: sock.close(linger=timeout)])
@pytest.mark.parametrize("timeout", [-1, math.nan, -0.5])
def test_impossible_timeouts_are_refused_first(call: Any, timeout: float) -> None:
    with Søcket() as sock:
        with pytest.raises(ValueError):
            call(sock, timeout)
        assert not sock.closed


@pytest.mark.parametrize("call", RECEIVING[:7])
def test_close_wakes_a_blocked_call(call: Any) -> None:
    with Søcket() as sock:
        blocked = Background(call, sock, None)
        until_waiting(blocked)
        sock.close()
        with pytest.raises(ClosedError):
            blocked.result()


def test_close_wakes_a_blocked_send() -> None:
    with Søcket(send_hwm=1, linger=0) as sock:
        sock.send(b"fills the queue")
        blocked = Background(sock.send, b"waits")
        until_waiting(blocked)
        sock.close()
        with pytest.raises(ClosedError):
            blocked.result()


@pytest.mark.parametrize("call", [*RECEIVING[:7], lambda sock, timeout: sock.send(b"x"),
                                  lambda sock, timeout: sock.send(b"x", b"i" * 16),
                                  lambda sock, timeout: sock.send_many([b"x"]),
                                  lambda sock, timeout: sock.send_many([]),
                                  lambda sock, timeout: sock.bind(port=0),
                                  lambda sock, timeout: sock.bind_unix("/tmp/never-made"),
                                  lambda sock, timeout: sock.connect(port=1),
                                  lambda sock, timeout: sock.connect_unix("/tmp/never-made")])
def test_calls_after_close_raise_closed_error(call: Any) -> None:
    sock = Søcket()
    sock.close()
    with pytest.raises(ClosedError):
        call(sock, None)
    assert isinstance(ClosedError(), OSError)


def test_messages_received_but_not_taken_are_not_handed_over_after_close() -> None:
    with connected() as (a, b):
        b.send(b"1")
        b.send(b"2")
        assert a.recv(timeout=TIMEOUT) == b"1"
        a.close()
        with pytest.raises(ClosedError):
            a.recv()


def test_iteration_ends_quietly_at_close() -> None:
    with connected() as (a, b):
        for data in (b"1", b"2", b"3"):
            b.send(data)
        got = []
        for message in a:
            got.append(message)
            if len(got) == 3:
                a.close()
        assert got == [b"1", b"2", b"3"]
        assert list(a.messages()) == []
        assert list(a.identity_messages()) == []
        assert list(a.deliveries()) == []
        assert list(a.json_messages()) == []


@pytest.mark.parametrize("iterate", [iter, lambda sock: sock.messages(), lambda sock: sock.identity_messages(),
                                     lambda sock: sock.json_messages(), lambda sock: sock.deliveries()])
def test_an_iteration_that_waits_ends_quietly_at_close(iterate: Any) -> None:
    with Søcket() as sock:
        waiting = Background(lambda: list(iterate(sock)))
        sock.close()
        assert waiting.result() == []


def test_recv_many_returns_what_is_there_up_to_its_limit() -> None:
    with connected() as (a, b):
        b.send_many([b"%d" % n for n in range(100)])
        got: list[bytes] = []
        while len(got) < 100:
            some = a.recv_many(30, timeout=TIMEOUT)
            assert 1 <= len(some) <= 30
            got += some
        assert got == [b"%d" % n for n in range(100)]
        with pytest.raises(ValueError):
            a.recv_many(0)


def test_send_many_tells_how_many_were_accepted() -> None:
    with Søcket(send_hwm=5, linger=0) as sock:
        with pytest.raises(SendTimeoutError) as raised:
            sock.send_many([b"x"] * 10, timeout=0)
        assert raised.value.sent == 5
        with pytest.raises(TypeError):
            sock.send_many(wrong(b"one message"))
        assert sock.close() == 5


def test_send_at_the_mark_times_out() -> None:
    with Søcket(send_hwm=2, linger=0) as sock:
        sock.send(b"1", timeout=0)
        sock.send(b"2", timeout=0)
        for timeout in (0, 0.01):
            with pytest.raises(SendTimeoutError):
                sock.send(b"3", timeout=timeout)


def test_send_at_the_mark_can_raise() -> None:
    with Søcket(send_hwm=1, on_full=OnFull.RAISE, linger=0) as sock:
        sock.send(b"1")
        with pytest.raises(QueueFullError):
            sock.send(b"2")


def test_manual_acknowledgement_wants_recv_delivery() -> None:
    with connected({"ack_mode": AckMode.MANUAL}) as (a, b):
        b.send(b"x")
        for call in (a.recv, a.recv_identity, a.recv_string, a.recv_json):
            with pytest.raises(LocalProtocolError):
                call(timeout=TIMEOUT)
        with pytest.raises(LocalProtocolError):
            a.recv_many(1, timeout=TIMEOUT)
        with pytest.raises(LocalProtocolError):
            next(a.messages())
        assert a.recv_delivery(timeout=TIMEOUT).data == b"x"


def test_bound_addresses_and_port() -> None:
    with Søcket() as sock:
        assert sock.bound_addresses == []
        with pytest.raises(LocalProtocolError):
            sock.bound_port
        sock.bind(port=0)
        sock.bind(port=0)
        first, second = sock.bound_addresses
        assert first[0] == second[0] == "127.0.0.1" and first[1] != second[1]
        assert sock.bound_port == first[1]


def test_an_address_in_use_raises_at_once() -> None:
    with Søcket() as a, Søcket() as b:
        a.bind(port=0)
        with pytest.raises(OSError, match=str(a.bound_port)):
            b.bind(port=a.bound_port)
        b.bind(port=0)  # it stays usable


@pytest.mark.parametrize("call, error", [
    (lambda sock: sock.bind(port="25000"), TypeError), (lambda sock: sock.bind(port=65536), ValueError),
    (lambda sock: sock.bind(port=-1), ValueError), (lambda sock: sock.bind(5), TypeError),
    (lambda sock: sock.bind(""), ValueError), (lambda sock: sock.bind(port=0, ssl_context=True), TypeError),
    (lambda sock: sock.bind("no.such.host.invalid", 0, timeout=10), OSError),
    (lambda sock: sock.connect(port=0), ValueError), (lambda sock: sock.connect(None, 1), TypeError),
    (lambda sock: sock.connect("", 1), ValueError), (lambda sock: sock.connect(port=1, connect_timeout=0), ValueError),
    (lambda sock: sock.connect(port=1, ssl_context="yes"), TypeError),
    (lambda sock: sock.connect_unix("x", ssl_context=True), ValueError),  # a context that checks names, and no name
    (lambda sock: sock.connect_unix(""), ValueError), (lambda sock: sock.connect_unix(5), TypeError),
    (lambda sock: sock.bind_unix("a\0b"), ValueError), (lambda sock: sock.connect_unix("x" * 200), ValueError),
    (lambda sock: sock.bind(port=0, ssl_context=ssl.create_default_context()), ValueError),  # the wrong side
    (lambda sock: sock.connect(port=1, ssl_context=ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)), ValueError),
    (lambda sock: sock.connect(port=1, ssl_context=True, server_hostname=5), TypeError),
    (lambda sock: sock.connect("." * 300, 1, ssl_context=True), ValueError),
    (lambda sock: sock.wait_for_peers("x"), TypeError), (lambda sock: sock.wait_for_peers(-1), ValueError),
    (lambda sock: sock.send_string(5), TypeError),
])
def test_bad_endpoints_are_refused_at_once(call: Any, error: type[Exception]) -> None:
    with Søcket() as sock, pytest.raises(error):
        call(sock)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_either_family_and_names(host: str) -> None:
    with Søcket(linger=0) as a, Søcket(linger=0) as b:
        a.bind(host, 0)
        b.connect(host, a.bound_port)
        b.send(b"x")
        assert a.recv(timeout=TIMEOUT) == b"x"


def test_every_interface() -> None:
    with Søcket(linger=0) as a:
        a.bind(None, 0)
        for host in ("127.0.0.1", "::1"):
            with Søcket(linger=1) as b:
                b.connect(host, a.bound_port)
                b.send(host.encode())
                assert a.recv(timeout=TIMEOUT) == host.encode()


@pytest.mark.parametrize("kind", [str, os.fsencode, Path])
def test_unix_sockets(tmp_path: Path, kind: Any) -> None:
    path = tmp_path / "søcket"
    with Søcket(linger=0) as a, Søcket(linger=0) as b:
        a.bind_unix(kind(str(path)))
        b.connect_unix(kind(str(path)))
        b.send(b"x")
        assert a.recv(timeout=TIMEOUT) == b"x"
        assert a.bound_addresses == [str(path)]
        assert b.peers()[0].address == str(path)
    assert not path.exists()


def test_abstract_unix_sockets() -> None:
    name = f"\0netmsg-test-{os.getpid()}"
    with Søcket(linger=0) as a, Søcket(linger=0) as b:
        a.bind_unix(name)
        b.connect_unix(name)
        b.send(b"x")
        assert a.recv(timeout=TIMEOUT) == b"x"


def test_a_unix_path_that_is_in_use_is_refused_and_a_stale_one_replaced(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with Søcket(linger=0) as a, Søcket(linger=0) as b:
        a.bind_unix(path)
        with pytest.raises(OSError):
            b.bind_unix(path)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(path)
    with Søcket(linger=0) as c:
        c.bind_unix(path)
    (tmp_path / "file").write_text("precious")
    with Søcket() as d, pytest.raises(OSError):
        d.bind_unix(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "precious"


def test_several_binds_and_connects_on_one_socket(tmp_path: Path) -> None:
    with Søcket(linger=0) as hub, Søcket(linger=0) as left, Søcket(linger=0) as right, Søcket(linger=0) as third:
        left.bind(port=0)
        hub.connect(port=left.bound_port).bind(port=0).bind_unix(tmp_path / "s")
        right.connect(port=hub.bound_port)
        third.connect_unix(tmp_path / "s")
        hub.wait_for_peers(3, timeout=TIMEOUT)
        for _ in range(3):
            hub.send(b"to each")
        assert {sock.recv(timeout=TIMEOUT) for sock in (left, right, third)} == {b"to each"}
        for sock in (left, right, third):
            sock.send(sock.identity)
        assert ({hub.recv(timeout=TIMEOUT) for _ in range(3)}
                == {sock.identity for sock in (left, right, third)})


def test_the_descriptor_is_readable_while_a_message_waits() -> None:
    with connected() as (a, b):
        def readable() -> bool:
            return bool(select.select([a], [], [], 0)[0])

        assert not readable()
        b.send(b"1")
        b.send(b"2")
        assert select.select([a], [], [], TIMEOUT)[0] == [a]
        assert a.recv(timeout=TIMEOUT) == b"1"
        assert select.select([a], [], [], TIMEOUT)[0] == [a]
        assert a.recv(timeout=TIMEOUT) == b"2"
        assert not readable()
        b.send(b"3")
        with selectors.DefaultSelector() as selector:
            selector.register(a, selectors.EVENT_READ)
            assert selector.select(TIMEOUT)
            assert a.recv_many(10, timeout=0) == [b"3"]
            assert not selector.select(0)
            b.send(b"4")
            assert selector.select(TIMEOUT)
            assert a.recv_delivery(timeout=0).data == b"4"
            assert not selector.select(0)


def test_the_descriptor_tells_of_messages_from_before_it_was_asked_for() -> None:
    with connected() as (a, b):
        b.send_many([b"1", b"2", b"3"])
        assert a.recv(timeout=TIMEOUT) == b"1"
        b.send(b"4")
        poller = select.poll()
        poller.register(a.fileno(), select.POLLIN)
        got: list[bytes] = []
        while len(got) < 3:
            assert poller.poll(TIMEOUT * 1000)
            got.append(a.recv(timeout=0))
        assert got == [b"2", b"3", b"4"] and not poller.poll(0)


def test_close_makes_the_descriptor_readable_for_whoever_waits_for_it() -> None:
    with connected() as (a, b):
        selector = selectors.DefaultSelector()
        selector.register(a, selectors.EVENT_READ)
        blocked = Background(selector.select, TIMEOUT)
        a.close()
        assert blocked.result()
        assert a.fileno() == -1
        selector.close()


def test_a_shared_io_thread_is_one_thread() -> None:
    with IOThread() as io:
        socks = [Søcket(io_thread=io, linger=0) for _ in range(10)]
        try:
            socks[0].bind(port=0)
            for sock in socks[1:]:
                sock.connect(port=socks[0].bound_port)
            socks[0].wait_for_peers(9, timeout=TIMEOUT)
            threads = [thread for thread in threading.enumerate() if thread.name.startswith("netmsg-")]
            assert len(threads) == 1
            for sock in socks[1:]:
                sock.send(b"x")
            assert [socks[0].recv(timeout=TIMEOUT) for _ in range(9)] == [b"x"] * 9
        finally:
            for sock in socks:
                sock.close()


def test_closing_a_shared_io_thread_closes_its_users() -> None:
    io = IOThread()
    a, b = Søcket(io_thread=io).bind(port=0), Søcket(io_thread=io)
    b.connect(port=a.bound_port)
    b.wait_for_peers(timeout=TIMEOUT)
    blocked = Background(a.recv)
    io.close()
    with pytest.raises(ClosedError):
        blocked.result()
    assert a.closed and b.closed
    with pytest.raises(ClosedError):
        b.send(b"x")
    with Søcket(io_thread=io) as late, pytest.raises(ClosedError):
        late.bind(port=0)


def test_a_thousand_peers_cost_no_thread() -> None:
    with IOThread() as io, Søcket(linger=0) as hub:
        hub.bind(port=0)
        socks = [Søcket(io_thread=io, linger=0).connect(port=hub.bound_port) for _ in range(1000)]
        hub.wait_for_peers(1000, timeout=30)
        assert len([thread for thread in threading.enumerate() if thread.name.startswith("netmsg-")]) == 2
        for _ in range(1000):
            hub.send(b"x")
        assert [sock.recv(timeout=TIMEOUT) for sock in socks] == [b"x"] * 1000


def test_an_uncollected_socket_warns_and_closes() -> None:
    sock = Søcket(linger=0).bind(port=0)
    with pytest.warns(ResourceWarning, match="unclosed"):
        del sock


def test_wait_for_peers_counts() -> None:
    with Søcket(linger=0) as a:
        a.bind(port=0)
        waiting = Background(a.wait_for_peers, 2)
        with Søcket(linger=0) as b, Søcket(linger=0) as c:
            b.connect(port=a.bound_port)
            a.wait_for_peers(1, timeout=TIMEOUT)
            with pytest.raises(TimeoutError):
                a.wait_for_peers(2, timeout=0)
            c.connect(port=a.bound_port)
            waiting.result()


def test_statistics_count_in_total_and_per_peer() -> None:
    with connected(linger=5) as (a, b):
        b.send_many([b"12345"] * 10)
        b.send(b"x" * 50_000)
        for _ in range(11):
            a.recv(timeout=TIMEOUT)
        assert a.stats().received == 11 and a.stats().bytes_received >= 50_000
        assert a.stats().peers[b.identity].received == 11
        until(lambda: b.stats().sent == 11)  # counted after the kernel has it, and so perhaps after the arrival
        assert b.stats().peers[a.identity].sent == 11
        assert a.peers()[0].connected_since == pytest.approx(time.time(), abs=60)
        assert a.peers()[0].dialect == "version 1" and a.peers()[0].tls is None
        b.close()
        assert b.stats().sent == 11 and b.stats().connections == 1


def test_mutual_tls_is_shown_to_the_peer(tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    server, client = tls_contexts
    with Søcket(linger=0) as a, Søcket(linger=0) as b:
        a.bind(port=0, ssl_context=server)
        b.connect("localhost", a.bound_port, ssl_context=client)
        b.send(b"secret" * 100_000)
        assert a.recv(timeout=TIMEOUT) == b"secret" * 100_000
        shown = a.peers()[0].tls
        assert shown is not None and shown.version == "TLSv1.3" and shown.peer_certificate is not None
        assert b.peers()[0].tls is not None
