"""TLS and STARTTLS on streams. The numbers are those of the list of behaviours."""

from __future__ import annotations

import datetime
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
from support.blocking import until_asleep
from support.pairs import TIMEOUT, Background
from support.streams import connect, secure

from netmsg import (
    ClosedError, ConnectionBrokenError, Listener, LocalProtocolError, RemoteProtocolError, SocketStream,
    TLSHandshakeError, connect_tcp, create_tcp_server, memory_stream_pair,
)
from netmsg.transports.encrypted import TLSTransport

Contexts = tuple[ssl.SSLContext, ssl.SSLContext]


def server_context(authority: trustme.CA, *names: str, **options: Any) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(*(names or ("localhost", "127.0.0.1")), **options).configure_cert(context)
    return context


def client_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture
def contexts(authority: trustme.CA) -> Contexts:
    """Without certificates for clients."""
    return server_context(authority), client_context(authority)


@contextmanager
def tls_pair(contexts: Contexts, server: dict[str, Any] | None = None,
             client: dict[str, Any] | None = None) -> Iterator[tuple[SocketStream, SocketStream]]:
    with create_tcp_server(ssl_context=contexts[0], **(server or {})) as listener:
        shaking = Background(accept, listener)
        with connect_tcp("127.0.0.1", listener.port, ssl_context=contexts[1], timeout=TIMEOUT, **(client or {})) as one:
            with shaking.result() as other:
                yield one, other
                Background(one.close)


def accept(listener: Listener) -> SocketStream:
    stream = listener.accept(timeout=TIMEOUT)
    try:
        stream.do_handshake(timeout=TIMEOUT)
    except BaseException:
        stream.close()
        raise
    return stream


# 52-54: who is there

@pytest.mark.parametrize("what", ["untrusted", "wrong name", "expired"])
def test_52_a_certificate_that_does_not_hold_is_refused_and_the_server_goes_on(authority: trustme.CA,
                                                                               what: str) -> None:
    good = client_context(authority)
    if what == "untrusted":
        server, wrong = server_context(authority), client_context(trustme.CA())
    elif what == "wrong name":
        server, wrong = server_context(authority, "example.org"), good
    else:
        past = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=3)
        server, wrong = server_context(authority, "127.0.0.1", not_after=past), good
    with create_tcp_server(ssl_context=server) as listener:
        shaking = Background(accept, listener)
        with pytest.raises(TLSHandshakeError) as raised:
            connect_tcp("127.0.0.1", listener.port, ssl_context=wrong, timeout=TIMEOUT)
        assert isinstance(raised.value.__cause__, ssl.SSLCertVerificationError)
        assert isinstance(raised.value, ssl.SSLError)
        with pytest.raises(TLSHandshakeError):
            shaking.result()
        if what != "expired":
            shaking = Background(accept, listener)
            name = "example.org" if what == "wrong name" else "localhost"
            with connect_tcp("127.0.0.1", listener.port, ssl_context=good, server_hostname=name, timeout=TIMEOUT):
                shaking.result().close()


def test_52_a_context_that_checks_names_needs_one() -> None:
    one, other = memory_stream_pair()
    with one, other:
        with pytest.raises(ValueError):
            one.start_tls(True, server_side=False)
        assert not one.closed


def test_53_mutual_tls_shows_the_peers_certificate(tls_contexts: Contexts) -> None:
    with tls_pair(tls_contexts) as (client, server):
        assert client.tls is not None and client.tls.peer_certificate is not None
        assert ("DNS", "localhost") in client.tls.peer_certificate["subjectAltName"]
        assert server.tls is not None and server.tls.peer_certificate is not None
        assert server.tls.peer_certificate_der
        assert client.do_handshake() == client.tls


def test_53_a_client_without_a_certificate_learns_of_it_at_its_first_read(tls_contexts: Contexts,
                                                                          authority: trustme.CA) -> None:
    with create_tcp_server(ssl_context=tls_contexts[0]) as listener:
        shaking = Background(accept, listener)
        with connect_tcp("127.0.0.1", listener.port, ssl_context=client_context(authority), timeout=TIMEOUT) as client:
            with pytest.raises(TLSHandshakeError):
                shaking.result()
            with pytest.raises(TLSHandshakeError):
                client.receive(timeout=TIMEOUT)


