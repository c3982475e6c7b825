"""What is to be sent, before it is a message. Pure."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Draft"]


class Draft(NamedTuple):
    """One message for which no room has been found yet. It is made anew for each try, under the lock of the router: ids
    are in the order of sending."""

    data: bytes
    identity: bytes | None
    """Of its addressee."""
    answers: bytes | None = None
    """The correlation id of the request that it answers."""
    fails: bool = False
    """Whether it says that there is no answer, and ``data`` why."""

    @property
    def is_answer(self) -> bool:
        return self.answers is not None
