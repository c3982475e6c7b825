"""The faults and failures that docs/explanation/testing.md lists: each has tests, and `make soak` runs long forms."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
ROOT = TESTS.parent
FAULTS, FAILURES = 37, 22


def listed() -> list[tuple[str, list[str]]]:
    """What goes wrong, and the tests that show it."""
    page = (ROOT / "docs" / "explanation" / "testing.md").read_text(encoding="utf-8")
    section = page.partition("## Faults and failures\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \| (`.+`) \|$", section, re.M)
    return [(what, re.findall(r"`(.+?)`", tests)) for what, tests in rows]


def test_every_fault_and_every_failure_is_listed() -> None:
    numbered = [int(what.partition(".")[0]) for what, _ in listed() if what[0].isdigit()]
    assert numbered == [*range(1, FAILURES + 1)]
    assert len(listed()) == FAULTS + FAILURES


@pytest.mark.parametrize("name", sorted({test for _, tests in listed() for test in tests}))
def test_what_is_listed_exists(name: str) -> None:
    path, _, function = name.partition("::")
    tree = ast.parse((TESTS / path).read_text(encoding="utf-8"))
    there = [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    assert there and (not function or function in there)


def test_make_soak_runs_whatever_has_a_long_form() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", "")
    (command,) = re.findall(r"NETMSG_SOAK=1 .* -m pytest .*", makefile)
    run = [ROOT / word for word in command.split() if word.startswith("tests/")]
    long = [path for path in TESTS.rglob("*.py")
            if "environ.get(\"NETMSG_SOAK\")" in path.read_text(encoding="utf-8") and path != Path(__file__)]
    assert len(long) > 10
    assert [path for path in long if path not in run and not any(one in path.parents for one in run)] == []


def test_programs_are_started_with_all_checks_of_the_interpreter() -> None:
    """By `support.processes.PYTHON`, as the tests themselves see every warning as an error (setup.cfg). Tools need not
    be."""
    others = [f"{path.name}: {line.strip()}" for path in TESTS.rglob("*.py") if path != Path(__file__)
              for line in path.read_text(encoding="utf-8").splitlines() if "sys.executable" in line]
    tools = ("mypy", "pyright", "benchmarks")
    assert [line for line in others if not any(tool in line for tool in tools) and "PYTHON = (" not in line] == []
