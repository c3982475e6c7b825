"""What an error says of the endpoints: which fail and how, and who was refused of late."""

from __future__ import annotations

from typing import Any

import pytest
from support.loops import Loop

from netmsg import AcceptError, Connected, Disconnected, Event, HandshakeFailed, Retrying
from netmsg.messaging import reporting
from netmsg.messaging.life import Life
from netmsg.messaging.losses import Losses
from netmsg.messaging.reporting import CROSSED, MOST_NAMED, QUIET, Reporter

NOWHERE = "; the Søcket is neither bound nor connected to anything"
HOST = ("192.0.2.1", 40000)


class Endpoint:
    """What is dialled, and what is in the way of a connection."""

    def __init__(self, trouble: str = "") -> None:
        self.trouble = trouble


class Places:
    """What is listened at and dialled."""

    def __init__(self) -> None:
        self.acceptors: list[object] = []
        self.endpoints: list[Endpoint] = []

    def listen(self) -> None:
        self.acceptors.append(object())

    def dial(self, *troubles: str) -> list[Endpoint]:
        endpoints = [Endpoint(trouble) for trouble in troubles]
        self.endpoints += endpoints
        return endpoints


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Loop:
    """Time goes on when the test says so; and nobody speaks."""
    monkeypatch.setattr(reporting, "soon", lambda *call: None)
    return Loop()


@pytest.fixture
def places() -> Places:
    return Places()


@pytest.fixture
def reporter(loop: Any, places: Places) -> Reporter:
    return Reporter(b"i" * 16, loop, Life(), places, Losses())


def refused(reason: str = "not authorized", **options: Any) -> Event:
    return HandshakeFailed(**({"address": HOST, "reason": reason, "phase": "authorizing"} | options))


def test_without_any_endpoint_it_says_so(reporter: Reporter) -> None:
    assert reporter.trouble() == NOWHERE


def test_who_only_listens_has_no_trouble(reporter: Reporter, places: Places) -> None:
    places.listen()
    assert reporter.trouble() == ""


def test_an_endpoint_with_a_connection_is_no_trouble(reporter: Reporter, places: Places) -> None:
    places.dial("")
    assert reporter.trouble() == ""


def test_each_endpoint_that_fails_is_named_as_it_is_now(reporter: Reporter, places: Places) -> None:
    one, _, _ = places.dial("no connection to a:1: refused", "", "b:2 is not past TLS yet")
    assert reporter.trouble() == "; no connection to a:1: refused; b:2 is not past TLS yet"
    one.trouble = ""
    assert reporter.trouble() == "; b:2 is not past TLS yet"


def test_of_many_that_fail_the_first_are_named_and_the_others_counted(reporter: Reporter, places: Places) -> None:
    places.dial(*(f"no connection to {number}" for number in range(MOST_NAMED)))
    assert "more" not in reporter.trouble()
    places.dial("", "no connection to d", "no connection to e")
    assert reporter.trouble() == ("; no connection to 0; no connection to 1; no connection to 2"
                                  "; and 2 more fail")


@pytest.mark.parametrize("address, shown", [
    (HOST, "192.0.2.1"),
    (("2001:db8::1", 40000), "2001:db8::1"),
    ("/run/service", "/run/service"),
    ("\0abstract", "@abstract"),
])
def test_who_was_refused_last_is_named_without_its_port(reporter: Reporter, places: Places, address: Any,
                                                        shown: str) -> None:
    places.listen()
    reporter.tell(refused("another", address=("192.0.2.99", 1)))
    reporter.tell(refused(address=address))
    assert reporter.trouble() == f"; {shown} was refused: authorizing failed: not authorized"


def test_the_phase_is_not_said_twice(reporter: Reporter, places: Places) -> None:
    places.listen()
    reporter.tell(refused("TLS: unknown authority", phase="TLS"))
    assert reporter.trouble() == "; 192.0.2.1 was refused: TLS failed: unknown authority"


def test_a_refusal_is_forgotten_after_a_minute(reporter: Reporter, places: Places, loop: Loop) -> None:
    places.listen()
    reporter.tell(refused())
    loop.wait(QUIET - 1)
    assert "refused" in reporter.trouble()
    loop.wait(1)
    assert reporter.trouble() == ""
    reporter.tell(refused())
    assert "refused" in reporter.trouble()


def test_refusals_are_named_though_the_log_is_quiet_about_them(reporter: Reporter, places: Places) -> None:
    """It says a thing once a minute; an error says what was the last."""
    places.listen()
    reporter.tell(refused("first"))
    reporter.tell(refused("second"))
    assert reporter.trouble().endswith("second")


@pytest.mark.parametrize("event", [
    refused(dialled=True),
    refused(phase=""),
    refused(f"{CROSSED}: the other connection stays"),
    Retrying(HOST, None, "refused", delay=1.0, phase="connecting"),
    AcceptError(HOST, None, "too many open files"),
    Connected(HOST, b"p"),
    Disconnected(HOST, b"p", "reset"),
], ids=["dialled", "closed by this end", "one of two", "an endpoint", "accepting", "connected", "disconnected"])
def test_nothing_else_is_a_refusal(reporter: Reporter, places: Places, event: Event) -> None:
    """What is dialled tells of itself, and what this end has closed is no trouble."""
    places.listen()
    reporter.tell(event)
    assert reporter.trouble() == ""


def test_failures_come_first_then_the_refusal_then_how_many_more(reporter: Reporter, places: Places) -> None:
    places.listen()
    places.dial(*"abcde")
    reporter.tell(refused())
    assert reporter.trouble() == ("; a; b; c; 192.0.2.1 was refused: authorizing failed: not authorized"
                                  "; and 2 more fail")


def test_endpoints_may_be_added_while_they_are_looked_at(reporter: Reporter, places: Places) -> None:
    class Adding(Endpoint):
        @property
        def trouble(self) -> str:
            places.dial("late")
            return "first"

        @trouble.setter
        def trouble(self, text: str) -> None:
            pass

    places.endpoints.append(Adding())
    assert reporter.trouble() == "; first"
