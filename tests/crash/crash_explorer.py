"""Walks a story's trace and checks the disk after every crash that may come; shrinks what fails.

States are told apart by a hash of every path and byte on the disk and of whether the machine ran
on; the same state under the same promises is checked once. This module refuses to know what is
checked.
"""

from __future__ import annotations

import random
import time
import traceback
from collections.abc import Iterator
from typing import NamedTuple

import crash_invariants as invariants
from crash_invariants import Violation
from promises import Found
from story import START_MS, Leg, Story, Told, known_ids, timeline_at

from minilog.testing import CrashPlan, SimulatedDisk
from minilog.testing.crashes import Timeline, plans_at

LATER_MS = START_MS + 1_000_000
SHRINKING_S = 8.0


class Failure(Exception):
    """A crash that breaks a promise, told so that it can be run again."""


class Case(NamedTuple):
    """One crash of one leg of a story; ``nested`` comes while the first is recovered from."""

    told: Told
    seed: int
    leg: int
    plan: CrashPlan
    nested: CrashPlan | None = None
    skipped: frozenset[int] = frozenset()


class Effort:
    """How much is tried: distinct states per moment, nested crashes per state, until when."""

    def __init__(
        self,
        per_moment: int,
        nested_share: float,
        nested_count: int = 4,
        deadline: float = float("inf"),
        most_states: int = 2**62,
    ) -> None:
        self.per_moment = per_moment
        self.nested_share = nested_share
        self.nested_count = nested_count
        self.deadline = deadline
        self.most_states = most_states

    def is_over(self, figures: Figures) -> bool:
        """Say whether enough was tried."""
        return len(figures.seen) >= self.most_states or time.monotonic() >= self.deadline


class Figures:
    """What was tried so far."""

    def __init__(self) -> None:
        self.seen: set[int] = set()  # distinct states
        self.checked: set[int] = set()  # the same under distinct promises
        self.opened = 0
        self.nested = 0
        self.stories = 0
        self.operations = 0
        self.kills = 0

    def as_dict(self) -> dict[str, int | float]:
        """Return them by name."""
        return {
            "stories": self.stories,
            "operations": self.operations,
            "distinct_states": len(self.seen),
            "checked_under_distinct_promises": len(self.checked),
            "of_them_kills": self.kills,
            "crashes_inside_recovery": self.nested,
        }


def key_of(disk: SimulatedDisk, *, is_power_cut: bool) -> int:
    """Return a hash of every byte of a disk, and whether the machine ran on."""
    return hash((is_power_cut, disk.image.tree() if is_power_cut else tuple(disk.tree().items())))


def explore(told: Told, seed: int, effort: Effort, figures: Figures) -> None:
    """Check the crashes of one story; Failure, shrunk, for the first that breaks a promise."""
    with known_ids(seed):
        try:
            story = told.run(seed)
        except Exception as error:
            raise Failure(shrink_story(told, seed, error)) from error
        figures.stories += 1
        for number, leg in enumerate(story.legs):
            figures.operations += len(leg.disk.operations)
            for case, disk in states_of(told, seed, number, leg, effort, figures):
                try:
                    check_case(case, leg, disk, effort, figures)
                except Exception as error:
                    raise Failure(shrink(case, error)) from error
                if effort.is_over(figures):
                    return


def states_of(
    told: Told, seed: int, number: int, leg: Leg, effort: Effort, figures: Figures
) -> Iterator[tuple[Case, SimulatedDisk]]:
    """Yield crashes of a leg that leave a state that was not seen, a share for every moment."""
    rng = random.Random(f"{seed} {told.name} {number}")
    timeline = timeline_at(leg.disk, leg.disk.inherited_count)
    while True:
        plans = list(plans_at(timeline, seed=seed))
        if len(plans) > effort.per_moment:
            ends, rest = plans[:2], plans[2:]
            plans = ends + rng.sample(rest, len(rest))
        yielded = 0
        for plan in plans:
            before, after = leg.around(plan)
            moment = hash((told.name, seed, number, before.at, after.at))
            disk = leg.disk.after(timeline, plan)
            key = key_of(disk, is_power_cut=plan.is_power_cut)
            if (key ^ moment) in figures.checked:
                continue
            figures.checked.add(key ^ moment)
            figures.seen.add(key)
            figures.kills += not plan.is_power_cut
            yield Case(told, seed, number, plan), disk
            yielded += 1
            if yielded >= effort.per_moment:
                break
        if timeline.at == len(leg.disk.operations):
            return
        timeline.advance(leg.disk.operations[timeline.at])