def test_54_alpn_version_and_cipher_are_told(authority: trustme.CA) -> None:
    contexts = server_context(authority), client_context(authority)
    contexts[0].set_alpn_protocols(["smtp", "line"])
    contexts[1].set_alpn_protocols(["line"])
    with tls_pair(contexts) as (client, server):
        for end in (client, server):
            assert end.tls is not None and end.tls.alpn_protocol == "line"
            assert end.tls.version == "TLSv1.3" and end.tls.cipher is not None and end.tls.cipher[2] >= 128
        assert client.tls is not None and client.tls.server_hostname == "127.0.0.1"


def test_before_the_handshake_a_check_on_tls_fails_closed(contexts: Contexts) -> None:
    with create_tcp_server(ssl_context=contexts[0]) as listener:
        with connect_tcp("127.0.0.1", listener.port) as plain, listener.accept(timeout=TIMEOUT) as server:
            assert plain.tls is None
            with pytest.raises(LocalProtocolError):
                server.tls
            with pytest.raises(LocalProtocolError):
                plain.do_handshake()


# 56: clients that do not go through with it

def test_56_dropping_out_of_a_handshake_harms_nobody(contexts: Contexts) -> None:
    with create_tcp_server(ssl_context=contexts[0]) as listener:
        with socket.create_connection(("127.0.0.1", listener.port)) as dropping:
            dropping.sendall(b"\x16\x03\x01\x02\x00\x01")
            shaking = Background(accept, listener)
            shaking.join(0.05)
        with pytest.raises(TLSHandshakeError):
            shaking.result()
        shaking = Background(accept, listener)
        with connect_tcp("127.0.0.1", listener.port, ssl_context=contexts[1], timeout=TIMEOUT):
            shaking.result().close()


def test_56_a_silent_client_is_gone_at_the_handshake_timeout(contexts: Contexts) -> None:
    with create_tcp_server(ssl_context=contexts[0], handshake_timeout=0.3) as listener:
        with socket.create_connection(("127.0.0.1", listener.port)) as silent:
            stream = listener.accept(timeout=TIMEOUT)
            with pytest.raises(TimeoutError):
                stream.receive(timeout=0.05)
            assert not stream.closed
            started = time.monotonic()
            with pytest.raises(TLSHandshakeError) as raised:
                stream.receive()
            assert time.monotonic() - started < 2 and isinstance(raised.value.__cause__, TimeoutError)
            assert stream.closed
            silent.settimeout(TIMEOUT)
            assert silent.recv(100) == b""


def test_56_a_slow_handshake_may_go_on_at_the_next_call(contexts: Contexts) -> None:
    with create_tcp_server(ssl_context=contexts[0]) as listener:
        raw = socket.create_connection(("127.0.0.1", listener.port))
        client = SocketStream.from_socket(raw)
        with listener.accept(timeout=TIMEOUT) as server:
            for call in (server.receive, server.do_handshake):
                with pytest.raises(TimeoutError):
                    call(timeout=0.02)
            with pytest.raises(TimeoutError):
                server.send_all(b"x", timeout=0.02)
            upgrading = Background(client.start_tls, contexts[1], server_side=False, server_hostname="localhost")
            server.send_all(b"welcome", timeout=TIMEOUT)
            upgrading.result()
            assert client.receive_exactly(7, timeout=TIMEOUT) == b"welcome"
            Background(client.close)


# 57: as an HTTPS proxy wants it

def test_57_tls_inside_of_tls_shows_the_innermost(authority: trustme.CA, contexts: Contexts) -> None:
    inner = server_context(authority, "inner.example")
    with tls_pair(contexts) as (client, server):
        outermost = client.tls
        upgrading = Background(server.start_tls, inner, timeout=TIMEOUT)
        client.start_tls(server_hostname="inner.example", timeout=TIMEOUT)
        upgrading.result()
        assert client.tls is not None and client.tls != outermost
        assert client.tls.server_hostname == "inner.example"
        client.send_all(b"x" * 200_000, timeout=TIMEOUT)
        assert server.receive_exactly(200_000, timeout=TIMEOUT) == b"x" * 200_000
        client.send_eof(timeout=TIMEOUT)
        assert server.receive(timeout=TIMEOUT) == b""
        server.send_all(b"still", timeout=TIMEOUT)
        assert client.receive_exactly(5, timeout=TIMEOUT) == b"still"


