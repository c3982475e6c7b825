"""Ctrl-C storms: an interrupt every half millisecond, on senders and receivers, loses nothing and wedges nothing.

The storm hits the main thread only, as Ctrl-C does. What the sender's interrupted sends did is not known to it, exactly
as with a send that timed out part-way; so the test counts what arrived against what was certainly accepted.
"""

from __future__ import annotations

import os
import subprocess
import textwrap
from collections.abc import Callable

import pytest
from support.processes import PYTHON
from support.soaking import Outcome

ROUNDS = 200 if os.environ.get("NETMSG_SOAK") else 4
STORMS = max(1, ROUNDS // 8)
"""Of each kind."""

PRELUDE = """
import logging, os, signal, sys, threading, time
from netmsg import *

logging.disable(logging.WARNING)

LIBRARY = os.path.dirname(__import__("netmsg").__file__)
interrupts = 0

def interrupt(number, frame):
    # As Ctrl-C does, but never in this program's own code, which could not tell what it had already counted.
    global interrupts
    while frame is not None and LIBRARY not in frame.f_code.co_filename:
        frame = frame.f_back
    if frame is not None:
        interrupts += 1
        raise KeyboardInterrupt

def begin():
    # A timer of the kernel strikes anywhere; signals from a thread of this interpreter, where its lock changes hands.
    signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)

def end():
    signal.setitimer(signal.ITIMER_REAL, 0)

GUARANTEE = DeliveryGuarantee[sys.argv[1]]
COUNT = int(sys.argv[2])
"""

RECEIVER = PRELUDE + """
sender = Søcket(delivery_guarantee=GUARANTEE, linger=0).bind(port=0)
receiver = Søcket(linger=0, ack_mode=AckMode[sys.argv[4]]).connect(port=sender.bound_port)
receiver.wait_for_peers(timeout=10), sender.wait_for_peers(timeout=10)
how = sys.argv[3]

def feed():
    for number in range(COUNT):
        sender.send(b"%d" % number)

feeder = threading.Thread(target=feed, daemon=True)
messages = receiver.messages()
if how == "fileno":
    receiver.fileno()
def receive():
    if how == "recv_many":
        return receiver.recv_many(100, timeout=10)
    if how == "identity":
        return receiver.recv_identity(timeout=10)
    if how == "delivery":
        return receiver.recv_delivery(timeout=10)
    if how == "iterate":
        return next(messages)
    return receiver.recv(timeout=10)

got = []
feeder.start()
begin()
while len(got) < COUNT:
    try:
        message = receive()
        if how == "recv_many":
            got += message
        elif how == "identity":
            got += [message[1]]
        elif how == "delivery":
            got += [message.data]
        else:
            got += [message]
    except KeyboardInterrupt:
        pass
end()
if sys.argv[4] != "MANUAL":
    deadline = time.monotonic() + 10
    while sender.stats().unacked and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not sender.stats().unacked, sender.stats()
print(len(got), got == [b"%d" % n for n in range(COUNT)], interrupts > 0)
receiver.close(linger=0), sender.close(linger=0)
"""

SENDER = PRELUDE + """
receiver = Søcket(linger=0).bind(port=0)
sender = Søcket(SendMode[sys.argv[3]], GUARANTEE, linger=10, send_hwm=int(sys.argv[4]), on_full=OnFull.BLOCK)
sender.connect(port=receiver.bound_port)
sender.wait_for_peers(timeout=10), receiver.wait_for_peers(timeout=10)
got = []
def drain():
    for message in receiver.messages():
        got.append(int(message))
drainer = threading.Thread(target=drain, daemon=True)
drainer.start()
accepted = []
begin()
number = 0
while number < COUNT:
    try:
        number += 1
        sender.send(b"%d" % number)
        accepted.append(number)
    except KeyboardInterrupt:
        pass
end()
given_up = sender.close()
deadline = time.monotonic() + 10
while not set(accepted) <= set(got) and time.monotonic() < deadline:
    time.sleep(0.01)
receiver.close(linger=0)
drainer.join(10)
print(given_up, sorted(set(accepted) - set(got))[:5], got == sorted(set(got)), interrupts > 0)
"""


CONVERSATION = PRELUDE + """
sender = Søcket(linger=0, delivery_guarantee=GUARANTEE).bind(port=0)
receiver = Søcket(linger=0).connect(port=sender.bound_port)
receiver.wait_for_peers(timeout=10), sender.wait_for_peers(timeout=10)
turns = threading.Semaphore(1)

def feed():
    for number in range(COUNT):
        turns.acquire()
        sender.send(b"%d" % number)

feeder = threading.Thread(target=feed, daemon=True)
got = []
feeder.start()
begin()
while len(got) < COUNT:
    try:
        got += [receiver.recv(timeout=10)]
    except KeyboardInterrupt:
        continue
    turns.release()
end()
print(len(got), got == [b"%d" % n for n in range(COUNT)], interrupts > 0)
receiver.close(linger=0), sender.close(linger=0)
"""


RECEIPTS = PRELUDE + """
receiver = Søcket(linger=0).bind(port=0)
sender = Søcket(delivery_guarantee=GUARANTEE, linger=0).connect(port=receiver.bound_port)
got = []
def drain():
    for message in receiver.messages():
        got.append(int(message))
drainer = threading.Thread(target=drain, daemon=True)
drainer.start()
begin()
waited = 0
while waited < COUNT:
    try:
        sender.wait_for_peers(timeout=10)
        receipt = sender.send(b"%d" % waited)
    except KeyboardInterrupt:
        continue
    while True:
        try:
            receipt.wait(timeout=10)
            break
        except KeyboardInterrupt:
            pass
    waited += 1
end()
print(waited, sorted(set(range(COUNT)) - set(got)), sender.stats().unacked, interrupts > 0)
receiver.close(linger=0), sender.close(linger=0)
"""


LIVES = PRELUDE + """
import gc

def open_now():
    gc.collect()
    return len(os.listdir("/proc/self/fd")), sum(t.name.startswith("netmsg-") for t in threading.enumerate())

def persist(call, *arguments, **options):
    while True:
        try:
            return call(*arguments, **options)
        except KeyboardInterrupt:
            pass

def live():
    one, other = persist(Søcket), persist(Søcket)
    persist(one.bind, port=0)
    persist(other.connect, port=persist(lambda: one.bound_port))
    persist(other.wait_for_peers, timeout=10)
    persist(other.send, b"hello")
    message = persist(one.recv, timeout=10)
    persist(other.close)
    persist(one.close)
    return message

live()
before = open_now()
begin()
lives = sum(live() == b"hello" for _ in range(COUNT))
end()
deadline = time.monotonic() + 10
while open_now() != before and time.monotonic() < deadline:
    time.sleep(0.01)
print(lives, open_now() == before or (open_now(), before), interrupts > 0)
"""


def came_through(who: str, guarantee: str, count: int) -> Outcome:
    """So many messages in each storm."""
    sent = STORMS * count
    return Outcome(f"storms of Ctrl-C over {who}", guarantee.lower().replace("_", " "),
                   f"{STORMS} storms, an interrupt each half millisecond", sent, sent, 0, 0)


def run(program: str, *arguments: object, quiet: bool = True) -> str:
    result = subprocess.run([*PYTHON, "-c", textwrap.dedent(program), *map(str, arguments)],
                            capture_output=True, text=True, timeout=100)
    assert result.returncode == 0, result.stderr
    assert result.stderr == "" or not quiet
    return result.stdout


@pytest.mark.timeout(ROUNDS * 100)
@pytest.mark.parametrize("guarantee", ["AT_MOST_ONCE", "AT_LEAST_ONCE"])
@pytest.mark.parametrize("how", ["recv", "recv_many", "identity", "delivery", "iterate", "fileno"])
def test_a_storm_on_the_receiver_loses_nothing(guarantee: str, how: str, tell: Callable[[Outcome], None]) -> None:
    count = 100_000 if how in ("recv", "recv_many", "identity", "iterate") else 20_000
    for _ in range(STORMS):
        assert run(RECEIVER, guarantee, count, how, "ON_RECV") == f"{count} True True\n"
    tell(came_through(f"a receiver ({how})", guarantee, count))


@pytest.mark.timeout(ROUNDS * 100)
@pytest.mark.parametrize("guarantee", ["AT_MOST_ONCE", "AT_LEAST_ONCE"])
def test_a_storm_on_a_conversation_loses_nothing(guarantee: str, tell: Callable[[Outcome], None]) -> None:
    for _ in range(STORMS):
        assert run(CONVERSATION, guarantee, 10_000) == "10000 True True\n"
    tell(came_through("a conversation", guarantee, 10_000))


def test_a_storm_on_who_waits_for_receipts_loses_nothing() -> None:
    assert run(RECEIPTS, "AT_LEAST_ONCE", 1000) == "1000 [] 0 True\n"


def test_a_storm_from_the_first_line_to_the_last_leaves_nothing_behind() -> None:
    """An interrupt in a callback of a weak reference is told on the standard error, and is nobody's."""
    assert run(LIVES, "AT_MOST_ONCE", 100, quiet=False) == "100 True True\n"


def test_a_storm_on_manual_deliveries_loses_nothing() -> None:
    assert run(RECEIVER, "AT_LEAST_ONCE", 5000, "delivery", "MANUAL") == "5000 True True\n"


@pytest.mark.timeout(ROUNDS * 100)
@pytest.mark.parametrize("guarantee, mode", [("AT_MOST_ONCE", "ROUNDROBIN"), ("AT_LEAST_ONCE", "ROUNDROBIN"),
                                             ("AT_MOST_ONCE", "PUBLISH")])
@pytest.mark.parametrize("mark", [10_000, 10])
def test_a_storm_on_the_sender_loses_and_wedges_nothing(guarantee: str, mode: str, mark: int,
                                                        tell: Callable[[Outcome], None]) -> None:
    for _ in range(STORMS):
        assert run(SENDER, guarantee, 30_000, mode, mark) == "0 [] True True\n"
    tell(came_through(f"a sender ({mode.lower()}, mark {mark})", guarantee, 30_000))
