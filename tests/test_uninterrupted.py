"""Where the interpreter looks for signals, and that what rests on it is never interrupted.

A signal is raised in the middle of a statement, by a function in C that returns to no place where the interpreter
would look: indexing `PENDING`. Where its handler runs is the next place where it does look.
"""

from __future__ import annotations

import ast
import gc
import io
import os
import re
import signal
import threading
import time
import tokenize
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import pytest
from support.forking import fork
from support.pairs import Background
from support.processes import Program
from support.strikes import NUMBER, PENDING, SignalStrike, Strike, Struck, raise_signal, storm, strike_everywhere

import netmsg
from netmsg.locks import LOOKS_FOR_SIGNALS, Guarded
from netmsg.uninterrupted import LOCKED, keep, locked, move_first, take_first, take_last

LIBRARY = Path(netmsg.__file__).parent
ROUNDS = 200
"""Enough for the interpreter to replace instructions by those for the types that it has met."""


class Box:
    value: Any = None


class Slots:
    __slots__ = ("value", "other")

    def __init__(self) -> None:
        self.value = self.other = 0


class Looks:
    """Where handlers have run: the names of the functions, and the lines in them, counted from the first."""

    def __init__(self) -> None:
        self.functions: list[str] = []
        self.lines: list[int] = []
        self.asking: Callable[[], object] = bool
        self.answers: list[object] = []

    def handle(self, number: int, frame: FrameType | None) -> None:
        assert frame is not None
        self.functions.append(frame.f_code.co_name)
        self.lines.append(frame.f_lineno - frame.f_code.co_firstlineno)
        self.answers.append(self.asking())


@pytest.fixture
def looks() -> Iterator[Looks]:
    found = Looks()
    gc.disable()  # `gc.callbacks` are functions in Python, too: what is raised in one goes nowhere
    before = signal.signal(NUMBER, found.handle)
    try:
        yield found
    finally:
        signal.signal(NUMBER, before)
        gc.enable()


def end() -> None:
    """A function in Python: at its beginning the interpreter looks."""


def function_of(lines: str) -> Callable[..., None]:
    """A function of these lines, with a call of `end` behind them."""
    source = "def block(box, slots, items, other, numbers, word, function):\n" + "".join(
        f"    {line}\n" for line in [*lines.splitlines(), "end()"])
    names: dict[str, Any] = {"PENDING": PENDING, "NUMBER": int(NUMBER), "end": end}
    exec(compile(source, "<block>", "exec"), names)
    block: Callable[..., None] = names["block"]
    return block


def run(block: Callable[..., None]) -> None:
    for _ in range(ROUNDS):
        block(Box(), Slots(), [1, 2, 3], deque([1, 2, 3]), {1: 2}, "word", end)


STATEMENTS = [
    "box.value = 1",
    "box.value = box.other = items",
    "slots.value = slots.other",
    "slots.value += 1",
    "slots.value, slots.other = slots.other, None",
    "first = items[0]\ndel items[0]",
    "last = items[-1]\ndel items[-1]",
    "first = other[0]\ndel other[0]",
    "items[:] = other",
    "del items[1:]",
    "items[0:0] = (1, 2)",
    "items += (1,)",
    "other += (1,)",
    "items += other",
    "numbers[3] = items",
    "numbers[3] = items\ndel numbers[3]",
    "box.value = items if numbers else None",
    "if box.value is None and items and other == items:\n    box.value = items",
    "if 1 in numbers and 2 not in items:\n    box.value = word",
    "one, two, three = items",
    "one, *more = other",
    "box.value = [*items, *other]",
    "box.value = (items, numbers, {1: items}, {1, 2}, items[1:])",
    "box.value = word + word",
    "box.value = 2 * slots.value - 1 < 7",
    "box.value = function",
    "del box.value",
    "try:\n    box.value = 1\nfinally:\n    box.other = 2",
    "try:\n    raise KeyError\nexcept KeyError:\n    box.value = 1",
    "try:\n    items[7]\nexcept IndexError:\n    box.value = 1",
    "try:\n    PENDING[NUMBER]\n    numbers[7]\nexcept (IndexError, KeyError) as error:\n    box.value = error",
    "try:\n    try:\n        raise KeyError\n    finally:\n        box.value = 1\nexcept BaseException:\n    pass",
    "assert items",
    "global box_of_all\nbox_of_all = box",
    "pass",
]


