"""Descriptors, threads and memory: what runs out comes back, and what grows has a bound."""

from __future__ import annotations

import gc
import os
import resource
import subprocess
import textwrap
import threading
import time
import tracemalloc
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.pairs import TIMEOUT, until
from support.processes import PYTHON, Program
from support.wire_peer import DATA, DATA_REQ, WirePeer, capabilities, dial, frame, hello

from netmsg import DeliveryGuarantee, IOThread, Søcket

SOAKS = bool(os.environ.get("NETMSG_SOAK"))


def resident() -> int:
    """Bytes of memory that this process holds."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


def run(program: str, *arguments: object, timeout: float = 50.0) -> str:
    result = subprocess.run([*PYTHON, "-c", textwrap.dedent(program),
                             *map(str, arguments)], capture_output=True, text=True, timeout=timeout)
    assert (result.returncode, result.stderr) == (0, ""), result.stderr
    return result.stdout


def test_accepting_pauses_when_descriptors_run_out_and_resumes() -> None:
    assert run("""
        import logging, os, resource, socket
        from netmsg import AcceptError, Søcket
        logging.disable(logging.WARNING)
        with Søcket(linger=0) as sock, Søcket(linger=0) as client:
            sock.bind(port=0)
            hoard = []
            first = socket.create_connection(("127.0.0.1", sock.bound_port))
            lowest = os.dup(0)
            os.close(lowest)
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            waiting = socket.socket()
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 2, hard))
            while True:
                try:
                    hoard.append(os.dup(0))
                except OSError:
                    break
            waiting.connect(("127.0.0.1", sock.bound_port))
            event = next(event for event in sock.events(timeout=10) if isinstance(event, AcceptError))
            assert "Too many open files" in event.reason, event
            for fd in hoard:
                os.close(fd)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            client.connect(port=sock.bound_port)
            client.send(b"after")
            print(sock.recv(timeout=10).decode())
            first.close(), waiting.close()
    """) == "after\n"


def test_dialling_out_of_descriptors_is_retried() -> None:
    assert run("""
        import logging, os, resource
        from netmsg import Retrying, Søcket
        logging.disable(logging.WARNING)
        with Søcket(linger=0) as sock, Søcket(linger=0) as client:
            sock.bind(port=0)
            client.bind(port=0)  # so that its thread runs
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            lowest = os.dup(0)
            os.close(lowest)
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
            client.connect(port=sock.bound_port)
            event = next(event for event in client.events(timeout=10) if isinstance(event, Retrying))
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            client.send(b"after")
            print(sock.recv(timeout=10).decode(), "Too many open files" in event.reason)
    """) == "after True\n"


def test_a_stale_path_cannot_be_told_without_a_descriptor(tmp_path: Path) -> None:
    assert run("""
        import errno, os, resource, socket, sys
        from netmsg import create_unix_server
        with socket.socket(socket.AF_UNIX) as gone:
            gone.bind(sys.argv[1])
        hoard = []
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
        while True:
            try:
                hoard.append(os.dup(0))
            except OSError:
                break
        for spare in range(1, 4):  # one for the socket, one for the lock, one for the look
            os.close(hoard.pop())
            try:
                with create_unix_server(sys.argv[1]):
                    print("listens")
            except OSError as error:
                print(errno.errorcode[error.errno])
                assert not os.path.exists(sys.argv[1] + ".netmsg-bind")
    """, tmp_path / "server") == "EMFILE\nEMFILE\nlistens\n"


def test_sending_a_unix_datagram_waits_for_room_without_a_descriptor_too(tmp_path: Path) -> None:
    assert run("""
        import os, resource, sys, threading
        from netmsg import SendTimeoutError, create_unix_datagram_socket
        with (create_unix_datagram_socket(path=sys.argv[1]) as receiver,
              create_unix_datagram_socket(target_path=sys.argv[1]) as sender):
            count = 0
            try:
                while True:
                    sender.send(b"early", timeout=0)
                    count += 1
            except SendTimeoutError:
                pass
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
            hoard = []
            while True:
                try:
                    hoard.append(os.dup(0))
                except OSError:
                    break
            try:
                sender.send(b"x", timeout=0.2)
            except SendTimeoutError:
                print("waited")
            sending = threading.Thread(target=sender.send, args=(b"late",), kwargs={"timeout": 30})
            sending.start()
            while receiver.receive(timeout=30)[0] != b"late":
                pass
            sending.join(30)
            assert not sending.is_alive()
            for descriptor in hoard:
                os.close(descriptor)
            print("sent")
    """, tmp_path / "receiver") == "waited\nsent\n"


@pytest.mark.parametrize("words", [b"\x00\xff\xff\xff", b"\x00\x00\x00\x12", b"\x16\x03\x01\x40", b"GET "])
def test_unauthenticated_connections_cost_next_to_no_memory_whatever_they_claim(words: bytes) -> None:
    """Neither of what is asked for, nor of what is touched."""
    with Søcket(linger=0, handshake_timeout=60).bind(port=0, websocket_origins=["*"]) as sock:
        with dial(sock.bound_port) as warm:
            warm.shake_hands()
        gc.collect()
        before = resident()
        tracemalloc.start()
        try:
            with ExitStack() as stack:
                for _ in range(20):
                    stack.enter_context(dial(sock.bound_port)).send(words)
                stack.enter_context(dial(sock.bound_port)).shake_hands()
                asked_for = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert asked_for < 2**20
        assert resident() - before < 2 * 2**20  # half of it is for tracemalloc's own notes


def test_a_claimed_size_costs_nothing_until_its_bytes_arrive() -> None:
    with Søcket(linger=0, max_message_size=2**30) as sock:
        sock.bind(port=0)
        peers: list[WirePeer] = []
        for _ in range(10):
            peers.append(dial(sock.bound_port))
            peers[-1].shake_hands()
        sock.wait_for_peers(10, timeout=TIMEOUT)
        before = resident()
        for peer in peers:
            peer.send((2**30).to_bytes(4, "big") + b"\x03" + b"x" * 1000)
        until(lambda: sock.stats().bytes_received > 10 * 1000)
        assert resident() - before < 30 * 2**20  # ten pieces of at most a megabyte, and change
        for peer in peers:
            peer.close()


LARGE = """
    import sys
    from netmsg import Søcket
    how, size = sys.argv[1], int(sys.argv[3])

    def highest():
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))

    with Søcket(linger=60, max_message_size=size, send_hwm_bytes=2 * size).connect(port=int(sys.argv[2])) as sock:
        sock.wait_for_peers(timeout=10)
        message = bytearray(b"x") * size if how == "sends" else b""
        before = highest()
        if how == "sends":
            sock.send(message)
            sock.close()
        else:
            assert len(sock.recv(timeout=60)) == size
        print(highest() - before, flush=True)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="the highest use of memory is not told here")
