"""Rounds: every case of a workload once a round, the order rotated, ratios within the round.

Absolute figures move up to twofold from minute to minute on a shared machine; what is taken a
moment apart moves together. So a ratio is computed in each round and the median is told.
"""

import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.data import Scale
from benchmarks.measures import Figures
from benchmarks.peers import Minilog, Peer
from benchmarks.workloads import Metric, Options, Row, Workload

CaseKey = tuple[str, frozenset[tuple[str, object]]]


@dataclass(frozen=True)
class Case:
    """One peer doing one workload one way; rows may share it."""

    peer: type[Peer]
    options: Options

    @property
    def key(self) -> CaseKey:
        return self.peer.name, frozenset(self.options.items())


@dataclass(frozen=True)
class Sample:
    """The same figure, once a round."""

    figures: tuple[float, ...]

    @property
    def median(self) -> float:
        return median(self.figures)

    @property
    def lowest(self) -> float:
        return min(self.figures)

    @property
    def highest(self) -> float:
        return max(self.figures)


@dataclass(frozen=True)
class Outcome:
    """What was measured for one row of the table."""

    workload: Workload
    row: Row
    samples: dict[str, Sample]  # by peer
    base: Sample | None  # None where the base is not installed

    @property
    def metric(self) -> Metric:
        return self.row.metric or self.workload.metric

    @property
    def ratio(self) -> Sample | None:
        """minilog's figure over the base's, round by round."""
        mine = self.samples.get(Minilog.name)
        if mine is None or self.base is None or not all(self.base.figures):
            return None
        pairs = zip(mine.figures, self.base.figures, strict=True)
        return Sample(tuple(figure / base for figure, base in pairs))

    @property
    def advantage(self) -> float | None:
        """How many times as good as the base, whichever way the metric points."""
        if self.ratio is None or not self.ratio.median:
            return None
        ratio = self.ratio.median
        return ratio if self.metric.more_is_better else 1 / ratio

    @property
    def is_target_met(self) -> bool | None:
        target = self.row.target
        reached = self.ratio if target and target.is_ratio else self.samples.get(Minilog.name)
        if target is None or reached is None:
            return None
        if self.metric.more_is_better:
            return reached.median >= target.limit
        return reached.median <= target.limit


def run(
    workloads: Iterable[Workload],
    peers: Sequence[type[Peer]],
    directory: Path,
    scale: Scale,
    rounds: int,
    progress: Callable[[str], None],
) -> list[Outcome]:
    outcomes: list[Outcome] = []
    for workload in workloads:
        if workload.not_here:
            continue
        progress(f"{workload.name} {workload.title}")
        cases = _cases(workload, peers)
        taken: dict[CaseKey, list[Figures]] = {case.key: [] for case in cases}
        for turn in range(rounds if workload.varies else 1):
            first = turn % len(cases)
            for case in cases[first:] + cases[:first]:
                taken[case.key].append(_measure(workload, case, directory, scale))
        outcomes += (_outcome(workload, row, peers, taken) for row in workload.rows)
    return outcomes


def _cases(workload: Workload, peers: Sequence[type[Peer]]) -> list[Case]:
    wanted = [_case(workload, row, peer) for row in workload.rows for peer in peers]
    wanted += [_base_case(workload, row, peers) for row in workload.rows]
    distinct = {case.key: case for case in wanted if case is not None}
    return list(distinct.values())


def _case(workload: Workload, row: Row, peer: type[Peer]) -> Case | None:
    own = row.minilog if peer is Minilog else {}
    return _offered(peer, {**workload.options, **row.options, **own})


def _base_case(workload: Workload, row: Row, peers: Sequence[type[Peer]]) -> Case | None:
    base = next((peer for peer in peers if peer.name == workload.base), None)
    return _offered(base, {**workload.options, **row.options, **row.base}) if base else None


def _offered(peer: type[Peer], options: Options) -> Case | None:
    return Case(peer, options) if hasattr(peer, options["verb"]) else None


def _measure(workload: Workload, case: Case, directory: Path, scale: Scale) -> Figures:
    fresh = directory / "case"
    fresh.mkdir()
    try:
        return workload.measure(case.peer, fresh, scale, **case.options)
    finally:
        shutil.rmtree(fresh)


def _outcome(
    workload: Workload,
    row: Row,
    peers: Sequence[type[Peer]],
    taken: dict[CaseKey, list[Figures]],
) -> Outcome:
    metric = row.metric or workload.metric

    def sample(case: Case | None) -> Sample | None:
        if case is None:
            return None
        return Sample(tuple(figures[metric.name] for figures in taken[case.key]))

    samples = {peer.name: sample(_case(workload, row, peer)) for peer in peers}
    return Outcome(
        workload,
        row,
        {name: found for name, found in samples.items() if found is not None},
        sample(_base_case(workload, row, peers)),
    )
