"""One interrupt at every place where there can be one, in each call of a stream, with and without TLS."""

from __future__ import annotations

import random
from contextlib import nullcontext, suppress

import pytest
from support.strikes import SignalStrike, Strike, Struck, strike_everywhere

from .secured import VERSIONS, handshaking, shake
from .streams import RECEIVES, SENDS, Operation, StreamWorld
from .wires import connect

SIZE = 130
"""Few enough for many places, and too many for most of the pieces in which they come."""
ROUNDS = 500
"""So many tries are enough for any handshake."""
COARSE = 131
"""The seed of a connection that stalls a little, and cuts up less: a handshake is of few steps."""
KINDS = [kind for kind in (*RECEIVES, *SENDS, "send_eof") if kind not in RECEIVES or RECEIVES[kind].interruptible]


def script(kind: str, patient: bool, *, ahead: bool) -> list[Operation]:
    """Something is there, and perhaps was read ahead, then comes the call, and others after it."""
    call = Operation(1 if kind in RECEIVES else 0, kind, SIZE, b"en", 100, patient)
    first = "receive_until" if ahead else "receive"
    before = [Operation(0, "send_all", 3 * SIZE, patient=True), Operation(1, first, 11, b"e", patient=True)]
    after = [Operation(0, "send_all", SIZE, patient=True), Operation(1, "receive_into", SIZE, patient=True)]
    return [*before, call, *after]


@pytest.mark.parametrize("patient", [True, False], ids=["patient", "hurried"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupt_anywhere_in_a_call_loses_doubles_and_splices_nothing(kind: str, patient: bool) -> None:
    for seed in range(2):
        world = StreamWorld(f"{kind} {seed}", None, script(kind, patient, ahead=seed % 2 == 0))
        assert strike_everywhere(lambda strike: world.run({2: strike}), kind=SignalStrike) > 5


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", ["receive", "receive_exactly", "send_all", "send_eof"])
def test_nor_does_one_under_tls(kind: str, version: str) -> None:
    world = StreamWorld(f"{kind}: {version}", version, script(kind, kind != "receive", ahead=False))
    assert strike_everywhere(lambda strike: world.run({2: strike}), kind=SignalStrike) > 30


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("end", [0, 1], ids=["client", "server"])
def test_an_interrupted_handshake_goes_on(version: str, end: int) -> None:
    def trial(strike: Strike) -> None:
        transports = handshaking(connect(random.Random(COARSE)), version)
        for _ in range(ROUNDS):
            if not any(transport.handshaking or transport.unsent for transport in transports):
                return
            for number, transport in enumerate(transports):
                with suppress(Struck), strike if number == end else nullcontext():
                    shake(transport)
        pytest.fail("it does not come to its end")

    assert strike_everywhere(trial, kind=SignalStrike) > 30


@pytest.mark.parametrize("version", VERSIONS)
def test_what_an_interrupted_send_of_several_buffers_has_taken_is_reported_once(version: str) -> None:
    assert strike_everywhere(lambda strike: send_several(version, strike), kind=SignalStrike) > 10


def send_several(version: str, strike: Strike) -> None:
    """By a transport alone, which goes on after an interrupt."""
    content = bytes(range(128)) * 9
    client, server = transports = handshaking(connect(random.Random(COARSE)), version)
    while any(transport.handshaking or transport.unsent for transport in transports):
        for transport in transports:
            shake(transport)
    sent, got = 0, b""
    while len(got) < len(content):
        counts: list[int] = []
        rest = content[sent:]
        try:
            if rest:
                with strike:
                    counts.append(client.send_many([rest[:50], rest[50:400], rest[400:]]))
            else:
                client.flush()
        except Struck:
            client.report(counts)
        except BlockingIOError:
            pass
        sent += sum(counts)
        with suppress(BlockingIOError):
            got += server.receive(1000)
    assert (sent, got) == (len(content), content)
