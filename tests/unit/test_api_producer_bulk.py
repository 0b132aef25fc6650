"""Producer, as its contract says: send_many and batch.

Knows only the public face, never how a record is stored.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minilog import (
    Broker,
    Consumer,
    InvalidRecordError,
    Producer,
    RecordTooLargeError,
    Topic,
    UnknownTopicError,
)
from minilog.testing import ManualClock

START_MS = 1_700_000_000_000


@pytest.fixture(params=["memory", "disk"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    path = ":memory:" if request.param == "memory" else tmp_path / "log"
    with Broker(path, clock=ManualClock(START_MS), segment_bytes=1 << 16) as opened:
        yield opened


@pytest.fixture
def topic(broker: Broker) -> Topic:
    return broker.create_topic("t", partitions=3)


@pytest.fixture
def producer(broker: Broker) -> Producer:
    return Producer(broker)


def numbered(start: int, stop: int) -> list[bytes]:
    return [b"%06d" % number for number in range(start, stop)]


def values_of(topic: Topic, partition: int = 0) -> list[bytes | None]:
    return [record.value for record in topic[partition]]


# -- send_many ----------------------------------------------------------------------------------


def test_send_many_answers_with_the_range_of_each_partition(
    producer: Producer, topic: Topic
) -> None:
    keys = [b"k%d" % (i % 7) for i in range(100)]
    producer.send_many("t", [b"before"], partition=1)
    ranges = producer.send_many("t", numbered(0, 100), keys=keys)
    for partition in topic:
        mine = [b"%06d" % i for i, k in enumerate(keys) if zlib.crc32(k) % 3 == partition.index]
        before = 1 if partition.index == 1 else 0
        if mine:
            assert ranges[partition.index] == range(before, before + len(mine))
        assert values_of(topic, partition.index)[before:] == mine
    assert sum(map(len, ranges.values())) == 100


def test_send_many_to_a_partition_answers_with_a_plain_dict_of_one_range(
    producer: Producer, topic: Topic
) -> None:
    assert producer.send_many("t", numbered(0, 5), partition=2) == {2: range(5)}
    assert producer.send_many("t", numbered(5, 9), partition=2) == {2: range(5, 9)}
    assert values_of(topic, 2) == numbered(0, 9)


@pytest.mark.parametrize("arguments", [{}, {"partition": 1}, {"keys": []}])
def test_send_many_of_nothing_writes_nothing(
    producer: Producer, topic: Topic, arguments: dict[str, Any]
) -> None:
    ranges = producer.send_many("t", [], **arguments)
    assert sum(map(len, ranges.values())) == 0
    assert sum(len(partition) for partition in topic) == 0


def test_send_many_keeps_every_column_beside_its_value(producer: Producer, topic: Topic) -> None:
    values = [b"a", None, b"", b"d"]
    keys = [b"k1", b"k2", None, b""]
    stamps = [30, 10, 20, 0]
    headers: list[Any] = [[("h", b"1")], (), {"m": None}, [("d", b"1"), ("d", b"1")]]
    producer.send_many("t", values, keys=keys, timestamps=stamps, headers=headers, partition=0)
    assert [tuple(record)[2:] for record in topic[0]] == [
        (0, 30, b"k1", b"a", (("h", b"1"),)),
        (1, 10, b"k2", None, ()),
        (2, 20, None, b"", (("m", None),)),
        (3, 0, b"", b"d", (("d", b"1"), ("d", b"1"))),
    ]


def test_send_many_takes_one_timestamp_for_all(producer: Producer, topic: Topic) -> None:
    producer.send_many("t", numbered(0, 4), partition=0, timestamps=99)
    producer.send_many("t", numbered(4, 5), partition=0)
    assert [record.timestamp for record in topic[0]] == [99, 99, 99, 99, START_MS]


@pytest.mark.parametrize("column", ["keys", "headers", "timestamps"])
@pytest.mark.parametrize("length", [0, 2, 4])
@pytest.mark.parametrize("as_generator", [False, True])
def test_a_column_of_another_length_is_a_value_error(
    producer: Producer, topic: Topic, column: str, length: int, as_generator: bool
) -> None:
    entry: Any = {"keys": b"k", "headers": (), "timestamps": 5}[column]
    values: Any = (v for v in numbered(0, 3)) if as_generator else numbered(0, 3)
    with pytest.raises(ValueError, match=r"."):
        producer.send_many("t", values, partition=0, **{column: [entry] * length})


def test_send_many_takes_generators_for_values_and_keys(producer: Producer, topic: Topic) -> None:
    count = 20_000
    ranges = producer.send_many(
        "t", (b"%06d" % i for i in range(count)), keys=(b"%d" % (i % 50) for i in range(count))
    )
    assert sum(map(len, ranges.values())) == count
    for partition in topic:
        index = partition.index
        numbers = [int(value or b"") for value in values_of(topic, index)]
        assert numbers == [n for n in range(count) if zlib.crc32(b"%d" % (n % 50)) % 3 == index]


@pytest.mark.parametrize("partition", [None, 1])
def test_a_generator_may_fill_one_buffer_again_and_again(
    producer: Producer, topic: Topic, partition: int | None
) -> None:
    def reused() -> Iterator[bytearray]:
        buffer = bytearray(6)
        for entry in numbered(0, 2000):
            buffer[:] = entry
            yield buffer

    headers = ({"h": entry} for entry in reused())
    producer.send_many("t", reused(), keys=reused(), headers=headers, partition=partition)
    records = [record for one in topic for record in one]
    assert sorted(record.value or b"" for record in records) == numbered(0, 2000)
    for record in records:
        assert record.key == record.value
        assert record.headers == (("h", record.value),)
        if partition is None:
            assert record.partition == topic.partition_for(record.key or b"")
        else:
            assert record.partition == partition


@pytest.mark.parametrize(("size", "count"), [(1 << 16, 60), (1 << 12, 300), (1 << 8, 3000)])
def test_send_many_takes_little_more_from_a_generator_than_a_batch_holds(
    broker: Broker, topic: Topic, size: int, count: int
) -> None:
    batch_bytes = 1 << 17
    held: list[int] = []

    def source() -> Iterator[bytes]:
        for taken in range(count):
            held.append((taken - topic[0].end_offset) * size)
            yield bytes(size)

    Producer(broker, batch_bytes=batch_bytes).send_many("t", source(), partition=0)
    # A batch, another being filled, and a look ahead of a few records.
    assert max(held) <= 2 * batch_bytes + 16 * size
    assert topic[0].end_offset == count


def test_a_generator_that_fails_leaves_a_prefix(broker: Broker, topic: Topic) -> None:
    def source() -> Iterator[bytes]:
        yield from numbered(0, 1000)
        raise ZeroDivisionError("source dried up")

    with pytest.raises(ZeroDivisionError, match="source dried up"):
        Producer(broker, batch_bytes=500).send_many("t", source(), partition=0)
    written = values_of(topic)
    assert written == numbered(0, len(written))
    assert Producer(broker).send("t", b"on", partition=0).offset == len(written)


@pytest.mark.parametrize("bad", ["text", 5, object()])
def test_a_bad_value_within_send_many_leaves_a_prefix(
    producer: Producer, topic: Topic, bad: Any
) -> None:
    with pytest.raises(TypeError):
        producer.send_many("t", [b"000000", b"000001", bad, b"000003"], partition=0)
    written = values_of(topic)
    assert written == numbered(0, len(written))
    assert len(written) <= 2


@pytest.mark.parametrize("values", ["text", b"bytes", None, 5])
def test_a_single_value_in_place_of_many_is_a_type_error(
    producer: Producer, topic: Topic, values: Any
) -> None:
    with pytest.raises(TypeError):
        producer.send_many("t", values)
    assert sum(len(partition) for partition in topic) == 0


def test_a_value_larger_than_batch_bytes_is_written(broker: Broker, topic: Topic) -> None:
    values = [b"small", bytes(5000), b"small", bytes(200_000), b"small"]
    producer = Producer(broker, batch_bytes=100)
    assert producer.send_many("t", values, partition=0) == {0: range(5)}
    with producer.batch() as batch:
        for value in values:
            batch.send("t", value, partition=1)
    assert values_of(topic, 0) == values_of(topic, 1) == values


def test_records_can_be_copied_from_one_topic_to_another_in_one_stroke(
    broker: Broker, producer: Producer, topic: Topic
) -> None:
    target = broker.create_topic("copy")
    producer.send_many("t", numbered(0, 2000), partition=0)
    source = (record.value for record in Consumer(broker, "t").drain())
    copying = threading.Thread(target=producer.send_many, args=("copy", source), daemon=True)
    copying.start()
    copying.join(20)
    assert not copying.is_alive(), "send_many and the generator it reads wait for each other"
    assert values_of(target) == numbered(0, 2000)


def test_a_generator_may_send_by_the_producer_that_reads_it(
    broker: Broker, producer: Producer, topic: Topic
) -> None:
    def source() -> Iterator[bytes]:
        for value in numbered(0, 10):
            producer.send("t", b"aside " + value, partition=1)
            yield value

    sending = threading.Thread(
        target=producer.send_many, args=("t", source()), kwargs={"partition": 0}, daemon=True
    )
    sending.start()
    sending.join(20)
    assert not sending.is_alive(), "send_many holds a lock while it reads its source"
    assert values_of(topic, 0) == numbered(0, 10)
    assert values_of(topic, 1) == [b"aside " + value for value in numbered(0, 10)]


# -- batch --------------------------------------------------------------------------------------


def test_leaving_the_block_writes_what_the_batch_holds(producer: Producer, topic: Topic) -> None:
    with producer.batch() as batch:
        for number, value in enumerate(numbered(0, 30)):
            batch.send("t", value, partition=number % 3)
    assert [values_of(topic, p) for p in range(3)] == [numbered(0, 30)[p::3] for p in range(3)]


def test_every_argument_of_batch_send_is_read_back(producer: Producer, topic: Topic) -> None:
    headers = [("a", b"1"), ("a", None)]
    with producer.batch() as batch:
        batch.send("t", b"v", key=b"k", partition=2, timestamp=9, headers=headers)
        batch.send("t", None, partition=2)
    assert [tuple(record)[3:] for record in topic[2]] == [
        (9, b"k", b"v", tuple(headers)),
        (START_MS, None, None, ()),
    ]


def test_a_batch_holds_at_most_batch_bytes(broker: Broker, topic: Topic) -> None:
    held: list[int] = []
    with Producer(broker, batch_bytes=1000).batch() as batch:
        for sent in range(1, 501):
            batch.send("t", bytes(100), partition=0)
            held.append(sent - topic[0].end_offset)
    assert max(held) <= 10
    assert topic[0].end_offset == 500


def test_a_batch_over_many_partitions_holds_at_most_batch_bytes(broker: Broker) -> None:
    topic = broker.create_topic("wide", partitions=50)
    held: list[int] = []
    with Producer(broker, batch_bytes=1000).batch() as batch:
        for sent in range(1, 501):
            batch.send("wide", bytes(100), partition=sent % 50)
            held.append(sent - sum(partition.end_offset for partition in topic))
    assert max(held) <= 10
    assert sum(len(partition) for partition in topic) == 500


def test_flush_writes_what_the_batch_holds_and_it_goes_on(producer: Producer, topic: Topic) -> None:
    with producer.batch() as batch:
        batch.send("t", b"1", partition=0)
        batch.flush()
        assert values_of(topic) == [b"1"]
        batch.flush()
        batch.send("t", b"2", partition=0)
    assert values_of(topic) == [b"1", b"2"]


def test_an_exception_in_the_block_discards_what_was_not_written(
    producer: Producer, topic: Topic
) -> None:

    def fail_after_a_flush() -> None:
        with producer.batch() as batch:
            batch.send("t", b"written", partition=0)
            batch.flush()
            batch.send("t", b"discarded", partition=0)
            raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        fail_after_a_flush()
    assert values_of(topic) == [b"written"]
    with producer.batch() as batch:
        batch.send("t", b"later", partition=0)
    assert values_of(topic) == [b"written", b"later"]


def test_a_refused_record_leaves_the_rest_of_the_batch(producer: Producer, topic: Topic) -> None:
    with producer.batch() as batch:
        batch.send("t", b"first", partition=0)
        bad: Any = "text"
        with pytest.raises(TypeError):
            batch.send("t", bad, partition=0)
        batch.send("t", b"last", partition=0)
    assert values_of(topic) == [b"first", b"last"]


def test_a_batch_refuses_a_stamp_too_far_ahead_and_keeps_the_rest(broker: Broker) -> None:
    topic = broker.create_topic("stamped", timestamp_after_max_ms=1000)
    with Producer(broker).batch() as batch:
        batch.send("stamped", b"first")
        with pytest.raises(InvalidRecordError, match="timestamp_after_max_ms"):
            batch.send("stamped", b"ahead", timestamp=START_MS + 1001)
        batch.send("stamped", b"last", timestamp=START_MS + 1000)
    assert values_of(topic) == [b"first", b"last"]


def test_a_batch_copies_buffers_at_once(producer: Producer, topic: Topic) -> None:
    buffer = bytearray(b"original")
    with producer.batch() as batch:
        batch.send("t", buffer, partition=0)
        buffer[:] = b"modified"
        batch.send("t", memoryview(buffer), partition=0)
        buffer[:] = b"0" * 8
    assert values_of(topic) == [b"original", b"modified"]


def test_batches_nest_and_keep_their_records_apart(producer: Producer, topic: Topic) -> None:
    def fail_within() -> None:
        with producer.batch() as failing:
            failing.send("t", b"discarded", partition=0)
            raise ZeroDivisionError

    with producer.batch() as outer:
        outer.send("t", b"outer 1", partition=0)
        with pytest.raises(ZeroDivisionError):
            fail_within()
        with producer.batch() as inner:
            inner.send("t", b"inner", partition=0)
        assert values_of(topic) == [b"inner"]
        producer.send("t", b"direct", partition=0)
        outer.send("t", b"outer 2", partition=0)
    assert values_of(topic) == [b"inner", b"direct", b"outer 1", b"outer 2"]


def test_a_batch_serves_several_topics(broker: Broker, producer: Producer) -> None:
    topics = {name: broker.create_topic(name) for name in ("a", "b", "c")}
    with producer.batch() as batch:
        for number in range(30):
            batch.send("abc"[number % 3], b"%d" % number)
    for first, name in enumerate("abc"):
        assert values_of(topics[name]) == [b"%d" % number for number in range(first, 30, 3)]


def test_a_batch_whose_topic_went_away_says_so(broker: Broker, producer: Producer) -> None:
    broker.create_topic("gone")

    def delete_within() -> None:
        with producer.batch() as batch:
            batch.send("gone", b"v", partition=0)
            broker.delete_topic("gone")

    with pytest.raises(UnknownTopicError):
        delete_within()
    assert "gone" not in broker.topics


def test_a_batch_refuses_a_record_too_large(broker: Broker, producer: Producer) -> None:
    topic = broker.create_topic("small", max_record_bytes=100)
    with pytest.raises(RecordTooLargeError), producer.batch() as batch:
        batch.send("small", bytes(101))
    assert topic[0].end_offset == 0


def test_an_empty_batch_writes_nothing(producer: Producer, topic: Topic) -> None:
    with producer.batch() as batch:
        batch.flush()
    assert sum(len(partition) for partition in topic) == 0


@pytest.mark.parametrize("batch_bytes", [1, 100, 5_000, 1 << 20])
@pytest.mark.parametrize("name", [None, "importer"])
def test_lists_and_generators_of_keyed_records_are_spread_alike(
    broker: Broker, batch_bytes: int, name: str | None
) -> None:
    values = [b"v%d" % number * (number % 40) for number in range(700)]
    keys = [b"k%d" % (number % 90) for number in range(700)]
    producer = Producer(broker, batch_bytes=batch_bytes, producer_id=name)
    for topic in ("lists", "generators"):
        broker.create_topic(topic, partitions=5)
    of_lists = producer.send_many("lists", values, keys=keys, timestamps=7)
    of_generators = producer.send_many("generators", iter(values), keys=iter(keys), timestamps=7)
    assert of_lists == of_generators
    assert sorted(of_lists) == [0, 1, 2, 3, 4]
    for one, other in zip(broker.topic("lists"), broker.topic("generators"), strict=True):
        assert [each[1:] for each in one] == [each[1:] for each in other]
        assert [each.offset for each in one] == [*of_lists[one.index]]
        if name is not None:
            assert producer.last_sequence("lists", one.index) == len(one) - 1