@pytest.mark.parametrize("statement", STATEMENTS)
def test_nobody_looks_within_or_behind_a_statement_without_a_call(statement: str, looks: Looks) -> None:
    run(function_of("PENDING[NUMBER]\n" + statement.replace("del box.value", "box.value = 1\ndel box.value")))
    assert looks.functions == ["end"] * ROUNDS


@pytest.mark.parametrize("statement", [
    "box.value = PENDING[NUMBER]",
    "box.value = items[0], PENDING[NUMBER], items[1]",
    "items += (PENDING[NUMBER],)",
    "if PENDING[NUMBER] is None:\n    del items[0]",
])
def test_nobody_looks_in_the_middle_of_one(statement: str, looks: Looks) -> None:
    run(function_of(statement))
    assert looks.functions == ["end"] * ROUNDS


def pending() -> int:
    PENDING[NUMBER]
    return 7


def pending_in_vain() -> None:
    PENDING[NUMBER]
    raise ValueError


class WithMethod:
    def pending(self) -> int:
        PENDING[NUMBER]
        return 7


def test_what_a_function_returns_arrives(looks: Looks) -> None:
    box = Box()
    looks.asking = lambda: box.value
    for _ in range(ROUNDS):
        box.value = None
        box.value = pending()
        end()
        box.value = None
        box.value = WithMethod.pending(box)  # type: ignore[arg-type]
        end()
    assert looks.answers == [7] * 2 * ROUNDS


def test_what_a_function_raises_arrives(looks: Looks) -> None:
    box = Box()
    looks.asking = lambda: box.value
    for _ in range(ROUNDS):
        box.value = None
        try:
            pending_in_vain()
        except ValueError:
            box.value = 7
        end()
    assert looks.answers == [7] * ROUNDS


def test_what_map_yields_is_unpacked_without_a_look(looks: Looks) -> None:
    box = Box()
    looks.asking = lambda: box.value
    for _ in range(ROUNDS):
        box.value = 7
        work = map(raise_signal, (NUMBER,))
        box.value, = work
        end()
    assert looks.answers == [None] * ROUNDS


@pytest.mark.parametrize("make", [list, deque])
def test_what_was_done_is_noted(make: Callable[[], Any], looks: Looks) -> None:
    results = make()
    looks.asking = lambda: len(results)
    for _ in range(ROUNDS):
        results.extend(map(raise_signal, (NUMBER,)))
        end()
        keep(results, raise_signal, NUMBER)
        end()
    assert looks.answers == [*range(1, 2 * ROUNDS + 1)]


# Where it does look: were it to stop, nothing would break, but this way of trying it shows that it works

def generate() -> Iterator[int]:
    while True:
        yield 1


@pytest.mark.parametrize(("lines", "where"), [
    ("function()", "end"),
    ("items.sort()", "block"),
    ("while items:\n    del items[0]", "block"),
    ("for item in items:\n    pass", "block"),
])
def test_it_looks_at_calls_and_jumps_back(lines: str, where: str, looks: Looks) -> None:
    run(function_of("PENDING[NUMBER]\n" + lines))
    assert looks.functions == [where] * ROUNDS


def test_it_looks_where_a_generator_goes_on(looks: Looks) -> None:
    numbers = generate()
    for _ in range(ROUNDS):
        PENDING[NUMBER]
        for _ in numbers:
            break
    assert set(looks.functions) == {"generate"}


def test_it_looks_within_a_with_statement_only_where_locks_are_made_safe(looks: Looks) -> None:
    lock = threading.Lock()
    box = Box()
    looks.asking = lock.locked
    for _ in range(ROUNDS):
        PENDING[NUMBER]
        with lock:
            box.value = 1
    assert (True in looks.answers) is LOOKS_FOR_SIGNALS and len(looks.answers) == ROUNDS


def test_nobody_looks_where_a_guarded_lock_has_been_locked(looks: Looks) -> None:
    box = Box()
    looks.asking = lambda: box.value

    def acquire(_: bool) -> bool:
        box.value = "locked"
        PENDING[NUMBER]
        return True

    def leave(*_: object) -> None:
        box.value = "unlocked"

    lock = Guarded(SimpleNamespace(acquire=acquire, __exit__=leave))
    for _ in range(ROUNDS):
        lock.__enter__()
        box.value = "done"
        end()
    assert looks.answers == ["done"] * ROUNDS


