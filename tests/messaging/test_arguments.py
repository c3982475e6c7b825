"""The arguments of a Søcket's calls."""

from __future__ import annotations

from array import array
from typing import Any

import pytest
from support.wrong import wrong

from netmsg.messaging.arguments import DEFAULT_PORT, message_of, place_of
from netmsg.messaging.choices import OnFull, SendMode
from netmsg.messaging.settings import default_policy


@pytest.mark.parametrize("data", [b"abc", bytearray(b"abc"), memoryview(b"abc"), array("B", b"abc")],
                         ids=lambda data: type(data).__name__)
def test_whatever_is_like_bytes_is_a_message(data: Any) -> None:
    message = message_of(data, 3)
    assert message == b"abc" and type(message) is bytes
    assert (message is data) == (type(data) is bytes), "what may change is copied"


@pytest.mark.parametrize("data", ["abc", 3, None, [1, 2]])
def test_nothing_else_is(data: Any) -> None:
    with pytest.raises(TypeError, match="a message must be bytes-like"):
        message_of(wrong(data), 100)


@pytest.mark.parametrize("data", [b"abcd", bytearray(b"abcd"), array("H", [1, 2])], ids=["bytes", "bytearray", "array"])
def test_a_message_that_is_too_long_is_refused(data: Any) -> None:
    with pytest.raises(ValueError, match=r"4 bytes is longer than max_message_size \(3\)"):
        message_of(data, 3)


def test_a_url_says_where() -> None:
    place = place_of("tcp://example.org:7000", DEFAULT_PORT)
    assert place is not None and (place.host, place.port) == ("example.org", 7000)


@pytest.mark.parametrize("hostname", [None, "example.org", "127.0.0.1"])
def test_anything_else_is_a_host(hostname: str | None) -> None:
    assert place_of(hostname, 7000) is None


@pytest.mark.parametrize("port", [7000, 25000])
def test_beside_a_url_there_is_no_port_not_even_the_one_that_is_meant_by_none(port: int) -> None:
    with pytest.raises(ValueError, match="leave out port"):
        place_of("tcp://example.org:7000", port)


def test_a_hostname_is_text() -> None:
    with pytest.raises(TypeError, match="hostname must be a str or None, not bytes"):
        place_of(b"example.org", DEFAULT_PORT)


@pytest.mark.parametrize("mode, policy", [(SendMode.ROUNDROBIN, OnFull.BLOCK), (SendMode.PUBLISH, OnFull.DROP_OLDEST)])
def test_who_publishes_waits_for_nobody_unless_told_to(mode: SendMode, policy: OnFull) -> None:
    assert default_policy(mode) is policy
