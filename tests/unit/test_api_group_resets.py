"""Where a group begins without a committed offset, or with one that is out of range, as its
contract says of ``auto_offset_reset``.

Knows only the public face.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from members import GROUP, filled, offsets, places, read_all, settle

from minilog import Broker, Consumer, NoOffsetError, OffsetOutOfRangeError, Topic, TopicPartition
from minilog.testing import ManualClock

A0 = TopicPartition("a", 0)


@pytest.fixture(params=["memory", "disk"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    path = ":memory:" if request.param == "memory" else tmp_path / "log"
    with Broker(path, clock=ManualClock(1000), segment_bytes=4096) as opened:
        yield opened


def member(broker: Broker, reset: str, *topics: Any, **settings: Any) -> Consumer:
    return Consumer(broker, *(topics or ("a",)), group=GROUP, auto_offset_reset=reset, **settings)


def append(topic: Topic, count: int) -> None:
    for partition in topic:
        partition.append_many([b"v"] * count)


# -- earliest -----------------------------------------------------------------------------------


def test_earliest_begins_at_what_is_kept(broker: Broker) -> None:
    topic = filled(broker, "a", 10)
    topic[0].delete_before(4)
    assert offsets(member(broker, "earliest").poll()) == [4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize("reset", ["earliest", "latest", "none"])
def test_a_committed_offset_goes_before_any_reset(broker: Broker, reset: str) -> None:
    filled(broker, "a", 10)
    with member(broker, "earliest") as consumer:
        consumer.poll(max_records=4)
    assert offsets(member(broker, reset).poll()) == [4, 5, 6, 7, 8, 9]


# -- latest -------------------------------------------------------------------------------------


def test_latest_begins_at_the_end_as_it_was_when_the_member_joined(broker: Broker) -> None:
    topic = filled(broker, "a", 10, 4)
    consumer = member(broker, "latest")
    append(topic, 2)
    assert sorted(read_all(consumer)) == [("a", 0, 10), ("a", 0, 11), ("a", 1, 4), ("a", 1, 5)]


def test_latest_loses_nothing_between_empty_polls(broker: Broker) -> None:
    topic = filled(broker, "a", 10)
    consumer = member(broker, "latest")
    for number in range(5):
        assert not consumer.poll()
        topic[0].append(b"v")
        assert offsets(consumer.poll()) == [10 + number]


def test_latest_stays_where_it_was_pinned_when_a_partition_moves(broker: Broker) -> None:
    topic = filled(broker, "a", 10, 10, 10)
    first = member(broker, "latest", auto_commit=False)
    settle(first)
    append(topic, 2)
    second = member(broker, "latest", auto_commit=False)
    third = member(broker, "latest", auto_commit=False)
    first.pause()
    settle(first)
    seen = read_all(second, third)
    first.resume()
    seen += read_all(first)
    assert sorted(seen) == [("a", p, n) for p in range(3) for n in (10, 11)]


def test_latest_stays_where_it_was_pinned_when_the_member_goes(broker: Broker) -> None:
    topic = filled(broker, "a", 10)
    with member(broker, "latest") as first:
        assert not first.poll()
    append(topic, 3)
    with member(broker, "latest") as second:
        assert offsets(second.poll(max_records=1)) == [10]
    assert offsets(member(broker, "latest").poll()) == [11, 12]


def test_latest_stays_where_it_was_pinned_over_a_reopening(tmp_path: Path) -> None:
    with Broker(tmp_path / "log") as broker:
        topic = filled(broker, "a", 10)
        with member(broker, "latest") as first:
            assert not first.poll()
        append(topic, 3)
    with Broker(tmp_path / "log") as broker:
        append(broker.topic("a"), 1)
        assert offsets(member(broker, "latest").poll()) == [10, 11, 12, 13]


def test_latest_reads_partitions_made_later_from_their_start(broker: Broker) -> None:
    topic = filled(broker, "a", 10)
    consumers = [member(broker, "latest") for _ in range(2)]
    settle(*consumers)
    topic.add_partitions(3)
    append(topic, 2)
    assert sorted(read_all(*consumers)) == [
        ("a", 0, 10),
        ("a", 0, 11),
        *[("a", p, n) for p in (1, 2) for n in (0, 1)],
    ]


def test_latest_reads_partitions_made_while_nobody_polled_from_their_start(
    broker: Broker,
) -> None:
    topic = filled(broker, "a", 10)
    consumer = member(broker, "latest")
    topic.add_partitions(2)
    append(topic, 1)
    assert sorted(read_all(consumer)) == [("a", 0, 10), ("a", 1, 0)]


def test_latest_reads_partitions_made_while_there_were_no_members_from_their_start(
    broker: Broker,
) -> None:
    topic = filled(broker, "a", 10)
    with member(broker, "latest") as consumer:
        assert not consumer.poll()
    topic.add_partitions(2)
    append(topic, 2)
    assert sorted(read_all(member(broker, "latest"))) == [
        ("a", 0, 10),
        ("a", 0, 11),
        ("a", 1, 0),
        ("a", 1, 1),
    ]


def test_latest_reads_topics_made_later_from_their_start(broker: Broker) -> None:
    filled(broker, "x-1", 5)
    consumer = member(broker, "latest", re.compile("^x-"))
    filled(broker, "x-2", 2)
    assert read_all(consumer) == [("x-2", 0, 0), ("x-2", 0, 1)]
    broker.delete_topic("x-2")
    filled(broker, "x-2", 3)
    assert read_all(consumer) == [("x-2", 0, 0), ("x-2", 0, 1), ("x-2", 0, 2)]


def test_latest_is_of_each_group(broker: Broker) -> None:
    topic = filled(broker, "a", 5)
    early = member(broker, "latest")
    append(topic, 2)
    late = Consumer(broker, "a", group="late", auto_offset_reset="latest")
    append(topic, 1)
    assert offsets(early.poll()) == [5, 6, 7]
    assert offsets(late.poll()) == [7]


# -- none ---------------------------------------------------------------------------------------


def test_none_without_a_committed_offset_is_a_no_offset_error_of_poll(broker: Broker) -> None:
    filled(broker, "a", 10)
    consumer = member(broker, "none")
    for _ in range(2):
        with pytest.raises(NoOffsetError, match="a-0"):
            consumer.poll()
    consumer.seek(A0, 7)
    assert offsets(consumer.poll()) == [7, 8, 9]
    consumer.commit()
    consumer.close()
    assert broker.groups[GROUP].committed() == {A0: 10}


def test_none_with_a_committed_offset_below_the_start_is_out_of_range(broker: Broker) -> None:
    topic = filled(broker, "a", 10)
    with member(broker, "earliest") as consumer:
        consumer.poll(max_records=3)
    topic[0].delete_before(6)
    consumer = member(broker, "none")
    for _ in range(2):
        with pytest.raises(OffsetOutOfRangeError) as caught:
            consumer.poll()
        assert (caught.value.requested, caught.value.start_offset) == (3, 6)
        assert (caught.value.end_offset, caught.value.topic) == (10, "a")
    assert consumer.committed(A0) == 3, "moved without being asked"
    consumer.seek_to_beginning(A0)
    assert offsets(consumer.poll()) == [6, 7, 8, 9]


def test_an_error_of_one_partition_holds_up_no_records_of_the_others(broker: Broker) -> None:
    filled(broker, "a", 3, 3)
    with member(broker, "earliest", auto_commit=False) as consumer:
        consumer.poll()
        consumer.commit({("a", 1): 1})
    consumer = member(broker, "none")
    seen, errors = [], 0
    for _ in range(6):
        try:
            seen += places(consumer.poll())
        except NoOffsetError:
            errors += 1
    assert seen == [("a", 1, 1), ("a", 1, 2)]
    assert errors >= 4


# -- out of range -------------------------------------------------------------------------------


@pytest.mark.parametrize(("reset", "expected"), [("earliest", [6, 7, 8, 9, 10]), ("latest", [10])])
def test_a_committed_offset_below_the_start_is_reset_by_the_policy_at_poll(
    broker: Broker, reset: str, expected: list[int]
) -> None:
    topic = filled(broker, "a", 10)
    with member(broker, "earliest") as consumer:
        consumer.poll(max_records=3)
    topic[0].delete_before(6)
    consumer = member(broker, reset)
    assert consumer.committed(A0) == 3
    seen = offsets(consumer.poll())
    topic[0].append(b"v")
    assert seen + offsets(consumer.poll()) == expected


@pytest.mark.parametrize(("reset", "expected"), [("earliest", [0, 1, 2, 3]), ("latest", [3])])
def test_a_seek_out_of_range_is_reset_by_the_policy_at_poll(
    broker: Broker, reset: str, expected: list[int]
) -> None:
    topic = filled(broker, "a", 3)
    consumer = member(broker, reset)
    settle(consumer) if reset == "latest" else consumer.poll()
    consumer.seek(A0, 100)
    seen = offsets(consumer.poll())
    topic[0].append(b"v")
    assert seen + offsets(consumer.poll()) == expected


def test_seek_says_what_is_wrong_only_with_what_can_never_be(broker: Broker) -> None:
    topic = filled(broker, "a", 3)
    consumer = member(broker, "none")
    with pytest.raises(NoOffsetError):
        consumer.poll()
    with pytest.raises(ValueError, match="-1"):
        consumer.seek(A0, -1)
    consumer.seek(A0, 4)
    with pytest.raises(OffsetOutOfRangeError):
        consumer.poll()
    consumer.seek(A0, 3)
    assert not consumer.poll()
    topic[0].append(b"v")
    assert offsets(consumer.poll()) == [3]


def test_a_partition_that_loses_its_start_under_a_member_goes_on_by_the_policy(
    broker: Broker,
) -> None:
    topic = filled(broker, "a", 10)
    consumer = member(broker, "earliest")
    assert offsets(consumer.poll(max_records=2)) == [0, 1]
    topic[0].delete_before(7)
    assert offsets(consumer.poll()) == [7, 8, 9]
    consumer.close()
    assert broker.groups[GROUP].committed() == {A0: 10}


def test_reading_is_not_reset_where_records_are_missing_within_the_range(broker: Broker) -> None:
    topic = filled(broker, "a", 10)
    with member(broker, "none", auto_commit=False) as consumer:
        with pytest.raises(NoOffsetError):
            consumer.poll()
        consumer.commit({A0: 10})
    topic[0].delete_before(10)
    consumer = member(broker, "none")
    assert not consumer.poll()
    topic[0].append(b"v")
    assert offsets(consumer.poll()) == [10]
