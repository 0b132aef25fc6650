"""What must hold of any disk that a crash may leave, and of what a broker makes of it.

The numbers are those of the promises: prefix (1), durable at the sync level (2), batches whole
(3), a commit no further than what survives (4, 8), never wrong bytes (5), no synced offset given
again (9), recovery idempotent (10), the index a hint (11), compaction keeps the last of every key
(1), transactions all or nothing (20), the clean mark (21). This module refuses to know how a
crash comes about.
"""

from __future__ import annotations

from typing import Any

from promises import (
    Found,
    FoundPartition,
    FoundTopic,
    GroupPromise,
    PartitionPromise,
    Place,
    Promise,
    Row,
    TopicPromise,
    TransactionPromise,
)

from minilog import Broker, TopicConfig, VerifyReport, verify
from minilog.storage import format as f
from minilog.storage import scan
from minilog.storage.files import Directory, FileRegion
from minilog.testing import ManualClock, SimulatedDisk


class Violation(AssertionError):
    """A promise was broken."""


def hold(claim: object, text: str) -> None:
    """Raise Violation unless a claim holds."""
    if not claim:
        raise Violation(text)


# ---------------------------------------------------------------- looking


def opened(disk: SimulatedDisk, settings: dict[str, Any], clock: ManualClock) -> Broker:
    """Open a broker on a simulated disk."""
    return Broker(disk, clock=clock, maintenance_interval_ms=0, **settings)


def dump(broker: Broker) -> Found:
    """Return all a broker holds."""
    topics = {
        name: FoundTopic(
            topic.id,
            topic.config,
            [
                FoundPartition(
                    partition.start_offset,
                    partition.end_offset,
                    [Row(*record[2:]) for record in partition],
                )
                for partition in topic
            ],
        )
        for name, topic in broker.topics.items()
    }
    groups = {
        (name, tuple(place)): offset
        for name, group in broker.groups.items()
        for place, offset in group.committed().items()
    }
    return Found(topics, groups)  # type: ignore[arg-type]


def epochs_of(directory: Directory, identity: bytes) -> list[tuple[int, int]]:
    """Return (first offset, writer epoch) of every frame of a partition, in order (9)."""
    epochs = []
    for name in directory.names():
        if name.endswith(".log"):
            base = int(name.removesuffix(".log"))
            file = directory.open(name)
            region, seed = FileRegion(file, file.size()), f.seed_of(identity, base)
            frames = scan.walk(region, f.HEADER_SIZE, base, file.size(), seed)
            epochs += [(p.offset, p.epoch) for _, p in frames if not p.flags & f.SEAL]
    return epochs


# ---------------------------------------------------------------- what was found


def check_found(found: Found, old: Promise, new: Promise, *, is_power_cut: bool) -> None:
    """Hold what was found against the promises before and after the step a crash came in."""
    for name, topic in old.topics.items():
        if name in new.topics and new.topics[name].id == topic.id:
            hold(name in found.topics, f"topic {name} is gone")
    hidden = check_transactions(found, old, new, is_power_cut)
    for name, found_topic in found.topics.items():
        candidates = [
            promise.topics[name]
            for promise in (old, new)
            if name in promise.topics and promise.topics[name].id == found_topic.id
        ]
        hold(candidates, f"topic {name} was never made, or was deleted")
        is_new = name not in old.topics
        check_topic(name, found_topic, candidates, hidden, is_new=is_new, is_cut=is_power_cut)
    check_groups(found, old, new, is_power_cut)


def check_topic(
    name: str,
    topic: FoundTopic,
    candidates: list[TopicPromise],
    hidden: set[tuple[Place, int]],
    *,
    is_new: bool,
    is_cut: bool,
) -> None:
    """A topic is as it was before the step or as behind it, and so are its partitions."""
    first, last = candidates[0], candidates[-1]
    hold(topic.settings in (first.settings, last.settings), f"{name}: {topic.settings}")
    counts = (len(first.partitions), len(last.partitions))
    hold(len(topic.partitions) in counts, f"{name} has {len(topic.partitions)} partitions")
    empty = PartitionPromise()
    for number, part in enumerate(topic.partitions):
        before = first.partitions[number] if number < counts[0] and not is_new else empty
        behind = last.partitions[number]
        check_extent(f"{name}-{number}", part, before, behind, is_cut)
        expected = [
            row
            for row in behind.rows
            if part.start <= row.offset < part.end and ((name, number), row.offset) not in hidden
        ]
        if "compact" in topic.settings.cleanup_policy:
            check_compacted(f"{name}-{number}", part.rows, expected, topic.settings)
        else:
            check_rows(f"{name}-{number}", part.rows, expected)


