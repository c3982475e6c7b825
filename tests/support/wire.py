"""A wire between two network devices: ``python wire.py LEFT RIGHT``. What its standard input says happens to the frames
from then on, to each by the dice: ``lost=0.2 doubled=0.1 delayed=0.05``, ``to=RIGHT lost=1``, or nothing.

``delayed`` is how many seconds at most: they overtake each other. ``to`` is the only direction that it is about.
"""

from __future__ import annotations

import array
import fcntl
import heapq
import random
import select
import socket
import struct
import sys
import time
from itertools import count

ALL_PROTOCOLS = socket.htons(3)
SIOCETHTOOL = 0x8946
SET_CHECKSUMMING, SET_SEGMENTATION, SET_GENERIC_SEGMENTATION = 0x17, 0x1F, 0x24


def let_the_kernel_finish_packets(device: str) -> None:
    """Devices of this kind leave checksums, and the cutting of what is too long, to whoever is behind them: that is
    nobody here."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for what in SET_CHECKSUMMING, SET_SEGMENTATION, SET_GENERIC_SEGMENTATION:
            off = array.array("I", [what, 0])
            fcntl.ioctl(sock, SIOCETHTOOL, struct.pack("16sP", device.encode(), off.buffer_info()[0]))


def carry(left: str, right: str) -> None:
    ends = {}
    for device in left, right:
        ends[device] = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, ALL_PROTOCOLS)
        ends[device].bind((device, 0))
    others = {left: right, right: left}
    dice = random.Random(17)
    orders: dict[str, str] = {}
    on_the_way: list[tuple[float, int, str, bytes]] = []
    numbers = count()
    print("carries", flush=True)
    while True:
        patience = max(0.0, on_the_way[0][0] - time.monotonic()) if on_the_way else None
        ready = select.select([sys.stdin, *ends.values()], [], [], patience)[0]
        if sys.stdin in ready:
            line = sys.stdin.readline()
            if not line:
                return
            orders = dict(word.split("=") for word in line.split())
            print("does", flush=True)
        for device, sock in ends.items():
            if sock not in ready:
                continue
            frame, (*_, kind, _, _) = sock.recvfrom(65536)
            to = others[device]
            if kind == socket.PACKET_OUTGOING:
                continue
            hit = orders if orders.get("to", to) == to else {}
            if dice.random() < float(hit.get("lost", 0)):
                continue
            for _ in range(1 + (dice.random() < float(hit.get("doubled", 0)))):
                due = time.monotonic() + dice.random() * float(hit.get("delayed", 0))
                heapq.heappush(on_the_way, (due, next(numbers), to, frame))
        while on_the_way and on_the_way[0][0] <= time.monotonic():
            _, _, to, frame = heapq.heappop(on_the_way)
            try:
                ends[to].send(frame)
            except OSError:
                pass  # no room there, and so it is lost


if __name__ == "__main__":
    if len(sys.argv) == 2:
        let_the_kernel_finish_packets(sys.argv[1])
    else:
        carry(*sys.argv[1:])
