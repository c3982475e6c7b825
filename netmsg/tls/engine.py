"""The one TLS engine of the project: ``SSLObject`` over two ``MemoryBIO``s.

``SSLSocket`` is not safe with one thread sending while another receives, and cannot put TLS inside TLS; this can do
both, because it never touches a descriptor. Its owner moves the ciphertext, and serialises the calls.
"""

from __future__ import annotations

import ssl
from collections import deque
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

    Bytes go in and out through the caller's own lists, each time by one call into C that moves them as a whole: what an
    interrupt (Ctrl-C) finds has been moved, or has not. That is why this calls the object behind ``ssl.SSLObject``,
    where there is one: the methods of ``SSLObject`` itself can be interrupted after the fact, and the bytes be lost.

    Every method may leave ciphertext to be sent (alerts and key updates too): take it with `take_ciphertext` after
    each call, failed ones included.
    """

    def __init__(self, context: ssl.SSLContext, *, server_side: bool, server_hostname: str | None = None,
                 standard_compatible: bool = True) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._server_hostname = server_hostname
        self._standard_compatible = standard_compatible
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side, server_hostname)
        core: Any = getattr(self._object, "_sslobj", self._object)
        self._read = core.read
        self._write = core.write
        self._cut_off = False
        self.written: list[int] = []
        """How much plaintext `write` took each time; for the caller to take away."""

    def add_ciphertext(self, received: deque[bytes]) -> None:
        """Take over what was received; ``b""`` stands for the end of the connection."""
        write = self._incoming.write
        while received:
            chunk = received[0]
            if not chunk:
                # OpenSSL is not told: it would take the whole connection for broken, and what is sent may still arrive.
                self._cut_off = True
                return
            del received[0]
            write(chunk)

    def take_ciphertext(self, ciphertext: deque[memoryview]) -> None:
        """Append what has to be sent, if there is anything."""
        if self._outgoing.pending:
            ciphertext.extend(map(memoryview, map(self._outgoing.read, (self._outgoing.pending,))))

    @property
    def has_ciphertext(self) -> bool:
        return bool(self._outgoing.pending)

    def do_handshake(self) -> bool:
        """Go on with the handshake; true once it is complete, false while more ciphertext is needed.

        Raises `TLSHandshakeError`.
        """
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            if self._cut_off:
                raise TLSHandshakeError("the peer closed the connection during the TLS handshake") from None
            return False
        except (ssl.SSLError, ssl.CertificateError) as error:
            raise TLSHandshakeError(*error.args) from error
        return True

    def read_to(self, plaintext: list[bytes], max_bytes: int) -> bool:
        """Append up to ``max_bytes``, or ``b""`` once the peer said goodbye; false while nothing is there.

        Raises `ConnectionBrokenError` where the connection ended without a goodbye, unless that is allowed, and
        `TLSHandshakeError` for a late refusal (under TLS 1.3 a rejected client certificate shows here).
        """
        try:
            plaintext.extend(map(self._read, (max_bytes,)))
        except ssl.SSLWantReadError:
            if not self._cut_off:
                return False
            if self._standard_compatible:
                raise ConnectionBrokenError("the TLS connection ended without a close_notify") from None
            plaintext.append(b"")
        except ssl.SSLZeroReturnError:
            plaintext.append(b"")
        except ssl.SSLError as error:
            if "ALERT" in (error.reason or ""):
                raise TLSHandshakeError(*error.args) from error
            raise ConnectionBrokenError(f"TLS failed: {error}") from error
        return True

    def write(self, data: bytes | memoryview) -> None:
        """Encrypt ``data``, and append to `written` how much was taken; nothing if ciphertext has to come first."""
        try:
            self.written.extend(map(self._write, (data,)))
        except ssl.SSLWantReadError:
            pass
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