@pytest.mark.timeout(600 if SOAKS else 60)
@pytest.mark.parametrize("size", [100 * 2**20] + [2**30] * SOAKS)
@pytest.mark.parametrize("how", ["receives", "sends"])
def test_a_large_message_costs_twice_its_size_at_most(how: str, size: int) -> None:
    """Beside what the sending program has itself."""
    with Søcket(max_message_size=size, send_hwm_bytes=2 * size, linger=0).bind(port=0) as sock:
        if how == "receives":
            sock.send(bytes(size))
        with Program("-c", textwrap.dedent(LARGE), how, str(sock.bound_port), str(size)) as program:
            if how == "sends":
                assert len(sock.recv(timeout=120)) == size
            assert program.finish(120) == 0, program
            assert int(program.lines[-1]) < 2 * size + 2**20


def test_messages_that_wait_for_their_acknowledgement_cost_no_thread_and_are_one_when_sent_again() -> None:
    count = 960
    with Søcket(delivery_guarantee=DeliveryGuarantee.AT_LEAST_ONCE, resend_after=0.3, linger=0).bind(port=0) as sock:
        with dial(sock.bound_port) as peer:
            peer.shake_hands(capabilities())
            sock.wait_for_peers(timeout=TIMEOUT)
            before = threading.active_count()
            sock.send_many([b"x"] * count)
            assert threading.active_count() == before
            ids = Counter(peer.read_kind(DATA_REQ)[1][:16] for _ in range(2 * count))
            assert threading.active_count() == before
            assert len(ids) == count


def test_a_stalled_peer_costs_no_more_memory_than_the_marks() -> None:
    with Søcket(send_hwm_bytes=4 * 2**20, send_hwm=4096, linger=0) as sock:
        sock.bind(port=0)
        with dial(sock.bound_port, receive_buffer=2048) as peer:
            peer.shake_hands()
            sock.wait_for_peers(timeout=TIMEOUT)
            before = resident()
            stop = time.monotonic() + 1.0
            while time.monotonic() < stop:
                try:
                    sock.send(bytes(1024), timeout=0.05)
                except TimeoutError:
                    break
            assert resident() - before < 40 * 2**20
            assert sock.peers()[0].queued <= 4096


def test_a_receiver_that_is_killed_had_acknowledged_no_more_than_it_took() -> None:
    program = """
        import os, signal, sys
        from netmsg import Søcket
        sock = Søcket().connect(port=int(sys.argv[1]))
        for number in range(300):
            print(sock.recv(timeout=10).decode(), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    with Søcket(delivery_guarantee=DeliveryGuarantee.AT_LEAST_ONCE, linger=0) as sock:
        sock.bind(port=0)
        receipts = [sock.send(b"%d" % n) for n in range(2000)]
        victim = subprocess.run([*PYTHON, "-c", textwrap.dedent(program),
                                 str(sock.bound_port)], capture_output=True, timeout=30)
        taken = {int(line) for line in victim.stdout.split()}
        until(lambda: not sock.peers())
        acknowledged = {n for n, receipt in enumerate(receipts) if receipt is not None and receipt.acked}
        assert len(taken) == 300 and acknowledged <= taken
        with Søcket(linger=0) as second:
            second.connect(port=sock.bound_port)
            rest = {int(second.recv(timeout=TIMEOUT)) for _ in range(2000 - len(acknowledged))}
            assert rest == set(range(2000)) - acknowledged


def test_an_endpoint_that_hangs_up_again_and_again_leaves_nothing() -> None:
    with IOThread() as io, Søcket(io_thread=io, linger=0) as sock:
        sock.bind(port=0)
        before = len(os.listdir("/proc/self/fd"))
        for attempt in range(300):
            peer = dial(sock.bound_port)
            if attempt % 3 == 0:
                peer.send(hello(peer.identity))
            elif attempt % 3 == 1:
                peer.shake_hands(frame(DATA, b"x"))
            if attempt % 2:
                peer.reset()
            else:
                peer.close()
        with dial(sock.bound_port) as last:
            last.shake_hands()
            until(lambda: len(sock.peers()) == 1)
        until(lambda: not sock.peers())
        until(lambda: len(os.listdir("/proc/self/fd")) <= before + 1)
        assert threading.active_count() < 10
