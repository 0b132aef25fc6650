"""A producer: sends records to topics, one by one or in bulk, and says where they landed.

It chooses partitions and groups records into batches; nothing is written later than a call
returns. This module refuses to know consumers, files and what an append costs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import groupby, tee
from typing import Any, NamedTuple, Protocol

from minilog.arguments import check_whole, is_column
from minilog.batching import Buffer, Rows, Sticky, rows_of
from minilog.broker import Broker
from minilog.config import MIB
from minilog.coordinator import Commit
from minilog.errors import (
    ClosedError,
    ConfigError,
    UnknownPartitionError,
    UnknownTopicError,
)
from minilog.groups import check_group_name
from minilog.partition import Partition
from minilog.partitioners import NAMED, Partitioner, partitioner_of
from minilog.records import (
    HeadersLike,
    RecordMetadata,
    TimestampLike,
    TopicPartition,
    bytes_of,
    headers_of,
    timestamp_of,
    topic_partition_of,
)
from minilog.sources import Identity
from minilog.storage import encode_headers, too_large
from minilog.topic import Topic
from minilog.transactions import Work

Serializer = Callable[[Any], bytes]

MOST_BATCHES_HELD = 16  # of a bulk send over many partitions, before all are written


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
        self._has_serializer = key_serializer is not None or value_serializer is not None
        # A partitioner of ours gives a right number for any bytes; another's is checked.
        self._has_plain_keys = not self._has_serializer and self._partition_of in NAMED.values()
        self._batch_bytes = batch_bytes
        self._serialize_key = key_serializer
        self._serialize_value = value_serializer
        self._topics: dict[str, Topic] = {}
        self._sticky: dict[str, Sticky] = {}
        self._is_closed = False
        self._transaction_timeout_ms = transaction_timeout_ms
        self._identity: Identity | None = None
        if producer_id is not None:
            check_group_name(producer_id, "producer_id")
            self._identity = broker.identity(producer_id)

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
        """Append one record and return where it landed; every consumer sees it then.

        Of a producer with a ``producer_id`` the records in each partition are numbered from 0;
        one whose ``sequence`` was written before is not written again, and the answer is what it
        was then. SequenceGapError for one that is not the next; FencedError when another producer
        of the name was opened since.
        """
        if self._has_serializer:
            value, key = self._serialized(value, key)
        identity = self._identity
        if identity is not None and (identity.is_fenced or identity.is_in_transaction):
            self._check_identity()
        if sequence is not None and (
            identity is None or sequence.__class__ is not int or sequence < 0
        ):
            self._check_sequence(sequence)
        partitions = self._partitions(topic)
        if partition is None and key.__class__ is bytes and self._has_plain_keys:
            number = self._partition_of(key, len(partitions))  # ours: right for any bytes
            target = partitions[number]
        else:
            target = self._target(topic, key, partition, len(value) if value else 0)
            number = target.index
        if identity is None:
            offset, stamp = target.append_any(value, key, headers, timestamp)
        else:
            offset, stamp = self._send_numbered(
                target, identity, sequence, value, key, headers, timestamp
            )
        # In C: a third of what RecordMetadata(...) costs.
        return tuple.__new__(RecordMetadata, (topic, number, offset, stamp))

    def _check_identity(self) -> None:
        """Raise FencedError, or TransactionError while it is in a transaction."""
        identity = self._identity
        if self._is_closed:
            raise ClosedError("the producer was closed")
        if identity is None:
            return
        if identity.is_in_transaction:
            self._broker.transactions.is_busy(identity)  # its time may be over
        identity.check_alone()

    def _send_numbered(
        self,
        target: Partition,
        identity: Identity,
        sequence: int | None,
        value: Any,
        key: Any,
        headers: HeadersLike | None,
        timestamp: TimestampLike | None,
    ) -> tuple[int, int]:
        if (
            timestamp is None
            and not headers
            and value.__class__ is bytes
            and (key.__class__ is bytes or key is target.no_key)
            and target.is_plain
        ):
            appended = target.append_numbered(identity, sequence, key, value)
            if appended is not None:
                return appended
        return target.append_from(identity, sequence, value, key, headers, timestamp)

    def _check_sequence(self, sequence: int | None) -> None:
        if sequence is not None and self._identity is None:
            raise ConfigError("sequence= needs a producer with a producer_id")
        if sequence is not None:
            check_whole("sequence", sequence)

    def last_sequence(self, topic: str, partition: int) -> int | None:
        """Return the last sequence written to a partition, also by a producer of this name before
        the log was opened; None if none, also of a topic that the first ``send`` would make.
        ConfigError without a ``producer_id``."""
        if self._identity is None:
            raise ConfigError("last_sequence() needs a producer with a producer_id")
        self._identity.check()
        check_whole("partition", partition)
        try:
            self._broker.topic(topic)
        except UnknownTopicError:
            if self._broker.makes_unknown_topics:
                return None
            raise
        target = self._target(topic, None, partition, 0)
        return target.last_sequence(self._identity.producer_id)

    def transaction(self) -> Transaction:
        """Begin a transaction, to be used with ``with``: what is sent in it, to any topics, and
        the offsets of a group are seen together at the end of the block, or, on an exception, a
        crash or after ``transaction_timeout_ms``, never."""
        if self._is_closed:
            raise ClosedError("the producer was closed")
        work = self._broker.transactions.begin(self._transaction_timeout_ms, self._identity)
        return Transaction(self, work)

    def _serialized(self, value: Any, key: Any) -> tuple[Any, Any]:
        """Return value and key as the serializers make them; null stays null."""
        if self._serialize_value is not None and value is not None:
            value = self._serialize_value(value)
        if self._serialize_key is not None and key is not None:
            key = self._serialize_key(key)
        return value, key

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
        self._check_identity()
        columns = self._columns(values, keys, headers, timestamps)
        self._check_keys(topic, keys)
        return self._send_columns(topic, columns, partition, None)

    def _check_keys(self, topic: str, keys: object) -> None:
        """Look for keys that are missing, where that can be done before anything is written."""
        if isinstance(keys, (list, tuple)):
            self._partitions(topic)[0].check_keys(keys)

    def _send_columns(
        self,
        topic: str,
        columns: list[Iterable[Any] | None],
        partition: int | None,
        work: Work | None,
    ) -> dict[int, range]:
        written: dict[int, range] = {}
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
                    self._write(topic, number, buffer, written, work)
            if held >= MOST_BATCHES_HELD * self._batch_bytes:
                for number, buffer in buffers.items():
                    self._write(topic, number, buffer, written, work)
                buffers, held = {}, 0
        for number, buffer in buffers.items():
            self._write(topic, number, buffer, written, work)
        return written

    def _columns(
        self, values: Any, keys: Any, headers: Any, timestamps: Any
    ) -> list[Iterable[Any] | None]:
        """Return the columns of a bulk send, serialized as they are taken."""
        if timestamps is not None and not isinstance(timestamps, Iterable):
            one = timestamp_of(timestamps)
            values, counted = tee(values)
            timestamps = (one for _ in counted)
        names = ("values", "keys", "headers", "timestamps")
        columns = dict(zip(names, (values, keys, headers, timestamps)))
        for name, column in columns.items():
            if column is not None and not is_column(column):
                raise TypeError(f"{name} is {type(column).__name__}; it must be an iterable")
        sizes = {name: len(c) for name, c in columns.items() if hasattr(c, "__len__")}
        if len(set(sizes.values())) > 1:
            raise ConfigError(f"{sizes} entries; give one of each per value")
        if self._serialize_value is not None:
            columns["values"] = map(partial(_serialized, self._serialize_value), values)
        if self._serialize_key is not None and keys is not None:
            columns["keys"] = map(partial(_serialized, self._serialize_key), keys)
        return list(columns.values())

    def _spread(self, topic: str, rows: Rows, partition: int | None) -> Iterator[tuple[int, Rows]]:
        """Yield which records go to which partition."""
        partitions = self._partitions(topic)
        count = len(partitions)
        partitions[0].check_keys(rows.keys)
        if partition is not None or count == 1:
            yield self._target(topic, None, partition, 0).index, rows
        elif rows.keys is None:
            sticky = self._sticky_of(topic)
            numbers = [sticky.number_for(size, count) for size in rows.sizes]
            start = 0
            for number, run in groupby(numbers):
                stop = start + sum(1 for _ in run)
                yield number, rows.cut(start, stop)
                start = stop
        else:
            chosen: dict[int, list[int]] = {}
            for place, (key, size) in enumerate(zip(rows.keys, rows.sizes)):
                if key is None:
                    number = self._sticky_of(topic).number_for(size, count)
                else:
                    number = self._number_for(key, count)
                chosen.setdefault(number, []).append(place)
            for number, places in chosen.items():
                yield number, rows.pick(places)

    def _write(
        self,
        topic: str,
        number: int,
        buffer: Buffer,
        written: dict[int, range],
        work: Work | None,
    ) -> None:
        target = self._partitions(topic)[number]
        if work is None:
            offsets = buffer.append_to(target, self._identity)
        else:
            offsets = work.write(target, lambda: buffer.append_to(target, work))
        before = written.get(number, offsets)
        written[number] = range(before.start, offsets.stop)

    def batch(self) -> BatchSender:
        """Return a block in which ``send`` gathers records and writes them as batches."""
        if self._is_closed:
            raise ClosedError("the producer was closed")
        if self._identity is not None:
            self._identity.check()
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
    """Gathers records, at most ``batch_bytes`` of them, and writes them as batches.

    One thread's own: it is not to be shared.
    """

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._routes: dict[str, Route] = {}
        self._room = producer._batch_bytes
        self._is_plain = producer._has_plain_keys
        self._number_for = producer._partition_of
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
        route = self._routes.get(topic)
        if (
            route is not None
            and value.__class__ is bytes
            and key.__class__ is bytes
            and self._is_plain
            and partition is None
            and timestamp is None
            and not headers
        ):
            # The commonest record: nothing to check or to convert but its size.
            size = len(value) + len(key)
            if size <= self._room and size <= route.max_record_bytes:
                buffer = route.buffers[self._number_for(key, route.partition_count)]
                self._room -= size
                buffer.values.append(value)
                buffer.keys.append(key)
                return
        self._send_checked(topic, value, key, partition, timestamp, headers)

    def _send_checked(
        self,
        topic: str,
        value: Any,
        key: Any,
        partition: int | None,
        timestamp: TimestampLike | None,
        headers: HeadersLike | None,
    ) -> None:
        if self._is_closed:
            raise ClosedError("the batch is over; open another with producer.batch()")
        producer = self._producer
        value, key = producer._serialized(value, key)
        value, key = bytes_of("value", value), bytes_of("key", key)
        checked = headers_of(headers)
        size = len(value or b"") + len(key or b"") + len(encode_headers(checked))
        stamp = None if timestamp is None else timestamp_of(timestamp)
        target = producer._target(topic, key, partition, size)
        limit = target.max_record_bytes
        if size > limit:
            raise too_large(size, limit)
        if key is None:
            target.check_keys(None)
        if size > self._room:
            self.flush()
        route = self._routes.get(topic)
        if route is None:
            partitions = producer._partitions(topic)
            buffers = tuple(Buffer() for _ in partitions)
            route = self._routes[topic] = Route(buffers, partitions, len(buffers), limit)
        route.buffers[target.index].add(value, key, checked, stamp)
        self._room -= size

    def flush(self) -> None:
        """Write what was gathered, a batch for each partition."""
        self._producer._check_identity()
        while self._routes:
            topic, route = next(iter(self._routes.items()))
            for buffer, partition in zip(route.buffers, route.partitions):
                if buffer.values:
                    buffer.append_to(partition, self._producer._identity)
                    buffer.clear()
            del self._routes[topic]
        self._room = self._producer._batch_bytes

    def __enter__(self) -> BatchSender:
        return self

    def __exit__(self, kind: type[BaseException] | None, *raised: object) -> None:
        self._is_plain = False
        self._is_closed = True
        if kind is None:
            self.flush()
        else:
            self._routes.clear()


class Committer(Protocol):
    """A consumer in a group, as a transaction sees it."""

    def hand_over_commits(self) -> tuple[str, Commit]: ...


class Transaction:
    """Records, to any topics, and offsets of groups that are seen together or never.

    One of ``producer.transaction()``'s; used with ``with``. After its end every call raises
    TransactionError.
    """

    def __init__(self, producer: Producer, work: Work) -> None:
        self._producer = producer
        self._work = work

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
        """Append one record and return where it landed; ``read_committed`` sees it at the end."""
        producer, work = self._producer, self._work
        work.check()
        producer._check_sequence(sequence)
        value, key = producer._serialized(value, key)
        target = producer._target(topic, key, partition, len(value) if value else 0)
        offset, stamp = work.write(
            target, lambda: target.append_from(work, sequence, value, key, headers, timestamp)
        )
        return RecordMetadata(topic, target.index, offset, stamp)

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
        """Append records in batches, as ``producer.send_many`` does."""
        self._work.check()
        self._producer._check_keys(topic, keys)
        columns = self._producer._columns(values, keys, headers, timestamps)
        return self._producer._send_columns(topic, columns, partition, self._work)

    def commit_offsets(
        self,
        offsets: Committer | Mapping[TopicPartition, int] | Mapping[tuple[str, int], int],
        group: str | None = None,
    ) -> None:
        """Have a group's offsets committed with it: what a consumer has polled so far (it commits
        nothing by itself from then on), or offsets to go on from, of the ``group`` named.

        CommitError where a partition is not the consumer's (any more), here or at the end.
        """
        self._work.check()
        if isinstance(offsets, Mapping):
            if group is None:
                raise ConfigError("commit_offsets({partition: offset}) needs group=")
            check_group_name(group)
            named = {topic_partition_of(tp): offset for tp, offset in offsets.items()}
            for tp, offset in named.items():
                check_whole(f"offset of {tp.topic}-{tp.partition}", offset)
            self._work.commit_offsets(group, Commit(None, named, {}))
            return
        if not hasattr(offsets, "hand_over_commits"):
            raise TypeError(f"offsets is {offsets!r}; give a consumer or {{partition: offset}}")
        if group is not None:
            raise ConfigError("group= goes with offsets; a consumer has a group of its own")
        self._work.commit_offsets(*offsets.hand_over_commits())

    def abort(self) -> None:
        """End it: what was sent is never seen by ``read_committed``."""
        self._work.abort("it was aborted", is_asked=True)

    def __enter__(self) -> Transaction:
        self._work.check()
        return self

    def __exit__(self, kind: type[BaseException] | None, *raised: object) -> None:
        if kind is not None:
            self._work.abort("its block was left by an exception")
        elif not self._work.is_aborted:
            self._work.commit()


class Route(NamedTuple):
    """What a batch has gathered for one topic, and where it goes."""

    buffers: tuple[Buffer, ...]
    partitions: tuple[Partition, ...]
    partition_count: int
    max_record_bytes: int


def _serialized(serializer: Serializer, given: Any) -> Any:
    return None if given is None else serializer(given)
