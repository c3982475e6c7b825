"""What every test is checked for: that it leaves no thread and no descriptor behind."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Iterator

import pytest

GRACE = 5.0


def _descriptors() -> set[str]:
    """The open descriptors, as number and what it is."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{name}: {os.readlink(f'/proc/self/fd/{name}')}")
        except OSError:
            pass  # the one of listdir itself
    return {entry for entry in found if "socket:" in entry or "pipe:" in entry or "eventpoll" in entry}


def _threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("netmsg-")}


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fail a test after which a ``netmsg-`` thread or a descriptor is left that was not there before."""
    gc.collect()
    threads_before, descriptors_before = _threads(), _descriptors()
    yield
    deadline = time.monotonic() + GRACE
    while True:
        gc.collect()
        threads, descriptors = _threads() - threads_before, _descriptors() - descriptors_before
        if not threads and not descriptors:
            return
        if time.monotonic() > deadline:
            pytest.fail(f"left behind: {sorted(thread.name for thread in threads)} {sorted(descriptors)}")
        for thread in threads:
            thread.join(0.1)
        if not threads:
            time.sleep(0.01)
