"""Groups at work: by threads, by schedules of locks and of single lines, in processes that are
killed while they consume; every history is checked.

A round's seed says which of these it is and all that happens in it, but for the threads, whose
order is the machine's. This module refuses to know what an anomaly is.
"""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.crash.consumer_kills import MODES, SYNCS, kill_some
from tests.history.anomalies import summary
from tests.history.checker import check
from tests.history.drivers import CHANCES, run_scheduled, run_threads
from tests.history.operations import History
from tests.history.workload import Workload
from tests.torture.rounds import Figures, Rounds

LONG_MINUTES = 5  # a share as long as this runs its threads for as long as is promised
LONG_OPERATIONS = 200_000
SHORT_OPERATIONS = 5_000
KILLS = 8


def run(minutes: float, seed: int) -> Figures:
    """Run rounds for as long as told; return what was counted."""
    rounds = Rounds("history", minutes, seed, least=len(KINDS))
    operations = LONG_OPERATIONS if minutes >= LONG_MINUTES else SHORT_OPERATIONS
    for number, chance in rounds:
        kind = KINDS[number % len(KINDS)]
        with rounds.judged(number, kind.__name__):
            kind(number, chance, operations, rounds.counts)
    return rounds.figures()


def by_locks(seed: int, chance: random.Random, operations: int, counts: Counter[str]) -> None:
    """Forty schedules of locks and files."""
    for _ in range(40):
        schedule("locks", chance.getrandbits(32), counts)


def by_lines(seed: int, chance: random.Random, operations: int, counts: Counter[str]) -> None:
    """Twenty schedules of single lines."""
    for _ in range(20):
        schedule("lines", chance.getrandbits(32), counts)


def schedule(
    level: str, seed: int, counts: Counter[str], *, has_transactions: bool = False
) -> None:
    """Run one schedule and check its history."""
    more = " --transactions" if has_transactions else ""
    again = f"python -m tests.history.replay {level} {seed}{more}"
    try:
        outcome = run_scheduled(seed, CHANCES[level], has_transactions=has_transactions)
    except Exception as error:
        raise AssertionError(again) from error
    assert_clean(outcome.history, again, counts)
    counts["schedules"] += 1


def by_threads(seed: int, chance: random.Random, operations: int, counts: Counter[str]) -> None:
    """8 producers and 8 consumers in 2 groups, in threads."""
    with tempfile.TemporaryDirectory(prefix="minilog-history-") as directory:
        where = ":memory:" if chance.random() < 0.5 else Path(directory) / "log"
        workload = Workload(where, chance.getrandbits(32))
        assert_clean(run_threads(workload, operations), "threads", counts)
    counts["thread_rounds"] += 1


def by_transactions(
    seed: int, chance: random.Random, operations: int, counts: Counter[str]
) -> None:
    """Transactions, and a group that transforms exactly once: schedules, then threads."""
    for _ in range(15):
        schedule("locks", chance.getrandbits(32), counts, has_transactions=True)
    workload = Workload(":memory:", chance.getrandbits(32), has_transactions=True)
    assert_clean(run_threads(workload, operations), "threads with transactions", counts)
    for what in ("transaction ok", "transaction aborted", "transaction failed"):
        counts["transactions"] += workload.setting.counts[what]
    counts["transactions"] += workload.setting.counts["transformed ok"]


def by_kills(seed: int, chance: random.Random, operations: int, counts: Counter[str]) -> None:
    """Consuming processes, killed one after another."""
    with tempfile.TemporaryDirectory(prefix="minilog-history-") as directory:
        mode, sync = chance.choice(MODES), chance.choice(SYNCS)
        kill_some(Path(directory) / "log", mode, sync, KILLS, chance, counts)


def assert_clean(history: History, what: str, counts: Counter[str]) -> None:
    """Say if a history has an anomaly."""
    counts["operations"] += len(history)
    anomalies = check(history.operations)
    assert not anomalies, f"{what}\n{summary(anomalies)}"


KINDS: list[Callable[[int, random.Random, int, Counter[str]], None]] = [
    by_locks,
    by_threads,
    by_kills,
    by_lines,
    by_transactions,
]
