"""Callbacks of a group's members, as their contract says: when, in which order, in whose
thread, and who learns that what it had is lost.

Knows only the public face.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from members import GROUP, Diary, assert_shared, filled, partitions, places, read_all, settle
from running import Running

from minilog import Broker, CommitError, Consumer, TopicPartition
from minilog.testing import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1000)


@pytest.fixture(params=["memory", "disk"])
def broker(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> Iterator[Broker]:
    path = ":memory:" if request.param == "memory" else tmp_path / "log"
    with Broker(path, clock=clock, segment_bytes=4096) as opened:
        yield opened


@pytest.fixture
def diary() -> Diary:
    return Diary()


def member(broker: Broker, **settings: Any) -> Consumer:
    return Consumer(broker, group=GROUP, **settings)


# -- when, and in whose thread ------------------------------------------------------------------


def test_callbacks_run_in_no_call_but_the_member_s_own_poll_close_and_unsubscribe(
    broker: Broker, clock: ManualClock, diary: Diary
) -> None:
    topic = filled(broker, "a", 0, 0)
    first = diary.subscribe(member(broker), "first", re.compile("^a"))
    assert diary.calls == []
    first.assignment()
    first.commit()
    assert diary.calls == []
    settle(first)
    assert diary.told("first", "assigned") == partitions("a", 0, 1)
    diary.clear()
    second = diary.subscribe(member(broker), "second", re.compile("^a"))
    topic.add_partitions(4)
    broker.create_topic("a2")
    clock.advance(1000)
    assert diary.calls == []
    settle(second)
    assert not [call for call in diary.calls if call.member == "first"]
    settle(first, second)
    assert diary.told("second", "assigned") == set(second.assignment())
    diary.clear()
    second.close()
    assert {(call.member, call.what) for call in diary.calls} == {("second", "revoked")}
    clock.advance(10_000_000)
    assert not [call for call in diary.calls if call.member == "first"]


def test_a_callback_gets_a_list_of_topic_partitions(broker: Broker) -> None:
    filled(broker, "a", 0, 0)
    given: list[Any] = []
    consumer = member(broker)
    consumer.subscribe(["a"], on_assigned=given.append, on_revoked=given.append)
    settle(consumer)
    consumer.unsubscribe()
    assert [sorted(each) for each in given if each] == [sorted(partitions("a", 0, 1))] * 2
    assert all(isinstance(each, list) for each in given)
    assert all(isinstance(tp, TopicPartition) for each in given for tp in each)


@pytest.mark.parametrize("way", ["poll", "iterate", "drain", "close", "unsubscribe"])
def test_callbacks_run_in_the_thread_of_the_call(broker: Broker, diary: Diary, way: str) -> None:
    filled(broker, "a", 1)
    consumer = diary.subscribe(member(broker), "only", ["a"])
    calls: dict[str, Callable[[], Any]] = {
        "poll": consumer.poll,
        "iterate": lambda: next(iter(consumer)),
        "drain": lambda: list(consumer.drain()),
        "close": consumer.close,
        "unsubscribe": consumer.unsubscribe,
    }
    if way in ("close", "unsubscribe"):
        consumer.poll()
        diary.clear()
    running = Running(calls[way])
    running.result()
    (call,) = [call for call in diary.calls if call.partitions]
    assert call.thread == running.ident != threading.get_ident()
    assert set(call.partitions) == partitions("a", 0)


def test_a_waiting_poll_takes_part_in_what_others_do_to_the_group(
    broker: Broker, diary: Diary
) -> None:
    topic = filled(broker, "a", 0, 0)
    first = diary.subscribe(member(broker), "first", ["a"])
    waiting = Running(lambda: first.poll(None))
    assert waiting.waits()
    is_assigned = threading.Event()
    second = member(broker)
    second.subscribe(["a"], on_assigned=lambda given: is_assigned.set() if given else None)
    other = Running(lambda: second.poll(None))
    assert is_assigned.wait(20), "the member that waits does not let go"
    (moved,) = diary.told("first", "revoked")
    assert {call.thread for call in diary.calls} == {waiting.ident}
    assert not waiting.done
    topic[moved.partition].append(b"v")
    assert places(other.result()) == [(*moved, 0)]
    second.close()
    topic[moved.partition].append(b"w")
    assert places(waiting.result()) == [(*moved, 1)], "it does not take over while it waits"


# -- order --------------------------------------------------------------------------------------


@pytest.mark.parametrize("assignor", ["sticky", "range", "roundrobin"])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_what_moves_is_revoked_before_it_is_assigned_to_the_next(
    broker: Broker, diary: Diary, assignor: str, order: tuple[int, int]
) -> None:
    filled(broker, "a", *[0] * 5)
    first = diary.subscribe(member(broker, assignor=assignor), "first", ["a"])
    settle(first)
    second = diary.subscribe(member(broker, assignor=assignor), "second", ["a"])
    both = (first, second)
    settle(*[both[number] for number in order])
    assert_shared(broker, first, second)
    held: dict[str, set[TopicPartition]] = {"first": set(), "second": set()}
    for call in diary.calls:
        if call.what == "assigned":
            for others in (held[name] for name in held if name != call.member):
                assert not others & set(call.partitions), "assigned before it was revoked"
            held[call.member] |= set(call.partitions)
        else:
            assert call.what == "revoked"
            assert set(call.partitions) <= held[call.member], "revoked what it did not have"
            held[call.member] -= set(call.partitions)
    assert held == {"first": set(first.assignment()), "second": set(second.assignment())}


def test_nobody_gets_a_partition_while_its_on_revoked_runs_and_that_may_commit(
    broker: Broker,
) -> None:
    filled(broker, "a", 10, 10)
    first = member(broker, auto_commit=False)
    second = member(broker, auto_commit=False)
    during: list[tuple[Any, Any]] = []

    def on_revoked(given: list[TopicPartition]) -> None:
        taken = Running(lambda: places(second.poll(0))).result()
        during.append((taken, set(second.assignment())))
        first.commit(dict.fromkeys(given, 4))

    first.subscribe(["a"], on_revoked=on_revoked)
    assert len(first.poll()) == 20
    second.subscribe(["a"])
    assert not second.poll(0)
    first.poll(0)
    assert during == [([], set())]
    taken = read_all(second)
    (moved,) = second.assignment()
    assert taken == [(*moved, offset) for offset in range(4, 10)]


def test_a_member_is_told_only_of_what_it_has_when_it_polls(broker: Broker, diary: Diary) -> None:
    """What the first was given as it joined went to the second before the first had polled."""
    filled(broker, "a", 0, 0)
    first = diary.subscribe(member(broker), "first", ["a"])
    assert set(first.assignment()) == partitions("a", 0, 1)
    second = diary.subscribe(member(broker), "second", ["a"])
    settle(second)
    settle(first)
    assert diary.told("first", "assigned") == set(first.assignment())
    assert diary.told("second", "assigned") == set(second.assignment())
    assert_shared(broker, first, second)


@pytest.mark.parametrize("way", ["close", "unsubscribe"])
def test_a_member_that_was_told_nothing_is_told_nothing_when_it_goes(
    broker: Broker, diary: Diary, way: str
) -> None:
    filled(broker, "a", 0, 0)
    consumer = diary.subscribe(member(broker), "only", ["a"])
    assert set(consumer.assignment()) == partitions("a", 0, 1)
    getattr(consumer, way)()
    assert not [call for call in diary.calls if call.partitions]


@pytest.mark.parametrize("looks", [False, True])
def test_a_member_that_was_told_nothing_has_lost_nothing_when_it_polls_late(
    broker: Broker, clock: ManualClock, diary: Diary, looks: bool
) -> None:
    filled(broker, "a", 0, 0)
    late = diary.subscribe(member(broker, max_poll_interval_ms=1000), "late", ["a"])
    if looks:
        assert set(late.assignment()) == partitions("a", 0, 1)
    clock.advance(1001)
    settle(late)
    assert [(call.what, set(call.partitions)) for call in diary.calls] == [
        ("assigned", partitions("a", 0, 1))
    ]


def test_what_is_being_revoked_is_delivered_to_no_other_thread(broker: Broker) -> None:
    topic = filled(broker, "a", 0, 0)
    first, second = member(broker), member(broker)
    during: list[Any] = []

    def on_revoked(given: list[TopicPartition]) -> None:
        for partition in topic:
            partition.append_many([b"v"] * 3)
        during.extend(Running(lambda: places(first.poll(0))).result())
        during.extend(given)

    first.subscribe(["a"], on_revoked=on_revoked)
    settle(first)
    second.subscribe(["a"])
    first.poll(0)
    moved = during.pop()
    assert [partition for _, partition, _ in during] == [1 - moved.partition] * 3
    assert places(second.poll(0)) == [(*moved, offset) for offset in range(3)]


def test_partitions_that_are_added_are_all_that_is_assigned_again(
    broker: Broker, diary: Diary
) -> None:
    topic = filled(broker, "a", 0, 0)
    consumer = diary.subscribe(member(broker), "only", ["a"])
    settle(consumer)
    diary.clear()
    topic.add_partitions(3)
    settle(consumer)
    assert diary.told("only", "assigned") == partitions("a", 2)
    assert diary.told("only", "revoked") == set()


def test_partitions_of_a_deleted_topic_are_given_up(broker: Broker, diary: Diary) -> None:
    filled(broker, "a1", 0)
    filled(broker, "a2", 0, 0)
    consumer = diary.subscribe(member(broker), "only", re.compile("^a"))
    settle(consumer)
    diary.clear()
    broker.delete_topic("a2")
    assert diary.calls == []
    settle(consumer)
    gone = diary.told("only", "revoked") | diary.told("only", "lost")
    assert gone == partitions("a2", 0, 1)
    assert diary.told("only", "assigned") == set()


def test_a_look_between_two_polls_hides_no_revocation(broker: Broker, diary: Diary) -> None:
    """The group has noticed, as another joined, before the member that looks has polled."""
    filled(broker, "a1", 0)
    filled(broker, "a2", 0, 0)
    consumer = diary.subscribe(member(broker), "first", re.compile("^a"))
    settle(consumer)
    broker.delete_topic("a2")
    other = diary.subscribe(member(broker), "second", re.compile("^a"))
    consumer.assignment()
    settle(consumer)
    assert diary.told("first", "revoked") >= partitions("a2", 0, 1)
    settle(other, consumer)
    assert_shared(broker, consumer, other)


def test_another_subscription_revokes_and_assigns_in_the_next_poll(
    broker: Broker, diary: Diary
) -> None:
    filled(broker, "a", 0, 0)
    filled(broker, "b", 0)
    filled(broker, "c", 0)
    consumer = diary.subscribe(member(broker), "only", ["a", "b"])
    settle(consumer)
    diary.clear()
    diary.subscribe(consumer, "only", ["b", "c"])
    assert diary.calls == []
    settle(consumer)
    assert_shared(broker, consumer)
    assert partitions("a", 0, 1) <= diary.told("only", "revoked")
    assert partitions("c", 0) <= diary.told("only", "assigned")


# -- lost ---------------------------------------------------------------------------------------


def test_a_member_that_polls_no_more_loses_its_partitions_and_learns_it_as_lost(
    broker: Broker, clock: ManualClock, diary: Diary
) -> None:
    filled(broker, "a", 0, 0)
    slow = diary.subscribe(member(broker, max_poll_interval_ms=1000), "slow", ["a"])
    quick = diary.subscribe(member(broker), "quick", ["a"])
    settle(slow, quick)
    (had,) = slow.assignment()
    diary.clear()
    clock.advance(999)
    settle(quick)
    assert len(broker.groups[GROUP].members) == 2
    clock.advance(2)
    settle(quick)
    assert_shared(broker, quick)
    assert diary.told("quick", "assigned") == {had}
    assert diary.told("slow", "lost") == diary.told("slow", "revoked") == set()
    slow.poll(0)
    assert diary.told("slow", "lost") == {had}
    assert diary.told("slow", "revoked") == set(), "what is lost is not also revoked"
    settle(slow, quick)
    assert_shared(broker, slow, quick)
    assert len(slow.assignment()) == 1


def test_on_lost_cannot_commit_and_records_are_delivered_to_the_next(
    broker: Broker, clock: ManualClock
) -> None:
    filled(broker, "a", 10)
    refused: list[Any] = []
    slow = member(broker, max_poll_interval_ms=1000)

    def on_lost(given: list[TopicPartition]) -> None:
        with pytest.raises(CommitError) as caught:
            slow.commit(dict.fromkeys(given, 5))
        refused.append(caught.value)

    slow.subscribe(["a"], on_lost=on_lost)
    assert len(slow.poll(max_records=5)) == 5
    quick = member(broker)
    quick.subscribe(["a"])
    settle(quick)
    clock.advance(1001)
    assert read_all(quick) == [("a", 0, offset) for offset in range(10)]
    assert not slow.poll(0)
    assert len(refused) == 1
    quick.close()
    assert broker.groups[GROUP].committed() == {("a", 0): 10}
