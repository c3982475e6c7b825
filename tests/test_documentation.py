"""The code in README.md and docs/: every block is looked at, and every program is run as its readers would run it.

A block of Python is one of three things. If it begins with ``# name.py`` it is one of several programs that belong
together, and there has to be a scene here in which it plays. Otherwise, if it imports netmsg, it is a program of its
own, which has to end by itself, with status 0 and nothing on standard error; and what it prints has to be what the
``text`` block right behind it says, if there is one. What netmsg logs is an exception: it may stand on standard error
if a second ``text`` block, behind a line that ends with "standard error:", says so. Anything else is a fragment, which
has to be correct Python.
"""

from __future__ import annotations

import ast
import importlib
import os
import re
import signal
import socket
import sqlite3
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest
import trustme
from support.aiomsg_process import reserved_port
from support.pairs import until
from support.processes import PYTHON, ROOT, Program, wait_until

PORT = "25000"
PORTS_OF_A_PROXY = "25001", "25002"
BLOCK = (r"^```python\n(.*?)^```\n(?:\n*```text\n(.*?)^```\n)?"
         r"(?:\n*[^\n`]*standard error:\n+```text\n(.*?)^```\n)?")
A_TIME = r"^\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4}$"


class Block(NamedTuple):
    """A fenced block of Python."""

    path: Path
    line: int
    code: str
    output: str | None
    """What the ``text`` block behind it says."""
    errors: str
    """What the one behind that says, of standard error."""

    @property
    def name(self) -> str | None:
        """The file name on its first line."""
        match = re.match(r"# (\w+\.py)$", self.code, re.MULTILINE)
        return match[1] if match else None

    @property
    def is_program(self) -> bool:
        return re.search(r"^(from|import) (netmsg|aiomsg)\b", self.code, re.MULTILINE) is not None

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}" + (f" ({self.name})" if self.name else "")


def blocks_of(path: Path) -> Iterator[Block]:
    text = path.read_text(encoding="utf-8")
    for match in re.finditer(BLOCK, text, re.MULTILINE | re.DOTALL):
        yield Block(path, text.count("\n", 0, match.start()) + 2, match[1], match[2], match[3] or "")


def anonymous(log: str) -> str:
    """A log in which any Søcket is like any other."""
    return re.sub(r"^Søcket [0-9a-f]{8}: ", "Søcket: ", log, flags=re.MULTILINE)


PAGES = [ROOT / "README.md", *sorted(path for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts)]
BLOCKS = [block for page in PAGES for block in blocks_of(page)]
NAMED = [block for block in BLOCKS if block.name]
ALONE = [block for block in BLOCKS if block.is_program and not block.name]


class Stage:
    """A directory in which the named programs of one page lie, on ports of their own."""

    def __init__(self, page: str, directory: Path, ports: Sequence[int]) -> None:
        self.directory = directory
        self.port = ports[0]
        self._programs: list[Program] = []
        for block in NAMED:
            if block.path == ROOT / page:
                assert block.name is not None
                code = block.code
                for said, port in zip((PORT, *PORTS_OF_A_PROXY), ports):
                    code = code.replace(said, str(port))
                (directory / block.name).write_text(code, encoding="utf-8")

    def start(self, name: str) -> Program:
        # The programs look for their files where they are started, which is where they lie.
        before = os.getcwd()
        os.chdir(self.directory)
        try:
            self._programs.append(Program(self.directory / name))
        finally:
            os.chdir(before)
        return self._programs[-1]

    def close(self) -> None:
        for program in self._programs:
            program.close()

    def interrupt(self, *programs: Program) -> None:
        """Press Ctrl-C in each: nothing but the interrupt itself may be complained about."""
        for program in programs:
            program.interrupt()
            assert program.finish() in (1, 130, -signal.SIGINT), program
            assert program.errors().rstrip().endswith("KeyboardInterrupt"), program
            assert program.errors().count("Traceback") == 1, program


@pytest.fixture
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    """The programs of the page that the test's ``page`` mark names."""
    with reserved_port() as port, reserved_port() as front, reserved_port() as back:
        made = Stage(request.param, tmp_path, (port, front, back))
        yield made
        made.close()


def on_page(page: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("stage", [page], indirect=True)


# Every block

@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_blocks_are_correct_python_and_name_what_there_is(block: Block) -> None:
    tree = ast.parse(block.code)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "netmsg":
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name), f"{node.module} has no {alias.name}"


