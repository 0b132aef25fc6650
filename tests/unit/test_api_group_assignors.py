"""Assignors, as their contract says: range and roundrobin as Kafka has them, sticky moves little.

The vectors of range and roundrobin are the examples in the documentation of Kafka's
RangeAssignor and RoundRobinAssignor. Members are named, since their names decide.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from members import GROUP, Diary, assert_shared, filled, owners, partitions, read_all, settle
from running import Running

from minilog import Broker, ConfigError, Consumer, TopicPartition
from minilog.testing import ManualClock

Assignment = dict[str, set[tuple[str, int]]]


@pytest.fixture(params=["memory", "disk"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    path = ":memory:" if request.param == "memory" else tmp_path / "log"
    with Broker(path, clock=ManualClock(1000)) as opened:
        yield opened


def members_of(
    broker: Broker, assignor: Any, subscriptions: Mapping[str, list[str]]
) -> dict[str, Consumer]:
    """Named members, joined in an order that must not matter, and settled."""
    names = list(subscriptions)
    random.Random(str(names)).shuffle(names)
    found = {
        name: Consumer(broker, *subscriptions[name], group=GROUP, member_id=name, assignor=assignor)
        for name in names
    }
    settle(*found.values())
    return found


def assignment_of(broker: Broker) -> Assignment:
    return {
        name: {(tp.topic, tp.partition) for tp in assignment}
        for name, assignment in broker.groups[GROUP].members.items()
    }


def pairs(text: str) -> set[tuple[str, int]]:
    """``"t0 0,1 t1 2"`` as topic partitions."""
    words = text.split()
    return {
        (topic, int(number))
        for topic, numbers in zip(words[::2], words[1::2], strict=True)
        for number in numbers.split(",")
    }


Vector = tuple[dict[str, int], dict[str, list[str]], dict[str, str]]

RANGE: dict[str, Vector] = {
    "two topics of three, two members": (
        {"t0": 3, "t1": 3},
        {"c0": ["t0", "t1"], "c1": ["t0", "t1"]},
        {"c0": "t0 0,1 t1 0,1", "c1": "t0 2 t1 2"},
    ),
    "five partitions, three members": (
        {"t": 5},
        {"a": ["t"], "b": ["t"], "c": ["t"]},
        {"a": "t 0,1", "b": "t 2,3", "c": "t 4"},
    ),
    "more members than partitions": (
        {"t": 2},
        {"a": ["t"], "b": ["t"], "c": ["t"]},
        {"a": "t 0", "b": "t 1", "c": ""},
    ),
    "members sorted as text": (
        {"t": 3},
        {"m2": ["t"], "m10": ["t"], "m1": ["t"]},
        {"m1": "t 0", "m10": "t 1", "m2": "t 2"},
    ),
    "each topic among its own subscribers": (
        {"t0": 3, "t1": 3},
        {"a": ["t0"], "b": ["t0", "t1"], "c": ["t1"]},
        {"a": "t0 0,1", "b": "t0 2 t1 0,1", "c": "t1 2"},
    ),
}
ROUNDROBIN: dict[str, Vector] = {
    "two topics of three, two members": (
        {"t0": 3, "t1": 3},
        {"c0": ["t0", "t1"], "c1": ["t0", "t1"]},
        {"c0": "t0 0,2 t1 1", "c1": "t0 1 t1 0,2"},
    ),
    "different subscriptions": (
        {"t0": 1, "t1": 2, "t2": 3},
        {"c0": ["t0"], "c1": ["t0", "t1"], "c2": ["t0", "t1", "t2"]},
        {"c0": "t0 0", "c1": "t1 0", "c2": "t1 1 t2 0,1,2"},
    ),
    "more members than partitions": (
        {"t": 2},
        {"a": ["t"], "b": ["t"], "c": ["t"]},
        {"a": "t 0", "b": "t 1", "c": ""},
    ),
    "topics sorted as text": (
        {"t10": 1, "t2": 1, "t1": 1},
        {"a": ["t1", "t2", "t10"], "b": ["t1", "t2", "t10"]},
        {"a": "t1 0 t2 0", "b": "t10 0"},
    ),
    "ten partitions, four members": (
        {"t": 10},
        {"a": ["t"], "b": ["t"], "c": ["t"], "d": ["t"]},
        {"a": "t 0,4,8", "b": "t 1,5,9", "c": "t 2,6", "d": "t 3,7"},
    ),
}
VECTORS = [("range", name, vector) for name, vector in RANGE.items()]
VECTORS += [("roundrobin", name, vector) for name, vector in ROUNDROBIN.items()]


@pytest.mark.parametrize(("assignor", "name", "vector"), VECTORS, ids=str)
def test_range_and_roundrobin_assign_as_kafka_does(
    broker: Broker, assignor: str, name: str, vector: Vector
) -> None:
    topics, subscriptions, expected = vector
    for topic, count in topics.items():
        filled(broker, topic, *[0] * count)
    found = members_of(broker, assignor, subscriptions)
    assert assignment_of(broker) == {who: pairs(text) for who, text in expected.items()}
    assert_shared(broker, *found.values())


# -- sticky -------------------------------------------------------------------------------------


def sizes(broker: Broker) -> list[int]:
    return sorted(len(assignment) for assignment in broker.groups[GROUP].members.values())


def test_sticky_is_the_default_and_balanced(broker: Broker) -> None:
    filled(broker, "a", *[0] * 7)
    filled(broker, "b", *[0] * 4)
    consumers = []
    for count in range(1, 5):
        consumers.append(Consumer(broker, "a", "b", group=GROUP))
        settle(*consumers)
        assert sizes(broker)[-1] - sizes(broker)[0] <= 1
        assert sum(sizes(broker)) == 11
        assert len(sizes(broker)) == count


@pytest.mark.parametrize("seed", range(10))
def test_sticky_moves_only_what_must_move(seed: int) -> None:
    chance = random.Random(seed)
    with Broker(":memory:", clock=ManualClock()) as broker:
        topic = filled(broker, "a", *[0] * chance.randrange(1, 30))
        consumers: list[Consumer] = []
        held: dict[int, set[TopicPartition]] = {}
        for _ in range(12):
            step = chance.choice(["join", "join", "leave", "grow"])
            left: set[TopicPartition] = set()
            if step == "join":
                consumers.append(Consumer(broker, "a", group=GROUP))
            elif step == "leave" and len(consumers) > 1:
                leaver = consumers.pop(chance.randrange(len(consumers)))
                left = held.pop(id(leaver))
                leaver.close()
            elif step == "grow" and consumers:
                topic.add_partitions(len(topic) + chance.randrange(1, 5))
            if not consumers:
                continue
            settle(*consumers)
            assert_shared(broker, *consumers)
            assert sizes(broker)[-1] - sizes(broker)[0] <= 1
            now = {id(consumer): set(consumer.assignment()) for consumer in consumers}
            moved = sum(len(held[who] - now[who]) for who in held)
            must = len(topic) // len(consumers) if step == "join" and len(consumers) > 1 else 0
            assert moved == must, f"seed {seed}: {step} moved {moved}, and {must} must"
            assert left <= set().union(*now.values())
            held = now


@pytest.mark.parametrize("seed", range(20))
def test_sticky_with_different_subscriptions_leaves_no_move_that_would_balance(seed: int) -> None:
    chance = random.Random(seed)
    with Broker(":memory:", clock=ManualClock()) as broker:
        names = [f"t{number}" for number in range(chance.randrange(1, 6))]
        for name in names:
            filled(broker, name, *[0] * chance.randrange(1, 7))
        wanted = {
            f"m{number}": chance.sample(names, chance.randrange(1, len(names) + 1))
            for number in range(chance.randrange(2, 7))
        }
        consumers = members_of(broker, "sticky", wanted)
        assert_shared(broker, *consumers.values())
        found = assignment_of(broker)
        for owner, assignment in found.items():
            for topic, _ in assignment:
                assert topic in wanted[owner]
                for other in wanted:
                    better = topic in wanted[other] and len(found[other]) < len(assignment) - 1
                    assert not better, f"seed {seed}: {topic} of {owner} could go to {other}"


def test_sticky_revokes_only_what_moves(broker: Broker) -> None:
    filled(broker, "a", *[0] * 6)
    diary = Diary()
    first = diary.subscribe(Consumer(broker, group=GROUP), "first", ["a"])
    settle(first)
    assert diary.told("first", "assigned") == partitions("a", *range(6))
    diary.clear()
    second = diary.subscribe(Consumer(broker, group=GROUP), "second", ["a"])
    settle(first, second)
    moved = diary.told("first", "revoked")
    assert len(moved) == 3
    assert diary.told("second", "assigned") == moved
    assert diary.told("first", "assigned") == set(), "what stays is not assigned again"
    assert set(first.assignment()) == partitions("a", *range(6)) - moved


def test_sticky_gives_the_records_of_what_stays_without_a_break(broker: Broker) -> None:
    topic = filled(broker, "a", *[10] * 4)
    first = Consumer(broker, "a", group=GROUP, auto_commit=False)
    assert len(first.poll()) == 40
    second = Consumer(broker, "a", group=GROUP, auto_commit=False)
    for partition in topic:
        partition.append(b"v")
    again = first.poll()
    stays = {tp.partition for tp in first.assignment()}
    assert len(stays) == 2
    assert sorted((record.partition, record.offset) for record in again) == [
        (number, 10) for number in sorted(stays)
    ]
    second.close()
    assert set(owners(broker)) == partitions("a", *range(4))


# -- an assignor of one's own -------------------------------------------------------------------


def to_the_first(members: Any, topic_partitions: Any) -> Any:
    """Everything to the member whose name is first."""
    return {min(members): topic_partitions}


def test_a_callable_is_asked_with_members_and_partitions_and_its_answer_stands(
    broker: Broker,
) -> None:
    filled(broker, "a", 0, 0)
    filled(broker, "b", 0)
    asked: list[Any] = []

    def assignor(members: Any, topic_partitions: Any) -> Any:
        asked.append((dict(members), list(topic_partitions)))
        return {name: topic_partitions if name == "w1" else [] for name in members}

    consumers = members_of(broker, assignor, {"w1": ["a", "b"], "w2": ["a"]})
    assert asked[-1] == (
        {"w1": frozenset({"a", "b"}), "w2": frozenset({"a"})},
        [("a", 0), ("a", 1), ("b", 0)],
    )
    assert assignment_of(broker) == {"w1": pairs("a 0,1 b 0"), "w2": set()}
    assert_shared(broker, *consumers.values())
    before = len(asked)
    settle(*consumers.values())
    assert len(asked) == before, "asked though nothing had changed"


def test_what_a_callable_leaves_out_is_nobody_s(broker: Broker) -> None:
    filled(broker, "a", 0, 0, 0)
    members_of(broker, lambda members, tps: {"w1": [("a", 1)]}, {"w1": ["a"], "w2": ["a"]})
    assert assignment_of(broker) == {"w1": {("a", 1)}, "w2": set()}


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [("a", 0)],
        {"nobody": [("a", 0)]},
        {"w1": [("a", 0), ("a", 0)]},
        {"w1": [("a", 0)], "w2": [("a", 0)]},
        {"w1": [("a", 7)]},
        {"w1": [("nope", 0)]},
        {"w2": [("b", 0)]},
        {"w1": None},
        {"w1": 5},
        {"w1": [5]},
        {"w1": ["a"]},
        {"w1": [("a",)]},
        {"w1": [("a", 0, 0)]},
        {"w1": [(["a"], 0)]},
    ],
    ids=repr,
)
def test_an_answer_that_cannot_stand_is_a_config_error_and_nobody_joins(
    broker: Broker, answer: Any
) -> None:
    filled(broker, "a", 0)
    filled(broker, "b", 0)

    def assignor(members: Any, topic_partitions: Any) -> Any:
        return to_the_first(members, topic_partitions) if len(members) == 1 else answer

    first = members_of(broker, assignor, {"w1": ["a", "b"]})["w1"]
    with pytest.raises(ConfigError):
        Consumer(broker, "a", group=GROUP, member_id="w2", assignor=assignor)
    assert assignment_of(broker) == {"w1": {("a", 0), ("b", 0)}}
    broker.topic("a")[0].append(b"v")
    assert len(first.poll(0)) == 1


def test_what_a_callable_raises_comes_out_of_the_call_that_asked_and_all_keep_what_they_have(
    broker: Broker,
) -> None:
    topic = filled(broker, "a", 0)
    fails = False

    def assignor(members: Any, topic_partitions: Any) -> Any:
        if fails:
            raise ZeroDivisionError("mine")
        return to_the_first(members, topic_partitions)

    first = members_of(broker, assignor, {"w1": ["a"]})["w1"]
    topic[0].append(b"v")
    fails = True
    with pytest.raises(ZeroDivisionError, match="mine"):
        Consumer(broker, "a", group=GROUP, member_id="w0", assignor=assignor)
    topic.add_partitions(2)
    with pytest.raises(ZeroDivisionError, match="mine"):
        first.poll(0)
    fails = False
    topic[1].append(b"v")
    assert len(read_all(first)) == 2
    assert assignment_of(broker) == {"w1": pairs("a 0,1")}


def test_members_that_ask_for_different_assignors_are_refused(broker: Broker) -> None:
    filled(broker, "a", 0)
    first = members_of(broker, "range", {"w1": ["a"]})["w1"]
    for assignor in ("sticky", "roundrobin", to_the_first):
        with pytest.raises(ConfigError):
            Consumer(broker, "a", group=GROUP, assignor=assignor)
    assert assignment_of(broker) == {"w1": {("a", 0)}}
    first.close()


def test_a_callable_runs_under_no_lock(broker: Broker) -> None:
    filled(broker, "a", 0)
    seen: list[Any] = []

    def assignor(members: Any, topic_partitions: Any) -> Any:
        other = Consumer(broker, "a", group="another")
        seen.append(Running(lambda: (list(broker.topics), other.poll(0), other.close())).result())
        return to_the_first(members, topic_partitions)

    consumer = Consumer(broker, "a", group=GROUP, assignor=assignor)
    settle(consumer)
    assert seen
    assert_shared(broker, consumer)
