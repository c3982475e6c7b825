"""What waits to be sent to one client."""

from __future__ import annotations

from typing import Any, Final

from ..errors import ClosedError, bare
from ..locks import new_lock
from ..transports.plain import Buffer, Transport

__all__ = ["SendQueue"]

PIECE: Final = 65_536
"""Small buffers are joined up to this size: one system call instead of many."""
MOST_AT_ONCE: Final = 1 << 20
"""Bytes that one call sends of what is long: who reads as fast as they come would hold up all others."""
MOST_ASIDE: Final = 64
"""Packets that are put aside, to go together."""
LONGEST_ASIDE: Final = 4096
"""Bytes of one of them; a longer one goes at once, with those before it."""


class SendQueue:
    """Packets go out in order, as far as they go at once; any thread may put and flush.

    Under ``lock`` nothing blocks. The count of bytes that have gone is stored by one call into C, so that an interrupt
    (Ctrl-C) neither loses nor doubles any: see `netmsg.uninterrupted`.
    """

    __slots__ = ("transport", "lock", "buffers", "size", "gone", "packets", "blocked", "failure", "later", "ended",
                 "_counts")

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.lock = new_lock()  # guards all of this, but for the loop's `put_aside`; a leaf
        self.buffers: list[Buffer] = []
        self.size = 0
        """Bytes that wait, or are about to go."""
        self.gone = 0
        """Bytes that have gone and did not do so at once and whole."""
        self.packets = 0
        """How many have been put so far."""
        self.blocked = False
        """The rest waits until the loop is told that there is room; it goes on then."""
        self.failure: OSError | None = None
        """What sending has failed with: nothing is sent any more."""
        self.later: list[Buffer] | None = None
        """What is to go under TLS, once what is in ``buffers`` has gone in the clear and the handshake is over."""
        self.ended = False
        """Nothing is taken any more."""
        self._counts: list[int] = []

    def put(self, data: bytes) -> bool:
        """Send ``data``, a packet, as far as it goes, behind what waits already or was put aside. Whether it was taken:
        not after the end."""
        with self.lock:
            if self.ended:
                return False
            size = len(data)
            self.size += size  # no call in between: the loop may be in `put_aside`
            self.packets += 1
            if self.later is not None:
                self.later.append(data)
            else:
                self.buffers.append(data)
                self.go_on()
            return True

    def put_aside(self, data: bytes) -> None:
        """Keep ``data`` to be sent with what is put next, by whomever; `go_on` is to be called in the end. For the
        loop alone, which also says when `later` begins and ends; not under the lock, which would cost more than all the
        rest."""
        size = len(data)
        # No call from here to the append, and so no other thread in between.
        self.size += size
        self.packets += 1
        buffers: list[Any] = self.buffers if self.later is None else self.later
        buffers.append(data)
        if len(buffers) >= MOST_ASIDE or size > LONGEST_ASIDE:
            with self.lock:
                self.go_on()

    def flush(self) -> None:
        """Send as much as goes at once, up to `MOST_AT_ONCE`."""
        with self.lock:
            self._flush()

    def end(self) -> bool:
        """Take nothing any more, if all has gone. Whether that is so: under the lock, for another thread may have begun
        to send before, and what it sends is not to meet an end that was sent meanwhile."""
        with self.lock:
            if not self.blocked:
                self._flush()
            self.ended = not (self.buffers or self.later)
            return self.ended

    def lost(self) -> OSError | None:
        """`failure`, also if somebody who sends is being told just now."""
        with self.lock:
            return self.failure

    def drop(self) -> bool:
        """Take nothing any more, and let go of what waits: who knows the connection may keep it for long. Whether there
        was anything. Under the lock."""
        assert self.lock.locked()
        waited = self.size > 0
        if self.failure is None:
            self.failure = ClosedError("the connection is closed")
        self.ended = True
        self.buffers.clear()
        self._counts.clear()
        self.later = None
        self.size = 0
        return waited

    @property
    def waits(self) -> bool:
        """Whether ``size`` is what waits for the other end. What is just being sent may all go at once: nobody would
        tell that it has not waited."""
        return self.failure is None and (self.blocked or self.later is not None)

    def go_on(self) -> None:
        """Send what was put, or put aside, as far as it goes at once; not what waits for the loop. Under the lock."""
        buffers, counts = self.buffers, self._counts
        if self.blocked or self.failure is not None:
            return
        if len(buffers) == 1 and not counts:
            try:  # as in `_send`, without a call: one a packet is worth it
                counts.extend(map(self.transport.send_one, (buffers[0],)))
            except OSError as error:
                self._stop(error)
                return
            if counts[0] == len(buffers[0]):  # the usual case
                # No call from here on, and so no interrupt.
                del buffers[0]
                self.size -= counts[0]
                del counts[0]
                return
        self._flush()

    def _flush(self) -> None:
        buffers, counts = self.buffers, self._counts
        most = self.gone + MOST_AT_ONCE
        while (buffers or counts) and self.failure is None:
            if not counts:
                if self.gone >= most:
                    self.blocked = True
                    return
                if len(buffers) > 1:
                    self._join()
                self._send(buffers[0])
                if not counts:
                    return
            count = counts[0]
            rest = memoryview(buffers[0])[count:] if count < len(buffers[0]) else None
            # No call from here on, and so no interrupt.
            if rest is not None:
                buffers[0] = rest
            else:
                del buffers[0]
            self.size -= count
            self.gone += count
            del counts[0]
        self.blocked = False

    def _send(self, buffer: Buffer) -> None:
        try:
            self._counts.extend(map(self.transport.send_one, (buffer,)))
        except OSError as error:
            self._stop(error)

    def _stop(self, error: OSError) -> None:
        if isinstance(error, BlockingIOError):
            self.blocked = True
        else:
            self.failure = bare(error)

    def _join(self) -> None:
        size = number = 0
        for buffer in self.buffers:
            size += len(buffer)
            if size > PIECE:
                break
            number += 1
        if number > 1:
            joined = b"".join(self.buffers[:number])
            self.buffers[:number] = (joined,)

    # STARTTLS

    def hold(self) -> None:
        """What is put from now on waits for `release`."""
        with self.lock:
            self.later = []
            self._flush()

    @property
    def in_the_clear(self) -> bool:
        """Whether something that was put before `hold` has not gone yet."""
        return bool(self.buffers)

    def release(self, transport: Transport) -> None:
        """Go on through another transport."""
        with self.lock:
            assert self.later is not None and not self.buffers
            self.transport = transport
            self.buffers, self.later = self.later, None
            self._flush()
