"""What UDP and UNIX datagram sockets have in common: one datagram in, one datagram out, and waiting for either."""

from __future__ import annotations

import errno
import logging
import os
import socket
import time
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from ..checks import check_count, check_seconds, check_size, check_timeout
from ..deadline import Deadline
from ..errors import ClosedError, ForkedError, SendTimeoutError
from ..forking import close_in_child, current_process
from ..sockets.proxy import SocketProxy
from ..sockets.waiting import READ, WRITE, Occupancy
from ..uninterrupted import move_first
from ..waiting import ONE

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["DatagramSocket"]

log = logging.getLogger("netmsg.datagrams")

PAUSE: Final = 0.001
"""Seconds between two tries where no event tells when one may succeed."""
LARGEST: Final = 65_536
"""No datagram of UDP is longer."""
MOST_STRANGERS: Final = 1000
"""Datagrams of strangers that one call passes over after its time is up: what is wanted may be behind them."""
SMALLEST: Final = 256
"""What the kernel counts for a datagram at least, however short it is: rather more."""
NOW: Final = Deadline(0)

T = TypeVar("T")


class DatagramSocket:
    """May be used from any thread. Every ``timeout`` is in seconds, ``None`` for ever, 0 for one try; running out
    raises ``TimeoutError``. What sends, receives or sets something raises `ClosedError` once closed, also while it is
    blocked, and `ForkedError` in a forked child; what is told of the socket is told all the same. A context manager.
    """

    _longest = LARGEST
    """What `request` takes for an answer."""

    def __init__(self, sock: socket.socket, *, connected: bool) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._connected = connected
        self._local_address = self._address(sock.getsockname())
        self._proxy = SocketProxy(sock)
        self._process = current_process()
        self._overlong = 0
        self._left: list[list[Any]] = []  # what calls that were interrupted have received: it is the next one's
        self._occupancy = Occupancy()
        close_in_child(self)

    # What differs

    def _address(self, address: Any) -> Any:
        """An address as users see it."""
        raise NotImplementedError

    def _is_strange(self, sender: Any) -> bool:
        """Whether a datagram from there is not for users to see, and the kernel does not see to it."""
        return False

    def _dispose(self) -> None:
        """May be called several times."""
        self._socket.close()

    # State

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._occupancy.closing

    def fileno(self) -> int:
        """The descriptor; -1 once closed."""
        return -1 if self.closed else self._socket.fileno()

    @property
    def local_address(self) -> Any:
        """(host, port), or the path of a UNIX socket; also after close."""
        return self._local_address

    @property
    def _fixed_target(self) -> Any:
        """(host, port), or the path, of what the socket is connected to; ``None`` if it is not."""
        raise NotImplementedError

    def _is_target(self, sender: Any) -> bool:
        """Whether ``sender``, as `receive` gave it, is what the socket is connected to."""
        raise NotImplementedError

    @property
    def socket(self) -> SocketProxy:
        """The socket's options and addresses."""
        return self._proxy

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._local_address!r} {'closed' if self.closed else 'open'}>"

    def __del__(self) -> None:
        if not hasattr(self, "_occupancy") or self._process is not current_process():
            return
        if not self.closed:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)
        self.close()

    def _check(self) -> None:
        if self._process is not current_process():
            raise ForkedError("this socket belongs to the parent process")
        if self._occupancy.closing:
            raise ClosedError("the socket is closed")

    def close(self) -> None:
        """Close; what was sent is on its way. Idempotent, from any thread or signal handler. Whoever waits in a call
        gets `ClosedError`."""
        self._occupancy.close(self._dispose)

    def _forked(self) -> None:
        """In a forked child: close this process's copies."""
        self._occupancy.forked(self._dispose)

    # One operation

    def _inside(self, operation: Callable[..., T], *arguments: Any) -> T:
        """``operation(*arguments)``, and nobody closes the descriptor meanwhile."""
        occupancy = self._occupancy
        claim = object()
        try:
            occupancy.inside[claim] = None
            self._check()
            return operation(*arguments)
        finally:
            del occupancy.inside[claim]
            if occupancy.closing:
                occupancy.left(self._dispose)

    def _do(self, events: int, deadline: Deadline, operation: Callable[[], T], waiting_for: Any = None) -> T:
        """Try, wait until it may work, try again. For whoever is inside. Raises ``BlockingIOError`` once ``deadline``
        has expired: ``TimeoutError`` is what a signal handler may raise (the usual alarm)."""
        tries = 0
        while True:
            try:
                return operation()
            except BlockingIOError:
                pass
            except OSError:
                self._check()
                raise
            tries += 1
            if tries > 1 and deadline.expired or not self._wait(events, deadline, waiting_for):
                raise BlockingIOError(errno.EAGAIN, "timed out")
            if tries > 2:  # the kernel says that it could, and it cannot
                self._pause(deadline)
            self._check()

    def _wait(self, events: int, deadline: Deadline, target: Any) -> bool:
        """``target`` is what could not be sent to, if anything. False once ``deadline`` has expired."""
        unless = self._left if events == READ else ()
        return self._occupancy.wake_up.ready({self._socket.fileno(): events}, deadline, unless) is not None

    def _pause(self, deadline: Deadline) -> None:
        self._occupancy.wake_up.ready({}, deadline.sooner(PAUSE))

    # Receiving

    def _receive(self, max_bytes: int, deadline: Deadline) -> tuple[bytes, Any, bool]:
        """The next datagram, its sender, and whether it is cut. Raises ``BlockingIOError`` once ``deadline`` has
        expired."""
        occupancy = self._occupancy
        left = self._left
        arrived: list[Any] = []
        claim = object()
        try:
            occupancy.inside[claim] = None
            self._check()
            self._arrive(arrived, max_bytes, deadline)
            data, _, flags, sender = arrived[0]
            sender = self._address(sender)
            cut = bool(flags & socket.MSG_TRUNC) or len(data) > max_bytes
            # No call from here on, and so no interrupt.
            return data, sender, cut
        except BaseException:
            if arrived:
                left += (arrived,)
                if occupancy.inside != {claim: None}:  # for who waits already: see `WakeUp`
                    try:
                        for signal in occupancy.wake_up.signals[:1]:
                            os.write(signal.ends[-1], ONE)
                    except BlockingIOError:
                        pass  # it is set
            raise
        finally:
            del occupancy.inside[claim]
            if occupancy.closing:
                occupancy.left(self._dispose)

    def _arrive(self, arrived: list[Any], max_bytes: int, deadline: Deadline) -> None:
        """Wait until there is one in ``arrived`` that is no stranger's."""
        left = self._left

        def take() -> None:
            if not (left and move_first(left, arrived)):
                arrived.extend(map(self._socket.recvmsg, (max_bytes,)))  # `keep`, a call less

        strangers = 0
        while True:
            if not arrived:
                self._do(READ, deadline, take)
            if not self._is_strange(arrived[0][3]):
                return
            arrived[:] = ()
            self._check()  # there may always be another one
            strangers += 1
            if strangers >= MOST_STRANGERS and deadline.expired:
                raise BlockingIOError(errno.EAGAIN, "timed out")

    def _receive_now(self, max_bytes: int = LARGEST) -> tuple[bytes, Any]:
        """`receive`, with ``BlockingIOError`` where it would wait. For whoever waits in a selector."""
        data, sender, cut = self._receive(max_bytes, NOW)
        if cut:
            raise _too_long(max_bytes)
        return data, sender

    def receive(self, max_bytes: int = LARGEST, *, timeout: float | None = None) -> tuple[bytes, Any]:
        """The next datagram, and the address to answer it to. An interrupt (Ctrl-C) loses none.

        One longer than ``max_bytes`` is lost, and an ``OSError(EMSGSIZE)``: it is never cut without a word. On a
        connected socket ``ConnectionRefusedError`` says that nobody listened to an earlier `send`.
        """
        deadline = Deadline(timeout)
        check_size("max_bytes", max_bytes)
        try:
            data, sender, cut = self._receive(max_bytes, deadline)
        except BlockingIOError:
            raise TimeoutError("timed out") from None
        if cut:
            raise _too_long(max_bytes)
        return data, sender

    def receive_packets(self, max_bytes: int = LARGEST, *,
                        timeout: float | None = None) -> Iterator[tuple[bytes, Any]]:
        """Iterate over the datagrams that come, until closed, or until ``timeout`` seconds in all have been spent
        waiting. Longer ones are skipped, and logged with their count."""
        check_timeout(timeout)
        check_size("max_bytes", max_bytes)
        self._check()
        return _Packets(self, max_bytes, timeout)

    def _wait_readable(self, deadline: Deadline) -> bool:
        """Wait until `receive` has something to return or to raise, or a stranger has sent something. False once
        ``deadline`` has expired. For whoever builds on sockets."""
        try:
            self._inside(self._do, READ, deadline, lambda: self._left or self._socket.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return False
        return True

    # Sending

    def _send(self, data: ReadableBuffer, address: Any, deadline: Deadline) -> None:
        octets = memoryview(data)
        if not octets.c_contiguous:
            octets = memoryview(octets.tobytes())
        try:
            if address is None:
                self._inside(self._do, WRITE, deadline, lambda: self._socket.send(octets))
            else:
                self._inside(self._do, WRITE, deadline, lambda: self._socket.sendto(octets, address), address)
        except BlockingIOError:
            raise SendTimeoutError("the datagram could not be sent in time") from None

    # The client's half of an exchange

    def request(self, data: ReadableBuffer, address: Any = None, *, timeout: float | None = None,
                interval: float = 1.0, retries: int = 3, match: Callable[[bytes], Any] | None = None) -> bytes:
        """Send ``data`` to ``address`` (none on a connected socket) and wait for the answer.

        It is sent again every ``interval`` seconds, ``retries`` times at most, for datagrams get lost; so the other
        end has to bear the same request twice, and its second answer may come during the next request: put something
        into the request that the answer repeats, and look for it in ``match``, which is called with the data of each
        answer. Those for which it is not true are passed over, and so are datagrams from strangers, and what had come
        before the request. ``TimeoutError`` when one more interval has passed in vain, or after ``timeout`` seconds
        in all; its ``__cause__`` is the ``ConnectionRefusedError`` or ``FileNotFoundError`` if nobody was there, and
        the `SendTimeoutError` if the other end had no room, each of which counts as a request that got lost. An
        exchange of which parts are received by another thread's `receive` does not work.
        """
        deadline = Deadline(timeout)
        check_seconds("interval", interval)
        check_count("retries", retries, 0)
        self._check()
        expected = self._target(address, deadline)
        cause: OSError | None = None
        self._drop_what_is_there(deadline)
        for _ in range(retries + 1):
            step = deadline.sooner(interval)
            cause = self._send_request(data, expected, step) or cause
            while True:
                try:
                    answer, sender, cut = self._receive(self._longest, step)
                except BlockingIOError:
                    break
                except ConnectionRefusedError as error:
                    cause = error  # nobody is there now: somebody may be when it is sent again
                    continue
                if self._is_from(sender, expected):
                    if cut:
                        raise OSError(errno.EMSGSIZE, f"the answer is longer than {self._longest} bytes")
                    if match is None or match(answer):
                        return answer
                if step.expired:  # however much else arrives
                    break
            if deadline.expired:
                break
        raise TimeoutError(f"no answer in time from {self._described(expected)}") from cause

    def _described(self, expected: Any) -> Any:
        return self._fixed_target if expected is None else self._address(expected)

    def _drop_what_is_there(self, deadline: Deadline) -> None:
        """Late answers to former requests; no more than the kernel can have held, while others keep coming."""
        for _ in range(self._inside(self._socket.getsockopt, socket.SOL_SOCKET, socket.SO_RCVBUF) // SMALLEST):
            try:
                self._receive(self._longest, NOW)
            except BlockingIOError:
                return
            except ConnectionRefusedError:
                pass  # to a former one, and there may be answers behind it
            if deadline.expired:
                return

    def _target(self, address: Any, deadline: Deadline) -> Any:
        """What to give to ``sendto`` for an address of the user's."""
        raise NotImplementedError

    def _is_from(self, sender: Any, expected: Any) -> bool:
        return expected is None or sender == self._address(expected)

    def _send_request(self, data: ReadableBuffer, address: Any, deadline: Deadline) -> OSError | None:
        """Why it is lost already: nobody is there (over UDP for an earlier one), or does not make room."""
        try:
            self._send(data, address, deadline)
        except (ConnectionRefusedError, FileNotFoundError, SendTimeoutError) as error:
            return error
        return None


class _Packets(Iterator[tuple[bytes, Any]]):
    """An iterator that may be asked again after it raised, which a generator may not. Where time counts, waiting,
    counting and taking are three steps, so that an interrupt loses no datagram."""

    def __init__(self, owner: DatagramSocket, max_bytes: int, timeout: float | None) -> None:
        self._owner = owner
        self._max_bytes = max_bytes
        self._left = timeout

    def __next__(self) -> tuple[bytes, Any]:
        owner = self._owner
        while True:
            if self._left is not None:
                self._wait()
            try:
                return owner.receive(self._max_bytes) if self._left is None else owner._receive_now(self._max_bytes)
            except ClosedError:
                raise StopIteration from None
            except BlockingIOError:
                pass  # another thread has taken it, or it was a stranger's
            except OSError as error:
                if error.errno != errno.EMSGSIZE:
                    raise
                owner._overlong += 1
                log.warning("%r: %s; %d were skipped so far", owner, error, owner._overlong)

    def _wait(self) -> None:
        assert self._left is not None
        started = time.monotonic()
        try:
            if not self._owner._wait_readable(Deadline(self._left)):
                raise StopIteration
        except ClosedError:
            raise StopIteration from None
        finally:
            self._left = max(0.0, self._left - (time.monotonic() - started))


def _too_long(max_bytes: int) -> OSError:
    return OSError(errno.EMSGSIZE, f"a datagram of more than {max_bytes} bytes was received, and dropped")
