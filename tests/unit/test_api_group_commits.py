"""Commits of a group, as their contract says: their forms, what they move, and whose are refused.

Knows only the public face. Here nothing is committed but by a call of ``commit``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from members import GROUP, assert_shared, filled, offsets, places, read_all
from running import Running

from minilog import (
    Broker,
    CommitError,
    Consumer,
    RebalanceError,
    TopicPartition,
)
from minilog.testing import ManualClock

A0, A1 = TopicPartition("a", 0), TopicPartition("a", 1)
REFUSED = (CommitError, RebalanceError)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1000)


@pytest.fixture(params=["memory", "disk"])
def broker(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> Iterator[Broker]:
    path = ":memory:" if request.param == "memory" else tmp_path / "log"
    with Broker(path, clock=clock, segment_bytes=4096) as opened:
        yield opened


def member(broker: Broker, *topics: str, **settings: Any) -> Consumer:
    return Consumer(broker, *(topics or ("a",)), group=GROUP, auto_commit=False, **settings)


def committed(broker: Broker) -> dict[TopicPartition, int]:
    return dict(broker.groups[GROUP].committed())


# -- forms --------------------------------------------------------------------------------------


def test_commit_covers_everything_that_was_polled_and_no_more(broker: Broker) -> None:
    filled(broker, "a", 5, 9)
    consumer = member(broker)
    seen = [consumer.poll(max_records=3), consumer.poll(max_records=4)]
    consumer.commit()
    assert committed(broker) == {
        tp: max(offsets([*seen[0], *seen[1]], tp.partition)) + 1 for tp in (A0, A1)
    }
    consumer.poll(max_records=1)
    assert sum(committed(broker).values()) == 7, "a poll has moved what was committed"


def test_commit_by_mapping_moves_what_it_names(broker: Broker) -> None:
    filled(broker, "a", 5, 5)
    consumer = member(broker)
    consumer.poll()
    consumer.commit({A0: 2})
    assert committed(broker) == {A0: 2}
    consumer.commit({("a", 1): 5, ("a", 0): 3})
    assert committed(broker) == {A0: 3, A1: 5}
    consumer.commit({})
    assert committed(broker) == {A0: 3, A1: 5}


def test_commit_of_a_record_says_that_one_is_done(broker: Broker) -> None:
    filled(broker, "a", 5)
    consumer = member(broker)
    records = consumer.poll()
    consumer.commit(records[2])
    assert consumer.committed(A0) == consumer.committed(("a", 0)) == records[2].next_offset == 3
    consumer.close()
    assert offsets(member(broker).poll()) == [3, 4]


def test_commit_of_nothing_polled_commits_nothing(broker: Broker) -> None:
    filled(broker, "a", 5)
    consumer = member(broker)
    consumer.commit()
    assert consumer.committed(A0) is None
    consumer.close()
    assert offsets(member(broker).poll()) == [0, 1, 2, 3, 4]


def test_poll_and_seek_move_the_position_alone_and_commit_the_committed_alone(
    broker: Broker,
) -> None:
    filled(broker, "a", 9)
    consumer = member(broker)
    consumer.poll(max_records=4)
    assert (consumer.position(A0), consumer.committed(A0)) == (4, None)
    consumer.commit({A0: 2})
    assert (consumer.position(A0), consumer.committed(A0)) == (4, 2)
    consumer.seek(A0, 7)
    assert (consumer.position(A0), consumer.committed(A0)) == (7, 2)
    assert offsets(consumer.poll()) == [7, 8]
    assert (consumer.position(A0), consumer.committed(A0)) == (9, 2)
    assert (consumer.lag(A0), broker.groups[GROUP].lag()) == (0, {A0: 7})


def test_a_commit_may_go_back_and_may_run_ahead_of_what_was_polled(broker: Broker) -> None:
    filled(broker, "a", 9)
    consumer = member(broker)
    consumer.poll()
    for offset in (9, 3, 0, 6, 9):
        consumer.commit({A0: offset})
        assert consumer.committed(A0) == offset
    consumer.commit({A0: 4})
    consumer.close()
    ahead = member(broker)
    assert offsets(ahead.poll(max_records=1)) == [4]
    ahead.commit({A0: 8})
    ahead.close()
    assert offsets(member(broker).poll()) == [8]


def test_committed_can_be_asked_of_any_partition(broker: Broker) -> None:
    filled(broker, "a", 5, 5)
    first, second = member(broker), member(broker)
    settled = read_all(first, second)
    assert len(settled) == 10
    first.commit()
    second.commit()
    for consumer in (first, second):
        assert [consumer.committed(tp) for tp in (A0, A1)] == [5, 5]
    assert Consumer(broker, group=GROUP).committed(A1) == 5
    assert Consumer(broker, group="another").committed(A1) is None


def test_groups_do_not_see_each_other_s_commits(broker: Broker) -> None:
    filled(broker, "a", 5)
    consumer = member(broker)
    consumer.poll()
    consumer.commit()
    other = Consumer(broker, "a", group="other", auto_commit=False)
    assert len(other.poll()) == 5
    other.commit({A0: 1})
    assert committed(broker) == {A0: 5}
    assert broker.groups["other"].committed() == {A0: 1}


def test_a_commit_works_while_another_thread_waits_in_poll(broker: Broker) -> None:
    filled(broker, "a", 5)
    consumer = member(broker)
    consumer.poll()
    waiting = Running(lambda: consumer.poll(None))
    assert waiting.waits()
    Running(consumer.commit).result()
    assert committed(broker) == {A0: 5}
    consumer.close()
    assert not waiting.result()


def test_commits_of_many_partitions_and_groups_stay_apart(broker: Broker) -> None:
    topic = filled(broker, "a", *[3] * 20)
    wanted = {}
    for number in range(20):
        name = f"group {number}"
        with Consumer(broker, "a", group=name, auto_commit=False) as consumer:
            consumer.poll(0)
            wanted[name] = {(topic.name, p): (number * p) % 4 for p in range(20)}
            consumer.commit(wanted[name])
    assert {name: group.committed() for name, group in broker.groups.items()} == wanted


# -- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({A0: 6}, CommitError),
        ({A0: 2**63 - 1}, CommitError),
        ({A0: 2**70}, (CommitError, ValueError)),
        ({A1: 4, A0: 6}, CommitError),
        ({A0: 4, A1: 6}, CommitError),
        ({A0: -1}, ValueError),
        ({A1: 4, A0: -1}, ValueError),
        ({("a", 2): 0}, CommitError),
        ({A0: 4, ("a", 2): 0}, CommitError),
        ({("a", -1): 0}, CommitError),
        ({("nope", 0): 0}, CommitError),
        ({A0: None}, (TypeError, ValueError)),
        ({A0: 1.0}, (TypeError, ValueError)),
        ({A0: True}, (TypeError, ValueError)),
        ({A0: "1"}, (TypeError, ValueError)),
        ({"a": 1}, (TypeError, ValueError)),
        ({A1: 4, "a": 1}, (TypeError, ValueError)),
        ("a", (TypeError, ValueError)),
        (5, (TypeError, ValueError)),
        ([A0], (TypeError, ValueError)),
        (("a", 0), (TypeError, ValueError)),
        (A0, (TypeError, ValueError)),
    ],
    ids=repr,
)
def test_a_commit_that_cannot_be_changes_nothing(broker: Broker, given: Any, error: Any) -> None:
    filled(broker, "a", 5, 5)
    consumer = member(broker)
    consumer.poll()
    consumer.commit({A0: 3, A1: 3})
    with pytest.raises(error):
        consumer.commit(given)
    assert committed(broker) == {A0: 3, A1: 3}
    consumer.commit()
    assert committed(broker) == {A0: 5, A1: 5}


def test_a_commit_at_the_end_is_one_and_grows_with_the_log(broker: Broker) -> None:
    topic = filled(broker, "a", 5)
    consumer = member(broker)
    consumer.poll()
    consumer.commit({A0: 5})
    topic[0].append(b"v")
    consumer.commit({A0: 6})
    with pytest.raises(CommitError):
        consumer.commit({A0: 7})
    assert committed(broker) == {A0: 6}


# -- whose commits are refused ------------------------------------------------------------------


def two_members(broker: Broker) -> tuple[Consumer, Consumer, TopicPartition]:
    """Two members of two partitions; the first once had both, and the second now has the third."""
    filled(broker, "a", 5, 5)
    first = member(broker)
    assert len(first.poll()) == 10
    second = member(broker)
    first.poll(0)
    for _ in range(3):
        second.poll(0, max_records=1)
    assert_shared(broker, first, second)
    (moved,) = second.assignment()
    return first, second, moved


def test_a_commit_for_another_member_s_partition_is_refused_as_a_whole(broker: Broker) -> None:
    first, second, moved = two_members(broker)
    (kept,) = first.assignment()
    record = next(iter(broker.topic("a")[moved.partition]))
    for refused in ({moved: 5}, {kept: 5, moved: 5}, record):
        with pytest.raises(CommitError):
            first.commit(refused)
        with pytest.raises(CommitError):
            second.commit({kept: 1})
    assert committed(broker) == {}
    first.commit()
    assert committed(broker) == {kept: 5}, "commit() is of what is still owned"


@pytest.mark.parametrize("subscribes", [False, True])
def test_a_consumer_that_is_no_member_cannot_commit(broker: Broker, subscribes: bool) -> None:
    filled(broker, "a", 5)
    consumer = Consumer(broker, group=GROUP)
    if subscribes:
        consumer.subscribe(["a"])
        consumer.poll()
        consumer.unsubscribe()
    with pytest.raises(CommitError):
        consumer.commit({A0: 1})
    consumer.commit()
    assert Consumer(broker, group=GROUP).committed(A0) in (None, 5)


def test_a_member_that_still_owns_what_will_move_may_commit_it(broker: Broker) -> None:
    filled(broker, "a", 5, 5)
    first = member(broker)
    first.poll()
    second = member(broker)
    assert not second.poll(0)
    first.commit()
    assert committed(broker) == {A0: 5, A1: 5}
    assert read_all(first, second) == []


@pytest.mark.parametrize(
    "commit",
    [
        lambda consumer, record: consumer.commit(),
        lambda consumer, record: consumer.commit({A0: 3}),
        lambda consumer, record: consumer.commit(record),
    ],
    ids=["everything", "mapping", "record"],
)
@pytest.mark.parametrize("thread", ["same", "other"])
def test_a_member_that_was_too_slow_cannot_commit(
    broker: Broker, clock: ManualClock, commit: Callable[[Consumer, Any], None], thread: str
) -> None:
    filled(broker, "a", 5)
    slow = member(broker, max_poll_interval_ms=1000)
    record = slow.poll()[2]
    quick = member(broker)
    clock.advance(1001)
    assert len(read_all(quick)) == 5
    quick.commit({A0: 1})

    def refused() -> None:
        with pytest.raises(REFUSED):
            commit(slow, record)

    refused() if thread == "same" else Running(refused).result()
    assert committed(broker) == {A0: 1}
    quick.close()
    assert offsets(slow.poll()) in ([1, 2, 3, 4], [])
    assert committed(broker) == {A0: 1}


def test_a_slow_member_cannot_commit_though_nobody_else_took_over(
    broker: Broker, clock: ManualClock
) -> None:
    filled(broker, "a", 5)
    slow = member(broker, max_poll_interval_ms=1000)
    slow.poll()
    clock.advance(1001)
    with pytest.raises(CommitError):
        slow.commit({A0: 3})
    with pytest.raises(REFUSED):
        slow.commit()
    assert slow.committed(A0) is None
    assert offsets(read_again(slow)) == [0, 1, 2, 3, 4]
    slow.commit()
    assert committed(broker) == {A0: 5}


def read_again(consumer: Consumer) -> list[Any]:
    """What the next polls give; the first of them may only say what was lost."""
    return [record for _ in range(3) for record in consumer.poll(0)]


def test_a_partition_that_came_back_is_read_from_what_is_committed(broker: Broker) -> None:
    first, second, moved = two_members(broker)
    second.commit({moved: 2})
    second.close()
    assert read_all(first) == [(*moved, offset) for offset in (2, 3, 4)]
    first.commit()
    assert committed(broker)[moved] == 5


# -- partitions assigned by hand ----------------------------------------------------------------


@pytest.mark.parametrize("auto_commit", [False, True])
def test_a_consumer_with_a_group_may_be_assigned_partitions_by_hand(
    broker: Broker, auto_commit: bool
) -> None:
    filled(broker, "a", 5, 5)
    with Consumer(broker, group=GROUP, auto_commit=auto_commit) as consumer:
        consumer.assign([A0])
        assert GROUP not in broker.groups, "it is no member"
        assert offsets(consumer.poll(max_records=3)) == [0, 1, 2]
        with pytest.raises(CommitError):
            consumer.commit({A1: 1})
        if not auto_commit:
            consumer.commit()
    assert committed(broker) == {A0: 3}
    consumer = Consumer(broker, group=GROUP, auto_commit=False)
    consumer.assign([A0, A1])
    assert sorted(places(consumer.poll())) == [
        ("a", 0, 3),
        ("a", 0, 4),
        *[("a", 1, n) for n in range(5)],
    ]


def test_a_commit_beside_the_members_of_a_group_is_refused(broker: Broker) -> None:
    filled(broker, "a", 5)
    by_hand = Consumer(broker, group=GROUP, auto_commit=False)
    by_hand.assign([A0])
    assert len(by_hand.poll()) == 5
    consumer = member(broker)
    assert len(consumer.poll()) == 5
    consumer.commit({A0: 2})
    for refused in (None, {A0: 5}):
        with pytest.raises(CommitError):
            by_hand.commit(refused)
    assert committed(broker) == {A0: 2}


# -- topics that go -----------------------------------------------------------------------------


def test_a_topic_made_again_starts_clean(broker: Broker) -> None:
    filled(broker, "a", 5)
    filled(broker, "b", 5)
    with member(broker, "a", "b") as consumer:
        consumer.poll()
        consumer.commit()
    broker.delete_topic("a")
    filled(broker, "a", 3)
    assert committed(broker) == {("b", 0): 5}
    consumer = member(broker, "a", "b")
    assert consumer.committed(A0) is None
    assert places(consumer.poll()) == [("a", 0, n) for n in range(3)]
    consumer.commit()
    assert committed(broker) == {("a", 0): 3, ("b", 0): 5}


@pytest.mark.parametrize("auto_commit", [False, True])
def test_what_was_polled_of_a_deleted_topic_is_not_committed_to_the_one_made_again(
    broker: Broker, auto_commit: bool
) -> None:
    filled(broker, "a", 5)
    consumer = Consumer(broker, "a", group=GROUP, auto_commit=auto_commit)
    assert len(consumer.poll()) == 5
    broker.delete_topic("a")
    filled(broker, "a", 7)
    if not auto_commit:
        with contextlib.suppress(CommitError):
            consumer.commit()
    assert offsets(consumer.poll()) == list(range(7))
    assert committed(broker) == {}, "old offsets became the new topic's"
