"""TLS in memory: two engines, and the ciphertext carried between them by hand."""

from __future__ import annotations

import ssl
from collections import deque

import pytest
import trustme

from netmsg import ConnectionBrokenError, TLSHandshakeError
from netmsg.tls import TLSEngine, verified_hostname

Contexts = tuple[ssl.SSLContext, ssl.SSLContext]


class Engine(TLSEngine):
    """With lists of one item left out."""

    def read(self, max_bytes: int) -> bytes | None:
        plaintext: list[bytes] = []
        return b"".join(plaintext) if self.read_to(plaintext, max_bytes) else None

    def encrypt(self, data: bytes) -> bytes:
        self.write(data)
        assert sum(self.written) == len(data)
        self.written.clear()
        return self.produced()

    def produced(self) -> bytes:
        ciphertext: deque[memoryview] = deque()
        self.take_ciphertext(ciphertext)
        return b"".join(ciphertext)

    def add(self, data: bytes) -> None:
        self.add_ciphertext(deque([data]))


def engines(contexts: Contexts, hostname: str | None = "localhost") -> tuple[Engine, Engine]:
    server, client = contexts
    return Engine(server, server_side=True), Engine(client, server_side=False, server_hostname=hostname)


def carry(source: Engine, target: Engine, step: int = 1 << 20) -> None:
    ciphertext = source.produced()
    for start in range(0, len(ciphertext), step):
        target.add(ciphertext[start:start + step])


def shake_hands(server: Engine, client: Engine) -> None:
    done = [False, False]
    for _ in range(10):
        done[0] = client.do_handshake()
        carry(client, server)
        done[1] = server.do_handshake()
        carry(server, client)
        if all(done):
            return
    raise AssertionError("the handshake does not come to an end")


def test_plaintext_goes_both_ways(tls_contexts: Contexts) -> None:
    server, client = engines(tls_contexts)
    shake_hands(server, client)
    assert client.read(100) is None
    client.add(server.encrypt(b"from the server"))
    assert client.read(4) == b"from"
    assert client.readable
    assert client.read(100) == b" the server"
    assert client.read(100) is None and not client.readable


def test_any_split_of_the_ciphertext_will_do(tls_contexts: Contexts) -> None:
    server, client = engines(tls_contexts)
    shake_hands(server, client)
    ciphertext = client.encrypt(b"x" * 40_000)
    got = b""
    for start in range(0, len(ciphertext), 777):
        server.add(ciphertext[start:start + 777])
        while (piece := server.read(1 << 16)) is not None:
            got += piece
    assert got == b"x" * 40_000


def test_what_was_agreed_is_told(tls_contexts: Contexts) -> None:
    server, client = engines(tls_contexts)
    shake_hands(server, client)
    info = client.info()
    assert info.version == "TLSv1.3" and info.cipher is not None and info.server_hostname == "localhost"
    assert info.peer_certificate is not None and info.peer_certificate_der is not None
    assert server.info().peer_certificate is not None


def test_a_goodbye_is_an_end_and_its_lack_is_not(tls_contexts: Contexts) -> None:
    server, client = engines(tls_contexts)
    shake_hands(server, client)
    server.add(client.encrypt(b"last words"))
    client.close_notify()
    carry(client, server)
    assert server.read(100) == b"last words"
    assert server.read(100) == b""
    client.add(server.encrypt(b"a half-closed connection still carries this"))
    assert client.read(100) == b"a half-closed connection still carries this"


@pytest.mark.parametrize("ignoring", [True, False], ids=["OP_IGNORE_UNEXPECTED_EOF", "without"])
def test_an_end_without_a_goodbye_is_told_from_one_with_it(tls_contexts: Contexts, ignoring: bool) -> None:
    context = tls_contexts[0]
    before = context.options
    try:
        if ignoring:
            context.options |= ssl.OP_IGNORE_UNEXPECTED_EOF
        else:
            context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
        server, client = engines(tls_contexts)
        tolerant = Engine(context, server_side=True, standard_compatible=False)
        client_of_tolerant = engines(tls_contexts)[1]
    finally:
        context.options = before
    shake_hands(server, client)
    server.add(client.encrypt(b"cut"))
    server.add(b"")
    assert server.read(100) == b"cut"
    for _ in range(2):
        with pytest.raises(ConnectionBrokenError):
            server.read(100)
    shake_hands(tolerant, client_of_tolerant)
    tolerant.add(client_of_tolerant.encrypt(b"cut"))
    tolerant.add(b"")
    assert [tolerant.read(100), tolerant.read(100), tolerant.read(100)] == [b"cut", b"", b""]


def test_a_certificate_nobody_vouches_for_is_refused_and_the_peer_told(tls_contexts: Contexts) -> None:
    server_context, _ = tls_contexts
    stranger = ssl.create_default_context()
    trustme.CA().configure_trust(stranger)
    server, client = engines((server_context, stranger))
    client.do_handshake()
    carry(client, server)
    server.do_handshake()
    carry(server, client)
    with pytest.raises(TLSHandshakeError) as raised:
        client.do_handshake()
    assert isinstance(raised.value.__cause__, ssl.SSLCertVerificationError)
    carry(client, server)  # the alert
    with pytest.raises(TLSHandshakeError):
        server.do_handshake()


def test_what_is_not_tls_is_refused(tls_contexts: Contexts) -> None:
    server, _ = engines(tls_contexts)
    server.add(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(TLSHandshakeError):
        server.do_handshake()


@pytest.mark.parametrize("name, verified", [("example.org", "example.org"), ("example.org.", "example.org"),
                                            ("[::1]", "::1"), ("fe80::1%eth0", "fe80::1"), ("127.0.0.1", "127.0.0.1")])
def test_names_are_put_as_certificates_have_them(name: str, verified: str) -> None:
    assert verified_hostname(ssl.create_default_context(), name) == verified


@pytest.mark.parametrize("name", [None, "", "."])
def test_a_context_that_checks_names_wants_one(name: str | None) -> None:
    with pytest.raises(ValueError):
        verified_hostname(ssl.create_default_context(), name)
    unchecked = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unchecked.check_hostname = False
    assert verified_hostname(unchecked, name) is None


def test_addresses_match_only_addresses(authority: trustme.CA, tls_contexts: Contexts) -> None:
    server_context, client_context = tls_contexts
    shake_hands(*engines((server_context, client_context), "127.0.0.1"))
    nameonly = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(nameonly)
    server, client = engines((nameonly, client_context), "127.0.0.1")
    with pytest.raises(TLSHandshakeError):
        shake_hands(server, client)
