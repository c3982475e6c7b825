"""Every kind of byte stream, connected: what holds for one has to hold for all."""

from __future__ import annotations

import ssl
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.pairs import Background
from support.streams import KINDS, Pair, connect


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