# The helpers, with and without the lock

BOTH = pytest.mark.parametrize("kind", ["free", "locked"])


def of(kind: str, function: Callable[..., Any]) -> Callable[..., Any]:
    return locked(function) if kind == "locked" else function


@BOTH
def test_items_are_taken_from_either_end(kind: str) -> None:
    for make in list, deque:
        items: Any = make([1, 2, 3])
        assert of(kind, take_first)(items) == 1 and of(kind, take_last)(items) == 3 and [*items] == [2]
    for take in take_first, take_last:
        with pytest.raises(IndexError):
            of(kind, take)([])


@BOTH
def test_the_first_of_a_list_becomes_the_content_of_another(kind: str) -> None:
    source, target = [["a", "b"], ["c"]], ["x"]
    assert of(kind, move_first)(source, target) is True
    assert (source, target) == ([["c"]], ["a", "b"])
    assert of(kind, move_first)([], target) is False
    assert target == ["a", "b"]


def test_what_is_kept_is_what_the_function_returns() -> None:
    results: list[Any] = []
    keep(results, divmod, 7, 2)
    keep(results, time.monotonic)
    assert results[0] == (3, 1) and len(results) == 2
    with pytest.raises(ZeroDivisionError):
        keep(results, divmod, 7, 0)
    assert len(results) == 2


@BOTH
@pytest.mark.parametrize("striking", [Strike, pytest.param(SignalStrike, marks=pytest.mark.untraced)])
def test_an_interrupt_leaves_an_item_here_or_there(kind: str, striking: type[Strike]) -> None:
    take = of(kind, take_first)

    def trial(strike: Strike) -> None:
        here, there = [1], [2]
        taken = 0
        try:
            with strike:
                taken = take(here)
                there += (taken,)
                keep(here, there.pop)
        except Struck:
            pass
        assert sorted(here + there) == [1, 2]
        assert kind == "free" or Background(take, [1]).result() == 1  # the lock is free again

    assert strike_everywhere(trial, kind=striking) >= 3


@BOTH
@pytest.mark.timeout(method="thread")
def test_a_storm_of_interrupts_leaves_every_item_here_or_there(kind: str) -> None:
    """With real signals, which strike where the interpreter looks."""
    move, take = of(kind, move_first), of(kind, take_last)
    lists: list[list[list[int]]] = [[[number] for number in range(10)], []]
    until = time.monotonic() + 1.0
    with storm(0.0002) as raging:
        while time.monotonic() < until:
            hand: list[int] = []
            try:
                if not move(lists[0], hand):
                    lists.reverse()
                    continue
                item = take(hand)
                hand += (item,)
            except Struck:
                pass
            if hand:
                lists[1] += (hand,)
    assert raging.strikes > 0
    assert sorted(item for one in lists for item, in one) == [*range(10)]


def test_what_a_locked_function_does_and_returns_arrives(looks: Looks) -> None:
    box = Box()
    looks.asking = lambda: box.value
    function = locked(pending)
    for _ in range(ROUNDS):
        box.value = None
        box.value = function()
        end()
    assert looks.answers == [7] * ROUNDS


def test_locked_functions_exclude_each_other() -> None:
    box = Box()
    box.value = 0

    @locked
    def count() -> None:
        value = box.value
        time.sleep(0)  # whoever could come in between would
        box.value = value + 1

    @locked
    def count_by(step: int, *, times: int) -> None:
        value = box.value
        time.sleep(0)
        box.value = value + step * times

    def work() -> None:
        for _ in range(200):
            count()
            count_by(1, times=2)

    threads = [Background(work) for _ in range(3)]
    for thread in threads:
        thread.result()
    assert box.value == 3 * 200 * 3


def test_a_locked_function_that_raises_lets_go() -> None:
    @locked
    def fail() -> None:
        raise KeyError("why")

    with pytest.raises(KeyError, match="why"):
        fail()
    assert Background(locked(take_first), [1]).result() == 1


