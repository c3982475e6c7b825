"""Measure netmsg against its peers: ``python -m benchmarks [WORKLOAD...]``."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from .chart import draw
from .peers.contract import DEADLINE
from .results import Measured, document, format_value, machine
from .running import RunFailed, run
from .workloads import NETMSG, PEERS, PYZMQ, QUICK, WORKLOADS, Workload

RESULTS = Path(__file__).parent / "results"
ROUNDS = 3


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD",
                        help=f"what to measure, of {', '.join(WORKLOADS)}; everything by default")
    parser.add_argument("--rounds", type=int, metavar="N",
                        help=f"how often each contender runs: {ROUNDS} times by default, with --quick once")
    parser.add_argument("--quick", action="store_true",
                        help=f"{QUICK} times fewer messages: shows whether it works, the figures mean nothing")
    parser.add_argument("--without", action="append", default=[], choices=[name for name in PEERS if name != NETMSG],
                        help="leave out this peer; may be given several times")
    parser.add_argument("--output", type=Path, metavar="DIRECTORY",
                        help="where latest.md and latest.svg go: benchmarks/results by default, with --quick nowhere")
    options = parser.parse_args(arguments)
    for name in options.workloads:
        if name not in WORKLOADS:
            parser.error(f"there is no workload {name}; there are {', '.join(WORKLOADS)}")
    options.rounds = options.rounds if options.rounds is not None else 1 if options.quick else ROUNDS
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    options.output = options.output or (None if options.quick else RESULTS)
    return options


def _pyzmq_version() -> str | None:
    """The versions of pyzmq and of the library it wraps; ``None`` where it is not installed."""
    try:
        import zmq
    except ImportError:
        return None
    return f"{zmq.pyzmq_version()} (libzmq {zmq.zmq_version()})"


def _say(text: str, end: str = "\n") -> None:
    """Progress goes to the standard error, the results to the standard output."""
    print(text, end=end, file=sys.stderr, flush=True)


def _measure(workload: Workload, rounds: int, left_out: Collection[str]) -> Measured:
    """Run the contenders in turn, ``rounds`` times over: what slows the machine down for a while slows them all."""
    measured = Measured(workload)
    contenders = [contender for contender in workload.contenders if contender.peer not in left_out]
    _say(f"{workload.id}  {workload.title}")
    for number in range(1, rounds + 1):
        for contender in contenders:
            _say(f"    round {number} of {rounds}  {contender.name:10}", end="")
            try:
                done = run(contender, workload.size, workload.count, DEADLINE)
            except RunFailed as error:
                measured.add(contender.name, None)
                _say(f" FAILED: {error}")
            else:
                measured.add(contender.name, done)
                _say(f" {format_value(done.value, workload.unit):>14}   CPU: source {done.source.cpu:4.0%}, "
                     f"sink {done.sink.cpu:4.0%}")
    return measured


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and keep the results. Return the exit status: 1 if a run failed."""
    options = _arguments(arguments)
    left_out = set(options.without)
    pyzmq = None if PYZMQ in left_out else _pyzmq_version()
    if pyzmq is None and PYZMQ not in left_out:
        _say("pyzmq is not installed: measured without it (`make bench` installs it)")
        left_out.add(PYZMQ)
    conditions = machine(pyzmq)
    workloads = [WORKLOADS[name] for name in dict.fromkeys(options.workloads or WORKLOADS)]
    if options.quick:
        workloads = [dataclasses.replace(workload, count=workload.count // QUICK) for workload in workloads]
    start = time.monotonic()
    measured = [_measure(workload, options.rounds, left_out) for workload in workloads]
    _say(f"measured in {time.monotonic() - start:.0f} s\n")
    text = document(measured, conditions, options.rounds, options.quick)
    print(text)
    if options.output is not None:
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / "latest.md").write_text(text, encoding="utf-8")
        if not draw(measured, conditions, options.output / "latest.svg"):
            _say("matplotlib is not installed: there is no chart (`make bench` installs it)")
        _say(f"the results are in {options.output}")
    return int(any(done.failed for done in measured))


if __name__ == "__main__":
    sys.exit(main())
