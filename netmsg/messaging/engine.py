"""What a Søcket is made of, behind its face. The engine owns all of it, and nothing that it owns knows the engine.

=================  ============================================================================================
part               is
=================  ============================================================================================
`Life`             open, closing, closed, failed or forked
`Places`           where it listens, and what it dials: an `Endpoint` each
`Connections`      the peers, in whatever state, and the counts of those that have gone
`Losses`           what was dropped or given up, by cause
`Reporter`         tells the log, and what is wrong to those who wait in vain
`EventQueue`       tells the program
`Sender`           what is sent: the `Router`, the `Acknowledgements`, the `Room`, the `Overflow`, the `Dispatch`;
                   and what is asked: the `Requests`, the `Requesting`
`Accounts`         how much of the receive marks each identity has used
`Receiver`         what is received: the inbox, the duplicates, the acknowledgements, the `Conversation`
`Answering`        replies that stand in line, for those who take them slowly
`Doors`            who waits outside
`Closing`          the way from open to closed
`Sweep`            heartbeats, silence, resends
`Asking`           ``authorize``, one newcomer after the other
`Population`       who is let in, takes over, leaves
`Opening`          ``bind`` and ``connect``
=================  ============================================================================================

They are made from the top to the bottom of that table, and each is handed those above it that it needs; what it has to
tell those below goes by a call that it is handed. A `Peer` sees three of them: its inlet (`Receiver`), its outlet
(`Sender`) and its home (`Population`).

===========================  ==============================================================================
lock, in the order of        guards; what is done under it
taking
===========================  ==============================================================================
`Closing._beginning`         whether there is a network thread when the end comes
`Serving._lock`              how many workers there are
`Answering._lock`            the replies that stand in line, and whose requests are held back meanwhile
`Sender.route`               the `Router` and the `Ledger`; never a system call
`Lane.lock` (one a peer)     the head of that peer's queue, the write in progress, the right to read, the
                             life of its descriptor; one non-blocking send or receive
`Inbox._lock`                the change of batch; a leaf, never with another
===========================  ==============================================================================

What one of them has to do on the network thread belongs to the Søcket as a whole, by ``io.scope(life.crash)``: if it
fails, that is the end of it. What a peer, an endpoint or a listener has to do belongs to that.

No lock is held while waiting. Everything that is marked so belongs to the network thread alone; what comes from
elsewhere is posted to it with `Reactor.call`, which takes no lock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import TypeVar

from ..deadline import Deadline
from ..forking import close_in_child
from ..reactor.machine import Machine
from ..reactor.reactor import Reactor
from ..storage.committing import Committing, File, Written
from ..storage.outbox import Change
from ..wire.envelope import IDENTITY_SIZE
from .accounts import Accounts
from .answering import Answering
from .asking import Asking
from .closing import Closing
from .connections import Connections
from .doors import Doors
from .events import EventQueue
from .inbox import NOTHING
from .life import Life
from .losses import Losses
from .opening import Opening
from .places import Places
from .population import Population
from .receiving import Receiver
from .remembering import Memory
from .reporting import Reporter
from .sending import Sender
from .settings import Settings
from .snapshots import PeerInfo, SocketStats
from .storing import Outbox
from .sweeping import Sweep

__all__ = ["Engine", "engine_of"]

C = TypeVar("C")


class Engine:
    """The core of one Søcket. The user's object, `Søcket`, is a shell over it, so that it can be collected while the
    network thread still flushes what it left."""

    def __init__(self, identity: bytes, settings: Settings, io: Reactor, outbox: Written[Outbox, Change] | None = None,
                 memory: Written[Memory, Sequence[bytes]] | None = None) -> None:
        self.identity = identity
        self.io = io
        self.life = life = Life()
        self.places = Places()
        self.connections = Connections()
        self._losses = Losses()
        self._reporter = reporter = Reporter(identity, io, life, self.places, self._losses)
        self.events = EventQueue(reporter.tell)
        delaying = io.machine.callbacks("reconnection_delay", reporter.raised)
        authorizing = io.machine.callbacks("authorize", reporter.raised)
        self.sender = Sender(settings, life, io, self.events, self._losses, self.connections, reporter.trouble,
                             outbox)
        doors = Doors(settings.max_connections, life, io, self.connections, self.places)
        accounts = Accounts(settings, doors.flooded)
        self.receiver = Receiver(settings, life, io, accounts, self.sender, self.sender.subscriptions, memory)
        self.answering = Answering(self.receiver, self.sender)
        self._closing = Closing(settings.linger, life, io, self.events, reporter, self.places, self.connections,
                                self.sender, self.receiver, self.answering, (authorizing, delaying))
        authorize = settings.authorize
        population = Population(
            identity, settings, life, io, self.events, self.places, self.connections, doors, accounts,
            self.sender, self.receiver, self._closing, Sweep(settings, life, io, self.connections, self.sender),
            None if authorize is None else Asking(authorize, authorizing, life, io))
        self.opening = Opening(settings, life, io, self.events, self.places, doors, population, self._closing, delaying,
                               reporter.complain)
        close_in_child(self)

    # From any thread: waiting, and looking

    def wait_for_peers(self, count: int, deadline: Deadline) -> bool:
        router = self.sender.router
        self.connections.changed.wait(lambda: self.life.over or len(router.ring) >= count, deadline)
        self.life.check_open()
        return len(router.ring) >= count

    def trouble(self) -> str:
        """For the text of a ``TimeoutError``: what is wrong with the endpoints."""
        return self._reporter.trouble()

    def peers(self) -> list[PeerInfo]:
        self.life.check_process()
        return [lane.owner.info() for lane in self.sender.router.ring]

    def stats(self) -> SocketStats:
        peers = self.peers()
        sent, received, bytes_sent, bytes_received, queued = self.connections.totals()
        return SocketStats(
            sent, received, bytes_sent, bytes_received,
            queued=self.sender.router.unplaced + queued,
            unacked=self.sender.unacked,
            resent=self.sender.ledger.resent,
            duplicates=self.receiver.arrivals.duplicates,
            dropped=dict(self._losses.dropped),
            undelivered=self._losses.undelivered,
            connections=self.connections.made,
            disconnections=self.connections.lost,
            peers={info.identity: info for info in peers},
        )

    # The end

    def close(self, linger: float) -> int:
        """See `Søcket.close`."""
        return self._closing.close(linger)

    @property
    def closing_has_begun(self) -> bool:
        """Whether `close` has been called, and not kept by an interrupt from having an effect; or there is nothing left
        to close."""
        return self._closing.begun or self.life.closed

    def follow_closing(self, tell: Callable[[], None]) -> None:
        """Have ``tell()`` called when nobody sends or receives any more: anywhere, and more than once. It may take no
        lock, and not raise."""
        self._closing.followers.append(tell)

    def unfollow_closing(self, tell: Callable[[], None]) -> None:
        """May be repeated."""
        with suppress(ValueError):
            self._closing.followers.remove(tell)

    def begin_close(self, linger: float) -> None:
        """Start closing, and return at once."""
        self._closing.begin(linger)

    def _forked(self) -> None:
        """This is a forked child: close its copies of the descriptors, and touch nothing that is shared."""
        self.life.fork()
        self.sender.fast_ring = ()
        self.receiver.inbox.current = NOTHING
        for peer in (*self.connections.open, *self.connections.handshaking):
            peer.abandon()
        for acceptor in self.places.acceptors:
            acceptor.abandon()
        for endpoint in self.places.endpoints:
            endpoint.abandon()


def engine_of(identity: bytes | None, settings: Settings, io: Reactor) -> Engine:
    """A new one, of this identity, or that of its outbox, or any. Raises ``OSError`` and ``ValueError`` for files that
    cannot be used."""
    machine = io.machine
    with ExitStack() as opened:
        outbox: Written[Outbox, Change] | None = None
        memory: Written[Memory, Sequence[bytes]] | None = None
        if settings.outbox is not None:
            file = machine.open_outbox(settings.outbox, identity, wait_for_disk=settings.outbox_sync == "full")
            outbox = Written(file, _committer(machine, file, opened))
            identity = file.identity
        if settings.dedupe_path is not None:
            seen = machine.open_memory(settings.dedupe_path, settings.dedupe)
            memory = Written(seen, _committer(machine, seen, opened))
        engine = Engine(identity or machine.token(IDENTITY_SIZE), settings, io, outbox, memory)
        opened.pop_all()
        return engine


def _committer(machine: Machine, file: File[C], opened: ExitStack) -> Committing[C]:
    """From here on the file is closed by its own thread."""
    with ExitStack() as failing:
        failing.callback(file.close)
        committer = machine.committer(file)
        opened.callback(committer.close)
        committer.start()
        failing.pop_all()
    return committer