# 58-61: the end of a connection

@pytest.mark.parametrize("server_strict", [True, False])
@pytest.mark.parametrize("client_strict", [True, False])
def test_58_a_truncation_is_told_from_a_clean_end_unless_not_wanted(contexts: Contexts, server_strict: bool,
                                                                    client_strict: bool) -> None:
    with tls_pair(contexts, {"tls_standard_compatible": server_strict},
                  {"tls_standard_compatible": client_strict}) as (client, server):
        for sender, receiver, strict in ((client, server, server_strict), (server, client, client_strict)):
            sender.send_all(b"data")
            cut(sender)
            assert receiver.receive_exactly(4, timeout=TIMEOUT) == b"data"
            for _ in range(2):
                if strict:
                    with pytest.raises(ConnectionBrokenError):
                        receiver.receive(timeout=TIMEOUT)
                else:
                    assert receiver.receive(timeout=TIMEOUT) == b""


def cut(stream: SocketStream) -> None:
    """End the TCP connection in this direction behind the back of TLS."""
    with socket.socket(fileno=os.dup(stream.fileno())) as raw:
        raw.shutdown(socket.SHUT_WR)


def test_59_after_the_peers_goodbye_sending_still_works(contexts: Contexts) -> None:
    with tls_pair(contexts) as (client, server):
        client.send_eof()
        assert server.receive(timeout=TIMEOUT) == b""
        server.send_all(b"x" * 100_000, timeout=TIMEOUT)
        assert client.receive_exactly(100_000, timeout=TIMEOUT) == b"x" * 100_000


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_60_sending_and_closing_without_reading_loses_nothing(authority: trustme.CA, version: ssl.TLSVersion) -> None:
    contexts = server_context(authority), client_context(authority)
    contexts[1].maximum_version = version
    data = os.urandom(100_000)
    with create_tcp_server(ssl_context=contexts[0]) as listener:
        for _ in range(20):
            serving = Background(receive_everything, listener)
            client = connect_tcp("127.0.0.1", listener.port, ssl_context=contexts[1], timeout=TIMEOUT)
            client.send_all(data)
            client.close()
            assert serving.result() == data


def receive_everything(listener: Listener) -> bytes:
    with listener.accept(timeout=TIMEOUT) as stream:
        threading.Event().wait(0.01)
        return b"".join(stream.receive_chunks(timeout=TIMEOUT))


def test_61_closing_against_a_silent_peer_keeps_its_timeout(contexts: Contexts) -> None:
    with tls_pair(contexts) as (client, server):
        server.send_all(b"x")
        client.send_all(b"never read")
        started = time.monotonic()
        client.close(timeout=0.3)
        assert time.monotonic() - started < 1


def test_61_closing_in_the_middle_of_a_send_takes_no_longer(contexts: Contexts) -> None:
    with tls_pair(contexts) as (client, server):
        sending = Background(client.send_all, bytes(32 << 20))
        sending.join(0.1)
        reading = Background(lambda: [chunk for chunk in server])
        started = time.monotonic()
        client.close(timeout=30)
        assert time.monotonic() - started < 10
        with pytest.raises(ClosedError):
            sending.result()
        with pytest.raises(ConnectionBrokenError):  # the message was cut short, and the other end notices
            reading.result()


def test_61_where_nothing_can_be_lost_closing_returns_at_once(contexts: Contexts) -> None:
    with tls_pair(contexts) as (client, server):
        started = time.monotonic()
        client.close(timeout=30)
        assert server.receive(timeout=TIMEOUT) == b""
        server.send_all(b"into the void")
        server.close(timeout=30)
        assert time.monotonic() - started < 5


# 62-63: names and mistakes

@pytest.mark.parametrize("names, host, good", [
    (("127.0.0.1",), "127.0.0.1", True), (("localhost",), "127.0.0.1", False), (("::1",), "::1", True),
    (("::1",), "[::1]", True), (("localhost",), "localhost", True),
])
def test_62_addresses_are_checked_against_addresses(authority: trustme.CA, names: tuple[str, ...], host: str,
                                                    good: bool) -> None:
    with create_tcp_server(ssl_context=server_context(authority, *names)) as listener:
        shaking = Background(accept, listener)
        context = client_context(authority)
        if good:
            with connect_tcp(host, listener.port, ssl_context=context, timeout=TIMEOUT), shaking.result():
                pass
        else:
            with pytest.raises(TLSHandshakeError):
                connect_tcp(host, listener.port, ssl_context=context, timeout=TIMEOUT)
            with pytest.raises(TLSHandshakeError):
                shaking.result()


