"""Patience with a client that does not receive what it is sent: who waits for it, and how long."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, Protocol

from ..deadline import Deadline
from ..errors import SendTimeoutError
from ..reactor.channel import Channel
from ..reactor.reactor import Timer, on_a_loop
from ..sockets.lingering import unacknowledged
from ..standing_in import standing_in
from ..waiting import Waiters
from .packet_home import Terms
from .patience import Patience
from .send_queue import SendQueue

__all__ = ["Backpressure"]

BRIEFLY: Final = 0.005
"""Seconds that a worker waits for somebody before another one takes its place."""
FAR_ABOVE: Final = 16
"""Times the mark: where nothing waits for a client, others may have so much queued for it, and no more."""


class Client(Protocol):
    """The client that is waited for."""

    @property
    def closed(self) -> bool:
        """Whether it is over, or about to be."""

    @property
    def has_the_turn(self) -> bool:
        """Whether the caller is in a step of its handler."""

    def look(self) -> None:
        """Something has changed. On the loop."""

    def gave_way(self) -> None:
        """Those who have waited for room had their turn. On the loop."""

    def heard(self) -> object:
        """Another one whenever the handler has heard more of it, or is yet to hear what has come. On the loop."""

    def broke(self) -> None:
        """What sending has failed with is the end. On the loop."""

    def give_up(self, kind: str, why: str) -> None:
        """Close it at once. From any thread."""

    def _crashed(self, error: Exception) -> None:
        """A step has failed."""


class Gone:
    """In the place of a client that is over, and is not to be kept alive."""

    closed = True
    has_the_turn = False

    def heard(self) -> object:
        return None

    def look(self) -> None:
        """Nobody looks."""

    gave_way = broke = look

    def give_up(self, kind: str, why: str) -> None:
        """It has gone."""

    def _crashed(self, error: Exception) -> None:
        """It has gone."""


GONE: Final = Gone()


class Backpressure:
    """Above the server's ``send_hwm_bytes`` that wait in ``queue`` for one client, whoever sends waits for room, up to
    its ``send_timeout``. Where nobody waits, the client has that time to take anything at all."""

    __slots__ = ("_client", "_queue", "_terms", "_channel", "_waiters", "_timer", "_giving_way", "_deaf", "_leaving",
                 "_given_up", "_seen")

    def __init__(self, client: Client, terms: Terms, queue: SendQueue, channel: Channel) -> None:
        self._client: Client = client
        self._terms = terms
        self._queue = queue
        self._channel = channel
        self._waiters: Waiters | None = None  # for room, or for whatever else; few connections ever have any
        self._timer: Timer | None = None  # looks whether the client is to be given up
        self._giving_way: Timer | None = None  # to those who have waited for room
        self._deaf = False  # nothing can be sent any more
        self._leaving = False  # nothing is sent any more
        self._given_up = False
        self._seen: tuple[object, float] | None = None  # what `_moved` was when it last changed, and when that was

    @property
    def behind(self) -> bool:
        """Whether more waits for the client than is to."""
        return self._queue.size >= self._terms.send_hwm_bytes and self._queue.waits

    # Waiting, in any thread

    def wait_for_room(self, timeout: float | None, *, explicit: bool) -> None:
        """Return when there is room, or nothing can be sent any more. Raises `SendTimeoutError` after ``timeout``
        seconds, or if that is not ``explicit`` after those that the server has set, and then the client is closed as
        well."""
        queue, client = self._queue, self._client
        if on_a_loop():
            self._pass_the_mark(explicit)
            return
        deadline = Deadline(timeout if explicit else self._terms.send_timeout)
        if not self.wait(lambda: not self.behind or client.closed or queue.failure is not None, deadline):
            if not explicit:
                self.close_slow()
            raise SendTimeoutError(f"{queue.size} bytes have been waiting to be sent to this client")
        if self._giving_way is not None:
            self._terms.io.call(client.look)

    def _pass_the_mark(self, explicit: bool) -> None:
        """On a loop, this client's or another one, nothing waits. What the client's own step sends comes to an end, for
        no other one begins above the mark; what others send need not."""
        queue, io, most = self._queue, self._terms.io, FAR_ABOVE * self._terms.send_hwm_bytes
        if not explicit:
            own = self._client.has_the_turn
            if not own and queue.size >= most:
                queue.flush()
            if own or queue.size < most:
                if io.is_current:
                    self._be_patient_while_behind()
                elif self._timer is None:
                    io.call(self._be_patient_while_behind)
                return
            self.close_slow()
        raise SendTimeoutError(f"{queue.size} bytes wait to be sent to this client")

    def wait(self, ready: Callable[[], object], deadline: Deadline) -> bool:
        """Wait for the client; if that takes more than a moment, another worker takes the place of this one."""
        waiters = self._waiting()
        if waiters.wait(ready, deadline.sooner(BRIEFLY)):
            return True
        if deadline.expired:
            return waiters.wait(ready, deadline)
        with standing_in(self):
            return waiters.wait(ready, deadline)

    def _waiting(self) -> Waiters:
        """They cost too much memory to have them in every connection."""
        with self._queue.lock:
            if self._waiters is None:
                self._waiters = Waiters()
            return self._waiters

    def tell(self) -> None:
        """Have those who wait look."""
        if self._waiters is not None:
            self._waiters.notify_all()

    def close_slow(self) -> None:
        """It has had its time."""
        self._give_up("slow", "it does not receive what it is sent")

    def _give_up(self, kind: str, why: str) -> None:
        """From any thread. Several may be tired of the same client."""
        with self._queue.lock:
            first = not self._given_up
            self._given_up = True
        if first:
            self._client.give_up(kind, why)

    # See `netmsg.standing_in.Awaited`

    @property
    def _awaited(self) -> bool:
        return not (self._client.closed or self._given_up)

    def _silent_since(self) -> float:
        moved = self._moved()
        if self._seen is None or self._seen[0] != moved:
            self._seen = moved, time.monotonic()
        return self._seen[1]

    def _give_up_for_others(self) -> None:
        self._give_up("blocked", "too many workers wait for clients, and this one has taken nothing for the longest")

    # Patience, on the loop

    def be_patient(self) -> None:
        """Give the client up once nothing has moved for as long as the server has set."""
        if self._timer is None and not self._given_up:
            patience = Patience(self._terms.send_timeout)
            self._timer = self._terms.io.call_later(patience.left(self._moved()), self._look_at, patience)

    def _be_patient_while_behind(self) -> None:
        if self.behind:
            self.be_patient()

    def be_patient_no_more(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_at(self, patience: Patience) -> None:
        self._timer = None
        left = patience.left(self._moved())
        if left > 0:
            self._timer = self._terms.io.call_later(left, self._look_at, patience)
        elif self._deaf:
            self._client.broke()
        else:
            self.close_slow()

    def _moved(self) -> object:
        """Another one whenever something has moved that the client is waited for."""
        if self._deaf:
            return self._client.heard()
        return self._queue.gone, unacknowledged(self._channel.socket), self._channel.handshake_moves

    def look(self) -> None:
        """Notice what has changed."""
        if self._queue.failure is not None and not self._deaf:
            self._go_deaf()
        if (self._timer is not None or self._waiters is not None) and not self.behind:
            if not (self._leaving or self._deaf):
                self.be_patient_no_more()
            self.tell()

    def _go_deaf(self) -> None:
        """Nothing can be sent any more; but what the client has sent before may still be read, up to its end."""
        self._deaf = True
        self.be_patient_no_more()
        self.be_patient()

    def leave(self) -> None:
        """Nothing more is sent: patience lasts until all has gone."""
        self._leaving = True
        self.be_patient()

    def gives_way(self) -> bool:
        """Whether the client's own packets wait for those who have been told that there is room: there may be none left
        by the time at which they have woken up."""
        if self._waiters is None or not self._waiters.waiting:
            return False
        if self._giving_way is None:
            self._giving_way = self._terms.io.call_later(BRIEFLY, self._has_given_way)
        return True

    def _has_given_way(self) -> None:
        self._giving_way = None
        self._client.gave_way()

    def cancel(self) -> None:
        """The socket is closed: nobody is waited for."""
        self._given_up = True
        self.be_patient_no_more()
        if self._giving_way is not None:
            self._giving_way.cancel()
        self.tell()

    def end(self) -> None:
        """Nothing is left of the client."""
        self._client = GONE

    def _crashed(self, error: Exception) -> None:
        self._client._crashed(error)
