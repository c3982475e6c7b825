"""The inputs of a target: its corpus, and then as many mutated ones as are asked for; the same ones each time."""

from __future__ import annotations

import base64
import hashlib
import os
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from .mutating import Mutator
from .targets import TARGETS

__all__ = ["CORPUS", "Failure", "corpus_of", "explore", "inputs_of", "mutated", "name_of"]

CORPUS: Final = Path(__file__).parent / "corpus"
INPUTS: Final = 1_000_000 if os.environ.get("NETMSG_SOAK") else 20_000
"""Mutated ones, over all targets."""


class Failure(NamedTuple):
    """An input for which something does not hold."""

    target: str
    data: bytes
    error: Exception

    def __str__(self) -> str:
        story = "".join(traceback.format_exception(self.error))
        encoded = base64.b64encode(self.data).decode()
        return (f"{story}\n{self.target}, with {self.data[:200]!r} ({len(self.data)} bytes).\n"
                f"Again:    cd tests && python -m fuzzing {self.target} --again {encoded}\n"
                f"For good: the same with --keep, as corpus/{self.target}/{name_of(self.data)}")


def name_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def corpus_of(target: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((CORPUS / target).iterdir())}


def mutated(target: str) -> int:
    """How many there are for this one."""
    return INPUTS * TARGETS[target].share // 1000


def inputs_of(target: str, count: int) -> Iterator[bytes]:
    corpus = list(corpus_of(target).values())
    yield from corpus
    mutator = Mutator(corpus, target)
    for _ in range(count):
        yield mutator.next()


def explore(target: str, count: int) -> Failure | None:
    """The first input that fails, if there is one."""
    function = TARGETS[target].function
    for data in inputs_of(target, count):
        try:
            function(data)
        except Exception as error:
            return Failure(target, data, error)
    return None
