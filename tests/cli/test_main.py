"""The command line as a whole: help, version, wrong calls, and how it ends."""

from __future__ import annotations

import subprocess

import pytest
from support.processes import PYTHON, Program

import netmsg
from netmsg.__main__ import main


@pytest.mark.parametrize("arguments", [["--help"], ["demo", "--help"]])
def test_help_is_there_at_every_level(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("usage: netmsg")
    assert not printed.err


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    assert "demo" in capsys.readouterr().out


def test_help_does_not_show_the_faults_that_can_be_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    main(["demo", "--help"])
    assert "lose" not in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"netmsg {netmsg.__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["--nonsense"], ["demo", "--nonsense"], ["demo", "nonsense"]])
def test_a_wrong_call_is_exit_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("usage: netmsg")
    assert not printed.out


def test_it_runs_as_a_module() -> None:
    with Program("-m", "netmsg", "--version") as program:
        assert program.finish() == 0
        assert program.lines == [f"netmsg {netmsg.__version__}"]
        assert not program.errors()


def test_a_wrong_call_of_the_module_is_exit_status_2() -> None:
    with Program("-m", "netmsg", "nonsense") as program:
        assert program.finish() == 2
        assert "invalid choice" in program.errors()


def test_a_reader_that_goes_away_ends_it_quietly() -> None:
    # As in `netmsg demo | head -1`.
    process = subprocess.Popen([*PYTHON, "-m", "netmsg", "demo"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(20) == 1
