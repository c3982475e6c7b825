"""What came out: ratios first, figures beside them, as a Markdown document."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import netmsg

from .running import Run
from .workloads import Workload

HEADINGS = ("", "workload", "against", "**ratio**", "each round", "netmsg", "the other", "bottleneck of netmsg",
            "of the other")


@dataclass
class Measured:
    """A workload and its runs: one a round for each contender, ``None`` where it failed."""

    workload: Workload
    runs: dict[str, list[Run | None]] = field(default_factory=dict)

    def add(self, name: str, run: Run | None) -> None:
        self.runs.setdefault(name, []).append(run)

    @property
    def failed(self) -> bool:
        return any(run is None for runs in self.runs.values() for run in runs)

    @property
    def comparisons(self) -> list[Comparison]:
        """netmsg and each of the others that took part."""
        own, *others = (contender.name for contender in self.workload.contenders if contender.name in self.runs)
        return [Comparison(self.workload, other, self.runs[own], self.runs[other]) for other in others]


@dataclass(frozen=True)
class Comparison:
    """netmsg and one other, round by round."""

    workload: Workload
    other: str
    own_runs: list[Run | None]
    other_runs: list[Run | None]

    @property
    def ratios(self) -> list[float | None]:
        """netmsg's figure divided by the other's, of each round."""
        return [own.value / other.value if own and other else None
                for own, other in zip(self.own_runs, self.other_runs, strict=True)]

    @property
    def ratio(self) -> float | None:
        """The median."""
        ratios = [ratio for ratio in self.ratios if ratio is not None]
        return statistics.median(ratios) if ratios else None

    @property
    def cells(self) -> tuple[str, ...]:
        """One row of the table, under `HEADINGS`."""
        title = self.workload.title + (" (less is better)" if self.workload.less_is_better else "")
        return (self.workload.id, title, self.other, f"**{format_ratio(self.ratio)}**",
                " · ".join(map(format_ratio, self.ratios)),
                format_median(self.own_runs, self.workload.unit), format_median(self.other_runs, self.workload.unit),
                format_bottleneck(self.own_runs), format_bottleneck(self.other_runs))


def format_ratio(ratio: float | None) -> str:
    return "failed" if ratio is None else f"{ratio:.2f}"


def format_value(value: float, unit: str) -> str:
    """Three digits and the unit: 1.23 M msg/s, 83.0 µs."""
    if unit == "s":
        return f"{value * 1e6:.1f} µs"
    if value >= 1e6:
        return f"{value / 1e6:.2f} M {unit}"
    return f"{value / 1e3:.1f} k {unit}"


def format_median(runs: list[Run | None], unit: str) -> str:
    values = [run.value for run in runs if run]
    return format_value(statistics.median(values), unit) if values else "failed"


def format_bottleneck(runs: list[Run | None]) -> str:
    """Of the median run: the busier side, and the share of a core that each side used."""
    done = sorted((run for run in runs if run), key=lambda run: run.value)
    if not done:
        return ""
    run = done[len(done) // 2]
    return f"{run.bottleneck} ({run.source.cpu:.0%} / {run.sink.cpu:.0%})"


def machine(pyzmq: str | None) -> dict[str, str]:
    """What was measured, and on what; to be called before measuring, for the load that was there already."""
    return {
        "netmsg": netmsg.__version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "pyzmq": pyzmq or "not measured",
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "CPUs": str(len(os.sched_getaffinity(0))),
        "load before": f"{os.getloadavg()[0]:.2f}",
    }


def table(measured: list[Measured]) -> str:
    """The comparisons as a Markdown table."""
    rows = [comparison.cells for done in measured for comparison in done.comparisons]
    if not rows:
        return "There was nobody to compare with."
    return _markdown(HEADINGS, rows)


def _markdown(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (headings, ("---",) * len(headings), *rows))


def latencies(measured: list[Measured]) -> list[str]:
    """The p99 of the echo servers as a Markdown table, if any were measured."""
    rows = []
    for done in measured:
        own, *others = (contender.name for contender in done.workload.contenders if contender.name in done.runs)
        for other in others:
            ours, theirs = (median_p99(done.runs[name]) for name in (own, other))
            if ours and theirs:
                rows.append((done.workload.id, done.workload.title, other, f"**{ours / theirs:.2f}**",
                             format_value(ours, "s"), format_value(theirs, "s")))
    if not rows:
        return []
    headings = ("", "the time in which 99 of 100 answers came (less is better)", "against", "**ratio**", "netmsg",
                "the other")
    return [_markdown(headings, rows), ""]


def median_p99(runs: list[Run | None]) -> float | None:
    times = [run.source.p99 for run in runs if run and run.source.p99 is not None]
    return statistics.median(times) if times else None


def document(measured: list[Measured], conditions: dict[str, str], rounds: int, quick: bool) -> str:
    """The Markdown document: the table, and how it came about."""
    lines = ["# netmsg, measured", ""]
    if quick:
        lines += ["A quick run, to see whether everything works: **the figures mean nothing.**", ""]
    lines += [
        f"Ratio: netmsg's figure divided by the other's in the same round; the median of {rounds}. The figures beside "
        "it are medians too, and hold for this machine at that time only. Bottleneck: the side that had no time to "
        "spare, and the share of a core that the sending and the receiving process used. `benchmarks/README.md` says "
        "what is measured and how.",
        "", table(measured), "", *latencies(measured),
        ", ".join(f"{name} {value}" for name, value in conditions.items()), ""]
    return "\n".join(lines)