def check_case(case: Case, leg: Leg, disk: SimulatedDisk, effort: Effort, figures: Figures) -> None:
    """Check one crashed disk, and now and then crashes inside its recovery."""
    found, closed = check_one(case, leg, disk)
    figures.opened += 2
    rng = random.Random(f"{case.seed} {case.plan}")
    if rng.random() >= effort.nested_share:
        return
    for _ in range(effort.nested_count):
        at = rng.randint(disk.inherited_count, closed)
        timeline = timeline_at(disk, at)
        plan = rng.choice(list(plans_at(timeline, seed=case.seed)))
        inner = disk.after(timeline, plan)
        figures.seen.add(key_of(inner, is_power_cut=plan.is_power_cut))
        figures.nested += 1
        try:
            check_nested(case, leg, plan, inner, found, is_closed=is_behind(plan, closed))
        except Exception as error:
            raise Failure(shrink(case._replace(nested=plan), error)) from error


def is_behind(plan: CrashPlan, closed: int) -> bool:
    """Say whether a crash comes when the broker has been closed."""
    return plan.at >= closed and not plan.is_within_operation


def check_one(case: Case, leg: Leg, disk: SimulatedDisk) -> tuple[Found, int]:
    """Check a crashed disk against what was promised when the crash came."""
    old, new = leg.around(case.plan)
    return invariants.check_disk(
        disk,
        leg.settings,
        (old.promise, new.promise),
        is_power_cut=case.plan.is_power_cut,
        now_ms=LATER_MS,
        verifies=is_verified(case.plan),
    )


def is_verified(plan: CrashPlan) -> bool:
    """Say whether a disk is verified before and behind its recovery: every third is, as reading
    every byte twice takes as long as all the rest."""
    return (plan.at + len(plan.lost) + len(plan.hollow) + len(plan.torn)) % 3 == 0


def check_nested(
    case: Case,
    leg: Leg,
    plan: CrashPlan,
    disk: SimulatedDisk,
    found: Found,
    *,
    is_closed: bool,
) -> None:
    """After a crash inside recovery, recovery finds what the first would have.

    Only where a kill came first, and then a power cut, what was never synced may be gone.
    """
    old, new = leg.around(case.plan)
    is_lossy = plan.is_power_cut and not case.plan.is_power_cut and not is_closed
    again, _ = invariants.check_disk(
        disk,
        leg.settings,
        (old.promise, new.promise),
        is_power_cut=is_lossy or case.plan.is_power_cut,
        now_ms=LATER_MS,
        verifies=is_verified(plan),
    )
    if not is_lossy:
        invariants.check_same(found, again, "recovery after a crash in it")


# ---------------------------------------------------------------- shrinking


def fails(case: Case, story: Story) -> Exception | None:
    """Run one case; return what it breaks, or None."""
    leg = story.legs[case.leg]
    disk = leg.disk.crash(case.plan)
    try:
        found, closed = check_one(case, leg, disk)
        if case.nested is not None:
            try:
                inner = disk.crash(case.nested)
            except ValueError:  # of another outer crash the recovery takes another course
                return None
            is_closed = is_behind(case.nested, closed)
            check_nested(case, leg, case.nested, inner, found, is_closed=is_closed)
    except Exception as error:
        return error
    return None


def shrink(case: Case, error: Exception) -> str:
    """Return the report of the smallest failing case that is found in a while."""
    deadline = time.monotonic() + SHRINKING_S
    story = case.told.run(case.seed, case.skipped)
    if case.nested is None:
        case, error, story = _with_fewer_steps(case, error, story, deadline)
        case, error = _earlier(case, error, story, deadline)
    case, error = _with_less_lost(case, error, story)
    return report(case, error, story)


def _with_fewer_steps(
    case: Case, error: Exception, story: Story, deadline: float
) -> tuple[Case, Exception, Story]:
    """Leave out one step after the other, as long as some crash still fails."""
    for number in range(story.count - 1, -1, -1):
        if time.monotonic() > deadline or number in case.skipped:
            break
        smaller = case.skipped | {number}
        try:
            shorter = case.told.run(case.seed, smaller)
        except Exception:  # a later step needed this one
            continue
        found = _first_failing(case._replace(skipped=smaller), shorter, deadline)
        if found is not None:
            case, error = found
            story = shorter
    return case, error, story