def test_63_a_tls_client_on_a_plain_port(contexts: Contexts) -> None:
    with create_tcp_server() as listener:
        connecting = Background(connect_tcp, "127.0.0.1", listener.port, ssl_context=contexts[1], timeout=TIMEOUT)
        with listener.accept(timeout=TIMEOUT) as server:
            assert server.receive(timeout=TIMEOUT)[:1] == b"\x16"
            server.send_all(b"220 what is this?\r\n")
            with pytest.raises(TLSHandshakeError):
                connecting.result()


def test_63_a_plain_client_on_a_tls_port(contexts: Contexts) -> None:
    with create_tcp_server(ssl_context=contexts[0]) as listener:
        with connect_tcp("127.0.0.1", listener.port) as client:
            client.send_all(b"GET / HTTP/1.1\r\n\r\n")
            with pytest.raises(TLSHandshakeError):
                accept(listener)
            with pytest.raises((ConnectionBrokenError, EOFError)):
                while client.receive_exactly(1, timeout=TIMEOUT):
                    pass


# 64-68: STARTTLS

@contextmanager
def plain_pair(contexts: Contexts) -> Iterator[tuple[SocketStream, SocketStream]]:
    """Both know their contexts, and have not used them yet."""
    with create_tcp_server(ssl_context=contexts[0], autostart_tls=False) as listener:
        with connect_tcp("localhost", listener.port, ssl_context=contexts[1], autostart_tls=False) as client:
            with listener.accept(timeout=TIMEOUT) as server:
                yield client, server
                Background(client.close)


def test_64_a_line_in_the_clear_and_the_rest_encrypted(contexts: Contexts) -> None:
    with plain_pair(contexts) as (client, server):
        def serve() -> None:
            assert server.receive_until(b"\r\n", timeout=TIMEOUT) == b"STARTTLS"
            server.send_all(b"220 go ahead\r\n")
            server.start_tls(timeout=TIMEOUT)
            assert server.receive_until(b"\r\n", timeout=TIMEOUT) == b"secret"
            assert server.receive_exactly(4, timeout=TIMEOUT) == b"four"
            server.send_all(b"250 ok\r\n")

        serving = Background(serve)
        client.send_all(b"STARTTLS\r\n")
        assert client.receive_until(b"\r\n", timeout=TIMEOUT) == b"220 go ahead"
        client.start_tls(timeout=TIMEOUT)
        client.send_all(b"secret\r\nfour")
        assert client.receive_until(b"\r\n", timeout=TIMEOUT) == b"250 ok"
        serving.result()
        assert client.tls is not None and client.tls.server_hostname == "localhost"


def test_65_an_iterator_begun_before_goes_on_after(contexts: Contexts) -> None:
    with plain_pair(contexts) as (client, server):
        def serve() -> list[bytes]:
            got = []
            for line in server.receive_delimited_chunks(b"\n", 100, timeout=TIMEOUT):
                got.append(line)
                if line == b"STARTTLS":
                    server.start_tls(timeout=TIMEOUT)
            return got

        serving = Background(serve)
        client.send_all(b"DUMMY\n")
        client.send_all(b"STARTTLS\n")
        client.start_tls(timeout=TIMEOUT)
        client.send_all(b"ENCRYPTED\n")
        client.send_eof()
        assert serving.result() == [b"DUMMY", b"STARTTLS", b"ENCRYPTED"]


@pytest.mark.parametrize("how", ["receive_until", "makefile", "text makefile", "pair makefile", "closed makefile",
                                 "makefile that is gone"])
def test_66_injected_plaintext_is_never_delivered(contexts: Contexts, how: str) -> None:
    with plain_pair(contexts) as (client, server):
        server.send_all(b"220 go ahead\r\nINJECTED\r\n")
        if how == "receive_until":
            assert client.receive_until(b"\r\n", timeout=TIMEOUT) == b"220 go ahead"
        else:
            mode = {"text makefile": "r", "pair makefile": "rwb"}.get(how, "rb")
            file = client.makefile(mode, timeout=TIMEOUT)
            assert file.readline()
            if how == "closed makefile":
                file.close()
            elif how == "makefile that is gone":
                del file
        with pytest.raises(RemoteProtocolError):
            client.start_tls(timeout=TIMEOUT)
        assert client.closed
        with pytest.raises(ClosedError):
            client.receive()


