"""The tree of errors."""

from __future__ import annotations

import copy
import errno
import gc
import inspect
import pickle
import ssl
import weakref
from collections.abc import Callable

import pytest

import netmsg
from netmsg import JSONCodec, errors
from netmsg.aside import aside
from netmsg.deadline import Deadline
from netmsg.errors import (
    ClosedError, ConnectFailedError, ConnectionBrokenError, DelimiterNotFoundError, EndOfStream, ForkedError,
    IncompleteReadError, LocalProtocolError, NetmsgError, PacketDecodeError, PacketEncodeError, ProtocolError,
    QueueFullError, RemoteProtocolError, RequestFailedError, SendTimeoutError, TLSHandshakeError, UndeliveredError,
    UnknownPeerError, again, identity,
)
from netmsg.servers.handlers import FunctionHandler
from netmsg.sockets.resolving import resolve_within

BASES: dict[type[NetmsgError], tuple[type[BaseException], ...]] = {
    NetmsgError: (Exception,),
    ClosedError: (NetmsgError, OSError),
    ForkedError: (NetmsgError, RuntimeError),
    EndOfStream: (NetmsgError, EOFError),
    IncompleteReadError: (NetmsgError, EOFError),
    ConnectionBrokenError: (NetmsgError, ConnectionError),
    ConnectFailedError: (NetmsgError, ConnectionError),
    TLSHandshakeError: (NetmsgError, ssl.SSLError),
    SendTimeoutError: (NetmsgError, TimeoutError),
    DelimiterNotFoundError: (NetmsgError, ValueError),
    ProtocolError: (NetmsgError,),
    RemoteProtocolError: (ProtocolError, ConnectionError),
    LocalProtocolError: (ProtocolError,),
    PacketDecodeError: (NetmsgError, ValueError),
    PacketEncodeError: (NetmsgError, ValueError),
    QueueFullError: (NetmsgError, TimeoutError),
    UnknownPeerError: (NetmsgError, LookupError),
    RequestFailedError: (NetmsgError,),
    UndeliveredError: (NetmsgError,),
}

ADDRESS = (2, ("192.0.2.1", 80))
MADE: dict[str, Callable[[], NetmsgError]] = {
    **{kind.__name__: lambda kind=kind: kind("what happened")  # type: ignore[misc]
       for kind in BASES if kind not in (IncompleteReadError, ConnectFailedError, DelimiterNotFoundError)},
    "ConnectionBrokenError with errno": lambda: ConnectionBrokenError(errno.ECONNRESET, "reset"),
    "ConnectFailedError": lambda: ConnectFailedError("no way", [(ADDRESS, ConnectionRefusedError(111, "refused"))]),
    "DelimiterNotFoundError": lambda: DelimiterNotFoundError(100),
    "IncompleteReadError": lambda: IncompleteReadError(b"par", 10),
    "IncompleteReadError of unknown length": lambda: IncompleteReadError(b"par"),
    "SendTimeoutError with counts": lambda: SendTimeoutError("late", bytes_sent=3, sent=4),
    "PacketDecodeError with data": lambda: PacketDecodeError("bad", b"data"),
}


@pytest.mark.parametrize("kind", BASES, ids=lambda kind: kind.__name__)
def test_the_bases_of_each_error(kind: type[NetmsgError]) -> None:
    assert kind.__bases__ == BASES[kind]


def test_every_error_is_in_the_tree_documented_and_exported() -> None:
    defined = {kind for _, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__}
    assert defined == set(BASES)
    assert {kind.__name__ for kind in defined} == set(errors.__all__)
    assert errors.__doc__ is not None
    for kind in defined:
        assert kind.__name__ in errors.__doc__
        assert getattr(netmsg, kind.__name__) is kind
        assert kind.__name__ in netmsg.__all__


@pytest.mark.parametrize("one", [ClosedError, EndOfStream, ConnectionBrokenError, SendTimeoutError, ForkedError])
def test_closed_ended_broken_and_late_are_different_errors(one: type[NetmsgError]) -> None:
    others = {ClosedError, EndOfStream, ConnectionBrokenError, SendTimeoutError, ForkedError} - {one}
    assert not issubclass(one, tuple(others))


def test_who_broke_the_rules_is_told_by_the_class() -> None:
    assert not issubclass(RemoteProtocolError, LocalProtocolError)
    assert not issubclass(LocalProtocolError, (RemoteProtocolError, OSError))


