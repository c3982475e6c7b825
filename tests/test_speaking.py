"""What is to be said: by a thread of its own, or in place."""

from __future__ import annotations

import logging
import threading

import pytest
from support.pairs import TIMEOUT

from netmsg.speaking import at_once, say_soon, soon, wait_until_said

log = logging.getLogger("netmsg.speaking-test")


class Speakers:
    """The threads that have said something."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def speak(self) -> None:
        self.names.append(threading.current_thread().name)


@pytest.fixture
def speakers() -> Speakers:
    return Speakers()


HERE = threading.current_thread().name


def test_what_is_to_be_said_is_said_by_another_thread(speakers: Speakers) -> None:
    soon(speakers.speak)
    wait_until_said(TIMEOUT)
    assert speakers.names == ["netmsg-log"]


def test_at_once_it_is_said_by_whoever_has_something_to_say(speakers: Speakers) -> None:
    with at_once():
        soon(speakers.speak)
        assert speakers.names == [HERE]


def test_at_once_the_log_is_written_in_place(caplog: pytest.LogCaptureFixture) -> None:
    with at_once():
        say_soon(log, logging.WARNING, "%s of %s", 1, 2, exc_info=ValueError("three"))
        record, = caplog.records
    assert record.thread == threading.get_ident() and record.getMessage() == "1 of 2"
    assert "three" in caplog.text


def test_at_once_a_handler_that_raises_harms_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    class Failing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise ZeroDivisionError

    handler = Failing()
    log.addHandler(handler)
    try:
        with at_once():
            say_soon(log, logging.WARNING, "anything")
    finally:
        log.removeHandler(handler)
    assert "ZeroDivisionError" in capsys.readouterr().err


@pytest.mark.parametrize("error", [None, ZeroDivisionError()])
def test_afterwards_all_is_as_before(speakers: Speakers, error: Exception | None) -> None:
    try:
        with at_once():
            with at_once():
                pass
            soon(speakers.speak)
            if error is not None:
                raise error
    except ZeroDivisionError:
        pass
    soon(speakers.speak)
    wait_until_said(TIMEOUT)
    assert speakers.names == [HERE, "netmsg-log"]