def test_a_signal_handler_may_call_locked_functions_too(looks: Looks) -> None:
    looks.asking = lambda: locked(take_first)([7])
    for _ in range(ROUNDS):
        locked(pending)()
    assert looks.answers == [7] * ROUNDS


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_does_not_wait_for_a_thread_of_the_parents() -> None:
    inside, go = threading.Event(), threading.Event()

    @locked
    def stay() -> None:
        inside.set()
        go.wait(10)

    staying = Background(stay)
    assert inside.wait(10)
    child = fork()
    if not child:
        status = 1
        try:
            signal.alarm(10)
            status = 0 if locked(take_first)([1]) == 1 else 1
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    go.set()
    staying.result()


# What the library says of its own code

NO_MORE = (ast.Call, ast.For, ast.While, ast.With, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.Await,
           ast.Yield, ast.YieldFrom, ast.Import, ast.ImportFrom)
"""Places where the interpreter looks."""
BETWEEN = re.compile(r"# No call between the one and the other")
BEHIND = re.compile(r"# No call from here (on|to the return)")


def places(statements: list[ast.stmt]) -> list[str]:
    return [ast.unparse(node) for statement in statements for node in ast.walk(statement) if isinstance(node, NO_MORE)]


def suites(tree: ast.AST) -> Iterator[list[ast.stmt]]:
    for node in ast.walk(tree):
        for part in ("body", "orelse", "finalbody"):
            suite = getattr(node, part, None)
            if isinstance(suite, list):
                yield suite


def following(tree: ast.AST, line: int, column: int) -> list[ast.stmt]:
    """The statements behind a comment, to the end of where it stands."""
    found = [[one for one in suite if one.lineno > line] for suite in suites(tree) if suite and
             suite[0].col_offset == column and suite[-1].lineno > line]
    return min((rest for rest in found if rest), key=lambda rest: rest[0].lineno)


def promises(source: str) -> Iterator[tuple[int, list[ast.stmt]]]:
    """Where a comment says that there is no call, and the statements of which it says so."""
    tree = ast.parse(source)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and (BETWEEN.match(token.string) or BEHIND.match(token.string)):
            rest = following(tree, *token.start)
            yield token.start[0], rest[:2] if BETWEEN.match(token.string) else rest


def broken_promises(source: str) -> list[str]:
    return [f"{line}: {place}" for line, statements in promises(source) for place in places(statements)]


def divided(source: str) -> list[str]:
    """What the functions have in them that are said to be `undivided`, and are not."""
    return [f"{node.name}: {place}" for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)
            and "undivided" in [ast.unparse(decorator) for decorator in node.decorator_list]
            for place in places(node.body)]


SOURCES = {str(path.relative_to(LIBRARY)): path.read_text(encoding="utf-8") for path in sorted(LIBRARY.rglob("*.py"))}


@pytest.mark.parametrize("name", SOURCES)
def test_where_it_says_that_there_is_no_call_there_is_none(name: str) -> None:
    assert broken_promises(SOURCES[name]) == []
    assert divided(SOURCES[name]) == []


def test_promises_are_found() -> None:
    assert sum(len([*promises(source)]) for source in SOURCES.values()) > 20
    assert sum("@undivided" in source for source in SOURCES.values()) > 2


def test_a_broken_promise_is_found() -> None:
    assert broken_promises(
        "def f():\n    a()\n    # No call from here on, and so no interrupt.\n    b = 1\n    c(b)\n") == ["3: c(b)"]
    assert broken_promises(
        "def f():\n    a = 1\n    # No call between the one and the other.\n    b = a\n    c = b\n    d()\n") == []
    assert divided("@undivided\ndef f():\n    return g()\n") == ["f: g()"]


@pytest.mark.untraced
@pytest.mark.skipif(LOCKED, reason="this is that run")
@pytest.mark.timeout(180)
def test_what_rests_on_it_works_without_the_global_lock() -> None:
    """As if there were none: see `netmsg.uninterrupted.LOCKED`. ``make locked`` does so with all tests."""
    tests = Path(__file__).parent
    names = ["test_uninterrupted.py", "test_waiting.py", "sockets/test_binding.py", "datagrams/test_datagrams.py"]
    with Program("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *(str(tests / name) for name in names),
                 env={"NETMSG_NO_GIL": "1"}) as program:
        assert program.finish(150.0) == 0, str(program)
