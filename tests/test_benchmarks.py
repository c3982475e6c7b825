"""That the benchmarks run. Nothing is said about the figures."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
RATIO = r"\*\*\d+\.\d\d\*\*"


def run_benchmarks(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "benchmarks", *arguments], cwd=ROOT, capture_output=True, text=True,
                          encoding="utf-8", timeout=50)


@pytest.mark.untraced
def test_a_quick_run_prints_and_keeps_a_table_of_ratios(tmp_path: Path) -> None:
    done = run_benchmarks("--quick", "--rounds", "2", "--without", "pyzmq", "--output", str(tmp_path), "P1", "P5",
                          "P12b")
    assert done.returncode == 0, done.stderr
    for workload, other in (("P1", "plain"), ("P5", "plain"), ("P12b", "the disk's syncs")):
        assert re.search(rf"^\| {workload} \| [^|]+ \| {other} \| {RATIO} \| \d+\.\d\d · \d+\.\d\d \|", done.stdout,
                         re.M)
    assert "pyzmq not measured" in done.stdout
    assert (tmp_path / "latest.md").read_text(encoding="utf-8") in done.stdout
    assert "round 2 of 2  plain" in done.stderr


def test_an_unknown_workload_is_refused_with_the_known_ones() -> None:
    done = run_benchmarks("P0")
    assert done.returncode == 2
    assert "there is no workload P0; there are P1, " in done.stderr
