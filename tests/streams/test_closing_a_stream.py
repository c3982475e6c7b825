"""The end of a stream, over a link that does what it is told to."""

from __future__ import annotations

import errno
import gc
import weakref
from typing import Any

import pytest
from support.interrupts import Alarm, Interrupted
from support.scripted import SOME_TLS, ScriptedLink, ScriptedTransport, after, scripted

from netmsg import ByteStream, ClosedError
from netmsg.sockets.waiting import READ, WRITE
from netmsg.streams import closing as module
from netmsg.streams.byte_stream import inside
from netmsg.streams.closing import Closing
from netmsg.streams.connection import FOREVER


def closing() -> tuple[Closing, ScriptedLink, ScriptedTransport]:
    parts, link, transport = scripted()
    return parts.closing, link, transport


def test_it_says_goodbye_and_closes_once() -> None:
    close, link, transport = closing()
    called: list[str] = []
    close.at_close = lambda: called.append("before the descriptor")
    close.close(None)
    assert transport.has_ended
    assert link.calls == ["wake", "settled", "close"]
    assert called == ["before the descriptor"]
    assert close.disposed
    close.close(None)
    assert link.calls[2:] == ["close"]


def test_it_receives_what_still_comes_until_the_other_end_has_finished() -> None:
    close, link, transport = closing()
    transport.incoming += (b"unread", b"")
    close.close(None)
    assert link.calls == ["wake", "close"]
    assert not transport.incoming


def test_what_has_to_go_has_time_until_the_deadline() -> None:
    close, link, transport = closing()
    transport.unsent = True
    link.happenings.append(WRITE)
    close.close(None)
    assert link.waits == [WRITE]
    assert not transport.unsent
    close, link, transport = closing()
    transport.unsent = True
    close.close(0)
    assert transport.unsent
    assert link.calls == ["wake", "close"]


def test_under_tls_it_waits_for_the_goodbye_of_the_other_end_if_something_was_sent() -> None:
    for sent in (False, True):
        parts, link, transport = scripted()
        transport.tls = SOME_TLS
        if sent:
            parts.sending.in_turn(FOREVER, parts.sending.send_all, b"abc")
        link.happenings.append(after(transport.incoming.append, b"", events=READ))
        parts.closing.close(None)
        assert link.waits == ([READ] if sent else [])


def test_a_send_that_was_cut_short_has_no_goodbye() -> None:
    parts, link, transport = scripted()
    parts.sending.under_way = [3], 8
    parts.closing.close(None)
    assert not transport.has_ended
    assert link.calls[-1] == "close"


@pytest.mark.parametrize("error", [ConnectionResetError(errno.ECONNRESET, "reset"), BrokenPipeError(errno.EPIPE, "")])
def test_an_error_of_the_network_ends_the_goodbye(error: OSError) -> None:
    close, link, transport = closing()
    transport.ends.append(error)
    close.close(None)
    assert link.calls == ["wake", "close"]


def test_what_a_signal_handler_raises_is_none_and_has_lingered_enough() -> None:
    close, link, transport = closing()
    transport.ends.append(Alarm())
    with pytest.raises(Alarm):
        close.close(None)
    assert link.calls == ["wake", "close"]


def test_from_inside_of_a_call_the_last_to_leave_closes() -> None:
    parts, link, _ = scripted()
    calls: list[list[str]] = []

    def close() -> None:
        parts.closing.close(None)
        calls.append(list(link.calls))

    link.happenings.append(after(close))
    with pytest.raises(ClosedError):
        parts.receiving.take(FOREVER, parts.receiving.some, 1)
    assert calls == [["wake"]]
    assert link.calls[-1] == "close"


def test_an_event_loop_waits_for_nobody_and_nothing() -> None:
    parts, link, transport = scripted()
    transport.unsent = True
    parts.cut()
    assert link.calls == ["wake", "close"]
    assert link.waits == [] and not transport.has_ended
    parts.cut()
    assert link.calls == ["wake", "close"]


def test_abort_drops_everything() -> None:
    close, link, transport = closing()
    close.abort()
    assert link.calls == ["reset", "wake", "close"]
    assert not transport.has_ended
    assert close.aborted
    close.abort()
    assert link.calls[-1] == "close"


