"""No interrupt (Ctrl-C) passes by the handlers and the locks of a loop that it strikes."""

from __future__ import annotations

import ast
import dis
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import Any

import netmsg

LIBRARY = Path(netmsg.__file__).parent
OWN_THREADS = {"Reactor._run"}
"""Only the main thread is ever interrupted."""


def functions(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from functions(constant)


def uncovered(code: CodeType, whiles: set[int]) -> list[int]:
    """The lines of ``while`` loops whose jump back is not covered by what covers all the rest of the loop."""
    instructions: Any = dis.Bytecode(code)
    entries = instructions.exception_entries

    def handlers(offset: int) -> set[int]:
        return {entry.target for entry in entries if entry.start <= offset < entry.end}

    found = []
    before = None
    for one in instructions:
        if before is not None and "JUMP_BACKWARD" in one.opname and one.positions.lineno in whiles:
            if (handlers(before.offset) & handlers(one.argval)) - handlers(one.offset):
                found.append(one.positions.lineno)
        before = one
    return found


def test_no_interrupt_passes_by_the_handlers_of_a_while_loop() -> None:
    """CPython 3.12 and 3.13 compile ``while condition:`` to a jump back that is outside of every handler."""
    places = []
    for path in sorted(LIBRARY.rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        whiles = {node.lineno for node in ast.walk(ast.parse(source)) if isinstance(node, ast.While)}
        for code in functions(compile(source, str(path), "exec")):
            if code.co_qualname not in OWN_THREADS:
                places += [f"{path.relative_to(LIBRARY)}:{line}" for line in uncovered(code, whiles)]
    assert not places
