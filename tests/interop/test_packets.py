"""Packets and servers with other people's programs at the other end."""

from __future__ import annotations

import asyncio
import os
import pty
import select
import shutil
import socketserver
import ssl
import subprocess
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from easynetwork.clients import TCPNetworkClient, UDPNetworkClient
from easynetwork.protocol import DatagramProtocol, StreamProtocol
from easynetwork.serializers import JSONSerializer, StringLineSerializer
from easynetwork.servers import StandaloneTCPNetworkServer
from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler
from support.pairs import TIMEOUT, Background

from netmsg import (
    Codec, DatagramPeer, DatagramServer, JSONCodec, LineCodec, PacketClient, PacketConnection, PacketServer,
    StreamServer, create_tcp_server, create_udp_socket, create_unix_server,
)

Contexts = tuple[ssl.SSLContext, ssl.SSLContext]

FORMATS: dict[str, tuple[Codec[Any, Any], Any, list[Any]]] = {
    "lines": (LineCodec(), StringLineSerializer, ["hello", "wörld", "x" * 20_000]),
    "json": (JSONCodec(), lambda: JSONSerializer(use_lines=True),
             [{"a": [1, None, "ü"]}, [], "text", {"x": "y" * 20_000}]),
}


@pytest.fixture(params=FORMATS)
def packet_format(request: pytest.FixtureRequest) -> tuple[Codec[Any, Any], Any, list[Any]]:
    codec, serializer, packets = FORMATS[request.param]
    if request.param == "lines":
        serializer = lambda: StringLineSerializer(encoding="utf-8")  # noqa: E731
    return codec, serializer, packets


@pytest.fixture(params=["plain", "tls"])
def contexts(request: pytest.FixtureRequest, tls_contexts: Contexts) -> tuple[Any, Any]:
    return (None, None) if request.param == "plain" else tls_contexts


def echo(client: PacketConnection[Any] | DatagramPeer[Any], packet: Any) -> None:
    client.send_packet(packet)


# EasyNetwork

@pytest.mark.parametrize("workers", [8, 0])
def test_easynetworks_clients_at_our_server(packet_format: Any, contexts: tuple[Any, Any], workers: int) -> None:
    codec, serializer, packets = packet_format
    with PacketServer(echo, create_tcp_server(ssl_context=contexts[0]), codec=codec, max_workers=workers) as server:
        tls = {"ssl": contexts[1], "server_hostname": "localhost"} if contexts[1] else {}
        with TCPNetworkClient(("127.0.0.1", server.port), StreamProtocol(serializer()), **tls) as client:
            for packet in packets:
                client.send_packet(packet)
                assert client.recv_packet(timeout=TIMEOUT) == packet
            for packet in packets * 20:
                client.send_packet(packet)
            for packet in packets * 20:
                assert client.recv_packet(timeout=TIMEOUT) == packet
    assert server.stats().handler_errors == 0


@contextmanager
def easynetwork_server(serializer: Any, context: ssl.SSLContext | None) -> Iterator[int]:
    class Echo(AsyncStreamRequestHandler[Any, Any]):
        async def handle(self, client: AsyncStreamClient[Any]) -> AsyncGenerator[None, Any]:
            packet = yield
            await client.send_packet(packet)

    server = StandaloneTCPNetworkServer("127.0.0.1", 0, StreamProtocol(serializer()), Echo(), ssl=context)
    up = threading.Event()
    serving = Background(server.serve_forever, is_up_event=up)
    assert up.wait(TIMEOUT)
    try:
        yield server.get_addresses()[0].port
    finally:
        server.shutdown(timeout=TIMEOUT)
        serving.result()
        server.server_close()


def test_our_client_at_easynetworks_server(packet_format: Any, contexts: tuple[Any, Any]) -> None:
    codec, serializer, packets = packet_format
    with easynetwork_server(serializer, contexts[0]) as port:
        with PacketClient(("127.0.0.1", port), codec, ssl_context=contexts[1], connect_timeout=TIMEOUT) as client:
            for packet in packets:
                client.send_packet(packet)
                assert client.recv_packet(timeout=TIMEOUT) == packet

            def send() -> None:
                for packet in packets * 20:
                    client.send_packet(packet)

            sending = Background(send)
            assert [client.recv_packet(timeout=TIMEOUT) for _ in packets * 20] == packets * 20
            sending.result()


def test_easynetworks_datagram_client_at_our_server() -> None:
    with DatagramServer(echo, create_udp_socket(interface="127.0.0.1"), codec=JSONCodec()) as server:
        with UDPNetworkClient(("127.0.0.1", server.port), DatagramProtocol(JSONSerializer())) as client:
            client.send_packet({"a": [1]})
            assert client.recv_packet(timeout=TIMEOUT) == {"a": [1]}


# The standard library

def test_our_client_at_a_socketserver() -> None:
    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            for line in self.rfile:
                self.wfile.write(line.upper())

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = False

    with Server(("127.0.0.1", 0), Handler) as server:
        serving = Background(server.serve_forever, 0.01)
        with PacketClient(server.server_address, LineCodec()) as client:  # type: ignore[arg-type]
            for word in ("hello", "world"):
                client.send_packet(word)
                assert client.recv_packet(timeout=TIMEOUT) == word.upper()
            client.send_eof()
            assert list(client) == []
        server.shutdown()
        serving.result()


