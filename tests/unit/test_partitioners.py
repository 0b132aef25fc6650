"""Where a record goes: pinned vectors of the clients that are copied, and the sticky rule.

Knows only the public face; the reference murmur2 below is written apart from the one it judges.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilog import Broker, ConfigError, MinilogError, Producer

# Kafka, UtilsTest.testMurmur2 (signed 32-bit results).
JAVA_MURMUR2 = [
    (b"21", -973932308),
    (b"foobar", -790332482),
    (b"a-little-bit-long-string", -985981536),
    (b"a-little-bit-longer-string", -1486304829),
    (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
    (b"abc", 479470107),
]
# kafka-python and aiokafka, test_murmur2_java_compatibility: the partition of 1000.
KAFKA_PYTHON_MURMUR2 = [
    (b"", 681),
    (b"a", 524),
    (b"ab", 434),
    (b"abc", 107),
    (b"123456789", 566),
    (b"\x00 ", 742),
]
# librdkafka, 0048-partitioner.c, partitioner "consistent".
LIBRDKAFKA_CRC32 = [
    (b"", 0x0),
    (b"23456", 0xB1B451D7),
    (b"this is another string with more length to it perhaps", 0xB0150DF7),
    (b"hejsan", 0xD077037E),
]
KEYS = [b"", b"\x00", b"\xff\xfe\xfd", b"k", b"key-17", bytes(range(256))]


def reference_murmur2(key: bytes) -> int:
    """Murmur2 with Kafka's seed, unsigned."""
    multiplier, mask = 0x5BD1E995, 0xFFFFFFFF
    h = (0x9747B28C ^ len(key)) & mask
    whole = len(key) - len(key) % 4
    for start in range(0, whole, 4):
        k = int.from_bytes(key[start : start + 4], "little") * multiplier & mask
        h = (h * multiplier & mask) ^ ((k ^ k >> 24) * multiplier & mask)
    if whole < len(key):
        h = (h ^ int.from_bytes(key[whole:], "little")) * multiplier & mask
    h = (h ^ h >> 13) * multiplier & mask
    return h ^ h >> 15


@pytest.fixture
def broker() -> Iterator[Broker]:
    with Broker(":memory:", segment_bytes=1 << 16) as opened:
        yield opened


def runs_of(partitions: list[int]) -> list[tuple[int, int]]:
    """(partition, count) of every uninterrupted run."""
    return [(partition, len(list(run))) for partition, run in groupby(partitions)]


@pytest.mark.parametrize(("key", "signed_hash"), JAVA_MURMUR2)
@pytest.mark.parametrize("partition_count", [1, 2, 3, 7, 16, 100])
def test_murmur2_agrees_with_kafka(
    broker: Broker, key: bytes, signed_hash: int, partition_count: int
) -> None:
    broker.create_topic("t", partition_count)
    sent = Producer(broker, partitioner="murmur2").send("t", b"v", key=key)
    assert sent.partition == (signed_hash & 0x7FFFFFFF) % partition_count


@pytest.mark.parametrize(("key", "partition"), KAFKA_PYTHON_MURMUR2)
def test_murmur2_agrees_with_kafka_python_over_a_thousand_partitions(
    key: bytes, partition: int
) -> None:
    with Broker(":memory:", segment_bytes=4096) as broker:
        broker.create_topic("t", 1000)
        sent = Producer(broker, partitioner="murmur2").send("t", b"v", key=key)
        assert sent.partition == partition


@pytest.mark.parametrize(("key", "crc"), LIBRDKAFKA_CRC32)
@pytest.mark.parametrize("partition_count", [1, 3, 17, 64])
def test_crc32_agrees_with_librdkafka_consistent(
    broker: Broker, key: bytes, crc: int, partition_count: int
) -> None:
    broker.create_topic("t", partition_count)
    sent = Producer(broker, partitioner="crc32").send("t", b"v", key=key)
    assert sent.partition == crc % partition_count


