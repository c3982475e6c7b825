"""Streams and datagrams with other people's programs at the other end."""

from __future__ import annotations

import functools
import os
import socket
import ssl
import subprocess
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.streams.tls
import pytest
import trustme
from support.pairs import TIMEOUT, Background

from netmsg import connect_tcp, create_tcp_server, create_udp_socket

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "'typing.ByteString'", DeprecationWarning)  # which Python 3.15 says to aiosmtpd
    from aiosmtpd.controller import Controller

Contexts = tuple[ssl.SSLContext, ssl.SSLContext]


# openssl

@contextmanager
def openssl(*arguments: Any) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["openssl", *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def pem(tmp_path: Path, authority: trustme.CA) -> dict[str, Path]:
    files = {"root": tmp_path / "root.pem"}
    authority.cert_pem.write_to_path(files["root"])
    for name in ("localhost", "client@example.org"):
        files[name] = tmp_path / f"{name}.pem"
        authority.issue_cert(name).private_key_and_cert_chain_pem.write_to_path(files[name])
    return files


@pytest.mark.parametrize("mutual", [False, True], ids=["plain", "mutual"])
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_openssl_s_client(tls_contexts: Contexts, pem: dict[str, Path], mutual: bool, version: str) -> None:
    context = tls_contexts[0]
    if not mutual:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(pem["localhost"])
    certificate = ["-cert", pem["client@example.org"]] if mutual else []
    with create_tcp_server(ssl_context=context) as listener:
        with openssl("s_client", "-connect", f"localhost:{listener.port}", "-CAfile", pem["root"], "-quiet",
                     "-verify_return_error", "-verify_hostname", "localhost", version, *certificate) as client:
            assert client.stdin is not None and client.stdout is not None
            with listener.accept(timeout=TIMEOUT) as stream:
                client.stdin.write(b"hello from openssl\n")
                client.stdin.flush()
                assert stream.receive_until(b"\n", timeout=TIMEOUT) == b"hello from openssl"
                assert stream.tls is not None and (stream.tls.peer_certificate is not None) is mutual
                stream.send_all(b"hello from netmsg\n" * 10_000)
            output = client.stdout.read()
            assert output.count(b"hello from netmsg\n") == 10_000


@pytest.mark.parametrize("mutual", [False, True], ids=["plain", "mutual"])
def test_openssl_s_server(tls_contexts: Contexts, pem: dict[str, Path], mutual: bool) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    verify = ["-Verify", "1", "-CAfile", pem["root"], "-verify_return_error"] if mutual else []
    with openssl("s_server", "-accept", f"127.0.0.1:{port}", "-cert", pem["localhost"], "-rev", *verify) as server:
        assert server.stdout is not None
        while b"ACCEPT" not in server.stdout.readline():
            pass
        with connect_tcp("127.0.0.1", port, ssl_context=tls_contexts[1], server_hostname="localhost",
                         timeout=TIMEOUT) as stream:
            stream.send_all(b"stressed\n")
            assert stream.receive_until(b"\n", timeout=TIMEOUT) == b"desserts"


# A mail server

class Mails:
    def __init__(self) -> None:
        self.received: list[bytes] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        assert session.ssl is not None
        self.received.append(envelope.content)
        return "250 taken"


def test_69_a_client_of_aiosmtpd(tls_contexts: Contexts, pem: dict[str, Path]) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pem["localhost"])
    mails = Mails()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    controller = Controller(mails, hostname="127.0.0.1", port=port, tls_context=context, require_starttls=True)
    controller.start()
    try:
        with connect_tcp("127.0.0.1", port, ssl_context=tls_contexts[1], server_hostname="localhost",
                         autostart_tls=False, timeout=TIMEOUT) as stream:
            def say(line: bytes, code: bytes) -> None:
                if line:
                    stream.send_all(line + b"\r\n")
                while (reply := stream.receive_until(b"\r\n", timeout=TIMEOUT))[3:4] == b"-":
                    pass
                assert reply.startswith(code), reply

            say(b"", b"220")
            say(b"EHLO me", b"250")
            say(b"STARTTLS", b"220")
            stream.start_tls(timeout=TIMEOUT)
            for line, code in ((b"EHLO me", b"250"), (b"MAIL FROM:<a@example.org>", b"250"),
                               (b"RCPT TO:<b@example.org>", b"250"), (b"DATA", b"354"), (b"Hello\r\n.", b"250"),
                               (b"QUIT", b"221")):
                say(line, code)
    finally:
        controller.stop()
    assert mails.received == [b"Hello\r\n"]


