"""The ratios as an SVG chart, drawn by matplotlib."""

from __future__ import annotations

import textwrap
from pathlib import Path

from .results import Comparison, Measured, format_ratio

COLOURS = {"pyzmq": "#3b75af", "plain": "#8d8d8d"}
OTHER_COLOUR = "#c5803e"


def _label(comparison: Comparison) -> str:
    better = "\nless is better" if comparison.workload.less_is_better else ""
    return f"{comparison.workload.id}  {comparison.workload.title} ÷ {comparison.other}{better}"


def draw(measured: list[Measured], conditions: dict[str, str], path: Path) -> bool:
    """Write the chart to ``path``: a bar for the median ratio, a dot for each round. ``False``: no matplotlib."""
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "netmsg"
    from matplotlib import pyplot

    comparisons = [(comparison, comparison.ratio) for done in measured for comparison in done.comparisons
                   if comparison.ratio is not None]
    figure, axes = pyplot.subplots(figsize=(10, 1.5 + 0.45 * len(comparisons)), layout="constrained")
    axes.axvline(1, color="black", linewidth=0.8)
    for row, (comparison, median) in enumerate(comparisons):
        ratios = [ratio for ratio in comparison.ratios if ratio is not None]
        axes.barh(row, median, color=COLOURS.get(comparison.other, OTHER_COLOUR), height=0.6)
        axes.plot(ratios, [row] * len(ratios), "o", color="black", markersize=3)
        axes.annotate(format_ratio(median), (max(ratios), row), (6, 0), textcoords="offset points",
                      va="center")
    axes.set_yticks(range(len(comparisons)), [_label(comparison) for comparison, _ in comparisons])
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.set_xlim(left=0)
    axes.set_title("netmsg divided by the other: median ratio, and each round")
    what_and_where = ", ".join(f"{name} {value}" for name, value in conditions.items())
    figure.supxlabel(textwrap.fill(what_and_where, 100), fontsize="small")
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return True
