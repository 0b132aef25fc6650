"""A workload while it runs: what it does to a broker on a simulated disk, and what it was promised.

A *story* does one thing after another and writes down, for each, how many operations the disk had
seen when the call returned and what is promised from then on. A crash in between must leave one
of the two promises it falls between. A story may itself crash and go on: every time it does, a
new *leg* begins, on the disk the crash has left, with what was found there as its promise.

To add a workload, write a function in ``crash_workloads.py`` that takes a story; ten lines do:

    @workload(sync="always", segment_bytes=256)
    def test_name_of_it(story: Story) -> None:
        story.create("t", 2)
        story.append("t", 0)
        story.crash()

To add something that can be done (a commit, a transaction), add a method here that does it within
``self.doing(...)`` and changes ``self.now``; what must hold of it is added to the promise and
looked at in ``crash_invariants.py``.
"""

from __future__ import annotations

import contextlib
import random
import uuid
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple
from unittest import mock

import crash_invariants as invariants
from promises import PartitionPromise, Place, Promise, Row, TopicPromise, TransactionPromise

from minilog import Broker, Consumer, Partition, Producer
from minilog.storage import repacking
from minilog.storage.format import decode_document
from minilog.testing import ManualClock, SimulatedDisk
from minilog.testing.crashes import CrashPlan, Timeline, plans_at
from minilog.topic import log_identity

START_MS = 1_000_000
STEP_MS = 10


class Failed(Exception):
    """What a transaction of a story fails by."""


class Moment(NamedTuple):
    """What is promised once the disk has seen so many operations."""

    at: int
    promise: Promise
    step: str


class Leg:
    """One life of a broker: a disk, how it is opened, and what was promised when."""

    def __init__(self, disk: SimulatedDisk, settings: dict[str, Any], promise: Promise) -> None:
        self.disk = disk
        self.settings = settings
        self.moments = [Moment(disk.inherited_count, promise, "start")]

    def add(self, promise: Promise, step: str) -> None:
        """Note what is promised now."""
        self.moments.append(Moment(len(self.disk.operations), promise, step))

    def around(self, plan: CrashPlan) -> tuple[Moment, Moment]:
        """Return the last moment before a crash and the first behind it: one, if it is there."""
        moments = self.moments
        number = bisect_right(moments, plan.at, key=lambda moment: moment.at) - 1
        if moments[number].at == plan.at and not plan.is_within_operation:
            return moments[number], moments[number]
        if moments[number].at == plan.at and plan.at > moments[0].at:
            number = bisect_left(moments, plan.at, key=lambda moment: moment.at) - 1
        return moments[number], moments[min(number + 1, len(moments) - 1)]


