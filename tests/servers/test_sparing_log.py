"""Warnings that others can cause do not fill the log."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
from support.servers import said

from netmsg.servers import sparing_log
from netmsg.servers.sparing_log import SparingLog


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=1000.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr(sparing_log, "time", clock)
    return clock


def test_the_first_of_a_kind_and_then_one_a_minute_with_the_count(
        clock: SimpleNamespace, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    log = SparingLog(logging.getLogger("netmsg.servers"))
    for number in range(10):
        log.warning("bad packet", "number %d", number)
        clock.now += 1
    log.warning("handshake", "another kind")
    clock.now += 60
    log.warning("bad packet", "number %d", 10)
    clock.now += 61
    log.warning("bad packet", "number %d", 11)
    shown = [record.getMessage() for record in said(caplog) if record.levelname == "WARNING"]
    assert shown == ["number 0", "another kind", "number 10 (and 9 more like it since the last warning)", "number 11"]
    hidden = [record.getMessage() for record in said(caplog) if record.levelname == "DEBUG"]
    assert hidden == [f"number {number}" for number in range(1, 10)]
