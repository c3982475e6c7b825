"""Waiting for what a server does in its own time, and for want of descriptors."""

from __future__ import annotations

import logging
import os
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

import pytest

from netmsg.speaking import wait_until_said

from .pairs import TIMEOUT


def eventually(condition: Callable[[], object], timeout: float = TIMEOUT) -> None:
    """Wait until ``condition()`` is true: for states that no event tells of."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it has not come true in time"
        time.sleep(0.002)


def said(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """What has been logged, once all that was to be said has been."""
    wait_until_said(TIMEOUT)
    return caplog.records


@contextmanager
def descriptors_left(number: int) -> Iterator[None]:
    """This process may open so many more descriptors, and no more."""
    used = set(map(int, os.listdir("/proc/self/fd")))
    free = (descriptor for descriptor in count() if descriptor not in used)
    limit = [next(free) for _ in range(number + 1)][-1]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
