"""Partitions that change hands at odd moments: between polls, while their owner is out, while a
callback runs. What found these were schedules of whole groups.

Knows only the public face.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest
from members import GROUP, Diary, filled, partitions

from minilog import Broker, Consumer, TopicPartition, UnknownMemberError
from minilog.testing import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1000)


@pytest.fixture
def broker(clock: ManualClock) -> Iterator[Broker]:
    with Broker(":memory:", clock=clock) as opened:
        yield opened


@pytest.fixture
def diary() -> Diary:
    return Diary()


def member(broker: Broker, *topics: str, **settings: Any) -> Consumer:
    return Consumer(broker, *topics, group=GROUP, **settings)


def offsets_of(consumer: Consumer) -> list[tuple[int, int]]:
    return sorted((record.partition, record.offset) for record in consumer.poll())


def test_what_another_read_between_two_polls_is_not_delivered_again(broker: Broker) -> None:
    """The first had taken the partition in between polls, and kept its place at the start when
    the partition came back from one that had read it to the end and committed that."""
    filled(broker, "a", 3, 3)
    first = member(broker, "a")
    assert first.assignment() == set(partitions("a", 0, 1))
    second = member(broker, "a")
    taken = {partition for partition, _ in offsets_of(second)}
    assert len(taken) == 1
    second.close()
    kept = {0, 1} - taken
    assert {partition for partition, _ in offsets_of(first)} == kept
    assert offsets_of(first) == []


def test_a_member_that_subscribes_anew_while_it_is_out_learns_that_it_lost(
    broker: Broker, clock: ManualClock, diary: Diary
) -> None:
    """Subscribing took it in again, and nobody ever told it what it had lost."""
    filled(broker, "a", 3)
    first = diary.subscribe(member(broker, max_poll_interval_ms=100), "first", ["a"])
    assert len(first.poll()) == 3
    clock.advance(200)
    second = member(broker, "a")
    assert len(second.poll()) == 3
    diary.subscribe(first, "first", ["a"])
    assert diary.told("first", "lost") == set()
    first.poll()
    assert diary.told("first", "lost") == partitions("a", 0)
    assert diary.told("first", "revoked") == set()
    assert second.assignment() == set(partitions("a", 0))


def test_a_member_that_subscribes_anew_while_it_is_out_and_closes_learns_that_it_lost(
    broker: Broker, clock: ManualClock, diary: Diary
) -> None:
    filled(broker, "a", 3)
    first = diary.subscribe(member(broker, max_poll_interval_ms=100), "first", ["a"])
    assert len(first.poll()) == 3
    clock.advance(200)
    member(broker, "a").close()
    diary.subscribe(first, "first", ["a"])
    first.close()
    assert diary.told("first", "lost") == partitions("a", 0)
    assert broker.groups.get(GROUP) is None


def test_a_member_whose_name_was_taken_does_not_take_it_back_by_subscribing(
    broker: Broker,
) -> None:
    """It fenced the one that had fenced it, and was still refused itself: nobody read."""
    filled(broker, "a", 3)
    first = member(broker, "a", member_id="worker")
    first.poll()
    second = member(broker, "a", member_id="worker")
    with pytest.raises(UnknownMemberError):
        first.subscribe(["a"])
    assert len(second.poll()) == 3
    assert dict(broker.groups[GROUP].members) == {"worker": frozenset(partitions("a", 0))}


def test_a_partition_given_up_for_one_that_has_gone_meanwhile_goes_to_somebody_else(
    broker: Broker,
) -> None:
    """It was handed to the one that had gone, and from then on every call of the group failed."""
    filled(broker, "a", 3, 3)
    others: list[Consumer] = []

    def give_up(tps: list[TopicPartition]) -> None:
        others.clear()  # its consumer is no more
        gc.collect()
        first.commit()  # by which the group learns it

    first = member(broker)
    first.subscribe(["a"], on_revoked=give_up)
    assert len(first.poll()) == 6
    others.append(member(broker, "a"))
    first.poll()
    assert others == []
    first.poll()
    assert first.assignment() == set(partitions("a", 0, 1))
    assert len(broker.groups[GROUP].members) == 1
