"""The connections of a Søcket: who is let in, who is not yet, and what those have sent and received that have gone."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

from ..speaking import say_soon
from ..waiting import Waiters

if TYPE_CHECKING:
    from .peers import Peer

__all__ = ["Connections", "Totals", "each"]

log = logging.getLogger("netmsg.messaging")


def each(peers: Iterable[Peer], step: Callable[[Peer], object]) -> None:
    """``step(peer)``, one after the other. An exception is that peer's end, and nobody else's."""
    for peer in tuple(peers):
        try:
            step(peer)
        except Exception as error:
            say_soon(log, logging.ERROR, "a step for one peer failed", exc_info=error)
            peer._crashed(error)


class Totals(NamedTuple):
    """What all connections have carried, those of the past included."""

    sent: int
    received: int
    bytes_sent: int
    bytes_received: int
    queued: int
    """Messages that wait to be sent on those that are there."""


class Connections:
    """Changed by the network thread, and looked at by all. Many neighbours need one fact of it each."""

    def __init__(self) -> None:
        self.open: dict[Peer, None] = {}
        """Those let in, also those that are only read to their end."""
        self.handshaking: dict[Peer, None] = {}
        """Those not let in yet, oldest first."""
        self.retired: dict[bytes, Peer] = {}
        """The newest connection of each identity that is only read to its end."""
        self.made = 0
        """Peers there have been."""
        self.lost = 0
        self.changed = Waiters()
        """Who waits for peers to come or go."""
        self._past = Totals(0, 0, 0, 0, 0)
        self._moving = False
        self._moves = 0

    def count_in(self, peer: Peer) -> None:
        """It is let in."""
        del self.handshaking[peer]
        self.open[peer] = None

    def count_out(self, peer: Peer) -> None:
        """It has gone: what it has sent and received counts among the past from now on, which `totals` sees at once or
        not at all."""
        lane, past = peer.lane, self._past
        self._moving = True
        self._past = Totals(past.sent + lane.sent_messages, past.received + peer.received_messages,
                            past.bytes_sent + lane.sent_bytes, past.bytes_received + peer.received_bytes, 0)
        self.open.pop(peer, None)
        self._moves += 1
        self._moving = False
        if self.retired.get(peer.identity) is peer:
            del self.retired[peer.identity]

    def count_stranger_out(self, peer: Peer) -> None:
        """It has gone without having been let in."""
        self._past = self._past._replace(bytes_received=self._past.bytes_received + peer.received_bytes)
        self.handshaking.pop(peer, None)

    def totals(self) -> Totals:
        """From any thread."""
        while True:
            moves = self._moves
            totals = self._add_up()
            if not self._moving and moves == self._moves:
                return totals

    def _add_up(self) -> Totals:
        past = self._past
        there = tuple(self.open)
        return Totals(
            past.sent + sum(peer.lane.sent_messages for peer in there),
            past.received + sum(peer.received_messages for peer in there),
            past.bytes_sent + sum(peer.lane.sent_bytes for peer in there),
            past.bytes_received + sum(peer.received_bytes for peer in there),
            sum(len(peer.lane.queue) for peer in there))
