"""A stream behind its face: its parts, put together, and what others of the library may do that users may not."""

from __future__ import annotations

import ssl
from collections.abc import Callable

from ..errors import identity
from ..forking import close_in_child
from ..transports.plain import Transport
from .closing import Closing
from .connection import Connection
from .files import Readers
from .links import Link
from .receiving import Receiving
from .securing import Securing
from .sending import Sending
from .turns import Turn

__all__ = ["Inside"]


class Inside:
    """Each of the parts is handed those that it stands on, and knows no other."""

    def __init__(self, link: Link) -> None:
        senders = Turn(link.wait_by)
        self.connection = Connection(link)
        self.receiving = Receiving(self.connection, senders)
        self.sending = Sending(self.connection, senders, self.receiving)
        self.readers = Readers()
        self.closing = Closing(self.connection, self.receiving, self.sending)
        self.securing = Securing(self.connection, self.receiving, self.sending, self.readers, self.closing)
        close_in_child(self.closing)

    # For whoever makes the stream

    def expect_tls(self, context: ssl.SSLContext | None, *, server_side: bool, server_hostname: str | None = None,
                   standard_compatible: bool = True) -> None:
        """What `begin_tls` and `ByteStream.start_tls` are to use."""
        self.securing.expect(context, server_side, server_hostname, standard_compatible)

    def begin_tls(self, handshake_timeout: float | None) -> None:
        """TLS from the first byte on, with the handshake at the first use."""
        self.securing.begin(handshake_timeout)

    def when_closed(self, function: Callable[[], None]) -> None:
        """Call ``function``, perhaps several times, right before the descriptor is closed."""
        self.closing.at_close = function

    # For whoever serves by it

    @property
    def transport(self) -> Transport:
        return self.connection.transport

    def time_out_when_idle(self, seconds: float | None) -> None:
        """For the calls that are given no ``timeout``: they raise `IdleTimeoutError`."""
        self.connection.idle_timeout = seconds

    def handshake_over(self) -> None:
        """Somebody else has performed the handshake, on the transport."""
        self.securing.handshake_over()

    @property
    def is_shaking_hands(self) -> bool:
        """Whether a thread is at the handshake."""
        return self.connection.shaking.holder is not None

    @property
    def sender(self) -> int | None:
        """Which thread has its turn to send."""
        holder = self.sending.turn.holder
        return None if holder is None else holder[0]

    @property
    def receiver(self) -> int | None:
        """Which thread has its turn to receive."""
        holder = self.receiving.turn.holder
        return None if holder is None else holder[0]

    def has_raised(self, error: BaseException) -> bool:
        """Whether ``error`` is the last that one of the stream's calls has raised."""
        return identity(error) is self.connection.failure

    @property
    def aborted(self) -> bool:
        """Whether nobody waits any more for what was sent to arrive."""
        return self.closing.aborted

    def cut(self) -> None:
        """`ByteStream.close` without waiting for anybody: the last call inside closes the descriptor. For event
        loops."""
        self.closing.cut()
