"""Rules of the engine that show only while the network thread is held up, or counted."""

from __future__ import annotations

import os
import selectors
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.pairs import TIMEOUT, Background, until, wait_for_event
from support.wire_peer import ACK, DATA, DATA_REQ, dial, frame

from netmsg import AckMode, Disconnected, IOThread, SendMode, SendTimeoutError, Søcket
from netmsg.messaging.dispatching import BURST
from netmsg.reactor.accepting import ACCEPTS_A_ROUND, Acceptor
from netmsg.reactor.io_thread import reactor_of


@contextmanager
def held_up(io: IOThread) -> Iterator[None]:
    """The network thread does nothing meanwhile."""
    held, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        go_on.wait(TIMEOUT)

    reactor_of(io).call(hold)
    assert held.wait(TIMEOUT)
    try:
        yield
    finally:
        go_on.set()


@pytest.mark.parametrize("mode", [SendMode.ROUNDROBIN, SendMode.PUBLISH])
def test_after_a_quiet_while_the_sender_writes_itself(mode: SendMode) -> None:
    with IOThread() as io, Søcket(mode, linger=0, io_thread=io).bind(port=0) as sock, dial(sock.bound_port) as peer:
        peer.shake_hands()
        sock.wait_for_peers(timeout=TIMEOUT)
        threading.Event().wait(0.01)
        with held_up(io):
            sock.send(b"by myself")
            assert peer.read_kind(DATA)[1] == b"by myself"


@pytest.mark.parametrize("mode", [SendMode.ROUNDROBIN, SendMode.PUBLISH])
def test_a_burst_is_written_by_the_sender_once_enough_has_gathered(mode: SendMode) -> None:
    with IOThread() as io, Søcket(mode, linger=0, io_thread=io).bind(port=0) as sock, dial(sock.bound_port) as peer:
        peer.shake_hands()
        sock.wait_for_peers(timeout=TIMEOUT)
        with held_up(io):
            for number in range(3 * BURST):
                sock.send(b"%d" % number)
            for number in range(2 * BURST):
                assert peer.read_kind(DATA)[1] == b"%d" % number
        for number in range(2 * BURST, 3 * BURST):
            assert peer.read_kind(DATA)[1] == b"%d" % number


def test_a_peer_that_asks_for_more_than_it_takes_is_not_read_any_further() -> None:
    """Every message that is to be acknowledged asks for an ACK; this peer reads none of them."""
    with Søcket(linger=0, ack_mode=AckMode.ON_ARRIVAL).bind(port=0) as sock:
        with dial(sock.bound_port, receive_buffer=4096) as peer:
            peer.shake_hands()
            taking = Background(lambda: [None for _ in sock.messages()])
            sent = 0
            peer.sock.settimeout(0.5)
            try:
                while sent < 2_000_000:
                    peer.send(b"".join(frame(DATA_REQ, (sent + n).to_bytes(16, "big")) for n in range(1000)))
                    sent += 1000
            except TimeoutError:
                pass
            assert sent < 2_000_000, "it was read for ever"
            received = sock.stats().received
            peer.sock.settimeout(TIMEOUT)
            for number in range(received):  # and once it reads, all is acknowledged
                assert peer.read_kind(ACK)[1] == number.to_bytes(16, "big")
            until(lambda: sock.stats().received > received)
            sock.close()
            taking.result()


def ticks_of_the_network_threads() -> int:
    """Processor time that they have used so far."""
    ticks = 0
    for thread in threading.enumerate():
        if thread.name.startswith("netmsg-io-"):
            fields = Path(f"/proc/self/task/{thread.native_id}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks


@pytest.mark.parametrize("end", ["reset", "close"])
def test_a_paused_peer_that_goes_away_does_not_spin_the_loop(end: str) -> None:
    with Søcket(linger=0, recv_hwm=10).bind(port=0) as sock:
        peer = dial(sock.bound_port)
        peer.shake_hands(*[frame(DATA, b"x")] * 100)
        until(lambda: sock.stats().received >= 10)
        getattr(peer, end)()
        before = ticks_of_the_network_threads()
        threading.Event().wait(0.5)
        assert ticks_of_the_network_threads() - before < 0.1 * os.sysconf("SC_CLK_TCK")
        for _ in range(100):
            sock.recv(timeout=TIMEOUT)  # what had been received is not lost
        wait_for_event(sock, Disconnected)


def test_a_peer_that_takes_nothing_fills_its_mark_and_is_reset_does_not_spin_the_loop() -> None:
    with Søcket(linger=0, recv_hwm=10, send_hwm=100).bind(port=0) as sock:
        peer = dial(sock.bound_port, receive_buffer=4096)
        peer.shake_hands(*[frame(DATA, b"x")] * 20)
        until(lambda: sock.stats().received >= 10)
        with pytest.raises(SendTimeoutError):
            while True:
                sock.send(bytes(100_000), timeout=0.1)
        peer.reset()
        until(lambda: not sock.peers())
        before = ticks_of_the_network_threads()
        threading.Event().wait(0.5)
        assert ticks_of_the_network_threads() - before < 0.1 * os.sysconf("SC_CLK_TCK")


def test_a_flood_of_connections_leaves_the_others_their_turn() -> None:
    class Watching:
        def watch(self, *_: object) -> None:
            """It is ready whenever the test says so."""

    accepted: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0), backlog=200) as listener:
        listener.setblocking(False)
        acceptor = Acceptor(Watching(), listener,  # type: ignore[arg-type]
                            lambda sock, address: accepted.append(sock), lambda error: None)
        clients = [socket.create_connection(listener.getsockname()) for _ in range(100)]
        acceptor._on_event(selectors.EVENT_READ)
        assert len(accepted) == ACCEPTS_A_ROUND == 64
        acceptor._on_event(selectors.EVENT_READ)
        assert len(accepted) == 100
        for sock in accepted + clients:
            sock.close()
