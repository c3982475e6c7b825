"""Each example, run as its users run it: as processes that talk over the loopback interface.

The tests wait for what the programs print, never for time. Whatever an example writes to standard error fails its test.
"""

from __future__ import annotations

import ast
import ftplib
import imaplib
import io
import re
import shlex
import shutil
import smtplib
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

import pytest
import trustme
from support.processes import PYTHON, ROOT, TIMEOUT, Program, wait_until
from support.wire_peer import DATA_REQ, dial

EXAMPLES = ROOT / "examples"
NAMES = sorted(path.name for path in EXAMPLES.glob("*.py"))
BRISKLY = ("--interval", "0.02")
INTERRUPTED = 130

Start = Callable[..., Program]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts examples by name, ends those that are left, and sees to it that none of them complained."""
    programs: list[Program] = []

    def start_example(name: str, *arguments: str | Path, **environment: str) -> Program:
        programs.append(Program(EXAMPLES / name, *map(str, arguments), env={"PROXY_HOSTNAMES": "", **environment}))
        return programs[-1]

    yield start_example
    for program in programs:
        program.kill()
    complaints = [str(program) for program in programs if program.complaints()]
    for program in programs:
        program.close()
    assert not complaints, "\n".join(complaints)


def port_of(program: Program, pattern: str = "bound to port") -> str:
    """The port that a program which was told ``--port 0`` says it has."""
    return program.wait_for(rf"{pattern} (\d+)$")[1]


def press_ctrl_c(*programs: Program) -> None:
    """Interrupt them, one after the other: senders first, so that there is somebody to take what they have left.

    Each has to have something to print: before that Python may still be starting, and an interrupt is not quiet then.
    """
    for program in programs:
        wait_until(lambda: bool(program.lines), program)
        program.interrupt()
        assert program.finish() == INTERRUPTED, program


def jobs_done(*workers: Program) -> list[str]:
    return [line.removeprefix("doing ") for worker in workers for line in worker.lines if line.startswith("doing ")]


def jobs_created(*creators: Program) -> set[str]:
    return {line.removeprefix("created ")
            for creator in creators for line in creator.lines if line.startswith("created ")}


# The demo

def test_the_time_client_prints_the_times_of_the_server(start: Start) -> None:
    server = start("time_server.py", "--port", "0", *BRISKLY)
    client = start("time_client.py", "--port", port_of(server))
    for _ in range(3):
        assert re.fullmatch(r"\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4}", client.read_line())
    press_ctrl_c(server, client)


def test_count_ends_both_ends_of_the_demo_and_loses_nothing(start: Start) -> None:
    server = start("time_server.py", "--port", "0", "--count", "3", "--interval", "0")
    client = start("time_client.py", "--port", port_of(server), "--count", "3")
    assert client.finish() == 0
    assert server.finish() == 0
    assert len(client.lines) == 3


def test_the_time_client_comes_back_to_a_server_that_was_killed(start: Start) -> None:
    server = start("time_server.py", "--port", "0", *BRISKLY)
    port = port_of(server)
    client = start("time_client.py", "--port", port)
    client.read_line()
    server.kill()
    server.finish()
    printed = len(client.lines)
    server = start("time_server.py", "--port", port, *BRISKLY)
    port_of(server)
    wait_until(lambda: len(client.lines) >= printed + 3, client)
    press_ctrl_c(server, client)


# Message distribution patterns

def test_the_relay_publishes_to_everybody(start: Start) -> None:
    relay = start("relay.py", "--port", "0")
    port = port_of(relay)
    chats = []
    for name in ("alice", "bob"):
        chat = start("chat.py", "--port", port)
        chats.append(chat)
        # Whoever hears himself is known to the relay, and hears the next.
        chat.write_line(f"{name} is here")
        for each in chats:
            assert each.read_line() == f"{name} is here"
    chats[0].write_line("smørrebrød?")
    for each in chats:
        assert each.read_line() == "smørrebrød?"
    chats[0].end_input()
    assert chats[0].finish() == 0
    press_ctrl_c(chats[1], relay)


def test_the_round_robin_relay_sends_to_one_at_a_time(start: Start) -> None:
    relay = start("relay.py", "--port", "0", "--round-robin")
    port = port_of(relay)
    alice = start("chat.py", "--port", port)
    alice.write_line("first")
    assert alice.read_line() == "first"
    bob = start("chat.py", "--port", port)
    bob.write_line("second")
    wait_until(lambda: "second" in alice.lines + bob.lines, alice, bob)
    for line in ("1", "2", "3", "4", "end", "end"):  # each is to hear one end, and nothing comes behind that
        alice.write_line(line)
    wait_until(lambda: "end" in alice.lines and "end" in bob.lines, alice, bob)
    heard = [[line for line in chat.lines if line.isdigit()] for chat in (alice, bob)]
    assert sorted(heard) == [["1", "3"], ["2", "4"]]
    press_ctrl_c(alice, bob, relay)


def test_the_identity_relay_answers_the_sender_and_publishes_to_the_others(start: Start) -> None:
    relay = start("identity_relay.py", "--port", "0", "--publish-port", "0")
    port, publish_port = port_of(relay), port_of(relay, "publishing on port")
    receivers = [start("receiver.py", "--connect", f"127.0.0.1:{publish_port}") for _ in range(2)]
    bob = start("identity_client.py", "--name", "bob", "--port", port, *BRISKLY)
    for program in (bob, *receivers):  # Bob is answered and both receivers hear him: now Alice
        program.wait_for("bob")
    alice = start("identity_client.py", "--name", "alice", "--port", port, "--count", "10", "--interval", "0")
    assert alice.finish() == 0
    assert alice.lines == [f"alice-{number}: ok" for number in range(1, 11)]
    for receiver in receivers:
        for _ in range(10):
            receiver.wait_for("^Received: b'greetings from alice'$")
    bob.read_line()
    press_ctrl_c(bob)
    assert bob.lines == [f"bob-{number}: ok" for number in range(1, len(bob.lines) + 1)]
    assert relay.wait_for("^relayed bob-1 of (.*)$")[1] != relay.wait_for("^relayed alice-1 of (.*)$")[1]
    press_ctrl_c(relay, *receivers)


def test_the_identity_client_says_that_there_is_no_answer(start: Start) -> None:
    silent = start("receiver.py", "--port", "0")
    client = start("identity_client.py", "--port", port_of(silent), "--timeout", "0.1")
    assert client.read_line() == "alice-1: no answer yet"
    press_ctrl_c(client, silent)


# Reliability choices

def test_messages_are_kept_until_the_first_receiver_comes(start: Start) -> None:
    sender = start("buffering.py", "--port", "0", *BRISKLY)
    port = port_of(sender)
    for number in (1, 2, 3):
        assert sender.read_line() == f"sent 123 #{number}, peers: 0"
    receiver = start("receiver.py", "--connect", port)
    for number in range(1, 6):
        assert receiver.read_line() == f"Received: b'123 #{number}'"
    sender.wait_for("peers: 1$")
    press_ctrl_c(sender, receiver)


def test_at_least_once_sends_again_what_was_not_acknowledged(start: Start) -> None:
    sender = start("at_least_once.py", "--port", "0", "--count", "5", *BRISKLY)
    port = port_of(sender)
    with dial(int(port)) as peer:  # it reads messages, acknowledges none, and goes away
        peer.shake_hands()
        assert peer.read_kind(DATA_REQ)[1].endswith(b"123 #1")
        assert sender.wait_for("^sent 123 #5, not acknowledged yet: (.*)")[1] == "5"
    receiver = start("receiver.py", "--connect", port)
    assert sender.finish() == 0
    assert sender.lines[-1] == "all acknowledged"
    # Printing comes after receiving, which acknowledges.
    wait_until(lambda: len(receiver.lines) >= 5, receiver)
    assert set(receiver.lines) == {f"Received: b'123 #{number}'" for number in range(1, 6)}
    press_ctrl_c(receiver)


# The cookbook

@pytest.mark.parametrize("receivers", [1, 3])
def test_the_publisher_that_binds(start: Start, receivers: int) -> None:
    publisher = start("publisher.py", "--port", "0", *BRISKLY)
    port = port_of(publisher)
    subscribers = [start("receiver.py", "--connect", f"127.0.0.1:{port}") for _ in range(receivers)]
    for subscriber in subscribers:
        subscriber.read_line()
    for subscriber in subscribers:  # from its first message on, each gets every one
        first, *others = (int(subscriber.wait_for(r"^Received: b'News! #(\d+)'$")[1]) for _ in range(6))
        assert others == list(range(first + 1, first + 6))
    press_ctrl_c(publisher, *subscribers)


@pytest.mark.parametrize("publishers", [1, 3])
def test_the_publisher_that_connects(start: Start, publishers: int) -> None:
    receiver = start("receiver.py", "--port", "0", "--count", str(5 * publishers))
    port = port_of(receiver)
    ended = [start("publisher.py", "--connect", f"127.0.0.1:{port}", "--count", "5", "--interval", "0")
             for _ in range(publishers)]
    assert receiver.finish() == 0
    assert sorted(receiver.lines[1:]) == sorted(f"Received: b'News! #{number}'"
                                                for number in range(1, 6) for _ in range(publishers))
    for publisher in ended:
        assert publisher.finish() == 0


def test_jobs_are_distributed_to_workers_that_come_and_go(start: Start) -> None:
    creator = start("jobcreator.py", "--port", "0", *BRISKLY)
    port = port_of(creator)
    worker1, worker2 = (start("worker.py", "--connect", f"127.0.0.1:{port}") for _ in range(2))
    wait_until(lambda: len(jobs_done(worker1)) >= 3 and len(jobs_done(worker2)) >= 3, creator, worker1, worker2)
    worker3 = start("worker.py", "--connect", f"127.0.0.1:{port}")
    wait_until(lambda: len(jobs_done(worker3)) >= 3, creator, worker1, worker2, worker3)
    press_ctrl_c(creator)
    workers = worker1, worker2, worker3
    wait_until(lambda: jobs_created(creator) <= set(jobs_done(*workers)), *workers)
    assert len(set(jobs_done(*workers))) == len(jobs_done(*workers)), "a job was done twice"
    press_ctrl_c(*workers)


def test_a_worker_connects_to_two_job_creators(start: Start) -> None:
    creators = [start("jobcreator.py", "--port", "0", "--name", name, *BRISKLY) for name in ("a", "b")]
    connect = list(chain.from_iterable(("--connect", f"127.0.0.1:{port_of(creator)}") for creator in creators))
    workers = [start("worker.py", *connect) for _ in range(2)]
    for worker in workers:
        for job in ("^doing a ", "^doing b "):
            wait_until(lambda: any(re.search(job, line) for line in worker.lines), *creators, *workers)
    press_ctrl_c(*creators)
    wait_until(lambda: jobs_created(*creators) <= set(jobs_done(*workers)), *workers)
    press_ctrl_c(*workers)


def test_jobs_go_from_dynamic_creators_through_the_proxy_to_dynamic_workers(start: Start) -> None:
    proxy = start("proxy.py", "--port", "0", "--worker-port", "0")
    front, back = port_of(proxy, "creators: bound to port"), port_of(proxy, "workers: bound to port")
    creators = [start("dynamiccreator.py", "--name", name, "--connect", f"127.0.0.1:{front}", "--count", "20",
                      "--interval", "0") for name in ("a", "b")]
    for creator in creators:  # no worker yet: the proxy holds the jobs
        assert creator.finish() == 0
    workers = [start("worker.py", "--connect", f"127.0.0.1:{back}") for _ in range(2)]
    wait_until(lambda: len(jobs_done(*workers)) >= 40, *workers)
    assert sorted(jobs_done(*workers)) == sorted(jobs_created(*creators))
    press_ctrl_c(proxy, *workers)


def test_jobs_take_the_proxies_that_are_up(start: Start) -> None:
    proxies = [start("proxy.py", "--port", "0", "--worker-port", "0") for _ in range(3)]
    fronts = addresses([port_of(proxy, "creators: bound to port") for proxy in proxies])
    backs = addresses([port_of(proxy, "workers: bound to port") for proxy in proxies])
    workers = [start("worker.py", PROXY_HOSTNAMES=backs) for _ in range(2)]
    creators = [start("dynamiccreator.py", "--name", name, *BRISKLY, PROXY_HOSTNAMES=fronts) for name in ("a", "b")]

    def flowing() -> bool:
        """Whether each worker has had work, and each creator's jobs have been done, since `passed`."""
        news = [worker.lines[seen:] for worker, seen in zip(workers, passed)]
        return all(news) and all(
            any(line.startswith(f"doing {name} ") for line in chain.from_iterable(news)) for name in ("a", "b"))

    passed = [len(fronts.split(";"))] * 2  # the lines that say where they connect to
    wait_until(flowing, *creators, *workers)
    proxies[0].kill()
    proxies[0].finish()
    passed = [len(worker.lines) for worker in workers]
    wait_until(flowing, *creators, *workers)
    press_ctrl_c(*creators, *proxies[1:], *workers)
    done = jobs_done(*workers)
    assert len(set(done)) == len(done), "a job was done twice"


