"""A network and the systems at its ends: TCP and UNIX sockets as programs see them, with everything that may go wrong.

Each direction of a connection is a `Pipe`: what one end has sent waits in its system until the link lets it arrive,
piece by piece, as far as the other end has room. A link may be slow or blocked, a host may be gone without a word, and
a connection may be reset at any byte. As in Linux: a reset comes behind what has arrived, is told once, and after it
there is an end; who closes with bytes unread, or lingers for no time, resets.
"""

from __future__ import annotations

import errno
import os
import random
import socket
import struct
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from netmsg.reactor.polling import READ, WRITE
from netmsg.sockets.addresses import Address

from .disk import Disk
from .timeline import Died, Timeline

__all__ = ["Connected", "Conditions", "Host", "Listening", "Network"]

HANG_UP: Final = 4
"""What a selector tells of, whatever it was asked for."""
SYN_TIMEOUT: Final = 127.0
LONGEST_TO_TRY_AGAIN: Final = 60.0
PROBE_EVERY: Final = 5.0
"""Seconds after which a full receiver is asked again whether it has room."""
A_FEW: Final = 100
"""Bytes: some heartbeats and acknowledgements, encrypted."""
FIRST_DESCRIPTOR: Final = 3
NONE: Final = -1
"""The descriptor of who waits in a backlog."""

Tell = Callable[..., None]


def error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


class Conditions(NamedTuple):
    """What a connection is like."""

    send_buffer: int = 65_536
    """Bytes that the sender's system holds,"""
    receive_buffer: int = 65_536
    """and the receiver's."""
    piece: int = 1460
    """Bytes that arrive at a time, at most."""
    whole: bool = True
    """Whether a piece is always as large as it can be, or of any size."""
    gap: float = 0.00005
    """Seconds between two pieces."""
    gives_up_after: float = 100.0
    """Seconds without an acknowledgement after which the system gives a connection up."""


class Host:
    """A machine on the network, with its descriptors and listeners. Programs come and go on it."""

    def __init__(self, name: str, network: Network, number: int) -> None:
        self.name = name
        self.network = network
        self.address = f"10.0.0.{number}"
        self.up = True
        """False: powered off. Nothing answers, not even with a refusal."""
        self.walled = False
        """Whether what comes for connections that it does not know is dropped."""
        self.poor = False
        """Whether there are no descriptors left."""
        self.descriptors: dict[int, Connected | Listening] = {}
        self.listeners: dict[tuple[int, Any], Listening] = {}
        self.dies_after = 0
        """With so many more system calls its program dies, in the midst of what it does; 0: it does not."""
        self.dies: Callable[[], None] = lambda: None
        """What then happens."""
        self.poke: Callable[[], None] = lambda: None
        """Called when something has become ready, perhaps."""
        self.pieces = 0
        """How many have come."""
        self._next_port = 40_000
        self.disk = Disk(random.Random(f"{network.seed}/{name}/disk"))

    def claim(self, sock: Connected | Listening) -> int:
        """The lowest free descriptor, as systems do: who uses one that it has closed meets a stranger's. Raises
        ``OSError``."""
        if self.poor:
            raise error(errno.EMFILE)
        number = FIRST_DESCRIPTOR
        while number in self.descriptors:
            number += 1
        self.descriptors[number] = sock
        return number

    def called(self) -> None:
        """A system call has been made. Raises `Died`."""
        if self.dies_after:
            self.dies_after -= 1
            if not self.dies_after:
                self.dies()
                raise Died

    def free_port(self) -> int:
        self._next_port += 1
        return self._next_port

    def listen(self, family: int, address: Any, backlog: int) -> Listening:
        """Raises ``OSError`` for an address in use."""
        if (family, address) in self.listeners:
            raise error(errno.EADDRINUSE)
        return Listening(self, family, address, backlog)

    def kill(self) -> None:
        """The program ends at once: its system closes what it had open."""
        self.dies_after = 0
        for sock in tuple(self.descriptors.values()):
            sock.close()

    def power_off(self) -> None:
        """The machine is gone, and nobody is told."""
        self.dies_after = 0
        self.up = False
        self.disk.loses_power()
        for sock in tuple(self.descriptors.values()):
            sock.vanish()
        self.descriptors.clear()
        self.listeners.clear()

    def power_on(self) -> None:
        self.up = True


