"""Two hosts on a network of their own, and a wire between them that does to what it carries what a test wants.

::

    left (10.213.7.1) ──── wire ──── right (10.213.7.2)

To the kernel they are real hosts: with devices, addresses, TCP and its patience of their own, for they are network
namespaces. To make them takes iproute2 and the right to; where it is not there a test is skipped, and says what is
missing.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from .processes import PYTHON, Program

__all__ = ["Host", "Network", "network"]

WIRE = Path(__file__).with_name("wire.py")

_numbers = itertools.count(1)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


class Host:
    """One of the two; or what is between them."""

    def __init__(self, name: str, address: str = "") -> None:
        self.name = name
        self.address = address

    def run(self, *arguments: str | os.PathLike[str]) -> Program:
        """A Python program on this host."""
        return Program(*arguments, interpreter=("ip", "netns", "exec", self.name, *PYTHON))

    def move_to(self, address: str) -> None:
        """It has another address from now on; nobody is told of it."""
        _ip("-n", self.name, "address", "delete", f"{self.address}/24", "dev", "eth0")
        _ip("-n", self.name, "address", "add", f"{address}/24", "dev", "eth0")
        self.address = address


class Network:
    """The two, and the wire."""

    def __init__(self, left: Host, right: Host, wire: Program) -> None:
        self.left = left
        self.right = right
        self._wire = wire

    def have(self, what: str) -> None:
        """That happen to what is carried from now on: see `support.wire`."""
        self._wire.write_line(what)
        self._wire.wait_for("does")


@contextmanager
def network() -> Iterator[Network]:
    """Skips the test where there can be none."""
    if shutil.which("ip") is None:
        pytest.skip("iproute2 is not installed")
    prefix = f"netmsg-{os.getpid()}-{next(_numbers)}"
    middle, *ends = Host(prefix), Host(f"{prefix}-left", "10.213.7.1"), Host(f"{prefix}-right", "10.213.7.2")
    with ExitStack() as stack:
        for host in middle, *ends:
            try:
                _ip("netns", "add", host.name)
            except subprocess.CalledProcessError as error:
                pytest.skip(f"no network namespace can be made: {error.stderr.strip()}")
            stack.callback(_ip, "netns", "delete", host.name)
        for side, host in zip(("left", "right"), ends, strict=True):
            _ip("-n", middle.name, "link", "add", side, "type", "veth", "peer", "name", "eth0", "netns", host.name)
            _ip("-n", host.name, "address", "add", f"{host.address}/24", "dev", "eth0")
            for where, device in (middle, side), (host, "eth0"):
                _ip("-n", where.name, "link", "set", device, "up")
            with host.run(WIRE, "eth0") as finishing:
                assert finishing.finish() == 0, finishing
        wire = stack.enter_context(middle.run(WIRE, "left", "right"))
        wire.wait_for("carries")
        yield Network(ends[0], ends[1], wire)
