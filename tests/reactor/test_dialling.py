"""Dialling over real sockets: the first to answer wins, the others leave nothing."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from typing import Any

import pytest
from support.forking import fork
from support.pairs import TIMEOUT, until, wait_for_event
from support.tenants import Tenant

from netmsg import Connecting, IOThread, Retrying, Søcket
from netmsg.reactor.dialling import Dial
from netmsg.reactor.machine import MACHINE, Machine
from netmsg.reactor.reactor import Reactor
from netmsg.sockets.resolving import resolve, resolve_in_background


def dial(addresses: list[Any], machine: Machine = MACHINE) -> tuple[socket.socket | None, list[Any]]:
    results: list[tuple[socket.socket | None, list[Any]]] = []
    done = threading.Event()

    def ended(sock: socket.socket | None, failures: list[Any]) -> None:
        results.append((sock, failures))
        done.set()

    with contextlib.closing(Reactor(machine)) as io:
        io.attach(Tenant(io))
        io.call(lambda: Dial(io, addresses, ended).start())
        assert done.wait(TIMEOUT)
    return results[0]


def refused() -> tuple[int, Any]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return socket.AF_INET, listener.getsockname()


def test_a_refused_address_gives_way_to_the_next() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sock, failures = dial([refused(), refused(), (socket.AF_INET, listener.getsockname())])
        assert sock is not None and sock.getpeername() == listener.getsockname()
        assert [type(error) for _, error in failures] == [ConnectionRefusedError] * 2
        sock.close()


def test_an_address_that_does_not_answer_is_overtaken() -> None:
    with socket.socket() as deaf, socket.create_server(("127.0.0.1", 0)) as listener:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        fillers = [socket.socket() for _ in range(8)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(deaf.getsockname())
        sock, failures = dial([(socket.AF_INET, deaf.getsockname()), (socket.AF_INET, listener.getsockname())])
        assert sock is not None and sock.getpeername() == listener.getsockname() and failures == []
        sock.close()
        for filler in fillers:
            filler.close()


def test_all_failures_are_told() -> None:
    addresses = [refused(), (socket.AF_UNIX, "/no/such/path"), (12345, ("127.0.0.1", 1))]
    sock, failures = dial(addresses)
    assert sock is None
    assert sorted(str(address) for address, _ in failures) == sorted(map(str, addresses))
    assert dial([]) == (None, [])


class MeetsItself(socket.socket):
    def connect_ex(self, address: Any) -> int:
        self.bind(address)
        return super().connect_ex(address)


class AloneInTheWorld(Machine):
    """Whoever connects meets itself."""

    def new_socket(self, family: int) -> socket.socket:
        sock = MeetsItself(family, socket.SOCK_STREAM)
        sock.setblocking(False)
        return sock


def test_a_free_port_that_meets_itself_counts_as_refused() -> None:
    """TCP's simultaneous open: dialling a free port of the ephemeral range can connect a socket to itself. It stays
    free for who is waited for."""
    address = refused()
    sock, failures = dial([address], AloneInTheWorld())
    assert sock is None and isinstance(failures[0][1], ConnectionRefusedError)
    with socket.create_server(address[1]) as listener:
        assert listener.getsockname() == address[1]


def test_literals_ask_no_resolver(monkeypatch: pytest.MonkeyPatch) -> None:
    flags: list[int] = []
    real = socket.getaddrinfo

    def noting(*arguments: Any, **options: Any) -> Any:
        flags.append(options["flags"])
        return real(*arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", noting)
    found: list[Any] = []
    resolve_in_background("127.0.0.1", 5, found.append)
    resolve_in_background("::1", 5, found.append)
    assert found == [[(socket.AF_INET, ("127.0.0.1", 5))], [(socket.AF_INET6, ("::1", 5, 0, 0))]]
    assert flags == [socket.AI_NUMERICHOST] * 2


def test_a_late_answer_of_the_resolver_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo
    release = threading.Event()
    calls: list[str] = []

    def slow_at_first(host: Any, *arguments: Any, **options: Any) -> Any:
        if options["flags"] == socket.AI_NUMERICHOST:
            return real(host, *arguments, **options)
        calls.append(host)
        if len(calls) == 1:
            assert release.wait(TIMEOUT)
        return real("127.0.0.1", *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", slow_at_first)
    with Søcket(linger=0) as a, Søcket(linger=0, reconnection_delay=lambda: 0.0) as b:
        a.bind(port=0)
        b.connect("slow.test", a.bound_port, connect_timeout=0.2)
        assert isinstance(wait_for_event(b, Retrying).error, TimeoutError)
        b.wait_for_peers(timeout=TIMEOUT)
        release.set()
        b.send(b"x")
        assert a.recv(timeout=TIMEOUT) == b"x"
        assert a.stats().connections == 1
        assert wait_for_event(b, Connecting).address == ("slow.test", a.bound_port)


def test_unknown_names_raise() -> None:
    with pytest.raises(socket.gaierror):
        resolve("no.such.host.invalid", 1)


def test_a_forked_child_keeps_no_copy_of_an_attempt() -> None:
    with socket.socket() as deaf, IOThread() as io:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        fillers = [socket.socket() for _ in range(8)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(deaf.getsockname())
        port = deaf.getsockname()[1]
        others = _dialling(port)
        with Søcket(io_thread=io, linger=0) as sock:
            sock.connect(port=port)
            until(lambda: _dialling(port) - others)
            child = fork()
            if not child:
                os._exit(len(_dialling(port) - others))
            assert os.waitpid(child, 0)[1] == 0 and len(_dialling(port) - others) == 1
        for filler in fillers:
            filler.close()


def _dialling(port: int) -> set[str]:
    """The sockets of this process that are in SYN-SENT towards ``port``."""
    with open("/proc/net/tcp") as table:
        rows = [line.split() for line in table.readlines()[1:]]
    inodes = {f"socket:[{row[9]}]" for row in rows if row[3] == "02" and int(row[2].split(":")[1], 16) == port}
    found = set()
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{descriptor}")
        except OSError:
            continue
        if target in inodes:
            found.add(target)
    return found