class Story:
    """A workload's hands; every method is one call of the application, and one step."""

    def __init__(
        self, seed: int, settings: dict[str, Any], skipped: frozenset[int] = frozenset()
    ) -> None:
        self.rng = random.Random(seed)
        self.steps: list[str] = []
        self._skipped = skipped
        self._settings = settings
        self._clock_ms = START_MS
        self.count = 0  # of steps that could be skipped
        self.now = Promise({}, {})
        disk = SimulatedDisk(
            can_reserve=bool(seed % 4)
        )  # every fourth on a file system that cannot
        self.legs = [Leg(disk, settings, self.now)]
        self._open()

    # ------------------------------------------------------------ the broker's life

    @property
    def leg(self) -> Leg:
        """The present one."""
        return self.legs[-1]

    @contextmanager
    def doing(self, step: str) -> Iterator[None]:
        """Do one step: its promise is made when it returns."""
        self.steps.append(step)
        self._clock_ms += STEP_MS
        if self.leg.settings["sync"] != "interval":  # there it would sync
            self.clock.advance(STEP_MS)
        yield
        self.leg.add(self.now, step)

    def is_skipped(self) -> bool:
        """Say whether the next step is left out, when the smallest failing story is looked for."""
        self.count += 1
        return self.count - 1 in self._skipped

    def _open(self) -> None:
        self._written: set[Place] = set()  # where this opening has appended
        self.clock = ManualClock(self._clock_ms)
        with self.doing("open"):
            self.broker = invariants.opened(self.leg.disk, self.leg.settings, self.clock)

    def close(self) -> None:
        """Close the broker: everything is on the disk."""
        with self.doing("close"):
            self.broker.close()
            self.now = self.now.all_durable()

    def reopen(self, **settings: Any) -> None:
        """Close and open again, perhaps with other settings."""
        if self.is_skipped():
            return
        self.close()
        self.leg.settings = {**self.leg.settings, **settings}
        self._open()

    def kill(self) -> None:
        """Kill the process: all that was done is there, none of it is synced."""
        if not self.is_skipped():
            self._crash(None)

    def crash(self) -> None:
        """Cut the power, with any of the legal outcomes, and go on with what is found."""
        if not self.is_skipped():
            self._crash(self.rng)

    def _crash(self, rng: random.Random | None) -> None:
        disk = self.leg.disk
        at = len(disk.operations)
        timeline = timeline_at(disk, at)
        plan = CrashPlan(at, is_power_cut=False)
        if rng is not None:
            plan = rng.choice([plan for plan in plans_at(timeline) if plan.is_power_cut])
        self.broker.refuse_in_child()  # lets go of all without a write, as a process's end does
        self.steps.append(f"crash by {plan}")
        crashed = disk.after(timeline, plan)
        leg = Leg(crashed, self.leg.settings, self.now)
        expected = self.now
        self.legs.append(leg)
        self._open()
        found = invariants.dump(self.broker)
        invariants.check_found(found, expected, expected, is_power_cut=plan.is_power_cut)
        self.now = expected.as_found(found, is_durable=plan.is_power_cut)
        # What was found is promised from the first operation on: a crash in the middle of the
        # recovery must not leave less.
        leg.moments[:] = [Moment(crashed.inherited_count, self.now, "found")]

    # ------------------------------------------------------------ topics

    def create(self, name: str, partitions: int = 1, **settings: Any) -> None:
        """Create a topic."""
        if self.is_skipped():
            return
        with self.doing(f"create {name} of {partitions}, {settings}"):
            topic = self.broker.create_topic(name, partitions, **settings)
            parts = tuple(PartitionPromise() for _ in range(partitions))
            self.now = self.now.with_topic(name, TopicPromise(topic.id, topic.config, parts))

    def delete(self, name: str) -> None:
        """Delete a topic."""
        if self.is_skipped():
            return
        with self.doing(f"delete {name}"):
            self.broker.delete_topic(name)
            self.now = self.now.without_topic(name)

    def add_partitions(self, name: str, total: int) -> None:
        """Give a topic more partitions."""
        if self.is_skipped():
            return
        with self.doing(f"add partitions to {name}: {total}"):
            self.broker.topic(name).add_partitions(total)
            promise = self.now.topics[name]
            added = tuple(PartitionPromise() for _ in range(total - len(promise.partitions)))
            promise = promise._replace(partitions=promise.partitions + added)
            self.now = self.now.with_topic(name, promise)

    def configure(self, name: str, **settings: Any) -> None:
        """Change a topic's settings."""
        if self.is_skipped():
            return
        with self.doing(f"configure {name}: {settings}"):
            topic = self.broker.topic(name)
            topic.configure(**settings)
            promise = self.now.topics[name]._replace(settings=topic.config)
            self.now = self.now.with_topic(name, promise)

    # ------------------------------------------------------------ records

    def append(self, name: str, partition: int = 0, size: int | None = None, **given: Any) -> None:
        """Append one record of random bytes, or of what is given (key, value, headers)."""
        if self.is_skipped():
            return
        value = given.pop("value", self.bytes_of(size))
        place = (name, partition)
        with self.doing(f"append to {name}-{partition}: {value!r:.40} {given or ''}"):
            offset = self._at(place).append(value, **given)
            headers = tuple(given.get("headers", ()))
            row = Row(offset, self.clock.now_ms(), given.get("key"), value, headers)
            self._appended(place, [row])

    def append_many(
        self, name: str, partition: int = 0, count: int = 5, size: int | None = None, **given: Any
    ) -> None:
        """Append an atomic batch."""
        if self.is_skipped():
            return
        values = given.pop("values", None) or [self.bytes_of(size) for _ in range(count)]
        place = (name, partition)
        with self.doing(f"append {len(values)} to {name}-{partition}"):
            offsets = self._at(place).append_many(values, **given)
            keys = given.get("keys") or [None] * len(values)
            headers = given.get("headers") or [()] * len(values)
            now_ms = self.clock.now_ms()
            rows = [
                Row(offset, now_ms, key, value, tuple(pairs))
                for offset, key, value, pairs in zip(offsets, keys, values, headers)
            ]
            self._appended(place, rows)

    def delete_before(self, name: str, partition: int = 0, *, back: int = 0) -> None:
        """Raise a partition's start to so many records before its end."""
        if self.is_skipped():
            return
        place = (name, partition)
        promise = self.now.partition(place)
        offset = max(promise.end - back, promise.start)
        with self.doing(f"delete before {offset} of {name}-{partition}"):
            self._at(place).delete_before(offset)
            if offset > promise.start:
                promise = promise._replace(start=offset, durable=promise.end)
                self.now = self.now.with_partition(place, promise)

    # ------------------------------------------------------------ cleaning

    def expire(self, ms: int = 0) -> None:
        """Let time pass and have done what is due: old records go, logs are compacted."""
        if self.is_skipped():
            return
        with self.doing(f"{ms} ms pass; maintain"):
            self._clock_ms += ms
            self.clock.advance(ms)
            self.broker.maintain()
            self._starts_moved()

    def compact(self, name: str) -> None:
        """Compact a topic: of every key the last record is left."""
        if self.is_skipped():
            return
        with self.doing(f"compact {name}"):
            self.broker.topic(name).compact()

    def repack(self) -> None:
        """Have sealed segments of records appended one by one written anew, however small."""
        if self.is_skipped():
            return
        small = mock.patch.multiple(repacking, LEAST_BYTES=0, SAMPLE_FRAMES=2)
        with self.doing("re-pack"), small:
            self.broker.maintain()

    def _starts_moved(self) -> None:
        for name, topic in self.now.topics.items():
            for number, promise in enumerate(topic.partitions):
                start = self._at((name, number)).start_offset
                if start > promise.start:
                    promise = promise._replace(start=start, durable=promise.end)
                    self.now = self.now.with_partition((name, number), promise)

    # ------------------------------------------------------------ groups and transactions

    def commit(self, group: str, name: str, partition: int = 0, *, back: int = 0) -> None:
        """Commit an offset of a group, so many records before a partition's end."""
        if self.is_skipped():
            return
        place = (name, partition)
        offset = self.now.partition(place).end - back
        with self.doing(f"group {group} commits {offset} of {name}-{partition}"):
            with Consumer(self.broker, name, group=group, auto_commit=False) as consumer:
                consumer.poll(0)
                consumer.commit({place: offset})
            self.now = self._settled().with_commit(group, place, offset, is_durable=self._is_always)

    def transact(
        self,
        *places: Place,
        fails: bool = False,
        group: str | None = None,
        offset_of: Place | None = None,
    ) -> None:
        """Send a record to each place in one transaction, and commit a group's offset with them."""
        if self.is_skipped():
            return
        rows = []
        with self.doing(f"transaction to {places}{' that fails' if fails else ''}"):
            transaction = Producer(self.broker).transaction()
            with contextlib.suppress(Failed), transaction as work:
                for name, partition in places:
                    value = self.bytes_of(None)
                    sent = work.send(name, value, partition=partition)
                    row = Row(sent.offset, sent.timestamp, None, value, ())
                    rows.append(((name, partition), row))
                if group is not None and offset_of is not None:
                    work.commit_offsets({offset_of: 1}, group=group)
                if fails:
                    raise Failed
            now = self.now
            for place, row in rows:
                self._written.add(place)
                now = now.with_partition(place, now.partition(place).after([row]))
            if group is not None and offset_of is not None and not fails:
                now = now.with_commit(group, offset_of, 1, is_durable=self._is_always)
            told = TransactionPromise(
                tuple((place, row.offset) for place, row in rows),
                "aborted" if fails else "committed",
                self._is_always,
            )
            self.now = now._replace(transactions=(*now.transactions, told))
            self.now = self._settled()

    def _settled(self) -> Promise:
        """Return the promise with the ends as they are: markers use up offsets."""
        now = self.now
        for name, topic in now.topics.items():
            for number, promise in enumerate(topic.partitions):
                end = self._at((name, number)).end_offset
                if end != promise.end:
                    promise = promise.to_end(end)
                if self._is_always:
                    promise = promise._replace(durable=promise.end)
                now = now.with_partition((name, number), promise)
        return now

    # ------------------------------------------------------------ the disk

    def flush(self) -> None:
        """Have everything on the disk."""
        if self.is_skipped():
            return
        with self.doing("flush"):
            self.broker.flush()
            self.now = self.now.all_durable()

    def tick(self) -> None:
        """Let a second pass: with ``sync="interval"`` everything is on the disk then."""
        if self.is_skipped():
            return
        with self.doing("a second passes"):
            self._clock_ms += 1000
            self.clock.advance(1000)
            if self.leg.settings["sync"] == "interval":
                self.now = self.now.all_durable()

    # ------------------------------------------------------------ inside

    @property
    def _is_always(self) -> bool:
        return bool(self.leg.settings["sync"] == "always")

    def _at(self, place: Place) -> Partition:
        return self.broker.topic(place[0])[place[1]]

    def _appended(self, place: Place, rows: list[Row]) -> None:
        promise = self.now.partition(place).after(rows)
        if self._is_always:
            promise = promise._replace(durable=promise.end)
        self.now = self.now.with_partition(place, promise)
        partition = self._at(place)
        topic = self.broker.topic(place[0])
        directory = self.leg.disk.root_directory().child(place[0]).child(str(place[1]))
        epochs = invariants.epochs_of(directory, log_identity(topic.id, partition.index))
        earlier = [epoch for offset, epoch in epochs if offset < rows[0].offset]
        is_first = place not in self._written
        self._written.add(place)
        text = f"{place} is written in epoch {epochs[-1][1]}, after {earlier}"
        invariants.hold(all(epochs[-1][1] >= epoch + is_first for epoch in earlier), text)

    def bytes_of(self, size: int | None) -> bytes:
        """Return random bytes, some of them zero, as records have."""
        if size is None:
            size = self.rng.choice((0, 1, 8, 20, 33, 60, 150, 400))
        return bytes(self.rng.choice((0, 0, 1, 65, 255)) for _ in range(size))


