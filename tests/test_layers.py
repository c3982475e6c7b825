"""Who may import whom: downwards only, and the pure core imports nothing that waits, draws lots or reads a clock."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import netmsg

ROOT = Path(netmsg.__file__).parent
FACE = "netmsg"
LEVELS = {
    "__main__": 7,
    "cli": 6,
    FACE: 5,
    "messaging": 4,
    "servers": 4,
    "clients": 4,
    "reactor": 3,
    "streams": 3,
    "datagrams": 3,
    "transports": 2,
    "sockets": 1,
    "tls": 1,
    "storage": 1,
    "wire": 1,
    "packets": 1,
    "aside": 0,
    "checks": 0,
    "deadline": 0,
    "errors": 0,
    "forking": 0,
    "interrupts": 0,
    "speaking": 0,
    "standing_in": 0,
    "locks": 0,
    "uninterrupted": 0,
    "waiting": 0,
}
"""Imports go from a greater level to a lesser one, or stay within one layer; those of level 0 are one layer. The face
of the package is what its command line, like any other user, may import; nobody below it may."""
IMPURE = {"socket", "ssl", "select", "selectors", "threading", "_thread", "queue", "time", "random", "secrets"}
PURE = {f"netmsg.messaging.{name}" for name in (
    "backoff", "delivery", "drafts", "homeless", "kept", "lane", "relaying", "requests", "reservoir", "routing",
    "squeezing", "telling", "urls")} | {
    "netmsg.checks", "netmsg.sockets.racing", "netmsg.streams.read_ahead", "netmsg.servers.handlers",
    "netmsg.servers.steps"}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def runtime_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """All of a tree, functions included, but for what only type checkers see."""
    yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for other in child.orelse:
                yield from runtime_nodes(other)
        else:
            yield from runtime_nodes(child)


def imports_of_source(source: str, module: str, is_package: bool, *, for_type_checkers: bool = False) -> set[str]:
    """The absolute names of the modules that ``module`` imports at run time; or ``for_type_checkers`` as well."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)) if for_type_checkers else runtime_nodes(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                parts = parts[:len(parts) - node.level + is_package]
                base = ".".join([*parts, base] if base else parts)
            for alias in node.names:
                submodule = f"{base}.{alias.name}"
                found.add(submodule if submodule in MODULES else base)
    return found


def imports_of(module: str, *, for_type_checkers: bool = False) -> set[str]:
    path = MODULES[module]
    return imports_of_source(path.read_text(encoding="utf-8"), module, path.name == "__init__.py",
                             for_type_checkers=for_type_checkers)


def part_of(module: str) -> str:
    """The package or module right below the root that ``module`` is or is in; for the root itself its own name."""
    return FACE if module == FACE else module.split(".")[1]


def may_import(importer: str, imported: str) -> bool:
    one, other = part_of(importer), part_of(imported)
    return one == other or LEVELS[one] > LEVELS[other] or LEVELS[one] == LEVELS[other] == 0


def own(imported: set[str]) -> set[str]:
    return {name for name in imported if name.split(".")[0] == FACE}


@pytest.mark.parametrize("module", MODULES)
def test_every_module_belongs_to_a_layer(module: str) -> None:
    assert part_of(module) in LEVELS


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_downwards_only(module: str) -> None:
    for imported in own(imports_of(module, for_type_checkers=True)):
        assert imported in MODULES, f"{module} imports {imported}, which is not there"
        assert may_import(module, imported), f"{module} imports {imported}"


