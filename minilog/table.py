"""A table: the latest value of each key of a topic, as a mapping that keeps itself up to date.

Each look-up first takes in what has come; where nothing has, that is a look at the ends. The table
is a function of the records that are there: when some go (``delete_before``, retention), it is
read anew. It is restored by column, a dict from two lists at a time.

Of a key with records in several partitions, the latest by time is taken, in the order in which
``replay`` has them: within a partition no record counts as earlier than one before it.

Invariants: ``_ends`` is published after the dict has all up to there; whoever changes the dict
holds ``_lock``; where that was interrupted, ``_ends`` is empty and all is read anew.

This module refuses to know topics, files and who appends.
"""

from __future__ import annotations

import threading
from collections.abc import ItemsView, Iterator, KeysView, Mapping, ValuesView
from itertools import accumulate
from typing import Any, Protocol

from minilog.errors import OffsetOutOfRangeError
from minilog.partition import Partition
from minilog.records import BytesLike, Records, bytes_of

READ_RECORDS = 64 * 1024  # taken in at once
READ_BYTES = 8 * 1024 * 1024
MOST_PARTITIONS = 2**17  # more than any topic has


class Partitioned(Protocol):
    """What a table needs of its topic."""

    @property
    def name(self) -> str: ...
    @property
    def partitions(self) -> tuple[Partition, ...]: ...


class Table(Mapping[bytes, bytes]):
    """The latest value of each key of a topic: read-only, live, thread-safe.

    A tombstone removes its key; records without a key are left out. Made by ``topic.table()``,
    which reads the topic: keep it. ``items()``, ``keys()``, ``values()`` and iteration are of one
    moment.
    """

    def __init__(self, topic: Partitioned) -> None:
        self._topic = topic
        self._lock = threading.Lock()
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._latest: Latest | LatestOfMany = Latest()
        self.refresh()

    def refresh(self) -> None:
        """Take in what has come since the last look-up, as each look-up does."""
        partitions = self._topic.partitions
        ends = [partition.stable_offset for partition in partitions]
        if ends == self._ends and self._starts == [p.start_offset for p in partitions]:
            return
        with self._lock:
            while not self._take_in():
                pass  # records went while they were read: all of it anew

    def _take_in(self) -> bool:
        """Take in what has come; False when records went meanwhile."""
        partitions = self._topic.partitions
        starts = [each.start_offset for each in partitions]  # first: none is beyond its end
        ends = [each.stable_offset for each in partitions]  # what is not committed may never be
        latest, positions = self._latest, self._ends
        if starts != self._starts or len(positions) != len(partitions):
            latest = Latest() if len(partitions) == 1 else LatestOfMany()
            positions = starts
        try:
            for partition, position, end in zip(partitions, positions, ends):
                for records in self._read(partition, position, end):
                    latest.take_in(records, partition.index)
            latest.settle()
            self._latest = latest
            self._starts = starts
            self._ends = ends
        except OffsetOutOfRangeError:
            return False
        except BaseException:
            self._ends = []  # some is in and some is not: the next look-up reads all of it anew
            raise
        return True

    def _read(self, partition: Partition, position: int, end: int) -> Iterator[Records]:
        return partition.read_up_to(position, end, READ_RECORDS, READ_BYTES)

    @property
    def positions(self) -> dict[int, int]:
        """By partition, the offset up to which records are in."""
        return dict(enumerate(self._ends))

    def snapshot(self) -> dict[bytes, bytes]:
        """Return what is there now as a dict of one's own."""
        self.refresh()
        with self._lock:
            return self._latest.copied()

    def __getitem__(self, key: BytesLike) -> bytes:
        value = self._find(key)
        if value is None:
            raise KeyError(key)
        return value

    def __contains__(self, key: object) -> bool:
        return self._find(key) is not None

    def _find(self, key: object) -> bytes | None:
        wanted = key if key.__class__ is bytes else bytes_of("key", key)
        self.refresh()
        return None if wanted is None else self._latest.find(wanted)

    def __len__(self) -> int:
        self.refresh()
        with self._lock:
            return len(self._latest)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.snapshot())

    def keys(self) -> KeysView[bytes]:
        """Return the keys of this moment."""
        return self.snapshot().keys()

    def values(self) -> ValuesView[bytes]:
        """Return the values of this moment."""
        return self.snapshot().values()

    def items(self) -> ItemsView[bytes, bytes]:
        """Return the keys and values of this moment."""
        return self.snapshot().items()

    def __repr__(self) -> str:
        return f"<Table of {self._topic.name}>"


