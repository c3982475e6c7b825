"""The table of what is measured, and against whom."""

from __future__ import annotations

from dataclasses import dataclass

from .peers.contract import (
    DURABLE, DURABLE_MANY, DURABLE_THREADS, ENCRYPTED, LINES, ONE_WAY, PACKETS, PUBLISH, RELIABLE, ROUND_TRIP,
    STORED_TOGETHER, STREAM, SUBSCRIBERS, SYNC,
)

NETMSG, PYZMQ, PLAIN = "netmsg", "pyzmq", "plain"
EASYNETWORK, ECHO, DISK = "easynetwork", "echo", "disk"
PEERS = {NETMSG: "netmsg_peer", PYZMQ: "zmq_peer", PLAIN: "plain_peer", EASYNETWORK: "easynetwork_peer",
         ECHO: "echo_peer", DISK: "disk_peer"}
"""The peers, and the module in `benchmarks.peers` of each."""

QUICK = 100
"""With ``--quick`` there are so many times fewer messages."""


@dataclass(frozen=True)
class Contender:
    """One of those that do a workload."""

    name: str
    peer: str
    pattern: str


@dataclass(frozen=True)
class Workload:
    """One line of the table. The first contender is netmsg; the others are what it is divided by."""

    id: str
    title: str
    size: int
    count: int
    unit: str
    contenders: tuple[Contender, ...]

    @property
    def less_is_better(self) -> bool:
        return self.unit == "s"


def _everyone(pattern: str) -> tuple[Contender, ...]:
    return tuple(Contender(peer, peer, pattern) for peer in (NETMSG, PYZMQ, PLAIN))


def _encrypted(clear: str) -> tuple[Contender, ...]:
    """Under TLS, against netmsg in the clear and ``ssl.SSLSocket``."""
    return (Contender(NETMSG, NETMSG, ENCRYPTED), Contender(f"netmsg {clear}", NETMSG, ONE_WAY),
            Contender(PLAIN, PLAIN, ENCRYPTED))


def _against_plain(pattern: str) -> tuple[Contender, ...]:
    return Contender(NETMSG, NETMSG, pattern), Contender(PLAIN, PLAIN, pattern)


def _echo(connections: int, own: str, *others: str) -> tuple[Contender, ...]:
    """Echo servers of lines: ``own`` is one of netmsg's."""
    return (Contender(NETMSG, ECHO, f"{own}:{connections}"),
            *(Contender(other, ECHO, f"{other}:{connections}") for other in others))


def _against_disk(pattern: str) -> tuple[Contender, ...]:
    """The ratio is how many messages are stored in the time of one sync."""
    return Contender(NETMSG, NETMSG, pattern), Contender("the disk's syncs", DISK, SYNC)


_INLINE_RIVALS = "uvloop", "asyncio", EASYNETWORK
RELIABLE_AGAINST_ONE_WAY = (Contender(NETMSG, NETMSG, RELIABLE), Contender("netmsg P1", NETMSG, ONE_WAY))

WORKLOADS = {workload.id: workload for workload in (
    Workload("P1", "one way, 64 B", 64, 2_000_000, "msg/s", _everyone(ONE_WAY)),
    Workload("P2", "one way, 1 KiB", 2**10, 1_000_000, "msg/s", _everyone(ONE_WAY)),
    Workload("P3", "one way, 64 KiB", 2**16, 50_000, "msg/s", _everyone(ONE_WAY)),
    Workload("P5", "round trip, 64 B, p50", 64, 20_000, "s", _everyone(ROUND_TRIP)),
    Workload("P6", "at least once, one way, 64 B", 64, 1_000_000, "msg/s", RELIABLE_AGAINST_ONE_WAY),
    Workload("P7", f"publish to {SUBSCRIBERS} subscribers, 64 B, deliveries", 64, 40_000, "msg/s", _everyone(PUBLISH)),
    Workload("P8", "one way, 64 B, under TLS", 64, 1_000_000, "msg/s", _encrypted("P1")),
    Workload("P8b", "one way, 64 KiB, under TLS", 2**16, 10_000, "msg/s", _encrypted("P3")),
    Workload("P10a", "echo, 1 connection, inline", 64, 40_000, "req/s", _echo(1, "inline", *_INLINE_RIVALS)),
    Workload("P10b", "echo, 50 connections, inline", 64, 100_000, "req/s", _echo(50, "inline", *_INLINE_RIVALS)),
    Workload("P10c", "echo, 1000 connections, inline", 64, 100_000, "req/s", _echo(1000, "inline", *_INLINE_RIVALS)),
    Workload("P10d", "echo, 1 connection, 8 workers", 64, 40_000, "req/s", _echo(1, "workers", "threading")),
    Workload("P10e", "echo, 50 connections, 8 workers", 64, 100_000, "req/s", _echo(50, "workers", "threading")),
    Workload("P10f", "echo, 1000 connections, 8 workers", 64, 100_000, "req/s", _echo(1000, "workers", "threading")),
    Workload("P11", "byte stream, 1 GiB in pieces of 64 KiB", 2**16, 16_384, "pieces/s", _against_plain(STREAM)),
    Workload("P11b", "lines of 64 B, one call each", 64, 1_000_000, "lines/s", _against_plain(LINES)),
    Workload("P11c", "packets of lines of 64 B, one call each", 64, 1_000_000, "lines/s",
             (*_against_plain(PACKETS), Contender(EASYNETWORK, EASYNETWORK, PACKETS))),
    Workload("P12a", f"durable, 64 B, from {DURABLE_THREADS} threads", 64, 160_000, "msg/s", _against_disk(DURABLE)),
    Workload("P12b", f"durable, 64 B, {STORED_TOGETHER} together", 64, 1_000_000, "msg/s",
             _against_disk(DURABLE_MANY)),
)}