# AnyIO

def in_anyio(function: Callable[..., Any], *arguments: Any) -> Background:
    return Background(functools.partial(anyio.run, function, *arguments))


@pytest.mark.parametrize("encrypted", [False, True], ids=["tcp", "tls"])
def test_an_anyio_client(tls_contexts: Contexts, encrypted: bool) -> None:
    data = os.urandom(1 << 20)

    async def talk(port: int) -> bytes:
        options: Any = {"tls_hostname": "localhost", "ssl_context": tls_contexts[1]} if encrypted else {}
        stream: Any = await anyio.connect_tcp("127.0.0.1", port, **options)
        async with stream:
            await stream.send(data)
            if not encrypted:
                await stream.send_eof()
            got = b""
            async for chunk in stream:
                got += chunk
            return got

    with create_tcp_server(ssl_context=tls_contexts[0] if encrypted else None) as listener:
        client = in_anyio(talk, listener.port)
        with listener.accept(timeout=TIMEOUT) as stream:
            assert stream.receive_exactly(len(data), timeout=TIMEOUT) == data
            stream.send_all(data[::-1], timeout=TIMEOUT)
        assert client.result() == data[::-1]


@pytest.mark.parametrize("encrypted", [False, True], ids=["tcp", "tls"])
def test_an_anyio_server(tls_contexts: Contexts, encrypted: bool) -> None:
    data = os.urandom(1 << 20)
    ports: list[int] = []
    listening = threading.Event()

    async def serve() -> None:
        listener: Any = await anyio.create_tcp_listener(local_host="127.0.0.1")
        ports.append(listener.extra(anyio.abc.SocketAttribute.local_port))
        if encrypted:
            listener = anyio.streams.tls.TLSListener(listener, tls_contexts[0])
        async with listener, anyio.create_task_group() as group:
            async def handle(stream: Any) -> None:
                async with stream:
                    count = 0
                    while count < len(data):
                        chunk = await stream.receive()
                        count += len(chunk)
                        await stream.send(chunk)
                group.cancel_scope.cancel()

            listening.set()
            await listener.serve(handle, group)

    server = in_anyio(serve)
    assert listening.wait(TIMEOUT)
    with connect_tcp("127.0.0.1", ports[0], ssl_context=tls_contexts[1] if encrypted else None, timeout=TIMEOUT,
                     server_hostname="localhost" if encrypted else None) as stream:
        sending = Background(stream.send_all, data)
        assert stream.receive_exactly(len(data), timeout=TIMEOUT) == data
        sending.result()
        assert stream.receive(timeout=TIMEOUT) == b""
    server.result()


def test_anyio_datagrams() -> None:
    async def ask(port: int) -> bytes:
        async with await anyio.create_connected_udp_socket("127.0.0.1", port) as sock:
            await sock.send(b"hello")
            return await sock.receive()

    with create_udp_socket(interface="127.0.0.1") as sock:
        client = in_anyio(ask, sock.local_address[1])
        data, address = sock.receive(timeout=TIMEOUT)
        sock.send_to(data.upper(), address)
        assert client.result() == b"HELLO"


# The standard library

def test_a_file_sent_by_the_standard_library(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(os.urandom(3_000_000))
    with create_tcp_server() as listener, open(tmp_path / "file", "rb") as file:
        with socket.create_connection(("127.0.0.1", listener.port)) as client, listener.accept() as stream:
            sending = Background(client.sendfile, file)
            assert stream.receive_exactly(3_000_000, timeout=TIMEOUT) == (tmp_path / "file").read_bytes()
            sending.result()


def test_a_tls_socket_of_the_standard_library(tls_contexts: Contexts) -> None:
    with create_tcp_server(ssl_context=tls_contexts[0]) as listener:
        def talk() -> bytes:
            with socket.create_connection(("127.0.0.1", listener.port)) as raw:
                with tls_contexts[1].wrap_socket(raw, server_hostname="localhost") as client:
                    client.sendall(b"x" * 100_000)
                    got = client.recv(100)
                    client.unwrap()
                    return got

        client = Background(talk)
        with listener.accept(timeout=TIMEOUT) as stream:
            assert stream.receive_exactly(100_000, timeout=TIMEOUT) == b"x" * 100_000
            stream.send_all(b"done")
            assert stream.receive(timeout=TIMEOUT) == b""
        assert client.result() == b"done"
