"""What the clients of a UNIX datagram socket have not read yet, and how much of that one of them may have."""

from __future__ import annotations

from typing import Any, Final

from ..datagrams.unix import UNIXDatagramSocket
from ..errors import SendTimeoutError
from ..locks import new_lock

__all__ = ["UnreadAnswers"]

MOST_KNOWN: Final = 1000
"""Clients. No buffer holds answers to so many, of the usual size."""


class UnreadAnswers:
    """The kernel counts what was sent and not read yet against the send buffer of the one socket that all answers come
    from: a client that is connected to it could fill that, and nobody else would be answered any more. So once it is
    half full, no client may have more unread than is free: there is always some room for the others.

    The kernel tells how much is unread in all, but not by whom. What was read since the last answer counts as read by
    the one who is answered next, for who asks has usually read the answer before; unless it was found ``deaf`` lately,
    or this answer has been waiting for room. So the sum is right, and whoever just stops reading is charged for that;
    one that has waited, and reads all, finds as much more free. From any thread.
    """

    def __init__(self, sock: UNIXDatagramSocket) -> None:
        self._sock = sock
        self._lock = new_lock()  # guards all of these, and has answers go one by one
        self._unread: dict[Any, int] = {}  # by whom, in bytes as the kernel counts them
        self._in_all = 0  # when it was last looked at
        self._read = 0  # of those in ``_unread``; by whom is not known yet

    @property
    def full(self) -> bool:
        """Whether nobody could be sent anything."""
        return self._sock._unread_bytes >= self._sock._send_buffer

    def send(self, data: Any, address: Any, *, deaf: bool) -> None:
        """Send an answer, without waiting. Raises `SendTimeoutError` if there is no room, or not for this client."""
        with self._lock:
            unread = self._look(address, deaf)
            free = self._sock._send_buffer - self._in_all
            if free < self._in_all and unread > free:
                raise SendTimeoutError(f"about {unread} bytes of answers wait until this client has read them")
            try:
                self._sock.send_to(data, address, timeout=0)
            except (ConnectionRefusedError, FileNotFoundError):
                self._forget(address)
                raise
            self._charge(address, unread)

    def _look(self, address: Any, deaf: bool) -> int:
        """How much ``address`` has not read."""
        before, self._in_all = self._in_all, self._sock._unread_bytes
        if not self._in_all:
            self._unread.clear()
            self._read = 0
            return 0
        self._read += max(0, before - self._in_all)
        unread = self._unread.get(address, 0)
        if not deaf:
            read = min(unread, self._read)
            self._read -= read
            unread -= read
            self._unread[address] = unread
        return unread

    def _charge(self, address: Any, unread: int) -> None:
        before, self._in_all = self._in_all, self._sock._unread_bytes
        unread += self._in_all - before
        if unread > 0:
            self._unread[address] = unread
            if len(self._unread) > MOST_KNOWN:
                for one in sorted(self._unread, key=self._unread.__getitem__)[:MOST_KNOWN // 2]:
                    self._forget(one)
        else:  # others have read more meanwhile
            self._unread.pop(address, None)
            self._read -= unread

    def _forget(self, address: Any) -> None:
        self._read = max(0, self._read - self._unread.pop(address, 0))
