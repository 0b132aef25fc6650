"""A consumer: subscribes or is assigned, polls, seeks and iterates.

It keeps a position for each of its partitions and nothing else: reading changes no log, and any
number of consumers read the same records. What it has to do with a group is ``membership.py``'s.
This module refuses to know producers and files.

User code runs in the thread that polls: callbacks under no lock, deserializers under the
consumer's own alone.
"""

from __future__ import annotations

import re
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from typing import Any, overload

from minilog.arguments import check_whole
from minilog.assignors import Assignor, check_assignor
from minilog.broker import Broker
from minilog.clock import Deadline, Waiters, check_timeout
from minilog.coordinator import Commit
from minilog.errors import (
    ClosedError,
    ConfigError,
    MinilogError,
    UnknownTopicError,
)
from minilog.groups import check_group_name
from minilog.membership import Callback, Membership
from minilog.partition import Partition
from minilog.places import Bounds, Deserializer, Place, Places
from minilog.records import (
    Record,
    Records,
    TimestampLike,
    TopicPartition,
    timestamp_of,
    topic_partition_of,
)
from minilog.waiting import wait_for_news, wait_for_news_async

TopicPartitionLike = TopicPartition | tuple[str, int]

CHOICES = {
    "auto_offset_reset": ("earliest", "latest", "none"),
    "isolation": ("read_uncommitted", "read_committed"),
}
EMPTY = Records()


