"""The receive marks of all identities: who has how much of them left. Pure, but for whom it tells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from .credit import Credit
from .settings import Settings

__all__ = ["Accounts", "Holder"]

MOST_MARKS: Final = 10
"""So many times the marks may be left behind by those who have gone, before nobody new is let in."""


class Holder(Protocol):
    """A connection of an identity."""

    identity: bytes

    @property
    def paused(self) -> bool:
        """Whether it is not read for want of room."""

    def resume_safely(self) -> None:
        """Read again, if there is enough room. Does not raise; may be its end."""


class Accounts:
    """One credit an identity, for as long as it has a connection or has left something that nobody took. Belongs to the
    network thread. ``flooded(yes)`` is told when those who have gone have left too much, and when they have not."""

    def __init__(self, settings: Settings, flooded: Callable[[bool], None]) -> None:
        self._settings = settings
        self._flooded = flooded
        self._accounts: dict[bytes, _Account] = {}
        self._orphans: dict[bytes, Pending] = {}
        """What those have pending that have gone."""
        self._orphaned = NOTHING_PENDING
        """All of them together."""
        self._is_flooded = False

    def open(self, holder: Holder) -> Credit:
        """The credit of an identity that has connected."""
        account = self._accounts.get(holder.identity)
        if account is None:
            settings = self._settings
            account = _Account(Credit(holder.identity, settings.recv_hwm, settings.recv_hwm_bytes), [])
            self._accounts[holder.identity] = account
        account.holders.append(holder)
        self._note_orphan(account)
        return account.credit

    def connections_of(self, identity: bytes) -> int:
        """How many an identity has, those included that are only read to their end."""
        account = self._accounts.get(identity)
        return 0 if account is None else len(account.holders)

    def leave(self, holder: Holder) -> None:
        """The connection has gone; what it brought and nobody took still counts."""
        account = self._accounts.get(holder.identity)
        if account is not None and holder in account.holders:
            account.holders.remove(holder)
            account.credit.waits = True
            self.taken_from(account.credit)

    def taken_from(self, credit: Credit) -> None:
        """Messages of an identity have been taken that somebody waits for."""
        account = self._accounts.get(credit.identity)
        if account is None or account.credit is not credit:
            return
        for holder in tuple(account.holders):
            if holder.paused:
                holder.resume_safely()  # which may be its end, and bring us here again
        if self._accounts.get(credit.identity) is not account:
            return  # it was, and the last one's: what is there now is that of a successor
        if not account.holders and credit.pending <= 0:
            del self._accounts[credit.identity]
        credit.waits = not account.holders or any(holder.paused for holder in account.holders)
        self._note_orphan(account)

    def _note_orphan(self, account: _Account) -> None:
        """Those who come, leave something, and go, each under another name, may together have so many times the marks
        here; then newcomers wait outside until some of it is taken."""
        credit = account.credit
        before = self._orphans.pop(credit.identity, NOTHING_PENDING)
        now = NOTHING_PENDING
        if not account.holders and credit.pending > 0:
            now = self._orphans[credit.identity] = Pending(credit.pending, credit.pending_bytes)
        messages, size = (total - old + new for total, old, new in zip(self._orphaned, before, now))
        self._orphaned = Pending(messages, size)
        flooded = messages >= MOST_MARKS * credit.hwm or size >= MOST_MARKS * credit.hwm_bytes
        if flooded != self._is_flooded:
            self._is_flooded = flooded
            self._flooded(flooded)


class Pending(NamedTuple):
    """What nobody has taken yet."""

    messages: int
    bytes: int


NOTHING_PENDING: Final = Pending(0, 0)


class _Account(NamedTuple):
    """The credit of one identity and its connections: one, but for a change of connection, or none any more."""

    credit: Credit
    holders: list[Holder]
