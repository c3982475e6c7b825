"""The checks of arguments: what passes, and what the errors say."""

from __future__ import annotations

import sys
from collections.abc import Callable
from enum import Enum
from fractions import Fraction
from typing import Any

import pytest

from netmsg.checks import (
    check_address, check_bool, check_callable, check_count, check_delimiter, check_enum, check_host, check_port,
    check_range, check_seconds, check_size, check_str, check_timeout,
)


class Colour(Enum):
    RED = 1


class Number(int):
    """An ``int`` of the user's."""


@pytest.mark.parametrize("check", [
    lambda: check_count("n", 1), lambda: check_count("n", 0, 0), lambda: check_count("n", 10**30),
    lambda: check_size("n", 1), lambda: check_size("n", 0, least=0), lambda: check_size("n", sys.maxsize),
    lambda: check_size("n", Number(7)), lambda: check_range("n", 0, 0, 255), lambda: check_range("n", 255, 0, 255),
    lambda: check_port(0), lambda: check_port(65535), lambda: check_seconds("n", 0.1), lambda: check_seconds("n", 3),
    lambda: check_seconds("n", 0, zero=True), lambda: check_seconds("n", 0.0, zero=True), lambda: check_str("n", ""),
    lambda: check_enum("n", Colour.RED, Colour), lambda: check_callable("n", None), lambda: check_callable("n", print),
    lambda: check_bool("n", False),
    lambda: check_timeout(None), lambda: check_timeout(0),
    lambda: check_timeout(float("inf")), lambda: check_timeout(True),
    lambda: check_timeout(Fraction(1, 2)),  # type: ignore[arg-type]
])
def test_what_is_right_passes(check: Callable[[], None]) -> None:
    check()


@pytest.mark.parametrize(("check", "text"), [
    (lambda: check_count("n", 0), "n must be at least 1, not 0"),
    (lambda: check_count("n", -1, 0), "n must be at least 0, not -1"),
    (lambda: check_size("n", 0), "n must be at least 1, not 0"),
    (lambda: check_size("n", sys.maxsize + 1), f"n is too large: {sys.maxsize + 1}"),
    (lambda: check_range("n", 256, 0, 255), "n must be from 0 to 255, not 256"),
    (lambda: check_port(-1), "port must be from 0 to 65535, not -1"),
    (lambda: check_port(65536), "port must be from 0 to 65535, not 65536"),
    (lambda: check_seconds("n", 0), "n must be more than 0 seconds, not 0"),
    (lambda: check_seconds("n", -1.5), "n must be more than 0 seconds, not -1.5"),
    (lambda: check_seconds("n", float("nan")), "n must be more than 0 seconds, not nan"),
    (lambda: check_seconds("n", float("inf")), "n must be more than 0 seconds, not inf"),
    (lambda: check_seconds("n", -1, zero=True), "n must be at least 0 seconds, not -1"),
    (lambda: check_timeout(-0.1), "timeout must be None or at least 0, not -0.1"),
    (lambda: check_timeout(float("nan")), "timeout must be None or at least 0, not nan"),
    (lambda: check_timeout(float("-inf")), "timeout must be None or at least 0, not -inf"),
    (lambda: check_delimiter(b""), "the delimiter is empty"),
    (lambda: check_host(""), "host is empty"),
    (lambda: check_host("[]"), "host is empty"),
    (lambda: check_host("a\0b"), r"host has a NUL in it: 'a\x00b'"),
    (lambda: check_address("n", ("host",)), "n must be a (host, port), not ('host',)"),
])
def test_a_wrong_value_is_a_value_error_that_says_so(check: Callable[[], None], text: str) -> None:
    with pytest.raises(ValueError) as caught:
        check()
    assert str(caught.value) == text


@pytest.mark.parametrize(("check", "text"), [
    (lambda: check_count("n", True), "n must be an int, not bool"),
    (lambda: check_count("n", 1.0), "n must be an int, not float"),  # type: ignore[arg-type]
    (lambda: check_size("n", True), "n must be an int, not bool"),
    (lambda: check_size("n", "1"), "n must be an int, not str"),  # type: ignore[arg-type]
    (lambda: check_range("n", 1.5, 0, 255), "n must be an int, not float"),  # type: ignore[arg-type]
    (lambda: check_port("80"), "port must be an int, not str"),  # type: ignore[arg-type]
    (lambda: check_seconds("n", True), "n must be a number of seconds, not bool"),
    (lambda: check_seconds("n", None), "n must be a number of seconds, not NoneType"),  # type: ignore[arg-type]
    (lambda: check_timeout("1"), "timeout must be a number of seconds or None, not str"),  # type: ignore[arg-type]
    (lambda: check_str("n", b""), "n must be a str, not bytes"),  # type: ignore[arg-type]
    (lambda: check_delimiter("\n"), "delimiter must be bytes, not str"),  # type: ignore[arg-type]
    (lambda: check_enum("n", 1, Colour), "n must be one of Colour, not 1"),
    (lambda: check_bool("n", 1), "n must be True or False, not 1"),
    (lambda: check_callable("n", 1), "n must be a function, not int"),
    (lambda: check_host(b"h"), "host must be a str, not bytes"),  # type: ignore[arg-type]
    (lambda: check_address("n", "h:80"), "n must be a (host, port), not str"),
])
def test_a_wrong_type_is_a_type_error_that_says_so(check: Callable[[], None], text: str) -> None:
    with pytest.raises(TypeError) as caught:
        check()
    assert str(caught.value) == text


@pytest.mark.parametrize("timeout", [b"1", [1], {}, object(), 1j])
def test_a_timeout_that_is_no_number_is_a_type_error(timeout: Any) -> None:
    with pytest.raises(TypeError):
        check_timeout(timeout)


def test_a_host_loses_the_brackets_of_a_url() -> None:
    assert check_host("[::1]") == "::1" and check_host("example.org") == "example.org"


@pytest.mark.parametrize("delimiter", [b"\r\n", bytearray(b"\r\n"), memoryview(b"\r\n")])
def test_a_delimiter_is_anything_like_bytes(delimiter: Any) -> None:
    assert check_delimiter(delimiter) == b"\r\n" and type(check_delimiter(delimiter)) is bytes


def test_an_address_is_a_pair() -> None:
    assert check_address("n", ("host", 80)) == ("host", 80)
