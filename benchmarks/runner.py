"""Rounds: every case of a workload once a round, the order rotated, ratios within the round.

Absolute figures move up to twofold from minute to minute on a shared machine; what is taken a
moment apart moves together. So a ratio is computed in each round and the median is told.
A peer that fails, or does not give back what it was given, has no figure but the reason why.
"""

import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks.contents import WrongResult
from benchmarks.data import Scale
from benchmarks.measures import Figures
from benchmarks.peers import PEERS, Minilog, Peer
from benchmarks.workloads import Metric, Options, Row, Workload

CaseKey = tuple[str, frozenset[tuple[str, object]]]
KEEPS_DATA = frozenset(peer.name for peer in PEERS if peer.is_persistent)


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

    def over(self, base: "Sample | None") -> "Sample | None":
        """The ratio in each round; None where there is nothing to divide by."""
        if base is None or not all(base.figures):
            return None
        pairs = zip(self.figures, base.figures, strict=True)
        return Sample(tuple(figure / other for figure, other in pairs))


@dataclass(frozen=True)
class Outcome:
    """What was measured for one row of the table."""

    workload: Workload
    row: Row
    samples: dict[str, Sample]  # by peer
    base: Sample | None  # None where the base is not installed
    failures: dict[str, str] = field(default_factory=dict)  # by peer: why it has no sample

    @property
    def metric(self) -> Metric:
        return self.row.metric or self.workload.metric

    @property
    def ratio(self) -> Sample | None:
        """minilog's figure over the base's, round by round."""
        mine = self.samples.get(Minilog.name)
        return mine.over(self.base) if mine else None

    @property
    def advantage(self) -> float | None:
        """How many times as good as the base, whichever way the metric points."""
        return self._times_as_good(self.ratio)

    @property
    def best_peer(self) -> str | None:
        """Who does it best of those that keep data, minilog aside."""
        ranked = sorted(
            (sample.median, name)
            for name, sample in self.samples.items()
            if name in KEEPS_DATA and name != Minilog.name
        )
        if not ranked:
            return None
        return ranked[-1 if self.metric.more_is_better else 0][1]

    def against_best(self, name: str) -> float | None:
        """How many times as good a peer is as the best one (minilog aside), the median round."""
        best, sample = self.best_peer, self.samples.get(name)
        if best is None or sample is None:
            return None
        return self._times_as_good(sample.over(self.samples[best]))

    def _times_as_good(self, ratio: Sample | None) -> float | None:
        if ratio is None or not ratio.median:
            return None
        return ratio.median if self.metric.more_is_better else 1 / ratio.median

    @property
    def is_target_met(self) -> bool | None:
        target = self.row.target
        reached = self.ratio if target and target.is_ratio else self.samples.get(Minilog.name)
        if target is None or reached is None:
            return None
        if self.metric.more_is_better:
            return reached.median >= target.limit
        return reached.median <= target.limit


@dataclass
class Taken:
    """The figures of one case so far, or why there are none."""

    figures: list[Figures] = field(default_factory=list)
    failure: str = ""


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
        taken = {case.key: Taken() for case in cases}
        for turn in range(rounds if workload.varies else 1):
            first = turn % len(cases)
            for case in cases[first:] + cases[:first]:
                if not taken[case.key].failure:
                    _take(taken[case.key], workload, case, directory, scale, progress)
        outcomes += (_outcome(workload, row, peers, taken) for row in workload.rows)
    return outcomes


def _take(
    taken: Taken,
    workload: Workload,
    case: Case,
    directory: Path,
    scale: Scale,
    progress: Callable[[str], None],
) -> None:
    try:
        taken.figures.append(_measure(workload, case, directory, scale))
    except WrongResult as wrong:
        if case.peer is Minilog:
            raise
        taken.failure = f"wrong: {wrong}"
    except Exception as error:
        if case.peer is Minilog:
            raise
        taken.failure = f"failed: {type(error).__name__}: {error}"
    if taken.failure:
        progress(f"   {case.peer.name}: {taken.failure}")


def _cases(workload: Workload, peers: Sequence[type[Peer]]) -> list[Case]:
    wanted = [_case(workload, row, peer) for row in workload.rows for peer in peers]
    wanted += [_base_case(workload, row, peers) for row in workload.rows]
    distinct = {case.key: case for case in wanted if case is not None}
    return list(distinct.values())


def _case(workload: Workload, row: Row, peer: type[Peer]) -> Case | None:
    own = row.minilog if peer is Minilog else {}
    return _offered(workload, peer, {**workload.options, **row.options, **own})


def _base_case(workload: Workload, row: Row, peers: Sequence[type[Peer]]) -> Case | None:
    base = next((peer for peer in peers if peer.name == workload.base), None)
    if base is None:
        return None
    return _offered(workload, base, {**workload.options, **row.options, **row.base})


def _offered(workload: Workload, peer: type[Peer], options: Options) -> Case | None:
    if workload.is_on_disk and not peer.is_persistent:
        return None
    if "fill" in options and not hasattr(peer, options["fill"]):
        # Who has no bulk is filled as it can be; what is timed is the reading.
        options = {**options, "fill": "append_singly"}
    verbs = (options["verb"], options.get("fill", options["verb"]))
    return Case(peer, options) if all(hasattr(peer, verb) for verb in verbs) else None


def _measure(workload: Workload, case: Case, directory: Path, scale: Scale) -> Figures:
    fresh = directory / "case"
    fresh.mkdir()
    try:
        scale = scale.at_most(case.peer.most_records)
        return workload.measure(case.peer, fresh, scale, **case.options)
    finally:
        shutil.rmtree(fresh)


def _outcome(
    workload: Workload,
    row: Row,
    peers: Sequence[type[Peer]],
    taken: dict[CaseKey, Taken],
) -> Outcome:
    metric = row.metric or workload.metric

    def sample(case: Case | None) -> Sample | None:
        if case is None or taken[case.key].failure:
            return None
        return Sample(tuple(figures[metric.name] for figures in taken[case.key].figures))

    cases = {peer.name: _case(workload, row, peer) for peer in peers}
    samples = {name: sample(case) for name, case in cases.items()}
    failures = {name: taken[case.key].failure for name, case in cases.items() if case is not None}
    return Outcome(
        workload,
        row,
        {name: found for name, found in samples.items() if found is not None},
        sample(_base_case(workload, row, peers)),
        {name: failure for name, failure in failures.items() if failure},
    )
