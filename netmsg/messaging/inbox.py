"""The receive queue: from the network thread to the threads in ``recv``.

The network thread delivers one batch a read. A thread in ``recv`` takes the messages of the *current* batch without a
lock, by ``queue[0]`` and ``del queue[0]`` and a return, in straight-line code: the interpreter sees to signals and to
other threads at calls and backward jumps only, so that neither Ctrl-C nor a second consumer can come between the
taking and the return. Everything slower happens once a batch.

Acknowledgements are not sent by the taker but derived from what it has taken: the network thread looks at the queue of
the current batch as long as messages leave it. So no message is acknowledged before it is handed over, and an
interrupt cannot separate the two either.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from ..deadline import Deadline
from ..locks import new_lock
from ..uninterrupted import undivided
from ..waiting import Signal, Ticket, Waiters
from .credit import Credit

__all__ = ["Batch", "Inbox", "NOTHING", "PairBatch", "ReliableBatch", "RequestBatch"]

T = TypeVar("T")


class Batch:
    """Messages of one peer, in order."""

    __slots__ = ("count", "credit", "finished", "identity", "large_bytes", "queue")

    watched = True
    """Whether messages may be taken: those to be acknowledged only while the network thread looks at what is taken."""
    bare = True
    """Whether the queue holds payloads; or pairs of an id, or ``None``, and a payload, of which none is taken unasked.
    """

    def __init__(self, credit: Credit, messages: Iterable[Any], count: int = 0, large_bytes: int = 0) -> None:
        self.credit = credit
        self.identity = credit.identity
        self.queue: deque[Any] = deque(messages)
        self.count = count
        """How many count against the receive mark of their sender; 0 once they count as taken."""
        self.large_bytes = large_bytes
        self.finished = False
        """Whether it has been told that all is taken."""

    def taken_ids(self) -> list[bytes]:
        """The ids, to be acknowledged, of messages taken since the last look. For the network thread."""
        return []


class PairBatch(Batch):
    """Messages that are acknowledged by hand, and others among them."""

    __slots__ = ()

    bare = False


class RequestBatch(PairBatch):
    """Requests, by their correlation ids."""

    __slots__ = ()


class ReliableBatch(Batch):
    """Messages that are acknowledged as they are taken."""

    __slots__ = ("acknowledged", "handed_over", "message_ids", "ticking", "watched")

    def __init__(self, credit: Credit, messages: list[bytes], message_ids: list[bytes], large_bytes: int) -> None:
        super().__init__(credit, messages, len(messages), large_bytes)
        self.message_ids = message_ids
        self.acknowledged = 0
        """How many of those have been."""
        self.handed_over: deque[bytes] = deque()
        """Messages that were not taken from here but from another batch: see `by_hand`."""
        self.watched = False
        self.ticking = False
        """Whether the network thread is going to look again."""

    def by_hand(self) -> Batch:
        """What is left of it, as a batch that is acknowledged by hand: its messages count against the mark until they
        are, and each is weighed then. For a taker, under the inbox's lock."""
        nothing: deque[bytes] = deque()
        self.handed_over = self.queue  # no call between the two: the network thread looks at what has been taken
        self.queue = nothing
        left = self.handed_over
        rest = PairBatch(self.credit, zip(self.message_ids[len(self.message_ids) - len(left):], left))
        count, size = len(left), sum(map(len, left))
        self.count -= count
        self.large_bytes -= size  # less than nothing, where it was not weighed
        return rest

    def taken_ids(self) -> list[bytes]:
        taken = len(self.message_ids) - len(self.queue) - len(self.handed_over)
        ids = self.message_ids[self.acknowledged:taken]
        self.acknowledged = taken
        return ids


class _Held:
    """What is not handed over for now, of one peer."""

    __slots__ = ("batches", "by")

    def __init__(self) -> None:
        self.batches: deque[Batch] = deque()
        """Oldest first; those that have come since may still be among the others."""
        self.by: set[object] = set()
        """Who wants that."""


