"""Servers whose program just ends, whose clients come and go by the thousand, and whose clock is set."""

from __future__ import annotations

import ast
import gc
import os
import resource
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from support.pairs import TIMEOUT
from support.processes import PYTHON
from support.servers import eventually

import netmsg
from netmsg import (
    DatagramClient, DatagramServer, LineCodec, PacketClient, PacketServer, StreamServer, create_tcp_server,
    create_udp_socket,
)

CYCLES = 10_000 if os.environ.get("NETMSG_SOAK") else 1000

EXIT = """
import sys, threading
from netmsg import *

def echo(client, packet):
    client.send_packet(packet)

def converse(client):
    while True:
        client.send_packet((yield))

def echo_stream(stream):
    for chunk in stream:
        stream.send_all(chunk)

kind = sys.argv[1]
if kind == "datagrams":
    server = DatagramServer(echo, create_udp_socket(interface="127.0.0.1"), codec=LineCodec())
elif kind == "streams":
    server = StreamServer(echo_stream, create_tcp_server(interface="127.0.0.1"))
else:
    server = PacketServer(converse if kind == "conversations" else echo, create_tcp_server(interface="127.0.0.1"),
                          codec=LineCodec(), max_workers=0 if kind == "inline" else 8)
server.start()
make = DatagramClient if kind == "datagrams" else PacketClient
clients = [make(("127.0.0.1", server.port), LineCodec()) for _ in range(3)]
for client in clients:
    client.send_packet("hello")
    assert client.recv_packet(timeout=10) == "hello"
print("served", flush=True)
for client in clients:
    client.close()
if sys.argv[2] == "error":
    with server:
        raise SystemExit(3)
"""


@pytest.mark.parametrize("how", ["end", "error"])
@pytest.mark.parametrize("kind", ["packets", "inline", "conversations", "streams", "datagrams"])
def test_a_program_that_ends_without_a_shutdown_just_ends(kind: str, how: str) -> None:
    result = subprocess.run([*PYTHON, "-c", EXIT, kind, how], capture_output=True,
                            text=True, timeout=50)
    assert (result.returncode, result.stdout, result.stderr) == (3 if how == "error" else 0, "served\n", "")


def echo_stream(stream: Any) -> None:
    for chunk in stream:
        stream.send_all(chunk)


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()


@pytest.mark.timeout(200)
@pytest.mark.parametrize("kind", ["packets", "inline", "streams"])
def test_clients_that_come_and_go_leave_nothing(kind: str) -> None:
    listener = create_tcp_server(interface="127.0.0.1")
    server: Any = StreamServer(echo_stream, listener) if kind == "streams" else PacketServer(
        lambda client, packet: client.send_packet(packet), listener, codec=LineCodec(),
        max_workers=0 if kind == "inline" else 8)

    def cycles(count: int) -> None:
        for number in range(count):
            with PacketClient(("127.0.0.1", server.port), LineCodec(), connect_timeout=TIMEOUT) as client:
                if number % 3:
                    client.send_packet("hello")
                    assert client.recv_packet(timeout=TIMEOUT) == "hello"
        eventually(lambda: server.stats().connections == 0)
        gc.collect()

    with server:
        cycles(CYCLES // 5)
        descriptors, memory = len(os.listdir("/proc/self/fd")), resident()
        cycles(CYCLES)
        assert len(os.listdir("/proc/self/fd")) <= descriptors + 1  # a thread that waits for the first time has one
        assert resident() - memory < 2**20 + 1024 * CYCLES
        assert sum(thread.name.startswith("netmsg-") for thread in threading.enumerate()) <= 9
        assert server.stats().accepted == CYCLES + CYCLES // 5


def test_datagrams_of_many_senders_leave_nothing() -> None:
    with DatagramServer(lambda client, packet: client.send_packet(packet), create_udp_socket(interface="127.0.0.1"),
                        codec=LineCodec()) as server:
        descriptors = len(os.listdir("/proc/self/fd"))
        for _ in range(100):
            with DatagramClient(("127.0.0.1", server.port), LineCodec()) as client:
                client.send_packet("hello")
                assert client.recv_packet(timeout=TIMEOUT) == "hello"
        assert len(os.listdir("/proc/self/fd")) <= descriptors + 1


@pytest.mark.parametrize("package", ["servers", "clients", "packets", "reactor", "transports", "tls"])
def test_nobody_looks_at_the_clock_on_the_wall(package: str) -> None:
    """So that setting it does nothing: all time is ``time.monotonic()``."""
    sources = sorted((Path(netmsg.__file__).parent / package).glob("*.py"))
    assert sources
    for source in sources:
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert (node.value.id, node.attr) not in {("time", "time"), ("datetime", "now"), ("time", "time_ns"),
                                                          ("datetime", "utcnow")}, f"{source}:{node.lineno}"
            assert not isinstance(node, ast.ImportFrom) or node.module not in ("time", "datetime"), source