@pytest.mark.parametrize("how", ["receive_until", "makefile"])
def test_66_what_a_client_injects_goes_into_the_handshake_and_fails_it(contexts: Contexts, how: str) -> None:
    with plain_pair(contexts) as (client, server):
        client.send_all(b"STARTTLS\r\nMAIL FROM:<mallory>\r\n")
        if how == "makefile":
            assert server.makefile(timeout=TIMEOUT).readline() == b"STARTTLS\r\n"
        else:
            assert server.receive_until(b"\r\n", timeout=TIMEOUT) == b"STARTTLS"
        with pytest.raises(TLSHandshakeError):
            server.start_tls(timeout=TIMEOUT)
        assert server.closed


@pytest.mark.parametrize("mode", ["rb", "r", "rwb"])
def test_66_who_is_in_the_middle_of_a_line_is_refused_and_the_upgrade_goes_on(contexts: Contexts, mode: str) -> None:
    with plain_pair(contexts) as (client, server):
        file = client.makefile(mode)
        reading = Background(file.readline)
        until_asleep(reading)
        upgrading = Background(client.start_tls, timeout=TIMEOUT / 2)
        until_asleep(upgrading)
        server.send_all(b"part of a line")
        with pytest.raises(LocalProtocolError):
            reading.result()
        server.start_tls(timeout=TIMEOUT)
        upgrading.result()
        server.send_all(b"encrypted\n")
        assert file.readline() in (b"encrypted\n", "encrypted\n")


def test_an_upgrade_waits_no_longer_than_it_may_for_who_reads_a_file(contexts: Contexts) -> None:
    with plain_pair(contexts) as (client, server):
        reading = Background(client.makefile("rb").readline)
        until_asleep(reading)
        with pytest.raises(TimeoutError):
            client.start_tls(timeout=0.05)
        server.send_all(b"a line\n")
        assert reading.result() == b"a line\n"


def test_what_was_not_flushed_hinders_no_upgrade_for_ever(contexts: Contexts) -> None:
    with plain_pair(contexts) as (client, server):
        file = client.makefile("rw")
        file.buffer.write(b"x" * 8000)
        file.write("y" * 8000)
        upgrading = Background(client.start_tls, timeout=TIMEOUT)
        with pytest.raises(LocalProtocolError):
            upgrading.result()


@pytest.mark.parametrize("how", ["receive_until", "makefile"])
def test_67_a_client_hello_pipelined_behind_the_line_works(contexts: Contexts, how: str) -> None:
    with plain_pair(contexts) as (client, server):
        client.send_all(b"STARTTLS\r\n")
        upgrading = Background(client.start_tls, timeout=TIMEOUT)
        until_readable_twice(server)
        if how == "makefile":
            assert server.makefile(timeout=TIMEOUT).readline() == b"STARTTLS\r\n"
        else:
            assert server.receive_until(b"\r\n", timeout=TIMEOUT) == b"STARTTLS"
        server.start_tls(timeout=TIMEOUT)
        upgrading.result()
        server.send_all(b"encrypted")
        assert client.receive_exactly(9, timeout=TIMEOUT) == b"encrypted"


def until_readable_twice(stream: SocketStream) -> None:
    """Until more has come than the first line."""
    with socket.socket(fileno=os.dup(stream.fileno())) as raw:
        deadline = time.monotonic() + TIMEOUT
        while time.monotonic() < deadline:
            try:
                if len(raw.recv(1000, socket.MSG_PEEK | socket.MSG_DONTWAIT)) > 100:
                    return
            except BlockingIOError:
                pass
            threading.Event().wait(0.005)
    raise TimeoutError


def test_68_a_failed_upgrade_closes_the_stream_and_says_why(authority: trustme.CA, contexts: Contexts) -> None:
    with plain_pair((contexts[0], client_context(trustme.CA()))) as (client, server):
        upgrading = Background(server.start_tls, timeout=TIMEOUT)
        with pytest.raises(TLSHandshakeError) as raised:
            client.start_tls(timeout=TIMEOUT)
        assert isinstance(raised.value.__cause__, ssl.SSLCertVerificationError)
        with pytest.raises(TLSHandshakeError):
            upgrading.result()
        for end in (client, server):
            assert end.closed
            with pytest.raises(ClosedError) as closed:
                end.receive()
            assert isinstance(closed.value.__cause__, TLSHandshakeError)


