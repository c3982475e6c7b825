"""Connecting and listening. The numbers are those of the list of behaviours."""

from __future__ import annotations

import errno
import gc
import gzip
import io
import os
import re
import resource
import secrets
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.blocking import until_polling
from support.forking import fork
from support.interrupts import Interrupted, missed_signal
from support.pairs import TIMEOUT, Background
from support.processes import PYTHON, Program
from support.wrong import wrong

import netmsg
from netmsg import (
    ClosedError, ConnectFailedError, ConnectionBrokenError, Listener, SendTimeoutError, SocketStream, Søcket,
    connect_tcp, connect_unix, create_tcp_server, create_unix_datagram_socket, create_unix_server,
)
from netmsg.sockets import resolving
from netmsg.streams import connecting


def pair_over(listener: Listener, **options: Any) -> tuple[SocketStream, SocketStream]:
    client = connect_tcp("127.0.0.1", listener.port, timeout=TIMEOUT, **options)
    return client, listener.accept(timeout=TIMEOUT)


@pytest.fixture
def deaf() -> Any:
    """An address that does not answer: its backlog is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(8)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()
        for filler in fillers:
            filler.close()


def resolved_to(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[int, Any]) -> None:
    monkeypatch.setattr(connecting, "resolve_within", lambda deadline, host, port: list(addresses))


# Options and addresses

def test_7_nodelay_and_keepalive_are_on() -> None:
    with create_tcp_server() as listener:
        for stream in pair_over(listener):
            with stream:
                assert stream.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                assert stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def test_a_free_port_that_meets_itself_counts_as_refused_and_stays_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
    with pytest.raises(ConnectionRefusedError):
        connect_tcp(*address, local_address=address, timeout=TIMEOUT)
    with socket.socket() as listener:  # without SO_REUSEADDR
        listener.bind(address)


def test_8_the_local_address_is_honoured() -> None:
    with create_tcp_server() as listener:
        client, server = pair_over(listener, local_address=("127.0.0.2", 0))
        with client, server:
            assert client.local_address[0] == "127.0.0.2" == server.remote_address[0]
            assert client.remote_address == server.local_address == ("127.0.0.1", listener.port)
        assert client.local_address[0] == "127.0.0.2"


def test_addresses_have_two_items_in_either_family() -> None:
    with create_tcp_server(interface="::1") as listener, connect_tcp("::1", listener.port) as client:
        assert client.remote_address == ("::1", listener.port) and listener.addresses == [("::1", listener.port)]
        with connect_tcp("[::1]", listener.port) as bracketed:
            assert bracketed.remote_address == client.remote_address


def test_20_refused_names_every_address_tried() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        with pytest.raises(ConnectFailedError) as raised:
            connect_tcp("127.0.0.1", port, timeout=TIMEOUT)
    assert isinstance(raised.value, ConnectionRefusedError) and isinstance(raised.value, OSError)
    assert raised.value.errno == errno.ECONNREFUSED
    assert [address for address, _ in raised.value.attempts] == [("127.0.0.1", port)]
    assert f"127.0.0.1 port {port}" in str(raised.value)


def test_20_attempts_that_fail_in_different_ways_are_of_no_single_class(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unreachable(socket.socket):
        def connect_ex(self, address: Any) -> int:
            return errno.ENETUNREACH if address[0] == "192.0.2.1" else super().connect_ex(address)

    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        resolved_to(monkeypatch, (socket.AF_INET, reserved.getsockname()), (socket.AF_INET, ("192.0.2.1", 1)),)
        monkeypatch.setattr(socket, "socket", Unreachable)
        with pytest.raises(ConnectFailedError) as raised:
            connect_tcp("two.example", 1, timeout=TIMEOUT)
    assert type(raised.value) is ConnectFailedError and len(raised.value.attempts) == 2


def test_21_an_unknown_name_is_a_failed_connection() -> None:
    with pytest.raises(ConnectFailedError) as raised:
        connect_tcp("no-such-host.invalid", 1, timeout=TIMEOUT)
    assert isinstance(raised.value, socket.gaierror) and isinstance(raised.value.__cause__, socket.gaierror)
    assert raised.value.attempts[0][0] == ("no-such-host.invalid", 1)


# Sockets from elsewhere

def test_22_only_connected_stream_sockets_are_taken() -> None:
    with socket.socket() as unconnected, socket.socket(type=socket.SOCK_DGRAM) as datagrams, \
            socket.create_server(("127.0.0.1", 0)) as listening:
        for sock in (unconnected, datagrams, listening):
            with pytest.raises(ValueError):
                SocketStream.from_socket(sock)
            assert sock.fileno() >= 0
        for other in ("localhost:80", 5, None):
            with pytest.raises(TypeError):
                SocketStream.from_socket(wrong(other))
        for sock in (unconnected, datagrams):
            with pytest.raises(ValueError):
                Listener.from_socket(sock)
        with Listener.from_socket(listening.dup()) as listener:
            client, server = pair_over(listener)
            client.close()
            server.close()


def test_22_a_socket_is_taken_over() -> None:
    one, other = socket.socketpair()
    with SocketStream.from_socket(one) as stream, other:
        other.sendall(b"hello")
        assert stream.receive(timeout=TIMEOUT) == b"hello"
    assert one.fileno() == -1


# 31-33: happy eyeballs

def test_31_an_address_that_does_not_answer_is_overtaken(deaf: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with create_tcp_server(interface="127.0.0.1") as listener:
        resolved_to(monkeypatch, (socket.AF_INET, deaf), (socket.AF_INET, ("127.0.0.1", listener.port)))
        before = set(os.listdir("/proc/self/fd"))
        with connect_tcp("two.example", 1, timeout=TIMEOUT, happy_eyeballs_delay=0.01) as stream:
            assert stream.remote_address == ("127.0.0.1", listener.port)
            listener.accept(timeout=TIMEOUT).close()
            assert len(set(os.listdir("/proc/self/fd")) - before) <= 1  # the rival is closed


def test_31_a_failure_starts_the_next_attempt_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with create_tcp_server(interface="127.0.0.1") as listener, socket.socket() as refusing:
        refusing.bind(("127.0.0.1", 0))
        resolved_to(monkeypatch, (socket.AF_INET, refusing.getsockname()),
                    (socket.AF_INET, ("127.0.0.1", listener.port)))
        started = time.monotonic()
        connect_tcp("two.example", 1, timeout=TIMEOUT, happy_eyeballs_delay=5).close()
        assert time.monotonic() - started < 2.5


def test_31_the_deadline_closes_all_attempts(deaf: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    resolved_to(monkeypatch, *[(socket.AF_INET, deaf)] * 3)
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(TimeoutError):
        connect_tcp("three.example", 1, timeout=0.2, happy_eyeballs_delay=0.01)
    assert set(os.listdir("/proc/self/fd")) == before


def test_31_a_family_that_is_missing_is_tolerated(monkeypatch: pytest.MonkeyPatch) -> None:
    with create_tcp_server(interface="127.0.0.1") as listener:
        resolved_to(monkeypatch, (255, ("nowhere", 1)), (socket.AF_INET, ("127.0.0.1", listener.port)))
        connect_tcp("two.example", 1, timeout=TIMEOUT).close()


def test_32_a_literal_asks_no_resolver(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    getaddrinfo = socket.getaddrinfo

    def watched(host: Any, port: Any, *arguments: Any, **options: Any) -> Any:
        if not options.get("flags", 0) & socket.AI_NUMERICHOST:
            asked.append(host)
        return getaddrinfo(host, port, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", watched)
    with create_tcp_server() as listener:
        connect_tcp("127.0.0.1", listener.port).close()
        connect_tcp("::1", listener.port).close()
    assert asked == []


def test_33_the_timeout_covers_the_resolver(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    monkeypatch.setattr(resolving, "resolve", lambda *arguments: _slow(go_on, *arguments))
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        connect_tcp("slow.example", 1, timeout=0.1)
    assert time.monotonic() - started < 2
    go_on.set()


def _slow(go_on: threading.Event, host: str, port: int, flags: int = 0) -> list[Any]:
    if flags & socket.AI_NUMERICHOST:
        raise socket.gaierror(socket.EAI_NONAME, "no literal")
    go_on.wait(TIMEOUT)
    return []


def test_33_the_timeout_covers_the_handshake(tls_contexts: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        before = set(os.listdir("/proc/self/fd"))
        with pytest.raises(TimeoutError):
            connect_tcp("127.0.0.1", silent.getsockname()[1], ssl_context=tls_contexts[1], timeout=0.2)
        assert set(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("call", [
    lambda: connect_tcp("localhost", wrong("80")), lambda: connect_tcp("localhost", wrong(None)),
    lambda: connect_tcp(wrong(None), 80), lambda: connect_tcp(wrong(b"localhost"), 80),
    lambda: connect_tcp("localhost", True), lambda: connect_tcp("localhost", 80, ssl_context=wrong("yes")),
    lambda: create_tcp_server(wrong("80")), lambda: create_tcp_server(wrong(None)),
    lambda: create_tcp_server(0, wrong(5)), lambda: create_tcp_server(backlog=wrong("many")),
    lambda: create_tcp_server(ssl_context=wrong(True)), lambda: connect_unix(wrong(5)),
    lambda: create_unix_server(wrong(None)),
    lambda: connect_tcp("localhost", 80, server_hostname=wrong(5), ssl_context=True),
    lambda: connect_tcp("localhost", 80, local_address=wrong("127.0.0.1")),
    lambda: connect_tcp("localhost", 80, local_address=wrong(("127.0.0.1", "0"))),
])
def test_34_wrong_types_are_refused_before_anything_is_opened(call: Callable[[], Any]) -> None:
    with pytest.raises(TypeError):
        call()


@pytest.mark.parametrize("call", [
    lambda: connect_tcp("localhost", -1), lambda: connect_tcp("localhost", 65536), lambda: connect_tcp("", 80),
    lambda: connect_tcp("localhost", 80, timeout=-1), lambda: connect_tcp("localhost", 80, happy_eyeballs_delay=-1),
    lambda: connect_tcp("localhost", 80, family=999), lambda: create_tcp_server(65536),
    lambda: create_tcp_server(backlog=-1), lambda: create_tcp_server(handshake_timeout=-1),
    lambda: connect_unix(""), lambda: create_unix_server("x" * 200), lambda: connect_unix("a\0b"),
    lambda: connect_unix("/nowhere", ssl_context=True),
    lambda: connect_tcp("localhost", 80, local_address=wrong(("127.0.0.1",))),
    lambda: connect_tcp("localhost", 80, local_address=wrong(("127.0.0.1", 0, 0))),
])
def test_34_wrong_values_too(call: Callable[[], Any]) -> None:
    with pytest.raises(ValueError):
        call()


def test_34_the_backlog_is_clamped() -> None:
    with create_tcp_server(backlog=1 << 40) as listener:
        connect_tcp("127.0.0.1", listener.port, timeout=TIMEOUT).close()


# 35-38: listening

def test_35_localhost_is_both_families_with_one_port() -> None:
    with create_tcp_server() as listener:
        assert listener.addresses == [("127.0.0.1", listener.port), ("::1", listener.port)]
        for host in ("127.0.0.1", "::1"):
            with connect_tcp(host, listener.port, timeout=TIMEOUT), listener.accept(timeout=TIMEOUT) as server:
                assert server.local_address == (host, listener.port)


def test_35_a_second_port_that_is_taken_is_tried_again_with_another(monkeypatch: pytest.MonkeyPatch) -> None:
    bind = socket.socket.bind
    taken: list[int] = []

    class Taken(socket.socket):
        def bind(self, address: Any) -> None:
            if self.family == socket.AF_INET6 and len(taken) < 3:
                taken.append(address[1])
                raise OSError(errno.EADDRINUSE, "Address already in use")
            bind(self, address)

    monkeypatch.setattr(socket, "socket", Taken)
    with create_tcp_server() as listener:
        assert len(taken) == 3 and listener.port not in taken and len(listener.addresses) == 2


def test_35_a_machine_without_ipv6_listens_on_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    class Old(socket.socket):
        def __init__(self, family: int = -1, *arguments: Any, **options: Any) -> None:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
            super().__init__(family, *arguments, **options)

    monkeypatch.setattr(socket, "socket", Old)
    with create_tcp_server() as listener:
        assert listener.addresses == [("127.0.0.1", listener.port)]
    with pytest.raises(OSError):
        create_tcp_server(interface="::1")


@pytest.mark.parametrize("interface", ["::1", "::"])
def test_36_ipv6_alone_refuses_ipv4(interface: str) -> None:
    with create_tcp_server(interface=interface) as listener:
        connect_tcp("::1", listener.port, timeout=TIMEOUT).close()
        with pytest.raises(ConnectionRefusedError):
            connect_tcp("127.0.0.1", listener.port, timeout=TIMEOUT)


def test_36_none_is_every_interface() -> None:
    with create_tcp_server(interface=None) as listener:
        for host in ("127.0.0.1", "127.0.0.2", "::1"):
            connect_tcp(host, listener.port, timeout=TIMEOUT).close()


def test_37_rebinding_works_over_time_wait_and_not_over_a_listener() -> None:
    with create_tcp_server() as listener:
        port = listener.port
        client, server = pair_over(listener)
        server.close()  # first: its side is left in TIME_WAIT
        assert client.receive(timeout=TIMEOUT) == b""
        client.close()
        with pytest.raises(OSError) as raised:
            create_tcp_server(port)
        assert raised.value.errno == errno.EADDRINUSE
    with create_tcp_server(port):
        pass


def test_37_reuse_port_shares_one() -> None:
    with create_tcp_server(reuse_port=True) as one, create_tcp_server(one.port, reuse_port=True) as other:
        assert one.port == other.port


def test_37_where_no_port_can_be_shared_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "SO_REUSEPORT")
    for call in (create_tcp_server, netmsg.create_udp_socket):
        with pytest.raises(NotImplementedError, match="reuse_port"):
            call(reuse_port=True)


def test_38_a_bind_that_fails_half_way_closes_the_rest() -> None:
    with create_tcp_server(interface="::1") as listener:
        before = set(os.listdir("/proc/self/fd"))
        with pytest.raises(OSError):
            create_tcp_server(listener.port, "localhost")
        assert set(os.listdir("/proc/self/fd")) == before


# 39-40: accepting

def test_39_close_ends_accepting() -> None:
    listener = create_tcp_server()
    waiting = [Background(listener.accept) for _ in range(2)]
    iterating = Background(lambda: list(listener.accept_connections()))
    until_polling(*waiting, iterating)
    listener.close()
    for thread in waiting:
        with pytest.raises(ClosedError):
            thread.result()
    assert iterating.result() == []
    with pytest.raises(ClosedError):
        listener.accept()
    assert list(listener) == [] and listener.closed and listener.fileno() == -1 and listener.port
    listener.close()


def test_39_accept_keeps_its_timeout() -> None:
    with create_tcp_server() as listener:
        for timeout in (0, 0.05):
            with pytest.raises(TimeoutError):
                listener.accept(timeout=timeout)
        with pytest.raises(ValueError):
            listener.accept(timeout=-1)


def test_40_connections_that_are_gone_already_are_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = [errno.ECONNABORTED, errno.EPROTO, errno.ENETDOWN]

    class Failing(socket.socket):
        def _accept(self) -> Any:
            if errors:
                raise OSError(errors.pop(), "gone")
            return super()._accept()  # type: ignore[misc]

    monkeypatch.setattr(socket, "socket", Failing)
    with create_tcp_server() as listener:
        client, server = pair_over(listener)
        client.close()
        server.close()
    assert not errors


def test_40_out_of_descriptors_it_pauses_and_goes_on() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with create_tcp_server() as listener, socket.socket() as client:
        client.connect(("127.0.0.1", listener.port))
        accepting = Background(listener.accept, timeout=TIMEOUT)
        accepting.result().close()
        highest = max(int(name) for name in os.listdir("/proc/self/fd"))
        held = []
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 2, hard))
            with socket.socket() as late:
                late.connect(("127.0.0.1", listener.port))
                while True:
                    try:
                        held.append(os.dup(0))
                    except OSError:
                        break
                accepting = Background(listener.accept, timeout=TIMEOUT)
                until_polling(accepting)
                for descriptor in held:
                    os.close(descriptor)
                held = []
                accepting.result().close()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for descriptor in held:
                os.close(descriptor)


# 41-43: UNIX

@pytest.mark.parametrize("name", ["plain", "with space", b"\xff\xfe", Path("path")])
def test_41_paths_of_any_kind(name: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with create_unix_server(name) as listener, connect_unix(name, timeout=TIMEOUT) as client:
        assert client.remote_address == os.fsdecode(name) == listener.addresses[0]
        listener.accept(timeout=TIMEOUT).close()
        with pytest.raises(AttributeError):
            listener.port
    assert not os.path.exists(name)


def test_41_abstract_names() -> None:
    name = "\0netmsg-" + secrets.token_hex(8)
    with create_unix_server(name) as listener, connect_unix(name, timeout=TIMEOUT) as client:
        assert client.remote_address == name == listener.addresses[0]
        with pytest.raises(OSError):
            create_unix_server(name)
        listener.accept(timeout=TIMEOUT).close()


def test_41_a_stale_path_is_replaced_and_a_live_one_refused(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    with create_unix_server(path) as listener:
        with pytest.raises(OSError) as raised:
            create_unix_server(path)
        assert raised.value.errno == errno.EADDRINUSE and str(path) in str(raised.value)
        connect_unix(path, timeout=TIMEOUT).close()
        listener.accept(timeout=TIMEOUT).close()
    (tmp_path / "file").touch()
    with pytest.raises(OSError):
        create_unix_server(tmp_path / "file")
    assert (tmp_path / "file").exists()


def test_41_only_its_own_file_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with create_unix_server(path):
        path.unlink()
        with create_unix_server(path) as second:
            pass
        path.touch()
    assert path.exists() and second.closed


def test_41_the_mode_is_in_force_from_the_first_instant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    bind = socket.socket.bind

    class Watched(socket.socket):
        def bind(self, address: Any) -> None:
            bind(self, address)
            seen.append(stat.S_IMODE(os.stat(address).st_mode))

    monkeypatch.setattr(socket, "socket", Watched)
    for mode in (0o600, 0o666):
        with create_unix_server(tmp_path / "socket", mode=mode):
            assert stat.S_IMODE(os.stat(tmp_path / "socket").st_mode) == mode
            assert not seen.pop() & ~mode


def test_41_nobody_there_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as raised:
        connect_unix(tmp_path / "nothing", timeout=TIMEOUT)
    assert isinstance(raised.value, ConnectFailedError)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "stale"))
    with pytest.raises(ConnectionRefusedError):
        connect_unix(tmp_path / "stale", timeout=TIMEOUT)


def test_41_a_full_backlog_is_waited_for_with_a_deadline(tmp_path: Path) -> None:
    with create_unix_server(tmp_path / "socket", backlog=0) as listener:
        waiting = []
        with pytest.raises(TimeoutError):
            for _ in range(10):
                waiting.append(connect_unix(tmp_path / "socket", timeout=0.1))
        with pytest.raises(TimeoutError):
            connect_unix(tmp_path / "socket", timeout=0)
        connecting_late = Background(connect_unix, tmp_path / "socket", timeout=TIMEOUT)
        while waiting:
            listener.accept(timeout=TIMEOUT).close()
            waiting.pop().close()
        connecting_late.result().close()


def test_41_a_client_may_have_a_path_of_its_own(tmp_path: Path) -> None:
    with create_unix_server(tmp_path / "server") as listener:
        with connect_unix(tmp_path / "server", local_path=tmp_path / "client") as client:
            with listener.accept(timeout=TIMEOUT) as server:
                assert server.remote_address == client.local_address == str(tmp_path / "client")
        assert not (tmp_path / "client").exists()
    with pytest.raises(FileNotFoundError):
        connect_unix(tmp_path / "server", local_path=tmp_path / "client")
    assert not (tmp_path / "client").exists()


def test_41_a_stale_path_of_a_client_is_replaced_and_one_in_use_refused(tmp_path: Path) -> None:
    own = tmp_path / "client"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(own))
    with create_unix_server(tmp_path / "server") as listener:
        with connect_unix(tmp_path / "server", local_path=own), listener.accept(timeout=TIMEOUT) as server:
            assert server.remote_address == str(own)
            with pytest.raises(ConnectFailedError, match=re.escape(str(own))) as raised:
                connect_unix(tmp_path / "server", local_path=own)
            assert raised.value.errno == errno.EADDRINUSE and own.exists()
        assert not own.exists()


def test_41_a_link_that_leads_nowhere_is_left_alone(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "nothing")
    with pytest.raises(OSError) as raised:
        create_unix_server(link)
    assert raised.value.errno == errno.EADDRINUSE and link.is_symlink()


def test_41_files_go_though_the_working_directory_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with ExitStack() as stack:
        listener = stack.enter_context(create_unix_server("listener"))
        stack.enter_context(create_unix_datagram_socket(path="datagrams"))
        stack.enter_context(connect_unix("listener", local_path="client"))
        stack.enter_context(Søcket(linger=0)).bind_unix("messages")
        assert listener.addresses == ["listener"] and len(os.listdir()) == 4
        monkeypatch.chdir(tmp_path)
        (tmp_path / "listener").touch()
    assert os.listdir(tmp_path / "here") == [] and (tmp_path / "listener").exists()


def test_41_the_programs_default_timeout_does_not_make_waiting_for_room_spin(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = []

    class Watched(socket.socket):
        def connect(self, address: Any) -> None:
            attempts.append(address)
            super().connect(address)

    with create_unix_server(tmp_path / "socket", backlog=0), ExitStack() as stack:
        with pytest.raises(TimeoutError):
            while True:
                stack.enter_context(connect_unix(tmp_path / "socket", timeout=0))
        socket.setdefaulttimeout(TIMEOUT)
        try:
            monkeypatch.setattr(socket, "socket", Watched)
            with pytest.raises(TimeoutError, match="backlog"):
                connect_unix(tmp_path / "socket", timeout=0.2)
            assert 0 < len(attempts) < 20
        finally:
            socket.setdefaulttimeout(None)


def unix_pair() -> tuple[SocketStream, SocketStream]:
    one, other = socket.socketpair()
    return SocketStream.from_socket(one), SocketStream.from_socket(other)


def test_42_descriptors_arrive_close_on_exec_with_their_bytes(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    one, other = unix_pair()
    with one, other, open(tmp_path / "file", "rb") as file:
        one.send_all(b"before\n")
        one.send_fds(b"with", [file.fileno(), file.fileno()])
        one.send_all(b"after")
        assert other.receive_until(b"\n", timeout=TIMEOUT) == b"before"
        data, descriptors = b"", []
        while len(data) < 9:
            more, found = other.receive_fds(4 if not data else 100, 2, timeout=TIMEOUT)
            data += more
            descriptors += found
        assert data == b"withafter" and len(descriptors) == 2
        for descriptor in descriptors:
            assert not os.get_inheritable(descriptor)
            assert os.pread(descriptor, 100, 0) == b"content"
            os.close(descriptor)
        one.send_eof()
        assert other.receive_fds(1, 1, timeout=TIMEOUT) == (b"", [])
        with pytest.raises(ValueError):
            one.send_fds(b"", [0])


def test_42_a_timeout_of_passing_descriptors() -> None:
    one, other = unix_pair()
    with one, other:
        with pytest.raises(TimeoutError):
            other.receive_fds(1, 1, timeout=0.05)
        with pytest.raises(TimeoutError):
            while True:
                one.send_fds(bytes(100_000), [0], timeout=0)


def test_43_the_peers_credentials_are_the_kernels_word() -> None:
    one, other = unix_pair()
    with one, other:
        assert one.peer_credentials == (os.getpid(), os.getuid(), os.getgid())
        assert one.peer_credentials.pid == os.getpid()
    with create_tcp_server() as listener:
        client, server = pair_over(listener)
        with client, server, pytest.raises(netmsg.LocalProtocolError):
            client.peer_credentials


# The rest of a stream's members over sockets

def test_the_proxy_tells_of_the_socket_and_ends_with_it() -> None:
    with create_tcp_server() as listener:
        client, server = pair_over(listener)
        with server, client:
            proxy = client.socket
            assert proxy.family == socket.AF_INET and proxy.type == socket.SOCK_STREAM and proxy.proto == 0
            assert proxy.getsockname()[:2] == client.local_address and proxy.getpeername()[:2] == client.remote_address
            proxy.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
            assert not proxy.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert proxy.fileno() == client.fileno() >= 0
        assert proxy.fileno() == -1
        with pytest.raises(ClosedError):
            proxy.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize("kind", ["file", "pipe"])
def test_files_are_sent_and_received(kind: str, tmp_path: Path) -> None:
    content = os.urandom(300_000)
    (tmp_path / "source").write_bytes(content)
    with create_tcp_server() as listener:
        client, server = pair_over(listener)
        with client, server, open(tmp_path / "target", "w+b") as target:
            if kind == "pipe":
                reading, writing = os.pipe()

                def write() -> None:
                    os.write(writing, content[:50_000])
                    os.close(writing)

                Background(write)
                with open(reading, "rb") as source:
                    assert client.send_file(source, timeout=TIMEOUT) == 50_000
                content = content[:50_000]
            else:
                with open(tmp_path / "source", "rb") as source:
                    assert client.send_file(source, 1000, 2000, timeout=TIMEOUT) == 2000
                    assert source.tell() == 3000
                    assert server.receive_exactly(2000, timeout=TIMEOUT) == content[1000:3000]
                    with pytest.raises(ValueError):
                        client.send_file(source, 0, 300_001)
                    sending = Background(client.send_file, source)
                    assert server.receive_file(target, 1000, timeout=TIMEOUT) == 1000

                    def end() -> None:
                        sending.result()
                        client.send_eof()

                    client_done = Background(end)
                    assert server.receive_file(target, timeout=TIMEOUT) == 299_000
                    assert sending.result() == 300_000
                    client_done.result()
                    with pytest.raises(netmsg.EndOfStream):
                        server.receive_file(target, 1)
            if kind == "pipe":
                assert server.receive_file(target, len(content), timeout=TIMEOUT) == len(content)
            target.seek(0)
            assert target.read() == content


def test_a_stream_left_to_the_collector_warns() -> None:
    one, other = socket.socketpair()
    stream = SocketStream.from_socket(one)
    with pytest.warns(ResourceWarning, match="unclosed <SocketStream"):
        del stream
        gc.collect()
    assert other.recv(1) == b""
    other.close()
    listener = create_tcp_server()
    with pytest.warns(ResourceWarning, match="unclosed <Listener"):
        del listener
        gc.collect()


def test_a_forked_child_cannot_use_them_and_does_no_harm() -> None:
    with create_tcp_server() as listener:
        client, server = pair_over(listener)
        server.send_all(b"line\n" * 20)
        assert client.receive_until(b"\n", timeout=TIMEOUT) == b"line"

        def in_the_child() -> bool:
            refused = sum(_forked(call) for call in (
                client.receive, lambda: client.send_all(b"x"), lambda: client.receive_until(b"\n"), listener.accept,
                lambda: client.start_tls(), lambda: client.receive_exactly(1)))
            client.close()
            return refused == 6

        child = _fork(in_the_child)
        assert os.waitpid(child, 0)[1] == 0
        with client, server:
            client.send_all(b"unharmed")
            assert server.receive_exactly(8, timeout=TIMEOUT) == b"unharmed"
            assert client.receive_until(b"\n", timeout=TIMEOUT) == b"line"


def _forked(call: Callable[[], Any]) -> bool:
    try:
        call()
    except netmsg.ForkedError:
        return True
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
    return False


def _fork(check: Callable[[], Any]) -> int:
    child = fork()
    if not child:
        status = 1
        try:
            status = 0 if check() else 1
        finally:
            os._exit(status)
    return child


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the kernel cannot be hurried here")
def test_the_kernels_own_timeout_is_a_broken_connection() -> None:
    with create_tcp_server() as listener:
        client, server = pair_over(listener)
        with client, server:
            client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 200)
            with pytest.raises(SendTimeoutError):
                while True:
                    client.send_all(bytes(100_000), timeout=0)
            with pytest.raises(ConnectionBrokenError) as raised:
                client.receive(timeout=TIMEOUT)
            assert raised.value.errno == errno.ETIMEDOUT


def test_close_waits_until_everything_is_there() -> None:
    with create_tcp_server() as listener:
        for _ in range(3):
            client, server = pair_over(listener)
            server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
            sending = Background(client.send_all, bytes(200_000))
            server.send_all(b"unread by the client")
            got = server.receive_exactly(100_000, timeout=TIMEOUT)

            def close() -> None:
                sending.result()
                client.close(timeout=TIMEOUT)

            closing = Background(close)
            got += b"".join(server.receive_chunks(timeout=TIMEOUT))
            closing.result()
            server.close()
            assert got == bytes(200_000)


def test_abort_is_a_reset() -> None:
    with create_tcp_server() as listener:
        client, server = pair_over(listener)
        with server:
            client.abort()
            with pytest.raises(ConnectionBrokenError):
                server.receive(timeout=TIMEOUT)


# What a review found

def test_31_an_attempt_that_cannot_begin_leaves_the_others_alone(deaf: Any,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    resolved_to(monkeypatch, (socket.AF_INET, deaf), (255, ("nowhere", 1)))
    with pytest.raises(TimeoutError):
        connect_tcp("two.example", 1, timeout=0.3, happy_eyeballs_delay=0.01)


def test_a_file_that_becomes_shorter_while_it_is_sent_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(30_000_000))
    with create_tcp_server() as listener:
        client, server = pair_over(listener)
        with client, server, open(tmp_path / "file", "r+b") as file:
            sending = Background(client.send_file, file)
            until_polling(sending)
            os.truncate(tmp_path / "file", 15_000_000)
            draining = Background(lambda: sum(map(len, server)))
            with pytest.raises(EOFError):
                sending.result()
            with pytest.raises(ConnectionBrokenError):
                client.send_all(b"spliced")
            client.close()
            assert draining.result() == 15_000_000


def test_a_file_that_is_not_what_its_descriptor_has_is_read(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "file.gz", "wb") as packed:
        packed.write(b"content" * 1000)
    with create_tcp_server() as listener:
        client, server = pair_over(listener)
        with client, server, gzip.open(tmp_path / "file.gz") as unpacked:
            assert client.send_file(unpacked, timeout=TIMEOUT) == 7000  # type: ignore[arg-type]
            assert server.receive_exactly(7000, timeout=TIMEOUT) == b"content" * 1000


def test_descriptors_whose_data_is_sent_in_part_spoil_the_stream() -> None:
    one, other = unix_pair()
    with other, one:
        with pytest.raises(netmsg.SendTimeoutError) as raised:
            one.send_fds(bytes(5_000_000), [0], timeout=0.2)
        assert 0 < raised.value.bytes_sent < 5_000_000
        with pytest.raises(ConnectionBrokenError):
            one.send_all(b"spliced")
        data, descriptors = other.receive_fds(10, 1, timeout=TIMEOUT)
        for descriptor in descriptors:
            os.close(descriptor)


def test_out_of_descriptors_a_stream_still_waits() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with create_tcp_server() as listener:
        client, server = pair_over(listener)
        with client, server:
            highest = max(int(name) for name in os.listdir("/proc/self/fd"))
            held = []
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
                while True:
                    try:
                        held.append(os.dup(0))
                    except OSError:
                        break
                with pytest.raises(TimeoutError):
                    server.receive(timeout=0.1)
                waiting = Background(server.receive)
                until_polling(waiting)
                client.send_all(b"here")
                assert waiting.result() == b"here"
                waiting = Background(server.receive)
                until_polling(waiting)
                server.close(timeout=0)
                with pytest.raises(ClosedError):
                    waiting.result()
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                for descriptor in held:
                    os.close(descriptor)


class Pipe(io.RawIOBase):
    """A file that has nothing to read until it is given something."""

    def __init__(self) -> None:
        self.reading = threading.Event()
        self.given = threading.Event()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self.reading.set()
        assert self.given.wait(TIMEOUT)
        buffer[:4] = b"late"
        return 4


def test_close_does_not_wait_for_a_file_that_is_being_read() -> None:
    with create_tcp_server() as listener:
        client, server = pair_over(listener)
        with server, Pipe() as file:
            sending = Background(client.send_file, file)
            assert file.reading.wait(TIMEOUT)
            Background(client.close, timeout=0.3).result()
            assert not file.given.is_set()
            file.given.set()
            with pytest.raises(ClosedError):
                sending.result()


def test_a_local_path_goes_when_tls_fails(tmp_path: Path, tls_contexts: Any) -> None:
    with create_unix_server(tmp_path / "server") as listener:
        connecting_now = Background(connect_unix, tmp_path / "server", local_path=tmp_path / "client",
                                    ssl_context=tls_contexts[1], server_hostname="localhost", timeout=TIMEOUT)
        with listener.accept(timeout=TIMEOUT) as server:
            server.send_all(b"no TLS here")
            with pytest.raises(netmsg.TLSHandshakeError):
                connecting_now.result()
    assert not (tmp_path / "client").exists()


def test_brackets_are_no_part_of_an_address() -> None:
    with create_tcp_server(interface="[::1]") as listener:
        connect_tcp("[::1]", listener.port, local_address=("[::1]", 0), timeout=TIMEOUT).close()


# What was found by attacking it

@pytest.mark.parametrize("timeout", [TIMEOUT, None])
def test_41_a_signal_that_is_handled_does_not_end_the_waiting_for_room(timeout: float | None, tmp_path: Path) -> None:
    handled = threading.Event()
    before = signal.signal(signal.SIGALRM, lambda *_: handled.set())
    try:
        with create_unix_server(tmp_path / "socket", backlog=0) as listener, ExitStack() as stack:
            with pytest.raises(TimeoutError, match="backlog"):
                while True:
                    stack.enter_context(connect_unix(tmp_path / "socket", timeout=0))

            def make_room() -> None:
                assert handled.wait(TIMEOUT)
                listener.accept(timeout=TIMEOUT).close()

            making_room = Background(make_room)
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            client = stack.enter_context(connect_unix(tmp_path / "socket", timeout=timeout))
            making_room.result()
            client.send_all(b"connected", timeout=TIMEOUT)
            with listener.accept(timeout=TIMEOUT) as server:
                assert server.receive(timeout=TIMEOUT) == b"connected"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_33_a_timeout_says_what_was_waited_for(deaf: Any, monkeypatch: pytest.MonkeyPatch, tls_contexts: Any) -> None:
    release = threading.Event()
    monkeypatch.setattr(resolving, "resolve", lambda *arguments: _slow(release, *arguments))
    with pytest.raises(TimeoutError, match=r"^no connection to slow.example port 7 in time: resolving 'slow.example'$"):
        connect_tcp("slow.example", 7, timeout=0.01)
    release.set()
    with socket.socket() as refusing:
        refusing.bind(("127.0.0.1", 0))
        resolved_to(monkeypatch, (socket.AF_INET, refusing.getsockname()), (socket.AF_INET, deaf))
        with pytest.raises(TimeoutError) as raised:
            connect_tcp("two.example", 7, timeout=0.1, happy_eyeballs_delay=0.01)
        assert str(raised.value) == (
            f"no connection to two.example port 7 in time: connecting, no answer from 127.0.0.1 port {deaf[1]}; "
            f"the last failure: 127.0.0.1 port {refusing.getsockname()[1]}: Connection refused")
        assert isinstance(raised.value.__cause__, ConnectionRefusedError)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        resolved_to(monkeypatch, (socket.AF_INET, silent.getsockname()))
        with pytest.raises(TimeoutError, match=r"^no connection to silent.example port 7 in time: TLS"):
            connect_tcp("silent.example", 7, timeout=0.1, ssl_context=tls_contexts[1])


def test_39_connections_may_be_asked_for_again_after_an_interrupt() -> None:
    with create_tcp_server() as listener:
        connections = listener.accept_connections()
        for _ in range(2):
            with pytest.raises(Interrupted), missed_signal():
                next(connections)
            with connect_tcp("127.0.0.1", listener.port, timeout=TIMEOUT), next(connections):
                pass
        listener.close()
        assert list(connections) == []


def test_39_neither_of_two_addresses_starves_the_other() -> None:
    with create_tcp_server() as listener, ExitStack() as clients:
        for host in ["127.0.0.1"] * 10 + ["::1"]:
            clients.enter_context(connect_tcp(host, listener.port, timeout=TIMEOUT))
        hosts = []
        for _ in range(4):
            with listener.accept(timeout=TIMEOUT) as stream:
                hosts.append(stream.local_address[0])
        assert "::1" in hosts


def test_39_many_threads_accept_and_each_client_is_served_once() -> None:
    with create_tcp_server() as listener:
        threads = [Background(lambda: [serve(stream) for stream in listener]) for _ in range(5)]

        def serve(stream: SocketStream) -> int:
            with stream:
                stream.send_all(stream.receive_exactly(2, timeout=TIMEOUT))
                return 1

        for number in range(60):
            with connect_tcp("localhost", listener.port, timeout=TIMEOUT) as client:
                client.send_all(b"%02d" % number)
                assert client.receive_exactly(2, timeout=TIMEOUT) == b"%02d" % number
        listener.close()
        assert sum(sum(thread.result()) for thread in threads) == 60


@pytest.mark.parametrize("family", ["tcp", "unix"])
def test_a_forked_child_keeps_no_copy_of_a_listener(family: str, tmp_path: Path) -> None:
    listener = create_unix_server(tmp_path / "socket") if family == "unix" else create_tcp_server()
    parents, childs = socket.socketpair()

    def child_lives_on() -> bool:
        parents.close()
        childs.sendall(b"closed" if listener.closed and listener.fileno() == -1 else b"open")
        return childs.recv(1) == b""

    child = _fork(child_lives_on)
    childs.close()
    with parents:
        assert parents.recv(10) == b"closed"
        assert family == "tcp" or (tmp_path / "socket").exists()
        connect = connect_tcp if family == "tcp" else connect_unix
        where = ("127.0.0.1", listener.port) if family == "tcp" else (tmp_path / "socket",)
        connect(*where, timeout=TIMEOUT).close()
        listener.close()
        with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
            connect(*where, timeout=TIMEOUT)
        if family == "tcp":
            create_tcp_server(listener.port).close()
    assert os.waitpid(child, 0)[1] == 0


def test_a_program_that_is_started_inherits_no_listener(tmp_path: Path) -> None:
    with create_tcp_server() as listener, create_unix_server(tmp_path / "socket") as unix:
        port = listener.port
        with subprocess.Popen([*PYTHON, "-c", "import sys; print(flush=True); sys.stdin.read()"],
                              close_fds=False, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
            assert program.stdout is not None and program.stdout.readline()
            listener.close()
            unix.close()
            with pytest.raises(ConnectionRefusedError):
                connect_tcp("127.0.0.1", port, timeout=TIMEOUT)
            create_tcp_server(port).close()


def test_a_listener_of_several_processes_spawned_with_sockets_of_their_own() -> None:
    """As the documentation says to do it."""
    with create_tcp_server(reuse_port=True) as listener:
        port = listener.port
        program = f"""
from netmsg import create_tcp_server
with create_tcp_server({port}, reuse_port=True) as listener:
    print("listening", flush=True)
    with listener.accept(timeout=20) as stream:
        stream.send_all(b"from the other")
"""
        with Program("-c", program) as other:
            other.wait_for("listening")
            listener.close()
            with connect_tcp("localhost", port, timeout=TIMEOUT) as client:
                assert client.receive_exactly(14, timeout=TIMEOUT) == b"from the other"
            assert other.finish() == 0 and not other.errors()