def test_an_incomplete_read_keeps_what_came() -> None:
    error = IncompleteReadError(b"par", 10)
    assert (error.partial, error.expected) == (b"par", 10)
    assert str(error) == "the stream ended after 3 of 10 bytes"
    error = IncompleteReadError(b"par")
    assert (error.partial, error.expected) == (b"par", None)
    assert str(error) == "the stream ended after 3 bytes"


def test_a_broken_connection_keeps_its_errno() -> None:
    error = ConnectionBrokenError(errno.ECONNRESET, "reset by peer")
    assert error.errno == errno.ECONNRESET
    assert error.strerror == "reset by peer"


def test_a_failed_connect_lists_its_attempts() -> None:
    attempts: list[tuple[object, OSError]] = [(ADDRESS, ConnectionRefusedError(errno.ECONNREFUSED, "refused"))]
    error = ConnectFailedError("no address answered", attempts)
    assert error.attempts is attempts
    assert str(error) == "no address answered"


def test_a_send_timeout_says_how_far_it_came() -> None:
    error = SendTimeoutError("late", bytes_sent=3, sent=4)
    assert (str(error), error.bytes_sent, error.sent) == ("late", 3, 4)
    assert (SendTimeoutError("late").bytes_sent, SendTimeoutError("late").sent) == (0, 0)


def test_a_missing_delimiter_says_how_far_it_was_looked_for() -> None:
    error = DelimiterNotFoundError(100)
    assert error.max_bytes == 100
    assert "100" in str(error)


def test_a_packet_that_cannot_be_decoded_keeps_its_bytes() -> None:
    assert PacketDecodeError("bad", b"data").data == b"data"
    assert PacketDecodeError("bad").data == b""


def told(error: BaseException) -> tuple[object, ...]:
    """All that an error says; errors inside are compared by what they say in turn."""
    attributes = dict(vars(error))
    attempts = [(address, told(inner)) for address, inner in attributes.pop("attempts", ())]
    return type(error), str(error), getattr(error, "errno", None), attributes, attempts


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_errors_survive_pickling(make: Callable[[], NetmsgError]) -> None:
    error = make()
    assert told(pickle.loads(pickle.dumps(error))) == told(error)


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_errors_survive_copying(make: Callable[[], NetmsgError]) -> None:
    error = make()
    assert told(copy.copy(error)) == told(error)


class Payload:
    """Something whose end can be seen."""


def fail(call: Callable[[], object]) -> weakref.ref[Payload]:
    """With something in the frame that would be kept alive by a traceback."""
    payload = Payload()
    with pytest.raises(Exception):  # noqa: B017
        call()
    return weakref.ref(payload)


def fail_aside() -> None:
    aside(lambda: [][0])


def handle_a_bad_packet() -> None:
    FunctionHandler(lambda client, packet: None, "nobody").error(PacketDecodeError("bad"))


@pytest.mark.parametrize("call", [
    lambda: JSONCodec().decode(b"bad"), lambda: resolve_within(Deadline(10), "x" * 64, 1), fail_aside,
    handle_a_bad_packet])
def test_no_error_keeps_itself_alive_and_all_that_was_there(call: Callable[[], object]) -> None:
    gc.collect()
    gc.disable()
    try:
        assert fail(call)() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("error", [
    ConnectionBrokenError(104, "reset"), TLSHandshakeError("failed"), IncompleteReadError(b"ab", 3),
    SendTimeoutError("late", bytes_sent=3), ClosedError("closed")])
def test_another_one_is_like_the_first(error: Exception) -> None:
    error.__cause__ = ValueError("why")
    like = again(error)
    assert like is not error and type(like) is type(error)
    assert str(like) == str(error) and vars(like) == vars(error) and like.__cause__ is error.__cause__


def test_the_identity_of_an_error_that_is_gone_is_no_other_ones() -> None:
    identities = [identity(TimeoutError("late")) for _ in range(1000)]
    assert len(set(identities)) == 1000


@pytest.mark.parametrize("make", MADE.values(), ids=MADE.keys())
def test_an_error_whose_identity_was_asked_for_is_what_it_was(make: Callable[[], NetmsgError]) -> None:
    error = make()
    assert identity(error) is identity(error)
    gone = weakref.ref(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(copy.deepcopy(error)) == str(make())
    token = identity(error)
    del error
    assert gone() is None and token
