"""Auto-commit, as its contract says: it never covers a record that may not have been processed.

Knows only the public face.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from members import GROUP, filled, offsets, places
from running import Running, eventually

from minilog import Broker, CommitError, Consumer, TopicPartition
from minilog.testing import ManualClock

A0 = TopicPartition("a", 0)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1000)


@pytest.fixture(params=["memory", "disk"])
def broker(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> Iterator[Broker]:
    path = ":memory:" if request.param == "memory" else tmp_path / "log"
    with Broker(path, clock=clock, segment_bytes=4096) as opened:
        filled(opened, "a", 10)
        yield opened


def member(broker: Broker, **settings: Any) -> Consumer:
    return Consumer(broker, "a", group=GROUP, **settings)


def committed(broker: Broker) -> int | None:
    return Consumer(broker, group=GROUP).committed(A0)


def rest(broker: Broker) -> list[int]:
    """The offsets that the next member is given."""
    with member(broker, auto_commit=False) as consumer:
        return offsets(consumer.poll())


# -- poll ---------------------------------------------------------------------------------------


def test_a_poll_commits_what_earlier_polls_returned_and_not_what_it_returns(
    broker: Broker,
) -> None:
    consumer = member(broker, max_poll_records=3)
    for first in (0, 3, 6):
        assert offsets(consumer.poll()) == list(range(first, first + 3))
        assert (committed(broker) or 0) == first
    assert consumer.position(A0) == 9


def test_a_poll_that_returns_nothing_commits_too(broker: Broker) -> None:
    consumer = member(broker)
    assert len(consumer.poll()) == 10
    assert committed(broker) is None
    assert not consumer.poll()
    assert committed(broker) == 10


def test_a_poll_that_waits_has_committed_before_it_waits(broker: Broker) -> None:
    consumer = member(broker)
    consumer.poll()
    waiting = Running(lambda: consumer.poll(None))
    assert waiting.waits()
    assert committed(broker) == 10
    consumer.close()
    assert not waiting.result()


def test_close_commits_all_that_polls_returned(broker: Broker) -> None:
    consumer = member(broker)
    consumer.poll(max_records=3)
    consumer.poll(max_records=4)
    consumer.close()
    assert rest(broker) == [7, 8, 9]


def test_nothing_is_committed_that_was_not_polled(broker: Broker) -> None:
    member(broker).close()
    assert committed(broker) is None
    with member(broker) as consumer:
        consumer.position(A0) if consumer.assignment() else None
    assert committed(broker) is None
    assert rest(broker) == list(range(10))


def test_without_auto_commit_nothing_commits_but_commit(broker: Broker) -> None:
    with member(broker, auto_commit=False) as consumer:
        for _ in range(4):
            consumer.poll(max_records=3)
        for _ in consumer.drain():
            pass
    assert committed(broker) is None
    assert rest(broker) == list(range(10))


def test_an_exception_out_of_the_with_block_commits_nothing_more(broker: Broker) -> None:
    def fail(before: int, error: type[BaseException]) -> None:
        with member(broker) as consumer:
            assert offsets(consumer.poll(max_records=3)) == [before, before + 1, before + 2]
            consumer.poll(max_records=2)
            raise error

    for before, error in ((0, ZeroDivisionError), (3, KeyboardInterrupt)):
        with pytest.raises(error):
            fail(before, error)
        assert committed(broker) == before + 3
    assert rest(broker) == [6, 7, 8, 9]
    assert not broker.groups[GROUP].members, "it has left all the same"


def test_what_was_sought_back_to_is_not_committed_over(broker: Broker) -> None:
    with member(broker) as consumer:
        consumer.poll(max_records=5)
        consumer.seek(A0, 2)
    assert (committed(broker) or 0) <= 2
    assert rest(broker)[-8:] == [2, 3, 4, 5, 6, 7, 8, 9]


def test_what_was_sought_back_to_is_not_committed_over_by_polls_that_leave_it_paused(
    broker: Broker,
) -> None:
    """A retry seeks back, pauses the partition and polls on to stay a member."""
    consumer = member(broker)
    consumer.poll(max_records=5)
    consumer.seek(A0, 2)
    consumer.pause(A0)
    for _ in range(3):
        assert not consumer.poll()
        assert (committed(broker) or 0) <= 2
    consumer.resume(A0)
    assert offsets(consumer.poll()) == [2, 3, 4, 5, 6, 7, 8, 9]


def test_a_record_that_cannot_be_deserialized_is_not_committed(broker: Broker) -> None:
    broker.topic("a")[0].append(b"bad")

    def deserializer(value: bytes) -> bytes:
        if value == b"bad":
            raise ValueError("bad")
        return value

    consumer = member(broker, value_deserializer=deserializer)
    assert offsets(consumer.poll()) == list(range(10))
    for _ in range(3):
        with pytest.raises(ValueError, match="bad"):
            consumer.poll()
        assert committed(broker) == 10
    with contextlib.suppress(ValueError):
        consumer.close()
    assert rest(broker) == [10]


@pytest.mark.parametrize("ending", ["poll", "close", "unsubscribe"])
def test_a_member_that_lost_its_partition_commits_nothing_by_itself(
    broker: Broker, clock: ManualClock, ending: str
) -> None:
    slow = member(broker, max_poll_interval_ms=1000)
    assert offsets(slow.poll(max_records=5)) == [0, 1, 2, 3, 4]
    clock.advance(1001)
    quick = member(broker, auto_commit=False)
    assert [offset for _ in range(2) for offset in offsets(quick.poll())] == list(range(10))
    with contextlib.suppress(CommitError):
        getattr(slow, ending)()
    assert committed(broker) is None


# -- iteration ----------------------------------------------------------------------------------


def test_a_record_is_done_when_the_next_one_is_asked_for(broker: Broker) -> None:
    consumer = member(broker)
    iteration = iter(consumer)
    for offset in range(4):
        assert next(iteration).offset == offset
        assert (committed(broker) or 0) <= offset
    consumer.close()
    assert committed(broker) == 3
    assert rest(broker)[0] == 3


@pytest.mark.parametrize("loop", [iter, lambda consumer: consumer.drain()])
def test_a_loop_left_by_break_has_not_finished_the_record_it_was_left_at(
    broker: Broker, loop: Callable[[Consumer], Iterator[Any]]
) -> None:
    with member(broker) as consumer:
        for record in loop(consumer):
            if record.offset == 6:
                break
        assert consumer.position(A0) == 7
    assert committed(broker) == 6


@pytest.mark.parametrize("loop", [iter, lambda consumer: consumer.drain()])
def test_a_loop_left_by_an_exception_is_given_the_record_again(
    broker: Broker, loop: Callable[[Consumer], Iterator[Any]]
) -> None:
    def fail() -> None:
        with member(broker) as consumer:
            for record in loop(consumer):
                if record.offset == 6:
                    raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert (committed(broker) or 0) <= 6
    assert rest(broker)[-4:] == [6, 7, 8, 9]


def test_a_loop_that_caught_the_exception_and_closed_is_given_the_record_again(
    broker: Broker,
) -> None:
    consumer = member(broker)
    with contextlib.suppress(ZeroDivisionError):
        for record in consumer:
            if record.offset == 6:
                raise ZeroDivisionError
    consumer.close()
    assert committed(broker) == 6


@pytest.mark.parametrize("loop", [iter, lambda consumer: consumer.drain()])
def test_a_poll_after_a_loop_that_was_left_asks_for_the_next_record(
    broker: Broker, loop: Callable[[Consumer], Iterator[Any]]
) -> None:
    consumer = member(broker)
    for record in loop(consumer):
        if record.offset == 3:
            break
    assert offsets(consumer.poll(max_records=2)) == [4, 5]
    assert committed(broker) == 4
    consumer.close()
    assert committed(broker) == 6


def test_a_drain_to_its_end_has_finished_everything(broker: Broker) -> None:
    with member(broker) as consumer:
        assert [record.offset for record in consumer.drain()] == list(range(10))
    assert committed(broker) == 10


def test_iteration_that_waits_for_more_has_committed_what_it_gave(broker: Broker) -> None:
    consumer = member(broker)
    reading = Running(lambda: places(consumer))
    assert reading.waits()
    assert committed(broker) == 10
    broker.topic("a")[0].append(b"v")
    assert eventually(lambda: committed(broker) == 11)
    consumer.close()
    assert reading.result() == [("a", 0, offset) for offset in range(11)]
    assert committed(broker) == 11


def test_iteration_commits_as_it_goes(broker: Broker) -> None:
    broker.topic("a")[0].append_many([b"v"] * 5000)
    consumer = member(broker, max_poll_records=100)
    for record in consumer:
        assert (committed(broker) or 0) <= record.offset
        if record.offset == 4000:
            break
    assert (committed(broker) or 0) >= 3800


def test_async_iteration_commits_by_the_same_rules(broker: Broker) -> None:
    async def main() -> None:
        with member(broker) as consumer:
            async for record in consumer:
                assert (committed(broker) or 0) <= record.offset
                if record.offset == 6:
                    break

    Running(lambda: asyncio.run(main())).result()
    assert committed(broker) == 6

    async def fail() -> None:
        with member(broker) as consumer:
            async for record in consumer:
                if record.offset == 8:
                    raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Running(lambda: asyncio.run(fail())).result()
    assert (committed(broker) or 0) <= 8
    assert rest(broker)[-2:] == [8, 9]


# -- beside commit by hand ----------------------------------------------------------------------


def test_a_commit_by_hand_beside_auto_commit_stands_until_the_next_poll(broker: Broker) -> None:
    consumer = member(broker)
    records = consumer.poll(max_records=4)
    consumer.commit(records[1])
    assert committed(broker) == 2
    consumer.poll(max_records=1)
    assert committed(broker) == 4


def test_a_member_that_joins_begins_behind_what_was_processed_before_it(broker: Broker) -> None:
    broker.topic("a").add_partitions(2)
    broker.topic("a")[1].append_many([b"v"] * 10)
    first = member(broker)
    processed = places(first.poll(max_records=8))
    second = member(broker)
    processed += places(first.poll()) + places(second.poll())
    for _ in range(3):
        processed += places(second.poll()) + places(first.poll())
    assert sorted(processed) == [("a", p, n) for p in range(2) for n in range(10)]
