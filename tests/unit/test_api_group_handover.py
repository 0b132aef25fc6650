"""Partitions that change hands at odd moments: between polls, while their owner is out, while a
callback runs. What found these were schedules of whole groups.

Knows only the public face.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from members import GROUP, Diary, filled, partitions

from minilog import Broker, Consumer
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