class Latest:
    """The latest value of each key of one partition."""

    def __init__(self) -> None:
        self._values: dict[bytes, bytes] = {}

    def take_in(self, records: Records, partition: int) -> None:
        """Take in what follows."""
        keys, values = records.keys, records.values
        if None in keys or None in values:
            for key, value in zip(keys, values):
                if key is None:
                    continue
                if value is None:
                    self._values.pop(key, None)
                else:
                    self._values[key] = value
        else:
            self._values.update(zip(keys, values))  # type: ignore[arg-type]

    def settle(self) -> None:
        """All that there was is in."""

    def find(self, key: bytes) -> bytes | None:
        """Return the value of a key; None when there is none."""
        return self._values.get(key)

    def copied(self) -> dict[bytes, bytes]:
        """Return the values by key."""
        return self._values.copy()

    def __len__(self) -> int:
        return len(self._values)


class LatestOfMany:
    """The latest value of each key of several partitions.

    A tombstone stays until all partitions have been read up to the same moment: what another one
    has of that key may be older.
    """

    def __init__(self) -> None:
        self._values: dict[bytes, bytes | None] = {}
        self._places: dict[bytes, int] = {}  # by key, timestamp and partition as one number
        self._stamps: dict[int, int] = {}  # by partition, the largest timestamp so far
        self._gone: set[bytes] = set()  # keys that may have a tombstone

    def take_in(self, records: Records, partition: int) -> None:
        """Take in what follows in a partition."""
        keys: list[Any] = records.keys
        values = records.values
        places = [stamp * MOST_PARTITIONS + partition for stamp in self._rising(records, partition)]
        if not self._values.keys().isdisjoint(keys) or None in keys:
            keys, values, places = self._those_that_count(keys, values, places)
        if None in values:
            self._gone.update(key for key, value in zip(keys, values) if value is None)
        self._values.update(zip(keys, values))
        self._places.update(zip(keys, places))

    def _rising(self, records: Records, partition: int) -> list[int]:
        """Return when each record is, none earlier than one before it in its partition."""
        stamps = records.timestamps
        before = self._stamps.get(partition, 0)
        if stamps[0] < before or stamps != sorted(stamps):
            stamps = list(accumulate(stamps, max, initial=before))[1:]
        self._stamps[partition] = stamps[-1]
        return stamps

    def _those_that_count(
        self, keys: list[Any], values: list[bytes | None], places: list[int]
    ) -> tuple[list[Any], list[bytes | None], list[int]]:
        """Return the records that have a key, and of it nothing later is known."""
        known = self._places
        rows = [
            row
            for row in zip(keys, values, places)
            if row[0] is not None and known.get(row[0], 0) <= row[2]
        ]
        return [row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows]

    def settle(self) -> None:
        """Let go of the tombstones: all that there was is in."""
        for key in self._gone:
            if self._values.get(key, b"") is None:
                del self._values[key]
                del self._places[key]
        self._gone.clear()

    def find(self, key: bytes) -> bytes | None:
        """Return the value of a key; None when there is none."""
        return self._values.get(key)

    def copied(self) -> dict[bytes, bytes]:
        """Return the values by key."""
        return self._values.copy()  # type: ignore[return-value]  # no tombstone outlives settle

    def __len__(self) -> int:
        return len(self._values)
