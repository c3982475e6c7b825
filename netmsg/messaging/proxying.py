"""A proxy: two Søckets, and whatever comes by the one leaves by the other."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from ..aside import aside
from ..deadline import Deadline, Revocable
from ..errors import ClosedError, LocalProtocolError
from ..locks import new_lock
from ..waiting import Waiters
from . import exiting
from .deliveries import Delivery
from .engine import Engine
from .receipts import Receipt
from .relaying import LOOK, Questions, Relay
from .requests import Request
from .smart_socket import Søcket

__all__ = ["proxy", "relay_between"]

FOREVER: Final = Deadline(None)
_numbers = itertools.count(1)


def proxy(frontend: Søcket[Any], backend: Søcket[Any], *, both_ways: bool = False) -> None:
    """Hand on what comes by ``frontend`` to the peers of ``backend``, until either is closed: the middle of two
    services that both come and go. With ``both_ways`` the other way round as well.

    A message goes to whom ``backend`` sends to, by its send mode, and waits where it has no room, so that nothing piles
    up in here. One that was sent at least once is acknowledged in front when ``backend`` has accepted it; if
    ``backend`` sends at least once too, when it has been acknowledged there, and any number may be on their way. So a
    proxy that is killed loses none of them: their senders have them, and send them again, to another proxy if they
    are connected to several. It may come twice then. What ``backend`` gives up is handed back (`Delivery.nack`).

    With ``both_ways`` a Søcket that sends at least once waits for acknowledgements that stand behind what comes the
    other way; where both directions are flooded, they may wait for each other for ever. Two proxies, each one way and
    between two Søckets of its own, do not.

    Requests are passed on to peers that answer them, and their replies, or why there is none, to those who have asked.
    At most some 10,000 wait at a time, and 64 MiB of them; with one more, the oldest is told so of whoever has most.
    An asker who takes nothing for 15 seconds loses his replies; the others do not wait for him.

    From here on what is taken from ``frontend`` (with ``both_ways``, from both) is acknowledged by hand, as with
    ``AckMode.MANUAL``. A message that is too long for the other end, or that it refuses (``OnFull.RAISE``, a full
    disk), is handed back, or counted as dropped; the log warns of the first of many in a row.

    Blocks; the work is done in threads of its own (``netmsg-proxy-N``). Returns when one of the two is closed, by
    whomever, and leaves the other open; whoever interrupts it leaves both open. Raises `ClosedError` if one is closed
    already, ``ValueError`` for one and the same Søcket, ``TypeError`` for anything else, ``RuntimeError`` where no
    thread can be started.
    """
    for end in (frontend, backend):
        if not isinstance(end, Søcket):
            raise TypeError(f"proxy joins two Søckets, not {type(end).__name__}")
    if frontend is backend:
        raise ValueError("proxy needs two Søckets, not one")
    for sock in (frontend, backend):
        exiting.check_open(sock._engine.life)
        if sock._engine.io.is_current:
            raise LocalProtocolError("a proxy, on the network thread itself")
    _Proxy(frontend, backend, both_ways).run()
    exiting.stay_blocked()


def relay_between(front: Søcket[Any], back: Søcket[Any], wake: Callable[[], None]) -> tuple[Relay, Questions]:
    """One direction of a proxy, for somebody who sees to it. What comes in front is acknowledged by hand from here on.
    """
    front._acknowledge_by_hand()
    source, sink = _End(front._engine), _End(back._engine)
    questions = Questions(source, sink, wake)
    return Relay(source, sink, questions), questions


class _End:
    """A Søcket, as a proxy needs it. See `Source` and `Sink`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._sender = engine.sender
        self._requesting = engine.sender.requesting
        self._receiver = engine.receiver
        self.max_message_size = engine.receiver.max_message_size
        self.take = self._receiver.take_delivery
        self.settle = self._receiver.settle_soon
        self.follow = self._sender.follow
        self.end = self._requesting.end
        self.has_room = self._sender.has_room_for_answer
        self.taken_by = self._sender.taken_by
        self.listen = self._sender.listen
        self.unlisten = self._sender.unlisten

    def attach(self, tell: Callable[[], None]) -> None:
        """``tell()`` is called when it is closed."""
        self._engine.follow_closing(tell)
        self._sender.begin_following(self)

    def detach(self, tell: Callable[[], None]) -> None:
        self._engine.unfollow_closing(tell)
        self._sender.end_following(self)

    @property
    def closed(self) -> bool:
        return self._engine.life.over

    def wake(self) -> None:
        """Who waits here has to look at the deadline. Takes no lock."""
        self._receiver.inbox.waiters.notify_all()
        self._sender.wake_all()

    def lose(self, delivery: Delivery, reason: str) -> None:
        self._sender.dropped(reason, 1, delivery.identity)

    def is_there(self, identity: bytes) -> bool:
        return self._sender.find(identity) is not None

    def give(self, data: bytes, deadline: Deadline) -> Receipt | None:
        return self._sender.send(data, None, deadline)

    def ask(self, data: bytes, wake: Callable[[], None]) -> Request:
        return self._requesting.begin(data, None, wake)

    def go_on(self, request: Request) -> bytes | None:
        self._requesting.go_on(request, FOREVER)
        if request.settled:
            return self._requesting.outcome(request)
        if self.closed:
            raise ClosedError("the proxy has ended")
        return None