def check_extent(
    name: str,
    part: FoundPartition,
    old: PartitionPromise,
    new: PartitionPromise,
    is_power_cut: bool,
) -> None:
    """A prefix of what was appended, of whole batches, with all that was acknowledged (1-3)."""
    hold(part.start in (old.start, new.start), f"{name} begins at {part.start}, not {old.start}")
    lowest = max(old.durable if is_power_cut else old.end, part.start)
    hold(part.end >= lowest, f"{name} ends at {part.end}; {lowest} was acknowledged")
    hold(part.end <= new.end, f"{name} ends at {part.end}; only {new.end} were appended")
    hold(part.end in new.boundaries, f"{name} ends at {part.end}, in the middle of a batch")


def check_rows(name: str, rows: list[Row], expected: list[Row]) -> None:
    """Every record is there, byte for byte, and no other (1, 5)."""
    if rows == expected:
        return
    for number in range(max(len(rows), len(expected))):
        got, given = rows[number : number + 1], expected[number : number + 1]
        hold(got == given, f"{name} has {got}; {given} was appended")


def check_compacted(name: str, rows: list[Row], expected: list[Row], settings: TopicConfig) -> None:
    """What is left was appended, and of every key the last is there (1)."""
    kept = set(rows)
    hold(kept <= set(expected), f"{name} has {kept - set(expected)}, which was never appended")
    hold(rows == sorted(rows), f"{name}: offsets are out of order")
    lasts = {row.key: row for row in expected}
    for row in lasts.values():
        hold(row in kept, f"{name} has lost {row}, the last of its key")


def check_groups(found: Found, old: Promise, new: Promise, is_power_cut: bool) -> None:
    """A group is where it was before the step, or as behind it, and never beyond an end (4, 8)."""
    for key, promise in old.groups.items():
        if key in new.groups and (promise.durable if is_power_cut else promise.offsets):
            place = key[1]
            hold(place[0] not in found.topics or key in found.groups, f"{key}: nothing committed")
    for key, offset in found.groups.items():
        before = old.groups.get(key, GroupPromise())
        behind = new.groups.get(key, before)
        oldest = max((before.durable if is_power_cut else len(before.offsets)) - 1, 0)
        allowed = behind.offsets[oldest:]
        name, number = key[1]
        end = found.topics[name].partitions[number].end
        hold(offset <= end, f"{key} has committed {offset}, beyond the end at {end}")
        is_taken_back = offset == end and any(value > end for value in allowed)
        text = f"{key} has committed {offset}; it may be {allowed}"
        hold(offset in allowed or is_taken_back, text)


def check_transactions(
    found: Found, old: Promise, new: Promise, is_power_cut: bool
) -> set[tuple[Place, int]]:
    """All the records of a transaction are there or none (20); return those that are not seen."""
    seen = {
        ((name, number), row.offset)
        for name, topic in found.topics.items()
        for number, part in enumerate(topic.partitions)
        for row in part.rows
    }
    hidden: set[tuple[Place, int]] = set()
    for number, transaction in enumerate(new.transactions):
        before = (*old.transactions, *[TransactionPromise()] * len(new.transactions))[number]
        rows = {row for row in transaction.rows if is_kept(row, found)}
        visible = rows & seen
        text = f"transaction {number} of {len(rows)} records shows {len(visible)}"
        hold(not visible or visible == rows, text)
        if transaction.outcome != "committed":
            hold(not visible, f"{text}, and is {transaction.outcome}")
        is_promised = before.is_durable if is_power_cut else True
        if before.outcome == "committed" and is_promised:
            hold(visible == rows, f"{text}, and was committed")
        if not visible:
            hidden |= rows
    return hidden


def is_kept(row: tuple[Place, int], found: Found) -> bool:
    """Say whether a record's topic is there, and the record was not deleted."""
    (name, number), offset = row
    topic = found.topics.get(name)
    if topic is None or number >= len(topic.partitions):
        return False
    return offset >= topic.partitions[number].start