class Link:
    """From one host to another."""

    def __init__(self) -> None:
        self.latency = 0.0005
        self.jitter = 0.0
        self.blocked = 0
        """By how many faults: what is sent waits."""
        self.waiting: list[Callable[[], None]] = []
        self.patience = 0.0

    def block(self) -> None:
        self.blocked += 1

    def unblock(self, after: float) -> None:
        """After so many seconds. What waited goes on when systems try again: the longer it was blocked, the later."""
        self.blocked -= 1
        if not self.blocked:
            self.patience = min(LONGEST_TO_TRY_AGAIN, after)
            waiting, self.waiting = self.waiting, []
            for go_on in waiting:
                go_on()


class Network:
    """Hosts, the links between them, and names."""

    def __init__(self, timeline: Timeline, seed: str, tell: Tell) -> None:
        self.timeline = timeline
        self.tell = tell
        self.hosts: dict[str, Host] = {}
        self.names: dict[str, list[Address]] = {}
        self.dumb: set[str] = set()
        """Names about which nobody answers,"""
        self.delays: dict[str, float] = {}
        """and those about which it takes so many seconds."""
        self.conditions: Callable[[Host, Host], Conditions] = lambda one, other: Conditions()
        self.connections: list[tuple[Connected, Connected]] = []
        """All that were ever made, both ends, and are not closed at both."""
        self.seed = seed
        self._links: dict[tuple[Host, Host], Link] = {}
        self.connected: Counter[int] = Counter()
        """How many connections have been made, by family."""
        self._made = 0

    def add_host(self, name: str) -> Host:
        host = self.hosts[name] = Host(name, self, len(self.hosts) + 1)
        self.names[f"{name}.test"] = [(socket.AF_INET, (host.address, 0))]
        return host

    def host_at(self, address: str) -> Host | None:
        return next((host for host in self.hosts.values() if host.address == address), None)

    def link(self, one: Host, other: Host) -> Link:
        link = self._links.get((one, other))
        if link is None:
            link = self._links[one, other] = Link()
        return link

    @property
    def under_way(self) -> int:
        """Bytes between those who are there, that the other end has not read, but for a few of each."""
        found = (len(end.arrived) + end.unacknowledged for pair in self.connections for end in pair
                 if not (pair[0].closed or pair[1].closed))
        return sum(max(0, size - A_FEW) for size in found)

    def new_chance(self) -> random.Random:
        """Each connection has its own, so that those of others do not change it."""
        self._made += 1
        return random.Random(f"{self.seed}/{self._made}")

    def connect(self, one: Connected, other: Host, listener: Listening) -> Connected:
        """A connection comes into being in the backlog of ``listener``."""
        self.connected[one.family] += 1
        chance = self.new_chance()
        conditions = self.conditions(one.host, other)
        peer = Connected(other, one.family, accepted=False)
        peer.local, peer.remote = one.remote, one.local
        local = one.family != socket.AF_INET or one.host is other
        forth, back = Link() if local else self.link(one.host, other), Link() if local else self.link(other, one.host)
        if local:
            forth.latency = back.latency = 0.000002 if one.family != socket.AF_INET else 0.00002
        one.begin(peer, Pipe(self.timeline, forth, back, conditions, chance, one, peer))
        peer.begin(one, Pipe(self.timeline, back, forth, conditions, chance, peer, one))
        one.chance = peer.chance = chance
        self.connections = [pair for pair in self.connections if not (pair[0].closed and pair[1].closed)]
        self.connections.append((one, peer))
        return peer


