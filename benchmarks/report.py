"""A run as Markdown and as JSON: minilog beside its targets, everybody beside one another, floors.

Measures nothing.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.peers import Minilog, Peer
from benchmarks.runner import KEEPS_DATA, Outcome, Sample
from benchmarks.tables import NOTHING, cell, markdown_table, three_digits
from benchmarks.workloads import Metric, Target, Workload

NOTES = (
    "Each figure: median (lowest-highest of the rounds). Of ms, us, MiB and B less is better; of "
    "the rest, more.",
    "Ratio: minilog's figure over the base's within each round, then the median of the rounds.",
    "Best peer: the best of those that keep data, and how many times as good minilog is.",
    "Values of 100 bytes and keys of 8, unless said. What was read back was compared with what was "
    "written, outside the time.",
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

    def target_rows(self) -> Iterable[list[str]]:
        for outcome in self.outcomes:
            base = outcome.workload.base
            yield [
                full_name(outcome),
                outcome.metric.unit,
                cell(outcome.samples.get(Minilog.name)),
                _best(outcome),
                _ratio(outcome),
                _target(outcome.row.target, outcome.metric, base),
                {None: NOTHING, True: "yes", False: "no"}[outcome.is_target_met],
            ]

    def peer_rows(self) -> Iterable[list[str]]:
        for outcome in self.outcomes:
            yield [full_name(outcome), outcome.metric.unit, *self._peer_cells(outcome)]

    def _peer_cells(self, outcome: Outcome) -> Iterable[str]:
        for peer in self.peers:
            failure = outcome.failures.get(peer.name)
            shown = failure.partition(":")[0].upper() if failure else None
            yield shown or cell(outcome.samples.get(peer.name))

    def failure_rows(self) -> list[list[str]]:
        reasons = {
            (f"{outcome.workload.name} {outcome.workload.title}", name, failure): None
            for outcome in self.outcomes
            for name, failure in outcome.failures.items()
        }
        return [list(reason) for reason in reasons]

    def floor_rows(self) -> Iterable[list[str]]:
        for label, sample in self.floors.items():
            yield [label, f"{cell(sample, '{:,.0f}'.format)} ns" if sample else "not installed"]

    def facts(self) -> list[list[str]]:
        """What the figures hold for."""
        facts = [[name, text] for name, text in self.machine.items()]
        facts += [[f"{work.name} {work.title}", work.not_here] for work in self.not_here]
        return [*facts, ["size", f"{self.size}, {self.rounds} rounds"], ["command", self.command]]

    def meaning_rows(self) -> Iterable[list[str]]:
        for peer in self.peers:
            most = f" At most {peer.most_records:,} records here." if peer.most_records else ""
            yield [peer.name, str(peer.version()), peer.meaning + most]
        for peer in self.absent:
            yield [peer.name, f"absent: pip install {peer.package}", peer.meaning]

    def verdict(self, base: str = "lmdb") -> str:
        """The best and the worst ratio to one peer, each as "times as good"."""
        ranked = sorted(
            (outcome.advantage, full_name(outcome))
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


def as_markdown(report: Report) -> str:
    target_header = ["work", "unit", "minilog", "best peer", "ratio", "target", "met"]
    peer_header = ["work", "unit", *(peer.name for peer in report.peers)]
    blocks = [
        markdown_table(target_header, report.target_rows()),
        " ".join(NOTES),
        markdown_table(peer_header, report.peer_rows()),
        markdown_table(["peer", "version", "what its append means"], report.meaning_rows()),
        markdown_table(["floor of this machine", "cost"], report.floor_rows()),
        markdown_table(["of", "this run"], report.facts()),
        report.verdict(),
    ]
    failures = report.failure_rows()
    if failures:
        blocks.insert(3, markdown_table(["work", "peer", "why it has no figure"], failures))
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


def full_name(outcome: Outcome) -> str:
    return f"{outcome.workload.name} {outcome.workload.title}: {outcome.row.label}"


def _peer_json(peer: type[Peer]) -> dict[str, Any]:
    return {
        "version": peer.version(),
        "append_means": peer.meaning,
        "keeps_data": peer.name in KEEPS_DATA,
        "most_records": peer.most_records,
    }


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
        "failures": outcome.failures,
        "base": outcome.workload.base,
        "ratio": _sample_json(outcome.ratio),
        "best_peer": outcome.best_peer,
        "against_best_peer": outcome.against_best(Minilog.name),
        "target": _target(target, outcome.metric, outcome.workload.base) if target else None,
        "target_met": outcome.is_target_met,
    }


def _best(outcome: Outcome) -> str:
    name, times = outcome.best_peer, outcome.against_best(Minilog.name)
    if name is None:
        return NOTHING
    figure = cell(outcome.samples[name])
    return f"{name} {figure}: {three_digits(times)} times" if times else f"{name} {figure}"


def _ratio(outcome: Outcome) -> str:
    if outcome.ratio is None:
        return NOTHING
    return f"{cell(outcome.ratio, lambda ratio: f'{ratio:.2f}')} x {outcome.workload.base}"


def _target(target: Target | None, metric: Metric, base: str | None) -> str:
    if target is None:
        return NOTHING
    sign = ">=" if metric.more_is_better else "<="
    limit = f"{target.limit:,.0f}" if target.limit >= 1_000 else f"{target.limit:.3g}"
    return f"{sign} {limit} {f'x {base}' if target.is_ratio else metric.unit}"