NOTHING = Batch(Credit(b"", 0, 0), ())
"""The batch that is current while none may be taken from without asking."""
NOTHING.finished = True


def _pair(batch: Batch, message: Any) -> tuple[Batch, Any]:
    return batch, message


class Inbox:
    """``watch(batch)`` is called when somebody begins to take from a batch that is to be acknowledged, and
    ``finished(batch)`` when all of a batch has been taken; both by the taker, and perhaps more than once."""

    def __init__(self, watch: Callable[[ReliableBatch], None], finished: Callable[[Batch], None]) -> None:
        self.current = NOTHING
        """What `take` and the hot path of ``recv`` take from."""
        self.waiters = Waiters()
        self.special_ticket: Callable[[], Ticket | None] | None = None
        """For `Waiters.wait`."""
        self._watch = watch
        self._finished = finished
        self._lock = new_lock()  # guards the change of batch and the state of `_signal`; a leaf
        self.last = NOTHING
        """The batch last taken from, which may be exhausted without anybody having said so yet."""
        self._batches: deque[Batch] = deque()
        self.append_batch = self._batches.append
        """The essence of `deliver`: one call into C, which an interrupt cannot split. `delivered` is to follow."""
        self._held: dict[bytes, _Held] = {}  # by identity
        self.by_hand = False
        """Whether what would be acknowledged as it is taken, is acknowledged by hand instead."""
        self._closed = False
        self._signal: Signal | None = None
        self._signalled = False

    # The network thread

    @staticmethod
    @undivided
    def replace(batch: Batch, message: Any, size: int) -> bool:
        """Have ``message``, which counts as so many bytes, taken in the place of the last one of a batch; false if that
        has been taken, or counts as such."""
        if not batch.queue or not batch.count:
            return False
        batch.queue[-1] = message
        batch.large_bytes = size
        return True

    def deliver(self, batch: Batch) -> None:
        """Queue a batch. Whoever calls this has then to notify `waiters`."""
        self._batches.append(batch)
        self.delivered()

    def delivered(self) -> None:
        """A batch has been appended by `append_batch`."""
        if self._signal is not None:
            with self._lock:
                if self._held and self._batches and self._batches[-1].identity in self._held:
                    self._set_aside(self._batches.pop())
                if self._ready():
                    self._set_signal()

    def _set_aside(self, batch: Batch) -> None:
        """One of somebody who is held. Under the lock."""
        self._held[batch.identity].batches.append(batch)

    def count_taken(self) -> None:
        """Count a batch that is exhausted as taken, although who took the last message has not come back."""
        with self._lock:
            if not self.last.queue:
                self._finish(self.last)

    def unwatch(self, batch: ReliableBatch) -> None:
        """Stop taking from ``batch`` unasked: the next taker comes by `refill`, and has it watched again."""
        with self._lock:
            batch.watched = False
            if self.current is batch:
                self.current = NOTHING

    # The takers

    def take_by_hand(self) -> None:
        """What is taken from here on is not acknowledged by being taken."""
        with self._lock:
            self.by_hand = True
            if isinstance(self.last, ReliableBatch):
                self.last.watched = False
            self.current = NOTHING

    def hold(self, identity: bytes, who: object) -> None:
        """Hand over nothing of that peer, until `let_go` by the same ``who``: it waits here, and counts."""
        with self._lock:
            held = self._held.get(identity)
            if held is None:
                held = self._held[identity] = _Held()
            held.by.add(who)
            batch = self.last
            if batch.identity == identity and batch.queue:
                self._set_aside(batch)
                self.last = self.current = NOTHING
            if self._signal is not None:
                self._sift()
                if not self._ready():
                    self._clear_signal()

    def _sift(self) -> None:
        """Set aside what has come of those who are held, so that nobody is told of it. Under the lock."""
        waiting = [self._batches.popleft() for _ in range(len(self._batches))]
        for batch in waiting:
            if batch.identity in self._held:
                self._set_aside(batch)
        self._batches.extendleft(batch for batch in reversed(waiting) if batch.identity not in self._held)

    def let_go(self, identity: bytes, who: object) -> None:
        """What was held comes next, for its turn had come before it was that of the others. May be repeated, and is
        called where no interrupt can come."""
        with self._lock:
            held = self._held.get(identity)
            if held is None:
                return
            held.by.discard(who)
            if held.by:
                return
            del self._held[identity]
            self._batches.extendleft(reversed(held.batches))
            if self._ready():
                self._set_signal()
        self.waiters.notify_all()

    def refill(self) -> Batch:
        """The batch to take from next, made current; `NOTHING` if there is none."""
        with self._lock:
            batch = self.last
            while True:  # not "while not": see `netmsg.streams.turns.Turn`
                if batch.queue:
                    break
                if not batch.finished:
                    self._finish(batch)
                if self._closed or not self._batches:
                    self.last = self.current = NOTHING
                    return NOTHING
                batch = self.last = self._batches[0]
                del self._batches[0]
                if self._held and batch.identity in self._held:
                    self._set_aside(batch)
                    batch = self.last = NOTHING
            if self._closed:
                return NOTHING
            if not batch.watched:
                assert isinstance(batch, ReliableBatch)
                if self.by_hand:
                    rest = batch.by_hand()
                    self._finish(batch)
                    batch = self.last = rest
                else:
                    self._watch(batch)
                    batch.watched = True
            if self._signal is None and batch.bare:
                self.current = batch
                if self._closed:  # meanwhile: `close` takes no lock
                    self.current = NOTHING
            else:
                self.current = NOTHING
        if self.waiters.waiting:
            self.waiters.notify()  # there may be enough for another taker
        return batch

    def _finish(self, batch: Batch) -> None:
        """All of a batch counts as taken. Under the lock."""
        if batch.finished:
            return
        credit = batch.credit
        # No call until the numbers are right.
        credit.taken += batch.count
        credit.taken_bytes += batch.large_bytes
        batch.count = batch.large_bytes = 0
        self._finished(batch)
        batch.finished = True

    def _ready(self) -> object:
        return self.last.queue or self._batches or self._closed

    def _wait(self, deadline: Deadline) -> None:
        """Wait until there is something to take, or the end. Raises ``TimeoutError``."""
        if self._signal is not None:
            with self._lock:
                if not self._ready():
                    self._clear_signal()
        if not self.waiters.wait(self._ready, deadline, self.special_ticket):
            raise TimeoutError("no message in time")

    def take(self, deadline: Deadline) -> tuple[Batch, Any] | None:
        """One message and its batch, as it is in there; ``None`` once closed. Raises ``TimeoutError``."""
        if self._signal is not None:
            return self.take_as(_pair, deadline)
        try:
            while True:
                batch = self.last
                if not (batch.queue or self._batches or self._closed):
                    if not batch.finished:
                        with self._lock:
                            if not batch.queue:
                                self._finish(batch)
                    if not self.waiters.wait(self._ready, deadline, self.special_ticket):
                        raise TimeoutError("no message in time")
                batch = self.refill()
                queue = batch.queue
                if queue and batch.watched:
                    message = queue[0]
                    del queue[0]
                    return batch, message
                if self._closed:
                    return None
                del batch, queue  # not an "if" at the end: see `netmsg.streams.turns.Turn`
        except BaseException:
            self.waiters.notify()  # interrupted, perhaps, after it was woken: somebody else has to have the message
            raise

    def take_as(self, make: Callable[[Batch, Any], T], deadline: Deadline) -> T | None:
        """One message, as what ``make`` makes of it and its batch; ``None`` once closed. Raises ``TimeoutError``.

        It is made first and taken second: an interrupt in the making loses nothing.
        """
        try:
            while True:
                batch = self.refill()
                if batch.queue:
                    made = self._take_made(batch, make)
                    if made is not None:
                        return made
                elif self._closed:
                    return None
                else:
                    self._wait(deadline)
        except BaseException:
            self.waiters.notify()  # see `take`
            raise

    def _take_made(self, batch: Batch, make: Callable[[Batch, Any], T]) -> T | None:
        """``None`` if another thread was faster."""
        queue = batch.queue
        try:
            message = queue[0]
            made = make(batch, message)
            if self._signal is not None:
                # Readable for exactly as long as there are more. Nobody takes but by this way and `take_many`.
                with self._lock:
                    if len(queue) <= 1:
                        # In advance: who waits in a selector does not come back before there is more.
                        self._finish(batch)
                        if not self._batches:
                            self._clear_signal()
            if queue and queue[0] is message and batch.watched:
                del queue[0]
                return made
        except IndexError:
            pass
        except BaseException:
            if self._signal is not None:
                with self._lock:
                    self._set_signal()
            raise
        if self._signal is not None:
            with self._lock:
                if self.last.queue or self._batches:
                    self._set_signal()
        return None

    def take_many(self, max_messages: int, deadline: Deadline) -> list[Any] | None:
        """The payloads of at least one message and at most ``max_messages``; ``None`` once closed. Raises
        ``TimeoutError``."""
        try:
            while True:
                batch = self.refill()
                if batch.queue:
                    taken = self._take_from(batch, max_messages)
                    if taken:
                        return taken
                elif self._closed:
                    return None
                else:
                    self._wait(deadline)
        except BaseException:
            self.waiters.notify()  # see `take`
            raise

    def _take_from(self, batch: Batch, max_messages: int) -> list[Any]:
        """Nothing, if another thread was faster."""
        taken: list[Any] = []
        queue: deque[Any] = batch.queue
        try:
            try:
                for _ in range(max_messages):
                    message = queue[0]
                    del queue[0]
                    taken += (message,)
            except IndexError:
                pass
            with self._lock:
                if not queue:
                    self._finish(batch)
                if self._signal is not None and not self._ready():
                    self._clear_signal()
            if taken and isinstance(batch, ReliableBatch):
                self._watch(batch)
            return taken if batch.bare else [payload for _, payload in taken]
        except BaseException:
            queue.extendleft(taken[::-1])
            if self.last is not batch:  # another thread went on to the next
                self._batches.appendleft(batch)
            if self._signal is not None:
                with self._lock:
                    self._set_signal()
            raise

    # A descriptor for selectors

    def fileno(self) -> int:
        """A descriptor that is readable while a message waits, and once closed. The first call makes every take go by
        the lock, for only then can the two be kept in step."""
        with self._lock:
            if self._signal is None:
                signal = Signal()
                signal.set()
                # No call until all of it is done. Who is interrupted before the look has a descriptor that is readable
                # without reason, until somebody has looked, and not one that never is.
                self._signalled = True
                self.current = NOTHING
                self._signal = signal
                if not self._ready():
                    self._clear_signal()
            return self._signal.fileno()

    def _set_signal(self) -> None:
        # Written first and noted second, and the other way round below: an interrupt in between leaves at worst a
        # second byte, or one too many, never one too few.
        if self._signal is not None and not self._signalled:
            self._signal.set()
            self._signalled = True

    def _clear_signal(self) -> None:
        if self._signal is not None and not self._closed:
            self._signalled = False
            self._signal.clear()
            if self._closed:  # meanwhile: `close` takes no lock
                self._signal.set()

    # The end

    def close(self) -> None:
        """No more messages are handed over. Takes no lock, for a signal handler may call it."""
        self._closed = True
        self.current = NOTHING
        self.waiters.notify_all()
        self._signalled = False
        self._set_signal()

    def release(self) -> tuple[Batch, ...]:
        """What was never taken, at the very end."""
        with self._lock:  # somebody may be let go of at the same time
            return self._release()

    def _release(self) -> tuple[Batch, ...]:
        held = [batch for one in self._held.values() for batch in one.batches]
        left = (self.last, *held, *self._batches)
        self._batches.clear()
        self._held.clear()
        return left
