"""The certificates that the documentation and the examples tell their readers to make: the commands are copied from
there, run, and the results are put to use, as strictly as Python 3.13 does by default."""

from __future__ import annotations

import re
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest
from support.processes import ROOT, TIMEOUT

COMMAND = re.compile(r"^ *(openssl req(?:.*\\\n)*.*)$", re.MULTILINE)
PAGES = sorted(path for path in (*(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").iterdir(), ROOT / "README.md")
               if "_build" not in path.parts and path.is_file() and COMMAND.search(path.read_text(encoding="utf-8")))
STRICT = ssl.VERIFY_X509_STRICT | getattr(ssl, "VERIFY_X509_PARTIAL_CHAIN", 0x80000)

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl command")


def make(page: Path, directory: Path) -> list[str]:
    """Run the commands of a page in a shell, as they stand there."""
    commands = COMMAND.findall(page.read_text(encoding="utf-8"))
    for command in commands:
        done = subprocess.run(["sh", "-c", command], cwd=directory, capture_output=True, text=True, timeout=TIMEOUT)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
    return commands


def option(command: str, name: str) -> str:
    found = re.search(rf"-{name} (\S+)", command)
    assert found is not None, command
    return found[1]


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (client.wrap_bio(to_client, to_server, server_hostname=name),
            server.wrap_bio(to_server, to_client, server_side=True))
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                pass
    assert all(end.version() for end in ends)
    return ends


def test_the_pages_with_commands_are_found() -> None:
    assert {path.name for path in PAGES} >= {"tls.md", "tls_server.py", "starttls.md", "README.md"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_the_commands_make_is_believed(page: Path, tmp_path: Path) -> None:
    for command in make(page, tmp_path):
        if "subjectAltName" not in command:
            continue  # an authority
        certificate = tmp_path / option(command, "out")
        trusted = tmp_path / option(command, "CA") if "-CA " in command else certificate
        name = re.search(r"subjectAltName=DNS:([^\"',]+)", command)
        assert name is not None
        server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        server.load_cert_chain(certificate, tmp_path / option(command, "keyout"))
        client = ssl.create_default_context(cafile=trusted)
        client.verify_flags |= STRICT
        shake_hands(server, client, name[1])


def test_both_ends_of_mutual_tls_believe_each_other(tmp_path: Path) -> None:
    make(ROOT / "docs/howto/tls.md", tmp_path)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=tmp_path / "authority.pem")
    server.verify_mode = ssl.CERT_REQUIRED
    server.verify_flags |= STRICT
    server.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    client = ssl.create_default_context(cafile=tmp_path / "authority.pem")
    client.verify_flags |= STRICT
    client.load_cert_chain(tmp_path / "client.pem", tmp_path / "client.key")
    _, accepted = shake_hands(server, client, "localhost")
    peer = accepted.getpeercert()
    assert peer is not None and ("DNS", "client-1") in peer["subjectAltName"]