class Consumer(Waiters):
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
        if not isinstance(auto_commit, bool):
            raise ConfigError(f"auto_commit is {auto_commit!r}; it must be True or False")
        check_whole("max_poll_records", max_poll_records, low=1)
        check_whole("max_poll_interval_ms", max_poll_interval_ms, low=1)
        _check_deserializers(key_deserializer, value_deserializer)
        check_assignor(assignor)
        _check_group(broker, group, member_id)
        super().__init__()
        self._broker = broker
        self._max_poll_records = max_poll_records
        self._lock = threading.RLock()
        self._reads_committed = isolation == "read_committed"
        stable = broker.stable_offsets if self._reads_committed else None
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
        self._names: frozenset[str] = frozenset()
        self._pattern: re.Pattern[str] | None = None
        self._is_assigned = False
        self._callbacks: dict[str, Callback | None] = {}
        self._to_announce: list[TopicPartition] = []
        self._has_announced = False
        self._seen_changes = -1
        self._is_woken = False
        self._is_closed = False
        self._is_closing = False
        if topics:
            patterns = [topic for topic in topics if isinstance(topic, re.Pattern)]
            if patterns and len(topics) > 1:
                raise ConfigError("give names or one pattern, not both")
            self.subscribe(patterns[0] if patterns else topics)  # type: ignore[arg-type]

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
        for name, given in callbacks.items():
            if given is not None and not callable(given):
                raise ConfigError(f"{name} is {given!r}; it must be a callable or None")
        pattern = topics if isinstance(topics, re.Pattern) else None
        names = frozenset() if pattern is not None else _names_of(topics)
        with self._lock:
            self._check_open()
            if self._is_assigned:
                raise ConfigError("this consumer was assigned partitions; unsubscribe() first")
            for name in names:
                self._broker.topic_to_use(name)
            if self._membership is not None:
                self._membership.join(names, pattern, callbacks)
            self._names, self._pattern, self._callbacks = names, pattern, callbacks
            self._places.forget_error()
            self._refresh(is_first=True)

    def assign(self, partitions: Iterable[TopicPartitionLike]) -> None:
        """Read these partitions and no others; ConfigError beside ``subscribe``."""
        wanted = [topic_partition_of(given) for given in partitions]
        with self._lock:
            self._check_open()
            if self._names or self._pattern is not None:
                raise ConfigError("this consumer has subscribed to topics; unsubscribe() first")
            found = {tp: self._broker.topic(tp.topic)[tp.partition] for tp in wanted}
            self._is_assigned = True
            self._places.forget_error()
            membership = self._membership
            make = self._places.first_place if membership is None else membership.place_for()
            self._to_announce += self._places.replace(found, make)

    def unsubscribe(self) -> None:
        """Read nothing any more; in a group, leave it."""
        self._check_open()
        self._leave(commits=True, for_good=True)

    def _leave(self, *, commits: bool, for_good: bool) -> None:
        """Give all partitions up; whatever the callback raises comes out, and they are gone."""
        membership = self._membership
        with self._lock:
            unknown = set(self._to_announce)  # nobody was told of these, so nobody is now
            gone = sorted(tp for tp, _ in self._places.items() if tp not in unknown)
        try:
            if membership is not None:
                membership.call_before_leaving(gone, commits)
            else:
                callback = self._callbacks.get("on_revoked")
                if callback is not None and gone:
                    callback(gone)
        finally:
            with self._lock:
                self._names, self._pattern, self._is_assigned = frozenset(), None, False
                self._callbacks, self._to_announce, self._has_announced = {}, [], False
                self._places.clear()
            if membership is not None and not self._broker.is_closed:
                membership.leave(for_good=for_good)

    def subscription(self) -> frozenset[str]:
        """Return the names subscribed to, or those the pattern matches now."""
        with self._lock:
            self._check_open()
            self._refresh()
            return self._wanted_names()

    def assignment(self) -> set[TopicPartition]:
        """Return the partitions it reads."""
        with self._lock:
            self._check_open()
            self._refresh()
            return {tp for tp, _ in self._places.items()}

    def _wanted_names(self) -> frozenset[str]:
        pattern = self._pattern
        if pattern is None:
            return self._names
        return frozenset(name for name in self._broker.topics if pattern.match(name))

    def _refresh(self, *, is_first: bool = False) -> None:
        """Take in topics and partitions that have come or gone."""
        if self._membership is not None and not self._is_assigned:
            self._to_announce += self._membership.refresh()
            return
        changes = self._broker.changes
        if self._broker.is_read_only:
            changes = -1  # partitions may come in another process: look each time
        if not is_first and changes == self._seen_changes and changes >= 0:
            return
        self._seen_changes = changes
        found: dict[TopicPartition, Partition] = {}
        if self._is_assigned:
            for tp, place in self._places.items():
                if not self._is_deleted(tp.topic):
                    found[tp] = place.partition
        else:
            for name in sorted(self._wanted_names()):
                if not self._is_deleted(name):
                    for partition in self._broker.topic(name):
                        found[TopicPartition(name, partition.index)] = partition
        make = self._places.first_place if is_first else self._places.later_place
        self._to_announce += self._places.replace(found, make)

    def _is_deleted(self, name: str) -> bool:
        try:
            self._broker.topic(name)
        except UnknownTopicError:
            return True
        return False

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
            if records or timeout == 0 or self._was_woken() or deadline.is_over:
                return records
            self._wait(deadline)
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
            if records or timeout == 0 or self._was_woken() or deadline.is_over:
                return records
            await self._wait_async(deadline)
            if self._is_over():
                return EMPTY

    def _limit(self, max_records: int | None) -> int:
        if max_records is None:
            return self._max_poll_records
        check_whole("max_records", max_records, low=1)
        return max_records

    def _poll_now(self, limit: int) -> Records:
        """Return what there is, up to a number of records, and move the positions behind it."""
        self._enter_poll()
        try:
            self._begin_poll()
            with self._lock:
                if self._is_closed:
                    return EMPTY
                found = self._places.fetch(limit)
                for place, _, following, _ in found:
                    place.deliver(following)
                    place.done = following
            return Records(part for _, _, _, part in found)
        finally:
            self._leave_poll()

    def _begin_poll(self) -> None:
        """Take in what has come and gone, and tell the callbacks, before anything is read."""
        while not self._is_closed:
            if self._membership is not None:
                taken = self._membership.begin_poll()
                with self._lock:
                    self._to_announce += taken
            else:
                with self._lock:
                    self._refresh()
            self._announce()
            if not self._to_announce:
                return

    def _enter_poll(self) -> None:
        if self._membership is not None:
            self._membership.enter_poll()

    def _leave_poll(self) -> None:
        if self._membership is not None:
            self._membership.leave_poll()

    def _announce(self) -> None:
        """Run ``on_assigned`` for what is new, and once for who joined a group and has nothing;
        the assignment stands whatever it raises."""
        callback = self._callbacks.get("on_assigned")
        with self._lock:  # what was taken in between polls may be somebody else's since
            announced = [tp for tp in dict.fromkeys(self._to_announce) if tp in self._places]
            self._to_announce = []
        is_first = self._membership is not None and not self._has_announced
        self._has_announced = True
        if callback is not None and (announced or is_first):
            callback(announced)

    # ------------------------------------------------------------ iterate

    def __iter__(self) -> Iterator[Record]:
        """Yield records as they come, for ever; a record is used up when it is yielded."""
        self._check_open()
        return self._iterate()

    def _iterate(self) -> Iterator[Record]:
        forever = Deadline(self._broker.clock, None)
        while not self._is_over():
            count = 0
            for record in self._yield_now(None):
                count += 1
                yield record
            if not count and not self._is_over():
                if self._was_woken():
                    continue
                self._wait(forever)

    def drain(self) -> Iterator[Record]:
        """Yield the records that are there now, and stop; paused partitions are left out."""
        with self._lock:
            self._check_open()
            self._refresh()
            bounds = {tp: self._places.end_of(p.partition) for tp, p in self._places.running()}
        return self._drain(bounds)

    def _drain(self, bounds: Bounds) -> Iterator[Record]:
        while not self._is_over() and self._is_before(bounds):
            yield from self._yield_now(bounds)

    def _is_before(self, bounds: Bounds) -> bool:
        """Say whether there is anything left to read before the bounds."""
        with self._lock:
            self._refresh()
            return any(
                tp in bounds and self._places.position(tp) < bounds[tp]
                for tp, _ in self._places.running()
            )

    async def __aiter__(self) -> AsyncIterator[Record]:
        """Yield records as they come, for ever, without holding up the event loop."""
        self._check_open()
        forever = Deadline(self._broker.clock, None)
        while not self._is_over():
            count = 0
            for record in self._yield_now(None):
                count += 1
                yield record
            if not count and not self._is_over():
                await self._wait_async(forever)

    def _yield_now(self, bounds: Bounds | None) -> Iterator[Record]:
        """Yield what there is; each position moves as its record is yielded, not before, so that
        a loop that is left has used up only what it was given."""
        membership = self._membership
        self._enter_poll()
        try:
            self._begin_poll()
            with self._lock:
                if self._is_over():
                    return
                found = self._places.fetch(self._max_poll_records, bounds)
        finally:
            self._leave_poll()
        for place, due, _, part in found:
            for record in Records((part,)):
                with self._lock:
                    if place.position != due or place.is_paused or place.is_given_up:
                        break  # somebody has sought, polled, paused or closed meanwhile
                    place.deliver(record.offset + 1)
                    due = record.offset + 1
                yield record
                if place.position == due:
                    place.done = due
                if membership is not None and not membership.may_go_on():
                    return

    # ------------------------------------------------------------ waiting

    def wakeup(self) -> None:
        """Have a waiting poll, or else the next one, return at once with what there is."""
        self._is_woken = True
        self._wake()

    def _was_woken(self) -> bool:
        was, self._is_woken = self._is_woken, False
        return was

    def _announcers(self) -> list[Any]:
        with self._lock:
            announcers = [self, self._broker]
            if self._membership is not None:
                announcers.append(self._membership.coordinator)
            return [*announcers, *(place.partition for _, place in self._places.running())]

    def _has_news(self) -> bool:
        if self._is_woken or self._is_over():
            return True
        with self._lock:
            if self._membership is not None and self._membership.has_news():
                return True
            if self._broker.changes != self._seen_changes and self._seen_changes >= 0:
                return True
            return self._places.has_news()

    def _wait(self, deadline: Deadline) -> None:
        self._enter_poll()  # who waits for records polls, however long
        try:
            wait_for_news(
                self._announcers(),
                self._safe_news,
                deadline,
                must_look=self._broker.is_read_only,
                within=self._seconds_to_news(),
            )
        finally:
            self._leave_poll()

    async def _wait_async(self, deadline: Deadline) -> None:
        broker = self._broker
        self._enter_poll()
        try:
            await wait_for_news_async(
                self._announcers(),
                self._safe_news,
                broker.clock,
                deadline,
                must_look=broker.is_read_only,
                within=self._seconds_to_news(),
            )
        finally:
            self._leave_poll()

    def _seconds_to_news(self) -> float | None:
        """Return when to look again, at the latest: another member may be out by then, or a
        transaction aborted."""
        ends = [
            None if self._membership is None else self._membership.seconds_to_news(),
            self._broker.transactions.seconds_to_expiry() if self._reads_committed else None,
        ]
        return min((end for end in ends if end is not None), default=None)

    def _safe_news(self) -> bool:
        try:
            return self._has_news()
        except MinilogError:
            return True  # the next poll meets it and says it

    def _is_over(self) -> bool:
        return self._is_closed or self._broker.is_closed

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
        self._wake()

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
        self._wake()

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
        self._refresh()
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
            self._leave(commits=commits and not self._broker.is_closed, for_good=False)
        finally:
            self._is_closed = True
            self._wake()

    def _check_open(self) -> None:
        if self._is_closed:
            raise ClosedError("the consumer was closed")
        self._broker.check_open()

    def __enter__(self) -> Consumer:
        self._check_open()
        return self

    def __exit__(self, kind: type[BaseException] | None, *raised: object) -> None:
        self._close(commits=kind is None)  # what failed is delivered again

    def __del__(self) -> None:
        membership: Membership | None = getattr(self, "_membership", None)
        if membership is not None and not self._is_closed:
            membership.drop()


