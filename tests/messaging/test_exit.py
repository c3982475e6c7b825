"""Daemonic threads that are blocked in a Søcket when the interpreter exits stay so: a clean exit prints nothing."""

from __future__ import annotations

import subprocess
import textwrap

import pytest
from support.processes import PYTHON

PROGRAM = """
    import sys, threading
    from netmsg import AckMode, ClosedError, DeliveryGuarantee, Søcket

    a = Søcket(linger=0, ack_mode=AckMode.MANUAL if "deliver" in sys.argv[1] else AckMode.ON_RECV).bind(port=0)
    b = Søcket(linger=0, delivery_guarantee=DeliveryGuarantee.AT_LEAST_ONCE, max_unacked=1, send_hwm=1)
    b.connect(port=a.bound_port)
    b.wait_for_peers(timeout=10)
    a.wait_for_peers(timeout=10)
    receipt = None
    begun = threading.Event()

    def use(call):
        begun.set()
        call()
        print("came back", flush=True)

    def iterate(iterator):
        for item in iterator:
            pass

    def converse():
        while True:
            try:
                b.send(b"x")
            except ClosedError:  # who has just come, and has not waited, is told
                threading.Event().wait()
            a.recv()

    calls = {
        "recv": a.recv, "recv with a timeout": lambda: a.recv(timeout=60), "recv_identity": a.recv_identity,
        "recv_many": lambda: a.recv_many(10), "recv_delivery": a.recv_delivery, "recv_string": a.recv_string,
        "recv_json": a.recv_json, "messages": lambda: iterate(a.messages()), "iteration": lambda: iterate(a),
        "identity_messages": lambda: iterate(a.identity_messages()),
        "json_messages": lambda: iterate(a.json_messages()), "deliveries": lambda: iterate(a.deliveries()),
        "events": lambda: iterate(a.events()), "wait_for_peers": lambda: a.wait_for_peers(9),
        "send": lambda: [b.send(b"x") for _ in range(100)], "send_many": lambda: b.send_many([b"x"] * 100),
        "receipt": lambda: b.send(b"x").wait(),
        "a conversation": converse,
    }
    threads = [threading.Thread(target=use, args=(calls[sys.argv[1]],), daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert begun.wait(10)
    threads[0].join(float(sys.argv[2]))
"""
CALLS = ["recv", "recv with a timeout", "recv_identity", "recv_many", "recv_delivery", "recv_string", "recv_json",
         "messages", "iteration", "identity_messages", "json_messages", "deliveries", "events", "wait_for_peers",
         "send", "send_many", "receipt", "a conversation"]


def run(*arguments: str, program: str = PROGRAM) -> subprocess.CompletedProcess[str]:
    program = f"import logging; logging.getLogger('netmsg').setLevel(logging.ERROR)\n{textwrap.dedent(program)}"
    return subprocess.run([*PYTHON, "-c", program, *arguments],
                          capture_output=True, text=True, timeout=40)


@pytest.mark.parametrize("call", CALLS)
def test_a_daemonic_thread_that_is_blocked_stays_so_at_exit(call: str) -> None:
    result = run(call, "0.05")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_a_handler_that_is_blocked_in_another_socket_is_not_told_of_at_exit() -> None:
    result = run(program="""
        import threading
        from netmsg import Søcket
        other, server, asker = Søcket(linger=0).bind(port=0), Søcket(linger=0).bind(port=0), Søcket(linger=0)
        asker.connect(port=server.bound_port)
        begun = threading.Event()
        def handle(data):
            begun.set()
            return other.recv()
        threading.Thread(target=server.serve_requests, args=(handle,), daemon=True).start()
        threading.Thread(target=asker.request, args=(b"?",), kwargs={"timeout": None}, daemon=True).start()
        assert begun.wait(10)
    """)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_a_daemonic_thread_that_comes_to_the_socket_after_the_exit_has_begun_stays_there() -> None:
    result = run(program="""
        import atexit, threading
        from netmsg import Søcket
        go, done = threading.Event(), threading.Event()
        def late():
            go.wait(30)
            done.set()
            sock.recv()
        def at_exit():  # registered before the sockets' own, and so called after it
            go.set()
            assert done.wait(10)
            thread.join(0.2)
            assert thread.is_alive()
        atexit.register(at_exit)
        import netmsg.messaging.engine
        sock = Søcket(linger=0).bind(port=0)
        thread = threading.Thread(target=late, daemon=True)
        thread.start()
    """)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_a_daemonic_thread_that_sends_when_the_exit_has_begun_prints_nothing() -> None:
    result = run(program="""
        import atexit, threading
        from netmsg import Søcket
        class Other(Exception):
            pass
        go = threading.Event()
        def late(then):
            go.wait(30)
            try:
                sock.send(b"x")
            finally:
                then()
        def fail():
            raise Other("of the program's own")
        def at_exit():  # registered before the sockets' own, and so called after it
            go.set()
            for thread in threads:
                thread.join(10)
                assert not thread.is_alive()
        atexit.register(at_exit)
        import netmsg.messaging.engine
        sock = Søcket(linger=0).bind(port=0)
        threads = [threading.Thread(target=late, args=(then,), daemon=True) for then in (lambda: None, fail)]
        for thread in threads:
            thread.start()
    """)
    assert (result.returncode, result.stdout) == (0, "")
    assert result.stderr.count("Exception in thread") == 1 and "of the program's own" in result.stderr


def test_the_main_thread_does_not_hang_at_exit() -> None:
    result = run(program="""
        import atexit, sys
        def at_exit():
            try:
                sock.recv()
            except ClosedError:
                print("closed")
        atexit.register(at_exit)
        from netmsg import ClosedError, Søcket
        sock = Søcket(linger=0).bind(port=0)
    """)
    assert (result.returncode, result.stdout, result.stderr) == (0, "closed\n", "")


def test_what_the_program_closes_itself_is_closed_in_daemonic_threads_too() -> None:
    result = run(program="""
        import threading
        from netmsg import ClosedError, Søcket
        sock = Søcket(linger=0).bind(port=0)
        def receive():
            try:
                sock.recv()
            except ClosedError:
                print("closed")
        thread = threading.Thread(target=receive, daemon=True)
        thread.start()
        sock.close()
        thread.join(10)
    """)
    assert (result.returncode, result.stdout, result.stderr) == (0, "closed\n", "")


LOGGING = """
    import logging, sys, threading
    from netmsg import Søcket

    a, b = Søcket(linger=0.2).bind(port=0), Søcket(linger=0.2)
    b.connect(port=a.bound_port)
    a.wait_for_peers(timeout=10)
    logged = threading.Event()

    class Sending(logging.Handler):
        def emit(self, record):
            try:
                a.send(record.getMessage().encode(), timeout=0.1)
            except Exception:
                pass
            logged.set()

    whose = logging.getLogger("netmsg" if sys.argv[1] == "netmsg's own thread" else "app")
    whose.addHandler(Sending())
    whose.setLevel(logging.INFO)

    def work():
        while True:
            whose.info("working")

    threading.Thread(target=work, daemon=True).start()
    assert logged.wait(10)
"""


@pytest.mark.parametrize("thread", ["netmsg's own thread", "a thread of the user's"])
def test_a_daemonic_thread_that_logs_by_a_søcket_does_not_hold_up_the_exit(thread: str) -> None:
    """It comes with the lock of the handler, which `logging` wants at the exit."""
    program = f"import sys\n{textwrap.dedent(LOGGING)}"
    result = subprocess.run([*PYTHON, "-c", program, thread], capture_output=True, text=True, timeout=30)
    assert result.returncode == 0