@settings(max_examples=60, deadline=None)
@given(keys=st.lists(st.binary(max_size=40), min_size=1, max_size=20), count=st.integers(1, 9))
def test_any_key_is_placed_as_the_reference_says(keys: list[bytes], count: int) -> None:
    with Broker(":memory:", segment_bytes=4096) as broker:
        broker.create_topic("t", count)
        crc, murmur = Producer(broker), Producer(broker, partitioner="murmur2")
        placed_by_crc = [crc.send("t", b"", key=key).partition for key in keys]
        placed_by_murmur = [murmur.send("t", b"", key=key).partition for key in keys]
    assert placed_by_crc == [zlib.crc32(key) % count for key in keys]
    assert placed_by_murmur == [(reference_murmur2(key) & 0x7FFFFFFF) % count for key in keys]


@pytest.mark.parametrize("key", KEYS)
def test_crc32_is_the_default_and_what_partition_for_says(broker: Broker, key: bytes) -> None:
    topic = broker.create_topic("t", 7)
    assert Producer(broker).send("t", b"v", key=key).partition == zlib.crc32(key) % 7
    assert topic.partition_for(key) == zlib.crc32(key) % 7


@pytest.mark.parametrize("partitioner", ["crc32", "murmur2"])
def test_send_send_many_and_batch_place_a_key_alike(broker: Broker, partitioner: Any) -> None:
    topic = broker.create_topic("t", 5)
    producer = Producer(broker, partitioner=partitioner)
    single = {key: producer.send("t", b"single", key=key).partition for key in KEYS}
    producer.send_many("t", [b"many"] * len(KEYS), keys=KEYS)
    with producer.batch() as batch:
        for key in KEYS:
            batch.send("t", b"batch", key=key)
    for partition in topic:
        expected = [key for key in KEYS if single[key] == partition.index]
        assert [record.key for record in partition] == expected * 3


@pytest.mark.parametrize("like", [bytearray, memoryview])
def test_a_key_is_hashed_by_its_bytes_whatever_it_comes_in(
    broker: Broker, like: Callable[[bytes], Any]
) -> None:
    broker.create_topic("t", 11)
    for partitioner in ("crc32", "murmur2"):
        producer = Producer(broker, partitioner=partitioner)
        plain = producer.send("t", b"v", key=b"key-of-odd-length")
        other = producer.send("t", b"v", key=like(b"key-of-odd-length"))
        assert other.partition == plain.partition


def test_a_key_is_hashed_after_its_serializer(broker: Broker) -> None:
    broker.create_topic("t", 13)
    producer: Any = Producer(broker, key_serializer=lambda key: key.upper().encode())
    for key in ("alpha", "beta", "gamma"):
        sent = producer.send("t", b"v", key=key)
        assert sent.partition == zlib.crc32(key.upper().encode()) % 13


def test_more_partitions_are_used_at_once_by_keys_that_map_there(broker: Broker) -> None:
    topic = broker.create_topic("t", 2)
    producer = Producer(broker)
    keys = [str(i).encode() for i in range(40)]
    producer.send_many("t", [b"v"] * 40, keys=keys)
    topic.add_partitions(9)
    assert [producer.send("t", b"v", key=key).partition for key in keys] == [
        zlib.crc32(key) % 9 for key in keys
    ]


def test_keyless_records_stick_for_about_16_kib_and_use_every_partition(broker: Broker) -> None:
    broker.create_topic("t", 4)
    producer = Producer(broker)
    placed = [producer.send("t", bytes(1024)).partition for _ in range(1600)]
    runs = runs_of(placed)
    assert {partition for partition, _ in runs} == {0, 1, 2, 3}
    # Within a factor of two of 16 records of 1 KiB each; the last run was cut short.
    assert all(8 <= count <= 32 for _, count in runs[:-1]), runs


def test_few_small_keyless_records_stay_together(broker: Broker) -> None:
    broker.create_topic("t", 8)
    producer = Producer(broker)
    assert len({producer.send("t", b"tiny").partition for _ in range(50)}) == 1


