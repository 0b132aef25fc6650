"""Many records in one call: columns of any length, cut into batches for each partition.

Little more than a batch for each of some partitions is held at once, whatever comes out of an
iterable. This module refuses to know who sends: a producer, a named one, a transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import Any

from minilog.arguments import is_column
from minilog.batching import COLUMNS, Buffer, Rows, rows_of
from minilog.errors import ConfigError
from minilog.partition import Partition
from minilog.records import timestamp_of
from minilog.routing import Router, Serializer
from minilog.sources import Source

TOLERANCE = 1.25  # so much larger than batch_bytes a batch may be: as much as gathering allows
MOST_BATCHES_HELD = 16  # of a bulk send over many partitions, before all are written


class Bulk:
    """One bulk send; ``write`` does each of its writes, within a transaction if need be."""

    def __init__(
        self,
        router: Router,
        batch_bytes: int,
        source: Source | None,
        write: Callable[[Partition, Callable[[], range]], range] | None = None,
    ) -> None:
        self._router = router
        self._batch_bytes = batch_bytes
        self._source = source
        self._write_within = write
        self._timestamp: int | None = None  # of all of them
        self._written: dict[int, range] = {}

    def send(
        self,
        topic: str,
        values: Any,
        keys: Any,
        headers: Any,
        timestamps: Any,
        partition: int | None,
    ) -> dict[int, range]:
        """Append records and return, by partition, the offsets from the first to the last."""
        if isinstance(keys, (list, tuple)):  # what is missing is said before anything is written
            self._router.partitions(topic)[0].check_keys(keys)
        columns = self._columns(values, keys, headers, timestamps)
        partitions = self._router.partitions(topic)
        size = _size_at_hand(columns)
        if size is not None:
            if partition is not None or len(partitions) == 1:
                self._send_at_hand(self._router.target(topic, None, partition, 0), columns, size)
                return self._written
            if self._spread_at_hand(partitions, columns, size):
                return self._written
        buffers: dict[int, Buffer] = {}
        held = 0
        for rows in rows_of(columns, self._batch_bytes):
            for number, part in self._spread(topic, rows, partition):
                buffer = buffers.get(number)
                if buffer is None:
                    buffer = buffers[number] = Buffer()
                buffer.extend(part)
                held += sum(part.sizes)
                if buffer.size >= self._batch_bytes:
                    del buffers[number]
                    held -= buffer.size
                    self._write(topic, number, buffer)
            if held >= MOST_BATCHES_HELD * self._batch_bytes:
                for number, buffer in buffers.items():
                    self._write(topic, number, buffer)
                buffers, held = {}, 0
        for number, buffer in buffers.items():
            self._write(topic, number, buffer)
        return self._written

    def _send_at_hand(self, target: Partition, columns: list[Any], size: int) -> None:
        """Append what is in lists already and goes to one partition: it needs no gathering, which
        is half of what a bulk send takes."""
        values, keys, headers, timestamps = columns
        if size > self._batch_bytes * TOLERANCE and len(values) > 1:
            step = -(-len(values) // -(-size // self._batch_bytes))
            for start in range(0, len(values), step):
                piece = [None if c is None else c[start : start + step] for c in columns]
                self._send_at_hand(target, piece, _size_at_hand(piece) or 0)
            return
        if timestamps is None:
            timestamps = self._timestamp
        given = {"keys": keys, "headers": headers, "timestamps": timestamps}
        if self._source is None:
            self._append(target, partial(target.append_many, values, **given))
        else:
            self._append(target, partial(target.append_many_from, self._source, values, **given))

    def _spread_at_hand(
        self, partitions: Sequence[Partition], columns: list[Any], size: int
    ) -> bool:
        """Append what is in lists already, by its keys, about a batch for each partition at a time;
        False where records have more than key and value. Gathering takes half as much again."""
        values, keys, headers, timestamps = columns
        count = len(partitions)
        if keys is None or headers is not None or timestamps is not None or len(values) < count:
            return False
        numbers = self._router.numbers_for(keys, count)
        if numbers is None or set(map(type, values)) != {bytes}:
            return False
        step = max(len(values) * count * self._batch_bytes // max(size, 1), 1)
        for start in range(0, len(values), step):
            parts: list[tuple[list[bytes], list[bytes]]] = [([], []) for _ in partitions]
            adding = [(part[0].append, part[1].append) for part in parts]
            chosen = slice(start, start + step)
            for number, value, key in zip(numbers[chosen], values[chosen], keys[chosen]):
                add_value, add_key = adding[number]
                add_value(value)
                add_key(key)
            for target, part in zip(partitions, parts):
                if part[0]:
                    own = [*part, None, None]
                    is_small = size <= self._batch_bytes
                    self._send_at_hand(target, own, 0 if is_small else _size_at_hand(own) or 0)
        return True

    def _columns(
        self, values: Any, keys: Any, headers: Any, timestamps: Any
    ) -> list[Iterable[Any] | None]:
        """Return the columns of a bulk send, serialized as they are taken."""
        if timestamps is not None and not isinstance(timestamps, Iterable):
            self._timestamp, timestamps = timestamp_of(timestamps), None
        columns = dict(zip(COLUMNS, (values, keys, headers, timestamps)))
        for name, column in columns.items():
            if (column is not None or name == "values") and not is_column(column):
                raise TypeError(f"{name} is {type(column).__name__}; it must be an iterable")
        sizes = {name: len(c) for name, c in columns.items() if hasattr(c, "__len__")}
        if len(set(sizes.values())) > 1:
            raise ConfigError(f"{sizes} entries; give one of each per value")
        if self._router.serialize_value is not None:
            columns["values"] = map(partial(_serialized, self._router.serialize_value), values)
        if self._router.serialize_key is not None and keys is not None:
            columns["keys"] = map(partial(_serialized, self._router.serialize_key), keys)
        return list(columns.values())

    def _spread(self, topic: str, rows: Rows, partition: int | None) -> Iterator[tuple[int, Rows]]:
        """Yield which records go to which partition."""
        partitions = self._router.partitions(topic)
        count = len(partitions)
        partitions[0].check_keys(rows.keys)
        if partition is not None or count == 1:
            yield self._router.target(topic, None, partition, 0).index, rows
        elif rows.keys is None:
            sticky = self._router.sticky_of(topic)
            numbers = [sticky.number_for(size, count) for size in rows.sizes]
            start = 0
            for number, run in groupby(numbers):
                stop = start + sum(1 for _ in run)
                yield number, rows.cut(start, stop)
                start = stop
        else:
            chosen: dict[int, list[int]] = {}
            numbers = self._router.numbers_for(rows.keys, count) or [
                self._router.sticky_of(topic).number_for(size, count)
                if key is None
                else self._router.number_for(key, count)
                for key, size in zip(rows.keys, rows.sizes)
            ]
            for place, number in enumerate(numbers):
                if number in chosen:
                    chosen[number].append(place)
                else:
                    chosen[number] = [place]
            for number, places in chosen.items():
                yield number, rows.pick(places)

    def _write(self, topic: str, number: int, buffer: Buffer) -> None:
        target = self._router.partitions(topic)[number]
        self._append(target, lambda: buffer.append_to(target, self._source, self._timestamp))

    def _append(self, target: Partition, append: Callable[[], range]) -> None:
        offsets = append() if self._write_within is None else self._write_within(target, append)
        before = self._written.get(target.index, offsets)
        self._written[target.index] = range(before.start, offsets.stop)


def _serialized(serializer: Serializer, given: Any) -> Any:
    return None if given is None else serializer(given)


def _size_at_hand(columns: list[Any]) -> int | None:
    """Return the bytes of keys and values in lists; None where they are not that, or some null."""
    if not all(column is None or isinstance(column, (list, tuple)) for column in columns):
        return None
    if not columns[0]:
        return None
    try:
        return sum(map(len, columns[0])) + (0 if columns[1] is None else sum(map(len, columns[1])))
    except TypeError:
        return None
