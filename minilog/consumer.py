"""A consumer: subscribes or is assigned, polls, seeks, iterates and commits.

It is the face of five rooms: what it reads (``subscription.py``), from where (``places.py``), how
that is handed out (``polling.py``), what it waits for (``news.py``) and its part in a group
(``membership.py``). Reading changes no log, and any number of consumers read the same records.
This module refuses to know producers and files.

User code runs in the thread that polls: callbacks under no lock, deserializers under the
consumer's own alone.
"""

from __future__ import annotations

import re
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from typing import overload

from minilog.arguments import check_whole, names_of, pattern_of
from minilog.assignors import Assignor, check_assignor
from minilog.broker import Broker
from minilog.clock import Deadline, check_timeout
from minilog.coordinator import Commit
from minilog.errors import ClosedError, ConfigError
from minilog.groups import check_group_name
from minilog.membership import Callback, Membership
from minilog.news import News
from minilog.partition import Partition
from minilog.places import Deserializer, Place, Places
from minilog.polling import EMPTY, Polling
from minilog.records import (
    Record,
    Records,
    TimestampLike,
    TopicPartition,
    timestamp_of,
    topic_partition_of,
)
from minilog.subscription import Subscription, check_callbacks

TopicPartitionLike = TopicPartition | tuple[str, int]

CHOICES = {
    "auto_offset_reset": ("earliest", "latest", "none"),
    "isolation": ("read_uncommitted", "read_committed"),
}


