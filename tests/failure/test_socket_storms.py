"""Storms of interrupts from a kernel timer over accepting, connecting and datagrams: nothing is lost, left open or
wedged.

A timer of the kernel's strikes wherever the main thread is; signals that another thread of the same interpreter sends
arrive where the interpreter lock changes hands.
"""

from __future__ import annotations

import os
import subprocess
import textwrap

import pytest
from support.processes import PYTHON

FACTOR = 20 if os.environ.get("NETMSG_SOAK") else 1

PRELUDE = """
import atexit, gc, os, random, signal, socket, sys, tempfile, threading, time
import netmsg
from netmsg import *

COUNT = int(sys.argv[1])
KIND = sys.argv[2]
LIBRARY = os.path.dirname(netmsg.__file__)
PATH = tempfile.mkdtemp() + "/socket"
armed = False
interrupts = 0
usual = 0.002  # seconds that a call takes, and a bit

class Interrupted(KeyboardInterrupt):
    pass

def interrupt(number, frame):
    # Never in this program's own lines, which could not tell what they had counted; nor where an object is collected,
    # whose exceptions Python only prints.
    global interrupts
    if not armed or frame.f_code.co_filename == "<string>":
        return
    inside = False
    while frame is not None:
        if frame.f_code.co_name in ("__del__", "_remove", "__exit__"):
            return
        inside = inside or LIBRARY in frame.f_code.co_filename
        frame = frame.f_back
    if inside:
        interrupts += 1
        raise Interrupted

signal.signal(signal.SIGALRM, interrupt)
atexit.register(signal.setitimer, signal.ITIMER_REAL, 0)

def open_descriptors():
    gc.collect()
    return len(os.listdir("/proc/self/fd"))

def until(condition):
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert condition(), [os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")[:-1]]

def under_interrupts(call, *arguments, **options):
    # Until it is through.
    global armed
    signal.setitimer(signal.ITIMER_REAL, random.uniform(0.00001, 0.0003), 0.0003)
    while True:
        try:
            armed = True
            result = call(*arguments, **options)
            armed = False
            signal.setitimer(signal.ITIMER_REAL, 0)
            return result
        except Interrupted:
            armed = False

def struck(call, *arguments, **options):
    # Interrupted a few times, at any moment, and then left in peace: it has to begin anew each time, and would never
    # be through.
    global armed, usual
    for _ in range(3):
        try:
            armed = True
            signal.setitimer(signal.ITIMER_REAL, random.uniform(0.00001, usual))
            result = call(*arguments, **options)
            armed = False
            result.close()
        except Interrupted:
            armed = False
    begun = time.perf_counter()
    result = call(*arguments, **options)
    usual = max(0.0001, 1.5 * (time.perf_counter() - begun))
    return result
"""

ACCEPT = PRELUDE + """
listener = create_unix_server(PATH) if KIND == "unix" else create_tcp_server()
before = open_descriptors()

def connect():
    for number in range(COUNT):
        host = "::1" if number % 3 else "127.0.0.1"
        client = connect_unix(PATH) if KIND == "unix" else connect_tcp(host, listener.port, timeout=20)
        with client:
            client.send_all(b"%d" % number)
            assert client.receive_exactly(2, timeout=20) == b"ok"

connecting = threading.Thread(target=connect, daemon=True)
connecting.start()
connections = listener.accept_connections()
got = []
for _ in range(COUNT):
    stream = under_interrupts(next, connections) if KIND == "iterate" else under_interrupts(listener.accept)
    got.append(int(stream.receive(timeout=20)))
    stream.send_all(b"ok")
    stream.close()
connecting.join()
print(got == list(range(COUNT)), open_descriptors() <= before + 1, interrupts > 10)
under_interrupts(listener.close)
listener.close()
print(open_descriptors() < before, os.path.exists(PATH))
"""

CONNECT = PRELUDE + """
listener = create_unix_server(PATH) if KIND == "unix" else create_tcp_server(interface="127.0.0.1")

def serve():
    for stream in listener.accept_connections():
        with stream:
            try:
                stream.send_all(stream.receive(timeout=20))
            except (OSError, EOFError):
                pass  # who was interrupted went away

serving = threading.Thread(target=serve, daemon=True)
serving.start()
before = open_descriptors()
for number in range(COUNT):
    if KIND == "unix":
        stream = struck(connect_unix, PATH, local_path=PATH + "2")
    elif KIND == "name":
        stream = struck(connect_tcp, "localhost", listener.port, timeout=20)
    else:
        stream = struck(connect_tcp, "127.0.0.1", listener.port, timeout=20)
    with stream:
        stream.send_all(b"%d" % number)
        assert stream.receive(timeout=20) == b"%d" % number
until(lambda: open_descriptors() <= before + 1)
print(interrupts > 10, os.path.exists(PATH + "2"))
listener.close()
serving.join()
until(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("netmsg-")])
"""