@pytest.mark.parametrize("block", ALONE, ids=str)
def test_programs_do_what_the_page_says(block: Block, tmp_path: Path) -> None:
    path = tmp_path / "program.py"
    path.write_text(block.code, encoding="utf-8")
    with Program(path) as program:
        assert program.finish() == 0, program
        assert anonymous(program.errors()) == anonymous(block.errors), program
        if block.output is not None:
            assert program.lines == block.output.splitlines()


def test_every_named_program_plays_in_a_scene() -> None:
    scenes = Path(__file__).read_text(encoding="utf-8")
    without = {str(block) for block in NAMED if f'"{block.name}"' not in scenes}
    assert not without


# The scenes

@pytest.mark.parametrize("stage", ["README.md", "docs/tutorial.md"], indirect=True)
def test_the_time_server_and_its_client(stage: Stage) -> None:
    server, client = stage.start("time_server.py"), stage.start("time_client.py")
    client.wait_for(A_TIME)
    client.wait_for(A_TIME)
    stage.interrupt(client, server)


@pytest.mark.parametrize("stage", ["README.md", "docs/tutorial.md"], indirect=True)
def test_either_side_may_be_killed_and_started_again(stage: Stage) -> None:
    server, client = stage.start("time_server.py"), stage.start("time_client.py")
    client.wait_for(A_TIME)
    server.kill()
    server.finish()
    stage.start("time_server.py")
    client.wait_for(A_TIME)
    client.kill()
    client.finish()
    client = stage.start("time_client.py")
    client.wait_for(A_TIME)


@on_page("docs/howto/starttls.md")
def test_the_starttls_server_and_its_client(stage: Stage, authority: trustme.CA) -> None:
    issued = authority.issue_cert("localhost")
    issued.private_key_pem.write_to_path(str(stage.directory / "key.pem"))
    for pem in (*issued.cert_chain_pems, authority.cert_pem):
        pem.write_to_path(str(stage.directory / "cert.pem"), append=True)
    server = stage.start("starttls_server.py")
    until(lambda: _listens(stage.port))  # it prints nothing by which to know
    client = stage.start("starttls_client.py")
    assert client.finish() == 0
    page = (ROOT / "docs/howto/starttls.md").read_text(encoding="utf-8")
    assert client.lines and "\n".join(f"    {line}" for line in client.lines) in page
    stage.interrupt(server)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@on_page("README.md")
@pytest.mark.parametrize("server, client", [("aiomsg_server.py", "time_client.py"),
                                            ("time_server.py", "aiomsg_client.py")])
def test_the_other_side_may_be_an_aiomsg_program(stage: Stage, server: str, client: str) -> None:
    peers = ROOT / os.environ.get("NETMSG_PEERS", ".venv/peers")
    python = peers / "aiomsg-2026.7.1" / "bin" / "python"
    if not python.exists():
        pytest.skip(f"the real aiomsg is not installed ({python} is missing)")

    def run_aiomsg(name: str, stdout: int | None = None) -> subprocess.Popen[bytes]:
        return subprocess.Popen([python, stage.directory / name], stdout=stdout, stderr=subprocess.DEVNULL)

    if server == "aiomsg_server.py":
        with run_aiomsg(server) as aiomsg:
            try:
                stage.start(client).wait_for(A_TIME)
            finally:
                aiomsg.kill()
    else:
        stage.start(server)
        with run_aiomsg(client, stdout=subprocess.PIPE) as aiomsg:
            try:
                assert aiomsg.stdout is not None
                assert re.match(A_TIME, aiomsg.stdout.readline().decode())
            finally:
                aiomsg.kill()


@on_page("docs/howto/work_queue.md")
def test_a_worker_that_is_killed_loses_no_job(stage: Stage) -> None:
    queue = stage.start("jobs.py")
    first = stage.start("worker.py")
    first.wait_for(r"^begins job \d+$")
    first.wait_for(r"^begins job \d+$")
    first.kill()
    first.finish()
    stage.start("worker.py")
    stage.start("worker.py")
    assert queue.finish() == 0, queue
    assert queue.lines[-1] == "all 10 jobs are done"
    assert not queue.complaints()


