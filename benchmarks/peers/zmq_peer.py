"""pyzmq: PUSH/PULL, REQ/REP and XPUB/SUB, one context with its one I/O thread a side.

The publisher is an XPUB: the same engine as a PUB, but it is told of every subscription and so knows when to begin.
``XPUB_NODROP`` makes its ``send`` wait at the high-water mark, as `OnFull.BLOCK` does, so nothing is dropped.
Everything else is by default; a greater mark, or none, only made it slower.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import zmq

from .contract import (
    HOST, ONE_WAY, PUBLISH, ROUND_TRIP, SINK, SOURCE, SUBSCRIBERS, Job, Report, answer_all, ask_all, main, receive_all,
    send_all,
)


def _connect(sock: zmq.Socket[bytes], job: Job) -> None:
    sock.connect(f"tcp://{HOST}:{job.port}")


def _bind(sock: zmq.Socket[bytes], job: Job) -> None:
    sock.bind(f"tcp://{HOST}:{job.port}")
    endpoint = sock.getsockopt(zmq.LAST_ENDPOINT)
    assert isinstance(endpoint, bytes)
    job.announce(int(endpoint.rpartition(b":")[2]))


@contextmanager
def _socket(kind: int) -> Iterator[tuple[zmq.Context[zmq.Socket[bytes]], zmq.Socket[bytes]]]:
    """A context with a socket. Leaving both waits until everything has been sent: by default they linger for ever."""
    with zmq.Context() as context, context.socket(kind) as sock:
        yield context, sock


def _send(context: zmq.Context[zmq.Socket[bytes]], sock: zmq.Socket[bytes], job: Job) -> Report:
    def close() -> None:
        sock.close()
        context.term()

    return send_all(sock.send, job, close)


def send_one_way(job: Job) -> Report:
    with _socket(zmq.PUSH) as (context, sock):
        _connect(sock, job)
        return _send(context, sock, job)


def receive(job: Job) -> Report:
    with _socket(zmq.PULL) as (_, sock):
        _bind(sock, job)
        return receive_all([sock.recv], job)


def ask(job: Job) -> Report:
    with _socket(zmq.REQ) as (_, sock):
        _connect(sock, job)
        return ask_all(sock.send, sock.recv, job)


def answer(job: Job) -> Report:
    with _socket(zmq.REP) as (_, sock):
        _bind(sock, job)
        return answer_all(sock.send, sock.recv, job)


def publish(job: Job) -> Report:
    with _socket(zmq.XPUB) as (context, sock):
        sock.setsockopt(zmq.XPUB_NODROP, 1)
        sock.setsockopt(zmq.XPUB_VERBOSE, 1)  # tell of each subscription, not only of the first to a topic
        _bind(sock, job)
        for _ in range(SUBSCRIBERS):
            sock.recv()
        return _send(context, sock, job)


def subscribe(job: Job) -> Report:
    with zmq.Context() as context:
        socks = [context.socket(zmq.SUB) for _ in range(SUBSCRIBERS)]
        for sock in socks:
            sock.subscribe(b"")
            _connect(sock, job)
        report = receive_all([sock.recv for sock in socks], job)
        for sock in socks:
            sock.close()
        return report


if __name__ == "__main__":
    main({
        (SOURCE, ONE_WAY): send_one_way, (SINK, ONE_WAY): receive,
        (SOURCE, ROUND_TRIP): ask, (SINK, ROUND_TRIP): answer,
        (SOURCE, PUBLISH): publish, (SINK, PUBLISH): subscribe,
    })
