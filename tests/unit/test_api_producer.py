"""Producer, as its contract says: send, what it refuses, closing.

Knows only the public face, never how a record is stored.
"""

from __future__ import annotations

import array
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from minilog import (
    Broker,
    ClosedError,
    ConfigError,
    Consumer,
    InvalidRecordError,
    Producer,
    ReadOnlyError,
    Record,
    RecordTooLargeError,
    Topic,
    UnknownPartitionError,
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


def ends(topic: Topic) -> list[int]:
    return [partition.end_offset for partition in topic]


def only_record(topic: Topic, partition: int = 0) -> Record:
    (record,) = topic[partition]
    return record


# -- what send answers and writes ---------------------------------------------------------------


def test_send_answers_with_where_and_when_the_record_went(producer: Producer, topic: Topic) -> None:
    sent = [producer.send("t", b"v", partition=2) for _ in range(3)]
    assert [(s.topic, s.partition, s.offset, s.timestamp) for s in sent] == [
        ("t", 2, 0, START_MS),
        ("t", 2, 1, START_MS),
        ("t", 2, 2, START_MS),
    ]
    assert ends(topic) == [0, 0, 3]


def test_every_argument_of_send_is_read_back(producer: Producer, topic: Topic) -> None:
    headers = [("trace", b"1"), ("empty", b""), ("none", None), ("trace", b"2"), ("é", b"\x00")]
    sent = producer.send("t", b"value", key=b"key", partition=1, timestamp=77, headers=headers)
    record = only_record(topic, 1)
    assert tuple(record) == ("t", 1, 0, 77, b"key", b"value", tuple(headers))
    assert (sent.partition, sent.offset, sent.timestamp) == (1, 0, 77)
    assert record.next_offset == 1
    assert record.datetime == datetime(1970, 1, 1, 0, 0, 0, 77_000, tzinfo=UTC)


def test_a_sent_record_is_seen_by_every_consumer_at_once(
    broker: Broker, producer: Producer, topic: Topic
) -> None:
    readers = [Consumer(broker, "t") for _ in range(3)]
    for number in range(5):
        producer.send("t", b"%d" % number)
        assert [reader.poll().values[0] for reader in readers] == [b"%d" % number] * 3


def test_offsets_of_interleaved_producers_count_on(broker: Broker, topic: Topic) -> None:
    first, second = Producer(broker), Producer(broker)
    offsets = [p.send("t", b"v", partition=0).offset for p in (first, second) * 5]
    assert offsets == list(range(10))


@pytest.mark.parametrize("value", [None, b"", b"\x00" * 7, bytes(range(256))])
@pytest.mark.parametrize("key", [None, b"", b"\xff"])
def test_none_and_empty_stay_apart(
    producer: Producer, topic: Topic, key: bytes | None, value: bytes | None
) -> None:
    producer.send("t", value, key=key, partition=0)
    record = only_record(topic)
    assert (record.key, record.value) == (key, value)
    assert type(record.value) is type(value)
    assert type(record.key) is type(key)


@pytest.mark.parametrize(
    "like",
    [dict, MappingProxyType, list, tuple, iter, dict.items],
    ids=["dict", "mapping", "list", "tuple", "iterator", "items view"],
)
def test_headers_come_as_a_mapping_or_any_iterable_of_pairs(
    producer: Producer, topic: Topic, like: Callable[[Any], Any]
) -> None:
    pairs: dict[str, bytes | None] = {"a": b"1", "b": None}
    mapping = like in (dict, MappingProxyType, dict.items)
    for _ in range(2):
        headers = like(pairs) if mapping else like(list(pairs.items()))
        producer.send("t", b"v", partition=0, headers=headers)
    assert [record.headers for record in topic[0]] == [(("a", b"1"), ("b", None))] * 2


@pytest.mark.parametrize(
    "like", [bytearray, memoryview, lambda raw: memoryview(bytearray(raw))], ids=str
)
def test_buffers_are_taken_by_value(
    producer: Producer, topic: Topic, like: Callable[[bytes], Any]
) -> None:
    key, value = like(b"the key"), like(b"the value")
    producer.send("t", value, key=key, partition=0)
    for buffer in (key, value):
        if isinstance(buffer, bytearray) or not buffer.readonly:
            buffer[:] = b"\x00" * len(buffer)
    record = only_record(topic)
    assert (record.key, record.value) == (b"the key", b"the value")
    assert type(record.value) is bytes


@pytest.mark.parametrize(
    "view",
    [
        memoryview(array.array("I", [1, 2, 3])),
        memoryview(b"0123456789")[::2],
        memoryview(b"0123456789")[::-1],
        memoryview(bytes(12)).cast("B", (3, 4)),
    ],
    ids=["wide items", "every other byte", "backwards", "two dimensions"],
)
def test_odd_memoryviews_give_their_bytes(
    producer: Producer, topic: Topic, view: memoryview
) -> None:
    producer.send("t", view, key=view, partition=0)
    producer.send_many("t", [view], keys=[view], partition=0)
    assert [(r.key, r.value) for r in topic[0]] == [(view.tobytes(), view.tobytes())] * 2


# -- timestamps ---------------------------------------------------------------------------------


def test_a_record_without_timestamp_has_the_clocks(tmp_path: Path) -> None:
    clock = ManualClock(5)
    with Broker(":memory:", clock=clock) as broker:
        broker.create_topic("t")
        producer = Producer(broker)
        stamps = []
        for _ in range(3):
            stamps.append(producer.send("t", b"v").timestamp)
            clock.advance(10)
        assert stamps == [5, 15, 25]
        assert list(broker.topic("t")[0].read(0).timestamps) == stamps


@pytest.mark.parametrize("stamp", [0, 1, 2**31, 2**63 - 1])
def test_a_timestamp_is_kept_as_given(producer: Producer, topic: Topic, stamp: int) -> None:
    assert producer.send("t", b"v", partition=0, timestamp=stamp).timestamp == stamp
    assert only_record(topic).timestamp == stamp


def test_an_aware_datetime_is_taken_for_a_timestamp(producer: Producer, topic: Topic) -> None:
    moment = datetime(2024, 2, 29, 12, 30, 15, 123_999, tzinfo=UTC)
    sent = producer.send("t", b"v", partition=0, timestamp=moment)
    assert sent.timestamp == 1_709_209_815_123
    assert only_record(topic).timestamp == 1_709_209_815_123


@pytest.mark.parametrize("stamp", [-1, 2**63, datetime(2024, 2, 29)])
def test_a_timestamp_out_of_range_or_naive_is_an_invalid_record(
    producer: Producer, topic: Topic, stamp: Any
) -> None:
    with pytest.raises(InvalidRecordError):
        producer.send("t", b"v", timestamp=stamp)
    with pytest.raises(InvalidRecordError):
        producer.send_many("t", [b"v"], timestamps=[stamp])
    assert ends(topic) == [0, 0, 0]


def test_a_topic_that_stamps_on_append_answers_with_its_own_stamp(
    broker: Broker, producer: Producer
) -> None:
    topic = broker.create_topic("stamped", timestamp_type="append")
    assert producer.send("stamped", b"v", timestamp=5).timestamp == START_MS
    assert only_record(topic).timestamp == START_MS


# -- what send refuses --------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [{"value": "text"}, {"value": b"v", "key": "text"}])
def test_str_without_a_serializer_is_a_type_error_with_a_hint(
    producer: Producer, topic: Topic, arguments: dict[str, Any]
) -> None:
    with pytest.raises(TypeError, match=r"(?i)serializer|encode"):
        producer.send("t", **arguments)
    assert ends(topic) == [0, 0, 0]


@pytest.mark.parametrize("odd", [5, 1.5, True, ["a"], {"a": 1}, object()])
def test_what_is_not_bytes_is_a_type_error(producer: Producer, topic: Topic, odd: Any) -> None:
    for arguments in ({"value": odd}, {"value": b"v", "key": odd}):
        with pytest.raises(TypeError, match="it must be bytes or None"):
            producer.send("t", **arguments)
    assert ends(topic) == [0, 0, 0]


@pytest.mark.parametrize(
    "headers",
    [[("a", "text")], [("a", 5)], [(b"a", b"1")], [(None, b"1")], [("a",)], ["ab"], {"a": 1}, 7],
    ids=repr,
)
def test_malformed_headers_are_refused(producer: Producer, topic: Topic, headers: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        producer.send("t", b"v", headers=headers)
    assert ends(topic) == [0, 0, 0]


@pytest.mark.parametrize("headers", [7, 1.5, "ab", b"ab"], ids=repr)
def test_headers_that_are_no_pairs_at_all_are_told_what_they_must_be(
    producer: Producer, topic: Topic, headers: Any
) -> None:
    with pytest.raises(TypeError, match=r"headers is \w+; it must be pairs of"):
        producer.send("t", b"v", headers=headers)
    assert ends(topic) == [0, 0, 0]


@pytest.mark.parametrize("partition", [3, 4, 1000, 2**40, -1, -3])
def test_a_partition_that_is_not_there_is_an_unknown_partition(
    producer: Producer, topic: Topic, partition: int
) -> None:
    # A negative number is no partition's at all, so it may be called a wrong argument instead.
    refusal = UnknownPartitionError if partition >= 0 else (UnknownPartitionError, ConfigError)
    with pytest.raises(refusal):
        producer.send("t", b"v", partition=partition)
    with pytest.raises(refusal):
        producer.send_many("t", [b"v"], partition=partition)
    with pytest.raises(refusal), producer.batch() as batch:
        batch.send("t", b"v", partition=partition)
    assert ends(topic) == [0, 0, 0]


def test_an_unknown_topic_is_refused_and_not_made(broker: Broker, producer: Producer) -> None:
    with pytest.raises(UnknownTopicError):
        producer.send("nope", b"v")
    with pytest.raises(UnknownTopicError):
        producer.send_many("nope", [b"v"])
    with pytest.raises(UnknownTopicError), producer.batch() as batch:
        batch.send("nope", b"v")
    assert list(broker.topics) == []


@pytest.mark.parametrize("size", [101, 1000])
def test_a_record_too_large_is_refused_with_its_size_and_the_limit(
    broker: Broker, producer: Producer, size: int
) -> None:
    topic = broker.create_topic("small", max_record_bytes=100)
    with pytest.raises(RecordTooLargeError) as caught:
        producer.send("small", bytes(size))
    assert (caught.value.limit, caught.value.size >= size) == (100, True)
    assert topic[0].end_offset == 0
    assert producer.send("small", b"fits").offset == 0


def test_key_and_headers_count_towards_the_size_of_a_record(
    broker: Broker, producer: Producer
) -> None:
    broker.create_topic("small", max_record_bytes=100)
    either: list[dict[str, Any]] = [{"key": bytes(60)}, {"headers": [("h", bytes(60))]}]
    for arguments in either:
        with pytest.raises(RecordTooLargeError):
            producer.send("small", bytes(60), **arguments)


def test_a_record_larger_than_a_segment_is_written(broker: Broker, producer: Producer) -> None:
    topic = broker.create_topic("tiny", segment_bytes=256)
    sizes = [10, 5000, 10, 100_000, 0]
    for size in sizes:
        producer.send("tiny", bytes(size))
    assert [len(record.value or b"") for record in topic[0]] == sizes


def test_a_read_only_broker_is_not_written_to(tmp_path: Path) -> None:
    with Broker(tmp_path / "log", segment_bytes=4096) as writer:
        topic = writer.create_topic("t")
        with Broker(tmp_path / "log", read_only=True) as reader, pytest.raises(ReadOnlyError):
            Producer(reader).send("t", b"v")
        assert topic[0].end_offset == 0


def test_sequence_without_a_producer_id_is_a_config_error(producer: Producer, topic: Topic) -> None:
    with pytest.raises(ConfigError):
        producer.send("t", b"v", sequence=0)
    assert ends(topic) == [0, 0, 0]


# -- topics that come and go --------------------------------------------------------------------


def test_send_makes_an_unknown_topic_where_the_broker_allows_it() -> None:
    with Broker(":memory:", auto_create_topics=True, default_partitions=4) as broker:
        producer = Producer(broker)
        assert producer.send("made", b"v", partition=3).offset == 0
        producer.send_many("made-by-many", [b"v"])
        with producer.batch() as batch:
            batch.send("made-by-batch", b"v")
        assert {name: len(topic) for name, topic in broker.topics.items()} == {
            "made": 4,
            "made-by-batch": 4,
            "made-by-many": 4,
        }


def test_a_deleted_topic_is_unknown_and_a_new_one_of_its_name_starts_at_zero(
    broker: Broker, producer: Producer, topic: Topic
) -> None:
    for _ in range(3):
        producer.send("t", b"old", partition=0)
    broker.delete_topic("t")
    with pytest.raises(UnknownTopicError):
        producer.send("t", b"v", partition=0)
    anew = broker.create_topic("t", partitions=1)
    assert producer.send("t", b"anew", partition=0).offset == 0
    assert [record.value for record in anew[0]] == [b"anew"]


def test_added_partitions_can_be_sent_to_at_once(producer: Producer, topic: Topic) -> None:
    producer.send("t", b"v", partition=0)
    topic.add_partitions(5)
    assert producer.send("t", b"v", partition=4).offset == 0


# -- serializers --------------------------------------------------------------------------------


def test_serializers_make_bytes_of_keys_and_values(broker: Broker, topic: Topic) -> None:
    producer: Any = Producer(
        broker, key_serializer=str.encode, value_serializer=lambda value: repr(value).encode()
    )
    producer.send("t", {"a": 1}, key="single", partition=0)
    producer.send_many("t", [(1, 2), "x"], keys=["many", "many"], partition=0)
    with producer.batch() as batch:
        batch.send("t", 5, key="batch", partition=0)
    assert [(record.key, record.value) for record in topic[0]] == [
        (b"single", b"{'a': 1}"),
        (b"many", b"(1, 2)"),
        (b"many", b"'x'"),
        (b"batch", b"5"),
    ]


def test_what_a_serializer_raises_comes_out_and_nothing_is_written(
    broker: Broker, topic: Topic
) -> None:
    producer: Any = Producer(broker, value_serializer=lambda value: b"%d" % (1 // value))
    with pytest.raises(ZeroDivisionError):
        producer.send("t", 0)
    assert ends(topic) == [0, 0, 0]
    assert producer.send("t", 1, partition=0).offset == 0


def test_a_serializer_that_makes_no_bytes_is_a_type_error(broker: Broker, topic: Topic) -> None:
    producer: Any = Producer(broker, value_serializer=lambda value: value)
    with pytest.raises(TypeError):
        producer.send("t", "still text")
    assert ends(topic) == [0, 0, 0]


# -- flush and close ----------------------------------------------------------------------------


def test_flush_leaves_what_was_sent_as_it_is(producer: Producer, topic: Topic) -> None:
    producer.flush()
    producer.send_many("t", [b"1", b"2"], partition=0)
    producer.flush()
    assert [record.value for record in topic[0]] == [b"1", b"2"]


USES: dict[str, Callable[[Producer], Any]] = {
    "send": lambda producer: producer.send("t", b"v"),
    "send_many": lambda producer: producer.send_many("t", [b"v"]),
    "batch": lambda producer: producer.batch().__enter__().send("t", b"v"),
    "flush": lambda producer: producer.flush(),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("closed", ["producer", "broker"])
def test_use_after_close_is_a_closed_error(
    broker: Broker, producer: Producer, topic: Topic, use: str, closed: str
) -> None:
    (producer if closed == "producer" else broker).close()
    with pytest.raises(ClosedError):
        USES[use](producer)


def test_the_with_block_closes_the_producer_and_leaves_the_broker_open(
    broker: Broker, topic: Topic
) -> None:
    with Producer(broker) as producer:
        producer.send("t", b"in", partition=0)
    with pytest.raises(ClosedError):
        producer.send("t", b"late", partition=0)
    assert Producer(broker).send("t", b"other", partition=0).offset == 1
    assert [record.value for record in topic[0]] == [b"in", b"other"]


def test_closing_a_producer_twice_is_fine(broker: Broker, topic: Topic) -> None:
    with Producer(broker) as producer:
        producer.close()
        producer.close()
    assert ends(topic) == [0, 0, 0]
