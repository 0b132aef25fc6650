"""Replay: the records of some topics once more, merged by time, to a handler.

The order is the same every time: by timestamp, then topic, partition and offset. Within a
partition it is the offsets' order whatever the timestamps are, so that no record counts as
earlier than one before it. What was there at the start is replayed, and nothing that comes
later; no group and no consumer is touched.

This module refuses to know consumers and groups, and what is done with the records.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Iterator
from heapq import merge
from itertools import accumulate, islice
from typing import Any, NamedTuple

from minilog.arguments import names_of, pattern_of
from minilog.broker import Broker
from minilog.clock import Deadline, stopwatch
from minilog.errors import ConfigError
from minilog.partition import Partition
from minilog.records import (
    LATEST_TIMESTAMP,
    Record,
    Records,
    TimestampLike,
    TopicPartition,
    timestamp_of,
)
from minilog.waiting import wait_for_news, wait_for_news_async

Topics = str | Iterable[str] | re.Pattern[str]
Due = tuple[int, Record]  # when a record has its turn, and the record

MOST_READ_AHEAD = 32 * 1024  # records, of all partitions together
MOST_READ_AHEAD_BYTES = 32 * 1024 * 1024
LEAST_WAIT_MS = 0.001
TURN = 256  # records, after which an event loop may do other things


class ReplayCounts(dict[TopicPartition, int]):
    """How many records of each partition were replayed."""

    @property
    def total(self) -> int:
        """How many records were replayed."""
        return sum(self.values())


def replay(
    broker: Broker,
    topics: Topics,
    *,
    into: Callable[[Record], Any],
    since: TimestampLike | None = None,
    until: TimestampLike | None = None,
    speed: float | None = None,
) -> ReplayCounts:
    """Call ``into`` with each record of these topics (names, or one compiled pattern), merged by
    time, and return how many there were by partition.

    ``since`` and ``until`` (exclusive) choose by timestamp. ``speed`` is None for as fast as
    ``into`` takes them, 1 for the pace at which they came, 2 for twice that, by the broker's
    clock. What ``into`` raises comes out, with a note of the record it was raised at.
    OffsetOutOfRangeError when records are deleted before their turn.
    """
    plan = Plan(broker, topics, into, since, until, speed)
    for due, record in plan.records():
        while plan.is_early(due):
            wait_for_news([broker], plan.is_cut_short, plan.until(due), must_look=False)
        try:
            result = into(record)
            if result is not None and hasattr(result, "__await__"):
                result.close()
                raise ConfigError("into is a coroutine function; await replay_async(...) takes it")
        except BaseException as error:
            plan.note(error, record)
            raise
        plan.count(record)
    return plan.counts


async def replay_async(
    broker: Broker,
    topics: Topics,
    *,
    into: Callable[[Record], Awaitable[Any] | Any],
    since: TimestampLike | None = None,
    until: TimestampLike | None = None,
    speed: float | None = None,
) -> ReplayCounts:
    """Like ``replay``, in an event loop: ``into`` is a coroutine function, awaited record by
    record, or a plain one."""
    import asyncio  # imported here because it is slow to import

    plan = Plan(broker, topics, into, since, until, speed)
    left = TURN
    for due, record in plan.records():
        while plan.is_early(due):
            await wait_for_news_async(
                [broker], plan.is_cut_short, broker.clock, plan.until(due), must_look=False
            )
        try:
            result = into(record)
            if result is not None and hasattr(result, "__await__"):
                await result
        except BaseException as error:
            plan.note(error, record)
            raise
        plan.count(record)
        left -= 1
        if not left:
            left = TURN
            await asyncio.sleep(0)  # which takes no time: others may go first
    return plan.counts


class Stretch(NamedTuple):
    """What is replayed of one partition: the offsets from ``start`` to ``end``."""

    partition: Partition
    start: int
    end: int


class Plan:
    """One replay: what is in it, in which order, and when each record has its turn."""

    def __init__(
        self,
        broker: Broker,
        topics: Topics,
        into: Any,
        since: TimestampLike | None,
        until: TimestampLike | None,
        speed: float | None,
    ) -> None:
        if not isinstance(broker, Broker):
            raise ConfigError(f"broker is {broker!r}; it must be a minilog.Broker")
        if not callable(into):
            raise ConfigError(f"into is {into!r}; it must be a callable that takes a record")
        self._since = 0 if since is None else timestamp_of(since)
        self._until = LATEST_TIMESTAMP + 1 if until is None else timestamp_of(until)
        if self._since > self._until:
            raise ConfigError(f"since is {since!r}, which is after until, {until!r}")
        self._speed = _checked_speed(speed)
        self._broker = broker
        self._elapsed_ms = stopwatch(broker.clock)
        self._began: tuple[int, float] | None = None  # the first record's turn, and when it was
        wanted = [p for name in _names(broker, topics) for p in broker.topic(name).partitions]
        self._stretches = [self._stretch(partition) for partition in wanted]
        self.counts = ReplayCounts((TopicPartition(p.topic, p.index), 0) for p in wanted)

    def _stretch(self, partition: Partition) -> Stretch:
        start, end = partition.start_offset, partition.end_offset
        if self._since:
            found = partition.offset_at(self._since)
            start = end if found is None else found
        return Stretch(partition, start, end)

    def records(self) -> Iterator[Due]:
        """Yield the records and when they are due, in order."""
        # The offset is unique in a partition, so two records are compared by nothing behind it.
        return merge(*map(self._records_of, self._stretches))

    def _records_of(self, stretch: Stretch) -> Iterator[Due]:
        share = len(self._stretches)
        chunks = stretch.partition.read_up_to(
            stretch.start,
            stretch.end,
            max(MOST_READ_AHEAD // share, 1),
            MOST_READ_AHEAD_BYTES // share,
        )
        largest = 0
        for records in chunks:
            stamps = records.timestamps
            chosen: Records | list[Record] = records
            if min(stamps) < self._since or max(stamps) >= self._until:
                chosen = [r for r in records if self._since <= r.timestamp < self._until]
                stamps = [record.timestamp for record in chosen]
            due = accumulate(stamps, max, initial=largest)
            yield from zip(islice(due, 1, None), chosen)
            largest = max(largest, max(stamps, default=0))

    def count(self, record: Record) -> None:
        """Count a record that was handled."""
        self.counts[record[:2]] += 1  # type: ignore[index]  # a plain pair is as good

    def note(self, error: BaseException, record: Record) -> None:
        """Add to what a handler raised where that was."""
        topic, partition, offset = record[:3]
        error.add_note(
            f"while replaying {topic}-{partition} at offset {offset}, "
            f"after {self.counts.total} records"
        )

    # ------------------------------------------------------------ the pace

    def is_early(self, due: int) -> bool:
        """Say whether a record must wait for its turn; ClosedError when its broker was closed."""
        self._broker.check_open()
        if self._speed is None:
            return False
        if self._began is None:
            self._began = due, self._elapsed_ms()
        return self._left_ms(due) >= LEAST_WAIT_MS

    def _left_ms(self, due: int) -> float:
        assert self._began is not None
        assert self._speed is not None
        first, began_ms = self._began
        return (due - first) / self._speed - (self._elapsed_ms() - began_ms)

    def until(self, due: int) -> Deadline:
        """Return when a record has its turn."""
        return Deadline(self._broker.clock, max(self._left_ms(due), 0.0) / 1000)

    def is_cut_short(self) -> bool:
        """Say whether waiting is in vain."""
        return self._broker.is_closed


def _names(broker: Broker, topics: Topics) -> list[str]:
    """Return the topics that are meant, in order; UnknownTopicError, ConfigError."""
    pattern = pattern_of(topics)
    if pattern is not None:
        return [name for name in broker.topics if pattern.match(name)]
    names = names_of(topics)
    if not names:
        raise ConfigError("topics is empty; name at least one")
    return sorted(set(names))


def _checked_speed(speed: float | None) -> float | None:
    if speed is None:
        return None
    if isinstance(speed, bool) or not isinstance(speed, (int, float)):
        raise TypeError(f"speed is {speed!r}; it must be a number, or None for no waiting")
    if not 0 < speed < float("inf"):
        raise ConfigError(f"speed is {speed!r}; it must be more than 0 (1 is the original pace)")
    return float(speed)
