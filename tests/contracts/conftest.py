"""Every kind of byte stream, connected: what holds for one has to hold for all."""

from __future__ import annotations

import ssl
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from support.pairs import TIMEOUT, Background

from netmsg import ByteStream, connect_tcp, connect_unix, create_tcp_server, create_unix_server, memory_stream_pair

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


@pytest.fixture(params=KINDS)
def pair(request: pytest.FixtureRequest, tmp_path: Path,
         tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> Iterator[Pair]:
    kind: str = request.param
    before = tls_contexts[1].maximum_version
    if kind == "tls12":
        tls_contexts[1].maximum_version = ssl.TLSVersion.TLSv1_2
    try:
        client, server = connect(kind, tmp_path, tls_contexts)
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            tls_contexts[1].maximum_version = before
    if kind == "tls12":
        assert client.tls is not None and client.tls.version == "TLSv1.2"
    yield Pair(client, server, kind)
    closing = Background(server.close, timeout=1)
    client.close(timeout=1)
    closing.result()