def test_keyless_records_larger_than_the_sticky_size_change_partition_every_time(
    broker: Broker,
) -> None:
    broker.create_topic("t", 4)
    producer = Producer(broker)
    placed = [producer.send("t", bytes(100_000)).partition for _ in range(12)]
    assert all(count == 1 for _, count in runs_of(placed)), placed


@pytest.mark.parametrize(("size", "count"), [(10, 20_000), (1000, 400), (50_000, 40)])
def test_send_many_of_keyless_records_uses_every_partition(
    broker: Broker, size: int, count: int
) -> None:
    topic = broker.create_topic("t", 4)
    ranges = Producer(broker).send_many("t", (bytes(size) for _ in range(count)))
    assert set(ranges) == {0, 1, 2, 3}
    assert sum(len(partition) for partition in topic) == count


def test_batch_of_keyless_records_uses_every_partition(broker: Broker) -> None:
    topic = broker.create_topic("t", 3)
    with Producer(broker).batch() as batch:
        for _ in range(1500):
            batch.send("t", bytes(1000))
    assert all(len(partition) > 0 for partition in topic)
    assert sum(len(partition) for partition in topic) == 1500


def test_keyless_records_of_a_single_partition_go_there(broker: Broker) -> None:
    broker.create_topic("t", 1)
    producer = Producer(broker)
    assert {producer.send("t", bytes(5000)).partition for _ in range(20)} == {0}


def test_keyless_stickiness_survives_a_topic_that_is_made_anew_with_fewer_partitions(
    broker: Broker,
) -> None:
    broker.create_topic("t", 16)
    producer = Producer(broker)
    for _ in range(40):
        producer.send("t", bytes(9000))
    broker.delete_topic("t")
    broker.create_topic("t", 1)
    assert producer.send("t", b"v").partition == 0


def test_a_callable_is_given_the_key_and_the_partition_count(broker: Broker) -> None:
    broker.create_topic("t", 6)
    calls: list[tuple[bytes | None, int]] = []

    def last_byte(key: bytes | None, partition_count: int) -> int:
        calls.append((key, partition_count))
        return key[-1] % partition_count if key else 0

    producer = Producer(broker, partitioner=last_byte)
    assert [producer.send("t", b"v", key=bytes([i])).partition for i in range(12)] == [
        *range(6),
        *range(6),
    ]
    assert calls == [(bytes([i]), 6) for i in range(12)]


def test_a_callable_is_not_asked_when_the_partition_is_given(broker: Broker) -> None:
    broker.create_topic("t", 3)

    def refuse(key: bytes | None, partition_count: int) -> int:
        raise AssertionError("asked")

    producer = Producer(broker, partitioner=refuse)
    assert producer.send("t", b"v", key=b"k", partition=2).partition == 2
    assert producer.send_many("t", [b"v"], keys=[b"k"], partition=1) == {1: range(1)}


@pytest.mark.parametrize("answer", [3, 99, -1, None, "1", 1.5, b"0", object()])
def test_what_a_callable_may_not_answer_is_refused_and_nothing_is_written(
    broker: Broker, answer: Any
) -> None:
    topic = broker.create_topic("t", 3)
    producer = Producer(broker, partitioner=lambda key, partition_count: answer)
    with pytest.raises((MinilogError, TypeError, ValueError)):
        producer.send("t", b"v", key=b"k")
    assert [partition.end_offset for partition in topic] == [0, 0, 0]


def test_what_a_callable_raises_comes_out_and_nothing_is_written(broker: Broker) -> None:
    topic = broker.create_topic("t", 3)

    def fail(key: bytes | None, partition_count: int) -> int:
        raise ZeroDivisionError("no partition today")

    producer = Producer(broker, partitioner=fail)
    with pytest.raises(ZeroDivisionError, match="no partition today"):
        producer.send("t", b"v", key=b"k")
    assert [partition.end_offset for partition in topic] == [0, 0, 0]


@pytest.mark.parametrize("partitioner", ["md5", "", "CRC 32", 7])
def test_an_unknown_partitioner_is_a_config_error(broker: Broker, partitioner: Any) -> None:
    with pytest.raises(ConfigError):
        Producer(broker, partitioner=partitioner)
