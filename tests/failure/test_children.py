"""A program that uses a Søcket has a child, forked in whatever state or spawned: the child cannot use what it has
inherited and does no harm to it, and one that is spawned is a program like any other."""

from __future__ import annotations

import os
import signal
import textwrap
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest
from support.forking import fork
from support.pairs import TIMEOUT, Background, until, until_waiting
from support.processes import Program
from support.wire_peer import DATA, WirePeer, dial, frame, hello

from netmsg import ClosedError, ForkedError, Søcket

GoesOn = Callable[[], None]
"""Sees that the parent goes on where it was."""


def greeted(port: int) -> WirePeer:
    peer = dial(port)
    peer.shake_hands()
    return peer


def is_served(sock: Søcket) -> None:
    with greeted(sock.bound_port) as peer:
        peer.send(frame(DATA, b"from a newcomer"))
        assert sock.recv(timeout=TIMEOUT) == b"from a newcomer"


@contextmanager
def never_attached() -> Iterator[tuple[Søcket, GoesOn]]:
    with Søcket(linger=0) as sock:
        yield sock, lambda: is_served(sock.bind(port=0))


@contextmanager
def bound() -> Iterator[tuple[Søcket, GoesOn]]:
    with Søcket(linger=0).bind(port=0) as sock:
        yield sock, lambda: is_served(sock)


@contextmanager
def in_a_handshake() -> Iterator[tuple[Søcket, GoesOn]]:
    with Søcket(linger=0).bind(port=0) as sock, dial(sock.bound_port) as peer:
        greeting = hello(peer.identity)
        peer.send(greeting[:7])

        def goes_on() -> None:
            peer.send(greeting[7:], frame(DATA, b"at last"))
            assert sock.recv(timeout=TIMEOUT) == b"at last"

        yield sock, goes_on


@contextmanager
def blocked_in_recv() -> Iterator[tuple[Søcket, GoesOn]]:
    """In a conversation, in which the thread that waits reads by itself."""
    with Søcket(linger=0).bind(port=0) as sock, greeted(sock.bound_port) as peer:
        for _ in range(50):
            peer.send(frame(DATA, b"x"))
            assert sock.recv(timeout=TIMEOUT) == b"x"
        waiting = Background(sock.recv)
        until_waiting(waiting)

        def goes_on() -> None:
            peer.send(frame(DATA, b"at last"))
            assert waiting.result() == b"at last"

        yield sock, goes_on


@contextmanager
def blocked_in_send() -> Iterator[tuple[Søcket, GoesOn]]:
    with Søcket(linger=0, send_hwm=1).bind(port=0) as sock:
        sock.send(b"1")
        waiting = Background(sock.send, b"2")
        until_waiting(waiting)

        def goes_on() -> None:
            with greeted(sock.bound_port) as peer:
                assert [peer.read_kind(DATA)[1] for _ in range(2)] == [b"1", b"2"]
            waiting.result()

        yield sock, goes_on


@contextmanager
def lingering() -> Iterator[tuple[Søcket, GoesOn]]:
    with Søcket(linger=TIMEOUT).bind(port=0) as sock:
        sock.send(b"the last")
        closing = Background(sock.close)
        until(lambda: sock.closed)

        def goes_on() -> None:
            with greeted(sock.bound_port) as peer:
                assert peer.read_kind(DATA)[1] == b"the last"
                peer.wait_for_end()
            assert closing.result() == 0

        yield sock, goes_on


@contextmanager
def closed() -> Iterator[tuple[Søcket, GoesOn]]:
    sock = Søcket(linger=0).bind(port=0)
    sock.close()
    yield sock, lambda: None


STATES = [never_attached, bound, in_a_handshake, blocked_in_recv, blocked_in_send, lingering, closed]


@pytest.mark.parametrize("state", STATES, ids=lambda function: str(function.__name__))
def test_a_child_forked_in_whatever_state_can_do_nothing_and_does_no_harm(
        state: Callable[[], AbstractContextManager[tuple[Søcket, GoesOn]]]) -> None:
    with state() as (sock, goes_on):
        child = fork()
        if not child:
            status = 1
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(int(TIMEOUT))  # ends it, should it hang
            try:
                status = 0 if is_refused_all(sock) else 2
                sock.close()
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        goes_on()


def is_refused_all(sock: Søcket) -> bool:
    for call in (lambda: sock.send(b"x"), lambda: sock.recv(timeout=1), lambda: sock.bind(port=0),
                 lambda: sock.connect(port=1)):
        try:
            call()
        except (ForkedError, ClosedError):
            continue
        return False
    return True


SPAWNING = """
    import multiprocessing, sys
    from netmsg import Søcket

    def child(port):
        with Søcket(linger=10) as sock:
            sock.connect(port=port)
            sock.send(b"from the child")

    if __name__ == "__main__":
        with Søcket(linger=0).bind(port=0) as a, Søcket(linger=0).connect(port=a.bound_port) as b:
            b.wait_for_peers(timeout=10)
            process = multiprocessing.get_context(sys.argv[1]).Process(target=child, args=(a.bound_port,))
            process.start()
            print(a.recv(timeout=20).decode(), flush=True)
            process.join(20)
            assert process.exitcode == 0
            a.send(b"and the parent goes on", b.identity)
            print(b.recv(timeout=10).decode(), flush=True)
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_child_that_is_spawned_has_a_socket_of_its_own(method: str, tmp_path: Path) -> None:
    """In a program of its own, for multiprocessing keeps a pipe for as long as that lasts."""
    (tmp_path / "spawning.py").write_text(textwrap.dedent(SPAWNING), encoding="utf-8")
    with ExitStack() as stack:
        program = stack.enter_context(Program(tmp_path / "spawning.py", method))
        assert program.finish() == 0, program
        assert program.lines == ["from the child", "and the parent goes on"]
        assert not program.complaints()
