"""Callbacks of a group's members, as their contract says: that raise, that wait for other threads,
that use their own consumer.

Knows only the public face.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from members import GROUP, assert_shared, filled, partitions, places, read_all, settle
from running import Running

from minilog import Broker, ClosedError, Consumer, Producer, TopicPartition
from minilog.testing import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1000)


@pytest.fixture(params=["memory", "disk"])
def broker(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> Iterator[Broker]:
    path = ":memory:" if request.param == "memory" else tmp_path / "log"
    with Broker(path, clock=clock, segment_bytes=4096) as opened:
        yield opened


def member(broker: Broker, **settings: Any) -> Consumer:
    return Consumer(broker, group=GROUP, **settings)


# -- what a callback raises ---------------------------------------------------------------------


def fail(given: list[TopicPartition]) -> None:
    if given:
        raise ZeroDivisionError("mine")


def test_what_on_assigned_raises_comes_out_of_poll_and_the_assignment_stands(
    broker: Broker,
) -> None:
    filled(broker, "a", 3, 3)
    consumer = member(broker)
    consumer.subscribe(["a"], on_assigned=fail)
    with pytest.raises(ZeroDivisionError, match="mine"):
        consumer.poll()
    assert set(consumer.assignment()) == partitions("a", 0, 1)
    assert sorted(read_all(consumer)) == [("a", p, n) for p in range(2) for n in range(3)]


def test_what_on_revoked_raises_comes_out_of_poll_and_the_partition_moves(broker: Broker) -> None:
    topic = filled(broker, "a", 3, 3)
    first = member(broker)
    first.subscribe(["a"], on_revoked=fail)
    assert len(first.poll()) == 6
    second = member(broker)
    second.subscribe(["a"])
    for partition in topic:
        partition.append(b"v")
    with pytest.raises(ZeroDivisionError, match="mine"):
        first.poll()
    assert sorted(read_all(first, second)) == [("a", 0, 3), ("a", 1, 3)]
    assert_shared(broker, first, second)


def test_what_on_lost_raises_comes_out_of_poll_and_the_member_joins_again(
    broker: Broker, clock: ManualClock
) -> None:
    filled(broker, "a", 3)
    consumer = member(broker, max_poll_interval_ms=1000, auto_commit=False)
    consumer.subscribe(["a"], on_lost=fail)
    assert len(consumer.poll()) == 3
    other = member(broker)
    other.subscribe(["a"])
    clock.advance(1001)
    other.poll(0)
    with pytest.raises(ZeroDivisionError, match="mine"):
        consumer.poll()
    other.close()
    settle(consumer)
    assert_shared(broker, consumer)


@pytest.mark.parametrize("way", ["close", "unsubscribe"])
def test_what_on_revoked_raises_comes_out_of_the_end_which_stands(broker: Broker, way: str) -> None:
    filled(broker, "a", 3)
    consumer = member(broker)
    consumer.subscribe(["a"], on_revoked=fail)
    assert len(consumer.poll()) == 3
    with pytest.raises(ZeroDivisionError, match="mine"):
        getattr(consumer, way)()
    assert GROUP not in broker.groups or not broker.groups[GROUP].members
    if way == "close":
        assert broker.groups[GROUP].committed() == {("a", 0): 3}
        with pytest.raises(ClosedError):
            consumer.poll()
        consumer.close()


# -- under no lock ------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["on_assigned", "on_revoked", "close", "on_lost"])
def test_another_thread_can_use_everything_while_a_callback_runs(
    broker: Broker, clock: ManualClock, what: str
) -> None:
    topic = filled(broker, "a", 5, 5)
    consumer = member(broker, max_poll_interval_ms=1000)
    other = Consumer(broker, "a", group=GROUP)
    done: list[str] = []

    def use_everything() -> str:
        broker.create_topic("another", exist_ok=True)
        Producer(broker).send("a", b"v", partition=0)
        topic.add_partitions(len(topic) + 1)
        group = broker.groups[GROUP]
        assert all((group.members, group.state, group.generation))
        group.committed(), group.lag()
        other.poll(0), other.commit(), other.assignment(), other.lag()
        with Consumer(broker, "a", group=GROUP) as third:
            third.poll(0)
        list(Consumer(broker, "a").drain())
        consumer.wakeup(), consumer.subscription() if what != "close" else ()
        broker.maintain(), broker.flush()
        return what

    def callback(given: list[TopicPartition]) -> None:
        if not done and given:
            done.append(Running(use_everything).result())

    name = "on_revoked" if what == "close" else what
    other.unsubscribe()
    consumer.subscribe(["a"], **{name: callback})
    consumer.poll(max_records=1)
    other.subscribe(["a"])
    if what == "close":
        consumer.close()
    elif what == "on_revoked":
        consumer.poll(max_records=1)
    elif what == "on_lost":
        clock.advance(1001)
        other.poll(0)
        consumer.poll(max_records=1)
    assert done == [what]


@pytest.mark.parametrize("call", ["poll", "close", "unsubscribe", "commit", "seek", "drain"])
def test_a_callback_may_use_its_own_consumer(broker: Broker, call: str) -> None:
    filled(broker, "a", 5)
    consumer = member(broker)
    calls: dict[str, Callable[[], Any]] = {
        "poll": lambda: consumer.poll(0),
        "close": consumer.close,
        "unsubscribe": consumer.unsubscribe,
        "commit": lambda: consumer.commit({("a", 0): 1}),
        "seek": lambda: consumer.seek(("a", 0), 3),
        "drain": lambda: list(consumer.drain()),
    }
    made: list[str] = []

    def on_assigned(given: list[TopicPartition]) -> None:
        if given and not made:
            made.append(call)
            calls[call]()

    consumer.subscribe(["a"], on_assigned=on_assigned)
    records = Running(lambda: places(consumer.poll(0))).result()
    assert made == [call]
    if call == "seek":
        assert records == [("a", 0, 3), ("a", 0, 4)]
    if call in ("close", "unsubscribe"):
        assert GROUP not in broker.groups or not broker.groups[GROUP].members
        assert records == []


@pytest.mark.parametrize("call", ["poll", "close", "unsubscribe", "commit", "resubscribe"])
@pytest.mark.parametrize("what", ["on_revoked", "on_lost"])
def test_a_callback_of_what_goes_may_use_its_own_consumer(
    broker: Broker, clock: ManualClock, what: str, call: str
) -> None:
    filled(broker, "a", 5, 5)
    filled(broker, "b", 1)
    consumer = member(broker, max_poll_interval_ms=1000, auto_commit=False)
    other = member(broker, auto_commit=False)
    calls: dict[str, Callable[[], Any]] = {
        "poll": lambda: consumer.poll(0),
        "close": consumer.close,
        "unsubscribe": consumer.unsubscribe,
        "commit": consumer.commit,
        "resubscribe": lambda: consumer.subscribe(["b"]),
    }
    made: list[str] = []

    def callback(given: list[TopicPartition]) -> None:
        if given and not made:
            made.append(call)
            calls[call]()

    consumer.subscribe(["a"], **{what: callback})  # type: ignore[arg-type]
    assert len(consumer.poll()) == 10
    other.subscribe(["a"])
    if what == "on_lost":
        clock.advance(1001)
        other.poll(0)
    Running(lambda: places(consumer.poll(0))).result()
    assert made == [call]
    left = [other] if call in ("close", "unsubscribe") else [consumer, other]
    read_all(*left)
    assert_shared(broker, *left)