def test_abort_while_it_lingers_ends_that() -> None:
    parts, link, transport = scripted()
    transport.unsent = True
    link.happenings.append(after(parts.closing.abort, events=WRITE))
    parts.closing.close(None)
    assert link.calls.count("hurry") == 1
    assert link.calls[-1] == "close"


def test_an_interrupt_before_all_are_woken_leaves_that_to_who_closes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    close, link, _ = closing()

    def interrupt() -> None:
        raise Interrupted

    monkeypatch.setattr(link, "wake", interrupt, raising=False)
    with pytest.raises(Interrupted):
        close.close(None)
    assert not close.disposed
    monkeypatch.undo()
    close.close(None)
    assert link.calls[0] == "wake"
    assert link.calls[-1] == "close"


def test_an_interrupt_while_it_lingers_closes_at_once() -> None:
    close, link, transport = closing()
    transport.unsent = True
    link.happenings.append(Interrupted())
    with pytest.raises(Interrupted):
        close.close(None)
    assert link.calls == ["wake", "close"]


def test_the_links_wait_is_surrounded_once_it_is_no_brief_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BRIEFLY", 0)
    close, link, transport = closing()
    waiting: list[bool] = []

    class Blocked:
        def __enter__(self) -> None:
            waiting.append(True)

        def __exit__(self, *_: object) -> None:
            waiting.append(False)

    link.blocked = Blocked
    transport.unsent = True
    link.happenings += (TimeoutError("timed out"), after(lambda: waiting.append(True), events=WRITE))
    close.close(None)
    assert waiting == [True, True, False]
    assert not transport.unsent


def test_calls_that_wait_in_another_stream_are_woken() -> None:
    parts, _, _ = scripted()
    elsewhere = parts.connection.elsewhere
    woken: list[bool] = []

    def wait() -> str:
        parts.closing.close(None)
        return "over"

    assert elsewhere.wait(lambda: woken.extend(elsewhere.given_up), wait) == "over"
    assert woken == [True]
    assert elsewhere.wait(lambda: woken.clear(), lambda: "given up") == "given up"
    assert elsewhere.given_up


def test_the_cause_of_a_closed_stream_is_what_broke_it() -> None:
    parts, _, transport = scripted()
    error = ConnectionResetError(errno.ECONNRESET, "reset")
    transport.incoming.append(error)
    with pytest.raises(ConnectionError):
        parts.receiving.take(FOREVER, parts.receiving.some, 1)
    parts.closing.close(None)
    with pytest.raises(ClosedError) as caught:
        parts.connection.check()
    assert caught.value.__cause__ is error


def test_in_a_forked_child_nothing_is_said() -> None:
    parts, link, transport = scripted()
    other: Any = object()
    parts.connection.process = other  # as if this were the child's copy
    parts.closing._forked()
    assert link.calls == ["forked"]
    assert not transport.has_ended
    assert parts.closing.disposed


@pytest.mark.parametrize("end", ["close", "dropped"])
def test_once_it_is_over_all_of_it_is_gone_and_not_only_when_the_collector_comes(end: str) -> None:
    class Stream(ByteStream):
        """Is closed when nobody has it any more."""

    link: Any = ScriptedLink()
    stream = Stream(link)
    parts = [weakref.ref(part) for part in (stream, inside(stream).connection, inside(stream).receiving,
                                            inside(stream).sending, inside(stream).closing, inside(stream).securing)]
    gc.collect()
    gc.disable()
    try:
        if end == "close":
            stream.close()
            del stream
        else:
            with pytest.warns(ResourceWarning, match="unclosed"):
                del stream
        assert link.calls[-1] == "close"
        assert [part() for part in parts] == [None] * 6
    finally:
        gc.enable()


def test_a_file_over_it_keeps_it_open() -> None:
    link: Any = ScriptedLink()
    stream = ByteStream(link)
    link.script.incoming.append(b"a line\n")
    file = stream.makefile("rb")
    del stream
    assert file.readline() == b"a line\n"
    assert "close" not in link.calls
    with pytest.warns(ResourceWarning, match="unclosed"):
        del file
    assert link.calls[-1] == "close"
