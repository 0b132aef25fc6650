"""Records on their way into batches: buffers by column, and where records without a key go.

This module refuses to know topics and which key goes where.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

from minilog.arguments import taken
from minilog.errors import ConfigError
from minilog.partition import Partition
from minilog.records import bytes_of
from minilog.sources import Source

COLUMNS = ("values", "keys", "headers", "timestamps")
STICKY_BYTES = 16 * 1024
LARGEST_LOOK = 1024  # records of a bulk send that are taken at once, at most


class Sticky:
    """Where records without a key go: to one partition for a while, then to the next.

    Two threads may now and then count a record twice or not at all; that moves the turn a
    little, and saves a lock.
    """

    __slots__ = ("_number", "_size")

    def __init__(self) -> None:
        self._number = 0
        self._size = 0

    def number_for(self, size: int, count: int) -> int:
        """Return the partition for a record of ``size`` bytes, of ``count`` there are."""
        if self._size >= STICKY_BYTES:
            self._number += 1
            self._size = 0
        self._size += size
        return self._number % count


class Rows(NamedTuple):
    """Some records by column; a column that none has is None."""

    values: list[Any]
    keys: list[Any] | None
    headers: list[Any] | None
    timestamps: list[Any] | None
    sizes: list[int]

    def cut(self, start: int, stop: int) -> Rows:
        """Return the records from ``start`` to ``stop``."""
        values, keys, headers, timestamps, sizes = (
            None if column is None else column[start:stop] for column in self
        )
        return Rows(values or [], keys, headers, timestamps, sizes or [])

    def pick(self, numbers: Sequence[int]) -> Rows:
        """Return the records of these numbers."""
        values, keys, headers, timestamps, sizes = (
            None if column is None else [column[number] for number in numbers] for column in self
        )
        return Rows(values or [], keys, headers, timestamps, sizes or [])


def rows_of(columns: Sequence[Iterable[Any] | None], batch_bytes: int) -> Iterator[Rows]:
    """Yield records from columns (values, keys, headers, timestamps) in runs of at most about
    ``batch_bytes``; little more than that is taken ahead. ConfigError for a short or long one."""
    takes = [
        list if isinstance(c, (list, tuple)) else partial(taken, n)
        for n, c in zip(COLUMNS, columns)
    ]
    iterators = [None if column is None else iter(column) for column in columns]
    look = 1
    while True:
        rows = [None if c is None else take(islice(c, look)) for take, c in zip(takes, iterators)]
        values = rows[0] or []
        if any(column is not None and len(column) != len(values) for column in rows):
            raise ConfigError("values, keys, headers and timestamps differ in number")
        if not values:
            return
        sizes = sizes_of("value", values)
        if rows[1] is not None:
            sizes = [value + key for value, key in zip(sizes, sizes_of("key", rows[1]))]
        yield Rows(values, rows[1], rows[2], rows[3], sizes)
        average = sum(sizes) // len(sizes) + 1
        look = max(1, min(batch_bytes // (4 * average), LARGEST_LOOK))


def sizes_of(what: str, column: list[Any]) -> list[int]:
    """Return the bytes of each entry; TypeError for what has none."""
    try:
        return list(map(len, column))
    except TypeError:  # a null is among them, or something that bytes_of refuses
        return [len(bytes_of(what, entry) or b"") for entry in column]


class Buffer:
    """Records for one partition that are not written yet, by column."""

    __slots__ = ("headers", "keys", "size", "timestamps", "values")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Begin anew."""
        self.values: list[Any] = []
        self.keys: list[Any] = []
        self.headers: dict[int, Any] = {}  # by number: most records have none
        self.timestamps: dict[int, Any] = {}
        self.size = 0

    def add(self, value: Any, key: Any, headers: Any, timestamp: Any) -> None:
        """Add one record."""
        if headers:
            self.headers[len(self.values)] = headers
        if timestamp is not None:
            self.timestamps[len(self.values)] = timestamp
        self.values.append(value)
        self.keys.append(key)

    def extend(self, rows: Rows) -> None:
        """Add many records."""
        first = len(self.values)
        self.values += rows.values
        self.keys += [None] * len(rows.values) if rows.keys is None else rows.keys
        if rows.headers is not None:
            self.headers.update(enumerate(rows.headers, first))
        if rows.timestamps is not None:
            self.timestamps.update(enumerate(rows.timestamps, first))
        self.size += sum(rows.sizes)

    def append_to(
        self, partition: Partition, source: Source | None = None, timestamp: int | None = None
    ) -> range:
        """Write the records as one batch; ``timestamp`` is that of all that have none."""
        count = len(self.values)
        headers: list[Any] | None = None
        timestamps: list[Any] | int | None = timestamp
        if self.headers:
            headers = [self.headers.get(number) for number in range(count)]
        if self.timestamps:
            now_ms = partition.now_ms()
            timestamps = [self.timestamps.get(number, now_ms) for number in range(count)]
        keys = None if self.keys.count(None) == count else self.keys
        columns: dict[str, Any] = {"keys": keys, "headers": headers, "timestamps": timestamps}
        if source is None:
            return partition.append_many(self.values, **columns)
        return partition.append_many_from(source, self.values, **columns)