def test_68_an_upgrade_that_runs_out_of_time_closes_too(contexts: Contexts) -> None:
    with plain_pair(contexts) as (client, server):
        with pytest.raises(TimeoutError):
            client.start_tls(timeout=0.1)
        assert client.closed


@pytest.mark.parametrize("arguments, error", [
    ({}, ValueError), ({"server_side": True}, ValueError), ({"ssl_context": "yes", "server_side": False}, TypeError),
    ({"ssl_context": True, "server_side": True}, TypeError), ({"ssl_context": True, "server_side": False}, ValueError),
])
def test_wrong_arguments_of_an_upgrade_leave_the_stream_as_it_is(arguments: dict[str, Any],
                                                                 error: type[Exception]) -> None:
    one, other = memory_stream_pair()
    with one, other:
        with pytest.raises(error):
            one.start_tls(**arguments)
        one.send_all(b"x")
        assert other.receive(timeout=TIMEOUT) == b"x"


def test_an_upgrade_waits_for_a_send_and_a_receive_of_other_threads(contexts: Contexts) -> None:
    with plain_pair(contexts) as (client, server):
        receiving = Background(client.receive_exactly, 5)
        receiving.join(0.02)
        upgrading = Background(client.start_tls, timeout=TIMEOUT)
        upgrading.join(0.05)
        server.send_all(b"clear")
        assert receiving.result() == b"clear"
        server.start_tls(timeout=TIMEOUT)
        upgrading.result()


def test_a_send_beside_an_upgrade_waits_for_it_and_no_longer(contexts: Contexts) -> None:
    contexts[0].num_tickets = 0  # so that nothing else comes to wake it
    with plain_pair(contexts) as (client, server):
        upgrading = Background(client.start_tls, timeout=TIMEOUT)
        upgrading.join(0.05)
        sending = Background(client.send_all, b"hello")
        server.start_tls(timeout=TIMEOUT)
        assert server.receive_exactly(5, timeout=TIMEOUT) == b"hello"
        upgrading.result()
        sending.result()


def test_the_handshake_timeout_is_for_the_first_handshake(authority: trustme.CA, contexts: Contexts) -> None:
    with tls_pair(contexts, {"handshake_timeout": 0.3}) as (client, server):
        threading.Event().wait(0.35)
        upgrading = Background(server.start_tls, contexts[0], timeout=TIMEOUT)
        client.start_tls(contexts[1], server_hostname="localhost", timeout=TIMEOUT)
        upgrading.result()


# makefile

def test_files_over_a_stream(contexts: Contexts) -> None:
    import csv
    import json
    import pickle

    with tls_pair(contexts) as (client, server):
        with client.makefile("w", newline="") as file:
            csv.writer(file).writerows([["a", "ü"], ["1", "2"]])
            file.write(json.dumps({"k": 1}) + "\n")
        with client.makefile("wb") as binary:
            pickle.dump({"answer": 42}, binary)
        assert not client.closed
        client.send_eof()
        with server.makefile("r", newline="", timeout=TIMEOUT) as file:
            rows = csv.reader(file)
            assert [next(rows), next(rows)] == [["a", "ü"], ["1", "2"]]
            assert json.loads(file.readline()) == {"k": 1}
        with server.makefile(timeout=TIMEOUT) as binary:
            assert pickle.load(binary) == {"answer": 42}
            assert binary.read() == b""
        for wrong in ({"mode": "x"}, {"mode": "rbb"}, {"mode": "rb", "encoding": "utf-8"},
                      {"mode": "r", "buffering": 0}, {"timeout": -1}):
            with pytest.raises(ValueError):
                server.makefile(**wrong)
        with pytest.raises(TypeError):
            server.makefile(5)  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["rb", "r", "rwb", "rw"])