def test_each_proxy_is_killed_in_turn_under_load_and_no_job_is_lost(start: Start) -> None:
    proxies = [start("proxy.py", "--port", "0", "--worker-port", "0") for _ in range(3)]
    fronts = [port_of(proxy, "creators: bound to port") for proxy in proxies]
    backs = [port_of(proxy, "workers: bound to port") for proxy in proxies]
    workers = [start("worker.py", PROXY_HOSTNAMES=addresses(backs)) for _ in range(2)]
    creators = [start("dynamiccreator.py", "--at-least-once", "--name", name, "--interval", "0.001",
                      PROXY_HOSTNAMES=addresses(fronts)) for name in ("a", "b")]
    for index, (front, back) in enumerate(zip(fronts, backs)):
        enough = len(jobs_done(*workers)) + 300
        wait_until(lambda: len(jobs_done(*workers)) >= enough, *creators, *workers)
        proxies[index].kill()
        proxies[index].finish()
        proxies[index] = start("proxy.py", "--port", front, "--worker-port", back)
    press_ctrl_c(*creators)  # which closes them: they linger until all has been acknowledged
    wait_until(lambda: jobs_created(*creators) <= set(jobs_done(*workers)), *workers)
    press_ctrl_c(*workers, *proxies)


def addresses(ports: list[str]) -> str:
    return ";".join(f"127.0.0.1:{port}" for port in ports)