DATAGRAMS = PRELUDE + """
before = open_descriptors()
if KIND == "unix":
    receiver = create_unix_datagram_socket(path=PATH)
    sender = create_unix_datagram_socket(target_path=PATH)
else:
    receiver = create_udp_socket(interface="127.0.0.1")
    sender = create_udp_socket(target_host="127.0.0.1", target_port=receiver.local_address[1])
turns = threading.Semaphore(10)  # no more on their way than the receiver's buffer takes

def send():
    for number in range(COUNT):
        assert turns.acquire(timeout=20)
        sender.send(b"%d" % number)

sending = threading.Thread(target=send, daemon=True)
sending.start()
packets = receiver.receive_packets()
in_time = receiver.receive_packets(timeout=60)
client = DatagramClient(sender.local_address, LineCodec())
got = []
while len(got) < COUNT:
    how = len(got) % 3
    if how == 0:
        data, _ = under_interrupts(receiver.receive, timeout=20)
    elif how == 1:
        data, _ = under_interrupts(next, packets)
    else:
        data, _ = under_interrupts(next, in_time)
    got.append(int(data))
    turns.release()
sending.join()
print(got == list(range(COUNT)), interrupts > 10)

def answer():
    for data, address in receiver.receive_packets():
        if data != b"x":
            receiver.send_to(data, address)

answering = threading.Thread(target=answer, daemon=True)
answering.start()
for number in range(COUNT // 10):
    question = b"question %d" % number
    assert under_interrupts(sender.request, question, match=question.__eq__) == question
for _ in range(COUNT):
    under_interrupts(sender.send, b"x", timeout=20)
for sock in (sender, receiver, client):
    under_interrupts(sock.close)
    sock.close()
answering.join()
print(open_descriptors() <= before, os.path.exists(PATH))
"""

CLIENT = PRELUDE + """
peer = create_unix_datagram_socket(path=PATH) if KIND == "unix" else create_udp_socket(interface="127.0.0.1")
client = DatagramClient(peer.local_address, LineCodec(), local_address=PATH + "2" if KIND == "unix" else None)
client.send_packet("hello")
address = peer.receive(timeout=20)[1]
turns = threading.Semaphore(10)

def send():
    for number in range(COUNT):
        assert turns.acquire(timeout=20)
        peer.send_to(b"%d\\n" % number, address)

sending = threading.Thread(target=send, daemon=True)
sending.start()
packets = client.iter_received_packets(timeout=60)
got = []
while len(got) < COUNT:
    packet = under_interrupts(client.recv_packet) if len(got) % 2 else under_interrupts(next, packets)
    got.append(int(packet))
    turns.release()
sending.join()
print(got == list(range(COUNT)), interrupts > 10)
client.close(), peer.close()
"""


def run(program: str, count: int, kind: str) -> str:
    """Not warned of are sockets that an interrupt strikes right behind their making: they belong to nobody yet, and are
    closed when they are collected. That they are, the programs see to."""
    result = subprocess.run([*PYTHON, "-W", "ignore::ResourceWarning", "-c", textwrap.dedent(program),
                             str(count * FACTOR), kind], capture_output=True, text=True, timeout=50 * FACTOR)
    assert (result.returncode, result.stderr) == (0, ""), result.stderr
    return result.stdout


@pytest.mark.timeout(60 * FACTOR)
@pytest.mark.parametrize("kind", ["tcp", "unix", "iterate"])
def test_a_storm_on_accepting_loses_no_client(kind: str) -> None:
    assert run(ACCEPT, 500, kind) == "True True True\nTrue False\n"


@pytest.mark.timeout(60 * FACTOR)
@pytest.mark.parametrize("kind", ["tcp", "unix", "name"])
def test_a_storm_on_connecting_leaves_nothing_open(kind: str) -> None:
    assert run(CONNECT, 100, kind) == "True False\n"


@pytest.mark.timeout(60 * FACTOR)
@pytest.mark.parametrize("kind", ["udp", "unix"])
def test_a_storm_on_datagrams_loses_none_and_leaves_nothing_open(kind: str) -> None:
    assert run(DATAGRAMS, 1000, kind) == "True True\nTrue False\n"


@pytest.mark.timeout(60 * FACTOR)
@pytest.mark.parametrize("kind", ["udp", "unix"])
def test_a_storm_on_a_datagram_client_loses_no_packet(kind: str) -> None:
    assert run(CLIENT, 1000, kind) == "True True\n"
