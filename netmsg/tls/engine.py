"""The one TLS engine of the project: ``SSLObject`` over two ``MemoryBIO``s.

``SSLSocket`` is not safe with one thread sending while another receives, and cannot put TLS inside TLS; this can do
both, because it never touches a descriptor. Its owner moves the ciphertext, and serialises the calls.
"""

from __future__ import annotations

import ssl
from typing import Any, NamedTuple

from ..errors import ConnectionBrokenError, TLSHandshakeError

__all__ = ["TLSEngine", "TLSInfo", "verified_hostname"]


class TLSInfo(NamedTuple):
    """What a TLS connection agreed on, and who the peer proved to be."""

    version: str | None
    """Such as ``"TLSv1.3"``."""
    cipher: tuple[str, str, int] | None
    """Name, protocol that defines it, secret bits."""
    alpn_protocol: str | None
    peer_certificate: dict[str, Any] | None
    """As ``SSLSocket.getpeercert()`` gives it; ``None`` where the peer sent none or it was not verified."""
    peer_certificate_der: bytes | None
    server_hostname: str | None


def verified_hostname(context: ssl.SSLContext, name: str | None) -> str | None:
    """The name to check the peer's certificate against: ``name`` without brackets, scope or trailing dot.

    Raises ``ValueError`` for a context that checks host names when there is none to check, because ``SSLObject``
    would skip the check without a word.
    """
    if name is not None:
        name = name.strip("[]").partition("%")[0].removesuffix(".")
    if not name:
        if context.check_hostname:
            raise ValueError("the SSLContext checks host names, and there is no server_hostname to check")
        return None
    return name


class TLSEngine:
    """One TLS connection in memory.

    Every method may leave ciphertext to be sent (alerts and key updates too): take it with `take_ciphertext` after
    each call, failed ones included.
    """

    def __init__(self, context: ssl.SSLContext, *, server_side: bool, server_hostname: str | None = None) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._server_hostname = server_hostname
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side, server_hostname)

    def add_ciphertext(self, data: bytes) -> None:
        """Hand over what was received; ``b""`` for the end of the connection."""
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def take_ciphertext(self) -> bytes:
        """What has to be sent."""
        return self._outgoing.read() if self._outgoing.pending else b""

    def do_handshake(self) -> bool:
        """Go on with the handshake; true once it is complete, false while more ciphertext is needed.

        Raises `TLSHandshakeError`.
        """
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except (ssl.SSLError, ssl.CertificateError) as error:
            raise TLSHandshakeError(*error.args) from error
        return True

    def read(self, max_bytes: int) -> bytes | None:
        """Up to ``max_bytes`` of plaintext; ``b""`` once the peer said goodbye; ``None`` while nothing is there.

        Raises `ConnectionBrokenError` where the connection ended without a goodbye, and `TLSHandshakeError` for a
        late refusal (under TLS 1.3 a rejected client certificate shows here).
        """
        try:
            return self._object.read(max_bytes)
        except ssl.SSLWantReadError:
            return None
        except ssl.SSLZeroReturnError:
            return b""
        except ssl.SSLEOFError as error:
            raise ConnectionBrokenError("the TLS connection ended without a close_notify") from error
        except ssl.SSLError as error:
            if "ALERT" in (error.reason or ""):
                raise TLSHandshakeError(*error.args) from error
            raise ConnectionBrokenError(f"TLS failed: {error}") from error

    def write(self, data: bytes | memoryview) -> int:
        """Encrypt ``data``; returns how much was taken, 0 if ciphertext has to come first."""
        try:
            return self._object.write(data)
        except ssl.SSLWantReadError:
            return 0
        except ssl.SSLError as error:
            raise ConnectionBrokenError(f"TLS failed: {error}") from error

    @property
    def readable(self) -> bool:
        """Whether plaintext, or ciphertext not yet looked at, is waiting."""
        return bool(self._object.pending() or self._incoming.pending)

    def close_notify(self) -> None:
        """Say goodbye; the peer may go on sending."""
        try:
            self._object.unwrap()
        except ssl.SSLError:
            pass  # the peer's goodbye has not come, or the connection is past one

    def info(self) -> TLSInfo:
        certificate = self._object.getpeercert()
        return TLSInfo(
            version=self._object.version(),
            cipher=self._object.cipher(),
            alpn_protocol=self._object.selected_alpn_protocol(),
            peer_certificate=dict(certificate) if certificate else None,
            peer_certificate_der=self._object.getpeercert(binary_form=True),
            server_hostname=self._server_hostname,
        )
