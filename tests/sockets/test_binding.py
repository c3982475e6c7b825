"""UNIX paths that several want at once: one has it, and is reachable."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.blocking import until_asleep_or_over
from support.pairs import TIMEOUT, Background
from support.processes import Program, wait_until
from support.strikes import Strike, Struck, strike_everywhere

from netmsg import Listener, Søcket, UNIXDatagramSocket, connect_unix, create_unix_datagram_socket, create_unix_server
from netmsg.sockets import binding


def leave_stale(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


def reaches(path: Path, listener: Listener) -> bool:
    with connect_unix(path, timeout=TIMEOUT), listener.accept(timeout=TIMEOUT):
        return True


class Pause:
    """Stops whoever comes first right before ``function`` does its work."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.there, self.go_on = threading.Event(), threading.Event()

        def pausing(*arguments: Any, **options: Any) -> Any:
            if not self.there.is_set():
                self.there.set()
                assert self.go_on.wait(TIMEOUT)
            return function(*arguments, **options)

        self.function = pausing


def refused(call: Callable[[], Any], path: Path) -> bool:
    with pytest.raises(OSError) as raised:
        call().close()
    return raised.value.errno == errno.EADDRINUSE and str(path) in str(raised.value)


@pytest.mark.parametrize("stale", [False, True])
def test_who_has_bound_and_does_not_listen_yet_is_not_stale(stale: bool, tmp_path: Path,
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "socket"
    if stale:
        leave_stale(path)
    pause = Pause(socket.socket.listen)
    monkeypatch.setattr(socket.socket, "listen", pause.function, raising=False)
    first = Background(create_unix_server, path)
    assert pause.there.wait(TIMEOUT)
    try:
        assert refused(lambda: create_unix_server(path), path)
    finally:
        pause.go_on.set()
    with first.result() as listener:
        assert reaches(path, listener)
    assert os.listdir(tmp_path) == []


def test_who_finds_a_stale_file_waits_for_whoever_is_replacing_it(tmp_path: Path,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "socket"
    leave_stale(path)
    pause = Pause(os.unlink)
    monkeypatch.setattr(os, "unlink", pause.function)
    first = Background(create_unix_server, path)
    assert pause.there.wait(TIMEOUT)
    try:
        with pytest.raises(TimeoutError, match="replacing"):
            create_unix_server(path, timeout=0).close()
    finally:
        pause.go_on.set()
    with first.result() as listener:
        assert refused(lambda: create_unix_server(path), path)
        assert reaches(path, listener)
    assert os.listdir(tmp_path) == []


def test_who_takes_a_path_that_is_being_replaced_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program, which locks nothing, binds between the removal and the binding."""
    path = tmp_path / "socket"
    leave_stale(path)
    unlink = os.unlink
    others: list[socket.socket] = []

    def unlink_and_lose(name: Any) -> None:
        unlink(name)
        if not others:
            others.append(socket.socket(socket.AF_UNIX))
            others[0].bind(str(path))

    monkeypatch.setattr(os, "unlink", unlink_and_lose)
    assert refused(lambda: create_unix_server(path), path)
    with others[0]:
        others[0].listen()
        connect_unix(path, timeout=TIMEOUT).close()


def test_whoever_looks_is_no_client(tmp_path: Path) -> None:
    with create_unix_server(tmp_path / "socket") as listener:
        assert refused(lambda: create_unix_server(tmp_path / "socket"), tmp_path / "socket")
        with pytest.raises(TimeoutError):
            listener.accept(timeout=0)


@pytest.mark.parametrize("stale", [False, True])
@pytest.mark.parametrize("kind", ["server", "datagrams", "Søcket"])
def test_of_many_threads_one_has_the_path(kind: str, stale: bool, tmp_path: Path) -> None:
    def bind(path: Path, barrier: threading.Barrier) -> Any:
        barrier.wait(TIMEOUT)
        if kind == "server":
            return create_unix_server(path)
        if kind == "datagrams":
            return create_unix_datagram_socket(path=path)
        sock = Søcket(linger=0)
        try:
            return sock.bind_unix(path)
        except OSError:
            sock.close()
            raise

    for number in range(10):
        path = tmp_path / f"{number}"
        if stale:
            leave_stale(path)
        barrier = threading.Barrier(4)
        won, refused = [], []
        for thread in [Background(bind, path, barrier) for _ in range(4)]:
            try:
                won.append(thread.result())
            except OSError as error:
                refused.append(error.errno)
        for owner in won:
            owner.close()
        assert (len(won), refused) == (1, [errno.EADDRINUSE] * 3)


RACER = """
import sys
from netmsg import create_unix_server
print("ready")
for path in map(str.strip, sys.stdin):
    try:
        listener = create_unix_server(path)
    except OSError as error:
        print("refused", error.errno)
    else:
        print("listens")
        with listener, listener.accept(timeout=20) as stream:
            stream.send_all(b"reached")
"""


def test_of_many_processes_one_has_the_path(tmp_path: Path) -> None:
    racers = [Program("-c", RACER) for _ in range(4)]
    try:
        for racer in racers:
            racer.wait_for("ready")
        for number in range(6):
            path = tmp_path / f"{number}"
            if number % 2:
                leave_stale(path)
            for racer in racers:
                racer.write_line(str(path))
            wait_until(lambda: all(len(racer.lines) == number + 2 for racer in racers), *racers)
            assert sorted(racer.lines[-1] for racer in racers) == ["listens"] + [f"refused {errno.EADDRINUSE}"] * 3
            with connect_unix(path, timeout=TIMEOUT) as stream:
                assert stream.receive_exactly(7, timeout=TIMEOUT) == b"reached"
        for racer in racers:
            racer.end_input()
            assert racer.finish() == 0 and not racer.errors()
    finally:
        for racer in racers:
            racer.close()


# The lock

def test_what_a_killed_program_left_of_its_lock_is_in_nobodys_way(tmp_path: Path) -> None:
    leave_stale(tmp_path / "socket")
    (tmp_path / f"socket{binding.SUFFIX}").touch()
    with create_unix_server(tmp_path / "socket", timeout=0) as listener:
        assert reaches(tmp_path / "socket", listener)
        assert os.listdir(tmp_path) == ["socket"]


def test_who_is_stopped_meanwhile_is_not_waited_for_without_end(tmp_path: Path,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binding, "PATIENCE", 0.05)
    leave_stale(tmp_path / "socket")
    with open(tmp_path / f"socket{binding.SUFFIX}", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert refused(lambda: create_unix_server(tmp_path / "socket"), tmp_path / "socket")
        with pytest.raises(TimeoutError):
            create_unix_datagram_socket(path=tmp_path / "socket", timeout=0.01)
    create_unix_server(tmp_path / "socket").close()


def test_a_lock_that_was_removed_meanwhile_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for who has opened the lock of another who is done with it a moment later."""
    leave_stale(tmp_path / "socket")
    name = tmp_path / f"socket{binding.SUFFIX}"
    lock, unlink = fcntl.flock, os.unlink
    removed: list[Path] = []

    def lock_what_is_gone(file: Any, operation: int) -> None:
        lock(file, operation)
        if not removed:
            unlink(name)
            removed.append(name)

    monkeypatch.setattr(fcntl, "flock", lock_what_is_gone)
    pause = Pause(unlink)
    monkeypatch.setattr(os, "unlink", pause.function)
    first = Background(create_unix_server, tmp_path / "socket")
    assert pause.there.wait(TIMEOUT)
    try:
        with pytest.raises(TimeoutError):
            create_unix_server(tmp_path / "socket", timeout=0).close()
    finally:
        pause.go_on.set()
    first.result().close()
    assert removed


@pytest.mark.parametrize("make", [create_unix_server, lambda path: create_unix_datagram_socket(path=path)],
                         ids=["stream", "datagram"])
def test_a_stale_file_that_cannot_be_removed_is_an_address_in_use(
        make: Callable[[Path], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "socket"
    kind = socket.SOCK_STREAM if make is create_unix_server else socket.SOCK_DGRAM
    with socket.socket(socket.AF_UNIX, kind) as sock:
        sock.bind(str(path))
    unlink, tries = os.unlink, []

    def unlink_only_others(name: Any) -> None:
        if os.fspath(name) != str(path):
            unlink(name)
            return
        tries.append(name)
        assert len(tries) < 100, "it goes on trying"
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "unlink", unlink_only_others)
    with pytest.raises(OSError, match="cannot be removed") as caught:
        make(path).close()
    assert caught.value.errno == errno.EADDRINUSE and isinstance(caught.value.__cause__, PermissionError)
    assert len(tries) == 1 and os.listdir(tmp_path) == ["socket"]


def test_who_loses_the_race_for_a_stale_file_again_and_again_runs_out_of_time(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "socket"
    leave_stale(path)
    unlink, rounds = os.unlink, []

    def unlink_and_leave_another(name: Any) -> None:
        unlink(name)
        if os.fspath(name) == str(path):
            rounds.append(name)
            assert len(rounds) < 100, "it goes on trying"
            leave_stale(path)

    monkeypatch.setattr(os, "unlink", unlink_and_leave_another)
    with pytest.raises(TimeoutError, match="replacing"):
        create_unix_server(path, timeout=0).close()


def test_an_interrupt_while_a_stale_file_is_replaced_leaves_no_lock_and_no_descriptor(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")

    def trial(strike: Strike) -> None:
        leave_stale(tmp_path / "socket")
        before = set(os.listdir("/proc/self/fd"))
        bound = socket.socket(socket.AF_UNIX)
        try:
            with strike:
                binding.bind_unix(bound, path, None)
        except Struck:
            pass
        bound.close()
        assert set(os.listdir("/proc/self/fd")) == before
        left = os.listdir(tmp_path)
        assert left in ([], ["socket"]), (strike, left)
        if left:
            os.unlink(path)

    assert strike_everywhere(trial) > 20


def test_where_there_can_be_no_lock_binding_tells_why(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        create_unix_server(tmp_path / "nowhere" / "socket")


def test_a_failure_after_binding_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError(errno.ENOBUFS, "no memory")

    monkeypatch.setattr(socket.socket, "listen", fail, raising=False)
    with pytest.raises(OSError, match="no memory"):
        create_unix_server(tmp_path / "socket")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("make", [
    create_unix_server, lambda path: create_unix_datagram_socket(path=path),
    lambda path: connect_unix(path.with_name("server"), local_path=path)])
def test_whoever_closes_holds_the_path_until_its_file_is_gone(make: Any, tmp_path: Path,
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "socket"
    pause = Pause(os.unlink)
    with create_unix_server(tmp_path / "server"):
        old = make(path)
        monkeypatch.setattr(os, "unlink", pause.function)
        try:
            one = Background(old.close)
            assert pause.there.wait(TIMEOUT)
            other = Background(old.close)
            until_asleep_or_over(other)
            with pytest.raises(OSError, match="already in use"):
                make(path).close()
        finally:
            pause.go_on.set()
        one.result()
        other.result()
        with make(path):
            assert path.exists()
    assert os.listdir(tmp_path) == []


def test_where_there_are_no_unix_sockets_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "AF_UNIX")
    with Søcket(linger=0) as sock:
        for call in (lambda: create_unix_server("x"), lambda: connect_unix("x"),
                     lambda: create_unix_datagram_socket(path="x"), create_unix_datagram_socket,
                     lambda: UNIXDatagramSocket.from_socket(None),  # type: ignore[arg-type]
                     lambda: sock.bind_unix("x"), lambda: sock.connect_unix("x")):
            with pytest.raises(NotImplementedError, match="UNIX sockets"):
                call()
