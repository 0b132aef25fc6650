"""Groups at work, by threads and by schedules: whatever happens, the history has no anomaly.

A schedule is replayed by its seed: `python -m tests.history.replay locks SEED`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minilog import Broker, Partition
from minilog.coordinator import Coordinator
from minilog.ledger import Ledger
from minilog.membership import Membership
from minilog.ownership import Ownership
from minilog.places import Places
from tests.history.anomalies import summary
from tests.history.checker import check
from tests.history.drivers import CHANCES, Outcome, run_scheduled, run_threads
from tests.history.workload import Workload

Plant = Callable[[pytest.MonkeyPatch], None]

BLOCK = 50
MOST_SEEDS = 60  # within so many schedules a planted bug must have been found


def assert_clean(level: str, seed: int, *, has_transactions: bool = False) -> Outcome:
    more = " --transactions" if has_transactions else ""
    again = f"again: python -m tests.history.replay {level} {seed}{more}"
    try:
        outcome = run_scheduled(seed, CHANCES[level], has_transactions=has_transactions)
    except BaseException:
        print(again)
        raise
    anomalies = check(outcome.history.operations)
    assert not anomalies, f"{again}\n{summary(anomalies)}"
    return outcome


# -- schedules ----------------------------------------------------------------------------------


@pytest.mark.parametrize("block", range(10))
def test_no_schedule_of_locks_and_files_shows_an_anomaly(block: int) -> None:
    for seed in range(block * BLOCK, block * BLOCK + BLOCK):
        assert_clean("locks", seed)


def test_no_schedule_of_whole_steps_shows_an_anomaly() -> None:
    for seed in range(BLOCK):
        assert_clean("steps", seed)


@pytest.mark.parametrize("block", range(2))
def test_no_schedule_of_single_lines_shows_an_anomaly(block: int) -> None:
    for seed in range(block * 8, block * 8 + 8):
        assert_clean("lines", seed)


@pytest.mark.parametrize("block", range(2))
def test_no_schedule_with_transactions_shows_an_anomaly(block: int) -> None:
    for seed in range(block * 30, block * 30 + 30):
        assert_clean("locks", seed, has_transactions=True)


def test_no_schedule_of_single_lines_with_transactions_shows_an_anomaly() -> None:
    for seed in range(6):
        assert_clean("lines", seed, has_transactions=True)


def fingerprint(outcome: Outcome) -> str:
    operations = repr((outcome.trace, outcome.history.operations))
    return hashlib.sha256(operations.encode()).hexdigest()


@pytest.mark.parametrize("level", sorted(CHANCES))
def test_a_seed_is_replayed_exactly_here_and_in_another_process(
    level: str, run_python: Callable[..., str]
) -> None:
    seed = 7
    first = run_scheduled(seed, CHANCES[level])
    assert len(first.trace) > 100
    assert fingerprint(run_scheduled(seed, CHANCES[level])) == fingerprint(first)
    assert fingerprint(run_scheduled(seed + 1, CHANCES[level])) != fingerprint(first)
    elsewhere = run_python(
        "from tests.history.drivers import CHANCES, run_scheduled\n"
        "from tests.history.test_history import fingerprint\n"
        "print(fingerprint(run_scheduled(int(sys.argv[1]), CHANCES[sys.argv[2]])))",
        seed,
        level,
    )
    assert elsewhere.strip() == fingerprint(first)


# -- threads ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("where", ["memory", "disk"])
def test_threads_show_no_anomaly(where: str, seed: int, tmp_path: Path) -> None:
    workload = Workload(":memory:" if where == "memory" else tmp_path / "log", seed)
    history = run_threads(workload, operations=4000)
    print(f"seed {seed}, {dict(workload.setting.counts)}")
    anomalies = check(history.operations)
    assert not anomalies, summary(anomalies)
    assert len(history) >= 4000


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_threads_with_transactions_show_no_anomaly(where: str, tmp_path: Path) -> None:
    path = ":memory:" if where == "memory" else tmp_path / "log"
    workload = Workload(path, 11, has_transactions=True)
    history = run_threads(workload, operations=3000)
    counts = workload.setting.counts
    print(f"seed 11, {dict(counts)}")
    anomalies = check(history.operations)
    assert not anomalies, summary(anomalies)
    assert counts["transaction ok"]
    assert counts["transformed ok"]


# -- and it would be found ----------------------------------------------------------------------


def hand_over_at_once(patch: pytest.MonkeyPatch) -> None:
    """Partitions go to the next owner whether or not the one before has given them up."""

    def hand_over(self: Any, tp: Any) -> None:
        self._terms[tp] = self._terms.get(tp, 0) + 1
        target = self._targets.get(tp)
        if target is None:
            self._owners.pop(tp, None)
        else:
            self._owners[tp] = target

    patch.setattr(Ownership, "_hand_over", hand_over)


def count_as_done_what_is_being_returned(patch: pytest.MonkeyPatch) -> None:
    """A poll commits what it is about to return."""
    poll_now = Coordinator.leave_poll

    def leave_poll(self: Any, member: Any) -> None:
        poll_now(self, member)
        for membership in memberships:
            if membership.member is member:
                membership.commit_done()

    memberships: list[Any] = []
    init = Membership.__init__

    def remember(self: Any, *arguments: Any, **options: Any) -> None:
        init(self, *arguments, **options)
        memberships.append(self)

    patch.setattr(Membership, "__init__", remember)
    patch.setattr(Coordinator, "leave_poll", leave_poll)


def commit_nothing_when_closing(patch: pytest.MonkeyPatch) -> None:
    """A close tells that it has left, and leaves without a commit."""
    call = Membership.call_before_leaving
    patch.setattr(
        Membership, "call_before_leaving", lambda self, gone, commits: call(self, gone, False)
    )


def go_on_where_it_was(patch: pytest.MonkeyPatch) -> None:
    """A partition that comes back is read on from where it was left, whoever has read it since."""
    replace = Places.replace

    def keep(self: Any, found: Any, make: Any, terms: Any = None) -> Any:
        kept = getattr(self, "kept", {})

        def remade(tp: Any, partition: Any) -> Any:
            place = make(tp, partition)
            if tp in kept:
                place.position = kept[tp]
            return place

        for tp, place in self._places.items():
            if place.position is not None:
                kept[tp] = place.position
        self.kept = kept
        return replace(self, found, remade, terms)

    patch.setattr(Places, "replace", keep)


def tell_of_what_was_lost_as_revoked(patch: pytest.MonkeyPatch) -> None:
    """Whoever was too late hears that it gives up what another has long had."""
    call_back = Membership._call_back

    def mixed(self: Any, name: str, tps: Any) -> None:
        call_back(self, "on_revoked" if name == "on_lost" else name, tps)

    patch.setattr(Membership, "_call_back", mixed)


def read_up_to_the_end(patch: pytest.MonkeyPatch) -> None:
    """read_committed does not stop where a transaction is open."""
    patch.setattr(Partition, "stable_offset", Partition.end_offset)
    patch.setattr(
        Broker, "stable_offsets", lambda self, partitions: [p.end_offset for p in partitions]
    )
    patch.setattr(Ledger, "hides", lambda self, transaction: False)


def show_what_was_aborted(patch: pytest.MonkeyPatch) -> None:
    """A transaction's end is told to readers as a commit, whatever it was."""
    settle = Ledger.settle
    patch.setattr(
        Ledger, "settle", lambda self, number, *, is_commit: settle(self, number, is_commit=True)
    )


