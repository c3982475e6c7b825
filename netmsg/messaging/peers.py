"""One connection of a Søcket on the reactor: its `Channel`, its `Greeting`, its `Reading`, its `Writing`; and here what
joins them, and how it ends.

It belongs to the network thread, but for `write_burst` and `hear`.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

from ..errors import as_broken
from ..locks import new_lock
from ..reactor.channel import CLOSED, Channel
from ..reactor.reactor import WRITE
from ..sockets.options import size_buffers
from ..transports.plain import Transport
from ..transports.websocket import WebSocketTransport
from ..wire.messages import Features
from ..wire.session import Liveness, Session
from .carriers import Carrier
from .credit import Credit
from .greeting import Greeting
from .lane import Lane
from .neighbours import Neighbours, Way
from .reading import Reading
from .snapshots import PeerInfo
from .succession import Succession
from .telling import Telling
from .writing import Writing

__all__ = ["Peer"]

WRITES_A_ROUND: Final = 4
TOLD_AT_ONCE: Final = 1 << 18
"""So many bytes of subscriptions may wait to be sent: far less than keeps us from reading."""
DEFAULT_INTERVAL: Final = 5.0


class Peer:
    """A connection, from the first byte to the last."""

    __slots__ = ("_began", "_clock", "_greeting", "_home", "_inlet", "_io", "_life", "_outlet", "_telling", "_work",
                 "_writing", "address", "announced", "announced_interval", "bursting", "challenger", "channel",
                 "closing", "connected_since", "credit", "direct", "endpoint", "hear", "identity", "known", "lane",
                 "liveness", "look_for_room", "open_since", "paused", "probe_until", "queue", "read_now", "reading",
                 "received", "resume", "resume_safely", "retired", "session", "sock", "succession", "take_back",
                 "write_burst")

    direct: bool
    """Whether threads other than the network thread may write."""
    credit: Credit
    """What its identity has delivered and nobody has taken; the real one once it is let in."""
    paused: bool
    """Not read, because its messages are not taken: see `Reading`."""
    challenger: Peer | None
    """A newcomer under the same identity, waiting for a sign of life of this peer, or the lack of one."""
    probe_until: float
    """By when that sign has to come, since the first newcomer (by the clock of the reactor); 0.0 if it need not."""
    announced: bool
    """Whether it has told about itself, as only a peer of netmsg does."""
    announced_interval: float
    """Seconds between its heartbeats, as far as it told."""
    closing: bool
    """All has been sent that will be: waiting for the other end to finish."""
    known: bool
    """Whether it has been said that it is connected, and not yet that it is not."""
    retired: str
    """Why nothing more is sent on this connection, if so: it is only read to its end."""
    session: Session
    """Once it has said who it is."""
    received: Callable[[bytes], bool]
    """See `netmsg.reactor.channel.User`."""

    def __init__(self, neighbours: Neighbours[Peer], sock: socket.socket, address: Any, endpoint: Way | None,
                 carrier: Carrier) -> None:
        settings = neighbours.settings
        self._life = neighbours.life
        self._work = neighbours.io.work
        self._inlet = neighbours.inlet
        self._outlet = neighbours.outlet
        self._home = neighbours.home
        self._io = io = neighbours.io.scope(self._crashed)
        self._clock = neighbours.io.clock
        self.sock = sock
        self.address = address
        self.endpoint = endpoint
        self.identity = b""
        self.liveness = Liveness(settings.heartbeat_interval, settings.heartbeat_timeout, self._clock())
        self.connected_since = 0.0
        self._began = self._clock()
        self.open_since: float | None = None
        self.credit = Credit(b"", 0, 0)
        self.paused = False
        self.challenger = None
        self.probe_until = 0.0
        self.announced = False
        self.announced_interval = DEFAULT_INTERVAL
        self.closing = False
        self.known = False
        self.retired = ""
        self._telling: Telling | None = None  # what it is told of our subscriptions, once there are some
        size_buffers(sock, settings.send_buffer, settings.recv_buffer)
        transport = carrier.transport(sock, dialled=endpoint is not None)
        lock = new_lock()
        self.lane = lane = Lane(b"", lock, self, dialled=endpoint)
        self.queue = lane.queue
        self._writing = writing = Writing(io, lock, lane, transport, self.on_work)
        self.channel = channel = Channel(io, sock, transport, writing, self)
        self.reading = reading = Reading(self, neighbours, io, channel, lane, writing)
        self._greeting = Greeting(self, neighbours, io, channel, lane, reading, carrier, dialled=endpoint is not None)
        self.succession = Succession(io, sock, lane, reading, self, settings.heartbeat_timeout)
        # Without a call in between:
        self.direct = writing.direct
        self.bursting = writing.bursting
        self.write_burst = writing.write_burst
        self.read_now = reading.read_now
        self.look_for_room = reading.look_for_room
        self.resume = reading.resume
        self.resume_safely = reading.resume_safely
        self.hear = reading.hear
        self.take_back = reading.take_back
        self.received = self._greeting.received

    # Coming

    def start(self) -> None:
        """Begin: TLS and WebSocket if any, then HELLO, all within the handshake timeout."""
        self._greeting.begin()

    def go_over(self, transport: Transport) -> None:
        """See `netmsg.messaging.greeting.Newcomer`."""
        self._writing.go_over(transport)
        self.direct = self._writing.direct

    def shaken(self, error: OSError | None) -> None:
        """See `netmsg.reactor.channel.User`."""
        if error is not None:
            self._greeting.fail(error)
            return
        self.channel.watch()
        self.on_work()
        self.channel.go_on()

    def greeted(self, session: Session) -> None:
        """See `netmsg.messaging.greeting.Newcomer`."""
        self.session = session
        self.identity = self.lane.identity = session.peer_identity
        self.lane.encode = session.dialect.encoder()
        self._home.greeted(self)

    def challenge(self, old: Peer, seconds: float) -> None:
        """``old`` has this identity, and some time to show that it is alive: nobody decides for so many seconds."""
        self._greeting.wait(seconds, self.probe_over, old)

    def introduce(self) -> None:
        """It is going to be turned away, and is told by whom: then it knows that it has reached nobody new."""
        if self.endpoint is None:
            self._greeting.introduce(self.session.welcome())

    def judged(self, verdict: bool, error: BaseException | None) -> None:
        """``authorize`` has answered."""
        self._home.judged(self, verdict, error)

    def probe_over(self, old: Peer) -> None:
        """``old``, whose identity this one claims, has had its time to show itself, or a part of it."""
        self._home.probe_over(old, self)

    def let_in(self, credit: Credit) -> None:
        """The end of the handshake: send our part of it, and begin to exchange messages."""
        self._greeting.take_time()
        self.credit = credit
        self.lane.add_control(self.session.welcome())
        self.open_since = self.liveness.last_heard = self._clock()
        self.connected_since = time.time()
        self.received = self.reading.received
        self._work[self] = None
        self.reading.begin(self.session)

    # What comes

    def nothing_came(self) -> None:
        failure = self._writing.failure
        if failure is not None and not self.channel.transport.readable:
            self._broken(failure)  # what had come before it is read
        elif self._writing.stopped and not self._writing.blocked:
            self._work[self] = None  # under TLS something has come nevertheless

    def ended(self, error: OSError | None) -> None:
        if error is not None:
            self._broken(error)
        else:
            # A peer that has two connections ends one when it has said HELLO by the other: if that was not among the
            # events of this round, it is among those of the next.
            self._io.call(self._io.afterwards, self._ended)

    def _ended(self) -> None:
        if self.channel.closed:
            return
        if self._unheard_of:
            self.close("", None)
        elif self.open_since is None:
            self.close("the peer closed the connection during the handshake", None)
        elif self._writing.failure is not None:
            self._broken(self._writing.failure)
        else:
            self._return_goodbye()

    @property
    def _unheard_of(self) -> bool:
        """Whether no event is to tell of its end."""
        return self.open_since is None and self._greeting.silent

    def _return_goodbye(self) -> None:
        """The other end has said all it had to say."""
        if not (self.direct or self.closing or self.lane.writing is not None or self.channel.transport.unsent):
            try:
                self.channel.end_sending()  # under TLS it may wait for ours; not behind what counts as not sent
            except OSError:
                pass
        if self.closing or self.retired:
            self.close(self.retired or "closed", None)
        else:
            self.close("the peer closed the connection", None)

    def _broken(self, error: OSError) -> None:
        if self._unheard_of:
            self.close("", None)
        else:
            self.close(f"the connection broke: {error}", as_broken(error))

    def lend(self) -> bool:
        """Let the thread that waits for a message read, if nothing but messages is to be expected."""
        return self.direct and not (self.closing or self.retired or self.probe_until) and self.reading.lend()

    # What goes

    def on_work(self) -> None:
        """Write what there is to write."""
        channel, writing, lane = self.channel, self._writing, self.lane
        transport = channel.transport
        if channel.state is CLOSED:
            if self.queue:  # a sender came late, and left it to us
                self._outlet.give_back(lane)
            return
        if transport.handshaking:
            return
        if self.retired and self.queue:  # another connection has taken over
            self._outlet.give_back(lane)
        if transport.unsent and writing.failure is None:
            try:
                transport.flush()
            except OSError as error:
                writing.failure = error
                self._cannot_send(error)
                return
        if self._telling:
            self._tell(self._telling)
        with lane.lock:
            writing.write(WRITES_A_ROUND)
        if writing.failure is not None:
            self._cannot_send(writing.failure)
            return
        if not writing.stopped and (self._telling or not lane.idle):
            self._work[self] = None  # after the others had their turn
        if (writing.blocked or transport.unsent) != (channel.watched & WRITE != 0):
            channel.watch()
        if self.retired and not self.closing and not writing.stopped and lane.writing is None and not lane.control:
            self._end_sending()
        self._outlet.flushed(self)
        if self._life.closing:
            self._home.flushed(self)

    has_room = on_work

    def _cannot_send(self, error: OSError) -> None:
        """Nothing can be sent any more; what the peer had sent before is still there to be read, within the marks, and
        for no longer than a dead peer is waited for."""
        if self.open_since is None:
            self._broken(error)
            return
        if not self.retired:
            self._home.cannot_send(self, f"the connection broke: {error}", as_broken(error))
        self.channel.watch()  # no longer for room, of which epoll would tell for ever
        if not self.closing:
            self.closing = True
            self.reading.go_on()

    def acknowledge(self, message_ids: list[bytes]) -> None:
        """Tell that these have been received."""
        self.lane.add_control(self.session.dialect.acknowledgements(message_ids))
        self._work[self] = None

    def refuse(self, message_id: bytes) -> None:
        """Tell that somebody else is to have this one, if the peer understands that."""
        if Features.NACK in self.lane.features:
            self.lane.add_control(self.session.dialect.refusal(message_id))
            self._work[self] = None

    def subscribe(self, prefixes: Iterable[bytes], wanted: bool) -> None:
        """Tell a publisher that what begins with these is wanted, or not any more; not where it has been said goodbye
        to, and is told by another connection."""
        if self._telling is None:
            self._telling = Telling()
        self._telling.change(prefixes, wanted)
        self._work[self] = None

    def _tell(self, telling: Telling) -> None:
        """No more of that at once than leaves us reading: a peer that has as much to tell us waits for that."""
        if self.closing or self.retired:
            self._telling = None
            return
        while telling and self.lane.control_bytes < TOLD_AT_ONCE:
            prefix, wanted = telling.next()
            self.lane.add_control(self.session.dialect.subscriptions((prefix,), wanted))

    def heartbeat(self) -> None:
        if self.lane.idle and not self.closing and not self.retired:
            self.lane.add_control(self.session.dialect.heartbeat)
            self._work[self] = None

    @property
    def broken(self) -> bool:
        """Whether nothing can be sent to it any more."""
        return self._writing.failure is not None

    @property
    def blocked(self) -> bool:
        """Whether the kernel takes no more for it."""
        return self._writing.stopped

    @property
    def stuck(self) -> bool:
        """Whether there is something to send that nobody is about to send: a sender was interrupted before it said."""
        return not self.channel.watched & WRITE and not self.lane.idle

    # The end of a connection whose peer is still there

    def follow(self, old: Peer, *, send: bool) -> None:
        """See `Succession.follow`."""
        self.succession.follow(old.succession, send=send)

    def retire(self, reason: str, *, replaced: bool = False) -> None:
        """Send nothing more; what is being written is, and then the other end is told that it was all. What comes is
        read to its end, within the marks; if it does not end, for as long as a dead peer is waited for. ``replaced``:
        only what has come by then is."""
        if self.lent:
            self._inlet.stop_lending()
        self.retired = reason
        self.lane.dead = True
        self.succession.await_end(briefly=replaced)
        if self._writing.failure is None:
            self._work[self] = None

    def does_not_end(self) -> None:
        """See `netmsg.messaging.succession.Connection`."""
        self.read_now()
        if self.channel.closed:
            return
        if self.paused and not self.broken:  # there was more
            self.succession.await_end(briefly=True)
        elif self._writing.failure is not None:
            self._broken(self._writing.failure)
        else:
            self.close(self.retired, None)

    def _end_sending(self) -> None:
        self.closing = True
        self.session.goodbye()
        try:
            self.channel.end_sending()
        except OSError as error:
            if self.retired:
                self.channel.watch()  # it broke, but what it had brought is still to be read
            else:
                self._broken(error)

    def finish(self) -> None:
        """All is sent: say goodbye, and read to the end, for closing with bytes unread would be a reset, which can
        destroy what the other end has not read yet."""
        if not (self.closing or self.channel.closed or self.retired):
            self._end_sending()
            self.resume()

    # The end

    def close(self, reason: str, error: BaseException | None) -> None:
        """The end of this connection, whoever brought it about; an empty ``reason`` goes unreported."""
        if self.lent:
            self._inlet.stop_lending()
        if not self.channel.closed:
            self.reading.finish()
        if self.channel.closed:
            return
        self.lane.dead = True
        self._work.pop(self, None)
        self._writing.end()
        self.channel.close()
        self._greeting.end()
        self._home.lost(self, reason, error)
        self.succession.end()

    def abandon(self) -> None:
        """In a forked child: close this copy of the descriptor, without a goodbye."""
        self._writing.abandon()
        self.lane.dead = True
        self.channel.abandon()

    def left(self, *, given_up: bool) -> None:
        """Which does not come: a peer is read to its end."""

    def _crashed(self, error: Exception) -> None:
        reason = f"internal error: {error!r}"
        try:
            self.close(reason, error)
        except Exception:
            if self.channel.closed:
                raise
            self.reading.discard()  # to deliver what is left has failed as well
            self.close(reason, error)

    # What is known of it

    @property
    def answered(self) -> bool:
        """See `netmsg.messaging.strangers.Stranger`."""
        return self.channel.transport.answered

    @property
    def unheard(self) -> bool:
        """See `netmsg.messaging.strangers.Stranger`."""
        return self.channel.transport.readable

    def fileno(self) -> int:
        return self.sock.fileno()

    @property
    def phase(self) -> str:
        """How far a connection has come that is not open."""
        transport = self.channel.transport
        if transport.handshaking:
            return "WebSocket" if isinstance(transport, WebSocketTransport) and not transport.waits_below else "TLS"
        return "authorizing" if self.identity else "HELLO"

    @property
    def following(self) -> bool:
        """See `Succession.following`."""
        return self.succession.following

    @property
    def lent(self) -> bool:
        """See `Reading.lent`."""
        return self.reading.lent

    @property
    def received_bytes(self) -> int:
        """So far."""
        return self.reading.received_bytes

    @property
    def received_messages(self) -> int:
        """So far."""
        return self.reading.received_messages

    @property
    def has_spoken(self) -> bool:
        """Whether anything has come behind its HELLO: it has let us in, too."""
        return self.received_messages > 0 or self.session.decoder.envelopes > 0

    @property
    def has_been_heard(self) -> bool:
        """Whether what it had to say first has been taken in: it has said what it understands, or does not."""
        return self.reading.listened or self.received_messages > 0

    @property
    def known_for(self) -> float:
        """Seconds since the connection."""
        return self._clock() - self._began

    @property
    def open_for(self) -> float:
        """Seconds since the handshake."""
        return 0.0 if self.open_since is None else self._clock() - self.open_since

    @property
    def certificate(self) -> bytes | None:
        """The peer's certificate (DER), if one was verified."""
        tls = self.channel.transport.tls
        return tls.peer_certificate_der if tls is not None and tls.peer_certificate else None

    def info(self) -> PeerInfo:
        lane = self.lane
        return PeerInfo(self.identity, self.address, self.channel.transport.tls, self.session.dialect.name,
                        self.connected_since, lane.sent_messages, self.received_messages, len(lane.queue),
                        len(lane.unacked))
