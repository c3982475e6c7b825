"""How the user's handler is driven, packet by packet: a function, or a generator. Pure."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Generator
from typing import Any, Final, Protocol

from ..errors import PacketDecodeError

__all__ = ["check_handler", "FunctionHandler", "GeneratorHandler", "Handler", "is_generator"]


MOST_ENDINGS: Final = 100
"""So often a generator is told of the end of its connection before it is taken for one that never ends."""


class Handler(Protocol):
    """One connection's. Whatever a method raises comes from the user, and is the end."""

    hears_errors: bool
    """Whether `error` has anything to do but to finish."""
    finished: bool
    timeout: float | None
    """How many seconds it wants to wait for the next packet."""

    def begin(self) -> None:
        """The connection is there."""

    def packet(self, packet: Any) -> None:
        """The next packet."""

    def error(self, error: Exception) -> None:
        """What `recv_packet` would have raised in its place: a bad packet, the time is up, the end."""


class FunctionHandler:
    """``handler(client, packet)``."""

    __slots__ = ("finished", "packet")
    hears_errors = False
    timeout: float | None = None

    def __init__(self, function: Callable[[Any, Any], Any], client: Any) -> None:
        self.finished = False
        self.packet: Callable[[Any], Any] = function.__get__(client) if inspect.isfunction(function) \
            else lambda packet: function(client, packet)

    def begin(self) -> None:
        """Nothing to do before the first packet."""

    def error(self, error: Exception) -> None:
        self.finished = True
        if isinstance(error, PacketDecodeError):
            try:
                raise error
            finally:
                del error  # or it would keep itself alive, by this frame


class GeneratorHandler:
    """``handler(client)``, in which ``packet = yield`` waits for the next packet, or ``packet = yield 5.0`` so many
    seconds for it."""

    __slots__ = ("finished", "timeout", "_function", "_client", "_generator", "_endings")
    hears_errors = True

    def __init__(self, function: Callable[[Any], Generator[Any, Any, Any]], client: Any) -> None:
        self.finished = False
        self.timeout: float | None = None
        self._function = function
        self._client = client
        self._generator: Generator[Any, Any, Any] | None = None
        self._endings = 0

    def begin(self) -> None:
        self._generator = self._function(self._client)
        self._go_on(self._generator.__next__)

    def packet(self, packet: Any) -> None:
        assert self._generator is not None
        self._go_on(self._generator.send, packet)

    def error(self, error: Exception) -> None:
        if self._generator is None:
            self.finished = True  # before it has begun
            return
        if not isinstance(error, (PacketDecodeError, TimeoutError)):
            self._endings += 1
            if self._endings > MOST_ENDINGS:
                self.finished = True
                self._generator.close()
                raise RuntimeError("the handler goes on after the end of the connection") from error
        try:
            self._go_on(self._generator.throw, error)
        finally:
            del error  # or it would keep itself alive, by this frame

    def _go_on(self, step: Callable[..., Any], *arguments: Any) -> None:
        """Up to the next ``yield``, or to the end."""
        try:
            while True:
                wanted = step(*arguments)
                try:
                    self.timeout = check_wait(wanted)
                    return
                except (TypeError, ValueError) as error:  # which is raised where it was made
                    assert self._generator is not None
                    step, arguments = self._generator.throw, (error,)
        except StopIteration:
            self.finished = True
        except BaseException:
            self.finished = True
            arguments = ()  # in which may be what is raised here: the same
            raise


def check_wait(wanted: Any) -> float | None:
    """What a handler yields: ``None``, or a number of seconds."""
    if wanted is None:
        return None
    if isinstance(wanted, bool) or not isinstance(wanted, (int, float)):
        raise TypeError(f"yield nothing, or for how many seconds to wait, not {wanted!r:.100}")
    if math.isnan(wanted) or wanted < 0:
        raise ValueError(f"yield nothing, or at least 0 seconds, not {wanted!r}")
    return wanted


def check_handler(function: Any, *, generators: bool = False) -> None:
    """Raises ``TypeError`` for what cannot be one."""
    if not callable(function) or isinstance(function, type):
        raise TypeError(f"handler must be a function, not {function!r:.100}")
    call = getattr(function, "__call__", None)
    if any(test(one) for test in (inspect.iscoroutinefunction, inspect.isasyncgenfunction) for one in (function, call)):
        raise TypeError("handler must not be an asynchronous function")
    if is_generator(function) and not generators:
        raise TypeError("handler must be a function: conversations (generators) are for a PacketServer")


def is_generator(function: Any) -> bool:
    """Whether calling ``function`` makes a generator, as far as can be told: methods, partials and objects with a
    ``__call__`` included."""
    return inspect.isgeneratorfunction(function) or inspect.isgeneratorfunction(getattr(function, "__call__", None))
