"""The machine that this program runs on: each answer is that of the system."""

from __future__ import annotations

import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.pairs import TIMEOUT
from support.servers import eventually

from netmsg.deadline import Deadline
from netmsg.reactor.callbacks import Callbacks
from netmsg.reactor.machine import MACHINE, Machine
from netmsg.reactor.polling import READ, Poller
from netmsg.reactor.reactor import Reactor
from netmsg.sockets.addresses import Address

LOOPBACK = "127.0.0.1"
Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Connected by something that does not acknowledge: a UNIX socket."""
    one, other = socket.socketpair()
    with one, other:
        yield one, other


@contextmanager
def listening() -> Iterator[socket.socket]:
    listener, = MACHINE.listen_tcp([(socket.AF_INET, (LOOPBACK, 0))], 0, 5)
    with listener:
        yield listener


@pytest.fixture
def tcp_pair() -> Iterator[Pair]:
    with listening() as listener, socket.create_connection(listener.getsockname()) as one:
        other, _ = listener.accept()
        with other:
            yield one, other


def fill(sock: socket.socket) -> int:
    """Send as much as it takes while the other end takes nothing."""
    sock.setblocking(False)
    sent = 0
    try:
        while True:
            sent += sock.send(bytes(65536))
    except BlockingIOError:
        return sent


def take(sock: socket.socket, size: int) -> None:
    while size:
        size -= len(sock.recv(min(size, 65536)))


# Time and chance


def test_a_reactor_stands_on_the_machine_of_the_program_unless_it_is_given_another() -> None:
    other = Machine()
    assert Reactor().machine is MACHINE and Reactor(other).machine is other
    assert Reactor(other).scope(lambda error: None).loop.machine is other


@pytest.mark.parametrize("machine, module", [(MACHINE.clock, time.monotonic), (MACHINE.stopwatch, time.perf_counter)],
                         ids=["clock", "stopwatch"])
def test_its_time_is_the_systems(machine: Any, module: Any) -> None:
    before = module()
    assert before <= machine() <= module()


def test_its_chance_is_between_0_and_1_and_never_the_same_again() -> None:
    numbers = [MACHINE.chance() for _ in range(100)]
    assert all(0 <= number < 1 for number in numbers) and len(set(numbers)) == 100


@pytest.mark.parametrize("size", [0, 8, 32])
def test_a_token_has_its_size_and_does_not_come_twice(size: int) -> None:
    tokens = {MACHINE.token(size) for _ in range(100)}
    assert {len(token) for token in tokens} == {size} and len(tokens) == (100 if size else 1)


def test_each_poller_is_a_new_one(pair: Pair) -> None:
    one, other = pair
    pollers = [MACHINE.new_poller() for _ in range(2)]
    try:
        assert [type(poller) for poller in pollers] == [Poller, Poller]
        pollers[0].watch(one, READ, "one")
        other.send(b"x")
        assert pollers[0].poll(TIMEOUT) == [("one", READ)]
        assert pollers[1].poll(0.0) == []
    finally:
        for poller in pollers:
            poller.close()


# Names and sockets


def test_a_name_is_resolved_while_the_caller_waits() -> None:
    assert MACHINE.resolve(Deadline(TIMEOUT), LOOPBACK, 5) == [(socket.AF_INET, (LOOPBACK, 5))]
    with pytest.raises(socket.gaierror):
        MACHINE.resolve(Deadline(TIMEOUT), "x" * 64, 5)


def test_or_who_is_to_be_told_is_told() -> None:
    told = threading.Event()
    found: list[list[Address] | OSError] = []

    def done(addresses: list[Address] | OSError) -> None:
        found.append(addresses)
        told.set()

    MACHINE.resolve_in_background("localhost", 5, done)
    assert told.wait(TIMEOUT)
    addresses, = found
    assert isinstance(addresses, list) and {address[1] for _, address in addresses} == {5}


def test_it_listens_at_all_addresses_and_a_new_socket_connects_without_blocking() -> None:
    addresses: list[Address] = [(socket.AF_INET, ("127.0.0.1", 0)), (socket.AF_INET, ("127.0.0.2", 0))]
    if not sys.platform.startswith("linux"):
        del addresses[1:]  # elsewhere there is but one
    listeners = MACHINE.listen_tcp(addresses, 0, 5)
    try:
        hosts, ports = zip(*(listener.getsockname() for listener in listeners))
        assert list(hosts) == [address[0] for _, address in addresses] and len(set(ports)) == 1
        for listener in listeners:
            with MACHINE.new_socket(socket.AF_INET) as sock:
                assert not sock.getblocking() and sock.type == socket.SOCK_STREAM
                sock.connect_ex(listener.getsockname())
                eventually(lambda: MACHINE.readable([listener.fileno()]))
                accepted, address = listener.accept()
                accepted.close()
                assert address == sock.getsockname()
    finally:
        for listener in listeners:
            listener.close()


def test_it_listens_at_a_path(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with MACHINE.listen_unix(path, 5) as listener, MACHINE.new_socket(socket.AF_UNIX) as sock:
        assert sock.connect_ex(path) == 0 and MACHINE.readable([listener.fileno()])


def test_a_new_socket_of_no_family_is_an_error() -> None:
    with pytest.raises(OSError):
        MACHINE.new_socket(12345)


# What the system knows of them


def test_readable_is_what_has_received_something_or_has_ended(pair: Pair) -> None:
    one, other = pair
    both = one.fileno(), other.fileno()
    assert MACHINE.readable(both) == set()
    other.send(b"x")
    assert MACHINE.readable(iter(both)) == {one.fileno()}, "in whatever form they are given"
    assert MACHINE.readable([other.fileno()]) == set()
    one.shutdown(socket.SHUT_WR)
    assert MACHINE.readable(both) == set(both)
    assert MACHINE.readable([]) == set()


def test_who_has_gone_has_hung_up_though_there_is_something_to_read(tcp_pair: Pair) -> None:
    one, other = tcp_pair
    other.send(b"x")
    assert not MACHINE.hung_up(one)
    other.close()
    eventually(lambda: MACHINE.hung_up(one))
    assert one.recv(10) == b"x"


def test_what_the_other_end_takes_is_acknowledged(tcp_pair: Pair) -> None:
    one, other = tcp_pair
    assert MACHINE.all_acknowledged(one) and MACHINE.unacknowledged(one) == 0
    size = fill(one)
    assert not MACHINE.all_acknowledged(one) and 0 < MACHINE.unacknowledged(one) < size
    assert MACHINE.acknowledged_within(one, TIMEOUT), "its system is there"
    take(other, size)
    eventually(lambda: MACHINE.all_acknowledged(one))
    assert MACHINE.unacknowledged(one) == 0 and MACHINE.acknowledged_within(one, 0.0)


def test_a_unix_socket_delivers_as_it_sends(pair: Pair) -> None:
    one, _ = pair
    fill(one)
    assert MACHINE.all_acknowledged(one) and MACHINE.acknowledged_within(one, 0.0)


# Threads


def test_a_thread_keeps_no_program_from_ending_and_has_its_name() -> None:
    seen: list[threading.Thread] = []
    MACHINE.start_thread(lambda: seen.append(threading.current_thread()), "netmsg-test-1").join(TIMEOUT)
    thread, = seen
    assert thread.daemon and thread.name == "netmsg-test-1" and thread is not threading.current_thread()


def test_who_waits_for_a_thread_waits_so_long_and_no_longer() -> None:
    over = threading.Event()

    def run() -> None:
        over.wait(TIMEOUT)

    thread = MACHINE.start_thread(run, "netmsg-test-2")
    thread.join(0.0)
    assert "netmsg-test-2" in [thread.name for thread in threading.enumerate()]
    over.set()
    thread.join(TIMEOUT)
    assert "netmsg-test-2" not in [thread.name for thread in threading.enumerate()]


def test_who_is_interrupted_in_waiting_for_a_thread_may_wait_for_it_again() -> None:
    """`threading.Thread.join` takes it for ended then, in 3.11 and 3.12."""
    over = threading.Event()

    def run() -> None:
        over.wait(TIMEOUT)

    thread = MACHINE.start_thread(run, "netmsg-test-4")

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR2, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            threading.Timer(0.2, signal.raise_signal, (signal.SIGUSR2,)).start()
            thread.join(TIMEOUT)
    finally:
        signal.signal(signal.SIGUSR2, before)
    threading.Timer(0.2, over.set).start()
    thread.join(TIMEOUT)
    assert over.is_set()


def test_where_there_can_be_no_thread_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    with pytest.raises(RuntimeError, match="can't start"):
        MACHINE.start_thread(lambda: None, "netmsg-test-3")


def test_a_function_of_the_users_is_called_in_a_thread_of_its_own() -> None:
    complaints: list[tuple[str, BaseException]] = []
    told = threading.Event()
    answers: list[Any] = []

    def done(result: Any, error: BaseException | None) -> None:
        answers.append((result, error))
        if len(answers) == 2:
            told.set()

    callbacks = MACHINE.callbacks("authorize", lambda name, error: complaints.append((name, error)))
    assert type(callbacks) is Callbacks
    callbacks.run(lambda: threading.current_thread().name, (), done)
    callbacks.run(divmod, (1, 0), done)
    assert told.wait(TIMEOUT)
    callbacks.close()
    callbacks.join(TIMEOUT)
    (name, _), (_, error) = answers
    assert name.startswith("netmsg-callback-") and isinstance(error, ZeroDivisionError)
    assert complaints == [("authorize", error)]
