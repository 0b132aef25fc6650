"""A producer: sends records to topics, one by one or in bulk, and says where they landed.

It chooses partitions and groups records into batches; nothing is written later than a call
returns. This module refuses to know consumers, files and what an append costs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice, repeat
from typing import Any

from minilog.arguments import check_whole, timestamps_of
from minilog.batching import Buffer, Sticky
from minilog.broker import Broker
from minilog.config import MIB
from minilog.errors import ClosedError, ConfigError, UnknownPartitionError, UnknownTopicError
from minilog.partition import Partition
from minilog.partitioners import Partitioner, partitioner_of
from minilog.records import (
    Headers,
    HeadersLike,
    RecordMetadata,
    TimestampLike,
    bytes_of,
    headers_of,
    timestamp_of,
)
from minilog.storage import encode_headers, too_large
from minilog.topic import Topic

Serializer = Callable[[Any], bytes]

LOOK_EVERY = 512  # how many records of a bulk send are taken between looks at their size


class Producer:
    """Sends records to a broker's topics. Thread-safe; a program may have as many as it wants.

    ``partitioner``: ``"crc32"``, ``"murmur2"`` or a callable ``(key, partition_count) -> int``.
    Records without a key stick to a partition for about 16 KiB, then go to the next.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        partitioner: str | Partitioner = "crc32",
        batch_bytes: int = MIB,
        key_serializer: Serializer | None = None,
        value_serializer: Serializer | None = None,
        producer_id: str | None = None,
        transaction_timeout_ms: int = 60_000,
    ) -> None:
        if not isinstance(broker, Broker):
            raise ConfigError(f"broker is {broker!r}; it must be a minilog.Broker")
        if producer_id is not None:
            raise ConfigError("producer_id: named producers are not available in this version yet")
        check_whole("batch_bytes", batch_bytes, low=1)
        check_whole("transaction_timeout_ms", transaction_timeout_ms, low=1)
        for name, given in (
            ("key_serializer", key_serializer),
            ("value_serializer", value_serializer),
        ):
            if given is not None and not callable(given):
                raise ConfigError(f"{name} is {given!r}; it must be a callable or None")
        self._broker = broker
        self._partition_of = partitioner_of(partitioner)
        self._batch_bytes = batch_bytes
        self._serialize_key = key_serializer
        self._serialize_value = value_serializer
        self._topics: dict[str, Topic] = {}
        self._sticky: dict[str, Sticky] = {}
        self._is_closed = False

    # ------------------------------------------------------------ one record

    def send(
        self,
        topic: str,
        value: Any,
        *,
        key: Any = None,
        partition: int | None = None,
        timestamp: TimestampLike | None = None,
        headers: HeadersLike | None = (),
        sequence: int | None = None,
    ) -> RecordMetadata:
        """Append one record and return where it landed; every consumer sees it then."""
        if self._serialize_key is not None and key is not None:
            key = self._serialize_key(key)
        if self._serialize_value is not None and value is not None:
            value = self._serialize_value(value)
        if sequence is not None:
            raise ConfigError("sequence= needs a producer with a producer_id")
        target = self._target(topic, key, partition, len(value) if value else 0)
        offset, stamp = target.append_stamped(value, key, headers, timestamp)
        return RecordMetadata(topic, target.index, offset, stamp)

    def _target(self, topic: str, key: Any, partition: int | None, size: int) -> Partition:
        """Return the partition for a record: as asked, by its key, or the sticky one."""
        partitions = self._partitions(topic)
        if partition is not None:
            check_whole("partition", partition)
            if partition >= len(partitions):
                raise UnknownPartitionError(
                    f"{topic} has no partition {partition}; it has 0 to {len(partitions) - 1}"
                )
            return partitions[partition]
        if key is not None:
            return partitions[self._number_for(key, len(partitions))]
        return partitions[self._sticky_of(topic).number_for(size, len(partitions))]

    def _partitions(self, topic: str) -> tuple[Partition, ...]:
        if self._is_closed:
            raise ClosedError("the producer was closed")
        known = self._topics.get(topic) if topic.__class__ is str else None
        if known is not None:
            try:
                return known.partitions
            except UnknownTopicError:
                del self._topics[topic]  # deleted; one of the same name may have been made since
        found = self._broker.topic_to_use(topic)
        self._topics[topic] = found
        return found.partitions

    def _number_for(self, key: Any, count: int) -> int:
        if key.__class__ is not bytes:
            key = bytes_of("key", key)
        number = self._partition_of(key, count)
        if number.__class__ is not int or not 0 <= number < count:
            raise UnknownPartitionError(
                f"the partitioner returned {number!r} for a key; there are partitions 0 to "
                f"{count - 1}"
            )
        return number

    def _sticky_of(self, topic: str) -> Sticky:
        sticky = self._sticky.get(topic)
        if sticky is None:
            sticky = self._sticky.setdefault(topic, Sticky())
        return sticky

    # ------------------------------------------------------------ many records

    def send_many(
        self,
        topic: str,
        values: Iterable[Any],
        *,
        keys: Iterable[Any] | None = None,
        partition: int | None = None,
        timestamps: TimestampLike | Iterable[TimestampLike] | None = None,
        headers: Iterable[HeadersLike | None] | None = None,
    ) -> dict[int, range]:
        """Append records and return, by partition, the offsets from the first to the last.

        Input order is kept within each partition. Written in batches of ``batch_bytes``, each
        atomic; any iterables of any length, one entry per value (ConfigError, a ValueError).
        """
        written: dict[int, range] = {}
        rows = self._rows(values, keys, headers, timestamps)
        count = len(self._partitions(topic))
        if partition is not None or count == 1 or keys is None:
            self._send_runs(topic, rows, partition, written)
        else:
            self._send_spread(topic, rows, written)
        return written

    def _rows(
        self, values: Any, keys: Any, headers: Any, timestamps: Any
    ) -> Iterator[tuple[Any, ...]]:
        columns = {"values": values, "keys": keys, "headers": headers}
        if isinstance(timestamps, Iterable):
            columns["timestamps"] = timestamps
        for name, column in columns.items():
            if column is not None and (
                isinstance(column, (str, bytes, bytearray, memoryview))
                or not isinstance(column, Iterable)
            ):
                raise TypeError(f"{name} is {type(column).__name__}; it must be an iterable")
        sizes = {name: len(c) for name, c in columns.items() if hasattr(c, "__len__")}
        if len(set(sizes.values())) > 1:
            raise ConfigError(f"{sizes} entries; give one of each per value")
        if self._serialize_value is not None:
            values = (None if v is None else self._serialize_value(v) for v in values)
        if self._serialize_key is not None and keys is not None:
            keys = (None if k is None else self._serialize_key(k) for k in keys)
        if not isinstance(timestamps, Iterable):
            one = timestamps_of(timestamps, 1)
            timestamps = None if one is None else repeat(one)
        return _zipped(values, keys, headers, timestamps)

    def _send_runs(
        self,
        topic: str,
        rows: Iterator[tuple[Any, ...]],
        partition: int | None,
        written: dict[int, range],
    ) -> None:
        """Write rows whose keys do not matter: each batch goes to one partition."""
        buffer = Buffer()
        for chunk in iter(lambda: list(islice(rows, LOOK_EVERY)), []):
            buffer.extend(chunk)
            if buffer.size >= self._batch_bytes:
                self._write_run(topic, buffer, partition, written)
                buffer = Buffer()
        if buffer.values:
            self._write_run(topic, buffer, partition, written)

    def _write_run(
        self, topic: str, buffer: Buffer, partition: int | None, written: dict[int, range]
    ) -> None:
        for piece in buffer.pieces(self._batch_bytes):
            target = self._target(topic, None, partition, piece.size)
            _note(written, target.index, piece.append_to(target))

    def _send_spread(
        self, topic: str, rows: Iterator[tuple[Any, ...]], written: dict[int, range]
    ) -> None:
        """Write rows by their keys: a buffer for each partition."""
        buffers: dict[int, Buffer] = {}
        for row in rows:
            target = self._target(topic, row[1], None, len(row[0] or b""))
            buffer = buffers.get(target.index)
            if buffer is None:
                buffer = buffers[target.index] = Buffer()
            buffer.add(*row)
            if buffer.size >= self._batch_bytes:
                _note(written, target.index, buffer.append_to(target))
                del buffers[target.index]
        for number, buffer in buffers.items():
            target = self._target(topic, None, number, 0)
            _note(written, number, buffer.append_to(target))

    def batch(self) -> BatchSender:
        """Return a block in which ``send`` gathers records and writes them as batches."""
        if self._is_closed:
            raise ClosedError("the producer was closed")
        return BatchSender(self)

    # ------------------------------------------------------------ the end

    def flush(self) -> None:
        """Return when everything acknowledged so far is on the disk, as ``broker.flush()``."""
        if self._is_closed:
            raise ClosedError("the producer was closed")
        self._broker.flush()

    def close(self) -> None:
        """Refuse every later call; there is nothing left to write."""
        self._is_closed = True

    def __enter__(self) -> Producer:
        if self._is_closed:
            raise ClosedError("the producer was closed")
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