def check_looking_up(broker: Broker, found: Found) -> None:
    """A look-up by offset and by time finds what iterating does (11)."""
    for name, topic in found.topics.items():
        for number, part in enumerate(topic.partitions):
            partition = broker.topic(name)[number]
            for row in part.rows[-1:] + part.rows[len(part.rows) // 2 :][:1]:
                records = partition.read(row.offset, max_records=1)
                hold(Row(*records[0][2:]) == row, f"{name}-{number}: reading {row.offset} differs")
                first = next(r.offset for r in part.rows if r.timestamp >= row.timestamp)
                at = partition.offset_at(row.timestamp)
                hold(at is not None and at <= first, f"{name}-{number}: offset_at gives {at}")
            partition.check()


# ---------------------------------------------------------------- opening, closing, opening again


def check_reports(before: VerifyReport, problems: tuple[Any, ...]) -> None:
    """``verify`` and the recovery's report agree on whether something was dropped."""
    dropped = [str(problem) for problem in problems if problem.path.endswith(".log")]
    if before.ok:  # what a commit or a transaction refers to is not of one file
        hold(not dropped, f"verify found nothing; opening dropped {dropped}")


def check_counts(before: VerifyReport, after: VerifyReport, problems: tuple[Any, ...]) -> None:
    """Where opening has reported nothing, verify counts as many records as before."""
    if not problems:
        text = f"verify counted {before.record_count} records; now {after.record_count}"
        hold(after.record_count >= before.record_count, f"{text}, and nothing was reported")


def check_same(found: Found, again: Found, when: str) -> None:
    """Two openings have found the same."""
    if again != found:
        for name in {*found.topics, *again.topics}:
            one, other = found.topics.get(name), again.topics.get(name)
            hold(one == other, f"{when} finds {other}; the first {one}")
        raise Violation(f"{when} finds {again.groups}; the first {found.groups}")


def is_hint(path: str) -> bool:
    """Say whether a file is an index: it is never synced, and made anew where it is wrong."""
    return path.endswith("index")


def check_disk(
    disk: SimulatedDisk,
    settings: dict[str, Any],
    promises: tuple[Promise, Promise],
    *,
    is_power_cut: bool,
    now_ms: int,
    verifies: bool = True,
) -> tuple[Found, int]:
    """Open what a crash has left, check all, and again; return what was found and how many
    operations it took to close it."""
    began = len(disk.operations)
    before = None
    if verifies and "broker.json" in disk.root_directory().names():
        before = verify(disk)
        hold(len(disk.operations) == began, "verify changed something")
    with opened(disk, settings, ManualClock(now_ms)) as broker:
        problems = broker.recovery.problems
        found = dump(broker)
        check_found(found, *promises, is_power_cut=is_power_cut)
        check_looking_up(broker, found)
    closed = len(disk.operations)
    if before is not None:
        check_reports(before, problems)
    again, after = reopened(disk, settings, now_ms, verifies=before is not None)
    if before is not None and after is not None:
        check_counts(before, after, problems)
    check_same(found, again, "the second opening")
    return found, closed


Reopened = tuple[Found, VerifyReport | None]
MOST_REOPENED = 20_000
_reopened: dict[int, Reopened] = {}


def reopened(
    disk: SimulatedDisk, settings: dict[str, Any], now_ms: int, *, verifies: bool
) -> Reopened:
    """Verify a log that was recovered and closed, open it once more, and return what there is.

    It is whole, and opening it changes nothing (10). Most crashes of a moment recover to a few
    outcomes: what was tried on the same bytes is remembered, as it depends on nothing else.
    """
    key = hash((tuple(disk.tree().items()), repr(settings), now_ms))
    known = _reopened.get(key)
    if known is not None and (known[1] is not None or not verifies):
        return known
    after = None
    if verifies:
        after = verify(disk)
        wrong = [str(p) for p in after.problems if not is_hint(p.path)]
        hold(not wrong, f"after recovery and close verify says: {wrong}")
    closed = len(disk.operations)
    with opened(disk, settings, ManualClock(now_ms)) as broker:
        hold(broker.recovery.ok, f"after recovery and close: {broker.recovery}")
        found = dump(broker)
    changes = [str(op) for op in disk.operations[closed:] if op.is_change and not is_hint(op.path)]
    hold(not changes, f"the second opening changed {changes}")
    if len(_reopened) >= MOST_REOPENED:
        _reopened.clear()
    _reopened[key] = (found, after)
    return found, after
