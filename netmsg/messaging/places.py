"""Where a Søcket listens, and what it dials."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..reactor.accepting import Acceptor

if TYPE_CHECKING:
    from .reconnecting import Endpoint

__all__ = ["Places"]


class Places:
    """Added to by any thread, by one ``+=`` that no interrupt can split; nothing is ever taken out."""

    __slots__ = ("acceptors", "bound_urls", "endpoints")

    def __init__(self) -> None:
        self.acceptors: list[Acceptor] = []
        self.bound_urls: list[str] = []
        self.endpoints: list[Endpoint] = []