@pytest.mark.parametrize(("importer", "imported", "allowed"), [
    ("netmsg.messaging.engine", "netmsg.reactor.reactor", True),
    ("netmsg.reactor.reactor", "netmsg.messaging.engine", False),
    ("netmsg.wire.session", "netmsg.tls.engine", False),
    ("netmsg.tls.engine", "netmsg.wire.session", False),
    ("netmsg.wire.session", "netmsg.wire.framing", True),
    ("netmsg.waiting", "netmsg.deadline", True),
    ("netmsg.errors", "netmsg.wire.framing", False),
    ("netmsg.messaging.engine", "netmsg", False),
    ("netmsg", "netmsg.cli.demo", False),
    ("netmsg.__main__", "netmsg.cli.demo", True),
])
def test_downwards_is_told_from_upwards_and_sideways(importer: str, imported: str, allowed: bool) -> None:
    assert may_import(importer, imported) is allowed


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Not even for type checkers alone: who needs the names of another file stands above it."""
    graph = {module: own(imports_of(module, for_type_checkers=True)) - {module} for module in MODULES}
    order = list(TopologicalSorter(graph).static_order())
    assert set(order) == set(MODULES)


@pytest.mark.parametrize("module", [name for name in MODULES if name in PURE or part_of(name) in ("wire", "packets")])
def test_the_pure_core_does_no_input_or_output_and_reads_no_clock(module: str) -> None:
    assert {name.split(".")[0] for name in imports_of(module)} & IMPURE == set()


def test_all_of_the_pure_core_is_there() -> None:
    assert PURE <= set(MODULES)
    assert {"wire", "packets"} <= {part_of(name) for name in MODULES}


@pytest.mark.parametrize("module", MODULES)
def test_only_the_standard_library_is_imported(module: str) -> None:
    others = {name.split(".")[0] for name in imports_of(module)} - {FACE}
    assert others <= sys.stdlib_module_names
    assert "asyncio" not in others


@pytest.mark.parametrize(("source", "found"), [
    ("import socket, os.path", {"socket", "os.path"}),
    ("from ..errors import ClosedError", {"netmsg.errors"}),
    ("from . import framing", {"netmsg.wire.framing"}),
    ("from .framing import Run", {"netmsg.wire.framing"}),
    ("def late():\n    import ssl", {"ssl"}),
    ("if TYPE_CHECKING:\n    import ssl\nelse:\n    import time", {"time"}),
    ("try:\n    import ssl\nexcept ImportError:\n    pass", {"ssl"}),
])
def test_imports_are_found_wherever_they_are(source: str, found: set[str]) -> None:
    assert imports_of_source(source, "netmsg.wire.session", False) == found


@pytest.mark.parametrize("module", [name for name in MODULES if name != "netmsg.forking"])
def test_what_a_forked_child_lets_go_of_is_registered_in_one_place(module: str) -> None:
    assert "register_at_fork" not in MODULES[module].read_text(encoding="utf-8")


LONGEST_FUNCTION = 60


def long_functions(source: str, module: str) -> set[str]:
    return {f"{module}.{node.name}" for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno >= LONGEST_FUNCTION}


@pytest.mark.parametrize("module", MODULES)
def test_functions_are_short_enough_to_be_read_in_one_go(module: str) -> None:
    assert long_functions(MODULES[module].read_text(encoding="utf-8"), module) == set()


def test_long_functions_are_found() -> None:
    assert long_functions("def f():\n" + "    pass\n" * LONGEST_FUNCTION, "m") == {"m.f"}
    assert long_functions("def f():\n" + "    pass\n" * (LONGEST_FUNCTION - 1), "m") == set()


def test_those_for_type_checkers_are_found_where_they_are_asked_for() -> None:
    source = "if TYPE_CHECKING:\n    from .framing import Run\nimport time"
    assert imports_of_source(source, "netmsg.wire.session", False) == {"time"}
    assert imports_of_source(source, "netmsg.wire.session", False, for_type_checkers=True) == {
        "netmsg.wire.framing", "time"}


UNSAFE = {"Lock", "RLock", "Condition", "Event", "Semaphore", "BoundedSemaphore", "Barrier"}
"""What of `threading` an interrupt may leave locked, in one version of Python or in all of them."""


def locks_of_source(source: str) -> set[str]:
    found = set()
    for node in runtime_nodes(ast.parse(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "threading":
            found.add(node.attr)
        elif isinstance(node, ast.ImportFrom) and node.module == "threading":
            found.update(alias.name for alias in node.names)
    return found & UNSAFE


@pytest.mark.parametrize("module", [name for name in MODULES if name != "netmsg.locks"])
def test_locks_are_made_where_they_are_made_safe(module: str) -> None:
    assert locks_of_source(MODULES[module].read_text(encoding="utf-8")) == set()


@pytest.mark.parametrize(("source", "found"), [
    ("import threading\nlock = threading.Lock()", {"Lock"}),
    ("from threading import RLock, Thread", {"RLock"}),
    ("import threading\nthreading.Thread()", set()),
])
def test_locks_are_found(source: str, found: set[str]) -> None:
    assert locks_of_source(source) == found


STAMPS = {"netmsg.messaging.events": "field(default_factory=time.time)",
          "netmsg.messaging.peers": "connected_since = time.time()",
          "netmsg.messaging.reconnecting": "at=time.time()",
          "netmsg.messaging.storing": "at = time.time()"}


@pytest.mark.parametrize("module", [name for name in MODULES if not name.startswith("netmsg.cli")])
def test_the_wall_clock_which_may_be_set_is_read_for_stamps_only(module: str) -> None:
    source = MODULES[module].read_text(encoding="utf-8").replace(STAMPS.get(module, ""), "")
    assert not re.search(r"time\.time\b|\bdatetime\b|time\.(localtime|gmtime|ctime)\b|from time import", source)