@on_page("docs/howto/durable.md")
@pytest.mark.parametrize("taker", ["station.py", "ledger.py"])
def test_what_a_sensor_that_is_killed_has_stored_arrives(stage: Stage, taker: str) -> None:
    killed = stage.start("sensor.py")
    for _ in range(5):
        killed.wait_for(r"^stored ")
    killed.kill()
    killed.finish()
    there = subprocess.run([*PYTHON, "-m", "netmsg", "outbox", stage.directory / "sensor.outbox"],
                           capture_output=True, text=True, timeout=30)
    assert len(there.stdout.splitlines()) in (len(killed.lines) + 2, len(killed.lines) + 3), there
    station = stage.start(taker)
    sensor = stage.start("sensor.py")
    assert sensor.finish() == 0, sensor
    stored = [line.split()[1] for line in (*killed.lines, *sensor.lines)]
    station.interrupt()
    station.finish()
    if taker == "station.py":
        got = [line.split()[1] for line in station.lines if line.startswith("got")]
    else:
        with closing(sqlite3.connect(stage.directory / "ledger.db")) as database:
            got = [repr(at) for at, in database.execute("SELECT at FROM readings ORDER BY at")]
    assert [at for at in got if at in stored] == stored and len(got) - len(stored) in (0, 1)
    assert "Traceback" not in sensor.errors()


@on_page("docs/howto/proxies.md")
def test_what_was_in_a_proxy_that_is_killed_is_not_lost(stage: Stage) -> None:
    creator = stage.start("creator.py")
    doomed = stage.start("proxy.py")
    doomed.read_line()
    doomed.kill()
    doomed.finish()
    middle = stage.start("proxy.py")
    workers = [stage.start("worker.py") for _ in range(2)]
    assert creator.finish() == 0, creator
    assert creator.lines == ["a worker has had each of the 10 jobs"]
    wait_until(lambda: {line for worker in workers for line in worker.lines} == {
        f"does job {number}" for number in range(1, 11)}, *workers)
    middle.interrupt()
    assert middle.finish() == 0 and middle.lines[-1] == "Goodbye.", middle


@on_page("docs/howto/requests.md")
def test_requests_are_answered(stage: Stage) -> None:
    server, client = stage.start("multiplier.py"), stage.start("calculation.py")
    assert client.finish() == 0, client
    assert client.lines == ["328350", "not answered: JSONDecodeError"] and not client.complaints()
    assert server.errors().rstrip().endswith("JSONDecodeError: Expecting value: line 1 column 1 (char 0)"), server
    server.interrupt()
    assert server.finish() == 0, server
    assert server.lines == ["Goodbye."]


@on_page("docs/howto/tls.md")
def test_mutual_tls_lets_in_those_who_may(stage: Stage) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(stage.directory / "authority.pem")
    for name, identity in (("server", "localhost"), ("client", "client-1"), ("stranger", "stranger")):
        issued = authority.issue_cert(identity, common_name=identity)
        issued.private_key_pem.write_to_path(stage.directory / f"{name}.key")
        for pem in issued.cert_chain_pems:
            pem.write_to_path(stage.directory / f"{name}.pem", append=True)
    server, client = stage.start("tls_server.py"), stage.start("tls_client.py")
    client.wait_for(A_TIME)
    client.kill()
    client.finish()
    os.replace(stage.directory / "stranger.pem", stage.directory / "client.pem")
    os.replace(stage.directory / "stranger.key", stage.directory / "client.key")
    stranger = stage.start("tls_client.py")
    server.wait_for("^refused: stranger$")
    assert stranger.lines == []


@on_page("docs/tutorial.md")
def test_ctrl_c_ends_a_program_that_expects_it_without_a_traceback(stage: Stage) -> None:
    server, client = stage.start("time_server.py"), stage.start("quiet_client.py")
    client.wait_for(A_TIME)
    client.interrupt()
    assert client.finish() == 130
    assert client.lines[-1] == "Goodbye." and not client.complaints()
    stage.interrupt(server)


@on_page("docs/howto/logging.md")
def test_the_log_says_what_is_wrong(stage: Stage) -> None:
    client = stage.start("lonely_client.py")
    assert client.finish() == 1
    page = (ROOT / "docs/howto/logging.md").read_text(encoding="utf-8").replace(PORT, str(stage.port))
    said = anonymous(client.errors())
    assert said and all(line in anonymous(page) for line in said.splitlines()), client
    assert client.lines and all(line in page for line in client.lines), client


@on_page("docs/tutorial.md")
def test_two_clients_share_the_work_of_one_server(stage: Stage) -> None:
    stage.start("counting_server.py")
    clients = [stage.start("counting_client.py") for _ in range(2)]
    wait_until(lambda: all(len(client.lines) >= 3 for client in clients), *clients)
    numbers = [int(line) for client in clients for line in client.lines]
    assert len(set(numbers)) == len(numbers)
