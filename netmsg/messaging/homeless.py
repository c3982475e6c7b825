"""Messages that were handed back while nobody else had room: no peer has them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set

from ..wire.messages import Message

__all__ = ["Homeless"]


class Homeless:
    """Each with those who have refused it: there are few such circles, so that whoever has room need not be compared
    with every message."""

    def __init__(self) -> None:
        self.messages: dict[bytes, Message] = {}
        """By their ids, in the order in which they came."""
        self.large = 0
        """Bytes of the large ones."""
        self._circles: dict[frozenset[bytes], dict[bytes, None]] = {}
        """By the identities of those who are not to have them, oldest first in each."""
        self._circle_of: dict[bytes, frozenset[bytes]] = {}

    def __len__(self) -> int:
        return len(self.messages)

    def add(self, message: Message, refused_by: Set[bytes]) -> None:
        circle = frozenset(refused_by)
        message_id = message.message_id
        self.messages[message_id] = message
        self.large += message.large
        self._circle_of[message_id] = circle
        self._circles.setdefault(circle, {})[message_id] = None

    def remove(self, message_id: bytes) -> Message:
        """It is here."""
        message = self.messages.pop(message_id)
        self.large -= message.large
        circle = self._circle_of.pop(message_id)
        members = self._circles[circle]
        del members[message_id]
        if not members:
            del self._circles[circle]
        return message

    def acknowledge(self, identity: bytes, message_ids: Iterable[bytes]) -> list[bytes]:
        """A peer has acknowledged these, some of them twice, perhaps: those that it had handed back before, and has got
        once more all the same. They are not here any more."""
        known = [message_id for message_id in dict.fromkeys(message_ids)
                 if identity in self._circle_of.get(message_id, ())]
        for message_id in known:
            self.remove(message_id)
        return known

    @property
    def refusers(self) -> frozenset[bytes]:
        """Those who have refused one that is here: nobody else can have room, or he would have taken it."""
        return next(iter(self._circles))

    def take_for(self, identity: bytes) -> Iterator[Message]:
        """One after the other, those that this peer has not refused, which are not here any more then."""
        for circle in tuple(self._circles):
            while identity not in circle and circle in self._circles:
                yield self.remove(next(iter(self._circles[circle])))

    def forget(self, identity: bytes) -> None:
        """This peer has come anew, and what it had refused before does not count."""
        for circle in [circle for circle in self._circles if identity in circle]:
            members, others = self._circles.pop(circle), circle - {identity}
            self._circles.setdefault(others, {}).update(members)
            self._circle_of.update(dict.fromkeys(members, others))

    def forgive(self, message_id: bytes) -> None:
        """It does not count any more who has refused this one."""
        self.add(self.remove(message_id), frozenset())

    def drop_oldest(self) -> Message:
        """There is one."""
        return self.remove(next(iter(self.messages)))
