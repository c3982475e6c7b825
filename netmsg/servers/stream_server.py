"""A handler for each connection, in a thread of its own as long as that lasts."""

from __future__ import annotations

import functools
import heapq
import logging
import math
import socket
import time
import weakref
from collections.abc import Callable
from threading import get_ident
from typing import Any, Final

from ..checks import check_size, check_timeout
from ..errors import NetmsgError, TLSHandshakeError
from ..reactor.handshaking import Handshake
from ..reactor.io_thread import IOThread
from ..reactor.reactor import READ, Timer
from ..sockets.lingering import all_acknowledged, unacknowledged
from ..standing_in import standing_in
from ..streams.byte_stream import inside
from ..streams.connection import IdleTimeoutError
from ..streams.listener import Listener
from ..streams.socket_stream import SocketStream, socket_link
from .connection_server import ConnectionServer
from .handlers import check_handler
from .patience import Patience
from .stats import ServerStats

__all__ = ["StreamServer"]

log = logging.getLogger("netmsg.servers")

SILENCE: Final = 10.0
"""Seconds that a handler may wait for its client while others wait for a worker, if there is no ``idle_timeout``."""
LOOK: Final = 0.5
"""Seconds between two looks for such handlers, while somebody waits for a worker."""
LINGER: Final = 5.0
"""Seconds in which a client may take nothing of what it was sent, once the handler has come to its end."""
LINGER_STEP: Final = 0.01
LONGEST_LINGER_STEP: Final = 0.2
LATELY: Final = 1.0
"""Seconds after which who has waited in vain does something else, and who was told that its time is up as well."""

StreamHandler = Callable[[SocketStream], Any]


class StreamServer(ConnectionServer):
    """Runs ``handler(stream)`` for each connection, in a worker thread, and closes the stream when it returns.

    :param handler: may use the `SocketStream` as long as it likes; TLS is established before it is called, unless the
        listener was made with ``autostart_tls=False``. What else it raises than what happened to the connection is
        logged, with the peer's address, and closes that connection only.
    :param listeners: `Listener` objects, which belong to the server from then on.
    :param max_workers: handlers that may run at a time. One that waits to send, or to close, does not count: up to 64
        others stand in, and past that the client that has been silent for the longest, and for two seconds, is closed;
        of a stream that is no client's the sends of workers end, with `SendTimeoutError`. Further connections wait,
        accepted, without a thread, and who has sent something comes first. While any wait, the handlers that wait for
        clients whose streams have been silent for the longest, and over 10 seconds (or ``idle_timeout``, if that is
        set), get a ``TimeoutError``, whatever their own ``timeout``, and however often that has run out. Nothing
        received and nothing sent is silence. Workers that are not needed any more go away.
    :param max_connections: those that run and wait together; when there are so many, accepting pauses.
    :param wait_for_data: call the handler only once the client has sent something, within ``idle_timeout``: silent ones
        cost no thread.
    :param idle_timeout: seconds for each call of the stream's that is given no ``timeout`` itself.
    :param io_thread: an `IOThread` to share; by default the server has its own.

    A context manager, which starts the server and shuts it down. May be used from any thread.
    """

    def __init__(self, handler: StreamHandler, *listeners: Listener, max_workers: int = 1000,
                 max_connections: int = 10_000, wait_for_data: bool = False, idle_timeout: float | None = None,
                 io_thread: IOThread | None = None) -> None:
        check_handler(handler)
        check_size("max_workers", max_workers)
        check_timeout(idle_timeout)
        super().__init__(listeners, max_workers, max_connections, io_thread, patient=False)
        self._handler = handler
        self._wait_for_data = wait_for_data
        self._idle_timeout = idle_timeout
        self._max_workers = max_workers
        self._at_work = 0  # connections that have a worker, or wait for one in the pool
        self._silent: dict[_Call, None] = {}  # and those who wait out of it: they have not sent anything yet
        self._looking: Timer | None = None

    # Who gets a worker, on the loop

    @property
    def _is_short_of_workers(self) -> bool:
        return self._at_work >= self._max_workers + self._pool.stand_ins

    def _hand_over(self, call: _Call) -> None:
        self._silent.pop(call, None)
        self._at_work += 1
        self._run_by_worker(call.run)
        self._look_soon()

    def _put_aside(self, call: _Call) -> None:
        """Until it sends something, or there are enough workers."""
        self._silent[call] = None
        self._look_soon()

    def _handed_back(self) -> None:
        """A handler has come to its end."""
        self._at_work -= 1
        self._hand_over_silent()

    def _hand_over_silent(self) -> None:
        while self._silent and not self._is_short_of_workers:
            next(iter(self._silent)).hand_over()

    def _stand_in(self) -> None:
        self._hand_over_silent()
        super()._stand_in()

    def _forget(self, connection: Any) -> None:
        self._silent.pop(connection, None)
        super()._forget(connection)

    def _waiting(self) -> int:
        """For a worker."""
        return len(self._silent) + min(len(self._pool.tasks), max(0, self._at_work - self._max_workers))

    def _look_soon(self) -> None:
        if self._looking is None and self._waiting():
            silence = SILENCE if self._idle_timeout is None else self._idle_timeout
            self._looking = self._io.call_later(min(LOOK, max(silence / 4, 0.01)), self._end_the_most_silent, silence)

    def _end_the_most_silent(self, silence: float) -> None:
        """As many as others wait for a worker. Whose time was up lately is about to end; who goes on with something
        else for longer is not counted upon."""
        self._looking = None
        calls = [call for call in self._connections if call.is_at_work]
        now = time.monotonic()
        wanted = self._waiting() - sum(call.given_up is not None and call.given_up > now - LATELY for call in calls)
        since = now - silence
        threads = {call.thread for call in calls}
        silent = ((call.silent_since(threads), number, call)
                  for number, call in enumerate(calls) if call.given_up is None)
        for _, _, call in heapq.nsmallest(wanted, (one for one in silent if one[0] <= since)):
            call.give_up()
        self._look_soon()

    def _accept(self, listener: Listener, sock: socket.socket, address: Any) -> _Call:
        stream = listener._stream(sock, address)
        inside(stream).time_out_when_idle(self._idle_timeout)
        other_end = _OtherEnd(self, weakref.ref(stream))
        socket_link(stream).awaited = other_end
        return _Call(self, sock, stream, other_end, listener._handshake_timeout)

    def stats(self) -> ServerStats:
        with self._counting:
            accepted, connections = self._accepted, len(self._connections)
        return ServerStats(
            connections=connections, accepted=accepted,
            handshakes=len(self._handshakes), handshakes_failed=self._handshakes_failed,
            waiting=len(self._pool.tasks) + len(self._silent), workers=self._pool.workers,
            handler_errors=self._handler_errors, accept_pauses=self._accept_pauses, accept_errors=self._accept_errors,
            closed_idle=self._closed_for["idle"], closed_blocked=self._closed_for["blocked"],
            closed_unsent=self._closed_unsent)


