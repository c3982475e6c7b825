"""A blocking stream of bytes, over TCP, UNIX sockets or memory, in the clear or under TLS.

Here is only its face. Behind it are parts, each in a file of its own, each of which knows those that it stands on and
no other; `Inside` puts them together. At the bottom, `Connection` has the link, the transport over it, and what
both directions have in common: whether it is closed, how a thread waits, what an error of the network becomes.
`Receiving` and `Sending` are the two directions, each with its turn, its error, and its record of what has come or
gone. `Closing` and `Securing`, the end and the handshake, take the turns of both; since every call may have to begin
with the one or to end with the other, they leave with the connection what is to be called. `StreamFile`, which
`makefile` gives, and ``copying``, which is `receive_file` and `send_file`, stand on the halves as the face does. What
servers, clients and listeners may do beyond the contract is in `Inside`, and `inside` hands it out.

Two threads may be inside at a time, one in each direction; each direction is a `Turn`. What a call receives goes to
the `ReadAhead` first and is taken out of it last, by plain assignments right before the return, so that a timeout or
an interrupt anywhere in between loses nothing. Everything that waits does so in `Link.wait`, which `close` wakes.

An interrupt (Ctrl-C) strikes at the return of a call into C, at the beginning of a function and at the end of a loop's
round, and also while another exception is on its way. So nothing that has to be known afterwards is noted after a call:
what a send, or the writing of a file, is about to do is on record before, and whoever comes next finds out from the
record how far it came (`Sending.conclude`, `Receiving.conclude_file`); an error that the kernel tells only once is kept
by the first statement that gets hold of it.

========================  =================================================================================
turn                      what belongs to whoever has it
========================  =================================================================================
``Connection.shaking``    the handshake; taken before the others, and alone until it is over
``Sending.turn``          `Transport.send_one`, half-closing
``Readers.turn``          reading through a `makefile`, which has its buffer locked meanwhile
``Receiving.turn``        `Transport.receive`, the read-ahead
========================  =================================================================================

In that order. The descriptor is closed by the last to leave once `close` was called, so that nobody ever meets a
stranger's.
"""

from __future__ import annotations

import ssl
import warnings
from collections.abc import Callable, Iterator
from typing import IO, TYPE_CHECKING, Any, Final, Self

from ..checks import check_delimiter, check_size, check_timeout
from ..deadline import Deadline
from ..errors import EndOfStream, LocalProtocolError
from ..forking import current_process
from ..sockets.proxy import SocketProxy
from ..tls import TLSInfo
from .copying import receive_file, send_file
from .files import open_file
from .inside import Inside
from .links import Link
from .receiving import CHUNK

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = ["NUMBERS", "ByteStream", "inside"]

NUMBERS: Final = (float, int)
"""Those that are compared without a call of Python's."""


