"""One client of a packet server."""

from __future__ import annotations

import logging
import math
import ssl
import time
from collections.abc import Callable
from socket import socket as KernelSocket
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from ..deadline import Deadline, check_timeout
from ..errors import (
    ClosedError, ConnectionBrokenError, LocalProtocolError, PacketDecodeError, RemoteProtocolError, SendTimeoutError,
    TLSHandshakeError, again, as_broken, bare, identity,
)
from ..packets.receiving import decoded, ending, has_failed, is_in_the_middle, loss
from ..reactor.handshaking import Handshake
from ..reactor.reactor import READ, WRITE, Timer, on_a_loop
from ..sockets.addresses import host_and_port
from ..sockets.lingering import all_acknowledged, reset_on_close, unacknowledged
from ..sockets.proxy import SocketProxy
from ..standing_in import standing_in
from ..streams.socket_stream import PeerCredentials, peer_credentials
from ..tls import TLSInfo
from ..tls.contexts import check_server_context
from ..transports.encrypted import TLSTransport
from ..transports.plain import PlainTransport, Transport
from ..waiting import Waiters
from .handlers import FunctionHandler, Handler
from .patience import Patience
from .send_queue import SendQueue

if TYPE_CHECKING:
    from ..streams.listener import Listener
    from .packet_server import PacketServer

__all__ = ["PacketConnection"]

log = logging.getLogger("netmsg.servers")

READ_SIZE: Final = 65_536
LINGER: Final = 1.0
"""Seconds that the other end gets to finish too, once it has all that was sent."""
LINGER_STEP: Final = 0.01
LONGEST_LINGER_STEP: Final = 0.2
BRIEFLY: Final = 0.005
"""Seconds that a worker waits for somebody before another one takes its place."""
TURN: Final = 0.01
"""Seconds of a step on the loop, after the first packet, before all others have their turn. More than the interpreter's
switch interval: a thread that waits for the interpreter lock begins to count anew whenever it is let go of, and would
hardly ever get it."""
FAR_ABOVE: Final = 16
"""Times ``send_hwm_bytes``: where nothing waits for a client, others may have so much queued for it, and no more."""
OVER: Final[Handler] = FunctionHandler(lambda client, packet: None, "nobody")
"""The handler of those who have none any more."""
OVER.finished = True
BROKEN: Final = (ConnectionBrokenError, TLSHandshakeError)
"""After these nothing can be sent any more."""

S = TypeVar("S")


def as_bytes(data: Any) -> bytes:
    """What a codec of the user's has made of a packet, as it is now."""
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"encode() of a codec returns bytes, not {type(data).__name__}")
    return bytes(data)


class _Default:
    def __repr__(self) -> str:
        return "<the server's send_timeout>"


DEFAULT: Final = _Default()


