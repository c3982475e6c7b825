"""No interrupt (Ctrl-C) passes by the handlers and the locks of a loop that it strikes."""

from __future__ import annotations

import ast
import dis
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

import netmsg

LIBRARY = Path(netmsg.__file__).parent
NEVER_INTERRUPTED = {"Reactor._run", "Steps.run", "_speak"}
"""Of threads of the library's own: only the main thread is ever interrupted."""
FUNCTIONS = (ast.FunctionDef, ast.Lambda, ast.GeneratorExp, ast.ClassDef)
LOOPS = (ast.While, ast.For, ast.ListComp, ast.SetComp, ast.DictComp)


def functions(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from functions(constant)


def sees_to_interrupts(node: ast.AST, part: str) -> bool:
    """Whether an interrupt in this part of a statement is dealt with by the statement."""
    if isinstance(node, ast.With):
        return part == "body"
    if not isinstance(node, ast.Try) or part == "finalbody":
        return False
    return bool(node.finalbody) or part == "body" and any(
        handler.type is None or "BaseException" in ast.unparse(handler.type) for handler in node.handlers)


def guarded_loops(node: ast.AST, guarded: bool = False) -> Iterator[tuple[int, int, bool]]:
    """The first and the last line of every loop, and whether something in the same function sees to interrupts."""
    for part, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                inside = sees_to_interrupts(node, part) or guarded and not isinstance(node, FUNCTIONS)
                if isinstance(child, LOOPS):
                    yield child.lineno, child.end_lineno or child.lineno, inside
                yield from guarded_loops(child, inside)


def uncovered(code: CodeType, loops: list[tuple[int, int, bool]]) -> Iterator[int]:
    """The lines of guarded loops from which a jump back is outside of every handler."""
    if code.co_name.endswith(("comp>", "genexpr>")):
        return  # a function of its own, in which nothing is guarded
    instructions: Any = dis.Bytecode(code)
    for one in instructions:
        line = one.positions.lineno or 0
        around = [loop for loop in loops if loop[0] <= line <= loop[1]]
        if "JUMP_BACKWARD" not in one.opname or not around:
            continue
        _, _, guarded = min(around, key=lambda loop: loop[1] - loop[0])
        if guarded and not any(entry.start <= one.offset < entry.end for entry in instructions.exception_entries):
            yield line


def places(path: Path) -> list[str]:
    source = path.read_text(encoding="utf-8")
    loops = list(guarded_loops(ast.parse(source)))
    return [f"{path.name}:{line}" for code in functions(compile(source, str(path), "exec"))
            if code.co_qualname not in NEVER_INTERRUPTED for line in uncovered(code, loops)]


def test_no_interrupt_passes_by_what_sees_to_it_around_a_loop() -> None:
    """CPython 3.12 to 3.14 compile some jumps back to the beginning of a loop to be outside of every handler:
    those of ``while condition:``, of comprehensions, and of an ``if`` at the end of the loop."""
    assert [place for path in sorted(LIBRARY.rglob("*.py")) for place in places(path)] == []


@pytest.mark.skipif(not (3, 12) <= sys.version_info[:2] <= (3, 13), reason="other versions compile it otherwise")
def test_a_loop_that_lets_them_pass_is_found(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text("def wait(lock, ready):\n    with lock:\n        while not ready():\n            pass\n")
    assert places(path) == ["module.py:3"]
