"""The reading side of one connection of a Søcket, once it is let in: from the bytes to the messages, within the marks;
and the right to read, which may be lent to the thread that waits for a message.

It belongs to the network thread, but for `hear`.
"""

from __future__ import annotations

import logging
from typing import Final, Generic, Protocol, TypeVar

from ..errors import RemoteProtocolError
from ..reactor.channel import Channel, State
from ..reactor.reactor import Scope, Worker
from ..speaking import say_soon
from ..wire.messages import (
    ACKNOWLEDGEMENTS, ANSWERS, CAPABILITIES, FAILURES, MESSAGES, READ_SIZE, REFUSALS, RELIABLE_MESSAGES, REPLIES,
    REQUESTS, SUBSCRIPTIONS, UNSUBSCRIPTIONS, Run,
)
from ..wire.session import Session
from .credit import Credit
from .inbox import Batch
from .lane import Lane
from .neighbours import Neighbours
from .writing import Writing

__all__ = ["Reader", "Reading"]

log = logging.getLogger("netmsg.messaging")

PLENTY: Final = 512
"""With more room than this its exact amount does not matter."""
UNBOUNDED: Final = 1 << 62
CONTROL_MARK: Final = 1 << 20
"""Bytes of control frames waiting for a peer above which it is not read: it asks for more than it takes."""


class Reader(Worker, Protocol):
    """The peer that is read."""

    credit: Credit
    """What its identity has delivered and nobody has taken."""
    paused: bool
    """Not read, because its messages are not taken. For its `Reading` to say."""
    probe_until: float
    """Whether somebody waits for a sign of life."""

    def close(self, reason: str, error: BaseException | None) -> None:
        """It has broken the protocol."""


P = TypeVar("P", bound=Reader)