@pytest.mark.parametrize(("name", "port"), [("dynamiccreator.py", 25001), ("worker.py", 25002)])
def test_proxies_without_a_port_are_at_the_port_of_the_recipe(start: Start, name: str, port: int) -> None:
    program = start(name, PROXY_HOSTNAMES="127.25.0.1;127.25.0.2:24999;127.25.0.3")
    assert [program.read_line() for _ in range(3)] == [
        f"connecting to 127.25.0.1:{port}", "connecting to 127.25.0.2:24999", f"connecting to 127.25.0.3:{port}"]


# Mutual TLS

class Identity:
    """Certificate and key as the files that the examples take."""

    def __init__(self, directory: Path, name: str, signed: trustme.LeafCert) -> None:
        self.cert, self.key = directory / f"{name}.cert", directory / f"{name}.key"
        signed.private_key_pem.write_to_path(self.key)
        for pem in signed.cert_chain_pems:
            pem.write_to_path(self.cert, append=True)

    def options(self, verify: Path) -> list[str | Path]:
        return ["--cert", self.cert, "--key", self.key, "--verify", verify]


def test_mutual_tls_lets_in_whom_the_authority_has_signed_and_nobody_else(start: Start, tmp_path: Path) -> None:
    ours, theirs = trustme.CA(), trustme.CA()
    our_root, their_root = tmp_path / "ours.pem", tmp_path / "theirs.pem"
    ours.cert_pem.write_to_path(our_root)
    theirs.cert_pem.write_to_path(their_root)
    server = Identity(tmp_path, "server", ours.issue_cert("127.0.0.1"))
    client = Identity(tmp_path, "client", ours.issue_cert("client.example.org"))
    stranger = Identity(tmp_path, "stranger", theirs.issue_cert("client.example.org"))

    bound = start("tls_bind.py", "--port", "0", *server.options(our_root), *BRISKLY)
    port = port_of(bound)
    # The first is refused by the server, the second refuses the server, and the third does not even speak TLS.
    refused = start("tls_connect.py", "--port", port, *stranger.options(our_root))
    refusing = start("tls_connect.py", "--port", port, *client.options(their_root))
    plain = start("time_client.py", "--port", port)
    assert "unknown ca" in refused.wait_for("not connected: (.*)")[1]
    assert "CERTIFICATE_VERIFY_FAILED" in refusing.wait_for("not connected: (.*)")[1]

    welcome = start("tls_connect.py", "--port", port, *client.options(our_root), "--count", "5")
    assert welcome.finish() == 0
    assert all(re.search(r"\d\d:\d\d:\d\d", line) for line in welcome.lines) and len(welcome.lines) == 5
    press_ctrl_c(refused, refusing)
    plain.kill()  # it has had nothing to print, by which to know that it can be interrupted
    plain.finish()
    assert not plain.lines
    for program in (refused, refusing):
        assert all(line.startswith("not connected: ") for line in program.lines), program
    bound.kill()


