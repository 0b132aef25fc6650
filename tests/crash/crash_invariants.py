"""What must hold of any disk that a crash may leave, and of what a broker makes of it.

The numbers are those of the promises: prefix (1), durable at the sync level (2), batches whole
(3), never wrong bytes (5), no synced offset given again (9), recovery idempotent (10), the index
a hint (11), the clean mark (21). This module refuses to know how a crash comes about.
"""

from __future__ import annotations

import uuid
from bisect import bisect_left
from typing import Any, NamedTuple

from minilog import Broker, TopicConfig, VerifyReport, verify
from minilog.testing import ManualClock, SimulatedDisk


class Row(NamedTuple):
    """A record, as it was given and as it must be found."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]


class PartitionPromise(NamedTuple):
    """What was appended, by batches, and how far it is on the disk."""

    start: int = 0
    durable: int = 0
    end: int = 0
    rows: tuple[Row, ...] = ()  # from offset ``first`` on
    boundaries: tuple[int, ...] = (0,)
    first: int = 0

    def after(self, rows: list[Row]) -> PartitionPromise:
        """Return the promise once a batch was appended."""
        end = rows[-1].offset + 1
        return self._replace(end=end, rows=(*self.rows, *rows), boundaries=(*self.boundaries, end))

    def as_found(self, rows: list[Row], start: int, end: int, *, is_durable: bool) -> Any:
        """Return the promise of what a crash has left."""
        return PartitionPromise(
            start=start,
            durable=end if is_durable else min(self.durable, end),
            end=end,
            rows=tuple(rows),
            boundaries=(*(b for b in self.boundaries if b < end), end),
            first=start,
        )


class TopicPromise(NamedTuple):
    """A topic and its partitions."""

    id: uuid.UUID
    settings: TopicConfig
    partitions: tuple[PartitionPromise, ...]


class Promise(NamedTuple):
    """All that was promised at a moment; never changed, only replaced."""

    topics: dict[str, TopicPromise]

    def with_topic(self, name: str, topic: TopicPromise) -> Promise:
        """Return it with a topic made or changed."""
        return Promise({**self.topics, name: topic})

    def without_topic(self, name: str) -> Promise:
        """Return it with a topic gone."""
        return Promise({other: topic for other, topic in self.topics.items() if other != name})

    def with_partition(self, name: str, number: int, promise: PartitionPromise) -> Promise:
        """Return it with one partition changed."""
        topic = self.topics[name]
        parts = (*topic.partitions[:number], promise, *topic.partitions[number + 1 :])
        return self.with_topic(name, topic._replace(partitions=parts))

    def all_durable(self) -> Promise:
        """Return it once everything was synced."""
        return Promise(
            {
                name: topic._replace(
                    partitions=tuple(part._replace(durable=part.end) for part in topic.partitions)
                )
                for name, topic in self.topics.items()
            }
        )

    def as_found(self, found: Found, *, is_durable: bool) -> Promise:
        """Return what is promised of what a crash has left."""
        topics = {}
        for name, topic in found.items():
            known = self.topics[name]
            empty = PartitionPromise()
            topics[name] = TopicPromise(
                topic.id,
                topic.settings,
                tuple(
                    (known.partitions[n] if n < len(known.partitions) else empty).as_found(
                        part.rows, part.start, part.end, is_durable=is_durable
                    )
                    for n, part in enumerate(topic.partitions)
                ),
            )
        return Promise(topics)


class FoundPartition(NamedTuple):
    """What a partition holds."""

    start: int
    end: int
    rows: list[Row]


class FoundTopic(NamedTuple):
    """What a topic is."""

    id: uuid.UUID
    settings: TopicConfig
    partitions: list[FoundPartition]


Found = dict[str, FoundTopic]


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
    return {
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


def check_found(found: Found, old: Promise, new: Promise, *, is_power_cut: bool) -> None:
    """Hold what was found against the promises before and after the step a crash came in."""
    for name, topic in old.topics.items():
        if name in new.topics and new.topics[name].id == topic.id:
            hold(name in found, f"topic {name} is gone")
    for name, topic in found.items():
        candidates = [
            promise.topics[name]
            for promise in (old, new)
            if name in promise.topics and promise.topics[name].id == topic.id
        ]
        hold(candidates, f"topic {name} was never made, or was deleted")
        first, last = candidates[0], candidates[-1]
        hold(topic.settings in (first.settings, last.settings), f"{name}: {topic.settings}")
        counts = (len(first.partitions), len(last.partitions))
        hold(len(topic.partitions) in counts, f"{name} has {len(topic.partitions)} partitions")
        for number, part in enumerate(topic.partitions):
            empty = PartitionPromise()
            before = first.partitions[number] if number < counts[0] else empty
            if name not in old.topics:
                before = empty
            check_partition(f"{name}-{number}", part, before, last.partitions[number], is_power_cut)


def check_partition(
    name: str,
    part: FoundPartition,
    old: PartitionPromise,
    new: PartitionPromise,
    is_power_cut: bool,
) -> None:
    """A prefix of what was appended, whole batches, with all that was acknowledged (1, 2, 3)."""
    hold(part.start in (old.start, new.start), f"{name} begins at {part.start}, not {old.start}")
    lowest = old.durable if is_power_cut else old.end
    lowest = max(lowest, part.start)
    hold(part.end >= lowest, f"{name} ends at {part.end}; {lowest} was acknowledged")
    hold(part.end <= new.end, f"{name} ends at {part.end}; only {new.end} were appended")
    hold(part.end in new.boundaries, f"{name} ends at {part.end}, in the middle of a batch")
    expected = new.rows[part.start - new.first : part.end - new.first]
    if part.rows != list(expected):
        number = bisect_left(
            range(len(expected)), True, key=lambda n: part.rows[: n + 1] != list(expected[: n + 1])
        )
        given = expected[number] if number < len(expected) else None
        got = part.rows[number] if number < len(part.rows) else None
        raise Violation(f"{name} has {got}; {given} was appended")


def check_looking_up(broker: Broker, found: Found) -> None:
    """A look-up by offset and by time finds what iterating does (11)."""
    for name, topic in found.items():
        for number, part in enumerate(topic.partitions):
            partition = broker.topic(name)[number]
            for row in part.rows[-1:] + part.rows[len(part.rows) // 2 :][:1]:
                records = partition.read(row.offset, max_records=1)
                hold(Row(*records[0][2:]) == row, f"{name}-{number}: reading {row.offset} differs")
                first = next(r.offset for r in part.rows if r.timestamp >= row.timestamp)
                at = partition.offset_at(row.timestamp)
                hold(at == first, f"{name}-{number}: offset_at({row.timestamp}) is {at}")
            partition.check()


def check_reports(before: VerifyReport, problems: tuple[Any, ...]) -> None:
    """``verify`` and the recovery's report agree on whether something was dropped."""
    if before.ok:
        hold(not problems, f"verify found nothing; opening dropped {problems}")
    if not problems:
        # At 0 is the header of a log nothing was appended to; it is written again.
        told = [p for p in before.problems if p.path.endswith(".log") and p.position]
        hold(not told, f"verify found {list(map(str, told))}; opening reported nothing")


def is_hint(path: str) -> bool:
    """Say whether a file is an index: it is never synced, and made anew where it is wrong."""
    return path.endswith("index")


def check_verified(disk: SimulatedDisk) -> None:
    """Every byte is as it was written, but for the hints."""
    wrong = [str(p) for p in verify(disk).problems if not is_hint(p.path)]
    hold(not wrong, f"after recovery and close verify says: {wrong}")


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
        check_verified(disk)
    with opened(disk, settings, ManualClock(now_ms)) as broker:
        hold(broker.recovery.ok, f"after recovery and close: {broker.recovery}")
        hold(dump(broker) == found, "the second opening finds other records")
    again = [str(op) for op in disk.operations[closed:] if op.is_change and not is_hint(op.path)]
    hold(not again, f"the second opening changed {again}")
    return found, closed
