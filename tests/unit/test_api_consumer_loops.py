"""Consumer without a group, as its contract says: `for` loops, drain, and what they use up.

Knows only the public face, never how a partition is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from minilog import Broker, Consumer, OffsetOutOfRangeError, Topic, TopicPartition
from minilog.testing import ManualClock

A0 = TopicPartition("a", 0)


@pytest.fixture(params=["memory", "disk"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    path = ":memory:" if request.param == "memory" else tmp_path / "log"
    with Broker(path, clock=ManualClock(1000), segment_bytes=512) as opened:
        yield opened


def filled(broker: Broker, *counts: int) -> Topic:
    """Topic `a` with as many records in each partition."""
    topic = broker.create_topic("a", partitions=len(counts))
    for partition, count in zip(topic, counts, strict=True):
        partition.append_many([b"%d" % n for n in range(count)])
    return topic


def polled(consumer: Consumer, partition: int = 0) -> list[int]:
    """The offsets of one partition that a single poll gives."""
    return [record.offset for record in consumer.poll() if record.partition == partition]


LOOPS: dict[str, Callable[[Consumer], Iterator[Any]]] = {
    "iteration": iter,
    "drain": lambda consumer: iter(consumer.drain()),
}


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("count", [1, 3, 7])
def test_leaving_a_loop_by_break_uses_up_what_was_yielded(
    broker: Broker, loop: str, count: int
) -> None:
    filled(broker, 10)
    consumer = Consumer(broker, "a")
    seen: list[int] = []
    for record in LOOPS[loop](consumer):
        seen.append(record.offset)
        if len(seen) == count:
            break
    assert seen == list(range(count))
    assert consumer.position(A0) == count
    assert consumer.lag(A0) == 10 - count
    assert polled(consumer) == list(range(count, 10))


def test_loops_and_polls_share_one_position(broker: Broker) -> None:
    filled(broker, 12, 12)
    consumer = Consumer(broker, "a", max_poll_records=5)
    seen = []
    for record in consumer.drain():
        seen.append((record.partition, record.offset))
        seen += [(r.partition, r.offset) for r in consumer.poll(max_records=2)]
    assert sorted(seen) == [(p, n) for p in range(2) for n in range(12)]


def test_a_poll_within_a_loop_moves_the_loop_on(broker: Broker) -> None:
    filled(broker, 5)
    consumer = Consumer(broker, "a")
    seen: list[int] = []
    positions: list[int] = []
    for record in consumer.drain():
        seen.append(record.offset)
        seen += consumer.poll(max_records=1).offsets
        positions.append(consumer.position(A0))
    assert seen == [0, 1, 2, 3, 4]
    assert positions == sorted(positions)


def test_two_iterators_of_one_consumer_give_every_record_once(broker: Broker) -> None:
    filled(broker, 8, 8)
    consumer = Consumer(broker, "a", max_poll_records=5)
    first, second = iter(consumer), iter(consumer)
    turns = [first, second, second, first] * 4
    seen = [next(iterator) for iterator in turns]
    assert sorted((r.partition, r.offset) for r in seen) == [
        (p, n) for p in range(2) for n in range(8)
    ]


def test_each_next_of_a_fresh_iterator_is_the_next_record(broker: Broker) -> None:
    filled(broker, 4)
    consumer = Consumer(broker, "a")
    assert [next(iter(consumer)).offset for _ in range(4)] == [0, 1, 2, 3]
    assert list(consumer.drain()) == []


def test_drain_gives_what_is_there_now_and_stops(broker: Broker) -> None:
    topic = filled(broker, 3)
    consumer = Consumer(broker, "a")
    seen: list[int] = []
    for record in consumer.drain():
        seen.append(record.offset)
        topic[0].append(b"one more for each")
        assert len(seen) < 100, "drain runs after its own producer"
    assert seen[:3] == [0, 1, 2]
    assert next(iter(consumer.drain())).offset == len(seen)


@pytest.mark.parametrize("where", ["below", "beyond"])
@pytest.mark.parametrize("reset", ["earliest", "latest", "none"])
def test_drain_goes_by_the_reset_policy_where_a_place_is_out_of_range(
    broker: Broker, where: str, reset: str
) -> None:
    topic = filled(broker, 5)
    topic[0].delete_before(2)
    consumer = Consumer(broker, "a", auto_offset_reset=reset)
    consumer.seek(A0, 0 if where == "below" else 50)
    if reset == "none":
        with pytest.raises(OffsetOutOfRangeError):
            list(consumer.drain())
        assert consumer.position(A0) == (0 if where == "below" else 50)
    else:
        expected = [2, 3, 4] if reset == "earliest" else []
        assert [record.offset for record in consumer.drain()] == expected
        assert consumer.position(A0) == 5


def test_drain_gives_more_than_one_poll_holds(broker: Broker) -> None:
    filled(broker, 40, 25)
    assert len(list(Consumer(broker, "a", max_poll_records=7).drain())) == 65


def test_seek_within_a_loop_takes_effect_at_the_next_record(broker: Broker) -> None:
    filled(broker, 6)
    consumer = Consumer(broker, "a")
    seen: list[int] = []
    for record in consumer.drain():
        seen.append(record.offset)
        if len(seen) == 3:
            consumer.seek(A0, 1)
        if len(seen) == 5:
            consumer.seek(A0, 5)
    assert seen == [0, 1, 2, 1, 2, 5]


def test_pausing_within_a_loop_takes_effect_at_the_next_record(broker: Broker) -> None:
    filled(broker, 10, 10)
    consumer = Consumer(broker, "a")
    seen: list[tuple[int, int]] = []
    for record in consumer.drain():
        seen.append((record.partition, record.offset))
        if not consumer.paused():
            consumer.pause((record.topic, record.partition))
    first = seen[0][0]
    assert seen[1:] == [(1 - first, n) for n in range(10)]
    consumer.resume(("a", first))
    assert polled(consumer, first) == list(range(1, 10))