class _OtherEnd:
    """Whom those wait for who send to a stream."""

    def __init__(self, server: StreamServer, stream: weakref.ref[SocketStream]) -> None:
        self._server = server
        self._stream = stream  # which refers to this

    @property
    def _awaited(self) -> bool:
        stream = self._stream()
        return stream is not None and not inside(stream).aborted

    def _silent_since(self) -> float:
        stream = self._stream()
        if stream is None:
            return math.inf
        link = socket_link(stream)
        sender = inside(stream).sender
        if not (sender is None or sender in link.waits or inside(stream).is_shaking_hands or stream.closed):
            return math.inf  # who sends, and whom all others wait for, waits for something else, such as a file
        return link.seen_moving()

    def _give_up_for_others(self) -> None:
        stream = self._stream()
        if stream is not None:
            self._server._given_up("blocked", stream.remote_address,
                                   "too many workers wait for clients, and this one has taken nothing for the longest")
            if not stream.closed:
                socket_link(stream).reset()
            inside(stream).cut()


class _Call:
    """One connection: its handshake, perhaps the wait for its first byte, the wait for a worker, the handler."""

    def __init__(self, server: StreamServer, sock: socket.socket, stream: SocketStream, other_end: _OtherEnd,
                 handshake_timeout: float | None) -> None:
        self._server = server
        self._io = server._io
        self._socket = sock
        self._stream = stream
        self._inside = inside(stream)
        self._link = socket_link(stream)
        self._other_end = other_end
        self._handshake_timeout = handshake_timeout
        self._handed_over = False
        self._over = False
        self.thread = 0  # that runs the handler
        self._patience: Timer | None = None  # with one that has not sent anything yet
        self.given_up: float | None = None  # when
        self.handshake: Handshake | None = None

    # On the loop

    def _start(self) -> None:
        transport = self._inside.transport
        if transport.handshaking:
            self.handshake = Handshake(self._io.scope(self._crashed), self._socket, transport, self._handshake_timeout,
                                       self._shaken, self._server._handshakes)
            self.handshake.start()
        else:
            self._established()

    def _shaken(self, error: OSError | None) -> None:
        self.handshake = None
        if error is not None:
            self._server._handshake_failed(self._stream.remote_address, error)
            self._cut()
        else:
            self._inside.handshake_over()
            self._established()

    def _established(self) -> None:
        server = self._server
        if self._inside.transport.readable or not (server._wait_for_data or server._is_short_of_workers):
            self.hand_over()
            return
        self._io.watch(self._socket, READ, self)
        if not server._wait_for_data:
            server._put_aside(self)
        elif server._idle_timeout is not None:
            self._patience = self._io.call_later(server._idle_timeout, self._too_silent)

    def _too_silent(self) -> None:
        self._patience = None
        self._server._given_up("idle", self._stream.remote_address, "it was silent for too long", usual=True)
        self._dismiss()

    def _on_event(self, events: int) -> None:
        self.hand_over()

    def hand_over(self) -> None:
        if self._handed_over or self._over:
            return  # in this very round, by a worker that has become free: the event was polled before
        self._io.watch(self._socket, 0, self)
        self._be_patient_no_more()
        self._handed_over = True
        self._server._hand_over(self)

    def _be_patient_no_more(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    @property
    def is_at_work(self) -> bool:
        return self._handed_over and not self._over

    def silent_since(self, threads: set[int]) -> float:
        """Since when the stream has been silent, if one of ``threads`` waits for the client, or has just done so in
        vain, as one that polls; infinity if none does. They are those of all handlers: one may wait for another one's
        client."""
        link = self._link
        since = link.seen_moving()
        if not threads.isdisjoint(link.waits.copy()):
            return since
        in_vain = link.in_vain
        if in_vain is None or in_vain[0] not in threads or in_vain[1] < time.monotonic() - LATELY:
            return math.inf
        return since

    def give_up(self) -> None:
        """Have the time of the handler be up."""
        self.given_up = time.monotonic()
        self._server._given_up("idle", self._stream.remote_address, "it was silent, and others waited for its worker")
        self._link.give_up()

    def _finish(self) -> None:
        if not self._handed_over:
            self._dismiss()

    def _dismiss(self) -> None:
        """Nobody has served it, and nobody will: it hears an end, as far as it can be told at once."""
        if self.handshake is not None:
            self._cut()
        else:
            self._let_go(functools.partial(self._stream.close, timeout=0))

    def _cut(self) -> None:
        if self.handshake is not None:
            self.handshake.cancel()
            self.handshake = None
        if self._handed_over:
            if self._is_in_the_middle:
                self._link.reset()
            self._cut_stream()  # and the worker sees to the rest
        else:
            self._let_go(self._cut_stream)

    def _let_go(self, close: Callable[[], None]) -> None:
        self._io.watch(self._socket, 0, self)
        self._be_patient_no_more()
        self._io.close_afterwards(close)
        self._forget()

    def _cut_stream(self) -> None:
        """By this object, which has the stream itself: one that nobody has any more is taken for forgotten."""
        self._inside.cut()

    def _forget(self) -> None:
        if not self._over:
            self._over = True
            self._server._forget(self)
            if self._handed_over:
                self._server._handed_back()

    def _crashed(self, error: Exception) -> None:
        self._cut()

    def _abandon(self) -> None:
        """Streams see to a fork themselves."""

    @property
    def _is_in_the_middle(self) -> bool:
        """Whether an end would make a whole of a part: the handler has not come to its own, nor waits for the client to
        say something; or another one sends to it."""
        sender, receiver = self._inside.sender, self._inside.receiver
        return self.thread != 0 and (sender is not None or receiver != self.thread)

    @property
    def _unsent(self) -> int:
        return unacknowledged(self._socket) if self._is_in_the_middle else 0

    # In a worker

    def run(self) -> None:
        stream = self._stream
        self.thread = get_ident()
        try:
            if not stream.closed:
                self._server._handler(stream)
        except BaseException as error:
            self._failed(error)
        finally:
            self.thread = 0
            try:
                if not (stream.closed or self._has_arrived(False)):
                    with standing_in(self._other_end):
                        self._let_it_arrive()
                stream.close()
            finally:
                self._io.call(self._forget)

    def _has_arrived(self, said_goodbye: bool) -> bool:
        """Whether everything has, the goodbye under TLS included."""
        return all_acknowledged(self._socket) and (said_goodbye or self._inside.transport.tls is None)

    def _let_it_arrive(self) -> None:
        """What was sent, as long as the client goes on taking it: it may send something meanwhile, which closing would
        answer by a reset, and that drops the rest."""
        patience = Patience(LINGER)
        step = LINGER_STEP
        said_goodbye = False
        stream = self._stream
        try:
            while not self._has_arrived(said_goodbye) and patience.left(unacknowledged(self._socket)) > 0:
                try:
                    if not said_goodbye:
                        stream.send_eof(timeout=step)
                        said_goodbye = True
                    if not stream.receive(timeout=step):
                        return  # nothing comes any more, and what is on its way arrives
                except TimeoutError:
                    step = min(2 * step, LONGEST_LINGER_STEP)  # no event tells of it
        except (OSError, NetmsgError):
            pass  # it is gone, or the server is over

    def _failed(self, error: BaseException) -> None:
        """The handler has."""
        server, stream = self._server, self._stream
        own = self._inside.has_raised(error)
        if own and isinstance(error, TimeoutError) and self.given_up is not None:
            return  # which has been told
        if own and isinstance(error, IdleTimeoutError):
            server._given_up("idle", stream.remote_address, "it was silent for too long", usual=True)
        elif own and isinstance(error, TLSHandshakeError):
            server._handshake_failed(stream.remote_address, error)
        else:
            server._handler_failed(stream.remote_address, error, expected=own or stream.closed)