class PacketConnection(Generic[S]):
    """One client of a `PacketServer`, as its handler sees it. May be used from any thread.

    A *step* is the handler with what has been received; it runs in a worker (or on the loop, if there are no workers),
    and there is one at a time. What comes while it runs is read once and not decoded: after a ``start_tls`` it is not
    to be taken for packets, and a client that floods is to fill the kernel's buffers and not ours. Everything else
    happens on the loop.
    """

    __slots__ = (
        "server", "state", "closed", "remote_address", "_packets_received", "_handshake", "_io", "_socket", "_listener",
        "_local_address", "_transport", "_queue", "_decoder", "_handler", "_packets", "_ending", "_begun", "_busy",
        "_paused", "_corked", "_watched", "_wake_at", "_timer", "_upgrade", "_changed", "_slow", "_winding_up",
        "_goodbye", "_disposed", "_forgotten", "_unread", "_late", "_more", "_upgrade_at", "_stepping", "_failure",
        "_deaf", "_giving_way", "_given_up", "_aborted", "_seen", "__weakref__")

    def __init__(self, server: PacketServer[S, Any], listener: Listener, sock: KernelSocket, address: Any) -> None:
        self.server = server
        """The `PacketServer`."""
        self.state: Any = None
        """For the handler's own use."""
        self.closed = False
        """Whether `close` was called, or the connection is over."""
        self.remote_address = host_and_port(address)
        """(host, port), or the path of a UNIX socket (``""`` if it has none)."""
        self._packets_received = 0
        self._handshake: Handshake | None = None
        self._io = server._io
        self._socket = sock
        self._listener = listener
        self._local_address = host_and_port(sock.getsockname())
        transport: Transport = PlainTransport(sock)
        if listener._ssl_context is not None and listener._autostart_tls:
            transport = TLSTransport(transport, listener._ssl_context, server_side=True,
                                     standard_compatible=listener._tls_standard_compatible)
        self._transport = transport
        self._queue = SendQueue(transport)
        self._decoder = server._codec.decoder()
        self._handler: Handler = server._make_handler(self)
        self._packets: list[Any] = []  # for the handler, the next one last
        self._ending: Exception | None = None  # what comes after them
        self._begun = False
        self._busy = True  # in a step, or about to be; until TLS is established nobody may begin one
        self._failure: object = None  # the `identity` of what the last call has raised
        self._stepping: int | None = None  # the thread that is in a step
        self._unread: bytes | None = None  # came meanwhile; b"" for the end
        self._paused = False  # and so did more
        self._more = False  # TLS has plaintext that no selector tells of
        self._late = False  # the time is up in which the handler wanted a packet
        self._corked = False  # what a step on the loop sends goes all at once in the end
        self._watched = 0
        self._wake_at = math.inf
        self._timer: Timer | None = None
        self._upgrade: TLSTransport | None = None
        self._upgrade_at = math.inf  # when its handshake has to be over
        self._changed: Waiters | None = None  # who waits for room in the queue, or for a handshake
        self._slow: Timer | None = None  # looks whether the client is to be given up, see `_be_patient`
        self._giving_way: Timer | None = None  # to those who have waited for room
        self._deaf = False  # nothing can be sent any more
        self._given_up = False
        self._seen: tuple[object, float] | None = None  # what `_moved` was when it last changed, and when that was
        self._aborted = False
        self._winding_up = False
        self._goodbye = False
        self._disposed = False
        self._forgotten = False

    # The handler's side: any thread

    def send_packet(self, packet: S, *, timeout: float | None | _Default = DEFAULT) -> None:
        """Send a packet, or queue it: above ``send_hwm_bytes`` of the server this waits, up to ``timeout`` seconds, and
        raises `SendTimeoutError`. By default it waits for the server's ``send_timeout``, and then this client is closed
        as well; other workers stand in for the one that waits. On a server without workers the handler never waits:
        with a ``timeout`` it raises at once, without one the client has the time of ``send_timeout`` to catch up, and
        is closed at once (`SendTimeoutError`) when the handlers of others have queued 16 times the mark for it.

        Raises `PacketEncodeError`, `ClosedError`, `ConnectionBrokenError`; ``TypeError`` for a codec that encodes to
        something else than bytes.
        """
        if timeout is not DEFAULT:
            check_timeout(timeout)  # type: ignore[arg-type]
        data = self.server._encode(packet)
        if data.__class__ is not bytes:
            data = as_bytes(data)
        queue = self._queue
        if self.closed or queue.failure is not None:
            raise self._refusal()
        if queue.size >= self.server._send_hwm_bytes and queue.waits:
            self._wait_for_room(timeout)
        if self._corked and get_ident() == self._io.ident:
            queue.put_aside(data)
            return
        try:
            taken = queue.put(data)
            if queue.blocked or queue.failure is not None:
                self._io.call(self._look)
        except BaseException:  # of a signal handler: the loop sends what is left
            self._io.call(self._write)
            raise
        if not taken or queue.failure is not None:
            raise self._refusal()

    def _refusal(self) -> Exception:
        self.server._check_process()
        failure = self._queue.failure
        if self.closed or failure is None:
            return self._told(ClosedError("the connection is closed"))
        return self._told(as_broken(failure))

    def _told(self, error: Exception) -> Exception:
        """``error``, remembered as one of this connection's: a handler may have other connections."""
        self._failure = identity(error)
        return error

    def _wait_for_room(self, timeout: float | None | _Default) -> None:
        queue = self._queue
        if on_a_loop():
            self._pass_the_mark(timeout)
            return
        deadline = Deadline(self.server._send_timeout if isinstance(timeout, _Default) else timeout)
        if not self._wait(lambda: not self._is_behind or self.closed or queue.failure is not None, deadline):
            if isinstance(timeout, _Default):
                self._close_slow()
            raise self._told(SendTimeoutError(f"{queue.size} bytes have been waiting to be sent to this client"))
        if self._giving_way is not None:
            self._io.call(self._look)
        if self.closed or queue.failure is not None:
            raise self._refusal()

    def _pass_the_mark(self, timeout: float | None | _Default) -> None:
        """On a loop, this client's or another one, nothing waits. What the client's own step sends comes to an end, for
        no other one begins above the mark; what others send need not."""
        queue, mark = self._queue, self.server._send_hwm_bytes
        if isinstance(timeout, _Default):
            own = self._stepping == get_ident()
            if not own and queue.size >= FAR_ABOVE * mark:
                queue.flush()
            if own or queue.size < FAR_ABOVE * mark:
                if self._io.is_current:
                    self._be_patient_while_behind()
                elif self._slow is None:
                    self._io.call(self._be_patient_while_behind)
                return
            self._close_slow()
        raise self._told(SendTimeoutError(f"{queue.size} bytes wait to be sent to this client"))

    def _wait(self, ready: Callable[[], object], deadline: Deadline) -> bool:
        """Wait for the client; if that takes more than a moment, another worker takes the place of this one."""
        waiters = self._waiters()
        if waiters.wait(ready, deadline.sooner(BRIEFLY)):
            return True
        if deadline.expired:
            return waiters.wait(ready, deadline)
        with standing_in(self):
            return waiters.wait(ready, deadline)

    def _waiters(self) -> Waiters:
        """They cost too much memory to have them in every connection."""
        with self._queue.lock:
            if self._changed is None:
                self._changed = Waiters()
            return self._changed

    @property
    def _is_behind(self) -> bool:
        """Whether more waits for the client than is to."""
        return self._queue.size >= self.server._send_hwm_bytes and self._queue.waits

    @property
    def _has_received(self) -> bool:
        """Whether there is something for another step, perhaps once the client has caught up."""
        return bool(self._packets) or self._unread is not None and self._upgrade is None

    def _tell(self) -> None:
        if self._changed is not None:
            self._changed.notify_all()

    def start_tls(self, ssl_context: ssl.SSLContext | None = None, *, tls_standard_compatible: bool = True,
                  timeout: float | None = None) -> None:
        """Go on under TLS. For the handler, after the last packet in the clear was sent: that told the client to begin.

        ``ssl_context`` defaults to the listener's, ``timeout`` to its ``handshake_timeout``;
        ``tls_standard_compatible=False`` counts here and there. Anything that the client
        has sent behind the packet that asked for TLS may have been injected: `RemoteProtocolError`. Raises
        `TLSHandshakeError`; whatever goes wrong closes the connection.

        On a server without workers it returns at once, and what is sent waits for the handshake; if that fails, the
        error comes in the place of the next packet.
        """
        check_timeout(timeout)
        context = self._listener._ssl_context if ssl_context is None else ssl_context
        if context is None:
            raise ValueError("ssl_context is required: the listener was made without one")
        check_server_context(context)
        if self.closed or self._queue.failure is not None:
            raise self._refusal()
        if self._stepping != get_ident() or self._upgrade is not None:
            raise LocalProtocolError("start_tls() is for the handler, once at a time")
        if self._packets or is_in_the_middle(self._decoder):
            self.abort()
            raise self._told(RemoteProtocolError("the client sent something in the clear behind what asked for TLS: "
                                                 "it may have been injected"))
        upgrade = TLSTransport(self._transport, context, server_side=True,
                               standard_compatible=self._listener._tls_standard_compatible and tls_standard_compatible)
        timeout = self._listener._handshake_timeout if timeout is None else timeout
        deadline = Deadline(timeout)
        self._upgrade_at = time.monotonic() + timeout if timeout is not None else math.inf
        self._queue.hold()  # before anybody can begin the handshake
        self._upgrade = upgrade
        self._io.call(self._look)
        if self._io.is_current:
            return
        if not self._wait(self._upgrade_is_over, deadline):
            self._io.call(self._upgrade_is_too_slow)  # which alone can tell whether it is
            self._wait(self._upgrade_is_over, Deadline(None))
        if self._ending is not None:
            raise self._told(again(self._ending))
        if self._upgrade is not None:
            raise self._refusal()

    def close(self) -> None:
        """Close, once what was sent has gone; a generator handler gets `ClosedError` at its ``yield``. Idempotent, from
        any thread; never waits."""
        self.closed = True
        self._tell()
        self._io.call(self._look)

    def abort(self) -> None:
        """Close at once, dropping everything: over TCP the client gets `ConnectionBrokenError`, and no end."""
        self._aborted = True  # first: the loop may come to see that it is closed before it is told to reset it
        self.closed = True
        self._tell()
        self._io.call(self._reset)

    @property
    def tls(self) -> TLSInfo | None:
        """What TLS agreed on; ``None`` in the clear. `LocalProtocolError` before the handshake is over."""
        if self._upgrade is not None or self._transport.handshaking:
            raise LocalProtocolError("the TLS handshake is not over")
        return self._transport.tls

    @property
    def local_address(self) -> Any:
        """(host, port), or the path of a UNIX socket."""
        return self._local_address

    @property
    def peer_credentials(self) -> PeerCredentials:
        """Who is at the other end of a UNIX connection (Linux). `LocalProtocolError` for TCP."""
        if self.closed:
            raise self._refusal()
        return peer_credentials(self._socket)

    @property
    def socket(self) -> SocketProxy:
        """The socket's options and addresses."""
        self.server._check_process()
        return SocketProxy(self._socket)

    def fileno(self) -> int:
        """The descriptor; -1 once closed."""
        return -1 if self.closed else self._socket.fileno()

    @property
    def _packets_sent(self) -> int:
        """How many packets `send_packet` has accepted."""
        return self._queue.packets

    @property
    def _unsent(self) -> int:
        """How many bytes of them wait."""
        return self._queue.size if self._queue.waits else 0

    @property
    def _decoder_failed(self) -> bool:
        """Whether it has raised what it should not have, which has been logged."""
        return has_failed(self._decoder)

    @property
    def _established(self) -> bool:
        """Whether the handler has begun, or is about to."""
        return self._begun

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.remote_address!r} {'closed' if self.closed else 'open'}>"

    # Steps: in a worker, or on the loop

    def _schedule(self) -> None:
        """Have a step. On the loop."""
        self._busy = True
        if self.server._has_workers:
            self.server._run_by_worker(self._step)
            return
        self._corked = True
        self._step()
        self._corked = False
        queue = self._queue
        if queue.buffers:
            queue.send_aside()
            if queue.blocked or queue.failure is not None:
                self._io.call(self._look)

    def _step(self) -> None:
        handler = self._handler
        tasks = self.server._tasks
        self._stepping = get_ident()
        mark = self.server._send_hwm_bytes  # above it packets wait for the client, which costs no worker
        driven = False
        until = 0.0
        given: Any = None
        try:
            if not self._begun and not self.closed:
                self._begun = driven = True
                handler.begin()
            elif not self._begun:
                handler.finished = True
            while not handler.finished:
                packets = self._packets
                if packets and not self.closed:
                    if self._queue.size >= mark and self._queue.waits:
                        break
                    given = packets.pop()
                    driven = True
                    self._late = False
                    if isinstance(given, PacketDecodeError):
                        self.server._bad_packets += 1
                        handler.error(given)
                    else:
                        self._packets_received += 1
                        handler.packet(given)
                    if not packets and (not tasks or self._unread is None):
                        continue
                    if self._corked:
                        now = time.monotonic()
                        until = until or now + TURN
                        if now < until:
                            continue
                    elif not tasks:
                        continue
                    self._give_way(driven)
                    return
                if self.closed:
                    given = ClosedError("the connection was closed")
                elif self._decoder._left:
                    self._decode(b"")
                    continue
                elif self._unread is not None and self._upgrade is None:
                    chunk, self._unread = self._unread, None
                    self._decode(chunk)
                    if tasks and self._unread is not None and not self._packets:
                        self._give_way(driven)  # who takes long to decode, and had no packet
                        return
                    continue
                elif self._ending is not None:
                    given = again(self._ending)
                elif self._late:
                    self._late = False
                    given = TimeoutError("no packet in time")
                else:
                    break
                driven = True
                handler.error(given)
                if handler.finished and isinstance(given, TimeoutError):
                    self.server._given_up("idle", self.remote_address, "it was silent for too long", usual=True)
        except BaseException as error:
            handler.finished = True
            self.server._step_failed(self, error, expected=error is given or identity(error) is self._failure)
        given = None
        if handler.finished or self.server._stopping and not self._has_received:
            self.closed = True
        if driven and (handler.timeout is not None or self.server._idle_timeout is not None
                       or self._wake_at != math.inf):
            self._expect_packet()
        timer = self._timer
        self._stepping = None
        self._busy = False
        if self.server._stopping:
            self._io.call(self._finish)
        elif (self.closed or self._paused or self._more or self._packets or self._unread is not None
                or self._ending is not None or self._upgrade is not None or self._queue.size >= mark and self._is_behind
                or self._wake_at != math.inf and (timer is None or timer.at > self._wake_at)):
            self._io.call(self._look)

    def _give_way(self, driven: bool) -> None:
        """Go on behind the others, one packet each: there may always be another one, for the loop reads meanwhile. On
        the loop, where it does not, behind all that there is to be done."""
        if driven:
            self._expect_packet()  # what has come need not be a whole packet
        self._stepping = None
        if self._corked:
            self._io.call(self._schedule)
        else:
            self.server._pool.put(self._step)

    def _expect_packet(self) -> None:
        """Have the time begin in which the handler wants a packet."""
        wait = self._handler.timeout
        if wait is None:
            wait = self.server._idle_timeout
        self._wake_at = math.inf if wait is None else time.monotonic() + wait

    def _decode(self, chunk: bytes) -> None:
        """What was received becomes packets, or the end. In a step, or on the loop while there is none."""
        if chunk or self._decoder._left:
            self._packets = decoded(self._decoder, chunk)
            if self._decoder._lost is not None:
                self._ending = loss(self._decoder)
                if has_failed(self._decoder) and self._packets:
                    self.server._handler_failed(self.remote_address, self._packets[0], expected=False)
            return
        with self._queue.lock:  # a send may be told just now
            failure = self._queue.failure
        if failure is None:
            self._ending = ending(self._decoder)
        else:  # of a reset that a send was told of receiving sees an end
            self._ending = as_broken(failure)

    # On the loop

    def _start(self) -> None:
        """Begin, with the TLS handshake if there is one."""
        if self._transport.handshaking:
            self._shake_hands(self._transport, self._listener._handshake_timeout)
        else:
            self._schedule_begin()

    def _schedule_begin(self) -> None:
        if self._handler.hears_errors:
            self._schedule()
            self._watch()
        else:
            self._begun = True
            self._busy = False
            self._expect_packet()
            self._look()

    def _shake_hands(self, transport: Transport, timeout: float | None) -> None:
        self._unwatch()
        self._handshake = Handshake(self._io, self._socket, transport, timeout, self._shaken, self.server._handshakes)
        self._handshake.start()

    def _shaken(self, error: OSError | None) -> None:
        self._handshake = None
        if error is None and self._upgrade is None:
            self._more = self._transport.readable
            self._schedule_begin()
            return
        if error is None and self._upgrade is not None:
            self._transport, self._upgrade = self._upgrade, None
            self._more = self._transport.readable
            self._queue.release(self._transport)
        elif error is not None:
            self.server._handshake_failed(self.remote_address, error)
            error = bare(error)
            self._ending = as_broken(error)
            self._queue.failure = error
            if not self._begun:
                self._cut()
                return
        self._tell()
        self._look()

    def _look(self) -> None:
        """Do what there is to do, after anything has changed."""
        if self._disposed:
            self._end_handler()
            return
        if self._queue.failure is not None and (not self._deaf or self._upgrade is not None):
            self._go_deaf()
        if (self._slow is not None or self._changed is not None) and not self._is_behind:
            self._caught_up()
        if (self._handshake is not None and self._upgrade is not None and self.closed and not self._busy
                and not self._queue.later):
            self._handshake.cancel()  # there is nothing to be sent under TLS; if there will be, it goes on
            self._handshake = None
        if (self._upgrade is not None and self._handshake is None and self._ending is None
                and (self._queue.later or not self.closed) and not self._queue.in_the_clear):
            if self._unread is not None:
                self._upgrade.feed(self._unread)  # a ClientHello that did not wait
                self._unread = None
            self._shake_hands(self._upgrade, self._upgrade_left())
        elif self._busy or self._handshake is not None:
            self._watch()
        elif self.closed:
            self._finish_handler()
        elif self._packets:  # left by a step that was ahead of the client
            if self._is_behind:
                self._be_patient()
            elif not self._gives_way():
                self._schedule()
            self._watch()
        elif self._unread is not None and self._upgrade is None:
            chunk, self._unread = self._unread, None
            self._paused = False
            self._received(chunk)
        elif self._ending is not None:
            self._finish_handler()
        elif self.server._finishing:
            self.closed = True
            self._finish_handler()
        else:
            self._arm()
            self._paused = False
            if self._is_behind:
                self._be_patient()
                self._watch()
            elif self._more:
                self._read()
            else:
                self._watch()

    def _finish_handler(self) -> None:
        """Tell it, if it wants to know, and then let what was sent arrive."""
        if self._handler.finished or not self._handler.hears_errors:
            self._handler.finished = True
            self.closed = True
            self._wind_up()
        else:
            self._schedule()

    def _upgrade_is_over(self) -> bool:
        return self._upgrade is None or self.closed or self._ending is not None

    def _upgrade_is_too_slow(self) -> None:
        if not self._upgrade_is_over():
            if self._handshake is not None:
                self._handshake.cancel()
            self._shaken(TLSHandshakeError("the TLS handshake was not finished in time"))

    def _upgrade_left(self) -> float | None:
        """Seconds."""
        return None if self._upgrade_at == math.inf else max(0.0, self._upgrade_at - time.monotonic())

    def _arm(self) -> None:
        """One timer, which looks again when it fires: most waits end before, and need not touch it."""
        at = self._wake_at if self._upgrade is None else self._upgrade_at
        if at == math.inf or self._timer is not None and self._timer.at <= at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._io.call_later(max(0.0, at - time.monotonic()), self._timed_out)

    def _timed_out(self) -> None:
        self._timer = None
        if self._busy or self._disposed or self.closed or self._handshake is not None:
            return
        if self._upgrade is not None:
            if self._upgrade_left() == 0:  # the client has not even taken what was to go before
                self._upgrade_is_too_slow()
            else:
                self._arm()
            return
        if self._wake_at > time.monotonic():
            self._arm()
            return
        if self._packets or self._unread is not None:
            return  # they wait for room at a client that is behind
        self._late = True
        self._read(late=True)  # one try, for a handler that would not wait
        if self._busy or self._disposed or self._ending is not None:
            return
        if self._handler.hears_errors:
            self._schedule()
        else:
            self.server._given_up("idle", self.remote_address, "it was silent for too long", usual=True)
            self._finish_handler()

    def _watch(self) -> None:
        if self._handshake is not None or self._disposed:
            return
        events = 0
        if self._goodbye or not (self._paused or self.closed or self._ending is not None or self._upgrade is not None
                                 or self._is_behind or self.server._finishing):
            events = READ
        broken = self._queue.failure is not None or isinstance(self._ending, BROKEN)
        if not broken and (self._queue.blocked or self._transport.unsent):
            events |= WRITE
        if events != self._watched:
            self._io.watch(self._socket, events, self)
            self._watched = events

    def _unwatch(self) -> None:
        if self._watched:
            self._io.watch(self._socket, 0, self)
            self._watched = 0

    def _on_event(self, events: int) -> None:
        if events & WRITE:
            self._write()
        if events & READ and self._watched & READ:
            if self._goodbye:
                self._discard()
            else:
                self._read()

    def _write(self) -> None:
        queue = self._queue
        queue.flush()
        if not queue.blocked and self._transport.unsent:
            try:
                self._transport.flush()
            except OSError:
                pass  # reading tells
        self._look()

    # Patience, on the loop

    def _be_patient(self, least: float = 0.0) -> None:
        """Give the client up once nothing has moved for ``send_timeout``."""
        if self._slow is None:
            patience = Patience(max(least, self.server._send_timeout))
            self._slow = self._io.call_later(patience.left(self._moved()), self._look_at, patience)

    def _be_patient_while_behind(self) -> None:
        if self._is_behind and not self._disposed:
            self._be_patient()

    def _look_at(self, patience: Patience) -> None:
        self._slow = None
        if self._disposed:
            return
        left = patience.left(self._moved())
        if left > 0:
            self._slow = self._io.call_later(left, self._look_at, patience)
        elif self._deaf:
            self._break()
            self._look()
        else:
            self._close_slow()

    def _moved(self) -> object:
        """Another one whenever something has moved that the client is waited for."""
        handshake = self._handshake
        if not self._deaf:
            return self._queue.gone, unacknowledged(self._socket), handshake.moves if handshake is not None else 0
        if self._busy or self._packets or self._unread is not None:
            return object()  # it is the client who waits
        return self._packets_received

    def _be_patient_no_more(self) -> None:
        if self._slow is not None:
            self._slow.cancel()
            self._slow = None

    def _caught_up(self) -> None:
        if not (self._winding_up or self._deaf):
            self._be_patient_no_more()
        self._tell()

    def _go_deaf(self) -> None:
        """Nothing can be sent any more; but what the client has sent before may still be read, up to its end."""
        if not self._deaf:
            self._deaf = True
            self._be_patient_no_more()
            self._be_patient()
        if self._upgrade is not None:
            self._break()

    def _break(self) -> None:
        """What a send has failed with is the end."""
        if self._ending is None and self._queue.failure is not None:
            self._ending = as_broken(self._queue.failure)

    def _gives_way(self) -> bool:
        """Whether the client's own packets wait for those who have been told that there is room: there may be none left
        by the time at which they have woken up."""
        if self._changed is None or not self._changed.waiting:
            return False
        if self._giving_way is None:
            self._giving_way = self._io.call_later(BRIEFLY, self._has_given_way)
        return True

    def _has_given_way(self) -> None:
        self._giving_way = None
        if self._packets and not (self._busy or self.closed or self._is_behind):
            self._schedule()
        self._look()

    def _close_slow(self) -> None:
        self._give_up("slow", "it does not receive what it is sent")

    @property
    def _awaited(self) -> bool:
        return not (self.closed or self._given_up)

    def _silent_since(self) -> float:
        moved = self._moved()
        if self._seen is None or self._seen[0] != moved:
            self._seen = moved, time.monotonic()
        return self._seen[1]

    def _give_up_for_others(self) -> None:
        self._give_up("blocked", "too many workers wait for clients, and this one has taken nothing for the longest")

    def _give_up(self, kind: str, why: str) -> None:
        """From any thread. Several may be tired of the same client."""
        with self._queue.lock:
            first = not self._given_up
            self._given_up = True
        if first:
            self.server._given_up(kind, self.remote_address, why)
        self.abort()

    def _read(self, *, late: bool = False) -> None:
        above = self._queue.size >= self.server._send_hwm_bytes and self._is_behind and not late
        if above or self._unread is not None or self._upgrade is not None or self._packets and not self._busy:
            self._paused = True
            self._watch()
            if not self._busy and not above:
                self._io.call(self._look)  # the step has come to its end meanwhile
            return
        transport = self._transport
        try:
            chunk = transport.receive(READ_SIZE)
        except BlockingIOError:
            self._more = transport.readable
            self._watch()
            if self._more and not self._busy:
                self._io.call(self._look)  # it has had its share, and no event will come
            return
        except OSError as error:
            self._more = False
            self._ending = as_broken(bare(error))
            self._look()
            return
        self._more = bool(chunk) and transport.readable
        if self._busy or self._packets:  # a step that has stopped at the mark meanwhile has left some
            self._unread = chunk
            if not self._busy:
                self._look()  # it has come to its end meanwhile
        else:
            self._received(chunk)

    def _received(self, chunk: bytes) -> None:
        if self.server._decodes_in_steps and chunk:
            self._unread = chunk
            self._schedule()  # and from here on the packets are the step's
        else:
            self._decode(chunk)
            if self._packets:
                self._schedule()
            elif self._ending is not None or self._more or self.server._finishing:
                self._io.call(self._look)
        if self._watched != READ or self._queue.blocked or self._transport.unsent:
            self._watch()

    # The end, on the loop

    def _finish(self) -> None:
        """The server is stopping: close if idle, and otherwise once what has been received is handled. The end of a
        step comes here again."""
        if not self._begun:
            self._cut()
        elif not self._busy:
            if not self._has_received:
                self.closed = True
            self._look()

    def _wind_up(self) -> None:
        """The handler has finished: let what was sent arrive."""
        if self._aborted:
            self._reset()
            return
        if isinstance(self._ending, BROKEN) or self._queue.failure is not None:
            self._cut()
            return
        if not self._winding_up:
            self._winding_up = True
            self._be_patient()
            self._queue.flush()
        self._say_goodbye()

    def _say_goodbye(self) -> None:
        if self._goodbye:
            self._watch()
            return
        self._goodbye = self._queue.end()
        if self._queue.failure is not None:
            self._cut()
            return
        if not self._goodbye:
            self._watch()
            return
        try:
            self._transport.end_sending()
        except OSError:
            self._cut()
            return
        if isinstance(self._ending, EOFError) and not self._transport.unsent:
            self._cut()
            return
        self._be_patient_no_more()
        self._be_patient(least=LINGER)
        self._linger(LINGER_STEP)

    def _linger(self, step: float) -> None:
        """Closing with bytes unread is a reset, which can destroy what the other end has not read yet. It may be slow,
        as long as it goes on reading."""
        if self._disposed:
            return
        if not all_acknowledged(self._socket):
            self._io.call_later(step, self._linger, min(2 * step, LONGEST_LINGER_STEP))  # no event tells of it
        elif self._transport.tls is None or not self._queue.packets:
            self._discard()
            self._cut()
            return
        else:
            self._be_patient_no_more()
            self._slow = self._io.call_later(LINGER, self._cut)
        self._watch()

    def _discard(self) -> None:
        try:
            if self._transport.receive(READ_SIZE):
                self._watch()
                return
        except BlockingIOError:
            self._watch()
            return
        except OSError:
            pass
        self._cut()

    def _reset(self) -> None:
        if not self._disposed:
            reset_on_close(self._socket)
        self._cut()

    def _cut(self) -> None:
        """Close the socket now."""
        self.closed = True
        if not self._disposed:
            self._disposed = True
            if self._busy and self._begun:
                reset_on_close(self._socket)  # its handler is not at the end: neither is what it has sent
            if self._handshake is not None:
                self._handshake.cancel()
                self._handshake = None
            for timer in (self._timer, self._slow, self._giving_way):
                if timer is not None:
                    timer.cancel()
            self._unwatch()
            self._io.bury(self._close_socket)
            self._tell()
        if not self._begun:
            self._handler.finished = True
            self._busy = False
        self._end_handler()

    def _close_socket(self) -> None:
        queue = self._queue
        with queue.lock:  # nobody is to meet a stranger's descriptor
            if queue.failure is None:
                queue.failure = ClosedError("the connection is closed")
            if queue.size:
                reset_on_close(self._socket)  # an end would say that this was all
            self._socket.close()
            queue.drop()

    def _end_handler(self) -> None:
        """And then nothing is left of the connection."""
        if self._busy or self._forgotten:
            return
        if self._handler.hears_errors and not self._handler.finished:
            self._schedule()
        else:
            self._forgotten = True
            self._handler = OVER  # it refers to this connection, and that is not to wait for a garbage collection
            self._packets = []
            self._unread = None
            self.server._forget(self)

    def _crashed(self, error: Exception) -> None:
        self._cut()

    def _abandon(self) -> None:
        """In a forked child: close this process's copy."""
        self.closed = True
        self._socket.close()