class Pipe:
    """One direction of a connection."""

    def __init__(self, timeline: Timeline, link: Link, back: Link, conditions: Conditions, chance: random.Random,
                 source: Connected, sink: Connected) -> None:
        """``back`` is how acknowledgements go."""
        self.conditions = conditions
        size = conditions.send_buffer
        self._tells_below = size // 4 if source.family == socket.AF_UNIX else 2 * size // 3
        self.taken = 0
        """Bytes that the sender's system took,"""
        self.arrived = 0
        """and that have come to the receiver's."""
        self.corked = False
        """Whether what is taken goes with the end behind it, and not before."""
        self.acknowledged_at = timeline.now
        self._timeline = timeline
        self._link = link
        self._back = back
        self._chance = chance
        self._source = source
        self._sink = sink
        self._buffer = bytearray()
        self._ending = False
        self._ended = False
        self._on_its_way = False
        self._stalled_since: float | None = None
        self._unconfirmed = 0  # bytes that have arrived, which the sender has not been told
        self._probing = False

    def __len__(self) -> int:
        """Bytes that have not arrived, as far as the sender's system knows."""
        return len(self._buffer) + self._unconfirmed

    @property
    def room(self) -> int:
        return self.conditions.send_buffer - len(self)

    @property
    def is_roomy(self) -> bool:
        """Whether its end is told that there is room."""
        return len(self._buffer) + self._unconfirmed <= self._tells_below  # this is asked all the time

    def acknowledged_within(self, seconds: float) -> bool:
        """See `netmsg.sockets.liveness`. A receiver that is full is asked whether it still is."""
        return not len(self) or self._timeline.now - self.acknowledged_at <= seconds or (
            self._probing and not self._unconfirmed)

    def take(self, data: bytes | bytearray | memoryview) -> int:
        count = min(len(data), self.room)
        if count > 1 and not self.conditions.whole and self._chance.random() < 0.3:
            count = self._chance.randint(1, count)
        self._buffer += data[:count]
        self.taken += count
        if not self.corked:
            self._send(0.0)
        return count

    def end(self) -> None:
        self._ending = True
        self._send(0.0)

    def reset(self) -> None:
        """What has not arrived never does."""
        self._buffer.clear()
        self._ending = self._ended = True
        self._carry(self._sink.was_reset)

    def vanish(self) -> None:
        self._buffer.clear()
        self._unconfirmed = 0
        self._ending = self._ended = True

    def has_room_again(self) -> None:
        """The receiver has read."""
        if self._buffer or (self._ending and not self._ended):
            self._send(0.0)

    def _send(self, gap: float) -> None:
        if not self._on_its_way:
            self._on_its_way = True
            self._carry(self._arrive, gap)

    def _carry(self, action: Callable[[], None], gap: float = 0.0) -> None:
        link = self._link
        if link.blocked:
            self._stall()
            link.waiting.append(lambda: self._carry(action, self._chance.random() * link.patience))
            return
        delay = gap or link.latency + (self._chance.random() * link.jitter if link.jitter else 0.0)
        self._timeline.after(delay, action)

    def _look(self) -> None:
        """Whether it is time to give up."""
        if self._stalled_since is None or self._source.closed or not len(self):
            return
        left = self._stalled_since + self.conditions.gives_up_after - self._timeline.now
        if left > 0.0:
            self._timeline.after(left, self._look)
        elif self._link.blocked or self._back.blocked or not self._sink.host.up or self._sink.gone:
            self._buffer.clear()
            self._ended = True
            self._source.breaks(errno.ETIMEDOUT)

    def _stall(self) -> None:
        """Nobody answers."""
        self._probing = False
        if self._stalled_since is None:
            self._stalled_since = self._timeline.now
            self._timeline.after(self.conditions.gives_up_after, self._look)

    def _probe(self) -> None:
        if self._probing:
            self._probing = False
            if self._buffer:
                self._send(0.0)

    def _confirm(self) -> None:
        """The sender is told what has arrived."""
        if self._back.blocked:
            self._stall()
            self._back.waiting.append(self._confirm)
            return
        self._stalled_since = None
        self._unconfirmed = 0
        self.acknowledged_at = self._timeline.now
        self._source.host.poke()

    def _arrive(self) -> None:
        self._on_its_way = False
        if self._ended:
            return
        if self._link.blocked:
            self._send(0.0)
            return
        sink = self._sink
        if not sink.host.up or (sink.gone and sink.host.walled):
            self._stall()
            self._on_its_way = True
            self._timeline.after(1.0, self._arrive)  # sent again and again
            return
        if sink.gone or (sink.closed and self._buffer):
            self._buffer.clear()
            self._ended = True
            self._timeline.after(self._link.latency, self._source.was_reset)
            return
        sink.host.pieces += 1
        count = min(len(self._buffer), self.conditions.receive_buffer - len(sink.arrived))
        if not self.corked:  # or it is one segment, with the end
            count = min(count, self.conditions.piece)
            if count > 1 and not self.conditions.whole:
                count = self._chance.randint(1, count)
        if count > 0:
            sink.arrived += self._buffer[:count]
            self.arrived += count
            del self._buffer[:count]
            self._unconfirmed += count
            sink.host.poke()
        self._confirm()
        if self._buffer:
            if count > 0:
                self._send(self.conditions.gap)
            elif not self._probing:
                self._probing = True
                self._timeline.after(PROBE_EVERY, self._probe)
        elif self._ending:
            if count > 0 and not self.corked and self._chance.random() < 0.5:
                self._send(self.conditions.gap)  # the end comes by itself
            else:
                self._ended = True
                sink.ends()


