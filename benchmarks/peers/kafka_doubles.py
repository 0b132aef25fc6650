"""What stands in for Kafka in tests: mockafka-py, and the mock cluster within librdkafka.

Both live in the memory of the process, and are there to be compared with as test doubles.
"""

from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from time import perf_counter_ns
from typing import Any, ClassVar

from benchmarks.data import Dataset
from benchmarks.machine import Lazily
from benchmarks.peers.passage import BATCH_RECORDS, THREADS, Passage
from benchmarks.peers.peer import HAND_OVER_TIMEOUT, Peer, Put, Sync, Take

confluent_kafka = Lazily("confluent_kafka")
mockafka = Lazily("mockafka")
kafka_store = Lazily("mockafka.kafka_store")
TOPIC = "bench"
SHARED = ("shared-a", "shared-b")


def _parts(message: Any, offset: int) -> tuple[int, int, bytes, bytes]:
    return offset, message.timestamp()[1], message.key(), message.value()


class Mockafka(Peer):
    name = "mockafka"
    package = "mockafka-py"
    meaning = (
        "FakeProducer.produce into a dict of lists: seen by the next poll, in memory only, gone "
        "with the process; a poll never waits, partitions and groups are not those of Kafka."
    )
    is_persistent = False
    most_records = 100_000

    def __init__(self, directory: Path, *, sync: Sync = "never") -> None:
        self.store = kafka_store.KafkaStore(clean=True)
        self.store.create_partition(TOPIC, 1)

    def append_singly(self, data: Dataset) -> None:
        produce = mockafka.FakeProducer().produce
        for key, value in zip(data.keys, data.values, strict=True):
            produce(TOPIC, value, key, 0)

    def records(self) -> Iterator[Any]:
        consumer = mockafka.FakeConsumer()
        consumer.subscribe([TOPIC])
        return map(_parts, iter(consumer.poll, None), count())

    def close(self) -> None:
        self.store.fresh()


class MockCluster(Peer):
    name = "mock cluster"
    package = "confluent-kafka"
    meaning = (
        "produce() to a queue that a thread sends by TCP to a broker in the same process, all of "
        "it flushed inside the time: seen by the next fetch, in memory only, gone with the "
        "process; the oldest go from 5 MiB a partition on."
    )
    is_persistent = False
    most_records = 20_000
    CONSUMED_AT_ONCE = 10_000
    CONSUMING: ClassVar[dict[str, Any]] = {
        "group.id": TOPIC,
        "enable.auto.commit": False,
        "fetch.wait.max.ms": 10,
    }

    def __init__(self, directory: Path, *, sync: Sync = "never") -> None:
        self.producer = confluent_kafka.Producer(
            {
                "bootstrap.servers": "mock",
                "test.mock.num.brokers": 1,
                "linger.ms": 0,
                "log_level": 0,
            }
        )
        brokers = self.producer.list_topics(timeout=HAND_OVER_TIMEOUT).brokers.values()
        self.servers = ",".join(f"{broker.host}:{broker.port}" for broker in brokers)
        self.written = 0

    def append_singly(self, data: Dataset) -> None:
        produce, poll = self.producer.produce, self.producer.poll
        for key, value in zip(data.keys, data.values, strict=True):
            produce(TOPIC, value, key, 0)
            poll(0)
        self._flush(data)

    def append_batches(self, batches: Sequence[Dataset]) -> None:
        for batch in batches:
            messages = [
                {"value": value, "key": key}
                for key, value in zip(batch.keys, batch.values, strict=True)
            ]
            self.producer.produce_batch(TOPIC, messages, partition=0)
            self._flush(batch)

    def _flush(self, data: Dataset) -> None:
        if self.producer.flush(HAND_OVER_TIMEOUT):
            raise TimeoutError("the mock cluster did not take everything")
        self.written += len(data)

    def records(self) -> Iterator[Any]:
        consumer = self._consumer()
        offset = 0
        try:
            while offset < self.written:
                wanted = min(self.CONSUMED_AT_ONCE, self.written - offset)
                messages = consumer.consume(wanted, timeout=HAND_OVER_TIMEOUT)
                if not messages:
                    break
                for message in messages:
                    offset = message.offset()
                    yield offset, message.timestamp()[1], message.key(), message.value()
                offset += 1
        finally:
            consumer.close()

    def hand_over_ends(self) -> tuple[Put, Take]:
        """Its produce and its waiting poll."""
        produce = self.producer.produce
        poll = self._consumer().poll
        return (
            lambda key, value: produce(TOPIC, value, key, 0),
            lambda: poll(HAND_OVER_TIMEOUT).value(),
        )

    def pass_through_group(self, data: Dataset) -> Passage:
        """Through two topics: the mock cluster gives each four partitions, and no way to say so."""
        for topic in SHARED:
            self.producer.list_topics(topic, HAND_OVER_TIMEOUT)
        settings = {**self._settings(), "linger.ms": 0}
        producers = [confluent_kafka.Producer(settings) for _ in range(THREADS)]
        starts = range(0, len(data), BATCH_RECORDS)

        def send(number: int) -> None:
            producer = producers[number]
            for start in starts[number::THREADS]:
                batch = data.between(start, start + BATCH_RECORDS)
                now_ms = perf_counter_ns() // 1_000_000
                for place, (key, value) in enumerate(zip(batch.keys, batch.values, strict=True)):
                    producer.produce(SHARED[place % 2], value, key, timestamp=now_ms)
                producer.poll(0)
            producer.flush(HAND_OVER_TIMEOUT)
            producer.close()

        def receive(passage: Passage, number: int) -> None:
            consumer = confluent_kafka.Consumer(
                {**self._settings(), **self.CONSUMING, "auto.offset.reset": "earliest"}
            )
            consumer.subscribe(list(SHARED))
            while not passage.is_over:
                messages = consumer.consume(BATCH_RECORDS, timeout=0.01)
                if messages:
                    waited_ms = perf_counter_ns() // 1_000_000 - messages[0].timestamp()[1]
                    passage.take(len(messages), waited_ms)
                else:
                    passage.shares[number] = len(consumer.assignment())
            consumer.close()

        return Passage(len(data), send, receive)

    def _settings(self) -> dict[str, Any]:
        return {"bootstrap.servers": self.servers, "log_level": 0}

    def _consumer(self) -> Any:
        consumer = confluent_kafka.Consumer({**self._settings(), **self.CONSUMING})
        consumer.assign([confluent_kafka.TopicPartition(TOPIC, 0, 0)])
        return consumer

    def close(self) -> None:
        self.producer.flush(HAND_OVER_TIMEOUT)
        self.producer.close()