def test_a_file_for_reading_and_writing(mode: str) -> None:
    one, other = memory_stream_pair()
    with one, other:
        other.send_all(b"line 1\nline 2\n")
        file = one.makefile(mode, timeout=TIMEOUT)
        line: Any = b"line 1\n" if "b" in mode else "line 1\n"
        assert file.readline() == line
        if "w" in mode:
            file.write(line)
            file.flush()
            assert other.receive_until(b"\n", timeout=TIMEOUT) == b"line 1"
        assert file.readline() == line[:5] + (b"2\n" if "b" in mode else "2\n")
        file.close()
        with pytest.raises(ValueError):
            file.readline()
        assert not one.closed


def test_a_file_raises_what_the_stream_does() -> None:
    one, other = memory_stream_pair()
    with other:
        file = one.makefile(timeout=0.02)
        with pytest.raises(TimeoutError):
            file.readline()
        one.close()
        with pytest.raises(ClosedError):
            file.readline()


@pytest.mark.parametrize("buffer_size", [1, 7, 64, 1000])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_an_upgrade_has_sent_the_end_of_its_handshake(authority: trustme.CA, contexts: Contexts,
                                                      version: ssl.TLSVersion, buffer_size: int) -> None:
    client_side = client_context(authority)
    client_side.minimum_version = client_side.maximum_version = version
    client, server = memory_stream_pair(buffer_size=buffer_size)
    upgrading = Background(server.start_tls, contexts[0], server_side=True, timeout=TIMEOUT)
    client.start_tls(client_side, server_side=False, server_hostname="localhost", timeout=TIMEOUT)
    upgrading.result()  # though neither end does anything more
    sending = Background(client.send_all, b"first", timeout=TIMEOUT)
    assert server.receive_exactly(5, timeout=TIMEOUT) == b"first"
    sending.result()
    client.abort()
    server.abort()


@pytest.mark.parametrize("where", ["connecting", "upgrading"])
def test_close_waits_for_no_goodbye_where_none_is_expected(contexts: Contexts, where: str) -> None:
    with create_tcp_server(interface="127.0.0.1", ssl_context=contexts[0], autostart_tls=False) as listener:
        client = connect_tcp("127.0.0.1", listener.port, ssl_context=contexts[1], server_hostname="localhost",
                             autostart_tls=False, tls_standard_compatible=where != "connecting")
        with listener.accept(timeout=TIMEOUT) as server:
            upgrading = Background(server.start_tls, timeout=TIMEOUT)
            client.start_tls(tls_standard_compatible=where != "upgrading", timeout=TIMEOUT)
            upgrading.result()
            client.send_all(b"request")
            assert server.receive_exactly(7, timeout=TIMEOUT) == b"request"
            server.send_all(b"answer")
            assert client.receive_exactly(6, timeout=TIMEOUT) == b"answer"
            Background(client.close, timeout=None).result()  # though the server says nothing more
            assert server.receive(timeout=TIMEOUT) == b""


def test_a_flood_of_records_without_plaintext_inside_of_tls_leaves_nobody_asleep(contexts: Contexts,
                                                                                 tmp_path: Path) -> None:
    """Who takes a piece of them at a time comes back for the next, which no event tells of: it is inside already."""
    client, server = connect("tls-tcp", tmp_path, contexts)
    with client, server:
        contexts[0].num_tickets = 900
        secure(client, server, contexts)
        server.send_all(b"hello", timeout=TIMEOUT)
        assert client.receive_exactly(5, timeout=TIMEOUT) == b"hello"
        Background(client.close)


def test_who_cannot_send_any_more_waits_for_what_comes(contexts: Contexts, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of a record, for which there is nobody any more, is not tried again all the time."""
    one, other = socket.socketpair()
    with one.dup() as twin, SocketStream.from_socket(one) as client, SocketStream.from_socket(other) as server:
        secure(client, server, contexts)
        twin.shutdown(socket.SHUT_RD)
        with pytest.raises(ConnectionBrokenError):
            while True:
                server.send_all(b"for nobody", timeout=TIMEOUT)
        tries = 0
        receive = TLSTransport.receive

        def counting_receive(transport: TLSTransport, max_bytes: int, /) -> bytes:
            nonlocal tries
            tries += 1
            return receive(transport, max_bytes)

        monkeypatch.setattr(TLSTransport, "receive", counting_receive)
        with pytest.raises(TimeoutError):
            server.receive(timeout=0.1)
        assert tries < 10
        client.send_all(b"still here", timeout=TIMEOUT)
        assert server.receive(timeout=TIMEOUT) == b"still here"
        client.abort()
