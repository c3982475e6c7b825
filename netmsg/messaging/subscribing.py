"""What a Søcket has subscribed to: what it is handed of what comes, and what publishers are told of it."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ..locks import new_lock
from ..reactor.reactor import Reactor
from ..wire.messages import Features
from .connections import Connections
from .life import Life
from .topics import MOST_SUBSCRIPTIONS

__all__ = ["Subscriptions"]


class Subscriptions:
    """Changed by any thread in which no interrupt can come, asked by the network thread."""

    def __init__(self, life: Life, io: Reactor, connections: Connections) -> None:
        self.any = False
        """Whether there are some: without, everything is wanted."""
        self._prefixes: dict[bytes, None] = {}
        self._lengths: Counter[int] = Counter()
        self._steps = io.scope(life.crash)
        self._connections = connections
        self._lock = new_lock()  # guards the changes, and that peers are told of them in their order; a leaf

    def add(self, prefix: bytes) -> None:
        """May be repeated. Raises ``ValueError`` where there are too many."""
        with self._lock:
            if prefix in self._prefixes:
                return
            if len(self._prefixes) >= MOST_SUBSCRIPTIONS:
                raise ValueError(f"there are {MOST_SUBSCRIPTIONS} subscriptions, and no more are possible")
            self._lengths[len(prefix)] += 1
            self._prefixes[prefix] = None
            self.any = True
            self._tell(prefix, True)

    def remove(self, prefix: bytes) -> None:
        """From what is not subscribed to as well."""
        with self._lock:
            if prefix not in self._prefixes:
                return
            del self._prefixes[prefix]
            self.any = bool(self._prefixes)
            self._lengths[len(prefix)] -= 1
            if not self._lengths[len(prefix)]:
                del self._lengths[len(prefix)]
            self._tell(prefix, False)

    def _tell(self, prefix: bytes, wanted: bool) -> None:
        if self._connections.open:  # whoever comes later is told by `tell_all`
            self._steps.call(self._tell_publishers, prefix, wanted)

    # The network thread

    def wants(self, payload: bytes) -> bool:
        """Whether a message begins with one of the prefixes."""
        prefixes = self._prefixes
        return any(payload[:length] in prefixes for length in tuple(self._lengths)) or not self.any

    def _tell_publishers(self, prefix: bytes, wanted: bool) -> None:
        for peer in tuple(self._connections.open):
            if Features.SUBSCRIPTIONS in peer.lane.features:
                peer.subscribe((prefix,), wanted)

    def tell_all(self, peer: Any) -> None:
        """A publisher has come that understands it."""
        prefixes = tuple(self._prefixes)
        if prefixes:
            peer.subscribe(prefixes, True)
