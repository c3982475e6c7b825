"""What a TLS connection tells about itself."""

from __future__ import annotations

import ssl
from typing import Any

import pytest
from support.streams import secure

from netmsg import TLSInfo, memory_stream_pair

NAMED: dict[str, Any] = {"subject": ((("organizationName", "Example"),), (("commonName", "client-1"),)),
                         "subjectAltName": (("DNS", "localhost"), ("IP Address", "127.0.0.1"))}


def test_it_is_readable_on_one_line(tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    client, server = memory_stream_pair()
    with client, server:
        secure(client, server, tls_contexts)
        assert client.tls is not None and client.tls.cipher is not None
        told = f"<TLSInfo TLSv1.3, {client.tls.cipher[0]}, peer 'localhost', '127.0.0.1', "
        assert repr(client.tls).startswith(told) and repr(client.tls).endswith(", server_hostname 'localhost'>")
        assert "peer 'client@example.org'" in repr(server.tls) and "server_hostname" not in repr(server.tls)


@pytest.mark.parametrize(("certificate", "der", "told"), [
    (None, None, "without a certificate"),
    (None, b"DER", "with a certificate that was not verified"),
    (NAMED, b"DER", "peer 'localhost', '127.0.0.1',"),
    ({"subject": NAMED["subject"]}, b"DER", "peer 'client-1',"),
    ({"subject": ()}, b"DER", "with a certificate that names nobody"),
])
def test_who_the_peer_is(certificate: dict[str, Any] | None, der: bytes | None, told: str) -> None:
    info = TLSInfo("TLSv1.2", ("CIPHER", "TLSv1.2", 256), "h2", certificate, der, None)
    assert told in repr(info) and "ALPN 'h2'" in repr(info) and "DER" not in repr(info)
    assert info == tuple(info) and info.version == "TLSv1.2"


def test_nothing_agreed_on_yet() -> None:
    assert repr(TLSInfo(None, None, None, None, None, None)) == (
        "<TLSInfo no version, no cipher, peer without a certificate>")
