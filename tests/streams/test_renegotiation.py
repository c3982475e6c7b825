"""A send under TLS that can go on only once something has been received, as when TLS 1.2 renegotiates.

Nothing in Python can ask for that, but for OpenSSL it is a handshake as the first one is. So these streams believe
that theirs is over, and OpenSSL does it in the middle of what they send.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from threading import get_ident
from typing import Any

import pytest
from support.blocking import until_asleep
from support.pairs import TIMEOUT, Background

from netmsg import ByteStream, ClosedError, ConnectionBrokenError, SendTimeoutError, TLSInfo
from netmsg.streams.memory import memory_links
from netmsg.streams.read_ahead import ReadAhead
from netmsg.transports.encrypted import TLSTransport

Contexts = tuple[ssl.SSLContext, ssl.SSLContext]
Ends = tuple[ByteStream, ByteStream]


@pytest.fixture
def ends(tls_contexts: Contexts) -> Iterator[Ends]:
    """One that renegotiates when it sends, and what is under the TLS of the other."""
    mine, its = memory_links(1 << 16)
    transport = TLSTransport(mine.transport, tls_contexts[1], server_side=False, server_hostname="localhost")
    transport.handshaking = False
    transport.tls = TLSInfo("TLSv1.2", None, None, None, None, None)
    mine.transport = transport
    one, other = ByteStream(mine), ByteStream(its)
    yield one, other
    one.abort()
    other.abort()


def answer(other: ByteStream, contexts: Contexts) -> None:
    other.start_tls(contexts[0], server_side=True, timeout=TIMEOUT)
    other.send_all(b"answered", timeout=TIMEOUT)


@pytest.mark.parametrize("timeout", [0, 0.1])
def test_a_send_that_waits_for_an_answer_keeps_its_timeout(ends: Ends, timeout: float) -> None:
    one, _ = ends
    sending = Background(one.send_all, b"request", timeout=timeout)
    with pytest.raises(SendTimeoutError) as caught:
        sending.result()
    assert caught.value.bytes_sent == 0


def test_a_send_without_a_timeout_waits_until_close(ends: Ends) -> None:
    one, other = ends
    sending = Background(one.send_all, b"request")
    assert other.receive(timeout=TIMEOUT)  # what asks for the answer
    one.abort()
    with pytest.raises(OSError):
        sending.result()


@pytest.mark.parametrize("timeout", [None, TIMEOUT])
def test_a_send_receives_the_answer_itself_where_nobody_else_does(ends: Ends, tls_contexts: Contexts,
                                                                  timeout: float | None) -> None:
    one, other = ends
    sending = Background(one.send_all, b"request", timeout=timeout)
    answering = Background(answer, other, tls_contexts)
    sending.result()
    answering.result()
    assert other.receive_exactly(7, timeout=TIMEOUT) == b"request"
    assert one.receive_exactly(8, timeout=TIMEOUT) == b"answered"


def test_a_send_goes_on_when_another_thread_has_received_the_answer(ends: Ends, tls_contexts: Contexts) -> None:
    one, other = ends
    receiving = Background(one.receive_exactly, 8, timeout=TIMEOUT)
    until_asleep(receiving)
    sending = Background(one.send_all, b"request")
    answering = Background(answer, other, tls_contexts)
    sending.result()
    answering.result()
    assert receiving.result() == b"answered"
    assert other.receive_exactly(7, timeout=TIMEOUT) == b"request"


def test_a_send_fails_when_the_other_end_goes_instead_of_answering(ends: Ends) -> None:
    one, other = ends
    sending = Background(one.send_all, b"request")
    assert other.receive(timeout=TIMEOUT)
    other.close(timeout=0)
    with pytest.raises(ConnectionBrokenError):
        sending.result()


def test_a_send_that_waits_for_an_answer_tries_no_more_than_now_and_then(ends: Ends,
                                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    one, _ = ends
    tries = 0
    send_one = TLSTransport.send_one

    def counting(transport: TLSTransport, buffer: Any, /) -> int:
        nonlocal tries
        tries += 1
        return send_one(transport, buffer)

    monkeypatch.setattr(TLSTransport, "send_one", counting)
    with pytest.raises(SendTimeoutError):
        Background(one.send_all, b"request", timeout=0.2).result()
    assert tries < 100


def test_a_send_that_waits_for_an_answer_leaves_what_was_received_to_who_receives(
        ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    one, _ = ends
    receiving = Background(one.receive_exactly, 8)
    until_asleep(receiving)
    counting = []
    count = ReadAhead.__len__

    def counted(ahead: ReadAhead) -> int:
        counting.append(get_ident())
        return count(ahead)

    monkeypatch.setattr(ReadAhead, "__len__", counted)
    sending = Background(one.send_all, b"request", timeout=0.1)
    with pytest.raises(SendTimeoutError):
        sending.result()
    assert sending.ident not in counting
    one.abort()
    with pytest.raises(ClosedError):
        receiving.result()
