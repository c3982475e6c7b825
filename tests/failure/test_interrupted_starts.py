"""An interrupt while a thread is started: the Søcket and the server are as good as before."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.processes import Program

COUNT = 5000 if os.environ.get("NETMSG_SOAK") else 200

PRELUDE = """
import os, random, signal, sys, threading, time
from netmsg import *

def remaining():
    \"\"\"The library's threads, some of which may only be about to begin, and are to end at once.\"\"\"
    deadline = time.monotonic() + 10
    while True:
        names = [thread.name for thread in threading.enumerate() if thread.name.startswith("netmsg-")]
        if not names or time.monotonic() > deadline:
            return names
        time.sleep(0.01)
"""

BIND = PRELUDE + """
# Once, at any moment of the first bind; in the library, or what it calls.
def interrupt(number, frame):
    if not armed:
        return
    while frame is not None and LIBRARY not in frame.f_code.co_filename:
        frame = frame.f_back
    if frame is not None:
        raise KeyboardInterrupt

LIBRARY = os.path.dirname(__import__("netmsg").__file__)
signal.signal(signal.SIGALRM, interrupt)
shared = IOThread() if sys.argv[1] == "shared" else None
interrupted = 0
armed = False  # the signal may be late
while interrupted < int(sys.argv[2]):
    bound = Søcket(io_thread=shared, linger=0)
    signal.setitimer(signal.ITIMER_REAL, random.uniform(0.00001, 0.001))
    try:
        armed = True
        bound.bind(port=0)
        armed = False
    except KeyboardInterrupt:
        armed = False
        interrupted += 1
        if interrupted % 2:
            bound.bind(port=0)
            with Søcket(linger=0).connect(port=bound.bound_port) as peer:
                peer.send(b"here")
                assert bound.recv(timeout=10) == b"here"
    signal.setitimer(signal.ITIMER_REAL, 0)
    bound.close()
if shared is not None:
    shared.close()
print(remaining())
"""

START = PRELUDE + """
start = threading.Thread.start

def start_and_interrupt(thread):
    start(thread)
    if thread.name.startswith("netmsg-io-"):
        threading.Thread.start = start
        signal.raise_signal(signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
threading.Thread.start = start_and_interrupt
server = StreamServer(lambda stream: stream.send_all(stream.receive()), create_tcp_server(interface="127.0.0.1"))
try:
    server.start()
except KeyboardInterrupt:
    print("interrupted")
if sys.argv[1] == "again":
    server.start()
    with connect_tcp("127.0.0.1", server.port) as stream:
        stream.send_all(b"hello")
        print(stream.receive_exactly(5, timeout=10))
server.shutdown()
print(remaining())
"""

MAKE = PRELUDE + """
start, left = threading.Thread.start, int(sys.argv[1])

def start_and_interrupt(thread):
    global left
    start(thread)
    left -= thread.name.startswith("netmsg-outbox-")
    if not left:
        threading.Thread.start = start
        signal.raise_signal(signal.SIGINT)

def make():
    return Søcket(delivery_guarantee=DeliveryGuarantee.AT_LEAST_ONCE, outbox=sys.argv[2] + "/outbox",
                  dedupe_path=sys.argv[2] + "/seen", linger=0)

signal.signal(signal.SIGINT, signal.default_int_handler)
threading.Thread.start = start_and_interrupt
try:
    make()
except KeyboardInterrupt:
    print(remaining())
with make() as sock:
    sock.send(b"")
print(remaining())
"""


@pytest.mark.parametrize("whose", ["shared", "private"])
def test_an_interrupted_bind_can_be_repeated(whose: str) -> None:
    with Program("-c", BIND, whose, str(COUNT)) as program:
        assert program.read_line(60) == "[]"
        assert program.finish() == 0


def test_an_interrupted_start_of_a_server_can_be_repeated() -> None:
    with Program("-c", START, "again") as program:
        assert [program.read_line() for _ in range(3)] == ["interrupted", "b'hello'", "[]"]
        assert program.finish() == 0
        assert program.errors() == ""


def test_after_an_interrupted_start_a_server_can_be_shut_down() -> None:
    with Program("-c", START, "never") as program:
        assert [program.read_line() for _ in range(2)] == ["interrupted", "[]"]
        assert program.finish() == 0
        assert program.errors() == ""


@pytest.mark.parametrize("which", [1, 2])
def test_an_interrupted_start_of_who_writes_a_file_leaves_no_thread(which: int, tmp_path: Path) -> None:
    with Program("-c", MAKE, str(which), str(tmp_path)) as program:
        assert [program.read_line(30) for _ in range(2)] == ["[]"] * 2
        assert program.finish() == 0
        assert program.errors() == ""