def _first_failing(
    case: Case, story: Story, deadline: float, stop: int | None = None
) -> tuple[Case, Exception] | None:
    for number, leg in enumerate(story.legs):
        timeline = timeline_at(leg.disk, leg.disk.inherited_count)
        tried: set[int] = set()
        while time.monotonic() < deadline and (stop is None or timeline.at < stop):
            for plan in plans_at(timeline, seed=case.seed):
                if plan.is_power_cut != case.plan.is_power_cut:
                    continue
                disk = leg.disk.after(timeline, plan)
                key = key_of(disk, is_power_cut=plan.is_power_cut)
                if key in tried:
                    continue
                tried.add(key)
                smaller = case._replace(leg=number, plan=plan)
                error = fails(smaller, story)
                if error is not None:
                    return smaller, error
            if timeline.at == len(leg.disk.operations):
                break
            timeline.advance(leg.disk.operations[timeline.at])
    return None


def _earlier(case: Case, error: Exception, story: Story, deadline: float) -> tuple[Case, Exception]:
    """Return the first crash of a story that fails."""
    found = _first_failing(case, story, deadline, stop=case.plan.at)
    return (case, error) if found is None else found


def _with_less_lost(case: Case, error: Exception, story: Story) -> tuple[Case, Exception]:
    """Keep one operation after the other, as long as it fails."""
    plan = case.plan
    candidates = [plan._replace(garbage=None)]
    for number in sorted(plan.lost | plan.hollow | {n for n, _, _ in plan.torn}):
        candidates.append(number)  # type: ignore[arg-type]
    for candidate in candidates:
        smaller = candidate
        if isinstance(candidate, int):
            plan = case.plan
            smaller = plan._replace(
                lost=plan.lost - {candidate},
                hollow=plan.hollow - {candidate},
                torn=tuple(part for part in plan.torn if part[0] != candidate),
            )
        failing = fails(case._replace(plan=smaller), story)
        if failing is not None:
            case, error = case._replace(plan=smaller), failing
    return case, error


def shrink_story(told: Told, seed: int, error: Exception) -> str:
    """Return the report of a story that fails in its own course, with as few steps as possible."""
    skipped: frozenset[int] = frozenset()
    deadline = time.monotonic() + SHRINKING_S
    for number in range(30, -1, -1):
        if time.monotonic() > deadline:
            break
        try:
            told.run(seed, skipped | {number})
        except Violation as still:
            if type(still) is type(error):
                skipped, error = skipped | {number}, still
        except Exception:
            continue
    text = "".join(traceback.format_exception(error))
    return f"{told.name}, seed {seed}, skipped {sorted(skipped)}, breaks in its own course:\n{text}"


def report(case: Case, error: Exception, story: Story) -> str:
    """Tell a failing case: the steps, every operation and what became of it, what broke."""
    leg = story.legs[case.leg]
    lines = [
        f"{case.told.name} with seed {case.seed} breaks a promise: {error!r}",
        f"case: leg {case.leg}, {case.plan}",
        f"skipped steps: {sorted(case.skipped)}",
        "steps:",
        *(f"  {step}" for step in story.steps),
        f"operations of leg {case.leg}:",
        *_operations(leg.disk, case.plan),
    ]
    if case.nested is not None:
        lines.append(f"and while that is recovered from, {case.nested}:")
        crashed = leg.disk.crash(case.plan)
        fails(case._replace(nested=None), story)
        invariants.check_disk  # noqa: B018
        lines += _nested_operations(case, leg, crashed)
    lines += ["", *traceback.format_exception(error)]
    return "\n".join(line.rstrip("\n") for line in lines)


def _nested_operations(case: Case, leg: Leg, disk: SimulatedDisk) -> list[str]:
    check_one(case, leg, disk)
    assert case.nested is not None
    return list(_operations(disk, case.nested))


def _operations(disk: SimulatedDisk, plan: CrashPlan) -> Iterator[str]:
    timeline = timeline_at(disk, plan.at)
    for number, operation in enumerate(disk.operations[: plan.at]):
        fate = plan.fate_of(number) if number in timeline.pending else "on the disk"
        yield f"  {number:4} {operation}: {fate}"


__all__ = ["Case", "Effort", "Failure", "Figures", "Timeline", "explore"]
