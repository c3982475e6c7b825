"""What a Søcket has subscribed to: what it is handed of what comes, and what publishers are told of it."""

from __future__ import annotations

from typing import Any

from ..locks import new_lock
from ..reactor.reactor import Reactor
from ..wire.messages import Features
from .connections import Connections
from .life import Life
from .topics import MOST_SUBSCRIPTIONS

__all__ = ["Subscriptions"]


class Subscriptions:
    """Changed by any thread, asked by the network thread.

    An interrupt may leave a change half done. So each step of one can be repeated, and a call that is repeated does all
    of them again: publishers are told twice then, which does no harm.
    """

    def __init__(self, life: Life, io: Reactor, connections: Connections) -> None:
        self.any = False
        """Whether there are some: without, everything is wanted."""
        self._prefixes: dict[int, dict[bytes, None]] = {}  # by their length
        self._steps = io.scope(life.crash)
        self._connections = connections
        self._lock = new_lock()  # guards the changes, and that peers are told of them in their order; a leaf

    def add(self, prefix: bytes) -> None:
        """May be repeated. Raises ``ValueError`` where there are too many."""
        with self._lock:
            its_like = self._prefixes.get(len(prefix), {})
            if prefix not in its_like and sum(map(len, self._prefixes.values())) >= MOST_SUBSCRIPTIONS:
                raise ValueError(f"there are {MOST_SUBSCRIPTIONS} subscriptions, and no more are possible")
            its_like[prefix] = None
            self._prefixes[len(prefix)] = its_like
            self.any = True
            self._tell(prefix, True)

    def remove(self, prefix: bytes) -> None:
        """From what is not subscribed to as well."""
        with self._lock:
            its_like = self._prefixes.get(len(prefix), {})
            its_like.pop(prefix, None)
            if not its_like:
                self._prefixes.pop(len(prefix), None)
            self.any = bool(self._prefixes)
            self._tell(prefix, False)

    def _tell(self, prefix: bytes, wanted: bool) -> None:
        if self._connections.open:  # whoever comes later is told by `tell_all`
            self._steps.call(self._tell_publishers, prefix, wanted)

    # The network thread

    def wants(self, payload: bytes) -> bool:
        """Whether a message begins with one of the prefixes."""
        lengths = tuple(self._prefixes.items())  # in one piece
        return any(payload[:length] in prefixes for length, prefixes in lengths) or not self.any

    def _tell_publishers(self, prefix: bytes, wanted: bool) -> None:
        for peer in tuple(self._connections.open):
            if Features.SUBSCRIPTIONS in peer.lane.features:
                peer.subscribe((prefix,), wanted)

    def tell_all(self, peer: Any) -> None:
        """A publisher has come that understands it."""
        with self._lock:  # or one might be among them, and what has taken its place, too
            prefixes = [prefix for its_like in self._prefixes.values() for prefix in its_like]
        if prefixes:
            peer.subscribe(prefixes, True)