async def converse_with_asyncio(port: int, context: ssl.SSLContext | None, name: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context,
                                                   server_hostname="localhost" if context else None)
    for number in range(20):
        line = f"{name} {number}\n".encode()
        writer.write(line)
        assert await reader.readline() == line
    if context is None:
        writer.write_eof()
        assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("kind", ["packets", "inline", "streams"])
def test_asyncio_clients_at_our_servers(kind: str, contexts: tuple[Any, Any]) -> None:
    def echo_stream(stream: Any) -> None:
        for line in stream.receive_delimited_chunks(b"\n"):
            stream.send_all(line + b"\n")

    listener = create_tcp_server(ssl_context=contexts[0])
    server = StreamServer(echo_stream, listener) if kind == "streams" else \
        PacketServer(echo, listener, codec=LineCodec(), max_workers=8 if kind == "packets" else 0)

    async def everybody() -> None:
        async with asyncio.timeout(TIMEOUT):
            await asyncio.gather(*(converse_with_asyncio(server.port, contexts[1], f"client {number}")
                                   for number in range(20)))

    with server:
        asyncio.run(everybody())
    assert server.stats().handler_errors == 0


# Programs

def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


def run(arguments: list[str], text: str) -> str:
    return subprocess.run(arguments, input=text, capture_output=True, text=True, timeout=TIMEOUT, check=True).stdout


TCP_PROGRAMS: list[Any] = [
    pytest.param(lambda port: ["nc", "-N", "127.0.0.1", str(port)], marks=needs("nc"), id="nc"),
    pytest.param(lambda port: ["socat", "-t5", "-", f"TCP:127.0.0.1:{port}"], marks=needs("socat"), id="socat")]


@pytest.mark.parametrize("command", TCP_PROGRAMS)
@pytest.mark.parametrize("workers", [8, 0])
def test_programs_that_pipe_into_our_server(command: Callable[[int], list[str]], workers: int) -> None:
    """They send everything, half-close, and wait for all of the answers."""
    def number_lines(client: PacketConnection[str]) -> Generator[Any, str, None]:
        number = 0
        try:
            while True:
                number += 1
                client.send_packet(f"{number}: {(yield)}")
        except EOFError:
            client.send_packet(f"{number - 1} lines")

    with PacketServer(number_lines, create_tcp_server(), codec=LineCodec(), max_workers=workers) as server:
        out = run(command(server.port), "".join(f"line {number}\n" for number in range(1000)))
    assert out.splitlines() == [f"{number + 1}: line {number}" for number in range(1000)] + ["1000 lines"]


@needs("socat")
def test_socat_at_a_unix_socket_and_at_datagrams(tmp_path: Path) -> None:
    with PacketServer(echo, create_unix_server(tmp_path / "socket"), codec=LineCodec()):
        assert run(["socat", "-t5", "-", f"UNIX-CONNECT:{tmp_path / 'socket'}"], "hello\n") == "hello\n"
    with DatagramServer(echo, create_udp_socket(interface="127.0.0.1"), codec=LineCodec()) as server:
        # `shut-none`, as from 1.8 on it would send an empty datagram at the end, and have that echoed, too.
        assert run(["socat", "-t1", "-", f"UDP:127.0.0.1:{server.port},shut-none"], "hello\n") == "hello\n"


@needs("socat")
def test_socat_as_the_server_of_our_client(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with subprocess.Popen(["socat", f"UNIX-LISTEN:{path}", "EXEC:cat"]) as socat:
        try:
            deadline = threading.Event()
            while not path.exists():
                assert not deadline.wait(0.01) and socat.poll() is None
            with PacketClient(path, LineCodec()) as client:
                client.send_packet("hello")
                assert client.recv_packet(timeout=TIMEOUT) == "hello"
                client.send_eof()
                assert list(client) == []
        finally:
            socat.kill()


@needs("telnet")
def test_a_real_telnet(tmp_path: Path) -> None:
    """Line by line, with CRLF, as somebody would type it."""
    def handler(client: PacketConnection[str], packet: str) -> None:
        client.send_packet(f"you said {packet!r}")
        if packet == "bye":
            client.close()

    with PacketServer(handler, create_tcp_server(interface="127.0.0.1"), codec=LineCodec(newline="\r\n")) as server:
        ours, theirs = pty.openpty()
        try:
            with subprocess.Popen(["telnet", "127.0.0.1", str(server.port)], stdin=theirs, stdout=theirs, stderr=theirs,
                                  start_new_session=True) as telnet:
                try:
                    seen = b""

                    def wait_for(text: bytes) -> None:
                        nonlocal seen
                        while text not in seen:
                            assert select.select([ours], [], [], TIMEOUT)[0], seen
                            seen += os.read(ours, 4096)

                    wait_for(b"Escape character")
                    for word in (b"hello", b"bye"):
                        os.write(ours, word + b"\r")
                        wait_for(b"you said '" + word + b"'")
                    wait_for(b"Connection closed by foreign host")
                    telnet.wait(TIMEOUT)
                finally:
                    telnet.kill()
        finally:
            os.close(ours)
            os.close(theirs)
    assert server.stats().handler_errors == server.stats().bad_packets == 0
