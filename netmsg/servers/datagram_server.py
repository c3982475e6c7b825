"""A handler for each datagram."""

from __future__ import annotations

import errno
import functools
import logging
import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Final, Generic, TypeVar

from ..checks import check_size
from ..datagrams.datagram_socket import DatagramSocket
from ..datagrams.unix import UNIXDatagramSocket
from ..deadline import Deadline
from ..errors import ClosedError, PacketDecodeError, SendTimeoutError, identity
from ..locks import new_lock
from ..packets.codec import Codec, check_codec
from ..reactor.io_thread import IOThread, reactor_of
from ..reactor.reactor import READ, on_a_loop
from ..speaking import say_soon
from ..standing_in import standing_in
from .handlers import check_handler
from .server import Server, claim
from .stats import ServerStats
from .unread_answers import UnreadAnswers

__all__ = ["DatagramPeer", "DatagramServer"]

log = logging.getLogger("netmsg.servers")

LARGEST: Final = 65_536
"""Bytes in a datagram that is received."""
AT_A_TIME: Final = 64
"""Datagrams taken from one socket before others get their turn."""
PATIENCE: Final = 0.25
"""Seconds that an answer waits for room at a client that does not read, before it is given up."""
BRIEFLY: Final = 0.005
"""Seconds that a worker waits for room before another one takes its place."""
DEAF: Final = 5.0
"""Seconds that a client who has made no room is not waited for."""
MOST_WAITING: Final = 1000
"""Datagrams that may wait for a worker: while there are so many the kernel keeps the others, or drops them."""

S = TypeVar("S")


class DatagramPeer(Generic[S]):
    """Who has sent a datagram, as the handler sees it."""

    __slots__ = ("server", "remote_address", "_failure", "_given_up", "_since", "_socket", "_unread", "__weakref__")

    def __init__(self, server: DatagramServer[S], sock: Any, address: Any, unread: UnreadAnswers | None) -> None:
        self.server = server
        """The `DatagramServer`."""
        self.remote_address = address
        """(host, port), or the path of a UNIX socket (``""`` if it has none, and then it cannot be answered)."""
        self._failure: object = None
        """The `identity` of what the last `send_packet` has raised that is not the handler's fault."""
        self._given_up = False
        """Whether too many workers wait for room, and those for this one the longest."""
        self._since = math.inf
        """When the send began that last had to wait."""
        self._socket = sock
        self._unread = unread

    def send_packet(self, packet: S, *, timeout: float | None = PATIENCE) -> None:
        """Send a datagram to it (``bytes``, if the server has no codec). A client on a UNIX socket that does not read
        its answers gets a quarter of a second (``timeout``) to make room, and for some seconds after that none; so does
        one whose unread answers take up more of the buffer that all clients share than is free. Other workers stand in
        for the one that waits. On a server without workers it is tried once.

        Raises `PacketEncodeError`, `SendTimeoutError`, ``OSError(EMSGSIZE)`` for one that is too long, and for UNIX
        sockets ``ConnectionRefusedError`` or ``FileNotFoundError`` if nobody is there any more.
        """
        data: Any = packet if self.server._codec is None else self.server._codec.encode(packet)
        if not self.remote_address:
            nowhere = ConnectionRefusedError(errno.ECONNREFUSED, "the sender has no address to be answered at")
            self._failure = identity(nowhere)
            try:
                raise nowhere
            finally:
                del nowhere  # or the error would keep itself alive, by this frame
        deadline = Deadline(timeout)
        deaf = self.server._is_deaf(self.remote_address)
        if on_a_loop() or timeout == PATIENCE and deaf:
            deadline = Deadline(0)
        try:
            if self._unread is None:
                self._socket.send_to(data, self.remote_address, timeout=deadline.remaining())
            else:
                self._send_where_there_is_room(self._unread, data, deadline, deaf)
        except (ClosedError, ConnectionRefusedError, FileNotFoundError, SendTimeoutError) as error:
            self._failure = identity(error)
            raise
        self.server._count_sent()

    def _send_where_there_is_room(self, unread: UnreadAnswers, data: Any, deadline: Deadline, deaf: bool) -> None:
        server = self.server
        began = time.monotonic()
        blocked = False
        with ExitStack() as until_it_is_over:
            while True:
                try:
                    unread.send(data, self.remote_address, deaf=deaf)
                    return
                except SendTimeoutError:
                    if self._given_up or deadline.expired:
                        if not unread.full:  # and so it is the client that has no room
                            server._found_deaf(self.remote_address)
                        server._count_unanswered()
                        raise
                deaf = True  # it has asked for nothing since, so what has been read meanwhile was read by others
                if not blocked and time.monotonic() >= began + BRIEFLY:
                    blocked = True
                    self._since = began
                    until_it_is_over.enter_context(standing_in(self))
                try:
                    self._socket._wait_for_room(self.remote_address, deadline)
                except TimeoutError:
                    if not deadline.expired:
                        raise  # a signal handler raised it; and otherwise there is one more try

    @property
    def _awaited(self) -> bool:
        return not self._given_up

    def _silent_since(self) -> float:
        return self._since

    def _give_up_for_others(self) -> None:
        self._given_up = True

    @property
    def local_address(self) -> Any:
        """(host, port), or path, that it has sent to."""
        return self._socket.local_address

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.remote_address!r}>"


