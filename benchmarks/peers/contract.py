"""What every peer has to do, and the loops that are timed.

A peer is a module that is run as two processes::

    python -m benchmarks.peers.netmsg_peer ROLE PATTERN SIZE COUNT PORT

with ROLE ``source`` or ``sink``. The side that binds for this pattern (`BINDERS`) is started with port 0, is given a
free one by the kernel and prints it on a line of its own; then the other side is started with it. At its end each side
prints its `Report` as one line of JSON.

The peers share the loops below, so that they are timed alike: one call of ``send`` or ``recv`` a message.
"""

from __future__ import annotations

import json
import signal
import ssl
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import cycle, islice, repeat

import trustme

HOST = "127.0.0.1"
SUBSCRIBERS = 50
DEADLINE = 120
"""Seconds that a process may live: it sees to that itself, should the driver be gone."""

SOURCE, SINK = "source", "sink"

ONE_WAY, ROUND_TRIP, RELIABLE, PUBLISH = "one-way", "round-trip", "reliable", "publish"
ENCRYPTED, STREAM, LINES, PACKETS = "encrypted", "stream", "lines", "packets"
DURABLE, DURABLE_MANY, SYNC = "durable", "durable-many", "sync"
BINDERS = {PUBLISH: SOURCE}
"""Which side binds: a publisher, and everywhere else the sink."""

LINES_JOINED = 1000
DURABLE_THREADS = 16
STORED_TOGETHER = 1000

WARM_UP = 10
"""One round trip in so many comes before those that count."""


@dataclass(frozen=True)
class Report:
    """What one side has to say about its run."""

    cpu: float
    """Its share of a core while it worked, all of its threads and the kernel's work for them included."""
    value: float | None = None
    """What was measured, from the side that measures: messages a second, or seconds."""
    p99: float | None = None
    """Seconds within which 99 of 100 answers came, where requests a second are measured."""


@dataclass(frozen=True)
class Job:
    """What one side is to do."""

    size: int
    """Bytes of a message."""
    count: int
    """Messages; with `PUBLISH` to each subscriber."""
    port: int
    """0 for the side that binds."""

    @property
    def message(self) -> bytes:
        return bytes(self.size)

    def announce(self, port: int) -> None:
        """Tell the driver where this side listens."""
        print(port, flush=True)


class Meter:
    """The time that passes, and the CPU time this process uses, from its making on."""

    def __init__(self) -> None:
        self._cpu = time.process_time()
        self._start = time.perf_counter()

    def stop(self) -> tuple[float, float]:
        """Return the seconds since the start, and the share of a core that this process used."""
        seconds = time.perf_counter() - self._start
        return seconds, (time.process_time() - self._cpu) / seconds


Role = Callable[[Job], Report]


def send_all(send: Callable[[bytes], object], job: Job, close: Callable[[], object]) -> Report:
    """Send every message and ``close``, which waits until all are on their way: a queue would hide what they cost."""
    message = job.message
    meter = Meter()
    for _ in repeat(None, job.count):
        send(message)
    close()
    return Report(meter.stop()[1])


def receive_all(receivers: Sequence[Callable[[], bytes]], job: Job) -> Report:
    """Receive every message, one from each of the receivers in turn; timed from the first to the last of all."""
    rest = job.count * len(receivers) - 1
    turns = cycle(receivers)
    message = next(turns)()
    meter = Meter()
    for recv in islice(turns, rest):
        message = recv()
    seconds, cpu = meter.stop()
    if len(message) != job.size:
        raise AssertionError(f"received {len(message)} bytes instead of {job.size}")
    return Report(cpu, rest / seconds)


def ask_all(send: Callable[[bytes], object], recv: Callable[[], bytes], job: Job) -> Report:
    """Send a message and wait for it to come back, over and over; the value is the median."""
    message = job.message
    clock = time.perf_counter
    for _ in repeat(None, job.count // WARM_UP):
        send(message)
        recv()
    trips = []
    meter = Meter()
    for _ in repeat(None, job.count):
        start = clock()
        send(message)
        recv()
        trips.append(clock() - start)
    return Report(meter.stop()[1], statistics.median(trips))


def answer_all(send: Callable[[bytes], object], recv: Callable[[], bytes], job: Job) -> Report:
    """Send back what comes, as often as `ask_all` asks."""
    send(recv())
    meter = Meter()
    for _ in repeat(None, job.count + job.count // WARM_UP - 1):
        send(recv())
    return Report(meter.stop()[1])


def server_context() -> ssl.SSLContext:
    """With a certificate of its own, which the other side does not look at: it would only cost time to hand over."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("localhost").configure_cert(context)
    return context


def client_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def send_bytes(send: Callable[[bytes], object], job: Job) -> Report:
    """Send every piece of a stream."""
    return send_all(send, job, bool)


def send_lines(send: Callable[[bytes], object], job: Job) -> Report:
    """Send lines of ``job.size`` bytes with their ends, `LINES_JOINED` at a time: the reading is what is measured."""
    lines = (bytes(job.size - 1).replace(b"\0", b"x") + b"\n") * LINES_JOINED
    meter = Meter()
    for _ in range(job.count // LINES_JOINED):
        send(lines)
    return Report(meter.stop()[1])


def receive_bytes(receive_into: Callable[[memoryview], int], job: Job) -> Report:
    """Receive every piece of a stream, into one buffer of that size; the value is pieces a second."""
    view = memoryview(bytearray(job.size))
    received = receive_into(view)
    meter = Meter()
    total = job.count * job.size
    while received < total:
        count = receive_into(view)
        if not count:
            raise AssertionError("the stream ended early")
        received += count
    seconds, cpu = meter.stop()
    return Report(cpu, job.count / seconds)


def store_all(send: Callable[[bytes], object], job: Job) -> Report:
    """Send from `DURABLE_THREADS` threads at once; the value is how many a second are stored."""
    message = job.message

    def send_some() -> None:
        for _ in repeat(None, job.count // DURABLE_THREADS):
            send(message)

    with ThreadPoolExecutor(DURABLE_THREADS) as threads:
        meter = Meter()
        for done in [threads.submit(send_some) for _ in range(DURABLE_THREADS)]:
            done.result()
        seconds, cpu = meter.stop()
    return Report(cpu, job.count // DURABLE_THREADS * DURABLE_THREADS / seconds)


def store_together(send_many: Callable[[list[bytes]], object], job: Job) -> Report:
    """The same, `STORED_TOGETHER` a call, from one thread."""
    messages = [job.message] * STORED_TOGETHER
    meter = Meter()
    for _ in repeat(None, job.count // STORED_TOGETHER):
        send_many(messages)
    seconds, cpu = meter.stop()
    return Report(cpu, job.count // STORED_TOGETHER * STORED_TOGETHER / seconds)


def receive_lines(read: Callable[[int], object], job: Job) -> Report:
    """Read every line, one call each: ``read(count)`` has the loop, for the calls differ in their arguments."""
    count = job.count // LINES_JOINED * LINES_JOINED
    read(1)
    meter = Meter()
    read(count - 1)
    seconds, cpu = meter.stop()
    return Report(cpu, (count - 1) / seconds)


def main(roles: Mapping[tuple[str, str], Role]) -> None:
    """Run the role that the command line asks for; ``roles`` are by (role, pattern)."""
    signal.alarm(DEADLINE)
    role, pattern, size, count, port = sys.argv[1:]
    report = roles[role, pattern](Job(int(size), int(count), int(port)))
    print(json.dumps(asdict(report)), flush=True)
