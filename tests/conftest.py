"""What every test is checked for: that it leaves no thread and no descriptor behind."""

from __future__ import annotations

import gc
import os
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import trustme
from hypothesis import HealthCheck, settings
from support.soaking import Outcome, document

GRACE = 5.0

# Some hundreds of programs are started, which are not to compile the library anew each time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# A busy machine is no failure: what may not take for ever is bounded by the timeout of the test.
settings.register_profile("netmsg", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("netmsg")


def _descriptors() -> set[str]:
    """The open descriptors, as number and what it is."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{name}: {os.readlink(f'/proc/self/fd/{name}')}")
        except OSError:
            pass  # the one of listdir itself
    kinds = ("socket:", "pipe:", "eventpoll", "eventfd")
    return {entry for entry in found if any(kind in entry for kind in kinds)}


def pytest_collection_finish() -> None:
    """Every test collects garbage, twice: not what has been imported, which is most of it and stays."""
    gc.collect()
    gc.freeze()


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
            try:
                thread.join(0.1)
            except RuntimeError:
                pass  # another thread is about to start it
        if not threads:
            time.sleep(0.01)


class Soak:
    """What there is to tell of all that was run."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.outcomes: list[Outcome] = []
        self.results: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.failed:
            self.results[report.outcome] += 1
        if report.when == "teardown":
            self.outcomes += [Outcome._make(cast(Any, told)) for name, told in report.user_properties
                              if name == OUTCOME]

    def write(self, path: str) -> None:
        outcomes = sorted(self.outcomes, key=lambda outcome: outcome.cells)  # they came in any order
        text = document(outcomes, self.results["passed"], self.results["failed"], time.monotonic() - self.began)
        Path(path).write_text(text, encoding="utf-8")


OUTCOME = "outcome"
SOAK = pytest.StashKey[Soak]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[SOAK] = Soak()
    config.pluginmanager.register(config.stash[SOAK])


def pytest_sessionfinish(session: pytest.Session) -> None:
    """``NETMSG_REPORT`` is where to write the page of a soak. Whoever hands out the tests to others writes it."""
    path = os.environ.get("NETMSG_REPORT")
    if path and not hasattr(session.config, "workerinput"):
        session.config.stash[SOAK].write(path)


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Callable[[Outcome], None]:
    """What came of a scenario, for the page of a soak. It goes with the report of the test."""
    return lambda outcome: request.node.user_properties.append((OUTCOME, tuple(outcome)))


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="session")
def tls_contexts(authority: trustme.CA) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """For the binding and the connecting end of mutual TLS as ``localhost``, 127.0.0.1 and ::1."""
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    client = ssl.create_default_context(ssl.Purpose.SERVER_AUTH)
    server.verify_mode = ssl.CERT_REQUIRED
    authority.issue_cert("localhost", "127.0.0.1", "::1").configure_cert(server)
    authority.issue_cert("client@example.org").configure_cert(client)
    authority.configure_trust(server)
    authority.configure_trust(client)
    return server, client
