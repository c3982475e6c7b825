"""netmsg: a Søcket on each side, everything by default; the subscribers share one `IOThread`."""

from __future__ import annotations

from netmsg import DeliveryGuarantee, IOThread, OnFull, SendMode, Søcket

from .contract import (DEADLINE, HOST, ONE_WAY, PUBLISH, RELIABLE, ROUND_TRIP, SINK, SOURCE, SUBSCRIBERS, Job, Report,
                       answer_all, ask_all, main, receive_all, send_all)


def _connected(job: Job, guarantee: DeliveryGuarantee = DeliveryGuarantee.AT_MOST_ONCE) -> Søcket:
    sock = Søcket(delivery_guarantee=guarantee).connect(HOST, job.port)
    sock.wait_for_peers(timeout=DEADLINE)
    return sock


def _bound(job: Job) -> Søcket:
    sock = Søcket().bind(HOST, job.port)
    job.announce(sock.bound_port)
    return sock


def _send(sock: Søcket, job: Job) -> Report:
    def close() -> None:
        if given_up := sock.close(linger=DEADLINE):
            raise AssertionError(f"{given_up} messages were given up")

    return send_all(sock.send, job, close)


def send_one_way(job: Job) -> Report:
    return _send(_connected(job), job)


def send_reliably(job: Job) -> Report:
    return _send(_connected(job, DeliveryGuarantee.AT_LEAST_ONCE), job)


def receive(job: Job) -> Report:
    with _bound(job) as sock:
        return receive_all([sock.recv], job)


def ask(job: Job) -> Report:
    with _connected(job) as sock:
        return ask_all(sock.send, sock.recv, job)


def answer(job: Job) -> Report:
    with _bound(job) as sock:
        return answer_all(sock.send, sock.recv, job)


def publish(job: Job) -> Report:
    sock = Søcket(SendMode.PUBLISH, on_full=OnFull.BLOCK).bind(HOST, job.port)
    job.announce(sock.bound_port)
    sock.wait_for_peers(SUBSCRIBERS, timeout=DEADLINE)
    return _send(sock, job)


def subscribe(job: Job) -> Report:
    with IOThread() as io:
        socks = [Søcket(io_thread=io).connect(HOST, job.port) for _ in range(SUBSCRIBERS)]
        return receive_all([sock.recv for sock in socks], job)


if __name__ == "__main__":
    main({
        (SOURCE, ONE_WAY): send_one_way, (SINK, ONE_WAY): receive,
        (SOURCE, RELIABLE): send_reliably, (SINK, RELIABLE): receive,
        (SOURCE, ROUND_TRIP): ask, (SINK, ROUND_TRIP): answer,
        (SOURCE, PUBLISH): publish, (SINK, PUBLISH): subscribe,
    })
