"""What the tests against the real aiomsg need: its interpreter, its process, and certificates for both."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme
from support.aiomsg_process import AiomsgProcess
from support.security import Security, write_certificate

PEERS = "NETMSG_PEERS"


VERSION_1, LEGACY = VERSIONS = "2026.7.1", "2019.12.1"
"""By the dialect that they speak."""
NOT_OF_LEGACY = {
    "test_aiomsg_skips_the_frame_that_tells_our_capabilities": "",  # it is not sent any
    "test_empty_large_and_deceptive_messages_come_from_aiomsg_as_they_are": "at most once",  # it cannot send them so
}
"""Tests, and what stands in the names of those of them, that are about version 1 alone."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """TLS knows nothing of dialects, and is tried with one of them; what a tracer would see, it sees with that one."""
    items[:] = [item for item in items if LEGACY not in item.name or not (
        "tls" in item.name or NOT_OF_LEGACY.get(item.name.partition("[")[0], "\0") in item.name)]
    for item in items:
        if LEGACY in item.name:
            item.add_marker("untraced")


@pytest.fixture(scope="session", params=VERSIONS)
def aiomsg_python(request: pytest.FixtureRequest, pytestconfig: pytest.Config) -> Path:
    """The interpreter that has aiomsg, of either dialect."""
    python: Path = pytestconfig.rootpath / os.environ.get(PEERS, ".venv/peers") / f"aiomsg-{request.param}/bin/python"
    if not python.exists():
        pytest.skip(f"the real aiomsg is not installed ({python} is missing): run `make test` where the package "
                    f"index can be reached, or let {PEERS} name the directory of its environment")
    return python


@pytest.fixture(scope="session")
def shared_process(aiomsg_python: Path) -> Iterator[AiomsgProcess]:
    process = AiomsgProcess(aiomsg_python)
    yield process
    process.close()


@pytest.fixture
def aiomsg(shared_process: AiomsgProcess) -> Iterator[AiomsgProcess]:
    """aiomsg in a process that many tests share, one after the other; its sockets end with the test."""
    yield shared_process
    shared_process.close_sockets()


@pytest.fixture
def start_aiomsg(aiomsg_python: Path) -> Iterator[Callable[..., AiomsgProcess]]:
    """A function that starts aiomsg in a process for this test alone, to be killed or paused at will."""
    started: list[AiomsgProcess] = []

    def start(*, heartbeat: tuple[float, float] | None = None) -> AiomsgProcess:
        started.append(AiomsgProcess(aiomsg_python, heartbeat=heartbeat))
        return started[-1]

    yield start
    for process in started:
        process.kill()


@pytest.fixture(scope="session")
def tls(authority: trustme.CA, tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext],
        tmp_path_factory: pytest.TempPathFactory) -> Security:
    """Mutual TLS."""
    directory = tmp_path_factory.mktemp("certificates")
    return Security(*tls_contexts, write_certificate(directory, authority, "localhost", "127.0.0.1"),
                    write_certificate(directory, authority, "client@example.org"))


@pytest.fixture(params=["plain", "tls"])
def security(request: pytest.FixtureRequest) -> Security:
    """Once without TLS, once with."""
    if request.param == "plain":
        return Security()
    found: Security = request.getfixturevalue("tls")
    return found
