"""Every legal crash of transactions: all or nothing over three partitions and a group's offsets.

The story of ``tests/crash/pipeline_story.py`` is lived on a simulated disk; whatever a kill or a
power cut may leave of it at any moment is opened, checked, closed, opened again and gone on from.
Now and then the crash is followed by another one inside the recovery. This module refuses to know
how a pipeline is told from another.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

import minilog.ledger
from minilog import Broker
from minilog.testing import CrashPlan, ManualClock, SimulatedDisk
from minilog.testing.crashes import plans_at
from tests.crash import pipeline_story as story
from tests.torture.rounds import Figures, Rounds

SYNCS = ["never", "interval", "always"]
SNAPSHOT_BYTES = [1, 700, 1500, 1 << 20]


class Life(NamedTuple):
    """A story that was lived on a disk, and what was promised when."""

    disk: SimulatedDisk
    sync: str
    begun: list[tuple[int, int]]  # after so many operations, so many steps
    acknowledged: list[tuple[int, int]]

    def steps_after(self, plan: CrashPlan) -> range:
        """Return how many steps may be found after a crash."""
        behind = plan.at - plan.is_within_operation
        sure = max((n for at, n in self.acknowledged if at <= behind), default=0)
        most = max((n for at, n in self.begun if at <= plan.at), default=0)
        if plan.is_power_cut and self.sync != "always":
            sure = 0  # what was not synced may go, but only whole
        return range(sure, most + 1)


class TimedTold(story.Told):
    """Notes after how many operations of the disk something was told."""

    def __init__(self, disk: SimulatedDisk) -> None:
        super().__init__()
        self._disk = disk
        self.times: dict[str, list[tuple[int, int]]] = {"begun": [], "acknowledged": []}

    def begin(self, steps: int) -> None:
        self.times["begun"].append((len(self._disk.operations), steps))

    def acknowledge(self, steps: int) -> None:
        self.times["acknowledged"].append((len(self._disk.operations), steps))


def opened(disk: SimulatedDisk, sync: str = "never") -> Broker:
    """Open a broker that does nothing of its own accord."""
    return Broker(disk, sync=sync, clock=ManualClock(1000), maintenance_interval_ms=0)  # type: ignore[arg-type]


def live(sync: str) -> Life:
    """Live the story on a disk that has its inputs already."""
    prepared = SimulatedDisk()
    with opened(prepared) as broker:
        story.prepare(broker)
    disk = prepared.crash()
    told = TimedTold(disk)
    broker = opened(disk, sync)
    tx = story.run(broker, told)
    if sync == "interval":
        broker.maintain()
    tx.abort()
    broker.close()
    return Life(disk, sync, told.times["begun"], told.times["acknowledged"])


class Effort(NamedTuple):
    """How much is tried: of how many of the moments how many crashes, and what share of these is
    followed by crashes of its recovery."""

    moments: float = 1.0
    per_moment: int = 12
    nested: float = 0.01
    nested_moments: float = 0.1


ALL = Effort()


def crashes_of(
    disk: SimulatedDisk, seed: int, chance: random.Random, moments: float, per_moment: int
) -> Iterator[tuple[CrashPlan, SimulatedDisk]]:
    """Yield crashes and what they leave, some of those of some moments."""
    timeline = disk.timeline()
    for number in range(len(disk.operations) + 1):
        if number:
            timeline.advance(disk.operations[number - 1])
        if number < disk.inherited_count or chance.random() >= moments:
            continue
        plans = list(plans_at(timeline, seed=seed))
        for plan in chance.sample(plans, min(per_moment, len(plans))):
            yield plan, disk.after(timeline, plan)


def check(disk: SimulatedDisk, allowed: range) -> int:
    """Assert that a crashed disk has some number of whole steps, and goes on; return it."""
    with opened(disk) as broker:
        steps = story.found(broker)
        assert steps in allowed, f"{steps} steps, not {allowed}"
    before = disk.tree()
    with opened(disk) as broker:
        assert broker.recovery.ok, str(broker.recovery)
        assert story.found(broker) == steps
    assert disk.tree() == before, "the second opening has changed something"
    with opened(disk) as broker:
        story.finish(broker)
    return steps


def check_crashes(
    rounds: Rounds, life: Life, seed: int, chance: random.Random, effort: Effort
) -> None:
    """Check some crashes of a life, and crashes of their recoveries."""
    seen: set[int] = set()
    share = (effort.moments, effort.per_moment)
    for plan, crashed in crashes_of(life.disk, seed, chance, *share):
        key = hash((tuple(crashed.tree().items()), plan.is_power_cut, life.steps_after(plan)))
        if key in seen:
            continue
        seen.add(key)
        rounds.counts["states"] += 1
        inner = crashed.crash(CrashPlan(len(crashed.operations), is_power_cut=False))
        with rounds.judged(seed, (life.sync, plan)):
            check(crashed, life.steps_after(plan))
        if chance.random() < effort.nested:
            check_nested(rounds, life, plan, inner, seed, chance, effort)


def check_nested(
    rounds: Rounds,
    life: Life,
    plan: CrashPlan,
    crashed: SimulatedDisk,
    seed: int,
    chance: random.Random,
    effort: Effort,
) -> None:
    """Check crashes inside the recovery from a crash: they change nothing of its outcome."""
    with opened(crashed) as broker:
        steps = story.found(broker)
    allowed = life.steps_after(plan)
    for nested, again in crashes_of(crashed, seed, chance, effort.nested_moments, 1):
        rounds.counts["nested"] += 1
        # A kill leaves what was not synced to the next crash, which may be a power cut.
        is_same = plan.is_power_cut or not nested.is_power_cut or life.sync == "always"
        with rounds.judged(seed, (life.sync, plan, nested)):
            found = check(again, allowed if is_same else range(allowed.stop))
            assert found == steps or not plan.is_power_cut, (found, steps)


def run(minutes: float, seed: int, effort: Effort = ALL, least: int = 1) -> Figures:
    """Try crashes of the story, with another seed each round; return what was counted."""
    rounds = Rounds("transactions", minutes, seed, least)
    kept = minilog.ledger.SNAPSHOT_BYTES
    try:
        for round_seed, chance in rounds:
            minilog.ledger.SNAPSHOT_BYTES = SNAPSHOT_BYTES[round_seed // 3 % 4]
            life = live(SYNCS[round_seed % 3])
            check_crashes(rounds, life, round_seed, chance, effort)
    finally:
        minilog.ledger.SNAPSHOT_BYTES = kept
    return rounds.figures()
