"""Byte streams of every kind, connected."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import NamedTuple

from netmsg import ByteStream, connect_tcp, connect_unix, create_tcp_server, create_unix_server, memory_stream_pair

from .pairs import TIMEOUT, Background

KINDS = ["tcp", "unix", "memory", "tls12", "tls13", "tls-unix", "tls-memory", "tls-in-tls"]


class Pair(NamedTuple):
    client: ByteStream
    server: ByteStream
    kind: str

    @property
    def encrypted(self) -> bool:
        return "tls" in self.kind

    @property
    def on_socket(self) -> bool:
        return "memory" not in self.kind

    @property
    def on_tcp(self) -> bool:
        return self.on_socket and "unix" not in self.kind


def secure(client: ByteStream, server: ByteStream, contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    upgrading = Background(server.start_tls, contexts[0], server_side=True, timeout=TIMEOUT)
    client.start_tls(contexts[1], server_side=False, server_hostname="localhost", timeout=TIMEOUT)
    upgrading.result()


def connect(kind: str, directory: Path,
            contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> tuple[ByteStream, ByteStream]:
    if "memory" in kind:
        client, server = memory_stream_pair()
    elif "unix" in kind:
        with create_unix_server(directory / "socket") as listener:
            client, server = connect_unix(directory / "socket"), listener.accept(timeout=TIMEOUT)
    else:
        with create_tcp_server(interface="127.0.0.1") as listener:
            client, server = connect_tcp("127.0.0.1", listener.port), listener.accept(timeout=TIMEOUT)
    for _ in range(kind.count("tls")):
        secure(client, server, contexts)
    return client, server