def found_with(plant: Plant, patch: pytest.MonkeyPatch, wanted: set[str], **options: Any) -> bool:
    """Say whether schedules show a planted bug as one of the anomalies that it is."""
    plant(patch)
    for seed in range(MOST_SEEDS):
        try:
            outcome = run_scheduled(seed, CHANCES["locks"], **options)
            found = {anomaly.kind for anomaly in check(outcome.history.operations)}
        except AssertionError as error:  # the workload itself has seen it
            found = {str(error).split(" ")[0]}
        if found & wanted:
            return True
    return False


@pytest.mark.parametrize(
    ("plant", "expected"),
    [
        (hand_over_at_once, "two-owners"),
        (count_as_done_what_is_being_returned, "phantom-commit"),
        (commit_nothing_when_closing, "commit-regress"),
        (go_on_where_it_was, "wrong-resume"),
        (tell_of_what_was_lost_as_revoked, "two-owners"),
    ],
)
def test_a_planted_bug_is_found(
    plant: Plant, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert found_with(plant, monkeypatch, {expected})


@pytest.mark.parametrize(
    ("plant", "expected"),
    [
        (read_up_to_the_end, {"precommitted-read", "outputs"}),
        (show_what_was_aborted, {"aborted-read", "outputs"}),
    ],
)
def test_a_bug_planted_in_transactions_is_found(
    plant: Plant, expected: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert found_with(plant, monkeypatch, expected, has_transactions=True)