class Connected:
    """A connected socket, or one that is to be. What is used of ``socket.socket`` is there."""

    def __init__(self, host: Host, family: int, *, accepted: bool = True) -> None:
        self.host = host
        self.family = family
        self.number = host.claim(self) if accepted else NONE
        self.local: Any = ""
        self.remote: Any = ""
        self.arrived = bytearray()
        self.accepted_at = 0.0
        self.closed = False
        self.gone = False
        """Its machine has forgotten it."""
        self.chance: random.Random
        self._peer: Connected | None = None
        self._pipe: Pipe | None = None
        self._at_end = False
        self._finished = False
        self._error = 0
        self._broken = False
        self._connecting = False
        self._resets = False

    # What sockets do

    def fileno(self) -> int:
        return -1 if self.closed else self.number

    def setblocking(self, flag: bool) -> None:
        assert not flag

    def getsockname(self) -> Any:
        return self.local

    def getpeername(self) -> Any:
        if self._peer is None or self._broken:
            raise error(errno.ENOTCONN)
        return self.remote

    def setsockopt(self, level: int, option: int, value: Any) -> None:
        self._check_open()
        if (level, option) == (socket.SOL_SOCKET, socket.SO_LINGER):
            self._resets = value == struct.pack("ii", 1, 0)
        elif (level, option) == (socket.IPPROTO_TCP, socket.TCP_CORK) and self._pipe is not None:
            self._pipe.corked = bool(value)

    def getsockopt(self, level: int, option: int, size: int = 0) -> int:
        assert (level, option) == (socket.SOL_SOCKET, socket.SO_ERROR)
        number, self._error = self._error, 0
        return number

    def connect_ex(self, address: Any) -> int:
        network = self.host.network
        self.remote = address
        if self.family == socket.AF_UNIX:
            listener = self.host.listeners.get((self.family, address))
            if listener is None:
                return errno.ECONNREFUSED
            if listener.is_full:
                return errno.EAGAIN
            listener.add(network.connect(self, self.host, listener))
            return 0
        self.local = (self.host.address, self.host.free_port())
        self._connecting = True
        host = network.host_at(address[0])
        network.timeline.after(SYN_TIMEOUT, lambda: self._dial_failed(errno.ETIMEDOUT))
        if host is not None:
            self._say_syn(host, 1.0)
        return errno.EINPROGRESS

    def send(self, data: bytes | memoryview) -> int:
        self._check_open()
        self._raise_error()
        if self._broken or self._finished or self._pipe is None:
            raise error(errno.EPIPE)
        if self._pipe.room <= 0:
            raise BlockingIOError(errno.EAGAIN, "full")
        count = self._pipe.take(data)
        self.host.called()
        return count

    def sendmsg(self, buffers: Iterable[bytes | memoryview]) -> int:
        return self.send(b"".join(buffers))

    def recv(self, size: int) -> bytes:
        self._check_open()
        if self.arrived:
            assert self._pipe is not None and self._peer is not None
            if size > 1 and not self._pipe.conditions.whole and self.chance.random() < 0.3:
                size = self.chance.randint(1, size)
            data = bytes(self.arrived[:size])
            del self.arrived[:size]
            if self._peer._pipe is not None:
                self._peer._pipe.has_room_again()
            self.host.called()
            return data
        self._raise_error()
        if self._at_end or self._broken:
            return b""
        raise BlockingIOError(errno.EAGAIN, "nothing")

    def recv_into(self, buffer: memoryview) -> int:
        data = self.recv(len(buffer))
        buffer[:len(data)] = data
        return len(data)

    def shutdown(self, how: int) -> None:
        assert how == socket.SHUT_WR
        self._check_open()
        if self._broken or self._pipe is None:
            raise error(errno.ENOTCONN)
        if not self._finished:
            self._finished = True
            self._pipe.end()
            self.host.called()

    def close(self) -> None:
        if self.closed:
            return
        self._close()
        self.host.called()

    def _close(self) -> None:
        self.closed = True
        self.host.descriptors.pop(self.number, None)
        self._connecting = False
        if self._pipe is None or self._broken:
            return
        if self.arrived or self._resets:
            self.arrived.clear()
            self._broken = True
            self._pipe.reset()
        elif not self._finished:
            self._finished = True
            self._pipe.end()

    def _check_open(self) -> None:
        if self.closed:
            raise error(errno.EBADF)

    def _raise_error(self) -> None:
        if self._error:
            number, self._error = self._error, 0
            raise error(number)

    # What its system does

    @property
    def may_be_read(self) -> bool:
        """Whether anything but room is to be told."""
        return bool(self.arrived or self._at_end or self._error or self._broken)

    @property
    def ready(self) -> int:
        """READ, WRITE, HANG_UP."""
        if self._connecting:
            return 0
        found = 0
        if self.arrived or self._at_end or self._error or self._broken:
            found |= READ
        if self._broken or self._error or (self._at_end and self._finished):
            found |= HANG_UP
        pipe = self._pipe
        if pipe is not None and pipe.is_roomy:
            found |= WRITE
        return found

    @property
    def hung_up(self) -> bool:
        return self.closed or self._at_end or self._broken

    @property
    def known_for(self) -> float:
        """Seconds that a program has had the other end."""
        return 0.0 if self.is_alone or self._peer is None else self.host.network.timeline.now - self._peer.accepted_at

    @property
    def is_alone(self) -> bool:
        """Whether no program has the other end."""
        return self._peer is None or self._peer.closed or self._peer.number == NONE

    @property
    def unacknowledged(self) -> int:
        return 0 if self.closed or self._pipe is None else len(self._pipe)

    def acknowledged_within(self, seconds: float) -> bool:
        pipe = self._pipe
        return pipe is None or pipe.acknowledged_within(seconds)

    def begin(self, peer: Connected, pipe: Pipe) -> None:
        self._peer = peer
        self._pipe = pipe

    def _say_syn(self, host: Host, patience: float) -> None:
        """Ask ``host`` to connect, again and again."""
        network = self.host.network
        link, back = (network.link(self.host, host), network.link(host, self.host)) if host is not self.host else (
            Link(), Link())

        def arrive() -> None:
            if not self._connecting or self.closed:
                return
            if link.blocked:
                link.waiting.append(lambda: network.timeline.after(network.new_chance().random() * patience, arrive))
                return
            listener = host.listeners.get((self.family, tuple(self.remote[:2])))
            if not host.up or (listener is not None and listener.is_full):
                network.timeline.after(patience, lambda: self._say_syn(host, min(64.0, 2 * patience)))
            elif listener is None:
                answer(lambda: self._dial_failed(errno.ECONNREFUSED))
            else:
                peer = network.connect(self, host, listener)
                listener.add(peer)
                answer(lambda: self._established(peer))

        def answer(action: Callable[[], None]) -> None:
            if back.blocked:
                back.waiting.append(lambda: answer(action))
            else:
                network.timeline.after(back.latency, action)

        network.timeline.after(link.latency, arrive)

    def _established(self, peer: Connected) -> None:
        if self.closed or self.gone:
            peer.was_reset()  # it has not waited
        else:
            self._connecting = False
            self.host.network.tell(self.host.name, "is connected to %s", peer.host.name)
            self.host.poke()

    def _dial_failed(self, number: int) -> None:
        if self._connecting and not self.closed:
            self._connecting = False
            self._error = number
            self._broken = True
            self.host.poke()

    def ends(self) -> None:
        """The other end has finished."""
        self._at_end = True
        self.host.poke()

    def was_reset(self) -> None:
        self.breaks(errno.EPIPE if self._at_end and not self.arrived and self._finished else errno.ECONNRESET)

    def breaks(self, number: int) -> None:
        if self.closed or self._broken:
            return
        self._broken = True
        self._error = number
        if self._pipe is not None:
            self._pipe.vanish()
        self.host.poke()

    def reset(self) -> None:
        """A middlebox ends the connection: both ends are told."""
        peer = self._peer
        self.breaks(errno.ECONNRESET)
        if peer is not None:
            peer.breaks(errno.ECONNRESET)

    def vanish(self) -> None:
        """Its machine is off."""
        self.closed = self.gone = True
        if self._pipe is not None:
            self._pipe.vanish()


