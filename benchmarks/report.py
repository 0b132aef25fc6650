"""The figures as a table for a terminal, as Markdown and as JSON.

A cell is the median and, in brackets, the lowest and highest of the rounds. Measures nothing.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any

from benchmarks.peers import Peer
from benchmarks.runner import Outcome, Sample
from benchmarks.workloads import Metric, Target, Workload

NOTHING = "-"
NOTES = (
    "Each figure: median (lowest-highest). Of ms, us, MiB and B less is better; of the rest, more.",
    "Ratio: minilog's figure over the base's, within each round; then the median of the rounds.",
    "Values of 100 bytes and keys of 8, unless said.",
)


@dataclass(frozen=True)
class Report:
    command: str
    size: str
    rounds: int
    machine: dict[str, str]
    peers: Sequence[type[Peer]]
    absent: Sequence[type[Peer]]
    floors: dict[str, Sample | None]
    outcomes: Sequence[Outcome]
    not_here: Sequence[Workload]

    def header(self) -> list[str]:
        return ["work", "unit", *(peer.name for peer in self.peers), "ratio", "target", "met"]

    def rows(self, name: Callable[[Outcome], str]) -> Iterable[list[str]]:
        for outcome in self.outcomes:
            samples = (outcome.samples.get(peer.name) for peer in self.peers)
            yield [
                name(outcome),
                outcome.metric.unit,
                *(_cell(sample) for sample in samples),
                _ratio(outcome),
                _target(outcome.row.target, outcome.metric, outcome.workload.base),
                {None: NOTHING, True: "yes", False: "no"}[outcome.is_target_met],
            ]

    def floor_rows(self) -> Iterable[list[str]]:
        for label, sample in self.floors.items():
            yield [label, f"{_cell(sample, '{:,.0f}'.format)} ns" if sample else "not installed"]

    def facts(self) -> list[list[str]]:
        """What the figures hold for."""
        facts = [[name, text] for name, text in self.machine.items()]
        facts += [[peer.name, str(peer.version())] for peer in self.peers]
        facts += [[peer.name, "absent: not installed"] for peer in self.absent]
        facts += [[f"{work.name} {work.title}", work.not_here] for work in self.not_here]
        return [*facts, ["size", f"{self.size}, {self.rounds} rounds"], ["command", self.command]]

    def meanings(self) -> list[list[str]]:
        return [[peer.name, peer.meaning] for peer in self.peers]

    def verdict(self, base: str = "lmdb") -> str:
        """The best and the worst ratio to one peer, each as "times as good"."""
        ranked = sorted(
            (outcome.advantage, _full_name(outcome))
            for outcome in self.outcomes
            if outcome.workload.base == base and outcome.advantage is not None
        )
        if not ranked:
            return f"Against {base}: nothing to compare."
        (worst, worst_at), (best, best_at) = ranked[0], ranked[-1]
        return (
            f"Against {base}: worst {worst:.2f} times as good ({worst_at}), "
            f"best {best:.2f} times ({best_at})."
        )


def as_text(report: Report) -> str:
    return "\n".join(
        [
            *_table(report),
            "",
            *NOTES,
            "",
            "What an append means:",
            *_columns(report.meanings(), indent="  "),
            "",
            "What the machine asks for the least of things:",
            *_columns(report.floor_rows(), indent="  "),
            "",
            *_columns(report.facts()),
            "",
            report.verdict(),
        ]
    )


def as_markdown(report: Report) -> str:
    blocks = [
        _markdown_table(report.header(), report.rows(_full_name)),
        " ".join(NOTES),
        _markdown_table(["peer", "what its append means"], report.meanings()),
        _markdown_table(["floor", "cost"], report.floor_rows()),
        _markdown_table(["of", "this run"], report.facts()),
        report.verdict(),
    ]
    return "\n\n".join(blocks) + "\n"


def as_json(report: Report) -> str:
    content = {
        "command": report.command,
        "size": report.size,
        "rounds": report.rounds,
        "machine": report.machine,
        "peers": {peer.name: _peer_json(peer) for peer in [*report.peers, *report.absent]},
        "floors_ns": {label: _sample_json(sample) for label, sample in report.floors.items()},
        "outcomes": [_outcome_json(outcome) for outcome in report.outcomes],
        "not_here": {f"{work.name} {work.title}": work.not_here for work in report.not_here},
        "verdict": report.verdict(),
    }
    return json.dumps(content, indent=2) + "\n"


def _table(report: Report) -> Iterable[str]:
    """One line for each row, under the title of its workload."""
    rows = report.rows(lambda outcome: f"  {outcome.row.label}")
    header, *lines = _columns([report.header(), *rows])
    yield header
    rest = iter(lines)
    for workload, group in groupby(report.outcomes, lambda outcome: outcome.workload):
        yield f"{workload.name} {workload.title}"
        yield from islice(rest, sum(1 for _ in group))


def _full_name(outcome: Outcome) -> str:
    return f"{outcome.workload.name} {outcome.workload.title}: {outcome.row.label}"


def _peer_json(peer: type[Peer]) -> dict[str, str | None]:
    return {"version": peer.version(), "append_means": peer.meaning}


def _sample_json(sample: Sample | None) -> dict[str, Any] | None:
    if sample is None:
        return None
    return {"median": sample.median, "rounds": list(sample.figures)}


def _outcome_json(outcome: Outcome) -> dict[str, Any]:
    target = outcome.row.target
    return {
        "workload": outcome.workload.name,
        "title": outcome.workload.title,
        "row": outcome.row.label,
        "unit": outcome.metric.unit,
        "more_is_better": outcome.metric.more_is_better,
        "figures": {name: _sample_json(sample) for name, sample in outcome.samples.items()},
        "base": outcome.workload.base,
        "ratio": _sample_json(outcome.ratio),
        "target": _target(target, outcome.metric, outcome.workload.base) if target else None,
        "target_met": outcome.is_target_met,
    }


def _cell(sample: Sample | None, show: Callable[[float], str] | None = None) -> str:
    if sample is None:
        return NOTHING
    show = show or _short
    if len(sample.figures) == 1:
        return show(sample.median)
    return f"{show(sample.median)} ({show(sample.lowest)}-{show(sample.highest)})"


def _short(figure: float) -> str:
    """Three digits, and k or M."""
    for size, suffix in ((1e6, "M"), (1e3, "k")):
        if figure >= size * 0.9995:
            return f"{_three_digits(figure / size)}{suffix}"
    return _three_digits(figure)


def _three_digits(figure: float) -> str:
    decimals = 0 if figure >= 99.95 else 1 if figure >= 9.995 else 2
    return f"{figure:.{decimals}f}"


def _ratio(outcome: Outcome) -> str:
    if outcome.ratio is None:
        return NOTHING
    return f"{_cell(outcome.ratio, lambda ratio: f'{ratio:.2f}')} x {outcome.workload.base}"


def _target(target: Target | None, metric: Metric, base: str) -> str:
    if target is None:
        return NOTHING
    sign = ">=" if metric.more_is_better else "<="
    return f"{sign} {target.limit:g} {f'x {base}' if target.is_ratio else metric.unit}"


def _columns(rows: Iterable[Sequence[str]], indent: str = "") -> list[str]:
    """Rows with their cells under one another."""
    table = list(rows)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        indent
        + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]


def _markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
