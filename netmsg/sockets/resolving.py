"""Name resolution off the network thread: ``getaddrinfo`` blocks, and nothing can interrupt it.

Each name has threads of its own, two at most, so that a name whose servers are dead holds up nobody else: the second
is for whoever asks again while the first is stuck. Threads are daemonic, gone when nobody waits for their name any
more, and never joined.

Whoever asks joins the queue of the name first and looks second whether a thread is at it; a thread lets go of the name
first and looks second whether somebody waits. So whoever comes second sees the other, and no lock is held by a thread
that Ctrl-C can interrupt.
"""

from __future__ import annotations

import itertools
import socket
import threading
from _thread import LockType, allocate_lock, start_new_thread
from collections import deque
from collections.abc import Callable
from typing import Final

from ..deadline import Deadline
from ..errors import ClosedError
from ..forking import forget_in_child
from ..waiting import Waiters
from .addresses import Address

__all__ = ["resolve", "resolve_in_background", "resolve_within"]

THREADS_A_NAME: Final = 2
MOST_THREADS: Final = 100
"""In all; names beyond wait for a thread. A soft bound: who asks at the same moment may each start one."""

Done = Callable[["list[Address] | OSError"], None]


class _Name:
    """A name that somebody waits for."""

    __slots__ = ("host", "waiting", "slots")

    def __init__(self, host: str) -> None:
        self.host = host
        self.waiting: deque[tuple[int, Done]] = deque()
        self.slots = [allocate_lock() for _ in range(THREADS_A_NAME)]  # each is held by the thread that is at it

    @property
    def untended(self) -> bool:
        return bool(self.waiting) and not any(slot.locked() for slot in self.slots)

    def claim(self) -> LockType | None:
        """A slot, for the thread that calls, unless there are enough."""
        return next((slot for slot in self.slots if slot.acquire(False)), None)


_names: dict[str, _Name] = {}
_threads: set[threading.Thread] = set()
_numbers = itertools.count(1)


@forget_in_child
def _after_fork_in_child() -> None:
    """The threads are the parent's."""
    _names.clear()
    _threads.clear()


def resolve(host: str | None, port: int, flags: int = 0) -> list[Address]:
    """The stream addresses of ``host``, in the system's order of preference. Blocks. Raises ``gaierror``."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    except socket.gaierror as error:
        raise socket.gaierror(error.errno, f"{host!r} cannot be resolved: {error.strerror}") from None
    except UnicodeError as error:  # such as a label of no or of too many letters, which cannot be put into IDNA
        raise socket.gaierror(socket.EAI_NONAME, f"{host!r} is no host name: {error}") from None
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


def resolve_in_background(host: str, port: int, done: Done) -> None:
    """Call ``done`` with the addresses or the error: at once for an IP literal, else later from another thread
    (``netmsg-resolve-N``)."""
    try:
        addresses = resolve(host, port, socket.AI_NUMERICHOST)
    except socket.gaierror:
        _ask(host, (port, done))
    else:
        done(addresses)


def resolve_within(deadline: Deadline, host: str, port: int, waiters: Waiters | None = None,
                   given_up: Callable[[], bool] = lambda: False) -> list[Address]:
    """`resolve` in another thread, for nothing can interrupt the resolver. Raises ``gaierror``, ``TimeoutError``, and
    `ClosedError` once ``given_up()``; whoever makes that true notifies ``waiters``."""
    try:
        return resolve(host, port, socket.AI_NUMERICHOST)
    except socket.gaierror:
        pass
    found: list[list[Address] | OSError] = []
    waiting = waiters or Waiters()

    def done(result: list[Address] | OSError) -> None:
        found.append(result)
        waiting.notify_all()

    question = port, done
    name = _ask(host, question)
    try:
        if not waiting.wait(lambda: found or given_up(), deadline):
            raise TimeoutError(f"{host!r} was not resolved in time")
    finally:
        _withdraw(name, question)
    if not found:
        raise ClosedError(f"closed while {host!r} was resolved")
    if isinstance(found[0], OSError):
        try:
            raise found[0]
        finally:
            found.clear()  # or the error would keep itself alive, by this frame
    return found[0]


def _ask(host: str, question: tuple[int, Done]) -> _Name:
    name = _names.setdefault(host, _Name(host))
    name.waiting.append(question)
    busy = sum(slot.locked() for slot in name.slots)
    # A second thread for a name only while there is plenty, so that few dead names cannot take them all.
    if busy < THREADS_A_NAME and len(_threads) < (MOST_THREADS // 2 if busy else MOST_THREADS):
        try:
            start_new_thread(_start_thread, (name, question))
        except RuntimeError as error:  # out of threads, or the interpreter is exiting
            _cannot(name, question, error)
    return name


def _start_thread(name: _Name, question: tuple[int, Done]) -> None:
    """In a thread of its own, which no Ctrl-C reaches: `threading.Thread.start` is not up to one."""
    thread = threading.Thread(target=_work, args=(name,), name=f"netmsg-resolve-{next(_numbers)}", daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        _cannot(name, question, error)


def _cannot(name: _Name, question: tuple[int, Done], error: RuntimeError) -> None:
    if not any(slot.locked() for slot in name.slots) and _withdraw(name, question):
        question[1](OSError(f"{name.host!r} cannot be resolved: {error}"))


def _withdraw(name: _Name, question: tuple[int, Done]) -> bool:
    """Wait no longer; false if it has been answered, or is about to be."""
    try:
        name.waiting.remove(question)
    except ValueError:
        return False
    return True


def _work(name: _Name) -> None:
    thread = threading.current_thread()
    next_name: _Name | None = name
    while next_name is not None:
        _threads.add(thread)
        try:
            _tend(next_name)
        finally:
            _threads.discard(thread)
        next_name = next((other for other in tuple(_names.values()) if other.untended), None)


def _tend(name: _Name) -> None:
    """Look the name up for all that wait for it, while somebody does."""
    while name.waiting and (slot := name.claim()) is not None:
        try:
            _answer(name, _look_up(name.host))
        finally:
            slot.release()
    if not name.waiting:
        _names.pop(name.host, None)


def _look_up(host: str) -> list[Address] | OSError:
    try:
        return resolve(host, 0)
    except OSError as error:
        return error
    except Exception as error:  # whatever it is, somebody waits
        return OSError(f"{host!r} cannot be resolved: {error!r}")


def _answer(name: _Name, result: list[Address] | OSError) -> None:
    while True:
        try:
            port, done = name.waiting.popleft()
        except IndexError:
            return
        if isinstance(result, OSError):
            done(type(result)(*result.args))  # each its own: raising adds to it
        else:
            done([(family, (address[0], port, *address[2:])) for family, address in result])