class BatchSender:
    """Gathers records, at most ``batch_bytes`` of them, and writes them as batches."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._buffers: dict[tuple[str, int], tuple[Partition, Buffer]] = {}
        self._size = 0
        self._is_closed = False

    def send(
        self,
        topic: str,
        value: Any,
        *,
        key: Any = None,
        partition: int | None = None,
        timestamp: TimestampLike | None = None,
        headers: HeadersLike | None = (),
    ) -> None:
        """Gather one record; what is wrong with it is said here, not when it is written."""
        if self._is_closed:
            raise ClosedError("the batch is over; open another with producer.batch()")
        producer = self._producer
        if producer._serialize_key is not None and key is not None:
            key = producer._serialize_key(key)
        if producer._serialize_value is not None and value is not None:
            value = producer._serialize_value(value)
        value, key = bytes_of("value", value), bytes_of("key", key)
        size = len(value or b"") + len(key or b"")
        checked: Headers = ()
        if headers:
            checked = headers_of(headers)
            size += len(encode_headers(checked))
        stamp = None if timestamp is None else timestamp_of(timestamp)
        target = producer._target(topic, key, partition, size)
        if size > target.max_record_bytes:
            raise too_large(size, target.max_record_bytes)
        if self._size and self._size + size > producer._batch_bytes:
            self.flush()
        entry = self._buffers.get((topic, target.index))
        if entry is None or entry[0] is not target:
            entry = self._buffers[topic, target.index] = (target, Buffer())
        entry[1].add(value, key, checked, stamp)
        self._size += size

    def flush(self) -> None:
        """Write what was gathered, a batch for each partition."""
        while self._buffers:
            name = next(iter(self._buffers))
            target, buffer = self._buffers[name]
            buffer.append_to(target)
            del self._buffers[name]
        self._size = 0

    def __enter__(self) -> BatchSender:
        return self

    def __exit__(self, kind: type[BaseException] | None, *raised: object) -> None:
        self._is_closed = True
        if kind is None:
            self.flush()
        else:
            self._buffers.clear()


def _zipped(values: Any, keys: Any, headers: Any, timestamps: Any) -> Iterator[tuple[Any, ...]]:
    """Yield (value, key, headers, timestamp) rows; ConfigError where a column is short or long."""
    columns = [
        iter(column) if column is not None else repeat(None)
        for column in (values, keys, headers, timestamps)
    ]
    if keys is None and headers is None and timestamps is None:
        return zip(*columns)
    return _checked_rows(columns)


def _checked_rows(columns: list[Iterator[Any]]) -> Iterator[tuple[Any, ...]]:
    missing = object()
    while True:
        row = tuple(next(column, missing) for column in columns)
        ends = [entry is missing for entry in row]
        if ends[0]:
            endless = [isinstance(column, repeat) for column in columns]
            if not all(end or forever for end, forever in zip(ends, endless)):
                raise ConfigError("keys, headers or timestamps have more entries than values")
            return
        if any(ends):
            raise ConfigError("keys, headers or timestamps have fewer entries than values")
        yield row


def _note(written: dict[int, range], partition: int, offsets: range) -> None:
    before: Mapping[int, range] = written
    first = before[partition].start if partition in before else offsets.start
    written[partition] = range(first, offsets.stop)
