"""Frames made up by the dice, whole, mangled, or nothing of the kind, and cut anywhere: nothing breaks, and bystanders
notice nothing.

In the suite for a moment; with ``make soak`` a million frames each.
"""

from __future__ import annotations

import logging
import os
import random
from contextlib import ExitStack

import pytest
from support.envelopes import flatten
from support.pairs import TIMEOUT
from support.wire_peer import ACK, CAPABILITIES, DATA, DATA_REQ, HEARTBEAT, NACK, WirePeer, capabilities, dial, frame

from netmsg import Søcket
from netmsg.wire.framing import EnvelopeDecoder

FRAMES = 1_000_000 if os.environ.get("NETMSG_SOAK") else 1500
A_BURST = 10
LARGEST = 10_000

WHOLE = [frame(DATA, b"x"), frame(DATA), frame(DATA, bytes(300)), frame(DATA_REQ, bytes(16) + b"y"),
         frame(ACK, bytes(16)), frame(NACK, bytes(16)), frame(HEARTBEAT), capabilities(), frame(0x7F, b"?"),
         frame(ACK, b"abc"), frame(CAPABILITIES)]


def burst(dice: random.Random) -> bytes:
    """Some frames as they should be, or with some bytes changed, or noise."""
    kind = dice.choice(["whole", "mutated", "mutated", "random"])
    data = bytearray(b"".join(dice.choices(WHOLE, k=A_BURST)))
    if kind == "mutated":
        for _ in range(dice.randrange(1, 4)):
            data[dice.randrange(len(data))] = dice.randrange(256)
    return dice.randbytes(dice.randrange(1, 200)) if kind == "random" else bytes(data)


@pytest.mark.timeout(30 + FRAMES // 100)
@pytest.mark.parametrize("seed", range(3))
def test_wherever_it_is_cut_the_same_is_understood_or_refused(seed: int) -> None:
    """At every split point, of each burst."""
    dice = random.Random(seed)
    for _ in range(FRAMES // A_BURST // 30):
        data = burst(dice)
        expected, error = understood([data])
        for cut in range(1, len(data)):
            assert understood([data[:cut], data[cut:]]) == (expected, error), (data, cut)
        assert understood([data[at:at + 1] for at in range(len(data))]) == (expected, error), data


def understood(chunks: list[bytes]) -> tuple[list[object], str]:
    decoder = EnvelopeDecoder(LARGEST)
    found: list[object] = []
    for chunk in chunks:
        found += flatten(decoder.decode(chunk, 1 << 30))
    return found, str(decoder.error or "")


@pytest.mark.timeout(30 + FRAMES // 100)
def test_a_bystander_is_heard_whatever_the_others_say(caplog: pytest.LogCaptureFixture) -> None:
    dice = random.Random(8)
    with ExitStack() as stack:
        sock = stack.enter_context(Søcket(linger=0, max_message_size=LARGEST)).bind(port=0, websocket_origins=["*"])
        bystander = stack.enter_context(dial(sock.bound_port))
        bystander.shake_hands()
        for turn in range(FRAMES // A_BURST):
            with dial(sock.bound_port) as peer:
                say(peer, dice)
            question = b"bystander %d" % turn
            bystander.send(frame(DATA, question))
            while sock.recv(timeout=TIMEOUT) != question:
                pass  # what the others have said
        assert bystander.identity in {info.identity for info in sock.peers()}
    broken = [record for record in caplog.records if record.levelno >= logging.ERROR or record.exc_info]
    assert not broken and "internal error" not in caplog.text


def say(peer: WirePeer, dice: random.Random) -> None:
    """A burst, behind a HELLO or in its place, in two pieces."""
    data = burst(dice)
    cut = dice.randrange(len(data) + 1)
    try:
        if dice.randrange(5):
            peer.shake_hands()
        peer.send(data[:cut])
        peer.send(data[cut:])
    except OSError:
        pass  # it has been hung up on in the midst of it
