"""The first bytes of a connection, before anybody knows what it is about."""

from __future__ import annotations

from collections.abc import Callable

from .channel import Channel, User

__all__ = ["Sniffer", "sniff"]


def sniff(channel: Channel, judge: Callable[[bytes], User | None]) -> None:
    """Before the user that ``channel`` has may hear of any bytes, have ``judge`` look at the first ones, again and
    again until it names the user that they are for. That one is the channel's from then on, and is handed them."""
    channel.user = Sniffer(channel, channel.user, judge)


class Sniffer:
    """The user of a connection of which it is not known yet what the other end speaks: see `sniff`."""

    __slots__ = ("_channel", "_user", "_judge", "_first")

    def __init__(self, channel: Channel, user: User, judge: Callable[[bytes], User | None]) -> None:
        self._channel = channel
        self._user = user  # until then
        self._judge = judge
        self._first = b""

    def received(self, chunk: bytes) -> bool | None:
        self._first += chunk
        user = self._judge(self._first)
        if user is None:
            return True
        self._channel.user = user
        return user.received(self._first)

    def shaken(self, error: OSError | None) -> None:
        self._user.shaken(error)

    def nothing_came(self) -> None:
        self._user.nothing_came()

    def ended(self, error: OSError | None) -> None:
        self._user.ended(error)

    def has_room(self) -> None:
        self._user.has_room()

    def left(self, *, given_up: bool) -> None:
        self._user.left(given_up=given_up)

    def _crashed(self, error: Exception) -> None:
        self._user._crashed(error)