class _Proxy:
    """One call of `proxy`, for as long as that lasts."""

    def __init__(self, frontend: Søcket[Any], backend: Søcket[Any], both_ways: bool) -> None:
        self._ends = _End(frontend._engine), _End(backend._engine)
        self._until = Revocable()
        self._waiters = Waiters()  # for whoever has called
        self._asking = Waiters()  # for the threads that see to requests
        self._running: list[threading.Thread] = []
        self._starting = new_lock()  # guards whether they are started, once it has been told to stop; a leaf
        self._ended: list[None] = []
        """As many as have come to their end."""
        self._failure: BaseException | None = None
        self._steps: list[Callable[[], None]] = []
        ways = [(frontend, backend), (backend, frontend)]
        for front, back in ways if both_ways else ways[:1]:
            relay, questions = relay_between(front, back, self._asking.notify_all)
            self._steps += partial(self._hand_on, relay), partial(self._see_to, questions)

    def run(self) -> None:
        """Raises what a thread has ended by."""
        try:
            aside(self._start)
            if not any(end.closed for end in self._ends):  # meanwhile
                self._waiters.wait(lambda: self._until.expired, FOREVER)
        finally:
            try:
                self._end()
            except BaseException:  # interrupted, perhaps once more
                aside(self._end)
                raise
        if self._failure is not None:
            raise self._failure

    def _start(self) -> None:
        """Done wholly, or not at all; perhaps not before whoever waited for it has been interrupted: see `aside`."""
        with self._starting:
            if self._until.expired:
                return
            for end in self._ends:
                end.attach(self._stop)
            number = next(_numbers)
            for step in self._steps:
                thread = threading.Thread(target=self._work, args=(step,), name=f"netmsg-proxy-{number}", daemon=True)
                thread.start()
                self._running.append(thread)

    def _stop(self) -> None:
        """From any thread, and a signal handler. Takes no lock."""
        self._until.revoke()
        for end in self._ends:
            end.wake()
        self._asking.notify_all()
        self._waiters.notify_all()

    def _end(self) -> None:
        """All of its threads are over when this is. May be repeated."""
        self._stop()
        with self._starting:
            running = tuple(self._running)
        self._waiters.wait(lambda: len(self._ended) == len(running), FOREVER)
        self._detach()
        for thread in running:
            thread.join()  # for no time: some versions take a thread for ended whose joining was interrupted

    def _work(self, step: Callable[[], None]) -> None:
        try:
            step()
        except BaseException as error:
            self._failure = error
        self._ended.append(None)
        if len(self._ended) == len(self._steps):
            self._detach()  # here no interrupt comes, and whoever is interrupted over and over may leave it out
        self._stop()

    def _detach(self) -> None:
        for end in self._ends:
            end.detach(self._stop)

    def _hand_on(self, relay: Relay) -> None:
        going_on = True
        try:
            while True:  # not "while going_on": see `netmsg.streams.turns.Turn`
                if self._until.expired or not going_on:
                    break
                going_on = relay.step(self._until)
        except (TimeoutError, ClosedError):
            pass  # the end
        finally:
            relay.end()

    def _see_to(self, questions: Questions) -> None:
        until = self._until.sooner(LOOK)
        try:
            while True:
                if self._until.expired:
                    break
                questions.go_on()
                if until.expired:
                    questions.look()
                    until = self._until.sooner(LOOK)
                self._asking.wait(lambda: questions.news or self._until.expired,
                                  until if questions.any else self._until)
        finally:
            questions.end()
