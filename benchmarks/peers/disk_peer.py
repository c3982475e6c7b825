"""The disk alone, which a durable outbox waits for: how often a second it keeps what was appended to a file."""

from __future__ import annotations

import os
from itertools import repeat
from tempfile import TemporaryFile

from .contract import SINK, SOURCE, SYNC, Job, Meter, Report, main

PER_SYNC = 16
"""Messages, for each of which there is one sync: it takes much longer."""


def sync(job: Job) -> Report:
    with TemporaryFile(dir=".", buffering=0) as file:  # not in a file system that is in memory
        count = job.count // PER_SYNC
        piece = bytes(job.size)
        meter = Meter()
        for _ in repeat(None, count):
            file.write(piece)
            os.fdatasync(file.fileno())
        seconds, cpu = meter.stop()
    return Report(cpu, count / seconds)


def stand_by(job: Job) -> Report:
    """There is nothing to do at the other end."""
    job.announce(0)
    return Report(0.0)


if __name__ == "__main__":
    main({(SOURCE, SYNC): sync, (SINK, SYNC): stand_by})