class Listening:
    """A listening socket."""

    def __init__(self, host: Host, family: int, address: Any, backlog: int) -> None:
        self.host = host
        self.family = family
        self.number = host.claim(self)
        self.closed = False
        self.gone = False
        self._address = address
        self._backlog = backlog
        self._waiting: deque[Connected] = deque()
        host.listeners[family, address] = self

    def fileno(self) -> int:
        return -1 if self.closed else self.number

    def setblocking(self, flag: bool) -> None:
        assert not flag

    def getsockname(self) -> Any:
        return self._address

    @property
    def may_be_read(self) -> bool:
        return bool(self._waiting)

    @property
    def ready(self) -> int:
        return READ if self._waiting else 0

    @property
    def waiting(self) -> int:
        """How many are in the backlog."""
        return len(self._waiting)

    @property
    def is_full(self) -> bool:
        return len(self._waiting) >= self._backlog

    def add(self, sock: Connected) -> None:
        self._waiting.append(sock)
        self.host.poke()

    def accept(self) -> tuple[Connected, Any]:
        if self.closed:
            raise error(errno.EBADF)
        if not self._waiting:
            raise BlockingIOError(errno.EAGAIN, "nobody")
        sock = self._waiting[0]
        sock.number = self.host.claim(sock)
        sock.accepted_at = self.host.network.timeline.now
        return self._waiting.popleft(), sock.remote

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        del self.host.descriptors[self.number]
        self.host.listeners.pop((self.family, self._address), None)
        for sock in self._waiting:
            sock._resets = True
            sock.close()
        self._waiting.clear()

    def vanish(self) -> None:
        self.closed = self.gone = True
        for sock in self._waiting:
            sock.vanish()
