"""Ctrl-C storms on packets: an interrupt every half millisecond loses nothing, doubles nothing and wedges nothing.

They come from the kernel's timer, so that they strike anywhere, and not only where threads take turns. They are raised
in the library's own code alone: what strikes in a program's lines is the program's.
"""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import pytest
from support.processes import PYTHON

COUNT = 200_000 if os.environ.get("NETMSG_SOAK") else 20_000

PRELUDE = """
import json, os, random, signal, sys, threading
import netmsg
from netmsg import *

LIBRARY = os.path.dirname(netmsg.__file__)
COUNT, how = int(sys.argv[1]), sys.argv[2]
hits = 0

class Hit(KeyboardInterrupt):
    pass

def strike(number, frame):
    global hits
    inner = frame
    while inner is not None:
        if inner.f_code.co_name == "__del__":
            return  # nobody hears of what is raised in there
        inner = inner.f_back
    while frame is not None:
        if frame.f_code.co_filename.startswith(LIBRARY):
            hits += 1
            raise Hit
        frame = frame.f_back

def storm(every):
    signal.setitimer(signal.ITIMER_REAL, every, every)

signal.signal(signal.SIGALRM, strike)
listener = create_tcp_server(interface="127.0.0.1")
address = ("127.0.0.1", listener.port)
client = PacketClient(address, LineCodec(), max_recv_size=64)  # many receives, and many places to strike
peer = listener.accept(timeout=10)
"""

RECEIVER = PRELUDE + """
def feed():
    chance = random.Random(1)
    lines = [b"\\xff" if number % 10 == 0 else b"%d" % number for number in range(COUNT)]
    data = b"".join(line + b"\\n" for line in lines)
    while data:
        size = chance.randrange(1, 60)
        peer.send_all(data[:size])
        data = data[size:]
    peer.send_eof()

def packets():
    if how == "iterate":
        return iter(client)
    return client.iter_received_packets(timeout=None if how == "until the end" else 0.001)

got, over = [], False
source = packets()
feeder = threading.Thread(target=feed, daemon=True)
feeder.start()
storm(0.0005)
while not over:
    try:
        if how == "recv":
            got += [client.recv_packet()]
        elif how == "recv in time":
            got += [client.recv_packet(timeout=0.001)]
        else:
            got += [next(source)]
    except PacketDecodeError:
        got += ["bad"]
    except StopIteration:
        try:
            source = packets()
            got += [client.recv_packet(timeout=0)]  # is it over, or only the time?
        except PacketDecodeError:
            got += ["bad"]
        except EndOfStream:
            over = True
        except (TimeoutError, Hit):
            pass
    except EndOfStream:
        over = True
    except (TimeoutError, Hit):
        pass
storm(0)
feeder.join(10)
client.abort(), peer.abort(), listener.close()
wanted = ["bad" if number % 10 == 0 else str(number) for number in range(COUNT)]
wrong = next((place for place, pair in enumerate(zip(got, wanted)) if pair[0] != pair[1]), None)
print(json.dumps({"hits": hits, "received": len(got), "wrong": wrong}))
"""

SENDER = PRELUDE + """
server = PacketClient(peer, LineCodec())
got = []

def drain():
    for packet in server:
        got.append(packet)

drainer = threading.Thread(target=drain, daemon=True)
drainer.start()
accepted = []
storm(0.0005)
for number in range(COUNT):
    try:
        client.send_packet(f"{number} " + "x" * 50, timeout=None if how == "send" else 5)
        accepted += [number]
    except Hit:
        pass
storm(0)
client.send_eof(timeout=10)
drainer.join(20)
client.abort(), peer.abort(), listener.close()
numbers = [int(packet.split()[0]) for packet in got]
whole = all(packet == f"{number} " + "x" * 50 for packet, number in zip(got, numbers))
print(json.dumps({"hits": hits, "lost": sorted(set(accepted) - set(numbers)), "whole": whole,
                  "in order": numbers == sorted(set(numbers))}))
"""

TURNS = PRELUDE + """
# Two receive, one of them in the storm: neither is forgotten while the other lets go.
def feed():
    for number in range(COUNT):
        peer.send_all(b"%d\\n" % number)
    peer.send_eof()

def receive():
    for packet in client:
        others.append(packet)

got, others, over = [], [], False
receiver = threading.Thread(target=receive, daemon=True)
feeder = threading.Thread(target=feed, daemon=True)
receiver.start(), feeder.start()
storm(0.0005)
while not over:
    try:
        got += [client.recv_packet(timeout=5 if how == "in time" else None)]
    except Hit:
        pass
    except EndOfStream:
        over = True
storm(0)
receiver.join(20)
alive = receiver.is_alive()
client.abort(), peer.abort(), listener.close()
print(json.dumps({"hits": hits, "alive": alive, "all": sorted(map(int, got + others)) == list(range(COUNT))}))
"""


def run(program: str, how: str) -> Any:
    result = subprocess.run([*PYTHON, "-c", program, str(COUNT), how],
                            capture_output=True, text=True, timeout=100)
    assert (result.returncode, result.stderr) == (0, ""), result.stderr
    told = json.loads(result.stdout)
    assert told.pop("hits") > 10, "it has not been put to the test"
    return told


@pytest.mark.timeout(120)
@pytest.mark.parametrize("how", ["recv", "recv in time", "iterate", "until the end", "in time"])
def test_a_storm_on_the_receiver_loses_no_packet_and_no_error(how: str) -> None:
    assert run(RECEIVER, how) == {"received": COUNT, "wrong": None}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("how", ["send", "send in time"])
def test_a_storm_on_the_sender_doubles_and_splices_no_packet(how: str) -> None:
    assert run(SENDER, how) == {"lost": [], "whole": True, "in order": True}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("how", ["for ever", "in time"])
def test_a_storm_on_one_of_two_receivers_forgets_neither(how: str) -> None:
    assert run(TURNS, how) == {"alive": False, "all": True}
