"""Real processes are killed with signal 9; what they acknowledged must be there.

The short share of ``tests/torture/kills.py``, from fixed seeds. No claim is made about timing:
wherever the kill lands, the same must hold.
"""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from minilog import Broker
from tests.crash import writer
from tests.torture import kills

needs_strace = pytest.mark.skipif(
    bool(kills.why_no_strace()), reason=kills.why_no_strace() or "strace is there"
)


def draw(*words: object) -> random.Random:
    seed = writer.number_of(*words)
    print(f"seed {seed} of {words}")
    return random.Random(seed)


@pytest.mark.parametrize("sync", kills.SYNCS)
@pytest.mark.parametrize("shape", kills.SHAPES, ids=lambda shape: "-".join(map(str, shape)))
def test_kill_9_costs_nothing_that_was_acknowledged(
    log_path: Path, shape: tuple[str, int, int], sync: str
) -> None:
    counts: Counter[str] = Counter()
    kills.kill_some(log_path, shape, sync, 2, draw("kill", shape, sync), counts)
    assert counts["kills"] == 2


def test_kills_in_a_row_without_recovery_between_cost_nothing(log_path: Path) -> None:
    """Nobody but the next victim recovers, so recovery is itself killed now and then."""
    chance = draw("in a row")
    kills.make_log(log_path, 2, 8192)
    known = {0: 0, 1: 0}
    for _ in range(8):
        sync = chance.choice(["never", "always"])
        with kills.Victim(log_path, "batches", sync, 2) as victim:
            victim.wait(chance.uniform(0, 0.03))
        known |= victim.acknowledged()
        with Broker(log_path, read_only=True) as broker:
            kills.assert_whole(broker, known, "batches")
            known |= kills.ends_of(broker)
    with Broker(log_path) as broker:
        kills.assert_whole(broker, known, "batches", is_settled=True)
    kills.assert_quiet(log_path)


@pytest.mark.parametrize("power_cut", [False, True])
def test_kill_9_in_the_middle_of_recovery_changes_nothing_of_its_outcome(
    tmp_path: Path, power_cut: bool
) -> None:
    chance = draw("recovery", power_cut)
    crashed = kills.CrashedLog(tmp_path, chance, power_cut=power_cut)
    assert crashed.problems == 2
    counts: Counter[str] = Counter()
    for _ in range(3):
        kills.kill_recovery(crashed, chance, counts)
    assert counts["kills"] >= 3


@needs_strace
@pytest.mark.parametrize(
    ("shape", "sync", "every"),
    [
        (("singles", 1, 256), "never", 12),
        (("deleting", 2, 1024), "always", 20),
        (("topics", 1, 2048), "never", 9),
    ],
    ids=lambda value: str(value[0]) if isinstance(value, tuple) else None,
)
def test_kill_9_before_a_change_of_a_file_costs_nothing_that_was_acknowledged(
    tmp_path: Path, shape: tuple[str, int, int], sync: str, every: int
) -> None:
    counts: Counter[str] = Counter()
    logs = (tmp_path / str(number) for number in range(1000))
    kills.kill_at_system_calls(logs, shape, sync, every, 2, counts)
    assert counts["kills_at_system_calls"] >= 4


@needs_strace
def test_kill_9_before_a_change_that_recovery_makes_costs_nothing(tmp_path: Path) -> None:
    counts: Counter[str] = Counter()
    crashed = kills.CrashedLog(tmp_path, draw("calls of recovery"), power_cut=True)
    kills.kill_recovery_at_system_calls(crashed, 7, counts)
    assert counts["kills_at_system_calls"] >= 4


def test_a_lost_record_would_be_noticed(log_path: Path) -> None:
    """The check itself is checked: one record fewer than was acknowledged, or another one."""
    kills.make_log(log_path, 1, 2**20)
    with Broker(log_path) as broker:
        partition = broker.topic(writer.TOPIC)[0]
        for _ in range(5):
            writer.append_step(partition, "singles")
        assert kills.assert_whole(broker, {0: 5}, "singles", is_settled=True) == 5
        with pytest.raises(AssertionError, match="6 was acknowledged"):
            kills.assert_whole(broker, {0: 6}, "singles")
        with pytest.raises(AssertionError, match="it ends at 5"):
            kills.assert_whole(broker, {0: 3}, "singles")
        partition.append(b"another")
        with pytest.raises(AssertionError):
            kills.assert_whole(broker, {0: 6}, "singles")


def test_each_of_two_victims_in_a_row_may_leave_the_step_it_was_at(log_path: Path) -> None:
    """Nobody looked between two power cuts, and both had a step on its way."""
    kills.make_log(log_path, 1, 2**20)
    with Broker(log_path) as broker:
        partition = broker.topic(writer.TOPIC)[0]
        ends = [writer.append_step(partition, "mixed") for _ in range(3)]
        assert kills.assert_whole(broker, {0: ends[0]}, "mixed", victims=2) == ends[2]
        with pytest.raises(AssertionError, match="was acknowledged"):
            kills.assert_whole(broker, {0: ends[0]}, "mixed")
