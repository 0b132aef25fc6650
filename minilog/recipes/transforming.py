"""Read from some topics and write to others, each input exactly once.

    def split(record):
        for line in record.value.splitlines():
            yield "lines", record.key, line

    with Consumer(broker, "texts", group="splitter") as consumer:
        transform(consumer, Producer(broker), split)

What is written and how far was read are one transaction for every poll: readers with
``isolation="read_committed"`` see both or neither, whatever ends this and whenever, a kill too.
``consume_transform_produce`` is one such step, for loops of one's own.
This module refuses to know what becomes of what.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import minilog
from minilog import Consumer, Producer, Record, Records, TopicPartition

if TYPE_CHECKING:
    from minilog.transaction import Transaction

Output = tuple[str, bytes | None, bytes | None]  # topic, key, value


def transform(
    consumer: Consumer,
    producer: Producer,
    function: Callable[[Record], Iterable[Output]],
    *,
    drain: bool = False,
) -> int:
    """Send what ``function`` makes of every record, as ``(topic, key, value)``, until the consumer
    is closed; return how many records were read. The consumer has a group.

    What ``function`` raises comes out, and the records of that poll are the next to be read.
    ``drain=True`` returns when nothing is left to read now.
    """

    def send(record: Record, transaction: Transaction) -> None:
        for topic, key, value in function(record):
            transaction.send(topic, value, key=key)

    count = 0
    while True:
        try:
            records = consumer.poll(0 if drain else None)
        except minilog.ClosedError:
            return count
        if records:
            count += _write_all(consumer, producer, send, records)
        elif drain:
            return count


def consume_transform_produce(
    consumer: Consumer,
    producer: Producer,
    transform: Callable[[Record, Transaction], object],
    *,
    timeout: float | None = 0,
    max_records: int | None = None,
) -> int:
    """Poll once, give each record and the transaction to ``transform``, which sends what it makes
    of it, and commit all of that with the group's offsets; return how many records were read.

    Whatever ``transform`` raises comes out: nothing is seen of the step, and the consumer stands
    where it stood. Where a partition has gone to another member meanwhile nothing is seen either,
    and that member does the work: 0.
    """
    records = consumer.poll(timeout, max_records=max_records)
    return _write_all(consumer, producer, transform, records) if records else 0


def _write_all(
    consumer: Consumer,
    producer: Producer,
    transform: Callable[[Record, Transaction], object],
    records: Records,
) -> int:
    try:
        with producer.transaction() as transaction:
            for record in records:
                transform(record, transaction)
            transaction.commit_offsets(consumer)
    except BaseException as error:
        _go_back(consumer, records)
        if isinstance(error, (minilog.CommitError, minilog.RebalanceError)):
            return 0  # a partition has gone to another member, who has these to do
        raise
    return len(records)


def _go_back(consumer: Consumer, records: Records) -> None:
    """Have these read again, those of partitions that are this consumer's still."""
    first = {TopicPartition(record.topic, record.partition): record for record in reversed(records)}
    for tp, record in first.items():
        try:
            consumer.seek(tp, record.offset)
        except (minilog.NotAssignedError, minilog.ClosedError):
            continue
