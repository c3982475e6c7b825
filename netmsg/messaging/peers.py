"""One connection of a Søcket on the reactor: the thin shell around `Session`, `Lane` and `Liveness`.

A plain peer is written by whoever has something to send, a user's thread or the network thread, under the lane's
lock; a TLS peer by the network thread alone. While a plain peer is `lent`, it is read by the thread that waits for a
message, under that lock too. Everything else here belongs to the network thread.
"""

from __future__ import annotations

import logging
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol

from ..errors import ConnectionBrokenError, RemoteProtocolError, TLSHandshakeError
from ..locks import new_lock
from ..reactor.handshaking import step_aside
from ..reactor.reactor import READ, WRITE, Reactor, Timer
from ..sockets.liveness import hung_up
from ..speaking import say_soon
from ..transports.encrypted import RECORD_SIZE, TLSTransport
from ..transports.plain import PlainTransport, Transport
from ..wire.messages import (
    ACKNOWLEDGEMENTS, ANSWERS, CAPABILITIES, MESSAGES, READ_SIZE, RELIABLE_MESSAGES, Capabilities, Run,
)
from ..wire.session import Liveness, Session, State
from .credit import Credit
from .inbox import Batch
from .lane import Lane
from .life import Life
from .settings import Settings
from .snapshots import PeerInfo

__all__ = ["Home", "Inlet", "Neighbours", "Outlet", "Peer", "Way"]

log = logging.getLogger("netmsg.messaging")

READS_A_ROUND: Final = 16
WRITES_A_ROUND: Final = 4
PLENTY: Final = 512
"""With more room than this its exact amount does not matter."""
UNBOUNDED: Final = 1 << 62
DEFAULT_INTERVAL: Final = 5.0
FIRST_READ: Final = 4096
"""Bytes received at a time before a peer is let in: what it has to say behind its HELLO can wait in the kernel."""
CONTROL_MARK: Final = 1 << 20
"""Bytes of control frames waiting for a peer above which it is not read: it asks for more than it takes."""


class Inlet(Protocol):
    """Where the messages go that a peer sends: the receiving half of the Søcket."""

    manual: bool
    """Whether messages count until they are acknowledged by hand."""

    def arrived(self, peer: Peer, payloads: list[bytes]) -> None: ...

    def one_arrived(self, peer: Peer, payload: bytes) -> None: ...

    def reliable_arrived(self, peer: Peer, message_ids: list[bytes], payloads: list[bytes]) -> None: ...

    def settle_taken(self) -> None:
        """Count as taken what was taken, although nobody has said so yet."""

    append_batch: Callable[[Batch], None]
    """By one call into C, which no interrupt can split; `appended` is to follow. From any thread."""

    def appended(self) -> None: ...

    def stop_lending(self) -> None:
        """Have `Peer.take_back` called for everybody who is `Peer.lent`."""


class Outlet(Protocol):
    """Where the messages come from that a peer is sent: the sending half of the Søcket."""

    def acknowledged(self, peer: Peer, message_ids: list[bytes]) -> None: ...

    def capable(self, peer: Peer, capabilities: Capabilities) -> None: ...

    def expects_acknowledgements(self, peer: Peer) -> bool:
        """Whether somebody waits for acknowledgements that come by this connection."""

    def give_back(self, lane: Lane) -> None:
        """Something is in the queue of a connection that sends no more."""

    def flushed(self, peer: Peer) -> None:
        """Its queue has been written, as far as possible."""


class Home(Protocol):
    """Those among whom a peer is."""

    def greeted(self, peer: Peer) -> None:
        """It has said who it is."""

    def judged(self, peer: Peer, verdict: bool, error: BaseException | None) -> None:
        """``authorize`` has answered about it."""

    def survived(self, peer: Peer) -> None:
        """It has shown itself, and somebody else claims its identity."""

    def probe_over(self, old: Peer, challenger: Peer) -> None:
        """``old`` has had its time to do so."""

    def flushed(self, peer: Peer) -> None:
        """Its queue has been written, as far as possible, while the Søcket closes."""

    def acknowledged(self) -> None:
        """Messages have been acknowledged while the Søcket closes."""

    def cannot_send(self, peer: Peer, reason: str, error: BaseException) -> None:
        """Nothing can be sent to it any more, though it is still read."""

    def lost(self, peer: Peer, reason: str, error: BaseException | None) -> None:
        """It has gone."""


