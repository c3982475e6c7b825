"""``netmsg outbox``: what waits, oldest first."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from netmsg import DeliveryGuarantee, Søcket
from netmsg.__main__ import main

A = b"a" * 16


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An outbox of three messages."""
    path = tmp_path / "outbox"
    with Søcket(delivery_guarantee=DeliveryGuarantee.AT_LEAST_ONCE, outbox=path, linger=0) as sock:
        sock.send(b"first")
        sock.send(b"\xff" * 100, A)
        sock.send(b"last")
    return path


def test_it_lists_and_counts(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["outbox", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[-1] for line in lines[:3]] == ["b'first'", f"{bytes([255] * 40)!r}...", "b'last'"]
    assert lines[1].split("  ")[2:4] == [f"for {A.hex()}", "100 bytes"]
    assert lines[3:] == ["3 messages, 109 bytes", "  2 for anybody", f"  1 for {A.hex()}"]


def test_as_json(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["outbox", "--json", str(path)]) == 0
    *messages, counts = map(json.loads, capsys.readouterr().out.splitlines())
    assert [base64.b64decode(message["data"]) for message in messages] == [b"first", b"\xff" * 100, b"last"]
    assert [message["for"] for message in messages] == ["anybody", A.hex(), "anybody"]
    assert len({message["id"] for message in messages}) == 3
    assert counts == {"messages": 3, "bytes": 109, "for": {"anybody": {"messages": 2, "bytes": 9},
                                                           A.hex(): {"messages": 1, "bytes": 100}}}


def test_counts_alone(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["outbox", "--count", str(path)]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "3 messages, 109 bytes"


def test_what_is_not_there_or_none_or_in_use(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "letter").write_text("dear mother")
    with Søcket(delivery_guarantee=DeliveryGuarantee.AT_LEAST_ONCE, outbox=path, linger=0):
        for name, why in (("nothing", "No such file"), ("letter", "an outbox"), ("outbox", "open already")):
            assert main(["outbox", str(tmp_path / name)]) == 1
            said = capsys.readouterr()
            assert said.out == "" and why in said.err
    assert not (tmp_path / "nothing").exists()


def test_to_look_changes_nothing(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = path.read_bytes()
    assert main(["outbox", str(path)]) == 0
    assert path.read_bytes() == before
