"""A producer: sends records to topics, one by one or in bulk, and says where they landed.

It chooses partitions and groups records into batches; nothing is written later than a call
returns. This module refuses to know consumers, files and what an append costs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from minilog.arguments import check_whole
from minilog.batch_sender import BatchSender
from minilog.broker import Broker
from minilog.bulk import Bulk
from minilog.config import MIB
from minilog.errors import (
    ConfigError,
    UnknownTopicError,
)
from minilog.groups import check_group_name
from minilog.partition import Partition
from minilog.partitioners import Partitioner
from minilog.records import (
    HeadersLike,
    RecordMetadata,
    TimestampLike,
)
from minilog.routing import Router, Serializer
from minilog.sources import Identity
from minilog.transaction import Transaction, check_sequence


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
        self._broker = broker
        self._router = Router(broker, partitioner, key_serializer, value_serializer)
        self._router.check_open()
        self._partition_of = self._router.partition_of
        self._batch_bytes = batch_bytes
        self._is_plain = self._router.has_plain_keys
        self._routes: dict[str, tuple[Partition, ...]] = {}  # as of so many changes
        self._routes_as_of = broker.change_count
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
        if (
            self._is_plain
            and value.__class__ is bytes
            and key.__class__ is bytes
            and partition is None
            and timestamp is None
            and not headers
            and topic.__class__ is str
            and self._routes_as_of == self._broker.change_count  # first: then these are the routes
        ):
            # The commonest record: nothing to check or to convert, and its topic is known.
            partitions = self._routes.get(topic)
            if partitions is not None:
                count = len(partitions)
                number = self._partition_of(key, count) if count > 1 else 0
                target = partitions[number]
                if target.is_plain:
                    identity = self._identity
                    if identity is None:
                        if sequence is None:
                            offset, stamp = target.append_plain(key, value)
                            # In C: a third of what RecordMetadata(...) costs.
                            landed = (topic, number, offset, stamp)
                            return tuple.__new__(RecordMetadata, landed)
                    elif sequence is None or sequence.__class__ is int:
                        appended = target.append_numbered(identity, sequence, key, value)
                        if appended is not None:
                            offset, stamp = appended
                            landed = (topic, number, offset, stamp)
                            return tuple.__new__(RecordMetadata, landed)
        return self._send_any(topic, value, key, partition, timestamp, headers, sequence)

    def _send_any(
        self,
        topic: str,
        value: Any,
        key: Any,
        partition: int | None,
        timestamp: TimestampLike | None,
        headers: HeadersLike | None,
        sequence: int | None,
    ) -> RecordMetadata:
        router, identity = self._router, self._identity
        value, key = router.serialized(value, key)
        self._check_identity()
        check_sequence(sequence, identity)
        target = router.target(topic, key, partition, len(value) if value else 0)
        as_of = self._broker.change_count
        if self._routes_as_of != as_of:
            self._routes, self._routes_as_of = {}, as_of
        self._routes[topic] = router.partitions(topic)
        if identity is None:
            offset, stamp = target.append_any(value, key, headers, timestamp)
        else:
            offset, stamp = target.append_from(identity, sequence, value, key, headers, timestamp)
        return RecordMetadata(topic, target.index, offset, stamp)

    def _check_identity(self) -> None:
        """Raise FencedError, or TransactionError while it is in a transaction."""
        identity = self._identity
        self._router.check_open()
        if identity is None:
            return
        if identity.is_in_transaction:
            self._broker.transactions.is_busy(identity)  # its time may be over
        identity.check_alone()

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
        target = self._router.target(topic, None, partition, 0)
        return target.last_sequence(self._identity.producer_id)

    def transaction(self) -> Transaction:
        """Begin a transaction, to be used with ``with``: what is sent in it, to any topics, and
        the offsets of a group are seen together at the end of the block, or, on an exception, a
        crash or after ``transaction_timeout_ms``, never."""
        self._router.check_open()
        work = self._broker.transactions.begin(self._transaction_timeout_ms, self._identity)
        return Transaction(self._router, self._batch_bytes, work)

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
        bulk = Bulk(self._router, self._batch_bytes, self._identity)
        return bulk.send(topic, values, keys, headers, timestamps, partition)

    def batch(self) -> BatchSender:
        """Return a block in which ``send`` gathers records and writes them as batches."""
        self._router.check_open()
        if self._identity is not None:
            self._identity.check()
        return BatchSender(self._router, self._batch_bytes, self._identity, self._check_identity)

    # ------------------------------------------------------------ the end

    def flush(self) -> None:
        """Return when everything acknowledged so far is on the disk, as ``broker.flush()``."""
        self._router.check_open()
        self._broker.flush()

    def close(self) -> None:
        """Refuse every later call; there is nothing left to write."""
        self._is_plain = False
        self._router.is_closed = True

    def __enter__(self) -> Producer:
        self._router.check_open()
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()
