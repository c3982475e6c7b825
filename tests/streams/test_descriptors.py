"""Descriptors that are passed over UNIX streams: none is lost in silence, and none is left open."""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from support.pairs import TIMEOUT, Background
from support.streams import secure

from netmsg import LocalProtocolError, RemoteProtocolError, SocketStream

MOST = 253


def pair() -> tuple[SocketStream, SocketStream]:
    one, other = socket.socketpair()
    return SocketStream.from_socket(one), SocketStream.from_socket(other)


def opened() -> int:
    return len(os.listdir("/proc/self/fd"))


def close(descriptors: list[int]) -> int:
    for descriptor in descriptors:
        assert not os.get_inheritable(descriptor)
        os.close(descriptor)
    return len(descriptors)


@pytest.fixture
def null() -> Iterator[int]:
    with open(os.devnull, "rb") as file:
        before = opened()
        yield file.fileno()
        assert opened() == before


@contextmanager
def many_descriptors(number: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(number, hard)), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def most_descriptors(number: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def receive_into(stream: SocketStream) -> bytes:
    buffer = bytearray(7)
    return bytes(buffer[:stream.receive_into(buffer, timeout=TIMEOUT)])


@pytest.mark.parametrize("first", [
    lambda stream: stream.receive_until(b"\n", timeout=TIMEOUT) + b"\n",
    lambda stream: stream.receive_exactly(7, timeout=TIMEOUT), lambda stream: stream.receive(7, timeout=TIMEOUT),
    lambda stream: stream.receive(timeout=TIMEOUT), receive_into,
    lambda stream: stream.makefile("r").readline().encode(),
    lambda stream: stream.receive_exactly(11, timeout=TIMEOUT)])
def test_another_receive_before_receive_fds_loses_none(null: int, first: Callable[[SocketStream], bytes]) -> None:
    one, other = pair()
    with one, other:
        one.send_all(b"before\n")
        one.send_fds(b"with", [null, null])
        one.send_all(b"after")
        data = first(other)
        assert data.startswith(b"before\n")
        count = 0
        while len(data) < 16 or not count:
            more, found = other.receive_fds(100, 2, timeout=TIMEOUT)
            data += more
            count += close(found)
        assert data == b"before\nwithafter" and count == 2


def test_descriptors_whose_bytes_were_taken_are_returned_at_once(null: int) -> None:
    one, other = pair()
    with one, other:
        one.send_fds(b"send this file\n", [null])
        assert other.receive_until(b"\n", timeout=TIMEOUT) == b"send this file"
        data, found = other.receive_fds(100, 1, timeout=TIMEOUT)
        assert (data, close(found)) == (b"", 1)
        with pytest.raises(TimeoutError):
            other.receive_fds(100, 1, timeout=0)


def test_each_message_has_its_own(null: int) -> None:
    one, other = pair()
    with one, other:
        for count in (1, 3, 2):
            one.send_fds(b"%d" % count, [null] * count)
        assert other.receive_exactly(2, timeout=TIMEOUT) == b"13"
        got = [other.receive_fds(100, 3, timeout=TIMEOUT) for _ in range(3)]
        assert [(data, close(found)) for data, found in got] == [(b"", 1), (b"", 3), (b"2", 2)]


@pytest.mark.parametrize("sent, wanted", [(2, 1), (10, 3), (MOST, 1)])
def test_more_than_were_wanted_is_an_error_and_closes_what_came(null: int, sent: int, wanted: int) -> None:
    one, other = pair()
    with one, other:
        before = opened()
        one.send_fds(b"many", [null] * sent)
        with pytest.raises(RemoteProtocolError, match=f"{sent} descriptors"):
            other.receive_fds(100, wanted, timeout=TIMEOUT)
        assert opened() == before
        assert other.receive_fds(100, wanted, timeout=TIMEOUT) == (b"many", [])


def test_more_than_there_is_room_for_is_an_error_and_closes_what_came(null: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    one, other = pair()
    with one, other:
        one.send_fds(b"many", [null] * 3)
        before = opened()
        highest = max(map(int, os.listdir("/proc/self/fd")))
        free = [number for number in range(highest) if not os.path.exists(f"/proc/self/fd/{number}")]
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
            held = [os.dup(null) for _ in free[:-1]]
            with pytest.raises(RemoteProtocolError, match="no room"):
                other.receive_fds(100, 3, timeout=TIMEOUT)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in held:
            os.close(descriptor)
        assert opened() == before
        assert other.receive(timeout=TIMEOUT) == b"many"


def pass_one_by_one(one: SocketStream, other: SocketStream, null: int, count: int) -> None:
    """And receive the bytes without them."""
    for _ in range(count):
        one.send_fds(b"x", [null])
        assert other.receive(timeout=TIMEOUT) == b"x"


def take_what_is_kept(stream: SocketStream) -> int:
    """After the error that says that some were not kept."""
    with pytest.raises(RemoteProtocolError, match="before receive_fds"):
        stream.receive_fds(1, MOST, timeout=TIMEOUT)
    count = 0
    try:
        while True:
            data, found = stream.receive_fds(1, MOST, timeout=0)
            assert data == b""
            count += close(found)
    except TimeoutError:
        return count


def test_few_are_kept_for_who_has_never_asked(null: int) -> None:
    one, other = pair()
    with one, other:
        before = opened()
        pass_one_by_one(one, other, null, 100)
        kept = opened() - before
        assert 1 <= kept <= 32
        assert take_what_is_kept(other) == kept


def test_who_has_asked_holds_no_more_than_one_message_can_carry(null: int) -> None:
    with many_descriptors(2048):
        one, other = pair()
        with one, other:
            one.send_fds(b"x", [null])
            assert close(other.receive_fds(1, 1, timeout=TIMEOUT)[1]) == 1
            before = opened()
            pass_one_by_one(one, other, null, MOST + 47)
            assert opened() - before == MOST
            assert take_what_is_kept(other) == MOST


def test_all_streams_together_keep_no_more_than_the_process_can_spare(null: int) -> None:
    """Or a few hostile peers would use up all descriptors of a server that never asks for any."""
    with most_descriptors(400), contextlib.ExitStack() as stack:
        pairs = [pair() for _ in range(10)]
        for one, other in pairs:
            stack.enter_context(one)
            stack.enter_context(other)
        before = opened()
        for one, other in pairs:
            one.send_fds(b"x", [null] * 60)
            assert other.receive(timeout=TIMEOUT) == b"x"
            pass_one_by_one(one, other, null, 40)
        kept = opened() - before
        assert 10 <= kept <= 100
        # Who asks gets what is for him all the same.
        one, other = pairs[-1]
        taken = take_what_is_kept(other)
        one.send_fds(b"wanted", [null] * 50)
        data, found = other.receive_fds(100, MOST, timeout=TIMEOUT)
        assert (data, close(found)) == (b"wanted", 50)
        assert opened() - before <= kept - taken + 1  # what it waits by


@pytest.mark.parametrize("how", ["close", "abort"])
def test_what_nobody_asked_for_is_closed_with_the_stream(null: int, how: str) -> None:
    one, other = pair()
    before = opened()
    one.send_fds(b"x", [null])
    assert other.receive(timeout=TIMEOUT) == b"x"
    assert opened() == before + 1
    getattr(other, how)()
    one.close()
    assert opened() == before - 2


def test_under_tls_none_is_kept(null: int, tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    one, other = pair()
    with other, one:
        one.send_fds(b"x", [null])
        assert other.receive(timeout=TIMEOUT) == b"x"
        before = opened()
        secure(one, other, tls_contexts)
        assert opened() <= before - 1 + 2  # what each needs for waiting
        for call in (lambda: one.send_fds(b"x", [null]), lambda: other.receive_fds(1, 1)):
            with pytest.raises(LocalProtocolError):
                call()


def test_descriptors_above_1024_make_no_difference() -> None:
    with many_descriptors(2048):
        ends = []
        for sock in socket.socketpair():
            ends.append(SocketStream.from_socket(socket.socket(fileno=fcntl.fcntl(sock, fcntl.F_DUPFD_CLOEXEC, 1100))))
            sock.close()
        one, other = ends
        with one, other:
            assert min(one.fileno(), other.fileno()) >= 1100
            with pytest.raises(TimeoutError):
                other.receive(timeout=0.01)
            receiving = Background(other.receive_exactly, 3_000_000)
            one.send_all(bytes(3_000_000), timeout=TIMEOUT)
            assert receiving.result() == bytes(3_000_000)
