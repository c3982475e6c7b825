"""The beginning of one connection of a Søcket: the handshakes of TLS and WebSocket, what speaks at the other end, and
who that is; all of it within the handshake timeout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from ..errors import ConnectFailedError, RemoteProtocolError, TLSHandshakeError
from ..reactor import sniffing
from ..reactor.channel import Channel
from ..reactor.channel import State as ChannelState
from ..reactor.channel import User
from ..reactor.reactor import Scope, Timer, Worker
from ..sockets.options import hold_back
from ..transports.plain import Transport
from ..wire.session import Session, State
from ..wire.sniffing import Sniffed, dialect_of, opening_dialect, refusal_of, sniff, stranger
from .carriers import Carrier
from .lane import Lane
from .neighbours import Neighbours
from .reading import Reading

__all__ = ["Greeting", "Newcomer"]

FIRST_READ: Final = 4096
"""Bytes received at a time before a peer is let in: what it has to say behind its HELLO can wait in the kernel."""


class Newcomer(User, Worker, Protocol):
    """The peer that comes."""

    def greeted(self, session: Session) -> None:
        """It has said who it is."""

    def go_over(self, transport: Transport) -> None:
        """It speaks WebSocket: write by this transport from now on."""

    def close(self, reason: str, error: BaseException | None) -> None:
        """It will not do."""


class Greeting:
    """The other end of it. On the loop."""

    __slots__ = ("_peer", "_neighbours", "_io", "_channel", "_lane", "_reading", "_carrier", "_dialled", "_session",
                 "_deadline", "_is_websocket")

    def __init__(self, peer: Newcomer, neighbours: Neighbours[Any], io: Scope, channel: Channel, lane: Lane,
                 reading: Reading[Any], carrier: Carrier, *, dialled: bool) -> None:
        self._peer: Final = peer
        self._neighbours: Final = neighbours
        self._io: Final = io
        self._channel: Final = channel
        self._lane: Final = lane
        self._reading: Final = reading
        self._carrier: Final = carrier
        self._dialled: Final = dialled
        self._is_websocket = False  # since its first bytes said so
        self._session: Session | None = None  # from when it is known what speaks there
        self._deadline: Timer | None = None

    def begin(self) -> None:
        """Who has dialled says HELLO."""
        settings = self._neighbours.settings
        self._deadline = self._io.call_later(settings.handshake_timeout, self._too_slow)
        if self._dialled:
            self._lane.add_control(opening_dialect(settings.max_message_size).opening(self._neighbours.identity))
        self._channel.read_size = FIRST_READ
        sniffing.sniff(self._channel, self._judge)
        self._channel.open(None, speaks_first=self._dialled)

    def _too_slow(self) -> None:
        seconds = self._neighbours.settings.handshake_timeout
        self._peer.close(f"no end to the handshake within {seconds:g} s", TimeoutError())

    def fail(self, error: OSError) -> None:
        """The handshake of TLS or WebSocket has."""
        if isinstance(error, TLSHandshakeError):
            self._peer.close(f"TLS: {error.__cause__ or error}", error)
        elif isinstance(error, RemoteProtocolError):
            self._refused_upgrade(f"WebSocket: {error}", error)
        else:
            what = "WebSocket" if self._is_websocket or self._carrier.opening is not None else "TLS"
            self._peer.close(f"the connection broke during the {what} handshake: {error}", error)

    def _refused_upgrade(self, reason: str, error: RemoteProtocolError) -> None:
        """By this end, which has told the other one why, or by that one."""
        if self._dialled:
            refusal = ConnectFailedError(reason, [])
            refusal.__cause__ = error
            self._peer.close(reason, refusal)
            return
        try:
            self._channel.end_sending()  # behind that, which a reset would destroy
        except OSError:
            pass
        self._peer.close(reason, error)

    def _judge(self, first: bytes) -> User | None:
        """See `netmsg.reactor.sniffing`."""
        neighbours, reading = self._neighbours, self._reading
        reading.received_bytes = len(first)
        sniffed = sniff(first)
        if sniffed is None:
            return None
        if sniffed is Sniffed.WEBSOCKET and not self._is_websocket and self._carrier.origins is not None:
            self._is_websocket = True
            self._channel.reading = False  # until it is read as one
            self._io.call(self._upgrade, first)
            return None
        dialect = dialect_of(sniffed, neighbours.settings.max_message_size)
        if dialect is None:
            self._refuse(refusal_of(sniffed), RemoteProtocolError(stranger(sniffed, first, self._dialled)))
            return None
        self._session = Session(neighbours.identity, neighbours.capabilities, dialect, dialled=self._dialled)
        reading.received_bytes = 0  # all of them are handed on now, and counted there
        return self._peer

    def _upgrade(self, first: bytes) -> None:
        """What comes is WebSocket, and the first bytes of a Søcket are to be told within that."""
        channel, peer = self._channel, self._peer
        if channel.state is not ChannelState.OPEN:
            return  # it has gone meanwhile
        transport = self._carrier.websocket(channel.transport, first)
        peer.go_over(transport)
        channel.user = peer
        sniffing.sniff(channel, self._judge)
        channel.reading = True
        channel.upgrade(transport, None)

    def received(self, chunk: bytes) -> bool:
        """See `netmsg.reactor.channel.User`: what comes before the peer is let in."""
        channel, peer, session = self._channel, self._peer, self._session
        assert session is not None
        self._reading.received_bytes += len(chunk)
        opening = session.state is State.OPENING
        try:
            complete = session.greet(chunk)
        except RemoteProtocolError as error:
            self._refuse(session.answer(), error)
            return False
        answer = session.answer()
        if answer:
            self._lane.add_control(answer)
            self._io.loop.work[peer] = None
        if complete and opening:
            channel.reading = False  # until it is let in: what it has to say can wait in the kernel
            channel.watch()
            peer.greeted(session)
        if session.state is State.GREETED:
            # Its end, though, is to be noticed: nobody need decide about one who has nothing to say and is gone.
            channel.reading = not session.decoder.buffered
            channel.watch()
        return session.state is not State.OPEN or channel.transport.readable

    def _refuse(self, refusal: bytes, error: RemoteProtocolError) -> None:
        if refusal:
            self._say_last(refusal)
        self._peer.close(str(error), error)

    def introduce(self, words: bytes) -> None:
        """Say who we are before the connection is closed, if the end comes in the same instant: nobody is to take it
        for a beginning."""
        try:
            if hold_back(self._channel.socket):
                self._say_last(words)
        except OSError:
            pass

    def _say_last(self, words: bytes) -> None:
        try:
            self._channel.transport.send_one(words)
            self._channel.end_sending()
        except OSError:
            pass

    @property
    def silent(self) -> bool:
        """Whether it has come and said nothing: a port scan or a health check."""
        return not self._dialled and not self._reading.received_bytes

    def wait(self, seconds: float, then: Callable[..., None], *arguments: Any) -> None:
        """It may take as long as that, and then ``then(*arguments)`` is called, unless it is over before."""
        self.take_time()
        self._deadline = self._io.call_later(seconds, then, *arguments)

    def take_time(self) -> None:
        """It is over, or may take as long as it takes."""
        if self._deadline is not None:
            self._deadline.cancel()

    def end(self) -> None:
        """The connection is closed."""
        self.take_time()
        if self._session is not None:
            self._session.closed()
