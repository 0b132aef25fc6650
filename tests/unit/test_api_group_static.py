"""Members with names of their own, and members that fall silent, as the contract of groups says.

Knows only the public face. Only a clock that is turned by hand says how long anything lasts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from members import GROUP, assert_shared, filled, offsets, owners, partitions, read_all, settle
from running import Running

from minilog import Broker, Consumer, TopicPartition, UnknownMemberError
from minilog.testing import ManualClock

A0 = TopicPartition("a", 0)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1000)


@pytest.fixture(params=["memory", "disk"])
def broker(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> Iterator[Broker]:
    path = ":memory:" if request.param == "memory" else tmp_path / "log"
    with Broker(path, clock=clock, segment_bytes=4096) as opened:
        yield opened


def named(broker: Broker, name: str, **settings: Any) -> Consumer:
    settings = {"max_poll_interval_ms": 1000, **settings}
    return Consumer(broker, "a", group=GROUP, member_id=name, **settings)


def plain(broker: Broker, **settings: Any) -> Consumer:
    return Consumer(broker, "a", group=GROUP, **settings)


def assignment_of(broker: Broker, name: str) -> set[TopicPartition]:
    return set(broker.groups[GROUP].members[name])


# -- members with names -------------------------------------------------------------------------


def test_a_member_is_known_by_the_name_it_was_given(broker: Broker) -> None:
    filled(broker, "a", 0, 0)
    consumers = [named(broker, "worker-1"), named(broker, "worker-2")]
    assert set(broker.groups[GROUP].members) == {"worker-1", "worker-2"}
    settle(*consumers)
    assert assignment_of(broker, "worker-1") == set(consumers[0].assignment())
    assert assignment_of(broker, "worker-2") == set(consumers[1].assignment())
    assert_shared(broker, *consumers)


def test_members_without_a_name_get_different_ones(broker: Broker) -> None:
    filled(broker, "a", 0)
    consumers = [plain(broker) for _ in range(10)]
    assert len(set(broker.groups[GROUP].members)) == len(consumers)


def test_a_named_member_keeps_its_partitions_over_a_restart(
    broker: Broker, clock: ManualClock
) -> None:
    topic = filled(broker, "a", *[0] * 6)
    first, second, other = named(broker, "one"), named(broker, "two"), plain(broker)
    settle(first, second, other)
    had = assignment_of(broker, "one")
    others = (set(second.assignment()), set(other.assignment()))
    assert len(had) == 2
    first.close()
    clock.advance(500)
    settle(second, other)
    assert (set(second.assignment()), set(other.assignment())) == others, "given away too soon"
    for partition in topic:
        partition.append(b"v")
    again = named(broker, "one")
    seen = read_all(again)
    assert sorted(seen) == [(tp.topic, tp.partition, 0) for tp in sorted(had)]
    assert set(again.assignment()) == had
    assert sorted(read_all(second, other, again) + seen) == [("a", p, 0) for p in range(6)]
    assert_shared(broker, second, other, again)


def test_a_named_member_that_does_not_come_back_in_time_loses_its_partitions(
    broker: Broker, clock: ManualClock
) -> None:
    filled(broker, "a", 0, 0, 0, 0)
    first, other = named(broker, "one"), plain(broker)
    settle(first, other)
    first.close()
    clock.advance(1001)
    settle(other)
    assert_shared(broker, other)
    assert set(owners(broker)) == partitions("a", 0, 1, 2, 3)
    again = named(broker, "one")
    settle(again, other)
    assert_shared(broker, again, other)


def test_a_restarted_member_resumes_at_what_it_committed(broker: Broker) -> None:
    filled(broker, "a", 10)
    with named(broker, "one") as first:
        first.poll(max_records=4)
    assert offsets(named(broker, "one").poll()) == [4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize(
    "use",
    [
        lambda consumer: consumer.poll(),
        lambda consumer: consumer.commit(),
        lambda consumer: consumer.commit({A0: 2}),
        lambda consumer: next(iter(consumer)),
    ],
    ids=["poll", "commit", "commit mapping", "iterate"],
)
def test_another_consumer_of_the_same_name_fences_the_older(
    broker: Broker, use: Callable[[Consumer], Any]
) -> None:
    filled(broker, "a", 10)
    older = named(broker, "one")
    assert len(older.poll(max_records=3)) == 3
    newer = named(broker, "one")
    assert list(broker.groups[GROUP].members) == ["one"]
    for _ in range(2):
        with pytest.raises(UnknownMemberError):
            use(older)
    assert newer.committed(A0) is None, "the older's commit counted"
    assert offsets(newer.poll()) == list(range(10))
    newer.commit()
    assert newer.committed(A0) == 10


def test_a_fenced_member_takes_nothing_with_it_when_it_closes(broker: Broker) -> None:
    filled(broker, "a", 10)
    older = named(broker, "one")
    older.poll(max_records=3)
    newer = named(broker, "one")
    assert offsets(newer.poll(max_records=5)) == [0, 1, 2, 3, 4]
    older.close()
    assert newer.committed(A0) is None, "the close of a fenced member committed"
    assert list(broker.groups[GROUP].members) == ["one"]
    assert offsets(newer.poll()) == [5, 6, 7, 8, 9]
    assert newer.committed(A0) == 5


def test_a_fenced_member_that_waits_is_told(broker: Broker) -> None:
    filled(broker, "a", 0)
    older = named(broker, "one")
    waiting = Running(lambda: older.poll(None))
    assert waiting.waits()
    newer = named(broker, "one")
    with pytest.raises(UnknownMemberError):
        waiting.result()
    settle(newer)
    assert_shared(broker, newer)


def test_a_name_is_a_name_within_its_group(broker: Broker) -> None:
    filled(broker, "a", 5)
    here = named(broker, "one")
    there = Consumer(broker, "a", group="another", member_id="one")
    assert len(here.poll()) == len(there.poll()) == 5
    assert not here.poll()
    assert not there.poll()


# -- members that fall silent -------------------------------------------------------------------


def test_a_member_that_polls_within_the_interval_stays(broker: Broker, clock: ManualClock) -> None:
    filled(broker, "a", 0, 0)
    first, second = plain(broker, max_poll_interval_ms=1000), plain(broker)
    settle(first, second)
    had = set(first.assignment())
    for _ in range(20):
        clock.advance(999)
        assert not first.poll(0)
    settle(second)
    assert set(first.assignment()) == had
    assert_shared(broker, first, second)


def test_a_member_that_waits_in_poll_is_polling(broker: Broker, clock: ManualClock) -> None:
    topic = filled(broker, "a", 0)
    first = plain(broker, max_poll_interval_ms=1000)
    waiting = Running(lambda: first.poll(None))
    assert waiting.waits()
    second = plain(broker)
    for _ in range(5):
        clock.advance(900)
        settle(second)
    clock.advance(5000)
    settle(second)
    assert not second.assignment()
    topic[0].append(b"v")
    assert offsets(waiting.result()) == [0]
    first.commit()
    assert first.committed(A0) == 1


def test_the_interval_counts_from_the_end_of_a_wait(broker: Broker, clock: ManualClock) -> None:
    topic = filled(broker, "a", 0)
    first = plain(broker, max_poll_interval_ms=1000, auto_commit=False)
    waiting = Running(lambda: first.poll(None))
    assert waiting.waits()
    clock.advance(50_000)
    topic[0].append(b"v")
    assert offsets(waiting.result()) == [0]
    second = plain(broker)
    clock.advance(999)
    assert not second.poll(0)
    assert not second.poll(0)
    first.commit()
    assert first.committed(A0) == 1


def test_asking_for_the_next_record_of_an_iteration_is_polling(
    broker: Broker, clock: ManualClock
) -> None:
    filled(broker, "a", 20)
    first, second = plain(broker, max_poll_interval_ms=1000), plain(broker)
    seen = []
    for record in first.drain():  # twenty records, fetched at once, each nearly the interval
        seen.append(record.offset)
        clock.advance(900)
        assert not second.poll(0)
    assert seen == list(range(20))
    assert not second.assignment()


def test_a_member_that_was_lost_has_its_iteration_go_on_from_what_is_committed(
    broker: Broker, clock: ManualClock
) -> None:
    filled(broker, "a", 10)
    slow = plain(broker, max_poll_interval_ms=1000)
    quick = plain(broker)
    settle(quick)
    iteration = slow.drain()
    assert [next(iteration).offset for _ in range(3)] == [0, 1, 2]
    clock.advance(1001)
    assert offsets(quick.poll(max_records=6)) == [0, 1, 2, 3, 4, 5]
    assert next(iteration, None) is None, "records of a partition that has moved on"
    quick.close()
    assert read_all(slow) == [("a", 0, offset) for offset in range(6, 10)]


def test_other_members_take_over_from_several_that_fell_silent(
    broker: Broker, clock: ManualClock
) -> None:
    topic = filled(broker, "a", *[0] * 10)
    silent = [plain(broker, max_poll_interval_ms=1000) for _ in range(4)]
    alive = plain(broker)
    settle(*silent, alive)
    clock.advance(1001)
    for partition in topic:
        partition.append(b"v")
    assert sorted(read_all(alive)) == [("a", number, 0) for number in range(10)]
    assert len(broker.groups[GROUP].members) == 1
    settle(*silent, alive)
    assert_shared(broker, *silent, alive)


def test_a_waiting_member_takes_over_when_the_clock_says_so(
    broker: Broker, clock: ManualClock
) -> None:
    topic = filled(broker, "a", 0, 0)
    silent, alive = plain(broker, max_poll_interval_ms=1000), plain(broker)
    settle(silent, alive)
    (moved,) = silent.assignment()
    topic[moved.partition].append(b"v")
    waiting = Running(lambda: alive.poll(None))
    assert waiting.waits()
    clock.advance(1001)
    assert offsets(waiting.result(), moved.partition) == [0]