class Reading(Generic[P]):
    """What comes of one peer."""

    __slots__ = ("received_bytes", "received_messages", "listened", "held", "lent", "unread", "_begun", "_peer", "_io",
                 "_channel", "_session", "_lane", "_writing", "_life", "_inlet", "_outlet", "_home")

    def __init__(self, peer: P, neighbours: Neighbours[P], io: Scope, channel: Channel, lane: Lane,
                 writing: Writing) -> None:
        self.received_bytes = 0
        self.received_messages = 0
        self.listened = False
        """Whether something has been taken in that came behind its HELLO."""
        self.held = False
        """Not read, because it is not its turn yet."""
        self.lent = False
        """Whether the right to read is with the thread that waits for a message: see `Conversation`. Guarded by the
        lane's lock; the network thread alone changes it."""
        self.unread: list[bytes | OSError] = []
        """What that thread has received and not delivered; one chunk at most."""
        self._begun = False
        self._session: Session  # from the beginning
        self._peer: Final = peer
        self._io: Final = io
        self._channel: Final = channel
        self._lane: Final = lane
        self._writing: Final = writing
        self._life: Final = neighbours.life
        self._inlet: Final = neighbours.inlet
        self._outlet: Final = neighbours.outlet
        self._home: Final = neighbours.home

    def begin(self, session: Session) -> None:
        """It is let in: read its messages, as soon as it is its turn."""
        self._begun = True
        self._session = session
        self._channel.read_size = session.decoder.read_size
        self._channel.reading = not self.held
        self._channel.watch()
        # What came behind its HELLO has been received already.
        self._io.call(self.go_on)

    # What comes

    def received(self, chunk: bytes) -> bool:
        """See `netmsg.reactor.channel.User`: to read at once what is left of a large message saves a round."""
        self.received_bytes += len(chunk)
        peer = self._peer
        if peer.probe_until:
            self._home.survived(peer)
        decoder = self._session.decoder
        credit = peer.credit
        room = credit.hwm - credit.arrived + credit.taken
        plenty = room > PLENTY and credit.arrived_bytes - credit.taken_bytes < credit.hwm_bytes
        message = decoder.only_message(chunk) if plenty else None
        if message is not None:
            self.received_messages += 1
            self._inlet.one_arrived(peer, message)
        else:
            self._take(decoder.decode(chunk, room if plenty else self.room()))
            self._rest()
        writing = self._writing
        if writing.stopped and not writing.blocked:
            self._io.loop.work[peer] = None  # perhaps it was for this that it had to wait
        return decoder.read_size != READ_SIZE or self._channel.transport.readable

    def _take(self, runs: list[Run]) -> None:
        decoder = self._session.decoder
        self._channel.read_size = decoder.read_size
        peer = self._peer
        inlet = self._inlet
        for kind, bodies, message_ids in runs:
            if kind == MESSAGES:
                self.received_messages += len(bodies)
                inlet.arrived(peer, bodies)
            elif message_ids is not None:
                self.received_messages += len(bodies)
                self._take_with_ids(kind, message_ids, bodies)
            elif kind == ACKNOWLEDGEMENTS:
                self._outlet.acknowledged(peer, bodies)
                if self._life.closing:
                    self._home.acknowledged()
            elif kind == REFUSALS:
                self._outlet.handed_back(peer, bodies)
                if self._life.closing:
                    self._home.handed_back()
            elif kind == UNSUBSCRIPTIONS:
                self._outlet.unsubscribed(peer, bodies)
            elif kind == CAPABILITIES or kind == SUBSCRIPTIONS:
                try:
                    if kind == SUBSCRIPTIONS:
                        self._outlet.subscribed(peer, bodies)
                    else:
                        self._outlet.capable(peer, [*map(self._session.dialect.capabilities, bodies)][-1])
                except RemoteProtocolError as error:
                    decoder.discard()  # what came behind it is nothing
                    peer.close(f"protocol error: {error}", error)
                    return
            elif kind == ANSWERS:
                self._lane.add_control(b"".join(bodies))
                self._io.loop.work[peer] = None
        if runs:
            self.listened = True
        if decoder.error is not None:
            peer.close(f"protocol error: {decoder.error}", decoder.error)

    def _rest(self) -> None:
        """Behind `_take`: read no further at the marks, or before the others have had their turn."""
        stopped = self._session.decoder.stopped
        if stopped or self._peer.credit.room() <= 0 or self._lane.control_bytes > CONTROL_MARK:
            if self._channel.closed:
                return  # what came has broken the protocol
            if self.room() <= 0:
                self._pause()
            elif stopped:
                self._stop()
                self._io.call(self._take_turn)

    def _take_turn(self) -> None:
        if not (self._peer.paused or self.held):
            self._channel.reading = True
            self.go_on()

    def _take_with_ids(self, kind: int, message_ids: list[bytes], bodies: list[bytes]) -> None:
        if kind == RELIABLE_MESSAGES:
            self._inlet.reliable_arrived(self._peer, message_ids, bodies)
        elif kind == REQUESTS:
            self._inlet.requests_arrived(self._peer, message_ids, bodies)
        elif kind == REPLIES:
            self._outlet.answered(self._peer, message_ids, bodies)
        elif kind == FAILURES:
            self._outlet.refused(self._peer, message_ids, bodies)

    def finish(self) -> None:
        """At the end, deliver the messages that came before it and had no room or not their turn yet: nothing received
        is dropped."""
        if self._begun:
            decoder = self._session.decoder
            while decoder.error is None and (decoder.buffered or decoder.stopped):
                self._take(decoder.decode(b"", UNBOUNDED))
                if not decoder.stopped:
                    break

    def discard(self) -> None:
        """Deliver nothing more of what has been received: to do so has failed."""
        if self._begun:
            self._session.decoder.discard()

    # The marks

    def room(self) -> int:
        """How many more messages may be received now."""
        if self._life.closing:
            return UNBOUNDED
        if self._lane.control_bytes > CONTROL_MARK:
            return 0
        return self._peer.credit.room(past_mark=self._outlet.expects(self._peer))

    def _pause(self) -> None:
        """Stop reading until there is room. Unregistered, not masked: see `Reactor.watch`."""
        peer = self._peer
        peer.paused = peer.credit.waits = True
        self._stop()
        self.look_for_room()  # taken since

    def look_for_room(self) -> None:
        """Read again if there is room that nobody has told of."""
        if self._peer.paused:
            self._inlet.count_taken()
            if self.room() > 0:
                self.resume()

    def resume_safely(self) -> None:
        """The same for those who see to several peers: what fails is the end of this one alone."""
        try:
            self.resume()
        except Exception as error:
            say_soon(log, logging.ERROR, "reading on failed", exc_info=error)
            self._peer._crashed(error)

    def resume(self) -> None:
        """Read again, if at least half of the room is there: first what has been received already.

        With acknowledgement by hand any room will do, for the application may want more before it acknowledges.
        """
        if not self._peer.paused or self.held or self._channel.closed:
            return
        room = self.room()
        if room <= 0 or (room <= self._peer.credit.hwm // 2 and not self._inlet.by_hand):
            return
        self._peer.paused = False
        self._channel.reading = True
        self.go_on()

    def hold(self) -> None:
        """Do not read before `release`: the connection before this one is still being read."""
        if self.lent:
            self._inlet.stop_lending()
        self.held = True
        self._stop()

    def release(self) -> None:
        """Its turn has come."""
        self.held = False
        if self._peer.paused:
            self.resume()
        elif self._begun:
            self._channel.reading = True
            self.go_on()

    def _stop(self) -> None:
        self._channel.reading = False
        self._channel.watch()

    def go_on(self) -> None:
        """Read on if it may: first what has been received already."""
        channel = self._channel
        if not (self._begun and channel.reading and channel.state is State.OPEN):
            return
        decoder = self._session.decoder
        if decoder.buffered or decoder.stopped:
            self._take(decoder.decode(b"", self.room()))
            self._rest()
        if channel.reading:
            channel.watch()
            channel.go_on()

    def read_now(self) -> None:
        """Read what is there, before judging the silence."""
        if self.lent:
            self._inlet.stop_lending()
        if self._channel.reading:
            self._channel.receive()

    # Reading by the thread that waits for a message: see `Conversation`

    def lend(self) -> bool:
        """Let that thread read, if nothing but messages is to be expected."""
        channel = self._channel
        if not (self._begun and channel.reading and channel.state is State.OPEN and self._session.decoder.idle):
            return False
        self.lent = True
        self._stop()
        return True

    def hear(self) -> bool:
        """Receive once, and deliver the message if it is exactly one; otherwise what came is left to the network
        thread. By the waiting thread, which may be interrupted anywhere."""
        inlet = self._inlet
        append = inlet.append_batch
        with self._lane.lock:
            unread = self.unread
            if not self.lent or unread or inlet.subscriptions.any:
                return False
            try:
                unread.extend(map(self._channel.transport.receive, (READ_SIZE,)))  # one call into C: received is kept
            except BlockingIOError:
                return False
            except OSError as error:
                unread.append(error)
                return False
            chunk: bytes = unread[0]  # type: ignore[assignment]  # just received
            message = self._session.decoder.only_message(chunk)
            if message is None:
                return False
            size = len(chunk)
            batch = Batch(self._peer.credit, (message,))
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
        with self._lane.lock:
            self.lent = False
        self._channel.reading = True
        unread, self.unread = self.unread, []
        for chunk in unread:
            self._channel.take_in(chunk)
        self._channel.watch()