def test_a_certificate_for_another_host_is_refused(start: Start, tmp_path: Path, authority: trustme.CA) -> None:
    root = tmp_path / "root.pem"
    authority.cert_pem.write_to_path(root)
    elsewhere = Identity(tmp_path, "server", authority.issue_cert("elsewhere.example.org"))
    client = Identity(tmp_path, "client", authority.issue_cert("client.example.org"))
    bound = start("tls_bind.py", "--port", "0", *elsewhere.options(root), *BRISKLY)
    connecting = start("tls_connect.py", "--port", port_of(bound), *client.options(root))
    assert "IP address mismatch" in connecting.wait_for("not connected: (.*)")[1]
    press_ctrl_c(connecting)
    bound.kill()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl command")
def test_mutual_tls_with_the_certificates_that_the_readme_makes(start: Start, tmp_path: Path) -> None:
    """Each end's own certificate is what the other verifies it against: the crash course of the original."""
    commands = re.findall(r"^    (openssl .*)$", (EXAMPLES / "README.md").read_text(), re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        subprocess.run(shlex.split(command), cwd=tmp_path, check=True, capture_output=True, timeout=TIMEOUT)
    bound = start("tls_bind.py", "--port", "0", "--cert", tmp_path / "server.cert", "--key", tmp_path / "server.key",
                  "--verify", tmp_path / "client.cert", *BRISKLY)
    connecting = start("tls_connect.py", "--port", port_of(bound), "--cert", tmp_path / "client.cert",
                       "--key", tmp_path / "client.key", "--verify", tmp_path / "server.cert")
    for _ in range(3):
        assert re.search(r"\d\d:\d\d:\d\d", connecting.read_line())
    press_ctrl_c(bound, connecting)


# Streams and datagrams

@pytest.fixture
def pem(tmp_path: Path, authority: trustme.CA) -> tuple[Path, Path, Path]:
    """A certificate for localhost, its key, and the authority's certificate."""
    root = tmp_path / "root.pem"
    authority.cert_pem.write_to_path(root)
    identity = Identity(tmp_path, "localhost", authority.issue_cert("localhost", "127.0.0.1"))
    return identity.cert, identity.key, root


def end(*servers: Program) -> None:
    for server in servers:
        server.interrupt()
        assert server.finish() == INTERRUPTED


def test_tcp(start: Start) -> None:
    server = start("tcp_server.py", "--port", "0")
    port = port_of(server, "listening on port")
    for name in ("Client", "Jörg"):
        client = start("tcp_client.py", "--port", port, "--name", name)
        assert client.finish() == 0 and client.lines == [f"Hello, {name}"]
    end(server)


def test_unix(start: Start, tmp_path: Path) -> None:
    server = start("unix_server.py", tmp_path / "mysock")
    server.wait_for("listening")
    client = start("unix_client.py", tmp_path / "mysock")
    assert client.finish() == 0 and re.fullmatch(r"Hello, Client, process \d+", client.lines[0])
    end(server)
    assert not (tmp_path / "mysock").exists()


def test_udp(start: Start) -> None:
    server = start("udp_server.py", "--port", "0")
    client = start("udp_client.py", "--port", port_of(server, "listening on port"))
    assert client.finish() == 0 and client.lines == ["Hello, Client"]
    end(server)


def test_tls(start: Start, pem: tuple[Path, Path, Path]) -> None:
    server = start("tls_server.py", "--port", "0", *pem[:2])
    client = start("tls_client.py", "--port", port_of(server, "listening on port"), pem[2])
    assert client.finish() == 0 and client.lines == ["Hello, Client", "by TLSv1.3"]
    end(server)


def test_starttls(start: Start, pem: tuple[Path, Path, Path]) -> None:
    server = start("starttls_server.py", "--port", "0", *pem[:2])
    client = start("starttls_client.py", "--port", port_of(server, "listening on port"), pem[2])
    assert client.finish() == 0
    assert [server.read_line() for _ in range(4)] == [
        'Received "DUMMY" in the clear', 'Received "STARTTLS" in the clear', 'Received "ENCRYPTED" encrypted',
        'Received "QUIT" encrypted']
    end(server)


def test_upgrade(start: Start, pem: tuple[Path, Path, Path]) -> None:
    server = start("upgrade_server.py", "--port", "0", *pem[:2])
    client = start("upgrade_client.py", "--port", port_of(server, "listening on port"), pem[2])
    assert client.finish() == 0
    assert client.lines == ["The connection is in the clear", "Sending ping", "Received: pong", "Sending upgrade",
                            "The connection is TLSv1.3", "Sending ping", "Received: pong", "Sending quit",
                            "Client disconnected"]
    assert [server.read_line() for _ in range(9)] == [
        "Client connected", "Read 'ping'", "Sending pong", "Read 'upgrade'", "Upgrading", "Read 'ping'", "Sending pong",
        "Read 'quit'", "Client closed"]
    end(server)


WHERE = [["--host", "127.0.0.1"], ["--host", "::1"], ["--unix", "{}/echo"], ["--unix", "@netmsg-{}"]]


@pytest.mark.parametrize("where", WHERE, ids=["IPv4", "IPv6", "UNIX", "abstract"])
def test_the_four_shapes(start: Start, where: list[str], tmp_path: Path) -> None:
    where = [where[0], where[1].format(tmp_path if "/" in where[1] else tmp_path.name)]
    port = [] if "--unix" in where else ["--port", "0"]
    servers = [start("echo_datagram_server.py", *where, *port)]
    clients = [start("echo_datagram_client.py", *where, *to(servers[0], port))]
    assert clients[0].finish() == 0 and len(clients[0].lines) == 5
    assert clients[0].lines[-1] == "RCVD 'Crazy bananas! £€ should go through.'"
    where[1] += "2" if "--unix" in where else ""
    servers.append(start("echo_stream_server.py", *where, *port))
    clients.append(start("echo_stream_client.py", *where, *to(servers[1], port)))
    assert clients[1].finish() == 0
    assert clients[1].lines[-1] == "Disconnected from server"
    assert "RCVD 'including non-ASCII characters: €£'" in clients[1].lines
    for server in servers:
        server.terminate()
        assert server.finish() == 0 and "closed" in server.lines


def to(server: Program, port: list[str]) -> list[str]:
    found = server.wait_for(r"^(?:receiving at|listening on) (?:port )?(.*)$")[1]
    return ["--port", found] if port else []


def test_69_smtp(start: Start, pem: tuple[Path, Path, Path]) -> None:
    server = start("smtp_server.py", "--port", "0", *pem[:2])
    with smtplib.SMTP("localhost", int(port_of(server, "listening on port")), timeout=TIMEOUT) as client:
        client.starttls(context=ssl.create_default_context(cafile=str(pem[2])))
        client.sendmail("a@example.org", ["b@example.org"], "Subject: x\r\n\r\nHello")
    assert server.wait_for("^Mail")[0] and server.lines[-1] == "Mail under TLS: Hello"
    end(server)


def test_69_smtp_with_openssl(start: Start, pem: tuple[Path, Path, Path]) -> None:
    server = start("smtp_server.py", "--port", "0", *pem[:2])
    port = port_of(server, "listening on port")
    done = subprocess.run(["openssl", "s_client", "-starttls", "smtp", "-connect", f"localhost:{port}", "-CAfile",
                           pem[2], "-verify_return_error", "-quiet", "-crlf"], input="NOOP\nquit\n",
                          capture_output=True, text=True, timeout=TIMEOUT)
    assert "250 ok" in done.stdout and "221 bye" in done.stdout, done
    end(server)


def test_69_imap(start: Start, pem: tuple[Path, Path, Path]) -> None:
    server = start("imap_server.py", "--port", "0", *pem[:2])
    with imaplib.IMAP4("localhost", int(port_of(server, "listening on port")), timeout=TIMEOUT) as client:
        client.starttls(ssl.create_default_context(cafile=str(pem[2])))
        assert client.login("me", "secret")[0] == "OK"
    assert server.wait_for("^Login of me under TLS")
    end(server)


def test_69_ftp(start: Start, pem: tuple[Path, Path, Path]) -> None:
    server = start("ftp_server.py", "--port", "0", *pem[:2])
    with ftplib.FTP_TLS(context=ssl.create_default_context(cafile=str(pem[2])), timeout=TIMEOUT) as client:
        client.connect("127.0.0.1", int(port_of(server, "listening on port")))
        client.login()
        client.prot_p()
        client.storbinary("STOR file", io.BytesIO(bytes(300_000)))
        client.quit()
    assert server.wait_for("^Stored file of 300000 bytes under TLS")
    end(server)


# Leaving

# Packets and servers

def connect_to(port: str) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", int(port)), timeout=TIMEOUT) as sock:
        yield sock


def test_packets(start: Start) -> None:
    server = start("packet_server.py", "--port", "0")
    port = port_of(server, "listening on port")
    client = start("packet_client.py", "--port", port)
    assert client.finish() == 0
    assert client.lines[1:3] == ["Received {'number': 1, 'packet': {'data': 42}}", "Nothing more for now"]
    assert client.lines[3].startswith("Not sent:")
    assert client.lines[4:7] == [f"Received {{'number': {number + 2}, 'packet': {number}}}" for number in range(3)]
    assert client.lines[7:] == ["Keep-alive: True", "Received {'number': 5, 'packet': 'last'}",
                                "The server has finished"]
    other = start("packet_client_socket.py", "--port", port)
    assert other.finish() == 0
    assert other.lines[:2] == ["Received {'number': 1, 'packet': {'data': 42}}", "The socket is closed"]
    threads = start("packet_client_threads.py", "--port", port, "--count", "2000")
    assert threads.finish() == 0 and threads.lines == ["2000 of 2000 packets came back in the clear"]
    press_ctrl_c(server)


def test_packets_under_tls(start: Start, pem: tuple[Path, Path, Path]) -> None:
    certificate, key, authority = pem
    server = start("packet_server.py", "--port", "0", "--certificate", certificate, "--key", key)
    client = start("packet_client_threads.py", "--port", port_of(server, "listening on port"), "--count", "500",
                   "--ca", authority)
    assert client.finish() == 0 and client.lines == ["500 of 500 packets came back under TLS"]
    press_ctrl_c(server)


def test_the_chat_room(start: Start) -> None:
    server = start("chat_server.py", "--port", "0")
    port = port_of(server, "listening on port")
    with (socket.create_connection(("127.0.0.1", int(port)), timeout=TIMEOUT) as ann,
          socket.create_connection(("127.0.0.1", int(port)), timeout=TIMEOUT) as bob,
          ann.makefile("r") as ann_sees, bob.makefile("r") as bob_sees):
        assert ann_sees.readline() == bob_sees.readline() == "Who are you?\n"
        ann.sendall(b"Ann\n")
        assert ann_sees.readline() == "* Ann is here\n"
        bob.sendall(b"Bob\n")
        assert ann_sees.readline() == "* Bob is here\n"
        # The announcement of Ann may still be going round when Bob has said who he is.
        assert [line for line in iter(bob_sees.readline, "* Bob is here\n")] in ([], ["* Ann is here\n"])
        ann.sendall(b"hello\r\n")
        assert ann_sees.readline() == bob_sees.readline() == "Ann: hello\n"
        bob.shutdown(socket.SHUT_WR)
        assert ann_sees.readline() == "* Bob has left\n"
    press_ctrl_c(server)


def test_the_functions(start: Start) -> None:
    server = start("rpc_server.py", "--port", "0")
    port = port_of(server, "listening on port")
    for words, status, shown in ((["add", "1", "2.5"], 0, "3.5"), (["upper", '"hello"'], 0, "HELLO"),
                                 (["remove", "1"], 1, "there is no 'remove'"), (["add", '"x"'], 1, "TypeError")):
        client = start("rpc_client.py", "--port", port, *words)
        assert client.finish() == status and shown in client.lines[0]
    for connection in connect_to(port):
        connection.sendall(b"[]\n")
        assert b"not a request" in connection.recv(1000)
    press_ctrl_c(server)


def test_the_mail_conversation(start: Start, pem: tuple[Path, Path, Path]) -> None:
    certificate, key, authority = pem
    server = start("smtp_conversation.py", "--port", "0", certificate, key)
    port = int(port_of(server, "listening on port"))
    with smtplib.SMTP("localhost", port, timeout=TIMEOUT) as client:
        client.starttls(context=ssl.create_default_context(cafile=str(authority)))
        client.sendmail("a@example.org", ["b@example.org"], "Subject: hi\r\n\r\nHello\r\n.dot")
    server.wait_for("Mail under TLS: .dot")
    with smtplib.SMTP("localhost", port, timeout=TIMEOUT) as client:
        assert client.docmd("NONSENSE")[0] == 502
        assert client.sock is not None
        client.sock.sendall(b"\xff\r\n")
        assert client.getreply()[0] == 500
        client.sock.sendall(b"STARTTLS\r\nRSET\r\n")  # injected
        with pytest.raises(smtplib.SMTPServerDisconnected):
            while client.getreply()[0] == 220:
                pass
    press_ctrl_c(server)


def test_time_by_multicast(start: Start) -> None:
    server = start("multicast_time_server.py", "--port", "0")
    port = port_of(server, "listening on port")
    client = start("multicast_time_client.py", "--port", port)
    assert client.finish() == 0
    assert re.fullmatch(rf"It is \d\d:\d\d:\d\d at \('127\.0\.0\.1', {port}\)", client.lines[0])
    assert re.fullmatch(r"And now \d\d:\d\d:\d\d", client.lines[-1])
    press_ctrl_c(server)


def test_metrics(start: Start, tmp_path: Path) -> None:
    server = start("metrics_collector.py", tmp_path / "metrics")
    server.wait_for("listening")
    client = start("metrics_reporter.py", tmp_path / "metrics", "requests", "1", "2", "3.5")
    assert client.finish() == 0 and client.lines == ["sum: 1.0", "sum: 3.0", "sum: 6.5"]
    assert server.wait_for("requests 6.5")
    press_ctrl_c(server)
    assert not (tmp_path / "metrics").exists()


def test_the_forwarder(start: Start) -> None:
    echo = start("echo_stream_server.py", "--port", "0")
    forwarder = start("forwarder.py", "--port", "0", "--to", "localhost", port_of(echo, "listening on port"))
    port = port_of(forwarder, "listening on port")
    for connection in connect_to(port):
        connection.sendall(b"x" * 10_000)
        connection.shutdown(socket.SHUT_WR)
        received = 0
        while chunk := connection.recv(65_536):
            received += len(chunk)
        assert received == 10_000
    echo.kill()
    echo.finish()
    try:
        for connection in connect_to(port):
            assert connection.recv(10) == b""
    except ConnectionResetError:
        pass  # perhaps before connecting has returned
    forwarder.wait_for("cannot forward")
    press_ctrl_c(forwarder)


def test_files(start: Start, tmp_path: Path) -> None:
    (tmp_path / "served").mkdir()
    (tmp_path / "secret").write_text("nobody's business")
    data = bytes(range(256)) * 10_000
    (tmp_path / "served" / "data").write_bytes(data)
    server = start("file_server.py", tmp_path / "served", "--port", "0")
    port = port_of(server, "listening on port")
    client = start("file_client.py", "--port", port, "data", tmp_path / "copy")
    assert client.finish() == 0 and client.lines == [f"{len(data)} bytes"]
    assert (tmp_path / "copy").read_bytes() == data
    for name in ("../secret", "nothing"):
        client = start("file_client.py", "--port", port, name, tmp_path / "other")
        assert client.finish() == 1 and client.lines == ["there is no such file here"]
    press_ctrl_c(server)


def test_the_graceful_server(start: Start) -> None:
    for how in ("SIGTERM", "stop"):
        server = start("graceful_server.py", "--port", "0")
        port = port_of(server, "listening on port")
        with (socket.create_connection(("127.0.0.1", int(port)), timeout=TIMEOUT) as idle,
              socket.create_connection(("127.0.0.1", int(port)), timeout=TIMEOUT) as busy):
            busy.sendall(b"work\n")
            server.wait_for("working")
            if how == "SIGTERM":
                server.terminate()
            else:
                for connection in connect_to(port):
                    connection.sendall(b"stop\n")
                    assert connection.makefile("r").read() == "stop: done\n"
            assert idle.recv(10) == b""
            assert busy.makefile("r").read() == "work: done\n"
        assert server.finish() == 0 and server.lines[-1].startswith("served")


def test_the_test_of_a_handler(start: Start) -> None:
    program = start("testing_a_handler.py")
    assert program.finish() == 0
    assert program.lines[-1] == "OK"


def test_after_ctrl_c_a_sender_still_gives_its_messages_to_whoever_comes(start: Start) -> None:
    sender = start("buffering.py", "--port", "0", *BRISKLY)
    port = port_of(sender)
    sender.wait_for("^sent 123 #3,")
    sender.interrupt()
    receiver = start("receiver.py", "--connect", port)
    assert sender.finish() == INTERRUPTED
    sent = [re.sub("^sent (.*), peers: .*$", r"Received: b'\1'", line) for line in sender.lines[1:]]
    wait_until(lambda: len(receiver.lines) >= len(sent), receiver)
    assert receiver.lines[:len(sent)] == sent
    press_ctrl_c(receiver)


# The examples themselves

@pytest.mark.parametrize("name", NAMES)
def test_help(name: str) -> None:
    """It comes from the same program as in the docstring, and says what there is to set."""
    shown = subprocess.run([*PYTHON, EXAMPLES / name, "--help"],
                           env={"PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"}, capture_output=True, text=True,
                           timeout=TIMEOUT)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.startswith(f"usage: {name}")


def test_every_example_is_run_by_a_test() -> None:
    """A new example needs a test that starts it, by its name: ``start("new.py", ...)``."""
    started = set()
    for function in ast.parse(Path(__file__).read_text()).body:
        if isinstance(function, ast.FunctionDef) and function.name.startswith("test_"):
            for node in ast.walk(function):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "start":
                    if isinstance(node.args[0], ast.Constant):
                        started.add(node.args[0].value)
    assert started == set(NAMES)


def test_the_readme_names_every_example_and_no_other() -> None:
    named = set(re.findall(r"\b[a-z_]+\.py\b", (EXAMPLES / "README.md").read_text()))
    assert named == {path.name for path in EXAMPLES.rglob("*.py")}


@pytest.mark.parametrize("name", NAMES)
def test_an_example_stands_alone(name: str) -> None:
    """It imports netmsg's public face and the standard library, nothing else; and says how to run it."""
    module = ast.parse((EXAMPLES / name).read_text())
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            assert {alias.name for alias in node.names} <= sys.stdlib_module_names
        elif isinstance(node, ast.ImportFrom):
            assert node.module == "netmsg" or (node.module or "").split(".")[0] in sys.stdlib_module_names
    docstring = ast.get_docstring(module, clean=False) or ""
    commands = re.findall(r"^    .*python3 examples/(\w+\.py)", docstring, re.MULTILINE)
    assert name in commands
    assert len(commands) >= 2 or "python3 -c" in docstring or "nc localhost" in docstring or name.startswith("testing")
    assert set(commands) <= set(NAMES)