class Consumer:
    """Reads records of a broker's topics, each at its own pace. Thread-safe.

    Without a group it reads every partition of its topics from where ``auto_offset_reset`` says
    (``"earliest"``, ``"latest"`` as it was when the partition was first assigned, or ``"none"``:
    NoOffsetError) and commits nothing. The members of a ``group`` share the partitions and begin
    at what was committed. ``assignor`` is ``"sticky"``, ``"range"``, ``"roundrobin"`` or a
    callable ``(members, partitions) -> {member id: partitions}``, where ``members`` has each
    member's topics; all members have the same. Whoever gives a ``member_id`` keeps its partitions
    for ``max_poll_interval_ms`` after it was closed, for a consumer of that name to come.
    """

    def __init__(
        self,
        broker: Broker,
        *topics: str | re.Pattern[str],
        group: str | None = None,
        member_id: str | None = None,
        assignor: str | Assignor = "sticky",
        auto_offset_reset: str = "earliest",
        auto_commit: bool = True,
        max_poll_records: int = 500,
        max_poll_interval_ms: int = 300_000,
        isolation: str = "read_uncommitted",
        key_deserializer: Deserializer | None = None,
        value_deserializer: Deserializer | None = None,
    ) -> None:
        _check_choice("auto_offset_reset", auto_offset_reset)
        _check_choice("isolation", isolation)
        check_whole("max_poll_records", max_poll_records, low=1)
        check_whole("max_poll_interval_ms", max_poll_interval_ms, low=1)
        _check_deserializers(key_deserializer, value_deserializer)
        _check_group_settings(assignor, auto_commit)
        _check_group(broker, group, member_id)
        self._broker = broker
        self._max_poll_records = max_poll_records
        self._lock = threading.RLock()
        stable = broker.stable_offsets if isolation == "read_committed" else None
        self._places = Places(auto_offset_reset, key_deserializer, value_deserializer, stable)
        self._membership: Membership | None = None
        if group is not None:
            self._membership = Membership(
                broker.coordinator(group),
                broker.ledger,
                self._places,
                self._lock,
                member_id=member_id,
                assignor=assignor,
                max_poll_interval_ms=max_poll_interval_ms,
                auto_commit=auto_commit,
            )
        self._is_closing = False
        shared = (self._places, self._membership, self._lock)
        self._subscription = subscription = Subscription(broker, *shared)
        self._news = News(broker, subscription, *shared)
        self._polling = Polling(subscription, self._news, *shared, broker.clock, max_poll_records)
        self._poll_now = self._polling.poll_now
        self._is_over = subscription.is_over
        self._was_woken = self._news.was_woken
        if topics:
            patterns = [topic for topic in topics if isinstance(topic, re.Pattern)]
            if patterns and len(topics) > 1:
                raise ConfigError("give names or one pattern, not both")
            try:
                self.subscribe(patterns[0] if patterns else topics)  # type: ignore[arg-type]
            except BaseException:
                self._close(commits=False)  # it may have joined its group, and nobody has it
                raise

    # ------------------------------------------------------------ what it reads

    def subscribe(
        self,
        topics: str | Iterable[str] | re.Pattern[str],
        *,
        on_assigned: Callback | None = None,
        on_revoked: Callback | None = None,
        on_lost: Callback | None = None,
    ) -> None:
        """Read these topics (names, or one compiled pattern), also partitions that come later.

        A pattern matches from the start of a name, as ``re.match``. UnknownTopicError for a name
        that is not there; ConfigError beside ``assign``.
        """
        callbacks = {"on_assigned": on_assigned, "on_revoked": on_revoked, "on_lost": on_lost}
        check_callbacks(callbacks)
        pattern = pattern_of(topics)
        names = frozenset() if pattern is not None else frozenset(names_of(topics))
        if pattern is None and not names:
            raise ConfigError("topics is empty; name at least one, or unsubscribe()")
        with self._lock:
            self._check_open()
            self._subscription.subscribe(names, pattern, callbacks)

    def assign(self, partitions: Iterable[TopicPartitionLike]) -> None:
        """Read these partitions and no others; ConfigError beside ``subscribe``."""
        if isinstance(partitions, str) or not isinstance(partitions, Iterable):
            raise TypeError(f"partitions is {partitions!r}; give (topic name, number) of each")
        wanted = [topic_partition_of(given) for given in partitions]
        with self._lock:
            self._check_open()
            self._subscription.assign(wanted)

    def unsubscribe(self) -> None:
        """Read nothing any more; in a group, leave it."""
        self._check_open()
        self._subscription.leave(commits=True, for_good=True)

    def subscription(self) -> frozenset[str]:
        """Return the names subscribed to, or those the pattern matches now."""
        with self._lock:
            self._check_open()
            self._subscription.refresh()
            return self._subscription.topic_names()

    def assignment(self) -> set[TopicPartition]:
        """Return the partitions it reads."""
        with self._lock:
            self._check_open()
            self._subscription.refresh()
            return {tp for tp, _ in self._places.items()}

    # ------------------------------------------------------------ poll

    def poll(self, timeout: float | None = 0, *, max_records: int | None = None) -> Records:
        """Return records from the positions on and move these; wait up to ``timeout`` seconds
        (None: for ever) for the first.

        Fair between partitions, in order within each, at most ``max_poll_records`` or
        ``max_records``.
        """
        check_timeout(timeout)
        limit = self._limit(max_records)
        deadline = Deadline(self._broker.clock, timeout)
        self._check_open()
        while True:
            records = self._poll_now(limit)
            if self._was_woken() or records or timeout == 0 or deadline.is_over:
                return records
            self._news.wait(deadline)
            if self._is_over():
                return EMPTY

    async def poll_async(
        self, timeout: float | None = 0, *, max_records: int | None = None
    ) -> Records:
        """Return records as ``poll`` does, without holding up the event loop."""
        check_timeout(timeout)
        limit = self._limit(max_records)
        deadline = Deadline(self._broker.clock, timeout)
        self._check_open()
        while True:
            records = self._poll_now(limit)
            if self._was_woken() or records or timeout == 0 or deadline.is_over:
                return records
            await self._news.wait_async(deadline)
            if self._is_over():
                return EMPTY

    def _limit(self, max_records: int | None) -> int:
        if max_records is None:
            return self._max_poll_records
        check_whole("max_records", max_records, low=1)
        return max_records

    # ------------------------------------------------------------ iterate

    def __iter__(self) -> Iterator[Record]:
        """Yield records as they come, for ever; a record is used up when it is yielded."""
        self._check_open()
        return self._polling.iterate()

    def drain(self) -> Iterator[Record]:
        """Yield the records that are there now, and stop; paused partitions are left out."""
        with self._lock:
            self._check_open()
            self._subscription.refresh()
            bounds = self._polling.bounds()
        return self._polling.drain(bounds)

    def __aiter__(self) -> AsyncIterator[Record]:
        """Yield records as they come, for ever, without holding up the event loop."""
        return self._polling.iterate_async(self._check_open)

    def wakeup(self) -> None:
        """Have a waiting poll, or else the next one, return at once with what there is."""
        self._news.wake_up()

    # ------------------------------------------------------------ positions

    def seek(self, tp: TopicPartitionLike, offset: int) -> None:
        """Read on from ``offset``; whether it is in the log is checked by the next poll."""
        check_whole("offset", offset)
        self._move((tp,), lambda partition: offset)

    def seek_to_beginning(self, *tps: TopicPartitionLike) -> None:
        """Read on from the first record that is kept; no partitions named: of all."""
        self._move(tps, lambda partition: partition.start_offset)

    def seek_to_end(self, *tps: TopicPartitionLike) -> None:
        """Read on from what comes next; no partitions named: in all."""
        self._move(tps, self._places.end_of)

    def seek_to_time(self, timestamp: TimestampLike, *tps: TopicPartitionLike) -> None:
        """Read on from the first record whose timestamp is at or after ``timestamp``, else from
        the end; no partitions named: in all."""
        wanted = timestamp_of(timestamp)

        def at_time(partition: Partition) -> int:
            found = partition.offset_at(wanted)
            return self._places.end_of(partition) if found is None else found

        self._move(tps, at_time)

    def _move(self, tps: tuple[TopicPartitionLike, ...], where: Callable[[Partition], int]) -> None:
        with self._lock:
            moved = [(place, where(place.partition)) for place in self._chosen(tps)]
            for place, position in moved:
                place.seek(position)
            self._places.forget_error()
        self._news.announce()

    def position(self, tp: TopicPartitionLike) -> int:
        """Return the offset of the next record to read."""
        with self._lock:
            self._chosen((tp,))
            return self._places.position(topic_partition_of(tp))

    def committed(self, tp: TopicPartitionLike) -> int | None:
        """Return the group's committed offset of any partition; None without one."""
        with self._lock:
            self._check_open()
            named = topic_partition_of(tp)
            if self._membership is None:
                return None
            _ = self._broker.topic(named.topic)[named.partition]  # or say that there is none
            return self._membership.committed(named)

    def commit(self, offsets: Mapping[TopicPartitionLike, int] | Record | None = None) -> None:
        """Commit for the group what was polled so far, or the offsets to go on from by partition,
        or that this record is done.

        CommitError, and nothing is committed, where a partition is not this member's (any more)
        or an offset is beyond the end; ConfigError without a group.
        """
        with self._lock:
            self._check_open()
            if self._membership is None:
                raise ConfigError(
                    "commit() needs a consumer with a group; without one nothing is kept"
                )
            if offsets is None:
                wanted = self._places.delivered()
            elif isinstance(offsets, Record):
                wanted = {TopicPartition(offsets.topic, offsets.partition): offsets.next_offset}
            elif isinstance(offsets, Mapping):
                wanted = {topic_partition_of(tp): offset for tp, offset in offsets.items()}
            else:
                raise TypeError(f"offsets is {offsets!r}; give {{partition: offset}} or a Record")
            for tp, offset in wanted.items():
                check_whole(f"offset of {tp.topic}-{tp.partition}", offset)
            self._membership.commit(wanted)

    def pause(self, *tps: TopicPartitionLike) -> None:
        """Leave these partitions out of polls until ``resume``; none named: all."""
        with self._lock:
            for place in self._chosen(tps):
                place.is_paused = True

    def resume(self, *tps: TopicPartitionLike) -> None:
        """Take these partitions into polls again; none named: all."""
        with self._lock:
            for place in self._chosen(tps):
                place.is_paused = False
        self._news.announce()

    def paused(self) -> set[TopicPartition]:
        """Return the partitions that are paused."""
        with self._lock:
            self._check_open()
            return {tp for tp, place in self._places.items() if place.is_paused}

    @overload
    def lag(self) -> dict[TopicPartition, int]: ...
    @overload
    def lag(self, tp: TopicPartitionLike) -> int: ...
    def lag(self, tp: TopicPartitionLike | None = None) -> int | dict[TopicPartition, int]:
        """Return how far the position is behind the end: of one partition, or of each."""
        with self._lock:
            self._chosen(() if tp is None else (tp,))
            if tp is not None:
                return self._places.lag(topic_partition_of(tp))
            return {name: self._places.lag(name) for name, _ in self._places.items()}

    def _chosen(self, tps: tuple[TopicPartitionLike, ...]) -> list[Place]:
        """Return the places of these partitions, or all; NotAssignedError."""
        self._check_open()
        self._subscription.refresh()
        if not tps:
            return [place for _, place in self._places.items()]
        return [self._places[topic_partition_of(tp)] for tp in tps]

    # ------------------------------------------------------------ the end

    @property
    def member_id(self) -> str | None:
        """Its name in its group; None while it is not in one."""
        return None if self._membership is None else self._membership.member.id or None

    def hand_over_commits(self) -> tuple[str, Commit]:
        """Return its group and what was polled so far, for a transaction to commit; from now on
        it commits nothing by itself. ConfigError without a group."""
        with self._lock:
            self._check_open()
            if self._membership is None:
                raise ConfigError("a consumer without a group has no offsets to commit")
            return self._membership.hand_over_commits()

    def close(self) -> None:
        """End every wait; in a group, commit what polls returned and leave.

        A waiting poll returns empty, iteration ends. With ``auto_commit=False`` nothing is
        committed. A member that named itself (``member_id``) keeps its partitions for a while.
        """
        self._close(commits=True)

    def _close(self, *, commits: bool) -> None:
        with self._lock:
            if self._is_closing:
                return
            self._is_closing = True
        try:
            self._subscription.leave(commits=commits and not self._broker.is_closed, for_good=False)
        finally:
            self._subscription.is_closed = True
            self._news.announce()

    def _check_open(self) -> None:
        if self._subscription.is_closed:
            raise ClosedError("the consumer was closed")
        self._broker.check_open()

    def __enter__(self) -> Consumer:
        self._check_open()
        return self

    def __exit__(self, kind: type[BaseException] | None, *raised: object) -> None:
        self._close(commits=kind is None)  # what failed is delivered again


def _check_group(broker: object, group: object, member_id: object) -> None:
    if not isinstance(broker, Broker):
        raise ConfigError(f"broker is {broker!r}; it must be a minilog.Broker")
    broker.check_open()
    if group is not None:
        check_group_name(group)
        broker.check_writable()  # a group's commits are records
    if member_id is not None:
        check_group_name(member_id, "member_id")
        if group is None:
            raise ConfigError(f"member_id={member_id!r} needs a group")


def _check_group_settings(assignor: object, auto_commit: object) -> None:
    check_assignor(assignor)
    if not isinstance(auto_commit, bool):
        raise ConfigError(f"auto_commit is {auto_commit!r}; it must be True or False")


def _check_deserializers(for_keys: object, for_values: object) -> None:
    for name, given in (("key_deserializer", for_keys), ("value_deserializer", for_values)):
        if given is not None and not callable(given):
            raise ConfigError(f"{name} is {given!r}; it must be a callable or None")


def _check_choice(name: str, given: object) -> None:
    if given not in CHOICES[name]:
        choices = ", ".join(repr(choice) for choice in CHOICES[name])
        raise ConfigError(f"{name} is {given!r}; it must be one of {choices}")
