"""What `Søcket.recv_delivery` returns."""

from __future__ import annotations

from typing import Protocol

from ..checks import check_str, check_timeout
from ..errors import LocalProtocolError
from ..uninterrupted import undivided
from .arguments import Buffer, message_of
from .credit import Credit
from .inbox import Batch
from .remembering import Note

__all__ = ["Delivery", "Settler"]


class Settler(Protocol):
    """The receiving half, as a delivery sees it."""

    def settle(self, delivery: Delivery, accept: bool) -> None:
        """Acknowledge or refuse it. From any thread; raises `ClosedError`, `ForkedError`."""

    def answer(self, delivery: Delivery, data: bytes, *, fails: bool, timeout: float | None) -> None:
        """Send the reply to it, or why there is none. From any thread; may block, and raise what a send does."""

    max_message_size: int


class Delivery:
    """One received message, and the means to answer for it."""

    __slots__ = ("_answered", "_correlation_id", "_credit", "_message_id", "_note", "_settled", "_settler", "data",
                 "identity")

    def __init__(self, settler: Settler, batch: Batch, data: bytes, message_id: bytes | None,
                 correlation_id: bytes | None = None) -> None:
        self.data = data
        self.identity = batch.identity
        """The sender's."""
        self._settler = settler
        self._credit: Credit = batch.credit
        self._message_id = message_id
        self._correlation_id = correlation_id
        self._answered = False
        self._note: Note | None = None
        """Where acknowledgements are noted: how far that has come."""
        self._settled = False  # set by the network thread: who is interrupted on the way there can say it again

    def ack(self) -> None:
        """Acknowledge it: the sender need not keep it any longer. At once, idempotent, from any thread.

        Nothing to do for a message that was sent at most once, or unless acknowledgement is ``AckMode.MANUAL``.
        With ``dedupe_path`` it blocks until that is noted in the file, and raises ``OSError`` if that is not possible:
        then the message is not acknowledged, and it may be tried again. Raises `ClosedError`.
        """
        self._settler.settle(self, True)

    def nack(self) -> None:
        """Refuse it: somebody else is to have it. At once, idempotent, from any thread.

        A sender that is netmsg's gives it to another peer that has not refused it as well, at once or as soon as there
        is room, and counts a resend. Where there is no other, and with an aiomsg sender, it is sent again after
        ``resend_after`` as what was not acknowledged is, and then delivered again. Nothing to do for a message that was
        sent at most once, or unless acknowledgement is ``AckMode.MANUAL``. Raises `ClosedError`.
        """
        self._settler.settle(self, False)

    @property
    def _is_kept(self) -> bool:
        """Whether its sender keeps it until it is acknowledged."""
        return self._message_id is not None

    @property
    def is_request(self) -> bool:
        """Whether the sender waits for a `reply`, or a `fail`."""
        return self._correlation_id is not None

    def reply(self, data: Buffer, *, timeout: float | None = None) -> None:
        """Answer the request, once, from any thread. It is sent at most once, to the one who has asked.

        As `Søcket.send` it returns as soon as the reply is queued, and at the high-water mark does as ``on_full`` says;
        with ``BLOCK``, ``timeout`` bounds the wait for room. If the one who has asked is not there any more, the reply
        is dropped, counted, and an event. Raises `LocalProtocolError` for what is no request or has been answered, and
        what `Søcket.send` does.
        """
        check_timeout(timeout)
        self._answer(self._message_of(data), False, timeout)

    def _message_of(self, data: Buffer) -> bytes:
        """As it is sent. Raises what `reply` does for what is none."""
        return message_of(data, self._settler.max_message_size)

    def fail(self, reason: str, *, timeout: float | None = None) -> None:
        """The same, to say that there is no reply, and why, in up to 256 bytes of UTF-8: there `Søcket.request` raises
        `RequestFailedError`."""
        check_timeout(timeout)
        check_str("reason", reason)
        self._answer(reason.encode("utf-8", "replace"), True, timeout)

    def _answer(self, data: bytes, fails: bool, timeout: float | None) -> None:
        if not self.is_request:
            raise LocalProtocolError("the message is no request: nobody waits for a reply")
        if not self._claim():
            raise LocalProtocolError("the request has been answered already")
        try:
            self._settler.answer(self, data, fails=fails, timeout=timeout)
        except BaseException:
            self._answered = False  # who is interrupted, or finds no room, can say it again
            raise

    @undivided
    def _claim(self) -> bool:
        """One thread may answer at a time, and one answer be given."""
        if self._answered:
            return False
        self._answered = True
        return True

    def __repr__(self) -> str:
        what = "Request" if self.is_request else "Delivery"
        return f"<{what} of {len(self.data)} bytes from {self.identity.hex()}>"
