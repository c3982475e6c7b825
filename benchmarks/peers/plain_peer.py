"""Plain blocking sockets: the limit that the operating system and the interpreter set.

One way, and to the subscribers, messages are joined by hand, `JOINED` a ``sendall``, and cut apart by the receiver;
both sides know their size, so there is no framing at all. Round trips are one ``send`` and one ``recv`` at a time.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import repeat

from .contract import (
    ENCRYPTED, HOST, LINES, ONE_WAY, PACKETS, PUBLISH, ROUND_TRIP, SINK, SOURCE, STREAM, SUBSCRIBERS, Job, Meter,
    Report, answer_all, ask_all, client_context, main, receive_bytes, receive_lines, send_bytes, send_lines,
    server_context,
)

JOINED = 256
JOINED_BYTES = 2**18
"""Joining large messages costs more than it saves: at 64 KiB there are 4 to a ``sendall``."""
PIECE_BYTES = 2**16
"""What is read at a time: above the C library's mmap threshold every ``recv`` would have its memory mapped anew."""


def _connect(job: Job) -> socket.socket:
    sock = socket.create_connection((HOST, job.port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _accept(job: Job, connections: int = 1) -> list[socket.socket]:
    with socket.create_server((HOST, job.port), backlog=connections) as listener:
        job.announce(listener.getsockname()[1])
        socks = [listener.accept()[0] for _ in range(connections)]
    for sock in socks:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return socks


def _portions(job: Job, limit: int) -> Iterator[int]:
    """The messages of a job in portions of at most `JOINED` and about ``limit`` bytes: how many are in each."""
    portion = max(1, min(JOINED, limit // job.size))
    for start in range(0, job.count, portion):
        yield min(portion, job.count - start)


def _send(socks: Sequence[socket.socket], job: Job) -> Report:
    message = job.message
    meter = Meter()
    for portion in _portions(job, JOINED_BYTES):
        joined = b"".join([message] * portion)
        for sock in socks:
            sock.sendall(joined)
    return Report(meter.stop()[1])


def _receive(socks: Sequence[socket.socket], job: Job) -> Report:
    """Timed from the first piece to the last. The sockets are read in turn and in step, so none of them fills up."""
    size = job.size
    meter = None
    received = 0
    for portion in _portions(job, PIECE_BYTES):
        for sock in socks:
            piece = _read(sock, portion * size)
            messages = [piece[start:start + size] for start in range(0, len(piece), size)]
            if len(piece) != portion * size:
                raise AssertionError("the connection ended early")
            if meter is None:
                meter = Meter()
            else:
                received += len(messages)
    assert meter is not None
    seconds, cpu = meter.stop()
    return Report(cpu, received / seconds)


def _read(sock: socket.socket, size: int) -> bytes:
    if not isinstance(sock, ssl.SSLSocket):
        return sock.recv(size, socket.MSG_WAITALL)
    pieces = []
    while size > 0 and (piece := sock.recv(size)):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def send_one_way(job: Job) -> Report:
    with _connect(job) as sock:
        return _send([sock], job)


def receive(job: Job) -> Report:
    with _accept(job)[0] as sock:
        return _receive([sock], job)


def ask(job: Job) -> Report:
    with _connect(job) as sock:
        return ask_all(sock.send, partial(sock.recv, job.size, socket.MSG_WAITALL), job)


def answer(job: Job) -> Report:
    with _accept(job)[0] as sock:
        return answer_all(sock.send, partial(sock.recv, job.size, socket.MSG_WAITALL), job)


def send_encrypted(job: Job) -> Report:
    with client_context().wrap_socket(_connect(job)) as sock:
        report = _send([sock], job)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(2**16):
            pass  # closing with bytes unread would be a reset
        return report


def receive_encrypted(job: Job) -> Report:
    with server_context().wrap_socket(_accept(job)[0], server_side=True) as sock:
        return _receive([sock], job)


def stream(job: Job) -> Report:
    with _connect(job) as sock:
        return send_bytes(sock.sendall, job)


def take_stream(job: Job) -> Report:
    with _accept(job)[0] as sock:
        return receive_bytes(sock.recv_into, job)


def write_lines(job: Job) -> Report:
    with _connect(job) as sock:
        return send_lines(sock.sendall, job)


def read_lines(job: Job) -> Report:
    with _accept(job)[0] as sock, sock.makefile("rb") as file:
        readline = file.readline

        def read(count: int) -> None:
            for _ in repeat(None, count):
                readline()

        return receive_lines(read, job)


def publish(job: Job) -> Report:
    with ExitStack() as stack:
        return _send([stack.enter_context(sock) for sock in _accept(job, SUBSCRIBERS)], job)


def subscribe(job: Job) -> Report:
    with ExitStack() as stack:
        return _receive([stack.enter_context(_connect(job)) for _ in range(SUBSCRIBERS)], job)


if __name__ == "__main__":
    main({
        (SOURCE, ONE_WAY): send_one_way, (SINK, ONE_WAY): receive,
        (SOURCE, ROUND_TRIP): ask, (SINK, ROUND_TRIP): answer,
        (SOURCE, PUBLISH): publish, (SINK, PUBLISH): subscribe,
        (SOURCE, ENCRYPTED): send_encrypted, (SINK, ENCRYPTED): receive_encrypted,
        (SOURCE, STREAM): stream, (SINK, STREAM): take_stream,
        (SOURCE, LINES): write_lines, (SINK, LINES): read_lines,
        (SOURCE, PACKETS): write_lines, (SINK, PACKETS): read_lines,
    })