class Way(Protocol):
    """What was dialled to reach a peer."""

    took_leave: bool
    """Whether the peer has been said goodbye to, because the Søcket closes."""

    def opened(self, identity: bytes) -> None: ...

    def ended(self, open_for: float, reason: str, error: BaseException | None) -> None: ...

    def rest(self, identity: bytes) -> None: ...

    def wake(self, reason: str) -> None: ...


class Neighbours(NamedTuple):
    """All that a peer needs of the Søcket it belongs to."""

    identity: bytes
    """The Søcket's own."""
    capabilities: Capabilities
    settings: Settings
    life: Life
    io: Reactor
    inlet: Inlet
    outlet: Outlet
    home: Home


class Peer:
    """A connection, from the first byte to the last."""

    __slots__ = ("_armed", "_behind", "_blocked", "_bursts", "_bursts_seen", "_closed", "_deadline", "_followers",
                 "_home", "_inlet", "_io", "_life", "_outlet", "_reading", "_send_many", "_send_one", "_settings",
                 "_write_error", "address", "announced_interval", "challenger", "closing", "connected_since", "credit",
                 "direct", "endpoint", "identity", "known", "lane", "lent", "liveness", "open_since", "paused",
                 "probe_until", "queue", "received_bytes", "received_messages", "retired", "session", "sock",
                 "transport", "unread")

    direct: bool
    """Whether threads other than the network thread may write."""
    credit: Credit
    """What its identity has delivered and nobody has taken; the real one once it is let in."""
    paused: bool
    """Not read, because its messages are not taken."""
    lent: bool
    """Whether the right to read is with the thread that waits for a message: see `Conversation`. Guarded by the
    lane's lock; the network thread alone changes it."""
    unread: list[bytes | OSError]
    """What that thread has received and not delivered; one chunk at most."""
    challenger: Peer | None
    """A newcomer under the same identity, waiting for a sign of life of this peer, or the lack of one."""
    probe_until: float
    """By when that sign has to come, since the first newcomer (``time.monotonic()``); 0.0 if it need not."""
    announced_interval: float
    """Seconds between its heartbeats, as far as it told."""
    closing: bool
    """All has been sent that will be: waiting for the other end to finish."""
    known: bool
    """Whether it has been said that it is connected, and not yet that it is not."""
    retired: str
    """Why nothing more is sent on this connection, if so: it is only read to its end."""

    def __init__(self, neighbours: Neighbours, sock: socket.socket, address: Any, endpoint: Way | None,
                 context: ssl.SSLContext | None, server_hostname: str | None) -> None:
        own_identity, capabilities, settings, life, io, inlet, outlet, home = neighbours
        self._settings = settings
        self._life = life
        self._io = io
        self._inlet = inlet
        self._outlet = outlet
        self._home = home
        self.sock = sock
        self.address = address
        self.endpoint = endpoint
        self.identity = b""
        self.session = Session(own_identity, capabilities, dialled=endpoint is not None,
                               max_message_size=settings.max_message_size)
        self.lane = Lane(b"", new_lock(), self, dialled=endpoint)
        self.queue = self.lane.queue
        now = time.monotonic()
        self.liveness = Liveness(settings.heartbeat_interval, settings.heartbeat_timeout, now)
        self.direct = context is None
        plain = PlainTransport(sock)
        self.transport: Transport = plain if context is None else TLSTransport(
            plain, context, server_side=endpoint is None, server_hostname=server_hostname, piece=RECORD_SIZE)
        self._send_one = self.transport.send_one
        self._send_many = self.transport.send_many
        self.connected_since = 0.0
        self.open_since: float | None = None
        self.received_bytes = 0
        self.received_messages = 0
        self.credit = Credit(b"", 0, 0)
        self.paused = False
        self.lent = False
        self.unread = []
        self.challenger = None
        self.probe_until = 0.0
        self.announced_interval = DEFAULT_INTERVAL
        self.closing = False
        self.known = False
        self.retired = ""
        self._behind: Peer | None = None  # the retired connection to be read to its end before this one is read
        self._followers: list[Peer] = []  # those behind this one
        self._reading = True
        self._armed = False
        self._blocked = False
        self._bursts = 0
        self._bursts_seen = 0
        self._closed = False
        self._write_error: OSError | None = None
        self._deadline: Timer | None = None

    # The handshake

    def start(self) -> None:
        """Begin: TLS if any, then HELLO, all within the handshake timeout."""
        self._deadline = self._io.call_later(self._settings.handshake_timeout, self._too_slow)
        self._watch()
        opening = self.session.opening()
        if opening:
            self.lane.add_control(opening)
        if self.transport.handshaking:
            self._tls_step()
        else:
            self.on_work()

    def _too_slow(self) -> None:
        seconds = self._settings.handshake_timeout
        self.close(f"no end to the handshake within {seconds:g} s", TimeoutError())

    def _tls_step(self) -> None:
        if self._closed or not self.transport.handshaking:
            return
        if self.transport.calls_back:
            self._io.watch(self.sock, 0, self)
            step_aside(self._io, self.transport, self._tls_stepped)
            return
        if not self._io.handshake_steps:
            self._io.call(self._tls_step)  # in another round: this one has had its share
            return
        self._io.handshake_steps -= 1
        failure: OSError | None = None
        try:
            self.transport.handshake()
        except OSError as error:
            failure = error
        self._tls_stepped(failure)

    def _tls_stepped(self, error: OSError | None) -> None:
        if self._closed:
            return
        if isinstance(error, BlockingIOError):
            self._watch()
            if self.transport.readable:
                self._io.call(self._tls_step)  # it has had its share, and no event will come
            return
        if isinstance(error, TLSHandshakeError):
            self.close(f"TLS: {error.__cause__ or error}", error)
            return
        if error is not None:
            self.close(f"the connection broke during the TLS handshake: {error}", error)
            return
        self._watch()
        self.on_work()
        if not self._closed and self.transport.readable:
            self._read()

    def _greet(self, chunk: bytes) -> None:
        was = self.session.state
        try:
            complete = self.session.greet(chunk)
        except RemoteProtocolError as error:
            self._refuse(self.session.answer())
            self.close(str(error), error)
            return
        answer = self.session.answer()
        if answer:
            self.lane.add_control(answer)
            self._io.work.add(self)
        if complete and was is State.OPENING:
            self.identity = self.lane.identity = self.session.peer_identity
            self.lane.encode = self.session.dialect.encoder()
            self._reading = False  # until it is let in: what it has to say can wait in the kernel
            self._watch()
            self._home.greeted(self)
        if complete and self.open_since is None and not self._closed:
            # Its end, though, is to be noticed: nobody need decide about one who has nothing to say and is gone.
            self._reading = not self.session.decoder.buffered
            self._watch()

    def _refuse(self, refusal: bytes) -> None:
        if refusal:
            try:
                self.transport.send_one(refusal)
                self.transport.end_sending()
            except OSError:
                pass

    def challenge(self) -> None:
        """Another connection has this identity: however long it takes to find out which of them is alive."""
        if self._deadline is not None:
            self._deadline.cancel()

    def judged(self, verdict: bool, error: BaseException | None) -> None:
        """``authorize`` has answered."""
        self._home.judged(self, verdict, error)

    def probe_over(self, old: Peer) -> None:
        """``old``, whose identity this one claims, has had its time to show itself."""
        self._home.probe_over(old, self)

    def let_in(self, credit: Credit) -> None:
        """The end of the handshake: send our part of it, and begin to exchange messages."""
        if self._deadline is not None:
            self._deadline.cancel()
        self.credit = credit
        self.lane.add_control(self.session.welcome())
        self.open_since = time.monotonic()
        self.connected_since = time.time()
        self._reading = self._behind is None
        self._watch()
        self.liveness.last_heard = self.open_since
        self._io.work.add(self)
        # What came behind its HELLO has been received already.
        self._io.call(self._go_on_reading)

    # Reading

    def _on_event(self, events: int) -> None:
        if events == READ and self.open_since is not None:
            if not self._closed:
                self._read()
            return
        if self._closed:
            return
        if self.transport.handshaking:
            self._tls_step()
            return
        if events & WRITE:
            self.on_work()
        if events & READ and not self._closed:
            self._read()

    def _read(self) -> None:
        if self.lent or not self._reading:  # an event from before it was paused
            return
        transport = self.transport
        for _ in range(READS_A_ROUND):
            decoder = self.session.decoder
            try:
                chunk = transport.receive(FIRST_READ if self.open_since is None else decoder.read_size)
            except BlockingIOError:
                if self._write_error is not None and not transport.readable:
                    self._broken(self._write_error)  # what had come before it is read
                    return
                break
            except OSError as error:
                self._broken(error)
                return
            self._received(chunk)
            if self._closed or not self._reading:
                break
            if decoder.read_size == READ_SIZE and not transport.readable and self.open_since is not None:
                break
        if transport.unsent and not self._armed:
            self._watch()
        if self._blocked and not self._armed:
            self._io.work.add(self)
        if self._reading and transport.readable and not self._closed:
            self._io.call(self._go_on_reading)

    def _received(self, chunk: bytes) -> None:
        if not chunk:
            self._reading = False
            self._watch()
            # A peer that has two connections ends one when it has said HELLO by the other: if that was not among the
            # events of this round, it is among those of the next.
            self._io.call(self._io.afterwards, self._ended)
            return
        self.received_bytes += len(chunk)
        if self.probe_until:
            self._home.survived(self)
        if self.open_since is None:
            self._greet(chunk)
            return
        decoder = self.session.decoder
        credit = self.credit
        room = credit.hwm - credit.arrived + credit.taken
        plenty = room > PLENTY and credit.arrived_bytes - credit.taken_bytes < credit.hwm_bytes
        message = decoder.only_message(chunk) if plenty else None
        if message is not None:
            self.received_messages += 1
            self._inlet.one_arrived(self, message)
        else:
            self._take(decoder.decode(chunk, room if plenty else self.room()))

    def _take(self, runs: list[Run]) -> None:
        inlet = self._inlet
        for kind, bodies, message_ids in runs:
            if kind == MESSAGES:
                self.received_messages += len(bodies)
                inlet.arrived(self, bodies)
            elif kind == RELIABLE_MESSAGES:
                assert message_ids is not None
                self.received_messages += len(bodies)
                inlet.reliable_arrived(self, message_ids, bodies)
            elif kind == ACKNOWLEDGEMENTS:
                self._outlet.acknowledged(self, bodies)
                if self._life.closing:
                    self._home.acknowledged()
            elif kind == CAPABILITIES:
                try:
                    self._outlet.capable(self, self.session.dialect.capabilities(bodies[-1]))
                except RemoteProtocolError as error:
                    self.close(f"protocol error: {error}", error)
                    return
            elif kind == ANSWERS:
                self.lane.add_control(b"".join(bodies))
                self._io.work.add(self)
        decoder = self.session.decoder
        if decoder.error is not None:
            self.close(f"protocol error: {decoder.error}", decoder.error)
        elif decoder.stopped or self.credit.room() <= 0 or self.lane.control_bytes > CONTROL_MARK:
            if self.room() <= 0:
                self._pause()
            elif decoder.stopped:
                self._io.call(self._go_on_reading)

    def room(self) -> int:
        """How many more messages may be received now."""
        if self._life.closing:
            return UNBOUNDED
        if self.lane.control_bytes > CONTROL_MARK:
            return 0
        # ACKs stand behind data: whoever waits for them has to read past the mark, or both ends may wait for ever.
        return self.credit.room(past_mark=self._outlet.expects_acknowledgements(self))

    def _pause(self) -> None:
        """Stop reading until there is room. Unregistered, not masked: see `Reactor.watch`."""
        self.paused = True
        self.credit.waits = True
        self._reading = False
        self._watch()
        self.look_for_room()  # taken since

    def look_for_room(self) -> None:
        """Read again if there is room that nobody has told of."""
        if self.paused:
            self._inlet.settle_taken()
            if self.room() > 0:
                self.resume()

    def resume_safely(self) -> None:
        """The same for those who see to several peers: what fails is the end of this one alone."""
        try:
            self.resume()
        except Exception as error:
            say_soon(log, logging.ERROR, "reading on failed", exc_info=error)
            self._crashed(error)

    def resume(self) -> None:
        """Read again, if at least half of the room is there: first what has been received already.

        With manual acknowledgement any room will do, for the application may want more before it acknowledges.
        """
        if not self.paused or self._closed or self._behind is not None:
            return
        room = self.room()
        if room <= 0 or (room <= self.credit.hwm // 2 and not self._inlet.manual):
            return
        self.paused = False
        self._reading = True
        self._go_on_reading()

    def _go_on_reading(self) -> None:
        if self._closed or not self._reading or self.open_since is None:
            return
        if self.session.decoder.buffered or self.session.decoder.stopped:
            self._take(self.session.decoder.decode(b"", self.room()))
        if self._reading and not self._closed:
            self._watch()
            if self.transport.readable:
                self._read()

    def look(self) -> None:
        """Read what is there, before judging the silence."""
        if self.lent:
            self._inlet.stop_lending()
        if self._reading and not self._closed:
            self._read()

    # Reading by the thread that waits for a message: see `Conversation`

    def lend(self) -> bool:
        """Let that thread read, if nothing but messages is to be expected."""
        if (not self.direct or self.open_since is None or not self._reading or self._closed or self.closing
                or self.retired or self.probe_until or not self.session.decoder.idle):
            return False
        self.lent = True
        self._watch()
        return True

    def hear(self) -> bool:
        """Receive once, and deliver the message if it is exactly one; otherwise what came is left to the network
        thread. By the waiting thread, which may be interrupted anywhere."""
        inlet = self._inlet
        append = inlet.append_batch
        with self.lane.lock:
            unread = self.unread
            if not self.lent or unread:
                return False
            try:
                unread.extend(map(self.transport.receive, (READ_SIZE,)))  # one call into C: received is kept
            except BlockingIOError:
                return False
            except OSError as error:
                unread.append(error)
                return False
            chunk = unread[0]
            assert isinstance(chunk, bytes)
            message = self.session.decoder.only_message(chunk)
            if message is None:
                return False
            size = len(chunk)
            batch = Batch(self.credit, (message,))
            batch.finished = True  # it is taken at once, and never counts against the mark
            # No call before the last line, and so no interrupt: see netmsg.messaging.inbox.
            self.received_bytes += size
            self.received_messages += 1
            del unread[0]
            append(batch)
        inlet.appended()
        return True

    def take_back(self) -> None:
        """Read here again, beginning with what that thread has left."""
        with self.lane.lock:
            self.lent = False
        unread, self.unread = self.unread, []
        for chunk in unread:
            if isinstance(chunk, OSError):
                self._broken(chunk)
            else:
                self._received(chunk)
        self._watch()

    def _ended(self) -> None:
        if self._closed:
            return
        if self.open_since is None and not self.session.dialled and not self.received_bytes:
            self.close("", None)  # a port scan or a health check: no event
        elif self.open_since is None:
            self.close("the peer closed the connection during the handshake", None)
        elif self._write_error is not None:
            self._broken(self._write_error)
        else:
            self._return_goodbye()

    def _return_goodbye(self) -> None:
        """The other end has said all it had to say."""
        if not self.direct and not self.closing and self.lane.writing is None and not self.transport.unsent:
            try:
                self.transport.end_sending()  # under TLS it may wait for ours; not behind what counts as not sent
            except OSError:
                pass
        if self.closing or self.retired:
            self.close(self.retired or "closed", None)
        else:
            self.close("the peer closed the connection", None)

    def _broken(self, error: OSError) -> None:
        if self.open_since is None and not self.session.dialled and not self.received_bytes:
            self.close("", None)
            return
        self.close(f"the connection broke: {error}", self._as_broken(error))

    @staticmethod
    def _as_broken(error: OSError) -> OSError:
        if isinstance(error, (ConnectionBrokenError, TLSHandshakeError)):
            return error
        broken = ConnectionBrokenError(error.errno, error.strerror)
        broken.__cause__ = error
        return broken

    # Writing

    def bursting(self) -> bool:
        seen, self._bursts_seen = self._bursts_seen, self._bursts
        return seen != self._bursts

    def write_burst(self) -> None:
        """Write from a sender's own thread, when much has gathered or nothing was going on.

        If the kernel takes no more, or the connection is broken, the network thread is told.
        """
        lock = self.lane.lock
        if self._blocked or lock.locked():  # type: ignore[attr-defined]
            return  # somebody is writing, or nobody can
        self._bursts += 1
        with lock:
            self._write(UNBOUNDED)
        if self._blocked or self._write_error is not None:
            self._io.call(self.on_work)

    def _write(self, times: int) -> None:
        """Write until nothing is left or the kernel takes no more, ``times`` times at most. Under the lane's lock.

        ``extend(map(send, ...))`` is one call into C: the count is stored as soon as the bytes are gone, and no
        interrupt can come between.
        """
        lane = self.lane
        if self._closed or self._write_error is not None:
            return
        self._blocked = False
        while times > 0:
            times -= 1
            write = lane.writing
            if write is None:
                write = lane.begin_write()
                if write is None:
                    return
                buffers = write.buffers
            elif write.done:
                lane.end_write(write)
                continue
            else:
                buffers = write.remaining()
            try:
                if len(buffers) == 1:
                    write.counts.extend(map(self._send_one, buffers))
                else:
                    write.counts.extend(map(self._send_many, (buffers,)))
            except BlockingIOError:
                self._blocked = True
                return
            except OSError as error:
                self._write_error = error
                return
            if write.counts[-1] == write.size or write.done:
                lane.end_write(write)
                if not lane.queue:
                    return

    def on_work(self) -> None:
        """Write what there is to write."""
        if self._closed:
            if self.queue:  # a sender came late, and left it to us
                self._outlet.give_back(self.lane)
            return
        if self.transport.handshaking:
            return
        if self.retired and self.queue:  # another connection has taken over
            self._outlet.give_back(self.lane)
        if self.transport.unsent:
            try:
                self.transport.flush()
            except OSError as error:
                self._broken(error)
                return
        with self.lane.lock:
            self._write(WRITES_A_ROUND)
        if self._write_error is not None:
            self._cannot_send(self._write_error)
            return
        lane = self.lane
        if not self._blocked and not lane.idle:
            self._io.work.add(self)  # after the others had their turn
        if self._blocked != self._armed or (self.transport.unsent and not self._armed):
            self._watch()
        if self.retired and not self.closing and not self._blocked and lane.writing is None and not lane.control:
            self._end_sending()
        self._outlet.flushed(self)
        if self._life.closing:
            self._home.flushed(self)

    def _cannot_send(self, error: OSError) -> None:
        """Nothing can be sent any more; what the peer had sent before is still there to be read, within the marks, and
        for no longer than a dead peer is waited for."""
        if self._closed:
            return
        if self.open_since is None:
            self._broken(error)
            return
        if not self.retired:
            self._home.cannot_send(self, f"the connection broke: {error}", self._as_broken(error))
        if not self.closing:
            self.closing = True
            self._blocked = False
            self._watch()  # no longer for room, of which epoll would tell for ever
            self._go_on_reading()

    # The end of a connection whose peer is still there

    def retire(self, reason: str) -> None:
        """Send nothing more; what is being written is, and then the other end is told that it was all. What comes is
        read to its end, within the marks; if it does not end, for as long as a dead peer is waited for."""
        if self.lent:
            self._inlet.stop_lending()
        self.retired = reason
        self.lane.dead = True
        self._wait_for_end()
        if self._write_error is None:
            self._io.work.add(self)

    def _wait_for_end(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self._io.call_later(self._settings.heartbeat_timeout, self._not_over)

    def _not_over(self) -> None:
        if self._behind is not None or (self.paused and hung_up(self.sock)):
            # What has come is not lost because nobody takes it, and it comes to an end; but those behind this one need
            # not be silent for it.
            for follower in self._followers:
                follower.speak()
            self._wait_for_end()
        elif self._write_error is not None:
            self._broken(self._write_error)
        else:
            self.close(self.retired, None)

    def follow(self, old: Peer, *, send: bool) -> None:
        """Messages of this connection count as later than all of ``old``, which is still being read; ``send``: those
        that we send may go out meanwhile."""
        if self.lent:
            self._inlet.stop_lending()
        self._behind = old
        old._followers.append(self)
        self._reading = False
        self.lane.held = not send
        if self.open_since is not None and not self._closed:
            self._watch()

    def speak(self) -> None:
        """Send messages, even if it is not known whether the connection before this one has been read."""
        self.lane.held = False
        self._io.work.add(self)

    def _go_ahead(self, old: Peer) -> None:
        """``old`` has been read to its end."""
        if self._behind is not old:
            return  # it has come behind another one meanwhile
        self._behind = None
        self.lane.held = False
        if self._closed or self.open_since is None:
            return
        self._io.work.add(self)
        if self.paused:
            self.resume()
        else:
            self._reading = True
            self._go_on_reading()

    def _end_sending(self) -> None:
        self.closing = True
        self.session.goodbye()
        try:
            self.transport.end_sending()
        except OSError as error:
            if not self.retired:
                self._broken(error)
                return
            # It broke, but what it had brought is still to be read.
        self._watch()

    def finish(self) -> None:
        """All is sent: say goodbye, and read to the end, for closing with bytes unread would be a reset, which can
        destroy what the other end has not read yet."""
        if self.closing or self._closed or self.retired:
            return
        self._end_sending()
        if not self._closed:
            self.resume()

    def acknowledge(self, message_ids: list[bytes]) -> None:
        """Tell that these have been received."""
        self.lane.add_control(self.session.dialect.acknowledgements(message_ids))
        self._io.work.add(self)

    def heartbeat(self) -> None:
        if self.lane.idle and not self.closing and not self.retired:
            self.lane.add_control(self.session.dialect.heartbeat)
            self._io.work.add(self)

    @property
    def blocked(self) -> bool:
        """Whether the kernel takes no more for it."""
        return self._blocked

    @property
    def stuck(self) -> bool:
        """Whether there is something to send that nobody is about to send: a sender was interrupted before it said."""
        return not self._armed and not self.lane.idle

    # The end

    def _watch(self) -> None:
        if self._closed:
            return
        # A TLS peer that waits without anything unsent waits for what comes.
        self._armed = self._write_error is None and ((self._blocked and self.direct) or self.transport.unsent)
        events = READ if self._reading and not self.lent else 0
        self._io.watch(self.sock, events | WRITE if self._armed else events, self)

    def close(self, reason: str, error: BaseException | None) -> None:
        """The end of this connection, whoever brought it about; an empty ``reason`` goes unreported."""
        if self.lent:
            self._inlet.stop_lending()
        if self._closed:
            return
        decoder = self.session.decoder
        if self.open_since is not None and decoder.error is None and (decoder.buffered or decoder.stopped):
            # Messages that came before the end, and had no room or not their turn yet: nothing received is dropped.
            self._take(decoder.decode(b"", UNBOUNDED))
            if self._closed:
                return
        self.lane.dead = True
        self._io.work.discard(self)
        with self.lane.lock:
            self._closed = True
            if isinstance(self.transport, TLSTransport) and self.lane.writing is not None:
                self.lane.writing.counts.append(self.transport.unreported())
        self._io.watch(self.sock, 0, self)
        self._io.close_afterwards(self._close_socket)
        if self._deadline is not None:
            self._deadline.cancel()
        self.session.closed()
        self._home.lost(self, reason, error)
        followers, self._followers = self._followers, []
        for follower in followers:
            follower._go_ahead(self)

    def _close_socket(self) -> None:
        with self.lane.lock:  # not while a sender is inside its system call
            self.sock.close()

    def abandon(self) -> None:
        """In a forked child: close this copy of the descriptor, without a goodbye."""
        self._closed = True
        self.lane.dead = True
        self.sock.close()

    def _crashed(self, error: Exception) -> None:
        reason = f"internal error: {error!r}"
        try:
            self.close(reason, error)
        except Exception:
            if self._closed:
                raise
            self.session.decoder.discard()  # to deliver what is left has failed as well
            self.close(reason, error)

    @property
    def answered(self) -> bool:
        """See `netmsg.messaging.strangers.Stranger`."""
        return self.transport.answered

    @property
    def unheard(self) -> bool:
        """See `netmsg.messaging.strangers.Stranger`."""
        return self.transport.readable

    def fileno(self) -> int:
        return self.sock.fileno()

    @property
    def phase(self) -> str:
        """How far a connection has come that is not open."""
        if self.transport.handshaking:
            return "TLS"
        return "authorizing" if self.identity else "HELLO"

    @property
    def following(self) -> bool:
        """Whether it is not read yet, because the connection before it still is."""
        return self._behind is not None

    @property
    def has_spoken(self) -> bool:
        """Whether anything has come behind its HELLO: it has let us in, too."""
        return self.received_messages > 0 or self.session.decoder.envelopes > 0

    @property
    def open_for(self) -> float:
        """Seconds since the handshake."""
        return 0.0 if self.open_since is None else time.monotonic() - self.open_since

    @property
    def certificate(self) -> bytes | None:
        """The peer's certificate (DER), if one was verified."""
        tls = self.transport.tls
        return tls.peer_certificate_der if tls is not None and tls.peer_certificate else None

    def info(self) -> PeerInfo:
        lane = self.lane
        return PeerInfo(self.identity, self.address, self.transport.tls, self.session.dialect.name,
                        self.connected_since, lane.sent_messages, self.received_messages, len(lane.queue),
                        len(lane.unacked))
