"""Søckets that are connected to each other."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from netmsg import Event, Søcket

TIMEOUT = 10.0

E = TypeVar("E", bound=Event)


@contextmanager
def connected(binder: dict[str, Any] | None = None, connector: dict[str, Any] | None = None, *,
              linger: float = 0.0) -> Iterator[tuple[Søcket, Søcket]]:
    """A Søcket that binds and one that connects to it, made with these arguments, and connected."""
    with (Søcket(**{"linger": linger, **(binder or {})}) as a,
          Søcket(**{"linger": linger, **(connector or {})}) as b):
        a.bind(port=0)
        b.connect(port=a.bound_port)
        a.wait_for_peers(timeout=TIMEOUT)
        b.wait_for_peers(timeout=TIMEOUT)
        yield a, b


def wait_for_event(sock: Søcket, kind: type[E], matching: Callable[[E], bool] = lambda event: True) -> E:
    """The next event of one kind; those before it are used up."""
    for event in sock.events(timeout=TIMEOUT):
        if isinstance(event, kind) and matching(event):
            return event
    raise AssertionError(f"the socket was closed, and no {kind.__name__} came")


class Background(threading.Thread):
    """A call in another thread, whose result or error is asked for later."""

    def __init__(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> None:
        super().__init__(daemon=True)
        self._call = function, arguments, options
        self._result: Any = None
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        function, arguments, options = self._call
        try:
            self._result = function(*arguments, **options)
        except BaseException as error:
            self._error = error

    def result(self, timeout: float = TIMEOUT) -> Any:
        self.join(timeout)
        if self.is_alive():
            raise TimeoutError(f"{self._call[0]!r} is still running")
        if self._error is not None:
            raise self._error
        return self._result


def until_waiting(call: Background) -> None:
    """Wait until a call of the library's, in another thread, has come to wait for an event or another thread: its
    innermost frame is then where the library waits."""
    def waits() -> bool:
        if not call.is_alive():
            raise AssertionError("the call has ended, and was to wait")
        frame = sys._current_frames().get(call.ident or 0)
        return frame is not None and os.path.basename(frame.f_code.co_filename) == "waiting.py"

    until(waits)


def until(condition: Callable[[], object], timeout: float = TIMEOUT) -> None:
    """Wait for something that no event tells: the state of another thread, a counter."""
    waiting = threading.Event()
    for _ in range(int(timeout / 0.005)):
        if condition():
            return
        waiting.wait(0.005)
    raise TimeoutError("the condition did not become true")
