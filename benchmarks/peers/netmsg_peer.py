"""netmsg: a Søcket on each side, everything by default; the subscribers share one `IOThread`."""

from __future__ import annotations

from collections.abc import Callable
from itertools import repeat
from tempfile import TemporaryDirectory

from netmsg import (
    DeliveryGuarantee, IOThread, LineCodec, OnFull, PacketClient, SendMode, SocketStream, Søcket, connect_tcp,
    create_tcp_server,
)

from .contract import (
    DEADLINE, DURABLE, DURABLE_MANY, ENCRYPTED, HOST, LINES, ONE_WAY, PACKETS, PUBLISH, RELIABLE, ROUND_TRIP, SINK,
    SOURCE, STREAM, SUBSCRIBERS, Job, Report, answer_all, ask_all, client_context, main, receive_all, receive_bytes,
    receive_lines, send_all, send_bytes, send_lines, server_context, store_all, store_together,
)


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


def send_encrypted(job: Job) -> Report:
    sock = Søcket().connect(HOST, job.port, ssl_context=client_context())
    sock.wait_for_peers(timeout=DEADLINE)
    return _send(sock, job)


def receive_encrypted(job: Job) -> Report:
    with Søcket() as sock:
        sock.bind(HOST, job.port, ssl_context=server_context())
        job.announce(sock.bound_port)
        return receive_all([sock.recv], job)


def _stream_to(job: Job) -> SocketStream:
    return connect_tcp(HOST, job.port, timeout=DEADLINE)


def _stream_from(job: Job) -> SocketStream:
    with create_tcp_server(job.port, HOST) as listener:
        job.announce(listener.port)
        return listener.accept(timeout=DEADLINE)


def stream(job: Job) -> Report:
    with _stream_to(job) as stream:
        return send_bytes(stream.send_all, job)


def take_stream(job: Job) -> Report:
    with _stream_from(job) as stream:
        return receive_bytes(stream.receive_into, job)


def write_lines(job: Job) -> Report:
    with _stream_to(job) as stream:
        return send_lines(stream.send_all, job)


def read_lines(job: Job) -> Report:
    with _stream_from(job) as stream:
        receive_until = stream.receive_until

        def read(count: int) -> None:
            for _ in repeat(None, count):
                receive_until(b"\n")

        return receive_lines(read, job)


def read_packets(job: Job) -> Report:
    with PacketClient(_stream_from(job), LineCodec()) as client:
        recv_packet = client.recv_packet

        def read(count: int) -> None:
            for _ in repeat(None, count):
                recv_packet()

        return receive_lines(read, job)


def _store(job: Job, store: Callable[[Søcket], Report]) -> Report:
    """With marks that are not reached: what is measured is how fast messages are stored."""
    with TemporaryDirectory(dir=".") as directory:  # not in a file system that is in memory
        sock = Søcket(delivery_guarantee=DeliveryGuarantee.AT_LEAST_ONCE, outbox=f"{directory}/outbox",
                      send_hwm=job.count, send_hwm_bytes=2 * job.count * job.size).connect(HOST, job.port)
        sock.wait_for_peers(timeout=DEADLINE)
        report = store(sock)
        sock.close(linger=DEADLINE)
    return report


def store_from_threads(job: Job) -> Report:
    return _store(job, lambda sock: store_all(sock.send, job))


def store_many(job: Job) -> Report:
    return _store(job, lambda sock: store_together(sock.send_many, job))


def receive_stored(job: Job) -> Report:
    with _bound(job) as sock:
        return Report(receive_all([sock.recv], job).cpu)  # the source measures


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
        (SOURCE, ENCRYPTED): send_encrypted, (SINK, ENCRYPTED): receive_encrypted,
        (SOURCE, DURABLE): store_from_threads, (SINK, DURABLE): receive_stored,
        (SOURCE, DURABLE_MANY): store_many, (SINK, DURABLE_MANY): receive_stored,
        (SOURCE, STREAM): stream, (SINK, STREAM): take_stream,
        (SOURCE, LINES): write_lines, (SINK, LINES): read_lines,
        (SOURCE, PACKETS): write_lines, (SINK, PACKETS): read_packets,
    })