class DatagramServer(Server, Generic[S]):
    """Calls ``handler(client, packet)`` with each datagram, in one of a few worker threads.

    :param handler: ``client`` is a `DatagramPeer`. What it raises is logged, with the peer's address. Datagrams of one
        peer may be handled at the same time, in any order.
    :param sockets: `UDPSocket` and `UNIXDatagramSocket` objects, which belong to the server from then on.
    :param codec: makes packets of the datagrams; without one they are ``bytes``. A bad one is counted and logged, and
        so is one of more than 64 KiB.
    :param max_workers: handlers that run at a time. With 0 they run on the selector thread itself: for handlers that
        never block.
    :param io_thread: an `IOThread` to share; by default the server has its own.

    A context manager, which starts the server and shuts it down. May be used from any thread.
    """

    def __init__(self, handler: Callable[[DatagramPeer[S], Any], Any], *sockets: DatagramSocket,
                 codec: Codec[S, Any] | None = None, max_workers: int = 8, io_thread: IOThread | None = None) -> None:
        check_handler(handler)
        check_size("max_workers", max_workers, least=0)
        if codec is not None:
            check_codec(codec)
        io = reactor_of(io_thread)
        claim(sockets, DatagramSocket)
        super().__init__(max_workers, io, patient=True)
        self._codec = codec
        self._handler = handler
        self._has_workers = max_workers > 0
        self._receivers = [_Receiver(self, sock) for sock in sockets]
        self._paused = False
        self._lock = new_lock()  # guards the counters; a leaf
        self._unfinished = 0
        self._deaf: dict[Any, float] = {}  # until when they are taken for that
        self._received = self._sent = self._bad = self._overlong = self._unanswered = 0

    # The life of the server

    def _open(self) -> None:
        for receiver in self._receivers:
            self._io.watch(receiver.sock, READ, receiver)

    def _close_listeners(self) -> None:
        self._accepting = False
        if self._started:
            for receiver in self._receivers:
                self._io.watch(receiver.sock, 0, receiver)
        else:
            self._cut()

    def _finish_idle(self) -> None:
        """Handlers that run may still answer."""

    def _idle(self) -> bool:
        return not self._unfinished

    def _cut(self) -> None:
        for receiver in self._receivers:
            receiver.sock.close()

    def _ended(self) -> None:
        self._cut()
        super()._ended()

    def _abandon(self) -> None:
        """Sockets see to a fork themselves."""

    # Datagrams

    def _take(self, sock: DatagramSocket, data: bytes, address: Any, unread: UnreadAnswers | None) -> bool:
        """On the loop. Whether more may come."""
        with self._lock:
            self._received += 1
            self._unfinished += 1
        task = functools.partial(self._handle, DatagramPeer(self, sock, address, unread), data)
        if not self._has_workers:
            task()
            return True
        self._run_by_worker(task)
        if len(self._pool.tasks) < MOST_WAITING:
            return True
        self._paused = True
        for receiver in self._receivers:
            self._io.watch(receiver.sock, 0, receiver)
        if len(self._pool.tasks) < MOST_WAITING // 2:  # and perhaps nobody is left who would see it
            self._resume()
        return False

    def _count_overlong(self, error: OSError) -> None:
        with self._lock:
            self._overlong += 1
        self._log.warning("overlong", "%r: %s", self, error)

    def _is_deaf(self, address: Any) -> bool:
        """Whether a client has lately made no room for an answer: then others are not to wait for it again."""
        return time.monotonic() < self._deaf.get(address, 0.0)

    def _found_deaf(self, address: Any) -> None:
        if len(self._deaf) >= MOST_WAITING:
            self._deaf = {}
        self._deaf[address] = time.monotonic() + DEAF

    def _count_sent(self) -> None:
        with self._lock:
            self._sent += 1

    def _count_unanswered(self) -> None:
        with self._lock:
            self._unanswered += 1

    def _handle(self, peer: DatagramPeer[S], data: bytes) -> None:
        """In a worker, or on the loop."""
        decoding = True
        try:
            if not self._over:  # what has waited for a worker until then is dropped
                packet = data if self._codec is None else self._codec.decode(data)
                decoding = False
                self._handler(peer, packet)
        except BaseException as error:
            if decoding and isinstance(error, PacketDecodeError):
                with self._lock:
                    self._bad += 1
                self._log.warning("bad packet", "%r: a bad packet from %r: %s", self, peer.remote_address, error)
            else:
                self._handler_failed(peer, error)
        with self._lock:
            self._unfinished -= 1
        if self._stopping and not self._unfinished:
            self._io.call(self._settle)
        if self._paused and len(self._pool.tasks) < MOST_WAITING // 2:
            self._io.call(self._resume)

    def _handler_failed(self, peer: DatagramPeer[S], error: BaseException) -> None:
        if identity(error) is peer._failure:
            self._log.warning("answer", "%r: %r gets no answer: %s", self, peer.remote_address, error)
        else:
            with self._lock:
                self._handler_errors += 1
            self._tell_of("the handler of a datagram from %r failed", peer.remote_address, error)

    def _resume(self) -> None:
        if self._paused and self._accepting:
            self._paused = False
            self._open()

    # For users

    @property
    def addresses(self) -> list[Any]:
        return [receiver.sock.local_address for receiver in self._receivers]

    def fileno(self) -> int:
        return -1 if self._stopping else self._receivers[0].sock.fileno()

    def stats(self) -> ServerStats:
        return ServerStats(
            waiting=len(self._pool.tasks), workers=self._pool.workers, packets_received=self._received,
            packets_sent=self._sent, unanswered=self._unanswered, bad_packets=self._bad,
            overlong_datagrams=self._overlong,
            handler_errors=self._handler_errors)


class _Receiver:
    """One socket on the loop."""

    def __init__(self, server: DatagramServer[Any], sock: DatagramSocket) -> None:
        self._server = server
        self.sock = sock
        self._unread = UnreadAnswers(sock) if isinstance(sock, UNIXDatagramSocket) else None

    def _on_event(self, events: int) -> None:
        for _ in range(AT_A_TIME):
            if not self._server._accepting:  # any more, in this round
                return
            try:
                data, address = self.sock._receive_now(LARGEST)
            except BlockingIOError:
                return
            except ClosedError:
                self._server._io.watch(self.sock, 0, self)
                return
            except OSError as error:
                if error.errno == errno.EMSGSIZE:
                    self._server._count_overlong(error)
                else:
                    # Such as that nobody listened to an answer.
                    say_soon(log, logging.DEBUG, "%r: %s", self._server, error)
                continue
            if not self._server._take(self.sock, data, address, self._unread):
                return

    def _crashed(self, error: Exception) -> None:
        self._server._crashed(error)
