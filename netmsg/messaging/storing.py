"""The outbox of a Søcket: what is sent is stored first, and placed when it is.

The way of a message
--------------------
1. A thread that sends finds room in the `Reservoir`, gives it an id, and has it written (`Storing.begin`).
2. The outbox's thread writes it, with what else has come meanwhile; then (`Storing._decided`) it places it, if somebody
   is there to get it and nothing older has to go first. Otherwise memory forgets it. Only then the thread that sends
   goes on.
3. Whenever there is room for what waits in the file, a page of it is asked for (`Storing.look`), which the outbox's
   thread reads and places, too. All that is placed is placed by that thread: so it is in the order of sending.
4. What is acknowledged, or given up on, is taken out of the file with the next that is written (`Storing.gone`).

An interrupt finds the message given to that thread, or not: what comes of it does not depend on who waits.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol
from weakref import WeakValueDictionary

from ..deadline import Deadline
from ..locks import Lock
from ..speaking import say
from ..storage.committing import Committing, raise_for
from ..storage.outbox import Change, Key, Page, Stored
from ..waiting import Line, leave, new_ticket, wait_by
from ..wire.envelope import payload_of, reliable_frame
from ..wire.messages import Message
from .lane import Lane
from .life import Life
from .receipts import Receipt
from .reservoir import Stream
from .routing import Router

if TYPE_CHECKING:
    from collections.abc import MutableMapping

__all__ = ["Outbox", "Sending", "StoredReceipt", "Storing"]

log = logging.getLogger("netmsg.messaging")

KEPT: Final = "the Søcket was closed; the message waits in the outbox"
MOST_WAITING: Final = 1000
"""Messages that nobody has room for: so many in memory, and no page more."""


class Outbox(Protocol):
    """The file."""

    identity: bytes
    prefix: bytes
    """The first 8 bytes of new ids."""

    def write(self, changes: Sequence[Change]) -> None: ...

    def page(self, addressee: bytes | None, after: bytes) -> Page: ...

    def counts(self) -> dict[bytes | None, tuple[int, int]]: ...

    def close(self) -> None: ...

    def abandon(self) -> None: ...


class StoredReceipt(Receipt):
    """One that nobody need remember for the sake of its message: a million may wait in the file."""

    __slots__ = ("__weakref__",)


class Sending:
    """What one call has to send, on its way into the file."""

    __slots__ = ("error", "is_decided", "line", "lines_up", "messages", "receipts", "size", "stream", "ticket")

    def __init__(self, stream: Stream, messages: list[Stored], receipts: list[Receipt], size: int,
                 lines_up: bool) -> None:
        """Whoever ``lines_up`` wakes the next one."""
        self.stream = stream
        self.messages = messages
        self.receipts = receipts
        self.size = size
        self.error: Exception | None = None
        self.is_decided = False
        self.ticket = new_ticket()
        self.lines_up = lines_up
        self.line: Line | None = None

    def wait(self, deadline: Deadline) -> bool:
        """Until it is there; false at the deadline: then it may come to be there, or not. Raises ``OSError``: then
        nothing of it is."""
        woken = False
        try:
            woken = wait_by(self.ticket, deadline)
        finally:
            woken = woken or not leave(self.ticket)
            if woken and self.line is not None:
                self.line.wake_next()
        if not (woken or self.is_decided):
            return False
        raise_for(self.error)
        return True


class Storing:
    """Whatever is said to be ``under route`` is called under the router's lock, which guards the reservoir, too."""

    def __init__(self, file: Outbox, committer: Committing[Change], life: Life, route: Lock, router: Router,
                 new_receipt: Callable[[bytes], Receipt], work_for: Callable[[Iterable[Lane]], None],
                 made_room: Callable[[], None]) -> None:
        """``work_for(lanes)`` has what was queued there written by the network thread, and ``made_room()`` wakes those
        who wait for some; both from any thread."""
        assert router.stored is not None
        self.receipts: MutableMapping[bytes, Receipt] = WeakValueDictionary()
        """Those that somebody still has, by message id."""
        self._file = file
        self._committer = committer
        self._reservoir = router.stored
        self._life = life
        self._route = route
        self._router = router
        self._new_receipt = new_receipt
        self._work_for = work_for
        self._made_room = made_room
        self._count = 0
        self._ghosts: set[Key] = set()
        """What is acknowledged, and could not be taken out of the file yet."""

    # From any thread

    def begin(self, payloads: Sequence[bytes], addressee: bytes | None, *, lines_up: bool = False) -> Sending | None:
        """Have these written, in one transaction, and then placed; as many as there is room for, though the last of
        them may pass the mark in bytes, and ``None`` if there is none. Only who is going to wait for it, and cannot be
        interrupted in that, ``lines_up``: see `Line`. Under ``route``. Raises `ClosedError`."""
        reservoir = self._reservoir
        messages, size = reservoir.room(addressee)
        if messages <= 0 or size <= 0:
            return None
        payloads = _up_to(payloads[:messages], size)
        at = time.time()
        first, prefix = self._count + 1, self._file.prefix
        new = [Stored(prefix + number.to_bytes(8, "big"), addressee, at, payload)
               for number, payload in enumerate(payloads, first)]
        receipts = [self._new_receipt(message.message_id) for message in new]
        stream = reservoir.stream(addressee)
        sending = Sending(stream, new, receipts, sum(map(len, payloads)), lines_up)
        self._committer.submit(Change(new, ()), self._decided, sending)
        self._count += len(new)
        reservoir.comes(stream, len(new), sending.size)
        return sending

    def look_for(self, identity: bytes) -> None:
        """That peer may have room: the same. Under ``route``."""
        if self._reservoir.beyond:
            self.look(None)
            self.look(identity)

    def look(self, addressee: bytes | None) -> None:
        """There may be somebody to get what waits in the file: ask for a page of it. Under ``route``."""
        stream = self._reservoir.stream(None) if addressee is None else self._reservoir.find(addressee)
        if stream is not None and stream.is_behind and not stream.asked and self._is_wanted(stream):
            stream.asked = True
            self._committer.ask(partial(self._file.page, addressee, stream.loaded),
                                partial(self._loaded, stream, stream.visit))

    def _is_wanted(self, stream: Stream) -> bool:
        """Whether somebody has room, and memory has nothing that would go first."""
        router = self._router
        if stream.addressee is None:
            return (not router.waiting and len(router.homeless) < MOST_WAITING
                    and any(map(router.has_room, router.ring)))
        lane = router.find(stream.addressee)
        return lane is not None and not router.parked.of(stream.addressee) and router.has_room(lane)

    def gone(self, messages: Iterable[Message | None]) -> None:
        """These, and not those that are ``None``, are acknowledged, or given up on. Under ``route``."""
        keys = []
        for message in messages:
            if message is not None:
                keys.append((message.message_id, message.addressee))
                size = len(payload_of(message))
                self._reservoir.goes(self._reservoir.stream(message.addressee), 1, size)
        if keys:
            self._committer.submit_later(Change((), keys), self._taken_out, keys)

    def left(self, identity: bytes) -> None:
        """A peer has gone: what it alone is to get is in the file. Under ``route``."""
        if self._router.find(identity) is None:
            forgotten = self._router.parked.take(identity)
            if forgotten:
                self._reservoir.forgets(self._reservoir.stream(identity), len(forgotten))

    # The outbox's thread

    def _decided(self, sendings: Sequence[Sending], error: Exception | None) -> None:
        try:
            self._work_for(self._settle(sendings, error))
            if error is not None:
                self._made_room()
        finally:  # whatever has gone wrong, nobody is to wait for ever
            for sending in sendings:
                sending.error = error
                sending.is_decided = True
            _wake(sendings)

    def _settle(self, sendings: Sequence[Sending], error: Exception | None) -> list[Lane]:
        lanes: list[Lane] = []
        with self._route:
            for sending in sendings:
                if error is None:
                    lanes += self._written(sending)
                else:
                    self._reservoir.not_written(sending.stream, len(sending.messages), sending.size)
        return lanes

    def _written(self, sending: Sending) -> list[Lane]:
        """It is in the file: the lanes that have got something of it."""
        stream, count = sending.stream, len(sending.messages)
        self._reservoir.written(stream, count)
        for receipt in sending.receipts:
            self.receipts[receipt.message_id] = receipt
        if self._life.closed:
            self._keep(sending.receipts)
        elif stream.beyond == stream.unwritten + count:
            return self._place_newest(stream, sending.messages)
        return []

    def _place_newest(self, stream: Stream, messages: list[Stored]) -> list[Lane]:
        """As many as somebody has room for: nothing older waits in the file."""
        lanes: list[Lane | None] = []
        placed = 0
        for stored in messages:
            if not self._is_wanted(stream):
                break
            lanes.append(self._place(stored))
            placed += 1
        if placed:
            self._reservoir.loads(stream, placed, messages[placed - 1].message_id)
        return [*filter(None, dict.fromkeys(lanes))]

    def _loaded(self, stream: Stream, visit: int, page: Page | Exception) -> None:
        with self._route:
            stream.asked = False
            if isinstance(page, Exception):
                error: Exception | None = page
                lanes = []
            else:
                error = None
                fits = visit == stream.visit and self._is_wanted(stream) and not self._life.closed
                lanes = self._place_page(stream, page) if fits else []
            self._reservoir.tidy(stream)
            if error is None:
                self.look(stream.addressee)
        self._work_for(lanes)
        if error is not None:
            say(log, logging.ERROR, "the outbox cannot be read: %s", error)

    def _place_page(self, stream: Stream, page: Page) -> list[Lane]:
        if not page.messages:
            self._reservoir.there_are_no_more(stream)
            return []
        wanted = [stored for stored in page.messages if (stored.message_id, stored.addressee) not in self._ghosts]
        lanes = [*map(self._place, wanted)]
        self._reservoir.loads(stream, len(wanted), page.messages[-1].message_id)
        return [*filter(None, dict.fromkeys(lanes))]

    def _place(self, stored: Stored) -> Lane | None:
        return self._router.place_stored(reliable_frame(stored.message_id, stored.payload, self._router.large,
                                                        stored.addressee))

    def _taken_out(self, some: Sequence[Sequence[Key]], error: Exception | None) -> None:
        """Or not: then it is tried again, for as long as it takes."""
        if error is None:
            if self._ghosts:
                self._ghosts.difference_update(*some)
            return
        if not self._ghosts:
            say(log, logging.ERROR, "messages that are delivered cannot be taken out of the outbox: %s", error)
        keys = [key for keys in some for key in keys]
        self._ghosts.update(keys)
        if not self._life.closed:
            self._committer.submit_later(Change((), keys), self._taken_out, keys)

    # The end

    def keep_all(self) -> None:
        """Nothing is sent any more, and nobody need wait. Under ``route``."""
        self._keep(tuple(self.receipts.values()))
        self.receipts.clear()

    def close(self) -> None:
        """Write what there is, and let go of the file; returns at once."""
        self._committer.close()

    def join(self, timeout: float) -> None:
        """Wait for that, so many seconds."""
        self._committer.join(timeout)

    @staticmethod
    def _keep(receipts: Iterable[Receipt]) -> None:
        for receipt in receipts:
            receipt._fail(KEPT)


def _wake(sendings: Sequence[Sending]) -> None:
    """Those who wait for them."""
    line = Line([sending.ticket for sending in sendings if sending.lines_up])
    for sending in sendings:
        if sending.lines_up:
            sending.line = line
        else:
            Line([sending.ticket]).wake_next()
    line.wake_next()


def _up_to(payloads: Sequence[bytes], size: int) -> Sequence[bytes]:
    """As many of them as there are when so many bytes are reached."""
    for count, payload in enumerate(payloads, 1):
        size -= len(payload)
        if size <= 0:
            return payloads[:count]
    return payloads
