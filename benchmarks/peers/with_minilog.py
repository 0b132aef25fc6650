"""minilog itself, by its public face alone."""

from collections.abc import Iterator, Sequence
from itertools import chain
from operator import attrgetter
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import minilog
from benchmarks.data import Dataset
from benchmarks.peers.passage import BATCH_RECORDS, PARTITIONS, THREADS, Passage
from benchmarks.peers.peer import HAND_OVER_TIMEOUT, Peer, Put, Sync, Take

TOPIC = "bench"
SHARED = "shared"  # by a group
READ_RECORDS = 10_000
SEALED_BYTES = 4 << 20
READ_BYTES = 192 << 10  # whichever comes first


class Minilog(Peer):
    name = "minilog"
    meaning = (
        'readable by every reader at once, survives kill -9, CRC-32C; with sync="always" (w4) on '
        "the disk before it returns. batch.send is all of that only once its batch is written."
    )

    key_of = staticmethod(attrgetter("key"))
    value_of = staticmethod(attrgetter("value"))

    def __init__(self, directory: Path, *, sync: Sync = "never") -> None:
        self.broker = minilog.Broker(directory, sync=sync)
        try:
            topic = self.broker.topic(TOPIC)
        except minilog.UnknownTopicError:
            topic = self.broker.create_topic(TOPIC)
        self.topic = topic
        self.partition = topic[0]

    @classmethod
    def version(cls) -> str | None:
        return str(minilog.__version__)

    def append_singly(self, data: Dataset) -> None:
        append = self.partition.append
        for key, value in zip(data.keys, data.values, strict=True):
            append(value, key=key)

    append_durably = append_singly

    def send_singly(self, data: Dataset) -> None:
        send = minilog.Producer(self.broker).send
        for key, value in zip(data.keys, data.values, strict=True):
            send(TOPIC, value, key=key)

    def send_named(self, data: Dataset) -> None:
        send = minilog.Producer(self.broker, producer_id=TOPIC).send
        for key, value in zip(data.keys, data.values, strict=True):
            send(TOPIC, value, key=key)

    def send_numbered(self, data: Dataset) -> None:
        send = minilog.Producer(self.broker, producer_id=TOPIC).send
        for number, (key, value) in enumerate(zip(data.keys, data.values, strict=True)):
            send(TOPIC, value, key=key, sequence=number)

    def transact(self, batches: Sequence[Dataset]) -> None:
        transaction = minilog.Producer(self.broker).transaction
        for batch in batches:
            with transaction() as tx:
                for key, value in zip(batch.keys, batch.values, strict=True):
                    tx.send(TOPIC, value, key=key)

    def transact_in_bulk(self, batches: Sequence[Dataset]) -> None:
        transaction = minilog.Producer(self.broker).transaction
        for batch in batches:
            with transaction() as tx:
                tx.send_many(TOPIC, batch.values, keys=batch.keys)

    def append_each(self, batches: Sequence[Dataset]) -> None:
        for batch in batches:
            self.append_singly(batch)

    def batch_singly(self, data: Dataset) -> None:
        with minilog.Producer(self.broker) as producer, producer.batch() as batch:
            send = batch.send
            for key, value in zip(data.keys, data.values, strict=True):
                send(TOPIC, value, key=key)

    def append_and_seal(self, data: Dataset) -> None:
        """Append into small segments, then let housekeeping do what it does with them."""
        self.topic.configure(segment_bytes=SEALED_BYTES)
        self.append_singly(data)
        self.broker.maintain()

    def append_batches(self, batches: Sequence[Dataset]) -> None:
        append_many = self.partition.append_many
        for batch in batches:
            append_many(batch.values, keys=batch.keys)

    def send_batches(self, batches: Sequence[Dataset]) -> None:
        send_many = minilog.Producer(self.broker).send_many
        for batch in batches:
            send_many(TOPIC, batch.values, keys=batch.keys)

    def records(self) -> Iterator[minilog.Record]:
        return iter(self.partition)

    def values(self) -> Iterator[bytes]:
        return chain.from_iterable(self._value_columns())

    def _value_columns(self) -> Iterator[Sequence[Any]]:
        partition = self.partition
        offset, end_offset = partition.start_offset, partition.end_offset
        while offset < end_offset:
            records = partition.read(offset, max_records=READ_RECORDS, max_bytes=READ_BYTES)
            yield records.values
            offset = records[-1].next_offset

    def read_at(self, offsets: Sequence[int]) -> minilog.Record:
        read = self.partition.read
        for offset in offsets:
            record = read(offset, max_records=1)[0]
        return record

    def last(self) -> tuple[int, bytes | None]:
        partition = self.partition
        end_offset = partition.end_offset
        last = partition.read(end_offset - 1, max_records=1)
        record = (last or partition.read(end_offset - 2, max_records=1))[0]  # a marker ends it
        return record.offset, record.value

    def hand_over_ends(self) -> tuple[Put, Take]:
        """What a producer calls, and what a waiting consumer calls."""
        poll = minilog.Consumer(self.broker, TOPIC).poll
        append = self.partition.append
        return lambda key, value: append(value, key=key), lambda: poll(HAND_OVER_TIMEOUT)[0]

    def pass_through_group(self, data: Dataset) -> Passage:
        """Send everything by some threads, poll it by as many members of a group."""
        self.broker.create_topic(SHARED, partitions=PARTITIONS)
        starts = range(0, len(data), BATCH_RECORDS)

        def send(number: int) -> None:
            producer = minilog.Producer(self.broker)
            for start in starts[number::THREADS]:
                stop = start + BATCH_RECORDS
                now_us = perf_counter_ns() // 1000
                producer.send_many(
                    SHARED, data.values[start:stop], keys=data.keys[start:stop], timestamps=now_us
                )

        def receive(passage: Passage, number: int) -> None:
            with minilog.Consumer(self.broker, SHARED, group="bench") as consumer:
                while not passage.is_over:
                    records = consumer.poll(0.01, max_records=5000)
                    if records:
                        waited_us = perf_counter_ns() // 1000 - records.timestamps[0]
                        passage.take(len(records.values), waited_us / 1000)
                    else:
                        passage.shares[number] = len(consumer.assignment())

        return Passage(len(data), send, receive)

    def flush(self) -> None:
        self.broker.flush()

    def close(self) -> None:
        self.broker.close()
