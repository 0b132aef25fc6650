"""Consumer without a group, as its contract says: what it reads and what poll gives.

Knows only the public face, never how a partition is read.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from minilog import (
    Broker,
    ConfigError,
    Consumer,
    Producer,
    Topic,
    TopicPartition,
    UnknownTopicError,
    replay,
)
from minilog.testing import ManualClock


@pytest.fixture(params=["memory", "disk"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    path = ":memory:" if request.param == "memory" else tmp_path / "log"
    with Broker(path, clock=ManualClock(1000), segment_bytes=4096) as opened:
        yield opened


def filled(broker: Broker, name: str, *counts: int) -> Topic:
    """A topic with as many records in each partition, their values `name/partition/number`."""
    topic = broker.create_topic(name, partitions=len(counts))
    for partition, count in enumerate(counts):
        stem = f"{name}/{partition}"
        topic[partition].append_many([f"{stem}/{n}".encode() for n in range(count)])
    return topic


def partitions(*pairs: tuple[str, int]) -> set[TopicPartition]:
    return {TopicPartition(*pair) for pair in pairs}


def sources(records: Any) -> set[TopicPartition]:
    return {TopicPartition(record.topic, record.partition) for record in records}


# -- what is subscribed to or assigned ----------------------------------------------------------


def test_topics_of_the_constructor_are_read_from_all_partitions(broker: Broker) -> None:
    filled(broker, "a", 2, 3)
    filled(broker, "b", 4)
    filled(broker, "c", 5)
    consumer = Consumer(broker, "a", "b")
    assert Counter((r.topic, r.partition) for r in consumer.drain()) == {
        ("a", 0): 2,
        ("a", 1): 3,
        ("b", 0): 4,
    }
    assert set(consumer.subscription()) == {"a", "b"}
    assert set(consumer.assignment()) == partitions(("a", 0), ("a", 1), ("b", 0))


def test_subscribe_reads_all_partitions_of_the_names(broker: Broker) -> None:
    filled(broker, "a", 1, 1)
    filled(broker, "b", 1)
    consumer = Consumer(broker)
    consumer.subscribe(["a"])
    assert sources(consumer.poll()) == partitions(("a", 0), ("a", 1))


def test_a_pattern_reads_the_topics_that_match(broker: Broker) -> None:
    filled(broker, "orders-eu", 1, 1)
    filled(broker, "orders-us", 1)
    filled(broker, "invoices", 1)
    consumer = Consumer(broker)
    consumer.subscribe(re.compile(r"^orders-[a-z]+$"))
    expected = partitions(("orders-eu", 0), ("orders-eu", 1), ("orders-us", 0))
    assert sources(consumer.poll()) == expected
    assert set(consumer.assignment()) == expected


def test_a_pattern_of_bytes_is_refused_before_a_topic_is_there_to_match(broker: Broker) -> None:
    consumer = Consumer(broker)
    with pytest.raises(ConfigError, match="names are str"):
        consumer.subscribe(re.compile(b"late"))  # type: ignore[arg-type]
    with pytest.raises(ConfigError):
        Consumer(broker, re.compile(b"late"))  # type: ignore[arg-type]
    with pytest.raises(ConfigError):
        replay(broker, re.compile(b"late"), into=list)  # type: ignore[arg-type]
    filled(broker, "late", 1)
    consumer.subscribe(re.compile("late"))
    assert sources(consumer.poll()) == partitions(("late", 0))


def test_a_pattern_sees_new_topics_at_once_and_from_their_start(broker: Broker) -> None:
    for policy in ("earliest", "latest"):
        consumer = Consumer(broker, auto_offset_reset=policy)
        consumer.subscribe(re.compile(rf"^{policy}-\d$"))
        assert len(consumer.poll()) == 0
        filled(broker, f"{policy}-1", 3)
        filled(broker, f"other-{policy}", 3)
        assert [r.value for r in consumer.poll()] == [
            b"%s-1/0/%d" % (policy.encode(), n) for n in range(3)
        ]


def test_assign_reads_those_partitions_and_no_others(broker: Broker) -> None:
    topic = filled(broker, "a", 2, 2, 2)
    consumer = Consumer(broker)
    consumer.assign([TopicPartition("a", 0), ("a", 2)])
    assert sources(consumer.drain()) == partitions(("a", 0), ("a", 2))
    assert set(consumer.assignment()) == partitions(("a", 0), ("a", 2))
    topic.add_partitions(4)
    topic[3].append(b"v")
    topic[2].append(b"v")
    assert sources(consumer.poll()) == partitions(("a", 2))
    assert set(consumer.assignment()) == partitions(("a", 0), ("a", 2))


def test_subscribe_and_assign_exclude_each_other(broker: Broker) -> None:
    filled(broker, "a", 1)
    with pytest.raises(ConfigError):
        Consumer(broker, "a").assign([("a", 0)])
    consumer = Consumer(broker)
    consumer.subscribe(re.compile("^a$"))
    with pytest.raises(ConfigError):
        consumer.assign([("a", 0)])
    consumer = Consumer(broker)
    consumer.assign([("a", 0)])
    with pytest.raises(ConfigError):
        consumer.subscribe(["a"])
    assert len(consumer.poll()) == 1


def test_unsubscribe_makes_room_for_the_other_kind(broker: Broker) -> None:
    filled(broker, "a", 1)
    filled(broker, "b", 1)
    consumer = Consumer(broker, "a")
    consumer.unsubscribe()
    assert not consumer.assignment()
    assert not consumer.subscription()
    consumer.assign([("b", 0)])
    assert sources(consumer.poll()) == partitions(("b", 0))
    consumer.unsubscribe()
    consumer.subscribe(["a"])
    assert sources(consumer.poll()) == partitions(("a", 0))


@pytest.mark.parametrize("topics", [["nope"], ["a", "nope"]])
def test_an_unknown_topic_is_refused_at_subscribe(broker: Broker, topics: list[str]) -> None:
    filled(broker, "a", 1)
    with pytest.raises(UnknownTopicError):
        Consumer(broker, *topics)
    with pytest.raises(UnknownTopicError):
        Consumer(broker).subscribe(topics)
    assert list(broker.topics) == ["a"]


@pytest.mark.parametrize("unknown", [("a", 5), ("a", -1), ("nope", 0)])
def test_what_is_not_there_cannot_be_assigned_and_read(
    broker: Broker, unknown: tuple[str, int]
) -> None:
    filled(broker, "a", 1)
    consumer = Consumer(broker)

    def assign_and_read() -> None:
        consumer.assign([unknown])
        consumer.poll()

    with pytest.raises(LookupError):
        assign_and_read()
    assert list(broker.topics) == ["a"]


def test_subscribe_makes_an_unknown_topic_where_the_broker_allows_it() -> None:
    with Broker(":memory:", auto_create_topics=True, default_partitions=3) as broker:
        consumer = Consumer(broker, "made")
        assert len(broker.topic("made")) == 3
        consumer.poll()
        Producer(broker).send("made", b"v", partition=2)
        assert [record.value for record in consumer.poll()] == [b"v"]


def test_new_partitions_of_a_subscribed_topic_are_picked_up_from_their_start(
    broker: Broker,
) -> None:
    topic = filled(broker, "a", 1)
    earliest = Consumer(broker, "a")
    latest = Consumer(broker, "a", auto_offset_reset="latest")
    assert (len(earliest.poll()), len(latest.poll())) == (1, 0)
    topic.add_partitions(4)
    topic[3].append_many([b"1", b"2"])
    for consumer in (earliest, latest):
        assert [(r.partition, r.value) for r in consumer.poll()] == [(3, b"1"), (3, b"2")]
        assert TopicPartition("a", 3) in consumer.assignment()


def test_records_of_a_deleted_topic_do_not_come_and_a_new_one_is_read_whole(
    broker: Broker,
) -> None:
    filled(broker, "x-old", 5)
    filled(broker, "x-kept", 1)
    consumer = Consumer(broker)
    consumer.subscribe(re.compile("^x-"))
    assert len(list(consumer.drain())) == 6
    broker.delete_topic("x-old")
    filled(broker, "x-old", 3)
    assert [r.value for r in consumer.drain()] == [b"x-old/0/%d" % n for n in range(3)]


GROUPS: list[dict[str, Any]] = [{}, {"group": "g"}]


def told_of(consumer: Consumer, look: Callable[[Consumer], Any]) -> int:
    """Say how often it is told that a topic is unknown, of three times it looks."""
    count = 0
    for _ in range(3):
        try:
            assert not look(consumer)
        except UnknownTopicError as error:
            count += "'a' was deleted" in str(error)
    return count


@pytest.mark.parametrize("settings", GROUPS, ids=["alone", "in a group"])
@pytest.mark.parametrize("how", ["subscribed", "assigned"])
@pytest.mark.parametrize("look", [Consumer.poll, lambda c: list(c.drain())], ids=["poll", "drain"])
def test_that_a_topic_it_named_was_deleted_is_told_a_consumer_once(
    broker: Broker, settings: Any, how: str, look: Callable[[Consumer], Any]
) -> None:
    """It was told nothing, and waited for ever for what could never come."""
    topic = filled(broker, "a", 5)
    filled(broker, "b", 1)
    consumer = Consumer(broker, **settings)
    if how == "subscribed":
        consumer.subscribe(["a", "b"])
    else:
        consumer.assign([("a", 0), ("b", 0)])
    assert len(list(consumer.drain())) == 6
    broker.delete_topic("a")
    with pytest.raises(UnknownTopicError):
        topic[0].append(b"v")
    assert told_of(consumer, look) == 1
    broker.topic("b")[0].append(b"more")
    assert [record.value for record in consumer.poll()] == [b"more"], "what is left is read on"
    filled(broker, "a", 2)
    if how == "subscribed":
        assert len(consumer.poll()) + len(consumer.poll()) == 2, "so is one that is made again"
        broker.delete_topic("a")
        assert told_of(consumer, look) == 1


@pytest.mark.parametrize("settings", GROUPS, ids=["alone", "in a group"])
def test_a_waiting_poll_is_told_of_a_topic_that_is_deleted_meanwhile(
    broker: Broker, settings: Any
) -> None:
    filled(broker, "a", 0)
    consumer = Consumer(broker, "a", **settings)
    assert not consumer.poll()
    deleting = threading.Thread(target=broker.delete_topic, args=("a",))
    deleting.start()
    with pytest.raises(UnknownTopicError):
        consumer.poll(timeout=None)
    deleting.join()


def test_a_topic_that_was_only_matched_goes_without_a_word(broker: Broker) -> None:
    filled(broker, "a", 1)
    consumer = Consumer(broker, re.compile("a"))
    assert len(consumer.poll()) == 1
    broker.delete_topic("a")
    assert not consumer.poll()
    consumer.close()
    filled(broker, "a", 1)
    named = Consumer(broker, "a")
    broker.delete_topic("a")
    named.unsubscribe()
    assert not named.poll()


def test_a_reader_is_told_of_a_topic_that_its_writer_has_deleted(tmp_path: Path) -> None:
    with Broker(tmp_path / "log") as writer:
        filled(writer, "a", 1)
        with Broker(tmp_path / "log", read_only=True) as reading:
            consumer = Consumer(reading, "a")
            assert len(consumer.poll()) == 1
            writer.delete_topic("a")
            assert told_of(consumer, Consumer.poll) == 1


# -- poll ---------------------------------------------------------------------------------------


def test_poll_of_nothing_gives_empty_records(broker: Broker) -> None:
    filled(broker, "a", 0)
    records = Consumer(broker, "a").poll()
    assert (len(records), bool(records), list(records), list(records.values)) == (0, False, [], [])


def test_records_over_several_partitions_agree_with_their_columns(broker: Broker) -> None:
    filled(broker, "a", 7, 3, 5)
    filled(broker, "b", 4)
    records = Consumer(broker, "a", "b").poll()
    each = list(records)
    assert len(each) == len(records) == 19
    assert [record.value for record in each] == list(records.values)
    assert [record.offset for record in each] == list(records.offsets)
    assert [record.timestamp for record in each] == list(records.timestamps)
    assert [record.key for record in each] == list(records.keys)
    assert [records[n] for n in range(-19, 19)] == each * 2
    assert list(records[5:12]) == each[5:12]
    assert list(records[::-3]) == each[::-3]
    for outside in (19, -20):
        with pytest.raises(IndexError):
            records[outside]


@pytest.mark.parametrize("limit", [1, 2, 7, 100])
def test_poll_gives_at_most_max_poll_records_and_loses_none(broker: Broker, limit: int) -> None:
    filled(broker, "a", 40, 3, 17)
    consumer = Consumer(broker, "a", max_poll_records=limit)
    seen: list[tuple[int, int]] = []
    while records := consumer.poll():
        assert len(records) <= limit
        seen += [(record.partition, record.offset) for record in records]
    assert sorted(seen) == [(p, n) for p, count in enumerate((40, 3, 17)) for n in range(count)]
    for partition in range(3):
        offsets = [offset for p, offset in seen if p == partition]
        assert offsets == sorted(offsets)


def test_max_records_limits_one_poll(broker: Broker) -> None:
    filled(broker, "a", 30)
    consumer = Consumer(broker, "a", max_poll_records=10)
    assert list(consumer.poll(max_records=3).offsets) == [0, 1, 2]
    assert list(consumer.poll().offsets) == list(range(3, 13))
    assert list(consumer.poll(max_records=1).offsets) == [13]


def test_poll_gives_at_most_500_records_unless_told_otherwise(broker: Broker) -> None:
    filled(broker, "a", 1200)
    consumer = Consumer(broker, "a")
    lengths = [len(consumer.poll()) for _ in range(100)]
    assert (max(lengths) <= 500, sum(lengths)) == (True, 1200)


def test_poll_is_fair_between_full_partitions(broker: Broker) -> None:
    filled(broker, "a", 500, 500, 500)
    filled(broker, "b", 500)
    consumer = Consumer(broker, "a", "b")
    seen = Counter((r.topic, r.partition) for _ in range(40) for r in consumer.poll(max_records=10))
    assert sum(seen.values()) == 400
    assert min(seen[pair] for pair in [("a", 0), ("a", 1), ("a", 2), ("b", 0)]) >= 40, seen


def test_a_partition_that_never_runs_dry_does_not_starve_the_others(broker: Broker) -> None:
    topic = filled(broker, "a", 10, 5, 5)
    consumer = Consumer(broker, "a")
    seen: Counter[int] = Counter()
    for _ in range(45):
        topic[0].append(b"more")
        seen.update(record.partition for record in consumer.poll(max_records=1))
    assert (seen[1], seen[2]) == (5, 5), seen


def test_the_first_record_is_given_however_large(broker: Broker) -> None:
    topic = broker.create_topic("a")
    sizes = [8 << 20, 1, 3 << 20]
    for size in sizes:
        topic[0].append(bytes(size))
    assert [len(record.value or b"") for record in Consumer(broker, "a").drain()] == sizes


def test_readers_are_independent_of_each_other(broker: Broker) -> None:
    filled(broker, "a", 10)
    first, second = Consumer(broker, "a"), Consumer(broker, "a")
    assert list(first.poll(max_records=6).offsets) == [0, 1, 2, 3, 4, 5]
    second.pause(("a", 0))
    assert list(first.poll().offsets) == [6, 7, 8, 9]
    second.resume(("a", 0))
    assert list(second.poll().offsets) == list(range(10))
    first.close()
    second.seek(("a", 0), 9)
    assert list(second.poll().offsets) == [9]


def test_records_stay_what_they_were(broker: Broker) -> None:
    topic = filled(broker, "a", 300)
    records = Consumer(broker, "a").poll()
    topic[0].delete_before(300)
    topic[0].append_many([b"x" * 50] * 300)
    assert [record.value for record in records] == [b"a/0/%d" % n for n in range(300)]


# -- deserializers ------------------------------------------------------------------------------


def test_deserializers_make_the_key_and_value_of_every_record(broker: Broker) -> None:
    topic = broker.create_topic("a")
    topic[0].append_many([b"1", b"22"], keys=[b"k", b"kk"])

    def reader() -> Any:
        return Consumer(broker, "a", key_deserializer=bytes.decode, value_deserializer=int)

    records = reader().poll()
    assert [(record.key, record.value) for record in records] == [("k", 1), ("kk", 22)]
    assert (list(records.keys), list(records.values)) == (["k", "kk"], [1, 22])
    assert [(record.key, record.value) for record in reader().drain()] == [("k", 1), ("kk", 22)]
    assert topic[0].read(0)[0].value == b"1"


@pytest.mark.parametrize("which", ["key_deserializer", "value_deserializer"])
def test_what_a_deserializer_raises_comes_out_behind_the_records_before_it(
    broker: Broker, which: str
) -> None:
    """It held them back: a poll that met the bad record raised, though it had others to give."""
    topic = broker.create_topic("a")
    column = [b"0", b"1", b"bad", b"3"]
    topic[0].append_many(column, keys=column)
    consumer: Any = Consumer(broker, "a", **{which: int})
    assert consumer.poll().offsets == [0, 1]
    for _ in range(2):
        with pytest.raises(ValueError, match="bad"):
            consumer.poll()
        assert consumer.position(("a", 0)) == 2
    consumer.seek(("a", 0), 3)
    assert consumer.poll().offsets == [3]


def test_an_error_that_waits_is_not_told_of_a_partition_that_was_paused(broker: Broker) -> None:
    topic = broker.create_topic("a", 2)
    topic[0].append_many([b"0", b"bad"])
    consumer: Any = Consumer(broker, "a", value_deserializer=int)
    assert [record.value for record in consumer.poll()] == [0]
    consumer.pause(("a", 0))
    topic[1].append(b"1")
    assert [record.value for record in consumer.poll()] == [1]
    consumer.resume(("a", 0))
    with pytest.raises(ValueError, match="bad"):
        consumer.poll()


def test_the_record_that_comes_first_is_the_one_whose_deserializer_raises(broker: Broker) -> None:
    topic = broker.create_topic("a", cleanup_policy="compact")
    topic[0].append_many([b"0", b"1", b"bad", b"3"], keys=[b"0", b"worse", b"2", b"3"])
    consumer: Any = Consumer(broker, "a", key_deserializer=int, value_deserializer=int)
    assert [record.value for record in consumer.poll()] == [0]
    with pytest.raises(ValueError, match="worse"):
        consumer.poll()
    topic[0].append_many([b"4", b"5"], keys=[b"0", b"worse"])
    topic.compact()
    fresh: Any = Consumer(broker, "a", value_deserializer=int)
    with pytest.raises(ValueError, match="bad"):
        fresh.poll()
    assert fresh.position(("a", 0)) == 2, "the first that is left"


def test_a_deserializer_that_raises_holds_nothing_back_of_another_partition(
    broker: Broker,
) -> None:
    topic = broker.create_topic("a", 2)
    topic[0].append_many([b"bad", b"1"])
    topic[1].append_many([b"2", b"3"])
    consumer: Any = Consumer(broker, "a", value_deserializer=int)
    seen: list[Any] = []
    for _ in range(2):  # whichever partition's turn it is
        with contextlib.suppress(ValueError):
            seen += [record.value for record in consumer.poll()]
    assert seen == [2, 3]
    assert consumer.position(("a", 0)) == 0
    consumer.seek(("a", 0), 1)
    assert [record.value for record in consumer.poll()] == [1]


def test_a_record_that_cannot_be_deserialized_uses_up_what_was_yielded_before_it(
    broker: Broker,
) -> None:
    topic = broker.create_topic("a")
    topic[0].append_many([b"0", b"1", b"bad", b"3"])
    consumer: Any = Consumer(broker, "a", value_deserializer=int)
    seen: list[Any] = []

    def drain() -> None:
        for record in consumer.drain():
            seen.append(record.value)

    for _ in range(2):
        with pytest.raises(ValueError, match="bad"):
            drain()
        assert consumer.position(("a", 0)) == len(seen) <= 2
    consumer.seek(("a", 0), 3)
    drain()
    assert seen[-1] == 3