class ByteStream:
    """Bytes both ways, in order, as they are.

    May be used from any thread: one may send while another receives, calls in the same direction take turns. Every
    ``timeout`` is in seconds, ``None`` for ever, 0 for one try without blocking; it covers the whole call, the TLS
    handshake that the first use of an accepted stream performs included, and running out raises ``TimeoutError``. A
    receive that times out or is interrupted loses nothing.

    Every member raises `ClosedError` once closed, also while it is blocked, `ConnectionBrokenError` after a reset or
    a truncation, and `ForkedError` in a forked child. What a signal handler or a finalizer calls while its own thread
    is in a call in the same direction raises `LocalProtocolError`. A context manager; ``for chunk in stream`` is
    `receive_chunks`.
    """

    def __init__(self, link: Link) -> None:
        inside = Inside(link)
        self._connection = inside.connection
        self._receiving = inside.receiving
        self._sending = inside.sending
        self._ahead = inside.receiving.ahead
        self._inside = inside  # last: one that was interrupted before is nothing yet

    # State

    def fileno(self) -> int:
        """The descriptor; -1 once closed, and where there is none."""
        return -1

    @property
    def closed(self) -> bool:
        """Whether `close` or `abort` was called."""
        return self._connection.closed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[bytes]:
        return self.receive_chunks()

    def __del__(self) -> None:
        inside = getattr(self, "_inside", None)
        if inside is None or inside.closing.disposed or inside.connection.process is not current_process():
            return
        if not inside.connection.closed:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)
        inside.closing.dispose()

    @property
    def local_address(self) -> Any:
        """(host, port), or the path of a UNIX socket; ``None`` in memory."""
        return None

    @property
    def remote_address(self) -> Any:
        """The other end's."""
        return None

    @property
    def socket(self) -> SocketProxy:
        """The socket's options and addresses. `LocalProtocolError` in memory."""
        raise LocalProtocolError("there is no socket under this stream")

    # Receiving

    def receive(self, max_bytes: int = CHUNK, *, timeout: float | None = None) -> bytes:
        """Some bytes, at least one and at most ``max_bytes``, as soon as there are any; ``b""`` at the end."""
        deadline = self._connection.deadline(timeout)
        check_size("max_bytes", max_bytes)
        receiving = self._receiving
        return receiving.take(deadline, receiving.some, max_bytes)

    def receive_into(self, buffer: WriteableBuffer, *, timeout: float | None = None) -> int:
        """Receive into a writable ``buffer``: how many bytes have been written to its beginning; 0 at the end."""
        deadline = self._connection.deadline(timeout)
        view = memoryview(buffer).cast("B")
        if view.readonly:
            raise TypeError("receive_into() needs a writable buffer")
        if not len(view):
            raise ValueError("the buffer is empty")
        try:
            return self._receiving.receive_into(deadline, view)
        except BaseException:
            view.release()  # the error would keep it, and the caller could not resize the buffer
            raise

    def receive_exactly(self, nbytes: int, *, timeout: float | None = None) -> bytes:
        """``nbytes`` bytes. If the peer finishes before, `EndOfStream`, or `IncompleteReadError` when some came."""
        deadline = self._connection.deadline(timeout)
        check_size("nbytes", nbytes, least=0)
        receiving = self._receiving
        return receiving.take(deadline, receiving.exactly, nbytes)

    def receive_until(self, delimiter: bytes, max_bytes: int = CHUNK, *, timeout: float | None = None) -> bytes:
        """What comes before ``delimiter``, which is taken too and left out.

        At most ``max_bytes`` without it: `DelimiterNotFoundError` if more come, which can then still be read. If the
        peer finishes before, `EndOfStream`, or `IncompleteReadError` when some came.
        """
        # The short way. There is no call in it, and so no other thread and no interrupt: see `ReadAhead.split`.
        ahead = self._ahead
        items = ahead.items
        if (items and delimiter is ahead.quick and ahead.longest <= max_bytes and not self._connection.closed
                and (timeout is None or timeout.__class__ in NUMBERS and timeout >= 0)):
            item = items[-1]
            del items[-1]
            return item
        deadline = self._connection.deadline(timeout)
        check_size("max_bytes", max_bytes)
        receiving = self._receiving
        return receiving.take(deadline, receiving.until, check_delimiter(delimiter), max_bytes)

    def receive_chunks(self, max_bytes: int = CHUNK, *, timeout: float | None = None) -> Iterator[bytes]:
        """Iterate over what comes, until the end; ``timeout`` is for each item, and the iterator may be asked again
        after it raised."""
        check_timeout(timeout)
        check_size("max_bytes", max_bytes)
        return _Items(lambda: self.receive(max_bytes, timeout=timeout), end_on_empty=True)

    def receive_delimited_chunks(self, delimiter: bytes, max_bytes: int = CHUNK, *,
                                 timeout: float | None = None) -> Iterator[bytes]:
        """Iterate over what `receive_until` returns, until the end; `IncompleteReadError` if that comes in the middle
        of an item. ``timeout`` is for each item, and the iterator may be asked again after it raised."""
        check_timeout(timeout)
        check_size("max_bytes", max_bytes)
        delimiter = check_delimiter(delimiter)
        return _Items(lambda: self.receive_until(delimiter, max_bytes, timeout=timeout), end_on_empty=False)

    def receive_file(self, file: IO[bytes], count: int | None = None, *, timeout: float | None = None) -> int:
        """Write what comes to ``file``: exactly ``count`` bytes, or all to the end of the stream; how many it were.

        A pipe, a terminal or another socket is waited for until it takes some, within ``timeout`` and until `close`;
        what a buffered writer over one holds is written first, and of what comes it holds nothing back. So is a file
        that ``socket.makefile("wb")`` makes, of a socket without a timeout of its own; and one that `makefile` makes,
        of any stream: its own timeout, and that stream's `close`, end the call as well. Any other file, such as one
        over an ``ssl.SSLSocket``, is written to as it is.

        Raises `EndOfStream` or `IncompleteReadError` (whose ``partial`` is empty, for the bytes are in the file) if
        the stream ends before ``count``.
        """
        deadline = self._connection.deadline(timeout)
        if count is not None:
            check_size("count", count, least=0)
        return receive_file(self._receiving, deadline, file, count)

    # Sending

    def send_all(self, data: ReadableBuffer, *, timeout: float | None = None) -> None:
        """Send all of a bytes-like object; it may be changed again afterwards.

        A timeout raises `SendTimeoutError`, whose ``bytes_sent`` says how far it came. If that is part-way, or an
        interrupt comes part-way, the stream refuses to send anything more (`ConnectionBrokenError`), for the other end
        would take it for the rest. After `send_eof`: `LocalProtocolError`.
        """
        deadline = self._connection.deadline(timeout)
        octets = data if type(data) is bytes else memoryview(data)
        if type(octets) is memoryview:
            octets = octets.cast("B") if octets.c_contiguous else octets.tobytes()
        try:
            sending = self._sending
            sending.in_turn(deadline, sending.send_all, octets)
        finally:
            if type(octets) is memoryview:
                octets.release()  # the caller may want to resize what it is of

    def send_file(self, file: IO[bytes], offset: int = 0, count: int | None = None, *,
                  timeout: float | None = None) -> int:
        """Send exactly ``count`` bytes of ``file`` from ``offset`` on, or all to its end: how many it were.

        The kernel copies where it can (``os.sendfile``). ``ValueError`` if the file is known to be too short, and
        then nothing is sent; ``EOFError`` if it turns out to be, or has become shorter. Timeouts are those of
        `send_all`. Of a file that cannot seek, such as a pipe, nothing behind ``count`` is taken, and nothing at all
        before the other end takes something. One that `makefile` makes is waited for as a pipe is, and its own timeout,
        and the `close` of its stream, end the call as well.
        """
        deadline = self._connection.deadline(timeout)
        check_size("offset", offset, least=0)
        if count is not None:
            check_size("count", count, least=0)
        return send_file(self._sending, deadline, file, offset, count, self._send_by_kernel)

    def _send_by_kernel(self, deadline: Deadline, file: IO[bytes], offset: int, count: int, counts: list[int]) -> None:
        """As much as ``os.sendfile`` can: appends to ``counts`` how much has gone each time."""

    def send_eof(self, *, timeout: float | None = None) -> None:
        """Tell the peer that nothing more will be sent; receiving goes on. Idempotent."""
        deadline = self._connection.deadline(timeout)
        self._sending.in_turn(deadline, self._sending.send_eof)

    # Either

    def makefile(self, mode: str = "rb", *, buffering: int = -1, encoding: str | None = None,
                 errors: str | None = None, newline: str | None = None, timeout: float | None = None) -> Any:
        """A file over the stream, for what works on files (``csv``, ``json``, ``pickle``, ``for line in file``).

        As ``open()`` has it, text being UTF-8 by default. ``timeout`` is for each read and write; what a buffered
        reader had of a line, or of the bytes that it was asked for, when a timeout struck is lost. Closing the file
        leaves the stream open; a buffered reader of bytes then gives back to the stream what it has read ahead, and
        until then, or until `start_tls`, keeps it. Other readers have one line of it at most, which goes with them.
        After an interrupt (Ctrl-C) in a buffered writer ``flush`` sends the rest of what it holds, or refuses; but
        whether what was just being written to it is among that, text above all, only Python's own buffers know.
        """
        check_timeout(timeout)
        self._connection.check()
        inside = self._inside
        return open_file(self, inside.receiving, inside.sending, inside.readers, mode, buffering, encoding, errors,
                         newline, timeout)

    # TLS

    @property
    def tls(self) -> TLSInfo | None:
        """What TLS agreed on, of the innermost TLS if there are several; ``None`` in the clear.

        `LocalProtocolError` before the handshake, so that a check on it fails closed.
        """
        if self._connection.transport.handshaking:
            raise LocalProtocolError("the TLS handshake has not happened yet: see do_handshake()")
        return self._connection.transport.tls

    def do_handshake(self, *, timeout: float | None = None) -> TLSInfo:
        """Perform the TLS handshake if that has not happened yet. Raises `TLSHandshakeError`."""
        return self._inside.securing.do_handshake(self._connection.deadline(timeout))

    def start_tls(self, ssl_context: ssl.SSLContext | bool | None = None, *, server_side: bool | None = None,
                  server_hostname: str | None = None, tls_standard_compatible: bool = True,
                  timeout: float | None = None) -> None:
        """Go on under TLS, after both ends agreed to.

        ``ssl_context`` defaults to the one that the stream was made with; ``server_side`` is known from how the stream
        was made, and required where it is not; ``server_hostname`` defaults to the host that was connected to.
        ``tls_standard_compatible=False``, here or where the stream was made, takes an end without TLS's goodbye for a
        clean one, and has `close` wait for none. On a TLS stream: TLS inside of TLS.

        Plaintext that has been received already and not been taken is an injection on the client
        (`RemoteProtocolError`), and goes into the handshake on the server. A failed upgrade closes the stream. Raises
        `TLSHandshakeError`. Another thread that is in the middle of reading a `makefile` gets `LocalProtocolError`.
        """
        self._inside.securing.start_tls(self._connection.deadline(timeout), ssl_context, server_side, server_hostname,
                                        tls_standard_compatible)

    # The end

    def close(self, *, timeout: float | None = 1.0) -> None:
        """Close, and see to it that what was sent is not lost: over TLS say goodbye, and wait up to ``timeout`` seconds
        for the other end to have it all; returns at once where nothing can be lost.

        Idempotent, from any thread, callback or signal handler. Whoever is blocked in a call gets `ClosedError`.
        """
        self._inside.closing.close(timeout)

    def abort(self) -> None:
        """Close at once, dropping everything: the other end may see a reset."""
        self._inside.closing.abort()


def inside(stream: ByteStream) -> Inside:
    """What is behind the face, for those of the library that make streams, or serve or build by them."""
    return stream._inside


class _Items(Iterator[bytes]):
    """An iterator that may be asked again after it raised, which a generator may not."""

    def __init__(self, receive: Callable[[], bytes], *, end_on_empty: bool) -> None:
        self._receive = receive
        self._end_on_empty = end_on_empty

    def __next__(self) -> bytes:
        try:
            item = self._receive()
        except EndOfStream:
            raise StopIteration from None
        if not item and self._end_on_empty:
            raise StopIteration
        return item
