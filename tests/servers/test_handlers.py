"""How a handler is driven. Nothing here has a network or a thread."""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator
from typing import Any

import pytest

from netmsg import ClosedError, EndOfStream, PacketDecodeError
from netmsg.servers.handlers import FunctionHandler, GeneratorHandler, is_generator

Conversation = Generator[Any, str, None]


def started(function: Callable[[Any], Conversation]) -> GeneratorHandler:
    handler = GeneratorHandler(function, "client")
    handler.begin()
    return handler


def test_a_function_gets_the_client_and_each_packet() -> None:
    seen = []
    handler = FunctionHandler(lambda client, packet: seen.append((client, packet)), "client")
    handler.begin()
    handler.packet(1)
    handler.packet(2)
    assert seen == [("client", 1), ("client", 2)]
    assert not handler.finished


def test_a_callable_object_is_a_function_too() -> None:
    class Handler:
        def __call__(self, client: Any, packet: Any) -> None:
            self.seen = client, packet

    function = Handler()
    FunctionHandler(function, "client").packet(1)
    assert function.seen == ("client", 1)


@pytest.mark.parametrize("error", [EndOfStream(), ClosedError(), TimeoutError()])
def test_a_function_does_not_hear_of_the_end(error: Exception) -> None:
    handler = FunctionHandler(lambda client, packet: None, "client")
    handler.error(error)
    assert handler.finished


def test_a_bad_packet_is_the_end_for_a_function() -> None:
    handler = FunctionHandler(lambda client, packet: None, "client")
    with pytest.raises(PacketDecodeError):
        handler.error(PacketDecodeError("bad"))
    assert handler.finished


def test_87_packets_and_errors_come_where_the_generator_yields() -> None:
    seen: list[Any] = []

    def converse(client: Any) -> Conversation:
        seen.append(client)
        while True:
            try:
                seen.append((yield))
            except (PacketDecodeError, TimeoutError) as error:
                seen.append(type(error))
            except EndOfStream:
                return

    handler = started(converse)
    assert seen == ["client"]
    handler.packet("a")
    handler.error(PacketDecodeError("bad"))
    handler.error(TimeoutError())
    handler.packet("b")
    assert not handler.finished
    handler.error(EndOfStream())
    assert handler.finished
    assert seen == ["client", "a", PacketDecodeError, TimeoutError, "b"]


def test_87_what_is_yielded_is_how_long_to_wait() -> None:
    def converse(client: Any) -> Conversation:
        yield
        yield 5.0
        yield 0
        yield None

    handler = started(converse)
    waits: list[Any] = [handler.timeout]
    for _ in range(3):
        handler.packet("x")
        waits.append(handler.timeout)
    assert waits == [None, 5.0, 0, None]
    handler.packet("x")
    assert handler.finished


@pytest.mark.parametrize(("value", "error"), [("5", TypeError), (True, TypeError), (object(), TypeError),
                                              (-1, ValueError), (float("nan"), ValueError)])
def test_87_anything_else_is_an_error_where_it_was_yielded(value: Any, error: type[Exception]) -> None:
    def converse(client: Any) -> Conversation:
        try:
            yield value
        except error:
            yield 1.0

    assert started(converse).timeout == 1.0

    def careless(client: Any) -> Conversation:
        yield value

    handler = GeneratorHandler(careless, "client")
    with pytest.raises(error):
        handler.begin()
    assert handler.finished


def test_what_escapes_is_the_end() -> None:
    def converse(client: Any) -> Conversation:
        yield
        raise KeyError("oops")

    handler = started(converse)
    with pytest.raises(KeyError):
        handler.packet("x")
    assert handler.finished


def test_one_that_ends_at_once() -> None:
    def converse(client: Any) -> Conversation:
        return
        yield

    assert started(converse).finished


def test_an_error_before_the_beginning_is_the_end() -> None:
    def converse(client: Any) -> Conversation:
        raise AssertionError("it never begins")
        yield

    handler = GeneratorHandler(converse, "client")
    handler.error(ClosedError())
    assert handler.finished


def test_generator_functions_are_told_from_others() -> None:
    def converse(client: Any) -> Conversation:
        yield

    class Handlers:
        def converse(self, client: Any) -> Conversation:
            yield

        def plain(self, client: Any, packet: Any) -> None:
            pass

    class Callable_:
        def __call__(self, client: Any) -> Conversation:
            yield

    for generator in (converse, Handlers().converse, functools.partial(converse), Callable_()):
        assert is_generator(generator)
    for function in (Handlers().plain, print, lambda client, packet: None, functools.partial(print)):
        assert not is_generator(function)