def _check_group(broker: object, group: object, member_id: object) -> None:
    if not isinstance(broker, Broker):
        raise ConfigError(f"broker is {broker!r}; it must be a minilog.Broker")
    if group is not None:
        check_group_name(group)
        broker.check_writable()  # a group's commits are records
    if member_id is not None:
        check_group_name(member_id, "member_id")
        if group is None:
            raise ConfigError(f"member_id={member_id!r} needs a group")


def _check_deserializers(for_keys: object, for_values: object) -> None:
    for name, given in (("key_deserializer", for_keys), ("value_deserializer", for_values)):
        if given is not None and not callable(given):
            raise ConfigError(f"{name} is {given!r}; it must be a callable or None")


def _check_choice(name: str, given: object) -> None:
    if given not in CHOICES[name]:
        choices = ", ".join(repr(choice) for choice in CHOICES[name])
        raise ConfigError(f"{name} is {given!r}; it must be one of {choices}")


def _names_of(topics: object) -> frozenset[str]:
    if isinstance(topics, str):
        return frozenset((topics,))
    if not isinstance(topics, Iterable):
        raise ConfigError(f"topics is {topics!r}; it must be names or one compiled pattern")
    names = frozenset(topics)
    for name in names:
        if not isinstance(name, str):
            raise ConfigError(f"topics has {name!r}; each must be a topic's name (str)")
    if not names:
        raise ConfigError("topics is empty; name at least one, or unsubscribe()")
    return names
