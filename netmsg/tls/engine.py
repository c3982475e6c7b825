"""The one TLS engine of the project: ``SSLObject`` over two ``MemoryBIO``s.

``SSLSocket`` is not safe with one thread sending while another receives, and cannot put TLS inside TLS; this can do
both, because it never touches a descriptor. Its owner moves the ciphertext, and serialises the calls.
"""

from __future__ import annotations

import ssl
from collections import deque
from typing import Any, Final, NamedTuple

from ..errors import ConnectionBrokenError, TLSHandshakeError
from ..interrupts import in_main_thread

__all__ = ["TLSEngine", "TLSInfo", "verified_hostname"]

RECORD_SIZE: Final = 16_384
"""Plaintext in one record at most, and what OpenSSL takes at a time."""
UNREAD: Final = b"\xa5"


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

    def __repr__(self) -> str:
        """What matters, on one line: a certificate is a page."""
        told = [self.version or "no version", self.cipher[0] if self.cipher else "no cipher", f"peer {self._peer()}"]
        if self.alpn_protocol is not None:
            told.append(f"ALPN {self.alpn_protocol!r}")
        if self.server_hostname is not None:
            told.append(f"server_hostname {self.server_hostname!r}")
        return f"<TLSInfo {', '.join(told)}>"

    def _peer(self) -> str:
        """Who the peer proved to be."""
        if self.peer_certificate_der is None:
            return "without a certificate"
        if not self.peer_certificate:
            return "with a certificate that was not verified"
        names = [str(name) for _, name in self.peer_certificate.get("subjectAltName", ())]
        if not names:
            names = [value for part in self.peer_certificate.get("subject", ()) for key, value in part
                     if key == "commonName"]
        return ", ".join(map(repr, names)) or "with a certificate that names nobody"


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

    Bytes go in and out through the caller's own lists, and an interrupt (Ctrl-C) anywhere neither loses nor doubles
    any. Of the object behind ``ssl.SSLObject``, which this uses where there is one, ``read`` and ``write`` see to
    signals *after* they have worked, and their result is lost then; so what they did is found out at the next call, by
    what they left behind, whatever thread that comes from. Threads other than the main one are never interrupted, and
    leave nothing to be found out.

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
        self._pending = core.pending
        self._cut_off = False
        self._reading: tuple[bytearray, int] | None = None  # where to, and what was pending before
        self._writing: tuple[int, int] | None = None  # how much ciphertext there was, how much plaintext is taken
        self.written: list[int] = []
        """How much plaintext `write` took each time; for the caller to take away."""
        self.stalled = False
        """Whether the last `write` could not go on before more ciphertext comes."""

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
        self.settle_write()
        if self._outgoing.pending:
            # One call into C: see netmsg.uninterrupted.
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
        """Append up to ``max_bytes``, of one record at most, or ``b""`` once the peer said goodbye; false while nothing
        is there.

        Raises `ConnectionBrokenError` where the connection ended without a goodbye, unless that is allowed, and
        `TLSHandshakeError` for a late refusal (under TLS 1.3 a rejected client certificate shows here).
        """
        try:
            if self._reading is None and not in_main_thread():
                plaintext.extend(map(self._read, (min(max_bytes, RECORD_SIZE),)))
            else:
                self._read_interruptibly(plaintext, max_bytes)
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

    def _read_interruptibly(self, plaintext: list[bytes], max_bytes: int) -> None:
        """One byte, which makes OpenSSL decrypt a record, and then what it says is pending of that: of a read of known
        size what is pending afterwards tells whether it happened. (For a record of that one byte alone the byte tells,
        by not being what was there before: one in 256 such interrupts is not recognised.) Whoever comes next, from any
        thread, finds out."""
        if self._reading is not None:
            buffer, before = self._reading
            read = self._pending() == before - len(buffer) if before else bool(self._pending()) or buffer != UNREAD
            if read:
                chunk = bytes(buffer)
                plaintext += (chunk,)
            self._reading = None
            if read:
                return
        pending = self._pending()
        if not pending:
            buffer = bytearray(UNREAD)
            self._reading = buffer, 0
            try:
                count = self._read(1, buffer)
            except ssl.SSLError:
                self._reading = None
                raise
            chunk = bytes(buffer[:count])
            plaintext += (chunk,)
            self._reading = None
            pending = self._pending()
            max_bytes -= 1
        size = min(pending, max_bytes)
        if size:
            buffer = bytearray(size)
            self._reading = buffer, pending
            self._read(size, buffer)
            chunk = bytes(buffer)
            plaintext += (chunk,)
            self._reading = None

    def write(self, data: bytes | memoryview) -> None:
        """Encrypt ``data``, a record at a time, and append to `written` how much was taken each time: less than all of
        it if ciphertext has to come first. Called again, it goes on behind what is `written` already."""
        self.settle_write()
        self.stalled = False
        written = self.written
        done = sum(written)
        octets = memoryview(data)
        while done < len(octets):
            piece = octets[done:done + RECORD_SIZE]
            self._writing = self._outgoing.pending, len(piece)
            try:
                count = self._write(piece)
            except ssl.SSLWantReadError:
                self._writing = None
                self.stalled = True
                return
            except ssl.SSLError as error:
                self._writing = None
                piece.release()
                octets.release()
                raise ConnectionBrokenError(f"TLS failed: {error}") from error
            written += (count,)
            self._writing = None
            done += count

    def settle_write(self) -> None:
        """Find out what a `write` did that was interrupted: it takes one record's worth, or nothing."""
        if self._writing is not None:
            before, size = self._writing
            written = self.written
            if self._outgoing.pending > before:
                written += (size,)
            self._writing = None

    @property
    def begun(self) -> bool:
        """Whether `write` has, perhaps, taken plaintext whose amount was not taken away yet."""
        return bool(self.written) or self._writing is not None

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
