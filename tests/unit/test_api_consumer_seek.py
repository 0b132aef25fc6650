"""Consumer without a group, as its contract says: positions, reset policies, pausing, lag.

Knows only the public face, never how a partition is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pytest

from minilog import (
    Broker,
    Consumer,
    NoOffsetError,
    NotAssignedError,
    OffsetOutOfRangeError,
    Topic,
    TopicPartition,
)
from minilog.testing import ManualClock

Reset = Literal["earliest", "latest", "none"]
A0 = TopicPartition("a", 0)
A1 = TopicPartition("a", 1)


@pytest.fixture(params=["memory", "disk"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    path = ":memory:" if request.param == "memory" else tmp_path / "log"
    with Broker(path, clock=ManualClock(1000), segment_bytes=512) as opened:
        yield opened


def filled(broker: Broker, *counts: int, name: str = "a") -> Topic:
    """A topic with as many records in each partition, stamped 0, 10, 20..."""
    topic = broker.create_topic(name, partitions=len(counts))
    for partition, count in zip(topic, counts, strict=True):
        partition.append_many(
            [b"%d" % n for n in range(count)], timestamps=[10 * n for n in range(count)]
        )
    return topic


def polled(consumer: Consumer, partition: int = 0) -> list[int]:
    """The offsets of one partition that a single poll gives."""
    return [record.offset for record in consumer.poll() if record.partition == partition]


# -- seek ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [A0, ("a", 0)], ids=["TopicPartition", "tuple"])
def test_seek_moves_the_position_there(broker: Broker, given: Any) -> None:
    filled(broker, 10, 3)
    consumer = Consumer(broker, "a")
    consumer.poll()
    for offset in (4, 0, 9):
        consumer.seek(given, offset)
        assert consumer.position(given) == offset
        assert polled(consumer) == list(range(offset, 10))
    assert consumer.position(A1) == 3


def test_seek_before_the_first_poll_goes_before_the_reset_policy(broker: Broker) -> None:
    filled(broker, 10)
    policies: list[Reset] = ["earliest", "latest", "none"]
    for policy in policies:
        consumer = Consumer(broker, auto_offset_reset=policy)
        consumer.assign([A0])
        consumer.seek(A0, 7)
        assert polled(consumer) == [7, 8, 9]


def test_seek_drops_what_was_read_ahead(broker: Broker) -> None:
    filled(broker, 20)
    consumer = Consumer(broker, "a")
    consumer.poll(max_records=2)
    consumer.seek(A0, 10)
    assert polled(consumer) == list(range(10, 20))


def test_a_negative_offset_is_a_value_error_and_moves_nothing(broker: Broker) -> None:
    filled(broker, 5)
    consumer = Consumer(broker, "a")
    assert len(consumer.poll(max_records=2)) == 2
    with pytest.raises(ValueError, match=r"."):
        consumer.seek(A0, -1)
    assert polled(consumer) == [2, 3, 4]


UNASSIGNED: dict[str, Callable[[Consumer, Any], Any]] = {
    "seek": lambda consumer, tp: consumer.seek(tp, 0),
    "seek_to_beginning": lambda consumer, tp: consumer.seek_to_beginning(tp),
    "seek_to_end": lambda consumer, tp: consumer.seek_to_end(tp),
    "seek_to_time": lambda consumer, tp: consumer.seek_to_time(0, tp),
    "position": lambda consumer, tp: consumer.position(tp),
    "pause": lambda consumer, tp: consumer.pause(tp),
    "lag": lambda consumer, tp: consumer.lag(tp),
}


@pytest.mark.parametrize("use", UNASSIGNED)
@pytest.mark.parametrize("tp", [("a", 1), TopicPartition("b", 0), ("nope", 0), ("a", 99)])
def test_a_partition_that_is_not_assigned_is_refused(
    broker: Broker, use: str, tp: tuple[str, int]
) -> None:
    filled(broker, 1, 1)
    filled(broker, 1, name="b")
    consumer = Consumer(broker)
    consumer.assign([A0])
    with pytest.raises(NotAssignedError):
        UNASSIGNED[use](consumer, tp)


def test_seek_to_the_end_offset_is_valid_and_waits_there(broker: Broker) -> None:
    topic = filled(broker, 5)
    consumer = Consumer(broker, "a", auto_offset_reset="none")
    consumer.seek(A0, 5)
    assert polled(consumer) == []
    assert consumer.position(A0) == 5
    topic[0].append(b"next")
    assert polled(consumer) == [5]


@pytest.mark.parametrize("offset", [6, 1000, 2**62])
def test_seek_beyond_the_end_is_judged_by_the_next_poll_and_the_policy(
    broker: Broker, offset: int
) -> None:
    topic = filled(broker, 5)
    earliest, latest, none = (
        Consumer(broker, "a", auto_offset_reset="earliest"),
        Consumer(broker, "a", auto_offset_reset="latest"),
        Consumer(broker, "a", auto_offset_reset="none"),
    )
    assert polled(latest) == []
    for consumer in (earliest, latest, none):
        consumer.seek(A0, offset)
        assert consumer.position(A0) == offset
    assert polled(earliest) == [0, 1, 2, 3, 4]
    assert polled(latest) == []
    assert latest.position(A0) == 5
    with pytest.raises(OffsetOutOfRangeError) as caught:
        none.poll()
    error = caught.value
    assert (error.topic, error.partition, error.requested) == ("a", 0, offset)
    assert (error.start_offset, error.end_offset) == (0, 5)
    none.seek(A0, 4)
    assert polled(none) == [4]
    topic[0].append(b"later")
    assert (polled(earliest), polled(latest), polled(none)) == ([5], [5], [5])


def test_a_seek_out_of_range_that_comes_into_range_before_the_poll_counts(
    broker: Broker,
) -> None:
    topic = filled(broker, 2)
    consumer = Consumer(broker, "a", auto_offset_reset="none")
    consumer.seek(A0, 4)
    topic[0].append_many([b"2", b"3", b"4"])
    assert polled(consumer) == [4]


def test_what_was_deleted_before_the_reader_came_to_it_is_out_of_range(broker: Broker) -> None:
    topic = filled(broker, 20)
    earliest = Consumer(broker, "a")
    none = Consumer(broker, "a", auto_offset_reset="none")
    none.seek(A0, 0)
    assert len(earliest.poll(max_records=2)) == len(none.poll(max_records=2)) == 2
    topic[0].delete_before(11)
    assert polled(earliest) == list(range(11, 20))
    with pytest.raises(OffsetOutOfRangeError) as caught:
        none.poll()
    assert (caught.value.requested, caught.value.start_offset) == (2, 11)
    none.seek_to_beginning(A0)
    assert polled(none) == list(range(11, 20))


def test_an_emptied_partition_is_read_on_from_its_end(broker: Broker) -> None:
    topic = filled(broker, 20)
    consumer = Consumer(broker, "a")
    assert len(consumer.poll(max_records=3)) == 3
    topic[0].delete_before(20)
    assert polled(consumer) == []
    topic[0].append(b"next")
    assert polled(consumer) == [20]


def test_seek_to_beginning_and_end_of_some_or_all_partitions(broker: Broker) -> None:
    topic = filled(broker, 6, 6)
    topic[0].delete_before(2)
    consumer = Consumer(broker, "a")
    consumer.poll()
    consumer.seek_to_beginning(("a", 0))
    assert (consumer.position(A0), consumer.position(A1)) == (2, 6)
    consumer.seek_to_beginning()
    assert (consumer.position(A0), consumer.position(A1)) == (2, 0)
    consumer.seek_to_end(A1)
    assert (consumer.position(A0), consumer.position(A1)) == (2, 6)
    consumer.seek_to_end()
    assert (consumer.position(A0), consumer.position(A1)) == (6, 6)
    assert len(consumer.poll()) == 0
    topic[1].append(b"next")
    assert polled(consumer, 1) == [6]


@pytest.mark.parametrize(
    ("timestamp", "offset"),
    [(0, 0), (1, 1), (50, 1), (51, 3), (80, 3), (datetime(1970, 1, 1, 0, 0, 0, 60_000, UTC), 3)],
)
def test_seek_to_time_goes_to_the_earliest_record_not_older(
    broker: Broker, timestamp: Any, offset: int
) -> None:
    topic = broker.create_topic("a", partitions=2)
    topic[0].append_many([b"v"] * 5, timestamps=[0, 50, 20, 80, 30])
    topic[1].append_many([b"v"] * 5, timestamps=99)
    consumer = Consumer(broker, "a")
    consumer.poll()
    consumer.seek_to_time(timestamp, ("a", 0))
    assert polled(consumer) == list(range(offset, 5))
    assert consumer.position(A1) == 5


@pytest.mark.parametrize("timestamp", [-1, datetime(2024, 1, 1)])
def test_seek_to_time_refuses_a_negative_or_naive_timestamp(broker: Broker, timestamp: Any) -> None:
    filled(broker, 1)
    consumer = Consumer(broker, "a")
    with pytest.raises(ValueError, match=r"."):
        consumer.seek_to_time(timestamp, A0)


# -- reset policies -----------------------------------------------------------------------------


def test_earliest_begins_at_the_start_offset(broker: Broker) -> None:
    filled(broker, 10)[0].delete_before(4)
    consumer = Consumer(broker, "a")
    assert consumer.position(A0) == 4
    assert polled(consumer) == [4, 5, 6, 7, 8, 9]


def test_latest_is_pinned_when_the_partition_is_first_assigned(broker: Broker) -> None:
    topic = filled(broker, 3)
    consumer = Consumer(broker, auto_offset_reset="latest")
    consumer.assign([A0])
    topic[0].append(b"after assignment, before any poll")
    assert polled(consumer) == [3]


def test_latest_loses_nothing_between_two_empty_polls(broker: Broker) -> None:
    topic = filled(broker, 3)
    consumer = Consumer(broker, "a", auto_offset_reset="latest")
    assert polled(consumer) == []
    topic[0].append(b"v")
    assert polled(consumer) == [3]
    assert polled(consumer) == []
    topic[0].append(b"v")
    assert consumer.position(A0) == 4
    assert polled(consumer) == [4]


def test_none_without_a_committed_offset_is_a_no_offset_error(broker: Broker) -> None:
    filled(broker, 3)
    consumer = Consumer(broker, auto_offset_reset="none")
    consumer.assign([A0])
    for _ in range(2):
        with pytest.raises(NoOffsetError):
            consumer.poll()
    consumer.seek(A0, 1)
    assert polled(consumer) == [1, 2]
    with pytest.raises(NoOffsetError):
        Consumer(broker, "a", auto_offset_reset="none").poll()


# -- position, pause and lag --------------------------------------------------------------------


def test_position_is_the_next_offset_and_poll_alone_moves_it(broker: Broker) -> None:
    topic = filled(broker, 8)
    consumer = Consumer(broker, "a")
    assert consumer.position(A0) == 0
    consumer.poll(max_records=3)
    assert consumer.position(A0) == 3
    topic[0].append(b"v")
    assert consumer.position(("a", 0)) == 3
    consumer.poll()
    assert consumer.position(A0) == 9


def test_a_paused_partition_gives_nothing_until_it_is_resumed(broker: Broker) -> None:
    topic = filled(broker, 4, 4)
    consumer = Consumer(broker, "a")
    consumer.poll(max_records=1)
    position = consumer.position(A0)
    consumer.pause(("a", 0))
    assert set(consumer.paused()) == {A0}
    topic[0].append(b"v")
    assert {record.partition for record in consumer.drain()} == {1}
    assert len(consumer.poll()) == 0
    assert consumer.position(A0) == position
    consumer.resume(A0)
    assert not consumer.paused()
    assert polled(consumer) == list(range(position, 5))


def test_a_paused_partition_can_be_sought(broker: Broker) -> None:
    filled(broker, 5)
    consumer = Consumer(broker, "a")
    consumer.pause(A0)
    consumer.seek(A0, 3)
    assert polled(consumer) == []
    consumer.resume(A0)
    assert polled(consumer) == [3, 4]


def test_all_partitions_paused_is_an_empty_poll_and_drain(broker: Broker) -> None:
    filled(broker, 5, 5)
    consumer = Consumer(broker, "a")
    consumer.pause(A0, A1)
    assert set(consumer.paused()) == {A0, A1}
    assert (len(consumer.poll()), list(consumer.drain())) == (0, [])
    consumer.resume(A0, A1)
    assert len(consumer.poll()) == 10


def test_lag_is_what_is_still_to_be_read(broker: Broker) -> None:
    topic = filled(broker, 9, 4)
    consumer = Consumer(broker, "a")
    assert consumer.lag() == {A0: 9, A1: 4}
    read = len(consumer.poll(max_records=5))
    assert sum(consumer.lag().values()) == 13 - read
    list(consumer.drain())
    assert (consumer.lag(A0), consumer.lag(("a", 1))) == (0, 0)
    topic[1].append_many([b"v"] * 3)
    assert consumer.lag() == {A0: 0, A1: 3}
    consumer.pause(A1)
    assert consumer.lag(A1) == 3
    consumer.seek(A1, 2)
    assert consumer.lag(A1) == 5
    assert all(type(partition) is TopicPartition for partition in consumer.lag())
