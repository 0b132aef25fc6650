"""Records on their way into batches: buffers by column, and where records without a key go.

This module refuses to know topics and which key goes where.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from minilog.partition import Partition

STICKY_BYTES = 16 * 1024


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


class Buffer:
    """Records for one partition that are not written yet, by column."""

    __slots__ = ("headers", "keys", "size", "timestamps", "values")

    def __init__(self) -> None:
        self.values: list[Any] = []
        self.keys: list[Any] = []
        self.headers: list[Any] = []
        self.timestamps: list[Any] = []
        self.size = 0

    def add(self, value: Any, key: Any, headers: Any, timestamp: Any) -> None:
        """Add one record."""
        self.values.append(value)
        self.keys.append(key)
        self.headers.append(headers)
        self.timestamps.append(timestamp)
        self.size += len(value or b"") + len(key or b"")

    def extend(self, rows: list[tuple[Any, ...]]) -> None:
        """Add many records."""
        values, keys, headers, timestamps = zip(*rows)
        self.values += values
        self.keys += keys
        self.headers += headers
        self.timestamps += timestamps
        try:
            self.size += sum(map(len, values)) + sum(map(len, filter(None, keys)))
        except TypeError:
            self.size += sum(len(v or b"") + len(k or b"") for v, k in zip(values, keys))

    def pieces(self, limit: int) -> Iterator[Buffer]:
        """Yield the records in parts of about ``limit`` bytes."""
        if self.size <= 2 * limit:
            yield self
            return
        piece = Buffer()
        for row in zip(self.values, self.keys, self.headers, self.timestamps):
            piece.add(*row)
            if piece.size >= limit:
                yield piece
                piece = Buffer()
        if piece.values:
            yield piece

    def append_to(self, partition: Partition) -> range:
        """Write the records as one batch."""
        return partition.append_many(
            self.values,
            keys=self.keys if any(key is not None for key in self.keys) else None,
            headers=self.headers if any(self.headers) else None,
            timestamps=self._timestamps(partition),
        )

    def _timestamps(self, partition: Partition) -> list[Any] | None:
        if all(timestamp is None for timestamp in self.timestamps):
            return None
        now_ms = partition.now_ms()
        return [now_ms if given is None else given for given in self.timestamps]
