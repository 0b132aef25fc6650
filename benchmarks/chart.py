"""A run as one picture: how many times as good as the best peer everybody is, row by row.

matplotlib is imported when there is something to draw. Measures nothing.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.peers import Minilog
from benchmarks.report import Report, full_name
from benchmarks.runner import KEEPS_DATA, Outcome
from benchmarks.workloads import KEPT

MISSING = "a chart needs matplotlib: pip install 'minilog[bench]'"
MARKERS = "osD^vP*X<>hp"
ROW_INCHES = 0.3


def is_drawable() -> bool:
    return find_spec("matplotlib") is not None


def draw(report: Report, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    outcomes = [
        outcome
        for outcome in report.outcomes
        if outcome.metric is not KEPT and outcome.against_best(Minilog.name) is not None
    ]
    figure = Figure(figsize=(13, 2.5 + ROW_INCHES * len(outcomes)), layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.add_subplot()
    rows = range(len(outcomes))
    axes.hlines(rows, 0, 1, transform=axes.get_yaxis_transform(), color="0.93", zorder=0)
    axes.axvline(1, color="0.4", linewidth=1, zorder=1)
    for number, name in enumerate(_drawn(report)):
        _scatter(axes, outcomes, name, number)
    axes.set_xscale("log")
    axes.set_yticks(rows, [full_name(outcome) for outcome in outcomes], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("times as good as the best peer but minilog that keeps data (log scale)")
    axes.xaxis.set_major_formatter(lambda ratio, _: f"{ratio:g}")
    axes.set_title(f"minilog and others, {report.machine['date']}, size {report.size}", fontsize=11)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=8, frameon=False)
    figure.savefig(path, dpi=120, format="png")


def _drawn(report: Report) -> list[str]:
    """minilog last, so that nothing covers it."""
    names = [peer.name for peer in report.peers if peer.name in KEEPS_DATA]
    return [*(name for name in names if name != Minilog.name), Minilog.name]


def _scatter(axes: Any, outcomes: Sequence[Outcome], name: str, number: int) -> None:
    points = [
        (ratio, row)
        for row, outcome in enumerate(outcomes)
        if (ratio := outcome.against_best(name)) is not None
    ]
    if not points:
        return
    is_ours = name == Minilog.name
    axes.scatter(
        *zip(*points, strict=True),
        label=name,
        marker="o" if is_ours else MARKERS[1 + number % (len(MARKERS) - 1)],
        s=90 if is_ours else 28,
        color="crimson" if is_ours else f"C{number}" if number < 10 else "black",
        alpha=1 if is_ours else 0.7,
        zorder=3 if is_ours else 2,
    )
