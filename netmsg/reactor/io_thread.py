"""What users hold of a network thread."""

from __future__ import annotations

from .reactor import Reactor

__all__ = ["IOThread", "reactor_of"]


class IOThread:
    """A background thread (``netmsg-io-N``) on which Søckets and servers do their network work.

    Each makes one of its own unless it is handed one: sharing an ``IOThread`` lets hundreds of Søckets live on one
    thread. It starts with its first user. A context manager; `close` closes all of its users.

    May be used from any thread. In a forked child it raises `ForkedError`.
    """

    def __init__(self) -> None:
        self._reactor = Reactor()

    @classmethod
    def _of(cls, reactor: Reactor) -> IOThread:
        """For a reactor that is there already."""
        thread = cls.__new__(cls)
        thread._reactor = reactor
        return thread

    @property
    def closed(self) -> bool:
        """Whether `close` was called, or the thread has failed."""
        return self._reactor.closed

    def close(self, *, timeout: float | None = 5.0) -> None:
        """Close every user, giving them ``timeout`` seconds together, and end the thread. Idempotent.

        From a network thread it only begins to, and from a signal handler that has come in the middle of a call.
        """
        self._reactor.close(timeout=timeout)

    def __enter__(self) -> IOThread:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} netmsg-io-{self._reactor.number} {'closed' if self.closed else 'open'}>"


def reactor_of(io_thread: IOThread | None) -> Reactor:
    """The reactor of the thread that a user shares, or else one for a single user. ``TypeError`` for what is none."""
    if io_thread is None:
        return Reactor.private()
    if not isinstance(io_thread, IOThread):
        raise TypeError(f"io_thread must be an IOThread, not {type(io_thread).__name__}")
    return io_thread._reactor