def timeline_at(disk: SimulatedDisk, at: int) -> Timeline:
    """Return what a disk had come to after so many operations."""
    timeline = disk.timeline()
    for operation in disk.operations[:at]:
        timeline.advance(operation)
    return timeline


Workload = Callable[[Story], None]


class Told(NamedTuple):
    """A workload with the settings it runs under."""

    name: str
    settings: dict[str, Any]
    tell: Workload

    def run(self, seed: int, skipped: frozenset[int] = frozenset()) -> Story:
        """Run it to its end, which is a close, and return its story."""
        with known_ids(seed):
            story = Story(seed, dict(self.settings), skipped)
            self.tell(story)
            story.close()
        return story


@contextmanager
def known_ids(seed: int) -> Iterator[None]:
    """Have every uuid drawn with a seed, so that a trace can be run again; and what is decoded
    again and again remembered."""
    rng = random.Random(seed)

    def draw() -> uuid.UUID:
        return uuid.UUID(int=rng.getrandbits(128), version=4)

    # The same few small files are decoded a million times: what they say does not change.
    decode = lru_cache(4096)(decode_document)

    def remembered(data: bytes, path: str) -> dict[str, Any]:
        return dict(decode(data, path))

    with (
        mock.patch("uuid.uuid4", draw),
        mock.patch("minilog.home.decode_document", remembered),
        mock.patch("minilog.topic_files.decode_document", remembered),
    ):
        yield


__all__ = ["Broker", "Leg", "Moment", "Story", "Told", "known_ids", "timeline_at"]
