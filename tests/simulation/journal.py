"""What users have sent and what has been delivered: what the promises are checked against."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from netmsg import Receipt
    from netmsg.messaging.requests import Request

    from .program import User

__all__ = ["Asked", "Delivered", "Journal", "Sent"]


class Delivered(NamedTuple):
    """That a message was handed over."""

    to: str
    life: int
    """Of the program that got it."""
    at: float
    sender: bytes
    """Whom it was said to be from."""


class Sent:
    """A message that a user has wanted to send."""

    __slots__ = ("at", "deliveries", "is_stored", "label", "life", "number", "receipt", "refused", "reliable", "sender",
                 "there", "to", "turned_away")

    def __init__(self, sender: str, life: int, number: int, at: float, to: str | None, there: tuple[bytes, ...], *,
                 reliable: bool) -> None:
        self.sender = sender
        self.life = life
        self.number = number
        self.at = at
        self.to = to
        self.there = there
        """The peers that its sender had, in their order."""
        self.reliable = reliable
        self.label = f"{sender}.{life}.{number}.".encode()
        self.receipt: Receipt | None = None
        self.turned_away = False
        """Whether its receipt had failed when `send` returned."""
        self.refused = ""
        """What `send` raised; or that it has not returned yet, or never has."""
        self.is_stored = False
        """Whether `send` has returned, with an outbox."""
        self.deliveries: list[Delivered] = []

    def __str__(self) -> str:
        return f"{self.sender}.{self.life}.{self.number}"


class Asked:
    """A request of a user's, and what has become of it."""

    __slots__ = ("asker", "at", "label", "life", "outcome", "patience", "request", "served", "to", "unsaid")

    def __init__(self, asker: str, life: int, number: int, at: float, patience: float, to: str | None) -> None:
        self.asker = asker
        self.life = life
        self.at = at
        self.patience = patience
        self.to = to
        self.label = f"?{asker}.{life}.{number}.".encode()
        self.request: Request | None = None
        self.outcome: bytes | str | None = None
        """The reply, or the name of what was raised instead; ``None`` while it is waited for."""
        self.served: list[str] = []
        """Who has got it."""
        self.unsaid = 0
        """How many replies to it found no room."""

    def __str__(self) -> str:
        return self.label.decode()


class Journal:
    """All messages, by what is written in them."""

    def __init__(self) -> None:
        self.sent: dict[bytes, Sent] = {}
        self.strays: list[tuple[str, bytes]] = []
        """What was delivered and nobody has sent: to whom, and the first bytes."""
        self.by_life: dict[tuple[str, int], list[Sent]] = {}
        """What each life of each has wanted to send, in order."""
        self.asked: dict[bytes, Asked] = {}
        """Requests, by what is written in them."""
        self.from_elders: dict[bytes, list[str]] = {}
        """What peers of the old dialect have sent, and who has got it."""
        self.again: list[tuple[str, str]] = []
        """To whom what came that an earlier life of it had noted."""
        self._numbers: dict[str, int] = {}
        self.order: dict[tuple[str, int], list[Sent]] = {}
        """What each life of each has got, in order."""

    def begin(self, user: User, to: str | None) -> Sent:
        number = self._numbers[user.name] = self._numbers.get(user.name, 0) + 1
        there = tuple(peer.identity for peer in user.socket.peers())
        sent = Sent(user.name, user.life, number, user.program.timeline.now, to, there, reliable=user.reliable)
        self.sent[sent.label] = sent
        self.by_life.setdefault((user.name, user.life), []).append(sent)
        return sent

    def ask(self, user: User, patience: float, to: str | None) -> Asked:
        number = self._numbers[user.name] = self._numbers.get(user.name, 0) + 1
        asked = Asked(user.name, user.life, number, user.program.timeline.now, patience, to)
        self.asked[asked.label] = asked
        return asked

    def served(self, user: User, data: bytes) -> Asked | None:
        asked = self.asked.get(data)
        if asked is None:
            self.strays.append((user.name, data[:40]))
        else:
            asked.served.append(user.name)
        return asked

    def failed(self, name: str, life: int) -> int:
        """How many receipts have, of those of one life."""
        return sum(sent.receipt is not None and sent.receipt.failed for sent in self.by_life.get((name, life), ()))

    @staticmethod
    def label_of(data: bytes) -> bytes:
        return data.rstrip(b"*")

    def is_reliable(self, data: bytes) -> bool:
        sent = self.sent.get(self.label_of(data))
        return sent is not None and sent.reliable

    def delivered(self, user: User, identity: bytes, data: bytes) -> Sent | None:
        sent = self.sent.get(self.label_of(data))
        if sent is None:
            if data in self.from_elders:
                self.from_elders[data].append(user.name)
            else:
                self.strays.append((user.name, data[:40]))
            return None
        sent.deliveries.append(Delivered(user.name, user.life, user.program.timeline.now, identity))
        self.order.setdefault((user.name, user.life), []).append(sent)
        return sent
