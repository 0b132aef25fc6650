"""Consumer groups, as their contract says: who is a member and who owns which partition.

Knows only the public face. Members poll in turn, in one thread, so that every step is seen.
"""

from __future__ import annotations

import gc
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from members import GROUP, assert_shared, filled, owners, partitions, places, read_all, settle

from minilog import Broker, Consumer
from minilog.testing import ManualClock


@pytest.fixture(params=["memory", "disk"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    path = ":memory:" if request.param == "memory" else tmp_path / "log"
    with Broker(path, clock=ManualClock(1000), segment_bytes=4096) as opened:
        yield opened


def member(broker: Broker, *topics: Any, **settings: Any) -> Consumer:
    return Consumer(broker, *topics, group=GROUP, **settings)


def member_count(broker: Broker) -> int:
    return len(broker.groups[GROUP].members) if GROUP in broker.groups else 0


# -- joining and leaving ------------------------------------------------------------------------


def test_a_member_is_seen_as_soon_as_it_joins_and_no_more_once_it_leaves(broker: Broker) -> None:
    filled(broker, "a", 0, 0)
    first = member(broker, "a")
    assert member_count(broker) == 1
    second = member(broker, "a")
    assert member_count(broker) == 2
    first.close()
    assert member_count(broker) == 1
    second.unsubscribe()
    assert member_count(broker) == 0
    second.subscribe(["a"])
    assert member_count(broker) == 1
    settle(second)
    assert_shared(broker, second)


def test_a_consumer_that_has_not_subscribed_is_no_member(broker: Broker) -> None:
    filled(broker, "a", 0)
    first = member(broker, "a")
    second = member(broker)
    settle(first)
    assert member_count(broker) == 1
    assert not second.assignment()
    assert_shared(broker, first)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("assignor", ["sticky", "range", "roundrobin"])
def test_every_partition_has_one_owner_once_every_member_has_polled(
    broker: Broker, assignor: str, count: int
) -> None:
    filled(broker, "a", 0, 0, 0)
    consumers: list[Consumer] = []
    for _ in range(count):
        consumers.append(member(broker, "a", assignor=assignor))
        for consumer in consumers:
            assert not consumer.poll(0)
        assert set(owners(broker)) == partitions("a", 0, 1, 2), "orphaned"
    settle(*consumers)
    assert_shared(broker, *consumers)
    sizes = sorted(len(consumer.assignment()) for consumer in consumers)
    assert sizes == sorted([3 // count + (n < 3 % count) for n in range(count)])


def test_members_beyond_the_partitions_idle_and_take_over(broker: Broker) -> None:
    topic = filled(broker, "a", 0)
    first, second = member(broker, "a"), member(broker, "a")
    settle(first, second)
    owner, idle = (first, second) if first.assignment() else (second, first)
    assert not idle.assignment()
    topic[0].append(b"v")
    assert not idle.poll(0)
    assert len(owner.poll(0)) == 1
    owner.close()
    topic[0].append(b"w")
    assert [record.value for _ in range(2) for record in idle.poll(0)] == [b"w"]


def test_a_group_shares_the_records_and_another_group_gets_them_all(broker: Broker) -> None:
    filled(broker, "a", 0, 0, 0, 0)
    sharing = [member(broker, "a") for _ in range(3)]
    settle(*sharing)
    alone = Consumer(broker, "a", group="audit")
    groupless = Consumer(broker, "a")
    for number in range(40):
        broker.topic("a")[number % 4].append(b"v")
    everything = [("a", partition, offset) for partition in range(4) for offset in range(10)]
    assert sorted(read_all(*sharing)) == everything
    assert sorted(read_all(alone)) == everything
    assert sorted(read_all(groupless)) == everything


def test_members_own_only_partitions_of_topics_they_subscribed_to(broker: Broker) -> None:
    filled(broker, "a", 0, 0)
    filled(broker, "b", 0, 0)
    filled(broker, "c", 0)
    of_a, of_both = member(broker, "a"), member(broker, "a", "b")
    settle(of_a, of_both)
    assert_shared(broker, of_a, of_both)
    assert set(of_a.assignment()) <= partitions("a", 0, 1)
    assert partitions("b", 0, 1) <= set(of_both.assignment())
    assert set(owners(broker)) == partitions("a", 0, 1) | partitions("b", 0, 1)
    of_both.close()
    settle(of_a)
    assert set(owners(broker)) == partitions("a", 0, 1), "b has no subscriber any more"


# -- what rebalances at once --------------------------------------------------------------------


def test_partitions_that_are_added_are_shared_out(broker: Broker) -> None:
    topic = filled(broker, "a", 0)
    consumers = [member(broker, "a") for _ in range(3)]
    settle(*consumers)
    topic.add_partitions(6)
    for partition in topic:
        partition.append(b"v")
    assert sorted(read_all(*consumers)) == [("a", number, 0) for number in range(6)]
    assert_shared(broker, *consumers)
    assert [len(consumer.assignment()) for consumer in consumers] == [2, 2, 2]


def test_a_topic_that_matches_a_pattern_is_shared_out_and_a_deleted_one_goes(
    broker: Broker,
) -> None:
    consumers = [member(broker, re.compile("^x-")) for _ in range(2)]
    settle(*consumers)
    assert all(not consumer.assignment() for consumer in consumers)
    filled(broker, "x-1", 3, 3)
    filled(broker, "other", 3)
    assert sorted(read_all(*consumers)) == [("x-1", p, n) for p in range(2) for n in range(3)]
    assert_shared(broker, *consumers)
    broker.delete_topic("x-1")
    filled(broker, "x-2", 1)
    assert read_all(*consumers) == [("x-2", 0, 0)]
    assert set(owners(broker)) == partitions("x-2", 0)


def closed(consumers: list[Consumer]) -> None:
    consumers.pop().close()


def unsubscribed(consumers: list[Consumer]) -> None:
    consumers.pop().unsubscribe()


def dropped(consumers: list[Consumer]) -> None:
    consumers.pop()
    gc.collect()


@pytest.mark.parametrize("leave", [closed, unsubscribed, dropped])
def test_what_a_leaving_member_had_goes_to_the_others(
    broker: Broker, leave: Callable[[list[Consumer]], None]
) -> None:
    topic = filled(broker, "a", 0, 0, 0, 0)
    consumers = [member(broker, "a") for _ in range(2)]
    settle(*consumers)
    assert len(consumers[1].assignment()) == 2
    leave(consumers)
    assert member_count(broker) == 1
    for partition in topic:
        partition.append(b"v")
    assert sorted(read_all(*consumers)) == [("a", number, 0) for number in range(4)]
    assert_shared(broker, *consumers)


def test_records_a_dropped_member_had_not_committed_are_delivered_to_another(
    broker: Broker,
) -> None:
    filled(broker, "a", 10)
    lost = member(broker, "a")
    assert len(lost.poll(max_records=4)) == 4
    del lost
    gc.collect()
    assert places(member(broker, "a").poll()) == [("a", 0, n) for n in range(10)]


def test_a_dropped_member_with_callbacks_and_an_open_iteration_leaves_too(broker: Broker) -> None:
    filled(broker, "a", 10)
    told: list[Any] = []
    lost = member(broker)
    lost.subscribe("a", on_assigned=told.append, on_revoked=told.append, on_lost=told.append)
    iteration = iter(lost)
    next(iteration)
    told.clear()
    del lost, iteration
    gc.collect()
    assert member_count(broker) == 0
    assert told == [], "a callback ran outside of poll, close and unsubscribe"


# -- at most one owner, whatever happens --------------------------------------------------------


@pytest.mark.parametrize("assignor", ["sticky", "range", "roundrobin"])
@pytest.mark.parametrize("seed", range(8))
def test_at_no_step_has_a_partition_two_owners_and_every_record_comes_once(
    assignor: str, seed: int
) -> None:
    chance = random.Random(seed)
    with Broker(":memory:", clock=ManualClock()) as broker:
        topic = broker.create_topic("a", partitions=2)
        consumers: list[Consumer] = []
        seen: Counter[tuple[str, int, int]] = Counter()
        generation = 0
        for _ in range(300):
            step = chance.random()
            if step < 0.08 and len(consumers) < 6:
                consumers.append(member(broker, "a", assignor=assignor))
            elif step < 0.14 and consumers:
                consumers.pop(chance.randrange(len(consumers))).close()
            elif step < 0.16 and len(topic) < 9:
                topic.add_partitions(len(topic) + chance.randrange(1, 3))
            elif step < 0.4:
                topic[chance.randrange(len(topic))].append(b"v")
            elif consumers:
                polled = chance.choice(consumers)
                seen.update(places(polled.poll(0, max_records=chance.randrange(1, 4))))
            assigned = [tp for consumer in consumers for tp in consumer.assignment()]
            assert len(assigned) == len(set(assigned)), f"seed {seed}: {assigned}"
            if GROUP in broker.groups:
                owners(broker)
                assert broker.groups[GROUP].generation >= generation
                generation = broker.groups[GROUP].generation
        consumers.append(member(broker, "a", assignor=assignor))
        seen.update(read_all(*consumers))
        assert_shared(broker, *consumers)
        everything = {("a", p.index, n) for p in topic for n in range(p.end_offset)}
        assert set(seen) == everything, f"seed {seed}"
        assert max(seen.values()) == 1, f"seed {seed}: delivered twice though all was orderly"


def test_a_revoked_partition_s_fetched_records_are_not_delivered(broker: Broker) -> None:
    filled(broker, "a", 50, 50)
    first = member(broker, "a")
    iteration = iter(first)
    seen = {"first": [next(iteration), next(iteration)], "second": []}
    second = member(broker, "a")
    for _ in range(150):  # both go on in turn; both partitions were fetched by the first
        seen["first"].append(next(iteration))
        seen["second"] += second.poll(0, max_records=1)
        if len(seen["second"]) >= 10:
            break
    assert len(seen["second"]) >= 10, "the iteration never gives a partition up"
    (taken,) = second.assignment()
    after = list(second.poll(0)) + [next(iteration) for _ in range(5)]
    assert all(record.partition != taken.partition for record in after[-5:])
    counted = Counter(places(seen["first"] + seen["second"] + after))
    assert max(counted.values()) == 1, "a record was delivered to both"


def test_a_member_that_is_paused_keeps_its_membership_and_loses_the_pause_with_the_partition(
    broker: Broker,
) -> None:
    topic = filled(broker, "a", 0, 0)
    first = member(broker, "a")
    settle(first)
    first.pause(("a", 0), ("a", 1))
    second = member(broker, "a")
    settle(first, second)
    (kept,), (moved,) = first.assignment(), second.assignment()
    for partition in topic:
        partition.append(b"v")
    assert places(second.poll()) == [(*moved, 0)]
    assert not first.poll()
    assert set(first.paused()) == {kept}
    second.close()
    topic[moved.partition].append(b"w")
    assert read_all(first) == [(*moved, 1)], "the pause of a revoked partition came back"
    first.resume(kept)
    assert read_all(first) == [(*kept, 0)]
