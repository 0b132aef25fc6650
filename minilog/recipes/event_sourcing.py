"""Event sourcing: the state of an aggregate is what its records make of it, one after the other.

    def evolve(balance, record):
        return balance + int(record.value)

    accounts = Aggregates(broker, "accounts", initial=0, evolve=evolve)

    def withdraw(balance):
        if balance < 30:
            raise ValueError("there is not enough")
        return b"-30"

    accounts.execute(b"ann", withdraw)

Whoever decides has seen everything before the record that they append: it is appended with
``expected_offset``, and who comes second reads what came first and decides again, in any number of
threads. Records of one aggregate have its key and stand in one partition; another aggregate's in
the same partition only cost another look. So the topic's number of partitions must stay as it is.

With a topic for snapshots (``cleanup_policy="compact"`` keeps it small) reading begins at the last
one of a key. A snapshot is a shortcut only: without any the state is the same. This module refuses
to know what records mean.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

from minilog import Broker, OffsetConflictError, Partition, Record

State = TypeVar("State")


class Aggregate(NamedTuple):
    """What the records of a key come to, up to an offset of its partition."""

    state: Any
    next_offset: int  # all before it have been looked at
    version: int  # of them, so many are its own


class Aggregates(Generic[State]):
    """The aggregates of one topic, by key. ``evolve(state, record)`` returns the next state and
    leaves the one it was given as it is.

    Every ``snapshot_every`` records of a key, its state is kept in the topic ``snapshots``, by
    ``encode`` and ``decode`` to and from bytes.
    """

    def __init__(
        self,
        broker: Broker,
        topic: str,
        *,
        initial: State,
        evolve: Callable[[State, Record], State],
        snapshots: str | None = None,
        snapshot_every: int = 100,
        encode: Callable[[State], bytes] = lambda state: str(state).encode(),
        decode: Callable[[bytes], State] | None = None,
    ) -> None:
        self._broker = broker
        self._topic = broker.topic(topic)
        self._initial = initial
        self._evolve = evolve
        self._snapshots = None if snapshots is None else broker.topic(snapshots)
        self._snapshot_every = snapshot_every
        self._last: dict[bytes, int] = {}  # where the last snapshot of a key is
        self._looked_at: dict[int, int] = {}  # how far snapshots were looked for, by partition
        self._encode = encode
        self._decode = decode
        if snapshots is not None and decode is None:
            raise ValueError("snapshots need decode=, which makes a state of what encode= made")

    def load(self, key: bytes) -> Aggregate:
        """Return an aggregate as it is now."""
        return self._follow(key, self._last_snapshot(key) or Aggregate(self._initial, 0, 0))

    def execute(self, key: bytes, decide: Callable[[State], bytes | None]) -> Aggregate:
        """Append what ``decide(state)`` returns, if anything, and return what comes of it.

        It is asked again, with the new state, when another record came first. What it raises comes
        out, and nothing is appended.
        """
        partition = self._partition_of(key)
        aggregate = self.load(key)
        while (value := decide(aggregate.state)) is not None:
            try:
                partition.append(value, key=key, expected_offset=aggregate.next_offset)
            except OffsetConflictError as conflict:
                if partition.end_offset < conflict.actual:
                    self._broker.flush()  # with sync="always" it is seen when it is on the disk
                aggregate = self._follow(key, aggregate)
                continue
            before, aggregate = aggregate, self._follow(key, aggregate)
            self._keep_snapshot(key, before, aggregate)
            break
        return aggregate

    def _partition_of(self, key: bytes) -> Partition:
        return self._topic[self._topic.partition_for(key)]

    def _follow(self, key: bytes, aggregate: Aggregate) -> Aggregate:
        """Return an aggregate after the records that have come since."""
        partition = self._partition_of(key)
        state, position, version = aggregate
        end = partition.end_offset
        while position < end:
            records = partition.read(position, max_records=5000)
            if not records:
                break  # what is left are the marks of transactions
            own = [number for number, other in enumerate(records.keys) if other == key]
            for record in map(records.__getitem__, own):
                if record.offset < end:
                    state, version = self._evolve(state, record), version + 1
            position = records.next_offset
        return Aggregate(state, end, version)

    # ------------------------------------------------------------ snapshots

    def _keep_snapshot(self, key: bytes, before: Aggregate, after: Aggregate) -> None:
        every = self._snapshot_every
        if self._snapshots is None or before.version // every == after.version // every:
            return
        place = f"{self._topic.id} {after.next_offset} {after.version}"
        snapshots = self._snapshots[self._snapshots.partition_for(key)]
        snapshots.append(self._encode(after.state), key=key, headers={"of": place.encode()})

    def _last_snapshot(self, key: bytes) -> Aggregate | None:
        """Return the last snapshot of a key, if there is one of this very topic."""
        if self._snapshots is None or self._decode is None:
            return None
        partition = self._snapshots[self._snapshots.partition_for(key)]
        position = self._looked_at.get(partition.index, partition.start_offset)
        while records := partition.read(position, max_records=5000):
            for offset, found in zip(records.offsets, records.keys, strict=True):
                if found is not None:
                    self._last[found] = max(offset, self._last.get(found, 0))
            position = self._looked_at[partition.index] = records.next_offset
        if key not in self._last:
            return None
        record = partition.read(self._last[key], max_records=1)[0]
        topic, next_offset, version = (dict(record.headers).get("of") or b"").split()
        if topic.decode() != str(self._topic.id):
            return None  # of a topic of this name that was deleted
        return Aggregate(self._decode(record.value or b""), int(next_offset), int(version))
